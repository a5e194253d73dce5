#include "session/ignore.h"

#include <errno.h>

#include "base/macros.h"
#include "files.h"

static bool hides(const char *patterns, const char *path, bool is_dir)
{
	struct ignore *ig = ignore_new();
	bool yes;

	CHECK_INT(ignore_add_file(ig, patterns, strlen(patterns)), ==, 0);
	yes = ignore_hides(ig, path, is_dir);
	ignore_free(ig);
	return yes;
}

TEST(forms_of_the_page)
{
	CHECK(hides(".env", ".env", false));
	CHECK(hides(".env", "a/b/.env", false));
	CHECK(!hides("/.env", "a/.env", false));
	CHECK(hides("secrets/", "secrets", true));
	CHECK(!hides("secrets/", "secrets", false));
	CHECK(hides("secrets/", "x/secrets/key", false));
	CHECK(!hides("# .env\n", "# .env", false));
	CHECK(hides("\\#x", "#x", false));
	CHECK(hides("\\!x", "!x", false));
	CHECK(hides("*.pem\n!pub.pem\n", "a.pem", false));
	CHECK(!hides("*.pem\n!pub.pem\n", "d/pub.pem", false));
	CHECK(hides("d/\n!d/x\n", "d/x", false));
	CHECK(hides("a/**/b", "a/b", false));
	CHECK(hides("a/**/b", "a/x/y/b", false));
	CHECK(hides("**/b", "x/b", false));
	CHECK(hides("a/**", "a/x/y", false));
	CHECK(!hides("a/**", "a", true));
	CHECK(!hides("a*b/c", "ax/b/c", false));
	CHECK(hides("[a-c]?", "bz", false));
	CHECK(!hides("[!a-c]?", "bz", false));
	CHECK(hides("x  ", "x", false));
	CHECK(hides("x\\ ", "x ", false));
	CHECK(hides("a\r\nb\r\n", "a", false));
	CHECK(hides("\xef\xbb\xbf" "a", "a", false));
	CHECK(hides("тай*", "тайна", false));
}

TEST(no_pattern_costs_more_than_its_length_times_the_path)
{
	/* 2^60 steps for a matcher that goes back. */
	char path[201];

	memset(path, 'a', 200);
	path[200] = '\0';
	CHECK(!hides("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", path, false));
	CHECK(!hides("**/*a/**/*a/**/*a/**/*a/**/*a/**/b", "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", false));
}

TEST(what_can_match_nothing_is_told)
{
	struct ignore *ig = ignore_new();
	char *longer = xmalloc(5001);

	CHECK_INT(ignore_add(ig, ""), ==, -EINVAL);
	CHECK_INT(ignore_add(ig, "# x"), ==, -EINVAL);
	CHECK_INT(ignore_add(ig, "/"), ==, -EINVAL);
	CHECK_INT(ignore_add(ig, "!"), ==, -EINVAL);
	CHECK_INT(ignore_add(ig, "   "), ==, -EINVAL);
	memset(longer, 'a', 5000);
	longer[5000] = '\0';
	CHECK_INT(ignore_add(ig, longer), ==, -E2BIG);
	CHECK_INT(ignore_add_file(ig, "a\0b", 3), ==, -EBADMSG);
	CHECK(ignore_is_empty(ig));
	free(longer);
	ignore_free(ig);
}

/* ---- the same answers as git ---- */

static const char *const tree_dirs[] = { "a", "ab", "b", "a/a", "a/b", "a/ab", "b/c", "b/c/a", "b/c/a/b", "a.b", "[x]", "a b", "c" };
static const char *const tree_files[] = {
	"x",	  "ba",	     "a/x",	"a/a/b",    "a/b/c",  "a/b/ab",	 "a/ab/x", "ab/a",  "ab/c",    "b/a",	"b/c/x",
	"b/c/a/c", "b/c/a/b/a", "b/c/a/b/x", "a.b/c",  "a.b/x", "[x]/a",	 "[x]/x",  "a b/c", "a b/a b", "c/#a", "c/!a",
	"c/a\\b", "c/a*",    "c/a-b",	"c/]",	    "c/-",    "c/x ",	 "c/\\",   "c/a[b", "c/aa",    "c/ca",	"c/b.c", "#x", "!x",
};
#define N_PATHS (ARRAY_SIZE(tree_dirs) + ARRAY_SIZE(tree_files))
static const char *const atoms[] = {
	"a", "b", "c", "x", "a", "b", "ab", "/", "/", "/", "*", "*", "**", "**/", "/**", "?", "[ab]", "[!a]", "[^b]", "[a-c]",
	"[[:alpha:]]", "[[:punct:]]", "[]]", "[]-]", "[a-", "[", "]", "\\", "\\*", "\\ ", " ", ".", "-", "#", "!", "[\\]]",
	"[[:nope:]]", "[a/b]", "***", "[x", "\t",
};

