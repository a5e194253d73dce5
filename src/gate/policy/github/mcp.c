/* Calls of tools at Copilot's host (2.10): closed, unless the launch opens them, and then for listed repositories only.
 */
#include "gate/policy/github/decide.h"

#include <stdio.h>

#include "base/jread.h"
#include "gate/policy/github/search.h"

#define DEPTH 64
#define TEXT 512

/* Tools that name one repository by "owner" and "repo". A tool that is not here is refused. */
enum kind { READS, WRITES_, MERGES, RUNS, SEARCHES, HEADS };
static const struct {
	const char *name;
	enum kind kind;
} tools[] = {
	{ "get_file_contents", READS },
	{ "list_commits", READS },
	{ "get_commit", READS },
	{ "list_branches", READS },
	{ "list_tags", READS },
	{ "get_tag", READS },
	{ "list_releases", READS },
	{ "get_latest_release", READS },
	{ "get_release_by_tag", READS },
	{ "get_repository_tree", READS },
	{ "issue_read", READS },
	{ "get_issue", READS },
	{ "get_issue_comments", READS },
	{ "list_issues", READS },
	{ "list_label", READS },
	{ "get_label", READS },
	{ "pull_request_read", READS },
	{ "get_pull_request", READS },
	{ "get_pull_request_diff", READS },
	{ "get_pull_request_files", READS },
	{ "get_pull_request_status", READS },
	{ "get_pull_request_comments", READS },
	{ "get_pull_request_reviews", READS },
	{ "list_pull_requests", READS },
	{ "actions_get", READS },
	{ "actions_list", READS },
	{ "list_workflows", READS },
	{ "list_workflow_runs", READS },
	{ "list_workflow_jobs", READS },
	{ "list_workflow_run_artifacts", READS },
	{ "get_workflow_run", READS },
	{ "get_workflow_run_logs", READS },
	{ "get_workflow_run_usage", READS },
	{ "get_job_logs", READS },
	{ "create_branch", WRITES_ },
	{ "create_or_update_file", WRITES_ },
	{ "push_files", WRITES_ },
	{ "delete_file", WRITES_ },
	{ "create_issue", WRITES_ },
	{ "update_issue", WRITES_ },
	{ "issue_write", WRITES_ },
	{ "add_issue_comment", WRITES_ },
	{ "label_write", WRITES_ },
	{ "create_pull_request", HEADS },
	{ "update_pull_request", WRITES_ },
	{ "update_pull_request_branch", WRITES_ },
	{ "pull_request_review_write", WRITES_ },
	{ "add_comment_to_pending_review", WRITES_ },
	{ "merge_pull_request", MERGES },
	{ "actions_run_trigger", RUNS },
	{ "run_workflow", RUNS },
	{ "rerun_workflow_run", RUNS },
	{ "rerun_failed_jobs", RUNS },
	{ "cancel_workflow_run", RUNS },
	{ "delete_workflow_run_logs", RUNS },
	{ "search_issues", SEARCHES },
	{ "search_pull_requests", SEARCHES },
	{ "search_code", SEARCHES },
	{ "search_repositories", SEARCHES },
};

/* Methods that name no repository. */
static const char *const plain_methods[] = { "initialize",   "ping",	       "tools/list",
					     "prompts/list", "resources/list", "resources/templates/list" };

static void deny(struct gh_decision *d, const char *what)
{
	gh_refuse(d, REFUSAL_MCP_TOOL, "call a tool for a listed repository, or use gh or git", "%s", what);
}

static bool text(struct span object, const char *name, uint8_t room[TEXT], struct span *ret)
{
	struct span v;
	ssize_t n = jread_member(object, name, &v) ? jread_string(v, room, TEXT) : -1;

	if (n < 0)
		return false;
	*ret = SPAN(room, (size_t)n);
	return true;
}

/* The listed repository of "owner" and "repo". */
static const struct gh_repo *repo_of(const struct gh_scope *s, struct span args)
{
	uint8_t room[2][TEXT];
	struct span owner, name;

	return text(args, "owner", room[0], &owner) && text(args, "repo", room[1], &name)
		       ? gh_scope_find(s, owner, name)
		       : NULL;
}

/* By the query itself, or by "owner" and "repo", which the server puts behind it. */
static void search(const struct gh_scope *s, struct span args, struct gh_decision *d)
{
	uint8_t query[TEXT + GH_SLUG_MAX + 16];
	const struct gh_repo *one;
	struct span q, v;
	const char *why;
	bool found = text(args, "query", query, &q);
	size_t n = found ? q.n : 0;

	if (jread_member(args, "owner", &v) || jread_member(args, "repo", &v)) {
		found = found && d->repo;
		if (found)
			n += (size_t)snprintf((char *)query + n, sizeof(query) - n, " repo:%s/%s", d->repo->owner,
					      d->repo->name);
	}
	if (found && search_judge(s, SPAN(query, n), &one, &why) == SEARCH_LISTED)
		d->verdict = GH_CREDENTIAL;
	else
		deny(d, "this search is not limited to listed repositories");
}

