#include "wire/sandbox.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "sandbox/bare.h"

#define ALL UINT64_MAX
#define LOW 0xffffffffu

/* sendto and sendmsg with an address reach past a connected UDP socket's peer: the one has the address pinned to NULL, the
 * other is not here. setsockopt is SO_LINGER of SOL_SOCKET; since libseccomp joins the rows of one call by "or", the level is
 * what the kernel makes of it: SO_LINGER's number at other levels sets nothing that reaches anywhere (IP_RETOPTS asks for
 * options with received datagrams, TCP_QUICKACK and IPV6's 13 do not exist or change timing alone). */
static const struct seccomp_row rows[] = {
	{ .name = "read", .what = SECCOMP_ALLOW },
	{ .name = "readv", .what = SECCOMP_ALLOW },
	{ .name = "recvfrom", .what = SECCOMP_ALLOW },
	{ .name = "recvmsg", .what = SECCOMP_ALLOW },
	{ .name = "recvmmsg", .what = SECCOMP_ALLOW },
	{ .name = "write", .what = SECCOMP_ALLOW },
	{ .name = "writev", .what = SECCOMP_ALLOW },
	{ .name = "sendto", .what = SECCOMP_ALLOW, .arg = 4, .mask = ALL, .value = 0 },
	{ .name = "shutdown", .what = SECCOMP_ALLOW },
	{ .name = "setsockopt", .what = SECCOMP_ALLOW, .arg = 2, .mask = LOW, .value = SO_LINGER },
	{ .name = "getsockopt", .what = SECCOMP_ALLOW },
	{ .name = "ioctl", .what = SECCOMP_ALLOW, .arg = 1, .mask = LOW, .value = SIOCOUTQ },
	{ .name = "epoll_ctl", .what = SECCOMP_ALLOW },
	{ .name = "epoll_wait", .what = SECCOMP_ALLOW },
	{ .name = "epoll_pwait", .what = SECCOMP_ALLOW },
	{ .name = "clock_gettime", .what = SECCOMP_ALLOW },
	{ .name = "close", .what = SECCOMP_ALLOW },
	{ .name = "madvise", .what = SECCOMP_ALLOW },
	{ .name = "exit_group", .what = SECCOMP_ALLOW },
	{ .name = "exit", .what = SECCOMP_ALLOW },
	{ .name = "restart_syscall", .what = SECCOMP_ALLOW },
	{ .name = "rt_sigreturn", .what = SECCOMP_ALLOW },
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(SANITIZED)
	/* The sanitizers' own, in their build alone: memory, signal stacks, and what they need to report. */
	{ .name = "mmap", .what = SECCOMP_ALLOW },
	{ .name = "munmap", .what = SECCOMP_ALLOW },
	{ .name = "mprotect", .what = SECCOMP_ALLOW },
	{ .name = "sigaltstack", .what = SECCOMP_ALLOW },
	{ .name = "rt_sigaction", .what = SECCOMP_ALLOW },
	{ .name = "rt_sigprocmask", .what = SECCOMP_ALLOW },
	{ .name = "getpid", .what = SECCOMP_ALLOW },
	{ .name = "gettid", .what = SECCOMP_ALLOW },
	{ .name = "getrlimit", .what = SECCOMP_ALLOW },
	{ .name = "prlimit64", .what = SECCOMP_ALLOW },
	{ .name = "futex", .what = SECCOMP_ALLOW },
	{ .name = "sched_yield", .what = SECCOMP_ALLOW },
	{ .name = "sched_getaffinity", .what = SECCOMP_ALLOW },
	{ .name = "openat", .what = SECCOMP_EPERM },
	{ .name = "readlink", .what = SECCOMP_EPERM },
	{ .name = "clone", .what = SECCOMP_EPERM },
	{ .name = "prctl", .what = SECCOMP_EPERM },
#endif
};

static const struct seccomp_table table = { "wire", SECCOMP_KILL, rows, ARRAY_SIZE(rows) };

int wire_sandbox(struct err *err)
{
	return sandbox_bare(&table, err);
}
