#include "session/guard.h"

#include <dirent.h>
#include <errno.h>

#include "base/file.h"
#include "files.h"
#include "session/gitindex.h"
#include "session/treewalk.h"

static bool has(const struct strv *v, const char *dir, const char *name)
{
	char *want = files_at(dir, name);
	bool yes = false;

	for (size_t i = 0; i < v->n && !yes; i++)
		yes = strcmp(v->v[i], want) == 0;
	free(want);
	return yes;
}

struct place {
	char *dir, *git;
	struct guard g;
	struct findings found;
};

static void place_init(struct place *p)
{
	*p = (struct place){ .dir = files_tmp("/tmp") };
	files_sh(p->dir, "git init -q .");
	p->git = files_at(p->dir, ".git");
}

static void again(struct place *p)
{
	guard_done(&p->g);
	findings_done(&p->found);
}

static void place_done(struct place *p)
{
	again(p);
	free(p->git);
	files_rm(p->dir);
}

TEST(places_of_a_git_directory)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "touch .git/config.worktree");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.git, "hooks") && has(&p.g.ro, p.git, "config") && has(&p.g.ro, p.git, "config.worktree"));
	CHECK(has(&p.g.ro, p.git, "commondir"));
	CHECK_INT(p.g.ro.n, ==, 4);
	CHECK(has(&p.g.make, p.git, "hooks") && has(&p.g.make, p.git, "commondir") && p.g.make.n == 3 && p.found.n == 0);
	/* One of ours is there already, as with another session. */
	again(&p);
	files_write(p.git, "commondir", ".\n");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.git, "commondir") && has(&p.g.make, p.git, "commondir"));
	/* One that leads elsewhere is kept as it is. */
	again(&p);
	files_write(p.git, "commondir", "../elsewhere\n");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.git, "commondir") && !has(&p.g.make, p.git, "commondir"));
	place_done(&p);
}

TEST(config_worktree_is_made_only_when_git_would_read_it)
{
	struct place p;

	place_init(&p);
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(!has(&p.g.make, p.git, "config.worktree") && !has(&p.g.ro, p.git, "config.worktree"));
	again(&p);
	files_sh(p.dir, "git config extensions.worktreeConfig true");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.make, p.git, "config.worktree") && has(&p.g.ro, p.git, "config.worktree"));
	place_done(&p);
}

TEST(links_and_fifos_are_warned_of)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "rm -r .git/hooks && ln -s ../h .git/hooks && rm .git/config && mkfifo .git/config && "
			"ln -s /nowhere .git/modules");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(!has(&p.g.ro, p.git, "hooks") && !has(&p.g.ro, p.git, "config"));
	CHECK_INT(p.found.n, ==, 3);
	CHECK_INT(p.found.v[0].kind, ==, FINDING_WARNING);
	place_done(&p);
}

TEST(modules_of_modules_are_found_and_links_among_them_are_not_entered)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "mkdir -p .git/modules/a/b && cp -r .git/hooks .git/config .git/HEAD .git/objects .git/refs .git/modules/a/b && "
			"mkdir -p .git/modules/a/b/modules/c && cp -r .git/config .git/HEAD .git/objects .git/refs "
			".git/modules/a/b/modules/c && ln -s a .git/modules/loop");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.git, "modules/a/b/hooks") && has(&p.g.ro, p.git, "modules/a/b/config"));
	CHECK(has(&p.g.ro, p.git, "modules/a/b/modules/c/config"));
	CHECK(has(&p.g.make, p.git, "modules/a/b/modules/c/hooks"));
	CHECK(has(&p.g.make, p.git, "modules/a/b/commondir") && has(&p.g.ro, p.git, "modules/a/b/commondir"));
	CHECK_INT(p.g.ro.n, ==, 9);
	place_done(&p);
}

