/* Requests to GitHub's hosts. The first bytes choose host, method and switches, then a target to the first LF, then the
 * body. With acme/app listed, no request gets the user's rights whose path, read in whichever way, is about something
 * else; and every refusal is a whole answer in its form. */
#include "fuzz.h"

#include <string.h>

#include "base/jread.h"
#include "gate/github.h"
#include "gate/policy/github/reply.h"

/* Decoded as often as it goes, in lower case. */
static size_t plain(struct span s, uint8_t *out)
{
	size_t n = s.n, before;

	memcpy(out, s.p, n);
	do {
		before = n;
		n = http_percent_decode(SPAN(out, n), out);
	} while (n < before);
	for (size_t i = 0; i < n; i++)
		out[i] = out[i] == '\\' ? '/' : out[i] >= 'A' && out[i] <= 'Z' ? out[i] | 0x20 : out[i];
	return n;
}

static bool begins(struct span s, const char *lit)
{
	return s.n >= strlen(lit) && memcmp(s.p, lit, strlen(lit)) == 0;
}

static bool is_listed_place(enum prov_host_id host, struct span s)
{
	static const char *const api[] = { "/repos/acme/app", "/repositories/700000001", "/user",
					   "/rate_limit",     "/search/issues",		 "/search/code",
					   "/search/commits", "/search/repositories",	 "/search/labels" };

	if (host != HOST_GITHUB_API)
		return begins(s, host == HOST_GITHUB_UPLOADS ? "/repos/acme/app/releases/"
				 : host == HOST_GITHUB_MEDIA ? "/media/acme/app"
							     : "/acme/app") ||
		       (host == HOST_GITHUB_UPLOADS && begins(s, "/repositories/700000001/releases/"));
	for (size_t i = 0; i < ARRAY_SIZE(api); i++)
		if (begins(s, api[i]) && (s.n == strlen(api[i]) || s.p[strlen(api[i])] == '/'))
			return true;
	return false;
}

static void credential(enum prov_host_id host, const struct request *r)
{
	static const char *const roots[] = { "/repos/acme/app", "/repositories/700000001" };
	static const char *const bad[] = { "/hooks", "/actions/runners", "/codespaces", "/secret-scanning",
					   "/compare/victim:" };
	static const struct prov_launch gh = { .lent = PH_BIT(PH_GH) };
	static uint8_t room[HTTP_TARGET_MAX];
	struct span s = SPAN(room, plain(r->path, room));

	/* What gate lends here, vault lets out. */
	MUST(prov_allows(&gh, PH_GH, host, r->method, r->path, false, NULL));
	MUST(is_listed_place(host, s));
	if (host != HOST_GITHUB_API)
		return;
	MUST(r->method != METHOD_DELETE || !span_is(s, "/repos/acme/app"));
	for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
		struct span tail = SPAN(s.p + strlen(roots[i]), s.n - strlen(roots[i]));

		if (!begins(s, roots[i]))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
			MUST(!begins(tail, bad[k]) ||
			     (k < 4 && tail.n > strlen(bad[k]) && tail.p[strlen(bad[k])] != '/'));
		MUST(!begins(tail, "/compare/") || !memmem(tail.p, tail.n, "..victim:", 9));
	}
}

static void refusal(struct gh_decision *d)
{
	const char *type;
	struct buf out;
	struct span v;

	MUST(d->code != REFUSAL_NONE && d->what[0] && d->rule);
	MUST(d->status == 200 || (d->status >= 400 && d->status != 401 && d->status < 500));
	for (const char *s = d->what; *s; s++)
		MUST(*s >= ' ' && *s <= '~' && *s != '"' && *s != '\\');
	buf_init(&out, 1 << 20);
	MUST(gh_denial(d, &out, &type) == 0 && out.n > 0);
	if (strstr(type, "json"))
		MUST(jread_check(buf_span(&out), 8, &v) == 0);
	buf_done(&out);
}

/* As if GitHub had said it. What is cut down can be a level deeper. */
static void answer(const struct gh_scope *s, struct span body)
{
	struct buf out;
	struct span v;

	buf_init(&out, 1 << 20);
	MUST(gh_reply_issues(s, body, &out) < 0 || out.n == 0 || jread_check(buf_span(&out), 65, &v) == 0);
	buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct gh_scope scope;
	static struct request r;
	static struct gh_decision d, again;
	const struct gh_facts facts = {
		.id = 700000001, .owner = "acme", .name = "app", .has_parent = true, .parent_private = true
	};
	const struct gh_slug app = { span_str("acme"), span_str("app") };
	enum prov_host_id host;
	const uint8_t *lf;
	struct span body;

	if (n < 4)
		return 0;
	gh_scope_init(&scope);
	MUST(gh_scope_add(&scope, app, p[2] & 1 ? GH_READ : GH_WRITE) == 0);
	gh_scope_facts(&scope, app, &facts);
	if (p[2] & 2)
		MUST(gh_scope_push_refs(&scope, span_str("refs/heads/agent/*")) == 0);
	if (p[2] & 4)
		scope.switches = 0;
	host = (enum prov_host_id)(HOST_GITHUB_API + p[0] % (HOST_GITHUB_GIST_RAW - HOST_GITHUB_API + 1));
	lf = memchr(p + 3, '\n', n - 3);
	body = lf ? SPAN(lf + 1, n - (size_t)(lf - p) - 1) : SPAN(p + n, 0);
	memset(&r, 0, sizeof(r));
	r.method = (enum prov_method)(p[1] % METHODS);
	request_set_target(&r, SPAN(p + 3, n - 3 - body.n - (lf != NULL)));
	if (r.fault.status != 0)
		return 0;
	github_judge(&scope, host, &r, &d);
	if (d.verdict == GH_BODY && d.body != GH_BODY_GRAPHQL) {
		if (github_need(&r, &d, body, true) == GITHUB_ENOUGH)
			MUST(github_judge_body(NULL, &r, body, &d, NULL, NULL));
		MUST(d.verdict != GH_BODY);
	}
	MUST((d.verdict == GH_REFUSE) == (r.fault.status != 0));
	if (d.verdict == GH_CREDENTIAL)
		credential(host, &r);
	if (d.reply == GH_REPLY_ISSUES)
		answer(&scope, body);
	if (d.verdict == GH_REFUSE)
		refusal(&d);
	MUST(d.verdict != GH_ANONYMOUS || r.method == METHOD_GET || r.method == METHOD_HEAD || r.method == METHOD_POST);
	/* A smaller launch never opens more. */
	scope.n = 0;
	gh_decide(&scope, host, &r, &again);
	MUST(again.verdict != GH_CREDENTIAL || d.verdict == GH_CREDENTIAL);
	return 0;
}
