/* POSIX.1-2017 pax and ustar; offsets in a header of 512 bytes:
 *
 *	0 name 100, 100 mode 8, 124 size 12, 148 checksum 8, 156 type 1, 257 "ustar" NUL, 345 prefix 155 */
#include "image/npmtar.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/str.h"

#define BLOCK 512
#define PAX_MAX (64 << 10)
#define PAX_RECORDS_MAX 256
#define COMPONENT_MAX 255
#define SHOWN_MAX 200

struct walk {
	npmtar_read *read;
	void *ctx;
	uint64_t bytes, at;
	struct npmtar out;
	size_t room;
	/* of a PAX header, for the next entry */
	char *name;
	uint64_t size;
	bool has_size;
};

static int bad(struct err *err, const char *name, const char *why)
{
	AUTO_FREE(char, shown);

	shown = str_escape(name ? name : "", MIN(strlen(name ? name : ""), (size_t)SHOWN_MAX));
	return err_set(err, -EBADMSG, "%s%s%s; the package cannot be used", shown, *shown ? ": " : "", why);
}

static int read_exact(struct walk *w, uint64_t at, void *p, size_t n, struct err *err)
{
	uint8_t *to = p;

	while (n > 0) {
		ssize_t k = w->read(w->ctx, at, to, n);

		if (k < 0)
			return err_set(err, (int)k, "the tarball cannot be read: %s", strerror((int)-k));
		if (k == 0)
			return bad(err, NULL, "the tarball ends in the middle of an entry");
		to += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

/* Octal, padded with spaces or NUL. Base 256 is for what no package has: sizes from 8 GiB on, and negative ones. */
static int number(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;

	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	for (; i < n; i++)
		if (p[i] != ' ' && p[i] != '\0')
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

/* One record "LEN KEY=VALUE\n"; LEN counts itself. */
static int pax_record(struct walk *w, const char *p, size_t n, size_t *ret_len)
{
	const char *sp = memchr(p, ' ', MIN(n, (size_t)8)), *key, *eq;
	AUTO_FREE(char, digits);
	AUTO_FREE(char, value);
	uint64_t len;

	if (!sp)
		return -EBADMSG;
	digits = xstrndup(p, (size_t)(sp - p));
	if (str_u64(digits, n, &len) < 0 || len < (uint64_t)(sp - p) + 3 || p[len - 1] != '\n')
		return -EBADMSG;
	key = sp + 1;
	eq = memchr(key, '=', len - (size_t)(key - p));
	if (!eq || memchr(eq, '\0', len - (size_t)(eq - p)))
		return -EBADMSG;
	value = xstrndup(eq + 1, len - 1 - (size_t)(eq + 1 - p));
	if (eq - key == 4 && memcmp(key, "path", 4) == 0) {
		free(w->name);
		w->name = TAKE_PTR(value);
	} else if (eq - key == 4 && memcmp(key, "size", 4) == 0) {
		if (str_u64(value, INT64_MAX, &w->size) < 0)
			return -EBADMSG;
		w->has_size = true;
	} else if (eq - key == 8 && memcmp(key, "linkpath", 8) == 0) {
		return -EBADMSG;
	} else if (eq - key > 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
		return -EBADMSG;
	}
	*ret_len = len;
	return 0;
}

static int pax(struct walk *w, uint64_t size, struct err *err)
{
	AUTO_FREE(char, text);
	size_t at = 0, len = 0;
	int r;

	if (size > PAX_MAX)
		return bad(err, NULL, "a PAX header of more than 64 KiB");
	text = xmalloc(size + 1);
	r = read_exact(w, w->at, text, size, err);
	for (int n = 0; r == 0 && at < size; n++, at += len)
		if (n == PAX_RECORDS_MAX || pax_record(w, text + at, size - at, &len) < 0)
			r = bad(err, NULL, "a broken PAX header");
	return r;
}

/* The tidy form; NULL when a rule forbids the name. "" is the root of the package's own tree. */
static char *tidy(const char *name)
{
	AUTO_FREE(char, out);
	size_t n = 0;

	if (*name == '\0' || *name == '/' || strlen(name) > NPMTAR_NAME_MAX)
		return NULL;
	out = xmalloc(strlen(name) + 1);
	while (*name) {
		size_t k = strcspn(name, "/");

		if (k > COMPONENT_MAX || (k == 2 && memcmp(name, "..", 2) == 0))
			return NULL;
		if (k > 0 && !(k == 1 && *name == '.')) {
			if (n > 0)
				out[n++] = '/';
			memcpy(out + n, name, k);
			n += k;
		}
		name += k + (name[k] == '/');
	}
	out[n] = '\0';
	return TAKE_PTR(out);
}

static int add(struct walk *w, const char *name, const uint8_t *h, uint64_t size, struct err *err)
{
	AUTO_FREE(char, clean);
	uint64_t mode;

	clean = tidy(name);
	if (!clean)
		return bad(err, name, "an absolute name, one with \"..\", or one that is too long");
	if (number(h + 100, 8, &mode) < 0)
		return bad(err, name, "a broken mode");
	if (h[156] == '5')
		return size == 0 ? 0 : bad(err, name, "a folder with content");
	if (*clean == '\0' || name[strlen(name) - 1] == '/')
		return bad(err, name, "a file with the name of a folder");
	if (w->out.n == NPMTAR_ENTRIES_MAX)
		return bad(err, name, "more than 65536 files");
	if (w->out.n == w->room) {
		w->room = w->room ? 2 * w->room : 64;
		w->out.files = xrealloc(w->out.files, w->room * sizeof(*w->out.files));
	}
	w->out.files[w->out.n++] = (struct npmtar_entry){ TAKE_PTR(clean), mode & 0111, w->at, size };
	return 0;
}

static char *header_name(const uint8_t h[BLOCK])
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, prefix);

	name = xstrndup((const char *)h, 100);
	prefix = memcmp(h + 257, "ustar", 6) == 0 ? xstrndup((const char *)h + 345, 155) : NULL;
	return prefix && *prefix ? xasprintf("%s/%s", prefix, name) : TAKE_PTR(name);
}

static int entry(struct walk *w, const uint8_t h[BLOCK], struct err *err)
{
	char type = h[156] ? (char)h[156] : '0';
	uint64_t size;
	int r;

	if (!checksum_is_right(h) || number(h + 124, 12, &size) < 0)
		return bad(err, NULL, w->at == BLOCK ? "not a tarball" : "a broken header");
	if (type != 'x' && type != 'g' && w->has_size)
		size = w->size;
	if (size > w->bytes - w->at)
		return bad(err, NULL, "an entry that runs past the end");
	if (type == 'x') {
		r = pax(w, size, err);
	} else if (type == 'g') {
		r = size > PAX_MAX ? bad(err, NULL, "a PAX header of more than 64 KiB") : 0;
	} else {
		if (!w->name)
			w->name = header_name(h);
		r = type == '0' || type == '5' ? add(w, w->name, h, size, err) :
						 bad(err, w->name, "not a plain file, which is all that a package may hold");
		free(w->name);
		w->name = NULL;
		w->has_size = false;
	}
	w->at += (size + BLOCK - 1) / BLOCK * BLOCK;
	return r;
}

static int check_tail(struct walk *w, struct err *err)
{
	uint8_t mem[16 * BLOCK];

	while (w->at < w->bytes) {
		size_t n = (size_t)MIN(w->bytes - w->at, (uint64_t)sizeof(mem));
		int r = read_exact(w, w->at, mem, n, err);

		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			if (mem[i])
				return bad(err, NULL, "more after the tarball's end");
		w->at += n;
	}
	return 0;
}

int npmtar_index(npmtar_read *read, void *ctx, uint64_t bytes, struct npmtar *ret, struct err *err)
{
	struct walk w = { .read = read, .ctx = ctx, .bytes = bytes };
	static const uint8_t zeros[BLOCK];
	uint8_t h[BLOCK];
	int r = 0;

	/* The padding of the last entry may be missing, so the place can lie past the end. */
	while (r == 0 && w.at <= bytes && bytes - w.at >= BLOCK) {
		r = read_exact(&w, w.at, h, BLOCK, err);
		if (r == 0 && memcmp(h, zeros, BLOCK) == 0) {
			r = check_tail(&w, err);
			break;
		}
		w.at += BLOCK;
		if (r == 0)
			r = entry(&w, h, err);
	}
	free(w.name);
	if (r < 0) {
		npmtar_done(&w.out);
		return r;
	}
	*ret = w.out;
	return 0;
}

void npmtar_done(struct npmtar *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->files[i].name);
	free(t->files);
	*t = (struct npmtar){ NULL, 0 };
}
