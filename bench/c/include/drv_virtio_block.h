/*
 * drv-virtio-block for C: a vhost-user block device as a few functions. ISC licence.
 *
 * Generated from bench/c/src by cbindgen; do not edit. Link with libdrv_virtio_block_c.so, or with
 * libdrv_virtio_block_c.a, -lpthread, -ldl and -lm.
 */

#ifndef DRV_VIRTIO_BLOCK_H
#define DRV_VIRTIO_BLOCK_H

#include <stddef.h>
#include <stdint.h>

/*
 The version of these functions and structures, for `vblk_options.abi`.
 */
#define VBLK_ABI 2

/*
 Done.
 */
#define VBLK_OK 0

/*
 Blame: caller. NULL, or a number without sense.
 */
#define VBLK_INVALID -1

/*
 Blame: caller, mildly. There is no room for more requests: reap, and submit the rest again.
 */
#define VBLK_FULL -2

/*
 Blame: caller. Another thread is in this queue, or the memory belongs to a request that is not over.
 */
#define VBLK_BUSY -3

/*
 Blame: caller. The buffer is not inside one piece of memory from `vblk_alloc`.
 */
#define VBLK_NOT_SHARED -4

/*
 Blame: caller. Beyond the capacity.
 */
#define VBLK_RANGE -5

/*
 Blame: caller. A place or a length is not a multiple of the block size, or a buffer does not begin at one; see
 `vblk_info.block_size`.
 */
#define VBLK_UNALIGNED -6

/*
 Blame: caller. A change of a read-only medium.
 */
#define VBLK_READ_ONLY -7

/*
 Blame: caller. The device does not offer this operation; see `vblk_info`.
 */
#define VBLK_UNSUPPORTED -8

/*
 Blame: caller. No data.
 */
#define VBLK_EMPTY -9

/*
 Blame: device. It answered against the specification; close it.
 */
#define VBLK_DEVICE -20

/*
 Blame: medium. It failed to read or write.
 */
#define VBLK_MEDIUM -30

/*
 Gone: the back-end is lost, or cannot be had. Requests that were not over have no answer.
 */
#define VBLK_GONE -40

/*
 The system has no memory or file descriptor left.
 */
#define VBLK_SYSTEM -50

/*
 Fills the buffer from the medium.
 */
#define VBLK_READ 0

/*
 Stores the buffer on the medium.
 */
#define VBLK_WRITE 1

/*
 Makes what was written and answered before durable; takes neither place nor buffer.
 */
#define VBLK_FLUSH 2

/*
 The range holds nothing of value any more; takes no buffer.
 */
#define VBLK_DISCARD 3

/*
 The range reads as zeros from here on; takes no buffer.
 */
#define VBLK_WRITE_ZEROES 4

/*
 A `VBLK_WRITE` that is answered only when it is durable.
 */
#define VBLK_FUA 1

/*
 A `VBLK_WRITE_ZEROES` that may give the space back.
 */
#define VBLK_UNMAP 2

/*
 The device interrupts: who waits sleeps.
 */
#define VBLK_INTERRUPT 0

/*
 Nothing interrupts: who waits looks again and again, and keeps a processor busy.
 */
#define VBLK_POLLED 1

/*
 The device's write cache is as the device has it. One that says that it has none is not asked to flush.
 */
#define VBLK_CACHE_AS_IT_IS 0

/*
 The device is asked for a write cache: writes are durable after a `VBLK_FLUSH`, which reaches the device.
 */
#define VBLK_CACHE_ON 1

/*
 The device is asked to do without: a completed write is durable.
 */
#define VBLK_CACHE_OFF 2

/*
 An open device; C has a pointer to it.
 */
struct vblk_device;

/*
 A queue; C has a pointer to it.
 */
struct vblk_queue;

/*
 How a device is to be opened.
 */
struct vblk_options {
  /*
   `VBLK_ABI`.
   */
  uint32_t abi;
  /*
   Queues, from 1: one for each thread that does I/O.
   */
  uint32_t queues;
  /*
   Requests in flight per queue, 1 to 1024. Up to 340 each has descriptors of its own, which is fastest.
   */
  uint32_t depth;
  /*
   `VBLK_INTERRUPT` or `VBLK_POLLED`.
   */
  uint32_t mode;
  /*
   Bytes of memory for buffers, for all queues together; at most half of the machine's.
   */
  uint64_t memory;
  /*
   `VBLK_CACHE_AS_IT_IS`, `VBLK_CACHE_ON` or `VBLK_CACHE_OFF`; a device that leaves no choice has its way, which
   `vblk_info.write_cache` tells.
   */
  uint32_t cache;
};

/*
 A device's facts, as they were when it was opened.
 */
struct vblk_info {
  /*
   In bytes.
   */
  uint64_t capacity;
  /*
   Most bytes of one read or write. What is above the device's own limits is cut inside.
   */
  uint64_t max_transfer;
  /*
   Places and lengths are multiples of this many bytes, and so are the addresses at which buffers begin (of 4096 where
   blocks are larger: pieces from `vblk_alloc` begin at pages).
   */
  uint32_t block_size;
  /*
   Queues in use.
   */
  uint32_t queues;
  /*
   Requests that fit into a queue.
   */
  uint32_t depth;
  /*
   `VBLK_INTERRUPT` or `VBLK_POLLED`.
   */
  uint32_t mode;
  /*
   1: the medium refuses changes.
   */
  uint8_t read_only;
  /*
   1: a completed write is durable only after a `VBLK_FLUSH`.
   */
  uint8_t write_cache;
  /*
   1: there is `VBLK_DISCARD`.
   */
  uint8_t discard;
  /*
   1: there is `VBLK_WRITE_ZEROES`.
   */
  uint8_t write_zeroes;
  /*
   0.
   */
  uint32_t reserved;
};

