#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/ghlist.h"

static char dir[64];
static struct launch_args args;
static struct layout layout;
static struct ghlist list;
static struct strv warnings;

static void put(const char *name, const char *text)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_INT(fd_write_all(fd, text, strlen(text)), ==, 0);
	(void)close(fd);
}

static const char *const folders[] = { ".git/objects", ".git/refs", ".git/worktrees", ".git/worktrees/w" };

static void folder(const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	CHECK_INT(mkdir(path, 0700), ==, 0);
}

static void begin(void)
{
	char git[80];

	(void)snprintf(dir, sizeof(dir), "/tmp/t-cli-ghlist.XXXXXX");
	CHECK(mkdtemp(dir) != NULL);
	(void)snprintf(git, sizeof(git), "%s/.git", dir);
	CHECK_INT(mkdir(git, 0700), ==, 0);
	args = (struct launch_args){ .verb = "claude" };
	layout = (struct layout){ .git = { .common = xstrdup(git), .top = xstrdup(dir) } };
	warnings = (struct strv){ 0 };
}

static void end(void)
{
	static const char *const names[] = { "tree/.git",
					     "tree",
					     ".git/worktrees/w/commondir",
					     ".git/worktrees/w/gitdir",
					     ".git/worktrees/w",
					     ".git/worktrees",
					     ".git/objects",
					     ".git/refs",
					     ".git/HEAD",
					     ".git/config",
					     ".gitmodules",
					     "real",
					     ".git",
					     "" };
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)remove(path);
	}
	free(layout.git.common);
	free(layout.git.top);
	strv_done(&args.repos);
	strv_done(&args.github);
	strv_done(&warnings);
}

#define ROW(lent, text)                                  \
	do {                                             \
		AUTO_FREE(char, row_);                   \
		row_ = ghlist_text(&list, lent);         \
		CHECK_STR(row_, text);                   \
	} while (0)

static const char CONFIG[] = "[remote \"origin\"]\n\turl = git@github.com:acme/app.git\n\tpushurl = https://github.com/Acme/App\n"
			     "[remote \"fork\"]\n\turl = https://github.com/me/app\n[remote \"other\"]\n\turl = https://gitlab.com/a/b\n";

TEST(remotes_write_submodules_read_and_options_decide)
{
	begin();
	put(".git/config", CONFIG);
	put(".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n[submodule \"self\"]\n\turl = ../app\n");
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(warnings.n, ==, 0);
	ROW(true, "write acme/app, me/app; read acme/lib (.gitmodules); all others without your rights");
	ROW(false, "no login of GitHub's on this host (gh auth login); all repositories without your rights");
	strv_add(&args.repos, "ME/APP=read");
	strv_add(&args.repos, "octo/x=admin");
	ghlist_take(&args, &layout, &list, &warnings);
	ROW(true, "admin octo/x (--repo); write acme/app; read me/app (--repo), acme/lib (.gitmodules); all others without your rights");
	args.no_git = true;
	ghlist_take(&args, &layout, &list, &warnings);
	ROW(true, "admin octo/x (--repo); read ME/APP (--repo); all others without your rights");
	end();
}

TEST(nothing_is_listed_without_a_word_for_it)
{
	begin();
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(list.n, ==, 0);
	ROW(true, "none; all repositories without your rights");
	CHECK_INT(list.switches, ==, GH_SWITCHES_DEFAULT);
	end();
}

TEST(files_of_the_guest_cannot_lead_elsewhere)
{
	char path[128], target[128];

	begin();
	put("real", CONFIG);
	(void)snprintf(path, sizeof(path), "%s/.git/config", dir);
	(void)snprintf(target, sizeof(target), "%s/real", dir);
	CHECK_INT(symlink(target, path), ==, 0);
	(void)snprintf(path, sizeof(path), "%s/.gitmodules", dir);
	CHECK_INT(mkfifo(path, 0600), ==, 0);
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(list.n, ==, 0);
	end();
}

TEST(a_mount_that_is_a_worktree_gives_the_repository_that_points_back_to_it)
{
	char tree[80], back[128], text[256];
	struct layout_share share = { .kind = LAYOUT_MOUNT, .host = tree };

	begin();
	(void)snprintf(tree, sizeof(tree), "%s/tree", dir);
	folder("tree");
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		folder(folders[i]);
	put(".git/config", CONFIG);
	put(".git/HEAD", "ref: refs/heads/main\n");
	put(".git/worktrees/w/commondir", "../..\n");
	(void)snprintf(back, sizeof(back), "%s/.git\n", tree);
	put(".git/worktrees/w/gitdir", back);
	(void)snprintf(text, sizeof(text), "gitdir: %s/.git/worktrees/w\n", dir);
	put("tree/.git", text);
	free(layout.git.common);
	layout.git.common = NULL;
	layout.shares = &share;
	layout.n_shares = 1;
	layout.project = 1;
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(warnings.n, ==, 0);
	ROW(true, "write acme/app, me/app; all others without your rights");
	share.ro = true;
	ghlist_take(&args, &layout, &list, &warnings);
	ROW(true, "read acme/app, me/app; all others without your rights");
	/* A guest can write such a file: it does not choose whose remotes are listed. */
	put(".git/worktrees/w/gitdir", "/elsewhere/.git\n");
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(list.n, ==, 0);
	CHECK_INT(warnings.n, ==, 1);
	end();
}

TEST(switches)
{
	AUTO_FREE(char, text);

	begin();
	strv_add(&args.github, "merge=off");
	strv_add(&args.github, "protect-workflows=on");
	strv_add(&args.github, "ci=off");
	strv_add(&args.github, "ci=on");
	strv_add(&args.github, "push-refs=refs/heads/x/*");
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(list.switches, ==, GH_SWITCHES_DEFAULT & ~(GH_SWITCH_BIT(GH_MERGE) | GH_SWITCH_BIT(GH_WORKFLOWS)));
	CHECK_STR(list.push_refs, "refs/heads/x/*");
	end();
	begin();
	strv_add(&args.github, "foreign-credentials=anon");
	ghlist_take(&args, &layout, &list, &warnings);
	CHECK_INT(list.switches, ==, GH_SWITCHES_DEFAULT | GH_SWITCH_BIT(GH_FOREIGN_ANON));
	text = ghlist_text(&list, true);
	CHECK(strstr(text, "; other accounts' credentials are taken off"));
	end();
}
