#include "test.h"

#include <errno.h>
#include <jansson.h>

#include "base/macros.h"
#include "gate/judge.h"
#include "gate/policy/github/push.h"
#include "gate/policy/github/reply.h"

static struct gh_scope scope;
static struct request req;
static struct gh_decision d;
static struct buf out = { .max = 1 << 20 };

static void list(const char *slug, enum gh_level level)
{
	struct gh_slug s;

	CHECK(gh_slug_parse(span_str(slug), &s));
	CHECK_INT(gh_scope_add(&scope, s, level), ==, 0);
}

static void fresh(void)
{
	gh_scope_init(&scope);
	list("acme/app", GH_WRITE);
	buf_done(&out);
}

static void decide(enum prov_host_id host, enum prov_method method, const char *target)
{
	memset(&req, 0, sizeof(req));
	req.method = method;
	request_set_target(&req, span_str(target));
	CHECK_INT(req.fault.status, ==, 0);
	gh_decide(&scope, host, &req, &d);
}

static const char *text(void)
{
	static char s[1 << 16];

	CHECK(out.n < sizeof(s));
	memset(s, 0, sizeof(s));
	if (out.n > 0)
		memcpy(s, buf_span(&out).p, out.n);
	return s;
}

#define OLD "ab2bd1c31e8fa1a9b4a1e8ce7b7d0b7e8f0a9c3d"
#define NEW "1f2e3d4c5b6a79880011223344556677889900aa"

static struct span commands(const char *refs[], size_t n, const char *caps)
{
	static char s[1 << 16];
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = 4 + 40 + 1 + 40 + 1 + strlen(refs[i]) + (i == 0 ? 1 + strlen(caps) : 0);

		at += (size_t)snprintf(s + at, sizeof(s) - at, "%04zx" OLD " " NEW " %s", len, refs[i]);
		if (i == 0) {
			s[at++] = '\0';
			at += (size_t)snprintf(s + at, sizeof(s) - at, "%s", caps);
		}
	}
	at += (size_t)snprintf(s + at, sizeof(s) - at, "0000");
	return SPAN(s, at);
}

TEST(commands_are_read_from_every_front_alike)
{
	static const char *refs[] = { "refs/heads/main", "refs/tags/v1" };
	struct span all = commands(refs, 2, "report-status side-band-64k agent=git/2.39");
	struct gh_push p;

	for (size_t n = 0; n < all.n; n++) {
		uint8_t *front = malloc(n + 1);

		memcpy(front, all.p, n);
		CHECK_INT(gh_push_scan(SPAN(front, n), &p), ==, GH_PUSH_MORE);
		free(front);
	}
	CHECK_INT(gh_push_scan(all, &p), ==, GH_PUSH_ENOUGH);
	CHECK(p.n == 2 && p.report && p.sideband && span_is(p.cmd[1].ref, "refs/tags/v1") && !p.cmd[0].deletes);
	CHECK_INT(gh_push_scan(span_str("0001"), &p), ==, GH_PUSH_BAD);
	CHECK_INT(gh_push_scan(span_str("fff1"), &p), ==, GH_PUSH_BAD);
	CHECK_INT(gh_push_scan(span_str("00g0"), &p), ==, GH_PUSH_BAD);
	CHECK_INT(gh_push_scan(span_str("0008abcd"), &p), ==, GH_PUSH_BAD);
	CHECK_INT(gh_push_scan(span_str("0000"), &p), ==, GH_PUSH_ENOUGH);
	CHECK_INT(p.n, ==, 0);
}

TEST(a_refused_push_is_answered_in_its_protocol)
{
	static const char *refs[] = { "refs/heads/main", "refs/heads/b" };
	struct gh_push p;

	fresh();
	CHECK_INT(gh_push_scan(commands(refs, 1, "report-status"), &p), ==, GH_PUSH_ENOUGH);
	CHECK_INT(gh_push_answer(&p, 0, "why", "how", &out), ==, 0);
	CHECK(strcmp(text(), "000eunpack ok\n0030ng refs/heads/main denied by sandbox policy\n0000") == 0);
	buf_done(&out);
	CHECK_INT(gh_push_scan(commands(refs, 1, "report-status side-band-64k"), &p), ==, GH_PUSH_ENOUGH);
	CHECK_INT(gh_push_answer(&p, 1, "why", "", &out), ==, 0);
	CHECK(strcmp(text(), "0012\x02sandbox: why\n0047\x01"
			     "000eunpack ok\n0030ng refs/heads/main denied by sandbox policy\n00000000") == 0);
	buf_done(&out);
	CHECK_INT(gh_push_scan(commands(refs, 2, " report-status-v2"), &p), ==, GH_PUSH_ENOUGH);
	CHECK_INT(gh_push_answer(&p, 1, "why", "how", &out), ==, 0);
	CHECK(strstr(text(), "ng refs/heads/main not pushed, as another ref is denied\n") &&
	      strstr(text(), "ng refs/heads/b denied by sandbox policy\n"));
	buf_done(&out);
	CHECK_INT(gh_push_answer(NULL, 0, "why", "how", &out), ==, 0);
	CHECK(strcmp(text(), "0024unpack denied by sandbox policy\n0000") == 0);
	/* Nothing tells what the client would understand. */
	buf_done(&out);
	CHECK_INT(gh_push_scan(commands(refs, 1, "side-band-64k"), &p), ==, GH_PUSH_ENOUGH);
	CHECK_INT(gh_push_answer(&p, 0, "why", "how", &out), ==, 0);
	CHECK(strcmp(text(), "0024unpack denied by sandbox policy\n0000") == 0);
}

