/* Addresses, and what the vectors of tests/decide cannot say: routes, the resolvers' own NAT64 prefix, the proxy. */
#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "vault/policy.h"

static struct addr at(const char *s)
{
	struct addr a;

	if (addr_parse(s, &a) < 0)
		fail_msg("%s", s);
	return a;
}

static struct prefix net(const char *s)
{
	struct prefix p;

	if (prefix_parse(s, &p) < 0)
		fail_msg("%s", s);
	return p;
}

static bool in(const char *a, const char *p)
{
	struct addr x = at(a);
	struct prefix y = net(p);

	return addr_in(&x, &y);
}

TEST(prefixes_hold_to_the_bit)
{
	static const char *const wrong[] = { "", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "01.2.3.4", "1.2.3.4 ",
					     "::1%lo", "[::1]", "1.2.3.4/8/8", "::ffff:1.2.3.4/x" };
	struct prefix p;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (prefix_parse(wrong[i], &p) != -EINVAL)
			fail_msg("taken: %s", wrong[i]);
	CHECK(in("10.255.255.255", "10.0.0.0/8"));
	CHECK(!in("11.0.0.0", "10.0.0.0/8"));
	CHECK(in("172.31.255.255", "172.16.0.0/12"));
	CHECK(!in("172.32.0.0", "172.16.0.0/12"));
	CHECK(in("1.2.3.4", "9.9.9.9/0"));
	CHECK(!in("::1", "0.0.0.0/0"));
	CHECK(!in("1.2.3.4", "::/0"));
	CHECK(in("fe80::1", "febf::/10"));
	CHECK(!in("fec0::1", "fe80::/10"));
	CHECK(in("::1", "::1"));
	CHECK(!in("::2", "::1"));
}

/* RFC 6052 section 2.4, and a byte 8 that is not zero. */
TEST(nat64_addresses_of_every_length)
{
	static const char *const cases[][2] = {
		{ "2001:db8:c000:221::", "2001:db8::/32" },	    { "2001:db8:1c0:2:21::", "2001:db8:100::/40" },
		{ "2001:db8:122:c000:2:2100::", "2001:db8:122::/48" }, { "2001:db8:122:3c0:0:221::", "2001:db8:122:300::/56" },
		{ "2001:db8:122:344:c0:2:2100::", "2001:db8:122:344::/64" },
		{ "2001:db8:122:344::192.0.2.33", "2001:db8:122:344::/96" },
	};
	static const char *const none[][2] = {
		{ "2001:db8:122:344:ffc0:2:2100::", "2001:db8:122:344::/64" }, { "2001:db9:c000:221::", "2001:db8::/32" },
		{ "2001:db8:c000:221::", "2001:db8::/33" },		      { "2001:db8::1", "2001:db8::/128" },
		{ "192.0.2.33", "64:ff9b::/96" },			      { "2001:db8:c000:221::", "2001:db8::/0" },
	};
	struct addr want = at("192.0.2.33"), got;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr a = at(cases[i][0]);
		struct prefix p = net(cases[i][1]);

		if (!addr_nat64(&a, &p, &got) || !addr_equal(&got, &want))
			fail_msg("%s by %s", cases[i][0], cases[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		struct addr a = at(none[i][0]);
		struct prefix p = net(none[i][1]);

		if (addr_nat64(&a, &p, &got))
			fail_msg("%s by %s", none[i][0], none[i][1]);
	}
}

static enum policy_step step(const struct policy *p, enum policy_proto proto, const char *dst, uint16_t port,
			     enum policy_route route)
{
	struct policy_question q = { .proto = proto, .dst = at(dst), .port = port, .route = route };

	return policy_decide(p, &q).step;
}

TEST(the_resolvers_nat64_prefix_is_the_address_inside)
{
	static struct policy p;

	p = (struct policy){ 0 };
	CHECK_INT(step(&p, POLICY_TCP, "64:ff9b:1::a00:1", 80, ROUTE_UNKNOWN), ==, STEP_NEVER);
	CHECK_INT(step(&p, POLICY_TCP, "2a00:64::a00:1", 80, ROUTE_UNKNOWN), ==, STEP_PUBLIC);
	p.nat64 = net("64:ff9b:1::/96");
	CHECK_INT(step(&p, POLICY_TCP, "64:ff9b:1::a00:1", 80, ROUTE_UNKNOWN), ==, STEP_PRIVATE);
	CHECK_INT(step(&p, POLICY_TCP, "64:ff9b:1::808:808", 80, ROUTE_UNKNOWN), ==, STEP_PUBLIC);
	CHECK_INT(step(&p, POLICY_TCP, "64:ff9b:1:1::808:808", 80, ROUTE_UNKNOWN), ==, STEP_NEVER);
	p.nat64 = net("2a00:64::/96");
	CHECK_INT(step(&p, POLICY_TCP, "2a00:64::a00:1", 80, ROUTE_UNKNOWN), ==, STEP_PRIVATE);
	CHECK_INT(step(&p, POLICY_TCP, "2a00:64::7f00:1", 80, ROUTE_UNKNOWN), ==, STEP_NEVER);
	CHECK_INT(step(&p, POLICY_TCP, "64:ff9b::7f00:1", 80, ROUTE_UNKNOWN), ==, STEP_NEVER);
}

/* What no interface lists: an address that the kernel routes to itself, a network without a gateway. */
TEST(the_kernels_route_counts)
{
	static struct policy p;

	p = (struct policy){ 0 };
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_GATEWAY), ==, STEP_PUBLIC);
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_LOCAL), ==, STEP_HOST);
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_ON_LINK), ==, STEP_PRIVATE);
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_NEVER), ==, STEP_NEVER);
	CHECK_INT(step(&p, POLICY_TCP, "169.254.169.254", 80, ROUTE_ON_LINK), ==, STEP_METADATA);
	CHECK_INT(step(&p, POLICY_TCP, "192.0.2.1", 80, ROUTE_ON_LINK), ==, STEP_PRIVATE);
	p.allow_lan = true;
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_LOCAL), ==, STEP_HOST);
	CHECK_INT(step(&p, POLICY_TCP, "45.0.0.10", 80, ROUTE_ON_LINK), ==, STEP_ALLOW_LAN);
}

