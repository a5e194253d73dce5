/* The guest's TCP ends here (network page 3). */
#pragma once

#include "wire/flow.h"
#include "wire/ip.h"

void tcp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n);
/* Write what tcp_input() gathered; before anything else is done with that flow. */
void tcp_gather_end(struct wire *w);
/* vault's answer; @fd is taken. */
void tcp_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, int fd);
/* A connection to a published port; @fd is taken. False: no room, nothing was taken. */
bool tcp_inbound(struct wire *w, uint32_t slot, uint32_t gen, uint16_t port, uint8_t family, int fd);
/* The socket has events. */
void tcp_host(struct wire *w, struct flow *f, uint32_t events);
/* In turn, from the ready list: read, send, acknowledge. */
void tcp_serve(struct wire *w, struct flow *f);
void tcp_timer(struct wire *w, struct flow *f);
/* A frame of the batch was not begun. */
void tcp_unsent(struct wire *w, const struct tx_frame *t);
/* While flows wait for chunks: to be called now and then, for time alone makes the one that must go. */
#define TCP_PRESSURE_EACH_MS 100u
void tcp_pressure(struct wire *w);
/* Reset both sides. */
void tcp_reset(struct wire *w, struct flow *f, enum net_end how);

/* gate's messages. */
uint64_t tcp_hold(struct wire *w, struct flow *f);
int tcp_handover(struct wire *w, struct flow *f, int fd);

/* DNS over TCP: bytes towards the guest; false: no room, then the connection is reset. */
bool tcp_say(struct wire *w, struct flow *f, const struct iovec *iov, int n);
/* No more is said; FIN follows the last byte. */
void tcp_say_end(struct wire *w, struct flow *f);
