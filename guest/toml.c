#include "guest/toml.h"

#include <errno.h>
#include <stdio.h>

#include "base/macros.h"
#include "base/str.h"

#define PARTS_MAX 1000 /* of a dotted key */

/* The parts of a table's name or of a key that are as looked for, counted from the front. */
struct match {
	size_t n;     /* parts that were the same */
	bool differs; /* one was not */
};

static bool take(struct span *s, const char *lit)
{
	size_t n = strlen(lit);

	if (s->n < n || memcmp(s->p, lit, n) != 0)
		return false;
	s->p += n;
	s->n -= n;
	return true;
}

static uint8_t front(struct span s)
{
	return s.n > 0 ? s.p[0] : 0;
}

static void skip(struct span *s, const char *any)
{
	while (s->n > 0 && s->p[0] != 0 && strchr(any, s->p[0])) {
		s->p++;
		s->n--;
	}
}

static void skip_line(struct span *s)
{
	while (s->n > 0 && s->p[0] != '\n') {
		s->p++;
		s->n--;
	}
}

/* One character of a basic string, after its escape: bytes into @out. Their number. An escape that is none of these may be one
 * of a later TOML: it is passed over, and is like nothing that is looked for. */
static int character(struct span *s, uint8_t out[4])
{
	static const char from[] = "btnfre\"\\", to[] = "\b\t\n\f\r\033\"\\";
	unsigned v = 0, n;
	const char *at;

	out[0] = front(*s);
	s->p++;
	s->n--;
	if (out[0] != '\\')
		return 1;
	n = take(s, "u") ? 4 : take(s, "U") ? 8 : 0;
	at = n == 0 && front(*s) ? strchr(from, front(*s)) : NULL;
	if (at) {
		s->p++;
		s->n--;
		out[0] = (uint8_t)to[at - from];
		return 1;
	}
	for (unsigned i = 0; i < n; i++) {
		uint8_t c = front(*s), low = c | 0x20;

		if (!(c >= '0' && c <= '9') && !(low >= 'a' && low <= 'f')) {
			n = 0;
			break;
		}
		v = v << 4 | (unsigned)(c <= '9' ? c - '0' : low - 'a' + 10);
		s->p++;
		s->n--;
	}
	if (n == 0 || v > 0x10ffff)
		v = 0;
	if (v < 0x80) {
		out[0] = (uint8_t)v;
		return 1;
	}
	n = v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
	for (unsigned i = n; i-- > 1; v >>= 6)
		out[i] = (uint8_t)(0x80 | (v & 0x3f));
	out[0] = (uint8_t)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | v);
	return (int)n;
}

/* A string of one line. @want: what it may mean; @ret_same: it does. False: it has no end. */
static bool short_string(struct span *s, struct span want, bool *ret_same)
{
	bool basic = front(*s) == '"';
	uint8_t c[4], quote = front(*s);

	*ret_same = true;
	s->p++;
	s->n--;
	while (s->n > 0 && s->p[0] != '\n') {
		int n = 1;

		if (s->p[0] == quote) {
			s->p++;
			s->n--;
			*ret_same &= want.n == 0;
			return true;
		}
		if (basic) {
			n = character(s, c);
		} else {
			c[0] = s->p[0];
			s->p++;
			s->n--;
		}
		*ret_same &= want.n >= (size_t)n && memcmp(want.p, c, (size_t)n) == 0;
		if (*ret_same)
			(void)span_take(&want, (size_t)n, &(struct span){ 0 });
	}
	return false;
}

/* A string of any form in a value. */
static bool any_string(struct span *s)
{
	const char *three = front(*s) == '"' ? "\"\"\"" : "'''";
	bool basic = front(*s) == '"', same;

	if (!take(s, three))
		return short_string(s, SPAN("", 0), &same);
	while (s->n > 0) {
		if (take(s, three)) {
			/* Up to two quotes may stand right before the end. */
			for (int i = 0; i < 2 && front(*s) == (uint8_t)three[0]; i++)
				(void)span_take(s, 1, &(struct span){ 0 });
			return true;
		}
		(void)span_take(s, basic && s->p[0] == '\\' && s->n > 1 ? 2 : 1, &(struct span){ 0 });
	}
	return false;
}

