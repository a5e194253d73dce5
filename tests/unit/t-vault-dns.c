/* DNS: parser, encoder, filter, cache, names that are answered here. */
#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "vault/dnscache.h"
#include "vault/dnsfilter.h"
#include "vault/dnsnames.h"

static struct dns_msg m, again;
static uint8_t out[65535];

/* An answer to "a.example" type A, to which tests append records. */
struct raw {
	uint8_t b[4096];
	size_t n;
};

static void raw_bytes(struct raw *r, const void *p, size_t n)
{
	memcpy(r->b + r->n, p, n);
	r->n += n;
}

#define RAW(r, s) raw_bytes(r, s, sizeof(s) - 1)

static void raw_begin(struct raw *r, uint16_t type, uint8_t answers)
{
	r->n = 0;
	RAW(r, "\x12\x34\x81\x80\0\1\0\0\0\0\0\0\1a\7example\0");
	r->b[7] = answers;
	r->b[r->n++] = (uint8_t)(type >> 8);
	r->b[r->n++] = (uint8_t)type;
	RAW(r, "\0\1");
}

static int parse(const struct raw *r)
{
	/* A copy of its size, so that a sanitizer sees the first byte too many. */
	uint8_t *exact = malloc(r->n ? r->n : 1);
	int k;

	memcpy(exact, r->b, r->n);
	k = dns_parse(SPAN(exact, r->n), &m);
	free(exact);
	return k;
}

static struct dns_name name(const char *s)
{
	struct dns_name n;

	CHECK_INT(dns_name_from_text(s, &n), ==, 0);
	return n;
}

#define A_RECORD "\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4"

TEST(an_answer_is_read_and_written_anew)
{
	const struct dns_encode how = { .size = 512, .extended = -1 };
	struct addr a;
	struct raw r;
	int n;

	raw_begin(&r, DNS_A, 2);
	RAW(&r, A_RECORD "\x5d\xb8\xd8\x22" A_RECORD "\x0a\0\0\5");
	CHECK_INT(parse(&r), ==, 0);
	CHECK(m.qr && m.rd && m.ra && m.n_rr == 2 && m.rr[0].ttl == 300 && m.id == 0x1234);
	CHECK(dns_rr_addr(&m, &m.rr[1], &a) && a.b[0] == 10 && a.b[3] == 5);
	n = dns_encode(&m, &how, out);
	CHECK_INT(n, ==, r.n);
	CHECK(memcmp(out, r.b, r.n) == 0);
}

TEST(every_cut_and_every_byte_too_many_is_refused)
{
	struct raw r, cut;

	raw_begin(&r, DNS_A, 1);
	RAW(&r, A_RECORD "\1\2\3\4");
	for (size_t n = 0; n < r.n; n++) {
		cut = r;
		cut.n = n;
		CHECK_INT(parse(&cut), ==, -EBADMSG);
	}
	RAW(&r, "\0");
	CHECK_INT(parse(&r), ==, -EBADMSG);
}

TEST(hostile_names_are_refused)
{
	static const struct {
		const char *owner;
		size_t n;
	} bad[] = {
		{ "\xc0\x1b", 2 },     /* itself */
		{ "\xc0\xff", 2 },     /* beyond */
		{ "\xc0\x02", 2 },     /* the head */
		{ "\x40", 1 },	       /* RFC 2673's labels */
		{ "\x80", 1 },
		{ "\1a\xc0\x1b", 4 },  /* a loop of two */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct raw r;

		raw_begin(&r, DNS_A, 1);
		raw_bytes(&r, bad[i].owner, bad[i].n);
		RAW(&r, "\0\1\0\1\0\0\1\x2c\0\4\1\2\3\4");
		CHECK_INT(parse(&r), ==, -EBADMSG);
	}
}

TEST(a_name_of_256_bytes_is_refused_and_one_of_255_is_not)
{
	struct dns_name n;
	uint8_t b[257];

	for (size_t len = 255; len <= 256; len++) {
		size_t at = 0;

		memset(b, 'x', sizeof(b));
		while (len - at > 1) {
			size_t l = MIN(len - at - 2, (size_t)63);

			b[at] = (uint8_t)l;
			at += 1 + l;
		}
		b[at] = 0;
		CHECK_INT(dns_name_check(SPAN(b, len), &n), ==, len == 255 ? 0 : -EBADMSG);
	}
}

