#include "test.h"

#include <arpa/inet.h>
#include <errno.h>

#include "cli/specs.h"

static struct err err;

TEST(publish_forms)
{
	struct publish p;

	CHECK_INT(publish_parse("3000:80", &p, &err), ==, 0);
	CHECK(p.family == AF_UNSPEC && p.host == 3000 && p.guest == 80 && !p.udp);
	CHECK_INT(publish_parse("53:5353/udp", &p, &err), ==, 0);
	CHECK(p.udp && p.host == 53 && p.guest == 5353);
	CHECK_INT(publish_parse("0.0.0.0:1:65535/tcp", &p, &err), ==, 0);
	CHECK(p.family == AF_INET && p.host == 1 && p.guest == 65535 && !p.udp);
	CHECK_INT(publish_parse("[::1]:8080:80", &p, &err), ==, 0);
	CHECK(p.family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&p.addr) && p.host == 8080);
}

static void check_publish_reason(const char *s, const char *want)
{
	struct publish p = { .host = 7 };

	CHECK_INT(publish_parse(s, &p, &err), ==, -EINVAL);
	CHECK_INT(p.host, ==, 7);
	if (strncmp(err.text, want, strlen(want)) != 0)
		fail_msg("%s: \"%s\", not \"%s\"", s, err.text, want);
}

TEST(publish_says_what_is_wrong)
{
	static const char *const shapes[] = { "", ":", "80:", ":80", "a:b", "80:80/sctp", "80:80/", "80/tcp", ":80:80",
					      "80:80:", "1.2.3.4:80", "-1:80", "80 :80", "99999", "0" };

	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		check_publish_reason(shapes[i], "not [BIND:]HOST:GUEST[/tcp|/udp]; write it as in --publish 3000:3000");
	check_publish_reason("80", "not [BIND:]HOST:GUEST[/tcp|/udp]; for one port write --publish 80:80");
	check_publish_reason("0:80", "0 is no port; ports are 1 to 65535");
	check_publish_reason("80:65536", "65536 is no port");
	check_publish_reason("lan:80:80", "'lan' is no IP address");
	check_publish_reason("::1:80:80", "an IPv6 address needs brackets; write --publish [::1]:HOST:GUEST");
	check_publish_reason("[1.2.3.4]:80:80", "'[1.2.3.4]' is no IP address");
	check_publish_reason("\x1b:80:80", "'\\x1b' is no IP address");
}

static bool meets(const char *a, const char *b)
{
	struct publish x, y;

	CHECK_INT(publish_parse(a, &x, &err), ==, 0);
	CHECK_INT(publish_parse(b, &y, &err), ==, 0);
	CHECK(publish_meets(&x, &y) == publish_meets(&y, &x));
	return publish_meets(&x, &y);
}

TEST(two_publishes_meet_when_they_want_one_socket)
{
	CHECK(meets("80:1", "80:2"));
	CHECK(meets("80:1", "127.0.0.1:80:2"));
	CHECK(meets("80:1", "[::1]:80:2"));
	CHECK(meets("80:1", "0.0.0.0:80:2"));
	CHECK(meets("10.0.0.1:80:1", "0.0.0.0:80:2"));
	CHECK(!meets("80:1", "81:1"));
	CHECK(!meets("80:1", "80:1/udp"));
	CHECK(!meets("80:1", "10.0.0.1:80:2"));
	CHECK(!meets("10.0.0.2:80:1", "10.0.0.1:80:2"));
}

TEST(egress_forms)
{
	struct policy_rule e;

	CHECK_INT(egress_parse("192.168.1.10", &e, &err), ==, 0);
	CHECK(e.name[0] == '\0' && e.net.addr.family == AF_INET && e.net.bits == 32 && e.lo == 0 && e.tcp && e.udp);
	CHECK_INT(egress_parse("10.0.0.0/8:5432", &e, &err), ==, 0);
	CHECK(e.net.bits == 8 && e.lo == 5432 && e.hi == 5432);
	CHECK_INT(egress_parse("10.0.0.1:80-90/udp", &e, &err), ==, 0);
	CHECK(e.lo == 80 && e.hi == 90 && e.udp && !e.tcp);
	CHECK_INT(egress_parse("fd12::1", &e, &err), ==, 0);
	CHECK(e.net.addr.family == AF_INET6 && e.net.bits == 128 && e.lo == 0);
	CHECK_INT(egress_parse("fd12::/16", &e, &err), ==, 0);
	CHECK(e.net.addr.family == AF_INET6 && e.net.bits == 16);
	CHECK_INT(egress_parse("[fd12::/16]:5432/tcp", &e, &err), ==, 0);
	CHECK(e.net.bits == 16 && e.lo == 5432 && e.tcp && !e.udp);
	CHECK_INT(egress_parse("[fd12::1]", &e, &err), ==, 0);
	/* NAT64's form is the IPv4 address inside (RFC 6052 section 2.1). */
	CHECK_INT(egress_parse("[64:ff9b::a00:1]:5432", &e, &err), ==, 0);
	CHECK(e.net.addr.family == AF_INET && e.net.bits == 32 && e.net.addr.b[0] == 10 && e.net.addr.b[3] == 1 && e.lo == 5432);
	CHECK_INT(egress_parse("64:ff9b::10.0.0.0/104", &e, &err), ==, 0);
	CHECK(e.net.addr.family == AF_INET && e.net.bits == 8);
	CHECK_INT(egress_parse("64:ff9b::/95", &e, &err), ==, 0);
	CHECK(e.net.addr.family == AF_INET6 && e.net.bits == 95);
	CHECK_INT(egress_parse("db.lan:5432", &e, &err), ==, 0);
	CHECK_STR(e.name, "db.lan");
	CHECK_INT(e.lo, ==, 5432);
	CHECK_INT(egress_parse("NAS.", &e, &err), ==, 0);
	CHECK_STR(e.name, "nas");
}

