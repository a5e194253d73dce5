#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "gate/policy/github/lookup.h"
#include "proto/gatecfg.h"
#include "proto/rec.h"

static bool remote(const char *url, const char *want)
{
	struct gh_slug s;

	if (!gh_remote_parse(span_str(url), &s))
		return !want;
	if (!want)
		return false;
	return s.owner.n + 1 + s.name.n == strlen(want) && memcmp(s.owner.p, want, s.owner.n) == 0 &&
	       memcmp(s.name.p, want + s.owner.n + 1, s.name.n) == 0;
}

TEST(remotes_of_github_are_read_in_every_form)
{
	CHECK(remote("https://github.com/acme/app", "acme/app"));
	CHECK(remote("https://GitHub.com:443/Acme/App.git/", "Acme/App"));
	CHECK(remote("http://x:y@github.com/acme/app.git", "acme/app"));
	CHECK(remote("git@github.com:acme/app.git", "acme/app"));
	CHECK(remote("git@github.com:/acme/app", "acme/app"));
	CHECK(remote("org-4711@github.com:acme/app", "acme/app"));
	CHECK(remote("4711@github.com:acme/app", "acme/app"));
	CHECK(remote("ssh://git@github.com/acme/app.git", "acme/app"));
	CHECK(remote("ssh://git@github.com:22/acme/app", "acme/app"));
	CHECK(remote("SSH://git@ssh.github.com:443/acme/app", "acme/app"));
	CHECK(remote("git://github.com/acme/a.b_c-d", "acme/a.b_c-d"));
}

TEST(remotes_of_others_are_not)
{
	static const char *const urls[] = {
		"",
		"acme/app",
		"https://github.com",
		"https://github.com/acme",
		"https://github.com/acme/app/tree/main",
		"https://github.com/acme/app.git.git",
		"https://github.com/acme/app.wiki.git",
		"https://github.com/acme/..",
		"https://github.com//acme/app",
		"https://github.com/acme/app//",
		"https://github.com/acme/app?x",
		"https://github.com/acme/%61pp",
		"https://github.com/-acme/app",
		"https://github.com/ac.me/app",
		"https://us er@github.com/acme/app",
		"https://us\x01er@github.com/acme/app",
		"https://github.com:444/acme/app",
		"https://github.com@evil.example/acme/app",
		"https://evil.example/@github.com/acme/app",
		"https://evil.example#@github.com/acme/app",
		"https://evil.example\\@github.com/acme/app",
		"https://github.com.evil.example/acme/app",
		"https://www.github.com/acme/app",
		"git@evil.example:acme/app",
		"root@github.com:acme/app",
		"org-@github.com:acme/app",
		"github.com:acme/app",
		"/srv/git@github.com:acme/app",
		"./git@github.com:acme/app",
		"ssh://github.com/acme/app",
		"ssh://git@github.com:443/acme/app",
		"https://github.com/acme/app\n",
		"https://github.com/acme/app\xe2\x84\xaa",
		"file:///acme/app",
	};

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++)
		CHECK(remote(urls[i], NULL));
}

static struct gh_scope scope;

static int add(const char *slug, enum gh_level level)
{
	struct gh_slug s;

	return gh_slug_parse(span_str(slug), &s) ? gh_scope_add(&scope, s, level) : -EINVAL;
}

static const struct gh_repo *find(const char *slug)
{
	return gh_scope_find_slug(&scope, span_str(slug));
}

static void facts(const char *slug, struct gh_facts f)
{
	struct gh_slug s;

	CHECK(gh_slug_parse(span_str(slug), &s));
	gh_scope_facts(&scope, s, &f);
}

TEST(names_fold_in_ascii_only)
{
	gh_scope_init(&scope);
	CHECK_INT(add("acme/kit", GH_WRITE), ==, 0);
	CHECK(find("ACME/KIT"));
	CHECK(!find("acme/\xe2\x84\xaait")); /* KELVIN SIGN */
	CHECK(!find("acme/k\xc4\xb1t"));     /* dotless i */
	CHECK(!find("acme/ki"));
	CHECK(!find("acme/kit2"));
	CHECK(!find("acme/kit.git"));
	CHECK_INT(add("acme/KIT", GH_READ), ==, 0);
	CHECK_INT(scope.n, ==, 1);
	CHECK_INT(find("acme/kit")->level, ==, GH_READ);
	CHECK_INT(add("acme/..", GH_READ), ==, -EINVAL);
}

