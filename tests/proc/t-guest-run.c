/* The guest program runs what it is told: status, words, environment, descriptors, terminal, the end. */
#include "guest-host.h"

#include <fcntl.h>
#include <sys/stat.h>

TEST(the_status_of_a_program_comes_back)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	s = host_run(&h, 1, 0, ARGV("true"));
	CHECK_INT(s->how, ==, CTL_EXIT_CODE);
	CHECK_INT(s->value, ==, 0);
	s = host_run(&h, 2, 0, SH("exit 7"));
	CHECK_INT(s->how, ==, CTL_EXIT_CODE);
	CHECK_INT(s->value, ==, 7);
	s = host_run(&h, 3, 0, SH("kill -TERM $$"));
	CHECK_INT(s->how, ==, CTL_EXIT_SIGNAL);
	CHECK_INT(s->value, ==, SIGTERM);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(words_are_literal_and_the_environment_is_only_what_was_sent)
{
	struct host h;
	struct hs *s;

	CHECK_INT(setenv("OF_PID_1", "x", 1), ==, 0);
	host_start(&h);
	s = host_run(&h, 1, 0, ARGV("printf", "[%s]", "a b", "$HOME", "it's", ""));
	CHECK_STR(s->out[0], "[a b][$HOME][it's][]");
	s = host_run(&h, 2, 0, ARGV("env"));
	CHECK_STR(s->out[0], "PATH=/usr/bin:/bin\nTERM=none-of-yours\n");
	CHECK_INT(s->eof[0] && s->eof[1], ==, true);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_program_begins_clean)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	s = host_run(&h, 1, 0, SH("umask; ls /proc/self/fd | wc -l; grep '^SigBlk' /proc/self/status; "
				  /* 32 and 33 are the C library's own: nobody can set them, and some starters ignore them. */
				  "echo $((0x$(sed -n 's/^SigIgn:\t//p' /proc/self/status) & ~0x180000000)); pwd; "
				  "ps -o sid= -p $$ | grep -qw $$ && echo leader; readlink /proc/self/fd/0"));
	CHECK_STR(s->out[0], "0022\n4\nSigBlk:\t0000000000000000\n0\n/\nleader\n/dev/null\n");
	s = host_exec(&h, 2, 0, "/usr", ARGV("pwd"));
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_STR(s->out[0], "/usr\n");
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(what_cannot_be_run_says_why)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	s = host_run(&h, 1, 0, ARGV("nosuchprogram"));
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(s->value, ==, ENOENT);
	CHECK_STR(s->text, "nosuchprogram: not found in PATH");
	CHECK(!s->started);
	s = host_run(&h, 2, 0, ARGV("/etc/passwd"));
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(s->value, ==, EACCES);
	s = host_run(&h, 3, 0, ARGV("/"));
	CHECK_INT(s->value, ==, EACCES);
	s = host_run(&h, 4, 0, ARGV(""));
	CHECK_INT(s->value, ==, ENOENT);
	s = host_exec(&h, 5, 0, "/no/such/folder", ARGV("true"));
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, ENOENT);
	CHECK_STR(s->text, "/no/such/folder: cannot be entered: No such file or directory");
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_text_file_without_an_interpreter_is_not_handed_to_a_shell)
{
	char path[] = "/tmp/t-guest-run-XXXXXX";
	int fd = mkstemp(path);
	struct host h;
	struct hs *s;

	CHECK(fd >= 0 && write(fd, "echo hi\n", 8) == 8 && fchmod(fd, 0755) == 0 && close(fd) == 0);
	host_start(&h);
	s = host_run(&h, 1, 0, ARGV(path));
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(s->value, ==, ENOEXEC);
	CHECK_INT(host_stop(&h), ==, 3);
	(void)unlink(path);
}

