/* The vault's smaller parts: ties, rates, resolv.conf, proxy, audit lines, configuration, messages of wire. */
#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "proto/netmsg.h"
#include "proto/rec.h"
#include "vault/proxy.h"
#include "vault/resolvconf.h"
#include "vault/vault.h"

static struct addr ip(const char *s)
{
	struct addr a;

	CHECK_INT(addr_parse(s, &a), ==, 0);
	return a;
}

/* Ties. */

TEST(ties_add_and_never_replace)
{
	struct addr a = ip("9.9.9.9"), b = ip("9.9.9.10");
	const char *const *n;
	struct ties t;

	ties_init(&t);
	CHECK_INT(ties_add(&t, &a, "one.example", 60, false, 0), ==, 0);
	CHECK_INT(ties_add(&t, &a, "two.example", 60, false, 1), ==, 0);
	n = ties_names(&t, &a, 2);
	CHECK_STR(n[0], "two.example");
	CHECK_STR(n[1], "one.example");
	CHECK(n[2] == NULL);
	CHECK(ties_names(&t, &b, 2)[0] == NULL);
	ties_done(&t);
}

TEST(ties_end_after_ttl_and_ten_minutes_but_not_under_a_flow)
{
	struct addr a = ip("9.9.9.9"), b = ip("8.8.8.8");
	struct ties t;

	ties_init(&t);
	CHECK_INT(ties_add(&t, &a, "short.example", 1, false, 0), ==, 0); /* counts as 60 s */
	CHECK_INT(ties_add(&t, &b, "long.example", 1000000, false, 0), ==, 0); /* as 1 h */
	CHECK(ties_names(&t, &a, 659 * NS)[0]);
	ties_flow(&t, &a, true, 659 * NS);
	CHECK(ties_names(&t, &a, 100000 * NS)[0]);
	ties_flow(&t, &a, false, 100000 * NS);
	CHECK(!ties_names(&t, &a, 100000 * NS)[0]);
	CHECK(ties_names(&t, &b, 4199 * NS)[0]);
	CHECK(!ties_names(&t, &b, 4200 * NS)[0]);
	CHECK_INT(t.n, ==, 0);
	ties_done(&t);
}

TEST(a_name_has_64_addresses_and_the_table_4096_ties)
{
	struct addr a = ip("9.0.0.0"), inspected = ip("1.2.3.4");
	char name[32];
	struct ties t;

	ties_init(&t);
	CHECK_INT(ties_add(&t, &inspected, "api.example", 60, true, 0), ==, 0);
	for (int i = 0; i < 100; i++) {
		a.b[3] = (uint8_t)i;
		CHECK_INT(ties_add(&t, &a, "many.example", 60, false, i), ==, 0);
	}
	CHECK_INT(t.n, ==, 65);
	a.b[3] = 35;
	CHECK(!ties_names(&t, &a, 100)[0]);
	a.b[3] = 36;
	CHECK(ties_names(&t, &a, 100)[0]);
	for (int i = 0; i < 5000; i++) {
		(void)snprintf(name, sizeof(name), "n%d.example", i);
		a.b[1] = (uint8_t)(1 + i / 256);
		a.b[3] = (uint8_t)i;
		CHECK_INT(ties_add(&t, &a, name, 60, false, 1000 + i), ==, 0);
	}
	CHECK_INT(t.n, ==, TIES_MAX);
	/* A flood of names does not push out what decides the inspection. */
	CHECK(ties_names(&t, &inspected, 7000)[0]);
	ties_done(&t);
}

TEST(when_flows_hold_every_tie_a_new_one_is_refused)
{
	struct addr a = ip("9.0.0.0");
	char name[32];
	struct ties t;

	ties_init(&t);
	for (int i = 0; i < TIES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "n%d.example", i / 64);
		a.b[2] = (uint8_t)(i / 256);
		a.b[3] = (uint8_t)i;
		CHECK_INT(ties_add(&t, &a, name, 60, false, 0), ==, 0);
		ties_flow(&t, &a, true, 0);
	}
	a.b[1] = 1;
	CHECK_INT(ties_add(&t, &a, "new.example", 60, true, 0), ==, -ENOSPC);
	ties_done(&t);
}

TEST(standins_are_stable_and_never_the_same_for_two)
{
	struct standins s;
	struct addr a, b;

	standins_init(&s);
	a = standins_get(&s, "a.example", 1);
	b = standins_get(&s, "b.example", 2);
	CHECK(!addr_equal(&a, &b) && a.b[0] == 198 && a.b[1] == 19);
	b = standins_get(&s, "a.example", 3);
	CHECK(addr_equal(&a, &b));
	CHECK_STR(standins_name(&s, &a, 4), "a.example");
	b = ip("198.19.9.9");
	CHECK(!standins_name(&s, &b, 4));
	b = ip("198.19.0.0");
	CHECK(!standins_name(&s, &b, 4));
	b = ip("198.19.255.255");
	CHECK(!standins_name(&s, &b, 4));
	standins_done(&s);
}

