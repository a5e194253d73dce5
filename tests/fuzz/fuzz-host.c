/* The launcher's handling of what a guest sends, with its real loop: boot, the program, the end. The first byte says
 * whether the peer is a booting guest (even) or, as for `agent-vm exec`, a launcher (odd), and whether its listeners are
 * published (second bit); the rest is what the peer sends before it closes. Whatever that is, the run ends by itself in time, its descriptors are closed, and a failure has a text
 * that a terminal can show. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/run.h"

#define INPUT_MOST 60000 /* below any socket buffer, so that one write takes it */
#define TIME_MOST_MS 9000

/* Before libFuzzer starts threads of its own: one that does not block SIGCHLD would take it from the run. */
__attribute__((constructor)) static void block_sigchld(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static unsigned int open_fds(void)
{
	unsigned int n = 0;
	DIR *d = opendir("/proc/self/fd");

	MUST(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

static void check_text(const char *s)
{
	for (; *s; s++)
		MUST((unsigned char)*s >= 0x20 && *s != 0x7f);
}

/* In place of the monitor: sends all, waits until it is read, and ends. */
static pid_t monitor(int fd, int other, const uint8_t *p, size_t n)
{
	pid_t pid = fork();
	int left = 1;

	MUST(pid >= 0);
	if (pid > 0)
		return pid;
	(void)close(other);
	if (n > 0 && write(fd, p, n) < 0)
		_exit(1);
	for (int i = 0; i < 500 && ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0; i++)
		(void)usleep(1000);
	_exit(0);
}

static void run_it(bool boots, bool publishes, const uint8_t *p, size_t n)
{
	static const struct ports none;
	struct strv argv = { 0 }, env = { 0 };
	struct run_spec spec = { .control_fd = -1, .listen_fd = -1, .quiet = true, .log_dir = "/nowhere", .argv = &argv,
				 .env = &env, .cwd = "/" };
	enum run_end end = RUN_OPEN;
	struct err err = { "" };
	struct run *run;
	int pair[2], vault[2];

	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, vault) == 0);
	spec.autopub = publishes ? autopub_new(vault[0], &none) : NULL;
	strv_add(&argv, "true");
	spec.port_fd = pair[0];
	if (boots) {
		spec.vmm_pid = monitor(pair[1], pair[0], p, n);
	} else if (n > 0) {
		MUST(write(pair[1], p, n) == (ssize_t)n);
		(void)shutdown(pair[1], SHUT_WR);
	}
	if (boots || n == 0)
		(void)close(pair[1]);
	run = run_new(&spec, &err);
	MUST(run);
	if (boots) {
		end = run_boot(run, &err);
		if (end == RUN_OPEN)
			end = run_agent(run, &err);
		(void)run_down(run, 0);
	} else {
		end = run_agent(run, &err);
	}
	MUST(end == RUN_EXIT || end == RUN_FAILED || end == RUN_LOST);
	MUST(end == RUN_EXIT || err.text[0] != '\0');
	check_text(err.text);
	check_text(run_exit_text(run));
	MUST(run_status(run) >= 0 && run_status(run) <= 255);
	run_free(run);
	autopub_free(spec.autopub);
	(void)close(vault[0]);
	(void)close(vault[1]);
	if (!boots && n > 0)
		(void)close(pair[1]);
	strv_done(&argv);
	strv_done(&env);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	int keep[3], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	unsigned int fds;
	int64_t began = now_ns();

	if (n == 0 || n > INPUT_MOST) {
		(void)close(null);
		return 0;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	/* The program's output goes where ours goes. */
	for (int i = 0; i < 3; i++) {
		keep[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
		MUST(dup2(null, i) == i);
	}
	fds = open_fds();
	run_it(p[0] % 2 == 0, p[0] & 2, p + 1, n - 1);
	fds -= open_fds();
	for (int i = 0; i < 3; i++) {
		(void)dup2(keep[i], i);
		(void)close(keep[i]);
	}
	(void)close(null);
	MUST(fds == 0);
	MUST(now_ns() - began < INT64_C(1000000) * TIME_MOST_MS);
	return 0;
}
