#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define TREE_DEPTH_MAX 256 /* a guest can make folders that are deeper than our stack and our descriptors */

int file_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = (flags & (O_CREAT | O_TMPFILE)) ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	/* EAGAIN: a rename raced with the walk (openat2(2)); the kernel asks to try again. */
	for (int i = 0; i < 64; i++) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN && errno != EINTR)
			break;
	}
	return -errno;
}

int file_read_beneath(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
	AUTO_FD(fd);
	struct stat st;

	fd = file_open_beneath(dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return fd_read_file(fd, max, ret, ret_len);
}

static int replace_at(int dirfd, const char *name, const void *p, size_t n, mode_t mode, bool sync)
{
	AUTO_FREE(char, tmp);
	AUTO_FD(fd);
	int r;

	tmp = xasprintf(".%s.new", name);
	if (unlinkat(dirfd, tmp, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, p, n);
	if (r == 0 && (fchmod(fd, mode) < 0 || (sync && fsync(fd) < 0) || renameat(dirfd, tmp, dirfd, name) < 0))
		r = -errno;
	if (r < 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}

int file_replace_at(int dirfd, const char *name, const void *p, size_t n, mode_t mode)
{
	return replace_at(dirfd, name, p, n, mode, true);
}

int file_replace_unsynced_at(int dirfd, const char *name, const void *p, size_t n, mode_t mode)
{
	return replace_at(dirfd, name, p, n, mode, false);
}

struct file_mark file_mark(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return (struct file_mark){ .there = false };
	return (struct file_mark){ true, st.st_dev, st.st_ino, (uint64_t)st.st_size,
				   (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec };
}

bool file_mark_is(const struct file_mark *a, const struct file_mark *b)
{
	return a->there == b->there && a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

int dir_make_at(int dirfd, const char *name, mode_t mode)
{
	if (mkdirat(dirfd, name, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	/* fchmodat(2) because the umask has cut the mode of mkdirat. */
	return fchmodat(dirfd, name, mode, 0) < 0 ? -errno : 0;
}

int dir_open_made(const char *path, mode_t mode, struct err *err)
{
	AUTO_FREE(char, part);
	int fd, r;

	part = xstrdup(path);
	for (char *s = part + 1; *s && (s = strchr(s, '/')); s++) {
		*s = '\0';
		r = dir_make_at(AT_FDCWD, part, mode);
		if (r < 0 && r != -EROFS && r != -EACCES)
			return err_set(err, r, "%s: cannot be made: %s", part, strerror(-r));
		*s = '/';
	}
	r = dir_make_at(AT_FDCWD, path, mode);
	if (r < 0)
		return err_set(err, r, "%s: cannot be made: %s", path, strerror(-r));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot be opened: %s", path, strerror(errno));
	return fd;
}

int dir_open_own(int dirfd, const char *name)
{
	char path[64];
	struct stat st;
	AUTO_FD(fd);
	int r;

	fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & S_IRWXU) != S_IRWXU && st.st_uid == geteuid()) {
		/* chmod(2) by a descriptor that may not be read: proc(5). */
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (chmod(path, (st.st_mode & 07777) | S_IRWXU) < 0)
			return -errno;
	}
	r = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

struct removal {
	int64_t until_ns; /* 0: however long it takes */
	int top_fd;	  /* the first folder */
	dev_t dev;	  /* and its file system */
	unsigned int moved;
	bool late;
	int first; /* error */
};

static void remove_tree(struct removal *r, int dirfd, const char *name, int depth);

/* What is too deep for our stack and our descriptors is moved up, and its turn comes later. */
static int move_up(struct removal *r, int dirfd, const char *name)
{
	char up[32];
	int k;

	do {
		(void)snprintf(up, sizeof(up), "moved-%u", r->moved++);
		k = renameat2(dirfd, name, r->top_fd, up, RENAME_NOREPLACE);
	} while (k < 0 && errno == EEXIST);
	return k < 0 ? -errno : 0;
}

static bool is_late(struct removal *r)
{
	if (!r->late && r->until_ns != 0 && now_ns() >= r->until_ns) {
		r->late = true;
		r->first = -ETIME;
	}
	return r->late;
}

static int remove_entries(struct removal *r, int fd, int depth)
{
	unsigned int before;
	struct dirent *e;
	DIR *d;
	int copy;

	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -errno;
	d = fdopendir(copy);
	if (!d) {
		(void)close(copy);
		return -ENOMEM;
	}
	do {
		before = r->moved;
		rewinddir(d);
		while (!is_late(r) && (e = readdir(d)))
			if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
				remove_tree(r, fd, e->d_name, depth + 1);
	} while (depth == 0 && r->moved != before && !r->late);
	(void)closedir(d);
	return 0;
}

static int remove_folder(struct removal *r, int dirfd, const char *name, int depth)
{
	AUTO_FD(fd);
	struct stat st;
	int k;

	fd = dir_open_own(dirfd, name);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (depth == 0) {
		r->top_fd = fd;
		r->dev = st.st_dev;
	}
	if (st.st_dev != r->dev)
		return -EXDEV;
	if (depth == TREE_DEPTH_MAX)
		return move_up(r, dirfd, name);
	k = remove_entries(r, fd, depth);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && k == 0)
		k = -errno;
	return k;
}

static void remove_tree(struct removal *r, int dirfd, const char *name, int depth)
{
	int k = 0;

	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		k = errno == EISDIR || errno == EPERM ? remove_folder(r, dirfd, name, depth) : -errno;
	if (r->first == 0)
		r->first = k;
}

int file_remove_tree_at(int dirfd, const char *name)
{
	return file_remove_tree_within(dirfd, name, 0);
}

int file_remove_tree_within(int dirfd, const char *name, int64_t ms)
{
	struct removal r = { .until_ns = ms == 0 ? 0 : now_ns() + ms * 1000000 };

	remove_tree(&r, dirfd, name, 0);
	return r.first;
}

static uint64_t tree_allocated(int dirfd, const char *name, int depth)
{
	struct dirent *e;
	struct stat st;
	uint64_t sum;
	DIR *d;
	int fd;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	sum = (uint64_t)st.st_blocks * 512;
	if (!S_ISDIR(st.st_mode) || depth >= TREE_DEPTH_MAX)
		return sum;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			sum += tree_allocated(fd, e->d_name, depth + 1);
	if (d)
		(void)closedir(d);
	else if (fd >= 0)
		(void)close(fd);
	return sum;
}

uint64_t file_tree_allocated_at(int dirfd, const char *name)
{
	return tree_allocated(dirfd, name, 0);
}
