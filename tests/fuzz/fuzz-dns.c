/* An answer of a resolver: parsed, filtered, encoded. First byte: the size of the answer, and how it is filtered. Whatever
 * comes: what was parsed encodes; what was encoded parses again; no address that the policy keeps back is in it. */
#include "fuzz.h"

#include <string.h>

#include "base/macros.h"
#include "vault/dnscache.h"
#include "vault/dnsfilter.h"

static struct dns_msg m, again;
static uint8_t out[65535];

static void no_private(const struct policy *p, const char *name)
{
	struct addr a;

	for (size_t i = 0; i < again.n_rr; i++)
		if (dns_rr_addr(&again, &again.rr[i], &a))
			MUST(policy_keeps(p, &a, name).verdict == POLICY_ALLOW);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const uint16_t sizes[] = { 512, 1232, 4096, 65535 };
	static struct policy policy = { .hosts = { { { AF_INET, { 192, 168, 1, 10 } }, 24 } }, .n_hosts = 1 };
	struct dns_encode how = { .extended = -1 };
	char text[DNS_TEXT_MAX * 4 + 1] = "";
	struct filter f = { .policy = &policy, .name = text, .ipv4 = true };
	int k;

	if (n < 1 || dns_parse(SPAN(p + 1, n - 1), &m) < 0)
		return 0;
	how.size = sizes[p[0] & 3];
	how.edns = p[0] & 4;
	f.ipv6 = p[0] & 8;
	if (p[0] & 16)
		how.extended = 15;
	MUST(m.n_rr <= DNS_RRS_MAX && m.arena_n <= DNS_ARENA_MAX);
	MUST(dnscache_ttl(&m) >= 1 && dnscache_ttl(&m) <= 3600);
	if (m.has_question)
		(void)dns_name_to_text(&m.qname, text);
	MUST(strlen(text) < sizeof(text));
	if (!m.has_question) {
		m.qname.n = 1;
		m.qname.b[0] = 0;
	}
	dnsfilter(&f, &m);
	k = dns_encode(&m, &how, out);
	MUST(k >= 12 && (size_t)k <= how.size);
	MUST(dns_parse(SPAN(out, (size_t)k), &again) == 0);
	MUST(again.n_rr <= m.n_rr && (again.n_rr == m.n_rr || again.tc || m.rr[again.n_rr].section == DNS_ADDITIONAL));
	no_private(&policy, text);
	return 0;
}
