#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "wire/csum.h"
#include "wire/dns.h"
#include "wire/pool.h"

/* RFC 1071 section 4.1, byte by byte. */
static uint16_t plain(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? (uint32_t)p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

TEST(every_way_to_sum_gives_what_the_rfc_says)
{
	static uint8_t b[4096 + 64];
	uint64_t sum;
	int ways = 0;

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 131 + (i >> 3));
	for (int way = 0; way < CSUM_WAYS; way++) {
		if (!csum_by(way, b, 1, &sum))
			continue;
		ways++;
		for (size_t off = 0; off < 33; off++)
			for (size_t n = 0; n < 600; n++) {
				CHECK(csum_by(way, b + off, n, &sum));
				CHECK_INT(__builtin_bswap16(csum_fold(sum)), ==, plain(b + off, n));
			}
	}
	CHECK_INT(ways, >=, 1);
	memset(b, 0xff, sizeof(b));
	for (int way = 0; way < CSUM_WAYS; way++)
		if (csum_by(way, b, 4096, &sum))
			CHECK_INT(csum_fold(sum), ==, 0xffff);
}

TEST(sums_of_pieces_join_at_odd_places)
{
	uint8_t b[301];

	csum_init();
	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 57 + 3);
	for (size_t cut = 0; cut <= sizeof(b); cut++) {
		uint64_t rest = csum_add(b + cut, sizeof(b) - cut);

		CHECK_INT(csum_fold(csum_add(b, cut) + (cut & 1 ? csum_odd(rest) : rest)), ==, csum_fold(csum_add(b, sizeof(b))));
	}
}

TEST(a_queue_of_chunks_keeps_bytes_in_order_and_gives_all_back)
{
	static uint8_t in[CHUNK * 3], out[CHUNK * 3];
	static struct pool p;
	struct cq q = { 0 };
	struct iovec iov[8];
	uint32_t x = 1, put = 0, got = 0;
	int n;

	CHECK_INT(pool_init(&p), ==, 0);
	for (int round = 0; round < 3000; round++) {
		uint32_t k;

		x = x * 1664525 + 1013904223;
		k = x >> 8 & 0x1ffff;
		for (uint32_t i = 0; i < k; i++)
			in[i] = (uint8_t)((put + i) * 7 + ((put + i) >> 8));
		if (q.len < 700000)
			put += (uint32_t)cq_put(&p, &q, POOL_UP, in, k);
		x = x * 1664525 + 1013904223;
		k = MIN(x >> 8 & 0x1ffff, q.len);
		size_t have = cq_get(&p, &q, 0, k, iov, ARRAY_SIZE(iov), &n), at = 0;
		CHECK_INT(have, ==, k);
		for (int i = 0; i < n; i++) {
			memcpy(out + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
		}
		for (uint32_t i = 0; i < k; i++)
			CHECK_INT(out[i], ==, (uint8_t)((got + i) * 7 + ((got + i) >> 8)));
		cq_consume(&p, &q, POOL_UP, k);
		got += k;
		CHECK_INT(q.len, ==, put - got);
		CHECK_INT(p.n_free[POOL_UP], >=, POOL_HALF - q.len / CHUNK - 2);
	}
	cq_consume(&p, &q, POOL_UP, q.len);
	CHECK(p.n_free[POOL_UP] == POOL_HALF && p.n_free[POOL_DOWN] == POOL_HALF);
	/* Room that was asked for and not used goes back. */
	n = ARRAY_SIZE(iov);
	CHECK_INT(cq_space(&p, &q, POOL_DOWN, 4 * CHUNK, iov, &n), ==, 4 * CHUNK);
	cq_grew(&p, &q, POOL_DOWN, 1);
	CHECK_INT(p.n_free[POOL_DOWN], ==, POOL_HALF - 1);
	cq_consume(&p, &q, POOL_DOWN, 1);
	/* Until there is none left. */
	while (cq_put(&p, &q, POOL_DOWN, in, CHUNK) == CHUNK)
		;
	CHECK_INT(q.len, ==, POOL_HALF * CHUNK);
	CHECK_INT(p.n_free[POOL_DOWN], ==, 0);
	cq_consume(&p, &q, POOL_DOWN, q.len);
	pool_trim(&p);
	CHECK_INT(p.n_dirty, ==, 0);
	pool_done(&p);
}

TEST(dns_questions_are_read_strictly)
{
	const uint8_t q[] = { 1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 28, 0, 1 };
	struct dns_question r;

	CHECK_INT(dns_parse(q, sizeof(q), &r), ==, DNS_NOERROR);
	CHECK(r.id == 0x102 && r.qtype == 28 && r.rd == 1 && r.size == 512 && r.name_len == 3);
	for (size_t n = 0; n < sizeof(q); n++)
		CHECK_INT(dns_parse(q, n, &r), ==, n < 12 ? -EBADMSG : DNS_FORMERR);
}
