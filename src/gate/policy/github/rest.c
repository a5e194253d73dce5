/* REST, at api.github.com and uploads.github.com (2.4). Below a listed repository a read is let through unless a row
 * says otherwise, and a write only if a row says so; what is refused is matched loosely, what is allowed byte by byte.
 */
#include "gate/policy/github/decide.h"

#include <stdio.h>

#include "gate/policy/github/search.h"

#define GET (1u << METHOD_GET | 1u << METHOD_HEAD)
#define POST (1u << METHOD_POST)
#define PUT (1u << METHOD_PUT)
#define PATCH (1u << METHOD_PATCH | POST) /* POST on what takes PATCH is one */
#define DELETE (1u << METHOD_DELETE)
#define WRITES (POST | PUT | PATCH | DELETE)
#define ANY (GET | WRITES)

/* No level and no switch opens these. */
static const struct {
	unsigned methods;
	const char *pattern, *why;
} never[] = {
	{ DELETE, "", "a repository is not deleted from a sandbox" },
	{ WRITES, "transfer/**", "a repository is not given away from a sandbox" },
	{ WRITES, "hooks/**", "a webhook would go on sending when the sandbox is gone" },
	{ WRITES, "actions/runners/registration-token/**", "this answers with a credential" },
	{ WRITES, "actions/runners/remove-token/**", "this answers with a credential" },
	{ WRITES, "actions/runners/generate-jitconfig/**", "this answers with a credential" },
	{ WRITES, "codespaces/**", "a codespace is a computer with the user's rights" },
	{ ANY, "pulls/N/codespaces/**", "a codespace is a computer with the user's rights" },
	{ POST, "forks/**", "a fork would be a repository outside the list" },
	{ POST, "generate/**", "this would make a repository outside the list" },
	{ ANY, "secret-scanning/alerts/**", "these answers hold secrets" },
	{ WRITES, "code-scanning/codeql/variant-analyses/**", "this reads other repositories" },
	{ POST, "security-advisories/*/forks/**", "a fork would be a repository outside the list" },
};

/* Reads that need level admin. */
static const char *const admin_reads[] = {
	"secret-scanning/**", "hooks/**", "codespaces/**", "actions/runners/**", "installation/**", "invitations/**",
	"code-scanning/codeql/variant-analyses/**",
};

#define NO_SWITCH GH_SWITCHES

/* Writes that level write has. */
static const struct row {
	unsigned methods;
	const char *pattern;
	enum gh_switch sw; /* that must be on, too */
	enum gh_body body;
	bool refs; /* which ones may be written is asked of the path */
} rows[] = {
	{ POST, "issues", NO_SWITCH, GH_BODY_AGENT },
	{ PATCH, "issues/N", NO_SWITCH, GH_BODY_AGENT },
	{ WRITES, "issues/N/comments/**", NO_SWITCH },
	{ WRITES, "issues/N/labels/**", NO_SWITCH },
	{ WRITES, "issues/N/assignees/**", NO_SWITCH, GH_BODY_AGENT },
	{ WRITES, "issues/N/lock/**", NO_SWITCH },
	{ WRITES, "issues/N/reactions/**", NO_SWITCH },
	{ WRITES, "issues/comments/**", NO_SWITCH },
	{ WRITES, "issues/N/sub_issues/**", NO_SWITCH, GH_BODY_ISSUES },
	{ WRITES, "issues/N/sub_issue", NO_SWITCH, GH_BODY_ISSUES },
	{ WRITES, "issues/N/dependencies/**", NO_SWITCH, GH_BODY_ISSUES },
	{ POST, "pulls", NO_SWITCH, GH_BODY_PULL },
	{ PATCH, "pulls/N", NO_SWITCH },
	{ WRITES, "pulls/N/comments/**", NO_SWITCH },
	{ WRITES, "pulls/N/reviews/**", NO_SWITCH },
	{ WRITES, "pulls/N/requested_reviewers/**", NO_SWITCH },
	{ WRITES, "pulls/comments/**", NO_SWITCH },
	{ PUT, "pulls/N/merge", GH_MERGE },
	{ PUT, "pulls/N/update-branch", NO_SWITCH, GH_BODY_NONE, true },
	{ WRITES, "labels/**", NO_SWITCH },
	{ WRITES, "milestones/**", NO_SWITCH },
	{ WRITES, "comments/**", NO_SWITCH },
	{ POST, "commits/*/comments", NO_SWITCH },
	{ PUT | DELETE, "contents/**", NO_SWITCH, GH_BODY_REF },
	{ POST, "git/blobs", NO_SWITCH },
	{ POST, "git/trees", NO_SWITCH, GH_BODY_TREE },
	{ POST, "git/commits", NO_SWITCH },
	{ POST, "git/tags", NO_SWITCH },
	{ POST, "git/refs", NO_SWITCH, GH_BODY_REF },
	{ PATCH | DELETE, "git/refs/**", NO_SWITCH, GH_BODY_NONE, true },
	{ POST, "merges", NO_SWITCH, GH_BODY_REF },
	{ POST, "merge-upstream", NO_SWITCH, GH_BODY_REF },
	{ POST, "statuses/*", NO_SWITCH },
	{ POST, "check-runs", NO_SWITCH },
	{ PATCH, "check-runs/N", NO_SWITCH },
	{ POST, "check-suites", NO_SWITCH },
	{ WRITES, "releases/**", NO_SWITCH },

	{ POST, "actions/workflows/*/dispatches", GH_CI },
	{ PUT, "actions/workflows/*/enable", GH_CI },
	{ PUT, "actions/workflows/*/disable", GH_CI },
	{ POST, "actions/runs/N/rerun", GH_CI },
	{ POST, "actions/runs/N/rerun-failed-jobs", GH_CI },
	{ POST, "actions/runs/N/cancel", GH_CI },
	{ POST, "actions/runs/N/force-cancel", GH_CI },
	{ POST, "actions/jobs/N/rerun", GH_CI },
	{ POST, "check-runs/N/rerequest", GH_CI },
	{ POST, "check-suites/N/rerequest", GH_CI },
	{ DELETE, "actions/runs/N", GH_CI },
	{ DELETE, "actions/runs/N/logs", GH_CI },
	{ DELETE, "actions/caches/**", GH_CI },
	{ DELETE, "actions/artifacts/N", GH_CI },
	{ POST, "dispatches", GH_CI },
	{ POST, "deployments", GH_CI },
	{ POST, "deployments/N/statuses", GH_CI },
};