/* A guest can turn folders of one into links, and take its HEAD away until the next session. */
TEST(modules_are_known_by_links_and_by_their_config)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "mkdir -p .git/modules/a && cd .git/modules && git init -q --bare a/b && git init -q --bare c && git init -q --bare d && "
			"mv a/b/objects a/b/o && ln -s o a/b/objects && rm c/HEAD && mv d/refs d/r && "
			"ln -s r d/refs && touch a/config");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.git, "modules/a/b/config") && has(&p.g.ro, p.git, "modules/a/b/hooks"));
	CHECK(has(&p.g.ro, p.git, "modules/c/config") && has(&p.g.ro, p.git, "modules/d/config"));
	place_done(&p);
}

TEST(every_folder_named_git_is_guarded)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "git init -q a && git init -q b && mkdir -p c/.git && mv a/.git/objects a/.git/o && ln -s o a/.git/objects && rm b/.git/HEAD");
	CHECK_INT(guard_below(&p.g, p.dir, NULL, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.dir, "a/.git/config") && has(&p.g.ro, p.dir, "b/.git/config") && has(&p.g.ro, p.dir, "c/.git/config"));
	place_done(&p);
}

TEST(a_config_that_a_commondir_would_change_is_warned_of)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "git config core.worktree ..");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(!has(&p.g.make, p.git, "commondir") && !has(&p.g.ro, p.git, "commondir"));
	CHECK(p.found.n == 1 && p.found.v[0].kind == FINDING_WARNING);
	again(&p);
	/* A submodule's says what the place of its work tree says. */
	files_sh(p.dir, "mkdir .git/modules && git init -q --bare .git/modules/m && git -C .git/modules/m config core.bare false && "
			"git -C .git/modules/m config core.worktree ../../../m && git config --unset core.worktree");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.make, p.git, "modules/m/commondir") && p.found.n == 0);
	place_done(&p);
}

TEST(with_our_commondir_git_works_as_before)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "echo 1 > f && git add f && git commit -qm one");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, 0);
	for (size_t i = 0; i < p.g.make.n; i++)
		CHECK_INT(guard_place_there(p.g.make.v[i]) ? guard_place_make(p.g.make.v[i]) : 0, ==, 0);
	files_sh(p.dir, "grep -qx '\\.' .git/commondir && test -z \"$(git status --porcelain)\" && echo 2 >> f && git commit -qam two && "
			"git checkout -q -b b && git worktree add -q w && git -C w status && git worktree remove w && git gc -q && "
			"git fsck && git clone -q . c && test $(git -C c log --oneline | wc -l) = 2 && git config user.name x && "
			"git stash list && git branch -D -q master || git branch -D -q main");
	for (size_t i = 0; i < p.g.make.n; i++)
		guard_place_remove(p.g.make.v[i]);
	files_sh(p.dir, "test ! -e .git/commondir && test -d .git/hooks && git fsck");
	place_done(&p);
}

TEST(repositories_below_a_folder_that_is_none_are_guarded)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "git init -q a/sub && echo 'gitdir: ../../.git/worktrees/w' > a/.git && mkdir -p b/c && ln -s ../../a/sub/.git b/c/.git && "
			"ln -s a loop && git init -q .git/inside && git init -q c && git init -q c/build/fetched");
	CHECK_INT(guard_below(&p.g, p.dir, NULL, NULL, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.dir, "a/.git") && has(&p.g.self, p.dir, "c/.git"));
	CHECK(has(&p.g.ro, p.dir, "c/.git/config") && has(&p.g.ro, p.dir, "c/.git/hooks") && has(&p.g.make, p.dir, "c/.git/commondir"));
	CHECK(p.found.n == 1 && strstr(p.found.v[0].text, "b/c/.git: is a link"));
	/* The top's own is not its business, and what lies in a git directory is none of a work tree. */
	CHECK(!has(&p.g.self, p.dir, ".git") && !has(&p.g.self, p.dir, ".git/inside/.git"));
	/* A clone in a work tree that knows nothing of it. */
	CHECK(!has(&p.g.self, p.dir, "c/build/fetched/.git"));
	place_done(&p);
}

