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

enum cage_guard { GUARD_RW, GUARD_SELF, GUARD_RO, HIDE };

struct cage_place {
	int root;	  /* of the cage */
	int share;	  /* the share in the cage */
	int host;	  /* the share in the host's view; for GUARD_RW alone */
	const char *path; /* of the share, for messages */
};

/* Mount one guard over @rel below the share. 0 or a negative errno with @err set. */
int cage_guard_put(const struct cage_place *g, const char *rel, enum cage_guard kind, struct err *err);

/* cage_keep.c: whether there is a guard at all; and the keeper's loop, in a process of its own after cage_view(). */
bool cage_keeper_needed(const struct vmm_config *cfg);
void cage_keep(const struct vmm_config *cfg) __attribute__((noreturn));
int cage_seccomp_keeper(struct err *err);

/**
 * cage_supervise() - The outer process: wait, end the inner one when its time has come, exit with its status
 * @keeper:	At its end when the keeper is gone, which ends the inner process; -1: there is none
 */
void cage_supervise(pid_t inner, int keeper) __attribute__((noreturn));

/* The monitor's system calls. Nothing for the supervisor is lost when it fails. */
int cage_seccomp(const struct vmm_config *cfg, struct err *err);
int cage_seccomp_supervisor(struct err *err);

static inline bool cage_is_qemu(const struct vmm_config *cfg)
{
	return cfg->monitor != VMM_KRUN;
}
