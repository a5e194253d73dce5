/* What the body of a request says about other repositories and refs (2.4, 2.12). */
#include "gate/policy/github/decide.h"

#include <ctype.h>
#include <string.h>

#include "base/jread.h"
#include "gate/policy/github/push.h"

#define DEPTH 64
#define TEXT 512 /* of a name or branch; longer ones are none */
#define PATH 4096 /* of a file in a tree */

/* The text of a string member: 1; 0 if there is none; -1 for another type or one that is too long. */
static int member(struct span object, const char *name, uint8_t room[TEXT], struct span *ret)
{
	struct span v;
	ssize_t n;

	if (!jread_member(object, name, &v))
		return 0;
	if (jread_type(v) == JREAD_NULL)
		return 0;
	n = jread_string(v, room, TEXT);
	if (n < 0)
		return -1;
	*ret = SPAN(room, (size_t)n);
	return 1;
}

static void unclear(struct gh_decision *d, const char *name)
{
	gh_refuse(d, REFUSAL_PATH, "write it as a plain string", "the member %s of this body is not what it should be",
		  name);
}

static void pull(const struct gh_scope *s, struct span o, struct gh_decision *d)
{
	uint8_t room[2][TEXT];
	struct span head = { 0 }, repo;
	int has_head = member(o, "head", room[0], &head), has_repo = member(o, "head_repo", room[1], &repo);
	const uint8_t *colon = has_head == 1 && head.n > 0 ? memchr(head.p, ':', head.n) : NULL;
	struct span owner = colon ? SPAN(head.p, (size_t)(colon - head.p)) : span_str(d->repo->owner);

	if (has_head < 0 || has_repo < 0)
		unclear(d, has_head < 0 ? "head" : "head_repo");
	else if (has_head && !gh_scope_head(s, head))
		gh_refuse(d, REFUSAL_HEAD_SCOPE, "start with --repo for its repository",
			  "the branch %.*s lies in a repository that is not on this sandbox's GitHub list",
			  (int)MIN(head.n, (size_t)200), (const char *)head.p);
	else if (has_repo && !(repo.n > 0 && memchr(repo.p, '/', repo.n) ? gh_scope_find_slug(s, repo)
									 : gh_scope_find(s, owner, repo)))
		gh_refuse(d, REFUSAL_HEAD_SCOPE, "start with --repo for it",
			  "head_repo %.*s is not on this sandbox's GitHub list", (int)MIN(repo.n, (size_t)200),
			  (const char *)repo.p);
	else
		d->verdict = GH_CREDENTIAL;
}

static bool is_known(const struct gh_issues *known, struct span number)
{
	uint64_t id;

	return known && http_length(number, &id) == 0 && gh_issues_have(known, id);
}

static void issues(const struct gh_issues *known, struct span tail, struct span o, struct gh_decision *d)
{
	static const char *const ids[] = { "\"sub_issue_id\"", "\"issue_id\"", "\"after_id\"", "\"before_id\"" };
	struct span name, v;
	bool ok = true;
	size_t at = tail.n;

	while (at > 0 && tail.p[at - 1] != '/')
		at--;
	if (gh_match("issues/N/dependencies/*/N", tail))
		ok = is_known(known, SPAN(tail.p + at, tail.n - at));
	while (o.n > 0 && ok && jread_next_member(&o, &name, &v)) {
		bool is_id = false;

		for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
			is_id = is_id || span_is(name, ids[i]);
		ok = is_id ? jread_type(v) == JREAD_NULL || is_known(known, v)
			   : jread_type(v) == JREAD_BOOL && jread_string_is(name, "replace_parent");
	}
	if (ok)
		d->verdict = GH_CREDENTIAL;
	else
		gh_refuse(d, REFUSAL_HEAD_SCOPE,
			  "list or read that issue first, or use gh, which names issues by address",
			  "an issue that this links to is not known to belong to a listed repository");
}

/* A branch by its short name, or a ref by its whole one. */
static bool branch_is_open(const struct gh_scope *s, struct span branch)
{
	static const char heads[] = "refs/heads/";
	uint8_t full[TEXT + sizeof(heads)];

	if (branch.n >= 5 && memcmp(branch.p, "refs/", 5) == 0)
		return gh_scope_ref(s, branch);
	memcpy(full, heads, strlen(heads));
	memcpy(full + strlen(heads), branch.p, branch.n);
	return gh_scope_ref(s, SPAN(full, strlen(heads) + branch.n));
}

