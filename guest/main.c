/* agent-vm-guest: PID 1 of the VM.
 *
 * Boot root. Under QEMU the kernel starts us with init=/agent-vm-guest from a small read-only ext4; under libkrun its own
 * init execs us from a virtio-fs folder, with /dev, /proc and /sys mounted. That root must hold /agent-vm-guest and the
 * empty folders
 *
 *    /dev  /proc  /sys  /newroot
 *
 * and nothing else is asked of it. /agent-vm-guest-dbs beside it runs from there later (dbwatch.h).
 *
 * Life. Mount what is missing, find the control port, say HELLO, and serve (serve.c): the CONFIG frame brings the root
 * disk, the shares and the files (setup.c), then programs run until SHUTDOWN, or until the host is gone. Then everything
 * is ended, the shares are synced, BYE is said, and the machine is reset: with -no-reboot that ends QEMU, libkrun ends
 * for it as well, while a power-off needs an ACPI that the microvm machine does not have. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "guest/dbs.h"
#include "guest/guest.h"
#include "guest/mounts.h"
#include "guest/setup.h"
#include "proto/guestcfg.h"

#define S ((int64_t)1000000000)
#define PORT_WAIT_NS (10 * S)
#define BYE_WAIT_NS (2 * S)
#define FILES_MAX 1048576 /* fs.nr_open's default: databases and watchers of sources want many */

static struct guest the_guest;

static void power_off(void)
{
	sync();
	(void)reboot(RB_AUTOBOOT);
	for (;;)
		(void)pause();
}

/* 0, 1 and 2 are open, whatever the kernel or libkrun's init gave us. */
static void std_fds(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; i <= 2 && fd >= 0; i++)
		if (i != fd && fcntl(i, F_GETFD) < 0)
			(void)dup2(fd, i);
	if (fd > 2)
		(void)close(fd);
}

static void limits(void)
{
	struct rlimit files = { FILES_MAX, FILES_MAX }, core = { 0, RLIM_INFINITY };

	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)setrlimit(RLIMIT_CORE, &core);
}

/* When the project's hook ended, which is when it left its environment. A program of the session can have changed that
 * file: what cannot be is not told. */
static void put_hook(struct buf *out)
{
	int64_t up = now_ns(), ago_s;
	struct timespec now;
	struct stat st;

	if (lstat(GC_HOOK_ENV, &st) < 0 || clock_gettime(CLOCK_REALTIME, &now) < 0 ||
	    __builtin_sub_overflow((int64_t)now.tv_sec, (int64_t)st.st_mtim.tv_sec, &ago_s) || ago_s < 0 ||
	    ago_s >= up / S)
		return;
	(void)guest_put_phase(out, "hook", up - ago_s * S - now.tv_nsec + st.st_mtim.tv_nsec, 0);
}

static int run(int64_t start, struct err *err)
{
	static const struct guest_ops ops = {
		.configure = setup_configure,
		.spawn = spawn,
		.kill = kill,
		.set_clock = setup_clock,
		.is_init = true,
	};
	struct guest_phase phases[2];
	int fd, r;

	fd = port_find(CTL_PORT_NAME, now_ns() + PORT_WAIT_NS, err);
	if (fd < 0)
		return fd;
	r = guest_init(&the_guest, &ops, fd);
	if (r < 0)
		return err_set(err, r, "control port: cannot be used: %s", strerror(-r));
	phases[0] = (struct guest_phase){ "kernel", 0, start };
	phases[1] = (struct guest_phase){ "hello", start, now_ns() - start };
	guest_hello(&the_guest, phases, ARRAY_SIZE(phases));
	r = guest_serve(&the_guest);
	if (r < 0)
		(void)err_set(err, r, "event loop: %s", strerror(-r));
	dbs_save(&the_guest);
	streams_done(&the_guest);
	return r;
}

int main(void)
{
	struct err err = { "" };
	int64_t start = now_ns();
	struct buf bye;

	if (getpid() != 1) {
		(void)fprintf(stderr, "agent-vm-guest: is the first process of a VM and does nothing elsewhere\n");
		return 2;
	}
	(void)umask(022);
	mounts_early();
	std_fds();
	log_open("guest", STDERR_FILENO, LOG_LV_INFO);
	limits();
	if (run(start, &err) < 0)
		log_error("%s", err.text);
	buf_init(&bye, CTL_TEXT_MAX);
	put_hook(&bye); /* its file is on a mount */
	mounts_end();
	guest_put(&the_guest, CTL_BYE, 0, 0, buf_span(&bye).p, bye.n);
	(void)port_drain(&the_guest.port, now_ns() + BYE_WAIT_NS);
	power_off();
	return 1;
}
