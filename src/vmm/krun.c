/* libkrun as the monitor: the virtual machine lives in this process.
 *
 * The library is loaded before the cage, which has no /usr, and so is libkrunfw where there is no file of its kernel:
 * libkrun asks the loader for it by soname when the guest starts, and a library that is loaded already answers to its
 * soname whatever its path (kernel.c checks that). Every function that we call is looked up first, because libkrun has no call that tells its version.
 *
 * What the guest sees, and why it is arranged so (libkrun 1.17):
 *
 *   kernel     that of libkrunfw, from a file: libkrun reads it into the guest's memory. From the library itself it would
 *              be a mapping of the library's pages amid the guest's memory, whose rest then lies so that KVM can use no
 *              large page for it: 24000 page faults of the guest until it is up instead of 50
 *   root       a virtio-fs of the boot folder, by the name under which libkrun's kernel looks for it. krun_set_root()
 *              would give it a DAX window too, for which the guest's kernel makes 8 MiB of page structures
 *   init       our program: what krun_set_exec() takes as environment stands on the kernel's command line, where the
 *              last init= counts. Should that change, /init.krun, which libkrun adds to the root, is pid 1, mounts
 *              what we mount as well, and with KRUN_INIT_PID1=1 execs our program in its own place
 *   hvc0       the first console device, of the "default" kind with no descriptors. A port of the other kind gets no
 *              console in the guest unless it is a terminal on the host. Its lines come out through libkrun's log, at
 *              level error with the target init_or_kernel, to descriptor 2
 *   vport1p0   the second console device: one port, the control port, found by its name
 *   eth0       frames with a 4-byte length. Of the offloads only those that allow the guest's driver to make large
 *              receive buffers are on: nothing has to segment or checksum for the guest, but without GUEST_TSO the driver
 *              would drop every frame above 1500 bytes, whatever its MTU
 *   no vsock   the implicit one would carry TSI, which opens the guest's sockets in this process
 *
 * krun_start_enter() does not come back once the guest runs: when it resets (reboot=k: keyboard controller), the library
 * flushes the consoles and calls _exit(), with 0 when nobody set another status. */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/ctl.h"
#include "vmm/cage.h"
#include "vmm/vmm.h"

/* libkrun.h 1.17 */
#define KRUN_LOG_LEVEL_ERROR 1
#define KRUN_LOG_STYLE_NEVER 2
#define KRUN_LOG_OPTION_NO_ENV 1 /* RUST_LOG of the user is not for us */
#define KRUN_KERNEL_FORMAT_ELF 1
#define KRUN_DISK_FORMAT_QCOW2 1
#define KRUN_SYNC_NONE 0 /* the disk is thrown away with the session */
/* CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6 of virtio-net. The guest's bits make its receive buffers
 * large; the host's let containers in the guest send super-segments. */
#define KRUN_NET_FEATURES (1u << 0 | 1u << 1 | 1u << 7 | 1u << 8 | 1u << 11 | 1u << 12)
#define KRUN_FEATURE_NET 0
#define KRUN_FEATURE_BLK 1

/* What libkrun gives the kernel of libkrunfw; loop devices are made when one is wanted (/dev/loop-control); no test of a
 * random generator that nobody uses, no driver of a clock that has no interrupt (the host sets the time): 10 % of a boot. */
#define CMDLINE                                                                                                    \
	"reboot=k panic=-1 panic_print=0 nomodule console=hvc0 rootfstype=virtiofs rw quiet no-kvmapf max_loop=0 " \
	"initcall_blacklist=jent_mod_init,cmos_init"
#define ROOT_TAG "/dev/root"
#define GUEST_PROGRAM "/agent-vm-guest"

