/* Adding to the store, and taking away at once what an addition has replaced. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/store_priv.h"

static int lock_exclusive(const struct store *s, int *ret_fd, struct err *err)
{
	return store_lock(s, "lock", LOCK_EX, ret_fd, err);
}

/* --- a disk being made --- */

/* Disks being made whose maker is gone. The caller holds the store's lock exclusively. */
static void tmp_sweep(const struct store *s)
{
	struct dirent *e;
	DIR *d;

	d = store_readdir(s->tmp);
	while (d && (e = readdir(d))) {
		AUTO_FD(fd);

		if (*e->d_name == '.')
			continue;
		fd = openat(s->tmp, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0 && store_is_free(fd))
			(void)unlinkat(s->tmp, e->d_name, 0);
	}
	if (d)
		(void)closedir(d);
}

/* What a replacing of a JSON file left that was killed; all of them are replaced under the exclusive lock. */
static void new_sweep(int dir)
{
	struct dirent *e;
	DIR *d;

	d = store_readdir(dir);
	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (*e->d_name == '.' && n > 4 && strcmp(e->d_name + n - 4, ".new") == 0)
			(void)unlinkat(dir, e->d_name, 0);
	}
	if (d)
		(void)closedir(d);
}

int store_tmp(const struct store *s, uint64_t need_bytes, char **ret_name, int *ret_fd, struct err *err)
{
	AUTO_FREE(char, name);
	AUTO_FD(lock);
	AUTO_FD(fd);
	uint64_t have;
	int r;

	r = lock_exclusive(s, &lock, err);
	if (r < 0)
		return r;
	tmp_sweep(s);
	new_sweep(s->disks);
	new_sweep(s->refs);
	have = store_free_bytes(s);
	if (have < need_bytes)
		return err_set(err, -ENOSPC, "%s: %llu MB are free and the image needs %llu MB; free some, or set AGENT_VM_STATE_DIR to another disk",
			       s->path, (unsigned long long)have / 1000000, (unsigned long long)need_bytes / 1000000);
	name = xasprintf("disk-%d-%llx.ext4", (int)getpid(), (unsigned long long)now_ns());
	fd = openat(s->tmp, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s/tmp/%s: cannot be made: %s", s->path, name, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		(void)unlinkat(s->tmp, name, 0);
		return err_set(err, r, "%s: locks do not work on this file system: %s", s->path, strerror(-r));
	}
	*ret_name = TAKE_PTR(name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void store_tmp_drop(const struct store *s, const char *name)
{
	(void)unlinkat(s->tmp, name, 0);
}

/* --- what nothing names --- */

/* Calls @each with every reference; @each returns false to stop. True when all were read and none stopped: a file that
 * cannot be read could name anything. */
static bool each_ref(const struct store *s, bool (*each)(const struct image_ref *ref, const char *what), const char *what)
{
	bool go = true;
	struct dirent *e;
	DIR *d;

	d = store_readdir(s->refs);
	while (d && go && (e = readdir(d))) {
		struct image_ref ref;

		if (*e->d_name == '.')
			continue;
		go = store_ref_parse(s, e->d_name, NULL, &ref, NULL) == 0;
		if (!go)
			break;
		go = each(&ref, what);
		image_ref_done(&ref);
	}
	if (!d)
		return false;
	(void)closedir(d);
	return go;
}

static bool is_other_disk(const struct image_ref *ref, const char *key)
{
	return strcmp(ref->disk, key) != 0;
}

static bool is_other_blob(const struct image_ref *ref, const char *digest)
{
	if (strcmp(ref->served, digest) == 0 || strcmp(ref->platform, digest) == 0 || strcmp(ref->config, digest) == 0)
		return false;
	for (size_t i = 0; i < ref->n_layers; i++)
		if (strcmp(ref->layers[i].digest, digest) == 0)
			return false;
	return true;
}

static void disk_sweep(const struct store *s, const char *key)
{
	AUTO_FREE(char, disk);
	AUTO_FREE(char, json);
	AUTO_FD(fd);

	if (!each_ref(s, is_other_disk, key))
		return;
	disk = store_disk_file(key, "ext4");
	json = store_disk_file(key, "json");
	fd = openat(s->disks, disk, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 ? errno != ENOENT : !store_is_free(fd))
		return;
	(void)unlinkat(s->disks, disk, 0);
	(void)unlinkat(s->disks, json, 0);
}

/* Delete the disks that nothing names and nobody uses. The caller holds the store's lock exclusively. */
static void disks_sweep(const struct store *s)
{
	struct dirent *e;
	DIR *d;

	d = store_readdir(s->disks);
	while (d && (e = readdir(d))) {
		char key[IMAGE_HEX + 1];

		/* Both files of a disk lead here: one that a crash has left alone goes too. */
		if (strlen(e->d_name) != IMAGE_HEX + strlen(".ext4"))
			continue;
		memcpy(key, e->d_name, IMAGE_HEX);
		key[IMAGE_HEX] = '\0';
		if (store_is_hex(key))
			disk_sweep(s, key);
	}
	if (d)
		(void)closedir(d);
}

static void blob_drop(const struct store *s, int dir, const char *digest)
{
	if (*digest && each_ref(s, is_other_blob, digest))
		(void)unlinkat(dir, digest, 0);
}

void store_blobs_drop(const struct store *s, const struct image_ref *former)
{
	AUTO_FD(pulls);
	AUTO_FD(lock);
	AUTO_FD(dir);

	if (store_lock(s, "pulls", LOCK_EX | LOCK_NB, &pulls, NULL) < 0 || lock_exclusive(s, &lock, NULL) < 0)
		return;
	dir = store_dir(s, "blobs/sha256");
	if (dir < 0)
		return;
	blob_drop(s, dir, former->served);
	blob_drop(s, dir, former->platform);
	blob_drop(s, dir, former->config);
	for (size_t i = 0; i < former->n_layers; i++)
		blob_drop(s, dir, former->layers[i].digest);
}

/* --- adding --- */

static int disk_place(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta, struct err *err)
{
	AUTO_FREE(char, name);
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s/tmp/%s: %s", s->path, tmp_name, strerror(errno));
	if (store_disk_is_whole(s, meta->key, (uint64_t)st.st_size)) {
		store_tmp_drop(s, tmp_name);
		r = store_meta_write(s, meta, (uint64_t)st.st_size);
		return r < 0 ? err_set(err, r, "%s/disks: cannot be written: %s", s->path, strerror(-r)) : 0;
	}
	name = store_disk_file(meta->key, "ext4");
	/* The JSON first, so that a disk is never without. */
	r = store_meta_write(s, meta, (uint64_t)st.st_size);
	/* From here on others may use it. */
	if (r == 0 && (flock(fd, LOCK_SH) < 0 || renameat(s->tmp, tmp_name, s->disks, name) < 0 || fsync(s->disks) < 0))
		r = -errno;
	return r < 0 ? err_set(err, r, "%s/disks/%s: cannot be stored: %s", s->path, name, strerror(-r)) : 0;
}

static int ref_place(const struct store *s, const struct image_meta *meta, struct err *err)
{
	int r = store_ref_write(s, meta);

	if (r < 0)
		return err_set(err, r, "%s/refs: cannot be written: %s", s->path, strerror(-r));
	disks_sweep(s);
	return 0;
}

static int add_locked(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta,
		      char was[IMAGE_HEX + 1], struct err *err)
{
	struct image_ref old;
	int r;

	if (store_ref_read(s, meta->reference, &old, NULL) == 0) {
		memcpy(was, old.disk, IMAGE_HEX + 1);
		image_ref_done(&old);
	}
	r = disk_place(s, tmp_name, fd, meta, err);
	return r < 0 ? r : ref_place(s, meta, err);
}

/* A copy of @meta whose reference is in full form, which the caller owns. */
static int meta_full(const struct image_meta *meta, struct image_meta *ret, char **ret_ref, struct err *err)
{
	int r = store_ref_full(meta->reference, ret_ref, err);

	if (r < 0)
		return r;
	if (!store_is_hex(meta->key) || (meta->served && !store_is_hex(meta->served)) ||
	    (meta->platform && !store_is_hex(meta->platform)) || (meta->config && !store_is_hex(meta->config)))
		return err_set(err, -EINVAL, "image %s: a digest of it is no SHA-256", *ret_ref);
	*ret = *meta;
	ret->reference = *ret_ref;
	return 0;
}

int store_add(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta,
	      char ret_was[IMAGE_HEX + 1], struct err *err)
{
	AUTO_FREE(char, ref);
	char was[IMAGE_HEX + 1] = "";
	struct image_meta full;
	AUTO_FD(lock);
	int r;

	r = meta_full(meta, &full, &ref, err);
	/* Seconds, so before the lock. */
	if (r == 0 && (fchmod(fd, 0400) < 0 || fsync(fd) < 0))
		r = err_set(err, -errno, "%s/tmp/%s: cannot be written out: %s", s->path, tmp_name, strerror(errno));
	if (r == 0)
		r = lock_exclusive(s, &lock, err);
	if (r == 0)
		r = add_locked(s, tmp_name, fd, &full, was, err);
	if (r < 0) {
		store_tmp_drop(s, tmp_name);
		return r;
	}
	memcpy(ret_was, was, sizeof(was));
	return 0;
}

int store_link(const struct store *s, const struct image_meta *meta, struct err *err)
{
	AUTO_FREE(char, ref);
	struct disk_meta disk = { 0 };
	struct image_meta full;
	AUTO_FD(lock);
	int r;

	r = meta_full(meta, &full, &ref, err);
	if (r == 0)
		r = lock_exclusive(s, &lock, err);
	if (r < 0)
		return r;
	if (store_meta_read(s, meta->key, &disk, NULL) < 0)
		return -ENOENT;
	if (!store_disk_is_whole(s, meta->key, disk.size))
		r = -ENOENT;
	else
		r = image_api_check(ref, disk.api_version, disk.api_found, err);
	disk_meta_done(&disk);
	return r < 0 ? r : ref_place(s, &full, err);
}
