#include "vault/policy.h"

#include <assert.h>
#include <string.h>

#include "base/macros.h"

const char *const policy_verdict_str[] = {
	[POLICY_REFUSE] = "refuse", [POLICY_ALLOW] = "allow", [POLICY_INSPECT] = "inspect", [POLICY_GATEWAY] = "gateway",
};
static_assert(ARRAY_SIZE(policy_verdict_str) == POLICY_VERDICTS, "policy_verdict_str[] is incomplete");

const char *const policy_step_str[] = {
	[STEP_NO_NETWORK] = "no-network", [STEP_GATEWAY] = "gateway",	  [STEP_NEVER] = "never",
	[STEP_HOST] = "host",		  [STEP_METADATA] = "metadata",	  [STEP_LINK_LOCAL] = "link-local",
	[STEP_GITHUB_SSH] = "github-ssh", [STEP_QUIC] = "quic",		  [STEP_FLAG] = "flag",
	[STEP_ALLOW_HOST] = "allow-host", [STEP_ALLOW_LAN] = "allow-lan", [STEP_PORT] = "port",
	[STEP_PRIVATE] = "private",	  [STEP_RESERVED] = "reserved",	  [STEP_PUBLIC] = "public",
	[STEP_REBIND] = "rebind",	  [STEP_FOREIGN_NAME] = "foreign-name",
};
static_assert(ARRAY_SIZE(policy_step_str) == STEPS, "policy_step_str[] is incomplete");

#define V4(a, b, c, d, n) { { AF_INET, { a, b, c, d } }, n }
#define V6(n, ...) { { AF_INET6, { __VA_ARGS__ } }, n }

/* The groups as the page lists them; first that fits, from the top. What lies in no row is public if it is IPv4 or in
 * 2000::/3, else reserved. */
static const struct {
	enum policy_group group;
	struct prefix net;
} groups[] = {
	/* RFC 1122 3.2.1.3, RFC 5771 */
	{ GROUP_NEVER, V4(0, 0, 0, 0, 8) },
	{ GROUP_NEVER, V4(127, 0, 0, 0, 8) },
	{ GROUP_NEVER, V4(224, 0, 0, 0, 4) },
	{ GROUP_NEVER, V4(255, 255, 255, 255, 32) },
	/* Other ways to write an IPv4 address: RFC 4291 2.5.5, RFC 2765 2.1, RFC 8215, RFC 4380, RFC 3056 */
	{ GROUP_NEVER, V6(96, 0) },
	{ GROUP_NEVER, V6(96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff) },
	{ GROUP_NEVER, V6(96, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff) },
	{ GROUP_NEVER, V6(48, 0, 0x64, 0xff, 0x9b, 0, 1) },
	{ GROUP_NEVER, V6(32, 0x20, 0x01) },
	{ GROUP_NEVER, V6(16, 0x20, 0x02) },
	{ GROUP_NEVER, V6(10, 0xfe, 0x80) },
	{ GROUP_NEVER, V6(8, 0xff) },
	/* Where clouds keep credentials of the machine */
	{ GROUP_METADATA, V4(169, 254, 169, 254, 32) },
	{ GROUP_METADATA, V4(169, 254, 169, 253, 32) },
	{ GROUP_METADATA, V4(169, 254, 169, 123, 32) },
	{ GROUP_METADATA, V4(169, 254, 170, 2, 32) },
	{ GROUP_METADATA, V4(169, 254, 170, 23, 32) },
	{ GROUP_METADATA, V4(168, 63, 129, 16, 32) },
	{ GROUP_METADATA, V4(100, 100, 100, 200, 32) },
	{ GROUP_METADATA, V6(32, 0xfd, 0, 0x0e, 0xc2) },
	{ GROUP_METADATA, V6(128, 0xfd, 0x20, 0, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54) },
	/* RFC 3927 */
	{ GROUP_LINK_LOCAL, V4(169, 254, 0, 0, 16) },
	/* RFC 1918, RFC 6598, RFC 4193 */
	{ GROUP_PRIVATE, V4(10, 0, 0, 0, 8) },
	{ GROUP_PRIVATE, V4(172, 16, 0, 0, 12) },
	{ GROUP_PRIVATE, V4(192, 168, 0, 0, 16) },
	{ GROUP_PRIVATE, V4(100, 64, 0, 0, 10) },
	{ GROUP_PRIVATE, V6(7, 0xfc) },
	/* IANA's special-purpose registries (RFC 6890) */
	{ GROUP_RESERVED, V4(192, 0, 0, 0, 24) },
	{ GROUP_RESERVED, V4(192, 0, 2, 0, 24) },
	{ GROUP_RESERVED, V4(192, 88, 99, 0, 24) },
	{ GROUP_RESERVED, V4(198, 18, 0, 0, 15) },
	{ GROUP_RESERVED, V4(198, 51, 100, 0, 24) },
	{ GROUP_RESERVED, V4(203, 0, 113, 0, 24) },
	{ GROUP_RESERVED, V4(240, 0, 0, 0, 4) },
	{ GROUP_RESERVED, V6(23, 0x20, 0x01) },
	{ GROUP_RESERVED, V6(32, 0x20, 0x01, 0x0d, 0xb8) },
	{ GROUP_RESERVED, V6(20, 0x3f, 0xff) },
};

