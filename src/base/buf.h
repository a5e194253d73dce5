/* Byte queue with a hard maximum: append at the end, consume at the front. Used for frames under way, log lines and
 * files read whole. Consumed room is reused before the memory grows, and memory is given back when a burst is over. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"

struct buf {
	uint8_t *mem;
	size_t head; /* first live byte */
	size_t n;    /* live bytes */
	size_t size; /* allocated */
	size_t max;  /* live bytes never exceed this */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);

/**
 * buf_room() - Make room for @n more bytes and return where they go
 *
 * The caller writes at most @n bytes there and then says how many with buf_grew().
 *
 * Return: pointer into the buffer, valid until the next call; NULL when @n bytes would pass the maximum, or on lack of
 * memory
 */
uint8_t *buf_room(struct buf *b, size_t n);
void buf_grew(struct buf *b, size_t n);

/* Append; 0, or -ENOBUFS when the maximum or the memory does not allow it, then nothing was appended. */
int buf_put(struct buf *b, const void *p, size_t n);
int buf_put_u8(struct buf *b, uint8_t v);
int buf_put_u16(struct buf *b, uint16_t v);
int buf_put_u32(struct buf *b, uint32_t v);
int buf_put_u64(struct buf *b, uint64_t v);

/* Overwrite four bytes at offset @at of the live bytes; used for lengths that are known afterwards. */
void buf_set_u32(struct buf *b, size_t at, uint32_t v);

struct span buf_span(const struct buf *b);
void buf_consume(struct buf *b, size_t n);
