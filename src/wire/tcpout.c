/* TCP towards the guest, the half that speaks: segments from the ring, windows, probes, what is sent again, and the timers of
 * a flow's states. How the halves fit together is at the head of tcp.c. */
#include "wire/tcpout.h"

#include <errno.h>

#include "base/macros.h"
#include "wire/csum.h"
#include "wire/dns.h"
#include "wire/link.h"
#include "wire/vaultlink.h"

#define SCALE 8
#define WND_LARGE (1u << 20)
#define WND_INSPECT (64u << 10)
#define TURN (256u << 10)
#define RTO_MAX_MS 10000u
#define TRIES_MAX 15
#define SYNACK_TRIES 6
#define SYN_TRIES 5
#define HALF_MS (30u * 60 * 1000)
#define PRESSURE_MS 3000u
#define ACK_LATER_MS 10
/* gate keeps at most 16 KiB before it has decided and the pair holds what the kernel allows (208 KiB): when this much was
 * taken, the verdict is behind us. */
#define INSPECT_DECIDED (512u << 10)

/* Segments */

static uint32_t window_limit(const struct wire *w, const struct flow *f)
{
	if (f->flags & F_DNS)
		return WND_SMALL;
	if (f->flags & F_INSPECT && f->written < INSPECT_DECIDED)
		return WND_INSPECT;
	return f->drained >= DRAINED_BATCHES && w->pool.n_free[POOL_UP] > POOL_HALF / 4 ? WND_LARGE : WND_SMALL;
}

/* Bytes that we would offer now; the right edge never moves left. */
uint32_t tcp_window(const struct wire *w, const struct flow *f)
{
	uint32_t limit = window_limit(w, f), told = f->rcv_adv - f->rcv_nxt, wnd;

	wnd = f->store.len < limit ? limit - f->store.len : 0;
	if (!(f->flags & F_SCALE))
		return MAX(MIN(wnd, 65535u), told);
	wnd &= ~((1u << SCALE) - 1);
	return wnd > told ? wnd : (told + (1u << SCALE) - 1) & ~((1u << SCALE) - 1);
}

/* Ports, numbers and sum; the header is at @h with @opt bytes of options, payload's sum is @sum. */
static void tcp_finish(const struct wire *w, const struct peer *from, struct tcp_hdr *h, size_t opt, size_t len, uint64_t sum)
{
	h->off = (uint8_t)((TCP_LEN + opt) / 4 << 4);
	h->sum = 0;
	h->urg = 0;
	sum += ip_pseudo(w, from, PROTO_TCP, TCP_LEN + opt + len) + csum_add(h, TCP_LEN + opt);
	h->sum = (uint16_t)~csum_fold(sum);
}

/* An RST that answers a segment which belongs to no flow (RFC 9293 section 3.5.2), or ends a refused SYN. */
void tcp_rst_raw(struct wire *w, const struct peer *from, uint16_t rport, uint16_t gport, uint32_t seq, uint32_t ack,
		 uint8_t flags)
{
	uint8_t *out = link_small(w, ip_head(from->family) + TCP_LEN);
	struct tcp_hdr *h;

	if (!out)
		return;
	h = (struct tcp_hdr *)ip_put(w, out, from, PROTO_TCP, TCP_LEN);
	*h = (struct tcp_hdr){ .sport = be16(rport), .dport = be16(gport), .seq = be32(seq), .ack = be32(ack), .flags = flags };
	tcp_finish(w, from, h, 0, 0, 0);
}

static void rst_flow(struct wire *w, const struct flow *f)
{
	struct peer from = tcp_peer(f);

	if (f->state == ST_ASKED)
		tcp_rst_raw(w, &from, f->rport, f->gport, 0, f->irs + 1, TH_RST | TH_ACK);
	else if (f->state != ST_TIME_WAIT)
		tcp_rst_raw(w, &from, f->rport, f->gport, f->snd_nxt, f->rcv_nxt, TH_RST | TH_ACK);
}

void tcp_reset(struct wire *w, struct flow *f, enum net_end how)
{
	if (f->state == ST_DEAD)
		return;
	if (w->gather == flow_slot(w, f) + 1)
		tcp_gather_end(w);
	if (f->state == ST_DEAD)
		return;
	rst_flow(w, f);
	if (f->state == ST_SYN_SENT)
		vault_inbound_done(w, f, how == NET_END_RST_GUEST ? NET_REFUSED : NET_FAILED, ETIMEDOUT);
	flow_end(w, f, how);
}

