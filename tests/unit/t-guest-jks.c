#include "test.h"

#include <errno.h>
#include <sha1.h>
#include <string.h>

#include "guest/jks.h"

/* Not certificates, which nothing here looks at, but bytes in their form of text: "one", "three", and 100 bytes in lines of 64. */
#define ONE "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----\n"
#define THREE "-----BEGIN CERTIFICATE-----\r\ndGhyZWU=\r\n-----END CERTIFICATE-----\r\n"
#define LONG                                                                                        \
	"-----BEGIN CERTIFICATE-----\n"                                                             \
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"                        \
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"                        \
	"AAAAAA==\n-----END CERTIFICATE-----\n"

static void sum_is(const char *text, size_t times, const char *hex)
{
	uint8_t got[SHA1_DIGEST_LENGTH];
	char shown[2 * SHA1_DIGEST_LENGTH + 1];
	SHA1_CTX s;

	SHA1Init(&s);
	for (size_t i = 0; i < times; i++)
		SHA1Update(&s, span_str(text).p, strlen(text));
	SHA1Final(got, &s);
	for (size_t i = 0; i < SHA1_DIGEST_LENGTH; i++)
		(void)snprintf(shown + 2 * i, 3, "%02x", got[i]);
	CHECK_STR(shown, hex);
}

/* FIPS 180-4's examples, and each side of where the length no longer fits into the last block (from sha1sum). */
TEST(sha1_of_known_texts)
{
	sum_is("", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	sum_is("abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d");
	sum_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
	sum_is("aaaaaaaaaa", 100000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
	sum_is("a", 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a");
	sum_is("a", 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699");
	sum_is("a", 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5");
	sum_is("a", 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d");
}

static int add(struct span old, const char *pem, struct buf *out)
{
	buf_init(out, JKS_MAX);
	return jks_add(old, span_str(pem), out);
}

static void store_is(const struct buf *b, const char *want, size_t n)
{
	CHECK_INT(b->n, ==, n + SHA1_DIGEST_LENGTH);
	CHECK(memcmp(buf_span(b).p, want, n) == 0);
}

#define HEAD "\xfe\xed\xfe\xed\0\0\0\2"
#define ENTRY(number, len, der) "\0\0\0\2\0\12agent-vm:" number "\0\0\0\0\0\0\0\0\0\5X.509\0\0\0" len der

TEST(a_new_store_and_one_with_more_in_it)
{
	static const char two[] = HEAD "\0\0\0\2" ENTRY("0", "\3", "one") ENTRY("1", "\5", "three");
	static const char three[] = HEAD "\0\0\0\3" ENTRY("0", "\3", "one") ENTRY("1", "\5", "three") ENTRY("0", "\3", "one");
	struct buf first, second;

	CHECK_INT(add(SPAN(NULL, 0), "# words of update-ca-certificates\n" ONE "\nmore\n" THREE, &first), ==, 2);
	store_is(&first, two, sizeof(two) - 1);
	CHECK_INT(add(buf_span(&first), ONE, &second), ==, 1);
	store_is(&second, three, sizeof(three) - 1);
	buf_done(&second);
	CHECK_INT(add(buf_span(&first), "", &second), ==, 0);
	CHECK(second.n == first.n && memcmp(buf_span(&second).p, buf_span(&first).p, first.n) == 0);
	buf_done(&second);
	buf_done(&first);
	CHECK_INT(add(SPAN(NULL, 0), LONG, &first), ==, 1);
	CHECK_INT(first.n, ==, 12 + 4 + 12 + 8 + 7 + 4 + 100 + SHA1_DIGEST_LENGTH);
	buf_done(&first);
}

TEST(what_is_no_store_or_no_certificate_is_refused)
{
	static const char *const bad[] = {
		"-----BEGIN CERTIFICATE-----\nb25\n-----END CERTIFICATE-----\n",
		"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
		"-----BEGIN CERTIFICATE-----\nProc-Type: 4\n\nb25l\n-----END CERTIFICATE-----\n",
	};
	static const char *const passed_over[] = { "", "-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nb25l\n",
						   "-----BEGIN TRUSTED CERTIFICATE-----\nb25l\n-----END TRUSTED CERTIFICATE-----\n" };
	struct buf good, b;

	CHECK_INT(add(SPAN(NULL, 0), ONE, &good), ==, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CHECK_INT(add(SPAN(NULL, 0), bad[i], &b), ==, -EBADMSG);
		buf_done(&b);
	}
	for (size_t i = 0; i < sizeof(passed_over) / sizeof(*passed_over); i++) {
		CHECK_INT(add(SPAN(NULL, 0), passed_over[i], &b), ==, 0);
		buf_done(&b);
	}
	/* Cut anywhere, or a bit of it turned. */
	for (size_t n = 1; n < good.n; n++) {
		CHECK_INT(add(SPAN(buf_span(&good).p, n), ONE, &b), ==, -EBADMSG);
		buf_done(&b);
	}
	for (size_t i = 0; i < good.n; i++) {
		good.mem[good.head + i] ^= 0x10;
		CHECK_INT(add(buf_span(&good), ONE, &b), ==, -EBADMSG);
		good.mem[good.head + i] ^= 0x10;
		buf_done(&b);
	}
	buf_done(&good);
}
