/* When gh is asked for its token again, and what of its answer reaches vault. */
#include "test.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "cli/gh.h"
#include "files.h"
#include "vault/hostfile.h"

static char *dir;

static void begin(struct gh *g, const char *lines)
{
	static bool open_;
	struct err err;
	char *old;

	if (!open_)
		CHECK_INT(secret_arena_open(SECRET_ARENA, &err), ==, 0);
	open_ = true;
	dir = files_tmp("/tmp");
	old = files_program(dir, "gh", lines);
	(void)setenv("PATH", old, 1);
	free(old);
	*g = (struct gh){ .program = files_at(dir, "bin/gh"), .folder = files_at(dir, "gh") };
	files_sh(dir, "mkdir gh && echo github.com: > gh/hosts.yml");
}

static void end(struct gh *g)
{
	gh_done(g);
	files_rm(dir);
}

/* What vault reads, until the end. */
static size_t said(int fd, char *ret, size_t size)
{
	size_t n = 0;
	ssize_t k;

	CHECK_INT(fd, >=, 0);
	for (;;) {
		struct pollfd p = { fd, POLLIN, 0 };

		CHECK_INT(poll(&p, 1, 60000), ==, 1);
		k = read(fd, ret + n, size - n);
		CHECK_INT(k, >=, 0);
		if (k == 0)
			break;
		n += (size_t)k;
	}
	(void)close(fd);
	return n;
}

/* -1: it is no token. */
static ssize_t token(int fd, char *ret, size_t size)
{
	struct secret s = { 0 };
	size_t n = said(fd, ret, size);

	if (hostfile_token(SPAN(ret, n), &s) < 0)
		return -1;
	memcpy(ret, s.p, s.n);
	ret[s.n] = '\0';
	n = s.n;
	secret_done(&s);
	return (ssize_t)n;
}

static bool due(struct gh *g, int64_t now_ms)
{
	/* Whoever asked has ended in a moment. */
	for (int i = 0; i < 1000 && g->pid > 0 && !gh_is_due(g, now_ms) && g->pid > 0; i++)
		(void)poll(NULL, 0, 20);
	return gh_is_due(g, now_ms);
}

TEST(gh_is_asked_again_when_its_token_was_refused_and_no_more_than_once_a_minute)
{
	char got[64];
	int pipefd[2];
	struct gh g;

	begin(&g, "test \"$*\" = \"auth token --hostname github.com\" && echo gho_CANARY");
	CHECK_INT(pipe(pipefd), ==, 0);
	gh_ask(&g, pipefd[1]);
	(void)close(pipefd[1]);
	CHECK_INT(token(pipefd[0], got, sizeof(got)), >, 0);
	CHECK(!due(&g, 0));
	gh_refused(&g);
	CHECK(due(&g, 1));
	CHECK_INT(token(gh_ask_again(&g, 1), got, sizeof(got)), >, 0);
	CHECK(!due(&g, 1 + GH_AGAIN_MS));
	gh_refused(&g);
	CHECK(!due(&g, GH_AGAIN_MS));
	CHECK(due(&g, 1 + GH_AGAIN_MS));
	end(&g);
}

TEST(gh_is_asked_again_when_hosts_yml_changed)
{
	char got[64];
	struct gh g;

	begin(&g, "echo gho_CANARY0123456789");
	CHECK_INT(token(gh_ask_again(&g, 1), got, sizeof(got)), ==, 20);
	CHECK_STR(got, "gho_CANARY0123456789");
	CHECK(!due(&g, 1000000));
	files_sh(dir, "echo other: >> gh/hosts.yml");
	CHECK(!due(&g, GH_CHANGED_MS) && !due(&g, GH_CHANGED_MS));
	CHECK(due(&g, 1 + GH_CHANGED_MS)); /* it is not forgotten until then */
	CHECK_INT(token(gh_ask_again(&g, 10000), got, sizeof(got)), ==, 20);
	CHECK(!due(&g, 1000000));
	/* Being written: not while it differs from one look to the next. */
	files_sh(dir, "echo 1 >> gh/hosts.yml");
	CHECK(!gh_is_due(&g, 1000000));
	files_sh(dir, "echo 2 >> gh/hosts.yml");
	CHECK(!gh_is_due(&g, 1000000));
	CHECK(gh_is_due(&g, 1000000));
	/* What came between the last look and the question is no later change that was seen. */
	files_sh(dir, "echo 3 >> gh/hosts.yml");
	CHECK_INT(token(gh_ask_again(&g, 1000000), got, sizeof(got)), ==, 20);
	CHECK(due(&g, 2000000) || due(&g, 2000000));
	CHECK_INT(token(gh_ask_again(&g, 2000000), got, sizeof(got)), ==, 20);
	files_sh(dir, "rm gh/hosts.yml");
	CHECK(due(&g, 3000000) || due(&g, 3000000));
	free(g.program);
	g.program = NULL;
	CHECK(!due(&g, 1000000));
	end(&g);
}

TEST(what_a_gh_says_that_fails_or_hangs_is_no_token)
{
	static const char *const lines[] = {
		"echo gho_CANARY0123456789; exit 1",
		"echo gho_CANARY0123456789; kill -9 $$",
		"echo gho_CANARY0123456789; sleep 100",
		"echo gho_CANARY0123456789; echo gho_CANARYsecond",
		"exit 0",
		"head -c 100 /dev/zero",
	};
	char got[256];
	struct gh g;

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		begin(&g, lines[i]);
		CHECK_INT(token(gh_ask_again(&g, 0), got, sizeof(got)), ==, -1);
		end(&g);
	}
	/* None that can be started. */
	begin(&g, "");
	files_sh(dir, "rm bin/gh");
	CHECK_INT(token(gh_ask_again(&g, 0), got, sizeof(got)), ==, -1);
	end(&g);
}

TEST(that_gh_has_no_token_is_told_from_that_it_gave_no_answer)
{
	static const struct {
		const char *lines, *says;
		size_t n;
	} v[] = {
		{ "echo no oauth token >&2; exit 1", "", 1 },
		{ "kill -9 $$", "\0", 2 },
		{ "echo x; exit 1", "x\n", 3 },
	};
	char got[64];
	struct gh g;

	for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
		begin(&g, v[i].lines);
		CHECK_INT(said(gh_ask_again(&g, 1), got, sizeof(got)), ==, v[i].n);
		CHECK(memcmp(got, v[i].says, v[i].n) == 0); /* with its NUL */
		end(&g);
	}
	begin(&g, "");
	files_sh(dir, "rm bin/gh");
	CHECK_INT(said(gh_ask_again(&g, 1), got, sizeof(got)), ==, 2);
	end(&g);
}
