/* The monitor's system calls.
 *
 * krun: a list of what is allowed. Sources: libkrun 1.17.4's devices (virtio-fs passthrough, block, net over a given
 * socket, console over given descriptors, KVM) and what the C library and Rust's runtime call for threads and memory. No
 * new socket, no program, no executable memory, no namespace, no mount, no look at another process.
 *
 * qemu: a list of what is refused. It is loaded before QEMU is executed, so it cannot be tighter than what the dynamic
 * loader and all of QEMU need; QEMU's own -sandbox comes on top.
 *
 * Neither libkrun nor virtiofsd, which has a list of its own before the program's, may give a file the set-user-ID or
 * set-group-ID bit: what the guest makes belongs to the user on the host, so such a program would run there as that user
 * for everybody. Folders are refused the bits as well (a filter cannot tell), and to krun openat2(2) whole, because its
 * mode lies in memory where no filter looks. Nor may they make device nodes: where root runs without a user namespace,
 * such a node would be a disk of the host.
 *
 * What answers ENOSYS makes its caller fall back to an older call: the C library from clone3(2), whose flags a filter
 * cannot see, to clone(2); QEMU from io_uring to epoll and threads. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "sandbox/seccomp.h"
#include "vmm/cage.h"
#include "vmm/cage_int.h"

#define OK(call) { .name = call, .what = SECCOMP_ALLOW }
#define OK_IF(call, n, m, v) { .name = call, .what = SECCOMP_ALLOW, .arg = n, .mask = m, .value = v }
#define NO(call) { .name = call, .what = SECCOMP_EPERM }
#define NO_IF(call, n, m, v) { .name = call, .what = SECCOMP_EPERM, .arg = n, .mask = m, .value = v }
#define NO_UNLESS(call, n, v) \
	{ .name = call, .what = SECCOMP_EPERM, .arg = n, .mask = UINT64_MAX, .value = (uint64_t)(v), .unequal = 1 }
#define SET_ID (S_ISUID | S_ISGID)
#define OK_NO_SET_ID(call, n) OK_IF(call, n, SET_ID, 0)
#define OK_NODE(call, n) \
	OK_IF(call, n, S_IFMT | SET_ID, 0 /* a file */), OK_IF(call, n, S_IFMT | SET_ID, S_IFREG), \
	OK_IF(call, n, S_IFMT | SET_ID, S_IFIFO), OK_IF(call, n, S_IFMT | SET_ID, S_IFSOCK)
#define NO_SET_ID(call, n) NO_IF(call, n, S_ISUID, S_ISUID), NO_IF(call, n, S_ISGID, S_ISGID)
#define NO_DEVICE(call, n) NO_IF(call, n, S_IFMT, S_IFCHR), NO_IF(call, n, S_IFMT, S_IFBLK)
#define UNKNOWN(call) { .name = call, .what = SECCOMP_ENOSYS }

#define U32 UINT64_C(0xffffffff) /* arguments of type int: the upper half is undefined */
#define CLONE_NS                                                                                              \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
#define IOCTL_TYPE 0xff00
#define KVM_TYPE 0xae00