TEST(a_long_report_comes_in_several_packets)
{
	static const char ref[] = "refs/heads/";
	static struct gh_push p;
	char name[300];
	size_t pkts = 0;

	fresh();
	memset(name, 'x', sizeof(name));
	memcpy(name, ref, strlen(ref));
	p = (struct gh_push){ .n = 1000, .report = true, .sideband = true };
	for (size_t i = 0; i < p.n; i++)
		p.cmd[i].ref = SPAN(name, sizeof(name));
	CHECK_INT(gh_push_answer(&p, p.n, "why", "how", &out), ==, 0);
	while (out.n > 4) {
		char len[5] = "";
		size_t n;

		memcpy(len, buf_span(&out).p, 4);
		n = (size_t)strtoul(len, NULL, 16);
		CHECK(n > 4 && n <= 65520 && n <= out.n);
		buf_consume(&out, n);
		pkts++;
	}
	CHECK(out.n == 4 && memcmp(buf_span(&out).p, "0000", 4) == 0 && pkts == 7);
}

TEST(each_client_gets_its_form)
{
	static const char *refs[] = { "refs/notes/x" }, *mixed[] = { "refs/heads/x", "refs/notes/x" };
	const char *type;
	json_t *j;

	fresh();
	decide(HOST_GITHUB_API, METHOD_POST, "/repos/acme/secret/issues");
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	j = json_loads(text(), JSON_REJECT_DUPLICATES, NULL);
	CHECK(strncmp(json_string_value(json_object_get(j, "message")), "acme/secret is not on", 21) == 0);
	CHECK(strstr(json_string_value(json_object_get(j, "message")),
		     "(sandbox policy offlist-write)\nallowed: acme/app\nhow: start with --repo acme/secret"));
	CHECK(strcmp(json_string_value(json_object_get(j, "status")), "403") == 0 && !strstr(text(), "rate limit"));
	json_decref(j);
	CHECK(strcmp(type, "application/json; charset=utf-8") == 0);

	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_GET, "/acme/secret/info/refs?service=git-receive-pack");
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	CHECK(strcmp(type, "text/plain; charset=utf-8") == 0 && d.status == 403);
	CHECK(strchr(text(), '\n') && strcmp(strchr(text(), '\n'), "\nstart with --repo acme/secret\n") == 0);

	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_POST, "/acme/app/git-receive-pack");
	CHECK_INT(d.verdict, ==, GH_BODY);
	gh_decide_body(&scope, NULL, &req, commands(refs, 1, "report-status"), &d);
	CHECK(d.verdict == GH_REFUSE && d.status == 200);
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	CHECK(strcmp(type, "application/x-git-receive-pack-result") == 0 && strstr(text(), "ng refs/notes/x denied"));

	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_POST, "/acme/app/git-receive-pack");
	gh_decide_body(&scope, NULL, &req, commands(mixed, 2, "report-status"), &d);
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	CHECK(strstr(text(), "ng refs/heads/x not pushed") && strstr(text(), "ng refs/notes/x denied"));

	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_POST, "/acme/%61pp/git-upload-pack");
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	CHECK(strcmp(type, "application/x-git-upload-pack-result") == 0 &&
	      memcmp(text() + 4, "ERR sandbox: ", 13) == 0);

	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_POST, "/octo/pub/info/lfs/locks");
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	CHECK(strcmp(type, "application/vnd.git-lfs+json") == 0 && d.status == 403);
	j = json_loads(text(), JSON_REJECT_DUPLICATES, NULL);
	CHECK(json_is_string(json_object_get(j, "message")));
	json_decref(j);

	buf_done(&out);
	d = (struct gh_decision){ .scope = &scope, .seen = span_str("{\"id\":\"a\\u0022\",\"method\":\"ping\"}") };
	gh_decide_mcp(&scope, d.seen, &d);
	CHECK_INT(gh_denial(&d, &out, &type), ==, 0);
	j = json_loads(text(), JSON_REJECT_DUPLICATES, NULL);
	CHECK(strcmp(json_string_value(json_object_get(j, "id")), "a\"") == 0 && d.status == 200);
	CHECK_INT(json_integer_value(json_object_get(json_object_get(j, "error"), "code")), ==, -32602);
	json_decref(j);
}