TEST(egress_refuses_everything_else)
{
	static const char *const wrong[] = {
		"", ":80", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:90-80", "10.0.0.1:80-", "10.0.0.1:-80",
		"10.0.0/8", "10.0.0.0/33", "fd12::/129", "[fd12::1", "[fd12::1]80", "[10.0.0.1]:80", "300.1.1.1", "1.2.3",
		"*.lan", "a..b", "-a.lan", "a-.lan", "a.lan-", "http://x", "a b", "db.lan/24", "db.lan:http", "a_\xff", ".",
		"/tcp", "10.0.0.1/", "10.0.0.1/-1", "127.0.0.1", "::1", "127.0.0.0/9:80", "::ffff:10.0.0.1", "224.0.0.1", "fe80::1",
		"64:ff9b::7f00:1",
	};
	struct policy_rule e = { .lo = 7 };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (egress_parse(wrong[i], &e, &err) != -EINVAL || e.lo != 7 || !*err.text)
			fail_msg("'%s' was taken", wrong[i]);
}

TEST(ssh_is_not_for_github)
{
	static const char *const no[] = { "github.com", "GitHub.com:22", "ssh.github.com:443", "github.com.", "x/y",
					  "h:1-2", "", "20.205.243.166", "140.82.112.3:22" };
	static const char *const no_egress[] = { "20.205.243.166:22", "140.82.112.3:22", "140.82.112.3:22/tcp", "[2606:50c0::1]:22", "[64:ff9b::140.82.112.3]:22",
						 "github.com:22", "SSH.GitHub.com.:22/tcp" };
	struct policy_rule e;

	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
		if (ssh_dest_parse(no[i], &e, &err) != -EINVAL)
			fail_msg("'%s' was taken", no[i]);
	for (size_t i = 0; i < sizeof(no_egress) / sizeof(*no_egress); i++)
		if (egress_parse(no_egress[i], &e, &err) != -EINVAL)
			fail_msg("'%s' was taken", no_egress[i]);
	CHECK_INT(ssh_dest_parse("127.0.0.1", &e, &err), ==, -EINVAL);
	CHECK_STR(err.text, "nothing can open this address; leave the option out");
	/* The rest of it, and other networks, stay possible. */
	CHECK_INT(egress_parse("20.205.243.166", &e, &err), ==, 0);
	CHECK_INT(egress_parse("20.205.243.166:443", &e, &err), ==, 0);
	CHECK_INT(egress_parse("140.82.112.0/20:22", &e, &err), ==, 0);
	CHECK_INT(egress_parse("20.205.243.176:22", &e, &err), ==, 0);
	CHECK_INT(egress_parse("github.com", &e, &err), ==, 0);
	CHECK_INT(egress_parse("github.com:22/udp", &e, &err), ==, 0);
	CHECK_INT(egress_parse("notgithub.com:22", &e, &err), ==, 0);
	CHECK_INT(ssh_dest_parse("notgithub.com:2222", &e, &err), ==, 0);
	CHECK_INT(e.lo, ==, 2222);
	CHECK_INT(ssh_dest_parse("github.com.example.org", &e, &err), ==, 0);
	CHECK_INT(ssh_dest_parse("10.0.0.1", &e, &err), ==, 0);
}