static const struct seccomp_row krun_rows[] = {
	/* Memory and threads. */
	OK_IF("mmap", 2, PROT_EXEC, 0), OK_IF("mprotect", 2, PROT_EXEC, 0), OK("munmap"), OK("mremap"), OK("madvise"),
	OK("brk"), OK("msync"), OK("mincore"), OK("mlock"), OK("munlock"), OK("membarrier"), OK("memfd_create"),
	OK_IF("clone", 0, CLONE_THREAD | CLONE_NS, CLONE_THREAD), UNKNOWN("clone3"), OK("set_robust_list"),
	OK("get_robust_list"), OK("rseq"), OK("futex"), OK("exit"), OK("exit_group"), OK("gettid"), OK("getpid"),
	OK("getppid"), OK("sched_yield"), OK("sched_getaffinity"), OK("sched_getparam"), OK("sched_getscheduler"),
	OK("rt_sigaction"), OK("rt_sigprocmask"), OK("rt_sigreturn"), OK("rt_sigtimedwait"), OK("sigaltstack"),
	OK("restart_syscall"),
	/* Waiting and time. */
	OK("epoll_create1"), OK("epoll_ctl"), OK("epoll_wait"), OK("epoll_pwait"), OK("epoll_pwait2"), OK("eventfd2"),
	OK("poll"), OK("ppoll"), OK("select"), OK("pselect6"), OK("timerfd_create"), OK("timerfd_settime"),
	OK("timerfd_gettime"), OK("signalfd4"), OK("pipe2"), OK("clock_gettime"), OK("clock_getres"),
	OK("clock_nanosleep"), OK("nanosleep"), OK("gettimeofday"), OK("time"),
	/* Bytes of what is open. The sockets among it are connected. */
	OK("read"), OK("write"), OK("readv"), OK("writev"), OK("pread64"), OK("pwrite64"), OK("preadv"), OK("pwritev"),
	OK("preadv2"), OK("pwritev2"), OK("lseek"), OK("close"), OK("close_range"), OK("dup"), OK("dup2"), OK("dup3"),
	OK("fsync"), OK("fdatasync"), OK("sync_file_range"), OK("syncfs"), OK("ftruncate"), OK("fallocate"),
	OK("fadvise64"), OK("copy_file_range"), OK("sendfile"), OK("recvmsg"), OK("recvfrom"), OK("sendmsg"),
	OK("sendto"), OK("shutdown"), OK("getsockopt"), OK("setsockopt"), OK("getsockname"), OK("getpeername"),
	OK("flock"), OK("fcntl"),
	/* Names: virtio-fs, and the files that the disks are. */
	OK_NO_SET_ID("openat", 3), OK_NO_SET_ID("open", 2), OK("newfstatat"), OK("fstat"), OK("stat"), OK("lstat"), OK("statx"),
	OK("statfs"), OK("fstatfs"), OK("access"), OK("faccessat"), OK("faccessat2"), OK("readlink"), OK("readlinkat"),
	OK("getdents64"), OK("getcwd"), OK("mkdirat"), OK_NODE("mknodat", 2), OK("unlinkat"), OK("linkat"), OK("symlinkat"),
	OK("renameat"), OK("renameat2"), OK_NO_SET_ID("fchmod", 1), OK_NO_SET_ID("fchmodat", 2),
	OK_NO_SET_ID("fchmodat2", 2), OK("fchown"), OK("fchownat"),
	OK("utimensat"), OK("umask"), OK("setxattr"), OK("getxattr"), OK("listxattr"), OK("removexattr"),
	OK("lsetxattr"), OK("lgetxattr"), OK("llistxattr"), OK("lremovexattr"), OK("fsetxattr"), OK("fgetxattr"),
	OK("flistxattr"), OK("fremovexattr"),
	/* The thread takes on the ids of the guest's process; capabilities can only shrink. */
	OK("getuid"), OK("geteuid"), OK("getgid"), OK("getegid"), OK("getresuid"), OK("getresgid"), OK("getgroups"),
	OK("setresuid"), OK("setresgid"), OK("capget"), OK("capset"),
	OK_IF("prctl", 0, U32, PR_SET_NAME), OK_IF("prctl", 0, U32, PR_GET_NAME),
	OK_IF("prctl", 0, U32, PR_CAPBSET_READ), OK_IF("prctl", 0, U32, PR_GET_SECUREBITS),
	OK_IF("prctl", 0, U32, PR_GET_DUMPABLE), OK_IF("prctl", 0, U32, PR_GET_NO_NEW_PRIVS),
	OK_IF("prctl", 0, U32, 0x53564d41 /* PR_SET_VMA: names for anonymous memory */),
	/* The machine. */
	OK_IF("ioctl", 1, IOCTL_TYPE, KVM_TYPE), OK_IF("ioctl", 1, U32, 0x5401 /* TCGETS, for isatty() */),
	OK_IF("ioctl", 1, U32, 0x5413 /* TIOCGWINSZ */), OK_IF("ioctl", 1, U32, 0x541b /* FIONREAD */),
	OK_IF("ioctl", 1, U32, 0x5421 /* FIONBIO */), OK_IF("ioctl", 1, U32, 0x5450 /* FIONCLEX */),
	OK_IF("ioctl", 1, U32, 0x5451 /* FIOCLEX */), OK("uname"), OK("sysinfo"), OK("getrandom"), OK("getrusage"),
	OK("getrlimit"), OK("getcpu"), OK_IF("prlimit64", 2, UINT64_MAX, 0 /* only asks */),
	/* Newer than some C library's idea of EPERM. */
	UNKNOWN("io_uring_setup"), UNKNOWN("openat2"), UNKNOWN("futex_waitv"), UNKNOWN("pidfd_open"), UNKNOWN("mseal"), UNKNOWN("cachestat"),
	UNKNOWN("map_shadow_stack"), UNKNOWN("statmount"), UNKNOWN("listmount"),
};

