#include "session/trash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "session/root.h"

#define STATE_TRASH STATE_RUN "/trash"

/* -ENOENT: another launch has emptied the trash meanwhile, and has removed it with that. */
static int put(int root_fd, int dirfd, const char *name)
{
	AUTO_FD(trash);
	AUTO_FD(fd);
	uint64_t random;
	char to[24];
	int r;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return -errno;
	/* Who moves a folder to another writes its "..". */
	fd = dir_open_own(dirfd, name);
	if (fd < 0)
		return fd;
	r = dir_make_at(root_fd, STATE_TRASH, 0700);
	if (r < 0)
		return r;
	trash = openat(root_fd, STATE_TRASH, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (trash < 0)
		return -errno;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	(void)snprintf(to, sizeof(to), "%016" PRIx64, random);
	return renameat(dirfd, name, trash, to) < 0 ? -errno : 0;
}

int trash_put(int root_fd, int dirfd, const char *name)
{
	int r, tries = 100;

	do
		r = put(root_fd, dirfd, name);
	while (r == -ENOENT && --tries > 0);
	return r;
}

void trash_empty(int root_fd, int64_t ms)
{
	(void)file_remove_tree_within(root_fd, STATE_TRASH, ms);
}