TEST(of_4097_standins_the_one_that_nobody_used_for_longest_goes)
{
	struct addr first, second, a;
	struct standins s;
	char name[32];

	standins_init(&s);
	first = standins_get(&s, "n0.example", 1);
	second = standins_get(&s, "n1.example", 2);
	for (int i = 2; i < STANDINS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "n%d.example", i);
		a = standins_get(&s, name, 1 + i);
		CHECK(!addr_equal(&a, &first) && !addr_equal(&a, &second));
	}
	CHECK_STR(standins_name(&s, &first, 5000), "n0.example"); /* used again */
	a = standins_get(&s, "late.example", 5001);
	CHECK(addr_equal(&a, &second));
	CHECK_STR(standins_name(&s, &a, 5002), "late.example");
	CHECK_STR(standins_name(&s, &first, 5003), "n0.example");
	a = standins_get(&s, "n4095.example", 5004);
	CHECK(a.b[2] == 16 && a.b[3] == 255);
	standins_done(&s);
}

/* Rates. */

static enum rate_verdict take(struct rates *r, const char *s, int64_t now)
{
	struct dns_name n, parent;

	CHECK_INT(dns_name_from_text(s, &n), ==, 0);
	return rates_take(r, &n, now, &parent);
}

TEST(five_hundred_at_once_then_fifty_a_second)
{
	struct rates r;
	int ok = 0;

	rates_init(&r, 0);
	for (int i = 0; i < 600; i++)
		ok += take(&r, "same.example.org", 0) == RATE_OK;
	CHECK_INT(ok, ==, 500);
	for (int ms = 1; ms <= 1000; ms++)
		ok += take(&r, "same.example.org", ms * MS) == RATE_OK;
	CHECK_INT(ok, ==, 550);
	rates_done(&r);
}

TEST(many_names_of_one_parent_are_noticed_and_then_refused)
{
	int notices = 0, ok = 0, last = 0;
	struct rates r;
	char s[64];

	rates_init(&r, 0);
	for (int i = 0; i < 2100; i++) {
		enum rate_verdict v;

		(void)snprintf(s, sizeof(s), "n%d.t.example.com", i);
		v = take(&r, s, i * 25 * MS);
		notices += v == RATE_NOTICE;
		ok += v == RATE_OK || v == RATE_NOTICE;
		last = v;
	}
	CHECK_INT(notices, ==, 1);
	CHECK_INT(ok, ==, RATE_NAMES_REFUSED);
	CHECK_INT(last, ==, RATE_REFUSED);
	CHECK_INT(take(&r, "www.other.com", 60 * NS), ==, RATE_OK);
	CHECK_INT(take(&r, "x.example.com", 3700 * NS), ==, RATE_OK);
	rates_done(&r);
}

