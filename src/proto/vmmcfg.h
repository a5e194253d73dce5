/* What the launcher tells agent-vm-vmm, and what it hears back.
 *
 * agent-vm-vmm is started with these descriptors and no others:
 *   0 /dev/null  1, 2 the console log: like the role's log a pipe that does not block; without a reader, EPIPE
 *   3 SOCK_SEQPACKET to the launcher: status messages (VMM_MSG_*) go up; its end means that the launcher is gone
 *   4 the role's log
 *   5 sealed memfd with the configuration: records VC_*
 *   6 the VM's end of the control port (SOCK_STREAM)
 *   7 the VM's end of the network device (SOCK_STREAM, 4-byte big-endian length and an Ethernet frame)
 *   8 the launcher's end of the control port, a copy: used only to write SHUTDOWN when the launcher is gone
 *
 * The configuration is the launcher's and trusted. What comes back over 3 may come from a VMM that the guest has taken
 * over, and is checked as such. */
#pragma once

#include <stdint.h>

#define VMM_FD_CONTROL 3
#define VMM_FD_LOG 4
#define VMM_FD_CONFIG 5
#define VMM_FD_PORT 6
#define VMM_FD_NET 7
#define VMM_FD_LAST_WORD 8
#define VMM_FDS_END 9

/* With a mount namespace there is one virtio-fs device of this tag, whose root holds one folder a VC_SHARE, named by its
 * index: "0", "1" ... Without one each VC_SHARE is a device of its own with the tag VMM_SHARE_TAG "." INDEX. Which it is
 * the launcher knows before (sandbox/ns.h) and says in VC_NAMESPACES. Without one
 * QEMU can have three: its machine has interrupts 16..23 for virtio; boot image, disk, console, network and entropy take
 * five. */
#define VMM_QEMU_SHARES_MAX 3
#define VMM_SHARE_TAG "agent-vm"
#define VMM_DISK_DEV_KRUN "/dev/vda" /* the root disk as the guest sees it */
#define VMM_DISK_DEV_QEMU "/dev/vdb" /* /dev/vda is the boot image */

enum vmm_monitor { VMM_KRUN, VMM_QEMU_KVM, VMM_QEMU_TCG, VMM_MONITORS };

enum vmmcfg_key {
	VC_MONITOR = 1, /* u64 enum vmm_monitor */
	VC_RAM_MIB,	/* u64 */
	VC_CPUS,	/* u64 */
	VC_LIBKRUN,	/* path; krun */
	VC_LIBKRUNFW,	/* path; both */
	VC_QEMU,	/* path; qemu */
	VC_VIRTIOFSD,	/* path; qemu */
	VC_BOOT_DIR,	/* folder with the guest programs alone: the boot root of krun */
	VC_BOOT_IMAGE,	/* the same as an ext4 image: the boot root of qemu */
	VC_DISK,	/* qcow2 overlay; its backing name is "base.ext4" in the same folder */
	VC_DISK_BASE,	/* the image's ext4 file that "base.ext4" stands for */
	VC_WORK_DIR,	/* empty folder of the session for the cage's mounts and sockets */
	VC_SHARE,	/* records VC_PATH, VC_RO, VC_GUARD_RO*, VC_GUARD_SELF*, VC_HIDE* */
	VC_PATH,	/* canonical host path */
	VC_RO,		/* u64 0 or 1 */
	VC_GUARD_RO,	/* path relative to the share: bound onto itself read-only */
	VC_GUARD_SELF,	/* path relative to the share: bound onto itself, so that it cannot be renamed or removed */
	VC_GUARD_RW,	/* path relative to the share: bound onto itself writable inside a read-only share */
	VC_HIDE,	/* path relative to the share: an empty unreadable file or an empty folder is put over it */
	VC_NAMESPACES,	/* u64 enum vmm_need */
	VC_MAC,		/* 6 bytes: the guest's Ethernet address */
	VC_LABEL,	/* session name, for process titles */
	VC_KERNEL,	/* libkrunfw's kernel as an ELF file; krun, may be missing */
};

enum vmm_need {
	VMM_NS_NONE, /* this host refuses them (found by ns_probe()) */
	VMM_NS_USED, /* use them; failing to is an error, because the shares were arranged for them */
};

/* Messages on VMM_FD_CONTROL: u32 type, then records. */
enum vmm_msg {
	VMM_MSG_CAGE = 1, /* VMM_K_CAGE: which walls stand, before the first instruction of the guest */
	VMM_MSG_RUNNING,  /* the monitor is being entered now */
	VMM_MSG_ERROR,	  /* VMM_K_TEXT: OBJECT: CAUSE; WHAT TO DO. The process ends after it */
};

enum vmm_msg_key {
	VMM_K_TEXT = 1,
	VMM_K_CAGE, /* u64 of enum cage_wall */
};

/* The walls of the cage (design section 5.5). */
enum cage_wall {
	CAGE_USER_NS = 1 << 0,
	CAGE_MOUNT_NS = 1 << 1, /* also: guards and hidden files are enforced */
	CAGE_NET_NS = 1 << 2,
	CAGE_PID_NS = 1 << 3,
	CAGE_LANDLOCK = 1 << 4,
	CAGE_SECCOMP = 1 << 5,
	CAGE_SUBIDS = 1 << 6, /* a sub-id range is mapped: chown inside works */
};

#define VMM_MSG_MAX 2048
