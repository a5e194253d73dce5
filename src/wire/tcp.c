/* TCP towards the guest.
 *
 * What is left of RFC 9293 when the peer is one kernel behind a link that keeps order: no reordering, no congestion, no
 * round trips to measure. Sequence numbers are compared as differences; snd_una is always the number of the first byte of
 * the ring, rcv_nxt of the first byte that was not taken. Bytes up go from the read buffer into the socket in the same
 * batch (the gather); what the socket refuses goes to the store, never more than the window that was offered. Bytes down go
 * from the socket into the ring and stay there until they are acknowledged. Acknowledgements are owed (F_OWE_ACK), not
 * queued. What is sent, and when, is in tcpout.c. Rules with numbers are those of the network page. */
#include "wire/tcpout.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "wire/dns.h"
#include "wire/icmp.h"
#include "wire/link.h"
#include "wire/vaultlink.h"

#define SCALE_MAX 14	/* RFC 7323 section 2.3 */
#define MSS_MIN 216
#define MSS_DEFAULT4 536
#define MSS_DEFAULT6 1220
#define RTO_MS 200u
#define ASKED_MS 76000u /* vault gives up at 75 s */
#define TIME_WAIT_MS 2000u
#define EVICT_IDLE_MS 60000u
#define DUP_ACKS 3
#define ACK_LATER_BYTES 4096

/* Options of a segment: false when they are not well formed. Only those of a SYN are used; the first of a kind counts. */
static bool options(const uint8_t *p, size_t n, uint16_t *mss, int *scale)
{
	bool have_mss = false;
	size_t i = 0;

	*mss = 0;
	*scale = -1;
	while (i < n) {
		size_t len;

		if (p[i] == 0)
			return true;
		if (p[i] == 1) {
			i++;
			continue;
		}
		if (i + 1 >= n)
			return false;
		len = p[i + 1];
		if (len < 2 || i + len > n)
			return false;
		if (p[i] == 2 && len == 4 && !have_mss) {
			*mss = get16(p + i + 2);
			have_mss = true;
			if (*mss < MSS_MIN)
				*mss = MSS_MIN;
		}
		if (p[i] == 3 && len == 3 && *scale < 0)
			*scale = MIN(p[i + 2], SCALE_MAX);
		i += len;
	}
	return true;
}

static void take_options(const struct wire *w, struct flow *f, uint16_t mss, int scale)
{
	size_t max = w->cfg.mtu - (ip_head(f->family) - ETH_LEN) - TCP_LEN;

	if (mss == 0)
		mss = f->family == NET_V4 ? MSS_DEFAULT4 : MSS_DEFAULT6;
	f->mss = (uint16_t)MIN((size_t)mss, max);
	f->flags &= ~(uint32_t)F_SCALE;
	f->scale = 0;
	if (scale >= 0) {
		f->flags |= F_SCALE;
		f->scale = (uint8_t)scale;
	}
}

/* RFC 6528: a keyed hash of the addresses and a clock of 4 µs. */
static uint32_t isn(const struct wire *w, const struct flow *f)
{
	struct flow_key k = { .kind = 0xff, .family = f->family, .rport = f->rport, .gport = f->gport };

	memcpy(k.raddr, f->raddr, 16);
	return (uint32_t)flow_hash(w, &k) + (uint32_t)(w->now_ns / 4096);
}

/* Up */

static void done(struct wire *w, struct flow *f);

/* The socket is broken for writing. What it still has to read is read, and what is delivered ends in a reset. */
static void write_failed(struct wire *w, struct flow *f)
{
	cq_consume(&w->pool, &f->store, POOL_UP, f->store.len);
	f->flags |= F_HOST_RST | F_HOST_IN | F_READ_ON;
	f->rst_by = w->now + RST_AFTER_MS;
	flow_due(w, f, f->rst_by);
	flow_wake(w, f);
}

static void pass_fin(struct wire *w, struct flow *f)
{
	/* F_HOST_RST: bytes may be missing before it, so the end must be a reset. */
	if ((f->flags & (F_GUEST_FIN | F_FIN_PASSED | F_HELD | F_DNS | F_HOST_RST)) != F_GUEST_FIN || f->store.len > 0 || f->fd < 0)
		return;
	f->flags |= F_FIN_PASSED;
	(void)shutdown(f->fd, SHUT_WR);
}

