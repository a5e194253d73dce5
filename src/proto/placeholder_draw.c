/* Drawing a set: SHA-256 over (text of this version, counter, seed, kind), five bits a character. */
#include "proto/placeholder.h"

#include <assert.h>
#include <errno.h>
#include <sha256.h>

#include "base/base64.h"
#include "base/macros.h"
#include "proto/placeholder_shape.h"

#define DRAWS 16     /* one is thrown away about once in 2^30 */
#define JWT_PLAIN 24 /* bytes of S before base64url; a length of 1 mod 4 digits would be none */

static_assert(sizeof(PH_ALPHABET) == 33, "five bits a character");
static_assert(PH_S == BASE64_LEN(JWT_PLAIN), "S");

static void letters(const uint8_t seed[PH_SEED], enum ph_kind kind, uint8_t counter, char *out, size_t n)
{
	static const char use[] = "agent-vm placeholder 1";
	uint8_t sum[SHA256_DIGEST_LENGTH];
	SHA256_CTX c;

	SHA256Init(&c);
	SHA256Update(&c, (const uint8_t *)use, sizeof(use));
	SHA256Update(&c, &counter, 1);
	SHA256Update(&c, seed, PH_SEED);
	SHA256Update(&c, (const uint8_t *)ph_kind_str[kind], strlen(ph_kind_str[kind]));
	SHA256Final(sum, &c);
	/* 26 of 32 bytes; each is worth its low five bits. */
	for (size_t i = 0; i < n; i++)
		out[i] = PH_ALPHABET[sum[i] & 31];
}

/* Prefixes of known keys and how many letters or digits make one of them; scanners of other people look for these. */
static const struct {
	const char *prefix;
	size_t n;
} keys[] = {
	{ "sk-", 16 },	 { "ghp_", 36 },	{ "gho_", 36 },	 { "ghu_", 36 },  { "ghs_", 36 },
	{ "ghr_", 36 },	 { "github_pat_", 22 }, { "AKIA", 16 },	 { "xoxa-", 10 }, { "xoxb-", 10 },
	{ "xoxp-", 10 }, { "xoxr-", 10 },	{ "xoxs-", 10 }, { "AIza", 35 },
};

static bool looks_like_key(const char *s)
{
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		const char *at = s;

		while ((at = strstr(at, keys[k].prefix))) {
			size_t n = 0;

			at += strlen(keys[k].prefix);
			while ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') ||
			       (at[n] >= '0' && at[n] <= '9'))
				n++;
			if (n >= keys[k].n)
				return true;
		}
	}
	return false;
}

bool ph_set_is_good(const struct ph_set *set)
{
	for (int a = 0; a < PH_KINDS; a++) {
		if (set->v[a][0] == '\0')
			continue;
		if (strlen(set->v[a]) < 16 || looks_like_key(set->v[a]))
			return false;
		for (int b = 0; b < PH_KINDS; b++)
			if (a != b && set->v[b][0] != '\0' && strstr(set->v[a], set->v[b]))
				return false;
	}
	return true;
}

int ph_draw(const uint8_t seed[PH_SEED], uint32_t lent, struct ph_set *ret)
{
	for (uint8_t counter = 0; counter < DRAWS; counter++) {
		struct ph_set set = { 0 };

		for (int k = 0; k < PH_KINDS; k++) {
			char plain[JWT_PLAIN];

			if (ph_is_jwt((enum ph_kind)k)) {
				letters(seed, (enum ph_kind)k, counter, plain, sizeof(plain));
				(void)base64_encode(BASE64_URL, SPAN(plain, sizeof(plain)), set.v[k]);
			} else {
				letters(seed, (enum ph_kind)k, counter, set.v[k] + ph_prefix((enum ph_kind)k, set.v[k]),
					PH_R);
			}
		}
		/* Judged whole, so that sessions with other logins draw the same values. */
		if (!ph_set_is_good(&set))
			continue;
		for (int k = 0; k < PH_KINDS; k++)
			if (!(lent & PH_BIT(k)))
				memset(set.v[k], 0, sizeof(set.v[k]));
		*ret = set;
		return 0;
	}
	return -EIO;
}
