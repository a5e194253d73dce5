/* What `agent-vm why` says, against the same table and policy that gate and vault go by. */
#include <errno.h>

#include "cli/why.h"
#include "test.h"

static void parsed(const char *s, const char *host, unsigned port, const char *path, bool tls)
{
	struct why_url u;
	struct err err;

	if (why_url_parse(s, &u, &err) < 0)
		fail_msg("%s: %s", s, err.text);
	CHECK_STR(u.host, host);
	CHECK_INT(u.port, ==, port);
	CHECK_STR(u.target, path);
	CHECK_INT(u.tls, ==, tls);
	free(u.target);
}

TEST(urls_and_what_is_none)
{
	static const char *const bad[] = { "",		 "https://", "https:///x", "ftp://a", "a:0", "a:65536",
					   "a:x",	 "[::1",     "[::1]x",	   "a b",     "u@h", "https://u:p@h/",
					   "http://:80/" };
	struct why_url u;
	struct err err;

	parsed("https://API.Anthropic.com/v1/messages?x=1#y", "api.anthropic.com", 443, "/v1/messages?x=1", true);
	parsed("HTTPS://a.b.:8443", "a.b", 8443, "/", true);
	parsed("http://a", "a", 80, "/", false);
	parsed("10.0.0.1:5432", "10.0.0.1", 5432, "/", false);
	parsed("[fd00::1]:22", "fd00::1", 22, "/", false);
	parsed("https://[fd00::1]/p", "fd00::1", 443, "/p", true);
	parsed("host", "host", 443, "/", true);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (why_url_parse(bad[i], &u, &err) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
}

static void request(uint32_t lent, const char *api, enum prov_host_id host, enum prov_method m, const char *path,
		    const char *decision, const char *opens, const char *in_rule)
{
	struct prov_launch l = { .lent = lent };
	struct why w;

	if (api)
		CHECK_INT(prov_open(&l, span_str(api)), ==, 0);
	why_request(&l, NULL, host, m, path, &w);
	CHECK_STR(w.decision, decision);
	if (opens)
		CHECK_STR(w.opens, opens);
	else
		CHECK(!w.opens);
	if (!strstr(w.rule, in_rule))
		fail_msg("%s: %s", path, w.rule);
	why_done(&w);
}

TEST(requests_to_hosts_that_a_login_goes_to)
{
	uint32_t login = PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R), key = PH_BIT(PH_ANTHROPIC_KEY);

	request(login, NULL, HOST_ANTHROPIC, METHOD_POST, "/v1/messages", "allow", NULL, "(claude-a)");
	request(key, NULL, HOST_ANTHROPIC, METHOD_POST, "/v1/messages", "allow", NULL, "(anthropic-key)");
	request(login, NULL, HOST_ANTHROPIC, METHOD_DELETE, "/v1/messages", "refuse", NULL, "no rule");
	request(login, NULL, HOST_ANTHROPIC, METHOD_GET, "/v1/files/x", "refuse", "--api anthropic=files",
		"class files is off");
	request(login, "anthropic=files", HOST_ANTHROPIC, METHOD_GET, "/v1/files/x", "allow", NULL, "(claude-a)");
	request(login, "anthropic=files", HOST_ANTHROPIC, METHOD_GET, "/v1/organizations/x", "refuse", NULL, "no rule");
	request(login, NULL, HOST_ANTHROPIC, METHOD_GET, "/v1/models/%2e%2e/x", "refuse", NULL, "(path)");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_GET, "/", "allow", NULL, "without any login");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_POST, "/v1/oauth/token", "answer", "--api anthropic=foreign",
		"renewal");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_POST, "/x", "refuse", "--api anthropic=foreign", "login-inside");
	request(PH_BIT(PH_COPILOT), NULL, HOST_COPILOT, METHOD_POST, "/mcp/x", "refuse", NULL, "closed");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_GET, "/v1/oauth/token", "refuse", NULL, "takes POST");
	request(PH_BIT(PH_CODEX_A), NULL, HOST_OPENAI_TOKEN, METHOD_HEAD, "/oauth/token", "refuse", NULL, "takes POST");
	request(login, "anthropic=foreign", HOST_CLAUDE_TOKEN, METHOD_POST, "/x", "allow", NULL, "signing in inside is on");
	request(login, "anthropic=foreign", HOST_CLAUDE_TOKEN, METHOD_POST, "/v1/oauth/token", "answer", NULL, "renewal");
	request(PH_BIT(PH_COPILOT), NULL, HOST_GITHUB_API, METHOD_GET, "/copilot_internal/user", "allow", NULL, "(copilot)");
	request(PH_BIT(PH_COPILOT), NULL, HOST_GITHUB_API, METHOD_GET, "/copilot_internal/v2/token", "refuse", NULL, "closed");
	request(PH_BIT(PH_COPILOT), NULL, HOST_GITHUB_API, METHOD_POST, "/repos/a/b/issues", "refuse", "--repo a/b", "a/b is not on");
}