/* A dotted key up to "]" or "=". False: it is none. */
static bool dotted(struct span *s, const struct span *key, size_t n, struct match *m)
{
	for (size_t i = 0; i < PARTS_MAX; i++) {
		struct span want = !m->differs && m->n < n ? key[m->n] : SPAN("", 0), bare;
		bool same;

		skip(s, " \t");
		if (front(*s) == '"' || front(*s) == '\'') {
			if (!short_string(s, want, &same))
				return false;
		} else {
			bare = *s;
			skip(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
			bare.n -= s->n;
			if (bare.n == 0)
				return false;
			same = bare.n == want.n && memcmp(bare.p, want.p, want.n) == 0;
		}
		if (!m->differs && m->n < n) {
			m->differs = !same;
			m->n += same;
		}
		skip(s, " \t");
		if (!take(s, "."))
			return true;
	}
	return false;
}

/* A value, over lines where it is a list or an inline table. */
static bool value(struct span *s)
{
	size_t open = 0;

	while (s->n > 0 && (open > 0 || s->p[0] != '\n')) {
		uint8_t c = s->p[0];

		if (c == '"' || c == '\'') {
			if (!any_string(s))
				return false;
			continue;
		}
		if (c == '#') {
			skip_line(s);
			continue;
		}
		open += c == '[' || c == '{';
		if (c == ']' || c == '}') {
			if (open == 0)
				return false;
			open--;
		}
		s->p++;
		s->n--;
	}
	return open == 0;
}

int toml_has_table(struct span s, const struct span *key, size_t n)
{
	struct match table = { 0 };

	if (!str_is_utf8((const char *)s.p, s.n) || memchr(s.p, '\0', s.n))
		return -EBADMSG;
	for (bool found = false;; found = false) {
		skip(&s, " \t\r\n");
		if (s.n == 0)
			return 0;
		if (s.p[0] == '#') {
			skip_line(&s);
			continue;
		}
		if (take(&s, "[")) {
			bool list = take(&s, "[");

			table = (struct match){ 0 };
			if (!dotted(&s, key, n, &table) || !take(&s, list ? "]]" : "]"))
				return -EBADMSG;
			/* [[a]] with a.b looked for: that would be another thing. */
			found = !table.differs && (table.n == n || list);
		} else {
			struct match m = table;

			if (!dotted(&s, key, n, &m) || !take(&s, "="))
				return -EBADMSG;
			/* A part of the way as a value, or something in the table itself. */
			found = !m.differs && m.n > 0;
			if (!value(&s))
				return -EBADMSG;
		}
		if (found)
			return 1;
		skip(&s, " \t\r");
		if (front(s) == '#')
			skip_line(&s);
		if (s.n > 0 && s.p[0] != '\n')
			return -EBADMSG;
	}
}

static int put_key(struct buf *out, struct span key)
{
	char esc[16];
	int r = buf_put(out, "\"", 1);

	for (size_t i = 0; r == 0 && i < key.n; i++) {
		uint8_t c = key.p[i];

		if (c < 0x20 || c == 0x7f || c == '"' || c == '\\') {
			(void)snprintf(esc, sizeof(esc), "\\u%04x", c);
			r = buf_put(out, esc, strlen(esc));
		} else {
			r = buf_put_u8(out, c);
		}
	}
	return r < 0 ? r : buf_put(out, "\"", 1);
}

int toml_add_table(struct buf *text, const struct span *key, size_t n, struct span lines)
{
	struct span s = buf_span(text);
	const char *before = s.n == 0 ? "[" : s.p[s.n - 1] == '\n' ? "\n[" : "\n\n[";
	size_t old = text->n;
	int r = buf_put(text, before, strlen(before));

	for (size_t i = 0; r == 0 && i < n; i++) {
		r = i > 0 ? buf_put(text, ".", 1) : 0;
		if (r == 0)
			r = i == 0 ? buf_put(text, key[i].p, key[i].n) : put_key(text, key[i]);
	}
	if (r == 0)
		r = buf_put(text, "]\n", 2);
	if (r == 0)
		r = buf_put(text, lines.p, lines.n);
	if (r < 0)
		text->n = old;
	return r;
}
