#include "session/layout.h"

#include <errno.h>

#include "files.h"
#include "session/path.h"

/* A launch in a made-up home. */
struct launch {
	char *home, *root, *state;
	struct layout_args a;
	struct layout l;
	struct findings found;
	int r;
};

static const char *no_env(const char *name, void *arg)
{
	return NULL;
}

static void launch_init(struct launch *t, const char *place)
{
	*t = (struct launch){ .home = files_tmp(place) };
	t->root = files_at(t->home, ".local/state/agent-vm");
	t->state = files_at(t->root, "0123456789ab");
	t->a = (struct layout_args){
		.home = t->home, .state_root = t->root, .state_dir = t->state, .uid = geteuid(), .env = no_env
	};
}

static void launch_again(struct launch *t)
{
	layout_done(&t->l);
	findings_done(&t->found);
}

static void plan(struct launch *t, const char *rel)
{
	char *project = *rel ? files_at(t->home, rel) : xstrdup(t->home);

	launch_again(t);
	t->a.project = project;
	t->r = layout_plan(&t->a, &t->l, &t->found);
	if (t->r == 0 && findings_stop(&t->found))
		fail_msg("planned in spite of a mistake");
	free(project);
}

static void launch_done(struct launch *t)
{
	launch_again(t);
	free(t->root);
	free(t->state);
	files_rm(t->home);
}

static bool has(const struct strv *v, const char *what)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->v[i], what) == 0)
			return true;
	return false;
}

static bool says(const struct launch *t, enum finding_kind kind, const char *text)
{
	for (size_t i = 0; i < t->found.n; i++)
		if (t->found.v[i].kind == kind && strstr(t->found.v[i].text, text))
			return true;
	return false;
}

static const struct layout_share *share(const struct launch *t, const char *rel)
{
	for (size_t i = 0; i < t->l.n_shares; i++) {
		const char *rest = path_rest(t->home, t->l.shares[i].host);

		if (rest && strcmp(rest, rel) == 0)
			return &t->l.shares[i];
	}
	fail_msg("no share of %s", rel);
	return NULL;
}

static const char repo[] = "git init -q main && cd main && mkdir -p sub && echo x > sub/f && git add . && git commit -qm x";

TEST(a_plain_project_is_mirrored_and_guarded)
{
	struct launch t;
	const struct layout_share *s;
	char *want;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	plan(&t, "main");
	CHECK_INT(t.r, ==, 0);
	CHECK_INT(t.l.n_shares, ==, 2);
	s = &t.l.shares[t.l.project];
	CHECK_STR(s->host, s->guest);
	CHECK(!t.l.workspace_why);
	CHECK(has(&s->guard_self, ".git"));
	CHECK(has(&s->guard_ro, ".git/hooks") && has(&s->guard_ro, ".git/config"));
	CHECK(has(&s->guard_ro, ".git/commondir"));
	CHECK_INT(s->guard_ro.n, ==, 3);
	want = xasprintf("rw %s/main", t.home);
	CHECK_STR(t.l.rows.project.v[0], want);
	CHECK_STR(t.l.rows.guard.v[0], "ro .git/hooks, .git/config");
	free(want);
	launch_done(&t);
}

TEST(the_row_of_the_settings_says_whether_they_can_be_written)
{
	struct layout l = { 0 };

	layout_add_settings(&l, "/run/a", "/g", true);
	layout_add_settings(&l, "/run/a", "/g", false);
	CHECK_STR(l.rows.mounts.v[0], "ro your own settings of the agents -> /g");
	CHECK_STR(l.rows.mounts.v[1], "rw a copy of your own settings of the agents -> /g");
	layout_done(&l);
}

