/* Refused requests that had a credential towards a place that is not its own (credentials page 9). They are counted by
 * host; what brings one to VIOLATIONS_TOLD within any minute is told to the launcher, once a host. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/providers.h"
#include "proto/refusal.h"

#define VIOLATIONS_TOLD 20

/* What both processes say about it, with VIOLATIONS_TOLD and the host's name. */
#define VIOLATIONS_LINE "%d requests to %s within a minute had a credential that is not for that place; they were refused"

struct violations {
	int64_t at[HOSTS][VIOLATIONS_TOLD]; /* the last ones, a ring */
	uint8_t n[HOSTS], next[HOSTS];
	bool told[HOSTS];
};

/**
 * violations_add() - A refused request
 * @login:	It had a login of ours; a closed path without one is no violation
 *
 * Return: whether the launcher is to be told now
 */
bool violations_add(struct violations *v, enum prov_host_id host, enum refusal_code code, bool login, int64_t now);
