//! The functions that C calls. Each holds what it is given against its contract and answers a code.
//!
//! Text is UTF-8. Unless a function says otherwise, pointers are to memory that stays as it is while the function runs,
//! and a device's functions may be called from several threads at once, a queue's from one at a time.
use crate::device::vblk_device;
use crate::queue::vblk_queue;
use crate::types::{VBLK_BUSY, VBLK_INVALID, VBLK_OK, text_of, vblk_completion, vblk_info, vblk_options, vblk_request};
use drv_virtio_block::platform::Nanos;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{NonNull, null_mut};

/// A reference to what C points to; `None` for NULL and pointers that cannot point to a `T`.
///
/// # Safety
/// A pointer that passes both points to a `T` that nobody changes for 'p.
unsafe fn reference<'p, T>(pointer: *const T) -> Option<&'p T> {
    // SAFETY: not NULL and aligned; the rest is the caller's contract.
    if pointer.is_aligned() { unsafe { pointer.as_ref() } } else { None }
}

/// A list of C's: whether there can be `count` values at `first`. None is there whatever the pointer is.
fn is_list<T>(first: *const T, count: usize) -> bool {
    let fits = count.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
    count == 0 || (!first.is_null() && first.is_aligned() && fits)
}

/// Puts `value` where C wants it, if anywhere.
///
/// # Safety
/// A pointer that is not NULL and aligned is to memory for a `T`.
unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() && place.is_aligned() {
        // SAFETY: as above.
        unsafe { place.write(value) };
    }
}

/// Puts `text` into C's buffer, cut to its length, with a 0 at the end.
///
/// # Safety
/// `place` is NULL or has `len` bytes.
unsafe fn store_text(place: *mut c_char, len: usize, text: &str) {
    if place.is_null() || len == 0 {
        return;
    }
    let bytes = text.bytes().filter(|byte| *byte != 0).take(len - 1).chain([0]);
    for (at, byte) in bytes.enumerate() {
        // SAFETY: at most `len` bytes.
        unsafe { place.add(at).write(byte.cast_signed()) };
    }
}

/// Opens the vhost-user-blk back-end whose socket is at `path`: `VBLK_OK` and the device in `*device`, or a code, NULL in
/// `*device` and one line in `why` that says what to do: `VBLK_INVALID` for options out of range and a path that is empty,
/// longer than the 107 bytes of a socket's, or of something else; `VBLK_GONE` where no back-end answers. One that is not
/// there is waited for, for a second. What failed keeps neither memory nor connection. The device belongs to this process: a forked child must not use it. It is used until `vblk_close`.
///
/// # Safety
/// `path`: a text that ends with 0. `options`: one structure. `device`: where a pointer goes. `why`: `why_len` bytes, or
/// NULL. NULL for one of the others is `VBLK_INVALID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_open(
    path: *const c_char,
    options: *const vblk_options,
    device: *mut *mut vblk_device,
    why: *mut c_char,
    why_len: usize,
) -> i32 {
    // SAFETY: `device` as the contract says.
    unsafe { store(device, null_mut()) };
    // SAFETY: likewise.
    let options = unsafe { reference(options) };
    let (Some(options), false, false) = (options, path.is_null(), device.is_null() || !device.is_aligned()) else {
        // SAFETY: `why` as the contract says.
        unsafe { store_text(why, why_len, "NULL, where a path, options and a place for the device are needed") };
        return VBLK_INVALID;
    };
    // SAFETY: a text of C's, as the contract says.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    match vblk_device::open(path, options) {
        Ok(opened) => {
            // SAFETY: as above.
            unsafe { store(device, Box::into_raw(opened)) };
            VBLK_OK
        }
        Err((code, text)) => {
            // SAFETY: as above.
            unsafe { store_text(why, why_len, &text) };
            code
        }
    }
}

/// Closes a device, when what is in flight is over or after the back-end let go of it. Memory from `vblk_alloc` and
/// queues end with it. `VBLK_OK`, and `VBLK_GONE` where the back-end does not answer: the device is closed. `VBLK_BUSY`:
/// a thread waits in one of its queues, and it is as it was; that is seen as a courtesy, and not relied upon.
///
/// # Safety
/// `device`: from `vblk_open`, not closed since, or NULL, which is `VBLK_INVALID`. No other function uses it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_close(device: *mut vblk_device) -> i32 {
    if device.is_null() || !device.is_aligned() {
        return VBLK_INVALID;
    }
    // SAFETY: the contract: a device of `vblk_open`, which nobody else uses.
    let code = unsafe { (*device).close() };
    if code != VBLK_BUSY {
        // SAFETY: likewise; the box that `vblk_open` handed out, once.
        drop(unsafe { Box::from_raw(device) });
    }
    code
}

