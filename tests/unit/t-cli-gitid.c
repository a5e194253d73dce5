#include "cli/gitid.h"

#include "files.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

static char *lines(const char *json)
{
	return gitid_parse(json, strlen(json));
}

#define CHECK_LINES(json, want)            \
	do {                               \
		char *got_ = lines(json);  \
		CHECK_STR(got_, want);     \
		free(got_);                \
	} while (0)

TEST(what_gh_says_of_the_user)
{
	CHECK_LINES("{\"login\":\"ann\",\"id\":7,\"name\":\"Ann Ex\",\"email\":\"a@b.c\"}", "Ann Ex\na@b.c\nann\n");
	CHECK_LINES("{\"login\":\"ann\",\"id\":7,\"name\":null,\"email\":null}", "ann\n7+ann@users.noreply.github.com\nann\n");
	CHECK_LINES("{\"login\":\"-ann\",\"id\":7,\"name\":\"Ann\",\"email\":\"a@b.c\"}", "Ann\na@b.c\n\n");
	CHECK_LINES("{\"login\":\"ann\",\"id\":7,\"name\":\"a\\nb\",\"email\":\"\"}", "ann\n7+ann@users.noreply.github.com\nann\n");
	CHECK(!lines("{\"login\":\"ann\"}"));
	CHECK(!lines("{\"login\":\"-\",\"id\":7,\"name\":\"Ann\"}"));
	CHECK(!lines("[]"));
	CHECK(!lines("{"));
	CHECK(!lines(""));
}

TEST(the_cache_comes_before_the_users_settings)
{
	char *home = files_tmp("/tmp");
	int fd = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t now = time(NULL);
	struct gitid id;

	unsetenv("XDG_CONFIG_HOME");
	files_sh(home, "printf '[user]\\n name = Bo\\n email = b@c.d\\n' > .gitconfig");
	gitid_read(fd, home, NULL, now, &id);
	CHECK_STR(id.name, "Bo");
	CHECK_STR(id.email, "b@c.d");
	CHECK(id.ask && !id.login);
	gitid_done(&id);

	files_sh(home, "printf 'Ann\\na@b.c\\nann\\n' > " GITID_CACHE);
	gitid_read(fd, home, NULL, now + 10, &id);
	CHECK_STR(id.name, "Ann");
	CHECK_STR(id.login, "ann");
	CHECK(!id.ask);
	gitid_done(&id);
	/* Used, and asked for anew: a day old, and from the future. */
	for (int i = 0; i < 2; i++) {
		gitid_read(fd, home, NULL, i ? now - 1000 : now + 25 * 3600, &id);
		CHECK_STR(id.name, "Ann");
		CHECK(id.ask);
		gitid_done(&id);
	}
	files_sh(home, "printf 'A\\001nn\\na@b.c\\n\\n' > " GITID_CACHE);
	gitid_read(fd, home, NULL, now, &id);
	CHECK_STR(id.name, "Bo");
	gitid_done(&id);
	files_sh(home, "printf '[user]\\n name = agent-vm\\n email = agent-vm@msb.local\\n' > .gitconfig");
	gitid_read(fd, home, NULL, now, &id);
	CHECK(!id.name && !id.email);
	gitid_done(&id);
	close(fd);
	files_rm(home);
}

TEST(only_harmless_settings_are_carried)
{
	char *home = files_tmp("/tmp"), *text;
	struct gitid id;

	files_sh(home, "printf '[include]\\n path = ~/more\\n[pull]\\n rebase = true\\n[alias]\\n st = status \"x\"\\n sh = !rm\\n[core]\\n"
		       " eol = lf\\n pager = less\\n fsmonitor = ./x\\n[user]\\n signingkey = k\\n[credential]\\n helper = store\\n' > .gitconfig && "
		       "printf '[user]\\n name = A \"B\" \\\\\\\\\\n email = a@b.c\\n[include]\\n path = ~/more\\n' > more");
	gitid_read(-1, home, NULL, 0, &id);
	text = gitid_config(&id, true, NULL);
	CHECK(strstr(text, "[pull]\n\trebase = \"true\"\n[alias]\n\tst = \"status x\"\n[core]\n\teol = \"lf\"\n[push]\n\tdefault = current\n"
			   "[user]\n\tname = \"A B \\\\\"\n[user]\n\temail = \"a@b.c\"\n"));
	CHECK(!strstr(text, "pager") && !strstr(text, "fsmonitor") && !strstr(text, "signing") && !strstr(text, "rm") && !strstr(text, "helper"));
	free(text);
	text = gitid_config(&id, false, "avm-gh-x");
	CHECK(!strstr(text, "[push]"));
	CHECK(strstr(text, "[credential \"https://github.com\"]\n\thelper = \"!f() { test \\\"$1\\\" = get && printf "));
	free(text);
	gitid_done(&id);
	files_rm(home);
}

/* Who commits in the git directory @at below the home; git itself is asked the same. */
static void check_name(const char *home, const char *at, const char *want)
{
	char *dir = files_at(home, at), *ask;
	struct gitid id;

	gitid_read(-1, home, dir, 0, &id);
	CHECK_STR(id.name, want);
	ask = xasprintf("mkdir -p %s && git init -q --bare %s && test \"$(HOME=$PWD GIT_CONFIG_GLOBAL=$PWD/.gitconfig git --git-dir=$PWD/%s config user.name)\" = '%s'",
			at, at, at, want);
	files_sh(home, ask);
	free(ask);
	free(dir);
	gitid_done(&id);
}

