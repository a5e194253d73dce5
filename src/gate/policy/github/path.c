#include "gate/policy/github/path.h"

#include <errno.h>

#include "base/macros.h"
#include "proto/http.h"

/* Takes the front segment off; false when nothing is left. */
static bool next_segment(struct span *rest, struct span *ret)
{
	const uint8_t *slash = rest->n > 0 ? memchr(rest->p, '/', rest->n) : NULL;
	size_t n = slash ? (size_t)(slash - rest->p) : rest->n;

	if (rest->n == 0)
		return false;
	*ret = SPAN(rest->p, n);
	*rest = slash ? SPAN(slash + 1, rest->n - n - 1) : SPAN(rest->p + n, 0);
	return true;
}

static bool drop_end(struct span *s, const char *lit)
{
	size_t n = strlen(lit);

	if (s->n < n || memcmp(s->p + s->n - n, lit, n) != 0)
		return false;
	s->n -= n;
	return true;
}

static bool is_slug_bytes(struct span s)
{
	static const char extra[] = "-_.";

	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] | 0x20) >= 'a' && (s.p[i] | 0x20) <= 'z') && !(s.p[i] >= '0' && s.p[i] <= '9') &&
		    (s.p[i] == '\0' || !strchr(extra, s.p[i])))
			return false;
	return s.n > 0;
}

/* Canonical decimal: "0700" is another text than the number that it looks like. */
static bool is_id(struct span s, uint64_t *ret)
{
	return s.n > 0 && s.p[0] != '0' && http_length(s, ret) == 0;
}

void gh_place(enum prov_host_id host, struct span path, struct gh_place *ret)
{
	struct span rest = path, first;

	*ret = (struct gh_place){ .kind = GH_NOWHERE };
	if (rest.n > 0)
		rest = SPAN(rest.p + 1, rest.n - 1);
	if (host == HOST_GITHUB_API || host == HOST_GITHUB_UPLOADS || host == HOST_GITHUB_MEDIA) {
		if (!next_segment(&rest, &first))
			return;
		if (host != HOST_GITHUB_MEDIA && span_is(first, "repositories") && next_segment(&rest, &first)) {
			ret->kind = memchr(first.p, '%', first.n) ? GH_ODD : GH_BY_ID;
			if (!is_id(first, &ret->id))
				ret->id = 0;
			ret->tail = rest;
			return;
		}
		if (!span_is(first, host == HOST_GITHUB_MEDIA ? "media" : "repos"))
			return;
	} else if (host == HOST_GITHUB_GIST || host == HOST_GITHUB_GIST_RAW) {
		return;
	}
	if (!next_segment(&rest, &ret->slug.owner) || !next_segment(&rest, &ret->slug.name))
		return;
	ret->tail = rest;
	if (host == HOST_GITHUB_GIT) {
		(void)drop_end(&ret->slug.name, ".git");
		ret->wiki = drop_end(&ret->slug.name, ".wiki");
	}
	ret->kind = is_slug_bytes(ret->slug.owner) && is_slug_bytes(ret->slug.name) ? GH_BY_NAME : GH_ODD;
}

const struct gh_repo *gh_place_repo(const struct gh_scope *s, const struct gh_place *p)
{
	if (p->kind == GH_BY_ID)
		return gh_scope_find_id(s, p->id);
	return p->kind == GH_BY_NAME && gh_is_owner(p->slug.owner) && gh_is_name(p->slug.name)
		       ? gh_scope_find(s, p->slug.owner, p->slug.name)
		       : NULL;
}

static bool is_digits(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.n > 0;
}

static bool segment_fits(struct span want, struct span seg, bool loosely)
{
	if (span_is(want, "*"))
		return true;
	if (span_is(want, "N"))
		return loosely || is_digits(seg);
	if (!loosely)
		return want.n == seg.n && memcmp(want.p, seg.p, seg.n) == 0;
	return seg.n >= want.n && gh_same(want, SPAN(seg.p, want.n)) &&
	       (seg.n == want.n || seg.p[want.n] == '.' || seg.p[want.n] == ';');
}

