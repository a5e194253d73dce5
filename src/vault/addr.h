/* IP addresses in binary form: compared, matched, and brought to the form in which they are judged (network page 8.1). */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDR_TEXT INET6_ADDRSTRLEN

struct addr {
	sa_family_t family; /* AF_INET: the first four bytes; AF_INET6: all */
	uint8_t b[16];	    /* network order; what is not used is zero, so that memcmp() compares */
};

struct prefix {
	struct addr addr;
	uint8_t bits; /* 0..32 or 0..128 */
};

/* Text to address, without brackets, scope or port. 0 or -EINVAL. */
int addr_parse(const char *s, struct addr *ret);
const char *addr_format(const struct addr *a, char buf[ADDR_TEXT]);

/* "ADDRESS/BITS"; without "/BITS" the address alone. Host bits stay. 0 or -EINVAL. */
int prefix_parse(const char *s, struct prefix *ret);

bool addr_equal(const struct addr *a, const struct addr *b);
/* For tables; whoever chooses addresses can make them collide. */
uint32_t addr_hash(const struct addr *a);
/* Families must agree. */
bool addr_in(const struct addr *a, const struct prefix *p);
/* Is every address of @in one of @p? */
bool prefix_in(const struct prefix *in, const struct prefix *p);
/* The last address of an IPv4 network; false where there is none (IPv6, /31, /32). */
bool prefix_broadcast(const struct prefix *p, struct addr *ret);

/**
 * addr_nat64() - The IPv4 address inside an IPv6 one
 * @prefix:	Length 32, 40, 48, 56, 64 or 96; other lengths match nothing
 *
 * Source: RFC 6052 section 2.2; bits 64 to 71 are not part of the IPv4 address and must be zero.
 */
bool addr_nat64(const struct addr *a, const struct prefix *prefix, struct addr *ret);