TEST(includes_with_a_condition_are_those_of_the_project)
{
	char *home = files_tmp("/tmp");
	struct gitid id;

	unsetenv("XDG_CONFIG_HOME");
	files_sh(home, "for n in work other deep any icase rel branch; do printf '[user]\n name = %s\n' $n > $n.inc; done;"
		       "mkdir conf && printf '[includeIf \"gitdir:./beside/\"]\n path = ../rel.inc\n[user]\n email = a@b.c\n' > conf/more;"
		       "printf '[user]\n name = plain\n[include]\n path = conf/more\n"
		       "[includeIf \"gitdir:~/work/\"]\n path = work.inc\n"
		       "[includeIf \"gitdir:~/o*r/.git\"]\n path = ~/other.inc\n"
		       "[includeIf \"gitdir:~/a/**/z/\"]\n path = deep.inc\n"
		       "[includeIf \"gitdir:any/.git\"]\n path = any.inc\n"
		       "[includeIf \"gitdir/i:~/ICASE/\"]\n path = icase.inc\n"
		       "[includeIf \"gitdir:~/ICASE/\"]\n path = branch.inc\n' > .gitconfig");
	check_name(home, "work/x/.git", "work");
	check_name(home, "workshop/x/.git", "plain");
	check_name(home, "other/.git", "other");
	check_name(home, "o/r/.git", "plain");
	check_name(home, "a/z/x/.git", "deep");
	check_name(home, "a/b/c/z/.git", "deep");
	check_name(home, "q/any/.git", "any");
	check_name(home, "any/x/.git", "plain");
	check_name(home, "conf/beside/x/.git", "rel");
	check_name(home, "icase/x/.git", "icase");
	gitid_read(-1, home, NULL, 0, &id);
	CHECK_STR(id.name, "plain");
	CHECK_STR(id.email, "a@b.c");
	gitid_done(&id);
	files_rm(home);
}

TEST(git_itself_reads_it)
{
	char *home = files_tmp("/tmp"), *text, *path = files_at(home, "config");
	struct gitid id = { .name = xstrdup("Ann \"x\" \\"), .email = xstrdup("a@b.c") };
	FILE *f = fopen(path, "w");

	text = gitid_config(&id, true, "avm-gh-abc");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
	files_sh(home, "export GIT_CONFIG_GLOBAL=$PWD/config GIT_CONFIG_NOSYSTEM=1; test \"$(git config user.name)\" = 'Ann \"x\" \\' && "
		       "test \"$(printf 'protocol=https\\nhost=github.com\\n\\n' | git credential fill | tail -n 2)\" = "
		       "\"$(printf 'username=x-access-token\\npassword=avm-gh-abc')\" && git init -q r && cd r && "
		       "git remote add o git@github.com:a/b.git && test \"$(git remote get-url --push o)\" = https://github.com/a/b.git");
	free(text);
	free(path);
	gitid_done(&id);
	files_rm(home);
}

TEST(hosts_of_gh)
{
	char *text = gitid_hosts("ann", "avm-gh-x");

	CHECK_STR(text, "github.com:\n    users:\n        ann:\n            oauth_token: avm-gh-x\n    oauth_token: avm-gh-x\n    user: ann\n"
			"    git_protocol: https\n");
	free(text);
}

/* One who asks; waited for. */
static void asked(int fd, const char *home)
{
	CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), ==, 0); /* what is nobody's child becomes ours */
	gitid_ask(fd, home);
	CHECK(wait(NULL) > 0);
}

TEST(gh_is_asked_for_the_login_that_it_keeps)
{
	char *home = files_tmp("/tmp"), *old, *lines;
	int fd = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct gitid id;

	unsetenv("XDG_CONFIG_HOME");
	unsetenv("GH_CONFIG_DIR");
	lines = xasprintf("echo x >> %s/asked; test \"$*\" = \"api --hostname github.com user\" && test \"$GH_CONFIG_DIR\" = %s/.config/gh && "
			  "test -z \"$GH_TOKEN\" && test -e %s/online && echo \"{\\\"login\\\":\\\"ann\\\",\\\"id\\\":7}\"", home, home, home);
	old = files_program(home, "gh", lines);
	setenv("GH_TOKEN", "gho_another", 1);
	/* No login, no question. */
	asked(fd, home);
	files_sh(home, "test ! -e asked && mkdir -p .config/gh");
	/* No answer is remembered for an hour. */
	asked(fd, home);
	files_sh(home, "test $(wc -l < asked) = 1");
	gitid_read(fd, home, NULL, time(NULL) + 3000, &id);
	CHECK(!id.ask && !id.name);
	gitid_done(&id);
	gitid_read(fd, home, NULL, time(NULL) + 4000, &id);
	CHECK(id.ask && !id.name);
	gitid_done(&id);
	files_sh(home, "touch online");
	asked(fd, home);
	gitid_read(fd, home, NULL, time(NULL) + 4000, &id);
	CHECK(!id.ask);
	CHECK_STR(id.name, "ann");
	gitid_done(&id);
	/* A failure later on leaves what is known. */
	files_sh(home, "rm online");
	asked(fd, home);
	gitid_read(fd, home, NULL, time(NULL) + 4000, &id);
	CHECK(id.ask);
	CHECK_STR(id.name, "ann");
	gitid_done(&id);
	unsetenv("GH_TOKEN");
	setenv("PATH", old, 1);
	free(old);
	free(lines);
	(void)close(fd);
	files_rm(home);
}
