#include "wire/udp.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "wire/csum.h"
#include "wire/dns.h"
#include "wire/icmp.h"
#include "wire/link.h"
#include "wire/vaultlink.h"

#define UDP_MAX 65507u
#define UDP_ONE_WAY_MS 120000u /* RFC 4787 section 4.3 */
#define UDP_BOTH_MS 300000u
#define UDP_ASKED_MS 76000u
#define UDP_TURN 32
#define PEER_PORT 49152u /* on the gateway: published peers stand behind it, one port each */
#define PEER_IDLE_MS 60000u

static struct peer peer_of(const struct flow *f)
{
	struct peer p = { .family = f->family };

	memcpy(p.addr, f->raddr, 16);
	return p;
}

void ip_send_staged(struct wire *w, const struct peer *from, uint8_t proto, const uint8_t *p, size_t n)
{
	size_t max = w->cfg.mtu - (ip_head(from->family) - ETH_LEN), at = 0;
	uint32_t id = w->frag_id++;
	uint8_t *out;

	if (n <= max) {
		out = link_hdr(w, n, 1);
		if (!out)
			return;
		(void)ip_put(w, out, from, proto, n);
		link_piece(w, p, n);
		link_end_keep(w, ip_head(from->family));
		return;
	}
	if (from->family == NET_V6)
		max -= FRAG6_LEN;
	max &= ~(size_t)7;
	for (; at < n; at += max) {
		size_t k = MIN(max, n - at);

		out = link_hdr(w, k, 1);
		if (!out)
			return;
		(void)ip_put_frag(w, out, from, proto, k, at, at + k < n, id);
		link_piece(w, p + at, k);
		link_end_keep(w, ip_head(from->family) + (from->family == NET_V6 ? FRAG6_LEN : 0));
	}
}

void udp_send(struct wire *w, const struct peer *from, uint16_t rport, uint16_t gport, uint8_t *p, size_t n)
{
	struct udp_hdr *h = (struct udp_hdr *)(p - UDP_LEN);
	uint16_t sum;

	*h = (struct udp_hdr){ .sport = be16(rport), .dport = be16(gport), .len = be16((uint16_t)(UDP_LEN + n)) };
	/* Over IPv4 there may be none (RFC 768), over IPv6 there must be (RFC 8200 section 8.1). */
	if (from->family == NET_V6) {
		sum = (uint16_t)~csum_fold(ip_pseudo(w, from, PROTO_UDP, UDP_LEN + n) + csum_add(h, UDP_LEN + n));
		h->sum = sum ? sum : 0xffff;
	}
	ip_send_staged(w, from, PROTO_UDP, (const uint8_t *)h, UDP_LEN + n);
}

static void refuse(struct wire *w, const struct peer *to, uint16_t rport, uint16_t gport, size_t n, enum icmp_cause cause)
{
	uint8_t l4[8] = { 0 };

	put16(l4, gport);
	put16(l4 + 2, rport);
	put16(l4 + 4, (uint16_t)(UDP_LEN + n));
	icmp_error(w, to, PROTO_UDP, cause, l4);
}

/* The table is full: the least recently used goes, one-sided ones before the others. */
static bool make_room(struct wire *w)
{
	struct flow *best = NULL;

	for (unsigned int i = UDP_FIRST; i < UDP_FIRST + w->n_fresh[FLOW_UDP]; i++) {
		struct flow *f = &w->flow[i];
		bool both = (f->flags & (F_UP | F_DOWN)) == (F_UP | F_DOWN);
		bool best_both = best && (best->flags & (F_UP | F_DOWN)) == (F_UP | F_DOWN);

		if (f->state != ST_OPEN && f->state != ST_REFUSED)
			continue;
		if (!best || both < best_both || (both == best_both && w->now - f->active > w->now - best->active))
			best = f;
	}
	if (!best)
		return false;
	wire_count(w, C_UDP_FULL);
	flow_end(w, best, NET_END_EVICTED);
	flow_sweep(w);
	return true;
}

static void published_answer(struct wire *w, uint16_t rport, uint16_t gport, const uint8_t *p, size_t n)
{
	unsigned int i = rport - PEER_PORT;

	w->peer[i].seen = w->now;
	vault_datagram(w, i, gport, p, n);
}

static bool is_published(const struct wire *w, uint16_t rport, uint16_t gport)
{
	unsigned int i = rport - PEER_PORT;

	return rport >= PEER_PORT && i < UDP_PEERS && w->peer[i].used && w->peer[i].gport == gport &&
	       w->now - w->peer[i].seen < PEER_IDLE_MS;
}

void udp_published(struct wire *w, uint32_t peer, uint16_t port, const uint8_t *p, size_t n)
{
	struct peer from = ip_gateway(w, NET_V4);
	uint8_t *m = link_stage(w, UDP_LEN + n);

	w->peer[peer] = (struct udp_peer){ .used = true, .gport = port, .seen = w->now };
	if (!m)
		return;
	memcpy(m + UDP_LEN, p, n);
	udp_send(w, &from, (uint16_t)(PEER_PORT + peer), port, m + UDP_LEN, n);
}

