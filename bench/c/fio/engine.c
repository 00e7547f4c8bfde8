/*
 * fio's engine on drv-virtio-block: jobs drive the driver over vhost-user, in fio's process.
 *
 *   fio --ioengine=external:THIS.so --filename=SOCKET ...                  waits for interrupts; --hipri=1 polls
 *   ... --write_cache=on --fsync=N                                       flushes reach the device
 *
 * fio hands requests over one by one; they are collected, and its commit is one batch of the driver's: one publish, one
 * doorbell at most. fio commits whenever it waits, so batches are as large as what it waits for: give
 * --iodepth_batch_submit=N and --iodepth_batch_complete_min=N. Buffers are in memory that the device shares.
 *
 * It knows the driver by its header for C alone, and of fio what fio offers its engines; who shares a connection is
 * sockets.c's. A job's state is its thread's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"

#include "drv_virtio_block.h"
#include "sockets.h"

/* fio is asked at least this often whether the job is to end: nanoseconds. */
#define SLICE 100000000
/* How long a job that is to end waits for a back-end that answers nothing: milliseconds. */
#define LAST_PATIENCE 2000

/* A job. */
struct job {
	struct socket *socket;
	const struct vblk_queue *queue;
	/* Handed over by fio and not published; what the driver is told, and whose it is. */
	struct vblk_request *staged;
	struct io_u **owners;
	unsigned int staging;
	/* What came back last; fio asks for it by its place. */
	struct vblk_completion *done;
	/* What the driver did not take, as completions that wait for fio to ask. */
	struct vblk_completion *refused;
	unsigned int refusing;
	void *memory;
	/* Requests that the driver has. */
	unsigned int flying;
	/* The back-end is gone, and who waited for it has been told. */
	bool gone;
	/* The job is to end, and since when nothing came. */
	bool ending;
	struct timespec silent_since;
};

static struct fio_option options[] = {
	{
		.name = "hipri",
		.lname = "Polled completions",
		.type = FIO_OPT_STR_SET,
		.off1 = offsetof(struct engine_options, hipri),
		.help = "Look for completions instead of waiting for interrupts",
		.category = FIO_OPT_C_ENGINE,
		.group = FIO_OPT_G_INVALID,
	},
	{
		.name = "write_cache",
		.lname = "Write cache of the device",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, write_cache),
		.help = "What the device is asked for; one without a write cache is not asked to flush",
		.def = "asis",
		.posval = {
			{ .ival = "asis", .oval = VBLK_CACHE_AS_IT_IS, .help = "As the device has it" },
			{ .ival = "on", .oval = VBLK_CACHE_ON, .help = "Writes are durable after a flush" },
			{ .ival = "off", .oval = VBLK_CACHE_OFF, .help = "Completed writes are durable" },
		},
		.category = FIO_OPT_C_ENGINE,
		.group = FIO_OPT_G_INVALID,
	},
	{ .name = NULL },
};

/* fio's first call, before there are threads and processes: how large is the file? */
static int engine_setup(struct thread_data *td)
{
	const char *wrong = nonsense(td);
	struct socket *one = NULL;
	uint64_t end;

	if (!wrong) {
		one = known(td);
		if (!one)
			return 1;
		end = td->o.start_offset + td->o.size;
		if (end > one->info.capacity)
			wrong = "the job reaches beyond the device's capacity: lower --size or --offset";
		else if (one->info.read_only && (td_write(td) || td_trim(td)))
			wrong = "the device is read-only: give --rw=read or randread";
		else if (td_trim(td) && !one->info.discard)
			wrong = "the device does not offer DISCARD: leave trim out";
		else if (td_min_bs(td) % one->info.block_size || td_max_bs(td) % one->info.block_size)
			wrong = "--bs is not a multiple of the device's block size";
		else if (td->o.mem_align % min(one->info.block_size, 4096u))
			wrong = "--iomem_align is not a multiple of the device's block size";
	}
	if (wrong) {
		log_err(NAME ": %s: %s\n", path_of(td), wrong);
		td_verror(td, EINVAL, "setup");
		return 1;
	}
	td->files[0]->filetype = FIO_TYPE_BLOCK;
	td->files[0]->real_file_size = one->info.capacity;
	/* The connection is this process's: fio looks at this when it starts the job. */
	td->o.use_thread = 1;
	expected(one);
	return 0;
}

static void job_free(struct job *job)
{
	free(job->staged);
	free(job->owners);
	free(job->done);
	free(job->refused);
	free(job);
}