static struct gh_scope list;

static void listed(enum prov_host_id host, enum prov_method m, const char *target, const char *decision, const char *kind, const char *opens,
		   const char *in_rule)
{
	struct prov_launch l = { .lent = PH_BIT(PH_GH) };
	struct why w;

	why_request(&l, &list, host, m, target, &w);
	if (strcmp(w.decision, decision) != 0 || strcmp(w.kind ? w.kind : "", kind) != 0 || strcmp(w.opens ? w.opens : "", opens) != 0 ||
	    !strstr(w.rule, in_rule))
		fail_msg("%s: %s, %s, %s, %s", target, w.decision, w.kind ? w.kind : "-", w.opens ? w.opens : "-", w.rule);
	why_done(&w);
}

TEST(requests_to_github_as_gate_judges_them)
{
	static const enum prov_host_id api = HOST_GITHUB_API, git = HOST_GITHUB_GIT;

	gh_scope_init(&list);
	CHECK_INT(gh_scope_add(&list, (struct gh_slug){ span_str("acme"), span_str("app") }, GH_WRITE), ==, 0);
	CHECK_INT(gh_scope_add(&list, (struct gh_slug){ span_str("acme"), span_str("lib") }, GH_READ), ==, 0);
	listed(api, METHOD_GET, "/repos/acme/app", "allow", "gh", "", "with the host's login");
	listed(api, METHOD_GET, "/repos/acme/lib", "allow", "gh", "", "with the host's login");
	listed(api, METHOD_GET, "/repos/octo/pub", "allow", "", "--repo octo/pub=read", "without the user's rights");
	listed(api, METHOD_POST, "/repos/acme/app/issues", "allow", "gh", "", "with the host's login");
	listed(api, METHOD_POST, "/repos/acme/lib/issues", "refuse", "", "--repo acme/lib=write", "reading only");
	listed(api, METHOD_POST, "/repos/octo/pub/issues", "refuse", "", "--repo octo/pub", "not on this sandbox's GitHub list");
	listed(api, METHOD_DELETE, "/repos/acme/app", "refuse", "", "", "(");
	listed(api, METHOD_POST, "/graphql", "body", "", "", "body decides");
	listed(git, METHOD_GET, "/acme/app.git/info/refs?service=git-receive-pack", "allow", "gh", "", "info/refs");
	listed(git, METHOD_GET, "/acme/lib.git/info/refs?service=git-receive-pack", "refuse", "", "--repo acme/lib=write", "reading only");
	listed(git, METHOD_GET, "/acme/lib.git/info/refs?service=git-upload-pack", "allow", "gh", "", "info/refs");
	listed(git, METHOD_POST, "/acme/app.git/git-receive-pack", "allow", "gh", "", "git push");
	listed(git, METHOD_POST, "/acme/lib.git/git-receive-pack", "refuse", "", "--repo acme/lib=write", "reading only");
	listed(git, METHOD_POST, "/octo/pub.git/git-receive-pack", "refuse", "", "--repo octo/pub", "not on this sandbox's GitHub list");
	listed(git, METHOD_POST, "/acme/app.git/git-upload-pack", "allow", "gh", "", "git fetch");
	listed(git, METHOD_POST, "/login", "refuse", "", "", "(");
	listed(HOST_GITHUB_API, METHOD_OPTIONS, "/repos/acme/app", "refuse", "", "", "(method)");
	/* The ref of a push stands in its body. */
	CHECK_INT(gh_scope_push_refs(&list, span_str("refs/heads/x/*")), ==, 0);
	listed(git, METHOD_POST, "/acme/app.git/git-receive-pack", "refuse", "", "--github push-refs=GLOBS that hold it", "may push");
}

