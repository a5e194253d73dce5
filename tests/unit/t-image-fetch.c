/* The pure parts of fetching: challenges, logins, proxies, ranges. What registries do is in tests/image. */
#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "image/auth.h"
#include "image/challenge.h"
#include "image/proxy.h"
#include "image/registry.h"

static int parse(const char *s, struct challenge c[CHALLENGES_MAX])
{
	return challenge_parse(s, strlen(s), c);
}

static void drop(struct challenge *c, int n)
{
	for (int i = 0; i < n; i++)
		challenge_done(&c[i]);
}

TEST(a_bearer_challenge_has_its_parts)
{
	struct challenge c[CHALLENGES_MAX];

	CHECK_INT(parse("Bearer realm=\"https://a.example/t?x=1,2\",service=\"r \\\"q\\\"\", SCOPE=\"repository:a/b:pull\" ,error=x", c),
		  ==, 1);
	CHECK_INT(c[0].scheme, ==, CHALLENGE_BEARER);
	CHECK_STR(c[0].realm, "https://a.example/t?x=1,2");
	CHECK_STR(c[0].service, "r \"q\"");
	CHECK_STR(c[0].scope, "repository:a/b:pull");
	CHECK_STR(c[0].error, "x");
	drop(c, 1);
}

TEST(several_challenges_stand_in_one_header)
{
	struct challenge c[CHALLENGES_MAX];

	CHECK_INT(parse("Negotiate, NTLM TlRM==, bAsIc realm=x, charset=\"UTF-8\", Bearer realm = \"y\"", c), ==, 4);
	CHECK_INT(c[0].scheme, ==, CHALLENGE_OTHER);
	CHECK_INT(c[1].scheme, ==, CHALLENGE_OTHER);
	CHECK_INT(c[2].scheme, ==, CHALLENGE_BASIC);
	CHECK_STR(c[2].realm, "x");
	CHECK_INT(c[3].scheme, ==, CHALLENGE_BEARER);
	CHECK_STR(c[3].realm, "y");
	drop(c, 4);
	CHECK_INT(parse("", c), ==, 0);
	CHECK_INT(parse(" ,, ", c), ==, 0);
}

TEST(broken_challenges_are_refused_whole)
{
	static const char *const cases[] = {
		"Bearer realm=\"open", "Bearer realm=\"a\" service=\"b\"", "Bearer realm=\"a\",realm=\"b\"",
		"Bearer realm=\"a\nb\"", "\"x\"", "Basic a=b,Basic a=b,Basic a=b,Basic a=b,Basic a=b,Basic a=b,Basic a=b,Basic a=b,Basic a=b",
		"Basic realm=a=b", "Bearer realm=\"a\\",
	};
	struct challenge c[CHALLENGES_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (parse(cases[i], c) != -EBADMSG)
			fail_msg("taken: %s", cases[i]);
}

static int lookup(const char *json, const char *domain, const char *path, struct auth_entry *e)
{
	*e = (struct auth_entry){ 0 };
	return auth_lookup(json, strlen(json), domain, path, e);
}

TEST(the_longest_key_wins)
{
	static const char json[] = "{\"auths\":{\"r.example\":{\"auth\":\"YTp4\"},\"r.example/o\":{\"auth\":\"Yjp4\"},"
				   "\"r.example/o/p/q\":{\"auth\":\"Yzp4\"}}}";
	static const struct {
		const char *path, *user;
	} cases[] = { { "o/p", "b" }, { "o/p/q", "c" }, { "o", "b" }, { "other", "a" }, { "oo", "a" } };
	struct auth_entry e;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_INT(lookup(json, "r.example", cases[i].path, &e), ==, 1);
		CHECK_STR(e.user, cases[i].user);
		CHECK_STR(e.password, "x");
		auth_entry_done(&e);
	}
	CHECK_INT(lookup(json, "s.example", "o", &e), ==, 0);
}

TEST(dockers_own_keys_are_known)
{
	static const char *const keys[] = { "https://r.example", "https://r.example/v1/", "https://r.example/v2/", "r.example/v2/" };
	struct auth_entry e;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		AUTO_FREE(char, json);

		json = xasprintf("{\"auths\":{\"%s\":{\"auth\":\"YTp4\"}}}", keys[i]);
		CHECK_INT(lookup(json, "r.example", "a", &e), ==, 1);
		auth_entry_done(&e);
	}
	CHECK_INT(lookup("{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"YTpiOmM=\"}}}", "docker.io", "library/x", &e), ==, 1);
	CHECK_STR(e.user, "a");
	CHECK_STR(e.password, "b:c");
	auth_entry_done(&e);
}

