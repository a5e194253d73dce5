/* challenge   = scheme [ 1*SP ( token68 / param *( OWS "," OWS param ) ) ]
 * value       = challenge *( OWS "," OWS challenge )
 * param       = token BWS "=" BWS ( token / quoted-string )
 *
 * A comma may begin a parameter or a challenge; it is a parameter when a "=" follows the token (RFC 9110 section 11.6.1
 * names this trap). Empty list elements are allowed (section 5.6.1). */
#include "image/challenge.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/str.h"

static bool is_tchar(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_68(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c != 0 && strchr("-._~+/", c));
}

static void skip(struct span *s, const char *set)
{
	while (s->n > 0 && s->p[0] != 0 && strchr(set, s->p[0]))
		*s = SPAN(s->p + 1, s->n - 1);
}

static struct span take_while(struct span *s, bool (*is)(uint8_t c))
{
	size_t n = 0;
	struct span t = { 0 };

	while (n < s->n && is(s->p[n]))
		n++;
	(void)span_take(s, n, &t);
	return t;
}

/* After a token: does "=" follow, and is it a parameter's (not the padding of a token68)? */
static bool param_follows(struct span s)
{
	skip(&s, " \t");
	if (s.n == 0 || s.p[0] != '=')
		return false;
	s = SPAN(s.p + 1, s.n - 1);
	skip(&s, " \t");
	return s.n > 0 && (s.p[0] == '"' || is_tchar(s.p[0]));
}

/* A token or a quoted string, unquoted. */
static int take_value(struct span *s, char **ret)
{
	AUTO_FREE(char, out);
	size_t n = 0;

	if (s->n == 0 || s->p[0] != '"') {
		struct span t = take_while(s, is_tchar);

		return t.n > 0 ? span_dup(t, ret) : -EBADMSG;
	}
	out = xmalloc(s->n);
	for (size_t i = 1; i < s->n; i++) {
		uint8_t c = s->p[i];

		if (c == '"') {
			out[n] = '\0';
			*s = SPAN(s->p + i + 1, s->n - i - 1);
			*ret = TAKE_PTR(out);
			return 0;
		}
		if (c == '\\' && i + 1 < s->n)
			c = s->p[++i];
		if (c < 0x20 || c == 0x7f)
			return -EBADMSG;
		out[n++] = (char)c;
	}
	return -EBADMSG; /* no closing quote */
}

static int take_param(struct span *s, struct challenge *c)
{
	struct span name = take_while(s, is_tchar);
	AUTO_FREE(char, value);
	char **to = NULL;
	static const char *const names[] = { "realm", "service", "scope", "error" };
	char **const fields[] = { &c->realm, &c->service, &c->scope, &c->error };
	int r;

	skip(s, " \t");
	*s = SPAN(s->p + 1, s->n - 1); /* "=", seen by param_follows() */
	skip(s, " \t");
	r = take_value(s, &value);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (name.n == strlen(names[i]) && strncasecmp((const char *)name.p, names[i], name.n) == 0)
			to = fields[i];
	if (!to)
		return 0;
	if (*to)
		return -EBADMSG;
	*to = TAKE_PTR(value);
	return 0;
}

/* After a list element: the end or a comma. */
static int element_end(struct span *s)
{
	skip(s, " \t");
	return s->n == 0 || s->p[0] == ',' ? 0 : -EBADMSG;
}

static int take_challenge(struct span *s, struct challenge *c)
{
	struct span scheme = take_while(s, is_tchar), rest, t;
	int r;

	if (scheme.n == 0)
		return -EBADMSG;
	if (scheme.n == 5 && strncasecmp((const char *)scheme.p, "basic", 5) == 0)
		c->scheme = CHALLENGE_BASIC;
	else if (scheme.n == 6 && strncasecmp((const char *)scheme.p, "bearer", 6) == 0)
		c->scheme = CHALLENGE_BEARER;
	if (element_end(s) == 0)
		return 0;
	rest = *s;
	(void)take_while(&rest, is_tchar);
	if (!param_follows(rest)) {
		t = take_while(s, is_68);
		if (t.n == 0)
			return -EBADMSG;
		skip(s, "=");
		return element_end(s);
	}
	for (;;) {
		r = take_param(s, c);
		if (r < 0)
			return r;
		r = element_end(s);
		if (r < 0)
			return r;
		rest = *s;
		skip(&rest, ", \t");
		t = rest;
		if (take_while(&t, is_tchar).n == 0 || !param_follows(t))
			return 0;
		*s = rest;
	}
}

int challenge_parse(const char *value, size_t n, struct challenge ret[CHALLENGES_MAX])
{
	struct span s = SPAN(value, n);
	int count = 0, r = 0;

	if (n > CHALLENGE_VALUE_MAX)
		return -EBADMSG;
	skip(&s, ", \t");
	while (s.n > 0 && r == 0) {
		if (count == CHALLENGES_MAX) {
			r = -EBADMSG;
			break;
		}
		ret[count] = (struct challenge){ 0 };
		r = take_challenge(&s, &ret[count++]);
		skip(&s, ", \t");
	}
	if (r == 0)
		return count;
	while (count > 0)
		challenge_done(&ret[--count]);
	return r;
}

void challenge_done(struct challenge *c)
{
	free(c->realm);
	free(c->service);
	free(c->scope);
	free(c->error);
	*c = (struct challenge){ 0 };
}
