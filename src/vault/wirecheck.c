/* The form of wire's messages. What they mean is judged where they are used. */
#include <errno.h>
#include <string.h>

#include "vault/dnsmsg.h"
#include "vault/vault.h"

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != 0)
			return false;
	return true;
}

bool net_addr_get(const struct net_addr *n, struct addr *ret)
{
	struct addr a = { 0 };

	if ((n->family != NET_V4 && n->family != NET_V6) || !all_zero(n->zero, sizeof(n->zero)) ||
	    (n->family == NET_V4 && !all_zero(n->b + 4, 12)))
		return false;
	a.family = n->family == NET_V4 ? AF_INET : AF_INET6;
	memcpy(a.b, n->b, sizeof(a.b));
	*ret = a;
	return true;
}

static bool open_ok(const void *msg, int type)
{
	struct net_open o;
	struct addr a;

	memcpy(&o, msg, sizeof(o));
	return net_addr_get(&o.dst, &a) && (type != NET_OPEN_ECHO || o.port == 0);
}

static bool ask_ok(const void *msg)
{
	struct dns_name name;
	struct net_dns_ask q;

	memcpy(&q, msg, sizeof(q));
	if (q.size < 512 || q.rd > 1 || q.cd > 1 || q.ad > 1 || q.dnssec_ok > 1 || q.tcp > 1 || q.edns > 1 ||
	    !all_zero(q.zero, sizeof(q.zero)))
		return false;
	if (dns_name_check(SPAN(q.name, q.name_len), &name) < 0 || !all_zero(q.name + q.name_len, sizeof(q.name) - q.name_len))
		return false;
	dns_name_lower(&name);
	return memcmp(name.b, q.name, q.name_len) == 0;
}

static bool datagram_ok(const void *msg, size_t n)
{
	struct net_datagram d;

	memcpy(&d, msg, sizeof(d));
	return d.bytes == n - sizeof(d) && d.bytes <= NET_DATAGRAM_MAX;
}

int wire_check(const void *msg, size_t n, bool has_fd)
{
	struct net_opened opened;
	struct net_ended ended;
	struct net_head h;
	bool ok;

	if (has_fd || n < sizeof(h))
		return -EPROTO;
	memcpy(&h, msg, sizeof(h));
	if (h.version != NET_VERSION || h.length != n)
		return -EPROTO;
	switch (h.type) {
	case NET_OPEN_TCP:
	case NET_OPEN_UDP:
	case NET_OPEN_ECHO:
		ok = n == sizeof(struct net_open) && open_ok(msg, h.type);
		break;
	case NET_DNS_ASK:
		ok = n == sizeof(struct net_dns_ask) && ask_ok(msg);
		break;
	case NET_CANCEL:
	case NET_CONFIGURED:
		ok = n == sizeof(h);
		break;
	case NET_ENDED:
		ok = n == sizeof(ended);
		if (ok) {
			memcpy(&ended, msg, sizeof(ended));
			ok = ended.how < NET_ENDS;
		}
		break;
	case NET_INBOUND_DONE:
		ok = n == sizeof(opened);
		if (ok) {
			memcpy(&opened, msg, sizeof(opened));
			ok = opened.outcome == NET_TAKEN || opened.outcome == NET_REFUSED || opened.outcome == NET_FAILED;
		}
		break;
	case NET_UDP_OUT:
		ok = n >= sizeof(struct net_datagram) && datagram_ok(msg, n);
		break;
	default:
		ok = false;
	}
	return ok ? h.type : -EPROTO;
}
