#include "base/sha1.h"

#include <string.h>

#include "base/macros.h"

static uint32_t turn(uint32_t v, unsigned by)
{
	return v << by | v >> (32 - by);
}

static void block(struct sha1 *s, const uint8_t *p)
{
	uint32_t w[80], v[5];

	memcpy(v, s->h, sizeof(v));
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 80; i++)
		w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (int i = 0; i < 80; i++) {
		uint32_t f = i < 20 ? (v[1] & v[2]) | (~v[1] & v[3]) :
			     i < 40 || i >= 60 ? v[1] ^ v[2] ^ v[3] : (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]);
		uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
		uint32_t t = turn(v[0], 5) + f + v[4] + k + w[i];

		v[4] = v[3];
		v[3] = v[2];
		v[2] = turn(v[1], 30);
		v[1] = v[0];
		v[0] = t;
	}
	for (int i = 0; i < 5; i++)
		s->h[i] += v[i];
}

void sha1_init(struct sha1 *s)
{
	*s = (struct sha1){ .h = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 } };
}

void sha1_add(struct sha1 *s, struct span in)
{
	while (in.n > 0) {
		size_t at = s->n % 64, k = MIN(in.n, 64 - at);

		memcpy(s->block + at, in.p, k);
		s->n += k;
		if (at + k == 64)
			block(s, s->block);
		in = SPAN(in.p + k, in.n - k);
	}
}

void sha1_end(struct sha1 *s, uint8_t ret[SHA1_BYTES])
{
	static const uint8_t pad[64] = { 0x80 };
	uint64_t bits = s->n * 8;
	uint8_t len[8];

	sha1_add(s, SPAN(pad, 1 + (119 - s->n % 64) % 64));
	for (int i = 0; i < 8; i++)
		len[i] = (uint8_t)(bits >> (56 - 8 * i));
	sha1_add(s, SPAN(len, 8));
	for (int i = 0; i < SHA1_BYTES; i++)
		ret[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}
