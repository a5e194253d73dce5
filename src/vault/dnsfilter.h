/* The rebinding filter (network page 7.3): each address in an answer is judged and kept only if the guest may get it. Pure. */
#pragma once

#include "vault/dnsmsg.h"
#include "vault/policy.h"

#define FILTER_CHAIN_MAX 16 /* CNAMEs; a longer chain is cut, and its addresses go */

struct filter {
	const struct policy *policy;
	const char *name;  /* of the question, as text in lower case */
	bool ipv4, ipv6;   /* families that the guest has a use for */
	/* Told of each address that stays, with a name that it is to be tied to: the question's and those of its CNAMEs. Not 0:
	 * the address goes, too. May be NULL. */
	int (*tie)(void *ctx, const struct addr *a, const char *name, uint32_t ttl_s);
	void *ctx;
	/* Results. */
	unsigned int kept, dropped;
	struct addr first_dropped;
};

/* Drops what does not answer the question and what may not be reached. Private to the caller's message: records are marked
 * by being moved out of it. AD is cleared when anything was dropped. */
void dnsfilter(struct filter *f, struct dns_msg *m);
