/* The folder that mmdebstrap makes its tree in: ours, below a folder for temporary files, so that what is left of a build
 * that was killed can be told and removed. It is locked while anything of its build lives: the descriptor of the lock goes
 * to mmdebstrap and all that it starts.
 *
 * Whose ids the tree has must be able to enter, so it is never below the state root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/prog.h"
#include "image/build_priv.h"
#include "sandbox/ns.h"

#define PREFIX "agent-vm-build-"
#define TRIES 10

static const char *place(unsigned int i)
{
	static const char *const fixed[] = { "/tmp", "/var/tmp" };

	return i == 0 ? getenv("TMPDIR") : i <= ARRAY_SIZE(fixed) ? fixed[i - 1] : NULL;
}

#define PLACES 3

/* Files of sub-ids can be removed only by who has them. */
static void remove_all(int dirfd, const char *name)
{
	struct err err;
	uint32_t kinds;
	int life;
	pid_t pid;

	if (file_remove_tree_at(dirfd, name) == 0 || geteuid() == 0)
		return;
	pid = ns_fork(true, &kinds, &life, &err);
	if (pid == 0)
		_exit(file_remove_tree_at(dirfd, name) < 0);
	if (pid > 0)
		(void)prog_wait(pid);
}

static bool is_ours(int fd)
{
	uid_t owner = geteuid() == 0 ? PROG_IDS_FIRST : geteuid();
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == owner;
}

static void sweep(const char *path)
{
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d))) {
		AUTO_FD(fd);

		if (!str_starts(e->d_name, PREFIX))
			continue;
		fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && is_ours(fd) && flock(fd, LOCK_EX | LOCK_NB) == 0)
			remove_all(dirfd(d), e->d_name);
	}
	if (d)
		(void)closedir(d);
}

static uint64_t room_in(const char *path)
{
	struct statvfs vfs;

	return statvfs(path, &vfs) == 0 && access(path, W_OK | X_OK) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : 0;
}

static bool all_may_enter(const char *path)
{
	for (const char *end = path; end; end = strchr(end + 1, '/')) {
		AUTO_FREE(char, part);
		const char *next = strchr(end + 1, '/');
		struct stat st;

		part = next ? xstrndup(path, (size_t)(next - path)) : xstrdup(path);
		if (stat(part, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
	}
	return true;
}

static int make_in(int dirfd, const char *name, int *ret)
{
	struct stat st;
	AUTO_FD(fd);

	if (mkdirat(dirfd, name, 0755) < 0)
		return -errno;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0755) < 0 || (geteuid() == 0 && fchown(fd, PROG_IDS_FIRST, PROG_IDS_FIRST) < 0) ||
	    flock(fd, LOCK_EX) < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		(void)unlinkat(dirfd, name, AT_REMOVEDIR);
		return r;
	}
	/* Another build took it for a dead one's between our two calls. */
	if (st.st_nlink == 0)
		return -EEXIST;
	*ret = TAKE_FD(fd);
	return 0;
}

static int make(const char *path, struct work *w, struct err *err)
{
	int r = -EEXIST;

	w->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dirfd < 0)
		return err_set(err, -errno, "%s: cannot be opened: %s", path, strerror(errno));
	for (int i = 0; i < TRIES && r == -EEXIST; i++) {
		uint64_t random;

		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			abort();
		free(w->name);
		w->name = xasprintf(PREFIX "%016llx", (unsigned long long)random);
		r = make_in(w->dirfd, w->name, &w->lock);
	}
	if (r < 0)
		return err_set(err, r, "%s/%s: cannot be made: %s; set TMPDIR to another folder", path, w->name, strerror(-r));
	w->path = xasprintf("%s/%s", path, w->name);
	return 0;
}

int work_begin(uint64_t need, struct work *w, struct err *err)
{
	const char *best = NULL;

	for (unsigned int i = 0; i < PLACES; i++) {
		const char *path = place(i);

		if (!path || *path != '/')
			continue;
		sweep(path);
		if (!best && room_in(path) >= need && all_may_enter(path))
			best = path;
	}
	if (best)
		return make(best, w, err);
	return err_set(err, -ENOSPC, "/tmp and /var/tmp: %llu MB are needed while the image is made and neither has them; free some, or set TMPDIR to a folder that all may enter",
		       (unsigned long long)need / 1000000);
}

void work_end(struct work *w)
{
	if (w->path)
		remove_all(w->dirfd, w->name);
	close_p(&w->dirfd);
	close_p(&w->lock);
	free(w->name);
	free(w->path);
	*w = (struct work)WORK_INIT;
}
