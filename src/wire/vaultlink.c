#include "wire/vaultlink.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "wire/dns.h"
#include "wire/flow.h"
#include "wire/icmp.h"
#include "wire/link.h"
#include "wire/tcp.h"
#include "wire/udp.h"

#define MESSAGES_A_TURN 64
#define MTU_MIN 1280

static bool vault_sendv(struct wire *w, const struct iovec *iov, int n)
{
	ssize_t r;

	do
		r = writev(w->vault, iov, n);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return true;
	/* A lack of memory passes: to watch for room again says at once that there is some. */
	if (errno == EAGAIN || fd_is_lack(errno)) {
		w->vault_full = true;
		(void)ev_watch(&w->ev, w->vault, WIRE_WATCH_OUT, EV_VAULT, 0, 0);
	} else {
		wire_over(w, NULL);
	}
	return false;
}

static bool vault_send(struct wire *w, const void *m, size_t n)
{
	struct iovec iov = { (void *)(uintptr_t)m, n };

	return vault_sendv(w, &iov, 1);
}

static struct net_head head(uint16_t type, size_t length, uint32_t slot, uint32_t gen)
{
	return (struct net_head){ NET_VERSION, type, (uint32_t)length, slot, gen };
}

bool vault_ask(struct wire *w, struct flow *f)
{
	static const uint16_t type[] = { [FLOW_TCP] = NET_OPEN_TCP, [FLOW_UDP] = NET_OPEN_UDP, [FLOW_ECHO] = NET_OPEN_ECHO };
	struct net_open m = { .head = head(type[f->kind], sizeof(m), flow_slot(w, f), f->gen),
			      .dst = { .family = f->family }, .port = f->rport,
			      .guest_port = f->kind == FLOW_ECHO ? 0 : f->gport };

	memcpy(m.dst.b, f->raddr, 16);
	if (!vault_send(w, &m, sizeof(m)))
		return false;
	f->flags |= F_ASKED;
	return true;
}

bool vault_owed(struct wire *w, struct flow *f)
{
	uint32_t slot = f->flags & F_INBOUND ? f->in_slot | NET_SLOT_INBOUND : flow_slot(w, f);
	uint32_t gen = f->flags & F_INBOUND ? f->in_gen : f->gen;

	if (f->flags & F_OWE_CANCEL) {
		struct net_head m = head(NET_CANCEL, sizeof(m), slot, gen);

		if (!vault_send(w, &m, sizeof(m)))
			return w->over;
		f->flags &= ~(uint32_t)F_OWE_CANCEL;
	}
	if (f->flags & F_OWE_ENDED) {
		struct net_ended m = { .head = head(NET_ENDED, sizeof(m), slot, gen), .up = f->up, .down = f->down,
				       .ms = w->now - f->born, .how = f->end };

		if (!vault_send(w, &m, sizeof(m)))
			return w->over;
		f->flags &= ~(uint32_t)F_OWE_ENDED;
	}
	return true;
}

void vault_inbound_done(struct wire *w, const struct flow *f, enum net_outcome outcome, int error)
{
	struct net_opened m = { .head = head(NET_INBOUND_DONE, sizeof(m), f->in_slot, f->in_gen), .outcome = outcome,
				.error = outcome == NET_FAILED ? (uint32_t)error : 0 };

	/* Vault counts it as waiting until it is told, so it waits for room, in order. Vault lets INBOUND_MAX wait; beyond them there
	 * is nothing to tell. */
	if ((w->n_done == 0 && vault_send(w, &m, sizeof(m))) || w->n_done == INBOUND_MAX)
		return;
	w->done[(w->done_head + w->n_done++) % INBOUND_MAX] = m;
}

bool vault_tell_done(struct wire *w)
{
	while (w->n_done > 0) {
		if (!vault_send(w, &w->done[w->done_head], sizeof(*w->done)))
			return false;
		w->done_head = (w->done_head + 1) % INBOUND_MAX;
		w->n_done--;
	}
	return true;
}

void vault_datagram(struct wire *w, uint32_t peer, uint16_t port, const uint8_t *p, size_t n)
{
	struct net_datagram m = { .head = head(NET_UDP_OUT, sizeof(m) + n, 0, 0), .peer = peer, .port = port, .bytes = (uint16_t)n };
	struct iovec iov[2] = { { &m, sizeof(m) }, { (void *)(uintptr_t)p, n } };

	(void)vault_sendv(w, iov, 2);
}

bool vault_dns(struct wire *w, const struct net_dns_ask *ask)
{
	return vault_send(w, ask, sizeof(*ask));
}

