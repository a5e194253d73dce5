/* The Internet checksum (RFC 1071), by the widest unit that this processor has. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sums are of 16-bit words in memory order, so they are stored as they are, whatever the byte order of the machine. */

enum csum_way { CSUM_SCALAR, CSUM_SSE2, CSUM_AVX2, CSUM_WAYS };

/* Chooses; without it the scalar way is used. */
void csum_init(void);
/* False where this processor cannot; the sum of @n bytes, not folded to 16 bits. For tests. */
bool csum_by(enum csum_way way, const void *p, size_t n, uint64_t *ret);

/* Unfolded sum of @n bytes, at most 1 MiB. An odd last byte counts as if a zero followed. */
uint64_t csum_add(const void *p, size_t n);
/* To 16 bits, not complemented. */
uint16_t csum_fold(uint64_t sum);
/* Sum of bytes that begin at an odd place of the whole. */
static inline uint64_t csum_odd(uint64_t sum)
{
	return __builtin_bswap16(csum_fold(sum));
}