static const char *const switch_why[] = {
	[GH_MERGE] = "merging pull requests is off in this sandbox",
	[GH_CI] = "starting, stopping and deleting runs is off in this sandbox",
};
static const char *const switch_how[] = {
	[GH_MERGE] = "start with --github merge=on",
	[GH_CI] = "start with --github ci=on",
};

/* "A...B" and "A..B". */
static bool compares_listed(const struct gh_scope *s, struct span text)
{
	size_t from = 0;

	for (size_t k = 0; k <= text.n; k++) {
		if (k < text.n && !(text.p[k] == '.' && k + 1 < text.n && text.p[k + 1] == '.'))
			continue;
		if (!gh_scope_head(s, SPAN(text.p + from, k - from)))
			return false;
		while (k < text.n && text.p[k] == '.')
			k++;
		from = k;
	}
	return true;
}

/* As written, and decoded. */
static bool compare_is_listed(const struct gh_scope *s, struct span text)
{
	uint8_t room[HTTP_TARGET_MAX];

	return text.n <= sizeof(room) && compares_listed(s, text) &&
	       compares_listed(s, SPAN(room, http_percent_decode(text, room)));
}

static void how_admin(const struct gh_repo *repo, char *how, size_t size)
{
	(void)snprintf(how, size, "start with --repo %s/%s=admin", repo->owner, repo->name);
}

/* "commits/REF/pulls": a ref can have slashes, coded or not. */
static bool lists_pulls_of_commit(struct span tail)
{
	if (!gh_match_loosely("commits/*/**", tail))
		return false;
	for (size_t i = 0; i < tail.n; i++) {
		size_t n = tail.p[i] == '/' ? 1 : 3;
		struct span rest = SPAN(tail.p + i, tail.n - i);

		/* Of each rest the first segment, with every letter coded, and what stands behind it: no more is decoded. */
		if (rest.n > n && (n == 1 || http_begins(rest, "%2f")) &&
		    gh_match_loosely("pulls/**", SPAN(rest.p + n, MIN(rest.n - n, strlen("%70%75%6c%6c%73%2f")))))
			return true;
	}
	return false;
}

/* What GitHub tells of an issue can hold others whole, of whichever repository the user sees; comments hold none, and are long. */
static enum gh_reply reply(struct span tail)
{
	bool comments = gh_match("issues/comments/**", tail) || gh_match("issues/N/comments/**", tail);

	return (gh_match_loosely("issues/*/**", tail) && !comments) || lists_pulls_of_commit(tail) ? GH_REPLY_ISSUES :
												      GH_REPLY_JSON;
}

