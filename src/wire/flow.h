/* The flow table: slots with generations, found by the guest's port, the remote address and port. */
#pragma once

#include "wire/wire.h"

struct flow_key {
	uint8_t kind, family;
	uint16_t rport, gport;
	uint8_t raddr[16]; /* behind an IPv4 address zeros */
};

uint64_t flow_hash(const struct wire *w, const struct flow_key *k);
/* NULL when there is none. */
struct flow *flow_find(struct wire *w, const struct flow_key *k);
/* A slot with a new generation, in the hash, without a socket; NULL when there is none left. */
struct flow *flow_new(struct wire *w, const struct flow_key *k);
/* By what a message says; NULL when that flow is gone. */
struct flow *flow_by(struct wire *w, uint32_t slot, uint32_t gen);
/* Vault's answer came, or is no longer waited for: the question counts no more. */
void flow_answered(struct wire *w, struct flow *f);
/* Out of the hash: its addresses are free for a new flow at once. The slot is given back by flow_sweep(). */
void flow_end(struct wire *w, struct flow *f, enum net_end how);
/* The deferred pass. */
void flow_sweep(struct wire *w);

/* Close the socket; @reset: the peer gets an RST. */
void flow_close_fd(struct flow *f, bool reset);
/* The same for a socket that no flow took. */
void flow_reject_fd(int fd);
/* Take over a socket and watch it. */
int flow_take_fd(struct wire *w, struct flow *f, int fd);
