/* UDP: flows with a connected socket each, DNS to the gateway, datagrams of published ports. */
#pragma once

#include "wire/flow.h"
#include "wire/ip.h"

void udp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n);
/* vault's answer; @fd is taken. */
void udp_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, uint32_t hold_s, int fd);
void udp_serve(struct wire *w, struct flow *f);
void udp_timer(struct wire *w, struct flow *f);
/* A datagram of a published port's peer; link_room() was asked for it. */
void udp_published(struct wire *w, uint32_t peer, uint16_t port, const uint8_t *p, size_t n);
/* A datagram to the guest; @p stands on the stage with UDP_LEN bytes of room before it, and link_room() was asked. */
void udp_send(struct wire *w, const struct peer *from, uint16_t rport, uint16_t gport, uint8_t *p, size_t n);
/* An IP payload on the stage, in fragments if it is larger than the MTU. */
void ip_send_staged(struct wire *w, const struct peer *from, uint8_t proto, const uint8_t *p, size_t n);