static void reads(const struct gh_scope *s, const struct gh_place *p, struct gh_decision *d)
{
	static const char compare[] = "compare/";
	char how[GH_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(admin_reads); i++)
		if (d->repo->level < GH_ADMIN && gh_match_loosely(admin_reads[i], p->tail)) {
			d->rule = admin_reads[i];
			how_admin(d->repo, how, sizeof(how));
			gh_refuse(d, REFUSAL_CLASS_ADMIN, how, "reading %s of a repository needs level admin",
				  admin_reads[i]);
			return;
		}
	if (gh_match_loosely("compare/**", p->tail) &&
	    (p->tail.n < strlen(compare) || memcmp(p->tail.p, compare, strlen(compare)) != 0 ||
	     !compare_is_listed(s, SPAN(p->tail.p + strlen(compare), p->tail.n - strlen(compare))))) {
		d->rule = "compare/**";
		gh_refuse(d, REFUSAL_HEAD_SCOPE, "start with --repo for that repository",
			  "%.*s reads a repository that is not on this sandbox's GitHub list", (int)p->tail.n,
			  (const char *)p->tail.p);
		return;
	}
	d->verdict = GH_CREDENTIAL;
	d->reply = reply(p->tail);
	d->learns = gh_match("issues", p->tail) || gh_match("issues/N", p->tail);
	d->rule = "read of a listed repository";
}

/* A path "git/refs/heads/x": may the ref that it names, decoded, be written, or deleted? */
static bool ref_in_path(const struct gh_scope *s, struct span tail, bool deletes, struct gh_decision *d)
{
	static const char front[] = "git/";
	uint8_t room[HTTP_TARGET_MAX];
	struct span ref = SPAN(tail.p + strlen(front), tail.n - strlen(front));

	if (ref.n > sizeof(room) || !gh_scope_ref(s, SPAN(room, http_percent_decode(ref, room)))) {
		gh_refuse(d, REFUSAL_CLASS_ADMIN, "start with --github push-refs=GLOBS that hold it",
			  "%.*s is not among the refs that this sandbox may write", (int)ref.n, (const char *)ref.p);
		return false;
	}
	if (deletes && !gh_scope_has(s, GH_PUSH_DELETE)) {
		gh_refuse(d, REFUSAL_CLASS_ADMIN, NULL, "refs are not deleted from this sandbox");
		return false;
	}
	return true;
}

/* A path "contents/x": is the file that it names, decoded, a workflow? */
static bool is_workflow(struct span tail)
{
	static const char front[] = "contents/";
	uint8_t room[HTTP_TARGET_MAX];
	struct span path = gh_match("contents/*/**", tail) ? SPAN(tail.p + strlen(front), tail.n - strlen(front)) :
							     SPAN("", 0);

	return gh_match_loosely("contents/.github/workflows/**", tail) ||
	       (path.n <= sizeof(room) && gh_is_workflow(SPAN(room, http_percent_decode(path, room))));
}

/* What is merged from the repository that this one is a fork of can be read here afterwards. */
static bool parent_is_open(const struct gh_scope *s, struct gh_decision *d)
{
	const struct gh_facts *f = &d->repo->facts;
	char how[GH_TEXT_MAX];

	if (!d->repo->known) {
		gh_refuse(d, REFUSAL_HEAD_SCOPE, "try again in a moment",
			  "what %s/%s is a fork of could not be verified", d->repo->owner, d->repo->name);
		return false;
	}
	if (!f->has_parent || !f->parent_private ||
	    gh_scope_find(s, span_str(f->parent_owner), span_str(f->parent_name)))
		return true;
	(void)snprintf(how, sizeof(how), "start with --repo %s/%s", f->parent_owner, f->parent_name);
	gh_refuse(d, REFUSAL_HEAD_SCOPE, how, "%s/%s is private and not on this sandbox's GitHub list", f->parent_owner,
		  f->parent_name);
	return false;
}

static const struct row *find_row(enum prov_method method, struct span tail)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].methods & 1u << method && gh_match(rows[i].pattern, tail))
			return &rows[i];
	return NULL;
}

/* Level admin opens what no row names, but not what a row holds back in another spelling. */
static bool is_held_back(const struct gh_scope *s, enum prov_method method, struct span tail)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];

		if ((row->body != GH_BODY_NONE || row->refs || (row->sw != NO_SWITCH && !gh_scope_has(s, row->sw))) &&
		    row->methods & 1u << method && gh_match_loosely(row->pattern, tail))
			return true;
	}
	return false;
}

