/* Answers that held a login which was sent, and were overwritten (credentials page 8.2): counted by host and template
 * of the path, for one line after the session. vault tells the launcher a place when its count has doubled since, so
 * that neither guest nor service decides how much is said, and all of it at the end. Pure; both sides use it. */
#pragma once

#include <stddef.h>

#include "agents/providers.h"
#include "proto/vaultcfg.h"

/* Before echoes_text(), in every log. */
#define ECHOES_LINE "answers held a login of this host, which was overwritten: "
#define ECHOES_MAX 8 /* places; the last is all others together */

struct echoes {
	struct vault_echo v[ECHOES_MAX];
	uint32_t told[ECHOES_MAX];
	size_t n;
};

/**
 * echoes_add() - An answer was overwritten
 * @path:	As pathtpl_write() leaves it
 *
 * Return: what the launcher is to be told now, counted as told; NULL: nothing
 */
const struct vault_echo *echoes_add(struct echoes *e, enum prov_host_id host, const char path[NET_NOTE_PATH],
				    size_t hits);

/* At the end: one that was counted on since it was told; NULL: no more. */
const struct vault_echo *echoes_rest(struct echoes *e);

/* In the launcher: a message with a place's count so far. 0, or -EBADMSG: vault cannot have meant it. */
int echoes_take(struct echoes *e, const void *msg, size_t n);

/* "api.anthropic.com/v1/models (3 times), elsewhere (1 time)"; caller owns. NULL: none. */
char *echoes_text(const struct echoes *e);
