#include "session/confwatch.h"

#include <errno.h>
#include <poll.h>

#include "files.h"
#include "session/confdiff.h"
#include "session/gitconfig.h"

/* The verdict on @now for a config that was @was; what is told, "" for nothing. */
static const char *verdict(const char *was, const char *now)
{
	static char *what;
	struct buf record;
	int r;

	free(what);
	what = NULL;
	assert_int_equal(confdiff_record(span_str(was), &record), 0);
	r = confdiff(buf_span(&record), span_str(now), &what);
	buf_done(&record);
	assert_int_equal(r != 0, what != NULL);
	return what ? what : "";
}

#define WAS "[core]\n\tbare = false\n\tpager = less\n[filter \"lfs\"]\n\tclean = git-lfs clean\n\trequired\n[remote \"o\"]\n\turl = https://h/x\n"

TEST(harmless_settings_may_change)
{
	CHECK_STR(verdict(WAS, WAS), "");
	CHECK_STR(verdict(WAS, WAS "[branch \"x\"]\n\tremote = o\n\tmerge = refs/heads/x\n[user]\n\tname = me\n"), "");
	CHECK_STR(verdict(WAS, "[core]\npager=less\n[filter \"lfs\"]\nclean = \"git-lfs clean\"\nrequired\n"), "");
	CHECK_STR(verdict("", "[pull]\nrebase = true\n"), "");
	CHECK_STR(verdict("", ""), "");
}

TEST(others_may_not_change_come_or_go)
{
	CHECK_STR(verdict(WAS, WAS "[core]\nfsmonitor = ./x.sh\n"), "core.fsmonitor = ./x.sh (new)");
	CHECK_STR(verdict(WAS, WAS "[include]\npath = ../evil\n"), "include.path = ../evil (new)");
	CHECK_STR(verdict(WAS, WAS "[includeIf \"gitdir:/\"]\npath = e\n"), "includeif.gitdir:/.path = e (new)");
	CHECK_STR(verdict(WAS, WAS "[alias]\nst = !x\n"), "alias.st = !x (new)");
	CHECK_STR(verdict(WAS, WAS "[remote \"o\"]\nurl = ext::sh\n"), "remote.o.url = ext::sh (new)");
	CHECK_STR(verdict(WAS, WAS "[core]\npager = evil\n"), "core.pager = evil (changed)");
	CHECK_STR(verdict(WAS, WAS "[core]\npager = less\n"), "core.pager = less (changed)");
	CHECK_STR(verdict("[core]\nhooksPath = h\n", "[core]\nhooksPath = h\v\n"), "core.hookspath = h\\x0b (changed)");
	CHECK_STR(verdict("[core]\nhooksPath = a b\n", "[core]\nhooksPath = a\tb\n"), "core.hookspath = a\\x09b (changed)");
	CHECK_STR(verdict(WAS, "[core]\npager = evil\n[filter \"lfs\"]\nclean = git-lfs clean\nrequired\n"), "core.pager = evil (changed)");
	CHECK_STR(verdict(WAS, "[core]\npager = less\n[filter \"lfs\"]\nclean = git-lfs clean\n"), "filter.lfs.required = true (removed)");
	CHECK_STR(verdict(WAS, "[core]\npager = less\n[filter \"lfs\"]\nrequired\n"), "filter.lfs.clean = git-lfs clean (removed)");
	CHECK_STR(verdict(WAS, "[core]\npager = less\n[filter \"lfs\"]\nclean = git-lfs clean\nrequired = false\n"),
		  "filter.lfs.required = false (changed)");
	CHECK_STR(verdict(WAS, ""), "core.pager = less (removed)");
	/* The last of two counts, so their order does. */
	CHECK_STR(verdict("[core]\npager=a\npager=b\n", "[core]\npager=b\npager=a\n"), "core.pager = a (removed)");
}

TEST(what_git_would_not_read_may_not_stay)
{
	CHECK_STR(verdict(WAS, WAS "garbage here\n"), "is not what git would read");
	CHECK_STR(verdict("", "[core\n"), "is not what git would read");
	CHECK_STR(verdict("", "[pull]\n\vrebase = true\n"), "is not what git would read");
	CHECK_STR(verdict("", "[core]\nx = \033[2J\n"), "core.x = \\x1b[2J (new)");
}

TEST(a_record_is_bounded)
{
	const size_t sections = 200, keys = 2000;
	struct buf text, record;
	char name[4001];

	memset(name, 'a', 4000);
	name[4000] = '\0';
	buf_init(&text, GITCONFIG_MAX);
	for (size_t i = 0; i < sections; i++)
		for (size_t k = 0; k < keys; k++)
			if (k == 0 && i == 0)
				assert_int_equal(buf_put(&text, "[", 1) | buf_put(&text, name, 4000) | buf_put(&text, "]\n", 2), 0);
			else
				assert_int_equal(buf_put(&text, "k\n", 2), 0);
	CHECK_INT(confdiff_record(buf_span(&text), &record), ==, -ENOBUFS);
	buf_done(&record);
	buf_done(&text);
}

