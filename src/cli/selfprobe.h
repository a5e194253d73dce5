/* The self-probe (network page 9.4): before the agent starts, the guest tries what must be refused and what must work.
 *
 * What must come of it is made here from the options alone; vault's policy code is not asked, for it is what is probed. The
 * guest is told what to try with its configuration (proto/guestcfg.h, GC_PROBE), tries all at once while it sets itself up,
 * and reports with READY. A target that an option opens is left out. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/network.h"

#define SELFPROBE_MAX 16
#define SELFPROBE_LISTENERS 2 /* of an own address, and of the loopback that the alias leads to */

enum selfprobe_want {
	WANT_REFUSED, /* by the policy: connection refused, at once */
	WANT_NOTHING, /* any error, but no silence */
	WANT_VALUE,   /* the session's random value comes back */
	WANT_TXT,     /* a DNS answer with that value */
	WANT_PRIVATE, /* a DNS answer with 10.255.255.1 and nothing else */
	WANT_EMPTY,   /* a DNS answer without records */
};

struct selfprobe_target {
	enum selfprobe_want want;
	bool tcp;
	struct addr addr;
	uint16_t port;
	const char *name; /* of a DNS question; NULL: none */
	uint16_t type;
};

struct selfprobe_listener {
	int fd; /* -1: none */
	struct addr addr;
	uint16_t port;
	bool reached; /* by a process of this host, as vault is */
};

struct selfprobe {
	const struct network_plan *plan; /* kept */
	bool ipv4;
	unsigned limit_s;
	struct selfprobe_listener listen[SELFPROBE_LISTENERS];
	struct selfprobe_target v[SELFPROBE_MAX];
	size_t n, n_results;
	struct err wrong; /* the first that is */
};

#define SELFPROBE_INIT { .listen = { { .fd = -1 }, { .fd = -1 } } }

/**
 * selfprobe_open() - Open what is to be found closed, and list the targets
 * @plan:	Its probe is the session's value; kept
 * @emulated:	Longer time limit
 *
 * Return: 0; negative errno with @err set
 */
int selfprobe_open(struct selfprobe *p, const struct network_plan *plan, bool emulated, struct err *err);
void selfprobe_close(struct selfprobe *p);

/* What the guest is to do; after the network was started. -ENOBUFS. */
int selfprobe_orders(struct selfprobe *p, const struct network *net, struct buf *out);

/* Listener @i has a connection. */
void selfprobe_accept(struct selfprobe *p, size_t i);

/* One record CTL_K_PROBE of the guest, in the order of the targets. -EBADMSG. */
int selfprobe_result(struct selfprobe *p, struct span val);

/* After the last: 0, or -EPERM with @err saying what was reachable and must not be, or the reverse. */
int selfprobe_judge(struct selfprobe *p, struct err *err);

/* The session's random value, into @plan. */
int selfprobe_value(struct network_plan *plan, struct err *err);