static void ref(const struct gh_scope *s, struct span tail, struct span o, struct gh_decision *d)
{
	const char *key = gh_match("git/refs", tail) ? "ref" : gh_match("merges", tail) ? "base" : "branch";
	uint8_t room[TEXT];
	struct span v;
	int has = member(o, key, room, &v);

	if (has <= 0)
		gh_refuse(d, REFUSAL_PATH, "start with --github push-refs=GLOBS that hold every branch, or name one",
			  "this write names its branch in no member %s, and not every branch may be written", key);
	else if (!branch_is_open(s, v))
		gh_refuse(d, REFUSAL_CLASS_ADMIN, "start with --github push-refs=GLOBS that hold it",
			  "%.*s is not among the refs that this sandbox may write", (int)MIN(v.n, (size_t)200),
			  (const char *)v.p);
	else
		d->verdict = GH_CREDENTIAL;
}

/* The files of a new tree. A whole tree by its hash, put in place of a folder, counts as what stands below it. */
static void tree(struct span o, struct gh_decision *d)
{
	uint8_t room[PATH];
	struct span list, entry, path;
	ssize_t n;

	d->verdict = GH_CREDENTIAL;
	if (!jread_member(o, "tree", &list) || jread_type(list) != JREAD_ARRAY) {
		unclear(d, "tree");
		return;
	}
	while (d->verdict == GH_CREDENTIAL && jread_next_element(&list, &entry)) {
		n = jread_member(entry, "path", &path) ? jread_string(path, room, sizeof(room)) : -1;
		if (n < 0)
			unclear(d, "path");
		else if (gh_is_workflow(SPAN(room, (size_t)n)))
			gh_refuse_workflow(d);
	}
}

static bool is_coded(const struct request *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (http_is(r->f[i].name, "content-encoding"))
			return true;
	return false;
}

static void refuse_coded(struct gh_decision *d)
{
	gh_refuse(d, REFUSAL_PATH, "send it without a coding",
		  "the body of this request is read by the sandbox, so it must not be coded");
}

/* Some readers of JSON take a member in any case of its letters. */
static void lfs(const struct request *r, struct span o, struct gh_decision *d)
{
	bool found = false, ok = true;
	struct span name, v;
	uint8_t room[TEXT];

	while (jread_next_member(&o, &name, &v)) {
		ssize_t n = jread_string(name, room, sizeof(room));

		found = found || jread_string_is(name, "operation");
		if (n > 0 && gh_same(SPAN(room, (size_t)n), span_str("operation")))
			ok = ok && jread_string_is(v, "download");
	}
	if (is_coded(r))
		refuse_coded(d);
	else if (found && ok)
		d->verdict = GH_CREDENTIAL;
	else
		gh_refuse_reader(d);
}

#define AGENT "agent_assignment"

/* The byte at @at as JSON's or a form's escape means it, or itself. */
static int unescaped(struct span s, size_t *at)
{
	uint8_t room[3]; /* all of it comes back when it is no escape */
	unsigned v = 0;
	size_t i;

	if (s.p[*at] == '%' && s.n - *at >= 3 && http_percent_decode(SPAN(s.p + *at, 3), room) == 1) {
		*at += 3;
		return room[0];
	}
	if (s.p[*at] != '\\' || s.n - *at < 6 || s.p[*at + 1] != 'u')
		return s.p[(*at)++];
	for (i = *at + 2; i < *at + 6 && isxdigit(s.p[i]); i++)
		v = v * 16 + (unsigned)(isdigit(s.p[i]) ? s.p[i] - '0' : tolower(s.p[i]) - 'a' + 10);
	if (i < *at + 6)
		return s.p[(*at)++];
	*at = i;
	return v < 0x80 ? (int)v : 0;
}

/* Anywhere, in any spelling, where a name can begin: behind a byte that is none of the word's. */
static bool says_agent(struct span s)
{
	size_t n = 0;

	for (size_t at = 0; at < s.n;) {
		int c = unescaped(s, &at);

		n = c == AGENT[n] ? n + 1 : c == AGENT[0];
		if (AGENT[n] == '\0')
			return true;
	}
	return false;
}