TEST(what_a_request_names_needs_no_escape_in_a_text)
{
	fresh();
	decide(HOST_GITHUB_API, METHOD_PUT, "/repos/acme/app/x'y$z");
	CHECK(strcmp(d.what, "PUT of x'y$z changes more than level write may") == 0);
	gh_refuse(&d, REFUSAL_PATH, "a\"b", "%s", "c\\d\ne\x80");
	CHECK(strcmp(d.what, "c?d?e?") == 0 && strcmp(d.how, "a?b") == 0);
}

/* Vault's table would not lend the login to any of these either; the guest hears of the rule that it is. */
TEST(a_method_is_refused_by_the_rule_for_it)
{
	static const struct {
		enum prov_host_id host;
		enum prov_method method;
		const char *target, *what;
	} t[] = {
		{ HOST_GITHUB_API, METHOD_OPTIONS, "/repos/acme/app", "this method is not let through" },
		{ HOST_GITHUB_API, METHOD_POST, "/user", "the user's own account" },
		{ HOST_GITHUB_API, METHOD_POST, "/search/issues?q=repo:acme/app",
		  "outside of the listed repositories" },
		{ HOST_GITHUB_RAW, METHOD_POST, "/acme/app/main/a", "takes no writes" },
		{ HOST_GITHUB_API, METHOD_GET, "/user/", "a path of this form" },
	};

	fresh();
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		decide(t[i].host, t[i].method, t[i].target);
		CHECK(d.verdict == GH_REFUSE && strstr(d.what, t[i].what));
	}
}

TEST(a_failure_without_credential_gets_a_hint)
{
	const char *type;
	uint16_t status;

	fresh();
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/secret");
	CHECK_INT(gh_hint(&d, 200, &out, &status, &type), ==, 0);
	CHECK_INT(gh_hint(&d, 404, &out, &status, &type), ==, 1);
	CHECK(status == 404 &&
	      strstr(text(),
		     "\"Not Found (sandbox: acme/secret is not on this sandbox's GitHub list; the request was sent "
		     "without credentials; start with --repo acme/secret)\""));
	buf_done(&out);
	CHECK_INT(gh_hint(&d, 401, &out, &status, &type), ==, 1);
	CHECK_INT(status, ==, 403);
	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_GET, "/acme/secret/info/refs?service=git-upload-pack");
	CHECK_INT(gh_hint(&d, 404, &out, &status, &type), ==, 1);
	CHECK(status == 403 && strncmp(type, "text/plain", 10) == 0);
	buf_done(&out);
	decide(HOST_GITHUB_GIT, METHOD_POST, "/acme/secret.git/info/lfs/objects/batch");
	CHECK_INT(gh_hint(&d, 401, &out, &status, &type), ==, 1);
	CHECK(status == 403 && strcmp(type, "application/vnd.git-lfs+json") == 0 && text()[0] == '{');
	buf_done(&out);
	/* Where the user's rights were there it is GitHub's own answer. */
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/contents/none");
	CHECK_INT(gh_hint(&d, 404, &out, &status, &type), ==, 0);
	decide(HOST_GITHUB_API, METHOD_GET, "/repositories/5");
	CHECK_INT(gh_hint(&d, 404, &out, &status, &type), ==, 0);
	decide(HOST_GITHUB_API, METHOD_GET, "/users/nobody");
	CHECK_INT(gh_hint(&d, 404, &out, &status, &type), ==, 0);
}

static const char *scrubbed(const char *in, size_t cut)
{
	static char s[256];
	struct gh_scrub scrub = { 0 };
	size_t n = strlen(in);

	memcpy(s, in, n + 1);
	gh_scrub(&scrub, (uint8_t *)s, cut);
	gh_scrub(&scrub, (uint8_t *)s + cut, n - cut);
	return s;
}

