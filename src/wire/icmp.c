#include "wire/icmp.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "wire/csum.h"
#include "wire/eth.h"
#include "wire/flow.h"
#include "wire/link.h"
#include "wire/udp.h"
#include "wire/vaultlink.h"

#define ICMP_A_SECOND 100u
#define ECHO_A_SECOND 50u
#define ECHO_MS 5000u
#define ECHO4 8
#define ECHO4_REPLY 0
#define ECHO6 128
#define ECHO6_REPLY 129
#define ND_SOLICIT 135
#define ND_ADVERT 136
#define ND_ADVERT_FLAGS 0x60000000u /* solicited, override */
#define ICMP4_UNREACH 3
#define ICMP6_UNREACH 1

static const uint8_t ll_gateway[16] = { 0xfe, 0x80, [15] = 1 };

enum icmp_cause icmp_cause(int error)
{
	switch (error) {
	case EHOSTUNREACH:
	case EHOSTDOWN:
	case ETIMEDOUT:
		return ICMP_HOST;
	case ENETUNREACH:
	case ENETDOWN:
	case EAFNOSUPPORT:
	case EADDRNOTAVAIL:
		return ICMP_NET;
	default:
		return ICMP_PORT;
	}
}

/* The sum over an ICMP message of which @n bytes stand at @h and the rest is @more. */
static uint16_t icmp_sum(const struct wire *w, const struct peer *from, const void *h, size_t n, const void *more, size_t more_n)
{
	uint64_t sum = csum_add(h, n) + csum_add(more, more_n);

	if (from->family == NET_V6)
		sum += ip_pseudo(w, from, PROTO_ICMP6, n + more_n);
	return (uint16_t)~csum_fold(sum);
}

void icmp_error(struct wire *w, const struct peer *to, uint8_t proto, enum icmp_cause cause, const uint8_t l4[8])
{
	static const uint8_t code4[] = { [ICMP_PORT] = 3, [ICMP_HOST] = 1, [ICMP_NET] = 0, [ICMP_ADMIN] = 13 };
	static const uint8_t code6[] = { [ICMP_PORT] = 4, [ICMP_HOST] = 3, [ICMP_NET] = 0, [ICMP_ADMIN] = 1 };
	bool v4 = to->family == NET_V4;
	size_t quoted = (v4 ? IP4_LEN : IP6_LEN) + 8u;
	struct peer from = ip_gateway(w, to->family);
	struct icmp_hdr *h;
	uint8_t *out, *q;

	if (w->now / 1000 != w->icmp_second) {
		w->icmp_second = w->now / 1000;
		w->icmp_n = 0;
	}
	if (w->icmp_n++ >= ICMP_A_SECOND) {
		wire_count(w, C_ICMP_LIMIT);
		return;
	}
	out = link_small(w, ip_head(to->family) + ICMP_LEN + quoted);
	if (!out)
		return;
	h = (struct icmp_hdr *)ip_put(w, out, &from, v4 ? PROTO_ICMP : PROTO_ICMP6, ICMP_LEN + quoted);
	*h = (struct icmp_hdr){ .type = v4 ? ICMP4_UNREACH : ICMP6_UNREACH, .code = v4 ? code4[cause] : code6[cause] };
	q = (uint8_t *)(h + 1);
	if (v4) {
		struct ip4_hdr *i = (struct ip4_hdr *)q;

		*i = (struct ip4_hdr){ .vihl = 0x45, .len = be16(IP4_LEN + 8), .ttl = 64, .proto = proto };
		memcpy(i->src, w->cfg.guest4, 4);
		memcpy(i->dst, to->addr, 4);
		i->sum = (uint16_t)~csum_fold(csum_add(i, IP4_LEN));
	} else {
		struct ip6_hdr *i = (struct ip6_hdr *)q;

		*i = (struct ip6_hdr){ .vtf = be32(0x60000000), .len = be16(8), .next = proto, .hops = 64 };
		memcpy(i->src, w->cfg.guest6, 16);
		memcpy(i->dst, to->addr, 16);
	}
	memcpy(q + quoted - 8, l4, 8);
	h->sum = icmp_sum(w, &from, h, ICMP_LEN, q, quoted);
}