TEST(wrong_data_of_known_types_is_refused)
{
	static const struct {
		uint16_t type;
		const char *data;
		uint8_t n;
	} bad[] = {
		{ DNS_A, "\1\2\3", 3 }, { DNS_A, "\1\2\3\4\5", 5 }, { DNS_AAAA, "\1\2\3\4", 4 }, { DNS_CNAME, "\1a", 2 },
		{ DNS_CNAME, "\1a\0\0", 4 }, { DNS_MX, "\0", 1 }, { DNS_SRV, "\0\1\0\2\0", 5 }, { DNS_TXT, "\5abc", 4 },
		{ DNS_TXT, "", 0 }, { DNS_SOA, "\0\0\1\2\3", 5 }, { DNS_HTTPS, "\0\1\0\0\4\0\3\1\2\3", 10 },
		{ DNS_HTTPS, "\0\1\0\0\4\0\0", 7 }, { DNS_HTTPS, "\0\1\0\0\3\0\0\0\3\0\0", 11 },
		{ DNS_HTTPS, "\0\1\xc0\x0c", 4 }, /* RFC 9460 section 2.2: no pointer in it */
		{ DNS_HTTPS, "\0\1\0\0\6\0\20\1", 8 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct raw r;

		raw_begin(&r, bad[i].type, 1);
		RAW(&r, "\xc0\x0c");
		r.b[r.n++] = (uint8_t)(bad[i].type >> 8);
		r.b[r.n++] = (uint8_t)bad[i].type;
		RAW(&r, "\0\1\0\0\1\x2c\0");
		r.b[r.n++] = bad[i].n;
		raw_bytes(&r, bad[i].data, bad[i].n);
		if (parse(&r) != -EBADMSG)
			fail_msg("row %zu was taken", i);
	}
}

TEST(two_questions_two_opts_and_other_classes_are_refused)
{
	struct raw r;

	raw_begin(&r, DNS_A, 0);
	r.b[5] = 2;
	RAW(&r, "\1a\0\0\1\0\1");
	CHECK_INT(parse(&r), ==, -EBADMSG);

	raw_begin(&r, DNS_A, 0);
	r.b[11] = 2;
	RAW(&r, "\0\0\x29\4\xd0\0\0\0\0\0\0" "\0\0\x29\4\xd0\0\0\0\0\0\0");
	CHECK_INT(parse(&r), ==, -EBADMSG);
	r.b[11] = 1;
	r.n -= 11;
	CHECK_INT(parse(&r), ==, 0);
	CHECK(m.has_opt && m.udp_size == 1232);

	raw_begin(&r, DNS_A, 1);
	RAW(&r, "\xc0\x0c\0\1\0\3\0\0\1\x2c\0\4\1\2\3\4"); /* CHAOS */
	CHECK_INT(parse(&r), ==, -EBADMSG);
}

TEST(names_that_unpack_to_much_are_bounded)
{
	uint8_t *big = malloc(65535);
	size_t n = 0;

	/* One name of 255 bytes, then thousands of records of 12 bytes that point to it twice. */
	memcpy(big, "\0\1\x81\x80\0\1\x14\0\0\0\0\0", 12);
	n = 12;
	for (int i = 0; i < 3; i++) {
		big[n++] = 63;
		memset(big + n, 'x', 63);
		n += 63;
	}
	big[n++] = 61;
	memset(big + n, 'x', 61);
	n += 61;
	big[n++] = 0;
	memcpy(big + n, "\0\5\0\1", 4);
	for (n += 4; n + 14 <= 65535 && n < 12 + 259 + 0x1400 * 14u; n += 14)
		memcpy(big + n, "\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c", 14);
	CHECK_INT(dns_parse(SPAN(big, n), &m), ==, -EBADMSG);
	free(big);
}

TEST(large_answers_are_cut_at_a_record)
{
	struct dns_encode how = { .size = 512, .edns = true, .extended = 15, .reason = "because" };
	struct dns_name q = name("a.example");
	int n;

	dns_begin(&m, &q, DNS_A);
	for (uint32_t i = 0; i < 100; i++)
		CHECK_INT(dns_add(&m, DNS_ANSWER, &q, DNS_A, 60, &i, 4), ==, 0);
	n = dns_encode(&m, &how, out);
	CHECK(n > 400 && n <= 512);
	CHECK_INT(dns_parse(SPAN(out, n), &again), ==, 0);
	CHECK(again.tc && again.has_opt && again.n_rr > 20 && again.n_rr < 40);
	how.size = 4096;
	n = dns_encode(&m, &how, out);
	CHECK_INT(dns_parse(SPAN(out, n), &again), ==, 0);
	CHECK(!again.tc && again.n_rr == 100);
	how.size = 20;
	CHECK_INT(dns_encode(&m, &how, out), ==, -ENOBUFS);
}

TEST(text_of_names_keeps_what_is_no_host_name_apart)
{
	char text[DNS_TEXT_MAX * 4 + 1];
	struct dns_name n;

	CHECK_INT(dns_name_check(SPAN("\3WwW\7example\0", 13), &n), ==, 0);
	CHECK(dns_name_to_text(&n, text));
	CHECK_STR(text, "www.example");
	CHECK_INT(dns_name_check(SPAN("\5a.b\0c\0", 7), &n), ==, 0);
	CHECK(!dns_name_to_text(&n, text));
	CHECK_STR(text, "a\\x2eb\\x00c");
	CHECK_INT(dns_name_from_text("a..b", &n), ==, -EINVAL);
	CHECK_INT(dns_name_from_text("a.", &n), ==, -EINVAL);
}

/* The filter. */

static struct policy policy = { .hosts = { { { AF_INET, { 192, 168, 1, 10 } }, 24 } }, .n_hosts = 1 };
static char tied[8][64];
static size_t n_tied;
static int tie_result;

static int on_tie(void *ctx, const struct addr *a, const char *n, uint32_t ttl_s)
{
	char text[ADDR_TEXT];

	(void)snprintf(tied[n_tied++ % 8], 64, "%s %s %u", addr_format(a, text), n, ttl_s);
	return tie_result;
}

static void add(const char *owner, uint16_t type, const char *addr)
{
	struct dns_name o = name(owner);
	struct addr a;

	if (addr_parse(addr, &a) == 0) {
		CHECK_INT(dns_add(&m, DNS_ANSWER, &o, type, 300, a.b, type == DNS_A ? 4 : 16), ==, 0);
	} else {
		struct dns_name t = name(addr);

		CHECK_INT(dns_add(&m, DNS_ANSWER, &o, type, 300, t.b, t.n), ==, 0);
	}
}

static struct filter filtered(const char *q, bool ipv6)
{
	struct filter f = { .policy = &policy, .name = q, .ipv4 = true, .ipv6 = ipv6, .tie = on_tie };

	n_tied = 0;
	dnsfilter(&f, &m);
	return f;
}

TEST(private_addresses_go_one_by_one)
{
	struct dns_name q = name("a.example");
	struct filter f;

	dns_begin(&m, &q, DNS_A);
	m.ad = true;
	add("a.example", DNS_A, "10.0.0.5");
	add("a.example", DNS_A, "93.184.216.34");
	add("a.example", DNS_A, "192.168.1.10");
	f = filtered("a.example", true);
	CHECK(f.kept == 1 && f.dropped == 2 && m.n_rr == 1 && !m.ad && f.first_dropped.b[0] == 10);
	CHECK(n_tied == 1);
	CHECK_STR(tied[0], "93.184.216.34 a.example 300");
}

TEST(cnames_are_followed_and_strays_left_out)
{
	struct dns_name q = name("a.example");
	struct filter f;

	dns_begin(&m, &q, DNS_A);
	add("c.example", DNS_A, "93.184.216.34"); /* in whatever order */
	add("stray.example", DNS_A, "9.9.9.9");
	add("b.example", DNS_CNAME, "c.example");
	add("a.example", DNS_CNAME, "b.example");
	f = filtered("a.example", true);
	CHECK(f.kept == 1 && f.dropped == 0 && m.n_rr == 3 && n_tied == 3);
	CHECK_STR(tied[2], "93.184.216.34 c.example 300");
	/* A loop ends. */
	dns_begin(&m, &q, DNS_A);
	add("a.example", DNS_CNAME, "b.example");
	add("b.example", DNS_CNAME, "a.example");
	f = filtered("a.example", true);
	CHECK(f.kept == 0 && m.n_rr == 2);
}

TEST(a_rule_of_a_cnames_target_does_not_open_the_alias)
{
	struct dns_name q = name("evil.example");
	struct filter f;

	policy.rules[0] = (struct policy_rule){ .name = "db.corp.example", .tcp = true, .udp = true };
	policy.n_rules = 1;
	dns_begin(&m, &q, DNS_A);
	add("evil.example", DNS_CNAME, "db.corp.example");
	add("db.corp.example", DNS_A, "10.9.8.7");
	f = filtered("evil.example", true);
	policy.n_rules = 0;
	CHECK(f.kept == 0 && f.dropped == 1);
}

TEST(an_address_that_cannot_be_tied_is_not_given_out)
{
	struct dns_name q = name("a.example");
	struct filter f;

	dns_begin(&m, &q, DNS_A);
	add("a.example", DNS_A, "93.184.216.34");
	tie_result = -ENOSPC;
	f = filtered("a.example", true);
	tie_result = 0;
	CHECK(f.kept == 0 && m.n_rr == 0);
}

TEST(ipv6_goes_where_the_guest_has_none)
{
	struct dns_name q = name("a.example");
	struct filter f;

	dns_begin(&m, &q, DNS_AAAA);
	add("a.example", DNS_AAAA, "2a00:1450:4001:830::200e");
	f = filtered("a.example", false);
	CHECK(f.kept == 0 && f.dropped == 0 && m.n_rr == 0);
}

TEST(address_hints_are_filtered_like_addresses)
{
	static const char hints[] = "\0\1\0" "\0\1\0\3\2h2" "\0\4\0\x8\x0a\0\0\5\x5d\xb8\xd8\x22" "\0\5\0\1x"
				    "\0\6\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5";
	static const char left[] = "\0\1\0" "\0\1\0\3\2h2" "\0\4\0\4\x5d\xb8\xd8\x22" "\0\5\0\1x";
	struct dns_name q = name("a.example");
	struct filter f;

	dns_begin(&m, &q, DNS_HTTPS);
	CHECK_INT(dns_add(&m, DNS_ANSWER, &q, DNS_HTTPS, 60, hints, sizeof(hints) - 1), ==, 0);
	f = filtered("a.example", true);
	CHECK(f.kept == 1 && f.dropped == 2 && m.n_rr == 1);
	CHECK_INT(m.rr[0].data_n, ==, sizeof(left) - 1);
	CHECK(memcmp(m.arena + m.rr[0].data, left, sizeof(left) - 1) == 0);
}

/* The cache. */

TEST(answers_age_and_go)
{
	struct dns_key k = { .name = name("a.example"), .type = DNS_A }, other = { .name = name("a.example"), .type = DNS_A, .flags = 1 };
	struct dnscache c = { 0 };
	struct span s;
	uint32_t age;
	uint8_t server;

	dnscache_put(&c, &k, SPAN("answer", 6), 60, 3, 0);
	CHECK(dnscache_get(&c, &k, 10000000000, &s, &age, &server) && s.n == 6 && age == 10 && server == 3);
	CHECK(!dnscache_get(&c, &other, 0, &s, &age, &server));
	CHECK(!dnscache_get(&c, &k, 60000000000, &s, &age, &server));
	CHECK(c.n == 0 && c.bytes == 0);
}

TEST(the_cache_is_bounded_by_number_and_bytes)
{
	struct dns_key k = { .name = name("0000.example"), .type = DNS_A };
	struct dnscache c = { 0 };
	char *big = calloc(1, 60000);
	struct span s;
	uint32_t age;
	uint8_t server;

	for (int i = 0; i < 5000; i++) {
		(void)snprintf((char *)k.name.b + 1, 5, "%04d", i);
		k.name.b[5] = 7;
		dnscache_put(&c, &k, SPAN("x", 1), 60, 0, 0);
	}
	CHECK_INT(c.n, ==, DNSCACHE_MAX);
	CHECK(dnscache_get(&c, &k, 0, &s, &age, &server));
	for (int i = 0; i < 200; i++) {
		k.type = (uint16_t)(1000 + i);
		dnscache_put(&c, &k, SPAN(big, 60000), 60, 0, 0);
	}
	CHECK(c.bytes <= DNSCACHE_BYTES && c.n > 60);
	dnscache_clear(&c);
	CHECK(c.n == 0 && c.bytes == 0);
	free(big);
}

TEST(ttls_are_clamped)
{
	struct dns_name q = name("a.example");
	uint8_t soa[22] = { 0, 0, [18] = 0, [21] = 200 };

	dns_begin(&m, &q, DNS_A);
	CHECK_INT(dnscache_ttl(&m), ==, 60);
	add("a.example", DNS_A, "9.9.9.9");
	CHECK_INT(dnscache_ttl(&m), ==, 300);
	m.rr[0].ttl = 0;
	CHECK_INT(dnscache_ttl(&m), ==, 1);
	m.rr[0].ttl = 100000;
	CHECK_INT(dnscache_ttl(&m), ==, 3600);
	dns_begin(&m, &q, DNS_A);
	soa[21] = 20;
	CHECK_INT(dns_add(&m, DNS_AUTHORITY, &q, DNS_SOA, 3000, soa, sizeof(soa)), ==, 0);
	m.rcode = DNS_NXDOMAIN;
	CHECK_INT(dnscache_ttl(&m), ==, 20);
	m.rcode = DNS_SERVFAIL;
	CHECK_INT(dnscache_ttl(&m), ==, 2);
}

/* Names that stay here. */

static struct vault_config cfg;

static int local(const char *s, uint16_t type)
{
	struct dns_name n = name(s);
	const char *why;

	return names_local(&cfg, &policy, &n, type, true, &m, &why) == NAMES_ASK ? -1 : m.rcode;
}

TEST(names_that_are_not_forwarded)
{
	static const char *const inspected[] = { "api.github.com", NULL };

	CHECK_INT(local("www.example.org", DNS_A), ==, -1);
	CHECK_INT(local("printer.local", DNS_A), ==, DNS_NXDOMAIN);
	CHECK_INT(local("notlocal", DNS_A), ==, DNS_NXDOMAIN);
	CHECK_INT(local("x.notlocal", DNS_A), ==, -1);
	CHECK_INT(local("host.agent-vm.internal", DNS_A), ==, 0);
	CHECK_INT(m.n_rr, ==, 1);
	CHECK_INT(local("host.agent-vm.internal", DNS_MX), ==, 0);
	CHECK_INT(m.n_rr, ==, 0);
	CHECK_INT(local("4.3.2.1.in-addr.arpa", DNS_PTR), ==, -1);
	CHECK_INT(local("20.1.168.192.in-addr.arpa", DNS_PTR), ==, DNS_NXDOMAIN);
	CHECK_INT(local("168.192.in-addr.arpa", DNS_SOA), ==, DNS_NXDOMAIN);
	CHECK_INT(local("1.0.0.127.in-addr.arpa", DNS_PTR), ==, DNS_NXDOMAIN);
	CHECK_INT(local("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", DNS_PTR), ==, DNS_NXDOMAIN);
	CHECK_INT(local("www.example.org", DNS_AXFR), ==, DNS_REFUSED);
	policy.allow_lan = true;
	CHECK_INT(local("20.1.168.192.in-addr.arpa", DNS_PTR), ==, -1);
	policy.allow_lan = false;
	policy.inspected = inspected;
	CHECK_INT(local("api.github.com", DNS_HTTPS), ==, 0);
	CHECK_INT(local("_8443._https.api.github.com", DNS_HTTPS), ==, 0);
	CHECK_INT(local("api.github.com", DNS_A), ==, -1);
	CHECK_INT(local("xapi.github.com", DNS_HTTPS), ==, -1);
	policy.inspected = NULL;
	policy.rules[0] = (struct policy_rule){ .name = "intranet", .tcp = true };
	policy.n_rules = 1;
	CHECK_INT(local("intranet", DNS_A), ==, -1);
	policy.n_rules = 0;
}