static bool fits(const char *pattern, struct span tail, bool loosely)
{
	struct span p = span_str(pattern), want, seg;

	while (next_segment(&p, &want)) {
		if (span_is(want, "**"))
			return true;
		do {
			if (!next_segment(&tail, &seg))
				return false;
		} while (loosely && seg.n == 0);
		if (!segment_fits(want, seg, loosely))
			return false;
	}
	return tail.n == 0;
}

bool gh_match(const char *pattern, struct span tail)
{
	return fits(pattern, tail, false);
}

/* Coded twice nothing goes out with a login (prov_allows()). In a function of its own, and not entered without a "%": the
 * room is cleared each time. */
static bool fits_decoded(const char *pattern, struct span path)
{
	uint8_t room[HTTP_TARGET_MAX];
	size_t n;

	if (path.n > sizeof(room))
		return false;
	n = http_percent_decode(path, room);
	for (size_t i = 0; i < n; i++)
		if (room[i] == '\\')
			room[i] = '/';
	return fits(pattern, SPAN(room, n), true);
}

bool gh_match_loosely(const char *pattern, struct span tail)
{
	return fits(pattern, tail, true) ||
	       (tail.n > 0 && memchr(tail.p, '%', tail.n) && fits_decoded(pattern, tail));
}

bool gh_is_workflow(struct span path)
{
	static const char *const way[] = { ".github", "workflows" };
	size_t at = 0, n = 0;
	bool on = true;

	for (size_t i = 0; i <= path.n; i++) {
		struct span part;

		if (i < path.n && path.p[i] != '/' && path.p[i] != '\\')
			continue;
		part = SPAN(path.p + at, i - at);
		at = i + 1;
		if (part.n == 0 || span_is(part, "."))
			continue;
		if (span_is(part, ".."))
			return true;
		on = on && (n >= ARRAY_SIZE(way) || gh_same(part, span_str(way[n])));
		n++;
	}
	return on && n > 0;
}

static bool is_hex(uint8_t c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

ssize_t gh_form_decode(struct span value, uint8_t *out, size_t size)
{
	size_t n = 0;

	if (value.n > size)
		return -ENOBUFS;
	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] != '%') {
			out[n++] = value.p[i] == '+' ? ' ' : value.p[i];
			continue;
		}
		if (value.n - i < 3 || !is_hex(value.p[i + 1]) || !is_hex(value.p[i + 2]))
			return -EBADMSG;
		n += http_percent_decode(SPAN(value.p + i, 3), out + n);
		i += 2;
	}
	return (ssize_t)n;
}

/* As Rack names a parameter: without brackets in front, and up to the next one. */
static bool names_key(struct span raw, const char *key, bool *ret_plain)
{
	uint8_t room[256];
	ssize_t n = gh_form_decode(raw, room, sizeof(room));
	struct span s;

	*ret_plain = span_is(raw, key);
	if (n < 0)
		return true; /* longer than any key, so in no form of ours */
	s = SPAN(room, (size_t)n);
	while (s.n > 0 && (s.p[0] == '[' || s.p[0] == ']' || s.p[0] == ' '))
		s = SPAN(s.p + 1, s.n - 1);
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '[' || s.p[i] == ']' || s.p[i] == '\0')
			s.n = i;
	return span_is(s, key);
}

int gh_query(struct span query, const char *key, struct span *ret)
{
	int found = 0;

	while (query.n > 0) {
		size_t n = 0, eq;
		bool plain, alone;

		while (n < query.n && query.p[n] != '&' && query.p[n] != ';')
			n++;
		alone = n == query.n || query.p[n] == '&';
		for (eq = 0; eq < n && query.p[eq] != '=';)
			eq++;
		if (names_key(SPAN(query.p, eq), key, &plain)) {
			if (!plain || !alone || found)
				return -EBADMSG;
			found = 1;
			*ret = eq < n ? SPAN(query.p + eq + 1, n - eq - 1) : SPAN(query.p + n, 0);
		}
		query = n < query.n ? SPAN(query.p + n + 1, query.n - n - 1) : SPAN(query.p + n, 0);
	}
	return found;
}
