#include "test.h"

#include <errno.h>

#include "session/gitremotes.h"

static char got[512];

static void each(struct gh_slug repo, void *arg)
{
	size_t n = strlen(got);

	CHECK(arg == got);
	(void)snprintf(got + n, sizeof(got) - n, "%.*s/%.*s ", (int)repo.owner.n, (const char *)repo.owner.p,
		       (int)repo.name.n, (const char *)repo.name.p);
}

static const char *remotes(const char *text, char **origin)
{
	got[0] = '\0';
	CHECK_INT(gitremotes_read(text, strlen(text), each, got, origin), ==, 0);
	return got;
}

static const char *modules(const char *text, const char *origin)
{
	got[0] = '\0';
	CHECK_INT(gitmodules_read(text, strlen(text), origin, each, got), ==, 0);
	return got;
}

TEST(all_remotes_are_read_with_both_urls)
{
	char *origin;

	CHECK(strcmp(remotes("[core]\n\tbare = false\n"
			     "[remote \"up stream\"]\n\turl = git@github.com:acme/base.git\n"
			     "[remote \"origin\"]\n\turl = https://github.com/me/app\n\turl = "
			     "https://github.com/me/second\n"
			     "\tpushurl = ssh://git@github.com/me/push.git\n\tfetch = "
			     "+refs/heads/*:refs/remotes/origin/*\n"
			     "[remote \"other\"]\n\turl = https://gitlab.com/me/no\n"
			     "[remote]\n\turl = https://github.com/me/none\n"
			     "[url \"https://github.com/\"]\n\tinsteadOf = gh:\n"
			     "[remote \"gh\"]\n\turl = gh:me/no\n",
			     &origin),
		     "acme/base me/app me/second me/push ") == 0);
	CHECK(strcmp(origin, "https://github.com/me/app") == 0);
	free(origin);
	CHECK(strcmp(remotes("[Remote \"origin\"]\nURL\n", &origin), "") == 0);
	CHECK(!origin);
}

TEST(a_file_that_git_refuses_is_refused)
{
	char *origin = got;

	CHECK_INT(
		gitremotes_read("[remote \"origin\"]\nurl = https://github.com/a/b\n[broken\n", 57, each, got, &origin),
		==, -EBADMSG);
	CHECK(origin == got);
	CHECK_INT(gitmodules_read("x", 1, NULL, each, got), ==, -EBADMSG);
}

TEST(submodules_are_resolved_against_origin)
{
	static const char text[] = "[submodule \"a b\"]\n\tpath = a b\n\turl = ../lib.git\n"
				   "[submodule \"c\"]\n\turl = ../../octo/pub\n"
				   "[submodule \"d\"]\n\turl = https://github.com/x/y\n"
				   "[submodule \"e\"]\n\turl = ./sub\n"
				   "[submodule \"f\"]\n\turl = ../../../../etc\n";

	CHECK(strcmp(modules(text, "https://github.com/acme/app.git"), "acme/lib octo/pub x/y ") == 0);
	CHECK(strcmp(modules(text, "https://github.com/acme/app/"), "acme/lib octo/pub x/y ") == 0);
	CHECK(strcmp(modules(text, "git@github.com:acme/app.git"), "acme/lib octo/pub x/y ") == 0);
	CHECK(strcmp(modules(text, "ssh://git@github.com/acme/app"), "acme/lib octo/pub x/y ") == 0);
	CHECK(strcmp(modules(text, "https://gitlab.com/acme/app"), "x/y ") == 0);
	CHECK(strcmp(modules(text, NULL), "x/y ") == 0);
	/* So does git, which takes off the host's name as it takes off a folder's. */
	CHECK(strcmp(modules("[submodule \"f\"]\n\turl = ../../../github.com/acme/app\n", "https://evil.example/x/y"),
		     "acme/app ") == 0);
}