TEST(a_clone_token_is_taken_out_of_an_answer)
{
	static const struct {
		const char *in, *want;
	} t[] = {
		{ "{\"temp_clone_token\":\"AB12\",\"x\":\"y\"}", "{\"temp_clone_token\":\"xxxx\",\"x\":\"y\"}" },
		{ "[{\"temp_clone_token\" :\n \"A\\\"B\"}]", "[{\"temp_clone_token\" :\n \"xxxx\"}]" },
		{ "{\"temp_clone_token\":null,\"a\":\"b\"}", "{\"temp_clone_token\":null,\"a\":\"b\"}" },
		{ "{\"temp_clone_token\":\"\",\"a\":\"b\"}", "{\"temp_clone_token\":\"\",\"a\":\"b\"}" },
		{ "{\"x\":\"\\\"temp_clone_token\\\":\\\"AB\\\"\"}",
		  "{\"x\":\"\\\"temp_clone_token\\\":\\\"AB\\\"\"}" },
		{ "[\"temp_clone_token\",\"AB\"]", "[\"temp_clone_token\",\"AB\"]" },
		{ "{\"temp_\"temp_clone_token\":\"A\"", "{\"temp_\"temp_clone_token\":\"x\"" },
		{ "{\"temp_clone_token\":\"A\",\"temp_clone_token\":\"B\"}",
		  "{\"temp_clone_token\":\"x\",\"temp_clone_token\":\"x\"}" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		for (size_t cut = 0; cut <= strlen(t[i].in); cut++)
			CHECK(strcmp(scrubbed(t[i].in, cut), t[i].want) == 0);
}

TEST(of_the_user_only_the_identity_is_told)
{
	fresh();
	CHECK_INT(gh_reply_user(span_str("{\"login\":\"a\",\"id\":7,\"email\":\"x@y\",\"plan\":{\"name\":\"pro\"},"
					 "\"type\":\"User\",\"two_factor_"
					 "authentication\":true}"),
				&out),
		  ==, 0);
	CHECK(strcmp(text(), "{\"login\":\"a\",\"id\":7,\"type\":\"User\"}") == 0);
	buf_done(&out);
	CHECK_INT(gh_reply_user(span_str("{\"email\":\"x\"}"), &out), ==, 0);
	CHECK(strcmp(text(), "{}") == 0);
	CHECK_INT(gh_reply_user(span_str("[]"), &out), ==, -EBADMSG);
	CHECK_INT(gh_reply_user(span_str("{"), &out), ==, -EBADMSG);
}

TEST(of_issues_in_other_repositories_only_which_is_told)
{
#define API "https://api.github.com/repos/"
#define OURS "{\"number\":1,\"url\":\"" API "acme/app/issues/1\",\"repository_url\":\"" API "Acme/app\",\"body\":\"b\"}"
#define WHICH(slug) "{\"number\":7,\"html_url\":\"u\",\"repository\":{\"full_name\":\"" slug "\"}}"
#define THEIRS(where) "{\"id\":5,\"number\":7,\"html_url\":\"u\",\"title\":\"t\",\"body\":\"SECRET\"," where "}"
	static const struct {
		const char *in, *want; /* NULL: as it came */
	} t[] = {
		{ OURS, NULL },
		{ "[" OURS "," OURS "]", NULL },
		{ "[]", NULL },
		{ "", NULL },
		{ "{\"a\":[1,\"x\\n\",null,true,{}]}", NULL },
		{ THEIRS("\"repository_url\":\"" API "acme/secret\""), WHICH("acme/secret") },
		{ THEIRS("\"repository_url\":\"" API "acme\\/secret\""), WHICH("acme/secret") },
		{ THEIRS("\"url\":\"" API "acme/secret/issues/7\""), WHICH("acme/secret") },
		{ THEIRS("\"url\":\"" API "acme/secret/pulls/7\""), WHICH("acme/secret") },
		{ THEIRS("\"url\":\"" API "acme/app/issues/7\",\"repository\":{\"full_name\":\"acme/secret\"}"),
		  WHICH("acme/secret") },
		{ THEIRS("\"repository_url\":\"" API "acme/app\",\"url\":\"" API "acme/secret/issues/7\""),
		  WHICH("acme/secret") },
		{ THEIRS("\"repository_url\":\"" API "acme/apps\""), WHICH("acme/apps") },
		{ THEIRS("\"repository_url\":\"" API "acme\""), WHICH("") },
		{ THEIRS("\"repository_url\":\"https://elsewhere.example/repos/acme/app\""), WHICH("") },
		{ THEIRS("\"repository_url\":null"), WHICH("") },
		{ "{\"repository_url\":1,\"number\":\"SECRET\",\"html_url\":[\"SECRET\"]}",
		  "{\"number\":null,\"html_url\":null,\"repository\":{\"full_name\":\"\"}}" },
		{ "[{\"event\":\"cross-referenced\",\"source\":{\"type\":\"issue\",\"issue\":" THEIRS(
			  "\"repository_url\":\"" API "acme/secret\"") "}}," OURS "]",
		  "[{\"event\":\"cross-referenced\",\"source\":{\"type\":\"issue\",\"issue\":" WHICH(
			  "acme/secret") "}}," OURS "]" },
		{ "{\"id\":1,\"url\":\"" API "acme/secret/issues/comments/1\",\"temp_clone_token\":\"AB\"}",
		  "{\"id\":1,\"url\":\"" API "acme/secret/issues/comments/1\",\"temp_clone_token\":\"xx\"}" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		fresh();
		CHECK_INT(gh_reply_issues(&scope, span_str(t[i].in), &out), ==, 0);
		CHECK_STR(text(), t[i].want ? t[i].want : t[i].in);
	}
	fresh();
	CHECK_INT(gh_reply_issues(&scope, span_str("[1"), &out), ==, -EBADMSG);
	CHECK_INT(gh_reply_issues(&scope, span_str("<p>"), &out), ==, -EBADMSG);
}

TEST(answers_that_can_hold_other_issues_are_looked_through)
{
	static const struct {
		enum prov_method method;
		const char *tail;
		bool looked;
	} t[] = {
		{ METHOD_GET, "issues/2", true },
		{ METHOD_GET, "issues/2/timeline", true },
		{ METHOD_GET, "issues/2/timeline?page=2", true },
		{ METHOD_GET, "issues/2/Timeline.json", true },
		{ METHOD_GET, "issues/2/events", true },
		{ METHOD_GET, "issues/2/sub_issues", true },
		{ METHOD_GET, "issues/2/parent", true },
		{ METHOD_GET, "issues/2/dependencies/blocked_by", true },
		{ METHOD_GET, "issues/2/dependencies/blocking", true },
		{ METHOD_GET, "issues/2/what-comes", true },
		{ METHOD_POST, "issues/2/sub_issues", true },
		{ METHOD_GET, "commits/main/pulls", true },
		{ METHOD_GET, "commits/heads/main/pulls", true },
		{ METHOD_GET, "commits/heads/feature/x/Pulls.json?page=2", true },
		{ METHOD_GET, "commits/heads%2Fmain/pulls", true },
		{ METHOD_GET, "commits/heads/main%2Fpulls", true },
		{ METHOD_GET, "commits/heads/main/status", false },
		{ METHOD_GET, "issues", false },
		{ METHOD_GET, "issues/2/comments", false },
		{ METHOD_GET, "issues/comments", false },
		{ METHOD_GET, "issues/comments/1", false },
		{ METHOD_GET, "commits/main", false },
		{ METHOD_GET, "pulls/2", false },
	};

	fresh();
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char target[128];

		(void)snprintf(target, sizeof(target), "/repos/acme/app/%s", t[i].tail);
		decide(HOST_GITHUB_API, t[i].method, target);
		CHECK_INT(d.reply, ==, t[i].looked ? GH_REPLY_ISSUES : GH_REPLY_JSON);
	}
}

TEST(cookies_and_challenges_stay_outside)
{
	CHECK(gh_reply_drops(span_str("Set-Cookie")) && gh_reply_drops(span_str("www-authenticate")));
	CHECK(gh_reply_drops(span_str("X-OAuth-Client-Id")) && gh_reply_drops(span_str("X-Accepted-OAuth-Scopes")));
	CHECK(!gh_reply_drops(span_str("link")) && !gh_reply_drops(span_str("x-oauth-scopes")) &&
	      !gh_reply_drops(span_str("etag")));
}

static enum gh_verdict link_issue(const struct gh_issues *known, enum prov_method method, const char *tail,
				  const char *body)
{
	char target[200];

	(void)snprintf(target, sizeof(target), "/repos/acme/app/issues/2/%s", tail);
	decide(HOST_GITHUB_API, method, target);
	CHECK_INT(d.verdict, ==, GH_BODY);
	gh_decide_body(&scope, known, &req, span_str(body), &d);
	return d.verdict;
}

TEST(issues_that_answers_told_may_be_linked)
{
	static struct gh_issues known;

	fresh();
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/issues?state=open");
	CHECK(d.learns);
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/issues/2/comments");
	CHECK(!d.learns);
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/secret/issues");
	CHECK(!d.learns);
	gh_learn(span_str("[{\"id\":41,\"user\":{\"id\":99}},{\"id\":42},{\"id\":\"43\"},7]"), &known);
	gh_learn(span_str("{\"id\":44,\"repository\":{\"id\":98}}"), &known);
	gh_learn(span_str("{\"id\":45"), &known);
	CHECK(gh_issues_have(&known, 41) && gh_issues_have(&known, 42) && gh_issues_have(&known, 44));
	CHECK(!gh_issues_have(&known, 43) && !gh_issues_have(&known, 45) && !gh_issues_have(&known, 99) &&
	      !gh_issues_have(&known, 98) && !gh_issues_have(&known, 7) && !gh_issues_have(&known, 0));
	CHECK_INT(link_issue(&known, METHOD_POST, "sub_issues", "{\"sub_issue_id\":41,\"replace_parent\":true}"), ==,
		  GH_CREDENTIAL);
	CHECK_INT(link_issue(&known, METHOD_POST, "sub_issues", "{\"sub_issue_id\":43}"), ==, GH_REFUSE);
	CHECK_INT(link_issue(&known, METHOD_DELETE, "sub_issue", "{\"sub_issue_id\":41}"), ==, GH_CREDENTIAL);
	CHECK_INT(link_issue(&known, METHOD_POST, "sub_issues", "{\"sub_issue_id\":41.0}"), ==, GH_REFUSE);
	CHECK_INT(link_issue(&known, METHOD_POST, "sub_issues", "{\"sub_issue_id\":\"41\"}"), ==, GH_REFUSE);
	CHECK_INT(link_issue(&known, METHOD_PATCH, "sub_issues/priority", "{\"sub_issue_id\":41,\"after_id\":42}"), ==,
		  GH_CREDENTIAL);
	CHECK_INT(link_issue(&known, METHOD_PATCH, "sub_issues/priority", "{\"sub_issue_id\":41,\"after_id\":43}"), ==,
		  GH_REFUSE);
	CHECK_INT(link_issue(&known, METHOD_DELETE, "dependencies/blocked_by/42", ""), ==, GH_CREDENTIAL);
	CHECK_INT(link_issue(&known, METHOD_DELETE, "dependencies/blocked_by/43", ""), ==, GH_REFUSE);
	CHECK_INT(link_issue(NULL, METHOD_POST, "sub_issues", "{\"sub_issue_id\":41}"), ==, GH_REFUSE);
	for (uint64_t i = 1000; i < 1000 + GH_ISSUES_MAX; i++)
		gh_issues_add(&known, i);
	CHECK(!gh_issues_have(&known, 41) && gh_issues_have(&known, 1000));
}

TEST(a_repository_that_was_replaced_is_not_listed)
{
	struct gh_slug app = { span_str("acme"), span_str("app") };
	struct gh_facts f = { .id = 7, .owner = "acme", .name = "app" };

	fresh();
	gh_scope_facts(&scope, app, &f);
	decide(HOST_GITHUB_API, METHOD_GET, "/repositories/7/issues");
	CHECK_INT(d.verdict, ==, GH_CREDENTIAL);
	f.id = 8;
	gh_scope_facts(&scope, app, &f);
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/issues");
	CHECK_INT(d.verdict, ==, GH_ANONYMOUS);
	decide(HOST_GITHUB_API, METHOD_GET, "/repositories/8/issues");
	CHECK_INT(d.verdict, ==, GH_ANONYMOUS);
	decide(HOST_GITHUB_GIT, METHOD_GET, "/acme/app/info/refs?service=git-receive-pack");
	CHECK_INT(d.verdict, ==, GH_REFUSE);
}

TEST(a_renamed_repository_has_both_names)
{
	fresh();
	gh_scope_facts(&scope, (struct gh_slug){ span_str("acme"), span_str("app") },
		       &(struct gh_facts){ .id = 7, .owner = "new", .name = "name" });
	decide(HOST_GITHUB_GIT, METHOD_GET, "/new/name.git/info/refs?service=git-receive-pack");
	CHECK_INT(d.verdict, ==, GH_CREDENTIAL);
	decide(HOST_GITHUB_GIT, METHOD_GET, "/acme/app.git/info/refs?service=git-receive-pack");
	CHECK_INT(d.verdict, ==, GH_CREDENTIAL);
}

TEST(what_nobody_decided_is_refused)
{
	struct gh_decision none = { 0 };

	fresh();
	CHECK_INT(none.verdict, ==, GH_REFUSE);
	for (int host = 0; host < HOSTS; host++) {
		if (prov_hosts[host].role == HOST_GITHUB)
			continue;
		decide((enum prov_host_id)host, METHOD_GET, "/");
		CHECK(d.verdict == GH_REFUSE && d.code == REFUSAL_HOST && d.status == 403);
	}
}

/* ---- the seam ---- */

static struct github known;
static struct github_ask ask;

static void begin_graphql(const char *body)
{
	static struct http_field json = { { (const uint8_t *)"Content-Type", 12 },
					  { (const uint8_t *)"application/json", 16 } };

	memset(&req, 0, sizeof(req));
	req.method = METHOD_POST;
	req.f[0] = json;
	req.n = 1;
	request_set_target(&req, span_str("/graphql"));
	github_judge(&scope, HOST_GITHUB_API, &req, &d);
	CHECK(d.verdict == GH_BODY && d.body == GH_BODY_GRAPHQL);
	CHECK_INT(github_need(&req, &d, span_str(body), false), ==, GITHUB_MORE);
	CHECK_INT(github_need(&req, &d, span_str(body), true), ==, GITHUB_ENOUGH);
	ask = (struct github_ask){ 0 };
	buf_done(&out);
}

#define COMMENT                                                                                                  \
	"{\"query\":\"mutation($i:AddCommentInput!){addComment(input:$i){subject{id}}}\",\"variables\":{\"i\":{" \
	"\"subjectId\":"                                                                                         \
	"\"I_kwDOKbknAc6s2n0B\",\"body\":\"x\"}}}"

static const struct gh_facts app_facts = {
	.id = 700000001, .node = { "R_kgDOKbknAQ" }, .owner = "acme", .name = "app"
};

TEST(graphql_asks_once_and_then_knows)
{
	static const char yes[] =
		"{\"data\":{\"nodes\":[{\"__typename\":\"Issue\",\"repository\":{\"databaseId\":700000001}}]}}";
	static const char no[] =
		"{\"data\":{\"nodes\":[{\"__typename\":\"Issue\",\"repository\":{\"databaseId\":800000002}}]}}";

	fresh();
	gh_scope_facts(&scope, (struct gh_slug){ span_str("acme"), span_str("app") }, &app_facts);
	CHECK_INT(github_init(&known), ==, 0);
	begin_graphql(COMMENT);
	CHECK(!github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out));
	CHECK(ask.n == 1 && strstr(text(), "I_kwDOKbknAc6s2n0B") && strstr(text(), "nodes"));
	github_answered(&known, &ask, span_str(yes));
	buf_done(&out);
	CHECK(github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out));
	CHECK(d.verdict == GH_CREDENTIAL && req.fault.status == 0 && strstr(text(), "addComment"));
	/* The next one is known. */
	begin_graphql(COMMENT);
	CHECK(github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out) && d.verdict == GH_CREDENTIAL);
	/* Not for ever, and then GitHub says something else. */
	known.now_ms += NODE_TTL_MS;
	begin_graphql(COMMENT);
	CHECK(!github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out));
	github_answered(&known, &ask, span_str(no));
	buf_done(&out);
	CHECK(github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out));
	CHECK(d.verdict == GH_REFUSE && d.code == REFUSAL_GQL_ID && req.fault.github == &d);
	github_done(&known);
}

