/* What the guest has open (network page 9.1): a record a flow, for the audit log and for ties; the socket is wire's. Bound:
 * FLOWS_MAX, which wire never reaches. A flow that is still open after a minute has a line then, and each has one at its end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/netmsg.h"
#include "vault/addr.h"
#include "vault/policy.h"

struct vault;

struct flow {
	enum policy_proto proto;
	uint8_t verdict, step;
	bool proxied, probe, inspected, decided; /* decided: gate steps aside, or inspects */
	int error;				 /* of what was connected ahead */
	uint16_t port;
	uint32_t slot, generation; /* wire's name of it */
	struct addr dst;
	int64_t start;
};

void flows_init(struct vault *v);

/* @return: NULL if wire has none of that name; valid until flow_end(). */
struct flow *flow_find(struct vault *v, uint32_t slot, uint32_t generation);

/* @what is copied. False: there are too many, and the session ends. */
bool flow_add(struct vault *v, const struct flow *what);

/* The line of its end, and it is gone. @e: what wire counted; NULL: it never got to wire. */
void flow_end(struct vault *v, struct flow *f, const struct net_ended *e);

/* A line for what was allowed and came to nothing; @end: what the log says of it. */
void flow_failed(struct vault *v, const struct flow *what, const char *end);

/* The lines that are due; when to call again, or -1. */
int64_t flows_tick(struct vault *v);

/* A line for each that the end of the session ends. */
void flows_end(struct vault *v);