static unsigned rnd(unsigned *seed, unsigned n)
{
	*seed = *seed * 1103515245u + 12345u;
	return (*seed >> 16) % n;
}

static void make_tree(const char *dir)
{
	for (size_t i = 0; i < ARRAY_SIZE(tree_dirs); i++) {
		char *path = files_at(dir, tree_dirs[i]);

		CHECK_INT(mkdir(path, 0755), ==, 0);
		free(path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(tree_files); i++)
		files_write(dir, tree_files[i], "");
}

static char *random_patterns(unsigned *seed)
{
	char *text = xstrdup("");
	unsigned lines = 1 + rnd(seed, 4);

	for (unsigned i = 0; i < lines; i++) {
		unsigned n = 1 + rnd(seed, 6);

		if (rnd(seed, 5) == 0) {
			char *more = xasprintf("%s!", text);

			free(text);
			text = more;
		}
		for (unsigned k = 0; k < n; k++) {
			char *more = xasprintf("%s%s", text, atoms[rnd(seed, ARRAY_SIZE(atoms))]);

			free(text);
			text = more;
		}
		{
			char *more = xasprintf("%s%s", text, rnd(seed, 12) == 0 ? "\r\n" : "\n");

			free(text);
			text = more;
		}
	}
	return text;
}

/* git's answer about all paths: a NUL-separated list of those that it ignores. */
static size_t ask_git(const char *dir, char *buf, size_t size)
{
	char *line = xasprintf("cd '%s' && GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git check-ignore --no-index -z "
			       "--stdin < ../paths",
			       dir);
	FILE *f = popen(line, "r");
	size_t n;
	int status;

	assert_non_null(f);
	n = fread(buf, 1, size, f);
	status = pclose(f);
	/* 1: none is ignored. */
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
	free(line);
	return n;
}

static bool in_list(const char *list, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i += strlen(list + i) + 1)
		if (strcmp(list + i, path) == 0)
			return true;
	return false;
}

static bool in_hits(const struct ignore_hits *h, const char *path)
{
	for (size_t i = 0; i < h->n; i++) {
		size_t n = strlen(h->v[i].path);

		if (strncmp(h->v[i].path, path, n) == 0 && (path[n] == '\0' || path[n] == '/'))
			return true;
	}
	return false;
}

/* How many of the paths are hidden; git and we agree about each of them, by name and in the walk. @ignored: git's list. */
static size_t compare(const char *repo, unsigned nth, const char *text, const char *ignored, size_t n)
{
	char *dir = xasprintf("%s/r%u", repo, nth);
	int root = open(dir, O_RDONLY | O_DIRECTORY);
	struct ignore *ig = ignore_new();
	struct ignore_hits hits;
	size_t n_hidden = 0;
	struct err err;

	CHECK_INT(ignore_add_file(ig, text, strlen(text)), ==, 0);
	CHECK_INT(ignore_walk(ig, root, &hits, &err), ==, 0);
	for (size_t i = 0; i < N_PATHS; i++) {
		bool is_dir = i < ARRAY_SIZE(tree_dirs);
		const char *path = is_dir ? tree_dirs[i] : tree_files[i - ARRAY_SIZE(tree_dirs)];
		char *below = xasprintf("r%u/%s", nth, path);
		bool git = in_list(ignored, n, below), ours = ignore_hides(ig, path, is_dir);

		if (git != ours)
			fail_msg("git %s \"%s\", we do not agree; patterns:\n%s", git ? "ignores" : "keeps", path, text);
		if (ours != in_hits(&hits, path))
			fail_msg("the walk differs for \"%s\"; patterns:\n%s", path, text);
		n_hidden += git;
		free(below);
	}
	ignore_hits_done(&hits);
	ignore_free(ig);
	(void)close(root);
	free(dir);
	return n_hidden;
}

/* Each folder of the repository has the same tree and patterns of its own, so that git is started once for all of them. */
TEST(random_patterns_answer_as_git_does)
{
	enum { ROUNDS = 20, FOLDERS = 30 };
	char *dir = files_tmp("/tmp"), *repo = files_at(dir, "r"), *paths = files_at(dir, "paths"), *text[FOLDERS];
	static char buf[128 << 10];
	unsigned seed = 20240817;
	size_t n_hidden = 0;
	FILE *list;

	files_sh(dir, "git init -q r");
	list = fopen(paths, "w");
	assert_non_null(list);
	for (unsigned k = 0; k < FOLDERS; k++) {
		char *name = xasprintf("r%u", k), *tree = files_at(repo, name);

		CHECK_INT(mkdir(tree, 0755), ==, 0);
		make_tree(tree);
		for (size_t i = 0; i < N_PATHS; i++) {
			size_t n_dirs = ARRAY_SIZE(tree_dirs);

			(void)fprintf(list, "%s/%s%c", name, i < n_dirs ? tree_dirs[i] : tree_files[i - n_dirs], '\0');
		}
		free(tree);
		free(name);
	}
	CHECK_INT(fclose(list), ==, 0);
	for (int round = 0; round < ROUNDS; round++) {
		size_t n;

		for (unsigned k = 0; k < FOLDERS; k++) {
			char *name = xasprintf("r%u/.gitignore", k);

			text[k] = random_patterns(&seed);
			files_write(repo, name, text[k]);
			free(name);
		}
		n = ask_git(repo, buf, sizeof(buf));
		for (unsigned k = 0; k < FOLDERS; k++) {
			n_hidden += compare(repo, k, text[k], buf, n);
			free(text[k]);
		}
	}
	/* A property that is always or never true would prove nothing. */
	CHECK_INT(n_hidden, >, ROUNDS * FOLDERS * N_PATHS / 50);
	CHECK_INT(n_hidden, <, ROUNDS * FOLDERS * N_PATHS / 2);
	free(paths);
	free(repo);
	files_rm(dir);
}

