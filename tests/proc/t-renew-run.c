/* Programs of the host that renew a login, played by scripts: what they are given, and that nothing of them is left. */
#include "../unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/prog.h"
#include "cli/renew_run.h"

static struct {
	char dir[64], program[96], path[256];
	int fd;
	struct renew_run run;
} t;

static void script(const char *body)
{
	char *text = xasprintf("#!/bin/sh\nO=%s\n%s\n", t.dir, body);

	CHECK_INT(file_replace_at(t.fd, "program", text, strlen(text), 0755), ==, 0);
	free(text);
}

static void begin(enum renew_program what, int limit_ms)
{
	(void)snprintf(t.dir, sizeof(t.dir), "/tmp/renew-run.XXXXXX");
	CHECK(mkdtemp(t.dir) != NULL);
	t.fd = open(t.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)snprintf(t.program, sizeof(t.program), "%s/program", t.dir);
	t.run = (struct renew_run){ .what = what,
				    .program = t.program,
				    .path = "/usr/bin:/bin",
				    .work_parent = t.fd,
				    .work_path = t.dir,
				    .limit_ms = limit_ms };
}

static void end(void)
{
	(void)close(t.fd);
	(void)file_remove_tree_at(AT_FDCWD, t.dir);
}

static char *said(const char *name)
{
	char *text = NULL;

	CHECK_INT(file_read_beneath(t.fd, name, 65536, &text, NULL), ==, 0);
	return text;
}

static bool lives(pid_t pid)
{
	char path[64], line[256] = "";
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	(void)!fgets(line, sizeof(line), f);
	(void)fclose(f);
	return !strstr(line, ") Z ") && !strstr(line, ") X ");
}

TEST(the_environment_is_exactly_the_list_and_the_folder_new_and_empty)
{
	static const char *const set[][2] = {
		{ "HOME", "/home/ann" },
		{ "USER", "ann" },
		{ "LOGNAME", "ann" },
		{ "SHELL", "/bin/sh" },
		{ "LANG", "C" },
		{ "LC_TIME", "C" },
		{ "XDG_RUNTIME_DIR", "/run/user/1" },
		{ "XDG_CONFIG_HOME", "/c" },
		{ "XDG_DATA_HOME", "/d" },
		{ "DBUS_SESSION_BUS_ADDRESS", "unix:x" },
		{ "https_proxy", "http://proxy:1" },
		{ "SSL_CERT_FILE", "/etc/hostname" },
		{ "NODE_EXTRA_CA_CERTS", "/nowhere/ca.pem" },
		{ "CLAUDE_CONFIG_DIR", "/etc" },
		{ "CODEX_HOME", "/etc" },
		{ "ANTHROPIC_API_KEY", "key" },
		{ "ANTHROPIC_BASE_URL", "https://evil.example" },
		{ "NODE_OPTIONS", "--require=x" },
		{ "LD_PRELOAD", "" },
		{ "GIT_DIR", "/x" },
		{ "GH_TOKEN", "t" },
		{ "BASH_ENV", "/x" },
		{ "PYTHONPATH", "/x" },
	};
	static const char want[] = "CLAUDE_CONFIG_DIR=/etc\nDBUS_SESSION_BUS_ADDRESS=unix:x\nHOME=/home/"
				   "ann\nLANG=C\nLC_TIME=C\nLOGNAME=ann\nPATH=/usr/bin:/bin\n"
				   "SHELL=/bin/sh\nSSL_CERT_FILE=/etc/hostname\nTERM=dumb\nUSER=ann\nXDG_CONFIG_HOME=/"
				   "c\nXDG_DATA_HOME=/d\n"
				   "XDG_RUNTIME_DIR=/run/user/1\nhttps_proxy=http://proxy:1\n";
	struct err err;
	char *text;

	begin(RENEW_CLAUDE_STATUS, 20000);
	(void)clearenv();
	for (size_t i = 0; i < ARRAY_SIZE(set); i++)
		(void)setenv(set[i][0], set[i][1], 1);
	script("tr '\\0' '\\n' </proc/$$/environ | grep -v '^_=' | LC_ALL=C sort >$O/env; echo \"$@\" >$O/args\n"
	       "pwd >$O/pwd; ls -A >$O/ls; stat -c %a . >$O/mode; ls /proc/$$/fd | tr '\\n' ' ' >$O/fds; readlink "
	       "/proc/$$/fd/0 >$O/in\n"
	       "ulimit -c >$O/core; ps -o sid= -p $$ >$O/sid; echo $$ >$O/pid; echo plain error >&2; exit 3");
	CHECK_INT(renew_run(&t.run, &err), ==, 0);
	text = said("env");
	CHECK_STR(text, want);
	free(text);
	text = said("args");
	CHECK_STR(text, "auth status\n");
	free(text);
	text = said("ls");
	CHECK_STR(text, "");
	free(text);
	text = said("mode");
	CHECK_STR(text, "700\n");
	free(text);
	text = said("in");
	CHECK_STR(text, "/dev/null\n");
	free(text);
	text = said("core");
	CHECK_STR(text, "0\n");
	free(text);
	text = said("pwd");
	text[strcspn(text, "\n")] = '\0';
	CHECK(strncmp(text, t.dir, strlen(t.dir)) == 0 && strstr(text, "/renew-"));
	CHECK(access(text, F_OK) < 0); /* gone afterwards */
	free(text);
	CHECK_STR(t.run.errors, "plain error\n");
	end();
}

