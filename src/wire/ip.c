#include "wire/ip.h"

#include "wire/csum.h"
#include "wire/eth.h"
#include "wire/frag.h"
#include "wire/icmp.h"
#include "wire/tcp.h"
#include "wire/udp.h"

size_t ip_head(uint8_t family)
{
	return ETH_LEN + (family == NET_V4 ? IP4_LEN : IP6_LEN);
}

bool ip_is_gateway(const struct wire *w, const struct peer *a)
{
	return a->family == NET_V4 ? memcmp(a->addr, w->cfg.gateway4, 4) == 0 : memcmp(a->addr, w->cfg.gateway6, 16) == 0;
}

struct peer ip_gateway(const struct wire *w, uint8_t family)
{
	struct peer g = { .family = family };

	memcpy(g.addr, family == NET_V4 ? w->cfg.gateway4 : w->cfg.gateway6, addr_len(family));
	return g;
}

bool ip_family_on(const struct wire *w, const struct peer *to)
{
	return ip_is_gateway(w, to) || (to->family == NET_V4 ? w->v4_on : w->v6_on);
}

void ip_deliver(struct wire *w, const struct peer *to, uint8_t proto, const uint8_t *p, size_t n, uint8_t hops)
{
	if (proto == PROTO_TCP)
		tcp_input(w, to, p, n);
	else if (proto == PROTO_UDP)
		udp_input(w, to, p, n);
	else if (proto == (to->family == NET_V4 ? PROTO_ICMP : PROTO_ICMP6))
		icmp_input(w, to, p, n, hops);
	else
		wire_count(w, C_IP_HEAD);
}

void ip4_input(struct wire *w, const uint8_t *p, size_t n)
{
	const struct ip4_hdr *h = (const struct ip4_hdr *)p;
	struct peer to = { .family = NET_V4 };
	uint16_t frag;
	size_t len;

	if (n < IP4_LEN || h->vihl >> 4 != 4 || (h->vihl & 15) < 5) {
		wire_count(w, C_IP_HEAD);
		return;
	}
	if (h->vihl != 0x45) {
		wire_count(w, C_IP_OPTIONS);
		return;
	}
	len = be16(h->len);
	if (len < IP4_LEN || len > n || csum_fold(csum_add(p, IP4_LEN)) != 0xffff) {
		wire_count(w, C_IP_HEAD);
		return;
	}
	if (memcmp(h->src, w->cfg.guest4, 4) != 0) {
		wire_count(w, C_IP_SRC);
		return;
	}
	/* Groups, and the broadcast address of the link's /29. */
	if (h->dst[0] >= 224 || (memcmp(h->dst, w->cfg.guest4, 3) == 0 && h->dst[3] == (w->cfg.guest4[3] | 7))) {
		if (h->dst[0] >= 240 && h->dst[0] < 255)
			goto unicast; /* reserved, but not a group: vault says no */
		wire_count(w, C_GROUP);
		return;
	}
unicast:
	if (memcmp(h->dst, w->cfg.guest4, 4) == 0) {
		wire_count(w, C_IP_DST);
		return;
	}
	memcpy(to.addr, h->dst, 4);
	p += IP4_LEN;
	len -= IP4_LEN;
	frag = be16(h->frag);
	if (frag & (IP4_MF | IP4_OFF))
		frag_input(w, &to, h->proto, be16(h->id), (size_t)(frag & IP4_OFF) * 8, frag & IP4_MF, p, len, h->ttl);
	else
		ip_deliver(w, &to, h->proto, p, len, h->ttl);
}

