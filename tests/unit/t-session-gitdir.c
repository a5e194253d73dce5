#include "session/gitdir.h"

#include <errno.h>

#include "files.h"
#include "session/gitconfig.h"

static const char *no_env(const char *name, void *arg)
{
	return NULL;
}

/* A search in a made-up home, and what came of it. */
struct seen {
	struct gitdir g;
	struct gitbind binds[GITBINDS_MAX];
	size_t n_binds;
	struct findings found;
	int r;
};

static void look_as(const char *home, const char *project, uid_t uid, struct seen *s)
{
	char *root = files_at(home, ".local/state/agent-vm");
	struct exposure_args e = { .state_root = root, .home = home, .env = no_env };
	struct exposure *x = exposure_new(&e);
	struct gitdir_args args = { .project = project, .home = home, .uid = uid, .exposure = x };

	*s = (struct seen){ 0 };
	s->r = gitdir_find(&args, &s->g, s->binds, &s->n_binds, NULL, &s->found);
	exposure_free(x);
	free(root);
}

static void look(const char *home, const char *rel, struct seen *s)
{
	char *project = files_at(home, rel);

	look_as(home, project, geteuid(), s);
	free(project);
}

static void seen_done(struct seen *s)
{
	gitdir_done(&s->g);
	for (size_t i = 0; i < s->n_binds; i++)
		gitbind_done(&s->binds[i]);
	findings_done(&s->found);
}

static bool ends(const char *s, const char *end)
{
	size_t n = s ? strlen(s) : 0, k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

/* Not bound, exactly one line, which says @text. */
static void check_refused(const char *home, const char *rel, const char *text)
{
	struct seen s;

	look(home, rel, &s);
	CHECK_INT(s.r, ==, 0);
	CHECK_INT(s.n_binds, ==, 0);
	CHECK_INT(s.found.n, ==, 1);
	CHECK_INT(s.found.v[0].kind, ==, FINDING_NOTE);
	if (!strstr(s.found.v[0].text, text))
		fail_msg("\"%s\" does not say \"%s\"", s.found.v[0].text, text);
	seen_done(&s);
}

static const char repo[] = "git init -q main && cd main && mkdir -p sub/deep && echo x > sub/deep/f && git add . && git commit -qm x";

TEST(top_with_a_git_folder_needs_nothing)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, repo);
	look(home, "main", &s);
	CHECK_INT(s.g.kind, ==, GITDIR_INSIDE);
	CHECK_INT(s.n_binds, ==, 0);
	CHECK_INT(s.found.n, ==, 0);
	CHECK(ends(s.g.common, "/main/.git"));
	seen_done(&s);
	files_rm(home);
}

TEST(subfolder_binds_the_top_read_only_and_its_git_directory)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, repo);
	look(home, "main/sub/deep", &s);
	CHECK_INT(s.n_binds, ==, 2);
	CHECK(s.binds[0].ro && s.binds[0].role == GITBIND_TOP && ends(s.binds[0].host, "/main"));
	CHECK(!s.binds[1].ro && s.binds[1].role == GITBIND_COMMON && ends(s.binds[1].host, "/main/.git"));
	seen_done(&s);
	files_rm(home);
}

TEST(linked_worktree_binds_the_common_directory)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, repo);
	files_sh(home, "cd main && git worktree add -q ../wt && git worktree add -q ../other");
	look(home, "wt", &s);
	CHECK_INT(s.g.kind, ==, GITDIR_WORKTREE);
	CHECK_INT(s.n_binds, ==, 1);
	CHECK(!s.binds[0].ro && ends(s.binds[0].host, "/main/.git"));
	CHECK_STR(s.binds[0].purpose, "common directory of this worktree");
	CHECK(ends(s.g.admin, "/main/.git/worktrees/wt"));
	CHECK(!s.g.relative);
	seen_done(&s);
	/* Below a worktree both hold. */
	look(home, "wt/sub", &s);
	CHECK_INT(s.n_binds, ==, 2);
	CHECK(ends(s.binds[0].host, "/wt") && ends(s.binds[1].host, "/main/.git"));
	seen_done(&s);
	files_rm(home);
}

TEST(submodule_checkout_binds_its_git_directory)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, repo);
	files_sh(home, "git init -q super && cd super && git -c protocol.file.allow=always submodule add -q ../main libs/m && "
		       "git commit -qm x");
	look(home, "super/libs/m", &s);
	CHECK_INT(s.g.kind, ==, GITDIR_MODULE);
	CHECK_INT(s.n_binds, ==, 1);
	CHECK(ends(s.binds[0].host, "/super/.git/modules/libs/m"));
	CHECK_STR(s.binds[0].purpose, "git directory of this submodule");
	CHECK(s.g.relative);
	seen_done(&s);
	files_rm(home);
}

