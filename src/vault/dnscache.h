/* Answers of resolvers, as they came and were checked (network page 7.1). What the filter drops is decided anew each time.
 * The heap holds at most DNSCACHE_MAX answers and DNSCACHE_BYTES; the least recently used goes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "vault/dnsmsg.h"

#define DNSCACHE_MAX 4096
#define DNSCACHE_BYTES (4 << 20)
#define DNSCACHE_HASH 4096

struct dns_key {
	struct dns_name name; /* lower case */
	uint16_t type;
	uint8_t flags; /* DO, CD, RD */
};

struct dnscache_entry;

struct dnscache {
	struct dnscache_entry *hash[DNSCACHE_HASH], *newest, *oldest;
	size_t n, bytes;
};

bool dns_key_equal(const struct dns_key *a, const struct dns_key *b);

/* How long an answer may be kept, in seconds (RFC 2308 section 5 for those without records): 1 s to 1 h; empty and NXDOMAIN
 * at most 60 s; failures 2 s. */
uint32_t dnscache_ttl(const struct dns_msg *m);

/* Nothing is kept when memory is out. @server: which resolver it came from, for the audit. */
void dnscache_put(struct dnscache *c, const struct dns_key *key, struct span answer, uint32_t ttl_s, uint8_t server, int64_t now);
/* The answer, valid until the next call; @ret_age_s: what to take off its TTLs. */
bool dnscache_get(struct dnscache *c, const struct dns_key *key, int64_t now, struct span *ret, uint32_t *ret_age_s,
		  uint8_t *ret_server);
void dnscache_clear(struct dnscache *c);