TEST(members_of_an_entry)
{
	struct auth_entry e;

	/* A NUL tail, as some tools write it: base64 of "a:b\0\0". */
	CHECK_INT(lookup("{\"auths\":{\"r\":{\"auth\":\"YTpiAAA=\"}}}", "r", "x", &e), ==, 1);
	CHECK_STR(e.password, "b");
	auth_entry_done(&e);
	CHECK_INT(lookup("{\"auths\":{\"r\":{\"username\":\"u\",\"password\":\"p\"}}}", "r", "x", &e), ==, 1);
	CHECK_STR(e.user, "u");
	auth_entry_done(&e);
	CHECK_INT(lookup("{\"auths\":{\"r\":{\"auth\":\"\",\"identitytoken\":\"T\"}}}", "r", "x", &e), ==, 1);
	CHECK_STR(e.identity, "T");
	CHECK(!e.user);
	auth_entry_done(&e);
	/* An empty entry marks a store. */
	CHECK_INT(lookup("{\"auths\":{\"r\":{}},\"credHelpers\":{\"r\":\"gcr\"},\"credsStore\":\"s\"}", "r", "x", &e), ==, 1);
	CHECK_STR(e.helper, "gcr");
	CHECK_STR(e.server, "r");
	auth_entry_done(&e);
	CHECK_INT(lookup("{\"credsStore\":\"secretservice\"}", "docker.io", "x", &e), ==, 1);
	CHECK_STR(e.server, "https://index.docker.io/v1/");
	auth_entry_done(&e);
	/* Half an entry is none, and leaves nothing behind. */
	CHECK_INT(lookup("{\"auths\":{\"r\":{\"username\":\"u\"}}}", "r", "x", &e), ==, 0);
	CHECK_INT(lookup("{\"auths\":{\"r/x\":{\"password\":\"p\"},\"r\":{\"auth\":\"YTpi\"}}}", "r", "x", &e), ==, 1);
	CHECK_STR(e.user, "a");
	auth_entry_done(&e);
}

TEST(broken_logins_are_not_guessed)
{
	static const char *const cases[] = {
		"", "[]", "{\"auths\":{\"r\":{\"auth\":\"?\"}}}", "{\"auths\":{\"r\":{\"auth\":\"YWI=\"}}}",
		"{\"auths\":{\"r\":{\"auth\":\"YTpi===\"}}}", "{\"auths\":{\"r\":{\"auth\":\"Y\"}}}",
		"{\"credsStore\":\"../x\"}", "{\"credsStore\":\"a b\"}",
	};
	struct auth_entry e;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (lookup(cases[i], "r", "x", &e) != -EBADMSG)
			fail_msg("taken: %s", cases[i]);
}

TEST(basic_is_base64)
{
	static const char *const cases[][3] = { { "a", "b", "YTpi" }, { "ab", "b", "YWI6Yg==" }, { "a", "bcd", "YTpiY2Q=" },
						{ "", "", "Og==" } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE(char, s);

		s = auth_basic(cases[i][0], cases[i][1]);
		CHECK_STR(s, cases[i][2]);
	}
}

static const char *const *the_env;

static const char *env(const char *name)
{
	for (size_t i = 0; the_env[i]; i += 2)
		if (strcmp(the_env[i], name) == 0)
			return the_env[i + 1];
	return NULL;
}

static char *proxy_of(const char *const *vars, bool https, const char *host)
{
	struct proxy p;
	struct err note;
	char *s;
	int r;

	the_env = vars;
	r = proxy_for(https, host, https ? 443 : 80, env, &p, &note);
	if (r < 0)
		return xstrdup("error");
	if (r == 0)
		return xstrdup(note.text[0] ? "noted" : "direct");
	s = xasprintf("%s:%u%s%s%s%s", p.host, p.port, p.user ? " " : "", p.user ? p.user : "", p.user ? "/" : "",
		      p.user ? p.password : "");
	proxy_done(&p);
	return s;
}

