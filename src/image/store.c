/* The image store. What is in it is written once and replaced whole, so a reader needs no lock for consistency; locks say
 * what is in use:
 *
 *	lock			shared by who looks up, exclusive by who adds or deletes. Held for milliseconds
 *	a disk's descriptor	shared for the life of a session, exclusive for the moment of its deletion
 *	a file in tmp/		exclusive by its maker for as long as he lives
 *
 * Adding a disk: fsync, rename to its key, its JSON, then the reference. The JSON is written before the disk is renamed, so
 * that a disk is never without; killed anywhere, the reference names the old disk or the new one and both are whole. A disk
 * that no reference names is found and deleted by the next one who adds.
 *
 *	disks/HEX.json	{"version":1, "size":N, "min_size":N, "api_version":N, "architecture":"amd64", "env":["A=1"], "made":T}
 *	refs/HEX16.json	{"version":1, "reference":"...", "disk":"HEX", "stored":T}
 *	default.json	{"version":1, "reference":"..."}
 *
 * Bounds: 64 KiB a JSON file; a member too many, missing or of the wrong type is damage; a newer version is said to be
 * one. */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sha256.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"

#define JSON_MAX (64 * 1024)
#define STORE_VERSION 1
#define REF_HEX 16

static void json_p(json_t **j)
{
	json_decref(*j);
}

#define AUTO_JSON(name) CLEANUP(json_p) json_t *name = NULL

/* --- paths --- */

static int sub_open(int dirfd, const char *name)
{
	int r = dir_make_at(dirfd, name, 0700);
	int fd;

	if (r < 0)
		return r;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int store_open(int root_fd, const char *root_path, struct store *ret, struct err *err)
{
	struct store s = { -1, -1, -1, -1, NULL };
	int r = 0;

	s.fd = sub_open(root_fd, "images");
	if (s.fd >= 0) {
		s.disks = sub_open(s.fd, "disks");
		s.refs = sub_open(s.fd, "refs");
		s.tmp = sub_open(s.fd, "tmp");
	}
	r = s.fd < 0 ? s.fd : s.disks < 0 ? s.disks : s.refs < 0 ? s.refs : s.tmp < 0 ? s.tmp : 0;
	s.path = xasprintf("%s/images", root_path);
	if (r < 0) {
		(void)err_set(err, r, "%s: the image store cannot be opened: %s", s.path, strerror(-r));
		store_close(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	close_p(&s->fd);
	close_p(&s->disks);
	close_p(&s->refs);
	close_p(&s->tmp);
	free(s->path);
	*s = (struct store){ -1, -1, -1, -1, NULL };
}

static int store_lock(const struct store *s, int how, int *ret_fd)
{
	AUTO_FD(fd);
	int r;

	fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	do
		r = flock(fd, how);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void ref_file(const char *ref, char name[REF_HEX + 6])
{
	char hex[SHA256_DIGEST_STRING_LENGTH];

	(void)SHA256Data((const uint8_t *)ref, strlen(ref), hex);
	(void)snprintf(name, REF_HEX + 6, "%.*s.json", REF_HEX, hex);
}

static bool is_hex(const char *s)
{
	return strlen(s) == IMAGE_HEX && strspn(s, "0123456789abcdef") == IMAGE_HEX;
}

static char *file_of(const char *hex, const char *ext)
{
	return xasprintf("%.*s.%s", IMAGE_HEX, hex, ext);
}

/* --- JSON --- */

/**
 * json_read() - Read one file of ours
 *
 * Return: 0; -ENOENT: not there; -EBADMSG, -EPROTO (newer version) with @err set
 */
static int json_read(const struct store *s, int dirfd, const char *dir, const char *name, json_t **ret, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_JSON(j);
	json_error_t je;
	json_int_t version;
	size_t n;
	int r;

	r = file_read_beneath(dirfd, name, JSON_MAX, &text, &n);
	if (r == -ENOENT)
		return err_set(err, r, "%s/%s%s: not there", s->path, dir, name);
	if (r < 0)
		return err_set(err, -EBADMSG, "%s/%s%s: cannot be read: %s", s->path, dir, name, strerror(-r));
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(j) || !json_is_integer(json_object_get(j, "version")))
		return err_set(err, -EBADMSG, "%s/%s%s: damaged; delete it and run: agent-vm build", s->path, dir, name);
	version = json_integer_value(json_object_get(j, "version"));
	if (version != STORE_VERSION)
		return err_set(err, -EPROTO, "%s/%s%s: written by a newer agent-vm (version %lld, this one reads %d); update agent-vm",
			       s->path, dir, name, (long long)version, STORE_VERSION);
	*ret = TAKE_PTR(j);
	return 0;
}

static int json_write(int dirfd, const char *name, json_t *j)
{
	AUTO_FREE(char, text);
	int r;

	text = json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS);
	if (!text)
		return -ENOMEM;
	r = file_replace_at(dirfd, name, text, strlen(text), 0600);
	/* The rename is on disk only with its folder. */
	return r < 0 ? r : fsync(dirfd) < 0 ? -errno : 0;
}

/* The disk that a normalised reference names. */
static int ref_read(const struct store *s, const char *ref, char ret_hex[IMAGE_HEX + 1], struct err *err)
{
	char name[REF_HEX + 6];
	const char *got, *hex;
	json_int_t version, stored;
	AUTO_JSON(j);
	int r;

	ref_file(ref, name);
	r = json_read(s, s->refs, "refs/", name, &j, err);
	if (r < 0)
		return r;
	if (json_unpack(j, "{s:I, s:s, s:s, s:I !}", "version", &version, "reference", &got, "disk", &hex, "stored",
			&stored) < 0 ||
	    strcmp(got, ref) != 0 || !is_hex(hex))
		return err_set(err, -EBADMSG, "%s/refs/%s: damaged; delete it and run: agent-vm build", s->path, name);
	memcpy(ret_hex, hex, IMAGE_HEX + 1);
	return 0;
}

static int env_read(json_t *list, struct strv *ret)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(item), *eq = text ? strchr(text, '=') : NULL;

		if (!eq || eq == text)
			return -EBADMSG;
		strv_add(ret, text);
	}
	return 0;
}

