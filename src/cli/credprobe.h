/* The self-probe of the logins (credentials page 5.7): before the agent starts, requests that must be refused are made
 * from the guest, one of each kind for every provider that is lent. agent-vm-probe makes them (proto/probecfg.h); the
 * launcher gives it connections of the guest's. Nothing of it leaves the host: what must be refused is answered by
 * gate. */
#pragma once

#include "cli/creds.h"
#include "cli/network.h"
#include "proto/probecfg.h"

#define CREDPROBE_S 20
#define CREDPROBE_EMULATED_S 120

struct credprobe {
	char *path; /* of agent-vm-probe, kept by the plan */
	const struct creds *creds;
	int log_fd;		    /* borrowed */
	int fd;			    /* its control socket; -1 */
	pid_t pid;		    /* -1 */
	int links[PROBE_HOSTS_MAX]; /* our ends of its connections; whoever takes one sets it to -1 */
	size_t n_links;
};

#define CREDPROBE_INIT                            \
	{                                         \
		.log_fd = -1, .fd = -1, .pid = -1 \
	}

/* Its orders; how many hosts, or -ENOBUFS. */
int credprobe_orders(const struct creds *c, const struct network *n, struct buf *out);

/* Is there anything to try on this network? */
bool credprobe_wanted(const struct creds *c, const struct network *n);

int credprobe_start(struct credprobe *p, const struct network *n, struct err *err);

/**
 * credprobe_result() - Its control socket is readable
 *
 * Return: 1 when all was as it must be; 0: nothing yet; negative errno with @err set
 */
int credprobe_result(struct credprobe *p, struct err *err);
void credprobe_end(struct credprobe *p);
