/*
 * What a C program does with the driver, and what it may do wrong: compiled and run by the tests beside it.
 *
 *   program SOCKET polled|interrupt   writes, reads back, compares; each wrong call must be answered with its code
 *   program SOCKET gone               submits, says "waiting", and expects to hear that the back-end is gone
 *   program SOCKET stuck              closes while the back-end stands still, and keeps nothing
 *   program NOTHING refused           must not come up, and be told why
 */
#define _POSIX_C_SOURCE 200809L

#include "drv_virtio_block.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Far above anything that is measured: a program that hangs fails. */
#define LIMIT_SECONDS 100

#define COUNT 8
#define BLOCK 4096

static void must(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "program: not so: %s\n", what);
		exit(1);
	}
}

#define MUST(holds) must((holds), #holds)

static struct vblk_request request(uint32_t operation, uint64_t tag, uint64_t offset, uint64_t length, void *buffer)
{
	struct vblk_request made;

	memset(&made, 0, sizeof(made));
	made.operation = operation;
	made.tag = tag;
	made.offset = offset;
	made.length = length;
	made.buffer = buffer;
	return made;
}

/* Mappings of memory that is shared with a device, and open descriptors, of this process: what is left of a device. */
static int held(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	DIR *open_now = opendir("/proc/self/fd");
	char line[512];
	int count = 0;

	MUST(maps != NULL && open_now != NULL);
	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "virtio-dma") != NULL;
	while (readdir(open_now))
		count++;
	fclose(maps);
	closedir(open_now);
	return count;
}

/* Submits one request, which is not to be taken, and answers why. */
static int refused(const struct vblk_queue *queue, struct vblk_request one)
{
	size_t accepted = 7;
	int code = vblk_submit(queue, &one, 1, &accepted);

	MUST(accepted == 0);
	return code;
}

static int status_of(const struct vblk_queue *queue, struct vblk_request one)
{
	struct vblk_completion done;
	size_t count;

	MUST(vblk_submit(queue, &one, 1, NULL) == VBLK_OK);
	MUST(vblk_reap(queue, &done, 1, 1, -1, &count) == VBLK_OK && count == 1);
	MUST(done.tag == one.tag);
	return done.status;
}

static void nothing_is_there(void)
{
	struct vblk_device *device = (struct vblk_device *)&device;
	struct vblk_info info;
	size_t count = 7;

	MUST(vblk_open(NULL, NULL, &device, NULL, 0) == VBLK_INVALID && device == NULL);
	MUST(vblk_close(NULL) == VBLK_INVALID);
	MUST(vblk_get_info(NULL, &info) == VBLK_INVALID);
	MUST(vblk_alloc(NULL, 1) == NULL);
	MUST(vblk_free(NULL, &info) == VBLK_INVALID);
	MUST(vblk_get_queue(NULL, 0) == NULL);
	MUST(vblk_submit(NULL, NULL, 1, &count) == VBLK_INVALID && count == 0);
	MUST(vblk_reap(NULL, NULL, 0, 0, 0, &count) == VBLK_INVALID);
	MUST(strncmp(vblk_text(VBLK_MEDIUM), "medium", 6) == 0 && vblk_text(12345) != NULL);
}

/* Opening with one option out of its range must be refused, with a line. */
static void options_out_of_range(const char *socket, const struct vblk_options *good)
{
	struct vblk_options options[7];
	struct vblk_device *device;
	char why[200], long_path[300];
	const char *paths[4];
	int at, before = held();

	for (at = 0; at < 7; at++)
		options[at] = *good;
	options[0].abi = VBLK_ABI + 1;
	options[1].queues = 0;
	options[2].depth = 1025;
	options[3].mode = 9;
	options[4].memory = UINT64_MAX;
	/* More than the back-end has. */
	options[5].queues = 32;
	options[6].cache = 3;
	for (at = 0; at < 7; at++) {
		why[0] = 0;
		MUST(vblk_open(socket, &options[at], &device, why, sizeof(why)) == VBLK_INVALID);
		MUST(device == NULL && why[0] != 0 && strchr(why, '\n') == NULL);
	}
	/* Paths that cannot be a back-end's: nothing, a folder, a file, more than a socket's address holds. */
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = 0;
	paths[0] = "";
	paths[1] = "/";
	paths[2] = "/proc/self/exe";
	paths[3] = long_path;
	for (at = 0; at < 4; at++) {
		why[0] = 0;
		MUST(vblk_open(paths[at], good, &device, why, sizeof(why)) == VBLK_INVALID && device == NULL);
		MUST(why[0] != 0 && strchr(why, '\n') == NULL);
		/* It is told in words of this interface, not in options of a program. */
		MUST(strstr(why, "--") == NULL);
	}
	MUST(held() == before);
	/* A place that is too small for the line is not overrun. */
	memset(why, 'x', sizeof(why));
	MUST(vblk_open(socket, &options[0], &device, why, 5) == VBLK_INVALID);
	MUST(strlen(why) == 4 && why[5] == 'x');
}

