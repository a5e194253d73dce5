#include "guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/spawn.h"

#define COPY_MAX (64 << 10)

static volatile sig_atomic_t given_up;

static void on_give_up(int sig)
{
	given_up = sig;
}

/* Reads of @from end with EINTR when the host gives up: there is no SA_RESTART. */
static int copy_until_end(int from, int to, uint64_t max)
{
	static char piece[COPY_MAX];

	while (max > 0 && !given_up) {
		ssize_t k = read(from, piece, MIN((uint64_t)sizeof(piece), max));
		int r;

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			return 0;
		r = fd_write_all(to, piece, (size_t)k);
		if (r < 0)
			return r;
		max -= (uint64_t)k;
	}
	return given_up ? -ECANCELED : 0;
}

static int put_into(int dirfd, const char *tmp, const char *name, mode_t mode, int in)
{
	AUTO_FD(fd);
	int r;

	if (unlinkat(dirfd, tmp, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = copy_until_end(in, fd, UINT64_MAX);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0 && given_up)
		r = -ECANCELED;
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}

int file_put(const char *path, mode_t mode, int in, int status)
{
	struct sigaction act = { .sa_handler = on_give_up };
	const char *slash = strrchr(path, '/');
	char tmp[64];
	AUTO_FREE(char, dir);
	AUTO_FD(dirfd);
	int r;

	(void)sigaction(SIGHUP, &act, NULL);
	(void)sigaction(SIGTERM, &act, NULL);
	dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!dir)
		return spawn_fail(status, ENOMEM, "%s: out of memory", path);
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return spawn_fail(status, errno, "%s: cannot be opened: %s", dir, strerror(errno));
	/* A name of its own length, because the file's may be as long as names may be. */
	(void)snprintf(tmp, sizeof(tmp), ".agent-vm-new.%ld", (long)getpid());
	r = put_into(dirfd, tmp, slash + 1, mode, in);
	if (r == 0 && fsync(dirfd) < 0 && errno != EINVAL)
		r = -errno;
	return r < 0 ? spawn_fail(status, -r, "%s: cannot be written: %s", path, strerror(-r)) : 0;
}

int file_get(const char *path, uint64_t max, int out, int status)
{
	struct spawn_note note = { .kind = NOTE_FILE };
	struct stat st;
	AUTO_FD(fd);
	int r;

	/* O_NONBLOCK: a FIFO in the file's place must not hold us. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return spawn_fail(status, errno, "%s: cannot be opened: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return spawn_fail(status, EINVAL, "%s: is no regular file", path);
	if ((uint64_t)st.st_size > max)
		return spawn_fail(status, EFBIG, "%s: holds %llu bytes, at most %llu are taken", path,
				  (unsigned long long)st.st_size, (unsigned long long)max);
	note.mode = st.st_mode & 07777;
	note.size = (uint64_t)st.st_size;
	spawn_note(status, &note);
	/* What is added meanwhile is left out: the size was promised. */
	r = copy_until_end(fd, out, note.size);
	return r < 0 ? spawn_fail(status, -r, "%s: cannot be read: %s", path, strerror(-r)) : 0;
}