TEST(quic_is_closed_where_a_proxy_is_in_force)
{
	static struct policy p;

	p = (struct policy){ .proxied = true };
	CHECK_INT(step(&p, POLICY_UDP, "8.8.8.8", 443, ROUTE_UNKNOWN), ==, STEP_QUIC);
	CHECK_INT(step(&p, POLICY_UDP, "8.8.8.8", 444, ROUTE_UNKNOWN), ==, STEP_PUBLIC);
	CHECK_INT(step(&p, POLICY_TCP, "8.8.8.8", 443, ROUTE_UNKNOWN), ==, STEP_PUBLIC);
}

/* Every way to write 127.0.0.1, 10.0.0.1 and 169.254.169.254 in IPv6 is refused, whatever is opened. */
TEST(no_spelling_opens_what_is_closed)
{
	static const char *const forms[] = { "::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2001::", "fe80::",
					     "ff02::", "::1:", "fec0::", "100::", "2001:2::" };
	static const char *const inner[] = { "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1" };
	static struct policy p;
	char text[64];

	p = (struct policy){ .allow_lan = true, .n_rules = 2 };
	p.rules[0] = (struct policy_rule){ .net = net("::/0"), .tcp = true, .udp = true };
	p.rules[1] = (struct policy_rule){ .net = net("0.0.0.0/0"), .tcp = true, .udp = true };
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		for (size_t k = 0; k < ARRAY_SIZE(inner); k++) {
			struct policy_question q = { .proto = POLICY_TCP, .port = 80 };

			(void)snprintf(text, sizeof(text), "%s%s", forms[i], inner[k]);
			q.dst = at(text);
			if (policy_decide(&p, &q).verdict != POLICY_REFUSE)
				fail_msg("%s: %s", text, policy_step_str[policy_decide(&p, &q).step]);
			CHECK_INT(policy_keeps(&p, &q.dst, "x.example").verdict, ==, POLICY_REFUSE);
		}
}

TEST(github_names)
{
	CHECK(policy_name_is_github("github.com"));
	CHECK(policy_name_is_github("ssh.github.com"));
	CHECK(!policy_name_is_github("notgithub.com"));
	CHECK(!policy_name_is_github("github.com.example"));
	CHECK(!policy_name_is_github(""));
}
