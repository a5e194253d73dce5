#include "proto/http.h"

#include <errno.h>
#include <strings.h>

#include "base/macros.h"

bool http_is(struct span s, const char *lit)
{
	return s.n == strlen(lit) && strncasecmp((const char *)s.p, lit, s.n) == 0;
}

bool http_begins(struct span s, const char *lit)
{
	return s.n >= strlen(lit) && strncasecmp((const char *)s.p, lit, strlen(lit)) == 0;
}

bool http_is_one_of(struct span s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (http_is(s, list[i]))
			return true;
	return false;
}

bool http_stays_here(struct span name)
{
	static const char *const names[] = {
		"connection",	  "keep-alive", "te",	"trailer",	  "transfer-encoding", "upgrade",
		"http2-settings", "expect",	"host", "content-length", "forwarded",	       "via",
		"x-real-ip",	  "alt-used",
	};

	return http_is_one_of(name, names, ARRAY_SIZE(names)) || http_begins(name, "proxy-") ||
	       http_begins(name, "x-forwarded-") || http_begins(name, "x-sandbox-");
}

static bool is_like_one_of(struct span s, const char *const *list, size_t n)
{
	uint8_t text[32];

	if (s.n > sizeof(text))
		return false;
	for (size_t i = 0; i < s.n; i++)
		text[i] = s.p[i] == '_' ? '-' : s.p[i];
	return http_is_one_of(SPAN(text, s.n), list, n);
}

bool http_sets_method(struct span name)
{
	static const char *const names[] = { "x-http-method-override", "x-http-method", "x-method-override" };

	return is_like_one_of(name, names, ARRAY_SIZE(names));
}

bool http_sets_path(struct span name)
{
	/* Of IIS and what learned from it, nginx's ingress, Envoy, Azure's front end. */
	static const char *const names[] = {
		"x-original-url", "x-rewrite-url",	   "x-override-url",
		"x-original-uri", "x-envoy-original-path", "x-waws-unencoded-url",
	};

	return is_like_one_of(name, names, ARRAY_SIZE(names));
}

static bool is_alnum(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool http_is_token(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_alnum(s.p[i]) && (s.p[i] == '\0' || !strchr("!#$%&'*+-.^_`|~", s.p[i])))
			return false;
	return s.n > 0;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

bool http_is_value(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((s.p[i] < 0x20 && s.p[i] != '\t') || s.p[i] == 0x7f)
			return false;
	return s.n == 0 || (!is_blank(s.p[0]) && !is_blank(s.p[s.n - 1]));
}

struct span http_trim(struct span s)
{
	while (s.n > 0 && is_blank(s.p[0]))
		s = SPAN(s.p + 1, s.n - 1);
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

bool http_next_item(struct span *list, struct span *ret)
{
	const uint8_t *comma;

	if (!list->p)
		return false;
	comma = list->n > 0 ? memchr(list->p, ',', list->n) : NULL;
	if (!comma) {
		*ret = http_trim(*list);
		*list = SPAN(NULL, 0);
		return true;
	}
	*ret = http_trim(SPAN(list->p, (size_t)(comma - list->p)));
	*list = SPAN(comma + 1, list->n - 1 - (size_t)(comma - list->p));
	return true;
}

int http_length(struct span s, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 19)
		return -EBADMSG;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return -EBADMSG;
		v = v * 10 + (s.p[i] - '0');
	}
	if (v > HTTP_LENGTH_MAX)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that a %XX at @i stands for, or -1. */
static int encoded(struct span s, size_t i)
{
	if (s.p[i] != '%' || s.n - i < 3 || hex(s.p[i + 1]) < 0 || hex(s.p[i + 2]) < 0)
		return -1;
	return hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]);
}

size_t http_percent_decode(struct span in, uint8_t *out)
{
	size_t n = 0;

	for (size_t i = 0; i < in.n; i++) {
		int c = encoded(in, i);

		out[n++] = c >= 0 ? (uint8_t)c : in.p[i];
		i += c >= 0 ? 2 : 0;
	}
	return n;
}

/* Segments "", "." and ".."; an empty one may be the last. The first byte is a "/". So are they with parameters or spaces behind
 * them (RFC 3986 section 3.3), which some servers take off before they look for dots: "..;x=y". */
static bool has_bad_segment(struct span path)
{
	size_t from = 1;

	for (size_t i = 1; i <= path.n; i++) {
		const uint8_t *semi;
		struct span seg;

		if (i < path.n && path.p[i] != '/')
			continue;
		seg = SPAN(path.p + from, i - from);
		if (seg.n == 0 && i < path.n)
			return true;
		semi = seg.n > 0 ? memchr(seg.p, ';', seg.n) : NULL;
		seg.n = semi ? (size_t)(semi - seg.p) : seg.n;
		while (seg.n > 0 && seg.p[seg.n - 1] == ' ')
			seg.n--;
		if (span_is(seg, ".") || span_is(seg, ".."))
			return true;
		from = i + 1;
	}
	return false;
}

/* Decodes in place, "\" as "/"; false when a control byte comes out. */
static bool decode_path(uint8_t *p, size_t *n, bool *changed, bool *slash)
{
	size_t out = 0;

	*changed = false;
	for (size_t i = 0; i < *n; i++) {
		int c = encoded(SPAN(p, *n), i);

		if (c >= 0) {
			if (c < 0x20 || c == 0x7f)
				return false;
			*changed = true;
			*slash = *slash || c == '/' || c == '\\';
			i += 2;
		}
		p[out++] = c < 0 ? p[i] : c == '\\' ? '/' : (uint8_t)c;
	}
	*n = out;
	return true;
}

/* False for what is refused everywhere. */
static bool look_through(struct span path, bool *ret_slash)
{
	uint8_t scratch[HTTP_TARGET_MAX];
	bool changed = true;
	size_t n = path.n;

	*ret_slash = false;
	if (has_bad_segment(path))
		return false;
	memcpy(scratch, path.p, n);
	for (int i = 0; i < HTTP_DECODINGS && changed; i++)
		if (!decode_path(scratch, &n, &changed, ret_slash) || has_bad_segment(SPAN(scratch, n)))
			return false;
	return true;
}

bool http_has_coded_slash(struct span path)
{
	bool slash;

	return !look_through(path, &slash) || slash;
}

bool http_is_target(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x21 || s.p[i] > 0x7e || strchr("\"<>\\^{}|`#", s.p[i]) ||
		    (s.p[i] == '%' && encoded(s, i) < 0))
			return false;
	return true;
}

int http_target_check(struct span target, struct span *ret_path, struct span *ret_query, bool *ret_has_query)
{
	const uint8_t *mark;
	struct span path;
	bool slash;

	if (target.n == 0 || target.n > HTTP_TARGET_MAX || target.p[0] != '/' || !http_is_target(target))
		return -EBADMSG;
	mark = memchr(target.p, '?', target.n);
	path = SPAN(target.p, mark ? (size_t)(mark - target.p) : target.n);
	if (!look_through(path, &slash))
		return -EBADMSG;
	*ret_path = path;
	*ret_has_query = mark != NULL;
	*ret_query = mark ? SPAN(mark + 1, target.n - path.n - 1) : SPAN(target.p + target.n, 0);
	return 0;
}
