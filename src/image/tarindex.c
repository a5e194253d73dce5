/*  0     100  108  116  124   136   148     156    157      257      263 265   297   329  337  345      500
 * +-----+----+----+----+-----+-----+-------+------+--------+--------+---+-----+-----+----+----+--------+
 * |name |mode|uid |gid |size |mtime|chksum |type  |linkname|"ustar" |ver|uname|gname|maj |min |prefix  |  one block of 512
 * +-----+----+----+----+-----+-----+-------+------+--------+--------+---+-----+-----+----+----+--------+
 * then the content, padded to blocks. A block of zeros ends the archive. Types L and K (GNU) and x (PAX) carry name, link
 * and size of the entry that follows. */
#include "image/tarindex.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/str.h"

#define BLOCK 512
#define PAX_MAX (64 << 10)
#define LINKS_MAX 8

struct walk {
	tar_read *read;
	void *ctx;
	uint64_t bytes, at;
	struct tar_index out;
	size_t room;
	/* for the next entry */
	char *name, *link;
	uint64_t size;
	bool has_size;
};

static int bad(struct err *err, const char *why)
{
	return err_set(err, -EBADMSG, "archive: %s; it is no tar of an image, or damaged", why);
}

static int read_exact(struct walk *w, uint64_t at, void *p, size_t n, struct err *err)
{
	uint8_t *to = p;

	while (n > 0) {
		ssize_t k = w->read(w->ctx, at, to, n);

		if (k < 0)
			return err_set(err, (int)k, "archive: cannot be read: %s", strerror((int)-k));
		if (k == 0)
			return bad(err, "ends in the middle of an entry");
		to += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

/* Octal, or base-256 with the first bit set (GNU). */
static int number(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		if (p[0] != 0x80)
			return -EBADMSG; /* negative, or beyond 2^88 */
		for (i = 1; i < n; i++) {
			if (v >> 56)
				return -EBADMSG;
			v = v << 8 | p[i];
		}
	} else {
		while (i < n && p[i] == ' ')
			i++;
		for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
			if (v >> 60)
				return -EBADMSG;
			v = v << 3 | (uint64_t)(p[i] - '0');
		}
		if (i < n && p[i] != ' ' && p[i] != '\0')
			return -EBADMSG;
	}
	if (v > INT64_MAX)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static bool checksum_is_right(const uint8_t h[BLOCK])
{
	uint64_t want, sum = 0;

	for (int i = 0; i < BLOCK; i++)
		sum += i >= 148 && i < 156 ? ' ' : h[i];
	return number(h + 148, 8, &want) == 0 && sum == want;
}

static void set(char **to, char *s)
{
	free(*to);
	*to = s;
}

/* "LEN KEY=VALUE\n" records; LEN counts itself. */
static int pax(struct walk *w, const char *p, size_t n)
{
	while (n > 0) {
		uint64_t len;
		AUTO_FREE(char, digits);
		const char *sp = memchr(p, ' ', MIN(n, (size_t)20)), *eq;
		size_t v;

		if (!sp)
			return -EBADMSG;
		digits = xstrndup(p, (size_t)(sp - p));
		if (str_u64(digits, n, &len) < 0 || len < (uint64_t)(sp - p) + 3 || p[len - 1] != '\n')
			return -EBADMSG;
		eq = memchr(sp + 1, '=', len - (size_t)(sp + 1 - p));
		if (!eq)
			return -EBADMSG;
		v = len - 1 - (size_t)(eq + 1 - p);
#define KEY(lit) ((size_t)(eq - sp - 1) == strlen(lit) && memcmp(sp + 1, lit, strlen(lit)) == 0)
		if (KEY("path")) {
			set(&w->name, xstrndup(eq + 1, v));
		} else if (KEY("linkpath")) {
			set(&w->link, xstrndup(eq + 1, v));
		} else if (KEY("size")) {
			AUTO_FREE(char, text);

			text = xstrndup(eq + 1, v);
			if (str_u64(text, INT64_MAX, &w->size) < 0)
				return -EBADMSG;
			w->has_size = true;
		}
#undef KEY
		p += len;
		n -= len;
	}
	return 0;
}

static int special(struct walk *w, char type, uint64_t size, struct err *err)
{
	AUTO_FREE(char, text);
	int r;

	if (size > (type == 'x' ? PAX_MAX : TAR_NAME_MAX + 1))
		return bad(err, "a header that is too long");
	text = xmalloc(size + 1);
	r = read_exact(w, w->at, text, size, err);
	if (r < 0)
		return r;
	text[size] = '\0';
	if (type == 'x')
		return pax(w, text, size) < 0 ? bad(err, "a broken PAX header") : 0;
	set(type == 'L' ? &w->name : &w->link, xstrdup(text));
	return 0;
}

static char *header_name(const uint8_t h[BLOCK])
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, prefix);

	name = xstrndup((const char *)h, 100);
	prefix = memcmp(h + 257, "ustar\0", 6) == 0 ? xstrndup((const char *)h + 345, 155) : NULL;
	return prefix && *prefix ? xasprintf("%s/%s", prefix, name) : TAKE_PTR(name);
}

