#include "base/jread.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"

/* --- what makes up a text; each takes a front off @s or says no --- */

static void skip_space(struct span *s)
{
	while (s->n > 0 && memchr(" \t\r\n", s->p[0], 4)) {
		s->p++;
		s->n--;
	}
}

static bool take(struct span *s, uint8_t c)
{
	if (s->n == 0 || s->p[0] != c)
		return false;
	s->p++;
	s->n--;
	return true;
}

static bool hex4(struct span *s, unsigned *ret)
{
	unsigned v = 0;

	if (s->n < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		uint8_t c = s->p[i], low = c | 0x20;

		if (c >= '0' && c <= '9')
			v = v << 4 | (unsigned)(c - '0');
		else if (low >= 'a' && low <= 'f')
			v = v << 4 | (unsigned)(low - 'a' + 10);
		else
			return false;
	}
	s->p += 4;
	s->n -= 4;
	*ret = v;
	return true;
}

/* One character behind the opening quote, as UTF-8; its bytes, 0 at the closing quote, -1. */
static int character(struct span *s, uint8_t out[4])
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	unsigned v, low;

	if (s->n == 0 || s->p[0] < 0x20)
		return -1;
	if (take(s, '"'))
		return 0;
	if (!take(s, '\\')) {
		out[0] = s->p[0];
		s->p++;
		s->n--;
		return 1;
	}
	if (!take(s, 'u')) {
		at = s->n > 0 && s->p[0] ? strchr(from, s->p[0]) : NULL;
		if (!at)
			return -1;
		out[0] = (uint8_t)to[at - from];
		s->p++;
		s->n--;
		return 1;
	}
	if (!hex4(s, &v) || v == 0 || (v >= 0xdc00 && v <= 0xdfff))
		return -1;
	if (v >= 0xd800 && v <= 0xdbff) {
		if (!take(s, '\\') || !take(s, 'u') || !hex4(s, &low) || low < 0xdc00 || low > 0xdfff)
			return -1;
		v = 0x10000 + ((v & 0x3ff) << 10) + (low & 0x3ff);
	}
	return (int)str_put_utf8(v, out);
}

static bool string(struct span *s)
{
	uint8_t c[4];
	int r;

	if (!take(s, '"'))
		return false;
	while ((r = character(s, c)) > 0)
		;
	return r == 0;
}

static size_t digits(struct span *s)
{
	size_t n = 0;

	for (; s->n > 0 && s->p[0] >= '0' && s->p[0] <= '9'; n++) {
		s->p++;
		s->n--;
	}
	return n;
}

bool jread_take_number(struct span *s)
{
	(void)take(s, '-');
	if (!take(s, '0') && digits(s) == 0)
		return false;
	if (take(s, '.') && digits(s) == 0)
		return false;
	if (take(s, 'e') || take(s, 'E')) {
		if (!take(s, '+'))
			(void)take(s, '-');
		return digits(s) > 0;
	}
	return true;
}

static bool word(struct span *s, const char *w)
{
	size_t n = strlen(w);

	if (s->n < n || memcmp(s->p, w, n) != 0)
		return false;
	s->p += n;
	s->n -= n;
	return true;
}

/* Two strings with their quotes, of checked text. */
static bool same_string(struct span a, struct span b)
{
	uint8_t x[4], y[4];
	int n;

	(void)take(&a, '"');
	(void)take(&b, '"');
	do {
		n = character(&a, x);
		if (character(&b, y) != n || (n > 0 && memcmp(x, y, (size_t)n) != 0))
			return false;
	} while (n > 0);
	return true;
}

static bool value(struct span *s, unsigned depth);

static bool object(struct span *s, unsigned depth)
{
	struct span names[JREAD_MEMBERS_MAX], name;
	size_t n = 0;

	skip_space(s);
	if (take(s, '}'))
		return true;
	do {
		skip_space(s);
		name = *s;
		if (n == JREAD_MEMBERS_MAX || !string(s))
			return false;
		name.n -= s->n;
		for (size_t i = 0; i < n; i++)
			if (same_string(names[i], name))
				return false;
		names[n++] = name;
		skip_space(s);
		if (!take(s, ':') || !value(s, depth))
			return false;
		skip_space(s);
	} while (take(s, ','));
	return take(s, '}');
}

static bool array(struct span *s, unsigned depth)
{
	skip_space(s);
	if (take(s, ']'))
		return true;
	do {
		if (!value(s, depth))
			return false;
		skip_space(s);
	} while (take(s, ','));
	return take(s, ']');
}