/* One segment into the batch: @len bytes from @seq, which stand in the ring. False: the link is full. */
static bool segment(struct wire *w, struct flow *f, uint8_t flags, uint32_t seq, uint32_t len, bool probe)
{
	struct peer from = tcp_peer(f);
	uint8_t opts[8] = { 2, 4, 0, 0, 1, 3, 3, SCALE };
	size_t opt = 0, head = ip_head(f->family);
	static const uint8_t byte[1];
	struct iovec iov[3];
	uint32_t wnd;
	uint64_t sum = 0;
	struct tcp_hdr *h;
	uint8_t *out;
	int n_iov = 0;

	if (flags & TH_SYN) {
		put16(opts + 2, (uint16_t)(w->cfg.mtu - (head - ETH_LEN) - TCP_LEN));
		opt = f->state == ST_SYN_SENT || f->flags & F_SCALE ? 8 : 4;
	}
	out = link_hdr(w, len, 3);
	if (!out)
		return false;
	if (probe) {
		iov[n_iov++] = (struct iovec){ (void *)(uintptr_t)byte, 1 };
		len = 1;
	} else if (len > 0) {
		(void)cq_get(&w->pool, &f->ring, seq - f->snd_una, len, iov, 3, &n_iov);
	}
	for (int i = 0, odd = 0; i < n_iov; i++) {
		uint64_t s = csum_add(iov[i].iov_base, iov[i].iov_len);

		sum += odd ? csum_odd(s) : s;
		odd ^= iov[i].iov_len & 1;
		link_piece(w, iov[i].iov_base, iov[i].iov_len);
	}
	h = (struct tcp_hdr *)ip_put(w, out, &from, PROTO_TCP, TCP_LEN + opt + len);
	h->sport = be16(f->rport);
	h->dport = be16(f->gport);
	h->seq = be32(seq);
	h->ack = flags & TH_ACK ? be32(f->rcv_nxt) : 0;
	h->flags = flags;
	if (flags & TH_SYN) {
		/* Never scaled (RFC 7323 section 2.2). */
		wnd = MIN(window_limit(w, f), 65535u);
		h->win = be16((uint16_t)wnd);
		if (flags & TH_ACK)
			f->rcv_adv = f->rcv_nxt + wnd;
	} else {
		wnd = tcp_window(w, f);
		f->rcv_adv = f->rcv_nxt + wnd;
		h->win = be16((uint16_t)(f->flags & F_SCALE ? wnd >> SCALE : wnd));
		f->flags &= ~(uint32_t)(F_OWE_ACK | F_ACK_LATER);
	}
	memcpy(h + 1, opts, opt);
	tcp_finish(w, &from, h, opt, len, sum);
	w->tx[w->tx_n].fin = flags & TH_FIN;
	link_end_flow(w, head + TCP_LEN + opt, f, seq, probe ? 0 : len, f->snd_max);
	return true;
}

void tcp_unsent(struct wire *w, const struct tx_frame *t)
{
	struct flow *f = flow_by(w, t->slot, t->gen);

	if (!f)
		return;
	if (f->state == ST_SYN_RCVD || f->state == ST_SYN_SENT) {
		f->flags |= F_OWE_SYN;
	} else if (t->len > 0 || t->fin) {
		if (seq_diff(t->seq, f->snd_nxt) < 0)
			f->snd_nxt = t->seq;
		f->snd_max = t->max;
	}
	f->flags |= F_OWE_ACK;
	flow_queue(w, f, Q_LINK);
}

/* Down */

/* Half of the chunks for this direction are taken: the flow whose bytes wait longest for an acknowledgement, above 3 s, is
 * reset, so that readers who never read cannot stop the others. */
void tcp_pressure(struct wire *w)
{
	struct flow *worst = NULL;
	uint32_t longest = PRESSURE_MS;

	if (w->pool.n_free[POOL_DOWN] >= POOL_HALF / 2 || w->now - w->pressure_ms < TCP_PRESSURE_EACH_MS || w->link_full)
		return;
	w->pressure_ms = w->now;
	for (unsigned int i = 0; i < w->n_fresh[FLOW_TCP]; i++) {
		struct flow *f = &w->flow[i];
		uint32_t waits = w->now - MAX(f->una_ms, w->link_since);

		if (f->state == ST_OPEN && f->ring.len > 0 && waits > longest) {
			longest = waits;
			worst = f;
		}
	}
	if (worst) {
		wire_count(w, C_POOL_RESET);
		tcp_reset(w, worst, NET_END_ERROR);
	}
}

