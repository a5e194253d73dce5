/* Renewals of the host's logins (credentials page 6): who waits for one, and the launcher's part in it. */
#pragma once

#include "vault/upstream.h"

struct vault_renewed;

int renewals_init(struct vault *v);
/* NET_RENEW of gate: answered by NET_RENEWED, at once or after the renewal. */
void renewals_ask(struct vault *v, const struct net_renew *m);
/* A request found its token. 0: it may go; 1: nothing is left of it, and exchange_renewed() will tell; -1: too many
 * wait. */
int renewals_want(struct vault *v, enum prov prov, struct exchange *x);
void renewals_forget(struct vault *v, uint32_t waiter);
/* The service answered 401. */
void renewals_rejected(struct vault *v, enum ph_kind kind, uint64_t generation);
/* What the launcher answered; false: it was not asked. */
bool renewals_message(struct vault *v, const void *msg, size_t n);
int64_t renewals_tick(struct vault *v);
