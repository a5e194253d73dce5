/* The head that goes to the service over HTTP/1.1: written from parsed fields, with the secret in its slot. */
#pragma once

#include "proto/httpmsg.h"

/* Room for any message and two secrets. */
#define REQHEAD_SECRET_MAX (16 << 10)
#define REQHEAD_MAX (HTTPMSG_MAX + 2 * REQHEAD_SECRET_MAX * 4 / 3 + 1024)

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