TEST(long_random_labels_are_noticed)
{
	static const char random[] = "q7zk2mx9wv4ncb8t1r5yhd3jpsfl6ga0eoiu7kq2zx9w";
	int notices = 0;
	struct rates r;
	char s[80];

	CHECK(rate_label_random((const uint8_t *)random, sizeof(random) - 1));
	CHECK(!rate_label_random((const uint8_t *)"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 48));
	CHECK(!rate_label_random((const uint8_t *)random, 40));
	/* 13 letters equally often have 3.70 bits, 14 have 3.81. */
	CHECK(!rate_label_random((const uint8_t *)"abcdefghijklmabcdefghijklmabcdefghijklmabcdefghijklm", 52));
	CHECK(rate_label_random((const uint8_t *)"abcdefghijklmnabcdefghijklmnabcdefghijklmnabcdefghijklmn", 56));
	rates_init(&r, 0);
	for (int i = 0; i < 60; i++) {
		(void)snprintf(s, sizeof(s), "%s%d.example.org", random, i);
		notices += take(&r, s, 0) == RATE_NOTICE;
	}
	CHECK_INT(notices, ==, 1);
	rates_done(&r);
}

/* Violations. */

static int told_at(struct violations *v, enum prov_host_id host, int64_t from, int64_t step, int n)
{
	int told = 0;

	for (int i = 1; i <= n; i++)
		if (violations_add(v, host, REFUSAL_SLOT, true, from + i * step))
			told = told ? -1 : i;
	return told;
}

TEST(twenty_violations_within_a_minute_are_told_once_a_host)
{
	static struct violations v;

	CHECK_INT(told_at(&v, HOST_GITHUB_API, 0, 3158 * (NS / 1000), 19), ==, 0); /* the 20th is 60.002 s after the first */
	CHECK_INT(told_at(&v, HOST_GITHUB_API, 19 * 3158 * (NS / 1000), 3158 * (NS / 1000), 100), ==, 0);
	CHECK_INT(told_at(&v, HOST_GITHUB_GIT, 0, 3157 * (NS / 1000), 19), ==, 0);
	CHECK_INT(told_at(&v, HOST_GITHUB_GIT, 19 * 3157 * (NS / 1000), 3157 * (NS / 1000), 100), ==, 1);
	CHECK_INT(told_at(&v, HOST_GITHUB_API, 1000 * NS, 1, 100), ==, 20);
	CHECK_INT(told_at(&v, HOST_GITHUB_API, 2000 * NS, 1, 100), ==, 0);
}

TEST(what_is_a_violation)
{
	static const enum refusal_code yes[] = { REFUSAL_SLOT, REFUSAL_WRONG_HOST, REFUSAL_STALE, REFUSAL_FOREIGN_CRED,
						 REFUSAL_PATH_DENIED };

	for (int code = 0; code < REFUSAL_CODES; code++)
		for (int login = 0; login < 2; login++) {
			struct violations v = { 0 };
			bool want = false, told = false;

			for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
				want |= (int)yes[i] == code && (login || code != REFUSAL_PATH_DENIED);
			for (int i = 0; i < VIOLATIONS_TOLD; i++)
				told |= violations_add(&v, HOST_GITHUB_GIT, (enum refusal_code)code, login, 5);
			CHECK_INT(told, ==, want);
		}
}

/* Echoes. */

static const struct vault_echo *echo_at(struct echoes *e, const char *path, size_t hits)
{
	char full[NET_NOTE_PATH] = "";

	(void)snprintf(full, sizeof(full), "%s", path);
	return echoes_add(e, HOST_ANTHROPIC, full, hits);
}

TEST(a_place_of_echoes_is_told_when_its_count_has_doubled_and_at_the_end)
{
	static struct echoes e, l;
	const struct vault_echo *m;
	int told = 0;

	for (int i = 1; i <= 1000; i++) {
		m = echo_at(&e, "/v1/models", 1);
		if (!m)
			continue;
		told++;
		CHECK_INT(m->n, ==, i);
		CHECK_INT(i & (i - 1), ==, 0);
		CHECK_INT(echoes_take(&l, m, sizeof(*m)), ==, 0);
	}
	CHECK_INT(told, ==, 10);
	CHECK_INT(l.v[0].n, ==, 512);
	CHECK_INT(echo_at(&e, "/v1/messages", 2)->n, ==, 2);
	m = echoes_rest(&e);
	CHECK_INT(m->n, ==, 1000);
	CHECK_INT(echoes_take(&l, m, sizeof(*m)), ==, 0);
	CHECK(!echoes_rest(&e));
	CHECK_INT(echo_at(&e, "/v1/models", SIZE_MAX)->n, ==, UINT32_MAX);
	CHECK(!echo_at(&e, "/v1/models", 1));
}

TEST(echoes_of_more_places_than_there_is_room_for_are_counted_together)
{
	static struct echoes e, l;
	const struct vault_echo *m;
	char path[16], want[1024] = "";
	AUTO_FREE(char, text);

	CHECK(!echoes_text(&e));
	for (int i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "/%c", 'a' + i);
		if (i < ECHOES_MAX - 1)
			(void)snprintf(want + strlen(want), sizeof(want) - strlen(want), "api.anthropic.com%s (%d times), ", path, i + 2);
		m = echo_at(&e, path, (size_t)i + 2);
		if (m)
			CHECK_INT(echoes_take(&l, m, sizeof(*m)), ==, 0);
	}
	while ((m = echoes_rest(&e)))
		CHECK_INT(echoes_take(&l, m, sizeof(*m)), ==, 0);
	(void)snprintf(want + strlen(want), sizeof(want) - strlen(want), "elsewhere (%d times)", 20 * 21 / 2 + 20 - (7 * 8 / 2 + 7));
	text = echoes_text(&l);
	CHECK_STR(text, want);
}

TEST(the_launcher_takes_no_echo_that_vault_cannot_mean)
{
	static const struct vault_echo good = { NET_CTL_ECHO, HOST_ANTHROPIC, 0, 3, "/v1/models" };
	struct vault_echo bad[] = { good, good, good, good, good, good, good, good };
	struct echoes e = { .n = 0 };

	bad[0].what = NET_CTL_VIOLATIONS;
	bad[1].host = HOSTS + 1;
	bad[2].host = HOSTS; /* with a path */
	bad[3].zero = 1;
	bad[4].n = 0;
	memset(bad[5].path, 'a', sizeof(bad[5].path));
	memcpy(bad[6].path, "/v1/\033[2J", 9);
	bad[7].path[NET_NOTE_PATH - 1] = 'x'; /* behind the end */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_INT(echoes_take(&e, &bad[i], sizeof(bad[i])), ==, -EBADMSG);
	CHECK_INT(echoes_take(&e, &good, sizeof(good) - 1), ==, -EBADMSG);
	CHECK_INT(e.n, ==, 0);
	CHECK_INT(echoes_take(&e, &good, sizeof(good)), ==, 0);
	bad[0] = good;
	bad[0].n = 2; /* it never falls */
	CHECK_INT(echoes_take(&e, &bad[0], sizeof(bad[0])), ==, -EBADMSG);
	for (char c = 'a'; c < 'a' + 2 * ECHOES_MAX; c++) {
		bad[0] = (struct vault_echo){ NET_CTL_ECHO, HOST_ANTHROPIC, 0, 1, { '/', c } };
		CHECK_INT(echoes_take(&e, &bad[0], sizeof(bad[0])), ==, c < 'a' + ECHOES_MAX - 2 ? 0 : -EBADMSG);
	}
}

/* resolv.conf */

TEST(resolvers_are_read_in_order)
{
	struct resolver r[RESOLVERS_MAX];
	char text[ADDR_TEXT];

	CHECK_INT(resolvconf_parse("# x\nsearch corp.example\n nameserver\t10.0.0.1 # mine\nnameserver fe80::1%eth0\r\n"
				   "nameserver 10.0.0.1\nnameserver 300.1.1.1\nnameservers 9.9.9.9\nnameserver\n;nameserver 8.8.8.8\n"
				   "nameserver 2606:4700::1111", r), ==, 3);
	CHECK_STR(addr_format(&r[0].addr, text), "10.0.0.1");
	CHECK_STR(addr_format(&r[1].addr, text), "fe80::1");
	CHECK_STR(r[1].scope, "eth0");
	CHECK_STR(addr_format(&r[2].addr, text), "2606:4700::1111");
	CHECK_INT(resolvconf_parse("", r), ==, 1);
	CHECK_STR(addr_format(&r[0].addr, text), "127.0.0.1");
	CHECK_INT(resolvconf_parse("nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n"
				   "nameserver 1.1.1.5\nnameserver 1.1.1.6\nnameserver 1.1.1.7\nnameserver 1.1.1.8\n"
				   "nameserver 1.1.1.9\n", r), ==, 8);
}

/* Proxy. */

TEST(answers_of_a_proxy)
{
	static const struct {
		const char *head;
		int result;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\n\r\n", 200 }, { "HTTP/1.0 200\n\n", 200 }, { "HTTP/1.1 407 Auth\r\nA: b\r\n\r\nbody", 407 },
		{ "HTTP/1.1 200 OK\r\n", 0 }, { "HTTP/1.1 200 OK\r\n\r", 0 }, { "", 0 }, { "HT", 0 }, { "SSH-2.0\r\n", -EBADMSG },
		{ "HTTP/2 200\r\n\r\n", -EBADMSG }, { "HTTP/1.1 99 x\r\n\r\n", -EBADMSG }, { "HTTP/1.1 2000\r\n\r\n", -EBADMSG },
		{ "\r\nHTTP/1.1 200 OK\r\n\r\n", -EBADMSG }, { "HTTP/1.1 600 x\r\n\r\n", -EBADMSG },
	};
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (proxy_head(span_str(rows[i].head), &n) != rows[i].result)
			fail_msg("%s: %d", rows[i].head, proxy_head(span_str(rows[i].head), &n));
	CHECK_INT(proxy_head(span_str("HTTP/1.1 200 OK\r\nVia: x\r\n\r\nbanner"), &n), ==, 200);
	CHECK_INT(n, ==, 27);
	CHECK_INT(proxy_head(SPAN("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", 26), &n), ==, -EBADMSG);
}

TEST(an_endless_head_ends)
{
	char *head = malloc(PROXY_HEAD_MAX + 100);
	size_t n = 0;

	memset(head, 'x', PROXY_HEAD_MAX + 100);
	memcpy(head, "HTTP/1.1 200 OK\r\n", 17);
	CHECK_INT(proxy_head(SPAN(head, PROXY_HEAD_MAX - 1), &n), ==, 0);
	CHECK_INT(proxy_head(SPAN(head, PROXY_HEAD_MAX), &n), ==, -EBADMSG);
	memcpy(head + PROXY_HEAD_MAX, "\r\n\r\n", 4);
	CHECK_INT(proxy_head(SPAN(head, PROXY_HEAD_MAX + 4), &n), ==, -EBADMSG);
	free(head);
}

TEST(no_proxy_entries)
{
	static const char *const entries[] = { ".corp.example", "10.1.0.0/16", "x.org:8080", "[2001:db8::1]:443", "9.9.9.9:53" };
	static const char *const corp[] = { "a.corp.example", NULL }, *const same[] = { "corp.example", NULL },
			  *const not_corp[] = { "acorp.example", NULL }, *const x[] = { "x.org", NULL };
	struct addr other = ip("45.0.0.1"), ten = ip("10.1.2.3"), six = ip("2001:db8::1"), nine = ip("9.9.9.9");
	struct vault_proxy p = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		CHECK_INT(no_proxy_parse(entries[i], &p.except[p.n_except++]), ==, 0);
	CHECK(no_proxy_matches(&p, &other, corp, 443));
	CHECK(no_proxy_matches(&p, &other, same, 443));
	CHECK(!no_proxy_matches(&p, &other, not_corp, 443));
	CHECK(!no_proxy_matches(&p, &other, NULL, 443));
	CHECK(no_proxy_matches(&p, &ten, NULL, 1));
	CHECK(no_proxy_matches(&p, &other, x, 8080) && !no_proxy_matches(&p, &other, x, 443));
	CHECK(no_proxy_matches(&p, &six, NULL, 443) && !no_proxy_matches(&p, &six, NULL, 80));
	CHECK(no_proxy_matches(&p, &nine, NULL, 53) && !no_proxy_matches(&p, &nine, NULL, 80));
	CHECK_INT(no_proxy_parse("", &p.except[0]), ==, -EINVAL);
	CHECK_INT(no_proxy_parse("*", &p.except[0]), ==, 0);
	CHECK(no_proxy_matches(&p, &other, not_corp, 443));
}

/* Audit: the lines of the network page. */

#define T INT64_C(1795464062345) /* 2026-11-23T20:01:02.345Z */

static const char *text(struct buf *b)
{
	CHECK_INT(buf_put_u8(b, 0), ==, 0);
	return (const char *)buf_span(b).p;
}

TEST(audit_lines_have_their_form)
{
	struct buf b;

	buf_init(&b, 4096);
	audit_put_flow(&b, T, &(struct audit_flow){ .proto = POLICY_TCP, .id = 812, .name = "www.example.org", .dst = ip("104.16.3.35"),
		.port = 80, .verdict = POLICY_ALLOW, .step = STEP_PUBLIC, .via = "direct", .counted = true, .up = 1834, .down = 90211,
		.ms = 412, .end = "fin" });
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"tcp\",\"id\":812,\"name\":\"www.example.org\","
			    "\"by\":\"dns\",\"dst\":\"104.16.3.35\",\"port\":80,\"verdict\":\"allow\",\"rule\":\"public\",\"via\":\"direct\","
			    "\"up\":1834,\"down\":90211,\"ms\":412,\"end\":\"fin\"}\n");
	buf_done(&b);
	audit_put_flow(&b, T, &(struct audit_flow){ .proto = POLICY_UDP, .id = 820, .dst = ip("162.159.200.1"), .port = 123,
		.verdict = POLICY_ALLOW, .step = STEP_PUBLIC, .counted = true, .up = 48, .down = 48, .ms = 120031, .end = "idle" });
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"udp\",\"id\":820,\"dst\":\"162.159.200.1\","
			    "\"port\":123,\"verdict\":\"allow\",\"rule\":\"public\",\"up\":48,\"down\":48,\"ms\":120031,"
			    "\"end\":\"idle\"}\n");
	buf_done(&b);
	audit_put_dns(&b, T, &(struct audit_dns){ "evil.example", "A", "NOERROR", "rebind", 0, 1, 0, 12 }, 1, false);
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"dns\",\"q\":\"evil.example\",\"type\":\"A\","
			    "\"rcode\":\"NOERROR\",\"kept\":0,\"dropped\":1,\"rule\":\"rebind\",\"server\":0,\"ms\":12,\"n\":1}\n");
	buf_done(&b);
	audit_put_refused(&b, T, &(struct audit_refused){ POLICY_TCP, "db.lan", ip("192.168.1.10"), 5432, STEP_PRIVATE }, 3, true);
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"refused\",\"p\":\"tcp\",\"name\":\"db.lan\","
			    "\"by\":\"dns\",\"dst\":\"192.168.1.10\",\"port\":5432,\"rule\":\"private\","
			    "\"open\":\"--allow-egress 192.168.1.10:5432\",\"n\":3,\"probe\":true}\n");
	buf_done(&b);
	audit_put_published(&b, T, &(struct audit_published){ false, "127.0.0.1:3000", "127.0.0.1:50312", 3000, 120, 4096, 18, "fin" });
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"published\",\"listen\":\"127.0.0.1:3000\","
			    "\"peer\":\"127.0.0.1:50312\",\"port\":3000,\"up\":120,\"down\":4096,\"ms\":18,\"end\":\"fin\"}\n");
	buf_done(&b);
	audit_put_published(&b, T, &(struct audit_published){ true, "127.0.0.1:53", "127.0.0.1:50312", 5300, 1, 2, 3, "idle" });
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"published\",\"p\":\"udp\",\"listen\":\"127.0.0.1:53\","
			    "\"peer\":\"127.0.0.1:50312\",\"port\":5300,\"up\":1,\"down\":2,\"ms\":3,\"end\":\"idle\"}\n");
	buf_done(&b);
	audit_put_request(&b, T, &(struct audit_request){ .host = "chatgpt.com", .method = "POST", .path = "/backend-api/wham/tasks",
		.cred = "codex-a", .verdict = "refuse", .code = "path-denied", .status = 403, .up = 7, .down = 8, .ms = 9 });
	CHECK_STR(text(&b), "{\"v\":1,\"t\":\"2026-11-23T20:01:02.345Z\",\"k\":\"request\",\"host\":\"chatgpt.com\",\"method\":\"POST\","
			    "\"path\":\"/backend-api/wham/tasks\",\"cred\":\"codex-a\",\"verdict\":\"refuse\",\"code\":\"path-denied\","
			    "\"status\":403,\"up\":7,\"down\":8,\"ms\":9}\n");
	buf_done(&b);
	audit_put_dns(&b, T, &(struct audit_dns){ "a\\x00\"", "A", "NXDOMAIN", NULL, 0, 0, -1, 0 }, 1, false);
	CHECK(strstr(text(&b), "\"q\":\"a\\\\x00\\\"\",")); /* as JSON; read back it is a\x00" */
	buf_done(&b);
}