static void store_drain(struct wire *w, struct flow *f)
{
	struct iovec iov[18];
	ssize_t n;
	int k;

	while (f->store.len > 0 && !(f->flags & (F_HOST_FULL | F_HELD))) {
		size_t want = cq_get(&w->pool, &f->store, 0, f->store.len, iov, ARRAY_SIZE(iov), &k);

		n = writev(f->fd, iov, k);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				f->flags |= F_HOST_FULL;
			else
				write_failed(w, f);
			break;
		}
		f->written += (uint64_t)n;
		cq_consume(&w->pool, &f->store, POOL_UP, (size_t)n);
		if ((size_t)n < want)
			f->flags |= F_HOST_FULL;
	}
	if (f->state == ST_OPEN) {
		pass_fin(w, f);
		done(w, f);
	}
}

void tcp_gather_end(struct wire *w)
{
	struct flow *f;
	size_t done = 0, kept = 0;
	ssize_t n;

	if (w->gather == 0)
		return;
	f = &w->flow[w->gather - 1];
	w->gather = 0;
	f->active = f->ack_ms = w->now;
	/* Where question and answer alternate, the acknowledgement rides on the answer, as Linux does it in its pingpong mode. If
	 * it waited in vain once (the guest's Nagle may have waited for it), never again on this flow. */
	if (f->pingpong >= PINGPONG && f->pingpong != PINGPONG_OFF && w->gather_n <= ACK_LATER_BYTES &&
	    !(f->flags & (F_ACK_LATER | F_OWE_ACK)))
		f->flags |= F_ACK_LATER;
	else
		f->flags |= F_OWE_ACK;
	flow_wake(w, f);
	if (!(f->flags & (F_HOST_RST | F_DNS | F_HELD)) && f->store.len == 0) {
		do
			n = writev(f->fd, w->gather_v, w->gather_iov);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN) {
			write_failed(w, f);
		} else {
			done = n < 0 ? 0 : (size_t)n;
			f->written += done;
			f->drained = (uint8_t)(done < w->gather_n ? 0 : MIN(f->drained + 1, DRAINED_BATCHES));
			if (done < w->gather_n)
				f->flags |= F_HOST_FULL;
		}
	}
	if (f->flags & F_HOST_RST)
		done = w->gather_n; /* taken and lost with the connection, as in any reset */
	for (int i = 0; i < w->gather_iov && done + kept < w->gather_n; i++) {
		const struct iovec *v = &w->gather_v[i];
		size_t before = 0, skip, put;

		for (int k = 0; k < i; k++)
			before += w->gather_v[k].iov_len;
		if (before + v->iov_len <= done)
			continue;
		skip = done > before ? done - before : 0;
		put = cq_put(&w->pool, &f->store, POOL_UP, (const uint8_t *)v->iov_base + skip, v->iov_len - skip);
		kept += put;
		if (put < v->iov_len - skip)
			break;
	}
	f->up += done + kept;
	if (done + kept < w->gather_n) {
		/* No chunk: the rest was never taken and the guest sends it again. */
		wire_count(w, C_POOL_FULL);
		f->rcv_nxt -= (uint32_t)(w->gather_n - done - kept);
	}
	if (f->flags & F_DNS)
		dns_conn_data(w, f);
}

static void gather(struct wire *w, struct flow *f, const uint8_t *p, size_t n)
{
	if (w->gather == 0) {
		w->gather = (uint16_t)(flow_slot(w, f) + 1);
		w->gather_iov = 0;
		w->gather_n = 0;
	}
	w->gather_v[w->gather_iov++] = (struct iovec){ (void *)(uintptr_t)p, n };
	w->gather_n += n;
	f->rcv_nxt += (uint32_t)n;
	if (w->gather_iov == ARRAY_SIZE(w->gather_v))
		tcp_gather_end(w);
}

/* The link keeps order, but the guest's kernel may lose a frame. Without a place for what comes behind it everything in flight
 * is sent again, so that Linux gets no round-trip time (Karn) and doubles its timer with each loss: seconds of standstill
 * (seen with 1 % of loss). One run is kept, while chunks are plentiful. */