/*
 One request.
 */
struct vblk_request {
  /*
   The caller's; it comes back in the completion.
   */
  uint64_t tag;
  /*
   Where on the medium, in bytes.
   */
  uint64_t offset;
  /*
   How many bytes.
   */
  uint64_t length;
  /*
   Read and write: `length` bytes inside one piece from `vblk_alloc`, which nobody else touches until the request is
   over. NULL for the others.
   */
  void *buffer;
  /*
   `VBLK_READ`, `VBLK_WRITE`, `VBLK_FLUSH`, `VBLK_DISCARD` or `VBLK_WRITE_ZEROES`.
   */
  uint32_t operation;
  /*
   0, `VBLK_FUA` or `VBLK_UNMAP`.
   */
  uint32_t flags;
};

/*
 A request's end.
 */
struct vblk_completion {
  /*
   The request's.
   */
  uint64_t tag;
  /*
   `VBLK_OK`, or why not; nothing is said of parts then.
   */
  int32_t status;
  /*
   0.
   */
  uint32_t reserved;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Opens the vhost-user-blk back-end whose socket is at `path`: `VBLK_OK` and the device in `*device`, or a code, NULL in
 `*device` and one line in `why` that says what to do: `VBLK_INVALID` for options out of range and a path that is empty,
 longer than the 107 bytes of a socket's, or of something else; `VBLK_GONE` where no back-end answers. One that is not
 there is waited for, for a second. What failed keeps neither memory nor connection. The device belongs to this process: a forked child must not use it. It is used until `vblk_close`.

 # Safety
 `path`: a text that ends with 0. `options`: one structure. `device`: where a pointer goes. `why`: `why_len` bytes, or
 NULL. NULL for one of the others is `VBLK_INVALID`.
 */
int32_t vblk_open(const char *path,
                  const struct vblk_options *options,
                  struct vblk_device **device,
                  char *why,
                  size_t why_len);

/*
 Closes a device, when what is in flight is over or after the back-end let go of it. Memory from `vblk_alloc` and
 queues end with it. `VBLK_OK`, and `VBLK_GONE` where the back-end does not answer: the device is closed. `VBLK_BUSY`:
 a thread waits in one of its queues, and it is as it was; that is seen as a courtesy, and not relied upon.

 # Safety
 `device`: from `vblk_open`, not closed since, or NULL, which is `VBLK_INVALID`. No other function uses it meanwhile.
 */
int32_t vblk_close(struct vblk_device *device);

/*
 The device's facts into `*info`.

 # Safety
 `device`: open. `info`: where one structure goes. NULL for either is `VBLK_INVALID`.
 */
int32_t vblk_get_info(const struct vblk_device *device, struct vblk_info *info);

/*
 Memory that the device shares, for buffers: `bytes` of it, beginning at a page, zeroed when it is first handed out.
 NULL: `device` is NULL, `bytes` is 0, or no such piece is left of `vblk_options.memory`.

 # Safety
 `device`: open, or NULL.
 */
void *vblk_alloc(const struct vblk_device *device,
                 size_t bytes);

/*
 Gives memory from `vblk_alloc` back. `VBLK_BUSY`: a request that is not over has it. `VBLK_NOT_SHARED`: it is not the
 beginning of such memory. Not beside a `vblk_submit` of the same memory in another thread: who is first is not seen.

 # Safety
 `device`: open. `memory` is only compared. NULL for either is `VBLK_INVALID`.
 */
int32_t vblk_free(const struct vblk_device *device,
                  void *memory);

/*
 A queue, by its number from 0; NULL: there is none. It is the device's and ends with it.

 # Safety
 `device`: open, or NULL.
 */
const struct vblk_queue *vblk_get_queue(const struct vblk_device *device, uint32_t number);

/*
 Submits `count` requests, in order, as one batch: one publish and one doorbell at most. `*accepted` is how many the
 device has; if not all, the code says what is the matter with the first that it has not. `VBLK_FULL`: reap, then
 submit the rest. `VBLK_BUSY`: another thread is in the queue.

 # Safety
 `queue`: of an open device. `requests`: so many structures. `accepted`: where a number goes, or NULL. NULL for one of
 the others (with a count above 0) is `VBLK_INVALID`.
 */
int32_t vblk_submit(const struct vblk_queue *queue,
                    const struct vblk_request *requests,
                    size_t count,
                    size_t *accepted);

/*
 Takes up to `max` completions, oldest answer first, waiting until there are `min`, nothing is in flight, or
 `timeout_ns` nanoseconds are over (0: does not wait; below 0: without end). `*count` is how many came, whatever the
 code is; fewer than `min` with `VBLK_OK`: the time is over, or nothing is in flight. `VBLK_GONE`, `VBLK_DEVICE`: no
 more will come, what is in flight is lost, close the device. `VBLK_BUSY`: another thread is in the queue.

 # Safety
 `queue`: of an open device. `done`: room for `max` structures. `count`: where a number goes. NULL for one of these
 (`done`: with a `max` above 0), and a `min` above `max`, is `VBLK_INVALID`.
 */
int32_t vblk_reap(const struct vblk_queue *queue,
                  struct vblk_completion *done,
                  size_t max,
                  size_t min,
                  int64_t timeout_ns,
                  size_t *count);

/*
 A code in words that begin with whom it blames; never NULL.
 */
const char *vblk_text(int32_t code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DRV_VIRTIO_BLOCK_H */
