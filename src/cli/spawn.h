/* Start roles with their descriptors and their configuration; agent-vm-vmm as proto/vmmcfg.h says. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* A sealed memfd with @config: the role can map it, nobody can change it behind its back. Descriptor or negative errno. */
int spawn_sealed(const char *name, const struct buf *config);

/**
 * spawn_role() - Start the program of a role
 * @name:	Its argv[0]
 * @fds:	fds[i] becomes its descriptor i, -1: closed; borrowed
 * @n:		How many; it has no others
 * @cgroup:	Folder of the group that it is born in, -1: ours
 *
 * The child has a session of its own (no terminal, outside of our foreground group), default signals, and an environment
 * of a fixed PATH.
 *
 * Return: 0 or a negative errno of fork(2), or of clone3(2) with a group
 */
int spawn_role(const char *path, const char *name, int *fds, int n, int cgroup, pid_t *ret);

struct spawned {
	pid_t pid;
	int control_fd; /* launcher's end of the status socket */
	int port_fd;	/* launcher's end of the control port */
	int net_fd;	/* far end of the network device, for agent-vm-wire */
	int not_in_group; /* why it is not in the group that was given: negative errno; else 0 */
};

/**
 * vmm_spawn() - Start the role
 * @path:	Of agent-vm-vmm
 * @config:	Records VC_*
 * @log_fd:	Its log, borrowed
 * @console_fd: Where the console goes, borrowed
 * @cgroup:	As of spawn_role(); if the kernel refuses it the role starts in our group
 *
 * Return: 0; negative errno with @err set
 */
int vmm_spawn(const char *path, const struct buf *config, int log_fd, int console_fd, int cgroup, struct spawned *ret,
	      struct err *err);
