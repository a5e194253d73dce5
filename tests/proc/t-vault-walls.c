/* The vault's sandbox: what a vault that was taken over tries, and what it still needs. Each in a process of its own. */
#include "../unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vault/vault.h"

/* The status of @f behind the walls: 0 is "it was refused", or "it works". */
static int behind(int (*f)(void))
{
	int st = -1;
	pid_t pid = fork();

	if (pid == 0) {
		struct err err = { 0 };

		if (vault_sandbox(NULL, 0, &err) < 0) {
			(void)dprintf(2, "%s\n", err.text);
			_exit(98);
		}
		_exit(f());
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* Without the walls it works: the test would see a hole. */
static int before(int (*f)(void))
{
	int st = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(f());
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

#define REFUSED(f)                             \
	do {                                   \
		CHECK_INT(before(f), ==, 1);   \
		CHECK_INT(behind(f), ==, 0);   \
	} while (0)

static int refused(int r)
{
	return r < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1;
}

static int socket_unix(void) { return refused(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int socket_netlink(void) { return refused(socket(AF_NETLINK, SOCK_RAW, 0)); }
static int read_elsewhere(void) { return refused(open("/proc/self/maps", O_RDONLY)); }
static int read_root(void) { return refused(open("/", O_RDONLY)); }
static int make_file(void) { return refused(open("/tmp", O_TMPFILE | O_RDWR, 0600)); }
static int make_pipe(void) { int p[2]; return refused(pipe(p)); }
static int do_fork(void) { pid_t p = fork(); if (p == 0) _exit(0); return refused(p); }
static int do_exec(void) { return execl("/bin/sh", "sh", "-c", "exit 1", (char *)NULL) < 0 ? refused(-1) : 1; }
static int do_trace(void) { return refused((int)ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int do_kill(void) { return refused(kill(getppid(), 0)); }

static int do_listen(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int s = socket(AF_INET, SOCK_STREAM, 0);

	return refused(bind(s, (struct sockaddr *)&any, sizeof(any))) + refused(listen(s, 1)) == 0 ? 0 : 1;
}

static int run_memory(void)
{
	return refused(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
}

TEST(no_program_no_process)
{
	REFUSED(do_exec);
	REFUSED(do_fork);
	REFUSED(do_trace);
	REFUSED(do_kill);
	REFUSED(run_memory);
}

TEST(no_socket_but_of_the_internet_and_nothing_to_listen_on)
{
	REFUSED(socket_unix);
	REFUSED(socket_netlink);
	REFUSED(do_listen);
	REFUSED(make_pipe);
}

TEST(no_file_but_resolv_conf)
{
	REFUSED(make_file);
	REFUSED(read_elsewhere);
	REFUSED(read_root);
}

static int read_shadow(void) { return refused(open("/etc/shadow", O_RDONLY)); }
static char made[] = "/etc/.agent-vm-test-key-XXXXXX";
static int read_made(void) { return refused(open(made, O_RDONLY)); }

/* The folder of resolv.conf is open to it, and root owns what lies there: a file that only root may read, and one of its group. */
TEST(of_the_folder_of_resolv_conf_only_what_everybody_may_read)
{
	int fd;

	if (geteuid() != 0)
		skip();
	if (access("/etc/shadow", R_OK) == 0)
		REFUSED(read_shadow);
	fd = mkostemp(made, O_CLOEXEC);
	if (fd < 0)
		skip();
	CHECK_INT(fchmod(fd, 0640), ==, 0);
	(void)close(fd);
	int open_before = before(read_made), open_behind = behind(read_made);
	(void)unlink(made);
	CHECK_INT(open_before, ==, 1);
	CHECK_INT(open_behind, ==, 0);
}

/* The kernel takes that wish back when the file system's user changes. */
TEST(it_still_dies_with_its_parent)
{
	struct pollfd p;
	int end[2], st;
	pid_t pid;

	CHECK_INT(pipe2(end, O_CLOEXEC), ==, 0);
	pid = fork();
	if (pid == 0) {
		char go;
		int ready[2];

		if (pipe2(ready, O_CLOEXEC) == 0 && fork() == 0) {
			struct err err = { 0 };

			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			(void)close(end[0]);
			if (vault_sandbox(NULL, 0, &err) == 0)
				(void)!write(ready[1], "", 1);
			for (int i = 0; i < 600; i++)
				(void)usleep(100000);
			_exit(0);
		}
		(void)close(ready[1]);
		_exit(read(ready[0], &go, 1) == 1 ? 0 : 1);
	}
	(void)close(end[1]);
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
	p = (struct pollfd){ end[0], POLLIN, 0 };
	CHECK_INT(poll(&p, 1, 20000), ==, 1); /* the last end was closed */
	(void)close(end[0]);
}

static int reads_resolv_conf(void)
{
	struct stat st;
	int fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);

	return fd >= 0 && fstat(fd, &st) == 0 && stat("/etc/resolv.conf", &st) == 0 ? 0 : 1;
}

static int connects(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);

	return s >= 0 && (six >= 0 || errno == EAFNOSUPPORT) && connect(s, (struct sockaddr *)&to, sizeof(to)) == 0 ? 0 : 1;
}

static int aborts(void)
{
	abort();
}

TEST(its_work_goes_on)
{
	if (access("/etc/resolv.conf", R_OK) == 0)
		CHECK_INT(behind(reads_resolv_conf), ==, 0);
	CHECK_INT(behind(connects), ==, 0);
	/* An assertion that fails must end the process, not only its thread's system call. */
	CHECK_INT(behind(aborts), ==, 128 + SIGABRT);
}