static void config(struct wire *w, const struct net_config *c)
{
	struct net_head m = head(NET_CONFIGURED, sizeof(m), c->head.slot, c->head.generation);

	if (w->configured || c->mtu < MTU_MIN || c->mtu > 65520 || c->ipv6 > 1 || c->no_network > 1 || c->guest_mac[0] & 1 ||
	    memcmp(c->guest_mac, c->gateway_mac, 6) == 0 || memcmp(c->guest4, c->gateway4, 4) == 0) {
		wire_over(w, "vault: a configuration that cannot be");
		return;
	}
	w->cfg = *c;
	w->v4_on = true;
	w->v6_on = c->ipv6;
	w->configured = w->link_in = true;
	(void)vault_send(w, &m, sizeof(m));
}

static void opened(struct wire *w, const struct net_opened *m, int fd)
{
	static const uint16_t type[] = { [FLOW_TCP] = NET_TCP_OPENED, [FLOW_UDP] = NET_UDP_OPENED, [FLOW_ECHO] = NET_ECHO_OPENED };
	struct flow *f = flow_by(w, m->head.slot, m->head.generation);
	bool with = m->outcome == NET_CONNECTED || (m->outcome == NET_INSPECT && m->head.type == NET_TCP_OPENED);

	if (m->head.slot >= FLOWS || with != (fd != -1) || (!with && m->outcome != NET_REFUSED && m->outcome != NET_FAILED)) {
		wire_over(w, "vault: an answer that cannot be");
		close_p(&fd);
		return;
	}
	if (!f) {
		/* Cancelled meanwhile. */
		close_p(&fd);
		return;
	}
	if (f->state != ST_ASKED || type[f->kind] != m->head.type) {
		wire_over(w, "vault: a second answer");
		close_p(&fd);
		return;
	}
	if (f->kind == FLOW_TCP)
		tcp_opened(w, f, m->outcome, (int)m->error, fd);
	else if (f->kind == FLOW_UDP)
		udp_opened(w, f, m->outcome, (int)m->error, m->hold_s, fd);
	else
		echo_opened(w, f, m->outcome, (int)m->error, m->hold_s, fd);
}

static void inbound(struct wire *w, const struct net_inbound *m, int fd)
{
	struct flow refused = { .in_slot = m->head.slot, .in_gen = m->head.generation };

	if (fd == -1 || m->port == 0 || (m->family != NET_V4 && m->family != NET_V6) || m->head.slot & NET_SLOT_INBOUND) {
		wire_over(w, "vault: a published connection that cannot be");
		close_p(&fd);
		return;
	}
	if (w->cfg.no_network || (m->family == NET_V6 && !w->cfg.ipv6) ||
	    !tcp_inbound(w, m->head.slot, m->head.generation, m->port, m->family, fd)) {
		flow_reject_fd(fd);
		vault_inbound_done(w, &refused, NET_REFUSED, 0);
	}
}

static struct flow *named(struct wire *w, const struct net_head *h)
{
	if (!(h->slot & NET_SLOT_INBOUND))
		return flow_by(w, h->slot, h->generation);
	for (unsigned int i = 0; i < w->n_fresh[FLOW_TCP]; i++) {
		struct flow *f = &w->flow[i];

		if (f->state != ST_FREE && f->state != ST_DEAD && f->flags & F_INBOUND &&
		    f->in_slot == (h->slot & ~NET_SLOT_INBOUND) && f->in_gen == h->generation)
			return f;
	}
	return NULL;
}

static void reset(struct wire *w, struct flow *f)
{
	if (f && f->kind == FLOW_TCP)
		tcp_reset(w, f, NET_END_RST_HOST);
	else if (f)
		flow_end(w, f, NET_END_ERROR);
}

/* One message; its length is what its type says. */
static void vault_message(struct wire *w, size_t n, int fd)
{
	union {
		struct net_head head;
		struct net_opened opened;
		struct net_inbound inbound;
		struct net_config config;
		struct net_family family;
		struct net_datagram dgram;
		struct net_dns_answer dns;
	} m = { .head = { 0 } };
	bool may_fd = false;
	size_t want, more = 0;

	if (n < sizeof(m.head))
		goto bad;
	memcpy(&m, w->msg, MIN(n, sizeof(m)));
	if (m.head.version != NET_VERSION || m.head.length != n)
		goto bad;
	if (!w->configured && m.head.type != NET_CONFIG)
		goto bad;
	switch (m.head.type) {
	case NET_TCP_OPENED:
	case NET_UDP_OPENED:
	case NET_ECHO_OPENED:
		want = sizeof(m.opened);
		may_fd = true;
		break;
	case NET_INBOUND:
		want = sizeof(m.inbound);
		may_fd = true;
		break;
	case NET_CONFIG:
		want = sizeof(m.config);
		break;
	case NET_FAMILY:
		want = sizeof(m.family);
		break;
	case NET_CLOSE:
		want = sizeof(m.head);
		break;
	case NET_UDP_IN:
		want = sizeof(m.dgram);
		more = m.dgram.bytes;
		if (n < want || more > NET_DATAGRAM_MAX || m.dgram.peer >= UDP_PEERS || m.dgram.port == 0)
			goto bad;
		break;
	case NET_DNS_ANSWER:
		want = sizeof(m.dns);
		if (n < want || m.dns.bytes > NET_DNS_MAX)
			goto bad;
		more = m.dns.bytes;
		break;
	default:
		goto bad;
	}
	if (n != want + more || (fd != -1 && !may_fd))
		goto bad;
	switch (m.head.type) {
	case NET_INBOUND:
		inbound(w, &m.inbound, fd);
		break;
	case NET_CONFIG:
		config(w, &m.config);
		break;
	case NET_FAMILY:
		w->v4_on = m.family.ipv4;
		w->v6_on = m.family.ipv6 && w->cfg.ipv6;
		break;
	case NET_CLOSE:
		reset(w, named(w, &m.head));
		break;
	case NET_UDP_IN:
		if (!w->cfg.no_network)
			udp_published(w, m.dgram.peer, m.dgram.port, w->msg + want, more);
		break;
	case NET_DNS_ANSWER:
		dns_answer(w, m.head.slot, m.head.generation, w->msg + want, more);
		break;
	default:
		opened(w, &m.opened, fd);
	}
	return;
bad:
	close_p(&fd);
	wire_over(w, "vault: a message that cannot be");
}