const struct prefix policy_nat64 = V6(96, 0, 0x64, 0xff, 0x9b);
static const struct prefix global6 = V6(3, 0x20), link_local4 = V4(169, 254, 0, 0, 16);
static const struct addr gateway4 = { AF_INET, { 192, 0, 0, 1 } },
			 gateway6 = { AF_INET6, { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 1 } };

/* Ports of any address that only a rule opens which names them (8.3). */
static const struct {
	uint16_t port;
	bool tcp, udp;
} closed_ports[] = {
	{ 22, true, false },  /* hides what is done with whose key */
	{ 25, true, false },  /* mail from a developer's address gets the network listed */
	{ 53, true, true },   /* names come from the gateway */
	{ 853, true, true },  /* the same over TLS and QUIC */
	{ 9418, true, false }, /* git in clear text */
};

/* Where GitHub answers SSH, from its own published list (api.github.com/meta); it calls the list incomplete, so ties to its names
 * count as well. Its own networks first, as of 2024-11. Then what it has in Azure, as of 2026-09-30: the list names single
 * addresses, one of git in each block of 16 and others of GitHub beside it. Blocks are what Azure hands out, and which address
 * of its block serves git has changed before. */
static const struct prefix github_git[] = {
	V4(192, 30, 252, 0, 22), V4(185, 199, 108, 0, 22), V4(140, 82, 112, 0, 20), V4(143, 55, 64, 0, 20),
	V6(29, 0x2a, 0x0a, 0xa4, 0x40), V6(32, 0x26, 0x06, 0x50, 0xc0),
	V4(4, 208, 26, 192, 28), V4(4, 225, 11, 192, 28), V4(4, 228, 31, 144, 28), V4(4, 237, 22, 32, 28),
	V4(4, 249, 131, 160, 28), V4(20, 26, 156, 208, 28), V4(20, 27, 177, 112, 28), V4(20, 29, 134, 16, 28),
	V4(20, 87, 245, 0, 28), V4(20, 175, 192, 144, 28), V4(20, 199, 39, 224, 28), V4(20, 200, 245, 240, 28),
	V4(20, 201, 28, 144, 28), V4(20, 205, 243, 160, 28), V4(20, 207, 73, 80, 28), V4(20, 217, 135, 0, 28),
	V4(20, 233, 83, 144, 28), V4(48, 202, 248, 32, 28), V4(48, 204, 201, 0, 28), V4(172, 182, 252, 128, 28),
};

struct addr policy_judged(const struct policy *p, const struct addr *a)
{
	struct addr v4;

	if (addr_nat64(a, &policy_nat64, &v4) || (p->nat64.bits > 0 && addr_nat64(a, &p->nat64, &v4)))
		return v4;
	return *a;
}

/* On-link networks and own addresses, by the list of interfaces. */
static enum policy_group by_interface(const struct policy *p, const struct addr *a)
{
	enum policy_group found = GROUP_PUBLIC;
	struct addr broadcast;

	for (size_t i = 0; i < p->n_hosts; i++) {
		if (prefix_broadcast(&p->hosts[i], &broadcast) && addr_equal(a, &broadcast))
			return GROUP_NEVER;
		if (addr_equal(a, &p->hosts[i].addr))
			found = GROUP_HOST;
		else if (found != GROUP_HOST && addr_in(a, &p->hosts[i]))
			found = GROUP_PRIVATE;
	}
	return found;
}

static enum policy_group by_table(const struct addr *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (addr_in(a, &groups[i].net))
			return groups[i].group;
	return a->family == AF_INET || addr_in(a, &global6) ? GROUP_PUBLIC : GROUP_RESERVED;
}

/* @a: as it is judged. */
static enum policy_group group_of(const struct policy *p, const struct addr *a, enum policy_route route)
{
	enum policy_group table = by_table(a), own;

