/* Gate's walls: descriptors that it has or is given, memory, time, a pair of its own. No file, no socket, no program,
 * no process. A call that is not named here kills. */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "gate/gate.h"
#include "sandbox/bare.h"

#define ALL UINT64_MAX
#define LOW 0xffffffffu
#define OK(call)                                    \
	{                                           \
		.name = call, .what = SECCOMP_ALLOW \
	}
#define OK_IF(call, n, m, v)                                                         \
	{                                                                            \
		.name = call, .what = SECCOMP_ALLOW, .arg = n, .mask = m, .value = v \
	}

static const struct seccomp_row rows[] = {
	OK("read"),
	OK("write"),
	OK("recvmsg"),
	OK("recvfrom"),
	OK("shutdown"),
	OK("close"),
	OK_IF("sendto", 4, ALL, 0),
	/* Descriptors to vault and wire. To what is connected no address can be given: it is refused or not looked at. */
	OK("sendmsg"),
	OK_IF("socketpair", 0, LOW, AF_UNIX),
	OK_IF("ioctl", 1, LOW, SIOCOUTQ),
	OK("epoll_ctl"),
	OK("epoll_wait"),
	OK("epoll_pwait"),
	OK("clock_gettime"),
	OK("time"),
	OK("gettimeofday"),
	OK_IF("mmap", 2, PROT_EXEC, 0),
	OK_IF("mprotect", 2, PROT_EXEC, 0),
	OK("munmap"),
	OK("mremap"),
	OK("madvise"),
	OK("brk"),
	OK("getrandom"),
	OK("futex"),
	/* The generator of random bytes asks whether it was forked. */
	OK("getpid"),
	OK("exit_group"),
	OK("exit"),
	OK("restart_syscall"),
	OK("rt_sigreturn"),
	/* For abort() alone, so that a failed assertion says so. */
	OK("gettid"),
	OK("rt_sigprocmask"),
	OK_IF("tgkill", 2, LOW, 6),
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(SANITIZED)
	/* The sanitizers' own, in their build alone. */
	OK("sigaltstack"),
	OK("rt_sigaction"),
	OK("getrlimit"),
	OK("prlimit64"),
	OK("sched_yield"),
	OK("sched_getaffinity"),
	{ .name = "openat", .what = SECCOMP_EPERM },
	{ .name = "readlink", .what = SECCOMP_EPERM },
	{ .name = "clone", .what = SECCOMP_EPERM },
	{ .name = "prctl", .what = SECCOMP_EPERM },
#endif
};

int gate_sandbox(struct err *err)
{
	static const struct seccomp_table table = { "gate", SECCOMP_KILL, rows, ARRAY_SIZE(rows) };

	return sandbox_bare(&table, err);
}