TEST(what_nothing_opens_says_so_by_absence)
{
	char to[400];

	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("127.0.0.1"), 80, STEP_NEVER }, to), "");
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("140.82.112.3"), 22, STEP_GITHUB_SSH }, to), "");
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_UDP, NULL, ip("fd12::5"), 53, STEP_PORT }, to),
		  "--allow-egress [fd12::5]:53");
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_ECHO, NULL, ip("10.0.0.1"), 0, STEP_PRIVATE }, to),
		  "--allow-egress 10.0.0.1");
	/* In NAT64's form: a rule is for the address inside. */
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("2a00:64::a00:1"), 80, STEP_PRIVATE,
						       .judged = ip("10.0.0.1") }, to),
		  "--allow-egress 10.0.0.1:80");
	/* The smallest that opens it: an own address by itself, the alias by nothing less than all of it. */
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("10.0.0.1"), 80, STEP_HOST }, to),
		  "--allow-egress 10.0.0.1:80");
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("192.0.0.1"), 80, STEP_HOST, .alias = true }, to),
		  "--allow-host");
	CHECK_STR(audit_opens(&(struct audit_refused){ POLICY_TCP, NULL, ip("192.0.0.1"), 80, STEP_HOST, .alias = true,
						       .closed = true }, to), "");
}

