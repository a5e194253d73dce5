/* The vault's walls: no program, no new file but resolv.conf and what lies beside it and everybody may read, and the folders of
 * the login files that are lent; no socket but IPv4 and IPv6, nothing to listen on. Its netlink sockets, listening sockets and
 * files are opened before. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macros.h"
#include "sandbox/caps.h"
#include "sandbox/landlock.h"
#include "sandbox/seccomp.h"
#include "vault/vault.h"

#define OK(call) { .name = call, .what = SECCOMP_ALLOW }
#define OK_IF(call, n, m, v) { .name = call, .what = SECCOMP_ALLOW, .arg = n, .mask = m, .value = v }
#define NOBODY 65534
#define U32 UINT64_C(0xffffffff) /* arguments of type int: the upper half is undefined */

/* What is refused is EPERM and not death: c-ares and the C library have fallbacks for all that they would like to look at. */
static const struct seccomp_row rows[] = {
	/* Memory and time. */
	OK_IF("mmap", 2, PROT_EXEC, 0), OK_IF("mprotect", 2, PROT_EXEC, 0), OK("munmap"), OK("mremap"), OK("madvise"), OK("brk"),
	OK("clock_gettime"), OK("gettimeofday"), OK("clock_nanosleep"), OK("nanosleep"), OK("getrandom"), OK("futex"),
	OK("rseq"), OK("sched_yield"),
	OK("restart_syscall"), OK("rt_sigreturn"), OK("rt_sigprocmask"), OK("rt_sigaction"), OK("sigaltstack"), OK("getpid"),
	OK("gettid"), OK("exit"), OK("exit_group"),
	/* For abort() alone. */
	OK_IF("tgkill", 2, U32, 6),
	/* What is open. */
	OK("epoll_create1"), OK("epoll_ctl"), OK("epoll_wait"), OK("epoll_pwait"), OK("poll"), OK("read"), OK("write"),
	OK("readv"), OK("writev"), OK("pread64"), OK("lseek"), OK("ftruncate"), OK("close"), OK("fstat"), OK("fcntl"),
	OK_IF("ioctl", 1, U32, 0x5411 /* SIOCOUTQ */), OK_IF("ioctl", 1, U32, 0x5421 /* FIONBIO */),
	/* resolv.conf, read-only; Landlock says which files. */
	OK_IF("openat", 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY), OK_IF("open", 1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
	OK("newfstatat"), OK("stat"), OK("statx"),
	/* Where a login file lies. */
	OK("readlink"), OK("readlinkat"),
	/* vault_files_as() */
	OK("setfsuid"), OK_IF("prctl", 0, U32, PR_SET_PDEATHSIG), OK_IF("prctl", 0, U32, PR_SET_DUMPABLE),
	/* The world. */
	OK_IF("socketpair", 0, U32, AF_UNIX), OK_IF("socket", 0, U32, AF_INET), OK_IF("socket", 0, U32, AF_INET6), OK("connect"), OK("accept4"), OK("recvmsg"),
	OK("recvfrom"), OK("sendmsg"), OK("sendto"), OK("shutdown"), OK("getsockname"), OK("getpeername"), OK("getsockopt"),
	OK("setsockopt"),
};

static void limit(int what, rlim_t to)
{
	struct rlimit l = { to, to };

	(void)setrlimit(what, &l);
}

/* Where the file lives, and where systemd, NetworkManager and resolvconf keep what it links to. Whole folders, because the
 * file is replaced by another one each time the network changes. */
static int allow_resolvconf(int set, struct err *err)
{
	static const char *const folders[] = { "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/connman" };
	AUTO_FREE(char, real);
	char *slash;
	int r;

	real = realpath("/etc/resolv.conf", NULL);
	slash = real ? strrchr(real, '/') : NULL;
	r = landlock_allow(set, "/etc", LANDLOCK_READ, err);
	if (r == 0 && slash && slash != real) {
		*slash = '\0';
		r = landlock_allow(set, real, LANDLOCK_READ, err);
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(folders); i++) {
		r = landlock_allow(set, folders[i], LANDLOCK_READ, err);
		if (r == -ENOENT || r == -EACCES)
			r = 0;
	}
	return r;
}

/* The folder of a login file, for it is replaced by another one at each renewal; and where the user's own link leads. */
static int allow_sources(int set, const struct vault_source *sources, size_t n, struct err *err)
{
	char path[64 + VAULT_SOURCE_NAME];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		AUTO_FREE(char, real);
		char *slash;

		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", sources[i].fd);
		r = landlock_allow(set, path, LANDLOCK_READ, err);
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", sources[i].fd, sources[i].name);
		real = realpath(path, NULL);
		slash = real ? strrchr(real, '/') : NULL;
		if (r < 0 || !slash || slash == real)
			continue;
		*slash = '\0';
		r = landlock_allow(set, real, LANDLOCK_READ, err);
	}
	return r;
}

/* Beside resolv.conf lie /etc/shadow and keys of root, which root reads as their owner, without any capability. So files are opened
 * as nobody. The rest of the identity stays, because who may ping hangs on the group; what is open stays open. */
static bool as_nobody;

void vault_files_as(bool user)
{
	if (!as_nobody)
		return;
	(void)setfsuid(user ? 0 : NOBODY);
	/* The kernel takes both back with each change. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int open_files_as_nobody(struct err *err)
{
	if (geteuid() != 0)
		return 0;
	(void)setgroups(0, NULL);
	(void)setfsgid(NOBODY);
	(void)setfsuid(NOBODY);
	/* These two only ever say what was before. */
	as_nobody = setfsgid(NOBODY) == NOBODY && setfsuid(NOBODY) == NOBODY;
	if (!as_nobody)
		log_info("no user %d in this user namespace: files beside resolv.conf stay as readable as they are to this one", NOBODY);
	/* The kernel takes both back with each change. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return err_set(err, -errno, "parent's death: %s", strerror(errno));
	return 0;
}

int vault_sandbox(const struct vault_source *sources, size_t n, struct err *err)
{
	static const struct seccomp_table table = { "vault", SECCOMP_EPERM, rows, ARRAY_SIZE(rows) };
	struct rlimit files;
	AUTO_FD(set);
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "no-new-privileges: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		limit(RLIMIT_NOFILE, files.rlim_max);
	limit(RLIMIT_NPROC, 0);
	r = landlock_new_client(&set, err);
	if (r == -EOPNOTSUPP) {
		log_warn("%s; seccomp stands alone", err->text);
	} else {
		if (r == 0)
			r = allow_resolvconf(set, err);
		if (r == 0)
			r = allow_sources(set, sources, n, err);
		if (r == 0)
			r = landlock_enforce(set, err);
		if (r < 0)
			return r;
	}
	r = open_files_as_nobody(err);
	if (r == 0)
		r = caps_keep(0, err);
	return r < 0 ? r : seccomp_apply(&table, NULL, 0, err);
}
