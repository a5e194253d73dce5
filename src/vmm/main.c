/* agent-vm-vmm: runs one virtual machine and ends with it.
 *
 * The launcher starts it with the descriptors of proto/vmmcfg.h. It reads its order from the sealed configuration, builds
 * the cage around itself (vmm/cage.h), and becomes the monitor: libkrun in this process, or QEMU by exec. The steps are
 * in vmm.h. Whatever fails before the guest runs is one VMM_MSG_ERROR and exit status 1; afterwards the exit status of
 * the process is the monitor's.
 *
 * With --probe-kvm, --version-krunfw, --check-libkrun or --kernel-elf it only does that (probe.c). */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "proto/rec.h"
#include "vmm/cage.h"
#include "vmm/vmm.h"

#define CONFIG_MAX (4 << 20)

static const struct vmm_monitor_ops *const monitors[] = {
	[VMM_KRUN] = &vmm_krun_ops,
	[VMM_QEMU_KVM] = &vmm_qemu_ops,
	[VMM_QEMU_TCG] = &vmm_qemu_ops,
};
static_assert(ARRAY_SIZE(monitors) == VMM_MONITORS, "monitors[] is incomplete");

static void send_msg(uint32_t type, uint16_t key, const char *text, uint64_t number)
{
	struct buf b;

	buf_init(&b, VMM_MSG_MAX);
	(void)buf_put_u32(&b, type);
	if (key)
		(void)(text ? rec_put_str(&b, key, text) : rec_put_u64(&b, key, number));
	/* If the launcher is gone nobody is left to hear it. */
	(void)fd_send(VMM_FD_CONTROL, b.mem + b.head, b.n, NULL, 0);
	buf_done(&b);
}

/* What a launcher of another build, or a person at a shell, gets wrong. */
static int check_fds(struct err *err)
{
	static const int streams[] = { VMM_FD_PORT, VMM_FD_NET, VMM_FD_LAST_WORD };

	for (int fd = 0; fd < VMM_FDS_END; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			return err_set(err, -EBADF, "descriptor %d is not open", fd);
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++)
		if (!fd_is_socket(streams[i], SOCK_STREAM))
			return err_set(err, -EBADF, "descriptor %d is no stream socket", streams[i]);
	if (!fd_is_sealed(VMM_FD_CONFIG))
		return err_set(err, -EBADF, "descriptor %d is no sealed memory", VMM_FD_CONFIG);
	if (close_range(VMM_FDS_END, ~0u, 0) < 0)
		return err_set(err, -errno, "close what was inherited: %s", strerror(errno));
	for (int fd = VMM_FD_CONTROL; fd < VMM_FDS_END; fd++) {
		int r = fd_cloexec(fd, true);

		if (r < 0)
			return err_set(err, r, "descriptor %d: %s", fd, strerror(-r));
	}
	return 0;
}

static int read_config(struct vmm_config *ret, struct err *err)
{
	struct span config;
	int r;

	r = fd_map_config(VMM_FD_CONFIG, "the VM", CONFIG_MAX, &config, err);
	if (r < 0)
		return r;
	r = vmm_config_parse(config, ret, err);
	(void)munmap((void *)(uintptr_t)config.p, config.n);
	return r;
}

/* Without a mount namespace no monitor can keep the guest from writing to a read-only share or from reading a hidden
 * file. The launcher knows that and does not order it; if it does, refuse. (Guards may be ordered: that they do not hold
 * is what the missing CAGE_MOUNT_NS says.) */
static int check_shares(const struct vmm_config *cfg, struct err *err)
{
	if (cfg->namespaces == VMM_NS_USED)
		return 0;
	for (size_t i = 0; i < cfg->n_shares; i++) {
		AUTO_FREE(char, shown);

		if (!cfg->shares[i].ro && cfg->shares[i].hide.n == 0)
			continue;
		shown = str_escape(cfg->shares[i].path, strlen(cfg->shares[i].path));
		return err_set(err, -EPERM, "%s: cannot be made %s for the guest without user namespaces; agent-vm doctor says "
			       "how to allow them", shown, cfg->shares[i].ro ? "read-only" : "partly hidden");
	}
	return 0;
}

static double ms(int64_t from, int64_t to)
{
	return (double)(to - from) / 1e6;
}

/* Returns only on failure. */
static int run(struct err *err)
{
	const struct vmm_monitor_ops *ops;
	struct vmm_config cfg;
	uint32_t walls = 0;
	int64_t t0 = now_ns(), t1, t2, t3;
	int r;

	r = read_config(&cfg, err);
	if (r < 0)
		return r;
	r = check_shares(&cfg, err);
	if (r < 0)
		return r;
	ops = monitors[cfg.monitor];
	r = ops->check(&cfg, err);
	if (r < 0)
		return r;
	t1 = now_ns();
	r = cage_enter(&cfg, &walls, err);
	if (r < 0)
		return r;
	/* The copy of the launcher's end is the supervisor's; the process that the guest could take over has none. */
	(void)close(VMM_FD_LAST_WORD);
	t2 = now_ns();
	r = ops->prepare(&cfg, err);
	if (r < 0)
		return r;
	t3 = now_ns();
	r = cage_lock(&cfg, &walls, err);
	if (r < 0)
		return r;
	send_msg(VMM_MSG_CAGE, VMM_K_CAGE, NULL, walls);
	log_info("%s of %s: check %.1f ms, cage %.1f ms, prepare %.1f ms, lock %.1f ms, walls %#x", ops->name, cfg.label,
		 ms(t0, t1), ms(t1, t2), ms(t2, t3), ms(t3, now_ns()), walls);
	send_msg(VMM_MSG_RUNNING, 0, NULL, 0);
	return ops->run(&cfg, err);
}

static int question(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--probe-kvm") == 0)
		return probe_kvm();
	if (argc == 3 && strcmp(argv[1], "--version-krunfw") == 0)
		return probe_krunfw(argv[2]);
	if (argc == 4 && strcmp(argv[1], "--kernel-elf") == 0)
		return probe_kernel(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "--check-libkrun") == 0)
		return probe_libkrun(argv[2]);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("agent-vm-vmm " AGENT_VM_VERSION);
		return 0;
	}
	(void)dprintf(STDERR_FILENO, "agent-vm-vmm: started by agent-vm; by hand only with --probe-kvm, --version-krunfw FILE, "
				     "--check-libkrun FILE, --kernel-elf FILE TO or --version\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct err err = { 0 };

	if (argc > 1 || !fd_is_socket(VMM_FD_CONTROL, SOCK_SEQPACKET))
		return question(argc, argv);
	if (check_fds(&err) == 0) {
		log_open("vmm", VMM_FD_LOG, LOG_LV_INFO);
		/* Console and log are pipes to the launcher: without it what is written there is dropped, and all go on
		 * until the guest has synced. Also for what is started from here. */
		(void)signal(SIGPIPE, SIG_IGN);
		(void)run(&err);
		log_error("%s", err.text);
	}
	send_msg(VMM_MSG_ERROR, VMM_K_TEXT, err.text, 0);
	return 1;
}