TEST(modules_and_the_folders_above_them_are_guarded)
{
	struct launch t;
	const struct layout_share *s;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_sh(t.home, "git init -q super && cd super && git -c protocol.file.allow=always submodule add -q ../main libs/m && "
			 "git config extensions.worktreeConfig true && git -C libs/m rev-parse");
	files_write(t.home, "super/.agentvmignore", "nothing-like-this\n");
	plan(&t, "super");
	CHECK_INT(t.r, ==, 0);
	s = &t.l.shares[t.l.project];
	CHECK(has(&s->guard_ro, ".git/modules/libs/m/hooks") && has(&s->guard_ro, ".git/modules/libs/m/config"));
	CHECK(has(&s->guard_self, ".git/modules") && has(&s->guard_self, ".git/modules/libs") &&
	      has(&s->guard_self, ".git/modules/libs/m"));
	CHECK(has(&s->guard_ro, ".agentvmignore"));
	/* Made, because the extension makes git read it. */
	CHECK(has(&s->guard_ro, ".git/config.worktree"));
	/* The pointer of the submodule, and the folder above it. */
	CHECK(has(&s->guard_ro, "libs/m/.git") && has(&s->guard_self, "libs") && has(&s->guard_self, "libs/m"));
	/* --git-config rw */
	t.a.git_config_rw = true;
	plan(&t, "super");
	s = &t.l.shares[t.l.project];
	CHECK(has(&s->guard_ro, ".git/hooks") && !has(&s->guard_ro, ".git/config"));
	CHECK_INT(t.l.guard.configs.n, ==, 4);
	CHECK_INT(t.l.rows.guard.n, ==, 2);
	CHECK_STR(t.l.rows.guard.v[1], "rw .git/config, .git/modules/libs/m/config (watched: what could run something is undone)");
	/* Their folders stay where they are. */
	CHECK(has(&s->guard_self, ".git") && has(&s->guard_self, ".git/modules/libs/m"));
	files_sh(t.home, "echo '[broken' > super/.git/config");
	plan(&t, "super");
	CHECK(t.r < 0 && strstr(t.found.v[0].text, "/super/.git/config: cannot be watched"));
	launch_done(&t);
}

TEST(linked_worktree_has_its_common_directory_and_others_are_read_only)
{
	struct launch t;
	const struct layout_share *s;
	char *want;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_sh(t.home, "cd main && git worktree add -q ../wt && git worktree add -q ../other");
	plan(&t, "wt");
	CHECK_INT(t.r, ==, 0);
	CHECK_INT(t.found.n, ==, 0);
	s = share(&t, "main/.git");
	CHECK(!s->ro);
	CHECK_STR(s->guest, s->host);
	CHECK(has(&s->guard_ro, "worktrees/other") && has(&s->guard_ro, "hooks") && has(&s->guard_ro, "config"));
	CHECK(has(&s->guard_ro, "worktrees/wt/commondir") && !has(&s->guard_ro, "worktrees/wt"));
	CHECK(has(&s->guard_self, "worktrees"));
	CHECK(has(&t.l.shares[t.l.project].guard_ro, ".git"));
	want = xasprintf("rw %s/main/.git (common directory of this worktree)", t.home);
	CHECK_STR(t.l.rows.git.v[0], want);
	free(want);
	/* --git-dir none */
	t.a.no_git_dir = true;
	plan(&t, "wt");
	CHECK_INT(t.l.n_shares, ==, 2);
	CHECK_INT(t.l.rows.git.n, ==, 0);
	CHECK(has(&t.l.shares[t.l.project].guard_ro, ".git"));
	launch_done(&t);
}

TEST(subfolder_comes_after_its_read_only_top)
{
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_write(t.home, "main/.agentvmignore", ".env\n");
	files_write(t.home, "main/sub/.env", "x");
	plan(&t, "main/sub");
	CHECK_INT(t.r, ==, 0);
	CHECK_INT(t.l.n_shares, ==, 4);
	CHECK(share(&t, "main")->ro && !share(&t, "main/sub")->ro && !share(&t, "main/.git")->ro);
	CHECK(share(&t, "main") < share(&t, "main/sub") && share(&t, "main") < share(&t, "main/.git"));
	CHECK(has(&share(&t, "main/.git")->guard_ro, "hooks"));
	/* Hidden by the top's file, in both shares that show it. */
	CHECK(has(&share(&t, "main")->hide, "sub/.env") && has(&share(&t, "main/sub")->hide, ".env"));
	CHECK_STR(t.l.rows.hidden.v[0], ".env (1 entry)");
	launch_done(&t);
}

