#include "image/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"

static const struct {
	const char *prefix;
	enum source_kind kind;
} prefixes[] = {
	{ "oci:", SOURCE_OCI_DIR },
	{ "oci-archive:", SOURCE_OCI_ARCHIVE },
	{ "docker-archive:", SOURCE_DOCKER_ARCHIVE },
};

static int open_path(struct source *s, const char *path)
{
	int flags = s->kind == SOURCE_OCI_DIR ? O_RDONLY | O_DIRECTORY : O_RDONLY | O_NONBLOCK | O_NOCTTY;

	s->fd = open(path, flags | O_CLOEXEC);
	if (s->fd < 0)
		return -errno;
	(void)fd_nonblock(s->fd, false); /* it was for a FIFO's open(2) */
	return 0;
}

/* PATH or PATH:NAME. */
static int open_named(struct source *s, const char *rest, struct err *err)
{
	AUTO_FREE(char, copy);
	AUTO_FREE(char, shown);
	int first, r;

	shown = str_escape(rest, MIN(strlen(rest), (size_t)300));
	if (*rest != '/')
		return err_set(err, -EINVAL, "image source %s: not an absolute path", shown);
	copy = xstrdup(rest);
	first = r = open_path(s, copy);
	for (char *colon = strchr(copy, ':'); r < 0 && colon; colon = strchr(colon + 1, ':')) {
		*colon = '\0';
		r = open_path(s, copy);
		if (r == 0 && colon[1])
			s->name = xstrdup(colon + 1);
		else
			*colon = ':';
	}
	if (r < 0)
		return err_set(err, first, "%s: cannot be opened: %s; check the path", shown, strerror(-first));
	s->path = str_escape(copy, strlen(copy));
	return 0;
}

static int open_store(struct source *s, const char *rest, struct err *err)
{
	AUTO_FREE(char, digest);

	digest = xasprintf("sha256:%.*s", IM_DIGEST, rest);
	if (strlen(rest) <= IM_DIGEST + 1 || rest[IM_DIGEST] != ':' || digest_parse(digest, s->manifest.hex) < 0 ||
	    str_u64(rest + IM_DIGEST + 1, MANIFEST_MAX, &s->manifest.bytes) < 0)
		return err_set(err, -EINVAL, "image store: not the digest of a manifest");
	s->kind = SOURCE_STORE;
	s->path = xstrdup("image store");
	return 0;
}

