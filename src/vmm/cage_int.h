/* Between the files of the cage only. */
#pragma once

#include <sys/types.h>

#include "vmm/config.h"

/**
 * cage_view() - Build what the inner process sees of the file system and move into it
 *
 * Rewrites the paths in @cfg. In a mount namespace whose mounts are private.
 *
 * Return: 0; negative errno with @err set
 */
int cage_view(struct vmm_config *cfg, struct err *err);

/* The outer process: wait, end the inner one when its time has come, exit with its status. */
void cage_supervise(pid_t inner) __attribute__((noreturn));

/* The monitor's system calls. Nothing for the supervisor is lost when it fails. */
int cage_seccomp(const struct vmm_config *cfg, struct err *err);
int cage_seccomp_supervisor(struct err *err);

static inline bool cage_is_qemu(const struct vmm_config *cfg)
{
	return cfg->monitor != VMM_KRUN;
}
