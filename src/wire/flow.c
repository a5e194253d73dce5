#include "wire/flow.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "wire/vaultlink.h"

static uint64_t rotl(uint64_t x, int b)
{
	return x << b | x >> (64 - b);
}

#define SIPROUND                                                        \
	do {                                                            \
		v0 += v1; v1 = rotl(v1, 13) ^ v0; v0 = rotl(v0, 32);    \
		v2 += v3; v3 = rotl(v3, 16) ^ v2;                       \
		v0 += v3; v3 = rotl(v3, 21) ^ v0;                       \
		v2 += v1; v1 = rotl(v1, 17) ^ v2; v2 = rotl(v2, 32);    \
	} while (0)

/* SipHash-1-3 over three words: the guest chooses every byte of the key and must not find collisions. */
uint64_t flow_hash(const struct wire *w, const struct flow_key *k)
{
	uint64_t v0 = w->key[0] ^ 0x736f6d6570736575u, v1 = w->key[1] ^ 0x646f72616e646f6du;
	uint64_t v2 = w->key[0] ^ 0x6c7967656e657261u, v3 = w->key[1] ^ 0x7465646279746573u;
	uint64_t m[3];

	memcpy(m, k->raddr, 16);
	m[2] = (uint64_t)k->kind << 48 | (uint64_t)k->family << 32 | (uint64_t)k->rport << 16 | k->gport;
	for (size_t i = 0; i < ARRAY_SIZE(m); i++) {
		v3 ^= m[i];
		SIPROUND;
		v0 ^= m[i];
	}
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

static bool is(const struct flow *f, const struct flow_key *k)
{
	return f->gport == k->gport && f->rport == k->rport && f->kind == k->kind && f->family == k->family &&
	       memcmp(f->raddr, k->raddr, 16) == 0;
}

static uint16_t *bucket(struct wire *w, const struct flow_key *k)
{
	return &w->hash[flow_hash(w, k) % HASH_SIZE];
}

struct flow *flow_find(struct wire *w, const struct flow_key *k)
{
	for (uint16_t i = *bucket(w, k); i; i = w->flow[i - 1].hash_next)
		if (is(&w->flow[i - 1], k))
			return &w->flow[i - 1];
	return NULL;
}

static const struct {
	uint32_t first, n;
} range[] = {
	[FLOW_TCP] = { 0, TCP_SLOTS },
	[FLOW_UDP] = { UDP_FIRST, UDP_SLOTS },
	[FLOW_ECHO] = { ECHO_FIRST, ECHO_SLOTS },
};

struct flow *flow_new(struct wire *w, const struct flow_key *k)
{
	uint32_t n = k->kind == FLOW_TCP ? w->max_flows : range[k->kind].n;
	struct queue *fl = &w->free[k->kind];
	uint16_t *b = bucket(w, k);
	struct flow *f;
	uint32_t gen;

	/* Slots that were never used stay untouched memory. */
	if (fl->head) {
		f = &w->flow[fl->head - 1];
		fl->head = f->qnext;
	} else if (w->n_fresh[k->kind] < n) {
		f = &w->flow[range[k->kind].first + w->n_fresh[k->kind]++];
	} else {
		return NULL;
	}
	gen = f->gen + 1;
	*f = (struct flow){ .kind = k->kind, .family = k->family, .gen = gen, .fd = -1, .rport = k->rport, .gport = k->gport,
			    .born = w->now, .active = w->now, .hash_next = *b };
	memcpy(f->raddr, k->raddr, 16);
	*b = (uint16_t)(flow_slot(w, f) + 1);
	w->n_flows[k->kind]++;
	return f;
}

struct flow *flow_by(struct wire *w, uint32_t slot, uint32_t gen)
{
	struct flow *f;

	if (slot >= FLOWS)
		return NULL;
	f = &w->flow[slot];
	return f->state == ST_FREE || f->state == ST_DEAD || f->gen != gen ? NULL : f;
}

static void unhash(struct wire *w, struct flow *f)
{
	struct flow_key k = { .kind = f->kind, .family = f->family, .rport = f->rport, .gport = f->gport };
	uint16_t me = (uint16_t)(flow_slot(w, f) + 1), *p;

	memcpy(k.raddr, f->raddr, 16);
	for (p = bucket(w, &k); *p != me; p = &w->flow[*p - 1].hash_next)
		;
	*p = f->hash_next;
}

void flow_reject_fd(int fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close_p(&fd);
}

void flow_close_fd(struct flow *f, bool reset)
{
	if (reset && f->kind == FLOW_TCP)
		flow_reject_fd(f->fd);
	else
		close_p(&f->fd);
	f->fd = -1;
}

int flow_take_fd(struct wire *w, struct flow *f, int fd)
{
	const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
	int r = fd < 0 ? -EMFILE : ev_watch(&w->ev, fd, events, EV_FLOW, flow_slot(w, f), f->gen);

	if (r < 0) {
		wire_count(w, C_LACK);
		return r;
	}
	f->fd = fd;
	return 0;
}

void flow_answered(struct wire *w, struct flow *f)
{
	f->flags &= ~(uint32_t)F_ASKED;
	if (f->kind == FLOW_TCP) {
		w->n_asked--;
		w->asked_count[f->asked_at]--;
	} else if (f->kind == FLOW_UDP) {
		w->n_udp_asked--;
	} else {
		w->n_echo_asked--;
	}
}

void flow_end(struct wire *w, struct flow *f, enum net_end how)
{
	if (f->state == ST_DEAD)
		return;
	unhash(w, f);
	if (f->state == ST_ASKED) {
		/* For vault it waits until it has read the CANCEL: counted until that is sent (flow_sweep). */
		if (f->flags & F_ASKED)
			f->flags |= F_OWE_CANCEL;
		else
			flow_answered(w, f);
	}
	cq_consume(&w->pool, &f->ring, POOL_DOWN, f->ring.len);
	cq_consume(&w->pool, &f->store, POOL_UP, f->store.len);
	cq_consume(&w->pool, &f->ooo, POOL_UP, f->ooo.len);
	flow_close_fd(f, how != NET_END_FIN);
	flow_due(w, f, 0);
	f->end = (uint8_t)how;
	f->state = ST_DEAD;
	if (f->flags & F_TOLD)
		f->flags |= F_OWE_ENDED;
	if (f->flags & F_DNS)
		w->conn[f->dns].flow = 0;
	w->n_flows[f->kind]--;
	flow_queue(w, f, Q_DEAD);
	if (w->q[Q_POOL].n > 0 && w->pool.n_free[POOL_DOWN] > 0)
		flow_queue(w, &w->flow[w->q[Q_POOL].head - 1], Q_READY);
}

void flow_sweep(struct wire *w)
{
	uint16_t i = w->q[Q_DEAD].head, next;

	for (; i; i = next) {
		struct flow *f = &w->flow[i - 1];

		next = f->qnext;
		if (!vault_owed(w, f))
			return; /* its socket is full: all wait in order */
		flow_queue(w, f, Q_NONE);
		if (f->flags & F_ASKED)
			flow_answered(w, f);
		f->state = ST_FREE;
		f->qnext = w->free[f->kind].head;
		w->free[f->kind].head = i;
	}
}
