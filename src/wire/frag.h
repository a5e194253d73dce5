/* Fragments of the guest: 16 sets of 64 KiB, 2 s. Any overlap, a total above 65,535, or a first fragment without the whole
 * UDP or ICMP header throws the set away (RFC 5722, RFC 1858). TCP is not taken in fragments. */
#pragma once

#include "wire/ip.h"

void frag_input(struct wire *w, const struct peer *to, uint8_t proto, uint32_t id, size_t off, bool more, const uint8_t *p,
		size_t n, uint8_t hops);
