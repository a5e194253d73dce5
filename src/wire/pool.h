/* Chunks of 64 KiB for bytes that cannot move on at once, and queues made of them. One mapping made at start, half for each
 * direction; chunks that were never touched cost nothing, and pool_trim() gives free ones back to the system. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CHUNK 65536u
#define POOL_HALF 512u /* chunks a direction */

enum pool_way { POOL_UP, POOL_DOWN, POOL_WAYS };

struct pool {
	uint8_t *mem;
	uint16_t next[POOL_WAYS * POOL_HALF]; /* of its queue or of the free list; index + 1, 0 ends */
	uint8_t dirty[POOL_WAYS * POOL_HALF]; /* free, but its pages may be there */
	uint16_t free[POOL_WAYS];	      /* head of the list */
	uint16_t n_free[POOL_WAYS];
	uint16_t n_dirty;
	uint64_t taken; /* ever; tells idle from busy */
};

/* A queue of bytes. Zeroed is empty. */
struct cq {
	uint16_t head, tail; /* index + 1 */
	uint32_t off;	     /* of the first byte in the first chunk */
	uint32_t len;
};

/* 0 or a negative errno. */
int pool_init(struct pool *p);
void pool_done(struct pool *p);
/* Give the pages of all free chunks back. */
void pool_trim(struct pool *p);

/**
 * cq_space() - Room behind the last byte
 * @want:	Bytes; chunks are taken from the pool as they are needed
 * @n_iov:	In: room in @iov; out: pieces
 *
 * What is not used is given back by cq_grew().
 *
 * Return: bytes of room, at most @want, less when the pool or @iov ends
 */
size_t cq_space(struct pool *p, struct cq *q, enum pool_way way, size_t want, struct iovec *iov, int *n_iov);
void cq_grew(struct pool *p, struct cq *q, enum pool_way way, size_t n);
/* Copy in; bytes that found room. */
size_t cq_put(struct pool *p, struct cq *q, enum pool_way way, const void *bytes, size_t n);
/* The bytes from @at on, at most @n; pieces in @iov (at most @max). Returns the number of bytes. */
size_t cq_get(const struct pool *p, const struct cq *q, size_t at, size_t n, struct iovec *iov, int max, int *ret_n);
void cq_consume(struct pool *p, struct cq *q, enum pool_way way, size_t n);