TEST(stdout_and_stderr_are_apart_and_all_of_them_comes_before_exit)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	for (uint32_t id = 1; id <= 30; id++) {
		s = host_run(&h, id, 0, SH("echo err >&2; head -c 60000 /dev/zero"));
		CHECK_INT(s->n[0], ==, 60000);
		CHECK_STR(s->out[1], "err\n");
	}
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_child_left_behind_with_stdout_does_not_delay_exit)
{
	struct host h;
	struct hs *s;
	pid_t left;

	host_start(&h);
	s = host_run(&h, 1, 0, SH("sleep 100 & echo $!"));
	CHECK_INT(s->value, ==, 0);
	left = (pid_t)strtol(s->out[0], NULL, 10);
	CHECK(left > 1 && kill(left, 0) == 0); /* it still has stdout */
	/* One that floods: what the program itself wrote is bounded by the pipe. */
	s = host_run(&h, 2, 0, SH("yes & sleep 0.2; exit 5"));
	CHECK_INT(s->value, ==, 5);
	(void)kill(left, SIGKILL);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_terminal_has_size_name_and_signals)
{
	struct host h;
	struct hs *s;
	uint8_t size[8] = { 50, 0, 120, 0, 0, 0, 0, 0 };

	host_start(&h);
	s = host_exec(&h, 1, HX_PTY, NULL,
		      SH("stty size; tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo $TERM; "
			 "trap 'stty size' WINCH; echo ready; "
			 /* a signal may end a read, or come between two of them */
			 "until [ \"$x\" = word ]; do read x; done; echo got $x"));
	HOST_UNTIL(&h, strstr(s->out[0], "ready"), 20);
	CHECK(strstr(s->out[0], "33 99\r\n/dev/pts/"));
	CHECK(strstr(s->out[0], "all\r\nxterm"));
	CHECK_INT(ctl_put(&h.out, CTL_RESIZE, 0, 1, size, sizeof(size)), ==, 0);
	host_send(&h, 1, "\n");
	HOST_UNTIL(&h, strstr(s->out[0], "50 120"), 20);
	host_send(&h, 1, "word\n");
	HOST_UNTIL(&h, s->exited, 20);
	CHECK(strstr(s->out[0], "got word\r\n"));
	CHECK_INT(s->value, ==, 0);
	CHECK_INT(s->n[1], ==, 0);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(control_c_and_signal_reach_the_foreground_group)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	s = host_exec(&h, 1, HX_PTY, NULL, ARGV("sleep", "100"));
	HOST_UNTIL(&h, s->started, 20);
	host_send(&h, 1, "\x03");
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_SIGNAL);
	CHECK_INT(s->value, ==, SIGINT);

	/* An interactive shell gives its job a group of its own; the shell must outlive the signal. */
	s = host_exec(&h, 2, HX_PTY, NULL, ARGV("bash", "--norc", "-i"));
	host_send(&h, 2, "sh -c 'echo j''ob; exec sleep 100'; echo status $?\n"); /* what is typed comes back as well */
	HOST_UNTIL(&h, strstr(s->out[0], "job"), 20);
	CHECK_INT(ctl_put_u32(&h.out, CTL_SIGNAL, 0, 2, SIGQUIT), ==, 0);
	HOST_UNTIL(&h, strstr(s->out[0], "status 131"), 20);
	host_send(&h, 2, "exit 9\n");
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, 9);

	/* One that waits for a child and the child. That runs nothing else: between fork and exec dash hears a signal and forgets it. */
	s = host_exec(&h, 3, HX_STDIN, NULL, SH("sh -c 'echo up; read x'; true"));
	HOST_UNTIL(&h, s->n[0] == 3, 20);
	CHECK_INT(ctl_put_u32(&h.out, CTL_SIGNAL, 0, 3, SIGINT), ==, 0);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, SIGINT);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(all_that_was_written_to_a_terminal_comes)
{
	struct host h;
	struct hs *s;

	host_start(&h);
	for (uint32_t id = 1; id <= 10; id++) {
		s = host_run(&h, id, HX_PTY, SH("seq 1 20000"));
		CHECK_INT(s->n[0], ==, 108894 + 20000);
		CHECK_INT(s->value, ==, 0);
	}
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(close_ends_a_program_also_one_that_ignores_the_hangup)
{
	struct host h;
	struct hs *a, *b, *c;
	int64_t start;

	host_start(&h);
	a = host_exec(&h, 1, 0, NULL, SH("sleep 100; true"));
	b = host_exec(&h, 2, 0, NULL, SH("trap '' HUP; echo up; while :; do sleep 1; done"));
	c = host_exec(&h, 3, HX_PTY, NULL, ARGV("yes"));
	c->hold = true;
	HOST_UNTIL(&h, a->started && b->n[0] == 3 && c->n[0] > 100000, 20);
	start = now_ns();
	for (uint32_t id = 1; id <= 3; id++)
		CHECK_INT(ctl_put(&h.out, CTL_CLOSE, 0, id, NULL, 0), ==, 0);
	HOST_UNTIL(&h, a->exited && c->exited, 20);
	CHECK(!b->exited || now_ns() - start > 2 * S_NS);
	HOST_UNTIL(&h, b->exited, 20);
	CHECK_INT(b->value, ==, SIGKILL);
	CHECK_INT(now_ns() - start, >=, 2 * S_NS);
	/* At once: else it would be KILL, which is also what it gets if it has no processor for those two seconds. */
	for (uint32_t id = 4; a->value != SIGHUP; id++) {
		CHECK(id < 7 && a->value == SIGKILL);
		a = host_exec(&h, id, 0, NULL, SH("sleep 100; true"));
		HOST_UNTIL(&h, a->started, 20);
		CHECK_INT(ctl_put(&h.out, CTL_CLOSE, 0, id, NULL, 0), ==, 0);
		HOST_UNTIL(&h, a->exited, 20);
	}
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(shutdown_lets_programs_end_in_order_and_says_bye)
{
	struct host h;
	struct hs *a, *b;
	int64_t start;

	host_start(&h);
	a = host_exec(&h, 1, 0, NULL, SH("trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done"));
	b = host_exec(&h, 2, 0, NULL, SH("trap '' TERM HUP; echo up; while :; do sleep 0.05; done"));
	HOST_UNTIL(&h, a->n[0] == 3 && b->n[0] == 3, 20);
	start = now_ns();
	/* At half of it who did not end is hung up; until then the first of them needs a processor. */
	CHECK_INT(ctl_put_u32(&h.out, CTL_SHUTDOWN, 0, 0, 8000), ==, 0);
	HOST_UNTIL(&h, a->exited, 20);
	CHECK_STR(a->out[0], "up\nbye\n");
	CHECK_INT(a->value, ==, 4);
	HOST_UNTIL(&h, h.bye, 30);
	CHECK_INT(b->exited, ==, true);
	CHECK_INT(b->value, ==, SIGKILL);
	CHECK_INT(now_ns() - start, >=, 8 * S_NS);
	CHECK_INT(now_ns() - start, <, 30 * S_NS);
	CHECK_INT(host_stop(&h), ==, 0);
}

TEST(the_loss_of_the_host_ends_everything)
{
	struct host h;
	struct hs *s;
	pid_t pid;
	int64_t start;

	host_start(&h);
	s = host_exec(&h, 1, 0, NULL, ARGV("sleep", "100"));
	HOST_UNTIL(&h, s->started, 20);
	pid = (pid_t)s->pid;
	start = now_ns();
	CHECK_INT(host_stop(&h), ==, 3);
	CHECK_INT(now_ns() - start, <, 20 * S_NS);
	CHECK(kill(pid, 0) < 0 && errno == ESRCH);
}

TEST(a_configuration_that_fails_says_so_and_ends)
{
	struct host h;

	host_start_bare(&h);
	CHECK_INT(ctl_put(&h.out, CTL_CONFIG, 0, 0, "bad", 3), ==, 0);
	HOST_UNTIL(&h, h.failed && h.bye, 20);
	CHECK_STR(h.text, "the test wants it to fail");
	CHECK(!h.ready);
	CHECK_INT(host_stop(&h), ==, 0);
}
