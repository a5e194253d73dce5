/* ICMP and ICMPv6: echo, errors to the guest, neighbour discovery. */
#pragma once

#include "wire/ip.h"

void icmp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n, uint8_t hops);
/* Neighbour discovery; @src as in the packet. */
void nd_input(struct wire *w, const uint8_t src[16], const uint8_t *p, size_t n, uint8_t hops);

enum icmp_cause { ICMP_PORT, ICMP_HOST, ICMP_NET, ICMP_ADMIN };
/* What the guest is told about an errno of vault's connect; ICMP_PORT stands for "refused". */
enum icmp_cause icmp_cause(int error);

/**
 * icmp_error() - Tell the guest why something that it sent did not arrive
 * @to:		Where it was sent
 * @l4:		The first 8 bytes behind the IP header, rebuilt by the caller
 *
 * At most 100 a second, the rest is counted.
 */
void icmp_error(struct wire *w, const struct peer *to, uint8_t proto, enum icmp_cause cause, const uint8_t l4[8]);

/* Ping flows: an answer of vault, the ping socket is readable, time is over. */
void echo_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, uint32_t hold_s, int fd);
void echo_serve(struct wire *w, struct flow *f);
