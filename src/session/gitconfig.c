#include "session/gitconfig.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/macros.h"
#include "base/span.h"
#include "base/str.h"

#define VALUE_SHOWN 60
#define NAME_MAX_LEN 4096 /* of a section, subsection or key: more than any real one */

struct reader {
	const char *p, *end;
	struct buf section, sub, key, value;
	bool has_sub;
};

static int peek(const struct reader *r)
{
	return r->p < r->end ? (unsigned char)*r->p : -1;
}

/* One byte, "\r\n" as "\n"; -1 at the end. */
static int next(struct reader *r)
{
	int c = peek(r);

	if (c < 0)
		return -1;
	r->p++;
	if (c == '\r' && peek(r) == '\n') {
		r->p++;
		return '\n';
	}
	return c;
}

/* What git takes for white space, and no more: "x\v" is another value than "x", and a line may not begin with "\f". */
static bool is_space(int c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Leaves room for the NUL of text(). */
static int put(struct buf *b, int c)
{
	return b->n + 1 >= b->max || buf_put_u8(b, (uint8_t)c) < 0 ? -EBADMSG : 0;
}

static void clear(struct buf *b)
{
	buf_consume(b, buf_span(b).n);
}

static const char *text(struct buf *b)
{
	uint8_t *end = buf_room(b, 1);

	if (!end)
		return "";
	*end = '\0';
	return (const char *)buf_span(b).p;
}

static bool is_name(int c)
{
	return c >= 0 && c < 0x80 && (isalnum(c) || c == '-');
}

/* After '['. */
static int read_section(struct reader *r)
{
	int c;

	clear(&r->section);
	clear(&r->sub);
	r->has_sub = false;
	/* "[a.b]" is the old way to write a subsection. */
	while ((c = next(r)) >= 0 && (is_name(c) || c == '.')) {
		if (c == '.' && !r->has_sub)
			r->has_sub = true;
		else if (put(r->has_sub ? &r->sub : &r->section, tolower(c)) < 0)
			return -EBADMSG;
	}
	if (buf_span(&r->section).n == 0)
		return -EBADMSG;
	if (c == ' ' || c == '\t') {
		while (c == ' ' || c == '\t')
			c = next(r);
		if (c != '"')
			return -EBADMSG;
		if (r->has_sub && put(&r->sub, '.') < 0)
			return -EBADMSG;
		r->has_sub = true;
		while ((c = next(r)) != '"') {
			if (c == '\\')
				c = next(r);
			if (c < 0 || c == '\n' || c == 0 || put(&r->sub, c) < 0)
				return -EBADMSG;
		}
		c = next(r);
	}
	return c == ']' ? 0 : -EBADMSG;
}

static int read_value(struct reader *r)
{
	bool quoted = false, comment = false;
	size_t end = 0; /* spaces behind it may be the value's or not */
	int c;

	clear(&r->value);
	for (;;) {
		c = next(r);
		if (c == '\n' || c < 0) {
			r->value.n = end;
			return quoted ? -EBADMSG : 0;
		}
		if (c == 0)
			return -EBADMSG;
		if (comment)
			continue;
		if (is_space(c) && !quoted) {
			/* As git does since 2.45; before, each was one space. */
			if (end > 0 && put(&r->value, c) < 0)
				return -EBADMSG;
			continue;
		}
		if (!quoted && (c == ';' || c == '#')) {
			comment = true;
			continue;
		}
		if (c == '"') {
			quoted = !quoted;
			continue;
		}
		if (c == '\\') {
			c = next(r);
			if (c == '\n')
				continue;
			c = c == 't' ? '\t' : c == 'b' ? '\b' : c == 'n' ? '\n' : c == '\\' || c == '"' ? c : -1;
			if (c < 0)
				return -EBADMSG;
		}
		if (put(&r->value, c) < 0)
			return -EBADMSG;
		end = r->value.n;
	}
}

/* @c is the first byte of the key. Returns 1 with a value, 0 without. */
static int read_key(struct reader *r, int c)
{
	clear(&r->key);
	if (!is_name(c) || !isalpha(c))
		return -EBADMSG;
	for (;;) {
		if (put(&r->key, tolower(c)) < 0)
			return -EBADMSG;
		if (!is_name(peek(r)))
			break;
		c = next(r);
	}
	while ((c = next(r)) == ' ' || c == '\t')
		;
	if (c == '\n' || c < 0)
		return 0;
	if (c != '=')
		return -EBADMSG;
	return read_value(r) < 0 ? -EBADMSG : 1;
}

static int read_all(struct reader *r, int (*each)(const struct gitconfig_entry *e, void *arg), void *arg)
{
	int c, k;

	if (r->end - r->p >= 3 && memcmp(r->p, "\xef\xbb\xbf", 3) == 0)
		r->p += 3;
	while ((c = next(r)) >= 0) {
		struct gitconfig_entry e;

		if (is_space(c))
			continue;
		if (c == '#' || c == ';') {
			while (c >= 0 && c != '\n')
				c = next(r);
			continue;
		}
		if (c == '[') {
			if (read_section(r) < 0)
				return -EBADMSG;
			continue;
		}
		if (buf_span(&r->section).n == 0)
			return -EBADMSG;
		k = read_key(r, c);
		if (k < 0)
			return k;
		e = (struct gitconfig_entry){
			.section = text(&r->section),
			.sub = r->has_sub ? text(&r->sub) : NULL,
			.key = text(&r->key),
			.value = k ? text(&r->value) : NULL,
		};
		k = each(&e, arg);
		if (k != 0)
			return k;
	}
	return 0;
}

int gitconfig_read(const char *bytes, size_t n, int (*each)(const struct gitconfig_entry *e, void *arg), void *arg)
{
	struct reader r = { .p = bytes, .end = bytes + n };
	int k;

	if (n > GITCONFIG_MAX)
		return -EBADMSG;
	buf_init(&r.section, NAME_MAX_LEN);
	buf_init(&r.sub, NAME_MAX_LEN);
	buf_init(&r.key, NAME_MAX_LEN);
	buf_init(&r.value, GITCONFIG_MAX + 1);
	k = read_all(&r, each, arg);
	buf_done(&r.section);
	buf_done(&r.sub);
	buf_done(&r.key);
	buf_done(&r.value);
	return k;
}

struct wanted {
	const char *section, *key;
	char *value;
};

static int pick(const struct gitconfig_entry *e, void *arg)
{
	struct wanted *w = arg;

	if (e->sub || strcmp(e->section, w->section) != 0 || strcmp(e->key, w->key) != 0)
		return 0;
	free(w->value);
	w->value = xstrdup(e->value ? e->value : "true");
	return 0;
}

int gitconfig_get(const char *bytes, size_t n, const char *section, const char *key, char **ret)
{
	struct wanted w = { .section = section, .key = key };
	int r = gitconfig_read(bytes, n, pick, &w);

	if (r == 0 && !w.value)
		r = -ENOENT;
	if (r < 0) {
		free(w.value);
		return r;
	}
	*ret = w.value;
	return 0;
}

char *gitconfig_name(const struct gitconfig_entry *e)
{
	return e->sub ? xasprintf("%s.%s.%s", e->section, e->sub, e->key) : xasprintf("%s.%s", e->section, e->key);
}

char *gitconfig_shown(const char *name, const char *value)
{
	const char *v = value ? value : "true";
	AUTO_FREE(char, key);
	AUTO_FREE(char, text);
	size_t n = strlen(v);

	key = str_escape(name, strlen(name));
	text = str_escape(v, MIN(n, (size_t)VALUE_SHOWN));
	return xasprintf("%s = %s%s", key, text, n > VALUE_SHOWN ? "..." : "");
}

bool gitconfig_true(const char *value)
{
	uint64_t v;

	return strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0 || strcasecmp(value, "on") == 0 ||
	       (str_u64(value, UINT64_MAX, &v) == 0 && v != 0);
}