TEST(what_a_token_endpoint_answers)
{
	uint32_t login = PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R);

	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_POST, "/v1/oauth/token/revoke", "answer", NULL, "the host's login stays");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_GET, "/v1/oauth/token/revoke", "refuse", NULL, "(method)");
	request(login, NULL, HOST_CLAUDE_TOKEN, METHOD_POST, "/v1/oauth/token?x", "refuse", NULL, "(path)");
	request(PH_BIT(PH_CODEX_A), NULL, HOST_OPENAI_TOKEN, METHOD_POST, "/oauth/revoke", "answer", NULL, "the host's login stays");
}

static void network(const char *name, const char *addr, unsigned port, bool lan, const char *decision,
		    const char *opens)
{
	struct policy p = { .allow_lan = lan };
	struct addr a;
	struct why w;

	CHECK_INT(addr_parse(addr, &a), ==, 0);
	CHECK_INT(addr_parse("10.1.1.1", &p.hosts[0].addr), ==, 0);
	p.hosts[0].bits = 24;
	p.n_hosts = 1;
	why_network(&p, name, &a, (uint16_t)port, &w);
	CHECK_STR(w.decision, decision);
	if (opens)
		CHECK_STR(w.opens, opens);
	else
		CHECK(!w.opens);
	why_done(&w);
}

TEST(connections_that_nobody_looks_into)
{
	network(NULL, "93.184.216.34", 80, false, "allow", NULL);
	network(NULL, "192.168.1.10", 5432, false, "refuse", "--allow-egress 192.168.1.10:5432");
	network(NULL, "192.168.1.10", 5432, true, "allow", NULL);
	network("db.lan", "192.168.1.10", 5432, false, "refuse", "--allow-egress db.lan");
	network("db.lan", "192.168.1.10", 5432, true, "allow", NULL);
	network(NULL, "93.184.216.34", 22, false, "refuse", "--allow-ssh 93.184.216.34");
	network(NULL, "169.254.169.254", 80, true, "refuse", "--allow-egress 169.254.169.254:80");
	network(NULL, "10.1.1.1", 80, true, "refuse", "--allow-egress 10.1.1.1:80");
	network(NULL, "127.0.0.1", 80, true, "refuse", NULL);
}

TEST(a_public_service_whose_name_does_not_resolve)
{
	struct policy p = { .allow_lan = true };
	struct why w;

	why_network(&p, "api.anthropic.com", NULL, 443, &w);
	CHECK_STR(w.decision, "allow");
	CHECK_STR(w.rule, "judged as a public address, for the name does not resolve here: public internet");
	why_done(&w);
	why_network(&p, "api.anthropic.com", NULL, 22, &w);
	CHECK_STR(w.decision, "refuse");
	CHECK_STR(w.opens, "--allow-ssh api.anthropic.com");
	why_done(&w);
	p.no_network = true;
	why_network(&p, "api.anthropic.com", NULL, 443, &w);
	CHECK_STR(w.decision, "refuse");
	why_done(&w);
}
