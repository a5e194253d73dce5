/* agent-vm-wire: the user-mode network.
 *
 * Theory of operation
 *
 * One thread, one epoll set. Four kinds of descriptors: the link to the monitor (a stream of Ethernet frames), vault and
 * gate (messages), and the sockets of flows, each of which vault opened, judged and passed here. wire opens nothing and
 * names nothing; its seccomp table (sandbox.c) has no call that could.
 *
 *   guest ── link ── eth ── ip ─┬─ tcp ──── flow ──── socket ── world
 *                               ├─ udp ──── flow ──── socket
 *                               ├─ icmp ─── flow ──── ping socket
 *                               └─ dns ──── question ─ vault
 *
 * A turn (wire_turn) is: messages of vault and gate; one read of the link with every frame in it; the flows on the ready
 * list, each once; one write of the batch of frames that this made; timers; the pass that gives slots back.
 *
 * Edge-triggered events only set flags (F_HOST_IN, link_in …) and put flows on the ready list; the flag stays until a call
 * said EAGAIN or came back short. While a list is not empty the loop does not wait.
 *
 * What bounds what
 * - A full place stops the reading of the place before it. Down: socket → ring (guest's window, 1 MiB, an eighth of the
 *   free pool) → link; while the link is full no socket and no message is read. Up: link → socket → store (the window that
 *   was offered); reading the link never depends on writing it, because what is owed to the guest is state of a flow (an
 *   acknowledgement, a SYN-ACK) and not a queued frame.
 * - The link's batch is taken back when it was not begun (link.c): frames of flows become state again, the rest of one frame
 *   and what has no flow is copied to a buffer that was sized for it.
 * - No memory is allocated after wire_init(): slots of a static table, chunks of one mapping.
 *
 * Who owns what. A flow owns its socket, ring and store from flow_new() to flow_end(). A slot that ended is dead until the
 * batch is over and vault knows (flow_sweep), so an event of the same batch for it is recognised by its state, one of
 * a later batch by its generation. A flow stands in at most one queue: ready; link (woken when it takes frames again); pool
 * (when a chunk is free); TIME_WAIT by age; dead.
 *
 * Time is milliseconds since start, read once a turn. A flow has one timer in a wheel of 10 ms; it may fire early (then the
 * flow looks and sets it again) and is not moved when its time grows, so that an acknowledgement costs nothing.
 *
 * Left out on purpose: SACK, timestamps, congestion control, Nagle, out-of-order queues, path MTU down. The link keeps order
 * and loses nothing; where a guest's kernel does lose, go-back-N with doubling recovers. */
#include "wire/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/macros.h"
#include "wire/csum.h"
#include "wire/flow.h"
#include "wire/icmp.h"
#include "wire/link.h"
#include "wire/tcp.h"
#include "wire/udp.h"
#include "wire/vaultlink.h"

#define LOG_EACH_MS 60000u
#define TRIM_MS 5000u
#define SERVE_MAX 512

static const char *const counter_str[] = {
	[C_FRAME_LEN] = "frames of no legal length",
	[C_ETH_TYPE] = "frames of an unknown type",
	[C_ETH_ADDR] = "frames with a foreign MAC address",
	[C_IP_SRC] = "packets with a foreign source address",
	[C_IP_DST] = "packets to the guest itself",
	[C_IP_HEAD] = "packets with a broken IP header",
	[C_IP_OPTIONS] = "packets with IP options or unknown headers",
	[C_GROUP] = "packets to a group or broadcast address",
	[C_FRAG] = "fragments",
	[C_TCP_HEAD] = "segments with a broken TCP header",
	[C_ND] = "neighbour discovery messages",
	[C_UDP_HEAD] = "datagrams with a broken UDP header",
	[C_ICMP] = "ICMP messages",
	[C_ICMP_LIMIT] = "ICMP errors above 100 a second",
	[C_SMALL_FULL] = "answers while the link was full",
	[C_SYN_LIMIT] = "connection attempts above the limit of open questions",
	[C_TABLE_FULL] = "connections above the table's size",
	[C_POOL_FULL] = "segments for which no buffer was free",
	[C_POOL_RESET] = "connections whose bytes the guest did not acknowledge while buffers were short",
	[C_UDP_FULL] = "UDP flows above the table's size",
	[C_DNS] = "DNS questions that are none or too many",
	[C_LACK] = "connections and datagrams for which this host had no memory or descriptor",
};
static_assert(sizeof(counter_str) / sizeof(*counter_str) == COUNTERS, "counter_str[] is incomplete");