static void ooo_keep(struct wire *w, struct flow *f, uint32_t seq, const uint8_t *p, uint32_t len)
{
	uint32_t ahead = seq - f->rcv_nxt, told = f->rcv_adv - f->rcv_nxt;

	if (len == 0 || ahead + len > told || f->flags & (F_DNS | F_HOST_RST | F_GUEST_FIN) ||
	    w->pool.n_free[POOL_UP] < POOL_HALF / 2 || (f->ooo.len > 0 && seq != f->ooo_seq + f->ooo.len))
		return;
	if (f->ooo.len == 0)
		f->ooo_seq = seq;
	(void)cq_put(&w->pool, &f->ooo, POOL_UP, p, len);
}

/* The gap may be closed. */
static void ooo_take(struct wire *w, struct flow *f)
{
	uint32_t had = f->rcv_nxt - f->ooo_seq, n = 0;
	struct iovec iov[18];
	int k;

	if (f->ooo.len == 0 || seq_diff(f->rcv_nxt, f->ooo_seq) < 0 || f->state != ST_OPEN)
		return;
	cq_consume(&w->pool, &f->ooo, POOL_UP, MIN(had, f->ooo.len));
	if (f->store.len == 0) {
		n = f->ooo.len;
		f->store = f->ooo;
		f->ooo = (struct cq){ 0 };
	} else {
		(void)cq_get(&w->pool, &f->ooo, 0, f->ooo.len, iov, ARRAY_SIZE(iov), &k);
		for (int i = 0; i < k; i++) {
			size_t put = cq_put(&w->pool, &f->store, POOL_UP, iov[i].iov_base, iov[i].iov_len);

			n += (uint32_t)put;
			if (put < iov[i].iov_len)
				break;
		}
		cq_consume(&w->pool, &f->ooo, POOL_UP, f->ooo.len);
	}
	f->rcv_nxt += n;
	f->up += n;
	store_drain(w, f);
}

/* Opening */

void tcp_open_fail(struct wire *w, struct flow *f, uint32_t outcome, int error)
{
	struct peer to = tcp_peer(f);
	enum icmp_cause cause = icmp_cause(error);
	uint8_t l4[8];

	if (outcome == NET_REFUSED || cause == ICMP_PORT) {
		tcp_rst_raw(w, &to, f->rport, f->gport, 0, f->irs + 1, TH_RST | TH_ACK);
		return;
	}
	put16(l4, f->gport);
	put16(l4 + 2, f->rport);
	put32(l4 + 4, f->irs);
	icmp_error(w, &to, PROTO_TCP, cause, l4);
}

static void syn_rcvd(struct wire *w, struct flow *f)
{
	f->state = ST_SYN_RCVD;
	f->iss = isn(w, f);
	f->snd_una = f->iss;
	f->snd_nxt = f->snd_max = f->iss + 1;
	f->rcv_nxt = f->irs + 1;
	f->rcv_adv = f->rcv_nxt;
	f->rto = RTO_MS;
	f->tries = 0;
	f->flags |= F_OWE_SYN;
	flow_due(w, f, w->now + RTO_MS);
	flow_wake(w, f);
}

void tcp_opened(struct wire *w, struct flow *f, uint32_t outcome, int error, int fd)
{
	flow_answered(w, f);
	f->state = ST_OPEN; /* no longer asked; nobody sees this */
	if (outcome == NET_CONNECTED || outcome == NET_INSPECT) {
		f->flags |= F_TOLD;
		if (flow_take_fd(w, f, fd) == 0) {
			if (outcome == NET_INSPECT)
				f->flags |= F_INSPECT;
			syn_rcvd(w, f);
			return;
		}
		flow_reject_fd(fd);
	}
	tcp_open_fail(w, f, outcome, error);
	flow_end(w, f, NET_END_ERROR);
}

/* Bucket of the keyed hash of an address. */
static uint16_t addr_bucket(const struct wire *w, const struct flow_key *k)
{
	struct flow_key a = { .kind = 0xfe, .family = k->family };

	memcpy(a.raddr, k->raddr, 16);
	return (uint16_t)(flow_hash(w, &a) % ARRAY_SIZE(w->asked_count));
}

/* A full table: the oldest TIME_WAIT; else, of the destination with the most flows, the one that is idle for longest, if
 * that is a minute. At most one search each 10 ms. False: none may go. */
