/* Where the parts of an installation are: other roles, libraries, monitors, the guest's boot files. One search order for
 * launcher, build and doctor. */
#pragma once

#include "base/err.h"
#include "base/str.h"

/* All return 0 and an absolute path that the caller owns, or -ENOENT with @err naming what was looked for and where. A
 * path that the user gave in a variable is used or is an error; it is never passed over. */

/* Folder of the running executable, links resolved. */
int find_self_dir(char **ret, struct err *err);

/* "agent-vm-vmm" ...: next to the executable, then ../libexec/agent-vm; in a build tree src/vmm, guest. */
int find_role(const char *name, char **ret, struct err *err);

/* AGENT_VM_LIBKRUN, AGENT_VM_LIBKRUNFW; ../lib/agent-vm beside the executable; deps/node_modules of the source tree when
 * run from a build tree; the system's library folders (design section 5.2). */
int find_libkrun(char **ret, struct err *err);
int find_libkrunfw(char **ret, struct err *err);

/* qemu-system-<machine of this host> in PATH. */
int find_qemu(char **ret, struct err *err);

/* /usr/libexec/virtiofsd, /usr/lib/qemu/virtiofsd, /usr/lib/virtiofsd. */
int find_virtiofsd(char **ret, struct err *err);

/* Folder that holds only the guest programs (krun's boot root), and the same as an ext4 image (qemu's): ../lib/agent-vm/boot
 * and boot.ext4; in a build tree guest/boot and guest/boot.ext4. */
int find_boot_dir(char **ret, struct err *err);
int find_boot_image(char **ret, struct err *err);

/* An executable file named @name in PATH, absolute entries only; else in /usr/sbin and /sbin. */
int find_program(const char *name, char **ret, struct err *err);