/* An echo reply to the guest with @n bytes behind its header; dropped when the link has no room, as echo may be. */
static void reply(struct wire *w, const struct peer *from, uint16_t id, uint16_t seq, const uint8_t *p, size_t n)
{
	bool v4 = from->family == NET_V4;
	struct icmp_hdr *h;
	uint8_t *m;

	m = link_stage(w, ICMP_LEN + n);
	if (!m)
		return;
	h = (struct icmp_hdr *)m;
	*h = (struct icmp_hdr){ .type = v4 ? ECHO4_REPLY : ECHO6_REPLY, .id = id, .seq = seq };
	memcpy(m + ICMP_LEN, p, n);
	h->sum = icmp_sum(w, from, m, ICMP_LEN + n, NULL, 0);
	ip_send_staged(w, from, v4 ? PROTO_ICMP : PROTO_ICMP6, m, ICMP_LEN + n);
}

static void refuse(struct wire *w, const struct peer *to, enum icmp_cause cause, const struct icmp_hdr *h)
{
	icmp_error(w, to, to->family == NET_V4 ? PROTO_ICMP : PROTO_ICMP6, cause, (const uint8_t *)h);
}

static void echo_other(struct wire *w, const struct peer *to, const uint8_t *p, size_t n)
{
	const struct icmp_hdr *h = (const struct icmp_hdr *)p;
	struct flow_key k = { .kind = FLOW_ECHO, .family = to->family, .gport = be16(h->id) };
	struct flow *f;

	if (w->now / 1000 != w->echo_second) {
		w->echo_second = w->now / 1000;
		w->echo_n = 0;
	}
	if (w->echo_n++ >= ECHO_A_SECOND) {
		wire_count(w, C_ICMP);
		return;
	}
	memcpy(k.raddr, to->addr, 16);
	f = flow_find(w, &k);
	if (!f) {
		if (!ip_family_on(w, to)) {
			refuse(w, to, ICMP_NET, h);
			return;
		}
		f = flow_new(w, &k);
		if (!f) {
			wire_count(w, C_ICMP);
			return;
		}
		f->state = ST_ASKED;
		w->n_echo_asked++;
		f->irs = be16(h->seq);
		/* The first request waits in the store until vault has answered. */
		if (n > CHUNK || cq_put(&w->pool, &f->store, POOL_UP, p, n) < n || !vault_ask(w, f)) {
			flow_end(w, f, NET_END_ERROR);
			return;
		}
		flow_due(w, f, w->now + 76000);
		return;
	}
	if (f->state == ST_REFUSED)
		refuse(w, to, f->dups, h);
	if (f->state != ST_OPEN)
		return;
	f->active = w->now;
	f->up += n;
	flow_due(w, f, w->now + ECHO_MS);
	(void)sendto(f->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}

void icmp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n, uint8_t hops)
{
	const struct icmp_hdr *h = (const struct icmp_hdr *)p;

	if (n < ICMP_LEN || h->type != (to->family == NET_V4 ? ECHO4 : ECHO6) || h->code != 0) {
		wire_count(w, C_ICMP);
		return;
	}
	if (ip_is_gateway(w, to))
		reply(w, to, h->id, h->seq, p + ICMP_LEN, n - ICMP_LEN);
	else
		echo_other(w, to, p, n);
}