TEST(what_opens_a_name_depends_on_what_was_left_out)
{
	static const struct {
		const char *q, *rule, *first;
		enum policy_group group;
		const char *opens;
	} t[] = {
		{ "db.corp", "rebind", "10.0.0.5", GROUP_PRIVATE, "--allow-egress db.corp" },
		{ "a\\x00b", "rebind", "10.0.0.5", GROUP_PRIVATE, "--allow-egress 10.0.0.5" },
		{ "fake.corp", "rebind", "198.18.0.9", GROUP_RESERVED, "--allow-egress 198.18.0.9" },
		{ "me.corp", "rebind", "192.168.1.10", GROUP_HOST, "" },
		{ "evil.corp", "rebind", "127.0.0.1", GROUP_NEVER, "" },
		{ "evil.corp", "rebind", "169.254.169.254", GROUP_METADATA, "" },
		{ "evil.corp", "rebind", "169.254.7.7", GROUP_LINK_LOCAL, "" },
		{ "db", "name", NULL, 0, "--allow-egress db" },
		{ "d\\x00b", "name", NULL, 0, "" },
		{ "5.0.0.10.in-addr.arpa", "reverse", NULL, 0, "--allow-lan" },
		{ "1.0.0.127.in-addr.arpa", "never", NULL, 0, "" },
		{ "new.example", "rate", NULL, 0, "" },
		{ "www.example", NULL, NULL, 0, "" },
	};
	char to[400];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct audit_dns d = { .q = t[i].q, .rule = t[i].rule, .group = t[i].group };

		if (t[i].first)
			d.first = ip(t[i].first);
		CHECK_STR(audit_dns_opens(&d, to), t[i].opens);
	}
}