TEST(facts_add_names_and_numbers_and_drop_what_was_replaced)
{
	gh_scope_init(&scope);
	CHECK_INT(add("acme/app", GH_WRITE), ==, 0);
	CHECK_INT(add("acme/lib", GH_WRITE), ==, 0);
	CHECK(!gh_scope_find_id(&scope, 0));
	CHECK(!gh_scope_find_node(&scope, span_str("")));
	facts("acme/app",
	      (struct gh_facts){ .id = 7, .node = { "R_7" }, .owner = "acme2", .name = "app2", .is_org = true });
	CHECK(find("acme/app") && find("acme2/app2") == find("acme/app"));
	CHECK(gh_scope_find_id(&scope, 7) == find("acme/app"));
	CHECK(gh_scope_find_node(&scope, span_str("R_7")) == find("acme/app"));
	CHECK(!gh_scope_find_node(&scope, span_str("")));
	CHECK(gh_scope_owns(&scope, span_str("ACME2")) && gh_scope_owns_org(&scope, span_str("acme2")));
	CHECK(!gh_scope_owns(&scope, span_str("acm")) && !gh_scope_owns(&scope, span_str("")));
	facts("acme/app", (struct gh_facts){ .id = 8, .node = { "R_8" }, .owner = "acme", .name = "app" });
	CHECK_INT(add("me/own", GH_WRITE), ==, 0);
	facts("me/own", (struct gh_facts){ .owner = "me", .name = "own" });
	CHECK(gh_scope_owns(&scope, span_str("me")) && !gh_scope_owns_org(&scope, span_str("me")));
	CHECK(!gh_scope_find_id(&scope, 0));
	CHECK(!find("acme/app") && !find("acme2/app2") && !gh_scope_find_id(&scope, 7) && !gh_scope_find_id(&scope, 8));
	CHECK(!gh_scope_owns(&scope, span_str("acme2")) && gh_scope_owns(&scope, span_str("acme")));
}

TEST(refs_match_their_globs)
{
	gh_scope_init(&scope);
	CHECK(gh_scope_any_ref(&scope));
	CHECK(gh_scope_ref(&scope, span_str("refs/heads/a/b")));
	CHECK(!gh_scope_ref(&scope, span_str("refs/pull/1/head")));
	CHECK_INT(gh_scope_push_refs(&scope, span_str("refs/heads/agent/*,refs/heads/a*b*c")), ==, 0);
	CHECK(!gh_scope_any_ref(&scope));
	CHECK(gh_scope_ref(&scope, span_str("refs/heads/agent/x")));
	CHECK(!gh_scope_ref(&scope, span_str("refs/heads/agent")));
	CHECK(!gh_scope_ref(&scope, span_str("refs/heads/main")));
	CHECK(gh_scope_ref(&scope, span_str("refs/heads/axbxbxc")));
	CHECK(!gh_scope_any_branch(&scope));
	CHECK(!gh_scope_ref(&scope, span_str("refs/heads/axbxbx")));
	CHECK_INT(gh_scope_push_refs(&scope, span_str("refs/heads/*")), ==, 0);
	CHECK(gh_scope_any_branch(&scope) && !gh_scope_any_ref(&scope));
	CHECK_INT(gh_scope_push_refs(&scope, span_str("refs/tags/*")), ==, 0);
	CHECK(!gh_scope_any_branch(&scope) && !gh_scope_any_ref(&scope));
	CHECK_INT(gh_scope_push_refs(&scope, span_str("refs/heads/agent/*")), ==, 0);
	CHECK_INT(gh_scope_push_refs(&scope, span_str("")), ==, -EINVAL);
	CHECK_INT(gh_scope_push_refs(&scope, span_str("a,,b")), ==, -EINVAL);
	CHECK(gh_scope_ref(&scope, span_str("refs/heads/agent/x")));
}