/* The arena is one for all: while GitHub's answer about the first is under way, another request is judged in it. */
TEST(an_answer_is_about_what_was_asked)
{
	static const char foreign[] = "{\"query\":\"mutation($i:AddCommentInput!){addComment(input:$i){subject{id}}}\","
				      "\"variables\":{\"i\":{\"subjectId\":\"I_kwDOKbknAc6sFORE\",\"body\":\"x\"}}}";
	static const char yes[] =
		"{\"data\":{\"nodes\":[{\"__typename\":\"Issue\",\"repository\":{\"databaseId\":700000001}}]}}";
	struct github_ask first;

	fresh();
	gh_scope_facts(&scope, (struct gh_slug){ span_str("acme"), span_str("app") }, &app_facts);
	CHECK_INT(github_init(&known), ==, 0);
	begin_graphql(COMMENT);
	first = (struct github_ask){ 0 };
	CHECK(!github_judge_body(&known, &req, span_str(COMMENT), &d, &first, &out));
	begin_graphql(foreign);
	CHECK(!github_judge_body(&known, &req, span_str(foreign), &d, &ask, &out));
	github_answered(&known, &first, span_str(yes));
	/* Nothing is known of the other one. */
	begin_graphql(foreign);
	CHECK(!github_judge_body(&known, &req, span_str(foreign), &d, &ask, &out));
	github_done(&known);
}