TEST(proxy_variables)
{
	static const struct {
		const char *vars[8];
		bool https;
		const char *host, *want;
	} cases[] = {
		{ { NULL }, true, "h.example", "direct" },
		{ { "https_proxy", "http://p:1", "http_proxy", "http://q:2" }, true, "h.example", "p:1" },
		{ { "https_proxy", "http://p:1", "http_proxy", "http://q:2" }, false, "h.example", "q:2" },
		{ { "http_proxy", "q:2" }, true, "h.example", "q:2" },
		{ { "all_proxy", "a", "http_proxy", "q:2" }, true, "h.example", "a:80" },
		{ { "https_proxy", "", "HTTPS_PROXY", "http://up:3/" }, true, "h.example", "up:3" },
		{ { "https_proxy", "lo:1", "HTTPS_PROXY", "up:3" }, true, "h.example", "lo:1" },
		{ { "https_proxy", "http://u%20:p%3A@p:1" }, true, "h.example", "p:1 u /p:" },
		{ { "https_proxy", "http://[::1]:8" }, true, "h.example", "[::1]:8" },
		{ { "https_proxy", "socks5://p:1" }, true, "h.example", "noted" },
		{ { "https_proxy", "https://p:1" }, true, "h.example", "noted" },
		{ { "https_proxy", "http://p:0" }, true, "h.example", "error" },
		{ { "https_proxy", "http://" }, true, "h.example", "error" },
		{ { "https_proxy", "http://u%0a:x@p:1" }, true, "h.example", "error" },
		{ { "https_proxy", "p:1" }, true, "127.0.0.1", "direct" },
		{ { "https_proxy", "p:1" }, true, "192.168.1.1", "direct" },
		{ { "https_proxy", "p:1" }, true, "::ffff:10.1.2.3", "direct" },
		{ { "https_proxy", "p:1" }, true, "a.localhost", "direct" },
		{ { "https_proxy", "p:1" }, true, "8.8.8.8", "p:1" },
		{ { "https_proxy", "p:1", "no_proxy", "8.8.0.0/15" }, true, "8.9.8.8", "direct" },
		{ { "https_proxy", "p:1", "no_proxy", "8.8.0.0/15" }, true, "8.10.8.8", "p:1" },
		{ { "https_proxy", "p:1", "no_proxy", "8.8.0.0/99,x" }, true, "8.8.8.8", "p:1" },
		{ { "https_proxy", "p:1", "no_proxy", "2001:db8::/33" }, true, "2001:db8:7fff::1", "direct" },
		{ { "https_proxy", "p:1", "no_proxy", "2001:db8::/33" }, true, "2001:db8:8000::1", "p:1" },
		{ { "https_proxy", "p:1", "no_proxy", "[2001:db8::1]:443" }, true, "2001:db8::1", "direct" },
		{ { "https_proxy", "p:1", "no_proxy", "example" }, true, "h.example", "direct" },
		{ { "https_proxy", "p:1", "no_proxy", ".EXAMPLE" }, true, "h.example.", "direct" },
		{ { "https_proxy", "p:1", "no_proxy", "ample" }, true, "h.example", "p:1" },
		{ { "https_proxy", "p:1", "no_proxy", "h.example:444" }, true, "h.example", "p:1" },
		{ { "https_proxy", "p:1", "NO_PROXY", "*" }, true, "h.example", "direct" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE(char, got);

		got = proxy_of(cases[i].vars, cases[i].https, cases[i].host);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("case %zu: %s, not %s", i, got, cases[i].want);
	}
}

TEST(this_machine)
{
	static const char *const here[] = { "127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST.", "a.localhost",
					    "::ffff:127.0.0.1" };
	static const char *const elsewhere[] = { "128.0.0.1", "localhost.example", "notlocalhost", "0.0.0.0", "::", "127.1.example",
						 "10.0.0.1", "" };

	for (size_t i = 0; i < ARRAY_SIZE(here); i++)
		if (!host_is_loopback(here[i]))
			fail_msg("not here: %s", here[i]);
	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++)
		if (host_is_loopback(elsewhere[i]))
			fail_msg("here: %s", elsewhere[i]);
}

TEST(content_ranges)
{
	static const char *const bad[] = { "", "bytes", "bytes 1-0/5", "bytes 1-5/5", "bytes -1-2/5", "bytes 1-2", "bytes */5",
					   "items 1-2/5", "bytes 1-2/x", "bytes 99999999999999999999-2/5" };
	uint64_t first = 1, total = 1;

	CHECK_INT(content_range_parse("Bytes 5-9/10", &first, &total), ==, 0);
	CHECK(first == 5 && total == 10);
	CHECK_INT(content_range_parse("bytes 0-0/*", &first, &total), ==, 0);
	CHECK(first == 0 && total == UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (content_range_parse(bad[i], &first, &total) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
}