TEST(heads_and_urls_name_listed_repositories)
{
	gh_scope_init(&scope);
	CHECK_INT(add("acme/app", GH_WRITE), ==, 0);
	CHECK(gh_scope_head(&scope, span_str("feature")) && gh_scope_head(&scope, span_str("Acme:feature")));
	CHECK(!gh_scope_head(&scope, span_str("victim:feature")) && !gh_scope_head(&scope, span_str(":feature")));
	CHECK(gh_scope_head(&scope, span_str("acme:APP:feature")) && !gh_scope_head(&scope, span_str("acme:lib:feature")));
	CHECK(!gh_scope_head(&scope, span_str("acme:app:lib:feature")));
	CHECK(gh_scope_issue_url(&scope, span_str("https://github.com/acme/app/issues/12")));
	CHECK(!gh_scope_issue_url(&scope, span_str("https://github.com/acme/secret/issues/12")));
	CHECK(!gh_scope_issue_url(&scope, span_str("https://github.com/acme/app/issues/")));
	CHECK(!gh_scope_issue_url(&scope, span_str("https://github.com/acme/app/issues/12?x")));
	CHECK(!gh_scope_issue_url(&scope, span_str("https://github.com/acme/app/pull/12")));
	CHECK(!gh_scope_issue_url(&scope, span_str("http://github.com/acme/app/issues/12")));
}

TEST(the_list_is_printed_and_cut)
{
	char out[64], small[24];

	gh_scope_init(&scope);
	gh_scope_print(&scope, out, sizeof(out));
	CHECK(strcmp(out, "none") == 0);
	CHECK_INT(add("acme/app", GH_WRITE), ==, 0);
	CHECK_INT(add("acme/lib", GH_READ), ==, 0);
	gh_scope_print(&scope, out, sizeof(out));
	CHECK(strcmp(out, "acme/app, acme/lib (read)") == 0);
	gh_scope_print(&scope, small, sizeof(small));
	CHECK(strcmp(small, "acme/app, ...") == 0);
}

TEST(the_launchers_records_make_the_list)
{
	struct buf b;

	buf_init(&b, 4096);
	CHECK_INT(rec_put_str(&b, GTC_REPO, "acme/app=write"), ==, 0);
	CHECK_INT(rec_put_str(&b, GTC_REPO, "acme/lib=read"), ==, 0);
	CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, 0);
	CHECK(scope.n == 2 && find("acme/lib")->level == GH_READ && scope.switches == GH_SWITCHES_DEFAULT &&
	      gh_scope_any_ref(&scope));
	CHECK_INT(rec_put_u64(&b, GTC_SWITCHES, GH_SWITCH_BIT(GH_CI)), ==, 0);
	CHECK_INT(rec_put_str(&b, GTC_PUSH_REFS, "refs/heads/agent/*"), ==, 0);
	CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, 0);
	CHECK(gh_scope_has(&scope, GH_CI) && !gh_scope_has(&scope, GH_MERGE) && !gh_scope_any_branch(&scope));
	CHECK_INT(rec_put_str(&b, GTC_PUSH_REFS, "x"), ==, 0);
	CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, -EBADMSG);
	buf_done(&b);
	for (size_t i = 0; i < 6; i++) {
		static const char *const bad[] = { "acme/app",	"acme/app=", "acme/app=root",
						   "acme=read", "=read",     "https://github.com/acme/app=read" };

		buf_init(&b, 4096);
		CHECK_INT(rec_put_str(&b, GTC_REPO, bad[i]), ==, 0);
		CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, -EBADMSG);
		buf_done(&b);
	}
	buf_init(&b, 4096);
	CHECK_INT(rec_put_u64(&b, GTC_SWITCHES, GH_SWITCH_BIT(GH_SWITCHES)), ==, 0);
	CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, -EBADMSG);
	buf_done(&b);
	buf_init(&b, 4096);
	CHECK_INT(rec_put_u64(&b, GTC_SEED, 1), ==, 0);
	CHECK_INT(gh_scope_read(buf_span(&b), &scope), ==, -EBADMSG);
	buf_done(&b);
}