static int engine_init(struct thread_data *td)
{
	struct job *job = calloc(1, sizeof(*job));
	bool there;

	if (!job)
		return ENOMEM;
	job->staged = calloc(td->o.iodepth, sizeof(*job->staged));
	job->owners = calloc(td->o.iodepth, sizeof(*job->owners));
	job->done = calloc(td->o.iodepth, sizeof(*job->done));
	job->refused = calloc(td->o.iodepth, sizeof(*job->refused));
	there = job->staged && job->owners && job->done && job->refused;
	if (there)
		job->queue = joined(td, &job->socket);
	if (!job->queue) {
		job_free(job);
		return td->error ? td->error : ENOMEM;
	}
	td->io_ops_data = job;
	return 0;
}

static void engine_cleanup(struct thread_data *td)
{
	struct job *job = td->io_ops_data;

	if (!job)
		return;
	left(job->socket, !job->flying);
	job_free(job);
	td->io_ops_data = NULL;
}

static int engine_iomem_alloc(struct thread_data *td, size_t bytes)
{
	struct job *job = td->io_ops_data;

	job->memory = vblk_alloc(job->socket->device, bytes);
	td->orig_buffer = job->memory;
	return job->memory ? 0 : ENOMEM;
}

static void engine_iomem_free(struct thread_data *td)
{
	struct job *job = td->io_ops_data;

	/* Refused while requests that are lost have it: it ends with the device then. */
	if (job && job->memory)
		vblk_free(job->socket->device, job->memory);
	if (job)
		job->memory = NULL;
	td->orig_buffer = NULL;
}

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
	struct job *job = td->io_ops_data;
	struct vblk_request *next = &job->staged[job->staging];

	fio_ro_check(td, io_u);
	if (job->staging == td->o.iodepth)
		return FIO_Q_BUSY;
	next->tag = (uintptr_t)io_u;
	next->offset = io_u->offset;
	next->length = io_u->xfer_buflen;
	next->buffer = NULL;
	next->flags = 0;
	switch (io_u->ddir) {
	case DDIR_READ:
		next->operation = VBLK_READ;
		next->buffer = io_u->xfer_buf;
		break;
	case DDIR_WRITE:
		next->operation = VBLK_WRITE;
		next->buffer = io_u->xfer_buf;
		next->flags = td->o.sync_io ? VBLK_FUA : 0;
		break;
	case DDIR_TRIM:
		next->operation = VBLK_DISCARD;
		break;
	case DDIR_SYNC:
	case DDIR_DATASYNC:
		next->operation = VBLK_FLUSH;
		next->offset = 0;
		next->length = 0;
		break;
	default:
		io_u->error = EINVAL;
		return FIO_Q_COMPLETED;
	}
	job->owners[job->staging] = io_u;
	job->staging++;
	return FIO_Q_QUEUED;
}

/* What fio is to know of a submission: how large the batch was, and when. */
static void issued(struct thread_data *td, struct io_u **first, size_t count)
{
	struct timespec now;
	size_t at;

	if (!count)
		return;
	io_u_mark_submit(td, count);
	if (!fio_fill_issue_time(td))
		return;
	fio_gettime(&now, NULL);
	for (at = 0; at < count; at++) {
		first[at]->issue_time = now;
		io_u_queued(td, first[at]);
	}
	if (td->o.read_iolog_file)
		td->last_issue = now;
}

/* The first `count` of what was staged are the driver's, or refused. */
static void unstage(struct job *job, size_t count)
{
	job->staging -= count;
	memmove(job->staged, job->staged + count, job->staging * sizeof(*job->staged));
	memmove(job->owners, job->owners + count, job->staging * sizeof(*job->owners));
}

/*
 * Publishes what was staged, as one batch. The queue has room for every io_u of the job; only a request that the device
 * makes the driver cut can fill it, and what is left then goes with the next call, before which fio reaps. A request
 * that the driver does not take comes back to fio as one that failed.
 */
static int engine_commit(struct thread_data *td)
{
	struct job *job = td->io_ops_data;
	struct vblk_completion *refused;
	size_t accepted;
	int code = VBLK_OK;

	while (job->staging && !job->gone && code != VBLK_FULL && code != VBLK_GONE) {
		code = vblk_submit(job->queue, job->staged, job->staging, &accepted);
		job->flying += accepted;
		issued(td, job->owners, accepted);
		unstage(job, accepted);
		if (code == VBLK_OK || code == VBLK_FULL || code == VBLK_GONE)
			continue;
		refused = &job->refused[job->refusing++];
		refused->tag = job->staged[0].tag;
		refused->status = code;
		log_err(NAME ": a request was refused: %s\n", vblk_text(code));
		unstage(job, 1);
	}
	return 0;
}

