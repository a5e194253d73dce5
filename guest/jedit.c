#include "guest/jedit.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>

#include "base/jread.h"
#include "base/macros.h"
#include "base/str.h"

/* --- fronts of a text: each is taken off @s, or it is said that it is not there --- */

static bool take(struct span *s, char c)
{
	if (s->n == 0 || s->p[0] != (uint8_t)c)
		return false;
	s->p++;
	s->n--;
	return true;
}

static void advance(struct span *s, size_t n)
{
	s->p += n;
	s->n -= n;
}

static bool starts(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n >= n && memcmp(s.p, lit, n) == 0;
}

/* White space and comments; false at a comment without an end. */
static bool gap(struct span *s, bool comments)
{
	for (;;) {
		const uint8_t *end;

		if (s->n > 0 && memchr(" \t\r\n", s->p[0], 4)) {
			advance(s, 1);
		} else if (comments && starts(*s, "//")) {
			end = memchr(s->p, '\n', s->n);
			advance(s, end ? (size_t)(end - s->p) : s->n);
		} else if (comments && starts(*s, "/*")) {
			end = memmem(s->p + 2, s->n - 2, "*/", 2);
			if (!end)
				return false;
			advance(s, (size_t)(end - s->p) + 2);
		} else {
			return true;
		}
	}
}

static int hex(struct span s, size_t n)
{
	int v = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t c = i < s.n ? s.p[i] : 0, low = c | 0x20;

		if (c >= '0' && c <= '9')
			v = v << 4 | (c - '0');
		else if (low >= 'a' && low <= 'f')
			v = v << 4 | (low - 'a' + 10);
		else
			return -1;
	}
	return v;
}

/* One character of a string behind its opening quote: a byte, or a whole escape as a code unit. 1; 0 at the closing quote;
 * -1. @ret is at most 0xffff; @ret_raw: it is a byte of UTF-8. */
static int unit(struct span *s, unsigned *ret, bool *ret_raw)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	int v;

	if (s->n == 0 || s->p[0] < 0x20)
		return -1;
	if (take(s, '"'))
		return 0;
	*ret_raw = s->p[0] != '\\';
	if (*ret_raw) {
		*ret = s->p[0];
		advance(s, 1);
		return 1;
	}
	advance(s, 1);
	if (take(s, 'u')) {
		v = hex(*s, 4);
		if (v < 0)
			return -1;
		advance(s, 4);
		*ret = (unsigned)v;
		return 1;
	}
	at = s->n > 0 && s->p[0] ? strchr(from, s->p[0]) : NULL;
	if (!at)
		return -1;
	*ret = (uint8_t)to[at - from];
	advance(s, 1);
	return 1;
}

static bool string(struct span *s)
{
	unsigned c;
	bool raw;
	int r;

	if (!take(s, '"'))
		return false;
	while ((r = unit(s, &c, &raw)) > 0)
		;
	return r == 0;
}