static void wrong_requests(const struct vblk_queue *queue, const struct vblk_info *info, char *page)
{
	struct vblk_completion done;
	size_t count;
	char *elsewhere = (char *)malloc(2 * BLOCK);
	char *aligned = elsewhere + BLOCK - (uintptr_t)elsewhere % BLOCK;
	struct vblk_request odd;

	MUST(refused(queue, request(VBLK_WRITE, 0, 0, BLOCK, aligned)) == VBLK_NOT_SHARED);
	MUST(refused(queue, request(VBLK_READ, 0, 0, BLOCK, NULL)) == VBLK_NOT_SHARED);
	/* The rings lie in front of the first piece, and nothing behind the last one. */
	MUST(refused(queue, request(VBLK_READ, 0, 0, BLOCK, page - BLOCK)) == VBLK_NOT_SHARED);
	MUST(refused(queue, request(VBLK_READ, 0, 0, (COUNT + 1) * BLOCK, page)) == VBLK_NOT_SHARED);
	MUST(refused(queue, request(VBLK_READ, 0, info->capacity, BLOCK, page)) == VBLK_RANGE);
	MUST(refused(queue, request(VBLK_READ, 0, 1, BLOCK, page)) == VBLK_UNALIGNED);
	MUST(refused(queue, request(VBLK_READ, 0, 0, 100, page)) == VBLK_UNALIGNED);
	/* A buffer that does not begin at a block's address, wherever in its piece. */
	MUST(refused(queue, request(VBLK_READ, 0, 0, 512, page + 1)) == VBLK_UNALIGNED);
	MUST(refused(queue, request(VBLK_WRITE, 0, 0, BLOCK, page + BLOCK + 256)) == VBLK_UNALIGNED);
	MUST(status_of(queue, request(VBLK_READ, 1, 0, 512, page + 512)) == VBLK_OK);
	MUST(refused(queue, request(VBLK_READ, 0, 0, 0, page)) == VBLK_EMPTY);
	MUST(refused(queue, request(99, 0, 0, 0, NULL)) == VBLK_INVALID);
	MUST(refused(queue, request(VBLK_FLUSH, 0, 0, BLOCK, page)) == VBLK_INVALID);
	odd = request(VBLK_READ, 0, 0, BLOCK, page);
	odd.flags = VBLK_FUA;
	MUST(refused(queue, odd) == VBLK_INVALID);
	MUST(vblk_submit(queue, &odd, SIZE_MAX, &count) == VBLK_INVALID);
	MUST(vblk_submit(queue, (struct vblk_request *)((char *)&odd + 1), 1, &count) == VBLK_INVALID);
	MUST(vblk_reap(queue, &done, 1, 2, 0, &count) == VBLK_INVALID);
	MUST(vblk_reap(queue, &done, 1, 0, 0, NULL) == VBLK_INVALID);
	/* Nothing is in flight: nothing is waited for. */
	MUST(vblk_reap(queue, &done, 1, 1, -1, &count) == VBLK_OK && count == 0);
	free(elsewhere);
}

static void writes_and_reads(struct vblk_device *device, const struct vblk_queue *queue)
{
	struct vblk_request batch[COUNT + 1];
	struct vblk_completion done[COUNT + 1];
	size_t accepted, count, at;
	char *page = (char *)vblk_alloc(device, COUNT * BLOCK);
	unsigned seen = 0;

	MUST(page != NULL);
	for (at = 0; at < COUNT; at++) {
		memset(page + at * BLOCK, 'a' + (int)at, BLOCK);
		batch[at] = request(VBLK_WRITE, 100 + at, (COUNT - 1 - at) * BLOCK, BLOCK, page + at * BLOCK);
	}
	/* The last one is wrong: those before it are taken, and no other. */
	batch[COUNT] = request(VBLK_WRITE, 0, UINT64_MAX - 511, BLOCK, page);
	MUST(vblk_submit(queue, batch, COUNT + 1, &accepted) == VBLK_RANGE && accepted == COUNT);
	/* Theirs until they are reaped, whether the device is done or not. */
	MUST(vblk_free(device, page) == VBLK_BUSY);
	MUST(vblk_reap(queue, done, COUNT + 1, COUNT, -1, &count) == VBLK_OK && count == COUNT);
	for (at = 0; at < COUNT; at++) {
		MUST(done[at].status == VBLK_OK && done[at].tag - 100 < COUNT);
		seen |= 1u << (done[at].tag - 100);
	}
	MUST(seen == (1u << COUNT) - 1);
	MUST(status_of(queue, request(VBLK_FLUSH, 7, 0, 0, NULL)) == VBLK_OK);
	memset(page, 0, COUNT * BLOCK);
	MUST(status_of(queue, request(VBLK_READ, 8, 0, COUNT * BLOCK, page)) == VBLK_OK);
	for (at = 0; at < COUNT * BLOCK; at++)
		MUST(page[at] == 'a' + (int)(COUNT - 1 - at / BLOCK));
	MUST(vblk_free(device, page + BLOCK) == VBLK_NOT_SHARED);
	MUST(vblk_free(device, page) == VBLK_OK);
	MUST(refused(queue, request(VBLK_READ, 0, 0, BLOCK, page)) == VBLK_NOT_SHARED);
}