void echo_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, uint32_t hold_s, int fd)
{
	struct peer to = { .family = f->family };
	struct icmp_hdr h = { .type = f->family == NET_V4 ? ECHO4 : ECHO6, .id = be16(f->gport), .seq = be16((uint16_t)f->irs) };
	struct iovec iov[2];
	int n;

	flow_answered(w, f);
	memcpy(to.addr, f->raddr, 16);
	if (outcome == NET_CONNECTED && flow_take_fd(w, f, fd) == 0) {
		f->state = ST_OPEN;
		f->flags |= F_TOLD;
		f->up = f->store.len;
		(void)cq_get(&w->pool, &f->store, 0, f->store.len, iov, 2, &n);
		if (writev(f->fd, iov, n) < 0)
			f->up = 0; /* echo may be lost */
		cq_consume(&w->pool, &f->store, POOL_UP, f->store.len);
		flow_due(w, f, w->now + ECHO_MS);
		return;
	}
	close_p(&fd);
	/* Not allowed to make a ping socket is "prohibited"; the guest's ping says so. */
	f->dups = (uint8_t)(outcome == NET_REFUSED ? ICMP_PORT :
			    error == EACCES || error == EPERM || error == EPROTONOSUPPORT ? ICMP_ADMIN : icmp_cause(error));
	refuse(w, &to, f->dups, &h);
	cq_consume(&w->pool, &f->store, POOL_UP, f->store.len);
	f->state = ST_REFUSED;
	flow_due(w, f, w->now + MIN(hold_s, 60u) * 1000 + 1);
}

void echo_serve(struct wire *w, struct flow *f)
{
	struct peer from = { .family = f->family };
	struct icmp_hdr h;
	ssize_t n;

	memcpy(from.addr, f->raddr, 16);
	while (f->flags & F_HOST_IN && link_room(w, sizeof(w->scratch))) {
		n = recv(f->fd, w->scratch, sizeof(w->scratch), MSG_DONTWAIT);
		if (n < 0) {
			f->flags &= ~(uint32_t)F_HOST_IN;
			return;
		}
		if (n < ICMP_LEN)
			continue;
		memcpy(&h, w->scratch, sizeof(h));
		f->down += (uint64_t)n;
		reply(w, &from, be16(f->gport), h.seq, w->scratch + ICMP_LEN, (size_t)n - ICMP_LEN);
	}
	if (f->flags & F_HOST_IN)
		flow_queue(w, f, Q_LINK);
}

void nd_input(struct wire *w, const uint8_t src[16], const uint8_t *p, size_t n, uint8_t hops)
{
	const struct nd_hdr *q = (const struct nd_hdr *)p;
	struct peer from = { .family = NET_V6 };
	const size_t len = sizeof(struct nd_hdr) + 8;
	struct ip6_hdr *ip;
	struct nd_hdr *a;
	uint8_t *out, *opt;
	uint64_t sum;

	if (n < sizeof(*q) || q->type != ND_SOLICIT || q->code != 0 || hops != 255 ||
	    (memcmp(q->target, w->cfg.gateway6, 16) != 0 && memcmp(q->target, ll_gateway, 16) != 0)) {
		wire_count(w, C_ND);
		return;
	}
	out = link_small(w, ip_head(NET_V6) + len);
	if (!out)
		return;
	memcpy(from.addr, q->target, 16);
	a = (struct nd_hdr *)ip_put(w, out, &from, PROTO_ICMP6, len);
	ip = (struct ip6_hdr *)(out + ETH_LEN);
	memcpy(ip->dst, src, 16);
	*a = (struct nd_hdr){ .type = ND_ADVERT, .flags = be32(ND_ADVERT_FLAGS) };
	memcpy(a->target, q->target, 16);
	opt = (uint8_t *)(a + 1);
	opt[0] = 2; /* target link-layer address */
	opt[1] = 1;
	memcpy(opt + 2, w->cfg.gateway_mac, 6);
	sum = csum_add(ip->src, 32) + be16(PROTO_ICMP6) + be16((uint16_t)len) + csum_add(a, len);
	a->sum = (uint16_t)~csum_fold(sum);
}