static bool word(struct span *s)
{
	static const char *const words[] = { "true", "false", "null" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (starts(*s, words[i])) {
			advance(s, strlen(words[i]));
			return true;
		}
	return false;
}

static bool value(struct span *s, bool comments, unsigned depth);

/* Behind the opening bracket. */
static bool rest(struct span *s, bool comments, unsigned depth, bool object)
{
	char close = object ? '}' : ']';

	for (bool first = true;; first = false) {
		if (!gap(s, comments))
			return false;
		/* A comma before the end is JSONC's. */
		if ((first || comments) && take(s, close))
			return true;
		if (object && (!string(s) || !gap(s, comments) || !take(s, ':') || !gap(s, comments)))
			return false;
		if (!value(s, comments, depth) || !gap(s, comments))
			return false;
		if (take(s, close))
			return true;
		if (!take(s, ','))
			return false;
	}
}

static bool value(struct span *s, bool comments, unsigned depth)
{
	switch (s->n > 0 ? s->p[0] : '\0') {
	case '{':
		advance(s, 1);
		return depth > 0 && rest(s, comments, depth - 1, true);
	case '[':
		advance(s, 1);
		return depth > 0 && rest(s, comments, depth - 1, false);
	case '"':
		return string(s);
	case 't':
	case 'f':
	case 'n':
		return word(s);
	default:
		return jread_take_number(s);
	}
}

int jedit_check(struct span text, bool comments)
{
	struct span s = text;

	if (!str_is_utf8((const char *)text.p, text.n) || memchr(text.p, '\0', text.n) || !gap(&s, comments) || s.n == 0 ||
	    s.p[0] != '{' || !value(&s, comments, JEDIT_DEPTH) || !gap(&s, comments))
		return -EBADMSG;
	return s.n == 0 ? 0 : -EBADMSG;
}

bool jedit_is_value(struct span s)
{
	return str_is_utf8((const char *)s.p, s.n) && value(&s, false, JEDIT_DEPTH) && s.n == 0;
}

/* --- looking into checked text --- */

static struct span whole(struct span s, bool comments)
{
	(void)gap(&s, comments);
	return s;
}

static struct span take_value(struct span *s, bool comments)
{
	struct span v = *s;

	(void)value(s, comments, JEDIT_DEPTH);
	v.n -= s->n;
	return v;
}

/* At the next member or element; false at the end. */
static bool next(bool comments, struct span *at, char open, char close)
{
	if (!take(at, open)) {
		(void)gap(at, comments);
		if (!take(at, ','))
			return false;
	}
	(void)gap(at, comments);
	return at->n > 0 && at->p[0] != (uint8_t)close;
}

bool jedit_next_member(bool comments, struct span *at, struct span *ret_name, struct span *ret)
{
	if (!next(comments, at, '{', '}'))
		return false;
	*ret_name = take_value(at, comments);
	(void)gap(at, comments);
	(void)take(at, ':');
	(void)gap(at, comments);
	*ret = take_value(at, comments);
	return true;
}

bool jedit_next_element(bool comments, struct span *at, struct span *ret)
{
	if (!next(comments, at, '[', ']'))
		return false;
	*ret = take_value(at, comments);
	return true;
}

/* The second half of a pair, if it is next. */
static unsigned low_half(struct span *s)
{
	int v = starts(*s, "\\u") ? hex(SPAN(s->p + 2, s->n - 2), 4) : -1;

	if (v < 0xdc00 || v > 0xdfff)
		return 0;
	advance(s, 6);
	return (unsigned)v;
}

bool jedit_string_is(struct span s, struct span text)
{
	unsigned c, low;
	bool raw;

	if (!take(&s, '"'))
		return false;
	for (int r; (r = unit(&s, &c, &raw)) >= 0;) {
		uint8_t bytes[4] = { (uint8_t)c };
		size_t n = 1;

		if (r == 0)
			return text.n == 0;
		if (!raw) {
			low = c >= 0xd800 && c <= 0xdbff ? low_half(&s) : 0;
			n = str_put_utf8(low ? 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff) : c, bytes);
		}
		if (text.n < n || memcmp(text.p, bytes, n) != 0)
			return false;
		advance(&text, n);
	}
	return false;
}

/* The last member of that name: its value. */
static bool find(bool comments, struct span object, struct span key, struct span *ret)
{
	struct span name, v;
	bool found = false;

	if (object.n == 0 || object.p[0] != '{')
		return false;
	while (jedit_next_member(comments, &object, &name, &v))
		if (jedit_string_is(name, key)) {
			*ret = v;
			found = true;
		}
	return found;
}

bool jedit_get(struct span text, bool comments, struct jpath path, struct span *ret)
{
	struct span v = whole(text, comments);

	for (size_t i = 0; i < path.n; i++)
		if (!find(comments, v, path.key[i], &v))
			return false;
	*ret = v;
	return true;
}

/* --- changing it --- */

/* @old, a part of the text, becomes @new_. */
static int splice(struct jedit *j, struct span old, struct span new_)
{
	struct span all = buf_span(j->text);
	size_t before = (size_t)(old.p - all.p);
	struct buf out;
	int r;

	if (old.n == new_.n && memcmp(old.p, new_.p, old.n) == 0)
		return 0;
	buf_init(&out, j->text->max);
	r = buf_put(&out, all.p, before);
	if (r == 0)
		r = buf_put(&out, new_.p, new_.n);
	if (r == 0)
		r = buf_put(&out, old.p + old.n, all.n - before - old.n);
	if (r < 0) {
		buf_done(&out);
		return r;
	}
	buf_done(j->text);
	*j->text = out;
	return 0;
}

static int put_text(struct buf *out, const char *s)
{
	return buf_put(out, s, strlen(s));
}

static int put_string(struct buf *out, struct span s)
{
	int r = put_text(out, "\"");

	for (size_t i = 0; r == 0 && i < s.n; i++) {
		char esc[8];

		if (s.p[i] == '"' || s.p[i] == '\\')
			r = put_text(out, "\\");
		if (r == 0 && s.p[i] < 0x20) {
			(void)snprintf(esc, sizeof(esc), "\\u%04x", s.p[i]);
			r = put_text(out, esc);
		} else if (r == 0) {
			r = buf_put_u8(out, s.p[i]);
		}
	}
	return r < 0 ? r : put_text(out, "\"");
}

