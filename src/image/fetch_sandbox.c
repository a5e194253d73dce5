#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/blobs.h"
#include "image/fetch.h"
#include "sandbox/caps.h"
#include "sandbox/landlock.h"
#include "sandbox/seccomp.h"

#define OK(call) { .name = call, .what = SECCOMP_ALLOW }
#define OK_IF(call, n, m, v) { .name = call, .what = SECCOMP_ALLOW, .arg = n, .mask = m, .value = v }
#define UNKNOWN(call) { .name = call, .what = SECCOMP_ENOSYS }
#define U32 UINT64_C(0xffffffff) /* arguments of type int: the upper half is undefined */
#define CLONE_NS                                                                                              \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* Sources: libcurl with OpenSSL and its resolver threads, glibc's resolver (netlink tells it which address families there
 * are) with its modules, and our files. A new local socket is not among it: behind those are the user's daemons. */
static const struct seccomp_row rows[] = {
	/* Memory and threads. Modules of the resolver are mapped executable; nothing is so and writable, nor becomes so. */
	OK_IF("mmap", 2, PROT_EXEC, 0), OK_IF("mmap", 2, PROT_WRITE, 0), OK_IF("mprotect", 2, PROT_EXEC, 0),
	OK("munmap"), OK("mremap"), OK("madvise"), OK("brk"), OK("membarrier"),
	OK_IF("clone", 0, CLONE_THREAD | CLONE_NS, CLONE_THREAD), UNKNOWN("clone3"), OK("set_robust_list"), OK("rseq"), OK("futex"), OK("exit"), OK("exit_group"), OK("gettid"), OK("getpid"),
	OK("sched_yield"), OK("sched_getaffinity"), OK("rt_sigaction"), OK("rt_sigprocmask"), OK("rt_sigreturn"),
	OK("sigaltstack"), OK("restart_syscall"), OK_IF("prctl", 0, U32, PR_SET_NAME),
	OK_IF("prctl", 0, U32, 0x53564d41 /* PR_SET_VMA: names for anonymous memory */),
	OK_IF("prlimit64", 2, UINT64_MAX, 0 /* only asks */), OK("getrlimit"), OK("sysinfo"), OK("uname"), OK("getrandom"),
	/* Waiting and time. */
	OK("poll"), OK("ppoll"), OK("select"), OK("pselect6"), OK("epoll_create1"), OK("epoll_ctl"), OK("epoll_wait"),
	OK("epoll_pwait"), OK("eventfd2"), OK("pipe2"), OK_IF("socketpair", 1, 0xf, SOCK_STREAM /* a datagram one could be pointed elsewhere */), OK("clock_gettime"),
	OK("clock_getres"), OK("clock_nanosleep"), OK("nanosleep"), OK("gettimeofday"), OK("time"),
	/* Files. */
	OK("read"), OK("write"), OK("readv"), OK("writev"), OK("pread64"), OK("pwrite64"), OK("lseek"), OK("close"),
	OK("openat"), OK("openat2"), OK("open"), OK("newfstatat"), OK("fstat"), OK("stat"), OK("lstat"), OK("statx"),
	OK("fstatfs"), OK("access"), OK("faccessat"), OK("faccessat2"), OK("readlink"), OK("readlinkat"), OK("getdents64"),
	OK("ftruncate"), OK("fsync"), OK("fdatasync"), OK("sync_file_range"), OK("flock"), OK("fchmod"), OK("renameat"),
	OK("renameat2"), OK("unlinkat"), OK("fcntl"), OK("dup"), OK("fadvise64"),
	/* Network: client sockets and netlink. bind(2) is for netlink; of TCP Landlock refuses it. */
	OK_IF("socket", 0, U32, AF_INET), OK_IF("socket", 0, U32, AF_INET6), OK_IF("socket", 0, U32, AF_NETLINK),
	OK("connect"), OK("bind"), OK("sendto"), OK("sendmsg"), OK("sendmmsg"), OK("recvfrom"), OK("recvmsg"),
	OK("recvmmsg"), OK("getsockopt"), OK("setsockopt"), OK("getsockname"), OK("getpeername"), OK("shutdown"),
	OK_IF("ioctl", 1, U32, 0x541b /* FIONREAD */), OK_IF("ioctl", 1, U32, 0x5421 /* FIONBIO */),
	/* Asked by libraries, answered for our own process. */
	OK("getuid"), OK("geteuid"), OK("getgid"), OK("getegid"), OK("getcwd"),
};

/* What resolving a name and starting TLS read. What is not there is passed over. */
static const char *const readable[] = {
	"/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/resolv.conf", "/etc/hosts",
	"/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/ssl/openssl.cnf",
	"/etc/pki/tls/openssl.cnf", "/etc/crypto-policies", "/etc/localtime", "/usr/share/zoneinfo", "/run/systemd/resolve",
	"/run/NetworkManager", "/run/resolvconf", "/dev/urandom",
};

static int allow_fd(int set, int fd, uint32_t rights, struct err *err)
{
	AUTO_FREE(char, path);

	path = xasprintf("/proc/self/fd/%d", fd);
	return landlock_allow(set, path, rights, err);
}

static int landlock_lock(const struct blobs *blobs, int source_fd, struct err *err)
{
	AUTO_FD(set);
	int r;

	r = landlock_new_client(&set, err);
	if (r < 0)
		return r;
	/* Not the whole store: what references name and which disk is booted is the launcher's to write. */
	if (blobs)
		r = allow_fd(set, blobs->dir, LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
	if (blobs && r == 0)
		r = allow_fd(set, blobs->partial, LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
	if (r == 0 && source_fd >= 0)
		r = allow_fd(set, source_fd, LANDLOCK_READ, err);
	if (r == 0)
		r = landlock_allow(set, "/dev/null", LANDLOCK_READ | LANDLOCK_WRITE, err);
	for (size_t i = 0; i < ARRAY_SIZE(readable) && r == 0; i++) {
		r = landlock_allow(set, readable[i], LANDLOCK_READ, err);
		if (r == -ENOENT)
			r = 0;
	}
	return r < 0 ? r : landlock_enforce(set, err);
}

int fetch_sandbox(const struct blobs *blobs, int source_fd, struct err *err)
{
	static const struct seccomp_table t = {
		.role = "agent-vm-image fetch", .otherwise = SECCOMP_EPERM, .rows = rows, .n_rows = ARRAY_SIZE(rows),
	};
	/* The process may signal itself: that is how abort(3) ends it. */
	const struct seccomp_row self[] = { OK_IF("tgkill", 0, U32, (uint64_t)getpid()) };
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "no-new-privs: %s", strerror(errno));
	r = landlock_lock(blobs, source_fd, err);
	/* Old kernels and some containers have none; the rest of the sandbox holds there. */
	if (r == -EOPNOTSUPP || r == -ENOSYS)
		log_warn("%s", err->text);
	else if (r < 0)
		return r;
	r = caps_keep(0, err);
	/* After Landlock: a process that is not dumpable cannot open its own /proc/self/fd. */
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = err_set(err, -errno, "dumpable: %s", strerror(errno));
	return r < 0 ? r : seccomp_apply(&t, self, ARRAY_SIZE(self), err);
}
