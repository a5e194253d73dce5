/*
 * floor - what a microVM costs when nobody adds anything: libkrun boots the kernel of libkrunfw and runs one program
 *
 *	floor ROOT-FOLDER PROGRAM [ARGUMENT…]
 *
 * AGENT_VM_LIBKRUN and AGENT_VM_LIBKRUNFW name the libraries; FLOOR_CPUS and FLOOR_MIB the size (2, 2048: what the
 * launcher gives). The launch of agent-vm is measured against this (tests/bench/run), so it has what any user of
 * libkrun must have and no more: the root folder, one network device (without one libkrun would switch TSI on, whose
 * kernel side costs time) and no vsock. A console is not needed: the program's exit status is ours, by libkrun's exit().
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NEED(call) do { \
	int need_r = (call); \
	if (need_r < 0) { \
		fprintf(stderr, "floor: %s: %s\n", #call, strerror(-need_r)); \
		return 1; \
	} \
} while (0)

static int32_t (*krun_create_ctx)(void);
static int32_t (*krun_set_vm_config)(uint32_t, uint8_t, uint32_t);
static int32_t (*krun_set_root)(uint32_t, const char *);
static int32_t (*krun_set_exec)(uint32_t, const char *, const char *const *, const char *const *);
static int32_t (*krun_add_net_unixstream)(uint32_t, const char *, int, uint8_t *, uint32_t, uint32_t);
static int32_t (*krun_disable_implicit_vsock)(uint32_t);
static int32_t (*krun_disable_implicit_console)(uint32_t);
static int32_t (*krun_split_irqchip)(uint32_t, bool);
static int32_t (*krun_start_enter)(uint32_t);

static const struct {
	const char *name;
	void *at;
} symbols[] = {
#define SYMBOL(f) { #f, &f }
	SYMBOL(krun_create_ctx), SYMBOL(krun_set_vm_config), SYMBOL(krun_set_root), SYMBOL(krun_set_exec),
	SYMBOL(krun_add_net_unixstream), SYMBOL(krun_disable_implicit_vsock), SYMBOL(krun_disable_implicit_console),
	SYMBOL(krun_split_irqchip), SYMBOL(krun_start_enter),
};

/* libkrunfw first: libkrun asks the loader for "libkrunfw.so.5", which is then loaded already, wherever its file is. */
static int libraries_load(void)
{
	const char *fw = getenv("AGENT_VM_LIBKRUNFW"), *krun = getenv("AGENT_VM_LIBKRUN");
	void *lib, *sym;
	size_t i;

	if (fw == NULL || krun == NULL) {
		fprintf(stderr, "floor: AGENT_VM_LIBKRUN, AGENT_VM_LIBKRUNFW: not set; name the files\n");
		return -EINVAL;
	}
	if (dlopen(fw, RTLD_NOW | RTLD_GLOBAL) == NULL || (lib = dlopen(krun, RTLD_NOW)) == NULL) {
		fprintf(stderr, "floor: %s\n", dlerror());
		return -ENOENT;
	}
	for (i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
		sym = dlsym(lib, symbols[i].name);
		if (sym == NULL) {
			fprintf(stderr, "floor: %s\n", dlerror());
			return -ENOSYS;
		}
		memcpy(symbols[i].at, &sym, sizeof(sym));
	}
	return 0;
}

static uint32_t setting(const char *name, uint32_t otherwise)
{
	const char *s = getenv(name);

	return s != NULL ? (uint32_t)strtoul(s, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin", NULL };
	uint8_t mac[6] = { 0x02, 0, 0, 0, 0, 1 };
	uint32_t ctx;
	int net[2], id;

	if (argc < 3) {
		fprintf(stderr, "usage: floor ROOT-FOLDER PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	if (libraries_load() < 0)
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, net) < 0) {
		perror("floor: socketpair");
		return 1;
	}
	NEED(id = krun_create_ctx());
	ctx = (uint32_t)id;
	NEED(krun_set_vm_config(ctx, (uint8_t)setting("FLOOR_CPUS", 2), setting("FLOOR_MIB", 2048)));
	NEED(krun_split_irqchip(ctx, setting("FLOOR_SPLIT", 1) != 0));
	NEED(krun_set_root(ctx, argv[1]));
	NEED(krun_disable_implicit_vsock(ctx));
	NEED(krun_disable_implicit_console(ctx));
	NEED(krun_add_net_unixstream(ctx, NULL, net[0], mac, 0, 0));
	NEED(krun_set_exec(ctx, argv[2], (const char *const *)argv + 3, env));
	NEED(krun_start_enter(ctx));
	return 1;
}
