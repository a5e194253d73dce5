/* SHA-1 (FIPS 180-4) for a file format that asks for it, the key stores of Java. It protects nothing. */
#pragma once

#include "base/span.h"

#define SHA1_BYTES 20

struct sha1 {
	uint32_t h[5];
	uint64_t n; /* bytes so far */
	uint8_t block[64];
};

void sha1_init(struct sha1 *s);
void sha1_add(struct sha1 *s, struct span in);
/* Ends it; @s is of no use afterwards. */
void sha1_end(struct sha1 *s, uint8_t ret[SHA1_BYTES]);
