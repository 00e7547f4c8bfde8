/*
 * Who shares which connection: the sockets that jobs named, the device behind each, and the queues that jobs have of it.
 *
 * A back-end serves one connection, and a connection belongs to one process. Jobs on one socket that run at the same time
 * are threads, therefore, and have a queue each; a job that is alone may be a process. It refuses to know requests.
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "fio.h"

#include "drv_virtio_block.h"

#ifndef BUILT_FOR
#error "BUILT_FOR: the version of fio that this is compiled for, as `fio --version` prints it"
#endif

#define NAME "drv-virtio-block"

/* The jobs that use a socket at the same time, as far as fio's order of jobs tells. */
struct company {
	unsigned int jobs, depth, processes, different;
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

/* A socket, what is known of its device, and the connection to it while jobs have one. */
struct socket {
	struct socket *next;
	struct vblk_info info;
	struct vblk_device *device;
	/* Jobs that have a queue of it now, and queues that were handed out since it was opened. */
	unsigned int users, queues;
	char path[];
};

/* The engine itself, by which its jobs are known; the one name that fio sees (the rest is compiled as hidden). */
extern __attribute__((visibility("default"))) struct ioengine_ops ioengine;

/* What fio ends a job with. */
int errno_of(int code);

/* What a job asks that cannot be, in one line; NULL: nothing. */
const char *nonsense(struct thread_data *td);

/* The socket of a job, with the facts of its device; NULL: it cannot be had, as was said. */
struct socket *known(struct thread_data *td);

/* A queue of the job's own, of a connection for all who run with it; NULL: there is none, as was said. */
const struct vblk_queue *joined(struct thread_data *td, struct socket **socket);

/* Gives it back; the last one closes the connection. */
void left(struct socket *one);

static inline struct engine_options *options_of(struct thread_data *td)
{
	return td->eo;
}

static inline const char *path_of(struct thread_data *td)
{
	return td->files_index ? td->files[0]->file_name : "";
}

#endif
