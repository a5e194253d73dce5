/* The upstream HTTP proxy (network page 9.1): the request for a tunnel, and its answer. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "vault/config.h"

#define PROXY_HEAD_MAX (16 << 10)

/* CONNECT to @name, or, if that is NULL, to @a. -ENOBUFS when @b is full. */
int proxy_request(const struct vault_proxy *p, const char *name, const struct addr *a, uint16_t port, struct buf *b);

/**
 * proxy_head() - Read the head of the answer
 * @in:		What has come so far
 * @ret_len:	Bytes of the head with its blank line; what follows belongs to the tunnel
 *
 * Source: RFC 9112 sections 2.2 and 4, RFC 9110 section 9.3.6. Lines may end with LF alone; what the fields say does not
 * matter.
 *
 * Return: the status, 100..599; 0: more is needed; -EBADMSG: no HTTP, or longer than PROXY_HEAD_MAX
 */
int proxy_head(struct span in, size_t *ret_len);