TEST(folders_above_a_hidden_file_stay_where_they_are)
{
	const char *hide[] = { "/a/b/key", NULL };
	struct launch t;
	const struct layout_share *s;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir -p p/a/b && touch p/a/b/key");
	t.a.hide = hide;
	plan(&t, "p");
	CHECK_INT(t.r, ==, 0);
	s = &t.l.shares[t.l.project];
	CHECK(has(&s->hide, "a/b/key") && has(&s->guard_self, "a") && has(&s->guard_self, "a/b"));
	launch_done(&t);
}

TEST(other_names_of_hidden_files_are_told)
{
	const char *hide[] = { ".env", "key", "/d", NULL, NULL };
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_sh(t.home, "cd main && mkdir -p d/e sub/k && touch .env sub/key && ln .env sub/hard && ln sub/key sub/k/key");
	t.a.hide = hide;
	plan(&t, "main");
	CHECK_INT(t.r, ==, 0);
	CHECK(says(&t, FINDING_WARNING, "hidden files: .env: "));
	CHECK_INT(t.found.n, ==, 1);
	/* All names are hidden; a folder always has several. */
	hide[3] = "hard";
	plan(&t, "main");
	CHECK(t.r == 0 && t.found.n == 0);
	/* A name that is found from the top as well counts once. */
	hide[3] = NULL;
	files_sh(t.home, "ln main/sub/key outside && printf 'key\\n' > main/.agentvmignore");
	plan(&t, "main/sub");
	CHECK(t.r == 0 && says(&t, FINDING_WARNING, "hidden files: key, k/key: "));
	/* The usual file has one name, and nothing to be told. */
	files_sh(t.home, "rm main/.env main/sub/hard main/.agentvmignore && touch main/.env");
	hide[1] = NULL;
	plan(&t, "main");
	CHECK(t.r == 0 && t.found.n == 0);
	launch_done(&t);
}

TEST(a_typed_pattern_that_hides_nothing_is_told)
{
	const char *hide[] = { ".env", "x*", "!x1", "/home/me/main/.env", NULL };
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_sh(t.home, "cd main && touch .env x1 x2");
	t.a.hide = hide;
	plan(&t, "main");
	CHECK(t.r == 0 && t.found.n == 1 && says(&t, FINDING_NOTE, "--hide /home/me/main/.env: nothing matches it "));
	hide[3] = NULL;
	plan(&t, "main");
	CHECK(t.r == 0 && t.found.n == 0);
	/* Lines of the file may wait for files that come. */
	files_sh(t.home, "echo nothing-yet > main/.agentvmignore");
	plan(&t, "main");
	CHECK(t.r == 0 && t.found.n == 0);
	launch_done(&t);
}

TEST(under_tmp_relative_distances_are_kept)
{
	struct launch t;

	launch_init(&t, "/tmp");
	files_sh(t.home, repo);
	files_sh(t.home, "git init -q super && cd super && git -c protocol.file.allow=always submodule add -q ../main libs/m");
	plan(&t, "main");
	CHECK_STR(t.l.project_guest, "/workspace");
	CHECK(strstr(t.l.workspace_why, "lies under /tmp"));
	plan(&t, "main/sub");
	CHECK_STR(t.l.project_guest, "/workspace/sub");
	CHECK_STR(share(&t, "main")->guest, "/workspace");
	CHECK_STR(share(&t, "main/.git")->guest, "/workspace/.git");
	plan(&t, "super/libs/m");
	CHECK_STR(t.l.project_guest, "/workspace/libs/m");
	CHECK_STR(share(&t, "super/.git/modules/libs/m")->guest, "/workspace/.git/modules/libs/m");
	/* An absolute pointer leads to the absolute path. */
	files_sh(t.home, "cd main && git worktree add -q ../wt");
	plan(&t, "wt");
	CHECK_STR(t.l.project_guest, "/workspace");
	CHECK_STR(share(&t, "main/.git")->guest, share(&t, "main/.git")->host);
	launch_done(&t);
}

