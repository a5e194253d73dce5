#include "session/sinks.h"

#include <time.h>

#include "base/fd.h"
#include "files.h"
#include "session/sink_places.h"
#include "session/treewalk.h"

/* A project, the record before, and what was left after a shell line. */
struct proj {
	char *home, *dir;
	struct sinks *before;
	struct sinks_left *left;
	size_t n;
	struct strv trees;
};

/* A look gives up after two seconds, which a machine may spend elsewhere: up to three times. */
static struct sinks *take(const struct proj *p)
{
	for (int tries = 1;; tries++) {
		int64_t began = now_ns();
		struct sinks *s = sinks_take(&p->trees, p->home);

		if (tries == 3 || now_ns() - began < TREE_TIME_MS * INT64_C(1000000))
			return s;
		sinks_free(s);
	}
}

static void proj_init(struct proj *p, const char *setup)
{
	*p = (struct proj){ .home = files_tmp("/tmp") };
	p->dir = files_at(p->home, "p");
	files_sh(p->home, "mkdir p");
	files_sh(p->dir, setup);
	strv_add(&p->trees, p->dir);
	p->before = take(p);
}

static void after(struct proj *p, const char *line)
{
	struct sinks *now;

	files_sh(p->dir, line);
	now = take(p);
	sinks_left_free(p->left, p->n);
	sinks_compare(p->before, now, &p->left, &p->n);
	sinks_free(now);
}

static void proj_done(struct proj *p)
{
	sinks_left_free(p->left, p->n);
	sinks_free(p->before);
	strv_done(&p->trees);
	free(p->dir);
	files_sh(p->home, "chmod -R u+rwx .");
	files_rm(p->home);
}

static bool has(const struct strv *v, const char *what)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->v[i], what) == 0)
			return true;
	return false;
}

#define ITSELF(p, what)                                                                               \
	do {                                                                                          \
		if (!has(&(p).left[0].itself, what))                                                  \
			fail_msg("%s:%d: not told: %s (%zu told, first %s)", __FILE__, __LINE__, what, \
				 (p).left[0].itself.n, (p).left[0].itself.n ? (p).left[0].itself.v[0] : "-"); \
	} while (0)

static const char repo[] = "git init -q . && echo x > f && git add f && git commit -qm x";

TEST(ordinary_work_leaves_nothing)
{
	struct proj p;

	proj_init(&p, repo);
	after(&p, "echo y >> f && mkdir -p src/deep && echo int > src/deep/a.c && git add . && git commit -qm y && git checkout -q -b topic && "
		  "git config branch.topic.remote origin && git config branch.topic.merge refs/heads/topic && "
		  "git config remote.origin.url git@github.com:acme/app.git && git config user.name me && git gc -q && "
		  "echo . > .git/commondir && touch .git/hooks/pre-commit.sample");
	CHECK_INT(p.n, ==, 1);
	CHECK_INT(p.left[0].itself.n, ==, 0);
	CHECK_INT(p.left[0].build.n, ==, 0);
	CHECK(!p.left[0].cut);
	proj_done(&p);
}

TEST(settings_hooks_and_pointers_of_git_are_told)
{
	struct proj p;

	proj_init(&p, repo);
	after(&p, "git config core.fsmonitor ./x.sh && git config alias.st '!sh -c x' && git config remote.evil.url 'ext::sh -c x' && "
		  "echo '#!/bin/sh' > .git/hooks/post-commit && echo ../evil > .git/commondir && mkdir sub && echo gitdir: ../e > sub/.git");
	ITSELF(p, ".git/config core.fsmonitor = ./x.sh (new)");
	ITSELF(p, ".git/config alias.st = !sh -c x (new)");
	ITSELF(p, ".git/config remote.evil.url = ext::sh -c x (new)");
	ITSELF(p, ".git/hooks/post-commit (new)");
	ITSELF(p, ".git/commondir (new)");
	ITSELF(p, "sub/.git (new)");
	CHECK_INT(p.left[0].itself.n, ==, 6);
	proj_done(&p);
}

TEST(a_changed_value_mode_or_content_is_told)
{
	struct proj p;

	proj_init(&p, "git init -q . && git config core.pager less && echo x > .git/hooks/pre-push && touch .envrc && "
		      "git config --add core.gitproxy a && git config --add core.gitproxy b");
	after(&p, "git config core.pager ./evil && chmod +x .git/hooks/pre-push && echo y > .envrc");
	ITSELF(p, ".git/config core.pager = ./evil (changed)");
	ITSELF(p, ".git/hooks/pre-push (changed)");
	ITSELF(p, ".envrc (changed)");
	CHECK_INT(p.left[0].itself.n, ==, 3);
	proj_done(&p);
}