int source_open(const char *text, int input, struct source *ret, struct err *err)
{
	struct source s = { .kind = SOURCE_REGISTRY, .fd = -1 };
	int r = 0;

	if (strcmp(text, "-") == 0) {
		if (input < 0)
			return err_set(err, -EBADF, "standard input: not handed over");
		*ret = (struct source){ .kind = SOURCE_STDIN, .fd = input };
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(prefixes) && s.kind == SOURCE_REGISTRY; i++)
		if (str_starts(text, prefixes[i].prefix)) {
			s.kind = prefixes[i].kind;
			r = open_named(&s, text + strlen(prefixes[i].prefix), err);
		}
	if (str_starts(text, "store:"))
		r = open_store(&s, text + strlen("store:"), err);
	else if (s.kind == SOURCE_REGISTRY)
		r = ref_parse(text, &s.ref, err);
	if (r < 0) {
		source_done(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void source_done(struct source *s)
{
	ref_done(&s->ref);
	free(s->path);
	free(s->name);
	close_p(&s->fd);
	tar_index_done(&s->tar);
	strv_done(&s->parts);
	*s = (struct source){ .fd = -1 };
}

bool source_is_stream(const struct source *s)
{
	struct stat st;

	return s->kind != SOURCE_REGISTRY && s->kind != SOURCE_OCI_DIR && fstat(s->fd, &st) == 0 && !S_ISREG(st.st_mode);
}

const char *source_name(const struct source *s)
{
	return s->path ? s->path : "standard input";
}

int source_bad(const struct source *s, int code, struct err *err)
{
	return err_ctx(err, code, "%s", source_name(s));
}

void source_list(char list[SOURCE_LIST_MAX], const char *name)
{
	static const char more[] = ", ...";
	size_t used = strlen(list), room = SOURCE_LIST_MAX - sizeof(more) - used;
	AUTO_FREE(char, shown);

	shown = str_escape(name, MIN(strlen(name), (size_t)100));
	if (used >= sizeof(more) && strcmp(list + used - strlen(more), more) == 0)
		return;
	if (strlen(shown) + 2 > room)
		memcpy(list + used, more, sizeof(more));
	else
		(void)snprintf(list + used, room, "%s%s", used ? ", " : "", shown);
}

int source_which(const struct source *s, size_t n, const char *word, const char *list, struct err *err)
{
	if (!*list)
		list = "none with a name";
	if (s->kind == SOURCE_STDIN)
		return err_set(err, -EINVAL, "it has %zu images (%s); save one image alone", n, list);
	return err_set(err, -ENOENT, "which of its %zu images? append :%s; it has %s", n, word, list);
}

/* --- parts --- */

static int none(const char *name, struct err *err)
{
	AUTO_FREE(char, shown);

	shown = str_escape(name, MIN(strlen(name), (size_t)200));
	return err_set(err, -ENOENT, "%s: not in it; the image is incomplete", shown);
}

int source_part(const struct source *s, const char *name, struct part *ret, struct err *err)
{
	const struct tar_entry *e;
	AUTO_FD(fd);
	struct stat st;

	if (s->kind == SOURCE_OCI_DIR) {
		/* The layout may lie where a guest can write: no link is followed in it. */
		fd = file_open_beneath(s->fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			return none(name, err);
		*ret = (struct part){ TAKE_FD(fd), 0, (uint64_t)st.st_size };
		return 0;
	}
	e = s->kind == SOURCE_STORE ? NULL : tar_find(&s->tar, name);
	if (!e)
		return none(name, err);
	fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return err_set(err, -errno, "too many open files");
	*ret = (struct part){ TAKE_FD(fd), e->at, e->bytes };
	return 0;
}

int source_read(const struct source *s, const char *name, char **ret, size_t *ret_n, struct err *err)
{
	AUTO_FREE(char, text);
	struct part part;
	size_t n = 0;
	int r;

	r = source_part(s, name, &part, err);
	if (r < 0)
		return r;
	if (part.bytes > MANIFEST_MAX)
		r = err_set(err, -EBADMSG, "%s: longer than 4 MiB", name);
	text = xmalloc(part.bytes > MANIFEST_MAX ? 1 : part.bytes + 1);
	while (r == 0 && n < part.bytes) {
		ssize_t k = pread(part.fd, text + n, part.bytes - n, (off_t)(part.at + n));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			r = err_set(err, k < 0 ? -errno : -EIO, "%s: cannot be read", name);
		else
			n += (size_t)k;
	}
	(void)close(part.fd);
	if (r < 0)
		return r;
	text[n] = '\0';
	*ret = TAKE_PTR(text);
	*ret_n = n;
	return 0;
}

/* --- archives --- */

static ssize_t read_at(void *ctx, uint64_t at, void *p, size_t n)
{
	const struct source *s = ctx;
	ssize_t k;

	do
		k = pread(s->fd, p, n, (off_t)at);
	while (k < 0 && errno == EINTR);
	return k < 0 ? -errno : k;
}

/* What a person may have compressed as a whole; layers inside are something else. */
static const char *compressed_by(const struct source *s)
{
	static const struct {
		const char *magic;
		size_t n;
		const char *name;
	} kinds[] = {
		{ "\x1f\x8b", 2, "gzip" }, { "\x28\xb5\x2f\xfd", 4, "zstd" }, { "\xfd" "7zXZ", 5, "xz" }, { "BZh", 3, "bzip2" },
	};
	char head[8] = "";

	if (pread(s->fd, head, sizeof(head), 0) <= 0)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (memcmp(head, kinds[i].magic, kinds[i].n) == 0)
			return kinds[i].name;
	return NULL;
}

static int index_archive(struct source *s, struct err *err)
{
	const char *tool = compressed_by(s);
	struct stat st;

	if (tool)
		return err_set(err, -EBADMSG, "compressed as a whole; decompress it first: %s -dc FILE | agent-vm pull --image -", tool);
	if (fstat(s->fd, &st) < 0)
		return err_set(err, -errno, "cannot be read: %s", strerror(errno));
	return tar_index_build(read_at, s, (uint64_t)st.st_size, &s->tar, err);
}

/* What is not in the store is nowhere. */
static int get_nothing(void *ctx, const struct descriptor *d, const char *what, char **ret, size_t *ret_n, struct err *err)
{
	return none(what, err);
}

static int plan_store(struct source *s, struct plan_source *where, struct plan *ret, struct err *err)
{
	AUTO_FREE(char, text);
	int r;

	where->get = get_nothing;
	r = blobs_read(where->blobs, &s->manifest, &text, err);
	if (r == -ENOENT)
		r = none("manifest", err);
	if (r == 0)
		r = plan_find(where, text, s->manifest.bytes, NULL, s->manifest.hex, ret, err);
	for (size_t i = 0; r == 0 && i < ret->manifest.n_layers; i++)
		strv_add(&s->parts, ret->manifest.layers[i].blob.hex);
	return r;
}

int source_plan(struct source *s, struct plan_source *where, struct plan *ret, struct err *err)
{
	bool docker = s->kind == SOURCE_DOCKER_ARCHIVE;
	int r = 0;

	if (s->kind == SOURCE_STORE) {
		r = plan_store(s, where, ret, err);
		return r < 0 ? source_bad(s, r, err) : 0;
	}
	if (s->kind != SOURCE_OCI_DIR)
		r = index_archive(s, err);
	/* docker save writes both tables since its version 25; the OCI one has digests of everything. */
	if (r == 0 && s->kind == SOURCE_STDIN)
		docker = !tar_find(&s->tar, "oci-layout") && tar_find(&s->tar, "manifest.json");
	if (r == 0)
		r = docker ? source_plan_docker(s, where, ret, err) : source_plan_oci(s, where, ret, err);
	return r < 0 ? source_bad(s, r, err) : 0;
}