static const struct seccomp_row qemu_rows[] = {
	/* Namespaces and mounts. */
	UNKNOWN("clone3"), NO("unshare"), NO("setns"), NO_IF("clone", 0, CLONE_NEWUSER, CLONE_NEWUSER),
	NO_IF("clone", 0, CLONE_NEWNS, CLONE_NEWNS), NO_IF("clone", 0, CLONE_NEWPID, CLONE_NEWPID),
	NO_IF("clone", 0, CLONE_NEWNET, CLONE_NEWNET), NO_IF("clone", 0, CLONE_NEWIPC, CLONE_NEWIPC),
	NO_IF("clone", 0, CLONE_NEWUTS, CLONE_NEWUTS), NO_IF("clone", 0, CLONE_NEWCGROUP, CLONE_NEWCGROUP),
	NO("mount"), NO("umount"), NO("umount2"), NO("pivot_root"), NO("chroot"), NO("move_mount"), NO("open_tree"),
	NO("fsopen"), NO("fsconfig"), NO("fsmount"), NO("fspick"), NO("mount_setattr"), NO("swapon"), NO("swapoff"),
	NO("quotactl"), NO("quotactl_fd"), NO("acct"),
	/* Other processes. */
	NO("ptrace"), NO("process_vm_readv"), NO("process_vm_writev"), NO("process_madvise"), NO("process_mrelease"),
	NO("kcmp"), NO("pidfd_getfd"), NO("pidfd_send_signal"), UNKNOWN("pidfd_open"), NO("tkill"), NO("migrate_pages"),
	NO("move_pages"), NO("open_by_handle_at"), NO("name_to_handle_at"), NO("fanotify_init"), NO("fanotify_mark"),
	/* The kernel. */
	NO("kexec_load"), NO("kexec_file_load"), NO("bpf"), NO("perf_event_open"), NO("init_module"),
	NO("finit_module"), NO("delete_module"), NO("create_module"), NO("reboot"), NO("syslog"), NO("keyctl"),
	NO("add_key"), NO("request_key"), UNKNOWN("userfaultfd"), UNKNOWN("io_uring_setup"), UNKNOWN("io_uring_enter"),
	UNKNOWN("io_uring_register"), NO("iopl"), NO("ioperm"), NO("modify_ldt"), NO("vhangup"), NO("lookup_dcookie"),
	NO("nfsservctl"), NO("uselib"), NO("_sysctl"), NO("settimeofday"), NO("clock_settime"), NO("clock_adjtime"),
	NO("adjtimex"), NO("stime"), NO("sethostname"), NO("setdomainname"),
	/* Ids: it has no capability to change them, and needs none. */
	NO("setuid"), NO("setgid"), NO("setreuid"), NO("setregid"), NO("setresuid"), NO("setresgid"), NO("setfsuid"),
	NO("setfsgid"), NO("setgroups"), NO("capset"),
	/* A terminal that is left to us must not be fed (it is not, but this is what programs get wrong). */
	NO_IF("ioctl", 1, U32, 0x5412 /* TIOCSTI */), NO_IF("ioctl", 1, U32, 0x541c /* TIOCLINUX */),
};

/* openat2(2) stays: the virtiofsd that uses it makes no files with it. */
static const struct seccomp_row files_rows[] = {
	NO_SET_ID("chmod", 1), NO_SET_ID("fchmod", 1), NO_SET_ID("fchmodat", 2), NO_SET_ID("fchmodat2", 2),
	NO_SET_ID("mknod", 1), NO_SET_ID("mknodat", 2), NO_SET_ID("open", 2), NO_SET_ID("creat", 1),
	NO_SET_ID("openat", 3), NO_DEVICE("mknod", 1), NO_DEVICE("mknodat", 2),
};