TEST(a_new_repository_in_a_project_without_one)
{
	struct proj p;

	proj_init(&p, "mkdir a");
	after(&p, "git init -q . && git -C . config core.hooksPath h && mkdir h && echo x > h/pre-commit && git init -q --bare a/b.git");
	ITSELF(p, ".git/ (new)");
	ITSELF(p, ".git/config core.hookspath = h (new)");
	ITSELF(p, "h/pre-commit (new)");
	ITSELF(p, "a/b.git/ (new)");
	proj_done(&p);
	/* The project's folder itself. */
	proj_init(&p, "mkdir a");
	after(&p, "git init -q --bare . && git config -f config core.fsmonitor x");
	ITSELF(p, "./ (new)");
	ITSELF(p, "config core.fsmonitor = x (new)");
	proj_done(&p);
}

TEST(hooks_behind_links_and_in_the_tree_are_looked_at)
{
	struct proj p;

	proj_init(&p, "git init -q . && rm -r .git/hooks && mkdir tools own && touch tools/pre-commit own/commit-msg && ln -s ../tools .git/hooks && "
		      "git config core.hooksPath own");
	after(&p, "echo evil > tools/pre-commit && echo evil > own/pre-push");
	ITSELF(p, ".git/hooks/pre-commit (changed)");
	ITSELF(p, "own/pre-push (new)");
	CHECK_INT(p.left[0].itself.n, ==, 2);
	/* Turned elsewhere. */
	after(&p, "git checkout -q -- . ; rm own/pre-push && : > tools/pre-commit && mkdir t2 && echo x > t2/pre-push && ln -sfn ../t2 .git/hooks");
	ITSELF(p, ".git/hooks (changed)");
	ITSELF(p, ".git/hooks/pre-push (new)");
	proj_done(&p);
}

TEST(a_hooks_folder_of_the_user_s_own_settings)
{
	struct proj p;

	proj_init(&p, "git init -q . && printf '[core]\\nhooksPath = .githooks\\n' > ../.gitconfig");
	after(&p, "mkdir .githooks && touch .githooks/post-checkout");
	ITSELF(p, ".githooks/post-checkout (new)");
	proj_done(&p);
}

TEST(a_config_in_one_tree_and_its_hooks_in_another)
{
	struct proj p;

	proj_init(&p, "git init -q ../main && cd ../main && git commit -q --allow-empty -m x && git config core.hooksPath hk && "
		      "git worktree add -q ../p/w");
	strv_done(&p.trees);
	strv_take(&p.trees, files_at(p.home, "p/w"));
	strv_take(&p.trees, files_at(p.home, "main/.git"));
	sinks_free(p.before);
	p.before = sinks_take(&p.trees, NULL);
	after(&p, "mkdir w/hk && touch w/hk/pre-commit && git -C ../main config core.editor ./e");
	CHECK_INT(p.n, ==, 2);
	ITSELF(p, "hk/pre-commit (new)");
	CHECK(has(&p.left[1].itself, "config core.editor = ./e (new)"));
	proj_done(&p);
}

TEST(what_a_config_includes_in_the_tree)
{
	struct proj p;

	proj_init(&p, "git init -q . && touch team.cfg && git config include.path ../team.cfg");
	after(&p, "git config -f team.cfg core.sshCommand ./x && git config -f team.cfg include.path team.cfg");
	ITSELF(p, "team.cfg core.sshcommand = ./x (new)");
	proj_done(&p);
}

TEST(modules_and_worktrees)
{
	struct proj p;

	proj_init(&p, "git init -q . && git commit -q --allow-empty -m x && git init -q --bare .git/modules/a/b && git worktree add -q w");
	after(&p, "git -C .git/modules/a/b config core.fsmonitor x && git config -f .git/worktrees/w/config.worktree core.pager y && "
		  "git worktree add -q w2 && echo z > .git/worktrees/w/commondir");
	ITSELF(p, ".git/modules/a/b/config core.fsmonitor = x (new)");
	ITSELF(p, ".git/worktrees/w/config.worktree core.pager = y (new)");
	ITSELF(p, ".git/worktrees/w/commondir (changed)");
	ITSELF(p, "w2/.git (new)");
	CHECK_INT(p.left[0].itself.n, ==, 4);
	proj_done(&p);
}

