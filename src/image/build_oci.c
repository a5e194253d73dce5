/* What we make is an ordinary image: config and manifest beside the layers in blobs/, so that a disk comes from it in the same
 * way as from a registry's, and a layout is a copy of blobs. All of it is a function of the layers: no date, no host. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/build_priv.h"
#include "image/pull.h"
#include "image/store_priv.h"

#define TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define TYPE_CONFIG "application/vnd.oci.image.config.v1+json"
#define TYPE_LAYER "application/vnd.oci.image.layer.v1.tar+zstd"
#define COPY_BYTES (8 << 20)

/* Has the folder of blobs, which the first layer made. */
static int put(const struct store *s, json_t *j, char ret_hex[IMAGE_HEX + 1], uint64_t *ret_bytes, struct err *err)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	AUTO_FD(dir);
	int r;

	json_decref(j);
	if (!text)
		abort(); /* out of memory: all of it is plain text */
	image_sha256(text, strlen(text), ret_hex);
	*ret_bytes = strlen(text);
	dir = store_dir(s, "blobs/sha256");
	r = dir < 0 ? dir : file_replace_at(dir, ret_hex, text, strlen(text), 0400);
	free(text);
	return r < 0 ? err_set(err, r, "%s/blobs/sha256/%.12s: cannot be written: %s", s->path, ret_hex, strerror(-r)) : 0;
}

static json_t *digest(const char *hex)
{
	return json_sprintf("sha256:%s", hex);
}

static json_t *config(const struct made *layers, const char *const *names, size_t n)
{
	json_t *ids = json_array(), *history = json_array();

	for (size_t i = 0; i < n; i++) {
		(void)json_array_append_new(ids, digest(layers[i].diff_id));
		(void)json_array_append_new(history, json_pack("{s:o}", "created_by", json_sprintf("agent-vm build: %s", names[i])));
	}
	return json_pack("{s:s, s:s, s:{s:[s, s]}, s:{s:s, s:o}, s:o}", "architecture", IMAGE_ARCH, "os", "linux", "config", "Env",
			 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "rootfs", "type",
			 "layers", "diff_ids", ids, "history", history);
}

static json_t *descriptor(const char *type, const char *hex, uint64_t bytes)
{
	return json_pack("{s:s, s:o, s:I}", "mediaType", type, "digest", digest(hex), "size", (json_int_t)bytes);
}

int oci_put(const struct store *s, const struct made *layers, const char *const *names, size_t n, struct oci *ret,
	    struct err *err)
{
	uint64_t config_bytes;
	json_t *list = json_array();
	int r;

	r = put(s, config(layers, names, n), ret->config, &config_bytes, err);
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(list, descriptor(TYPE_LAYER, layers[i].blob, layers[i].bytes));
	if (r < 0) {
		json_decref(list);
		return r;
	}
	return put(s, json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", TYPE_MANIFEST, "config",
				descriptor(TYPE_CONFIG, ret->config, config_bytes), "layers", list),
		   ret->manifest, &ret->manifest_bytes, err);
}

/* --- a layout --- */

