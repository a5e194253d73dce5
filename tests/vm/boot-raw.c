/* boot-raw: start agent-vm-vmm the way the launcher does, with a configuration made by hand, and measure the time to the
 * guest's HELLO.
 *
 *   boot-raw [-n RUNS] [-m MIB] [-c CPUS] [-N] [-q] VMM MONITOR BOOT-FOLDER [SHARE...]
 *
 * MONITOR is krun, qemu-kvm or qemu-tcg; BOOT-FOLDER holds root/ and boot.ext4 as the build makes them. The libraries are
 * those of AGENT_VM_LIBKRUN and AGENT_VM_LIBKRUNFW, QEMU and virtiofsd those of QEMU and VIRTIOFSD or Debian's. -N: no
 * namespaces. -q: do not print the console.
 *
 * Each run ends by closing the control port, which the guest must take for the end; it is a failure when no HELLO came, or
 * when the monitor has not ended 10 s after that, or not with status 0. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/ctl.h"
#include "proto/rec.h"
#include "proto/vmmcfg.h"

#define HELLO_LIMIT_MS 60000
#define END_LIMIT_MS 10000

static const char *const monitor_str[] = { [VMM_KRUN] = "krun", [VMM_QEMU_KVM] = "qemu-kvm", [VMM_QEMU_TCG] = "qemu-tcg" };

static struct {
	const char *vmm, *boot;
	char *dir; /* of this program's own */
	char **shares;
	int n_shares;
	uint64_t monitor, ram_mib, cpus, namespaces;
	bool quiet;
} the;

static _Noreturn void die(const char *what)
{
	(void)fprintf(stderr, "boot-raw: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *env_or(const char *name, const char *otherwise)
{
	const char *v = getenv(name);

	return v && *v ? v : otherwise;
}

static void put_path(struct buf *b, uint16_t key, const char *path)
{
	AUTO_FREE(char, full);

	if (!path)
		return;
	full = realpath(path, NULL);
	if (!full)
		die(path);
	(void)rec_put_str(b, key, full);
}

static int make_config(void)
{
	AUTO_FREE(char, root);
	AUTO_FREE(char, image);
	AUTO_FREE(char, disk);
	AUTO_FREE(char, base);
	AUTO_FREE(char, work);
	struct buf b;
	int fd;

	root = xasprintf("%s/root", the.boot);
	image = xasprintf("%s/boot.ext4", the.boot);
	disk = xasprintf("%s/disk.qcow2", the.dir);
	base = xasprintf("%s/base.ext4", the.dir);
	work = xasprintf("%s/work", the.dir);
	buf_init(&b, 1 << 20);
	(void)rec_put_u64(&b, VC_MONITOR, the.monitor);
	(void)rec_put_u64(&b, VC_RAM_MIB, the.ram_mib);
	(void)rec_put_u64(&b, VC_CPUS, the.cpus);
	(void)rec_put_u64(&b, VC_NAMESPACES, the.namespaces);
	(void)rec_put_str(&b, VC_LABEL, "boot-raw");
	put_path(&b, VC_LIBKRUN, getenv("AGENT_VM_LIBKRUN"));
	put_path(&b, VC_LIBKRUNFW, getenv("AGENT_VM_LIBKRUNFW"));
	if (the.monitor != VMM_KRUN) {
		put_path(&b, VC_QEMU, env_or("QEMU", "/usr/bin/qemu-system-x86_64"));
		put_path(&b, VC_VIRTIOFSD, env_or("VIRTIOFSD", "/usr/lib/qemu/virtiofsd"));
	}
	put_path(&b, VC_BOOT_DIR, root);
	put_path(&b, VC_BOOT_IMAGE, image);
	put_path(&b, VC_DISK, disk);
	put_path(&b, VC_DISK_BASE, base);
	put_path(&b, VC_WORK_DIR, work);
	for (int i = 0; i < the.n_shares; i++) {
		ssize_t at = rec_begin(&b, VC_SHARE);

		put_path(&b, VC_PATH, the.shares[i]);
		(void)rec_put_u64(&b, VC_RO, 0);
		rec_end(&b, (size_t)at);
	}
	fd = memfd_create("boot-raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || fd_write_all(fd, b.mem + b.head, b.n) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		die("configuration");
	buf_done(&b);
	return fd;
}

/* An empty ext4 as the image, and the overlay over it. */
static void make_disk(void)
{
	AUTO_FREE(char, cmd);

	cmd = xasprintf("PATH=$PATH:/sbin:/usr/sbin; mkdir -p '%s/work' && cd '%s' && rm -f disk.qcow2 && { test -e base.ext4 || "
			"mke2fs -q -F -t ext4 base.ext4 64M; } && qemu-img create -q -f qcow2 -F raw -b base.ext4 disk.qcow2 1G",
			the.dir, the.dir);
	if (system(cmd) != 0)
		die("make the disk");
}

static pid_t start(int control, int port, int net, int last_word, int console)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), config = make_config();
	int fds[VMM_FDS_END] = { null, console, console, control, console, config, port, net, last_word };
	pid_t pid;

	pid = fork();
	if (pid != 0) {
		(void)close(null);
		(void)close(config);
		return pid;
	}
	for (int i = 0; i < VMM_FDS_END; i++) /* out of the way first */
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 100);
	for (int i = 0; i < VMM_FDS_END; i++)
		if (dup2(fds[i], i) < 0)
			_exit(126);
	(void)execl(the.vmm, "agent-vm-vmm", (char *)NULL);
	_exit(127);
}

