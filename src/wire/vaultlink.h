/* Messages with vault and gate (proto/netmsg.h). */
#pragma once

#include "wire/wire.h"

/* Ask vault to open what the flow's addresses say. False: its socket is full and nothing was sent. */
bool vault_ask(struct wire *w, struct flow *f);
/* Send what a dead flow owes; false: not yet. */
bool vault_owed(struct wire *w, struct flow *f);
/* Tells vault, or keeps it until vault's socket has room. */
void vault_inbound_done(struct wire *w, const struct flow *f, enum net_outcome outcome, int error);
/* Send what is kept; false: not all. */
bool vault_tell_done(struct wire *w);
void vault_datagram(struct wire *w, uint32_t peer, uint16_t port, const uint8_t *p, size_t n);
bool vault_dns(struct wire *w, const struct net_dns_ask *ask);

/* Read what is there, at most a batch. */
void vault_read(struct wire *w);
void gate_read(struct wire *w);
