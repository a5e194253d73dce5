/* Records: the form of every structured payload between our processes and to the guest.
 *
 *    0      2              6
 *   +------+--------------+------------------+
 *   | key  | length n     | n bytes of value |   little endian, records follow each other to the end of the payload
 *   +------+--------------+------------------+
 *
 * A value is bytes, a string without NUL, an integer of 8 bytes, or records again. A key may repeat: repeated keys are
 * lists. A reader refuses keys that it does not know: both sides come from one build, and the version was compared
 * before. */
#pragma once

#include "base/buf.h"
#include "base/span.h"

/* Writers return 0, or -ENOBUFS at the buffer's maximum. */
int rec_put(struct buf *b, uint16_t key, const void *p, size_t n);
int rec_put_str(struct buf *b, uint16_t key, const char *s);
int rec_put_u64(struct buf *b, uint16_t key, uint64_t v);

/**
 * rec_begin() - Begin a value of nested records
 *
 * Return: offset to hand to rec_end(), or -ENOBUFS
 */
ssize_t rec_begin(struct buf *b, uint16_t key);
void rec_end(struct buf *b, size_t at);

/**
 * rec_next() - Take the next record off the front
 *
 * Return: 1 and the record; 0 at the end; -EBADMSG when bytes are left that are no record
 */
int rec_next(struct span *in, uint16_t *ret_key, struct span *ret_val);

/* The value as an integer of exactly 8 bytes that is at most @max; else -EBADMSG. */
int rec_u64(struct span val, uint64_t max, uint64_t *ret);
