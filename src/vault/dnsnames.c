#include "vault/dnsnames.h"

#include <string.h>

#include "base/macros.h"
#include "base/str.h"

static const struct addr gateway4 = { AF_INET, { 192, 0, 0, 1 } },
			 gateway6 = { AF_INET6, { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 1 } },
			 loopback4 = { AF_INET, { 127, 0, 0, 1 } }, loopback6 = { AF_INET6, { [15] = 1 } };

static const char *const gateway_names[] = { "host.agent-vm.internal", "host.microsandbox.internal",
					     "gateway.agent-vm.internal" };

/* Never forwarded (RFC 6761, 6762, 7686, 9476 and ours), with all below them. */
static const char *const kept_back[] = { "agent-vm.internal", "local", "onion", "alt", "invalid" };

/* Where networks and clouds put names of their own: RFC 6761, RFC 6762 appendix G, RFC 8375, ICANN's .internal, Google's metadata. */
static const char *const inner[] = { "internal", "local", "localhost", "localdomain", "lan", "home", "home.arpa", "corp", "private",
				     "intranet", "metadata.goog" };

static bool is_below(const char *name, const char *domain)
{
	size_t n = strlen(name), d = strlen(domain);

	return n >= d && strcmp(name + n - d, domain) == 0 && (n == d || name[n - d - 1] == '.');
}

static void add_addr(struct dns_msg *m, const struct dns_name *name, const struct addr *a)
{
	uint16_t type = a->family == AF_INET ? DNS_A : DNS_AAAA;

	if (m->qtype == type)
		(void)dns_add(m, DNS_ANSWER, name, type, NAMES_TTL_S, a->b, a->family == AF_INET ? 4 : 16);
}

/* Number of a label of a reverse name; -1: none. */
static int digit_label(const uint8_t *l, unsigned int base)
{
	unsigned int v = 0;

	if (l[0] == 0 || l[0] > (base == 10 ? 3 : 1))
		return -1;
	for (size_t i = 1; i <= l[0]; i++) {
		unsigned int d = l[i] >= '0' && l[i] <= '9' ? l[i] - (unsigned int)'0' : l[i] >= 'a' && l[i] <= 'f' ? l[i] - 'a' + 10u : 99;

		if (d >= base)
			return -1;
		v = v * base + d;
	}
	return v > 255 ? -1 : (int)v;
}

/* The address, or the front of one with zeros behind it, whose reverse name this is. */
static bool reverse_addr(const char *text, const struct dns_name *name, struct addr *ret)
{
	bool v4 = is_below(text, "in-addr.arpa"), v6 = is_below(text, "ip6.arpa");
	const uint8_t *labels[DNS_NAME_MAX / 2 + 1];
	struct addr a = { .family = v4 ? AF_INET : AF_INET6 };
	size_t n = 0, at = 0;

	if (!v4 && !v6)
		return false;
	for (const uint8_t *l = name->b; *l; l += 1u + *l)
		labels[n++] = l;
	if (n < 3)
		return false;
	for (n -= 2; n > 0; n--) {
		int v = digit_label(labels[n - 1], v4 ? 10 : 16);

		if (v < 0 || at >= (v4 ? 4u : 32u))
			return false;
		if (v4)
			a.b[at] = (uint8_t)v;
		else
			a.b[at / 2] |= (uint8_t)(at % 2 ? v : v << 4);
		at++;
	}
	*ret = a;
	return true;
}

/* A reverse name whose answer would tell about the LAN or the host. */
static bool reverse_hidden(const struct policy *p, const struct addr *a)
{
	switch (policy_group(p, a, ROUTE_UNKNOWN)) {
	case GROUP_NEVER:
		return true;
	case GROUP_HOST:
	case GROUP_METADATA:
	case GROUP_LINK_LOCAL:
	case GROUP_PRIVATE:
		return !p->allow_lan;
	default:
		return false;
	}
}

bool names_inner(const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(inner); i++)
		if (is_below(text, inner[i]))
			return true;
	return false;
}

bool names_inspected(const struct policy *policy, const char *text)
{
	while (*text == '_') {
		const char *dot = strchr(text, '.');

		if (!dot)
			return false;
		text = dot + 1;
	}
	for (const char *const *n = policy->inspected; n && *n; n++)
		if (strcmp(*n, text) == 0)
			return true;
	return false;
}

const struct vault_named *names_named(const struct vault_config *cfg, const char *text)
{
	for (size_t i = 0; i < cfg->n_named; i++)
		if (strcmp(cfg->named[i].name, text) == 0)
			return &cfg->named[i];
	return NULL;
}

static bool ruled(const struct policy *p, const char *text)
{
	return policy_rules_name(p->rules, p->n_rules, text);
}