static bool make_room(struct wire *w, bool *ret_later)
{
	uint16_t *counts = (uint16_t *)(void *)w->scratch, most = 0;
	struct flow *best = NULL;
	uint32_t idle, longest = EVICT_IDLE_MS;

	*ret_later = false;
	if (w->q[Q_TIME_WAIT].head) {
		flow_end(w, &w->flow[w->q[Q_TIME_WAIT].head - 1], NET_END_FIN);
		flow_sweep(w);
		return true;
	}
	if (w->now - w->scan_ms < 10) {
		*ret_later = true;
		return false;
	}
	w->scan_ms = w->now;
	memset(counts, 0, ARRAY_SIZE(w->asked_count) * sizeof(*counts));
	for (unsigned int i = 0; i < w->n_fresh[FLOW_TCP]; i++)
		if (w->flow[i].state != ST_FREE && w->flow[i].state != ST_DEAD) {
			uint16_t n = ++counts[w->flow[i].asked_at];

			most = MAX(most, n);
		}
	for (unsigned int i = 0; i < w->n_fresh[FLOW_TCP]; i++) {
		struct flow *f = &w->flow[i];

		idle = w->now - f->active;
		if (f->state == ST_OPEN && counts[f->asked_at] == most && idle >= longest && f->ring.len + f->store.len == 0) {
			longest = idle;
			best = f;
		}
	}
	if (!best)
		return false;
	tcp_reset(w, best, NET_END_EVICTED);
	flow_sweep(w);
	return true;
}

static void syn_input(struct wire *w, const struct flow_key *k, const struct peer *to, uint32_t seq, uint16_t win, uint16_t mss,
		      int scale)
{
	uint16_t at = addr_bucket(w, k);
	bool dns = k->rport == 53 && ip_is_gateway(w, to), later;
	struct flow *f;

	if (k->rport == 0 || k->gport == 0) {
		wire_count(w, C_TCP_HEAD);
		return;
	}
	if (!dns && (w->n_asked >= TCP_ASKED_MAX || w->asked_count[at] >= TCP_ASKED_ADDR_MAX || w->vault_full)) {
		wire_count(w, C_SYN_LIMIT);
		return;
	}
	if (!ip_family_on(w, to)) {
		struct flow fake = { .family = k->family, .rport = k->rport, .gport = k->gport, .irs = seq };

		memcpy(fake.raddr, k->raddr, 16);
		tcp_open_fail(w, &fake, NET_FAILED, ENETUNREACH);
		return;
	}
	if (dns && !dns_conn_room(w)) {
		tcp_rst_raw(w, to, k->rport, k->gport, 0, seq + 1, TH_RST | TH_ACK);
		return;
	}
	f = flow_new(w, k);
	if (!f && make_room(w, &later))
		f = flow_new(w, k);
	else if (!f && later)
		return;
	if (!f) {
		wire_count(w, C_TABLE_FULL);
		tcp_rst_raw(w, to, k->rport, k->gport, 0, seq + 1, TH_RST | TH_ACK);
		return;
	}
	f->asked_at = at;
	f->irs = seq;
	f->snd_wnd = win;
	take_options(w, f, mss, scale);
	if (dns) {
		f->flags |= F_DNS;
		f->rst_by = w->now;
		dns_conn_open(w, f);
		syn_rcvd(w, f);
		return;
	}
	f->state = ST_ASKED;
	w->n_asked++;
	w->asked_count[at]++;
	if (!vault_ask(w, f)) {
		flow_end(w, f, NET_END_ERROR); /* its socket is full; the guest repeats the SYN */
		return;
	}
	flow_due(w, f, w->now + ASKED_MS);
}

