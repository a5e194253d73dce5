#include "state.h"

#include "cli/cmd.h"

extern const struct cmd cmd_ps, cmd_stop, cmd_logs, cmd_exec;

/* As cmd_logs.c and the others lay them out: flags in their order. */
struct ps_args {
	bool json;
};
struct stop_args {
	bool all, force;
};
struct exec_args {
	const char *session;
};
struct logs_args {
	bool denied, list, json;
	const char *role;
};

/* Runs a verb in a child; stdout and stderr come back together. */
static char *ran(const struct cmd *cmd, const void *args, const char *word, int want)
{
	static char *text;
	char *words[] = { (char *)(uintptr_t)word, NULL };
	struct cli cli = { .cmd = cmd };
	AUTO_FREE(void, copy);
	AUTO_FD(out);
	int status;
	pid_t pid;

	free(text);
	text = NULL;
	out = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	CHECK_INT(out, >=, 0);
	copy = xcalloc(1, cmd->args_size);
	memcpy(copy, args, cmd->args_size);
	pid = fork();
	if (pid == 0) {
		(void)dup2(out, STDOUT_FILENO);
		(void)dup2(out, STDERR_FILENO);
		status = cmd->run(&cli, copy, words);
		(void)fflush(stdout);
		_exit(status);
	}
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK_INT(lseek(out, 0, SEEK_SET), ==, 0);
	CHECK_INT(fd_read_file(out, 1 << 20, &text, NULL), ==, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != want)
		fail_msg("status %x, output %s", status, text);
	return text;
}

TEST(ps_without_a_root_prints_only_the_header)
{
	struct ps_args ps = { false }, json = { true };
	struct state t;

	state_begin(&t);
	(void)setenv("XDG_STATE_HOME", "/nonexistent", 1);
	CHECK_STR(ran(&cmd_ps, &ps, NULL, 0), "SESSION  VERB  PROJECT  PID  UP  VMM  PORTS\n");
	CHECK_STR(ran(&cmd_ps, &json, NULL, 0), "[]\n");
	(void)setenv("AGENT_VM_STATE_DIR", "relative", 1);
	CHECK(strstr(ran(&cmd_ps, &ps, NULL, 2), "AGENT_VM_STATE_DIR=relative"));
	state_end(&t);
}

TEST(ps_prints_the_table)
{
	struct ps_args ps = { false }, json = { true };
	AUTO_FREE(char, want);
	struct launcher l;
	struct state t;
	char *got, *up;
	json_t *all;

	state_begin(&t);
	l = launcher_start(&t, "claude", false);
	want = xasprintf("%-*s  VERB    %-*s  %-*s  UP  VMM   PORTS\n"
			 "%s  claude  %s  %d  0s  krun  127.0.0.1:3000->3000/tcp\n",
			 (int)strlen(l.name + 9), "SESSION", (int)strlen(t.project.path), "PROJECT",
			 snprintf(NULL, 0, "%d", l.pid), "PID", l.name + 9, t.project.path, l.pid);
	got = ran(&cmd_ps, &ps, NULL, 0);
	up = strstr(got, "s  krun");
	CHECK(up && up > got && up[-1] >= '0' && up[-1] <= '9');
	up[-1] = '0'; /* on a slow machine it is up for a second or two */
	CHECK_STR(got, want);
	all = json_loads(ran(&cmd_ps, &json, NULL, 0), 0, NULL);
	CHECK_INT(json_array_size(all), ==, 1);
	CHECK_INT(json_integer_value(json_object_get(json_array_get(all, 0), "pid")), ==, l.pid);
	json_decref(all);
	launcher_kill(&l);
	CHECK_INT(kill(l.child, SIGTERM), ==, 0);
	CHECK(!strstr(ran(&cmd_ps, &ps, NULL, 0), l.name + 9));
	CHECK(!exists(t.root.sessions_fd, l.name));
	state_end(&t);
}

TEST(exec_says_that_a_session_is_still_starting)
{
	struct exec_args exec = { NULL };
	AUTO_FREE(char, want);
	struct launcher l;
	struct state t;

	state_begin(&t);
	l = launcher_start(&t, "claude", false); /* it makes no socket, as one that still pulls */
	want = xasprintf("agent-vm: session %s: it is still starting; try again in a moment\n", l.name);
	CHECK_STR(ran(&cmd_exec, &exec, "true", 1), want);
	launcher_kill(&l);
	CHECK_INT(kill(l.child, SIGTERM), ==, 0);
	state_end(&t);
}

