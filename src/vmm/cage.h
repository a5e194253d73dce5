/* The cage around the monitor (design section 5.5). Two steps, because virtiofsd must be started between them: enter
 * builds the namespaces and the file system view, lock takes away everything that the monitor does not need. */
#pragma once

#include "vmm/config.h"

/* Where things are inside the cage. */
#define CAGE_SHARE "/share"		/* one folder a share, "0", "1" ... */
#define CAGE_VM "/vm"			/* disk.qcow2, base.ext4, krun's kernel, sockets of the monitor */
#define CAGE_BOOT_DIR "/boot-root"	/* krun's boot root */
#define CAGE_BOOT_IMAGE "/vm/boot.ext4" /* qemu's */

/**
 * cage_enter() - Namespaces and mounts
 * @cfg:	Paths in it are rewritten to where the things are inside
 * @ret_walls:	enum cage_wall bits that stand now
 *
 * With VMM_NS_USED the calling process stays outside as a supervisor that never returns from here: it waits for the
 * inner process, ends it when the launcher is gone (VMM_FD_CONTROL at its end: SHUTDOWN over VMM_FD_LAST_WORD, 8 s, then
 * SIGKILL), and exits with its status. The inner process, pid 1 of its pid namespace, returns. With VMM_NS_NONE the
 * supervisor and the monitor are two processes as well, in the host's namespaces.
 *
 * Return: 0 in the inner process; negative errno with @err set and nothing half-done that outlives the process
 */
int cage_enter(struct vmm_config *cfg, uint32_t *ret_walls, struct err *err);

/**
 * cage_lock() - Give up what the monitor does not need: capabilities, Landlock, seccomp, rlimits
 *
 * After it nothing can be opened beyond what the monitor's table allows. Exec stays possible only for qemu.
 */
int cage_lock(const struct vmm_config *cfg, uint32_t *walls, struct err *err);

/**
 * cage_landlock_files() - In the process that becomes virtiofsd without namespaces: of all files only those that it serves
 * @dir:	The share, writable; @program and the places of libraries can be read and executed
 *
 * Sets no-new-privs.
 *
 * Return: 0, also on a kernel without Landlock (cage_lock() tells); negative errno with @err set
 */
int cage_landlock_files(const char *program, const char *dir, struct err *err);

/* In the same process, always: no set-id bits on the files that it serves, and no device nodes. 0; negative errno with
 * @err set. */
int cage_seccomp_files(struct err *err);