static const struct seccomp_row super_rows[] = {
	OK("read"), OK("write"), OK("close"), OK("poll"), OK("ppoll"), OK("restart_syscall"), OK("wait4"), OK("kill"),
	OK("sendto"), OK("rt_sigreturn"), OK("rt_sigprocmask"), OK("sigaltstack" /* ASan asks before _exit() */),
	OK("clock_gettime"), OK("exit"), OK("exit_group"),
	OK("brk"), OK_IF("mmap", 2, PROT_EXEC, 0), OK("munmap"), OK("gettid"), OK("getpid"), OK("futex"), OK("newfstatat"),
	OK("fstat"), OK("gettimeofday"), OK("time"), OK("getrandom"),
};

/* The keeper of the guards. */
static const struct seccomp_row keeper_rows[] = {
	OK("read"), OK("write"), OK("poll"), OK("ppoll"), OK("close"), OK("openat"), OK("openat2"), OK("statx"), OK("fstat"),
	OK("newfstatat"), OK("open_tree"), OK("move_mount"), OK("mount_setattr"), OK("inotify_add_watch"), OK("brk"),
	OK("munmap"), OK_IF("mmap", 2, PROT_EXEC, 0), OK("mremap"), OK("madvise"), OK("clock_gettime"), OK("gettimeofday"),
	OK("restart_syscall"), OK("rt_sigreturn"), OK("exit_group"), OK("getpid"), OK("gettid"), OK("futex"),
};

int cage_seccomp_keeper(struct err *err)
{
	static const struct seccomp_table t = {
		.role = "the keeper of the guards", .otherwise = SECCOMP_KILL, .rows = keeper_rows, .n_rows = ARRAY_SIZE(keeper_rows),
	};

	return seccomp_apply(&t, NULL, 0, err);
}

int cage_seccomp_files(struct err *err)
{
	static const struct seccomp_table t = {
		.role = "virtiofsd", .otherwise = SECCOMP_ALLOW, .rows = files_rows, .n_rows = ARRAY_SIZE(files_rows),
	};

	return seccomp_apply(&t, NULL, 0, err);
}

int cage_seccomp_supervisor(struct err *err)
{
	static const struct seccomp_table t = {
		.role = "the monitor's supervisor", .otherwise = SECCOMP_EPERM,
		.rows = super_rows, .n_rows = ARRAY_SIZE(super_rows),
	};

	return seccomp_apply(&t, NULL, 0, err);
}

int cage_seccomp(const struct vmm_config *cfg, struct err *err)
{
	static const struct seccomp_table krun = {
		.role = "libkrun", .otherwise = SECCOMP_EPERM, .rows = krun_rows, .n_rows = ARRAY_SIZE(krun_rows),
	};
	static const struct seccomp_table qemu = {
		.role = "QEMU", .otherwise = SECCOMP_ALLOW, .rows = qemu_rows, .n_rows = ARRAY_SIZE(qemu_rows),
	};
	/* The process may signal itself: libkrun and QEMU stop their vCPU threads so. exec keeps the id. */
	const struct seccomp_row krun_self[] = { OK_IF("tgkill", 0, U32, (uint64_t)getpid()) };
	/* A local socket reaches nothing in an empty network namespace and file system; on the host's it reaches daemons. */
	bool inside = cfg->namespaces == VMM_NS_USED;
	const struct seccomp_row qemu_self[] = {
		NO_UNLESS("kill", 0, getpid()), NO_UNLESS("tgkill", 0, getpid()), NO_UNLESS("rt_sigqueueinfo", 0, getpid()),
		NO_UNLESS("rt_tgsigqueueinfo", 0, getpid()), inside ? (struct seccomp_row)NO_UNLESS("socket", 0, AF_UNIX) :
		(struct seccomp_row)NO("socket"),
	};

	if (cage_is_qemu(cfg))
		return seccomp_apply(&qemu, qemu_self, ARRAY_SIZE(qemu_self), err);
	return seccomp_apply(&krun, krun_self, ARRAY_SIZE(krun_self), err);
}
