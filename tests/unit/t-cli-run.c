/* The launcher's loop against a stand-in for monitor and guest: a process that says frames and dies as it is told. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/run.h"
#include "proto/ctl.h"
#include "proto/netmsg.h"
#include "proto/rec.h"

static struct capture console;
static int console_write = -1;
static struct strv argv, env;
static struct err err;

enum script { SILENT, READY_LATE, PORTS_FLOOD, PORT_WRONG };

#define FLOOD 1000000

static void say(int fd, enum ctl_type type, uint32_t stream, const void *p, size_t n)
{
	struct buf b;

	buf_init(&b, 4096);
	if (ctl_put(&b, type, 0, stream, p, n) < 0 || fd_write_all(fd, buf_span(&b).p, buf_span(&b).n) < 0)
		_exit(99);
	buf_done(&b);
}

static void hello(int fd)
{
	struct buf b;

	buf_init(&b, 64);
	(void)buf_put_u32(&b, CTL_MAGIC);
	(void)buf_put_u16(&b, CTL_VERSION);
	say(fd, CTL_HELLO, 0, buf_span(&b).p, buf_span(&b).n);
	buf_done(&b);
}

/* Read until the launcher says @want or is gone. Return: the frame's stream */
static uint32_t until(int fd, enum ctl_type want)
{
	struct buf in;
	struct ctl_frame f;
	size_t used;
	uint8_t *room;
	ssize_t n;

	buf_init(&in, CTL_HEAD + CTL_RECS_MAX);
	for (;;) {
		while (ctl_decode(&in, CTL_SIDE_GUEST, &f, &used) == 1) {
			if (f.type == want)
				return f.stream;
			buf_consume(&in, used);
		}
		room = buf_room(&in, 4096);
		n = read(fd, room, 4096);
		if (n <= 0)
			_exit(98);
		buf_grew(&in, (size_t)n);
	}
}

/* A guest that is taken over: a listener on every port, and all of them open and close without end. */
static void ports_flood(int fd)
{
	uint32_t stream = until(fd, CTL_EXEC);
	struct buf b;

	buf_init(&b, FLOOD * 16);
	for (uint32_t i = 0; i < FLOOD; i++) {
		uint16_t port = (uint16_t)(i * 2654435761u >> 16);
		uint8_t le[3] = { (uint8_t)port, (uint8_t)(port >> 8), port != 0 && i % 3 != 0 };

		if (ctl_put(&b, CTL_PORT, 0, 0, le, sizeof(le)) < 0)
			_exit(97);
	}
	if (fd_write_all(fd, buf_span(&b).p, buf_span(&b).n) < 0)
		_exit(96);
	buf_done(&b);
	say(fd, CTL_EXIT, stream, (uint8_t[8]){ 0 }, 8);
	(void)until(fd, CTL_SHUTDOWN);
	say(fd, CTL_BYE, 0, NULL, 0);
}

static void guest(int fd, enum script script)
{
	if (script == SILENT) {
		(void)pause();
		_exit(0);
	}
	hello(fd);
	if (script >= PORTS_FLOOD) {
		(void)until(fd, CTL_CONFIG);
		say(fd, CTL_READY, 0, NULL, 0);
	}
	if (script == PORTS_FLOOD) {
		ports_flood(fd);
	} else if (script == PORT_WRONG) {
		say(fd, CTL_PORT, 0, (uint8_t[3]){ 0, 8, 2 }, 3);
	} else {
		/* The launcher has heard HELLO. */
		(void)until(fd, CTL_CONFIG);
		(void)kill(getppid(), SIGTERM);
		(void)until(fd, CTL_SHUTDOWN);
		say(fd, CTL_READY, 0, NULL, 0);
		say(fd, CTL_BYE, 0, NULL, 0);
	}
	(void)pause();
	_exit(0);
}

static struct autopub *autopub;
static struct network *network;
static bool progress;
static size_t ports_changes;
static int listen_fd = -1;

static void on_ports(void *arg)
{
	(*(size_t *)arg)++;
}

/* @fast: a limit for the boot in seconds, 0: the ordinary one. */
static struct run *start(enum script script, int fast, pid_t *ret_pid)
{
	static const struct buf config;
	struct run_spec spec = { .control_fd = -1, .listen_fd = listen_fd, .quiet = true, .log_dir = "/logs", .config = &config, .argv = &argv,
				 .env = &env, .cwd = "/", .hello_s = fast, .console = &console, .autopub = autopub, .network = network,
				 .progress = progress, .on_ports = on_ports, .on_ports_arg = &ports_changes };
	int pair[2], file;
	char path[] = "/tmp/t-cli-run.XXXXXX";
	struct run *run;
	pid_t pid;