/* Every io_u that fio has in flight comes back as lost. */
static int lost(struct thread_data *td, struct job *job, unsigned int from, unsigned int max, int code)
{
	struct io_u *io_u;
	unsigned int at;

	if (!job->gone)
		log_err(NAME ": %s\n", vblk_text(code));
	job->gone = true;
	/* Those that were refused are in flight to fio, too. */
	job->staging = 0;
	job->refusing = 0;
	io_u_qiter(&td->io_u_all, io_u, at) {
		unsigned int known;

		if (from == max || !(io_u->flags & IO_U_F_FLIGHT))
			continue;
		for (known = 0; known < from && job->done[known].tag != (uintptr_t)io_u; known++)
			;
		if (known < from)
			continue;
		job->done[from].tag = (uintptr_t)io_u;
		job->done[from].status = code;
		from++;
	}
	return from;
}

/* Hands out what was refused, behind the first `from`; how many there are then. */
static unsigned int refused(struct job *job, unsigned int from, unsigned int max)
{
	unsigned int count = job->refusing < max - from ? job->refusing : max - from;

	memcpy(job->done + from, job->refused, count * sizeof(*job->done));
	job->refusing -= count;
	memmove(job->refused, job->refused + count, job->refusing * sizeof(*job->refused));
	return from + count;
}

/*
 * Whether the job is to end and the back-end has answered nothing for too long since. fio itself would wait for what is in
 * flight without end: a back-end that is stopped (SIGSTOP) would keep it from ending.
 */
static bool given_up(struct thread_data *td, struct job *job, size_t came)
{
	if (!td->terminate)
		return false;
	if (!job->ending || came) {
		job->ending = true;
		fio_gettime(&job->silent_since, NULL);
		return false;
	}
	return mtime_since_now(&job->silent_since) >= LAST_PATIENCE;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
	struct job *job = td->io_ops_data;
	int64_t patience = t ? (int64_t)t->tv_sec * 1000000000 + t->tv_nsec : -1;
	unsigned int taken, want;
	size_t count;
	int code;

	max = max < td->o.iodepth ? max : td->o.iodepth;
	min = min < max ? min : max;
	taken = refused(job, 0, max);
	do {
		if (job->gone)
			return lost(td, job, taken, max, VBLK_GONE);
		want = taken < min ? min - taken : 0;
		code = vblk_reap(job->queue, job->done + taken, max - taken, want,
				 patience < 0 || patience > SLICE ? SLICE : patience, &count);
		taken += count;
		job->flying -= count;
		if (code == VBLK_OK && want && given_up(td, job, count))
			code = VBLK_GONE;
		if (code != VBLK_OK)
			return lost(td, job, taken, max, code);
		/* The room that came may be what the rest of a batch waits for. */
		if (taken < min)
			engine_commit(td);
		taken = refused(job, taken, max);
	} while (!t && taken < min);
	return taken;
}

static struct io_u *engine_event(struct thread_data *td, int event)
{
	struct job *job = td->io_ops_data;
	const struct vblk_completion *done = &job->done[event];
	struct io_u *io_u = (struct io_u *)(uintptr_t)done->tag;

	io_u->error = errno_of(done->status);
	io_u->resid = 0;
	/* fio does not look at the errors of these. */
	if (io_u->error && ddir_sync(io_u->ddir)) {
		log_err(NAME ": a flush failed: %s\n", vblk_text(done->status));
		td_verror(td, io_u->error, "flush");
	}
	return io_u;
}

/* The connection is the file: there is nothing to open or close. */
static int engine_open_file(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

static int engine_close_file(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

static int engine_invalidate(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

/* fio looks for this name. */
struct ioengine_ops ioengine = {
	.name = NAME,
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_DISKLESSIO | FIO_NODISKUTIL | FIO_NOEXTEND | FIO_NO_OFFLOAD | FIO_ASYNCIO_SETS_ISSUE_TIME,
	.setup = engine_setup,
	.init = engine_init,
	.cleanup = engine_cleanup,
	.iomem_alloc = engine_iomem_alloc,
	.iomem_free = engine_iomem_free,
	.queue = engine_queue,
	.commit = engine_commit,
	.getevents = engine_getevents,
	.event = engine_event,
	.open_file = engine_open_file,
	.close_file = engine_close_file,
	.invalidate = engine_invalidate,
	.options = options,
	.option_struct_size = sizeof(struct engine_options),
};
