/* Where secrets lie (credentials page 4.4): one arena of the process, locked into memory, left out of core dumps, empty
 * in a forked child, between two pages that cannot be touched, and wiped when a piece is given back. A secret is never
 * a string and never near printf. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define SECRET_ARENA (3 << 20)	    /* two host files at their largest and all secrets */
#define SECRET_ARENA_MIN (96 << 10) /* below: a host that lets nothing be locked */
#define SECRET_MIN 16		    /* shorter ones cannot be looked for in answers */
#define SECRET_MAX (16 << 10)	    /* an access token; what a header may hold with room */

/**
 * secret_arena_open() - Make the arena; once, before the first secret
 * @size:	Wanted; half of it and so on down to SECRET_ARENA_MIN where the host allows less to be locked
 *
 * Return: 0; -ENOMEM or -EPERM with @err set
 */
int secret_arena_open(size_t size, struct err *err);

/* @n bytes, zeroed; NULL when the arena is full or not open. */
void *secret_alloc(size_t n);
/* Wipes; NULL is fine. */
void secret_free(void *p);

/**
 * secret_read_file() - Read a regular file whole into the arena, and nowhere else
 * @ret:	With a NUL behind it, for secret_free()
 *
 * Return: 0; -EINVAL: no regular file; -EFBIG above @max; -EAGAIN: it is just being written; -ENOMEM; -errno
 */
int secret_read_file(int fd, size_t max, uint8_t **ret, size_t *ret_n);

struct secret {
	uint8_t *p; /* in the arena; NULL: none */
	size_t n;
};

/* A copy of @from in the arena; what @s held is wiped. An empty @from: none. 0, -ENOMEM, or -E2BIG above SECRET_MAX;
 * then
 * @s is as it was. */
int secret_set(struct secret *s, struct span from);
void secret_done(struct secret *s);

static inline struct span secret_span(const struct secret *s)
{
	return SPAN(s->p, s->n);
}