TEST(a_lookup_tells_what_is_listed)
{
	static const char answer[] =
		"{\"data\":{\"r0\":{\"id\":\"R_x\",\"databaseId\":7,\"nameWithOwner\":\"acme/"
		"renamed\",\"owner\":{\"__typename\":\"Organization\"},"
		"\"parent\":{\"nameWithOwner\":\"octo/"
		"pub\",\"visibility\":\"PUBLIC\"}},\"r1\":null,\"r2\":{\"id\":\"R_y\",\"databaseId\":\"8\","
		"\"nameWithOwner\":\"acme/b\"},\"r3\":{\"databaseId\":9,\"nameWithOwner\":\"me/"
		"c\",\"owner\":{\"__typename\":\"User\"},\"parent\":null},"
		"\"r4\":{\"databaseId\":10,\"nameWithOwner\":\"me/"
		"d\",\"parent\":{\"nameWithOwner\":\"x\",\"visibility\":\"PUBLIC\"}}},"
		"\"errors\":[{\"type\":\"NOT_FOUND\",\"path\":[\"r1\"]}]}";
	static const char *const slugs[] = { "acme/app", "acme/a", "acme/b", "me/c", "me/d" };
	const struct gh_repo *r;
	struct buf b;

	gh_scope_init(&scope);
	buf_init(&b, GH_LOOKUP_MAX);
	CHECK_INT(gh_lookup_body(&scope, false, &b), ==, 0);
	for (size_t i = 0; i < ARRAY_SIZE(slugs); i++)
		CHECK_INT(add(slugs[i], GH_WRITE), ==, 0);
	CHECK_INT(gh_lookup_body(&scope, false, &b), ==, 1);
	CHECK(memmem(buf_span(&b).p, b.n, "query{r0:repository(owner:\\\"acme\\\",name:\\\"app\\\"){...F} r1:", 54));
	CHECK_INT(gh_lookup_answer(&scope, span_str(answer)), ==, 3);
	r = find("acme/renamed");
	CHECK(r && r == find("acme/app") && r->facts.id == 7 && r->facts.is_org && !r->facts.parent_private);
	CHECK(gh_scope_find_node(&scope, span_str("R_x")) == r && strcmp(r->facts.parent_name, "pub") == 0);
	CHECK(!find("acme/a")->known && !find("acme/b")->known);
	CHECK(!find("me/c")->facts.has_parent && !find("me/c")->facts.is_org);
	CHECK(find("me/d")->facts.has_parent && find("me/d")->facts.parent_private);
	buf_done(&b);
	CHECK_INT(gh_lookup_body(&scope, false, &b), ==, 1);
	CHECK_INT(gh_lookup_body(&scope, true, &b), ==, 1);
	CHECK(memmem(buf_span(&b).p, b.n, "r0:", 3) && memmem(buf_span(&b).p, b.n, "r4:", 3));
	buf_done(&b);
	CHECK_INT(gh_lookup_body(&scope, false, &b), ==, 1);
	CHECK(!memmem(buf_span(&b).p, b.n, "r0:", 3) && memmem(buf_span(&b).p, b.n, "query{r1:", 9));
	/* Another number under the same name. */
	CHECK_INT(gh_lookup_answer(&scope,
				   span_str("{\"data\":{\"r3\":{\"databaseId\":99,\"nameWithOwner\":\"me/c\"}}}")),
		  ==, 1);
	CHECK(!find("me/c") && !gh_scope_find_id(&scope, 9) && !gh_scope_find_id(&scope, 99));
	CHECK_INT(gh_lookup_answer(&scope, span_str("{\"data\":null}")), ==, -EBADMSG);
	CHECK_INT(gh_lookup_answer(&scope, span_str("<html>")), ==, -EBADMSG);
	buf_done(&b);
	/* All that a launch can list fits. */
	gh_scope_init(&scope);
	for (size_t i = 0; i < GH_REPOS_MAX; i++) {
		char s[GH_SLUG_MAX + 1];

		(void)snprintf(s, sizeof(s), "%039zu/%0100zu", i, i);
		CHECK_INT(add(s, GH_READ), ==, 0);
	}
	CHECK_INT(gh_lookup_body(&scope, false, &b), ==, 1);
	CHECK_INT(add("one/more", GH_READ), ==, -ENOSPC);
	buf_done(&b);
}