TEST(repo_forms)
{
	static const char *const right[] = {
		"acme/app",
		"https://github.com/acme/app",
		"https://github.com/acme/app.git",
		"https://github.com/acme/app/",
		"https://github.com/acme/app.git/",
		"HTTPS://GitHub.com:443/acme/app",
		"http://github.com/acme/app",
		"https://user:pw@github.com/acme/app.git",
		"git@github.com:acme/app.git",
		"ssh://git@github.com/acme/app",
		"ssh://git@github.com:22/acme/app.git",
		"ssh://git@ssh.github.com:443/acme/app.git",
		"git://github.com/acme/app.git",
		"org-123@github.com:acme/app.git",
	};
	struct repo r;

	for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
		if (repo_parse(right[i], &r, &err) < 0)
			fail_msg("%s: %s", right[i], err.text);
		CHECK_STR(r.owner, "acme");
		CHECK_STR(r.name, "app");
		CHECK_INT(r.level, ==, GH_WRITE);
	}
	CHECK_INT(repo_parse("acme/app=read", &r, &err), ==, 0);
	CHECK_INT(r.level, ==, GH_READ);
	CHECK_INT(repo_parse("https://github.com/a_b-c/x.y_z-1=admin", &r, &err), ==, 0);
	CHECK_INT(r.level, ==, GH_ADMIN);
	CHECK_STR(r.owner, "a_b-c");
	CHECK_STR(r.name, "x.y_z-1");
}

TEST(repo_refuses_everything_else)
{
	static const char *const wrong[] = {
		"", "/", "acme/", "/app", "acme/app/x", "acme/..", "acme/.", "acme/app.git", "acme/app.wiki", "-a/app",
		"acme/a b", "acme/\xc3\xa4", "https://gitlab.com/acme/app", "https://github.com.evil.org/acme/app",
		"https://evil.org/@github.com/acme/app", "ssh://root@github.com/acme/app", "x@github.com:acme/app",
		"org-@github.com:acme/app", "org-x@github.com:acme/app", "https://github.com/acme", "git@github.com:acme",
		"https://github.com:22/acme/app", "https://github.com/acme/app?x", "acme/app=", "acme/app=owner", "=read",
		"0123456789012345678901234567890123456789/app",
	};
	struct repo r = { .level = GH_ADMIN };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (repo_parse(wrong[i], &r, &err) != -EINVAL || r.level != GH_ADMIN || r.owner[0])
			fail_msg("'%s' was taken", wrong[i]);
	CHECK_INT(repo_parse("acme", &r, &err), ==, -EINVAL);
	CHECK_STR(err.text, "not OWNER/REPO and not a GitHub URL; write --repo OWNER/acme");
	CHECK_INT(repo_parse("a b", &r, &err), ==, -EINVAL);
	CHECK_STR(err.text, "not OWNER/REPO and not a GitHub URL; write --repo OWNER/REPO");
	CHECK_INT(repo_parse("acme/app=root", &r, &err), ==, -EINVAL);
	CHECK_STR(err.text, "'root' is no level; levels are read, write and admin");
}

TEST(github_switches_and_api_classes)
{
	static const char *const good[] = { "merge=on", "ci=off", "wiki=off", "push-refs=refs/heads/x/*",
					    "protect-workflows=on", "public-graphql-lane=off",
					    "foreign-credentials=refuse", "foreign-credentials=anon" };
	static const char *const bad[] = { "", "merge", "merge=", "=on", "merge=yes", "merge=on off", "merg=on", "mcp=on",
					   "foreign-credentials=on", "merge=o", "merge=anon" };
	static const char *const api_good[] = { "anthropic=files", "openai=cloud", "copilot=foreign" };
	static const char *const api_bad[] = { "anthropic=cloud", "google=files", "anthropic", "openai=" };

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		CHECK_INT(github_switch_check(good[i], &err), ==, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK_INT(github_switch_check(bad[i], &err), ==, -EINVAL);
	CHECK_INT(github_switch_check("merg=on", &err), ==, -EINVAL);
	CHECK_STR(err.text, "'merg' is no switch; there are: merge ci wiki push-refs protect-workflows "
			    "public-graphql-lane foreign-credentials");
	for (size_t i = 0; i < sizeof(api_good) / sizeof(*api_good); i++)
		CHECK_INT(api_class_check(api_good[i], &err), ==, 0);
	for (size_t i = 0; i < sizeof(api_bad) / sizeof(*api_bad); i++)
		CHECK_INT(api_class_check(api_bad[i], &err), ==, -EINVAL);
}

TEST(env_names)
{
	CHECK_INT(env_name_len("A"), ==, 1);
	CHECK_INT(env_name_len("_a1=x=y"), ==, 3);
	CHECK_INT(env_name_len("A="), ==, 1);
	CHECK_INT(env_name_len("1A=x"), ==, 0);
	CHECK_INT(env_name_len("=x"), ==, 0);
	CHECK_INT(env_name_len(""), ==, 0);
	CHECK_INT(env_name_len("A-B=x"), ==, 0);
	CHECK_INT(env_name_len("A B"), ==, 0);
}