/* Read as much as the guest's window, the ring and the pool admit; true: there may be more. */
static bool pull(struct wire *w, struct flow *f)
{
	uint32_t limit = MIN(f->snd_wnd, RING_MAX), share, want;
	struct iovec iov[6];
	int n_iov = ARRAY_SIZE(iov);
	ssize_t n;

	if (!(f->flags & F_HOST_IN) || f->flags & (F_HOST_EOF | F_RECOVER) || f->ring.len >= limit)
		return false;
	tcp_pressure(w);
	if (f->state != ST_OPEN)
		return false;
	share = MAX(w->pool.n_free[POOL_DOWN] / 8u, 1u) * CHUNK;
	if (f->ring.len >= share)
		return false;
	want = MIN(MIN(limit, share) - f->ring.len, TURN);
	if (want > f->mss)
		want -= want % f->mss;
	want = (uint32_t)cq_space(&w->pool, &f->ring, POOL_DOWN, want, iov, &n_iov);
	if (want == 0) {
		flow_queue(w, f, Q_POOL);
		return false;
	}
	do
		n = readv(f->fd, iov, n_iov);
	while (n < 0 && errno == EINTR);
	cq_grew(&w->pool, &f->ring, POOL_DOWN, n > 0 ? (size_t)n : 0);
	if (n > 0) {
		if (f->ring.len == (uint32_t)n)
			f->una_ms = w->now;
		f->down += (uint64_t)n;
		f->active = w->now;
		if (f->pingpong < PINGPONG && w->now - f->ack_ms < ACK_LATER_MS)
			f->pingpong++;
		if ((size_t)n < want && !(f->flags & F_READ_ON))
			f->flags &= ~(uint32_t)F_HOST_IN;
		return f->flags & F_HOST_IN;
	}
	f->flags &= ~(uint32_t)F_HOST_IN;
	if (n == 0 && f->flags & F_HELD)
		return false; /* gate closes its end of the pair when it has handed over; HANDOVER may still be on its way */
	/* gate has an answer for whoever it hears out: it has left, and its RESET is late. */
	if (n == 0 && !(f->flags & F_HOST_RST) && (!(f->flags & F_INSPECT) || f->down > 0)) {
		f->flags |= F_HOST_EOF;
		if (!(f->flags & F_GUEST_FIN))
			f->flags |= F_FIN_FIRST;
	} else if (n == 0 || errno != EAGAIN) {
		if (!(f->flags & F_HOST_RST))
			f->rst_by = w->now + RST_AFTER_MS;
		f->flags |= F_HOST_RST;
	}
	return false;
}

/* Send what window and recovery admit. False: the link is full. */
static bool push(struct wire *w, struct flow *f)
{
	for (;;) {
		uint32_t end = f->snd_una + f->ring.len, admit = MIN(f->ring.len, f->snd_wnd), len, old = f->snd_max;
		uint8_t flags = TH_ACK;
		int32_t room;

		if (f->flags & F_RECOVER)
			admit = MIN(admit, f->rex_wnd);
		room = seq_diff(f->snd_una + admit, f->snd_nxt);
		len = room > 0 ? MIN((uint32_t)room, f->mss) : 0;
		if (f->snd_nxt + len == end && (f->flags & (F_HOST_EOF | F_FIN_ACKED)) == F_HOST_EOF)
			flags |= TH_FIN;
		else if (len == 0)
			return true;
		if (len > 0 && f->snd_nxt + len == end)
			flags |= TH_PSH;
		if (tcp_in_flight(f) == 0)
			f->una_ms = w->now;
		if (!segment(w, f, flags, f->snd_nxt, len, false))
			return false;
		f->snd_nxt += len + (flags & TH_FIN ? 1 : 0);
		if (seq_diff(f->snd_nxt, old) > 0)
			f->snd_max = f->snd_nxt;
	}
}
void tcp_serve(struct wire *w, struct flow *f)
{
	bool more = false;

	switch (f->state) {
	case ST_SYN_RCVD:
	case ST_SYN_SENT:
		if (!(f->flags & F_OWE_SYN))
			return;
		if (segment(w, f, f->state == ST_SYN_SENT ? TH_SYN : TH_SYN | TH_ACK, f->iss, 0, false))
			f->flags &= ~(uint32_t)F_OWE_SYN;
		else
			flow_queue(w, f, Q_LINK);
		return;
	case ST_TIME_WAIT:
		if (f->flags & F_OWE_ACK && !segment(w, f, TH_ACK, f->snd_nxt, 0, false)) {
			flow_queue(w, f, Q_LINK);
			return;
		}
		flow_queue(w, f, Q_TIME_WAIT);
		return;
	case ST_OPEN:
		break;
	default:
		return;
	}
	if (w->link_full) {
		flow_queue(w, f, Q_LINK);
		return;
	}
	if (f->fd >= 0)
		more = pull(w, f);
	if (f->state != ST_OPEN)
		return;
	if (!push(w, f)) {
		flow_queue(w, f, Q_LINK);
		return;
	}
	if (f->flags & F_HOST_RST && f->ring.len == 0) {
		tcp_reset(w, f, NET_END_RST_HOST);
		return;
	}
	/* A window that opens is told at once, an acknowledgement in any case. */
	while (f->flags & F_OWE_ACK || f->dup_acks > 0) {
		if (!(f->flags & F_OWE_ACK))
			f->dup_acks--;
		if (!segment(w, f, TH_ACK, f->snd_nxt, 0, false)) {
			flow_queue(w, f, Q_LINK);
			return;
		}
	}
	tcp_open_due(w, f);
	if (more && f->queue == Q_NONE)
		flow_queue(w, f, Q_READY);
}