/* A repository under watch. */
struct repo {
	char *dir, *config;
	struct strv paths;
	struct confwatch *w;
};

static void repo_init(struct repo *p, const char *setup)
{
	struct err err = { "" };

	*p = (struct repo){ .dir = files_tmp("/tmp") };
	files_sh(p->dir, "git init -q . && git config core.pager less");
	files_sh(p->dir, setup);
	p->config = files_at(p->dir, ".git/config");
	strv_add(&p->paths, p->config);
	strv_take(&p->paths, files_at(p->dir, ".git/config.worktree"));
	strv_add(&p->paths, p->config);
	if (confwatch_open(&p->paths, &p->w, &err) < 0)
		fail_msg("%s", err.text);
	files_sh(p->dir, "cp .git/config good");
}

static void repo_done(struct repo *p)
{
	confwatch_free(p->w);
	strv_done(&p->paths);
	free(p->config);
	files_sh(p->dir, "chmod -R u+rwx .");
	files_rm(p->dir);
}

/* Turns as long as there are events: what a loop would do. */
static void settle(struct repo *p)
{
	struct pollfd fd = { .fd = confwatch_fd(p->w), .events = POLLIN };

	for (int i = 0; i < 1000 && poll(&fd, 1, 0) == 1; i++)
		confwatch_turn(p->w);
	CHECK_INT(poll(&fd, 1, 0), ==, 0);
}

/* The last thing undone after a shell line, without the path; "" when nothing was. */
static const char *after(struct repo *p, const char *line)
{
	size_t n = confwatch_undone(p->w)->n;

	files_sh(p->dir, line);
	settle(p);
	if (confwatch_undone(p->w)->n == n)
		return "";
	CHECK_INT(confwatch_undone(p->w)->n, ==, n + 1);
	return strstr(confwatch_undone(p->w)->v[n], ": ") + 2;
}

#define SAME "cmp .git/config good && test ! -L .git/config"

TEST(a_harmless_change_stays_and_is_the_next_good_content)
{
	struct repo p;

	repo_init(&p, "true");
	CHECK_STR(after(&p, "git config user.name me && git config branch.x.remote o && git config branch.x.merge refs/heads/x"), "");
	CHECK_STR(after(&p, "cp .git/config good && git config core.fsmonitor ./x"), "core.fsmonitor = ./x (new)");
	files_sh(p.dir, SAME " && grep 'name = me' .git/config");
	CHECK(confwatch_end(p.w) == NULL);
	repo_done(&p);
}

TEST(other_changes_are_undone)
{
	struct repo p;

	repo_init(&p, "chmod 640 .git/config");
	CHECK_STR(after(&p, "git config core.fsmonitor ./x"), "core.fsmonitor = ./x (new)");
	files_sh(p.dir, SAME " && test $(stat -c %a .git/config) = 640");
	/* In place, and by a descriptor that is kept. */
	CHECK_STR(after(&p, "echo '[alias] a = !x' >> .git/config"), "alias.a = !x (new)");
	CHECK_STR(after(&p, "echo '[garbage' >> .git/config"), "is not what git would read");
	CHECK_STR(after(&p, ": > .git/config"), "core.pager = less (removed)");
	CHECK_STR(after(&p, "head -c 1100000 /dev/zero | tr '\\0' '\\n' >> .git/config"), "is longer than 1 MiB");
	files_sh(p.dir, SAME);
	CHECK_STR(after(&p, "printf '[core]\\nfsmonitor = x\\n' > .git/config.worktree"), "core.fsmonitor = x (new)");
	files_sh(p.dir, "test ! -e .git/config.worktree");
	CHECK_STR(after(&p, "echo '[user] name = x' > .git/config.worktree"), "");
	CHECK_STR(after(&p, "rm .git/config.worktree"), "removed");
	files_sh(p.dir, "grep name .git/config.worktree");
	repo_done(&p);
}

TEST(what_is_no_file_is_undone)
{
	struct repo p;

	repo_init(&p, "true");
	CHECK_STR(after(&p, "rm .git/config"), "removed");
	CHECK_STR(after(&p, "cp .git/config evil && ln -sf ../evil .git/config"), "is a link");
	files_sh(p.dir, SAME);
	CHECK_STR(after(&p, "rm .git/config && mkfifo .git/config"), "is no plain file");
	CHECK_STR(after(&p, "rm .git/config && mkdir .git/config"), "is no plain file");
	files_sh(p.dir, SAME " && ! ls .git/config.undone-*");
	CHECK_STR(after(&p, "rm .git/config && mkdir -p .git/config/a/b"), "is no plain file");
	files_sh(p.dir, SAME " && ls -d .git/config.undone-*/a/b && ! ls .git/.config.*");
	CHECK_STR(after(&p, "mv .git/config c2"), "removed");
	files_sh(p.dir, SAME);
	repo_done(&p);
}