bool tcp_inbound(struct wire *w, uint32_t slot, uint32_t gen, uint16_t port, uint8_t family, int fd)
{
	struct peer from = ip_gateway(w, family);
	struct flow_key k = { .kind = FLOW_TCP, .family = family, .gport = port };
	struct flow *f = NULL;
	bool later;

	memcpy(k.raddr, from.addr, 16);
	for (int i = 0; i < 4096 && !f; i++) {
		k.rport = (uint16_t)(32768 + w->ephemeral++ % 16384);
		if (!flow_find(w, &k)) {
			f = flow_new(w, &k);
			if (!f && make_room(w, &later))
				f = flow_new(w, &k);
			if (!f)
				return false;
		}
	}
	if (!f)
		return false;
	f->asked_at = addr_bucket(w, &k);
	f->in_slot = slot;
	f->in_gen = gen;
	f->state = ST_SYN_SENT;
	f->flags |= F_INBOUND | F_OWE_SYN;
	if (flow_take_fd(w, f, fd) < 0) {
		flow_end(w, f, NET_END_ERROR);
		return false;
	}
	f->iss = isn(w, f);
	f->snd_una = f->iss;
	f->snd_nxt = f->snd_max = f->iss + 1;
	f->rto = RTO_MS;
	flow_due(w, f, w->now + RTO_MS);
	flow_wake(w, f);
	return true;
}

static bool all_done(const struct flow *f)
{
	uint32_t both = f->flags & F_DNS ? F_GUEST_FIN | F_HOST_EOF | F_FIN_ACKED :
					   F_GUEST_FIN | F_FIN_PASSED | F_HOST_EOF | F_FIN_ACKED;

	return (f->flags & both) == both;
}

void tcp_host(struct wire *w, struct flow *f, uint32_t events)
{
	uint32_t before = f->rcv_adv - f->rcv_nxt;

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
		f->flags |= F_READ_ON;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		f->flags |= F_HOST_IN;
		flow_wake(w, f);
	}
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && f->flags & F_HOST_FULL) {
		f->flags &= ~(uint32_t)F_HOST_FULL;
		if (f->state != ST_OPEN)
			return;
		store_drain(w, f);
		/* A window below two segments that opens is told at once; else the next acknowledgement tells it. */
		if (tcp_window(w, f) > before && (before < 2u * f->mss || tcp_window(w, f) - before >= WND_SMALL / 2)) {
			f->flags |= F_OWE_ACK;
			flow_wake(w, f);
		}
	}
}

/* Input */

static void take_ack(struct wire *w, struct flow *f, uint32_t ack, uint32_t wnd, bool bare)
{
	uint32_t acked = ack - f->snd_una, data;

	if (acked == 0) {
		/* RFC 5681 section 2: no data, same window, something outstanding. */
		if (bare && wnd == f->snd_wnd && tcp_in_flight(f) > 0 && !(f->flags & F_RECOVER)) {
			if (f->dups < 3)
				f->dups++;
			if (f->dups == 3 && (f->rex_una != f->snd_una || w->now - f->rex_ms >= RTO_MS))
				tcp_recover(w, f);
		}
	} else {
		data = MIN(acked, f->ring.len);
		cq_consume(&w->pool, &f->ring, POOL_DOWN, data);
		if (acked > data && f->flags & F_HOST_EOF)
			f->flags |= F_FIN_ACKED;
		f->snd_una = ack;
		if (seq_diff(f->snd_nxt, ack) < 0)
			f->snd_nxt = ack;
		f->una_ms = w->now;
		f->active = w->now;
		f->dups = 0;
		f->tries = 0;
		f->rto = RTO_MS;
		if (f->flags & F_RECOVER) {
			if (seq_diff(ack, f->recover) >= 0) {
				f->flags &= ~(uint32_t)F_RECOVER;
			} else {
				f->snd_nxt = ack;
				f->rex_wnd = MIN(f->rex_wnd * 2, RING_MAX);
				f->rex_ms = w->now;
			}
		}
		if (w->q[Q_POOL].n > 0 && w->pool.n_free[POOL_DOWN] > 0)
			flow_queue(w, &w->flow[w->q[Q_POOL].head - 1], Q_READY);
	}
	if (f->flags & F_PROBE) {
		f->tries = 0; /* answered */
		if (wnd > 0) {
			f->flags &= ~(uint32_t)F_PROBE;
			f->rto = RTO_MS;
		}
	}
	if (f->snd_wnd != wnd || acked > 0 || f->flags & F_RECOVER) {
		if (f->snd_wnd == 0 || wnd == 0)
			f->una_ms = w->now;
		f->snd_wnd = wnd;
		if (f->flags & F_HOST_IN || f->ring.len > 0 || f->flags & (F_HOST_EOF | F_HOST_RST))
			flow_wake(w, f);
	}
	if (f->ring.len == 0 && tcp_in_flight(f) == 0 && !(f->flags & F_HOST_IN))
		tcp_open_due(w, f);
}