static pid_t pid_said(const char *name)
{
	char *text = said(name);
	uint64_t pid = 0;

	text[strcspn(text, "\n")] = '\0';
	CHECK_INT(str_u64(text, INT32_MAX, &pid), ==, 0);
	free(text);
	return (pid_t)pid;
}

TEST(at_the_limit_a_grandchild_that_ignores_sigterm_is_dead_after_two_seconds)
{
	const int limit_ms = 8000; /* both must have said who they are by then */
	int64_t began;
	struct err err;

	begin(RENEW_CLAUDE_PROMPT, limit_ms);
	script("trap '' TERM; (trap '' TERM; echo $$ >/dev/null; sh -c 'trap \"\" TERM; echo $$ >'$O'/grand; while :; "
	       "do sleep 1; done') &\n"
	       "echo $$ >$O/pid; while :; do sleep 1; done");
	began = now_ns();
	CHECK_INT(renew_run(&t.run, &err), ==, -ETIMEDOUT);
	CHECK((now_ns() - began) / 1000000 >= limit_ms + RENEW_GRACE_MS - 100);
	CHECK((now_ns() - began) / 1000000 < limit_ms + RENEW_GRACE_MS + 20000);
	for (int i = 0; i < 1000 && (lives(pid_said("grand")) || lives(pid_said("pid"))); i++)
		(void)usleep(20000);
	CHECK(!lives(pid_said("grand")));
	CHECK(!lives(pid_said("pid")));
	end();
}

TEST(after_success_nothing_of_the_group_is_left)
{
	struct err err;

	begin(RENEW_CODEX_EXEC, 20000);
	script("sh -c 'trap \"\" TERM; echo $$ >'$O'/grand; exec >/dev/null 2>&1; while :; do sleep 1; done' &\n"
	       "while [ ! -s $O/grand ]; do sleep 0.05; done");
	CHECK_INT(renew_run(&t.run, &err), ==, 0);
	for (int i = 0; i < 1000 && lives(pid_said("grand")); i++)
		(void)usleep(20000);
	CHECK(!lives(pid_said("grand")));
	end();
}

TEST(the_server_is_asked_by_lines_and_its_input_closed_after_the_answer)
{
	struct err err;
	char *text;

	begin(RENEW_CODEX_SERVER_RENEW, 20000);
	script("read a; echo '{\"id\":1,\"result\":{}}'; read b; read c; printf '%s\\n' \"$a\" \"$b\" \"$c\" "
	       ">$O/lines\n"
	       "echo '{\"id\":2,\"result\":{}}'; read d || echo closed >$O/end");
	CHECK_INT(renew_run(&t.run, &err), ==, 0);
	text = said("lines");
	CHECK(strstr(text, "\"method\":\"initialize\"") && strstr(text, "\"method\":\"initialized\"") &&
	      strstr(text, "\"refreshToken\":true"));
	free(text);
	text = said("end");
	CHECK_STR(text, "closed\n");
	free(text);
	end();
}

TEST(a_flood_of_output_ends_nothing_and_the_last_errors_are_kept)
{
	struct err err;

	begin(RENEW_CODEX_SERVER, 20000);
	script("head -c 300000 /dev/zero; i=0; while [ $i -lt 400 ]; do echo \"line $i of what goes wrong, again and "
	       "again\" >&2; i=$((i+1)); done");
	CHECK_INT(renew_run(&t.run, &err), ==, 0);
	CHECK(strlen(t.run.errors) <= RENEW_ERRORS_MAX);
	CHECK(strstr(t.run.errors, "line 399 of") && !strstr(t.run.errors, "line 1 of"));
	end();
}

TEST(a_program_that_is_missing_is_an_end_with_its_cause)
{
	struct err err;

	begin(RENEW_CLAUDE_STATUS, 20000);
	CHECK_INT(renew_run(&t.run, &err), ==, 0);
	CHECK(strstr(t.run.errors, "No such file"));
	end();
}

TEST(the_path_has_no_relative_entry_and_none_of_the_project)
{
	char *path, *text;

	begin(RENEW_CLAUDE_STATUS, 1);
	prog_shun(t.dir);
	text = xasprintf("/usr/bin:.:%s:bin:/nowhere:/bin:%s/../..%s", t.dir, t.dir, t.dir);
	(void)setenv("PATH", text, 1);
	free(text);
	path = prog_path();
	CHECK_STR(path, "/usr/bin:/bin");
	free(path);
	end();
}