/* The self-probe's names (9.4): a value that only this session's vault knows, and an answer that the filter must empty. */
static enum names_do probe(const struct vault_config *cfg, const struct policy *p, const struct dns_name *name, const char *text,
			   struct dns_msg *m)
{
	static const struct addr lan = { AF_INET, { 10, 255, 255, 1 } };
	uint8_t value[sizeof(cfg->probe) + 1];
	size_t n = strlen(cfg->probe);

	if (n > 0 && strcmp(text, "probe.agent-vm.internal") == 0) {
		value[0] = (uint8_t)n;
		memcpy(value + 1, cfg->probe, n);
		if (m->qtype == DNS_TXT)
			(void)dns_add(m, DNS_ANSWER, name, DNS_TXT, 0, value, n + 1);
		return NAMES_ANSWER;
	}
	if (n == 0 || strcmp(text, "rebind.probe.agent-vm.internal") != 0)
		return NAMES_ASK;
	add_addr(m, name, &lan);
	add_addr(m, name, &loopback4);
	add_addr(m, name, &loopback6);
	for (size_t i = 0; i < p->n_hosts; i++)
		add_addr(m, name, &p->hosts[i].addr);
	return NAMES_PROBE;
}

enum names_do names_local(const struct vault_config *cfg, const struct policy *p, const struct dns_name *name, uint16_t type,
			  bool ipv6, struct dns_msg *m, const char **ret_rule)
{
	char text[DNS_TEXT_MAX * 4 + 1];
	struct addr a;

	(void)dns_name_to_text(name, text);
	*ret_rule = NULL;
	dns_begin(m, name, type);
	if (type == DNS_AXFR || type == DNS_IXFR || type == DNS_NULL || type == 253 || type == 254 || type == DNS_OPT ||
	    type == 0) {
		m->rcode = DNS_REFUSED;
		*ret_rule = "type";
		return NAMES_ANSWER;
	}
	if (type == DNS_ANY) { /* RFC 8482 section 4.2 */
		(void)dns_add(m, DNS_ANSWER, name, DNS_HINFO, 3600, "\7RFC8482\0", 9);
		return NAMES_ANSWER;
	}
	for (size_t i = 0; i < ARRAY_SIZE(gateway_names); i++)
		if (strcmp(text, gateway_names[i]) == 0) {
			add_addr(m, name, &gateway4);
			if (ipv6)
				add_addr(m, name, &gateway6);
			return NAMES_ANSWER;
		}
	if (is_below(text, "localhost")) {
		add_addr(m, name, &loopback4);
		add_addr(m, name, &loopback6);
		return NAMES_ANSWER;
	}
	if (reverse_addr(text, name, &a)) {
		struct dns_name host;

		if (addr_equal(&a, &gateway4) || addr_equal(&a, &gateway6)) {
			(void)dns_name_from_text(gateway_names[2], &host);
			if (type == DNS_PTR)
				(void)dns_add(m, DNS_ANSWER, name, DNS_PTR, NAMES_TTL_S, host.b, host.n);
			return NAMES_ANSWER;
		}
		if (!reverse_hidden(p, &a))
			return NAMES_ASK;
		m->rcode = DNS_NXDOMAIN;
		*ret_rule = policy_group(p, &a, ROUTE_UNKNOWN) == GROUP_NEVER ? "never" : "reverse";
		return NAMES_ANSWER;
	}
	if (probe(cfg, p, name, text, m) != NAMES_ASK)
		return m->n_rr > 0 && type != DNS_TXT ? NAMES_PROBE : NAMES_ANSWER;
	if (strcmp(text, "_dns.resolver.arpa") == 0)
		return NAMES_ANSWER; /* RFC 9462: no other resolver is offered */
	m->rcode = DNS_NXDOMAIN;
	*ret_rule = "doh"; /* a browser's question whether it may use its own resolver: nothing is refused by the answer */
	if (strcmp(text, "use-application-dns.net") == 0)
		return NAMES_ANSWER;
	*ret_rule = "name";
	for (size_t i = 0; i < ARRAY_SIZE(kept_back); i++)
		if (is_below(text, kept_back[i]) && !ruled(p, text))
			return NAMES_ANSWER;
	if (text[0] != '\0' && !strchr(text, '.') && !ruled(p, text))
		return NAMES_ANSWER;
	m->rcode = DNS_NOERROR;
	*ret_rule = NULL;
	if ((type == DNS_HTTPS || type == DNS_SVCB) && names_inspected(p, text)) {
		*ret_rule = "ech";
		return NAMES_ANSWER;
	}
	return NAMES_ASK;
}
