/* An image store of a test's own, with disks that are sparse files. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/store.h"
#include "test.h"

#define REF "localhost/agent-vm:default"

static char root_path[64];
static int root_fd;

static inline struct store setup(void)
{
	struct store s;
	struct err err;

	/* In memory where that is possible: each crash point costs some fsync(2). */
	(void)snprintf(root_path, sizeof(root_path), "%s/agent-vm-test-XXXXXX",
		       access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp");
	CHECK(mkdtemp(root_path));
	root_fd = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(root_fd >= 0);
	CHECK_INT(store_open(root_fd, root_path, &s, &err), ==, 0);
	return s;
}

static inline void teardown(struct store *s)
{
	store_close(s);
	close(root_fd);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, root_path), ==, 0);
}

static inline struct image_meta meta_of(const char *ref, char digit, uint32_t api)
{
	struct image_meta m = { .reference = ref, .api_version = api, .min_bytes = 4096, .architecture = "amd64" };

	memset(m.key, digit, IMAGE_HEX);
	return m;
}

/* Puts a disk of @size bytes into the store by @m; returns what store_add() returned. */
static inline int add_meta(struct store *s, const struct image_meta *m, off_t size, char was[IMAGE_HEX + 1])
{
	struct err err = { 0 };
	char *name = NULL;
	AUTO_FD(fd);
	int r;

	CHECK_INT(store_tmp(s, 0, &name, &fd, &err), ==, 0);
	CHECK_INT(ftruncate(fd, size), ==, 0);
	r = store_add(s, name, fd, m, was, &err);
	free(name);
	return r;
}

static inline int add(struct store *s, const char *ref, char digit, uint32_t api, off_t size, char was[IMAGE_HEX + 1])
{
	struct image_meta m = meta_of(ref, digit, api);
	struct strv env = { 0 };
	int r;

	strv_add(&env, "LANG=C.UTF-8");
	m.env = &env;
	r = add_meta(s, &m, size, was);
	strv_done(&env);
	return r;
}

/* Entries of a folder. */
static inline int count(int dirfd)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *d = fdopendir(copy);
	struct dirent *e;

	CHECK(d);
	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

static inline const char *hex_of(char digit)
{
	static char mem[8][IMAGE_HEX + 1];
	static int next;
	char *p = mem[next++ % 8];

	memset(p, digit, IMAGE_HEX);
	return p;
}

static inline struct image_blob blob_of(char digit, uint64_t bytes)
{
	struct image_blob b = { .bytes = bytes };

	memset(b.digest, digit, IMAGE_HEX);
	return b;
}

/* A file of @size written bytes below the store, with its folder. */
static inline void put_file(const struct store *s, const char *dir, const char *name, size_t size)
{
	char *all = xasprintf("mkdir -p '%s/%s' && head -c %zu /dev/urandom > '%s/%s/%s'", s->path, dir, size, s->path, dir,
			      name);

	CHECK_INT(system(all), ==, 0);
	free(all);
}

static inline bool is_there(const struct store *s, const char *dir, const char *name)
{
	char *path = xasprintf("%s/%s/%s", s->path, dir, name);
	bool there = access(path, F_OK) == 0;

	free(path);
	return there;
}