void wire_count(struct wire *w, enum counter c)
{
	w->count[c]++;
	if (w->log_ms[c] != 0 && w->now - w->log_ms[c] < LOG_EACH_MS)
		return;
	w->log_ms[c] = MAX(w->now, 1u);
	log_info("dropped: %s, %" PRIu64 " so far", counter_str[c], w->count[c]);
}

void wire_over(struct wire *w, const char *why)
{
	if (w->over)
		return;
	w->over = true;
	w->why = why;
}

/* Queues */

void flow_queue(struct wire *w, struct flow *f, enum flow_queue q)
{
	uint16_t me = (uint16_t)(flow_slot(w, f) + 1);
	struct queue *from = &w->q[f->queue], *to = &w->q[q];

	if (f->queue != Q_NONE) {
		if (f->qprev)
			w->flow[f->qprev - 1].qnext = f->qnext;
		else
			from->head = f->qnext;
		if (f->qnext)
			w->flow[f->qnext - 1].qprev = f->qprev;
		else
			from->tail = f->qprev;
		from->n--;
	}
	f->queue = (uint8_t)q;
	f->qprev = f->qnext = 0;
	if (q == Q_NONE)
		return;
	f->qprev = to->tail;
	if (to->tail)
		w->flow[to->tail - 1].qnext = me;
	else
		to->head = me;
	to->tail = me;
	to->n++;
}

void flow_wake(struct wire *w, struct flow *f)
{
	if (f->state == ST_DEAD || f->state == ST_FREE || f->queue == Q_READY || f->queue == Q_LINK)
		return;
	flow_queue(w, f, w->link_full ? Q_LINK : Q_READY);
}

/* Timers */

static void wheel_remove(struct wire *w, struct flow *f)
{
	uint16_t slot = f->tslot;

	if (slot == 0)
		return;
	if (f->tprev)
		w->flow[f->tprev - 1].tnext = f->tnext;
	else
		w->wheel[slot - 1] = f->tnext;
	if (f->tnext)
		w->flow[f->tnext - 1].tprev = f->tprev;
	if (w->wheel[slot - 1] == 0)
		w->wheel_map[(slot - 1) / 64] &= ~(UINT64_C(1) << (slot - 1) % 64);
	f->tslot = f->tprev = f->tnext = 0;
	w->n_timers--;
}

static void wheel_add(struct wire *w, struct flow *f)
{
	uint16_t me = (uint16_t)(flow_slot(w, f) + 1);
	uint32_t tick = MAX((f->due + WHEEL_MS - 1) / WHEEL_MS, w->wheel_now + 1), slot;

	/* Beyond the wheel's end: it fires once a turn of the wheel and is set again. */
	tick = MIN(tick, w->wheel_now + WHEEL_SIZE - 1);
	f->wheel_due = tick;
	slot = tick % WHEEL_SIZE;
	f->tnext = w->wheel[slot];
	f->tprev = 0;
	if (f->tnext)
		w->flow[f->tnext - 1].tprev = me;
	w->wheel[slot] = me;
	w->wheel_map[slot / 64] |= UINT64_C(1) << slot % 64;
	f->tslot = (uint16_t)(slot + 1);
	w->n_timers++;
}

