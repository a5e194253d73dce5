/* QEMU as the monitor: where KVM or libkrun is not usable, and for tests.
 *
 * The same kernel and the same guest program as with libkrun, on QEMU's smallest machine: microvm, no PCI, no ACPI, six
 * virtio devices on memory-mapped transports. QEMU is a child of pid 1 of the cage's pid namespace, and so is virtiofsd, so
 * that neither it nor virtiofsd can outlive the process that waits for both.
 *
 *   /dev/vda   boot image, read-only: agent-vm-guest as init
 *   /dev/vdb   the session's qcow2 overlay; both its layers are named here with their drivers, so QEMU never guesses a
 *              format from bytes that the guest wrote, nor follows a backing name that it finds in them
 *   hvc0       console, to descriptor 1
 *   vport      the control port, descriptor 6
 *   eth0       descriptor 7; frames with a 4-byte length before them, which is libkrun's framing as well
 *   virtio-fs  virtiofsd over a socket that exists in no file system
 *
 * The disk is thrown away with the session, so flushes of the guest go nowhere (cache.no-flush). */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/ctl.h"
#include "vmm/cage.h"
#include "vmm/vmm.h"

static int kernel_fd = -1;
static int fs_fds[VMM_QEMU_SHARES_MAX] = { -1, -1, -1 };
static size_t n_fs;

/* A value inside a comma-separated option: commas are doubled. Caller owns. */
static char *opt_value(const char *s)
{
	char *out = xmalloc(2 * strlen(s) + 1), *p = out;

	for (; *s; s++) {
		*p++ = *s;
		if (*s == ',')
			*p++ = ',';
	}
	*p = '\0';
	return out;
}

static int check_program(const char *path, const char *what, const char *package, struct err *err)
{
	AUTO_FREE(char, shown);

	if (access(path, X_OK) == 0)
		return 0;
	shown = str_escape(path, strlen(path));
	return err_set(err, -errno, "%s: %s; %s is needed where KVM or libkrun is not usable: install the package %s", shown,
		       strerror(errno), what, package);
}

/* When qemu_check() began, for tsc_khz(). */
static uint64_t start_tsc;
static int64_t start_ns;

static int64_t raw_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int qemu_check(const struct vmm_config *cfg, struct err *err)
{
	struct vmm_kernel k;
	size_t want = cfg->namespaces == VMM_NS_USED ? 1 : cfg->n_shares;
	int r;

	start_ns = raw_ns();
	start_tsc = __rdtsc();
	if (want > VMM_QEMU_SHARES_MAX)
		return err_set(err, -E2BIG, "%zu shares: with QEMU and without user namespaces at most %d are possible; mount "
			       "less, or see agent-vm doctor", want, VMM_QEMU_SHARES_MAX);
	r = check_program(cfg->qemu, "QEMU", "qemu-system-x86", err);
	if (r < 0)
		return r;
	r = check_program(cfg->virtiofsd, "virtiofsd", "qemu-system-common or virtiofsd", err);
	if (r < 0)
		return r;
	if (cfg->monitor == VMM_QEMU_KVM && access("/dev/kvm", R_OK | W_OK) < 0)
		return err_set(err, -errno, "/dev/kvm: %s; agent-vm doctor says what to do", strerror(errno));
	r = kernel_open(cfg->libkrunfw, &k, err);
	if (r < 0)
		return r;
	return kernel_elf(&k, &kernel_fd, err);
}

/* Debian 12 has virtiofsd as part of QEMU, with options of libfuse's form; elsewhere it is a program of its own with long
 * options. The older one says so in the answer to --version; but starting it for that costs more than the rest of our
 * work, so its place decides: QEMU's is below a folder named qemu. */
static bool is_qemus_virtiofsd(const char *path)
{
	return strstr(path, "/qemu/") != NULL;
}

/* "\" and "," are escaped for libfuse's option parser. Caller owns. */
static char *fuse_value(const char *s)
{
	char *out = xmalloc(2 * strlen(s) + 1), *p = out;

	for (; *s; s++) {
		if (*s == ',' || *s == '\\')
			*p++ = '\\';
		*p++ = *s;
	}
	*p = '\0';
	return out;
}

/* Both kinds: the attributes and the pages of a file are cached for a second, because the host changes files too;
 * mount points inside the share are announced, so that two files never have the same inode number; locks stay in the
 * guest (neither can wait for one on the host); xattrs are off: files that the guest makes must look ordinary. It keeps no
 * capability to make devices where its option for that is known; the filter (cage_seccomp_files()) holds for both. */
