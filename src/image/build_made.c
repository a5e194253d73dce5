#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sha256.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/build_priv.h"
#include "image/store_priv.h"

#define FOLDER "made"
#define RECORD_MAX (64 << 10)
#define READ_BYTES (1 << 20)

static void record_file(const char *key, char ret[REF_FILE_MAX])
{
	char hex[IMAGE_HEX + 1];

	image_sha256(key, strlen(key), hex);
	(void)snprintf(ret, REF_FILE_MAX, "%.*s.json", REF_HEX, hex);
}

static bool blob_is_there(const struct store *s, const struct made *m)
{
	struct stat st;
	AUTO_FD(fd);

	fd = store_blob_open(s, m->blob);
	return fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == m->bytes;
}

static int record_read(json_t *j, const char *key, const char *state, struct made *ret)
{
	const char *has_key, *has_state, *blob, *diff_id;
	json_int_t bytes;
	int version;

	if (json_unpack(j, "{s:i, s:s, s:s, s:s, s:s, s:I}", "version", &version, "key", &has_key, "state", &has_state, "blob",
			&blob, "diff_id", &diff_id, "bytes", &bytes) < 0 ||
	    version != 1 || strcmp(key, has_key) != 0 || (state && strcmp(state, has_state) != 0) || !store_is_hex(blob) ||
	    !store_is_hex(diff_id) || bytes <= 0)
		return -ENOENT;
	*ret = (struct made){ .bytes = (uint64_t)bytes };
	memcpy(ret->blob, blob, sizeof(ret->blob));
	memcpy(ret->diff_id, diff_id, sizeof(ret->diff_id));
	return 0;
}

int made_find(const struct store *s, const char *key, const char *state, struct made *ret)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, text);
	char file[REF_FILE_MAX];
	struct made m;
	json_t *j;
	size_t n;
	int r;

	record_file(key, file);
	path = xasprintf(FOLDER "/%s", file);
	if (file_read_beneath(s->fd, path, RECORD_MAX, &text, &n) < 0)
		return -ENOENT;
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	r = j ? record_read(j, key, state, &m) : -ENOENT;
	json_decref(j);
	if (r < 0 || !blob_is_there(s, &m))
		return -ENOENT;
	*ret = m;
	return 0;
}

int made_put(const struct store *s, const char *key, const char *state, const struct made *m, struct err *err)
{
	json_t *j = json_pack("{s:i, s:s, s:s, s:s, s:s, s:I}", "version", 1, "key", key, "state", state, "blob", m->blob,
			      "diff_id", m->diff_id, "bytes", (json_int_t)m->bytes);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	char file[REF_FILE_MAX];
	AUTO_FD(dir);
	int r;

	json_decref(j);
	record_file(key, file);
	r = text ? dir_make_at(s->fd, FOLDER, 0700) : -EINVAL;
	dir = r < 0 ? r : store_dir(s, FOLDER);
	r = dir < 0 ? dir : file_replace_at(dir, file, text, strlen(text), 0600);
	free(text);
	return r < 0 ? err_set(err, r, "%s/" FOLDER "/%s: cannot be written: %s", s->path, file, strerror(-r)) : 0;
}

static bool is_stopped(int stop_fd)
{
	struct pollfd pfd = { .fd = stop_fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

static int check(int fd, const struct made *m, int stop_fd)
{
	AUTO_FREE(uint8_t, mem);
	char hex[IMAGE_HEX + 1];
	uint64_t at = 0;
	SHA2_CTX sha;
	ssize_t n;

	mem = xmalloc(READ_BYTES);
	SHA256Init(&sha);
	while ((n = pread(fd, mem, READ_BYTES, (off_t)at)) > 0 || (n < 0 && errno == EINTR)) {
		if (is_stopped(stop_fd))
			return -EINTR;
		if (n < 0)
			continue;
		SHA256Update(&sha, mem, (size_t)n);
		at += (uint64_t)n;
	}
	if (n < 0)
		return -errno;
	(void)SHA256End(&sha, hex);
	return at == m->bytes && strcmp(hex, m->blob) == 0 ? 0 : -EPROTO;
}

int blob_place(const struct store *s, const char *tmp_name, int fd, const struct made *m, int stop_fd, struct err *err)
{
	AUTO_FD(dir);
	int r;

	r = check(fd, m, stop_fd);
	if (r == 0)
		r = dir_make_at(s->fd, "blobs", 0700);
	if (r == 0)
		r = dir_make_at(s->fd, "blobs/sha256", 0700);
	dir = r < 0 ? r : store_dir(s, "blobs/sha256");
	r = dir < 0 ? dir : 0;
	if (r == 0 && (fchmod(fd, 0400) < 0 || fsync(fd) < 0 || renameat(s->tmp, tmp_name, dir, m->blob) < 0))
		r = -errno;
	if (r == 0)
		return 0;
	store_tmp_drop(s, tmp_name);
	if (r == -EINTR)
		return err_set(err, r, "stopped; what was loaded is kept for the next build");
	if (r == -EPROTO)
		return err_set(err, r, "agent-vm-image pack: it wrote another layer than it says; nothing was stored");
	return err_set(err, r, "%s/blobs: a layer cannot be stored: %s", s->path, strerror(-r));
}
