/* The half of TCP that speaks: segments, timers and what is sent again (tcpout.c), for tcp.c, which listens. */
#pragma once

#include "wire/tcp.h"

#define WND_SMALL (256u << 10)
#define RING_MAX (1u << 20)
#define RST_AFTER_MS 1000u
#define DRAINED_BATCHES 8
#define PINGPONG 3
#define PINGPONG_OFF 255

static inline struct peer tcp_peer(const struct flow *f)
{
	struct peer p = { .family = f->family };

	memcpy(p.addr, f->raddr, 16);
	return p;
}

/* Numbers that were sent and are not acknowledged. */
static inline uint32_t tcp_in_flight(const struct flow *f)
{
	return f->snd_max - f->snd_una;
}

/* Bytes that would be offered now. */
uint32_t tcp_window(const struct wire *w, const struct flow *f);
/* An RST that answers a segment which belongs to no flow (RFC 9293 section 3.5.2), or ends a refused SYN. */
void tcp_rst_raw(struct wire *w, const struct peer *from, uint16_t rport, uint16_t gport, uint32_t seq, uint32_t ack,
		 uint8_t flags);
/* Set an open flow's timer to when it needs to be looked at next. */
void tcp_open_due(struct wire *w, struct flow *f);
/* Send again from the first byte that is not acknowledged. */
void tcp_recover(struct wire *w, struct flow *f);
/* In tcp.c: the guest is told that its SYN leads nowhere. */
void tcp_open_fail(struct wire *w, struct flow *f, uint32_t outcome, int error);
