/* The image store: opening it and finding an image in it. What is in it is written once and replaced whole, so a reader
 * needs no lock for consistency; locks say what is in use:
 *
 *	lock			shared by who looks up, exclusive by who adds, deletes or lists. Held for milliseconds
 *	pulls			shared by a pull from its start to its end: the blobs that it has loaded have no name yet
 *	a disk's descriptor	shared for the life of a session, exclusive for the moment of its deletion
 *	a file in tmp/		exclusive by its maker for as long as he lives
 *	a file in partial/	exclusive by who loads it
 *
 * Adding a disk (store_add.c): fsync, its JSON, rename to its key, then the reference. Killed anywhere, the reference names
 * the old disk or the new one and both are whole. A disk that no reference names is found and deleted by the next one who
 * adds. */
#include "image/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sha256.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/store_priv.h"

#define BLOBS "blobs/sha256"
#define STORE_NONE { -1, -1, -1, -1, NULL, -1, NULL, NULL }
#define LOCK_AGAIN_MS 20
#define WAITS_NS INT64_C(1000000000)

/* --- folders and locks --- */

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
	struct store s = STORE_NONE;
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
	*s = (struct store)STORE_NONE;
}

/* flock(2) with a wait that can be stopped: a signal that is a descriptor interrupts no system call. */
static int lock_wait(const struct store *s, int fd, int how)
{
	struct pollfd pfd = { .fd = s->stop_fd, .events = POLLIN };
	int64_t said = now_ns() + WAITS_NS;

	while (flock(fd, how | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (how & LOCK_NB)
			return -EWOULDBLOCK;
		if (poll(&pfd, 1, LOCK_AGAIN_MS) > 0)
			return -EINTR;
		if (s->waits && said && now_ns() >= said) {
			s->waits(s->waits_ctx);
			said = 0;
		}
	}
	return 0;
}

int store_lock(const struct store *s, const char *name, int how, int *ret_fd, struct err *err)
{
	AUTO_FD(fd);
	int r;

	fd = openat(s->fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : lock_wait(s, fd, how);
	if (r == -EINTR)
		return err_set(err, r, "stopped while waiting for another pull, build or prune");
	if (r < 0)
		return err_set(err, r, "%s/%s: cannot be locked: %s", s->path, name, strerror(-r));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int store_pull_lock(const struct store *s, struct err *err)
{
	int fd, r;

	r = store_lock(s, "pulls", LOCK_SH, &fd, err);
	return r < 0 ? r : fd;
}

int store_dir(const struct store *s, const char *name)
{
	return file_open_beneath(s->fd, name, O_RDONLY | O_DIRECTORY, 0);
}

DIR *store_readdir(int dirfd)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);

	if (copy >= 0 && !d)
		(void)close(copy);
	return d;
}

bool store_is_free(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

bool store_is_hex(const char *s)
{
	return strlen(s) == IMAGE_HEX && strspn(s, "0123456789abcdef") == IMAGE_HEX;
}

char *store_disk_file(const char *key, const char *ext)
{
	return xasprintf("%.*s.%s", IMAGE_HEX, key, ext);
}

/* --- facts --- */

uint64_t store_free_bytes(const struct store *s)
{
	struct statvfs vfs;

	return fstatvfs(s->tmp, &vfs) < 0 ? UINT64_MAX : (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

int store_blob_open(const struct store *s, const char *digest)
{
	AUTO_FREE(char, path);
	struct stat st;
	int fd;

	path = xasprintf(BLOBS "/%s", digest);
	fd = file_open_beneath(s->fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		(void)close(fd);
		return -EBADMSG;
	}
	return fd;
}

uint64_t store_blob_have(const struct store *s, const char *digest)
{
	static const char *const dirs[] = { BLOBS, "partial" };
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		AUTO_FREE(char, path);

		path = xasprintf("%s/%s", dirs[i], digest);
		if (fstatat(s->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			return (uint64_t)st.st_size;
	}
	return 0;
}

uint64_t store_disk_allocated(const struct store *s, const char *key)
{
	AUTO_FREE(char, name);
	struct stat st;

	name = store_disk_file(key, "ext4");
	return fstatat(s->disks, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

bool store_disk_is_whole(const struct store *s, const char *key, uint64_t size)
{
	AUTO_FREE(char, name);
	struct stat st;

	name = store_disk_file(key, "ext4");
	return fstatat(s->disks, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

void image_sha256(const void *p, size_t n, char ret[IMAGE_HEX + 1])
{
	(void)SHA256Data(p, n, ret);
}

/* --- API version --- */

int image_api_check(const char *reference, uint32_t version, const char *found, struct err *err)
{
	if (version >= IMAGE_API_MIN && version <= IMAGE_API_MAX)
		return 0;
	if (version > IMAGE_API_MAX)
		return err_set(err, -EPROTO,
			       "image %s: its API version is %u, this agent-vm supports %d to %d; update agent-vm, or pin an older image with --image NAME:TAG",
			       reference, version, IMAGE_API_MIN, IMAGE_API_MAX);
	if (version > 0)
		return err_set(err, -EPROTO,
			       "image %s: its API version is %u, this agent-vm supports %d to %d; get a newer image with: agent-vm pull",
			       reference, version, IMAGE_API_MIN, IMAGE_API_MAX);
	if (*found)
		return err_set(err, -EPROTO,
			       "image %s: its /etc/agent-vm-image-version says '%s', not a number from %d to %d, so it was not made for agent-vm; agent-vm pull, or another --image",
			       reference, found, IMAGE_API_MIN, IMAGE_API_MAX);
	return err_set(err, -EPROTO,
		       "image %s: it has no /etc/agent-vm-image-version (%d to %d is supported), so it was not made for agent-vm; agent-vm pull, or another --image",
		       reference, IMAGE_API_MIN, IMAGE_API_MAX);
}

/* --- finding --- */

static const char *const schemes[] = { "oci:", "oci-archive:", "docker-archive:" };

/* A "docker save" that an older version stored under the name of a registry's image has no manifest, but its config twice. */
static bool ref_is_registry(const struct image_ref *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (str_starts(r->reference, schemes[i]))
			return false;
	return !str_starts(r->reference, IMAGE_REF_STDIN) && r->served[0] != '\0' && strcmp(r->served, r->config) != 0;
}

/* Files and folders that an image can come from; relative ones are the user's, and the store is not his folder. */
static int source_full(const char *scheme, const char *path, char **ret, struct err *err)
{
	AUTO_FREE(char, full);
	AUTO_FREE(char, cwd);
	AUTO_FREE(char, shown);

	cwd = *path == '/' ? xstrdup("") : getcwd(NULL, 0);
	if (*path == '\0' || !cwd)
		return err_set(err, -EINVAL, "image %s: no path behind it; write %sPATH", scheme, scheme);
	full = xasprintf("%s%s%s%s", scheme, cwd, *path == '/' ? "" : "/", path);
	shown = str_escape(full, strlen(full));
	if (strlen(full) > REF_MAX || strcmp(shown, full) != 0)
		return err_set(err, -EINVAL, "image %.200s: its path is too long, or not plain UTF-8; copy it elsewhere", shown);
	*ret = TAKE_PTR(full);
	return 0;
}

/* What an archive calls an image: a name as docker has them, or the bare tag of an OCI layout. */
static int stdin_full(const char *ref, char **ret, struct err *err)
{
	const char *name = ref + strlen(IMAGE_REF_STDIN);
	AUTO_FREE(char, unused);
	AUTO_FREE(char, shown);

	shown = str_escape(ref, MIN(strlen(ref), (size_t)200));
	if (ref_normalise(name, &unused, NULL) < 0 && !ref_tag_is_good(name))
		return err_set(err, -EINVAL, "image %s: not the name of an image from standard input; agent-vm images lists them", shown);
	*ret = xstrdup(ref);
	return 0;
}

int store_ref_full(const char *ref, char **ret, struct err *err)
{
	if (!ref || !*ref)
		ref = IMAGE_REF_DEFAULT;
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (str_starts(ref, schemes[i]))
			return source_full(schemes[i], ref + strlen(schemes[i]), ret, err);
	if (str_starts(ref, IMAGE_REF_STDIN))
		return stdin_full(ref, ret, err);
	if (strcmp(ref, "-") == 0)
		return err_set(err, -EINVAL, "image -: an archive on standard input must be stored first, with: agent-vm pull --image -");
	return ref_normalise(ref, ret, err);
}

static int disk_open(const struct store *s, const char *key, struct image *img, struct err *err)
{
	AUTO_FREE(char, name);
	struct stat st;

	name = store_disk_file(key, "ext4");
	img->disk_path = xasprintf("%s/disks/%s", s->path, name);
	img->disk_fd = file_open_beneath(s->disks, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (img->disk_fd < 0)
		return err_set(err, -EBADMSG, "%s: cannot be opened: %s; make it anew with: agent-vm pull, or agent-vm build",
			       img->disk_path, strerror(-img->disk_fd));
	if (flock(img->disk_fd, LOCK_SH | LOCK_NB) < 0)
		return err_set(err, -EBADMSG, "%s: cannot be locked: %s", img->disk_path, strerror(errno));
	if (fstat(img->disk_fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != img->size_bytes)
		return err_set(err, -EBADMSG,
			       "%s: not a file of the recorded %llu bytes; delete it and run: agent-vm pull, or agent-vm build",
			       img->disk_path, (unsigned long long)img->size_bytes);
	return 0;
}

/* What the reference names, or for the default what a local build recorded. */
static int resolve(const struct store *s, const char *ref, struct image_ref *ret, struct err *err)
{
	AUTO_FREE(char, full);
	AUTO_FREE(char, local);
	int r, k;

	r = store_ref_full(ref, &full, err);
	if (r < 0)
		return r;
	r = store_ref_read(s, full, ret, err);
	if (r == -ENOENT && (!ref || !*ref)) {
		k = store_default_read(s, &local, err);
		if (k == 0)
			r = store_ref_read(s, local, ret, err);
		else if (k != -ENOENT)
			return k;
	}
	if (r == -ENOENT)
		return err_set(err, r, "image %s: not in the store; get it with: agent-vm pull, or make one here with: agent-vm build",
			       full);
	return r;
}

static int find_locked(const struct store *s, const char *ref, struct image *img, struct image_ref *found,
		       struct disk_meta *meta, struct err *err)
{
	int r;

	r = resolve(s, ref, found, err);
	if (r == 0)
		r = store_meta_read(s, found->disk, meta, err);
	if (r < 0)
		return r;
	img->size_bytes = meta->size;
	r = disk_open(s, found->disk, img, err);
	return r < 0 ? r : image_api_check(found->reference, meta->api_version, meta->api_found, err);
}

int store_find(const struct store *s, const char *ref, struct image *ret, struct err *err)
{
	struct image img = { .disk_fd = -1 };
	struct image_ref found = { NULL };
	struct disk_meta meta = { 0 };
	AUTO_FD(lock);
	int r;

	r = store_lock(s, "lock", LOCK_SH, &lock, err);
	if (r < 0)
		return r;
	r = find_locked(s, ref, &img, &found, &meta, err);
	if (r == 0) {
		img.from_registry = ref_is_registry(&found);
		img.reference = TAKE_PTR(found.reference);
		img.min_bytes = meta.min_size;
		img.api_version = meta.api_version;
		memcpy(img.api_found, meta.api_found, sizeof(img.api_found));
		img.has_known = meta.has_known;
		img.has = meta.has;
		/* version 1 of the store kept the environment with the disk */
		img.env = found.architecture ? found.env : meta.env;
		*(found.architecture ? &found.env : &meta.env) = (struct strv){ 0 };
		img.pulled = found.served[0] != '\0';
		memcpy(img.digest, img.pulled ? found.served : found.disk, sizeof(img.digest));
		memcpy(img.platform, found.platform, sizeof(img.platform));
		memcpy(img.digest_short, img.digest, IMAGE_SHORT);
		*ret = img;
	} else {
		image_done(&img);
	}
	image_ref_done(&found);
	disk_meta_done(&meta);
	return r;
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

void store_used(const struct store *s, const char *reference)
{
	char name[REF_FILE_MAX];

	store_ref_file(reference, name);
	(void)utimensat(s->refs, name, NULL, AT_SYMLINK_NOFOLLOW);
}

char *store_default(const struct store *s)
{
	struct image_ref ref;
	char *local;

	if (store_ref_read(s, IMAGE_REF_DEFAULT, &ref, NULL) == 0) {
		image_ref_done(&ref);
		return xstrdup(IMAGE_REF_DEFAULT);
	}
	return store_default_read(s, &local, NULL) == 0 ? local : xstrdup(IMAGE_REF_DEFAULT);
}
