#include "gate/policy/github/reply.h"

#include <errno.h>

#include "base/jread.h"

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

	if (body.n > GH_USER_MAX || jread_check(body, 64, &o) < 0 || jread_type(o) != JREAD_OBJECT)
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

	if (body.n > GH_LEARN_MAX || jread_check(body, 64, &v) < 0)
		return;
	if (jread_type(v) == JREAD_OBJECT)
		learn_one(v, known);
	else if (jread_type(v) == JREAD_ARRAY)
		while (jread_next_element(&v, &one))
			learn_one(one, known);
}
