#include "wire/eth.h"

#include "wire/ip.h"
#include "wire/link.h"

uint8_t *eth_put(const struct wire *w, uint8_t *p, uint16_t type)
{
	struct eth_hdr *h = (struct eth_hdr *)p;

	memcpy(h->dst, w->cfg.guest_mac, 6);
	memcpy(h->src, w->cfg.gateway_mac, 6);
	h->type = be16(type);
	return p + ETH_LEN;
}

/* Only a question of the guest for the gateway is answered; nothing is learned from it. */
static void arp_input(struct wire *w, const uint8_t *p, size_t n)
{
	const struct arp_pkt *a = (const struct arp_pkt *)p;
	struct arp_pkt *r;
	uint8_t *out;

	if (n < sizeof(*a) || a->hw != be16(1) || a->proto != be16(ETH_IP4) || a->hw_len != 6 || a->proto_len != 4 ||
	    a->op != be16(1) || memcmp(a->sha, w->cfg.guest_mac, 6) != 0 || memcmp(a->spa, w->cfg.guest4, 4) != 0 ||
	    memcmp(a->tpa, w->cfg.gateway4, 4) != 0)
		return;
	out = link_small(w, ETH_LEN + sizeof(*r));
	if (!out)
		return;
	r = (struct arp_pkt *)eth_put(w, out, ETH_ARP);
	*r = (struct arp_pkt){ .hw = be16(1), .proto = be16(ETH_IP4), .hw_len = 6, .proto_len = 4, .op = be16(2) };
	memcpy(r->sha, w->cfg.gateway_mac, 6);
	memcpy(r->spa, w->cfg.gateway4, 4);
	memcpy(r->tha, w->cfg.guest_mac, 6);
	memcpy(r->tpa, w->cfg.guest4, 4);
}

void eth_input(struct wire *w, const uint8_t *p, size_t n)
{
	const struct eth_hdr *h = (const struct eth_hdr *)p;
	uint16_t type = be16(h->type);
	bool group = h->dst[0] & 1;

	if (w->cfg.no_network)
		return;
	if (type != ETH_IP4 && type != ETH_IP6 && type != ETH_ARP) {
		wire_count(w, C_ETH_TYPE);
		return;
	}
	if (memcmp(h->src, w->cfg.guest_mac, 6) != 0 || (!group && memcmp(h->dst, w->cfg.gateway_mac, 6) != 0)) {
		wire_count(w, C_ETH_ADDR);
		return;
	}
	p += ETH_LEN;
	n -= ETH_LEN;
	if (type == ETH_ARP)
		arp_input(w, p, n);
	else if (type == ETH_IP4 && !group)
		ip4_input(w, p, n);
	else if (type == ETH_IP6 && w->cfg.ipv6)
		ip6_input(w, p, n, group);
	else
		wire_count(w, C_GROUP);
}
