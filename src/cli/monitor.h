/* Which monitor can run a guest here. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "proto/vmmcfg.h"
#include "session/root.h"

struct monitor_choice {
	enum vmm_monitor monitor;
	bool probed_now; /* KVM was asked just now and works; monitor_remember() may keep that */
	char *reason;	 /* why KVM cannot be used, NULL if it can */
};

/**
 * monitor_choose() - krun where KVM works and libkrun is there, else QEMU
 * @want:	"krun", "qemu" or NULL
 * @vmm_path:	agent-vm-vmm, which does the probe by running a virtual CPU
 * @cache_fd:	Folder of the remembered answer, -1: none
 * @have_krun, @have_qemu: NULL when that monitor's parts were found, else why not
 *
 * Return: 0; -ENODEV with @err set when none is usable, or the wanted one is not
 */
int monitor_choose(const char *want, const char *vmm_path, int cache_fd, const char *have_krun, const char *have_qemu,
		   struct monitor_choice *ret, struct err *err);

/* Keep for this boot of the host that KVM works; errors do not matter. A "no" is not kept: joining a group or loading a
 * module changes it, and a launch under emulation does not feel the few ms of the probe. */
void monitor_remember(int cache_fd);

/**
 * monitor_probe_kvm() - Start a virtual CPU, by agent-vm-vmm --probe-kvm
 *
 * Return: NULL when it ran, else the reason; caller owns
 */
char *monitor_probe_kvm(const char *vmm_path);

/**
 * monitor_emulated() - That and why a guest is emulated: the beginning of a line
 * @reason:	From monitor_probe_kvm() or monitor_choose()
 *
 * Return: caller owns
 */
char *monitor_emulated(const char *reason);

/**
 * monitor_ask() - One question to agent-vm-vmm, in a process of its own that may hang or die
 * @question:	"--version-krunfw", "--check-libkrun" or "--probe-kvm"
 * @file:	The library; NULL: none
 * @ret_good:	Whether the answer is yes
 *
 * Return: its first words, escaped; caller owns
 */
char *monitor_ask(const char *vmm_path, const char *question, const char *file, bool *ret_good);

/**
 * monitor_library_check() - Whether a library can be used, as a launch will use it
 * @cache_fd:	Folder of remembered answers, -1: none
 * @name:	Of the answer in it
 * @ret_new:	It is good and not yet remembered: monitor_library_remember()
 *
 * Loading libkrunfw takes 10 ms and more, so a good file is asked about once, until it changes.
 *
 * Return: 0; -ENOEXEC with @err set to what is wrong with the file
 */
int monitor_library_check(const char *vmm_path, const char *question, const char *path, int cache_fd, const char *name,
			  bool *ret_new, struct err *err);
void monitor_library_remember(int cache_fd, const char *name, const char *path);

/**
 * monitor_kernel() - libkrunfw's kernel as a file that libkrun reads into the guest's memory
 * @root:	The file is kept in its cache until libkrunfw or our version is another
 *
 * Without it libkrun gives the guest its kernel where the library lies in our memory: page by page, and so that no other
 * page of the guest can be a large one of the host (docs/platform/libkrun.md). Made once, in some tens of ms.
 *
 * Return: its path, caller owns; NULL when it cannot be made
 */
char *monitor_kernel(const char *vmm_path, const char *libkrunfw, const struct state_root *root);

#define MONITOR_KRUNFW_FILE "libkrunfw-probe"
#define MONITOR_LIBKRUN_FILE "libkrun-probe"

const char *monitor_name(enum vmm_monitor m); /* "krun", "qemu" */