TEST(a_mount_of_the_parent_is_no_way_around_the_guard)
{
	const char *mounts[] = { "..:/outer", NULL };
	struct launch t;
	const struct layout_share *s;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir w");
	{
		char *w = files_at(t.home, "w");

		files_sh(w, repo);
		free(w);
	}
	files_write(t.home, "w/main/.env", "x");
	files_write(t.home, "w/main/.agentvmignore", ".env\n");
	t.a.mounts = mounts;
	plan(&t, "w/main");
	CHECK_INT(t.r, ==, 0);
	s = share(&t, "w");
	CHECK_STR(s->guest, "/outer");
	CHECK(has(&s->guard_ro, "main/.git/hooks") && has(&s->guard_ro, "main/.git/config"));
	CHECK(has(&s->guard_self, "main") && has(&s->guard_self, "main/.git"));
	CHECK(has(&s->hide, "main/.env"));
	mounts[0] = ".git/hooks:/h";
	plan(&t, "w/main");
	CHECK(t.r < 0 && says(&t, FINDING_WORLD, "lies inside the git directory"));
	CHECK_STR(t.found.v[0].option, "mount");
	mounts[0] = ".git/hooks:/h:ro";
	plan(&t, "w/main");
	CHECK_INT(t.r, ==, 0);
	mounts[0] = ".git:/g";
	plan(&t, "w/main");
	CHECK_INT(t.r, ==, 0);
	CHECK(has(&share(&t, "w/main/.git")->guard_ro, "hooks") && has(&share(&t, "w/main/.git")->guard_ro, "config"));
	launch_done(&t);
}

/* Each of these shapes could be left by a guest for the next launch. */
TEST(a_git_folder_is_guarded_whatever_was_made_of_it)
{
	static const char *const shapes[] = {
		"mv objects o && ln -s o objects", "mv refs r && ln -s r refs", "mv HEAD h", "touch ../HEAD ../objects ../refs",
	};
	const char *mounts[] = { NULL, NULL };
	struct launch t;
	char *git;

	launch_init(&t, "/var/tmp");
	git = files_at(t.home, "main/.git");
	files_sh(t.home, "mkdir other");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		files_sh(t.home, "rm -rf main");
		files_sh(t.home, repo);
		files_sh(git, shapes[i]);
		mounts[0] = NULL;
		t.a.mounts = NULL;
		plan(&t, "main");
		CHECK_INT(t.r, ==, 0);
		if (!has(&share(&t, "main")->guard_ro, ".git/config") || !has(&share(&t, "main")->guard_ro, ".git/hooks"))
			fail_msg("project: %s", shapes[i]);
		mounts[0] = "../main";
		t.a.mounts = mounts;
		plan(&t, "other");
		CHECK_INT(t.r, ==, 0);
		if (!has(&share(&t, "main")->guard_ro, ".git/config") || !has(&share(&t, "main")->guard_ro, ".git/hooks"))
			fail_msg("mount: %s", shapes[i]);
		mounts[0] = "../main/.git/info";
		plan(&t, "other");
		CHECK(t.r < 0 && says(&t, FINDING_WORLD, "inside the git directory"));
	}
	free(git);
	launch_done(&t);
}

TEST(mount_points_in_other_shares_must_exist)
{
	const char *mounts[3] = { NULL };
	struct launch t;
	char *inside;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir -p p/data other && ln -s data p/lnk && touch p/file");
	t.a.mounts = mounts;
	mounts[0] = inside = xasprintf("../other:%s/p/data", t.home);
	plan(&t, "p");
	CHECK_INT(t.r, ==, 0);
	CHECK_INT(t.l.project, <, 2);
	CHECK(share(&t, "p") < share(&t, "other"));
	free(inside);
	mounts[0] = inside = xasprintf("../other:%s/p/none", t.home);
	plan(&t, "p");
	CHECK(says(&t, FINDING_WORLD, "does not exist"));
	free(inside);
	mounts[0] = inside = xasprintf("../other:%s/p/lnk", t.home);
	plan(&t, "p");
	CHECK(says(&t, FINDING_WORLD, "is no folder") || says(&t, FINDING_WORLD, "behind a link"));
	free(inside);
	mounts[0] = inside = xasprintf("../other:%s/p/file", t.home);
	plan(&t, "p");
	CHECK(says(&t, FINDING_WORLD, "is no folder"));
	free(inside);
	/* Parents first, whatever was typed first. */
	files_sh(t.home, "mkdir -p a/b");
	mounts[0] = "../other:/x/b";
	mounts[1] = "../a:/x";
	plan(&t, "p");
	CHECK_INT(t.r, ==, 0);
	CHECK(share(&t, "a") < share(&t, "other"));
	CHECK(strstr(t.l.rows.mounts.v[0], "-> /x/b"));
	launch_done(&t);
}

