/* Messages of wire. What passes the check has the fields that the vault relies on. */
#include "fuzz.h"

#include <string.h>

#include "vault/dnsmsg.h"
#include "vault/vault.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct net_dns_ask q;
	struct dns_name name;
	struct net_datagram d;
	struct net_open o;
	struct addr a;
	int type;

	MUST(wire_check(p, n, true) < 0);
	type = wire_check(p, n, false);
	switch (type) {
	case NET_OPEN_TCP:
	case NET_OPEN_UDP:
	case NET_OPEN_ECHO:
		memcpy(&o, p, sizeof(o));
		MUST(n == sizeof(o) && net_addr_get(&o.dst, &a));
		break;
	case NET_DNS_ASK:
		memcpy(&q, p, sizeof(q));
		MUST(n == sizeof(q) && q.size >= 512 && dns_name_check(SPAN(q.name, q.name_len), &name) == 0);
		break;
	case NET_UDP_OUT:
		memcpy(&d, p, sizeof(d));
		MUST(n == sizeof(d) + d.bytes);
		break;
	default:
		MUST(type < 0 || n >= sizeof(struct net_head));
	}
	return 0;
}
