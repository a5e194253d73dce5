/* Ties: which names this session gave an address out for (network page 7.4). They serve rules by name, the decision to look
 * inside, and names in the log. Pure but for the heap that holds the table.
 *
 * A tie is (address, name). It lives for its TTL and 10 minutes more, and as long as a flow to the address does. New ones
 * add; at most TIES_MAX, and TIES_PER_NAME addresses a name, the least recently used one goes, those of names that are
 * looked into last. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vault/policy.h"

#define TIES_MAX 4096
#define TIES_PER_NAME 64
#define TIES_HASH 4096

struct tie {
	struct addr addr;
	char name[POLICY_NAME_MAX + 1];
	bool used, keep_long;
	uint32_t flows;
	int64_t end_ns, seen_ns;
	uint16_t next; /* in its chain; 0: none, else index + 1 */
};

struct ties {
	struct tie *v; /* [TIES_MAX] */
	uint16_t hash[TIES_HASH]; /* by address: index + 1 */
	size_t n;
	const char *names[TIES_MAX + 1]; /* what ties_names() hands out */
};

/* Ends the program without memory. */
void ties_init(struct ties *t);
void ties_done(struct ties *t);

/**
 * ties_add() - An answer for @name holds @a
 * @ttl_s:	Clamped to 60 s..1 h
 * @keep_long:	A name that is looked into
 *
 * Return: 0; -ENOSPC when every tie is held by a flow; the address must not be handed out then
 */
int ties_add(struct ties *t, const struct addr *a, const char *name, uint32_t ttl_s, bool keep_long, int64_t now);

/* The names tied to @a, NULL at the end, the newest first; valid until the next call of any function here. */
const char *const *ties_names(struct ties *t, const struct addr *a, int64_t now);

/* A flow to @a began or ended. */
void ties_flow(struct ties *t, const struct addr *a, bool begins, int64_t now);

/* Stand-ins: addresses of 198.19.0.0/16 for names that the host cannot resolve but the session may reach (7.2). */
#define STANDINS_MAX 4096

struct standins {
	char (*names)[POLICY_NAME_MAX + 1]; /* [STANDINS_MAX]; "": free */
	int64_t *seen_ns;
};

void standins_init(struct standins *s);
void standins_done(struct standins *s);
/* The name's address, new or as before. */
struct addr standins_get(struct standins *s, const char *name, int64_t now);
/* The name of an address that was given out, else NULL. */
const char *standins_name(struct standins *s, const struct addr *a, int64_t now);