TEST(the_first_refusal_is_a_line_at_once_and_its_equals_are_one_more)
{
	struct audit_refused r = { POLICY_TCP, NULL, ip("10.0.0.1"), 80, STEP_PRIVATE };
	FILE *f = tmpfile(), *old = tmpfile();
	char line[512];
	struct audit a;
	int lines;

	CHECK(f && old);
	audit_open(&a, fileno(f), fileno(old));
	for (int i = 0; i < 1000; i++)
		audit_refused(&a, &r, i * MS);
	CHECK_INT(audit_flush(&a, 5 * NS, false), ==, AUDIT_JOIN_NS);
	rewind(f);
	CHECK(fgets(line, sizeof(line), f) && strstr(line, "\"n\":1}"));
	CHECK(!fgets(line, sizeof(line), f));
	CHECK_INT(audit_flush(&a, AUDIT_JOIN_NS, false), ==, -1);
	rewind(f);
	CHECK(fgets(line, sizeof(line), f));
	CHECK(fgets(line, sizeof(line), f) && strstr(line, "\"n\":999}"));
	CHECK(!fgets(line, sizeof(line), f));
	/* More different ones than there are places: none is lost. */
	for (int i = 0; i < 300; i++) {
		r.port = (uint16_t)(1 + i);
		audit_refused(&a, &r, 20 * NS);
	}
	(void)audit_flush(&a, 20 * NS, true);
	rewind(f);
	for (lines = 0; fgets(line, sizeof(line), f);)
		lines++;
	CHECK_INT(lines, ==, 302);
	buf_done(&a.out);
	free(a.held);
	(void)fclose(f);
	(void)fclose(old);
}