TEST(submodules_and_worktrees_inside_a_work_tree_are_guarded_and_other_clones_not)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "git init -q ../lib-$$ && git -C ../lib-$$ commit -q --allow-empty -m l && "
			"git -c protocol.file.allow=always submodule add -q ../lib-$$ s/absorbed 2>/dev/null || "
			"git -c protocol.file.allow=always submodule add -q \"$PWD/../lib-$$\" s/absorbed; "
			"git init -q old && git -C old commit -q --allow-empty -m o && git add old && git commit -qm all && "
			"git worktree add -q w/t && git clone -q \"$PWD/../lib-$$\" build/fetched && "
			"git -C build/fetched -c protocol.file.allow=always submodule add -q \"$PWD/../lib-$$\" deep && rm -rf ../lib-$$");
	CHECK_INT(guard_below(&p.g, p.dir, p.git, p.git, false, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.dir, "s/absorbed/.git") && has(&p.g.ro, p.dir, "w/t/.git"));
	CHECK(has(&p.g.self, p.dir, "old/.git") && has(&p.g.ro, p.dir, "old/.git/config"));
	CHECK(!has(&p.g.self, p.dir, "build/fetched/.git") && !has(&p.g.ro, p.dir, "build/fetched/deep/.git"));
	again(&p);
	/* An index that cannot be read tells nothing, so all are. */
	files_sh(p.dir, "git update-index --index-version 4");
	CHECK_INT(guard_below(&p.g, p.dir, p.git, p.git, false, &p.found), ==, 0);
	CHECK(has(&p.g.self, p.dir, "build/fetched/.git"));
	place_done(&p);
}

struct seen {
	unsigned long sum; /* of the numbers that the names end with */
	int wrong;
};

static enum tree_next see(const struct tree_entry *e, void *arg)
{
	struct seen *s = arg;
	AUTO_FREE(char, want);

	want = xasprintf("many/%s", e->name);
	if (strcmp(e->path, "many") == 0 && e->type == DT_DIR)
		return TREE_ENTER;
	s->wrong += strcmp(e->path, want) != 0 || e->type != DT_REG;
	s->sum += strtoul(strrchr(e->name, '-') + 1, NULL, 10);
	return TREE_PASS;
}

/* Of more entries than the kernel gives at once, with the longest names. */
TEST(a_large_folder_is_seen_whole)
{
	struct seen s = { 0 };
	struct tree_walk w = { .each = see, .arg = &s, .time_ms = 600000 };
	char *dir = files_tmp("/tmp");
	AUTO_FD(fd);

	files_sh(dir, "mkdir many && cd many && n=$(printf '%0250d' 0) && seq 1000 1999 | sed \"s/^/$n-/\" | xargs touch");
	fd = open(dir, O_PATH | O_DIRECTORY);
	tree_walk(fd, &w);
	CHECK_INT(s.wrong, ==, 0);
	CHECK_INT(s.sum, ==, 1499500);
	CHECK(w.n_entries == 1001 && !w.cut);
	/* What comes behind the bound is not seen, and said. */
	w.entries_max = 500;
	tree_walk(fd, &w);
	CHECK(w.n_entries == 500 && w.cut);
	files_rm(dir);
}

/* A guest may have written the index: git sorts it. */
TEST(submodules_are_found_in_an_index_that_is_not_sorted)
{
	static const char *const names[] = { "s/z", "s/b", "s/a", "s/m" };
	AUTO_FREE(char, path);
	struct place p;
	FILE *f;

	place_init(&p);
	files_sh(p.dir, "for d in s/z s/b s/a s/m s/other; do git init -q $d; done");
	path = files_at(p.git, "index");
	f = fopen(path, "we");
	CHECK(f && fwrite("DIRC\0\0\0\2\0\0\0\4", 1, 12, f) == 12);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint8_t entry[72] = { [24] = 0, 0, 0160000 >> 8, 0, [61] = 3 }; /* 62 + 3, and NULs */

		memcpy(entry + 62, names[i], 3);
		CHECK(fwrite(entry, 1, sizeof(entry), f) == sizeof(entry));
	}
	CHECK(fwrite(names, 1, 20, f) == 20 && fclose(f) == 0); /* a checksum, which nobody looks at */
	CHECK_INT(guard_below(&p.g, p.dir, p.git, p.git, false, &p.found), ==, 0);
	CHECK(has(&p.g.self, p.dir, "s/z/.git") && has(&p.g.self, p.dir, "s/b/.git") && has(&p.g.self, p.dir, "s/a/.git") &&
	      has(&p.g.self, p.dir, "s/m/.git"));
	CHECK(!has(&p.g.self, p.dir, "s/other/.git"));
	place_done(&p);
}