/* Timers */

/* The next time at which an open flow needs to be looked at. */
void tcp_open_due(struct wire *w, struct flow *f)
{
	uint32_t due = 0;

	if (f->flags & F_HOST_RST)
		due = f->rst_by;
	else if (tcp_in_flight(f) > 0)
		due = MAX(MAX(f->una_ms, f->rex_ms), w->link_since) + f->rto;
	else if (f->snd_wnd == 0 && (f->ring.len > 0 || f->flags & (F_HOST_IN | F_PROBE)))
		due = MAX(MAX(f->una_ms, f->rex_ms), w->link_since) + f->rto;
	else if (f->flags & F_DNS)
		due = f->rst_by + DNS_IDLE_MS;
	else if (f->flags & (F_GUEST_FIN | F_HOST_EOF))
		due = f->active + HALF_MS;
	if (f->flags & F_ACK_LATER)
		due = due == 0 ? f->ack_ms + ACK_LATER_MS : MIN(due, f->ack_ms + ACK_LATER_MS);
	flow_due(w, f, due == 0 ? 0 : MAX(due, w->now + 1));
}

void tcp_recover(struct wire *w, struct flow *f)
{
	f->flags |= F_RECOVER;
	f->recover = f->snd_max;
	f->snd_nxt = f->snd_una;
	f->rex_wnd = f->mss;
	f->rex_una = f->snd_una;
	f->rex_ms = w->now;
	flow_wake(w, f);
}

static void open_timer(struct wire *w, struct flow *f)
{
	uint32_t since = MAX(MAX(f->una_ms, f->rex_ms), w->link_since);
	bool probe = f->snd_wnd == 0 && (tcp_in_flight(f) > 0 || f->ring.len > 0 || f->flags & (F_HOST_IN | F_PROBE));

	if (f->flags & F_HOST_RST && w->now - f->rst_by < UINT32_MAX / 2) {
		tcp_reset(w, f, NET_END_RST_HOST);
		return;
	}
	if (f->flags & F_ACK_LATER && w->now - f->ack_ms >= ACK_LATER_MS) {
		f->flags = (f->flags | F_OWE_ACK) & ~(uint32_t)F_ACK_LATER;
		f->pingpong = PINGPONG_OFF;
		flow_wake(w, f);
	}
	/* A stopped guest is not a lost one. */
	if ((probe || tcp_in_flight(f) > 0) && !w->link_full && w->now - since >= f->rto) {
		if (f->tries++ >= TRIES_MAX) {
			tcp_reset(w, f, NET_END_ERROR);
			return;
		}
		f->rto = (uint16_t)MIN(f->rto * 2u, RTO_MAX_MS);
		if (probe) {
			f->flags |= F_PROBE;
			f->rex_ms = w->now;
			/* A byte that was acknowledged long ago: the answer tells the window (RFC 9293 section 3.8.6.1). */
			(void)segment(w, f, TH_ACK, f->snd_una - 1, 0, true);
		} else {
			tcp_recover(w, f);
		}
	} else if (f->flags & F_DNS && tcp_in_flight(f) == 0 && w->now - f->rst_by >= DNS_IDLE_MS) {
		dns_conn_idle(w, f);
		f->rst_by = w->now;
		if (f->state != ST_OPEN)
			return;
	} else if (f->flags & (F_GUEST_FIN | F_HOST_EOF) && w->now - f->active >= HALF_MS) {
		tcp_reset(w, f, NET_END_IDLE);
		return;
	}
	tcp_open_due(w, f);
}

void tcp_timer(struct wire *w, struct flow *f)
{
	uint8_t max = f->state == ST_SYN_RCVD ? SYNACK_TRIES : SYN_TRIES;

	switch (f->state) {
	case ST_ASKED:
		tcp_open_fail(w, f, NET_FAILED, ETIMEDOUT);
		flow_end(w, f, NET_END_ERROR);
		break;
	case ST_SYN_RCVD:
	case ST_SYN_SENT:
		if (w->link_full) {
			flow_due(w, f, w->now + f->rto);
			break;
		}
		if (++f->tries >= max) {
			tcp_reset(w, f, NET_END_ERROR);
			break;
		}
		f->rto = (uint16_t)(f->rto * 2);
		flow_due(w, f, w->now + f->rto);
		f->flags |= F_OWE_SYN;
		flow_wake(w, f);
		break;
	case ST_OPEN:
		open_timer(w, f);
		break;
	case ST_TIME_WAIT:
		flow_end(w, f, NET_END_FIN);
		break;
	default:
		break;
	}
}
