/* GraphQL, October 2021, section 2.1, and stricter: a carriage return outside of a string belongs to a line feed, there
 * is no byte order mark, no control character even where the text is a comment, and no U+0000 by any escape. "\u{...}"
 * is not in that edition, but GitHub's readers may know it; it is decoded, and printed as what it stands for. */
#include "gate/policy/github/gql_doc.h"

#include <string.h>

#include "base/macros.h"
#include "base/str.h"

void *gql_alloc(struct gql_arena *a, size_t n)
{
	size_t at = (a->n + 7) & ~(size_t)7;

	if (at > a->size || n > a->size - at)
		return NULL;
	a->n = at + n;
	memset(a->p + at, 0, n);
	return a->p + at;
}

bool gql_fail(struct gql_fault *f, enum refusal_code code, const char *why, const char *type, struct span name)
{
	if (f->code == REFUSAL_NONE)
		*f = (struct gql_fault){ .code = code, .why = why, .type = type, .name = name };
	return false;
}

static bool broken(struct gql_lexer *l, const char *why)
{
	return gql_fail(l->fault, REFUSAL_GQL_PARSE, why, NULL, SPAN(NULL, 0));
}

static void step(struct span *s, size_t n)
{
	s->p += n;
	s->n -= n;
}

static bool starts(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n >= n && memcmp(s.p, lit, n) == 0;
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_start(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

bool gql_is_name(struct span s)
{
	if (s.n == 0 || !is_name_start(s.p[0]))
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (!is_name_start(s.p[i]) && !is_digit(s.p[i]))
			return false;
	return true;
}

static bool skip_ignored(struct gql_lexer *l)
{
	struct span *s = &l->rest;
	bool comment = false;

	while (s->n > 0) {
		uint8_t c = s->p[0];

		if (c == '\r' && (s->n < 2 || s->p[1] != '\n'))
			return broken(l, "a carriage return without a line feed");
		if (c == '\n')
			comment = false;
		else if (c == '#')
			comment = true;
		else if (c != '\r' && c != '\t' && c < ' ')
			return broken(l, "a control character");
		else if (!comment && c != '\r' && c != '\t' && c != ' ' && c != ',')
			return true;
		step(s, 1);
	}
	return true;
}

static unsigned hex(uint8_t c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* The digits behind "\u", in braces or four of them. */
static bool code_unit(struct span *s, uint32_t *ret, bool *ret_braced)
{
	size_t n = 4, i;
	uint32_t v = 0;

	*ret_braced = starts(*s, "{");
	if (*ret_braced) {
		step(s, 1);
		for (n = 0; n < s->n && n < 8 && s->p[n] != '}'; n++)
			;
	}
	if (n > s->n)
		return false;
	for (i = 0; i < n; i++) {
		unsigned d = hex(s->p[i]);

		if (d == 16 || v > 0x10ffff)
			return false;
		v = v << 4 | d;
	}
	step(s, n);
	if (*ret_braced) {
		if (!starts(*s, "}"))
			return false;
		step(s, 1);
	}
	*ret = v;
	return true;
}

/* What stands behind a backslash; bytes written, 0 when it is no escape. An escape is never shorter than what it means.
 */
static size_t escape(struct span *s, uint8_t out[4])
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	uint32_t v, low;
	bool braced;

	if (s->n == 0)
		return 0;
	if (s->p[0] != 'u') {
		const char *at = s->p[0] ? strchr(from, s->p[0]) : NULL;

		if (!at)
			return 0;
		step(s, 1);
		out[0] = (uint8_t)to[at - from];
		return 1;
	}
	step(s, 1);
	if (!code_unit(s, &v, &braced))
		return 0;
	if (!braced && v >= 0xd800 && v <= 0xdbff) {
		if (!starts(*s, "\\u"))
			return 0;
		step(s, 2);
		if (!code_unit(s, &low, &braced) || braced || low < 0xdc00 || low > 0xdfff)
			return 0;
		v = 0x10000 + ((v & 0x3ff) << 10) + (low & 0x3ff);
	}
	if (v == 0 || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return 0;
	return str_put_utf8(v, out);
}

/* Room for what the rest of the text may become; given back but for what is used. */
static uint8_t *text_begin(struct gql_lexer *l)
{
	uint8_t *p = l->rest.n < l->arena->size - MIN(l->arena->n, l->arena->size) ? l->arena->p + l->arena->n : NULL;

	if (!p)
		(void)gql_fail(l->fault, REFUSAL_LIMIT, "the request is too large", NULL, SPAN(NULL, 0));
	return p;
}

static void text_end(struct gql_lexer *l, uint8_t *p, size_t n)
{
	l->token = GQL_TOK_STRING;
	l->text = SPAN(p, n);
	l->arena->n += n;
}

static bool string(struct gql_lexer *l)
{
	struct span *s = &l->rest;
	uint8_t *out = text_begin(l);
	size_t n = 0, k;

	if (!out)
		return false;
	step(s, 1);
	while (s->n > 0 && s->p[0] != '"') {
		uint8_t c = s->p[0];

		step(s, 1);
		if (c == '\\') {
			k = escape(s, out + n);
			if (k == 0)
				return broken(l, "an escape that does not exist");
			n += k;
		} else if (c < ' ' && c != '\t') {
			return broken(l, "a control character or the end of a line within a string");
		} else {
			out[n++] = c;
		}
	}
	if (s->n == 0)
		return broken(l, "a string that does not end");
	step(s, 1);
	text_end(l, out, n);
	return true;
}

static size_t line_end(struct span s)
{
	const uint8_t *lf = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL;

	return lf ? (size_t)(lf - s.p) : s.n;
}

static size_t indent(struct span line)
{
	size_t n = 0;

	while (n < line.n && (line.p[n] == ' ' || line.p[n] == '\t'))
		n++;
	return n;
}

/* Section 2.9.4, BlockStringValue(), over lines that end with a line feed. In place: nothing grows. */
static size_t block_value(uint8_t *p, size_t n)
{
	size_t common = SIZE_MAX, out = 0, end = 0, from, len;
	bool begun = false, first = true;

	for (from = 0; from <= n; from += len + 1) {
		struct span line = SPAN(p + from, n - from);
		size_t in;

		len = line_end(line);
		line.n = len;
		in = indent(line);
		if (!first && in < len)
			common = MIN(common, in);
		first = false;
	}
	for (from = 0, first = true; from <= n; from += len + 1, first = false) {
		struct span line = SPAN(p + from, n - from);
		size_t cut;
		bool blank;

		len = line_end(line);
		line.n = len;
		blank = indent(line) == len;
		cut = first || common == SIZE_MAX ? 0 : MIN(common, len);
		if (blank && !begun)
			continue;
		if (begun)
			p[out++] = '\n';
		begun = true;
		memmove(p + out, line.p + cut, len - cut);
		out += len - cut;
		if (!blank)
			end = out;
	}
	return end;
}

static bool block_string(struct gql_lexer *l)
{
	struct span *s = &l->rest;
	uint8_t *out = text_begin(l);
	size_t n = 0;

	if (!out)
		return false;
	step(s, 3);
	while (!starts(*s, "\"\"\"")) {
		if (s->n == 0)
			return broken(l, "a block string that does not end");
		if (starts(*s, "\\\"\"\"")) {
			memcpy(out + n, "\"\"\"", 3);
			n += 3;
			step(s, 4);
		} else if (s->p[0] == '\r') {
			out[n++] = '\n';
			step(s, starts(*s, "\r\n") ? 2 : 1);
		} else if (s->p[0] < ' ' && s->p[0] != '\t' && s->p[0] != '\n') {
			return broken(l, "a control character within a block string");
		} else {
			out[n++] = s->p[0];
			step(s, 1);
		}
	}
	step(s, 3);
	text_end(l, out, block_value(out, n));
	return true;
}

static size_t digits(struct span s)
{
	size_t n = 0;

	while (n < s.n && is_digit(s.p[n]))
		n++;
	return n;
}

/* Section 2.9.1 and 2.9.2: what follows a number is no digit, point or name. */
static bool number(struct gql_lexer *l)
{
	struct span *s = &l->rest, whole = *s;
	size_t n;

	l->token = GQL_TOK_INT;
	if (s->p[0] == '-')
		step(s, 1);
	n = digits(*s);
	if (n == 0 || (n > 1 && s->p[0] == '0'))
		return broken(l, "a number that is none");
	step(s, n);
	if (starts(*s, ".")) {
		l->token = GQL_TOK_FLOAT;
		step(s, 1);
		n = digits(*s);
		if (n == 0)
			return broken(l, "a number that is none");
		step(s, n);
	}
	if (s->n > 0 && (s->p[0] == 'e' || s->p[0] == 'E')) {
		l->token = GQL_TOK_FLOAT;
		step(s, 1);
		if (s->n > 0 && (s->p[0] == '+' || s->p[0] == '-'))
			step(s, 1);
		n = digits(*s);
		if (n == 0)
			return broken(l, "a number that is none");
		step(s, n);
	}
	if (s->n > 0 && (s->p[0] == '.' || is_name_start(s->p[0])))
		return broken(l, "a number with letters behind it");
	l->text = SPAN(whole.p, whole.n - s->n);
	return true;
}

bool gql_next(struct gql_lexer *l)
{
	struct span *s = &l->rest;
	size_t n;

	if (!skip_ignored(l))
		return false;
	l->text = SPAN(s->p, MIN(s->n, 1));
	if (s->n == 0) {
		l->token = GQL_TOK_END;
		return true;
	}
	if (++l->n > GQL_TOKENS_MAX)
		return gql_fail(l->fault, REFUSAL_LIMIT, "the query has too many words", NULL, SPAN(NULL, 0));
	if (is_name_start(s->p[0])) {
		for (n = 1; n < s->n && (is_name_start(s->p[n]) || is_digit(s->p[n])); n++)
			;
		l->token = GQL_TOK_NAME;
		l->text = SPAN(s->p, n);
		step(s, n);
		return true;
	}
	if (is_digit(s->p[0]) || s->p[0] == '-')
		return number(l);
	if (s->p[0] == '"')
		return starts(*s, "\"\"\"") ? block_string(l) : string(l);
	n = starts(*s, "...") ? 3 : memchr("!$():=@[]{}", s->p[0], 11) ? 1 : 0;
	if (n == 0)
		return broken(l, "a character that has no place in a query");
	l->token = GQL_TOK_PUNCT;
	l->text = SPAN(s->p, n);
	step(s, n);
	return true;
}