	if (argv.n == 0)
		strv_add(&argv, "true");
	file = mkstemp(path);
	CHECK(file >= 0);
	(void)unlink(path);
	CHECK_INT(capture_open(&console, file, &console_write), ==, 0);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
	pid = fork();
	if (pid == 0) {
		(void)close(pair[0]);
		guest(pair[1], script);
	}
	CHECK_INT(pid, >, 0);
	(void)close(pair[1]);
	spec.port_fd = pair[0];
	spec.vmm_pid = pid;
	run = run_new(&spec, &err);
	CHECK(run != NULL);
	*ret_pid = pid;
	return run;
}

static void finish(struct run *run)
{
	run_free(run);
	(void)close(console_write);
	capture_close(&console);
}

/* Ends the monitor, and with it the boot. The text stays in err. */
static void boot_dies(enum script script, int sig)
{
	struct run *run;
	pid_t pid;

	run = start(script, 0, &pid);
	CHECK_INT(write(console_write, "early\nKernel panic: \x1b[2Jno init\n", 30), ==, 30);
	(void)kill(pid, sig);
	CHECK_INT(run_boot(run, &err), ==, RUN_LOST);
	finish(run);
}

TEST(a_monitor_killed_during_boot_is_told_with_its_signal_and_the_last_line)
{
	boot_dies(SILENT, SIGKILL);
	CHECK_STR(err.text, "VM: the monitor was killed by signal 9 (Killed) before the guest was up; is the host short of memory? "
			    "a smaller --memory may help; the console's last line: Kernel panic: \\x1b[2Jno ini; logs: /logs");
	boot_dies(SILENT, SIGUSR1);
	CHECK(strstr(err.text, "signal 10 (User defined signal 1) before the guest was up; the console's"));
	CHECK(!strstr(err.text, "memory"));
}

/* A network process that ends at once: after it said @error, or without a word with @status, or by SIGKILL. */
static void role(struct network_role *role, const char *error, int status)
{
	char msg[64] = { NET_CTL_ERROR };
	int pair[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), ==, 0);
	role->fd = pair[0];
	role->pid = fork();
	if (role->pid == 0) {
		if (error)
			(void)!write(pair[1], msg, 1 + (size_t)snprintf(msg + 1, sizeof(msg) - 1, "%s", error));
		if (status == SIGKILL)
			(void)raise(SIGKILL);
		_exit(status);
	}
	(void)close(pair[1]);
	/* Before the other one begins: only a better cause within 300 ms counts. Its status is there a moment after its end is heard. */
	CHECK_INT(waitid(P_PID, (id_t)role->pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT), ==, 0);
}

/* A monitor that ends in order. */
static void on_usr2(int sig)
{
	(void)sig;
	_exit(0);
}

TEST(network_processes_that_end_with_the_vm_are_not_told_as_the_cause)
{
	static const struct {
		const char *wire, *vault;
		int wire_status, vault_status, end_ms;
		const char *text;
	} cases[] = {
		/* A busy machine: the monitor's end is heard a second after that of its link. */
		{ NULL, NULL, 0, 0, 1000, "VM: the guest's kernel ended before the guest was up (a panic or a reset); the console's last line: "
					  "Kernel panic; logs: /logs" },
		{ NULL, NULL, 0, 0, -1, "VM: its network ended, but the monitor did not within 10 s and was killed; logs: /logs" },
		{ NULL, "out of memory", 0, 1, -1, "network process (vault) ended: out of memory; logs: /logs" },
		{ "wire: link out of step", NULL, 1, 0, -1, "network process (wire) ended: wire: link out of step; logs: /logs" },
		{ NULL, NULL, 0, SIGKILL, -1, "network process (vault) ended: signal 9 (Killed); logs: /logs" },
		{ NULL, "broken", SIGKILL, 1, -1, "network process (wire) ended: signal 9 (Killed); logs: /logs" },
	};
	struct run *run;
	pid_t pid, killer;

	(void)signal(SIGUSR2, on_usr2);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct network net = NETWORK_INIT;

		role(&net.wire, cases[i].wire, cases[i].wire_status);
		role(&net.vault, cases[i].vault, cases[i].vault_status);
		network = &net;
		run = start(SILENT, 0, &pid);
		CHECK_INT(write(console_write, "Kernel panic\n", 13), ==, 13);
		killer = fork();
		if (killer == 0) {
			if (cases[i].end_ms >= 0) {
				(void)usleep((useconds_t)cases[i].end_ms * 1000);
				(void)kill(pid, SIGUSR2);
			}
			_exit(0);
		}
		CHECK_INT(run_boot(run, &err), ==, RUN_LOST);
		CHECK_STR(err.text, cases[i].text);
		finish(run);
		(void)waitpid(killer, NULL, 0);
		network = NULL;
		network_stop(&net);
	}
}

