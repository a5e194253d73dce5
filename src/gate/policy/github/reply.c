#include "gate/policy/github/reply.h"

#include <errno.h>

#include "base/jread.h"

#define DEPTH 64
#define URL 512 /* longer ones name no repository */

bool gh_reply_drops(struct span name)
{
	static const char *const names[] = { "set-cookie", "www-authenticate", "x-oauth-client-id" };

	return http_is_one_of(name, names, ARRAY_SIZE(names)) || http_begins(name, "x-accepted-");
}

static const char scrubbed[] = "\"temp_clone_token\"";
enum { S_NAME = sizeof(scrubbed) - 1, S_COLON, S_TEXT, S_ESCAPE };

void gh_scrub(struct gh_scrub *s, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool blank = p[i] == ' ' || p[i] == '\t' || p[i] == '\r' || p[i] == '\n';

		if (s->state == S_TEXT || s->state == S_ESCAPE) {
			if (s->state == S_TEXT && p[i] == '"') {
				s->state = 0;
				continue;
			}
			s->state = s->state == S_TEXT && p[i] == '\\' ? S_ESCAPE : S_TEXT;
			p[i] = 'x';
		} else if (s->state >= S_NAME) {
			if (blank)
				continue;
			s->state = s->state == S_NAME && p[i] == ':'	? S_COLON
				   : s->state == S_COLON && p[i] == '"' ? S_TEXT
									: 0;
		} else {
			/* No front of the name but its quote stands in it again. */
			s->state = p[i] == (uint8_t)scrubbed[s->state] ? s->state + 1 : p[i] == '"';
		}
	}
}

int gh_reply_user(struct span body, struct buf *out)
{
	static const char *const kept[] = { "login", "id", "node_id", "name", "avatar_url", "html_url", "type" };
	struct span o, name, v;
	const char *sep = "{";

	if (body.n > GH_USER_MAX || jread_check(body, DEPTH, &o) < 0 || jread_type(o) != JREAD_OBJECT)
		return -EBADMSG;
	while (jread_next_member(&o, &name, &v))
		for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
			if (!jread_string_is(name, kept[i]))
				continue;
			if (buf_put(out, sep, 1) < 0 || buf_put(out, name.p, name.n) < 0 || buf_put_u8(out, ':') < 0 ||
			    buf_put(out, v.p, v.n) < 0)
				return -ENOBUFS;
			sep = ",";
		}
	return buf_put(out, *sep == '{' ? "{}" : "}", *sep == '{' ? 2 : 1);
}

/* The OWNER/NAME in an address of the API; empty for none. */
static struct span slug_of(struct span url, uint8_t room[URL])
{
	static const char front[] = "https://api.github.com/repos/";
	ssize_t n = jread_string(url, room, URL);
	size_t from = strlen(front), to, slashes = 0;

	if (n < (ssize_t)from || memcmp(room, front, from) != 0)
		return SPAN(room, 0);
	for (to = from; to < (size_t)n; to++)
		if (room[to] == '/' && slashes++ == 1)
			break;
	return SPAN(room + from, to - from);
}

/* An issue or a pull request says it in each of these, as far as it has them. */
static bool lies_elsewhere(const struct gh_scope *s, struct span o, uint8_t room[URL], struct span *ret)
{
	enum { BY_ADDRESS, OWN_ADDRESS, NUMBER, REPOSITORY };
	static const char *const names[] = { "repository_url", "url", "number", "repository" };
	struct span v[ARRAY_SIZE(names)] = { 0 }, name, one;
	ssize_t n;

	/* Once through: each level is read anew. */
	while (jread_next_member(&o, &name, &one))
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (jread_string_is(name, names[i]))
				v[i] = one;
	if (v[BY_ADDRESS].p && !gh_scope_find_slug(s, *ret = slug_of(v[BY_ADDRESS], room)))
		return true;
	if (v[NUMBER].p && v[OWN_ADDRESS].p && !gh_scope_find_slug(s, *ret = slug_of(v[OWN_ADDRESS], room)))
		return true;
	if (!v[REPOSITORY].p || !jread_member(v[REPOSITORY], "full_name", &one))
		return false;
	n = jread_string(one, room, URL);
	*ret = SPAN(room, n < 0 ? 0 : (size_t)n);
	return !gh_scope_find_slug(s, *ret);
}

static int put(struct buf *out, struct span s)
{
	return buf_put(out, s.p, s.n);
}

static int put_which(struct span issue, struct span slug, struct buf *out)
{
	struct gh_slug parsed;
	struct span v;
	int e = 0;

	/* Numbers and addresses need no escape, and a slug has no byte that does. */
	e |= put(out, span_str("{\"number\":"));
	e |= put(out, jread_member(issue, "number", &v) && jread_type(v) == JREAD_NUMBER ? v : span_str("null"));
	e |= put(out, span_str(",\"html_url\":"));
	e |= put(out, jread_member(issue, "html_url", &v) && jread_type(v) == JREAD_STRING ? v : span_str("null"));
	e |= put(out, span_str(",\"repository\":{\"full_name\":\""));
	e |= put(out, gh_slug_parse(slug, &parsed) ? slug : SPAN("", 0));
	return e | put(out, span_str("\"}}"));
}

static int put_cut(const struct gh_scope *s, struct span v, struct buf *out)
{
	enum jread_type type = jread_type(v);
	uint8_t room[URL];
	struct span name, one;
	const char *sep = "";
	int e;

	if (type != JREAD_OBJECT && type != JREAD_ARRAY)
		return put(out, v);
	if (type == JREAD_OBJECT && lies_elsewhere(s, v, room, &one))
		return put_which(v, one, out);
	e = put(out, span_str(type == JREAD_OBJECT ? "{" : "["));
	while (type == JREAD_OBJECT ? jread_next_member(&v, &name, &one) : jread_next_element(&v, &one)) {
		e |= put(out, span_str(sep));
		if (type == JREAD_OBJECT)
			e |= put(out, name) | put(out, span_str(":"));
		e |= put_cut(s, one, out);
		sep = ",";
	}
	return e | put(out, span_str(type == JREAD_OBJECT ? "}" : "]"));
}

int gh_reply_issues(const struct gh_scope *s, struct span body, struct buf *out)
{
	struct gh_scrub scrub = { 0 };
	struct span v;

	if (body.n == 0)
		return 0;
	if (jread_check(body, DEPTH, &v) < 0)
		return -EBADMSG;
	if (put_cut(s, v, out) < 0)
		return -ENOBUFS;
	/* Our own memory. */
	gh_scrub(&scrub, (uint8_t *)(uintptr_t)buf_span(out).p, out->n);
	return 0;
}

static void learn_one(struct span issue, struct gh_issues *known)
{
	struct span id;
	uint64_t n;

	if (jread_member(issue, "id", &id) && http_length(id, &n) == 0)
		gh_issues_add(known, n);
}

void gh_learn(struct span body, struct gh_issues *known)
{
	struct span v, one;

	if (body.n > GH_LEARN_MAX || jread_check(body, DEPTH, &v) < 0)
		return;
	if (jread_type(v) == JREAD_OBJECT)
		learn_one(v, known);
	else if (jread_type(v) == JREAD_ARRAY)
		while (jread_next_element(&v, &one))
			learn_one(one, known);
}