/* Tidy a path: no "./", no doubled slashes, ".." taken back. NULL when it leads out of the root. */
static char *tidy(const char *dir, const char *path)
{
	AUTO_FREE(char, in);
	AUTO_FREE(char, out);
	size_t n = 0;
	char *save = NULL;

	in = *path == '/' ? xstrdup(path) : xasprintf("%s/%s", dir, path);
	out = xmalloc(strlen(in) + 1);
	for (char *part = strtok_r(in, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		if (strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			if (n == 0)
				return NULL;
			while (n > 0 && out[--n] != '/')
				;
			continue;
		}
		if (n > 0)
			out[n++] = '/';
		memcpy(out + n, part, strlen(part));
		n += strlen(part);
	}
	out[n] = '\0';
	return TAKE_PTR(out);
}

/* Add what was found; takes name and link of @w. */
static int add(struct walk *w, char type, uint64_t size, struct err *err)
{
	struct tar_entry e = { .at = w->at, .bytes = size };
	AUTO_FREE(char, dir);
	char *slash;

	if (w->out.n == TAR_ENTRIES_MAX)
		return bad(err, "more than 65536 entries");
	if (strlen(w->name) > TAR_NAME_MAX || (w->link && strlen(w->link) > TAR_NAME_MAX))
		return bad(err, "a name longer than 4096 bytes");
	e.name = tidy("", w->name);
	if (!e.name || *w->name == '/') {
		free(e.name);
		return bad(err, "an entry outside of it");
	}
	if (type == '1' || type == '2') {
		dir = xstrdup(type == '2' ? e.name : "");
		slash = strrchr(dir, '/');
		dir[slash ? (size_t)(slash - dir) : 0] = '\0';
		/* One that leads out leads nowhere. */
		e.link = tidy(dir, w->link ? w->link : "");
		if (!e.link)
			e.link = xstrdup("");
		e.bytes = 0;
	}
	if (w->out.n == w->room) {
		w->room = w->room ? 2 * w->room : 64;
		w->out.entries = xrealloc(w->out.entries, w->room * sizeof(*w->out.entries));
	}
	w->out.entries[w->out.n++] = e;
	return 0;
}

static int entry(struct walk *w, const uint8_t h[BLOCK], struct err *err)
{
	char type = (char)h[156];
	uint64_t size;
	int r = 0;

	if (!checksum_is_right(h) || number(h + 124, 12, &size) < 0)
		return bad(err, w->at == BLOCK ? "no tar header" : "a broken header");
	if (type != 'x' && type != 'g' && type != 'L' && type != 'K' && w->has_size)
		size = w->size;
	/* Links and folders have no content, whatever the header says. */
	if (type == '1' || type == '2' || type == '5')
		size = 0;
	if (size > w->bytes - w->at)
		return bad(err, "an entry that runs past the end");
	if (type == 'x' || type == 'L' || type == 'K') {
		r = special(w, type, size, err);
	} else if (type != 'g') {
		if (!w->name)
			w->name = header_name(h);
		if (!w->link)
			w->link = xstrndup((const char *)h + 157, 100);
		if (type == 'S')
			r = bad(err, "a sparse entry");
		else if (type == '0' || type == '\0' || type == '7' || type == '1' || type == '2')
			r = add(w, type, size, err);
		set(&w->name, NULL);
		set(&w->link, NULL);
		w->has_size = false;
	}
	w->at += (size + BLOCK - 1) / BLOCK * BLOCK;
	return r;
}

int tar_index_build(tar_read *read, void *ctx, uint64_t bytes, struct tar_index *ret, struct err *err)
{
	struct walk w = { .read = read, .ctx = ctx, .bytes = bytes };
	static const uint8_t zeros[BLOCK];
	uint8_t h[BLOCK];
	int r = 0;

	/* The padding of the last entry may be missing, so the place can lie past the end. */
	while (w.at <= bytes && bytes - w.at >= BLOCK) {
		r = read_exact(&w, w.at, h, BLOCK, err);
		if (r < 0 || memcmp(h, zeros, BLOCK) == 0)
			break;
		w.at += BLOCK;
		r = entry(&w, h, err);
		if (r < 0)
			break;
	}
	if (r == 0 && w.out.n == 0)
		r = bad(err, "holds no files");
	free(w.name);
	free(w.link);
	if (r < 0) {
		tar_index_done(&w.out);
		return r;
	}
	*ret = w.out;
	return 0;
}

void tar_index_done(struct tar_index *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->entries[i].name);
		free(t->entries[i].link);
	}
	free(t->entries);
	*t = (struct tar_index){ 0 };
}

const struct tar_entry *tar_find(const struct tar_index *t, const char *name)
{
	AUTO_FREE(char, first);

	first = tidy("", name);
	name = first;
	for (int hops = 0; name && hops < LINKS_MAX; hops++) {
		const struct tar_entry *e = NULL;

		for (size_t i = t->n; i > 0 && !e; i--)
			if (strcmp(t->entries[i - 1].name, name) == 0)
				e = &t->entries[i - 1];
		if (!e || !e->link)
			return e;
		name = e->link;
	}
	return NULL;
}