/// The device's facts into `*info`.
///
/// # Safety
/// `device`: open. `info`: where one structure goes. NULL for either is `VBLK_INVALID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_get_info(device: *const vblk_device, info: *mut vblk_info) -> i32 {
    // SAFETY: as the contract says.
    let Some(device) = (unsafe { reference(device) }) else { return VBLK_INVALID };
    if info.is_null() || !info.is_aligned() {
        return VBLK_INVALID;
    }
    // SAFETY: as the contract says.
    unsafe { store(info, device.info()) };
    VBLK_OK
}

/// Memory that the device shares, for buffers: `bytes` of it, beginning at a page, zeroed when it is first handed out.
/// NULL: `device` is NULL, `bytes` is 0, or no such piece is left of `vblk_options.memory`.
///
/// # Safety
/// `device`: open, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_alloc(device: *const vblk_device, bytes: usize) -> *mut c_void {
    // SAFETY: as the contract says.
    let taken = unsafe { reference(device) }.and_then(|device| device.take(bytes));
    taken.map_or(null_mut(), |memory| memory.as_ptr().cast())
}

/// Gives memory from `vblk_alloc` back. `VBLK_BUSY`: a request that is not over has it. `VBLK_NOT_SHARED`: it is not the
/// beginning of such memory. Not beside a `vblk_submit` of the same memory in another thread: who is first is not seen.
///
/// # Safety
/// `device`: open. `memory` is only compared. NULL for either is `VBLK_INVALID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_free(device: *const vblk_device, memory: *mut c_void) -> i32 {
    // SAFETY: as the contract says.
    match (unsafe { reference(device) }, NonNull::new(memory.cast())) {
        (Some(device), Some(memory)) => device.give_back(memory),
        _ => VBLK_INVALID,
    }
}

/// A queue, by its number from 0; NULL: there is none. It is the device's and ends with it.
///
/// # Safety
/// `device`: open, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_get_queue(device: *const vblk_device, number: u32) -> *const vblk_queue {
    // SAFETY: as the contract says.
    let queue = unsafe { reference(device) }.and_then(|device| device.queue(number));
    queue.map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Submits `count` requests, in order, as one batch: one publish and one doorbell at most. `*accepted` is how many the
/// device has; if not all, the code says what is the matter with the first that it has not. `VBLK_FULL`: reap, then
/// submit the rest. `VBLK_BUSY`: another thread is in the queue.
///
/// # Safety
/// `queue`: of an open device. `requests`: so many structures. `accepted`: where a number goes, or NULL. NULL for one of
/// the others (with a count above 0) is `VBLK_INVALID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_submit(
    queue: *const vblk_queue,
    requests: *const vblk_request,
    count: usize,
    accepted: *mut usize,
) -> i32 {
    // SAFETY: as the contract says.
    unsafe { store(accepted, 0) };
    // SAFETY: likewise.
    let (Some(queue), true) = (unsafe { reference(queue) }, is_list(requests, count)) else { return VBLK_INVALID };
    // SAFETY: the contract: `count` structures, whatever is in them. Each is read once.
    let (taken, code) = queue.submit((0..count).map(|at| unsafe { requests.add(at).read() }));
    // SAFETY: as above.
    unsafe { store(accepted, taken) };
    code
}

/// Takes up to `max` completions, oldest answer first, waiting until there are `min`, nothing is in flight, or
/// `timeout_ns` nanoseconds are over (0: does not wait; below 0: without end). `*count` is how many came, whatever the
/// code is; fewer than `min` with `VBLK_OK`: the time is over, or nothing is in flight. `VBLK_GONE`, `VBLK_DEVICE`: no
/// more will come, what is in flight is lost, close the device. `VBLK_BUSY`: another thread is in the queue.
///
/// # Safety
/// `queue`: of an open device. `done`: room for `max` structures. `count`: where a number goes. NULL for one of these
/// (`done`: with a `max` above 0), and a `min` above `max`, is `VBLK_INVALID`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vblk_reap(
    queue: *const vblk_queue,
    done: *mut vblk_completion,
    max: usize,
    min: usize,
    timeout_ns: i64,
    count: *mut usize,
) -> i32 {
    // SAFETY: as the contract says.
    unsafe { store(count, 0) };
    // SAFETY: likewise.
    let queue = unsafe { reference(queue) };
    let (Some(queue), true, false) = (queue, is_list(done, max), count.is_null() || !count.is_aligned()) else {
        return VBLK_INVALID;
    };
    if min > max {
        return VBLK_INVALID;
    }
    let mut place = done;
    let (taken, code) = queue.reap(max, min, u64::try_from(timeout_ns).ok().map(Nanos), |completion| {
        // SAFETY: the contract: room for `max`, and the queue hands out at most so many.
        unsafe { place.write(completion) };
        // SAFETY: likewise: at most one past the last.
        place = unsafe { place.add(1) };
    });
    // SAFETY: as above.
    unsafe { store(count, taken) };
    code
}

/// A code in words that begin with whom it blames; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vblk_text(code: i32) -> *const c_char {
    text_of(code).as_ptr()
}