/* As the supervisor does for the process inside. */
TEST(a_status_above_128_is_a_signal)
{
	struct run *run;
	int pair[2];
	struct run_spec spec = { .control_fd = -1, .listen_fd = -1, .quiet = true, .log_dir = "/logs", .argv = &argv, .env = &env,
				 .cwd = "/" };
	static const struct {
		int status;
		const char *text;
	} cases[] = {
		{ 137, "VM: the monitor was killed by signal 9 (Killed) before the guest was up; is the host short of memory? a "
		       "smaller --memory may help; logs: /logs" },
		{ 1, "VM: the monitor ended with status 1 before the guest was up; logs: /logs" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
		spec.port_fd = pair[0];
		spec.vmm_pid = fork();
		if (spec.vmm_pid == 0)
			_exit(cases[i].status);
		(void)close(pair[1]);
		run = run_new(&spec, &err);
		CHECK_INT(run_boot(run, &err), ==, RUN_LOST);
		CHECK_STR(err.text, cases[i].text);
		run_free(run);
	}
}

TEST(a_guest_that_says_nothing_is_told_with_the_last_console_line)
{
	struct run *run;
	pid_t pid;

	run = start(SILENT, 1, &pid);
	CHECK_INT(write(console_write, "waiting for root\n", 17), ==, 17);
	CHECK_INT(run_boot(run, &err), ==, RUN_FAILED);
	CHECK_STR(err.text, "guest: it did not come up within 1 s (last phase: monitor; the console's last line: waiting for root); "
			    "logs: /logs");
	finish(run);
}

static int64_t took_ns;

/* What a boot that is given up after @s seconds says on a stderr that is no terminal. */
static const char *boot_says(bool shown, int s)
{
	static char said[200];
	int err_fd = dup(STDERR_FILENO), pair[2];
	int64_t began = now_ns();
	struct run *run;
	ssize_t n;
	pid_t pid;

	CHECK_INT(pipe2(pair, O_CLOEXEC | O_NONBLOCK), ==, 0);
	progress = shown;
	run = start(SILENT, s, &pid);
	progress = false;
	CHECK(dup2(pair[1], STDERR_FILENO) == STDERR_FILENO);
	CHECK_INT(run_boot(run, &err), ==, RUN_FAILED);
	CHECK(dup2(err_fd, STDERR_FILENO) == STDERR_FILENO);
	finish(run);
	n = read(pair[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = '\0';
	(void)close(err_fd);
	(void)close(pair[0]);
	(void)close(pair[1]);
	took_ns = now_ns() - began;
	return said;
}

TEST(without_a_terminal_a_phase_that_takes_long_is_one_line)
{
	const char *said = boot_says(true, 5);

	CHECK_STR(said, "==> starting: monitor\n");
	/* The line comes after two seconds, and a second that the machine makes two of is no second: up to three times. */
	for (int i = 0; i < 3; i++) {
		said = boot_says(true, 1);
		if (took_ns < 2 * INT64_C(1000000000))
			break;
	}
	CHECK_STR(said, "");
	CHECK_STR(boot_says(false, 3), "");
}

/* @sig comes while run_boot() waits, of READY_LATE by itself. Returns how long the end took, ms. */
static int64_t stopped_at_boot(enum script script, int sig, bool *ret_bye)
{
	struct run *run;
	int64_t began;
	pid_t pid, killer;

	run = start(script, 0, &pid);
	killer = fork();
	if (killer == 0) {
		(void)usleep(300000);
		_exit(script == SILENT && kill(getppid(), sig) < 0);
	}
	CHECK_INT(run_boot(run, &err), ==, RUN_STOPPED);
	CHECK_INT(run_status(run), ==, sig);
	began = now_ns();
	*ret_bye = run_down(run, 0);
	CHECK_INT(kill(pid, 0), ==, -1);
	finish(run);
	(void)waitpid(killer, NULL, 0);
	return (now_ns() - began) / 1000000;
}

TEST(a_signal_before_hello_kills_the_monitor_at_once)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	bool bye;

	(void)signal(SIGHUP, SIG_DFL); /* whatever we were started with */
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		CHECK_INT(stopped_at_boot(SILENT, sigs[i], &bye), <, 7000); /* not after the 8 s that a guest which is up has */
}

TEST(ready_that_crosses_shutdown_is_no_breach)
{
	bool bye;

	CHECK_INT(stopped_at_boot(READY_LATE, SIGTERM, &bye), <, 7000);
	CHECK(bye);
}

TEST(an_exec_that_is_not_taken_says_why)
{
	static const char why[] = "exec: no room";
	struct run_spec spec = { .control_fd = -1, .listen_fd = -1, .quiet = true, .log_dir = "", .argv = &argv };
	struct run *run;
	struct buf b;
	int pair[2], in;

	/* Our stdin may be what the test runner uses. */
	in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(dup2(in, 0) == 0);
	(void)close(in);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
	buf_init(&b, 4096);
	CHECK_INT(rec_put_str(&b, CTL_K_TEXT, why), ==, 0);
	say(pair[1], CTL_FAIL, 0, buf_span(&b).p, buf_span(&b).n);
	buf_done(&b);
	(void)close(pair[1]); /* before the client has said anything */
	spec.port_fd = pair[0];
	run = run_new(&spec, &err);
	CHECK(run != NULL);
	CHECK_INT(run_agent(run, &err), ==, RUN_FAILED);
	CHECK_STR(err.text, why);
	run_free(run);
}

TEST(an_exec_while_the_session_starts_is_told_so)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(any);
	uint8_t got[256];
	struct run *run;
	ssize_t n;
	int client;
	pid_t pid;

	/* The kernel draws a name. */
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK_INT(bind(listen_fd, (struct sockaddr *)&any, sizeof(sa_family_t)), ==, 0);
	CHECK_INT(listen(listen_fd, 1), ==, 0);
	CHECK_INT(getsockname(listen_fd, (struct sockaddr *)&any, &len), ==, 0);
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK_INT(connect(client, (struct sockaddr *)&any, len), ==, 0);
	say(client, CTL_EXEC, 1, NULL, 0);
	run = start(SILENT, 1, &pid);
	listen_fd = -1;
	CHECK_INT(run_boot(run, &err), ==, RUN_FAILED);
	n = read(client, got, sizeof(got));
	CHECK_INT(n, >, CTL_HEAD);
	CHECK_INT(got[0], ==, CTL_FAIL);
	CHECK(memmem(got, (size_t)n, "exec: this session is still starting; try again in a moment", 59));
	(void)close(client);
	finish(run);
}

static void null_stdin(void)
{
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(dup2(in, 0) == 0);
	(void)close(in);
}

TEST(a_million_listeners_are_32_ports_and_few_changes)
{
	static const struct ports none;
	struct strv list = { 0 };
	int vault[2], fd, s;
	struct vault_listen l;
	struct run *run;
	int64_t began;
	pid_t pid;

	null_stdin();
	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, vault), ==, 0);
	/* A vault that takes and forgets. */
	pid = fork();
	if (pid == 0) {
		(void)close(vault[0]);
		while (fd_recv(vault[1], &l, sizeof(l), &fd, 1) > 0)
			(void)close(fd);
		_exit(0);
	}
	(void)close(vault[1]);
	autopub = autopub_new(vault[0], &none);
	ports_changes = 0;
	run = start(PORTS_FLOOD, 0, &pid);
	began = now_ns();
	CHECK_INT(run_boot(run, &err), ==, RUN_OPEN);
	if (run_agent(run, &err) != RUN_EXIT)
		fail_msg("%s", err.text);
	CHECK_INT(run_status(run), ==, 0);
	autopub_list(autopub, &list);
	CHECK_INT(list.n, <=, 32);
	CHECK_INT(ports_changes, >, 0);
	/* 64 at once and 10 a second open, and each may close. */
	s = (int)((now_ns() - began) / 1000000000) + 1;
	CHECK_INT(ports_changes, <=, 2 * (64 + 10 * s));
	CHECK(run_down(run, 0));
	finish(run);
	strv_done(&list);
	autopub_free(autopub);
	autopub = NULL;
	(void)close(vault[0]);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

TEST(a_port_that_was_not_asked_for_or_is_malformed_ends_the_session)
{
	static const struct ports none;
	struct run *run;
	int vault[2];
	pid_t pid;

	null_stdin();
	for (int with = 0; with < 2; with++) {
		CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, vault), ==, 0);
		autopub = with ? autopub_new(vault[0], &none) : NULL;
		run = start(PORT_WRONG, 0, &pid);
		if (run_boot(run, &err) == RUN_OPEN)
			CHECK_INT(run_agent(run, &err), ==, RUN_LOST);
		CHECK_STR(err.text, "guest: it broke the control protocol; the VM was stopped; logs: /logs");
		finish(run);
		autopub_free(autopub);
		autopub = NULL;
		(void)close(vault[0]);
		(void)close(vault[1]);
	}
}