void ip6_input(struct wire *w, const uint8_t *p, size_t n, bool group)
{
	const struct ip6_hdr *h = (const struct ip6_hdr *)p;
	struct peer to = { .family = NET_V6 };
	bool local;
	size_t len;

	if (n < IP6_LEN || p[0] >> 4 != 6 || be16(h->len) > n - IP6_LEN) {
		wire_count(w, C_IP_HEAD);
		return;
	}
	len = be16(h->len);
	local = h->src[0] == 0xfe && (h->src[1] & 0xc0) == 0x80;
	if (!local && memcmp(h->src, w->cfg.guest6, 16) != 0) {
		wire_count(w, C_IP_SRC);
		return;
	}
	p += IP6_LEN;
	if (h->next == PROTO_ICMP6 && len >= 1 && p[0] >= 133 && p[0] <= 137) {
		nd_input(w, h->src, p, len, h->hops);
		return;
	}
	if (group || h->dst[0] == 0xff) {
		wire_count(w, C_GROUP);
		return;
	}
	if (local || memcmp(h->dst, w->cfg.guest6, 16) == 0) {
		wire_count(w, local ? C_IP_SRC : C_IP_DST);
		return;
	}
	memcpy(to.addr, h->dst, 16);
	if (h->next == PROTO_FRAG6) {
		const struct frag6_hdr *f = (const struct frag6_hdr *)p;
		uint16_t off;

		if (len < FRAG6_LEN) {
			wire_count(w, C_FRAG);
			return;
		}
		off = be16(f->off);
		frag_input(w, &to, f->next, be32(f->id), off & 0xfff8, off & 1, p + FRAG6_LEN, len - FRAG6_LEN, h->hops);
		return;
	}
	if (h->next != PROTO_TCP && h->next != PROTO_UDP && h->next != PROTO_ICMP6) {
		wire_count(w, C_IP_OPTIONS);
		return;
	}
	ip_deliver(w, &to, h->next, p, len, h->hops);
}

uint8_t *ip_put_frag(struct wire *w, uint8_t *p, const struct peer *from, uint8_t proto, size_t n, size_t off, bool more,
		     uint32_t id)
{
	struct frag6_hdr *f;

	if (from->family == NET_V4) {
		struct ip4_hdr *h = (struct ip4_hdr *)eth_put(w, p, ETH_IP4);

		*h = (struct ip4_hdr){ .vihl = 0x45, .len = be16((uint16_t)(IP4_LEN + n)), .id = be16((uint16_t)id),
				       .frag = be16((uint16_t)(off / 8 | (more ? IP4_MF : 0))), .ttl = 64, .proto = proto };
		memcpy(h->src, from->addr, 4);
		memcpy(h->dst, w->cfg.guest4, 4);
		h->sum = (uint16_t)~csum_fold(csum_add(h, IP4_LEN));
		return (uint8_t *)(h + 1);
	}
	p = ip_put(w, p, from, PROTO_FRAG6, FRAG6_LEN + n);
	f = (struct frag6_hdr *)p;
	*f = (struct frag6_hdr){ .next = proto, .off = be16((uint16_t)(off | more)), .id = be32(id) };
	return p + FRAG6_LEN;
}

uint8_t *ip_put(struct wire *w, uint8_t *p, const struct peer *from, uint8_t proto, size_t n)
{
	struct ip6_hdr *h;

	if (from->family == NET_V4)
		return ip_put_frag(w, p, from, proto, n, 0, false, w->ip_id++);
	h = (struct ip6_hdr *)eth_put(w, p, ETH_IP6);
	h->vtf = be32(0x60000000);
	h->len = be16((uint16_t)n);
	h->next = proto;
	h->hops = 255; /* as ND wants it; the guest is one hop away */
	memcpy(h->src, from->addr, 16);
	memcpy(h->dst, w->cfg.guest6, 16);
	return (uint8_t *)(h + 1);
}

uint64_t ip_pseudo(const struct wire *w, const struct peer *from, uint8_t proto, size_t n)
{
	size_t k = addr_len(from->family);

	return csum_add(from->addr, k) + csum_add(from->family == NET_V4 ? w->cfg.guest4 : w->cfg.guest6, k) + be16(proto) +
	       be16((uint16_t)n);
}