TEST(stop_ends_in_order_and_prints_the_name)
{
	struct stop_args stop = { false };
	AUTO_FREE(char, want);
	struct session_info info;
	struct launcher l;
	struct state t;

	state_begin(&t);
	CHECK(strstr(ran(&cmd_stop, &stop, NULL, 1), "none for this project"));
	l = launcher_start(&t, "claude", false);
	CHECK(strstr(ran(&cmd_stop, &stop, "nosuch", 1), "nosuch"));
	CHECK(strstr(ran(&cmd_stop, &stop, "../other", 1), "there is none"));
	want = xasprintf("%s\n", l.name + 9);
	CHECK_STR(ran(&cmd_stop, &stop, NULL, 0), want);
	CHECK_INT(waitpid(l.pid, NULL, 0), ==, l.pid);
	CHECK(!is_running(l.child));
	ended_info(&t, l.name, &info);
	CHECK_INT(info.result, ==, SESSION_STOPPED);
	CHECK_INT(info.exit_status, ==, 143);
	session_info_done(&info);
	state_end(&t);
}

TEST(stop_all_with_force_kills_the_deaf)
{
	struct stop_args stop = { true, true };
	struct launcher a, b;
	struct session_info info;
	struct state t;
	const char *out;

	state_begin(&t);
	CHECK(strstr(ran(&cmd_stop, &stop, NULL, 1), "none is running"));
	CHECK(strstr(ran(&cmd_stop, &stop, "x", 2), "--all"));
	a = launcher_start(&t, "claude", false);
	b = launcher_start(&t, "shell", true);
	out = ran(&cmd_stop, &stop, NULL, 0);
	CHECK(strstr(out, a.name + 9) && strstr(out, b.name + 9));
	CHECK_INT(waitpid(a.pid, NULL, 0), ==, a.pid);
	CHECK_INT(waitpid(b.pid, NULL, 0), ==, b.pid);
	CHECK(!is_running(a.child) && !is_running(b.child));
	CHECK(!exists(t.root.sessions_fd, b.name));
	ended_info(&t, b.name, &info);
	CHECK_INT(info.result, ==, SESSION_LOST);
	session_info_done(&info);
	state_end(&t);
}

/* A record whose launcher is another process by now: nothing is signalled. */
TEST(stop_never_signals_a_pid_that_was_used_again)
{
	struct stop_args stop = { false, true };
	struct session_info info;
	struct launcher l;
	struct state t;
	AUTO_FD(dir);
	pid_t victim = sleeper();

	state_begin(&t);
	l = launcher_start(&t, "claude", false);
	dir = registry_open_session(&t.root, l.name);
	CHECK_INT(session_info_read(dir, &info, NULL), ==, 0);
	info.launcher.pid = victim;
	/* Ticks are 10 ms long: both may have started in one. */
	info.launcher.start++;
	info.n_children = 0;
	CHECK_INT(session_info_write(dir, &info, true), ==, 0);
	session_info_done(&info);
	(void)ran(&cmd_stop, &stop, l.name, 1);
	CHECK_INT(waitpid(victim, NULL, WNOHANG), ==, 0);
	CHECK_INT(waitpid(l.pid, NULL, WNOHANG), ==, 0);
	CHECK_INT(kill(victim, SIGKILL), ==, 0);
	CHECK_INT(waitpid(victim, NULL, 0), ==, victim);
	CHECK_INT(kill(l.pid, SIGTERM), ==, 0);
	CHECK_INT(waitpid(l.pid, NULL, 0), ==, l.pid);
	state_end(&t);
}

static void log_write(const struct session *s, const char *name, const char *text)
{
	CHECK_INT(file_replace_at(s->log_fd, name, text, strlen(text), 0600), ==, 0);
}