TEST(the_audit_is_rotated_and_a_full_disk_is_counted)
{
	struct audit_flow flow = { .proto = POLICY_TCP, .dst = ip("9.9.9.9"), .port = 1, .via = "direct", .end = "fin", .counted = true };
	char first[64] = "", path[] = "/tmp/audit.XXXXXX";
	FILE *old = tmpfile(), *full;
	int fd = mkstemp(path);
	struct audit a;

	CHECK(fd >= 0 && old);
	(void)unlink(path);
	CHECK_INT(ftruncate(fd, AUDIT_FILE_MAX - 10), ==, 0);
	CHECK_INT(lseek(fd, 0, SEEK_END), ==, AUDIT_FILE_MAX - 10);
	audit_open(&a, fd, fileno(old));
	audit_flow(&a, &flow);
	(void)audit_flush(&a, 0, false);
	CHECK_INT(a.size, ==, 0);
	CHECK_INT(lseek(fd, 0, SEEK_END), ==, 0);
	CHECK(lseek(fileno(old), 0, SEEK_END) > AUDIT_FILE_MAX);
	CHECK(pread(fileno(old), first, 10, AUDIT_FILE_MAX - 10) == 10 && memcmp(first, "{\"v\":1,", 7) == 0);
	buf_done(&a.out);
	free(a.held);
	(void)fclose(old);
	(void)close(fd);

	full = fopen("/dev/full", "w");
	CHECK(full);
	audit_open(&a, fileno(full), -1);
	audit_flow(&a, &flow);
	audit_flow(&a, &flow);
	(void)audit_flush(&a, 0, false);
	CHECK_INT(a.lost, ==, 2);
	buf_done(&a.out);
	free(a.held);
	(void)fclose(full);
}

/* Configuration. */

TEST(a_whole_configuration)
{
	struct vault_config *c = calloc(1, sizeof(*c));
	struct err err = { 0 };
	struct buf b;
	ssize_t at;

	buf_init(&b, 65536);
	CHECK_INT(rec_put_u64(&b, VTC_FLAGS, VAULT_ALLOW_LAN), ==, 0);
	CHECK_INT(rec_put(&b, VTC_GUEST_MAC, "\2av\1\2\3", 6), ==, 0);
	at = rec_begin(&b, VTC_RULE);
	CHECK_INT(rec_put_str(&b, VTC_NAME, "db.corp.example"), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_LO, 5432), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_HI, 5433), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_TCP, 1), ==, 0);
	rec_end(&b, (size_t)at);
	at = rec_begin(&b, VTC_PROXY);
	CHECK_INT(rec_put(&b, VTC_ADDR, "\4\12\0\0\1", 5), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_PORT, 3128), ==, 0);
	CHECK_INT(rec_put_str(&b, VTC_TEXT, "http://proxy:3128"), ==, 0);
	CHECK_INT(rec_put_str(&b, VTC_AUTH, "Aladdin:open sesame"), ==, 0); /* RFC 7617 section 2 */
	rec_end(&b, (size_t)at);
	CHECK_INT(rec_put_str(&b, VTC_INSPECTED, "api.github.com"), ==, 0);
	CHECK_INT(vault_config_parse(buf_span(&b), c, &err), ==, 0);
	CHECK(c->policy.allow_lan && !c->policy.allow_host && c->policy.proxied && c->policy.n_rules == 1);
	CHECK(c->policy.rules[0].lo == 5432 && c->policy.rules[0].hi == 5433 && !c->policy.rules[0].udp);
	CHECK_STR(c->proxy.basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
	CHECK_STR(c->policy.inspected[0], "api.github.com");
	CHECK(c->policy.inspected[1] == NULL);
	CHECK_INT(rec_put_u64(&b, VTC_FLAGS, 0), ==, 0); /* twice */
	free(c->inspected[0]);
	free(c->inspected);
	CHECK_INT(vault_config_parse(buf_span(&b), c, &err), ==, -EBADMSG);
	buf_done(&b);
	free(c);
}

