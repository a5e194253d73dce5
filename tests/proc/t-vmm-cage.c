/* The cage with a hostile program in the monitor's place. It tries things; what may be done has to work, what may not has to
 * fail. */
#include "cage-host.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include <linux/kvm.h>

#include "sandbox/caps.h"
#include "sandbox/landlock.h"
#include "sandbox/ns.h"
#include "sandbox/ns_map.h"

/* ---- what the monitor must not be able to do ---- */

static void try_open(const char *what, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	refused(what, fd);
	if (fd >= 0)
		(void)close(fd);
}

static void attack_files(void)
{
	static const char *const places[] = { "/etc/passwd", "/etc/shadow", "/root", "/home", "/tmp/..", "/var/lib",
					      "/proc/1/root/etc/passwd", "/share/0/../../etc/passwd", "/sys/kernel",
					      "/sys/fs/cgroup",
					      "/dev/mem", "/dev/vda", "/proc/kcore" };
	AUTO_FREE(char, secret);
	struct dirent *e;
	size_t i;
	DIR *d;
	int fd;

	for (i = 0; i < ARRAY_SIZE(places); i++)
		if (strcmp(places[i], "/tmp/..") != 0)
			try_open(places[i], places[i]);
	secret = in("secret");
	try_open("secret by its path", secret);
	d = opendir("/proc");
	while (d && (e = readdir(d))) {
		static const char *const ways[] = { "root", "cwd" };

		for (i = 0; e->d_name[0] >= '0' && e->d_name[0] <= '9' && i < 2; i++) {
			AUTO_FREE(char, p);

			p = xasprintf("/proc/%s/%s%s", e->d_name, ways[i], secret);
			try_open(p, p);
			free(p);
			p = xasprintf("/proc/%s/%s/../../../../../../..%s", e->d_name, ways[i], secret);
			try_open(p, p);
		}
	}
	if (d)
		(void)closedir(d);
	/* Nothing open leads out. */
	for (fd = 0; fd < 256; fd++) {
		struct stat st;
		AUTO_FREE(char, p);

		if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		p = xasprintf("../../../../../../../..%s", secret);
		refused("secret through an open folder", openat(fd, p, O_RDONLY));
	}
	refused("write of /proc/sys", open("/proc/sys/kernel/core_pattern", O_WRONLY));
	refused("write of /proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY));
	refused("new file in /", open("/x", O_WRONLY | O_CREAT, 0600));
	refused("write of the base image", open(CAGE_VM "/base.ext4", O_WRONLY));
	refused("write of the kernel", open(CAGE_VM "/kernel", O_WRONLY));
	refused("write of the boot root", open(CAGE_BOOT_DIR "/agent-vm-guest", O_WRONLY));
}

static void attack_processes(void)
{
	struct iovec l = { (char[8]){ 0 }, 8 }, r = { (void *)base, 8 };

	refused("kill of a process of the host", kill(victim, 0));
	refused("tgkill of a process of the host", syscall(SYS_tgkill, victim, victim, 0));
	refused("ptrace", ptrace(PTRACE_ATTACH, victim, 0, 0));
	refused("process_vm_readv", process_vm_readv(victim, &l, 1, &r, 1, 0));
	refused("pidfd_open", syscall(SYS_pidfd_open, victim, 0));
}

/* Wrong arguments, so that it is the filter that answers: the kernel would say EFAULT, EINVAL, EBADF or ESRCH. */
static void attack_filter(void)
{
	static const struct {
		const char *name;
		long nr, a, b, c, d;
	} calls[] = {
		{ "ptrace", SYS_ptrace, PTRACE_ATTACH, INT_MAX, 0, 0 }, { "kcmp", SYS_kcmp, INT_MAX, INT_MAX, 0, 0 },
		{ "process_vm_readv", SYS_process_vm_readv, INT_MAX, 0, 0, 0 },
		{ "process_vm_writev", SYS_process_vm_writev, INT_MAX, 0, 0, 0 },
		{ "tgkill", SYS_tgkill, INT_MAX, INT_MAX, 0, 0 }, { "kill", SYS_kill, INT_MAX, 0, 0, 0 },
		{ "tkill", SYS_tkill, INT_MAX, 0, 0, 0 }, { "rt_sigqueueinfo", SYS_rt_sigqueueinfo, INT_MAX, 0, 0, 0 },
		{ "mount", SYS_mount, 1, 1, 1, 0 }, { "umount2", SYS_umount2, 1, INT_MAX, 0, 0 },
		{ "setns", SYS_setns, -1, 0, 0, 0 }, { "unshare", SYS_unshare, INT_MAX, 0, 0, 0 },
		{ "bpf", SYS_bpf, 0, 1, 0, 0 }, { "perf_event_open", SYS_perf_event_open, 1, 0, 0, -1 },
		{ "keyctl", SYS_keyctl, INT_MAX, 0, 0, 0 }, { "add_key", SYS_add_key, 1, 1, 1, 1 },
		{ "open_by_handle_at", SYS_open_by_handle_at, -1, 1, 0, 0 },
		{ "name_to_handle_at", SYS_name_to_handle_at, -1, 1, 1, 1 },
		{ "clone of a user namespace", SYS_clone, CLONE_NEWUSER | CLONE_SIGHAND, 0, 0, 0 },
		{ "clone of a net namespace", SYS_clone, CLONE_NEWNET | CLONE_SIGHAND, 0, 0, 0 },
		{ "ioctl TIOCSTI", SYS_ioctl, -1, 0x5412, 0, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (syscall(calls[i].nr, calls[i].a, calls[i].b, calls[i].c, calls[i].d) >= 0 || errno != EPERM)
			say("%s: not the filter's answer: %s", calls[i].name, strerror(errno));
	if (syscall(SYS_clone3, 1, 64) >= 0 || errno != ENOSYS)
		say("clone3: not the filter's answer: %s", strerror(errno));
}

static void attack_kernel(void)
{
	static const struct {
		const char *name;
		int flag;
	} ns[] = { { "user", CLONE_NEWUSER }, { "mount", CLONE_NEWNS }, { "net", CLONE_NEWNET }, { "pid", CLONE_NEWPID },
		   { "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS } };
	char buf[256] = { 0 };
	size_t i;

	attack_filter();
	for (i = 0; i < ARRAY_SIZE(ns); i++) {
		AUTO_FREE(char, what);

		what = xasprintf("unshare of %s", ns[i].name);
		refused(what, unshare(ns[i].flag));
		refused(what, syscall(SYS_clone, ns[i].flag | SIGCHLD, 0, 0, 0, 0));
	}
	refused("clone3", syscall(SYS_clone3, buf, 64));
	refused("setns", setns(VMM_FD_CONTROL, 0) < 0 && errno == EPERM ? -1 : 0);
	refused("mount of a tmpfs", mount("x", "/share", "tmpfs", 0, NULL));
	refused("bind over a guard", mount("/share/0/src", "/share/0/.git/hooks", NULL, MS_BIND, NULL));
	refused("remount", mount(NULL, "/share/1", NULL, MS_REMOUNT | MS_BIND, NULL));
	refused("umount of a hidden file", umount2("/share/0/.env", MNT_DETACH));
	refused("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/share/0", 1));
	refused("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	refused("chroot", chroot("/share"));
	refused("pivot_root", syscall(SYS_pivot_root, "/share", "/share"));
	refused("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, buf, 0) < 0 && errno == EPERM ? -1 : 0);
	refused("userfaultfd", syscall(SYS_userfaultfd, 1));
	refused("io_uring_setup", syscall(SYS_io_uring_setup, 1, buf));
	refused("bpf", syscall(SYS_bpf, 0, buf, sizeof(buf)) < 0 && errno == EPERM ? -1 : 0);
	refused("perf_event_open", syscall(SYS_perf_event_open, buf, 0, -1, -1, 0) < 0 && errno == EPERM ? -1 : 0);
	refused("keyctl", syscall(SYS_keyctl, 0, -3, 0));
	refused("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -3));
	refused("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0) < 0 && errno == EPERM ? -1 : 0);
	refused("sethostname", sethostname("x", 1));
	refused("ioctl TIOCSTI", ioctl(VMM_FD_PORT, 0x5412, "x") < 0 && errno == EPERM ? -1 : 0);
}

static void attack_sockets(bool unix_too)
{
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	int family;

	for (family = 0; family < 46; family++) {
		AUTO_FREE(char, what);

		if (family == AF_UNIX && !unix_too)
			continue;
		what = xasprintf("socket of family %d", family);
		errno = 0;
		refused(what, socket(family, SOCK_STREAM, 0) < 0 && errno == EPERM ? -1 : 0);
		refused(what, socket(family, SOCK_DGRAM, 0) < 0 && errno == EPERM ? -1 : 0);
	}
	if (unix_too)
		return;
	(void)snprintf(u.sun_path + 1, sizeof(u.sun_path) - 1, "%s", base);
	refused("connect to an abstract socket of the host",
		connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&u, sizeof(u)));
	(void)snprintf(u.sun_path, sizeof(u.sun_path), "%s/daemon.sock", base);
	refused("connect to a socket of the host",
		connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&u, sizeof(u)));
}

/* With cage_enter() alone: the namespaces by themselves. */
static void attack_namespaces(const struct vmm_config *cfg, uint32_t walls)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un u = { .sun_family = AF_UNIX };

	a.sin_port = htons((uint16_t)tcp_port);
	refused("connect to the host's loopback", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof(a)));
	(void)snprintf(u.sun_path + 1, sizeof(u.sun_path) - 1, "%s", base);
	refused("connect to an abstract socket of the host",
		connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&u, sizeof(u)));
	(void)snprintf(u.sun_path, sizeof(u.sun_path), "%s/daemon.sock", base);
	refused("connect to a socket of the host",
		connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&u, sizeof(u)));
	refused("kill of a process of the host", kill(victim, 0));
	attack_files();
	if (getpid() != 1)
		say("it is not process 1 but %d", getpid());
}

/* ---- the shares ---- */

/* The calls that libkrun makes, which the C library's older names do not: unlink(2) is refused by seccomp alone. */
static int unlink_at(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

static int rmdir_at(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

static int link_at(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int rename_at(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int chmod_at(const char *path, mode_t mode)
{
	return fchmodat(AT_FDCWD, path, mode, 0);
}

static int chown_at(const char *path, uid_t uid, gid_t gid)
{
	return fchownat(AT_FDCWD, path, uid, gid, 0);
}

static int truncate_at(const char *path)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd >= 0)
		(void)close(fd);
	return fd;
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	int r;

	if (fd < 0)
		return -1;
	r = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	(void)close(fd);
	return r;
}

#define P "/share/0/"

static void attack_guards(void)
{
	refused("new hook", put(P ".git/hooks/post-checkout", "evil"));
	refused("write of a hook", put(P ".git/hooks/pre-commit", "evil"));
	refused("truncation of a hook", truncate_at(P ".git/hooks/pre-commit"));
	refused("removal of a hook", unlink_at(P ".git/hooks/pre-commit"));
	refused("chmod of a hook", chmod_at(P ".git/hooks/pre-commit", 0777));
	refused("rename of hooks", rename_at(P ".git/hooks", P ".git/hooks2"));
	refused("removal of hooks", rmdir_at(P ".git/hooks"));
	refused("rename over hooks", rename_at(P "src", P ".git/hooks"));
	refused("exchange of hooks", renameat2(AT_FDCWD, P "src", AT_FDCWD, P ".git/hooks", RENAME_EXCHANGE));
	refused("rename of .git", rename_at(P ".git", P ".git2"));
	refused("exchange of .git", renameat2(AT_FDCWD, P "src", AT_FDCWD, P ".git", RENAME_EXCHANGE));
	refused("rename of .git to another share", rename_at(P ".git", "/share/2/.git"));
	refused("write of config", put(P ".git/config", "evil"));
	refused("removal of config", unlink_at(P ".git/config"));
	refused("rename of config", rename_at(P ".git/config", P ".git/config2"));
	works("new file in .git", put(P ".git/evil", "evil"));
	refused("rename over config", rename_at(P ".git/evil", P ".git/config"));
	refused("hard link of config", link_at(P ".git/config", P ".git/config2"));
	works("rename in .git", rename_at(P ".git/evil", P ".git/objects/fine"));
}

static void attack_hidden(void)
{
	char buf[64];
	struct dirent *e;
	int fd, n = 0;
	DIR *d;

	fd = open(P ".env", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, buf, sizeof(buf)) != 0)
		say("a hidden file can be read");
	refused("write of a hidden file", put(P ".env", "evil"));
	refused("removal of a hidden file", unlink_at(P ".env"));
	refused("rename of a hidden file", rename_at(P ".env", P "env"));
	works("new file", put(P "env2", "evil"));
	refused("rename over a hidden file", rename_at(P "env2", P ".env"));
	refused("exchange of a hidden file", renameat2(AT_FDCWD, P "env2", AT_FDCWD, P ".env", RENAME_EXCHANGE));
	refused("hard link of a hidden file", link_at(P ".env", P "env"));
	refused("chmod of a hidden file", chmod_at(P ".env", 0777));
	refused("chown of a hidden file", chown_at(P ".env", 0, 0));
	refused("xattr of a hidden file", setxattr(P ".env", "user.x", "x", 1, 0));
	works("removal of the new file", unlink_at(P "env2"));

	d = opendir(P "private");
	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	if (n)
		say("a hidden folder shows %d entries", n);
	if (d)
		(void)closedir(d);
	refused("open in a hidden folder", open(P "private/key", O_RDONLY));
	refused("new file in a hidden folder", put(P "private/x", "x"));
	refused("rename of a hidden folder", rename_at(P "private", P "public"));
	refused("removal of a hidden folder", rmdir_at(P "private"));
	refused("chmod of a hidden folder", chmod_at(P "private", 0777));
}

static void attack_read_only(void)
{
	refused("new file in a read-only share", put("/share/1/x", "x"));
	refused("write in a read-only share", put("/share/1/file", "x"));
	refused("removal in a read-only share", unlink_at("/share/1/file"));
	refused("chmod in a read-only share", chmod_at("/share/1/file", 0600));
	refused("utimensat in a read-only share", utimensat(AT_FDCWD, "/share/1/file", NULL, 0));
	refused("rename of a writable place in a read-only share", rename_at("/share/1/rw", "/share/1/x"));
	works("new file in a writable place", put("/share/1/rw/made", "x"));
	refused("new file in a guard in a writable place", put("/share/1/rw/guarded/x", "x"));
}

static void *thread_main(void *arg)
{
	works("new file by a thread", put(P "by-thread", "x"));
	return NULL;
}

/* Without a path, so that it is the filter that answers: where nothing else refuses devices the kernel would say EFAULT. */
static void attack_nodes(void)
{
	static const mode_t types[] = { S_IFCHR, S_IFBLK };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (syscall(SYS_mknodat, AT_FDCWD, NULL, types[i] | 0666, makedev(7, 0)) >= 0 || errno != EPERM)
			say("device node of type %o: not the filter's answer: %s", types[i], strerror(errno));
}

/* What people do in a project, done the way in which libkrun does it. */
static void use_share(uint32_t walls)
{
	bool many = walls & CAGE_SUBIDS;
	struct timespec ts[2] = { { 1000, 0 }, { 2000, 0 } };
	char path[64], buf[16];
	struct stat st;
	pthread_t t;
	int fd, fd2;

	works("read", fd = open(P "src/a.c", O_RDONLY | O_CLOEXEC));
	(void)close(fd);
	works("new file", put(P "src/new", "new\n"));
	works("exec bit", chmod_at(P "src/new", 0755));
	works("folder", mkdirat(AT_FDCWD, P "out", 0755));
	works("rename to another folder", rename_at(P "src/new", P "out/moved"));
	works("hard link in another folder", link_at(P "out/moved", P "src/linked"));
	works("symbolic link", symlinkat("../out/moved", AT_FDCWD, P "src/sym"));
	works("fifo", mknodat(AT_FDCWD, P "fifo", S_IFIFO | 0600, 0));
	works("local socket's node", mknodat(AT_FDCWD, P "sock", S_IFSOCK | 0600, 0));
	refused("device node", mknodat(AT_FDCWD, P "dev", S_IFCHR | 0600, makedev(1, 1)));
	attack_nodes();
	refused("set-user-ID bit", chmod_at(P "out/moved", 04755));
	refused("set-group-ID bit", chmod_at(P "out/moved", 02755));
	refused("set-id file from the start", open(P "suid", O_WRONLY | O_CREAT | O_CLOEXEC, 04755));
	refused("set-id node", mknodat(AT_FDCWD, P "suid", S_IFREG | 02755, 0));
	works("sticky bit", chmod_at(P "out", 01755));
	works("times", utimensat(AT_FDCWD, P "out/moved", ts, 0));
	works("chown to root", chown_at(P "out/moved", 0, 0));
	works("folder of another share", put("/share/2/x", "x"));
	if (stat(P "sub/x", &st) < 0)
		say("a share inside a share is not the same folder");

	/* The server reopens by descriptor; not being dumpable must not be in its way. */
	works("open by path", fd = open(P "out/moved", O_PATH | O_NOFOLLOW | O_CLOEXEC));
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	works("reopen by descriptor", fd2 = open(path, O_RDWR | O_CLOEXEC));
	works("read of it", read(fd2, buf, sizeof(buf)));
	works("chmod by descriptor", chmod_at(path, 0711));
	works("hard link by descriptor", linkat(AT_FDCWD, path, AT_FDCWD, P "by-fd", AT_SYMLINK_FOLLOW));
	works("chown by descriptor", fchownat(fd, "", 0, (gid_t)-1, AT_EMPTY_PATH));

	/* Credentials of the guest's process, of this thread alone. */
	if (many) {
		works("file for another user", put(P "theirs", "x"));
		works("chown", chown_at(P "theirs", 1000, 1000));
		works("group", syscall(SYS_setresgid, -1, 1000, -1));
		works("user", syscall(SYS_setresuid, -1, 1000, -1));
		refused("new file of another user in root's folder", put(P "src/by-1000", "x"));
		works("user back", syscall(SYS_setresuid, -1, 0, -1));
		works("group back", syscall(SYS_setresgid, -1, 0, -1));
		works("removal of it", unlink_at(P "theirs"));
	}
	works("folder without rights", mkdirat(AT_FDCWD, P "closed", 0));
	works("root passes over modes", put(P "closed/x", "x"));
	works("removal there", unlink_at(P "closed/x"));
	works("removal of it", rmdir_at(P "closed"));

	if (pthread_create(&t, NULL, thread_main, NULL) != 0 || pthread_join(t, NULL) != 0)
		say("threads do not work");
}

static void locked_krun(const struct vmm_config *cfg, uint32_t walls)
{
	char *const argv[] = { (char *)"sh", NULL };
	uint64_t caps = 0;
	int fd;

	if (strcmp(cfg->shares[0].path, "/share/0") != 0 || strcmp(cfg->disk, CAGE_VM "/disk.qcow2") != 0)
		say("paths are not rewritten");
	if ((walls & (CAGE_MOUNT_NS | CAGE_NET_NS | CAGE_PID_NS | CAGE_SECCOMP)) !=
	    (CAGE_MOUNT_NS | CAGE_NET_NS | CAGE_PID_NS | CAGE_SECCOMP))
		say("walls are missing: %x", walls);
	if (landlock_abi() >= 2 && !(walls & CAGE_LANDLOCK))
		say("Landlock is missing");
	(void)caps_effective(&caps);
	if (caps & ~UINT64_C(0xdb)) /* CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID */
		say("capabilities are left: %llx", (unsigned long long)caps);
	attack_files();
	try_open("/proc/keys", "/proc/keys");
	attack_processes();
	attack_kernel();
	attack_sockets(true);
	if (execv("/bin/sh", argv) == 0 || errno != EPERM)
		say("exec: not the filter's answer: %s", strerror(errno));
	if (syscall(SYS_execveat, -1, "", argv, NULL, 0) == 0 || errno != EPERM)
		say("execveat: not the filter's answer: %s", strerror(errno));
	refused("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	refused("executable memory",
		mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
	refused("dumpable again", prctl(PR_SET_DUMPABLE, 1));
	attack_guards();
	attack_hidden();
	attack_read_only();
	use_share(walls);
	works("overlay disk", put(CAGE_VM "/disk.qcow2", "x"));
	works("base image", fd = open(CAGE_VM "/base.ext4", O_RDONLY));
	works("kernel", fd = open(CAGE_VM "/kernel", O_RDONLY));
	works("boot root", fd = open(CAGE_BOOT_DIR "/agent-vm-guest", O_RDONLY));
	works("/dev/urandom", fd = open("/dev/urandom", O_RDONLY));
	works("/dev/null", fd = open("/dev/null", O_RDWR));
	if (geteuid() == 0 && (fd = open("/dev/kvm", O_RDWR | O_CLOEXEC)) >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) < 0 &&
	    errno == EPERM)
		say("KVM's calls are refused");
}

/* virtiofsd's place; and the mounts by themselves, before the lock could answer in their stead. */
static void entered(const struct vmm_config *cfg, uint32_t walls)
{
	char *const argv[] = { (char *)"run", NULL };
	struct stat st;

	attack_files();
	attack_guards();
	attack_hidden();
	attack_read_only();
	/* A .git that is a file (a linked worktree's). */
	refused("rename of a guarded file", rename_at(P "sub/.git", P "sub/x"));
	refused("removal of a guarded file", unlink_at(P "sub/.git"));
	works("new file beside it", put(P "sub/y", "x"));
	refused("rename over a guarded file", rename_at(P "sub/y", P "sub/.git"));
	works("removal of the new file", unlink_at(P "sub/y"));
	if (execv(P "src/run", argv) == 0 || errno != EACCES)
		say("exec from a share: %s", strerror(errno));
	if (stat("/share/0/.git/hooks", &st) < 0 || st.st_uid != 0)
		say("files of the user are not root's here");
}

static int shell(const char *script)
{
	int st;
	pid_t p = fork();

	if (p == 0) {
		(void)execl("/bin/sh", "sh", "-c", script, (char *)NULL);
		_exit(126);
	}
	if (p < 0 || waitpid(p, &st, 0) < 0)
		return -1;
	return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static void locked_qemu(const struct vmm_config *cfg, uint32_t walls)
{
	AUTO_FREE(char, script);
	uint64_t caps = 0;
	int r;

	(void)caps_effective(&caps);
	if (caps)
		say("capabilities are left: %llx", (unsigned long long)caps);
	attack_files();
	attack_processes();
	attack_kernel();
	attack_sockets(false);
	works("overlay disk", put(CAGE_VM "/disk.qcow2", "x"));
	works("boot image", open(CAGE_BOOT_IMAGE, O_RDONLY));
	refused("write of the boot image", open(CAGE_BOOT_IMAGE, O_WRONLY));
	try_open("a share, which is virtiofsd's", "/share/0/src/a.c");
	r = shell("exec qemu-system-x86_64 -version >/dev/null 2>&1");
	if (r != 0)
		say("QEMU cannot be executed: %d", r);
	script = xasprintf("cat %s/secret >/dev/null 2>&1 && exit 9; cat /etc/passwd 2>/dev/null && exit 9; exit 0", base);
	r = shell(script);
	if (r != 0)
		say("an executed program reaches the host: %d", r);
}

TEST(a_hostile_libkrun_is_held_and_can_serve_the_project)
{
	struct stat st;

	host_make();
	run_expect(config_make(VMM_KRUN), entered, locked_krun, 0, NULL);
	st = host_stat("project/out/moved");
	CHECK_INT(st.st_uid, ==, geteuid());
	CHECK_INT(st.st_gid, ==, getegid());
	CHECK_INT(st.st_mode & 07777, ==, 0711);
	CHECK(S_ISLNK(host_stat("project/src/sym").st_mode));
	CHECK(S_ISFIFO(host_stat("project/fifo").st_mode));
	CHECK_INT(host_stat("project/.env").st_size, ==, strlen("TOKEN=real\n"));
	CHECK_INT(host_stat("project/.git/config").st_size, ==, strlen("[core]\n"));
	CHECK_INT(host_stat("ro/rw/made").st_uid, ==, geteuid());
	host_drop();
}

TEST(a_hostile_qemu_is_held_and_can_be_executed)
{
	host_make();
	run_expect(config_make(VMM_QEMU_TCG), entered, locked_qemu, 0, NULL);
	host_drop();
}

TEST(the_namespaces_hold_by_themselves)
{
	host_make();
	run_expect(config_make(VMM_KRUN), attack_namespaces, NULL, 0, NULL);
	host_drop();
}

static void locked_none(const struct vmm_config *cfg, uint32_t walls)
{
	AUTO_FREE(char, secret);
	AUTO_FREE(char, project);
	AUTO_FREE(char, ro);

	if (walls & (CAGE_MOUNT_NS | CAGE_PID_NS))
		say("there are namespaces");
	secret = in("secret");
	project = in("project/made");
	ro = in("ro/made");
	if (walls & CAGE_LANDLOCK) {
		try_open("secret by its path", secret);
		try_open("/etc/passwd", "/etc/passwd");
		try_open("/sys/fs/cgroup", "/sys/fs/cgroup");
		refused("new file in a read-only share", put(ro, "x"));
	}
	works("new file in a share", put(project, "x"));
	works("overlay", put(cfg->disk, "x"));
	attack_nodes();
	attack_processes();
	attack_kernel();
	attack_sockets(true);
}

TEST(without_namespaces_landlock_and_seccomp_hold)
{
	struct vmm_config cfg;

	host_make();
	cfg = config_make(VMM_KRUN);
	cfg.namespaces = VMM_NS_NONE;
	run_expect(cfg, NULL, locked_none, 0, NULL);
	cfg = config_make(VMM_QEMU_TCG);
	cfg.namespaces = VMM_NS_NONE;
	run_expect(cfg, NULL, NULL, 0, NULL);
	host_drop();
}

/* As virtiofsd's place before it is executed. Where the tests are root's nothing but the filter refuses these. */
TEST(virtiofsd_makes_no_device_nodes_and_no_set_id_files)
{
	AUTO_FREE(char, project);
	struct err err = { "" };
	int fd, st;
	pid_t pid;

	host_make();
	project = in("project");
	pid = fork();
	if (pid == 0) {
		if (chdir(project) < 0 || cage_seccomp_files(&err) < 0)
			_exit(2);
		errno = 0;
		if (mknod("c", S_IFCHR | 0666, makedev(1, 3)) == 0 || errno != EPERM ||
		    mknod("b", S_IFBLK | 0666, makedev(7, 0)) == 0 || errno != EPERM ||
		    syscall(SYS_mknod, "b", S_IFBLK | 0666, makedev(7, 0)) == 0 || errno != EPERM ||
		    syscall(SYS_mknodat, AT_FDCWD, NULL, S_IFCHR, 0) == 0 || errno != EPERM ||
		    syscall(SYS_mknod, NULL, S_IFBLK, 0) == 0 || errno != EPERM)
			_exit(3);
		if (mknod("f", S_IFREG | 04755, 0) == 0 || mknod("f", S_IFREG | 02755, 0) == 0)
			_exit(4);
		if (mknod("f", S_IFREG | 0644, 0) < 0 || mknod("p", S_IFIFO | 0644, 0) < 0 || mknod("s", S_IFSOCK | 0644, 0) < 0 ||
		    (fd = open("o", O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) < 0 || fchmod(fd, 0755) < 0)
			_exit(5);
		_exit(chmod("f", 04755) == 0 || fchmod(fd, 02755) == 0 ? 6 : 0);
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	CHECK(WIFEXITED(st));
	CHECK_INT(WEXITSTATUS(st), ==, 0);
	host_drop();
}

/* As virtiofsd without namespaces: its own folder, by descriptor as well, and no other file. */
TEST(virtiofsd_without_namespaces_has_its_share_alone)
{
	AUTO_FREE(char, project);
	AUTO_FREE(char, beside);
	struct err err = { "" };
	int st;
	pid_t pid;

	host_make();
	project = in("project");
	beside = in("ro/made");
	pid = fork();
	if (pid == 0) {
		char by_fd[64];
		int fd;

		if (cage_landlock_files("/usr/lib/qemu/virtiofsd", project, &err) < 0 || chdir(project) < 0)
			_exit(2);
		fd = open(".env", O_PATH | O_CLOEXEC);
		(void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
		if (open(by_fd, O_RDWR | O_CLOEXEC) < 0 || put("made", "x") < 0 || mkdir("dir", 0755) < 0 ||
		    rename_at("made", "dir/made") < 0 || unlink_at("dir/made") < 0)
			_exit(3);
		if (shell("exit 7") != 7)
			_exit(4);
		if (landlock_abi() >= 2 && (open("../secret", O_RDONLY | O_CLOEXEC) >= 0 || put(beside, "x") == 0 ||
					    open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 || open("/proc/1/status", O_RDONLY | O_CLOEXEC) >= 0 ||
					    rename_at("src/a.c", "../ro/a.c") == 0))
			_exit(5);
		_exit(0);
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	CHECK(WIFEXITED(st));
	CHECK_INT(WEXITSTATUS(st), ==, 0);
	host_drop();
}

TEST(a_guard_whose_target_is_gone_ends_the_launch)
{
	struct vmm_config cfg;

	host_make();
	cfg = config_make(VMM_KRUN);
	strv_add(&cfg.shares[0].hide, "gone");
	run_expect(cfg, NULL, NULL, 3, "start again");
	cfg = config_make(VMM_KRUN);
	strv_add(&cfg.shares[0].guard_ro, "../secret");
	run_expect(cfg, NULL, NULL, 3, "start again");
	host_drop();
}

TEST(a_share_that_became_a_link_ends_the_launch)
{
	AUTO_FREE(char, project);
	AUTO_FREE(char, moved);
	AUTO_FREE(char, target);

	host_make();
	project = in("project");
	moved = in("moved");
	CHECK_INT(rename(project, moved), ==, 0);
	target = in("ro");
	CHECK_INT(symlink(target, project), ==, 0);
	run_expect(config_make(VMM_KRUN), NULL, NULL, 3, "symbolic link");
	host_drop();
}

TEST(a_guard_that_became_a_link_ends_the_launch)
{
	AUTO_FREE(char, hooks);
	AUTO_FREE(char, moved);

	host_make();
	hooks = in("project/.git/hooks");
	moved = in("project/hooks");
	CHECK_INT(rename(hooks, moved), ==, 0);
	CHECK_INT(symlink("../hooks", hooks), ==, 0);
	run_expect(config_make(VMM_KRUN), NULL, NULL, 3, "start again");
	host_drop();
}

static bool user_namespaces_work(void)
{
	int st;
	pid_t p = fork();

	if (p == 0)
		_exit(unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
	return waitpid(p, &st, 0) == p && WIFEXITED(st) && WEXITSTATUS(st) == 0;
}

static bool has_subids(void)
{
	AUTO_FREE(char, text);
	struct passwd *pw = getpwuid(geteuid());
	struct ns_range r;
	AUTO_FD(fd);

	fd = open("/etc/subuid", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, 1 << 20, &text, NULL) < 0 || access("/usr/bin/newuidmap", X_OK) < 0)
		return geteuid() == 0;
	return geteuid() == 0 || ns_subid_find(text, pw ? pw->pw_name : NULL, geteuid(), &r) == 0;
}

TEST(the_probe_says_what_enter_then_has)
{
	uint32_t kinds = 0;
	struct err why = { "" };
	int64_t start = now_ns();

	CHECK_INT(ns_probe(&kinds, &why), ==, 0);
	if (user_namespaces_work())
		CHECK(kinds & NS_USER);
	if (has_subids())
		CHECK(kinds & NS_SUBIDS);
	print_message("probe: walls %x in %lld us\n", kinds, (long long)((now_ns() - start) / 1000));
	CHECK_INT(kinds & (NS_MOUNT | NS_NET | NS_PID), ==, NS_MOUNT | NS_NET | NS_PID);
}
