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

/*
 * The jobs that run at the same time as `group` says (jobs between two stonewalls). At setup only, which is before there
 * are threads: later, other jobs' data may be gone.
 */
static struct company company_in(struct thread_data *td, unsigned int wanted)
{
	struct company found = { 0 };
	struct thread_data *other;
	unsigned int group = 0;
	unsigned int at;

	for (at = 0; at < thread_number; at++) {
		other = tnumber_to_td(at);
		group += other->o.stonewall;
		if (group != wanted || other->io_ops != &ioengine || strcmp(path_of(other), path_of(td)))
			continue;
		found.jobs++;
		found.different += options_of(other)->hipri != options_of(td)->hipri ||
				   options_of(other)->write_cache != options_of(td)->write_cache;
		found.depth = max(found.depth, other->o.iodepth);
		found.memory += memory_of(other);
	}
	return found;
}

/* The group that a job is in, and how many groups there are. */
static unsigned int group_of(struct thread_data *td, unsigned int *groups)
{
	unsigned int group = 0, own = 0;
	unsigned int at;

	for (at = 0; at < thread_number; at++) {
		group += tnumber_to_td(at)->o.stonewall;
		if (tnumber_to_td(at) == td)
			own = group;
	}
	*groups = group + 1;
	return own;
}

/* What a connection needs that serves every group of jobs on the job's socket, one after the other. */
static struct company largest_of(struct thread_data *td)
{
	struct company largest = { 0 };
	unsigned int group, groups;

	group_of(td, &groups);
	for (group = 0; group < groups; group++) {
		struct company one = company_in(td, group);

		largest.jobs = max(largest.jobs, one.jobs);
		largest.depth = max(largest.depth, one.depth);
		largest.memory = max(largest.memory, one.memory);
	}
	return largest;
}

static struct socket *find(const char *path)
{
	struct socket *one;

	for (one = sockets; one; one = one->next)
		if (!strcmp(one->path, path))
			return one;
	return NULL;
}

/* Connects for the largest company that the socket will see; what is wrong is said. */
static bool connected(struct thread_data *td, struct socket *one)
{
	const struct company *company = &options_of(td)->company;
	struct vblk_options asked = {
		.abi = VBLK_ABI,
		.queues = company->jobs,
		.depth = company->depth,
		.mode = options_of(td)->hipri ? VBLK_POLLED : VBLK_INTERRUPT,
		.memory = company->memory,
		.cache = options_of(td)->write_cache,
	};
	char why[512];
	int code = vblk_open(one->path, &asked, &one->device, why, sizeof(why));

	if (code != VBLK_OK) {
		log_err(NAME ": %s\n", why);
		td_verror(td, errno_of(code), "vblk_open");
		return false;
	}
	one->hipri = options_of(td)->hipri;
	one->write_cache = options_of(td)->write_cache;
	one->queues = 0;
	one->stained = false;
	vblk_get_info(one->device, &one->info);
	return true;
}

const char *nonsense(struct thread_data *td)
{
	unsigned int groups;
	struct stat found;

	if (td->io_ops != &ioengine || strcmp(fio_version_string, BUILT_FOR))
		return "built for " BUILT_FOR ", which this fio is not: build it again with `cargo xtask fio`";
	if (td->files_index != 1 || stat(path_of(td), &found) || !S_ISSOCK(found.st_mode))
		return "there is no such socket: start the back-end, and give its one socket with --filename=SOCKET";
	if (company_in(td, group_of(td, &groups)).different)
		return "jobs that run together on one socket share --hipri and --write_cache: give the same to all";
	options_of(td)->company = largest_of(td);
	return NULL;
}

/* Connects, once a socket. */
static struct socket *learned(struct thread_data *td)
{
	const char *path = path_of(td);
	struct socket *one = find(path);

	if (one)
		return one;
	one = calloc(1, sizeof(*one) + strlen(path) + 1);
	if (!one)
		return NULL;
	strcpy(one->path, path);
	if (!connected(td, one)) {
		free(one);
		return NULL;
	}
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

void expected(struct socket *one)
{
	pthread_mutex_lock(&change);
	one->jobs++;
	pthread_mutex_unlock(&change);
}

/* Under the lock. */
static void disconnect(struct socket *one)
{
	if (one->device)
		vblk_close(one->device);
	one->device = NULL;
}

/* Under the lock. */
static const struct vblk_queue *queue_of(struct thread_data *td, struct socket *one)
{
	const struct engine_options *options = options_of(td);
	const struct vblk_queue *queue;

	if (!one->users) {
		if (one->stained || one->hipri != options->hipri || one->write_cache != options->write_cache)
			disconnect(one);
		one->queues = 0;
	}
	if (!one->device && !connected(td, one))
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
	const struct vblk_queue *queue = NULL;

	pthread_mutex_lock(&change);
	*socket = options_of(td)->company.jobs ? find(path_of(td)) : NULL;
	if (*socket)
		queue = queue_of(td, *socket);
	if (*socket && !queue)
		(*socket)->jobs--;
	pthread_mutex_unlock(&change);
	if (!*socket) {
		log_err(NAME ": the job begins before it was set up: leave --create_serialize=0 and --read_iolog out\n");
		td_verror(td, EINVAL, "init");
	}
	return queue;
}

void left(struct socket *one, bool clean)
{
	pthread_mutex_lock(&change);
	one->users--;
	one->jobs--;
	one->stained |= !clean;
	if (!one->users && (!one->jobs || one->stained))
		disconnect(one);
	pthread_mutex_unlock(&change);
}
