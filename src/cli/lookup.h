/* Names that the user gave, in rules and for a proxy, looked up as this host does it: its hosts file, mDNS, VPN modules
 * (network page 7.2, 8.4). In a process of its own, beside the other checks of a launch: the C library's look-up cannot be
 * given a time limit, nor its modules trusted to return. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/str.h"
#include "vault/addr.h"

#define LOOKUP_MS 3000
#define LOOKUP_ADDRS 32

enum lookup_state {
	LOOKUP_SILENT, /* no resolver gave an answer, or not in time */
	LOOKUP_NONE,   /* there is no such name, or it has no address */
	LOOKUP_FOUND,
};

struct lookup_name {
	const char *name; /* kept */
	enum lookup_state state;
	struct addr addrs[LOOKUP_ADDRS];
	size_t n_addrs;
};

struct lookup {
	struct lookup_name *v;
	size_t n;
	pid_t pid; /* 0: nothing is under way */
	int fd;
	int64_t until_ns;
};

#define LOOKUP_INIT { .fd = -1 }

/* The place of @name, which may be there already. Before lookup_start(); @name is kept. */
void lookup_add(struct lookup *l, const char *name);
/* Without names nothing is started. */
void lookup_start(struct lookup *l);
/* Waits until all is known, LOOKUP_MS from the start at most. */
void lookup_finish(struct lookup *l);
const struct lookup_name *lookup_find(const struct lookup *l, const char *name);
void lookup_done(struct lookup *l);

/* False for another family than IPv4 and IPv6. */
bool lookup_addr(const struct sockaddr *sa, struct addr *ret);