TEST(logs_are_merged_by_time_and_escaped)
{
	struct logs_args logs = { false }, console = { .role = "console" }, image = { .role = "image" }, json = { .json = true, .role = "vmm" };
	struct session s = SESSION_INIT;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK(strstr(ran(&cmd_logs, &logs, NULL, 1), "none for this project"));
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	log_write(&s, "launcher.log",
		  "2026-11-23T20:01:02.000Z launcher info one\n  more of one\n2026-11-23T20:01:05.000Z launcher info three\n");
	log_write(&s, "vmm.log", "2026-11-23T20:01:04.000Z vmm info two\n");
	log_write(&s, "console.log", "boot\r\n\x1b[2Jevil\nno newline");
	log_write(&s, "image.log", "2026-11-23T20:01:03.000Z image error no such tag\n"); /* of a pull that failed */
	CHECK_STR(ran(&cmd_logs, &logs, NULL, 0), "launcher: 2026-11-23T20:01:02.000Z launcher info one\n"
						  "launcher:   more of one\n"
						  "image: 2026-11-23T20:01:03.000Z image error no such tag\n"
						  "vmm: 2026-11-23T20:01:04.000Z vmm info two\n"
						  "launcher: 2026-11-23T20:01:05.000Z launcher info three\n"
						  "console: boot\nconsole: \\x1b[2Jevil\nconsole: no newline\n");
	CHECK_STR(ran(&cmd_logs, &image, NULL, 0), "image: 2026-11-23T20:01:03.000Z image error no such tag\n");
	CHECK_STR(ran(&cmd_logs, &console, ".", 0), "console: boot\nconsole: \\x1b[2Jevil\nconsole: no newline\n");
	CHECK(strstr(ran(&cmd_logs, &json, NULL, 0), "\"line\": \"2026-11-23T20:01:04.000Z vmm info two\""));
	CHECK_INT(session_end(&s, SESSION_START_FAILED, 1, "x"), ==, 0);
	CHECK(strstr(ran(&cmd_logs, &console, NULL, 0), "no newline"));
	session_done(&s);
	state_end(&t);
}

TEST(logs_of_a_failed_launch_are_there_after_three_more)
{
	struct logs_args logs = { false }, list = { .list = true };
	AUTO_FREE(char, name);
	struct state t;
	struct err err;
	const char *out;

	state_begin(&t);
	for (int i = 0; i < 4; i++) {
		struct session s = SESSION_INIT;

		CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
		if (i == 0) {
			name = xstrdup(s.info.name);
			log_write(&s, "launcher.log", "the first failed\n");
		}
		CHECK_INT(session_end(&s, i == 0 ? SESSION_START_FAILED : SESSION_EXIT, 1, NULL), ==, 0);
		session_done(&s);
	}
	CHECK_STR(ran(&cmd_logs, &logs, name, 0), "launcher: the first failed\n");
	out = ran(&cmd_logs, &list, NULL, 0);
	CHECK(strstr(out, "start-failed") && strstr(out, name));
	state_end(&t);
}

TEST(denied_shows_refusals_and_what_would_open_them)
{
	struct logs_args denied = { .denied = true }, audit = { .role = "audit" };
	struct session s = SESSION_INIT;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_STR(ran(&cmd_logs, &denied, NULL, 0), "");
	log_write(&s, "audit.jsonl",
		  "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"tcp\",\"dst\":\"104.16.3.35\",\"port\":80,\"verdict\":\"allow\"}\n"
		  "not json\n"
		  "{\"v\":1,\"t\":\"2026-11-23T20:01:09.777Z\",\"k\":\"refused\",\"p\":\"tcp\",\"name\":\"db.\\u001blan\","
		  "\"by\":\"dns\",\"dst\":\"192.168.1.10\",\"port\":5432,\"rule\":\"private\","
		  "\"open\":\"--allow-egress 192.168.1.10:5432\",\"n\":3}\n");
	CHECK_STR(ran(&cmd_logs, &denied, NULL, 0),
		  "20:01:09  3x  tcp 192.168.1.10:5432 (db.\\x1blan)  private network  --allow-egress 192.168.1.10:5432\n");
	log_write(&s, "audit.jsonl.1",
		  "{\"v\":1,\"t\":\"2026-11-23T19:01:02.345Z\",\"k\":\"udp\",\"dst\":\"fd12::5\",\"port\":53,\"verdict\":\"allow\","
		  "\"up\":1834,\"down\":48,\"ms\":412,\"end\":\"idle\"}\n"
		  "{\"v\":1,\"t\":\"2026-11-23T19:02:00.000Z\",\"k\":\"dns\",\"q\":\"evil.\\u001bexample\",\"type\":\"A\","
		  "\"rcode\":\"NOERROR\",\"kept\":0,\"dropped\":1,\"rule\":\"rebind\",\"first\":\"127.0.0.1\",\"group\":\"never\",\"ms\":1,\"n\":2}\n"
		  "{\"v\":1,\"t\":\"2026-11-23T19:03:00.000Z\",\"k\":\"refused\",\"p\":\"tcp\",\"dst\":\"1.1.1.1\",\"port\":53,"
		  "\"rule\":\"port\",\"n\":1,\"probe\":true}\n");
	CHECK_STR(ran(&cmd_logs, &denied, NULL, 0),
		  "19:02:00  2x  dns evil.\\x1bexample A  127.0.0.1 left out, never  cannot be opened\n"
		  "20:01:09  3x  tcp 192.168.1.10:5432 (db.\\x1blan)  private network  --allow-egress 192.168.1.10:5432\n");
	CHECK_STR(ran(&cmd_logs, &audit, NULL, 0),
		  "19:01:02  udp  [fd12::5]:53  allow  up 1.8 kB  down 48 B  412 ms  idle\n"
		  "19:02:00  dns  evil.\\x1bexample A  NOERROR  kept 0  left out 1 (rebind)  2x\n"
		  "19:03:00  refused  tcp 1.1.1.1:53  port  self-probe\n"
		  "20:01:02  tcp  104.16.3.35:80  allow  0 ms  open\n"
		  "20:01:09  refused  tcp 192.168.1.10:5432 (db.\\x1blan)  private  3x\n");
	session_done(&s);
	state_end(&t);
}

