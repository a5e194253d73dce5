/* The gate's sandbox: what a gate that was taken over tries, and what it still needs. Each in a process of its own. */
#include "../unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "base/fd.h"
#include "gate/gate.h"

/* The status of @f in a process of its own, perhaps behind the walls. */
static int status(int (*f)(void), bool walls)
{
	int st = -1;
	pid_t pid = fork();

	if (pid == 0) {
		struct err err = { 0 };

		if (walls && gate_sandbox(&err) < 0) {
			(void)dprintf(2, "%s\n", err.text);
			_exit(98);
		}
		_exit(f());
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* The sanitizers try a few calls and live with a refusal, so in their build these fail where otherwise is death. */
#if defined(__SANITIZE_ADDRESS__)
#define MAY_BE_REFUSED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MAY_BE_REFUSED 1
#endif
#endif
#ifndef MAY_BE_REFUSED
#define MAY_BE_REFUSED 0
#endif

/* Without the walls it works, so the test would see a hole; behind them it is death. */
#define DIES(f)                                                          \
	do {                                                             \
		int st_ = status(f, true);                               \
                                                                         \
		CHECK_INT(status(f, false), ==, 1);                      \
		if (!MAY_BE_REFUSED || st_ != 0)                         \
			CHECK_INT(st_, ==, 128 + SIGSYS);                \
	} while (0)
#define WORKS(f) CHECK_INT(status(f, true), ==, 1)

static int done(long r)
{
	return r >= 0 ? 1 : 0;
}

static int socket_inet(void) { return done(socket(AF_INET, SOCK_STREAM, 0)); }
static int socket_unix(void) { return done(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int socket_netlink(void) { return done(socket(AF_NETLINK, SOCK_RAW, 0)); }
static int open_file(void) { return done(open("/etc/passwd", O_RDONLY)); }
static int open_at(void) { return done(openat(AT_FDCWD, "/", O_PATH)); }
static int make_file(void) { return done(open("/tmp", O_TMPFILE | O_RDWR, 0600)); }
static int look_at_file(void) { struct stat st; return done(stat("/", &st)); }
static int make_pipe(void) { int p[2]; return done(pipe(p)); }
static int make_memfd(void) { return done(memfd_create("x", 0)); }
static int do_exec(void) { return execl("/bin/sh", "sh", "-c", "exit 1", (char *)NULL) < 0 ? 0 : 1; }
static int do_trace(void) { return done(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int do_kill(void) { return done(kill(getppid(), 0)); }
static int do_prctl(void) { return done(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); }
static int do_fcntl(void) { return done(fcntl(0, F_GETFD)); }
static int do_fork(void) { pid_t p = fork(); if (p == 0) _exit(0); return done(p); }

static int do_connect(void)
{
	struct sockaddr a = { .sa_family = AF_UNSPEC };
	int s[2];

	(void)socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
	return connect(s[0], &a, sizeof(a)) < 0 && errno == EPERM ? 0 : 1;
}

static int do_accept(void)
{
	return accept(0, NULL, NULL) < 0 && errno == EPERM ? 0 : 1;
}

static int send_elsewhere(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s[2];

	(void)socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
	(void)sendto(s[0], "x", 1, 0, (struct sockaddr *)&to, sizeof(to));
	return 1;
}

static int run_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? 0 : 1;
}

static int make_runnable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return done(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int read_others(void)
{
	char b[16];
	struct iovec here = { b, sizeof(b) }, there = { b, sizeof(b) };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof(b) ? 1 : 0;
}

static int io_uring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EPERM ? 0 : 1;
}

TEST(no_socket_and_nothing_to_connect)
{
	DIES(socket_inet);
	DIES(socket_unix);
	DIES(socket_netlink);
	DIES(do_connect);
	DIES(do_accept);
	DIES(send_elsewhere);
	DIES(io_uring);
}

TEST(no_file)
{
	DIES(open_file);
	DIES(open_at);
	DIES(make_file);
	DIES(look_at_file);
	DIES(make_pipe);
	DIES(make_memfd);
	DIES(do_fcntl);
}

TEST(no_program_no_process_no_code)
{
	DIES(do_exec);
	DIES(do_fork);
	DIES(do_trace);
	DIES(do_kill);
	DIES(do_prctl);
	DIES(run_memory);
	DIES(make_runnable);
	DIES(read_others);
}

/* A pair of its own, an end of it passed on, memory, random bytes and time. */
static int its_work(void)
{
	int p[2], q[2], got = -1;
	char b[8];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, q) < 0 || fd_send(q[0], "x", 1, &p[1], 1) != 1 ||
	    fd_recv(q[1], b, sizeof(b), &got, 1) != 1 || got < 0 || send(p[0], "abc", 3, MSG_DONTWAIT | MSG_NOSIGNAL) != 3 ||
	    recv(got, b, sizeof(b), MSG_DONTWAIT) != 3 || shutdown(p[0], SHUT_WR) < 0)
		return 2;
	free(malloc(1 << 22));
	return now_ns() > 0 && RAND_bytes((unsigned char *)b, sizeof(b)) == 1 ? 1 : 3;
}

static int aborts(void)
{
	abort();
}

TEST(its_work_goes_on)
{
	unsigned char b[1];

	/* As in gate, which has its generator ready before. */
	CHECK_INT(RAND_bytes(b, sizeof(b)), ==, 1);
	WORKS(its_work);
	/* An assertion that fails must end the process, and say so by its signal. */
	CHECK_INT(status(aborts, true), ==, 128 + SIGABRT);
}
