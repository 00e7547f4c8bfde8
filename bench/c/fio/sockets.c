/*
 * See sockets.h. `change` guards the list and what is in it; the list lives as long as the process (-z nodelete).
 */
#include "sockets.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pthread_mutex_t change = PTHREAD_MUTEX_INITIALIZER;
static struct socket *sockets;

int errno_of(int code)
{
	switch (code) {
	case VBLK_OK:
		return 0;
	case VBLK_RANGE:
		return ENOSPC;
	case VBLK_READ_ONLY:
		return EROFS;
	case VBLK_UNSUPPORTED:
		return EOPNOTSUPP;
	case VBLK_GONE:
		return ENODEV;
	case VBLK_SYSTEM:
		return ENOMEM;
	case VBLK_DEVICE:
	case VBLK_MEDIUM:
		return EIO;
	default:
		return EINVAL;
	}
}

static uint64_t memory_of(struct thread_data *td)
{
	uint64_t page = 4096;

	/* fio adds pages and its own alignment, twice where that is large; a piece of the driver's is whole pages. */
	return (td_max_bs(td) * td->o.iodepth + 2 * td->o.mem_align + 3 * page + page_mask) / page * page;
}

/* At setup only, which is before there are threads: later, other jobs' data may be gone. */
static struct company company_of(struct thread_data *td)
{
	struct company found = { 0 };
	struct thread_data *other;
	unsigned int group = 0, own = 0;
	unsigned int at;

	for (at = 0; at < thread_number; at++) {
		other = tnumber_to_td(at);
		group += other->o.stonewall;
		if (other == td)
			own = group;
	}
	group = 0;
	for (at = 0; at < thread_number; at++) {
		other = tnumber_to_td(at);
		group += other->o.stonewall;
		if (group != own || other->io_ops != &ioengine || strcmp(path_of(other), path_of(td)))
			continue;
		found.jobs++;
		found.processes += !other->o.use_thread;
		found.different += options_of(other)->hipri != options_of(td)->hipri ||
				   options_of(other)->write_cache != options_of(td)->write_cache;
		found.depth = max(found.depth, other->o.iodepth);
		found.memory += memory_of(other);
	}
	return found;
}

static struct socket *find(const char *path)
{
	struct socket *one;

	for (one = sockets; one; one = one->next)
		if (!strcmp(one->path, path))
			return one;
	return NULL;
}

/* Connects; what is wrong is said. */
static struct vblk_device *connected(struct thread_data *td, unsigned int queues, unsigned int depth, uint64_t memory)
{
	struct vblk_options asked = {
		.abi = VBLK_ABI,
		.queues = queues,
		.depth = depth,
		.mode = options_of(td)->hipri ? VBLK_POLLED : VBLK_INTERRUPT,
		.memory = memory,
		.cache = options_of(td)->write_cache,
	};
	struct vblk_device *device;
	char why[512];
	int code = vblk_open(path_of(td), &asked, &device, why, sizeof(why));

	if (code == VBLK_OK)
		return device;
	log_err(NAME ": %s\n", why);
	td_verror(td, errno_of(code), "vblk_open");
	return NULL;
}

const char *nonsense(struct thread_data *td)
{
	struct company company;
	struct stat found;

	if (td->io_ops != &ioengine || strcmp(fio_version_string, BUILT_FOR))
		return "built for " BUILT_FOR ", which this fio is not: build it again with `cargo xtask fio`";
	if (td->files_index != 1 || stat(path_of(td), &found) || !S_ISSOCK(found.st_mode))
		return "there is no such socket: start the back-end, and give its one socket with --filename=SOCKET";
	company = company_of(td);
	if (company.jobs > 1 && company.processes)
		return "jobs that run together on one socket share its connection and must be threads: give --thread=1";
	if (company.different)
		return "jobs that run together on one socket share --hipri and --write_cache: give the same to all";
	options_of(td)->company = company;
	return NULL;
}

/* Learns what the device is, once a socket: connects and lets go, because a job that is a process connects on its own. */
static struct socket *learned(struct thread_data *td)
{
	const char *path = path_of(td);
	struct socket *one = find(path);
	struct vblk_device *device;

	if (one)
		return one;
	one = calloc(1, sizeof(*one) + strlen(path) + 1);
	device = one ? connected(td, 1, 1, 4096) : NULL;
	if (!device) {
		free(one);
		return NULL;
	}
	strcpy(one->path, path);
	vblk_get_info(device, &one->info);
	vblk_close(device);
	one->next = sockets;
	sockets = one;
	return one;
}

struct socket *known(struct thread_data *td)
{
	struct socket *one;

	pthread_mutex_lock(&change);
	one = learned(td);
	pthread_mutex_unlock(&change);
	return one;
}

/* Under the lock. */
static const struct vblk_queue *queue_of(struct thread_data *td, struct socket *one)
{
	const struct company *company = &options_of(td)->company;
	const struct vblk_queue *queue;

	if (!one->device) {
		one->device = connected(td, company->jobs, company->depth, company->memory);
		one->queues = 0;
	}
	if (!one->device)
		return NULL;
	queue = vblk_get_queue(one->device, one->queues);
	if (!queue) {
		log_err(NAME ": no queue is left for this job on %s\n", one->path);
		td_verror(td, EBUSY, "init");
		return NULL;
	}
	one->queues++;
	one->users++;
	return queue;
}

const struct vblk_queue *joined(struct thread_data *td, struct socket **socket)
{
	const struct vblk_queue *queue;

	pthread_mutex_lock(&change);
	*socket = options_of(td)->company.jobs ? find(path_of(td)) : NULL;
	queue = *socket ? queue_of(td, *socket) : NULL;
	pthread_mutex_unlock(&change);
	if (!*socket) {
		log_err(NAME ": the job begins before it was set up: leave --create_serialize=0 and --read_iolog out\n");
		td_verror(td, EINVAL, "init");
	}
	return queue;
}

void left(struct socket *one)
{
	pthread_mutex_lock(&change);
	if (!--one->users) {
		vblk_close(one->device);
		one->device = NULL;
	}
	pthread_mutex_unlock(&change);
}