/* ---- the walk ---- */

static int walk(const char *dir, const char *patterns, struct ignore_hits *ret, struct err *err)
{
	struct ignore *ig = ignore_new();
	int fd = open(dir, O_RDONLY | O_DIRECTORY), r;

	CHECK_INT(ignore_add_file(ig, patterns, strlen(patterns)), ==, 0);
	r = ignore_walk(ig, fd, ret, err);
	(void)close(fd);
	ignore_free(ig);
	return r;
}

TEST(a_hidden_folder_is_one_entry_and_git_is_not_entered)
{
	char *dir = files_tmp("/tmp");
	struct ignore_hits h;
	struct err err;

	files_sh(dir, "mkdir -p s/deep/er .git/x sub/.git && touch s/a s/deep/a .env .git/a .git/x/a sub/a sub/.git/a");
	CHECK_INT(walk(dir, "s/\na\n.env\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 3);
	CHECK_STR(h.v[0].path, ".env");
	CHECK_STR(h.v[1].path, "s");
	CHECK(h.v[1].is_dir);
	CHECK_STR(h.v[2].path, "sub/a");
	CHECK_INT(h.patterns.n, ==, 3);
	ignore_hits_done(&h);
	CHECK_INT(walk(dir, "*.none\n/.git/x/a\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 1);
	CHECK_STR(h.v[0].path, ".git/x/a");
	ignore_hits_done(&h);
	files_rm(dir);
}

TEST(anchored_patterns_need_no_walk)
{
	char *dir = files_tmp("/dev/shm"); /* in memory, as there are many */
	struct ignore_hits h;
	struct err err;

	/* More entries than a walk may see: only look-ups can succeed. */
	files_sh(dir, "mkdir -p many d/e && touch .env d/e/k && cd many && seq 1 200001 | xargs touch");
	CHECK_INT(walk(dir, "/.env\nd/e/k\n/nope/x\n/../x\nd/e/k/\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 2);
	ignore_hits_done(&h);
	CHECK_INT(walk(dir, "*.pem\n", &h, &err), ==, -E2BIG);
	CHECK(strstr(err.text, "200000"));
	files_rm(dir);
}

TEST(a_hidden_link_hides_what_it_leads_to)
{
	char *dir = files_tmp("/tmp"), *abs;
	struct ignore_hits h;
	struct err err;

	files_sh(dir, "mkdir -p d/e && touch d/e/real && ln -s d/e/real .env && ln -s /etc/passwd out && ln -s nowhere dang");
	CHECK_INT(walk(dir, ".env\nout\ndang\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 1);
	CHECK_STR(h.v[0].path, "d/e/real");
	ignore_hits_done(&h);
	abs = xasprintf("ln -s %s/d/e/real d/abs", dir);
	files_sh(dir, abs);
	free(abs);
	CHECK_INT(walk(dir, "abs\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 1);
	CHECK_STR(h.v[0].path, "d/e/real");
	ignore_hits_done(&h);
	files_sh(dir, "ln -s . d/up");
	CHECK_INT(walk(dir, "up\n", &h, &err), ==, -ELOOP);
	files_rm(dir);
}

TEST(links_are_not_walked_and_special_files_do_not_hang)
{
	char *dir = files_tmp("/tmp");
	struct ignore_hits h;
	struct err err;

	files_sh(dir, "mkdir d && ln -s .. d/loop && ln -s / d/root && mkfifo d/f && touch d/k");
	CHECK_INT(walk(dir, "*k\nf\n", &h, &err), ==, 0);
	CHECK_INT(h.n, ==, 2);
	ignore_hits_done(&h);
	files_sh(dir, "p=d; for i in $(seq 1 300); do p=$p/d; done; mkdir -p $p");
	CHECK_INT(walk(dir, "*k\n", &h, &err), ==, -E2BIG);
	files_rm(dir);
}