void flow_due(struct wire *w, struct flow *f, uint32_t ms)
{
	f->due = ms;
	if (ms == 0) {
		wheel_remove(w, f);
		return;
	}
	if (f->tslot && f->wheel_due * WHEEL_MS <= ms)
		return;
	wheel_remove(w, f);
	wheel_add(w, f);
}

static void timer(struct wire *w, struct flow *f)
{
	if (f->state == ST_DEAD || f->due == 0)
		return;
	if (f->due > w->now) {
		wheel_add(w, f);
		return;
	}
	f->due = 0;
	if (f->kind == FLOW_TCP)
		tcp_timer(w, f);
	else if (f->kind == FLOW_UDP)
		udp_timer(w, f);
	else
		flow_end(w, f, NET_END_IDLE);
}

static void timers(struct wire *w)
{
	uint32_t to = w->now / WHEEL_MS;

	if (w->n_timers == 0)
		w->wheel_now = to;
	if (to - w->wheel_now > WHEEL_SIZE)
		w->wheel_now = to - WHEEL_SIZE; /* asleep for longer than the wheel: one turn of it sees all */
	while (w->wheel_now < to) {
		uint32_t slot = ++w->wheel_now % WHEEL_SIZE;

		while (w->wheel[slot]) {
			struct flow *f = &w->flow[w->wheel[slot] - 1];

			wheel_remove(w, f);
			timer(w, f);
		}
	}
}

static uint32_t wheel_next(const struct wire *w)
{
	for (uint32_t k = 1; k <= WHEEL_SIZE; k++) {
		uint32_t slot = (w->wheel_now + k) % WHEEL_SIZE;

		if (w->wheel_map[slot / 64] >> slot % 64 & 1)
			return (w->wheel_now + k) * WHEEL_MS;
		if (w->wheel_map[slot / 64] == 0)
			k += 63 - slot % 64;
	}
	return 0;
}

/* The turn */

static void serve(struct wire *w)
{
	uint32_t n = MIN(w->q[Q_READY].n, SERVE_MAX);

	/* Only those that stand there now: who comes back waits for the next turn. */
	while (n-- > 0 && w->q[Q_READY].head && !w->over) {
		struct flow *f = &w->flow[w->q[Q_READY].head - 1];

		flow_queue(w, f, Q_NONE);
		if (f->kind == FLOW_TCP)
			tcp_serve(w, f);
		else if (f->state == ST_OPEN && f->kind == FLOW_UDP)
			udp_serve(w, f);
		else if (f->state == ST_OPEN)
			echo_serve(w, f);
	}
}

/* Free chunks go back to the system after 5 s without use. */
static void trim(struct wire *w)
{
	if (w->pool.taken != w->trim_taken) {
		w->trim_taken = w->pool.taken;
		w->trim_ms = w->now;
	} else if (w->pool.n_dirty > 0 && w->now - w->trim_ms >= TRIM_MS) {
		pool_trim(&w->pool);
	}
}

void wire_turn(struct wire *w, int64_t now_ns)
{
	w->now_ns = now_ns;
	if (w->base_ns == 0)
		w->base_ns = now_ns - 1000000000; /* 0 means "never" in many places */
	w->now = (uint32_t)((now_ns - w->base_ns) / 1000000);
	if (w->vault_in)
		vault_read(w);
	if (w->gate_in && w->configured)
		gate_read(w);
	if (w->configured && w->link_in && !w->over)
		link_read(w);
	timers(w);
	if (w->q[Q_POOL].n > 0) {
		tcp_pressure(w);
		if (w->q[Q_POOL].n > 0 && w->pool.n_free[POOL_DOWN] > 0 && !w->link_full)
			flow_queue(w, &w->flow[w->q[Q_POOL].head - 1], Q_READY);
	}
	serve(w);
	link_flush(w);
	/* What became of a published connection before its end. */
	if (!w->vault_full && vault_tell_done(w) && w->q[Q_DEAD].n > 0)
		flow_sweep(w);
	trim(w);
}

