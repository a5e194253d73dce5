/* One monitor behind another: what agent-vm-vmm needs from libkrun and from QEMU, and the parts that both use.
 *
 * The order in which main.c calls a monitor, and what is around it at each step:
 *
 *    check     before the cage: libraries and the kernel are loaded from the host's file system, nothing is started
 *    (cage_enter)
 *    prepare   in the cage, not locked: helpers of the monitor are started; the paths in the configuration are the
 *              cage's by now
 *    (cage_lock, VMM_MSG_CAGE, VMM_MSG_RUNNING)
 *    run       in the locked cage: the virtual machine; comes back only when it could not be entered */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/config.h"

struct vmm_monitor_ops {
	const char *name;
	int (*check)(const struct vmm_config *cfg, struct err *err);
	int (*prepare)(const struct vmm_config *cfg, struct err *err);
	int (*run)(const struct vmm_config *cfg, struct err *err);
};

extern const struct vmm_monitor_ops vmm_krun_ops, vmm_qemu_ops;

/* The guest's network card; wire answers for every other address. Locally administered, the same in every session: no
 * two guests share a network. */
#define VMM_GUEST_MTU 65520

/* kernel.c: the kernel inside libkrunfw */
struct vmm_kernel {
	const uint8_t *image; /* the library's memory, mapped as long as the process lives */
	size_t size;
	uint64_t load, entry;
};

/**
 * kernel_open() - Load libkrunfw and find the kernel in it
 * @path:	The library's file
 * @ret:	The kernel; borrowed from the library, which stays loaded under its soname, so that libkrun finds it too
 *
 * Return: 0; -ENOENT, -ENOEXEC or -EINVAL with @err set when the file is not there, is no library, or is not libkrunfw
 */
int kernel_open(const char *path, struct vmm_kernel *ret, struct err *err);

/**
 * kernel_elf() - The kernel in the form that QEMU boots: an ELF file with a PVH note
 * @ret_fd:	memfd with the file, sealed against change; caller owns
 *
 * Return: 0; -ENOEXEC with @err set when the image holds no PVH entry
 */
int kernel_elf(const struct vmm_kernel *k, int *ret_fd, struct err *err);

/* Write that file; without the note when the image has none. Negative errno when it cannot be written. */
int kernel_elf_write(const struct vmm_kernel *k, int fd);

/* The PVH entry point that the image's own note names; -ENOENT when there is none. */
int kernel_pvh_entry(const struct vmm_kernel *k, uint32_t *ret_entry);

/* krun.c: loads the library and looks for every function that we call. */
int krun_open(const char *path, struct err *err);

/* krun_cpuid.c: whether a guest with the split interrupt controller has a timer, and from then on it has. */
bool krun_timer_works(void);

/* probe.c: subcommands that the launcher and `agent-vm doctor` run as processes of their own, because what they try can
 * hang or crash. Each prints one line and returns the exit status. */
int probe_kvm(void);		       /* "usable", or why not */
int probe_krunfw(const char *path);    /* "libkrunfw ABI 5, kernel 6.12.87, ..." */
int probe_kernel(const char *path, const char *to); /* makes the ELF file of libkrunfw's kernel; nothing, or why not */
int probe_libkrun(const char *path);   /* "usable", or the file and the function that is missing */