void vault_read(struct wire *w)
{
	for (int i = 0; i < MESSAGES_A_TURN && w->vault_in && !w->over; i++) {
		int fd = -1;
		ssize_t n;

		/* An answer must find room: while the link is full nothing is read here. */
		if (w->configured && !link_room(w, sizeof(w->msg)))
			return;
		n = fd_recv(w->vault, w->msg, sizeof(w->msg), &fd, 1);
		if (n == -EAGAIN)
			w->vault_in = false;
		else if (n == -EBADMSG)
			wire_over(w, "vault: a message that was cut");
		else if (n <= 0)
			wire_over(w, NULL);
		else
			vault_message(w, (size_t)n, fd);
	}
}

static void gate_message(struct wire *w, size_t n, int fd)
{
	struct net_head h;
	struct flow *f;

	memcpy(&h, w->msg, MIN(n, sizeof(h)));
	if (n != sizeof(h) || h.version != NET_VERSION || h.length != n || (fd != -1) != (h.type == NET_HANDOVER) ||
	    (h.type != NET_HOLD && h.type != NET_HANDOVER && h.type != NET_RESET)) {
		close_p(&fd);
		wire_over(w, "gate: a message that cannot be");
		return;
	}
	f = flow_by(w, h.slot, h.generation);
	if (f && f->kind == FLOW_TCP && f->state == ST_ASKED && h.type != NET_HANDOVER) {
		/* vault's answer is on its way, or waits until the link has room; gate has lost patience with a guest that could not speak.
		 * The pair is closed when it comes. */
		tcp_reset(w, f, NET_END_RST_HOST);
		return;
	}
	if (!f || f->kind != FLOW_TCP || !(f->flags & F_INSPECT)) {
		/* Gone meanwhile: HOLD gets no answer, as the pair is closed. What was never gate's is not gate's to say. */
		close_p(&fd);
		if (f)
			wire_over(w, "gate: a flow that is not its own");
		return;
	}
	if (h.type == NET_RESET) {
		tcp_reset(w, f, NET_END_RST_HOST);
	} else if (h.type == NET_HOLD) {
		struct net_held m = { .head = { NET_VERSION, NET_HELD, sizeof(m), h.slot, h.generation } };

		if (f->flags & F_HELD) {
			wire_over(w, "gate: a second HOLD");
			return;
		}
		m.bytes = tcp_hold(w, f);
		if (write(w->gate, &m, sizeof(m)) == (ssize_t)sizeof(m))
			return;
		/* For gate the end of the pair is an answer, too. */
		if (fd_is_lack(errno))
			tcp_reset(w, f, NET_END_ERROR);
		else
			wire_over(w, "gate does not read its answers");
	} else if (!(f->flags & F_HELD)) {
		close_p(&fd);
		wire_over(w, "gate: HANDOVER without HOLD");
	} else if (tcp_handover(w, f, fd) < 0) {
		flow_reject_fd(fd);
		tcp_reset(w, f, NET_END_ERROR);
	}
}

void gate_read(struct wire *w)
{
	for (int i = 0; i < MESSAGES_A_TURN && w->gate_in && !w->over; i++) {
		int fd = -1;
		ssize_t n = fd_recv(w->gate, w->msg, sizeof(w->msg), &fd, 1);

		if (n == -EAGAIN)
			w->gate_in = false;
		else if (n == -EBADMSG)
			wire_over(w, "gate: a message that was cut");
		else if (n <= 0)
			wire_over(w, NULL);
		else
			gate_message(w, (size_t)n, fd);
	}
}