/* git follows links to objects and refs, wherever they lead, and finds both by commondir. */
TEST(git_directories_made_of_links_are_found)
{
	static const char *const shapes[] = {
		"ln -s ../store/objects docs/objects && ln -s ../store/refs docs/refs",
		"ln -s /usr docs/objects && ln -s /usr docs/refs",
		"echo ../store > docs/commondir",
	};
	struct proj p;

	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		proj_init(&p, "mkdir -p docs store/objects store/refs");
		files_sh(p.dir, shapes[i]);
		after(&p, "echo ref: refs/heads/main > docs/HEAD && git config -f docs/config core.fsmonitor ./x && "
			  "git config -f docs/config core.worktree ../docs");
		ITSELF(p, "docs/ (new)");
		ITSELF(p, "docs/config core.fsmonitor = ./x (new)");
		ITSELF(p, "docs/config core.worktree = ../docs (new)");
		proj_done(&p);
	}
	proj_init(&p, "git init -q . && git init -q --bare .git/modules/a && cd .git/modules/a && mv objects o && ln -s o objects");
	after(&p, "git config -f .git/modules/a/config core.fsmonitor x");
	ITSELF(p, ".git/modules/a/config core.fsmonitor = x (new)");
	proj_done(&p);
	/* One that was there before it was known for one. */
	proj_init(&p, "git init -q --bare b && cd b && mv refs r && ln -s r refs");
	after(&p, "git config -f b/config core.fsmonitor x");
	ITSELF(p, "b/config core.fsmonitor = x (new)");
	CHECK_INT(p.left[0].itself.n, ==, 1);
	proj_done(&p);
}

TEST(places_of_editors_and_builds)
{
	struct proj p;

	proj_init(&p, "mkdir -p .vscode node_modules/x && touch .vscode/tasks.json Makefile .agentvmignore");
	after(&p, "echo 1 > .vscode/tasks.json && echo 2 > Makefile && touch package.json a.code-workspace node_modules/x/package.json && "
		  "mkdir -p sub/.vscode .github/workflows && touch sub/.vscode/settings.json .github/workflows/ci.yml sub/.vscode/other.json && "
		  "rm .agentvmignore && ln -s /nowhere .claude && mkfifo .envrc");
	ITSELF(p, ".vscode/tasks.json (changed)");
	ITSELF(p, "sub/.vscode/settings.json (new)");
	ITSELF(p, "a.code-workspace (new)");
	ITSELF(p, ".agentvmignore (removed)");
	ITSELF(p, ".claude (new)");
	ITSELF(p, ".envrc (new)");
	CHECK_INT(p.left[0].itself.n, ==, 6);
	CHECK_INT(p.left[0].build.n, ==, 2);
	CHECK_STR(p.left[0].build.v[0], ".github/workflows/ci.yml, package.json (new)");
	CHECK_STR(p.left[0].build.v[1], "Makefile (changed)");
	proj_done(&p);
}

TEST(the_report_has_the_form_of_the_page)
{
	char text[2048];
	AUTO_FREE(char, want);
	struct proj p;
	FILE *f;

	proj_init(&p, "git init -q . && mkdir .vscode && touch .vscode/tasks.json package.json Makefile");
	after(&p, "git config core.fsmonitor ./x.sh && echo 1 > .vscode/tasks.json && echo 1 | tee package.json Makefile");
	f = fmemopen(text, sizeof(text), "w");
	sinks_print(f, p.left, p.n, false);
	fclose(f);
	want = xasprintf("==> left in %s by this session:\n"
			 "    runs by itself    .git/config core.fsmonitor = ./x.sh (new), .vscode/tasks.json (changed)\n"
			 "    runs on build     Makefile, package.json (changed)\n", p.dir);
	CHECK_STR(text, want);
	f = fmemopen(text, sizeof(text), "w");
	sinks_print(f, p.left, p.n, true);
	fclose(f);
	CHECK(strstr(text, "runs by itself") && !strstr(text, "runs on build"));
	proj_done(&p);
	proj_init(&p, "true");
	after(&p, "touch harmless");
	memset(text, 0, sizeof(text));
	f = fmemopen(text, sizeof(text), "w");
	sinks_print(f, p.left, p.n, false);
	CHECK_INT(ftell(f), ==, 0);
	fclose(f);
	proj_done(&p);
}

TEST(names_and_values_are_made_fit_for_a_terminal)
{
	struct proj p;

	proj_init(&p, "git init -q .");
	after(&p, "mkdir \"$(printf 'a\\033[2Jb')\" && touch \"$(printf 'a\\033[2Jb')/.envrc\" && git config core.pager \"$(printf '\\033]52')\" && "
		  "git config core.editor $(seq -s, 100)");
	ITSELF(p, "a\\x1b[2Jb/.envrc (new)");
	ITSELF(p, ".git/config core.pager = \\x1b]52 (new)");
	for (size_t i = 0; i < p.left[0].itself.n; i++)
		CHECK_INT(strlen(p.left[0].itself.v[i]), <, 120);
	proj_done(&p);
}