/* GitHub's own agent works where the issue says (agent_assignment.target_repo), with the user's rights. Of an object the members
 * count; of what GitHub may read otherwise, such as a form, whatever stands in it. */
static void agent(const struct request *r, struct span body, struct gh_decision *d)
{
	struct span o, name, v;
	uint8_t room[TEXT];
	bool is_object = jread_check(body, DEPTH, &o) == 0 && jread_type(o) == JREAD_OBJECT, found;

	found = says_agent(r->query) || (!is_object && (says_agent(body) || (body.n > 0 && memchr(body.p, 0, body.n))));
	while (is_object && !found && jread_next_member(&o, &name, &v)) {
		ssize_t n = jread_string(name, room, sizeof(room));

		found = n > 0 && span_is(SPAN(room, (size_t)n), AGENT);
	}
	if (is_coded(r) && body.n > 0)
		refuse_coded(d);
	else if (found)
		gh_refuse(d, REFUSAL_CLASS_NEVER, "assign the agent without it, or do it on the host",
			  AGENT " lets an agent at GitHub work in other repositories with the user's rights");
	else
		d->verdict = GH_CREDENTIAL;
}

static void push(const struct gh_scope *s, const struct request *r, struct span body, struct gh_decision *d)
{
	struct gh_push p;
	struct gh_place place;

	gh_place(HOST_GITHUB_GIT, r->path, &place);
	d->bad_ref = SIZE_MAX;
	if (!gh_decide_repo(s, &place, true, d))
		return;
	if (r->has_query || (body.n > 0 && is_coded(r))) {
		gh_refuse(d, REFUSAL_FRAMING, "push with git itself", "a push comes without a query and not coded");
		return;
	}
	if (body.n > 0 && gh_push_scan(body, &p) != GH_PUSH_ENOUGH) {
		gh_refuse(d, REFUSAL_FRAMING, "push with git itself, without push.gpgSign",
			  "this is not the body of a push");
		return;
	}
	for (size_t i = 0; body.n > 0 && i < p.n; i++) {
		bool open = gh_scope_ref(s, p.cmd[i].ref);

		if (open && (!p.cmd[i].deletes || gh_scope_has(s, GH_PUSH_DELETE)))
			continue;
		gh_refuse(d, REFUSAL_CLASS_ADMIN, open ? NULL : "start with --github push-refs=GLOBS that hold it",
			  open ? "%.*s is not deleted from this sandbox"
			       : "%.*s is not among the refs that this sandbox may push",
			  (int)MIN(p.cmd[i].ref.n, (size_t)200), (const char *)p.cmd[i].ref.p);
		d->bad_ref = i;
		return;
	}
	d->verdict = GH_CREDENTIAL;
}

void gh_decide_body(const struct gh_scope *s, const struct gh_issues *known, const struct request *r, struct span body,
		    struct gh_decision *d)
{
	struct gh_place place;
	struct span o = { 0 };

	d->verdict = GH_REFUSE;
	d->seen = body;
	if (d->body == GH_BODY_PUSH) {
		push(s, r, body, d);
		return;
	}
	if (d->body == GH_BODY_MCP) {
		gh_decide_mcp(s, body, d);
		return;
	}
	if (d->body == GH_BODY_AGENT) {
		agent(r, body, d);
		return;
	}
	gh_place(HOST_GITHUB_API, r->path, &place);
	/* What deletes by its path alone has no body. */
	if (!(body.n == 0 && r->method == METHOD_DELETE) &&
	    (jread_check(body, DEPTH, &o) < 0 || jread_type(o) != JREAD_OBJECT)) {
		gh_refuse(d, REFUSAL_PATH, "send one object, no member twice",
			  "the body of this request is not plain JSON");
		return;
	}
	switch (d->body) {
	case GH_BODY_PULL:
		pull(s, o, d);
		break;
	case GH_BODY_ISSUES:
		issues(known, place.tail, o, d);
		break;
	case GH_BODY_REF:
		ref(s, place.tail, o, d);
		break;
	case GH_BODY_TREE:
		tree(o, d);
		break;
	case GH_BODY_LFS:
		lfs(r, o, d);
		break;
	default:
		gh_refuse(d, REFUSAL_PATH, NULL, "no rule reads this body");
		break;
	}
}