static void writes(const struct gh_scope *s, const struct gh_place *p, const struct request *r, struct gh_decision *d)
{
	const struct row *row = find_row(r->method, p->tail);
	struct span shown = p->tail.n > 0 ? p->tail : span_str("the repository itself");
	bool makes_ref = r->method == METHOD_POST && gh_match("git/refs", p->tail);
	char how[GH_TEXT_MAX];

	d->reply = reply(p->tail);
	d->learns = gh_match("issues", p->tail);
	d->rule = row ? row->pattern : "writes that no row names";
	if (!row && d->repo->level >= GH_ADMIN) {
		d->verdict = GH_CREDENTIAL;
		if (is_held_back(s, r->method, p->tail))
			gh_refuse(d, REFUSAL_PATH, "write the path as GitHub's documentation does",
				  "%.*s is no spelling that the sandbox knows of what it holds back", (int)shown.n,
				  (const char *)shown.p);
		return;
	}
	if (!row) {
		how_admin(d->repo, how, sizeof(how));
		gh_refuse(d, REFUSAL_CLASS_ADMIN, how, "%s of %.*s changes more than level write may",
			  prov_method_str[r->method], (int)shown.n, (const char *)shown.p);
		return;
	}
	if (row->sw != NO_SWITCH && !gh_scope_has(s, row->sw)) {
		gh_refuse(d, REFUSAL_CLASS_ADMIN, switch_how[row->sw], "%s", switch_why[row->sw]);
		return;
	}
	if (!gh_scope_has(s, GH_WORKFLOWS) && is_workflow(p->tail)) {
		gh_refuse_workflow(d);
		return;
	}
	if (!makes_ref && gh_match("git/refs/**", p->tail) && !ref_in_path(s, p->tail, r->method == METHOD_DELETE, d))
		return;
	if (gh_match("merge-upstream", p->tail) && !parent_is_open(s, d))
		return;
	if (gh_match("pulls/N/update-branch", p->tail) && !gh_scope_any_branch(s)) {
		gh_refuse(d, REFUSAL_CLASS_ADMIN, "start with --github push-refs=GLOBS that hold every branch",
			  "this writes a branch that it does not name, and not every branch may be written");
		return;
	}
	/* What names a branch is read only where not every branch is open, what names files where not every file is. */
	d->body = (row->body == GH_BODY_REF && gh_scope_any_branch(s) && !makes_ref) ||
				  (row->body == GH_BODY_TREE && gh_scope_has(s, GH_WORKFLOWS)) ?
			  GH_BODY_NONE :
			  row->body;
	d->verdict = d->body == GH_BODY_NONE ? GH_CREDENTIAL : GH_BODY;
	if (d->verdict == GH_BODY && d->body != GH_BODY_AGENT && (!gh_is_json(r, true) || r->has_query))
		gh_refuse(d, REFUSAL_PATH, "send Content-Type: application/json, no coding and no query",
			  "the body of this request is read by the sandbox, so it must be plain JSON");
}

static void in_repo(const struct gh_scope *s, const struct gh_place *p, const struct request *r, struct gh_decision *d)
{
	bool is_read = GET & 1u << r->method;

	if (!gh_decide_repo(s, p, !is_read, d))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		if (never[i].methods & 1u << r->method && gh_match_loosely(never[i].pattern, p->tail)) {
			d->rule = never[i].pattern;
			gh_refuse(d, REFUSAL_CLASS_NEVER, "do it on the host", "%s", never[i].why);
			return;
		}
	if (is_read)
		reads(s, p, d);
	else
		writes(s, p, r, d);
}

/* Outside of repositories. */
static const struct {
	const char *pattern, *why;
} closed_roots[] = {
	{ "user/**", "this is about the user's own account" },
	{ "issues/**", "this lists issues of all the user's repositories" },
	{ "notifications/**", "this is the user's inbox over all repositories" },
	{ "enterprises/**", "an enterprise is not administered from a sandbox" },
	{ "applications/**", "this is about tokens themselves" },
	{ "copilot_internal/**", "this answers with a credential" },
	{ "agents/**", "an agent at GitHub's would work with the user's rights" },
	{ "credentials/**", "this is about tokens themselves" },
	{ "hub/**", "a subscription would go on sending when the sandbox is gone" },
	{ "graphql/**", "GraphQL is POST /graphql without a query" },
};