static void by_guest(struct wire *w, struct flow *f)
{
	tcp_gather_end(w);
	if (f->state != ST_DEAD)
		flow_end(w, f, NET_END_RST_GUEST);
}

/* All four: the flow is over. */
static void done(struct wire *w, struct flow *f)
{
	if (!all_done(f))
		return;
	if (!(f->flags & F_FIN_FIRST)) {
		/* Our FIN acknowledged the guest's, which holds the state now. */
		flow_end(w, f, NET_END_FIN);
		return;
	}
	flow_close_fd(f, false);
	f->state = ST_TIME_WAIT;
	f->flags |= F_OWE_ACK;
	if (f->flags & F_TOLD && !(f->flags & F_INBOUND)) {
		/* For the world it is over now, and a session that ends within the two seconds has its line. If vault has no
		 * room, it is told when the state goes. */
		f->end = NET_END_FIN;
		f->flags |= F_OWE_ENDED;
		f->flags &= ~(uint32_t)F_TOLD;
		(void)vault_owed(w, f);
	}
	flow_due(w, f, w->now + TIME_WAIT_MS);
	flow_wake(w, f);
}

static void open_input(struct wire *w, struct flow *f, const struct tcp_hdr *h, uint32_t seq, uint32_t ack, const uint8_t *p,
		       uint32_t len)
{
	uint32_t wnd = (uint32_t)be16(h->win) << f->scale, told = f->rcv_adv - f->rcv_nxt;
	bool fin = h->flags & TH_FIN;
	int32_t early = seq_diff(f->rcv_nxt, seq); /* bytes that we had already */
	uint32_t seq_end;

	if (h->flags & TH_RST) {
		if (early == 0)
			by_guest(w, f);
		else if (early < 0 && (uint32_t)-early < told)
			goto owe;
		return;
	}
	if (h->flags & TH_SYN || seq_diff(ack, f->snd_max) > 0)
		goto owe;
	if (seq_diff(ack, f->snd_una) >= 0)
		take_ack(w, f, ack, wnd, len == 0 && !fin && early == 0);
	if (early < 0) {
		/* Out of order: dropped; the guest counts to three, so each is answered, as far as that matters. */
		if (f->flags & F_OWE_ACK && f->dup_acks < DUP_ACKS)
			f->dup_acks++;
		ooo_keep(w, f, seq, p, len);
		goto owe;
	}
	if (early > 0 && len == 0 && !fin)
		goto owe; /* a keep-alive */
	if (len == 0 && !fin) {
		done(w, f);
		return;
	}
	if (f->flags & F_GUEST_FIN) {
		/* Nothing comes behind a FIN; a repeated one is acknowledged. */
		f->flags |= F_OWE_ACK;
		flow_wake(w, f);
		done(w, f);
		return;
	}
	if (early > 0) {
		if ((uint32_t)early > len || ((uint32_t)early == len && !fin))
			goto owe;
		p += early;
		len -= (uint32_t)early;
	}
	seq_end = f->rcv_nxt + len;
	if (len > told) {
		len = told;
		fin = false;
		f->flags |= F_OWE_ACK;
		flow_wake(w, f);
	}
	if (len > 0)
		gather(w, f, p, len);
	if (f->ooo.len > 0) {
		tcp_gather_end(w);
		ooo_take(w, f);
		if (f->state != ST_OPEN)
			return;
		fin = fin && f->rcv_nxt == seq_end;
	}
	if (fin) {
		uint32_t end = f->rcv_nxt;

		tcp_gather_end(w);
		if (f->state != ST_OPEN)
			return;
		f->flags |= F_OWE_ACK;
		flow_wake(w, f);
		if (f->rcv_nxt != end)
			return; /* its data found no place */
		f->rcv_nxt++;
		if (seq_diff(f->rcv_adv, f->rcv_nxt) < 0)
			f->rcv_adv = f->rcv_nxt;
		f->flags |= F_GUEST_FIN;
		f->active = w->now;
		if (f->flags & F_DNS)
			dns_conn_data(w, f);
		else
			pass_fin(w, f);
		if (f->state == ST_OPEN)
			done(w, f);
	}
	return;
owe:
	f->flags |= F_OWE_ACK;
	flow_wake(w, f);
}