static void report(const uint8_t *p, size_t n, int64_t t0)
{
	static const char *const names[] = { [VMM_MSG_CAGE] = "cage", [VMM_MSG_RUNNING] = "running", [VMM_MSG_ERROR] = "error" };
	struct span s = SPAN(p, n), val;
	uint32_t type;
	uint16_t key;
	uint64_t walls;

	if (span_u32(&s, &type) < 0 || type >= ARRAY_SIZE(names) || !names[type]) {
		(void)printf("  message of unknown type\n");
		return;
	}
	(void)printf("  %-8s %8.1f ms", names[type], (double)(now_ns() - t0) / 1e6);
	while (rec_next(&s, &key, &val) > 0) {
		if (key == VMM_K_TEXT)
			(void)printf("  %.*s", (int)val.n, (const char *)val.p);
		else if (key == VMM_K_CAGE && rec_u64(val, UINT32_MAX, &walls) == 0)
			(void)printf("  walls %#x", (unsigned)walls);
	}
	(void)putchar('\n');
}

/* Waits for HELLO; milliseconds, or -1. */
static double wait_hello(int control, int port, int64_t t0)
{
	struct pollfd p[2] = { { control, POLLIN, 0 }, { port, POLLIN, 0 } };
	double took = -1;
	struct buf in;

	buf_init(&in, CTL_HEAD + CTL_DATA_MAX);
	while (took < 0 && poll(p, 2, (int)(HELLO_LIMIT_MS - (now_ns() - t0) / 1000000)) > 0) {
		uint8_t msg[VMM_MSG_MAX];
		struct ctl_frame f;
		size_t used;
		ssize_t n;

		if (p[0].revents) {
			n = recv(control, msg, sizeof(msg), 0);
			if (n > 0)
				report(msg, (size_t)n, t0);
			else
				p[0].fd = -1; /* no supervisor, and QEMU does not keep it; the port's end tells more */
		}
		if (p[1].revents) {
			n = read(port, buf_room(&in, 4096), 4096);
			if (n <= 0)
				break;
			buf_grew(&in, (size_t)n);
			n = ctl_decode(&in, CTL_SIDE_HOST, &f, &used);
			if (n < 0 || (n == 1 && f.type != CTL_HELLO))
				break;
			if (n == 1)
				took = (double)(now_ns() - t0) / 1e6;
		}
	}
	buf_done(&in);
	return took;
}

static int wait_end(pid_t pid, int *ret_status)
{
	for (int ms = 0; ms < END_LIMIT_MS; ms += 10) {
		pid_t r = waitpid(pid, ret_status, WNOHANG);

		if (r != 0)
			return r == pid ? 0 : -errno;
		(void)usleep(10000);
	}
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, ret_status, 0);
	return -ETIME;
}

static void print_console(int fd)
{
	char buf[4096];
	ssize_t n;

	(void)fflush(stdout);
	(void)lseek(fd, 0, SEEK_SET);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		(void)fd_write_all(STDOUT_FILENO, buf, (size_t)n);
}

static int one_run(void)
{
	int control[2], port[2], net[2], console, status = 0;
	AUTO_FREE(char, log);
	double took;
	int64_t t0;
	pid_t pid;
	bool ok;
	int r;

	log = xasprintf("%s/console", the.dir);
	console = open(log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (console < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, net) < 0)
		die("sockets");
	make_disk();
	t0 = now_ns();
	pid = start(control[1], port[1], net[1], port[0], console);
	if (pid < 0)
		die("fork");
	(void)close(control[1]);
	(void)close(port[1]);
	(void)close(net[1]);
	took = wait_hello(control[0], port[0], t0);
	if (took >= 0)
		(void)printf("  hello    %8.1f ms\n", took);
	else
		(void)printf("  no HELLO after %.1f s\n", (double)(now_ns() - t0) / 1e9);
	if (took >= 0)
		(void)sleep(1); /* what the guest still prints */
	/* Shut down, not only close: the supervisor holds a copy of this end. */
	(void)shutdown(port[0], SHUT_RDWR);
	t0 = now_ns();
	r = wait_end(pid, &status);
	ok = took >= 0 && r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	(void)printf("  ended    %8.1f ms after the port, %s %d%s\n", (double)(now_ns() - t0) / 1e6,
		     WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
		     r < 0 ? ", killed" : "");
	if (!the.quiet || !ok)
		print_console(console);
	(void)close(control[0]);
	(void)close(port[0]);
	(void)close(net[0]);
	(void)close(console);
	return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/boot-raw.XXXXXX";
	AUTO_FREE(char, cmd);
	uint64_t runs = 1, *number;
	int failed = 0, c;

	the.ram_mib = 512;
	the.cpus = 2;
	the.namespaces = VMM_NS_USED;
	while ((c = getopt(argc, argv, "n:m:c:Nq")) != -1) {
		number = c == 'n' ? &runs : c == 'm' ? &the.ram_mib : &the.cpus;
		if (c == 'N')
			the.namespaces = VMM_NS_NONE;
		else if (c == 'q')
			the.quiet = true;
		else if (c == '?' || str_u64(optarg, 1 << 20, number) < 0)
			return 2;
	}
	if (argc - optind < 3)
		return 2;
	the.vmm = argv[optind];
	while (the.monitor < VMM_MONITORS && strcmp(argv[optind + 1], monitor_str[the.monitor]) != 0)
		the.monitor++;
	if (the.monitor == VMM_MONITORS)
		return 2;
	the.boot = argv[optind + 2];
	the.shares = argv + optind + 3;
	the.n_shares = argc - optind - 3;
	the.dir = mkdtemp(dir);
	if (!the.dir)
		die(dir);
	for (uint64_t i = 0; i < runs; i++) {
		(void)printf("%s, run %u\n", monitor_str[the.monitor], (unsigned)i + 1);
		failed |= one_run();
	}
	cmd = xasprintf("rm -rf '%s'", the.dir);
	if (system(cmd) != 0)
		failed = 1;
	return failed;
}