/* Search with the user's rights only over listed repositories (2.6). */
static void search(const struct gh_scope *s, struct span tail, const struct request *r, struct gh_decision *d)
{
	static const char *const by_q[] = { "search/issues", "search/code", "search/commits", "search/repositories" };
	bool code = gh_match_loosely("search/code", tail), labels = gh_match("search/labels", tail), scoped = false;
	const char *why = "the search is not written as a query is";
	uint8_t room[HTTP_TARGET_MAX];
	struct span raw;
	uint64_t id;
	ssize_t n;
	int found = gh_query(r->query, labels ? "repository_id" : "q", &raw);

	d->rule = "search";
	d->verdict = GH_ANONYMOUS;
	if (found < 0) {
		gh_refuse(d, REFUSAL_SEARCH_SCOPE, "write q once and plainly",
			  "what is searched for could be read in two ways");
		return;
	}
	if (found && labels)
		scoped = http_length(raw, &id) == 0 && raw.p[0] != '0' && gh_scope_find_id(s, id);
	for (size_t i = 0; i < ARRAY_SIZE(by_q) && found && !labels; i++) {
		if (!gh_match(by_q[i], tail))
			continue;
		n = gh_form_decode(raw, room, sizeof(room));
		switch (n < 0 ? SEARCH_REFUSED : search_judge(s, SPAN(room, (size_t)n), &d->repo, &why)) {
		case SEARCH_LISTED:
			scoped = true;
			break;
		case SEARCH_UNSCOPED:
			break;
		default:
			gh_refuse(d, REFUSAL_SEARCH_SCOPE,
				  "write repo:OWNER/NAME of listed repositories and no other scope", "%s", why);
			return;
		}
	}
	if (scoped) {
		d->verdict = GH_CREDENTIAL;
		d->reply = GH_REPLY_JSON;
	} else if (code) {
		gh_refuse(d, REFUSAL_SEARCH_SCOPE, "write repo:OWNER/NAME of a listed repository",
			  "GitHub searches code only for users who signed in, and this search names no listed "
			  "repository");
	}
}

static void root(const struct gh_scope *s, const struct request *r, struct gh_decision *d)
{
	struct span tail = SPAN(r->path.p + 1, r->path.n - 1);
	bool is_read = GET & 1u << r->method;

	if (is_read && (gh_match("user", tail) || gh_match("rate_limit", tail))) {
		d->verdict = GH_CREDENTIAL;
		d->reply = gh_match("user", tail) ? GH_REPLY_USER : GH_REPLY_JSON;
		d->rule = "who the user is, and how many requests are left";
		return;
	}
	if (r->method == METHOD_POST && span_is(r->path, "/graphql") && !r->has_query) {
		d->verdict = GH_BODY;
		d->body = GH_BODY_GRAPHQL;
		d->reply = GH_REPLY_JSON;
		d->rule = "GraphQL";
		if (!gh_is_json(r, false))
			gh_refuse(d, REFUSAL_GQL_PARSE, "send one Content-Type: application/json",
				  "a GraphQL document comes as plain JSON in UTF-8");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(closed_roots); i++)
		if (gh_match_loosely(closed_roots[i].pattern, tail)) {
			d->rule = closed_roots[i].pattern;
			gh_refuse(d, gh_match_loosely("graphql/**", tail) ? REFUSAL_GQL_PARSE : REFUSAL_CLASS_NEVER,
				  "ask for a listed repository instead, below /repos/OWNER/NAME", "%s",
				  closed_roots[i].why);
			return;
		}
	if (is_read && gh_match_loosely("search/**", tail)) {
		search(s, tail, r, d);
		return;
	}
	if (is_read || (r->method == METHOD_POST && gh_match("markdown/**", tail))) {
		d->verdict = GH_ANONYMOUS;
		d->rule = "public part of the API";
		return;
	}
	gh_refuse(d, REFUSAL_PATH, "writing works below /repos/OWNER/NAME of a listed repository",
		  "%s at this place would act as the user outside of the listed repositories",
		  prov_method_str[r->method]);
}

void gh_decide_rest(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d)
{
	struct gh_place p;

	gh_place(host, r->path, &p);
	if (host == HOST_GITHUB_UPLOADS) {
		d->rule = "uploads of releases";
		if (r->method != METHOD_POST || p.kind == GH_NOWHERE || !gh_match("releases/N/assets", p.tail))
			gh_refuse(d, REFUSAL_PATH, NULL, "this host takes nothing but the files of a release");
		else if (gh_decide_repo(s, &p, true, d))
			d->verdict = GH_CREDENTIAL, d->reply = GH_REPLY_JSON;
	} else if (p.kind != GH_NOWHERE) {
		in_repo(s, &p, r, d);
	} else {
		root(s, r, d);
	}
}