TEST(all_mistakes_are_told_at_once)
{
	const char *mounts[] = { "/nope", "relative:guest", "../p:/x", "../p:/x", NULL }, *hide[] = { "", NULL };
	const char *expose[] = { "/nowhere", NULL };
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir -p p/relative");
	t.a.mounts = mounts;
	t.a.hide = hide;
	t.a.expose = expose;
	plan(&t, "p");
	CHECK_INT(t.r, <, 0);
	CHECK_INT(t.found.n, ==, 5);
	CHECK_STR(t.found.v[1].text, "--mount /nope: no such file or directory; create it or correct the path");
	CHECK(t.found.v[1].kind == FINDING_WORLD && t.found.v[1].index == 0);
	CHECK(t.found.v[2].kind == FINDING_TYPED && t.found.v[2].index == 1);
	CHECK(t.found.v[3].kind == FINDING_TYPED && t.found.v[3].index == 3);
	CHECK_STR(t.found.v[4].option, "hide");
	launch_done(&t);
}

TEST(hiding_that_cannot_be_enforced_stops_the_launch)
{
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, repo);
	files_write(t.home, "main/.agentvmignore", ".env\n");
	t.a.report_only = true;
	plan(&t, "main");
	CHECK_INT(t.r, ==, 0);
	CHECK_STR(t.l.rows.guard.v[0], "report only");
	CHECK_INT(t.l.rows.guard.n, ==, 1);
	CHECK_INT(t.l.shares[t.l.project].guard_ro.n, ==, 0);
	files_write(t.home, "main/.env", "x");
	plan(&t, "main");
	CHECK(t.r < 0 && says(&t, FINDING_WORLD, "--no-hide"));
	t.a.no_hide = true;
	plan(&t, "main");
	CHECK_INT(t.r, ==, 0);
	launch_done(&t);
}

TEST(ignore_file_that_is_a_link_or_a_fifo_stops_the_launch)
{
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir p && ln -s /etc/passwd p/.agentvmignore");
	plan(&t, "p");
	CHECK(t.r < 0 && says(&t, FINDING_WORLD, "is a link"));
	files_sh(t.home, "rm p/.agentvmignore && mkfifo p/.agentvmignore");
	plan(&t, "p");
	CHECK(t.r < 0 && says(&t, FINDING_WORLD, "no regular file"));
	launch_done(&t);
}

TEST(home_and_root_cannot_be_projects)
{
	struct launch t;
	char *want;

	launch_init(&t, "/var/tmp");
	plan(&t, "");
	want = xasprintf("%s: your home folder holds your logins and cannot be a project; run agent-vm in a folder below it",
			 t.home);
	CHECK(t.r < 0);
	CHECK_STR(t.found.v[0].text, want);
	free(want);
	t.a.project = "/";
	launch_again(&t);
	CHECK(layout_plan(&t.a, &t.l, &t.found) < 0);
	launch_done(&t);
}

TEST(names_of_any_bytes_are_taken)
{
	struct launch t;

	launch_init(&t, "/var/tmp");
	files_sh(t.home, "mkdir -p 'a b,c:d' 'проект 🙂' \"$(printf 'n\\nl')\" \"$(printf 'x\\377')\"");
	plan(&t, "a b,c:d");
	CHECK(t.r == 0 && !t.l.workspace_why);
	plan(&t, "проект 🙂");
	CHECK(t.r == 0 && !t.l.workspace_why);
	plan(&t, "n\nl");
	CHECK(t.r == 0 && strstr(t.l.workspace_why, "control character") && !strchr(t.l.workspace_why, '\n'));
	CHECK(strstr(t.l.rows.project.v[0], "\\x0a"));
	plan(&t, "x\xff");
	CHECK(t.r == 0 && strstr(t.l.workspace_why, "not UTF-8"));
	launch_done(&t);
}