TEST(no_repository_says_nothing)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, "mkdir -p p/q");
	look(home, "p/q", &s);
	CHECK_INT(s.g.kind, ==, GITDIR_NONE);
	CHECK_INT(s.found.n, ==, 0);
	seen_done(&s);
	files_rm(home);
}

TEST(pointers_that_lie_are_not_followed)
{
	char *home = files_tmp("/var/tmp"), *line;

	files_sh(home, repo);
	files_sh(home, "mkdir -p .ssh p && cd main && git worktree add -q ../wt");
	line = xasprintf("gitdir: %s/.ssh\n", home);
	files_write(home, "p/.git", line);
	free(line);
	check_refused(home, "p", "no git directory");
	/* A real repository that does not point back, by its own folder and by another's worktree. */
	files_write(home, "p/.git", "gitdir: ../main/.git\n");
	check_refused(home, "p", "no core.worktree that points back");
	files_write(home, "p/.git", "gitdir: ../main/.git/worktrees/wt\n");
	check_refused(home, "p", "points to another worktree");
	files_sh(home, "cd main && git config core.worktree ../../wt");
	files_write(home, "p/.git", "gitdir: ../main/.git\n");
	check_refused(home, "p", "core.worktree is another folder");
	files_sh(home, "ln -s main/.git lnk");
	files_write(home, "p/.git", "gitdir: ../lnk\n");
	check_refused(home, "p", "link lies on the way");
	files_write(home, "p/.git", "gitdir: ../nowhere\n");
	check_refused(home, "p", "No such file");
	files_write(home, "p/.git", "gitdir: /proc/self/root/etc\n");
	check_refused(home, "p", "link lies on the way");
	files_write(home, "p/.git", "gitdir: .git\n");
	check_refused(home, "p", "Not a directory");
	files_write(home, "p/.git", "something else\n");
	check_refused(home, "p", "not of the form");
	files_write(home, "p/.git", "gitdir: a\nb\n");
	check_refused(home, "p", "not of the form");
	files_write(home, "p/.git", "gitdir: \n");
	check_refused(home, "p", "not of the form");
	files_rm(home);
}

TEST(a_commondir_that_leads_elsewhere_is_not_believed)
{
	char *home = files_tmp("/var/tmp");

	files_sh(home, repo);
	files_sh(home, "cd main && git worktree add -q ../wt && git init -q ../evil");
	files_write(home, "main/.git/worktrees/wt/commondir", "../../../../evil/.git\n");
	check_refused(home, "wt", "commondir");
	files_rm(home);
}

TEST(odd_entries_do_not_hang_or_crash)
{
	char *home = files_tmp("/var/tmp");

	files_sh(home, repo);
	files_sh(home, "mkdir p && mkfifo p/.git");
	check_refused(home, "p", "neither a file nor a folder");
	files_sh(home, "rm p/.git && ln -s ../main/.git p/.git");
	check_refused(home, "p", "is a link");
	files_sh(home, "rm p/.git && ln -s .git p/.git");
	check_refused(home, "p", "is a link");
	files_sh(home, "rm p/.git && truncate -s 1G p/.git");
	check_refused(home, "p", "far too long");
	files_rm(home);
}

TEST(the_target_must_belong_to_the_user)
{
	char *home = files_tmp("/var/tmp"), *project;
	struct seen s;

	files_sh(home, repo);
	files_sh(home, "cd main && git worktree add -q ../wt");
	project = files_at(home, "wt");
	look_as(home, project, geteuid() + 1, &s);
	CHECK_INT(s.n_binds, ==, 0);
	CHECK(s.found.n == 1 && strstr(s.found.v[0].text, "does not belong to you"));
	seen_done(&s);
	free(project);
	files_rm(home);
}

TEST(dotfiles_repository_in_the_home_folder_is_not_bound)
{
	char *home = files_tmp("/var/tmp");

	files_sh(home, "git init -q . && mkdir p");
	check_refused(home, "p", "your home folder");
	files_rm(home);
}

TEST(search_ends_at_the_home_folder_and_at_the_first_git)
{
	char *above = files_tmp("/var/tmp"), *home = files_at(above, "home");
	struct seen s;

	files_sh(above, "git init -q . && mkdir -p home/p home/q/r");
	look(home, "p", &s);
	CHECK(s.g.kind == GITDIR_NONE && s.n_binds == 0 && s.found.n == 0);
	seen_done(&s);
	/* An empty .git is no repository, and still where the search ends. */
	files_sh(home, "git init -q q && mkdir q/r/.git q/r/s");
	look(home, "q/r/s", &s);
	CHECK(s.g.kind == GITDIR_NONE && s.n_binds == 0);
	seen_done(&s);
	free(home);
	files_rm(above);
}