static void virtiofsd_argv(struct strv *argv, const char *program, const char *dir, int fd)
{
	AUTO_FREE(char, value);

	strv_add(argv, program);
	strv_addf(argv, "--fd=%d", fd);
	strv_add(argv, "--rlimit-nofile=0");
	if (is_qemus_virtiofsd(program)) {
		value = fuse_value(dir);
		strv_add(argv, "-f");
		strv_add(argv, "-o");
		strv_addf(argv, "source=%s,sandbox=chroot,modcaps=-mknod,cache=auto,announce_submounts,no_xattr,no_posix_lock,"
				"no_flock,no_writeback,no_posix_acl,log_level=warn", value);
	} else {
		strv_addf(argv, "--shared-dir=%s", dir);
		strv_add(argv, "--sandbox=none");
		strv_add(argv, "--cache=auto");
		strv_add(argv, "--announce-submounts");
		strv_add(argv, "--log-level=warn");
	}
}

/* virtiofsd of QEMU insists on dropping supplementary groups. A user namespace with a single id does not allow that call;
 * the groups are those of the user, who may use them anyway, so the call is made to do nothing. */
static void allow_keeping_groups(void)
{
	scmp_filter_ctx ctx;

	if (getgroups(0, NULL) <= 0 || setgroups(0, NULL) == 0)
		return;
	ctx = seccomp_init(SCMP_ACT_ALLOW);
	if (!ctx)
		return;
	(void)seccomp_rule_add(ctx, SCMP_ACT_ERRNO(0), SCMP_SYS(setgroups), 0);
	(void)seccomp_load(ctx);
	seccomp_release(ctx);
}

/* In the child: only 0, the role's log as 1 and 2, and the listening socket as 3 go on. */
static _Noreturn void virtiofsd_exec(const char *program, const char *dir, bool inside, int listener)
{
	char locale[] = "LC_ALL=C", *const envp[] = { locale, NULL };
	struct strv argv = { 0 };
	struct rlimit files;
	struct err err;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (dup2(VMM_FD_LOG, 1) < 0 || dup2(VMM_FD_LOG, 2) < 0 || dup2(listener, 3) < 0 || close_range(4, ~0u, 0) < 0)
		_exit(126);
	allow_keeping_groups();
	if ((!inside && cage_landlock_files(program, dir, &err) < 0) || cage_seccomp_files(&err) < 0) {
		(void)dprintf(2, "virtiofsd: %s\n", err.text);
		_exit(126);
	}
	virtiofsd_argv(&argv, program, dir, 3);
	(void)execve(program, argv.v, envp);
	(void)dprintf(2, "virtiofsd: exec: %s\n", strerror(errno));
	_exit(127);
}

/**
 * virtiofsd_start() - Serve a folder
 * @inside:	In namespaces of our own, where there are no other files; else Landlock shuts them off
 * @ret_fd:	QEMU's end of the connection
 *
 * virtiofsd wants a listening socket. It gets one with an address of the kernel's choice that is in no folder, and in an
 * empty network namespace; our connection is in its queue, which holds one, before it starts, so it accepts ours.
 */
static int virtiofsd_start(const char *program, const char *dir, bool inside, int *ret_fd, struct err *err)
{
	AUTO_FD(listener);
	AUTO_FD(conn);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t n = sizeof(sa);
	pid_t pid;

	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	conn = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || conn < 0)
		return err_set(err, -errno, "socket for virtiofsd: %s", strerror(errno));
	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa.sun_family)) < 0 || listen(listener, 0) < 0 ||
	    getsockname(listener, (struct sockaddr *)&sa, &n) < 0 || connect(conn, (struct sockaddr *)&sa, n) < 0)
		return err_set(err, -errno, "socket for virtiofsd: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		return err_set(err, -errno, "start virtiofsd: %s", strerror(errno));
	if (pid == 0)
		virtiofsd_exec(program, dir, inside, listener);
	*ret_fd = TAKE_FD(conn);
	return 0;
}

static int qemu_prepare(const struct vmm_config *cfg, struct err *err)
{
	int r;

	if (cfg->namespaces == VMM_NS_USED) {
		r = virtiofsd_start(cfg->virtiofsd, CAGE_SHARE, true, &fs_fds[0], err);
		if (r == 0)
			n_fs = 1;
		return r;
	}
	for (size_t i = 0; i < cfg->n_shares; i++) {
		r = virtiofsd_start(cfg->virtiofsd, cfg->shares[i].path, false, &fs_fds[i], err);
		if (r < 0)
			return r;
		n_fs++;
	}
	return 0;
}