static void put_source(struct buf *b, enum source_kind kind, const char *name)
{
	ssize_t at = rec_begin(b, VTC_SOURCE);

	CHECK_INT(rec_put_u64(b, VTC_KIND, kind), ==, 0);
	CHECK_INT(rec_put_u64(b, VTC_FD, 20), ==, 0);
	CHECK_INT(rec_put_str(b, VTC_NAME, name), ==, 0);
	CHECK_INT(rec_put_u64(b, VTC_PROGRAM, 1), ==, 0);
	CHECK_INT(rec_put(b, VTC_GUARD, "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16), ==, 0);
	rec_end(b, (size_t)at);
}

static void put_least(struct buf *b)
{
	buf_init(b, 65536);
	CHECK_INT(rec_put_u64(b, VTC_FLAGS, 0), ==, 0);
	CHECK_INT(rec_put(b, VTC_GUEST_MAC, "\2av\1\2\3", 6), ==, 0);
}

TEST(what_is_lent)
{
	struct vault_config *c = calloc(1, sizeof(*c));
	struct err err = { 0 };
	struct buf b;
	ssize_t at;

	put_least(&b);
	put_source(&b, SOURCE_OPENAI, "auth.json");
	at = rec_begin(&b, VTC_CONNECT_TO);
	CHECK_INT(rec_put_str(&b, VTC_NAME, "api.openai.com"), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_PORT, 443), ==, 0);
	CHECK_INT(rec_put(&b, VTC_ADDR, "\4\177\0\0\1", 5), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_TO_PORT, 8443), ==, 0);
	rec_end(&b, (size_t)at);
	at = rec_begin(&b, VTC_OPENED);
	CHECK_INT(rec_put_u64(&b, VTC_PROV, PROV_OPENAI), ==, 0);
	CHECK_INT(rec_put_u64(&b, VTC_BITS, 1 << CLASS_FILES), ==, 0);
	rec_end(&b, (size_t)at);
	CHECK_INT(rec_put_u64(&b, VTC_LENT, PH_BIT(PH_CODEX_A)), ==, 0);
	CHECK_INT(vault_config_parse(buf_span(&b), c, &err), ==, 0);
	CHECK(c->launch.lent == PH_BIT(PH_CODEX_A) && c->launch.opened[PROV_OPENAI] == 1 << CLASS_FILES);
	CHECK(c->n_sources == 1 && c->sources[0].program && c->sources[0].guards[0].ino == 2 && c->env_fd[PH_GH] == -1);
	CHECK(connect_to_find(c, "api.openai.com", 443)->to_port == 8443 && connect_to_find(c, "api.openai.com", 0));
	CHECK(!connect_to_find(c, "api.openai.com", 80) && !connect_to_find(c, "openai.com", 443));
	free(c->sources);
	free(c->connect_to);
	put_source(&b, SOURCE_OPENAI, "auth.json"); /* twice */
	CHECK_INT(vault_config_parse(buf_span(&b), c, &err), ==, -EBADMSG);
	buf_done(&b);
	put_least(&b);
	put_source(&b, SOURCE_OPENAI, "../auth.json");
	CHECK_INT(vault_config_parse(buf_span(&b), c, &err), ==, -EBADMSG);
	buf_done(&b);
	free(c);
}

/* Messages of wire. */

TEST(messages_of_wire_are_checked)
{
	struct net_open o = { .head = { NET_VERSION, NET_OPEN_TCP, sizeof(o), 1, 1 }, .dst = { .family = NET_V4, .b = { 9, 9, 9, 9 } },
			      .port = 80 };
	struct net_dns_ask q = { .head = { NET_VERSION, NET_DNS_ASK, sizeof(q), 1, 1 }, .qtype = 1, .size = 512, .name_len = 3,
				 .name = "\1a" };
	uint8_t d[sizeof(struct net_datagram) + 4] = { 0 };
	struct net_datagram *dg = (void *)d;

	CHECK_INT(wire_check(&o, sizeof(o), false), ==, NET_OPEN_TCP);
	CHECK_INT(wire_check(&o, sizeof(o), true), ==, -EPROTO);
	CHECK_INT(wire_check(&o, sizeof(o) - 1, false), ==, -EPROTO);
	o.dst.b[4] = 1;
	CHECK_INT(wire_check(&o, sizeof(o), false), ==, -EPROTO);
	o.dst.family = NET_V6;
	CHECK_INT(wire_check(&o, sizeof(o), false), ==, NET_OPEN_TCP);
	o.head.type = NET_OPEN_ECHO;
	CHECK_INT(wire_check(&o, sizeof(o), false), ==, -EPROTO);
	o.port = 0;
	CHECK_INT(wire_check(&o, sizeof(o), false), ==, NET_OPEN_ECHO);
	o.head.version = 2;
	CHECK_INT(wire_check(&o, sizeof(o), false), ==, -EPROTO);
	CHECK_INT(wire_check(&q, sizeof(q), false), ==, NET_DNS_ASK);
	q.name_len = 2;
	CHECK_INT(wire_check(&q, sizeof(q), false), ==, -EPROTO);
	q.name_len = 3;
	q.name[1] = 'A';
	CHECK_INT(wire_check(&q, sizeof(q), false), ==, -EPROTO);
	q.name[1] = 'a';
	q.name[200] = 1;
	CHECK_INT(wire_check(&q, sizeof(q), false), ==, -EPROTO);
	*dg = (struct net_datagram){ .head = { NET_VERSION, NET_UDP_OUT, sizeof(d), 0, 0 }, .bytes = 4 };
	CHECK_INT(wire_check(d, sizeof(d), false), ==, NET_UDP_OUT);
	dg->bytes = 5;
	CHECK_INT(wire_check(d, sizeof(d), false), ==, -EPROTO);
}
