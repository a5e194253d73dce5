/* The table of what is lent (credentials page 4): the host's login files and the secrets of its environment, in the
 * arena, and what the scanner of answers looks for. A file is looked at each time; nothing is served across a change.
 */
#pragma once

#include "vault/source.h"
#include "vault/vault.h"

struct echo_set;

struct cred {
	struct span secret;  /* borrowed until the next look */
	struct span account; /* of the login; empty: none */
	uint64_t generation; /* of its file, or of gh's token; 0: it has none */
	enum prov prov;	     /* whose login it is; PROVS: it has no expiry */
};

/* Before the sandbox: opens the arena, if anything is lent. */
int logins_open(struct vault *v, struct err *err);
/* Afterwards. */
int logins_watch(struct vault *v);
/* A pipe of VTC_ENV has something. */
void logins_event(struct vault *v, uint16_t kind);
/* The launcher asked gh again: what it says comes from @fd, which is taken. 0; -EPROTO: its login is not lent. */
int logins_gh(struct vault *v, enum ph_kind kind, int fd);
/* GitHub answered 401 to a request with that token: the launcher is asked for another, at most once a minute. */
void logins_refused(struct vault *v, enum ph_kind kind, uint64_t generation);
/* Wipes what is past its time; when to call again, or -1. */
int64_t logins_tick(struct vault *v);

/**
 * logins_get() - The secret of a kind as it is now
 * @look:	At the host's file; false: it was looked at in this batch, for this request
 *
 * Return: 0; -EAGAIN: ask again at @ret_at (in ns), for a file is being written or a secret has not come yet; -ENOENT
 * and other errors: there is none
 */
int logins_get(struct vault *v, enum ph_kind kind, bool look, struct cred *ret, int64_t *ret_at);

/* A login whose expiry matters, looked at anew: PROV_ANTHROPIC or PROV_OPENAI. @ret_look as of source_look(). NULL:
 * that login is not lent. */
const struct source *logins_source(struct vault *v, enum prov prov, int *ret_look);
/* Whether the launcher can have it renewed. */
bool logins_renewable(const struct vault *v, enum prov prov);

/* What an answer to a request with this credential must not have in it, with a reference for the caller; NULL on lack
 * of memory. */
struct echo_set *logins_needles(struct vault *v, enum ph_kind kind);

/* Overwrites every secret in a line for the log. */
void logins_redact(char *line, size_t n);
