#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#define BUF_FIRST 4096	   /* first allocation */
#define BUF_KEEP (1 << 18) /* an empty buffer larger than this is given back */

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };
}

void buf_done(struct buf *b)
{
	free(b->mem);
	*b = (struct buf){ .max = b->max };
}

uint8_t *buf_room(struct buf *b, size_t n)
{
	size_t size;
	uint8_t *mem;

	if (n > b->max || b->n > b->max - n)
		return NULL;
	if (b->mem && b->size - b->head - b->n >= n)
		return b->mem + b->head + b->n;
	/* Moving is cheap only when little is live; otherwise growing keeps appends linear. */
	if (b->mem && b->size - b->n >= n && b->n <= b->size / 2) {
		memmove(b->mem, b->mem + b->head, b->n);
		b->head = 0;
		return b->mem + b->n;
	}
	size = MAX(b->size, (size_t)BUF_FIRST);
	while (size - b->n < n)
		size *= 2;
	size = size == b->size ? size * 2 : size;
	mem = malloc(size);
	if (!mem)
		return NULL;
	if (b->n > 0)
		memcpy(mem, b->mem + b->head, b->n);
	free(b->mem);
	b->mem = mem;
	b->size = size;
	b->head = 0;
	return b->mem + b->n;
}

void buf_grew(struct buf *b, size_t n)
{
	assert(b->size - b->head - b->n >= n);
	b->n += n;
}

int buf_put(struct buf *b, const void *p, size_t n)
{
	uint8_t *to = buf_room(b, n);

	if (!to)
		return -ENOBUFS;
	if (n > 0)
		memcpy(to, p, n);
	b->n += n;
	return 0;
}

static int buf_put_le(struct buf *b, uint64_t v, size_t n)
{
	uint8_t *to = buf_room(b, n);

	if (!to)
		return -ENOBUFS;
	for (size_t i = 0; i < n; i++)
		to[i] = (uint8_t)(v >> (8 * i));
	b->n += n;
	return 0;
}

int buf_put_u8(struct buf *b, uint8_t v)
{
	return buf_put_le(b, v, sizeof(v));
}

int buf_put_u16(struct buf *b, uint16_t v)
{
	return buf_put_le(b, v, sizeof(v));
}

int buf_put_u32(struct buf *b, uint32_t v)
{
	return buf_put_le(b, v, sizeof(v));
}

int buf_put_u64(struct buf *b, uint64_t v)
{
	return buf_put_le(b, v, sizeof(v));
}

void buf_set_u32(struct buf *b, size_t at, uint32_t v)
{
	assert(b->n >= 4 && at <= b->n - 4);
	for (size_t i = 0; i < 4; i++)
		b->mem[b->head + at + i] = (uint8_t)(v >> (8 * i));
}

struct span buf_span(const struct buf *b)
{
	return SPAN(b->mem ? b->mem + b->head : NULL, b->n);
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= b->n);
	b->head += n;
	b->n -= n;
	if (b->n > 0)
		return;
	b->head = 0;
	if (b->size > BUF_KEEP) {
		free(b->mem);
		b->mem = NULL;
		b->size = 0;
	}
}