TEST(graphql_without_an_answer_is_refused)
{
	const char *type;

	fresh();
	gh_scope_facts(&scope, (struct gh_slug){ span_str("acme"), span_str("app") }, &app_facts);
	CHECK_INT(github_init(&known), ==, 0);
	begin_graphql(COMMENT);
	for (int i = 0; i < GITHUB_TURNS_MAX; i++) {
		buf_done(&out);
		CHECK(!github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out));
		github_answered(&known, &ask, span_str("<html>busy</html>"));
	}
	buf_done(&out);
	CHECK(github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out) && d.verdict == GH_REFUSE);
	buf_done(&out);
	CHECK_INT(github_denial(&d, &out, &type), ==, 0);
	CHECK(strstr(text(), "try again in a moment"));
	begin_graphql(COMMENT);
	CHECK(github_judge_body(NULL, &req, span_str(COMMENT), &d, &ask, &out) && d.verdict == GH_REFUSE);
	github_done(&known);
}

TEST(replies_are_read_where_something_is_in_them)
{
	static const char query[] =
		"{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){issue(number:2){id}}}\"}";
	static const char reply[] = "{\"data\":{\"repository\":{\"issue\":{\"id\":\"I_kwDOKbknAc6s2n0B\"}}}}";

	fresh();
	gh_scope_facts(&scope, (struct gh_slug){ span_str("acme"), span_str("app") }, &app_facts);
	CHECK_INT(github_init(&known), ==, 0);
	begin_graphql(query);
	CHECK(github_judge_body(&known, &req, span_str(query), &d, &ask, &out) && d.verdict == GH_CREDENTIAL);
	buf_done(&out);
	CHECK_INT(github_reply(&known, &d, span_str(query), span_str(reply), &out), ==, 0);
	CHECK(strcmp(text(), reply) == 0);
	begin_graphql(COMMENT);
	CHECK(github_judge_body(&known, &req, span_str(COMMENT), &d, &ask, &out) && d.verdict == GH_CREDENTIAL);

	decide(HOST_GITHUB_API, METHOD_GET, "/user");
	buf_done(&out);
	CHECK_INT(github_reply(&known, &d, SPAN(NULL, 0), span_str("{\"login\":\"a\",\"email\":\"b\"}"), &out), ==, 0);
	CHECK(strcmp(text(), "{\"login\":\"a\"}") == 0);
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/issues");
	CHECK_INT(github_reply(&known, &d, SPAN(NULL, 0), span_str("[{\"id\":5}]"), &out), ==, -EBADMSG);
	CHECK(gh_issues_have(&known.issues, 5));
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app/issues/6");
	buf_done(&out);
	CHECK_INT(github_reply(&known, &d, SPAN(NULL, 0), span_str("{\"id\":6}"), &out), ==, 0);
	CHECK(gh_issues_have(&known.issues, 6));
	buf_done(&out);
	CHECK_INT(github_reply(&known, &d, SPAN(NULL, 0), span_str("{\"id\":7,\"repository_url\":\"\"}"), &out), ==, 0);
	CHECK(!gh_issues_have(&known.issues, 7));
	github_done(&known);
}