/* There is no RTC: its interrupt is one of those of the virtio transports. The kernel's driver would look for it all the
 * same, and wait 0.9 s for it to become ready. */
#define KERNEL_LINE                                                                                   \
	"console=hvc0 root=/dev/vda rootfstype=ext4 ro init=/agent-vm-guest quiet reboot=t panic=-1 " \
	"initcall_blacklist=cmos_init"

/**
 * tsc_khz() - The rate of the processor's time stamp counter
 *
 * Under emulation the guest's counter is the host's, but nothing on this machine tells the kernel its rate: it gives the
 * counter up and keeps time by timer ticks of 4 ms, without high-resolution timers. So it is measured over our own start,
 * about 20 ms, which gives some parts in a million.
 *
 * Return: kHz; 0 when the counter does not run at one rate on all processors, or the time was too short
 */
static uint32_t tsc_khz(void)
{
	unsigned a, b, c, d;
	int64_t ns = raw_ns() - start_ns;
	uint64_t ticks = __rdtsc() - start_tsc, khz;

	if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & 1u << 8) || ns < 5000000 || ns > INT64_C(10000000000))
		return 0;
	khz = (uint64_t)((double)ticks * 1e6 / (double)ns);
	return khz >= 100000 && khz <= 20000000 ? (uint32_t)khz : 0;
}