/* {"KEY":{"KEY":VALUE}}, or without the outermost braces. */
static int put_nested(struct buf *out, struct jpath path, struct span v, bool braces)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < path.n; i++) {
		if (i > 0 || braces)
			r = put_text(out, "{");
		if (r == 0)
			r = put_string(out, path.key[i]);
		if (r == 0)
			r = put_text(out, ":");
	}
	if (r == 0)
		r = buf_put(out, v.p, v.n);
	for (size_t i = braces ? 0 : 1; r == 0 && i < path.n; i++)
		r = put_text(out, "}");
	return r;
}

/* A new member behind the last one, in a line of its own where the others have theirs. */
static int add_member(struct jedit *j, struct span object, struct jpath path, struct span v)
{
	struct span at = object, name, last = { object.p + 1, 0 }, space = { NULL, 0 };
	struct buf out;
	int r = 0;

	buf_init(&out, j->text->max);
	while (jedit_next_member(j->comments, &at, &name, &last))
		if (space.p == NULL)
			space = SPAN(object.p + 1, (size_t)(name.p - object.p - 1));
	if (space.p) {
		struct span only = space;

		r = put_text(&out, ",");
		(void)gap(&only, false);
		if (r == 0 && only.n == 0)
			r = buf_put(&out, space.p, space.n);
	}
	if (r == 0)
		r = put_nested(&out, path, v, false);
	if (r == 0)
		r = splice(j, SPAN(last.p + last.n, 0), buf_span(&out));
	buf_done(&out);
	return r;
}

int jedit_set(struct jedit *j, struct jpath path, struct span v)
{
	struct span object = whole(buf_span(j->text), j->comments), found;
	struct buf out;
	int r;

	for (size_t i = 0; i < path.n; i++) {
		struct jpath left = { path.key + i, path.n - i };

		if (!find(j->comments, object, path.key[i], &found))
			return add_member(j, object, left, v);
		if (i + 1 == path.n)
			return splice(j, found, v);
		object = found;
		if (found.p[0] == '{')
			continue;
		buf_init(&out, j->text->max);
		left = (struct jpath){ left.key + 1, left.n - 1 };
		r = put_nested(&out, left, v, true);
		if (r == 0)
			r = splice(j, found, buf_span(&out));
		buf_done(&out);
		return r;
	}
	return 0;
}

/* All members of that name, in one pass: a file may have a million of them. */
static int drop_members(struct jedit *j, struct span object, struct span key)
{
	struct span all = buf_span(j->text), at = object, name, v;
	const uint8_t *copied = all.p, *before = object.p + 1;
	bool kept = false;
	struct buf out;
	int r = 0;

	buf_init(&out, j->text->max);
	while (r == 0 && jedit_next_member(j->comments, &at, &name, &v)) {
		struct span after = at;

		if (!jedit_string_is(name, key)) {
			kept = true;
		} else if (kept) {
			/* From behind the member before it: a comma that follows stays in the place of the one that goes. */
			r = buf_put(&out, copied, (size_t)(before - copied));
			copied = v.p + v.n;
		} else {
			r = buf_put(&out, copied, (size_t)(name.p - copied));
			(void)gap(&after, j->comments);
			copied = take(&after, ',') ? after.p : v.p + v.n;
		}
		before = v.p + v.n;
	}
	if (r == 0)
		r = buf_put(&out, copied, (size_t)(all.p + all.n - copied));
	if (r < 0) {
		buf_done(&out);
		return r;
	}
	buf_done(j->text);
	*j->text = out;
	return 0;
}

int jedit_drop(struct jedit *j, struct jpath path)
{
	struct span object, name, v;

	for (; path.n > 0; path.n--) {
		struct jpath up = { path.key, path.n - 1 };
		int r;

		if (!jedit_get(buf_span(j->text), j->comments, up, &object) ||
		    !find(j->comments, object, path.key[up.n], &v))
			return 0;
		r = drop_members(j, object, path.key[up.n]);
		if (r < 0)
			return r;
		if (up.n == 0 || !jedit_get(buf_span(j->text), j->comments, up, &object) ||
		    jedit_next_member(j->comments, &object, &name, &v))
			return 0;
	}
	return 0;
}
