/* Bounded reader over borrowed bytes. Every parser of foreign bytes goes through it; there is no pointer arithmetic at
 * the call site. Readers move the front of the span; on failure nothing moves and no output is touched. Integers are
 * little endian: the peer of the control channel is the same machine, and virtio itself is little endian. What comes from
 * elsewhere has span_be(). */
#pragma once

#include <stdint.h>
#include <string.h>

struct span {
	const uint8_t *p;
	size_t n;
};

#define SPAN(ptr, len) ((struct span){ (const uint8_t *)(ptr), (len) })

static inline struct span span_str(const char *s)
{
	return SPAN(s, strlen(s));
}

static inline int span_is(struct span s, const char *lit)
{
	return s.n == strlen(lit) && memcmp(s.p, lit, s.n) == 0;
}

/* All return 0 or -EBADMSG when fewer bytes are left. */
int span_take(struct span *s, size_t n, struct span *ret);
int span_u8(struct span *s, uint8_t *ret);
int span_u16(struct span *s, uint16_t *ret);
int span_u32(struct span *s, uint32_t *ret);
int span_u64(struct span *s, uint64_t *ret);
/* A number of @n bytes, 4 at most, in network order. */
int span_be(struct span *s, size_t n, uint32_t *ret);

/**
 * span_dup() - Copy as a NUL-terminated string
 *
 * Return: 0 and a heap string that the caller owns; -EBADMSG if the bytes hold a NUL; -ENOMEM
 */
int span_dup(struct span s, char **ret);
