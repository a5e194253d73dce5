/* Start agent-vm-vmm with its configuration and its descriptors (proto/vmmcfg.h). */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct spawned {
	pid_t pid;
	int control_fd; /* launcher's end of the status socket */
	int port_fd;	/* launcher's end of the control port */
	int net_fd;	/* far end of the network device; nothing reads it yet, but a closed peer would be an error to a monitor */
};

/**
 * vmm_spawn() - Start the role
 * @path:	Of agent-vm-vmm
 * @config:	Records VC_*
 * @log_fd:	Its log, borrowed
 * @console_fd: Where the console goes, borrowed
 *
 * The child has a session of its own (no terminal, outside of our foreground group), only the descriptors of the table,
 * default signals, and an environment of a fixed PATH.
 *
 * Return: 0; negative errno with @err set
 */
int vmm_spawn(const char *path, const struct buf *config, int log_fd, int console_fd, struct spawned *ret,
	      struct err *err);