	if (addr_equal(a, &gateway4) || addr_equal(a, &gateway6))
		return GROUP_GATEWAY;
	if (table == GROUP_NEVER || route == ROUTE_NEVER)
		return GROUP_NEVER;
	own = by_interface(p, a);
	if (own == GROUP_NEVER || own == GROUP_HOST)
		return own;
	if (route == ROUTE_LOCAL)
		return GROUP_HOST;
	if (table == GROUP_METADATA || table == GROUP_LINK_LOCAL || table == GROUP_PRIVATE)
		return table;
	if (own == GROUP_PRIVATE || route == ROUTE_ON_LINK)
		return GROUP_PRIVATE;
	return table;
}

enum policy_group policy_group(const struct policy *p, const struct addr *a, enum policy_route route)
{
	struct addr c = policy_judged(p, a);

	return group_of(p, &c, route);
}

bool policy_never(const struct prefix *net)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (groups[i].group == GROUP_NEVER && prefix_in(net, &groups[i].net))
			return true;
	return false;
}

bool policy_port_closed(enum policy_proto proto, uint16_t port)
{
	for (size_t i = 0; i < ARRAY_SIZE(closed_ports); i++)
		if (closed_ports[i].port == port)
			return proto == POLICY_TCP ? closed_ports[i].tcp : proto == POLICY_UDP && closed_ports[i].udp;
	return false;
}

bool policy_rules_name(const struct policy_rule *rules, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rules[i].name, name) == 0)
			return true;
	return false;
}

bool policy_name_is_github(const char *name)
{
	static const char domain[] = "github.com";
	size_t n = strlen(name), d = sizeof(domain) - 1;

	return n >= d && strcmp(name + n - d, domain) == 0 && (n == d || name[n - d - 1] == '.');
}

static bool tied(const struct policy_question *q, const char *name)
{
	for (const char *const *n = q->names; n && *n; n++)
		if (strcmp(*n, name) == 0)
			return true;
	return false;
}

static bool tied_inspected(const struct policy *p, const struct policy_question *q)
{
	for (const char *const *n = p->inspected; n && *n; n++)
		if (tied(q, *n))
			return true;
	return false;
}

bool policy_addr_is_github(const struct addr *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(github_git); i++)
		if (addr_in(a, &github_git[i]))
			return true;
	return false;
}

static bool is_github_ssh(const struct policy_question *q, const struct addr *a)
{
	if (q->proto != POLICY_TCP || q->port != 22)
		return false;
	for (const char *const *n = q->names; n && *n; n++)
		if (policy_name_is_github(*n))
			return true;
	return policy_addr_is_github(a);
}

static bool rule_port(const struct policy_rule *r, enum policy_proto proto, uint16_t port)
{
	if (proto == POLICY_ECHO)
		return r->lo == 0 && r->tcp && r->udp;
	if (!(proto == POLICY_TCP ? r->tcp : r->udp))
		return false;
	return r->lo == 0 ? !policy_port_closed(proto, port) : r->lo <= port && port <= r->hi;
}

static bool rule_is_exact(const struct policy_rule *r, const struct addr *a)
{
	return r->name[0] == '\0' && r->net.bits == (a->family == AF_INET ? 32 : 128) && addr_in(a, &r->net);
}

/* The block of the table that @a lies in; a rule opens reserved addresses only from inside it. */
static bool rule_in_reserved(const struct policy_rule *r, const struct addr *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (groups[i].group == GROUP_RESERVED && addr_in(a, &groups[i].net))
			return prefix_in(&r->net, &groups[i].net);
	/* IPv6 outside 2000::/3: what IANA may give a meaning one day; a rule that means it names no more than a /8. */
	return r->net.bits >= 8;
}

/* Does a rule's address cover @a in its group? @name: for rules by name, what must be tied. */
static bool rule_covers(const struct policy_rule *r, const struct policy_question *q, const struct addr *a,
			enum policy_group group)
{
	if (r->name[0] != '\0')
		return (group == GROUP_PUBLIC || group == GROUP_PRIVATE) && tied(q, r->name);
	if (!addr_in(a, &r->net))
		return false;
	switch (group) {
	case GROUP_HOST:
	case GROUP_METADATA:
		return rule_is_exact(r, a);
	case GROUP_LINK_LOCAL:
		return prefix_in(&r->net, &link_local4);
	case GROUP_RESERVED:
		return rule_in_reserved(r, a);
	case GROUP_PRIVATE:
	case GROUP_PUBLIC:
		return true;
	default:
		return false;
	}
}

static bool opened(const struct policy *p, const struct policy_question *q, const struct addr *a, enum policy_group group)
{
	for (size_t i = 0; i < p->n_rules; i++)
		if (rule_covers(&p->rules[i], q, a, group) && rule_port(&p->rules[i], q->proto, q->port))
			return true;
	return false;
}