static int copy_blob(const struct store *s, const char *hex, int dir, int stop_fd)
{
	struct pollfd pfd = { .fd = stop_fd, .events = POLLIN };
	AUTO_FD(from);
	AUTO_FD(to);
	ssize_t n;

	from = store_blob_open(s, hex);
	if (from < 0)
		return from;
	to = openat(dir, hex, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (to < 0)
		return errno == EEXIST ? 0 : -errno; /* two layers of one content */
	do {
		if (poll(&pfd, 1, 0) > 0)
			return -EINTR;
		n = copy_file_range(from, NULL, to, NULL, COPY_BYTES, 0);
		if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) {
			AUTO_FREE(char, mem);

			mem = xmalloc(COPY_BYTES);
			n = read(from, mem, COPY_BYTES);
			if (n > 0 && fd_write_all(to, mem, (size_t)n) < 0)
				return -errno;
		}
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 || fsync(to) < 0 ? -errno : 0;
}

static int write_file(int dir, const char *name, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	int r = text ? file_replace_at(dir, name, text, strlen(text), 0644) : -ENOMEM;

	json_decref(j);
	free(text);
	return r;
}

static int fill(const struct store *s, const struct oci *image, const struct made *layers, size_t n, const char *tag, int dir,
		int stop_fd)
{
	json_t *entry;
	AUTO_FD(blobs);
	int r;

	r = dir_make_at(dir, "blobs", 0755);
	if (r == 0)
		r = dir_make_at(dir, "blobs/sha256", 0755);
	if (r < 0)
		return r;
	blobs = openat(dir, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = blobs < 0 ? -errno : copy_blob(s, image->config, blobs, stop_fd);
	if (r == 0)
		r = copy_blob(s, image->manifest, blobs, stop_fd);
	for (size_t i = 0; i < n && r == 0; i++)
		r = copy_blob(s, layers[i].blob, blobs, stop_fd);
	if (r < 0)
		return r;
	entry = descriptor(TYPE_MANIFEST, image->manifest, image->manifest_bytes);
	(void)json_object_set_new(entry, "annotations", json_pack("{s:s}", "org.opencontainers.image.ref.name", tag));
	(void)json_object_set_new(entry, "platform", json_pack("{s:s, s:s}", "architecture", IMAGE_ARCH, "os", "linux"));
	r = write_file(dir, "index.json", json_pack("{s:i, s:s, s:[o]}", "schemaVersion", 2, "mediaType",
						    "application/vnd.oci.image.index.v1+json", "manifests", entry));
	return r < 0 ? r : write_file(dir, "oci-layout", json_pack("{s:s}", "imageLayoutVersion", "1.0.0"));
}

/* The folder that the layout's folder is made in. Return: an fd; a negative errno with @err set. */
static int parent_open(const char *dir, const char *shown, char **ret_name, struct err *err)
{
	AUTO_FREE(char, parent);
	size_t len = strlen(dir), start;
	AUTO_FD(fd);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	start = len;
	while (start > 0 && dir[start - 1] != '/')
		start--;
	parent = start > 0 ? xstrndup(dir, start > 1 ? start - 1 : 1) : xstrdup(".");
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		AUTO_FREE(char, parent_shown);
		int r = -errno;

		parent_shown = str_escape(parent, strlen(parent));
		return err_set(err, r, "%s: cannot be made: %s: %s; name a folder in one that you can write", shown, parent_shown,
			       strerror(-r));
	}
	*ret_name = xstrndup(dir + start, len - start);
	return TAKE_FD(fd);
}

static int is_there(const char *shown, struct err *err)
{
	return err_set(err, -EEXIST, "%s: is there already; name a folder that is not", shown);
}

int build_output_check(const char *dir, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, name);
	struct stat st;
	AUTO_FD(at);

	shown = str_escape(dir, strlen(dir));
	at = parent_open(dir, shown, &name, err);
	if (at < 0)
		return at;
	return !*name || fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? is_there(shown, err) : 0;
}

int oci_export(const struct store *s, const struct oci *image, const struct made *layers, size_t n, const char *dir,
	       const char *tag, int stop_fd, struct err *err)
{
	AUTO_FREE(char, tmp);
	AUTO_FREE(char, shown);
	AUTO_FREE(char, name);
	AUTO_FD(at);
	AUTO_FD(fd);
	int r;

	shown = str_escape(dir, strlen(dir));
	at = parent_open(dir, shown, &name, err);
	if (at < 0)
		return at;
	tmp = xasprintf(".agent-vm-%d.new", (int)getpid());
	if (mkdirat(at, tmp, 0755) < 0)
		return err_set(err, -errno, "%s: cannot be made: %s; check the path", shown, strerror(errno));
	fd = openat(at, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : fill(s, image, layers, n, tag, fd, stop_fd);
	if (r == 0 && renameat(at, tmp, at, name) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	(void)file_remove_tree_at(at, tmp);
	if (r == -EINTR)
		return err_set(err, r, "stopped; %s was not written; the image's layers are kept for the next build", shown);
	if (r == -ENOTEMPTY || r == -EEXIST || r == -ENOTDIR)
		return is_there(shown, err);
	return err_set(err, r, "%s: cannot be written: %s", shown, strerror(-r));
}