/* White space may be in front. @depth: nested ones that may still come. */
static bool value(struct span *s, unsigned depth)
{
	skip_space(s);
	if (s->n == 0)
		return false;
	switch (s->p[0]) {
	case '{':
		return depth > 0 && take(s, '{') && object(s, depth - 1);
	case '[':
		return depth > 0 && take(s, '[') && array(s, depth - 1);
	case '"':
		return string(s);
	case 't':
		return word(s, "true");
	case 'f':
		return word(s, "false");
	case 'n':
		return word(s, "null");
	default:
		return jread_take_number(s);
	}
}

int jread_check(struct span text, unsigned depth, struct span *ret_value)
{
	struct span s = text, v;

	if (!str_is_utf8((const char *)text.p, text.n))
		return -EBADMSG;
	skip_space(&s);
	v = s;
	if (!value(&s, depth))
		return -EBADMSG;
	v.n -= s.n;
	skip_space(&s);
	if (s.n > 0)
		return -EBADMSG;
	*ret_value = v;
	return 0;
}

/* --- looking into checked text --- */

/* Past a checked value, whose inside was checked as well: only brackets and strings matter. */
static struct span take_value(struct span *s)
{
	struct span v;
	unsigned open = 0;

	skip_space(s);
	v = *s;
	do {
		if (s->n == 0)
			break;
		if (s->p[0] == '"') {
			(void)string(s);
		} else {
			open += s->p[0] == '{' || s->p[0] == '[';
			open -= s->p[0] == '}' || s->p[0] == ']';
			s->p++;
			s->n--;
			while (open == 0 && s->n > 0 && !memchr(" \t\r\n,:]}", s->p[0], 8) && v.p[0] != '{' &&
			       v.p[0] != '[') {
				s->p++;
				s->n--;
			}
		}
	} while (open > 0);
	v.n -= s->n;
	return v;
}

enum jread_type jread_type(struct span v)
{
	switch (v.n > 0 ? v.p[0] : 'n') {
	case '{':
		return JREAD_OBJECT;
	case '[':
		return JREAD_ARRAY;
	case '"':
		return JREAD_STRING;
	case 't':
	case 'f':
		return JREAD_BOOL;
	case 'n':
		return JREAD_NULL;
	default:
		return JREAD_NUMBER;
	}
}

bool jread_next_element(struct span *at, struct span *ret)
{
	if (!take(at, '[') && !take(at, ','))
		return false;
	skip_space(at);
	if (at->n == 0 || at->p[0] == ']')
		return false;
	*ret = take_value(at);
	skip_space(at);
	return true;
}

bool jread_next_member(struct span *at, struct span *ret_name, struct span *ret)
{
	if (!take(at, '{') && !take(at, ','))
		return false;
	skip_space(at);
	if (at->n == 0 || at->p[0] == '}')
		return false;
	*ret_name = take_value(at);
	skip_space(at);
	(void)take(at, ':');
	*ret = take_value(at);
	skip_space(at);
	return true;
}

bool jread_member(struct span v, const char *name, struct span *ret)
{
	struct span n, found;

	if (jread_type(v) != JREAD_OBJECT)
		return false;
	while (jread_next_member(&v, &n, &found))
		if (jread_string_is(n, name)) {
			*ret = found;
			return true;
		}
	return false;
}

bool jread_string_is(struct span v, const char *text)
{
	uint8_t c[4];
	int n;

	if (!take(&v, '"'))
		return false;
	while ((n = character(&v, c)) == 1 && c[0] == (uint8_t)*text && *text)
		text++;
	return n == 0 && *text == '\0';
}

ssize_t jread_string(struct span v, uint8_t *out, size_t size)
{
	uint8_t c[4];
	size_t at = 0;
	int n;

	if (!take(&v, '"'))
		return -EINVAL;
	while ((n = character(&v, c)) > 0) {
		if ((size_t)n > size - at)
			return -ENOBUFS;
		memcpy(out + at, c, (size_t)n);
		at += (size_t)n;
	}
	return n == 0 ? (ssize_t)at : -EINVAL;
}

int jread_int(struct span v, int64_t *ret)
{
	char text[64];
	double d;

	if (jread_type(v) != JREAD_NUMBER)
		return -EINVAL;
	if (v.n >= sizeof(text))
		return -ERANGE;
	memcpy(text, v.p, v.n);
	text[v.n] = '\0';
	/* The grammar was checked, and the processes that use this stay in the C locale. */
	d = strtod(text, NULL);
	if (!(d > -0x1p53 && d < 0x1p53))
		return -ERANGE;
	*ret = (int64_t)d;
	return 0;
}