static void call(const struct gh_scope *s, struct span params, struct gh_decision *d)
{
	uint8_t room[2][TEXT];
	struct span name, args, v;
	size_t i = 0;

	if (!text(params, "name", room[0], &name)) {
		deny(d, "this call names no tool");
		return;
	}
	if (span_is(name, "get_me")) {
		d->verdict = GH_CREDENTIAL;
		return;
	}
	while (i < ARRAY_SIZE(tools) && !span_is(name, tools[i].name))
		i++;
	if (i == ARRAY_SIZE(tools)) {
		deny(d, "this tool is not let through");
		return;
	}
	if (!jread_member(params, "arguments", &args) || jread_type(args) != JREAD_OBJECT) {
		deny(d, "this tool needs arguments");
		return;
	}
	d->repo = repo_of(s, args);
	if (tools[i].kind == SEARCHES) {
		search(s, args, d);
		return;
	}
	if (!d->repo)
		deny(d, "the tool's owner and repo are not on this sandbox's GitHub list");
	else if (tools[i].kind != READS && d->repo->level < GH_WRITE)
		deny(d, "this repository is listed for reading only");
	else if (tools[i].kind == MERGES && !gh_scope_has(s, GH_MERGE))
		deny(d, "merging pull requests is off in this sandbox");
	else if (tools[i].kind == RUNS && !gh_scope_has(s, GH_CI))
		deny(d, "starting and stopping runs is off in this sandbox");
	else if (jread_member(args, "duplicate_of", &v))
		deny(d, "an issue is not linked to one that the sandbox cannot see");
	else if (tools[i].kind == HEADS && !(text(args, "head", room[1], &v) && gh_scope_head(s, v)))
		deny(d,
		     "the branch of this pull request lies in a repository that is not on this sandbox's GitHub list");
	else
		d->verdict = GH_CREDENTIAL;
}

/* What a completion knows already stands in "context". How owners and repositories are called is not completed: the
 * server would look among all that the user may see. */
static bool completes_listed(const struct gh_scope *s, struct span params)
{
	uint8_t room[TEXT];
	struct span args, context, known, argument, name;
	bool has = jread_member(params, "arguments", &args);
	bool has_known = jread_member(params, "context", &context) && jread_type(context) == JREAD_OBJECT &&
			 jread_member(context, "arguments", &known);

	if (jread_member(params, "argument", &argument) &&
	    (jread_type(argument) != JREAD_OBJECT || !text(argument, "name", room, &name) || span_is(name, "owner") ||
	     span_is(name, "repo")))
		return false;
	return (has || has_known) && (!has || repo_of(s, args)) && (!has_known || repo_of(s, known));
}

/* "repo://OWNER/NAME/..." */
static bool uri_is_listed(const struct gh_scope *s, struct span uri)
{
	static const char front[] = "repo://";
	const uint8_t *slash;
	struct span owner, name;

	if (uri.n < strlen(front) || memcmp(uri.p, front, strlen(front)) != 0 || memchr(uri.p, '%', uri.n) ||
	    memmem(uri.p, uri.n, "..", 2))
		return false;
	uri = SPAN(uri.p + strlen(front), uri.n - strlen(front));
	slash = uri.n > 0 ? memchr(uri.p, '/', uri.n) : NULL;
	if (!slash)
		return false;
	owner = SPAN(uri.p, (size_t)(slash - uri.p));
	name = SPAN(slash + 1, uri.n - owner.n - 1);
	slash = name.n > 0 ? memchr(name.p, '/', name.n) : NULL;
	return slash && gh_scope_find(s, owner, SPAN(name.p, (size_t)(slash - name.p)));
}

void gh_decide_mcp(const struct gh_scope *s, struct span body, struct gh_decision *d)
{
	uint8_t room[TEXT], room2[TEXT];
	struct span o, method, params = { 0 }, v;

	d->rule = "MCP";
	d->form = GH_FORM_MCP;
	if (!gh_scope_has(s, GH_MCP)) {
		gh_refuse(d, REFUSAL_MCP_TOOL, "use gh or git, which work with the listed repositories",
			  "GitHub's MCP server is closed in this sandbox");
		return;
	}
	if (jread_check(body, DEPTH, &o) < 0 || !text(o, "method", room, &method)) {
		deny(d, "this is not one plain JSON-RPC call");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(plain_methods); i++)
		if (span_is(method, plain_methods[i]))
			d->verdict = GH_CREDENTIAL;
	if (method.n > 14 && memcmp(method.p, "notifications/", 14) == 0)
		d->verdict = GH_CREDENTIAL;
	if (d->verdict == GH_CREDENTIAL)
		return;
	if (!jread_member(o, "params", &params) || jread_type(params) != JREAD_OBJECT)
		deny(d, "this call needs parameters");
	else if (span_is(method, "tools/call"))
		call(s, params, d);
	else if (span_is(method, "resources/read") && text(params, "uri", room2, &v) && uri_is_listed(s, v))
		d->verdict = GH_CREDENTIAL;
	else if (span_is(method, "prompts/get") && jread_member(params, "arguments", &v) && repo_of(s, v))
		d->verdict = GH_CREDENTIAL;
	else if (span_is(method, "completion/complete") && completes_listed(s, params))
		d->verdict = GH_CREDENTIAL;
	else
		deny(d, "this method is not let through for what it names");
}