TEST(a_project_inside_a_git_directory_is_refused)
{
	char *home = files_tmp("/var/tmp");
	struct seen s;

	files_sh(home, repo);
	look(home, "main/.git/hooks", &s);
	CHECK_INT(s.r, ==, -EACCES);
	CHECK_INT(s.found.v[0].kind, ==, FINDING_WORLD);
	seen_done(&s);
	files_sh(home, "git init -q --bare b.git");
	look(home, "b.git", &s);
	CHECK(s.r == 0 && s.g.kind == GITDIR_BARE);
	seen_done(&s);
	files_rm(home);
}

/* What git takes for one, and more: a guest may take away what makes it one, and put it back in a later session. */
TEST(a_git_directory_is_known_by_links_and_by_its_name)
{
	static const char *const shapes[] = {
		"mv .git/objects .git/o && ln -s o .git/objects", "mv .git/refs .git/r && ln -s r .git/refs",
		"mv .git/objects .git/o && ln -s \"$PWD/.git/o\" .git/objects", "mv .git/HEAD .git/h", "rm -r .git && mkdir .git",
	};
	char *home = files_tmp("/var/tmp"), *top = files_at(home, "main");
	struct seen s;

	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		files_sh(home, "rm -rf main");
		files_sh(home, repo);
		files_sh(top, shapes[i]);
		look(home, "main", &s);
		if (s.r != 0 || s.g.kind != GITDIR_INSIDE || !ends(s.g.common, "/main/.git") || s.found.n != 0)
			fail_msg("not taken: %s", shapes[i]);
		seen_done(&s);
		files_sh(home, "mkdir -p main/.git/hooks");
		look(home, "main/.git/hooks", &s);
		CHECK_INT(s.r, ==, -EACCES);
		seen_done(&s);
	}
	files_sh(home, "git init -q --bare b.git && cd b.git && mv refs r && ln -s r refs");
	look(home, "b.git", &s);
	CHECK(s.r == 0 && s.g.kind == GITDIR_BARE);
	seen_done(&s);
	/* The config of these lies elsewhere. */
	files_sh(home, "cd b.git && mkdir ../store && mv config objects r refs ../store && echo ../store > commondir");
	look(home, "b.git", &s);
	CHECK_INT(s.r, ==, -EACCES);
	seen_done(&s);
	files_sh(home, "rm -rf main && git init -q main && mkdir store2 && mv main/.git/config store2 && echo ../../store2 > main/.git/commondir");
	look(home, "main", &s);
	CHECK(s.g.kind == GITDIR_INSIDE && s.found.n == 1 && s.found.v[0].kind == FINDING_WARNING);
	seen_done(&s);
	free(top);
	files_rm(home);
}

static int count(const struct gitconfig_entry *e, void *arg)
{
	char *line = xasprintf("%s|%s|%s|%s", e->section, e->sub ? e->sub : "-", e->key, e->value ? e->value : "(none)");

	strv_take(arg, line);
	return 0;
}

TEST(config_is_read_as_git_reads_it)
{
	static const char text[] = "# c\n[core]\n\tbare = false ; x\n\tworktree = \"../a b\"  \n[Remote \"Or\\\"i\"]\nURL=a\\\nb\n"
				   "flag\n[old.Style]k = \"q;\\t\" z  y \r\n[a]b=1\n";
	struct strv v = { 0 };
	char *value = NULL;

	CHECK_INT(gitconfig_read(text, strlen(text), count, &v), ==, 0);
	CHECK_INT(v.n, ==, 6);
	CHECK_STR(v.v[0], "core|-|bare|false");
	CHECK_STR(v.v[1], "core|-|worktree|../a b");
	CHECK_STR(v.v[2], "remote|Or\"i|url|ab");
	CHECK_STR(v.v[3], "remote|Or\"i|flag|(none)");
	CHECK_STR(v.v[4], "old|style|k|q;\t z  y");
	CHECK_STR(v.v[5], "a|-|b|1");
	CHECK_INT(gitconfig_get(text, strlen(text), "core", "worktree", &value), ==, 0);
	CHECK_STR(value, "../a b");
	free(value);
	strv_done(&v);
	CHECK_INT(gitconfig_read("x=1\n", 4, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a\n", 3, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a]b=\"x\n", 8, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a]b=\\q\n", 8, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a]b=\0\n", 7, count, &v), ==, -EBADMSG);
	/* git knows four kinds of white space, not C's six. */
	CHECK_INT(gitconfig_read("\v[a]b=1\n", 8, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a]\fb=1\n", 8, count, &v), ==, -EBADMSG);
	CHECK_INT(gitconfig_read("[a]b\v=1\n", 8, count, &v), ==, -EBADMSG);
	CHECK_INT(v.n, ==, 0);
	CHECK_INT(gitconfig_read("[a]b= x\v \n c = y \t z\f\t \n", 24, count, &v), ==, 0);
	CHECK_STR(v.v[0], "a|-|b|x\v");
	CHECK_STR(v.v[1], "a|-|c|y \t z\f");
	strv_done(&v);
}