static struct {
	int32_t (*init_log)(int fd, uint32_t level, uint32_t style, uint32_t options);
	int32_t (*has_feature)(uint64_t feature);
	int32_t (*create_ctx)(void);
	int32_t (*set_kernel)(uint32_t ctx, const char *path, uint32_t format, const char *initrd, const char *cmdline);
	int32_t (*set_vm_config)(uint32_t ctx, uint8_t cpus, uint32_t ram_mib);
	int32_t (*split_irqchip)(uint32_t ctx, bool on);
	int32_t (*add_disk3)(uint32_t ctx, const char *id, const char *path, uint32_t format, bool read_only,
			     bool direct_io, uint32_t sync_mode);
	int32_t (*add_virtiofs)(uint32_t ctx, const char *tag, const char *dir);
	int32_t (*add_net_unixstream)(uint32_t ctx, const char *path, int fd, const uint8_t *mac, uint32_t features,
				      uint32_t flags);
	int32_t (*disable_implicit_vsock)(uint32_t ctx);
	int32_t (*disable_implicit_console)(uint32_t ctx);
	int32_t (*add_virtio_console_default)(uint32_t ctx, int in, int out, int err);
	int32_t (*add_virtio_console_multiport)(uint32_t ctx);
	int32_t (*add_console_port_inout)(uint32_t ctx, uint32_t console, const char *name, int in, int out);
	int32_t (*set_workdir)(uint32_t ctx, const char *dir);
	int32_t (*set_exec)(uint32_t ctx, const char *path, const char *const argv[], const char *const envp[]);
	int32_t (*start_enter)(uint32_t ctx);
} krun;

static const struct {
	void *at;
	const char *name;
} symbols[] = {
	{ &krun.init_log, "krun_init_log" },
	{ &krun.has_feature, "krun_has_feature" },
	{ &krun.create_ctx, "krun_create_ctx" },
	{ &krun.set_kernel, "krun_set_kernel" },
	{ &krun.set_vm_config, "krun_set_vm_config" },
	{ &krun.split_irqchip, "krun_split_irqchip" },
	{ &krun.add_disk3, "krun_add_disk3" },
	{ &krun.add_virtiofs, "krun_add_virtiofs" },
	{ &krun.add_net_unixstream, "krun_add_net_unixstream" },
	{ &krun.disable_implicit_vsock, "krun_disable_implicit_vsock" },
	{ &krun.disable_implicit_console, "krun_disable_implicit_console" },
	{ &krun.add_virtio_console_default, "krun_add_virtio_console_default" },
	{ &krun.add_virtio_console_multiport, "krun_add_virtio_console_multiport" },
	{ &krun.add_console_port_inout, "krun_add_console_port_inout" },
	{ &krun.set_workdir, "krun_set_workdir" },
	{ &krun.set_exec, "krun_set_exec" },
	{ &krun.start_enter, "krun_start_enter" },
};

int krun_open(const char *path, struct err *err)
{
	static const struct {
		uint64_t feature;
		const char *name;
	} features[] = { { KRUN_FEATURE_NET, "network" }, { KRUN_FEATURE_BLK, "disk" } };
	AUTO_FREE(char, shown);
	struct stat st;
	void *lib;

	shown = str_escape(path, strlen(path));
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s; libkrun is looked for there", shown, strerror(errno));
	lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		AUTO_FREE(char, text);
		const char *e = dlerror();

		text = str_escape(e, strlen(e));
		return err_set(err, -ENOEXEC, "%s: not a library that can be loaded; %s", shown, text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *sym = dlsym(lib, symbols[i].name);

		if (!sym)
			return err_set(err, -EINVAL, "%s: no function %s: not libkrun, or older than 1.17; install libkrun "
				       "1.17", shown, symbols[i].name);
		memcpy(symbols[i].at, &sym, sizeof(sym));
	}
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (krun.has_feature(features[i].feature) != 1)
			return err_set(err, -EINVAL, "%s: built without %s devices; install libkrun 1.17 with NET=1 and BLK=1",
				       shown, features[i].name);
	return 0;
}

static bool split; /* interrupt controller */

static int krun_check(const struct vmm_config *cfg, struct err *err)
{
	struct vmm_kernel k;
	int r;

	if (access("/dev/kvm", R_OK | W_OK) < 0)
		return err_set(err, -errno, "/dev/kvm: %s; agent-vm doctor says what to do", strerror(errno));
	split = krun_timer_works();
	r = cfg->kernel ? 0 : kernel_open(cfg->libkrunfw, &k, err);
	if (r < 0)
		return r;
	return krun_open(cfg->libkrun, err);
}

static int failed(const char *call, int32_t r, struct err *err)
{
	return err_set(err, r < 0 ? r : -EIO, "libkrun: %s: %s; the console log says more", call, strerror(r < 0 ? -r : EIO));
}