TEST(the_index_tells_its_submodules_or_that_it_cannot_be_read)
{
	struct place p;
	AUTO_FREE(char, text);
	struct strv links = { 0 };
	size_t n;
	int fd;

	place_init(&p);
	files_sh(p.dir, "seq 300 | sed 's/^/a-file-with-a-name-/' | xargs touch && git add . && git init -q sub && "
			"git -C sub commit -q --allow-empty -m x && git add sub && touch later && git add -N later");
	fd = open(p.git, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CHECK_INT(file_read_beneath(fd, "index", GITINDEX_MAX, &text, &n), ==, 0);
	CHECK_INT(gitindex_links(SPAN(text, n), &links), ==, 0);
	CHECK(links.n == 1 && strcmp(links.v[0], "sub") == 0);
	strv_done(&links);
	/* Cut anywhere before the checksum: an error or, between two extensions, still right; nothing is handed out by halves. */
	for (size_t k = 0; k < n; k += 7) {
		int r = gitindex_links(SPAN(text, k), &links);

		CHECK(r == 0 || r == -EBADMSG);
		CHECK_INT(links.n, ==, r == 0);
		strv_done(&links);
	}
	free(TAKE_PTR(text));
	files_sh(p.dir, "git update-index --split-index");
	CHECK_INT(file_read_beneath(fd, "index", GITINDEX_MAX, &text, &n), ==, 0);
	/* Its names may be empty, or not. */
	CHECK_INT(gitindex_links(SPAN(text, n), &links), <, 0);
	(void)close(fd);
	place_done(&p);
}

TEST(more_than_can_be_guarded_stops_the_launch)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "d=.git/modules; for i in $(seq 1 20); do d=$d/x; done; mkdir -p $d");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, -E2BIG);
	CHECK_INT(p.found.n, ==, 1);
	CHECK_INT(p.found.v[0].kind, ==, FINDING_WORLD);
	again(&p);
	files_sh(p.dir, "rm -r .git/modules && mkdir .git/modules && cd .git/modules && seq 1 20001 | xargs touch");
	CHECK_INT(guard_git(&p.g, p.git, NULL, false, &p.found), ==, -E2BIG);
	place_done(&p);
}

TEST(top_of_a_work_tree)
{
	struct place p;

	place_init(&p);
	files_sh(p.dir, "touch .agentvmignore .agent-vm.conf");
	CHECK_INT(guard_top(&p.g, p.dir, &p.found), ==, 0);
	CHECK(has(&p.g.self, p.dir, ".git") && has(&p.g.ro, p.dir, ".agentvmignore") && has(&p.g.ro, p.dir, ".agent-vm.conf"));
	again(&p);
	/* A pointer is content that decides where hooks come from. */
	files_sh(p.dir, "rm -r .git .agentvmignore .agent-vm.conf && echo gitdir: x > .git");
	CHECK_INT(guard_top(&p.g, p.dir, &p.found), ==, 0);
	CHECK(has(&p.g.ro, p.dir, ".git") && p.g.ro.n == 1 && p.g.self.n == 0);
	again(&p);
	files_sh(p.dir, "rm .git");
	CHECK_INT(guard_top(&p.g, p.dir, &p.found), ==, 0);
	CHECK(p.g.ro.n == 0 && p.g.self.n == 0 && p.found.n == 0);
	place_done(&p);
}
