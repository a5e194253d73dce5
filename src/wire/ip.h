/* IPv4 and IPv6: what a packet of the guest must look like, and headers of packets to it. */
#pragma once

#include "wire/wire.h"

/* The remote end of a packet: where the guest sent it, where one to it comes from. */
struct peer {
	uint8_t family; /* enum net_family_id */
	uint8_t addr[16]; /* behind an IPv4 address zeros */
};

void ip4_input(struct wire *w, const uint8_t *p, size_t n);
/* @group: the frame went to a group address. */
void ip6_input(struct wire *w, const uint8_t *p, size_t n, bool group);
/* The payload of a packet or of a set of fragments. */
void ip_deliver(struct wire *w, const struct peer *to, uint8_t proto, const uint8_t *p, size_t n, uint8_t hops);

/* Ethernet and IP header of a packet to the guest with @n bytes behind it; returns what follows them. */
uint8_t *ip_put(struct wire *w, uint8_t *p, const struct peer *from, uint8_t proto, size_t n);
/* The same for a fragment: @off in bytes, @id the same for all of them. */
uint8_t *ip_put_frag(struct wire *w, uint8_t *p, const struct peer *from, uint8_t proto, size_t n, size_t off, bool more,
		     uint32_t id);
/* Sum of the pseudo-header. */
uint64_t ip_pseudo(const struct wire *w, const struct peer *from, uint8_t proto, size_t n);
/* Bytes of Ethernet and IP header. */
size_t ip_head(uint8_t family);
bool ip_is_gateway(const struct wire *w, const struct peer *a);
/* The gateway as the end of a packet. */
struct peer ip_gateway(const struct wire *w, uint8_t family);
/* Whether new flows of this family may be asked for; the gateway always. */
bool ip_family_on(const struct wire *w, const struct peer *to);