/* What --denied makes of these lines of an audit. */
static void denied_shows(const char *lines, const char *want)
{
	struct logs_args denied = { .denied = true };
	struct session s = SESSION_INIT;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	log_write(&s, "audit.jsonl", lines);
	CHECK_STR(ran(&cmd_logs, &denied, NULL, 0), want);
	session_done(&s);
	state_end(&t);
}

#define REQUEST(more) "{\"v\":1,\"t\":\"2026-11-23T20:01:10.000Z\"," more ",\"verdict\":\"refuse\",\"code\":\"path-denied\"}\n"

TEST(denied_has_the_command_that_tells_what_would_open_a_request)
{
	denied_shows(
		  REQUEST("\"k\":\"request\",\"host\":\"api.x.com\",\"method\":\"POST\",\"path\":\"/v1/files\"")
		  REQUEST("\"k\":\"request\",\"host\":\"api.x.com\",\"method\":\"GET\",\"path\":\"/v1/{id}';x\"")
		  REQUEST("\"k\":\"echo\",\"host\":\"api.x.com\",\"path\":\"/e\""),
		  "20:01:10  1x  POST api.x.com/v1/files  path-denied  agent-vm why --verb claude -X POST https://api.x.com/v1/files\n"
		  "20:01:10  1x  GET api.x.com/v1/{id}';x  path-denied  agent-vm why --verb claude -X GET "
		  "'https://api.x.com/v1/{id}'\\'';x'\n"
		  "20:01:10  1x   api.x.com/e  path-denied  agent-vm why --verb claude https://api.x.com/e\n");
}

#define DNS_LINE(q, more) "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"dns\",\"q\":\"" q "\",\"type\":\"A\"," more ",\"n\":1}\n"
#define DENIED(q, text) "20:01:02  1x  dns " q " A  " text "\n"

TEST(denied_shows_each_way_in_which_a_name_is_refused)
{
	denied_shows(
		  DNS_LINE("www.example.org", "\"kept\":1,\"dropped\":0")
		  DNS_LINE("inside.corp", "\"kept\":0,\"dropped\":0,\"rule\":\"proxy\"")
		  DNS_LINE("use-application-dns.net", "\"kept\":0,\"dropped\":0,\"rule\":\"doh\"")
		  DNS_LINE("db.corp", "\"kept\":2,\"dropped\":1,\"rule\":\"rebind\",\"first\":\"10.0.0.5\",\"group\":\"private\","
				      "\"open\":\"--allow-egress db.corp\"")
		  DNS_LINE("fake.corp", "\"kept\":0,\"dropped\":1,\"rule\":\"rebind\",\"first\":\"198.18.0.9\",\"group\":\"reserved\","
					"\"open\":\"--allow-egress 198.18.0.9\"")
		  DNS_LINE("printer.local", "\"rule\":\"name\",\"open\":\"--allow-egress printer.local\"")
		  DNS_LINE("5.0.0.10.in-addr.arpa", "\"rule\":\"reverse\",\"open\":\"--allow-lan\"")
		  DNS_LINE("1.0.0.127.in-addr.arpa", "\"rule\":\"never\"")
		  DNS_LINE("x1.example", "\"rule\":\"rate\"")
		  DNS_LINE("x2.example", "\"rule\":\"no-network\""),
		  DENIED("db.corp", "1 of 3 addresses left out, first 10.0.0.5, private network  --allow-egress db.corp")
		  DENIED("fake.corp", "198.18.0.9 left out, reserved  --allow-egress 198.18.0.9")
		  DENIED("printer.local", "name that is not asked outside  --allow-egress printer.local")
		  DENIED("5.0.0.10.in-addr.arpa", "address of a private network  --allow-lan")
		  DENIED("1.0.0.127.in-addr.arpa", "never  cannot be opened")
		  DENIED("x1.example", "too many new names  cannot be opened")
		  DENIED("x2.example", "no network  cannot be opened"));
}