static void machine_argv(struct strv *a, const struct vmm_config *cfg)
{
	bool kvm = cfg->monitor == VMM_QEMU_KVM;
	AUTO_FREE(char, tsc);
	uint32_t khz = kvm ? 0 : tsc_khz();
	const char *check;

	tsc = khz ? xasprintf(" tsc_early_khz=%u tsc=reliable", khz) : xstrdup("");
	/* The kernel's check that timer interrupts come is one against the host's clock: when the host is short of processors it
	 * fails, and that is a panic before there is a console. A guest of KVM's leaves it out by itself. */
	check = kvm ? "" : " no_timer_check";
	strv_add(a, "-name");
	strv_add(a, cfg->label);
	strv_add(a, "-nodefaults");
	strv_add(a, "-no-user-config");
	strv_add(a, "-no-reboot"); /* the guest's reboot is how it ends */
	strv_add(a, "-display");
	strv_add(a, "none");
	strv_add(a, "-sandbox");
	strv_add(a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	strv_add(a, "-machine");
	strv_add(a, "microvm,acpi=off,rtc=off,isa-serial=off,ioapic2=off,memory-backend=ram");
	strv_add(a, "-global");
	strv_add(a, "virtio-mmio.force-legacy=false");
	strv_add(a, "-accel");
	/* Several emulated processors in several threads race with the kernel's patching of its own code (an int3 that is met
	 * after the patch is done): 4 of 70 boots with two died of it, in sched_clock_cpu(). One thread for all is right. */
	strv_add(a, kvm ? "kvm" : cfg->cpus > 1 ? "tcg,thread=single" : "tcg,thread=multi");
	strv_add(a, "-cpu");
	strv_add(a, kvm ? "host" : "max");
	strv_add(a, "-smp");
	strv_addf(a, "%u", cfg->cpus);
	strv_add(a, "-m");
	strv_addf(a, "%uM", cfg->ram_mib);
	strv_add(a, "-object");
	strv_addf(a, "memory-backend-memfd,id=ram,size=%uM,share=on", cfg->ram_mib);
	strv_add(a, "-kernel");
	strv_addf(a, "/proc/self/fd/%d", kernel_fd);
	strv_add(a, "-append");
	strv_addf(a, KERNEL_LINE "%s%s", check, tsc);
}

static void device_argv(struct strv *a, const struct vmm_config *cfg)
{
	const uint8_t *mac = cfg->mac;
	AUTO_FREE(char, boot);
	AUTO_FREE(char, disk);
	AUTO_FREE(char, base);

	boot = opt_value(cfg->boot_image);
	disk = opt_value(cfg->disk);
	base = opt_value(cfg->disk_base);

	strv_add(a, "-blockdev");
	strv_addf(a, "driver=raw,node-name=boot,read-only=on,file.driver=file,file.filename=%s", boot);
	strv_add(a, "-device");
	strv_add(a, "virtio-blk-device,drive=boot");
	strv_add(a, "-blockdev");
	strv_addf(a, "driver=qcow2,node-name=disk,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=%s,"
		     "file.discard=unmap,file.cache.no-flush=on,backing.driver=raw,backing.read-only=on,"
		     "backing.file.driver=file,backing.file.filename=%s", disk, base);
	strv_add(a, "-device");
	/* The default stops the guest when the host's disk is full, and nobody would start it again. */
	strv_add(a, "virtio-blk-device,drive=disk,werror=report,rerror=report");

	strv_add(a, "-device");
	strv_add(a, "virtio-serial-device,max_ports=2");
	strv_add(a, "-chardev");
	strv_add(a, "stdio,id=console,signal=off");
	strv_add(a, "-device");
	strv_add(a, "virtconsole,chardev=console");
	strv_add(a, "-chardev");
	strv_addf(a, "socket,id=ctl,fd=%d", VMM_FD_PORT);
	strv_add(a, "-device");
	strv_add(a, "virtserialport,chardev=ctl,name=" CTL_PORT_NAME);

	strv_add(a, "-netdev");
	strv_addf(a, "stream,id=net,addr.type=fd,addr.str=%d", VMM_FD_NET);
	strv_add(a, "-device");
	strv_addf(a, "virtio-net-device,netdev=net,mac=%02x:%02x:%02x:%02x:%02x:%02x,host_mtu=%d", mac[0], mac[1], mac[2],
		  mac[3], mac[4], mac[5], VMM_GUEST_MTU);

	strv_add(a, "-object");
	strv_add(a, "rng-builtin,id=rng");
	strv_add(a, "-device");
	strv_add(a, "virtio-rng-device,rng=rng");

	for (size_t i = 0; i < n_fs; i++) {
		strv_add(a, "-chardev");
		strv_addf(a, "socket,id=fs%zu,fd=%d", i, fs_fds[i]);
		strv_add(a, "-device");
		if (cfg->namespaces == VMM_NS_USED)
			strv_addf(a, "vhost-user-fs-device,chardev=fs%zu,queue-size=1024,tag=" VMM_SHARE_TAG, i);
		else
			strv_addf(a, "vhost-user-fs-device,chardev=fs%zu,queue-size=1024,tag=" VMM_SHARE_TAG ".%zu", i, i);
	}
}

/**
 * watch() - End when the first of QEMU and virtiofsd does
 *
 * We are process 1 of the cage's pid namespace, so the rest ends with us. A guest whose files are no longer served hangs
 * and nobody would tell, since QEMU goes on without virtiofsd.
 */
static int watch(pid_t qemu, struct err *err)
{
	const struct timespec moment = { .tv_nsec = 50000000 };
	bool fs_gone = false;
	int status;
	pid_t pid;

	(void)close(VMM_FD_PORT);
	(void)close(VMM_FD_NET);
	(void)close(kernel_fd);
	for (size_t i = 0; i < n_fs; i++)
		(void)close(fs_fds[i]);
	/* When the power goes off virtiofsd may be seen to end first. */
	for (int left = 20; left > 0; left -= fs_gone) {
		pid = waitpid(-1, &status, fs_gone ? WNOHANG : 0);
		if (pid == qemu)
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		if (pid > 0)
			fs_gone = true;
		else if (pid < 0 && errno != EINTR)
			break;
		if (fs_gone)
			(void)nanosleep(&moment, NULL);
	}
	return err_set(err, -EPIPE, "virtiofsd or the keeper of the guards: it ended while the VM ran, so the project was out of reach; see vmm.log");
}

static int qemu_run(const struct vmm_config *cfg, struct err *err)
{
	char locale[] = "LC_ALL=C", *const envp[] = { locale, NULL };
	const int kept[] = { kernel_fd, VMM_FD_PORT, VMM_FD_NET };
	struct strv argv = { 0 };
	pid_t pid;

	pid = fork();
	if (pid < 0)
		return err_set(err, -errno, "%s: cannot be started: %s", cfg->qemu, strerror(errno));
	if (pid > 0)
		return watch(pid, err);
	strv_add(&argv, cfg->qemu);
	machine_argv(&argv, cfg);
	device_argv(&argv, cfg);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		(void)fd_cloexec(kept[i], false);
	for (size_t i = 0; i < n_fs; i++)
		(void)fd_cloexec(fs_fds[i], false);
	(void)execve(cfg->qemu, argv.v, envp);
	return err_set(err, -errno, "%s: exec: %s; agent-vm doctor checks the installation", cfg->qemu, strerror(errno));
}

const struct vmm_monitor_ops vmm_qemu_ops = {
	.name = "qemu",
	.check = qemu_check,
	.prepare = qemu_prepare,
	.run = qemu_run,
};