TEST(a_write_under_another_name_is_seen)
{
	struct repo p;

	repo_init(&p, "mkdir d");
	CHECK_STR(after(&p, "ln .git/config d/other"), "");
	CHECK_STR(after(&p, "echo '[core] fsmonitor = x' >> d/other"), "core.fsmonitor = x (new)");
	/* It has a file of its own now. */
	CHECK_STR(after(&p, "echo '[core] fsmonitor = x' >> d/other"), "");
	CHECK_STR(after(&p, "ln -f d/other .git/config"), "core.fsmonitor = x (new)");
	files_sh(p.dir, SAME);
	repo_done(&p);
}

TEST(a_descriptor_that_is_kept_reaches_nothing)
{
	struct repo p;
	int fd;

	repo_init(&p, "true");
	fd = open(p.config, O_WRONLY | O_APPEND);
	CHECK(fd >= 0);
	CHECK_INT(write(fd, "[core]\nx=1\n", 11), ==, 11);
	settle(&p);
	CHECK_INT(confwatch_undone(p.w)->n, ==, 1);
	CHECK_INT(write(fd, "[core]\nx=1\n", 11), ==, 11);
	settle(&p);
	CHECK_INT(confwatch_undone(p.w)->n, ==, 1);
	files_sh(p.dir, SAME);
	(void)close(fd);
	repo_done(&p);
}

TEST(the_tenth_is_the_end)
{
	struct repo p;

	repo_init(&p, "true");
	for (int i = 0; i < CONFWATCH_UNDONE_MAX; i++) {
		CHECK(confwatch_end(p.w) == NULL);
		(void)after(&p, "git config alias.x '!x'");
	}
	CHECK(confwatch_end(p.w) && str_starts(confwatch_end(p.w), "git configs: changed 10 times") &&
	      strstr(confwatch_end(p.w), "/.git/config: alias.x = !x (new))"));
	files_sh(p.dir, "git config alias.x '!x'");
	settle(&p);
	files_sh(p.dir, SAME);
	CHECK_INT(confwatch_undone(p.w)->n, ==, CONFWATCH_UNDONE_MAX);
	repo_done(&p);
}

TEST(a_storm_of_renames_ends_with_the_good_content)
{
	struct repo p;

	repo_init(&p, "true");
	files_sh(p.dir, "cp .git/config evil && echo '[core] fsmonitor = x' >> evil && "
			"/usr/bin/python3 -c \"import os, shutil\nfor i in range(3000):\n    os.link('evil', '.git/n'); os.rename('.git/n', '.git/config'); "
			"os.path.exists('.git/n') and os.unlink('.git/n')\"");
	settle(&p);
	CHECK_INT(confwatch_undone(p.w)->n, >=, 1);
	files_sh(p.dir, SAME);
	repo_done(&p);
}

TEST(a_change_whose_event_was_lost_is_undone)
{
	struct repo p;

	repo_init(&p, "true");
	/* The queue of inotify is full when the change comes. */
	CHECK_STR(after(&p, "/usr/bin/python3 -c \"import os\nfor i in range(int(open('/proc/sys/fs/inotify/max_queued_events')."
			    "read())):\n    os.close(os.open('.git/n', os.O_CREAT)); os.unlink('.git/n')\" && git config alias.x '!x'"),
		  "alias.x = !x (new)");
	files_sh(p.dir, SAME);
	repo_done(&p);
}

TEST(what_could_not_be_put_back_is_told)
{
	struct repo p;

	repo_init(&p, "true");
	/* A folder in the place of the repository's: no folder can be opened. */
	files_sh(p.dir, "mv .git g && ln -s g .git && echo '[core] fsmonitor = x' >> g/config");
	settle(&p);
	CHECK(confwatch_end(p.w) && strstr(confwatch_end(p.w), "/.git/config: cannot be looked at: "));
	confwatch_look(p.w);
	CHECK_INT(confwatch_failed(p.w)->n, ==, 2);
	files_sh(p.dir, "rm .git && mv g .git");
	confwatch_look(p.w);
	CHECK_INT(confwatch_failed(p.w)->n, ==, 0);
	files_sh(p.dir, SAME);
	repo_done(&p);
}

TEST(what_cannot_be_compared_is_not_watched)
{
	struct err err = { "" };
	struct confwatch *w;
	struct strv paths = { 0 };
	char *dir = files_tmp("/tmp");

	strv_take(&paths, files_at(dir, "config"));
	files_sh(dir, "echo garbage > config");
	CHECK_INT(confwatch_open(&paths, &w, &err), ==, -EBADMSG);
	CHECK(strstr(err.text, "/config: cannot be watched: git would not read it; leave the option out"));
	files_sh(dir, "ln -sf x config");
	CHECK_INT(confwatch_open(&paths, &w, &err), ==, -ELOOP);
	files_sh(dir, "rm config && mkfifo config");
	CHECK_INT(confwatch_open(&paths, &w, &err), ==, -EINVAL);
	strv_done(&paths);
	files_rm(dir);
}