TEST(a_hostile_tree_hides_nothing_and_costs_little)
{
	struct timespec a, b;
	struct proj p;

	proj_init(&p, "git init -q .");
	clock_gettime(CLOCK_MONOTONIC, &a);
	/* Loops of includes and links, a heap of big files, a folder that is shut, 300 levels. */
	after(&p, "for i in $(seq 200); do printf '[include]\\npath = config\\n' >> .git/config; done; ln -s . loop; ln -s loop/loop .idea; "
		  "ln -s /etc/passwd .envrc; mkdir shut && chmod 0 shut; d=.; for i in $(seq 300); do d=$d/d; done; mkdir -p $d && touch $d/.envrc");
	clock_gettime(CLOCK_MONOTONIC, &b);
	CHECK_INT(b.tv_sec - a.tv_sec, <, 20);
	ITSELF(p, ".idea (new)");
	ITSELF(p, ".envrc (new)");
	proj_done(&p);
}

TEST(what_is_too_much_to_look_at_is_said)
{
	struct proj p;

	proj_init(&p, "git init -q .");
	after(&p, "for i in $(seq 1001); do printf '[include]\\npath = c%d\\n' $i >> .git/config; done; touch .envrc");
	ITSELF(p, ".envrc (new)");
	CHECK(p.left[0].cut);
	proj_done(&p);
}

/* What one file includes again and again is read once, and a long chain to its end. */
TEST(includes_cost_what_they_are_long)
{
	struct timespec a, b;
	struct proj p;

	proj_init(&p, "git init -q . && printf '[include]\\npath = c0\\n' >> .git/config && cd .git && for i in $(seq 0 39); do for k in $(seq 20); do "
		      "printf '[include]\\npath = c%d\\n' $i $((i + 1)); done > c$i; done && touch c40");
	clock_gettime(CLOCK_MONOTONIC, &a);
	after(&p, "printf '[core]\\npager = evil\\n' > .git/c40");
	clock_gettime(CLOCK_MONOTONIC, &b);
	ITSELF(p, ".git/c40 core.pager = evil (new)");
	CHECK(!p.left[0].cut);
	CHECK_INT(b.tv_sec - a.tv_sec, <, 20);
	proj_done(&p);
}

TEST(settings_that_start_something_are_not_harmless)
{
	static const struct {
		const char *section, *sub, *key, *value;
		bool harmless;
	} t[] = {
		{ "core", NULL, "bare", "false", true },	{ "core", NULL, "worktree", "..", false },
		{ "core", NULL, "fsmonitor", "x", false },	{ "remote", "o", "url", "https://h/x", true },
		{ "remote", "o", "url", "ssh://-oProxyCommand=x/y", false }, { "remote", "o", "url", "ext::sh", false },
		{ "remote", "o", "url", "-u", false },		{ "remote", "o", "uploadpack", "x", false },
		{ "remote", "o", "url", "git@h:a/b", true },	{ "remote", "o", "url", "git@-h:a", false },
		{ "remote", "o", "vcs", "x", false },		{ "branch", "b", "merge", "r", true },
		{ "branch", "b", "remote", "ext::x", false },	{ "branch", NULL, "merge", "r", false },
		{ "submodule", "s", "update", "!x", false },	{ "submodule", "s", "active", NULL, true },
		{ "color", "diff", "new", "red", true },	{ "gc", NULL, "auto", "0", true },
		{ "gc", NULL, "recentobjectshook", "x", false }, { "pull", NULL, "rebase", "true", true },
		{ "user", NULL, "signingkey", "x", false },	{ "url", "x", "insteadof", "y", false },
		{ "remote", "o", "url", "odd://h", false },	{ "fetch", NULL, "prune", "true", true },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		struct gitconfig_entry e = { t[i].section, t[i].sub, t[i].key, t[i].value };

		if (sink_config_is_harmless(&e) != t[i].harmless)
			fail_msg("%s.%s = %s", t[i].section, t[i].key, t[i].value ? t[i].value : "");
	}
	CHECK_INT(sink_class_of("a/b/.husky/_/x"), ==, SINK_ITSELF);
	CHECK_INT(sink_class_of("x.husky/y"), ==, SINK_NONE);
	CHECK_INT(sink_class_of("a/.claude/settings.local.json"), ==, SINK_ITSELF);
	CHECK_INT(sink_class_of("a/.claude/todos/x.json"), ==, SINK_NONE);
	CHECK_INT(sink_class_of("settings.json"), ==, SINK_NONE);
	CHECK_INT(sink_class_of("a/build.gradle.kts"), ==, SINK_BUILD);
}