static struct policy_answer answer(enum policy_verdict v, enum policy_step s, enum policy_group g)
{
	return (struct policy_answer){ v, s, g };
}

/* Allowed by @step: straight through, or by way of gate. */
static struct policy_answer allowed(const struct policy *p, const struct policy_question *q, enum policy_step step,
				    enum policy_group g)
{
	bool look = q->proto == POLICY_TCP && ((g == GROUP_PUBLIC && q->port == 443) || tied_inspected(p, q));

	return answer(look ? POLICY_INSPECT : POLICY_ALLOW, step, g);
}

static struct policy_answer to_gateway(const struct policy *p, const struct policy_question *q)
{
	if (q->proto == POLICY_ECHO || q->port == 53)
		return answer(POLICY_GATEWAY, STEP_GATEWAY, GROUP_GATEWAY);
	if (p->allow_host)
		return answer(POLICY_ALLOW, STEP_ALLOW_HOST, GROUP_GATEWAY);
	return answer(POLICY_REFUSE, STEP_HOST, GROUP_GATEWAY);
}

struct policy_answer policy_decide(const struct policy *p, const struct policy_question *q)
{
	struct addr a = policy_judged(p, &q->dst);
	enum policy_group g = group_of(p, &a, q->route);

	if (p->no_network)
		return answer(POLICY_REFUSE, STEP_NO_NETWORK, g);
	if (q->proto >= POLICY_PROTOS || (q->proto != POLICY_ECHO && q->port == 0))
		return answer(POLICY_REFUSE, STEP_NEVER, g);
	switch (g) {
	case GROUP_GATEWAY:
		return to_gateway(p, q);
	case GROUP_NEVER:
		return answer(POLICY_REFUSE, STEP_NEVER, g);
	case GROUP_HOST:
		if (p->allow_host)
			return answer(POLICY_ALLOW, STEP_ALLOW_HOST, g);
		return opened(p, q, &a, g) ? answer(POLICY_ALLOW, STEP_FLAG, g) : answer(POLICY_REFUSE, STEP_HOST, g);
	case GROUP_METADATA:
		return opened(p, q, &a, g) ? answer(POLICY_ALLOW, STEP_FLAG, g) : answer(POLICY_REFUSE, STEP_METADATA, g);
	case GROUP_LINK_LOCAL:
		return opened(p, q, &a, g) ? answer(POLICY_ALLOW, STEP_FLAG, g) :
					     answer(POLICY_REFUSE, STEP_LINK_LOCAL, g);
	default:
		break;
	}
	if (is_github_ssh(q, &a))
		return answer(POLICY_REFUSE, STEP_GITHUB_SSH, g);
	if (q->proto == POLICY_UDP && q->port == 443 && (tied_inspected(p, q) || (p->proxied && g == GROUP_PUBLIC)))
		return answer(POLICY_REFUSE, STEP_QUIC, g);
	if (opened(p, q, &a, g))
		return allowed(p, q, STEP_FLAG, g);
	if (policy_port_closed(q->proto, q->port))
		return answer(POLICY_REFUSE, STEP_PORT, g);
	if (g == GROUP_PRIVATE)
		return p->allow_lan ? allowed(p, q, STEP_ALLOW_LAN, g) : answer(POLICY_REFUSE, STEP_PRIVATE, g);
	if (g == GROUP_PUBLIC)
		return allowed(p, q, STEP_PUBLIC, g);
	return answer(POLICY_REFUSE, STEP_RESERVED, g);
}

struct policy_answer policy_keeps(const struct policy *p, const struct addr *addr, const char *name)
{
	const char *const names[] = { name, NULL };
	const struct policy_question q = { .dst = *addr, .names = names };
	struct addr a = policy_judged(p, addr);
	enum policy_group g = group_of(p, &a, ROUTE_UNKNOWN);

	if (p->no_network)
		return answer(POLICY_REFUSE, STEP_NO_NETWORK, g);
	if (g == GROUP_PUBLIC)
		return answer(POLICY_ALLOW, STEP_PUBLIC, g);
	if (g == GROUP_PRIVATE && p->allow_lan)
		return answer(POLICY_ALLOW, STEP_ALLOW_LAN, g);
	if (g == GROUP_PRIVATE || g == GROUP_RESERVED)
		for (size_t i = 0; i < p->n_rules; i++)
			if (rule_covers(&p->rules[i], &q, &a, g))
				return answer(POLICY_ALLOW, STEP_FLAG, g);
	return answer(POLICY_REFUSE, STEP_REBIND, g);
}