static void no_flow(struct wire *w, const struct flow_key *k, const struct peer *to, const struct tcp_hdr *h, uint32_t len)
{
	if (h->flags & TH_RST)
		return;
	if (h->flags & TH_ACK)
		tcp_rst_raw(w, to, k->rport, k->gport, be32(h->ack), 0, TH_RST);
	else
		tcp_rst_raw(w, to, k->rport, k->gport, 0, be32(h->seq) + len + (h->flags & TH_FIN ? 1 : 0), TH_RST | TH_ACK);
}

static void go_open(struct wire *w, struct flow *f, uint32_t wnd)
{
	f->state = ST_OPEN;
	f->snd_una = f->snd_nxt = f->snd_max = f->iss + 1;
	f->snd_wnd = wnd;
	f->rex_una = f->iss;
	f->una_ms = f->active = w->now;
	f->rto = RTO_MS;
	f->tries = 0;
	f->flags &= ~(uint32_t)F_OWE_SYN;
	flow_due(w, f, 0);
	flow_wake(w, f);
}

/* Refused by the guest: the other family, then the host's client is told. */
static void inbound_refused(struct wire *w, struct flow *f)
{
	int fd = f->fd;

	if (f->family == NET_V4 && w->cfg.ipv6) {
		ev_unwatch(&w->ev, fd);
		f->fd = -1;
		flow_end(w, f, NET_END_RST_GUEST);
		if (tcp_inbound(w, f->in_slot, f->in_gen, f->gport, NET_V6, fd))
			return;
		flow_reject_fd(fd);
	} else {
		flow_end(w, f, NET_END_RST_GUEST);
	}
	vault_inbound_done(w, f, NET_REFUSED, 0);
}

static void syn_sent_input(struct wire *w, struct flow *f, const struct tcp_hdr *h, uint32_t seq, uint32_t ack, uint16_t mss,
			   int scale)
{
	if (!(h->flags & TH_ACK) || ack != f->snd_max) {
		if (h->flags & TH_ACK && !(h->flags & TH_RST)) {
			struct peer to = tcp_peer(f);

			tcp_rst_raw(w, &to, f->rport, f->gport, ack, 0, TH_RST);
		}
		return;
	}
	if (h->flags & TH_RST) {
		inbound_refused(w, f);
		return;
	}
	if (!(h->flags & TH_SYN))
		return;
	take_options(w, f, mss, scale);
	f->irs = seq;
	f->rcv_nxt = seq + 1;
	f->rcv_adv = f->rcv_nxt + 65535;
	f->flags |= F_OWE_ACK | F_TOLD;
	go_open(w, f, be16(h->win));
	vault_inbound_done(w, f, NET_TAKEN, 0);
}

