#include "guest/dbset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), k = strlen(end);

	return n > k && strcmp(name + n - k, end) == 0;
}

bool dbset_is_log(const char *name)
{
	return name[0] != '.' && (ends_in(name, ".sqlite-wal") || ends_in(name, ".db-wal") || ends_in(name, ".sqlite-journal") ||
				  ends_in(name, ".db-journal"));
}

bool dbset_is_file(const char *name)
{
	return name[0] != '.' && (ends_in(name, ".sqlite") || ends_in(name, ".db") || dbset_is_log(name));
}

DIR *dbset_open(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		(void)close(fd);
	return d;
}

/* FNV-1a */
static uint64_t mix(uint64_t sum, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ b[i]) * 0x100000001b3;
	return sum;
}

struct dbset_look dbset_look(int dir)
{
	struct dbset_look look = { 0 };
	DIR *d = dbset_open(dir);
	struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d))) {
		uint64_t one;

		if (!dbset_is_file(e->d_name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		one = mix(0xcbf29ce484222325, e->d_name, strlen(e->d_name));
		one = mix(one, &st.st_ino, sizeof(st.st_ino));
		one = mix(one, &st.st_size, sizeof(st.st_size));
		one = mix(one, &st.st_mtim.tv_sec, sizeof(st.st_mtim.tv_sec));
		one = mix(one, &st.st_mtim.tv_nsec, sizeof(st.st_mtim.tv_nsec));
		look.sum += one; /* in whatever order they are read */
		if (S_ISREG(st.st_mode))
			look.bytes += (uint64_t)st.st_size;
	}
	if (d)
		(void)closedir(d);
	return look;
}

/* Regular, no link followed. */
static int open_regular(int dir, const char *name, struct stat *ret)
{
	AUTO_FD(fd);

	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, ret) < 0)
		return -errno;
	return S_ISREG(ret->st_mode) ? TAKE_FD(fd) : -EINVAL;
}

int dbset_copy_one(int from, const char *name, int to, bool sync, uint64_t *left)
{
	AUTO_FD(in);
	AUTO_FD(out);
	struct stat st;
	uint64_t n;

	in = open_regular(from, name, &st);
	if (in < 0)
		return in == -EINVAL || in == -ELOOP ? 0 : in;
	n = (uint64_t)st.st_size;
	if (n > *left)
		return -EFBIG;
	*left -= n;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	while (n > 0) {
		ssize_t k = sendfile(out, in, NULL, MIN(n, (uint64_t)1 << 30));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO; /* it got shorter: a set is whole or it is none */
		n -= (uint64_t)k;
	}
	return sync && fsync(out) < 0 ? -errno : 1;
}

int dbset_copy(int from, int to, bool sync, uint64_t max)
{
	DIR *d = dbset_open(from);
	struct dirent *e;
	int r = 0, n = 0;

	if (!d)
		return -errno;
	while (r >= 0 && n <= DBSET_FILES_MAX && (errno = 0, e = readdir(d)))
		if (dbset_is_file(e->d_name)) {
			r = dbset_copy_one(dirfd(d), e->d_name, to, sync, &max);
			n += r > 0;
		}
	if (r >= 0 && n <= DBSET_FILES_MAX && errno != 0)
		r = -errno;
	(void)closedir(d);
	if (r >= 0 && sync && fsync(to) < 0 && errno != EINVAL) /* a file system without it for folders */
		r = -errno;
	return r < 0 ? r : n > DBSET_FILES_MAX ? -EFBIG : n;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* File format page 1.3: how many pages there are holds if it was written by the version that has made the last change. */
static bool is_damaged(int dir, const char *name)
{
	static const uint8_t zeros[16];
	uint8_t head[100];
	struct stat st;
	uint32_t page;
	AUTO_FD(fd);

	fd = open_regular(dir, name, &st);
	if (fd < 0 || st.st_size == 0)
		return false;
	if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
		return st.st_size < (off_t)sizeof(head) && st.st_size >= 16 && memcmp(head, "SQLite format 3", 16) == 0;
	if (memcmp(head, zeros, sizeof(zeros)) == 0)
		return true;
	page = (uint32_t)head[16] << 8 | head[17];
	return memcmp(head, "SQLite format 3", 16) == 0 && be32(head + 24) == be32(head + 92) &&
	       (uint64_t)st.st_size < (uint64_t)be32(head + 28) * (page == 1 ? 65536 : page);
}

bool dbset_is_damaged(int dir)
{
	DIR *d = dbset_open(dir);
	bool damaged = false;
	struct dirent *e;

	while (d && !damaged && (e = readdir(d))) {
		AUTO_FREE(char, wal);
		AUTO_FREE(char, journal);

		if (!dbset_is_file(e->d_name) || dbset_is_log(e->d_name))
			continue;
		wal = xasprintf("%s-wal", e->d_name);
		journal = xasprintf("%s-journal", e->d_name);
		/* What is missing may be in its log. */
		damaged = faccessat(dirfd(d), wal, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
			  faccessat(dirfd(d), journal, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && is_damaged(dirfd(d), e->d_name);
	}
	if (d)
		(void)closedir(d);
	return damaged;
}

void dbset_empty(int dir)
{
	DIR *d = dbset_open(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (dbset_is_file(e->d_name))
			(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		(void)closedir(d);
}