static int meta_read(const struct store *s, const char *hex, struct image *img, struct err *err)
{
	AUTO_FREE(char, name);
	AUTO_JSON(j);
	json_int_t version, size, min_size, api, made;
	const char *arch;
	json_t *env;
	int r;

	name = file_of(hex, "json");
	r = json_read(s, s->disks, "disks/", name, &j, err);
	if (r < 0)
		return r == -ENOENT ? -EBADMSG : r;
	if (json_unpack(j, "{s:I, s:I, s:I, s:I, s:s, s:o, s:I !}", "version", &version, "size", &size, "min_size", &min_size,
			"api_version", &api, "architecture", &arch, "env", &env, "made", &made) < 0 ||
	    !json_is_array(env) || size <= 0 || min_size <= 0 || min_size > size || api < 0 || api > INT32_MAX ||
	    env_read(env, &img->env) < 0)
		return err_set(err, -EBADMSG, "%s/disks/%s: damaged; delete it and run: agent-vm build", s->path, name);
	img->size_bytes = (uint64_t)size;
	img->min_bytes = (uint64_t)min_size;
	img->api_version = (uint32_t)api;
	return 0;
}

/* --- finding --- */

static int disk_open(const struct store *s, const char *hex, struct image *img, struct err *err)
{
	AUTO_FREE(char, name);
	struct stat st;

	name = file_of(hex, "ext4");
	img->disk_path = xasprintf("%s/disks/%s", s->path, name);
	img->disk_fd = file_open_beneath(s->disks, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (img->disk_fd < 0)
		return err_set(err, -EBADMSG, "%s: cannot be opened: %s; run: agent-vm build", img->disk_path,
			       strerror(-img->disk_fd));
	if (flock(img->disk_fd, LOCK_SH | LOCK_NB) < 0)
		return err_set(err, -EBADMSG, "%s: cannot be locked: %s", img->disk_path, strerror(errno));
	if (fstat(img->disk_fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != img->size_bytes)
		return err_set(err, -EBADMSG, "%s: not a file of the recorded %llu bytes; delete it and run: agent-vm build",
			       img->disk_path, (unsigned long long)img->size_bytes);
	return 0;
}

static int api_check(const struct image *img, struct err *err)
{
	if (img->api_version < IMAGE_API_MIN)
		return err_set(err, -EPROTO, "image %s: its API version is %u, this agent-vm supports %d to %d; make a newer image: agent-vm build",
			       img->reference, img->api_version, IMAGE_API_MIN, IMAGE_API_MAX);
	if (img->api_version > IMAGE_API_MAX)
		return err_set(err, -EPROTO, "image %s: its API version is %u, this agent-vm supports %d to %d; update agent-vm, or use an older image with --image",
			       img->reference, img->api_version, IMAGE_API_MIN, IMAGE_API_MAX);
	return 0;
}

static int default_ref(const struct store *s, char **ret, struct err *err)
{
	json_int_t version;
	const char *ref;
	AUTO_JSON(j);
	int r;

	r = json_read(s, s->fd, "", "default.json", &j, err);
	if (r < 0)
		return r;
	if (json_unpack(j, "{s:I, s:s !}", "version", &version, "reference", &ref) < 0 ||
	    ref_normalise(ref, ret, NULL) < 0)
		return err_set(err, -EBADMSG, "%s/default.json: damaged; delete it and run: agent-vm build", s->path);
	return 0;
}

/* Which reference to use, in full form, and the disk that it names. */
static int resolve(const struct store *s, const char *ref, char **ret_ref, char ret_hex[IMAGE_HEX + 1], struct err *err)
{
	AUTO_FREE(char, full);
	bool is_default = !ref || *ref == '\0';
	int r;

	r = ref_normalise(is_default ? IMAGE_REF_DEFAULT : ref, &full, err);
	if (r < 0)
		return r;
	r = ref_read(s, full, ret_hex, err);
	if (r == -ENOENT && is_default) {
		char *local;

		r = default_ref(s, &local, err);
		if (r == 0) {
			free(full);
			full = local;
			r = ref_read(s, full, ret_hex, err);
		}
	}
	if (r == -ENOENT)
		return err_set(err, r, "image %s: not in the store (%s); make one on this machine with: agent-vm build", full,
			       s->path);
	if (r < 0)
		return r;
	*ret_ref = TAKE_PTR(full);
	return 0;
}

int store_find(const struct store *s, const char *ref, struct image *ret, struct err *err)
{
	struct image img = { .disk_fd = -1 };
	AUTO_FD(lock);
	int r;

	r = store_lock(s, LOCK_SH, &lock);
	if (r < 0)
		return err_set(err, r, "%s/lock: cannot be locked: %s", s->path, strerror(-r));
	r = resolve(s, ref, &img.reference, img.digest, err);
	if (r == 0)
		r = meta_read(s, img.digest, &img, err);
	if (r == 0)
		r = disk_open(s, img.digest, &img, err);
	if (r == 0)
		r = api_check(&img, err);
	if (r < 0) {
		image_done(&img);
		return r;
	}
	memcpy(img.digest_short, img.digest, IMAGE_SHORT);
	*ret = img;
	return 0;
}

void image_done(struct image *img)
{
	free(img->reference);
	free(img->disk_path);
	close_p(&img->disk_fd);
	strv_done(&img->env);
	*img = (struct image){ .disk_fd = -1 };
}

bool store_has(const struct store *s, const char *ref)
{
	struct image img;

	if (store_find(s, ref, &img, NULL) < 0)
		return false;
	image_done(&img);
	return true;
}

/* --- adding --- */

/* Disks being made whose maker is gone. The caller holds the store's lock exclusively. */
static void tmp_sweep(const struct store *s)
{
	AUTO_FD(copy);
	struct dirent *e;
	DIR *d;

	copy = openat(s->tmp, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return;
	(void)TAKE_FD(copy);
	while ((e = readdir(d))) {
		AUTO_FD(fd);

		fd = openat(s->tmp, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (*e->d_name != '.' && fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			(void)unlinkat(s->tmp, e->d_name, 0);
	}
	(void)closedir(d);
}

int store_tmp(const struct store *s, uint64_t need_bytes, char **ret_name, int *ret_fd, struct err *err)
{
	AUTO_FREE(char, name);
	AUTO_FD(lock);
	AUTO_FD(fd);
	struct statvfs vfs;
	uint64_t have;
	int r;

	r = store_lock(s, LOCK_EX, &lock);
	if (r < 0)
		return err_set(err, r, "%s/lock: cannot be locked: %s", s->path, strerror(-r));
	tmp_sweep(s);
	if (fstatvfs(s->tmp, &vfs) < 0)
		return err_set(err, -errno, "%s: free space cannot be seen: %s", s->path, strerror(errno));
	have = (uint64_t)vfs.f_bavail * vfs.f_frsize;
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

static int meta_write(const struct store *s, const struct image_meta *meta, uint64_t size)
{
	AUTO_FREE(char, name);
	AUTO_JSON(j);
	json_t *env = json_array();

	for (size_t i = 0; meta->env && i < meta->env->n; i++)
		(void)json_array_append_new(env, json_string(meta->env->v[i]));
	j = json_pack("{s:i, s:I, s:I, s:I, s:s, s:o, s:I}", "version", STORE_VERSION, "size", (json_int_t)size, "min_size",
		      (json_int_t)meta->min_bytes, "api_version", (json_int_t)meta->api_version, "architecture",
		      meta->architecture, "env", env, "made", (json_int_t)time(NULL));
	name = file_of(meta->key, "json");
	return j ? json_write(s->disks, name, j) : -EINVAL;
}

/* Whether the disk of this key is there already, whole; then the new one is not needed. */
static bool disk_is_there(const struct store *s, const char *key, uint64_t size)
{
	AUTO_FREE(char, name);
	struct stat st;

	name = file_of(key, "ext4");
	return fstatat(s->disks, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

static int disk_place(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta, struct err *err)
{
	AUTO_FREE(char, name);
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s/tmp/%s: %s", s->path, tmp_name, strerror(errno));
	if (disk_is_there(s, meta->key, (uint64_t)st.st_size)) {
		store_tmp_drop(s, tmp_name);
		r = meta_write(s, meta, (uint64_t)st.st_size);
		return r < 0 ? err_set(err, r, "%s/disks: cannot be written: %s", s->path, strerror(-r)) : 0;
	}
	name = file_of(meta->key, "ext4");
	r = meta_write(s, meta, (uint64_t)st.st_size);
	/* From here on others may use it. */
	if (r == 0 && (flock(fd, LOCK_SH) < 0 || renameat(s->tmp, tmp_name, s->disks, name) < 0 || fsync(s->disks) < 0))
		r = -errno;
	return r < 0 ? err_set(err, r, "%s/disks/%s: cannot be stored: %s", s->path, name, strerror(-r)) : 0;
}

static int ref_write(const struct store *s, const char *ref, const char *key)
{
	char name[REF_HEX + 6];
	AUTO_JSON(j);

	j = json_pack("{s:i, s:s, s:s, s:I}", "version", STORE_VERSION, "reference", ref, "disk", key, "stored",
		      (json_int_t)time(NULL));
	ref_file(ref, name);
	return j ? json_write(s->refs, name, j) : -EINVAL;
}

/* Whether any reference names this disk; a file that cannot be read counts as one that does. */
static bool disk_is_named(const struct store *s, const char *hex)
{
	AUTO_FD(copy);
	struct dirent *e;
	bool named = false;
	DIR *d;

	copy = openat(s->refs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return true;
	(void)TAKE_FD(copy);
	while (!named && (e = readdir(d))) {
		const char *got = NULL;
		AUTO_JSON(j);

		if (*e->d_name == '.')
			continue;
		named = json_read(s, s->refs, "refs/", e->d_name, &j, NULL) < 0 ||
			json_unpack(j, "{s:s}", "disk", &got) < 0 || strcmp(got, hex) == 0;
	}
	(void)closedir(d);
	return named;
}

static void disk_sweep(const struct store *s, const char *hex)
{
	AUTO_FREE(char, disk);
	AUTO_FREE(char, json);
	AUTO_FD(fd);

	if (disk_is_named(s, hex))
		return;
	disk = file_of(hex, "ext4");
	json = file_of(hex, "json");
	fd = openat(s->disks, disk, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 ? errno != ENOENT : flock(fd, LOCK_EX | LOCK_NB) < 0)
		return;
	(void)unlinkat(s->disks, disk, 0);
	(void)unlinkat(s->disks, json, 0);
}

/* Delete the disks that nothing names and nobody uses. The caller holds the store's lock exclusively. */
static void disks_sweep(const struct store *s)
{
	AUTO_FD(copy);
	struct dirent *e;
	DIR *d;

	copy = openat(s->disks, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return;
	(void)TAKE_FD(copy);
	while ((e = readdir(d))) {
		char hex[IMAGE_HEX + 1];

		/* Both files of a disk lead here: one that a crash has left alone goes too. */
		if (strlen(e->d_name) != IMAGE_HEX + strlen(".ext4"))
			continue;
		memcpy(hex, e->d_name, IMAGE_HEX);
		hex[IMAGE_HEX] = '\0';
		if (is_hex(hex))
			disk_sweep(s, hex);
	}
	(void)closedir(d);
}

static int add_locked(const struct store *s, const char *ref, const char *tmp_name, int fd, const struct image_meta *meta,
		      char was[IMAGE_HEX + 1], struct err *err)
{
	int r;

	(void)ref_read(s, ref, was, NULL);
	r = disk_place(s, tmp_name, fd, meta, err);
	if (r < 0)
		return r;
	r = ref_write(s, ref, meta->key);
	if (r < 0)
		return err_set(err, r, "%s/refs: cannot be written: %s", s->path, strerror(-r));
	disks_sweep(s);
	return 0;
}

int store_add(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta,
	      char ret_was[IMAGE_HEX + 1], struct err *err)
{
	AUTO_FREE(char, ref);
	char was[IMAGE_HEX + 1] = "";
	AUTO_FD(lock);
	int r;

	r = ref_normalise(meta->reference, &ref, err);
	if (r == 0 && !is_hex(meta->key))
		r = err_set(err, -EINVAL, "image %s: its key is no SHA-256", ref);
	/* Seconds, so before the lock. */
	if (r == 0 && (fchmod(fd, 0400) < 0 || fsync(fd) < 0))
		r = err_set(err, -errno, "%s/tmp/%s: cannot be written out: %s", s->path, tmp_name, strerror(errno));
	if (r == 0) {
		r = store_lock(s, LOCK_EX, &lock);
		if (r < 0)
			(void)err_set(err, r, "%s/lock: cannot be locked: %s", s->path, strerror(-r));
	}
	if (r == 0)
		r = add_locked(s, ref, tmp_name, fd, meta, was, err);
	if (r < 0) {
		store_tmp_drop(s, tmp_name);
		return r;
	}
	memcpy(ret_was, was, sizeof(was));
	return 0;
}

int store_set_default(const struct store *s, const char *ref, struct err *err)
{
	AUTO_FREE(char, full);
	AUTO_JSON(j);
	int r;

	r = ref_normalise(ref, &full, err);
	if (r < 0)
		return r;
	j = json_pack("{s:i, s:s}", "version", STORE_VERSION, "reference", full);
	r = j ? json_write(s->fd, "default.json", j) : -EINVAL;
	return r < 0 ? err_set(err, r, "%s/default.json: cannot be written: %s", s->path, strerror(-r)) : 0;
}