void udp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n)
{
	const struct udp_hdr *h = (const struct udp_hdr *)p;
	struct flow_key k = { .kind = FLOW_UDP, .family = to->family };
	bool gateway = ip_is_gateway(w, to);
	struct flow *f;
	size_t len;

	if (n < UDP_LEN) {
		wire_count(w, C_UDP_HEAD);
		return;
	}
	len = be16(h->len);
	k.gport = be16(h->sport);
	k.rport = be16(h->dport);
	if (len < UDP_LEN || len > n || len - UDP_LEN > UDP_MAX || k.gport == 0 || k.rport == 0) {
		wire_count(w, C_UDP_HEAD);
		return;
	}
	p += UDP_LEN;
	len -= UDP_LEN;
	if (gateway && k.rport == 53) {
		dns_udp(w, to->family, k.gport, p, len);
		return;
	}
	if (gateway && to->family == NET_V4 && is_published(w, k.rport, k.gport)) {
		published_answer(w, k.rport, k.gport, p, len);
		return;
	}
	memcpy(k.raddr, to->addr, 16);
	f = flow_find(w, &k);
	if (!f) {
		if (!ip_family_on(w, to)) {
			refuse(w, to, k.rport, k.gport, len, ICMP_NET);
			return;
		}
		if (w->n_udp_asked >= UDP_ASKED_MAX || w->vault_full) {
			wire_count(w, C_UDP_FULL);
			return;
		}
		f = flow_new(w, &k);
		if (!f && make_room(w))
			f = flow_new(w, &k);
		if (!f)
			return;
		f->state = ST_ASKED;
		w->n_udp_asked++;
		/* The first datagram waits in the store until vault has answered; 64 in all, as many as there are questions. */
		if (!vault_ask(w, f)) {
			flow_end(w, f, NET_END_ERROR);
			return;
		}
		if (cq_put(&w->pool, &f->store, POOL_UP, p, len) < len)
			cq_consume(&w->pool, &f->store, POOL_UP, f->store.len);
		else
			f->held_dgrams = 1;
		flow_due(w, f, w->now + UDP_ASKED_MS);
		return;
	}
	if (f->state == ST_REFUSED)
		refuse(w, to, k.rport, k.gport, len, f->dups);
	if (f->state != ST_OPEN)
		return;
	f->active = w->now;
	f->flags |= F_UP;
	f->up += len;
	if (sendto(f->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) >= 0)
		return;
	if (errno == ECONNREFUSED)
		refuse(w, to, k.rport, k.gport, len, ICMP_PORT);
	else if (fd_is_lack(errno))
		wire_count(w, C_LACK);
}

void udp_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, uint32_t hold_s, int fd)
{
	struct peer to = peer_of(f);
	struct iovec iov[3];
	size_t n = f->store.len;
	int k;

	flow_answered(w, f);
	f->state = ST_OPEN;
	if (outcome == NET_CONNECTED) {
		f->flags |= F_TOLD;
		if (flow_take_fd(w, f, fd) < 0) {
			close_p(&fd);
			flow_end(w, f, NET_END_ERROR);
			return;
		}
		if (f->held_dgrams) {
			(void)cq_get(&w->pool, &f->store, 0, n, iov, ARRAY_SIZE(iov), &k);
			f->flags |= F_UP;
			f->up = n;
			if (k > 0 && writev(f->fd, iov, k) < 0)
				f->up = 0; /* UDP may be lost */
			else if (k == 0)
				(void)sendto(f->fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
			cq_consume(&w->pool, &f->store, POOL_UP, n);
		}
		f->active = w->now;
		flow_due(w, f, w->now + UDP_ONE_WAY_MS);
		return;
	}
	f->dups = (uint8_t)(outcome == NET_REFUSED ? ICMP_PORT : icmp_cause(error));
	refuse(w, &to, f->rport, f->gport, n, f->dups);
	cq_consume(&w->pool, &f->store, POOL_UP, n);
	f->state = ST_REFUSED;
	flow_due(w, f, w->now + MIN(hold_s, 60u) * 1000 + 1);
}

void udp_serve(struct wire *w, struct flow *f)
{
	struct peer from = peer_of(f);
	uint8_t *m;
	ssize_t n;

	for (int i = 0; i < UDP_TURN && f->flags & F_HOST_IN; i++) {
		m = link_stage(w, UDP_LEN + UDP_MAX);
		if (!m) {
			flow_queue(w, f, Q_LINK);
			return;
		}
		n = recv(f->fd, m + UDP_LEN, UDP_MAX, MSG_DONTWAIT);
		w->stage_n -= UDP_MAX - (n > 0 ? (size_t)n : 0);
		if (n < 0) {
			w->stage_n -= UDP_LEN;
			if (errno == EAGAIN)
				f->flags &= ~(uint32_t)F_HOST_IN;
			else if (errno == ECONNREFUSED)
				refuse(w, &from, f->rport, f->gport, 0, ICMP_PORT);
			continue;
		}
		f->active = w->now;
		f->flags |= F_DOWN;
		f->down += (uint64_t)n;
		udp_send(w, &from, f->rport, f->gport, m + UDP_LEN, (size_t)n);
	}
	if (f->flags & F_HOST_IN)
		flow_queue(w, f, Q_READY);
}

void udp_timer(struct wire *w, struct flow *f)
{
	uint32_t idle = (f->flags & (F_UP | F_DOWN)) == (F_UP | F_DOWN) ? UDP_BOTH_MS : UDP_ONE_WAY_MS;

	if (f->state == ST_OPEN && w->now - f->active < idle)
		flow_due(w, f, f->active + idle);
	else
		flow_end(w, f, NET_END_IDLE);
}
