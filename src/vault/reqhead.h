/* The head that goes to the service over HTTP/1.1: written from parsed fields, with the secret in its slot. */
#pragma once

#include "agents/providers.h"
#include "proto/httpmsg.h"

/* Room for any message and two secrets. */
#define REQHEAD_SECRET_MAX (16 << 10)
#define REQHEAD_MAX (HTTPMSG_MAX + 2 * REQHEAD_SECRET_MAX * 4 / 3 + 1024)
/* The same for a message of @len bytes and these two: a Basic slot needs its plain form beside it for a moment. */
#define REQHEAD_ROOM(len, secret) ((len) + 1024 + 3 * ((secret)[0].n + (secret)[1].n))

/**
 * reqhead_write() - Write the head
 * @m:		Passed recheck()
 * @secret:	One for each credential of @m, in its order; printable ASCII without blanks
 * @account:	The host's account id; empty: it has none, and so has the request
 * @out:	Memory of the caller, who wipes it after sending; @size of it
 *
 * Return: bytes written; -EINVAL: a secret or the account id cannot stand in a header; -ENOBUFS. On failure @out holds
 * nothing of a secret.
 */
ssize_t reqhead_write(const struct httpmsg_request *m, const struct span *secret, struct span account, uint8_t *out,
		      size_t size);

/* Whether secrets and account id can stand in a head; reqhead_write() asks by itself. */
bool reqhead_is_plain(const struct httpmsg_request *m, const struct span *secret, struct span account);

/* The whole value of a slot's header; bytes written or -ENOBUFS. git hosts take a token as a password. */
ssize_t reqhead_slot(enum prov_slot slot, struct span secret, uint8_t *out, size_t size);