TEST(the_token_goes_into_the_slot_of_the_host)
{
	struct judge j = { .launch = { .lent = PH_BIT(PH_GH) }, .github = &scope };
	struct judged got;

	fresh();
	decide(HOST_GITHUB_GIT, METHOD_GET, "/acme/app.git/info/refs?service=git-upload-pack");
	CHECK_INT(judge_request(&j, HOST_GITHUB_GIT, true, &req, &got), ==, JUDGE_FORWARD);
	CHECK(got.use.n == 1 && got.use.kind[0] == PH_GH && got.use.slot[0] == SLOT_BASIC && !got.identity);
	CHECK_INT(judge_request(&j, HOST_GITHUB_API, true, &req, &got), ==, JUDGE_FORWARD);
	CHECK_INT(got.use.n, ==, 0);
	decide(HOST_GITHUB_API, METHOD_GET, "/repos/acme/app");
	CHECK_INT(judge_request(&j, HOST_GITHUB_API, true, &req, &got), ==, JUDGE_FORWARD);
	CHECK(got.use.n == 1 && got.use.slot[0] == SLOT_BEARER && got.identity);
	j.launch.lent = PH_BIT(PH_COPILOT);
	CHECK_INT(judge_request(&j, HOST_GITHUB_API, true, &req, &got), ==, JUDGE_FORWARD);
	CHECK(got.use.n == 0 && !got.identity);
	j.launch.lent = PH_BIT(PH_GH);
	j.github = NULL;
	CHECK_INT(judge_request(&j, HOST_GITHUB_API, true, &req, &got), ==, JUDGE_FORWARD);
	CHECK_INT(got.use.n, ==, 0);
}