void tcp_input(struct wire *w, const struct peer *to, const uint8_t *p, size_t n)
{
	const struct tcp_hdr *h = (const struct tcp_hdr *)p;
	struct flow_key k = { .kind = FLOW_TCP, .family = to->family };
	size_t off = n < TCP_LEN ? 0 : (size_t)(h->off >> 4) * 4;
	uint16_t mss = 0;
	uint32_t seq, ack, len;
	struct flow *f;
	int scale = -1;
	uint8_t fl;

	if (off < TCP_LEN || off > n || (off > TCP_LEN && !options(p + TCP_LEN, off - TCP_LEN, &mss, &scale))) {
		wire_count(w, C_TCP_HEAD);
		return;
	}
	fl = h->flags & (TH_FIN | TH_SYN | TH_RST | TH_ACK);
	if (!(fl & (TH_SYN | TH_RST | TH_ACK)) || (fl & TH_SYN && fl & (TH_FIN | TH_RST)) || (fl & TH_RST && fl & TH_FIN)) {
		wire_count(w, C_TCP_HEAD);
		return;
	}
	k.rport = be16(h->dport);
	k.gport = be16(h->sport);
	memcpy(k.raddr, to->addr, 16);
	f = flow_find(w, &k);
	seq = be32(h->seq);
	ack = be32(h->ack);
	len = (uint32_t)(n - off);
	/* What was gathered is written before anything but its next segment. */
	if (w->gather && (!f || w->gather != flow_slot(w, f) + 1 || len == 0 || seq != f->rcv_nxt))
		tcp_gather_end(w);
	if (f && f->state == ST_DEAD)
		f = NULL;
	if (!f) {
		if (fl == TH_SYN)
			syn_input(w, &k, to, seq, be16(h->win), mss, scale);
		else
			no_flow(w, &k, to, h, len);
		return;
	}
	switch (f->state) {
	case ST_ASKED:
		if (fl & TH_RST) {
			if (seq == f->irs + 1 || seq == f->irs)
				flow_end(w, f, NET_END_RST_GUEST);
		} else if (fl == TH_SYN && seq != f->irs) {
			f->irs = seq;
			f->snd_wnd = be16(h->win);
			take_options(w, f, mss, scale);
		}
		break;
	case ST_SYN_RCVD:
		if (fl & TH_RST) {
			if (seq == f->rcv_nxt)
				by_guest(w, f);
		} else if (fl & TH_SYN) {
			if (seq != f->irs) {
				f->irs = seq;
				f->snd_wnd = be16(h->win);
				take_options(w, f, mss, scale);
				syn_rcvd(w, f);
			} else {
				f->flags |= F_OWE_SYN;
				flow_wake(w, f);
			}
		} else if (ack == f->snd_max) {
			go_open(w, f, (uint32_t)be16(h->win) << f->scale);
			open_input(w, f, h, seq, ack, p + off, len);
		} else {
			no_flow(w, &k, to, h, len);
		}
		break;
	case ST_SYN_SENT:
		syn_sent_input(w, f, h, seq, ack, mss, scale);
		break;
	case ST_OPEN:
		if (!(fl & (TH_ACK | TH_RST | TH_SYN)))
			break;
		open_input(w, f, h, seq, fl & TH_ACK ? ack : f->snd_una, p + off, fl & TH_ACK ? len : 0);
		break;
	case ST_TIME_WAIT:
		if (fl == TH_SYN && seq_diff(seq, f->rcv_nxt) > 0) {
			flow_end(w, f, NET_END_FIN);
			syn_input(w, &k, to, seq, be16(h->win), mss, scale);
		} else if (fl & TH_RST) {
			if (seq == f->rcv_nxt)
				flow_end(w, f, NET_END_FIN);
		} else if (len > 0 || fl & (TH_FIN | TH_SYN) || seq != f->rcv_nxt) {
			f->flags |= F_OWE_ACK;
			flow_due(w, f, w->now + TIME_WAIT_MS);
			flow_wake(w, f);
		}
		break;
	default:
		break;
	}
}

uint64_t tcp_hold(struct wire *w, struct flow *f)
{
	f->flags |= F_HELD;
	return f->written;
}

int tcp_handover(struct wire *w, struct flow *f, int fd)
{
	flow_close_fd(f, false);
	f->flags &= ~(uint32_t)(F_INSPECT | F_HELD | F_HOST_FULL | F_FIN_PASSED | F_HOST_IN | F_READ_ON);
	if (flow_take_fd(w, f, fd) < 0)
		return -EBADF;
	if (f->state != ST_OPEN)
		return 0;
	store_drain(w, f);
	if (f->state == ST_OPEN) {
		f->flags |= F_OWE_ACK; /* the window is larger now */
		flow_wake(w, f);
	}
	return 0;
}

bool tcp_say(struct wire *w, struct flow *f, const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	if (w->pool.n_free[POOL_DOWN] < sum / CHUNK + 2 || f->flags & F_HOST_EOF)
		return false;
	if (f->ring.len == 0)
		f->una_ms = w->now;
	for (int i = 0; i < n; i++)
		(void)cq_put(&w->pool, &f->ring, POOL_DOWN, iov[i].iov_base, iov[i].iov_len);
	f->down += sum;
	flow_wake(w, f);
	return true;
}

void tcp_say_end(struct wire *w, struct flow *f)
{
	if (f->flags & F_HOST_EOF)
		return;
	f->flags |= F_HOST_EOF | (f->flags & F_GUEST_FIN ? 0 : F_FIN_FIRST);
	flow_wake(w, f);
}