static void runs(const char *socket, const struct vblk_options *options)
{
	struct vblk_device *device;
	struct vblk_info info;
	char why[200];
	char *page;

	nothing_is_there();
	options_out_of_range(socket, options);
	if (vblk_open(socket, options, &device, why, sizeof(why)) != VBLK_OK)
		must(0, why);
	MUST(vblk_get_info((struct vblk_device *)((char *)device + 1), &info) == VBLK_INVALID);
	MUST(vblk_get_info(device, (struct vblk_info *)((char *)&info + 1)) == VBLK_INVALID);
	MUST(vblk_get_info(device, &info) == VBLK_OK);
	MUST(info.capacity == 64 << 20 && info.block_size == 512 && info.read_only == 0 && info.queues == 2);
	MUST(info.depth >= options->depth && info.mode == options->mode && info.write_cache == 1);
	MUST(vblk_get_queue(device, 2) == NULL && vblk_alloc(device, (size_t)options->memory + 1) == NULL);
	MUST(vblk_alloc(device, SIZE_MAX) == NULL && vblk_alloc(device, 0) == NULL);
	page = (char *)vblk_alloc(device, COUNT * BLOCK);
	MUST(page != NULL);
	wrong_requests(vblk_get_queue(device, 0), &info, page);
	MUST(vblk_free(device, page) == VBLK_OK);
	writes_and_reads(device, vblk_get_queue(device, 0));
	writes_and_reads(device, vblk_get_queue(device, 1));
	MUST(vblk_close(device) == VBLK_OK);
}

static void is_told_of_the_end(const char *socket, const struct vblk_options *options)
{
	struct vblk_device *device;
	struct vblk_completion done[COUNT];
	struct vblk_request one;
	char why[200];
	size_t count;

	if (vblk_open(socket, options, &device, why, sizeof(why)) != VBLK_OK)
		must(0, why);
	printf("open\n");
	fflush(stdout);
	MUST(getchar() == 'g');
	one = request(VBLK_READ, 1, 0, BLOCK, vblk_alloc(device, BLOCK));
	MUST(vblk_submit(vblk_get_queue(device, 0), &one, 1, &count) == VBLK_OK && count == 1);
	/* The back-end stands still: the time is over first. */
	MUST(vblk_reap(vblk_get_queue(device, 0), done, COUNT, 1, 1000, &count) == VBLK_OK && count == 0);
	printf("waiting\n");
	fflush(stdout);
	MUST(vblk_reap(vblk_get_queue(device, 0), done, COUNT, 1, -1, &count) == VBLK_GONE && count == 0);
	MUST(vblk_submit(vblk_get_queue(device, 1), &one, 1, &count) == VBLK_GONE && count == 0);
	MUST(vblk_close(device) == VBLK_OK);
}

static void keeps_nothing_of_one_that_stands_still(const char *socket, const struct vblk_options *options)
{
	struct vblk_device *device;
	struct vblk_request one;
	char why[200];
	int before = held();

	if (vblk_open(socket, options, &device, why, sizeof(why)) != VBLK_OK)
		must(0, why);
	MUST(held() > before);
	printf("open\n");
	fflush(stdout);
	MUST(getchar() == 'g');
	one = request(VBLK_READ, 1, 0, BLOCK, vblk_alloc(device, BLOCK));
	MUST(vblk_submit(vblk_get_queue(device, 0), &one, 1, NULL) == VBLK_OK);
	MUST(vblk_close(device) == VBLK_GONE);
	MUST(held() == before);
	/* The next one does not come up, and keeps nothing either. */
	MUST(vblk_open(socket, options, &device, why, sizeof(why)) == VBLK_GONE && device == NULL);
	MUST(held() == before);
}

int main(int argc, char **argv)
{
	struct vblk_options options = { VBLK_ABI, 2, 32, VBLK_INTERRUPT, 1 << 20, VBLK_CACHE_ON };
	struct vblk_device *device;
	char why[200] = "";

	MUST(argc == 3);
	alarm(LIMIT_SECONDS);
	options.mode = strcmp(argv[2], "polled") == 0 ? VBLK_POLLED : VBLK_INTERRUPT;
	if (strcmp(argv[2], "refused") == 0) {
		MUST(vblk_open(argv[1], &options, &device, why, sizeof(why)) == VBLK_GONE && device == NULL);
		printf("%s\n", why);
	} else if (strncmp(argv[2], "gone", 4) == 0) {
		options.mode = strcmp(argv[2], "gone-polled") == 0 ? VBLK_POLLED : VBLK_INTERRUPT;
		is_told_of_the_end(argv[1], &options);
	} else if (strcmp(argv[2], "stuck") == 0) {
		keeps_nothing_of_one_that_stands_still(argv[1], &options);
	} else {
		runs(argv[1], &options);
	}
	printf("done\n");
	return 0;
}
