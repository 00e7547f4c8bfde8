/*
 * Who shares which connection: the sockets that jobs named, the device behind each, and the queues that jobs have of it.
 *
 * A back-end may serve a single connection in its life, so there is one from the set-up of a socket's first job until the
 * end of its last. A connection belongs to one process: the jobs are threads, whether --thread is given or not, and those
 * that run at the same time have a queue each. Another connection is made only where jobs that run later need other
 * options of it, or where requests of the one before were lost. It refuses to know requests.
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "fio.h"

#include "drv_virtio_block.h"

#ifndef BUILT_FOR
#error "BUILT_FOR: the version of fio that this is compiled for, as `fio --version` prints it"
#endif

#define NAME "drv-virtio-block"

/* The jobs that use a socket at the same time, as far as fio's order of jobs tells: what they need of a connection. */
struct company {
	unsigned int jobs, depth, different;
	uint64_t memory;
};

/* The engine's options, as fio keeps them for a job. */
struct engine_options {
	/* fio's own; an option at offset 0 does not count as one. */
	struct thread_data *td;
	unsigned int hipri;
	unsigned int write_cache;
	/* Not an option: counted at setup, because jobs come and go while others begin. */
	struct company company;
};

/* A socket, what is known of its device, and the connection to it while there is one. */
struct socket {
	struct socket *next;
	struct vblk_info info;
	struct vblk_device *device;
	/* What the connection was made with. */
	unsigned int hipri, write_cache;
	/* Jobs that were set up and have not ended, those of them that have a queue now, and queues handed out to these. */
	unsigned int jobs, users, queues;
	/* Requests of a job that ended have no answer: its queue is of no use to another. */
	bool stained;
	char path[];
};

/* The engine itself, by which its jobs are known; the one name that fio sees (the rest is compiled as hidden). */
extern __attribute__((visibility("default"))) struct ioengine_ops ioengine;

/* What fio ends a job with. */
int errno_of(int code);

/* What a job asks that cannot be, in one line; NULL: nothing. */
const char *nonsense(struct thread_data *td);

/* The socket of a job, connected, with the facts of its device; NULL: it cannot be had, as was said. */
struct socket *known(struct thread_data *td);

/* The job was set up and will join. */
void expected(struct socket *one);

/* A queue of the job's own, of a connection for all who run with it; NULL: there is none, as was said. */
const struct vblk_queue *joined(struct thread_data *td, struct socket **socket);

/* Gives it back, with all requests answered (`clean`) or not; the last job of all closes the connection. */
void left(struct socket *one, bool clean);

static inline struct engine_options *options_of(struct thread_data *td)
{
	return td->eo;
}

static inline const char *path_of(struct thread_data *td)
{
	return td->files_index ? td->files[0]->file_name : "";
}

#endif