/* Calls one function of the library, whose result is negative on failure. */
#define TRY(fn, ...)                                             \
	do {                                                     \
		int32_t try_ = krun.fn(__VA_ARGS__);             \
		if (try_ < 0)                                    \
			return failed("krun_" #fn, try_, err);   \
	} while (0)

static int add_shares(uint32_t ctx, const struct vmm_config *cfg, struct err *err)
{
	if (cfg->namespaces == VMM_NS_USED) {
		TRY(add_virtiofs, ctx, VMM_SHARE_TAG, CAGE_SHARE);
		return 0;
	}
	for (size_t i = 0; i < cfg->n_shares; i++) {
		AUTO_FREE(char, tag);

		tag = xasprintf(VMM_SHARE_TAG ".%zu", i);
		TRY(add_virtiofs, ctx, tag, cfg->shares[i].path);
	}
	return 0;
}

/* Everything but entering it. */
static int configure(const struct vmm_config *cfg, uint32_t *ret_ctx, struct err *err)
{
	static const char *const argv[] = { NULL };
	/* Never NULL: libkrun would put this process's environment on the kernel's command line. */
	static const char *const envp[] = { "KRUN_INIT_PID1=1", "init=" GUEST_PROGRAM, NULL };
	uint32_t ctx, console;
	int32_t n;
	int r;

	TRY(init_log, STDERR_FILENO, KRUN_LOG_LEVEL_ERROR, KRUN_LOG_STYLE_NEVER, KRUN_LOG_OPTION_NO_ENV);
	n = krun.create_ctx();
	if (n < 0)
		return failed("krun_create_ctx", n, err);
	ctx = (uint32_t)n;
	if (cfg->kernel)
		TRY(set_kernel, ctx, cfg->kernel, KRUN_KERNEL_FORMAT_ELF, NULL, CMDLINE);
	TRY(set_vm_config, ctx, (uint8_t)cfg->cpus, cfg->ram_mib);
	/* Otherwise eleven interrupts, too few for more than a few shares without namespaces. */
	TRY(split_irqchip, ctx, split);
	TRY(add_virtiofs, ctx, ROOT_TAG, cfg->boot_dir);
	TRY(add_disk3, ctx, "root", cfg->disk, KRUN_DISK_FORMAT_QCOW2, false, false, KRUN_SYNC_NONE);
	r = add_shares(ctx, cfg, err);
	if (r < 0)
		return r;
	/* libkrun waits for the rest of a frame with plain recv(). */
	r = fd_nonblock(VMM_FD_NET, false);
	if (r < 0)
		return err_set(err, r, "socket of the network: %s", strerror(-r));
	TRY(add_net_unixstream, ctx, NULL, VMM_FD_NET, cfg->mac, KRUN_NET_FEATURES, 0);
	TRY(disable_implicit_vsock, ctx);
	TRY(disable_implicit_console, ctx);
	TRY(add_virtio_console_default, ctx, -1, -1, -1);
	n = krun.add_virtio_console_multiport(ctx);
	if (n < 0)
		return failed("krun_add_virtio_console_multiport", n, err);
	console = (uint32_t)n;
	TRY(add_console_port_inout, ctx, console, CTL_PORT_NAME, VMM_FD_PORT, VMM_FD_PORT);
	TRY(set_workdir, ctx, "/");
	TRY(set_exec, ctx, GUEST_PROGRAM, argv, envp);
	*ret_ctx = ctx;
	return 0;
}

static uint32_t the_ctx;

static int krun_prepare(const struct vmm_config *cfg, struct err *err)
{
	/* The library's prctl and panics read these; nothing of the host's environment is for it. */
	if (clearenv() != 0)
		return err_set(err, -ENOMEM, "clear the environment: %s", strerror(ENOMEM));
	return configure(cfg, &the_ctx, err);
}

static int krun_run(const struct vmm_config *cfg, struct err *err)
{
	return failed("krun_start_enter", krun.start_enter(the_ctx), err);
}

const struct vmm_monitor_ops vmm_krun_ops = {
	.name = "krun",
	.check = krun_check,
	.prepare = krun_prepare,
	.run = krun_run,
};