int64_t wire_until(const struct wire *w)
{
	uint32_t next = 0, trim_at = w->trim_ms + TRIM_MS + 1, press_at = MAX(w->pressure_ms + TCP_PRESSURE_EACH_MS, w->now + 1);

	if (w->q[Q_READY].n > 0 || (w->link_in && w->configured) || (w->vault_in && (!w->link_full || !w->configured)) ||
	    (w->gate_in && w->configured))
		return 0;
	if (w->n_timers > 0)
		next = wheel_next(w);
	if (w->pool.n_dirty > 0)
		next = next ? MIN(next, trim_at) : trim_at;
	if (w->q[Q_POOL].n > 0 && !w->link_full)
		next = next ? MIN(next, press_at) : press_at;
	return next ? w->base_ns + (int64_t)next * 1000000 : -1;
}

void wire_event(struct wire *w, const struct ev_event *e)
{
	struct flow *f;

	switch ((enum ev_kind)e->kind) {
	case EV_CONTROL:
		/* The launcher sends nothing and lives as long as the session. */
		wire_over(w, NULL);
		break;
	case EV_LINK:
		if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			w->link_in = true;
		if (e->events & (EPOLLHUP | EPOLLERR))
			w->link_hup = true;
		if (e->events & EPOLLOUT)
			link_writable(w);
		break;
	case EV_VAULT:
		if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			w->vault_in = true;
		if (e->events & EPOLLOUT && w->vault_full) {
			w->vault_full = false;
			(void)ev_watch(&w->ev, w->vault, WIRE_WATCH_IN, EV_VAULT, 0, 0);
		}
		break;
	case EV_GATE:
		if (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			w->gate_in = true;
		break;
	case EV_FLOW:
		f = flow_by(w, e->slot, e->gen);
		if (!f || f->fd < 0)
			break;
		if (f->kind == FLOW_TCP) {
			tcp_host(w, f, e->events);
		} else if (e->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
			f->flags |= F_HOST_IN;
			flow_wake(w, f);
		}
		break;
	case EV_KINDS:
		break;
	}
}

int wire_init(struct wire *w, int link, int vault, int gate, int control, const uint64_t key[2], uint32_t max_flows)
{
	int r;

	w->link = link;
	w->vault = vault;
	w->gate = gate;
	w->control = control;
	w->key[0] = key[0];
	w->key[1] = key[1];
	w->max_flows = MIN(max_flows, TCP_SLOTS);
	w->ev.epfd = -1;
	csum_init();
	r = pool_init(&w->pool);
	if (r == 0)
		r = ev_open(&w->ev);
	if (r == 0)
		r = ev_watch(&w->ev, link, WIRE_WATCH_IN, EV_LINK, 0, 0);
	if (r == 0)
		r = ev_watch(&w->ev, vault, WIRE_WATCH_IN, EV_VAULT, 0, 0);
	if (r == 0 && gate >= 0)
		r = ev_watch(&w->ev, gate, WIRE_WATCH_IN, EV_GATE, 0, 0);
	if (r == 0 && control >= 0)
		r = ev_watch(&w->ev, control, EPOLLRDHUP, EV_CONTROL, 0, 0);
	return r;
}

void wire_done(struct wire *w)
{
	/* The guest hears of it, as far as the link takes frames; where the link itself is gone the write fails and no more. */
	w->over = false;
	for (unsigned int i = 0; i < FLOWS; i++) {
		struct flow *f = &w->flow[i];

		if (f->gen == 0 || f->state == ST_FREE || f->state == ST_DEAD)
			continue;
		if (f->kind == FLOW_TCP && !w->over)
			tcp_reset(w, f, NET_END_ERROR);
		flow_close_fd(f, true);
		if (w->small_n == SMALL_N)
			link_flush(w);
	}
	link_flush(w);
	ev_close(&w->ev);
}

void wire_free(struct wire *w)
{
	wire_done(w);
	pool_done(&w->pool);
}
