/* The table of streams, and their bytes.
 *
 *   PEEK -> DIAL -> HOLD -> DRAIN -> gone         not ours to judge (aside.c)
 *   PEEK -> TLS -> OPEN -> FINISH -> gone         inspected
 *   PEEK -> OPEN (in clear, one answer) -> FINISH
 *
 * Nothing here calls back: whatever changes a stream kicks it, and the turn's end looks at each kicked one once
 * (drive()): reads while its protocol wants bytes, lets it write, flushes, and says to epoll what to wake it for.
 * Objects are freed after that. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "gate/gate.h"
#include "gate/hello.h"

#define RECORDS_A_TURN 16 /* so that one stream does not starve the others */
#define RECORD (16 << 10) /* the largest of TLS */
#define OUT_MAX (1 << 20) /* far above what any answer puts there at once */

static uint8_t plain[32 << 10];

struct conn *conn_at(struct gate *g, uint16_t slot, uint32_t gen)
{
	struct conn *c = slot < CONNS ? g->conn[slot] : NULL;

	return c && c->gen == gen && c->state != CONN_DEAD ? c : NULL;
}

struct conn *conn_by_flow(struct gate *g, const struct net_head *h)
{
	for (size_t i = 0; i < CONNS; i++)
		if (g->conn[i] && g->conn[i]->state != CONN_DEAD && g->conn[i]->wire_slot == h->slot &&
		    g->conn[i]->wire_gen == h->generation)
			return g->conn[i];
	return NULL;
}

static bool is_undecided(const struct conn *c)
{
	return c->state <= CONN_DRAIN;
}

void conn_deadline(struct conn *c, int64_t in_ns)
{
	c->deadline = in_ns ? c->g->now + in_ns : 0;
	if (in_ns)
		gate_due(c->g, c->deadline);
}

void conn_kick(struct conn *c)
{
	if (c->kicked || c->state == CONN_DEAD)
		return;
	c->kicked = true;
	c->next = c->g->kicked;
	c->g->kicked = c;
}

void conn_new(struct gate *g, const struct net_peek *m, int fd)
{
	struct conn *c = NULL;
	uint16_t slot = 0;

	while (slot < CONNS && g->conn[slot])
		slot++;
	if (fd >= 0 && slot < CONNS && g->n_undecided < UNDECIDED_MAX)
		c = calloc(1, sizeof(*c));
	if (!c) {
		const struct conn full = { .wire_slot = m->head.slot, .wire_gen = m->head.generation };

		guest_line(g, LINE_STREAMS, fd < 0 ? "no descriptor is free; a stream is reset" : "too many streams are open; one more is reset");
		wire_tell(g, NET_RESET, &full, -1);
		close_p(&fd);
		return;
	}
	*c = (struct conn){ .slot = slot,
			    .gen = ++g->conn_gen,
			    .g = g,
			    .wire_slot = m->head.slot,
			    .wire_gen = m->head.generation,
			    .port = m->port,
			    .tied = m->tied, .named = m->named,
			    .fd = fd,
			    .dialled = -1,
			    .host = HOSTS };
	buf_init(&c->raw, HELLO_INPUT_MAX > HTTP_HEAD_MAX ? HELLO_INPUT_MAX : HTTP_HEAD_MAX);
	buf_init(&c->out, OUT_MAX);
	buf_init(&c->sealed, 4 * RECORD);
	g->conn[slot] = c;
	g->n_conns++;
	g->n_undecided++;
	conn_deadline(c, c->tied || m->port == 443 || m->port == 80 ? HANDSHAKE_NS : SILENT_NS);
	conn_kick(c);
}

static void leave(struct conn *c)
{
	struct gate *g = c->g;

	if (c->state == CONN_DEAD)
		return;
	g->n_undecided -= is_undecided(c);
	g->n_inspected -= c->inspected;
	h1_free(c);
	h2_free(c);
	SSL_free(c->ssl);
	c->ssl = NULL;
	if (c->fd >= 0) {
		ev_unwatch(&g->ev, c->fd);
		(void)close(c->fd);
	}
	if (c->dialled >= 0) {
		ev_unwatch(&g->ev, c->dialled);
		(void)close(c->dialled);
	}
	c->fd = c->dialled = -1;
	buf_done(&c->raw);
	buf_done(&c->out);
	buf_done(&c->sealed);
	c->state = CONN_DEAD;
	if (!c->kicked) {
		c->next = g->dead;
		g->dead = c;
	}
}

void conn_close(struct conn *c)
{
	leave(c);
}

void conn_reset(struct conn *c)
{
	if (c->state != CONN_DEAD)
		wire_tell(c->g, NET_RESET, c, -1);
	leave(c);
}

void conn_finish(struct conn *c)
{
	if (c->state == CONN_DEAD || c->state == CONN_FINISH)
		return;
	h1_free(c);
	h2_free(c);
	c->state = CONN_FINISH;
	conn_deadline(c, IDLE_NS); /* for what is still to be flushed */
	conn_kick(c);
}

void conn_put(struct conn *c, struct span s)
{
	ssize_t n = 1;

	/* Whole records of a body go out as they are; it is the ends that are gathered. */
	while (c->state == CONN_OPEN && c->ssl && c->out.n == 0 && s.n >= RECORD && n > 0) {
		n = tls_write(c, s.p, RECORD);
		if (n > 0)
			s = SPAN(s.p + n, s.n - (size_t)n);
		else if (n != -EAGAIN)
			conn_reset(c);
	}
	if (c->state != CONN_DEAD && buf_put(&c->out, s.p, s.n) < 0)
		conn_reset(c);
}

void conn_inspect(struct conn *c, enum prov_host_id host, bool tls)
{
	struct net_head m = { NET_VERSION, NET_INSPECTED, sizeof(m), c->wire_slot, c->wire_gen };
	struct gate *g = c->g;

	if (g->n_inspected >= INSPECTED_MAX + CROWD_MAX) {
		guest_line(g, LINE_INSPECTED, "too many connections to inspected hosts; one more is reset");
		conn_reset(c);
		return;
	}
	/* Where nothing was tied vault may have connected already. */
	if (!c->tied)
		vault_send(g, &m, sizeof(m), -1);
	g->n_undecided--;
	g->n_inspected++;
	c->inspected = true;
	c->crowd = g->n_inspected > INSPECTED_MAX;
	c->host = host;
	if (!tls) {
		c->state = CONN_OPEN;
		h1_clear(c, buf_span(&c->raw));
	} else {
		c->state = CONN_TLS;
		conn_deadline(c, HANDSHAKE_NS);
		if (tls_start(c) < 0)
			conn_reset(c);
	}
	conn_kick(c);
}

/* Something for the guest is not with the kernel yet. */
static bool waits(const struct conn *c)
{
	return c->out.n > 0 || c->sealed.n > 0;
}

/* False: blocked, or over. */
static bool flush(struct conn *c)
{
	while (waits(c)) {
		struct span s = buf_span(&c->out);
		ssize_t n;

		if (c->ssl && s.n == 0) {
			n = tls_flush(c);
			if (n == 0)
				break;
		} else if (c->ssl) {
			n = tls_write(c, s.p, MIN(s.n, sizeof(plain)));
		} else {
			n = send(c->fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);
			n = n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : n;
		}
		if (n == -EAGAIN)
			return false;
		if (n <= 0) {
			conn_reset(c);
			return false;
		}
		buf_consume(&c->out, (size_t)n);
	}
	return true;
}

/* Goodbye, and then whatever comes is dropped until the guest is through, too: a close with bytes unread would reset
 * the flow before the answer is out. */
static void finish(struct conn *c)
{
	ssize_t n;

	if (!flush(c))
		return;
	if (!c->said_bye) {
		/* It needs room as any record does, and without it the end would look like a cut. */
		if (c->ssl && !(SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN)) {
			(void)SSL_shutdown(c->ssl);
			if (!flush(c))
				return;
		}
		(void)shutdown(c->fd, SHUT_WR);
		c->said_bye = true;
		conn_deadline(c, FINISH_NS);
	}
	for (;;) {
		n = recv(c->fd, plain, sizeof(plain), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n > 0)
			c->discarded += (uint64_t)n;
		if (n <= 0 || c->discarded > DISCARD_MAX) {
			conn_close(c);
			return;
		}
	}
}

static void handshake(struct conn *c)
{
	int r;

	(void)flush(c);
	if (c->state != CONN_TLS)
		return;
	r = tls_handshake(c);
	if (r < 0) {
		conn_finish(c); /* the alert goes out first */
		return;
	}
	if (r == 0)
		return;
	c->state = CONN_OPEN;
	if (!(tls_is_h2(c) ? h2_open(c) : h1_open(c)))
		conn_reset(c);
}

static bool wants_input(const struct conn *c)
{
	return !c->in_eof && (c->h2 ? h2_wants_input(c) : c->h1 && h1_wants_input(c));
}

static void run(struct conn *c)
{
	if (c->h2)
		h2_run(c);
	else if (c->h1)
		h1_run(c);
}

static void open_turn(struct conn *c)
{
	for (int i = 0; c->state == CONN_OPEN; i++) {
		ssize_t n;

		run(c);
		/* Whatever is put there must be on its way, or wait for an event, before this ends. */
		while (c->state == CONN_OPEN && waits(c) && flush(c))
			run(c);
		if (c->state != CONN_OPEN || !wants_input(c))
			return;
		if (i == RECORDS_A_TURN) {
			conn_kick(c);
			return;
		}
		n = c->ssl ? tls_read(c, plain, sizeof(plain)) : -EAGAIN;
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			conn_close(c);
		} else if (n == 0) {
			c->in_eof = true;
		} else if (c->h2) {
			h2_input(c, SPAN(plain, (size_t)n));
		} else {
			h1_input(c, SPAN(plain, (size_t)n));
		}
	}
}

static void watch(struct conn *c)
{
	uint32_t want = 0;

	switch (c->state) {
	case CONN_PEEK:
		want = EPOLLIN;
		break;
	case CONN_TLS:
		want = EPOLLIN | (waits(c) ? EPOLLOUT : 0);
		break;
	case CONN_OPEN:
		want = (wants_input(c) ? EPOLLIN : 0) | (waits(c) ? EPOLLOUT : 0);
		break;
	case CONN_FINISH:
		want = (c->said_bye ? EPOLLIN : 0) | (waits(c) ? EPOLLOUT : 0);
		break;
	default:
		break;
	}
	/* As in ask.c. */
	if (c->state == CONN_OPEN && !c->unwanted && !c->in_eof)
		want |= c->watching & EPOLLIN;
	c->unwanted = false;
	if (c->watching != (want | 1u << 31)) {
		if (ev_watch(&c->g->ev, c->fd, want, EV_CONN, c->slot, c->gen) < 0)
			conn_reset(c);
		c->watching = want | 1u << 31; /* so that even nothing was once said */
	}
}

static void drive(struct conn *c)
{
	if (c->state == CONN_PEEK)
		aside_peek(c);
	if (c->state == CONN_DRAIN)
		aside_drain(c);
	if (c->state == CONN_TLS)
		handshake(c);
	if (c->state == CONN_OPEN)
		open_turn(c);
	if (c->state == CONN_FINISH)
		finish(c);
	if (c->state != CONN_DEAD)
		watch(c);
}

void conn_event(struct gate *g, const struct ev_event *e)
{
	struct conn *c = conn_at(g, e->slot, e->gen);

	if (!c)
		return;
	/* Both directions of the pair are closed: nobody is left who would hear an answer. In CONN_HOLD it stands for
	 * the answer that wire does not give then. */
	if (e->kind == EV_CONN && e->events & (EPOLLHUP | EPOLLERR)) {
		conn_close(c);
		return;
	}
	c->unwanted = c->state == CONN_OPEN && e->kind == EV_CONN && e->events & EPOLLIN && !wants_input(c);
	conn_kick(c);
}

void conns_turn(struct gate *g)
{
	struct conn *c = g->kicked, *next;

	/* Who is kicked meanwhile is looked at in the next turn, which comes at once. */
	for (g->kicked = NULL; c; c = next) {
		next = c->next;
		c->kicked = false;
		if (c->state == CONN_DEAD) {
			c->next = g->dead;
			g->dead = c;
			continue;
		}
		drive(c);
	}
	for (c = g->dead; c; c = next) {
		next = c->next;
		g->conn[c->slot] = NULL;
		g->n_conns--;
		free(c);
	}
	g->dead = NULL;
}

static void timeout(struct conn *c)
{
	switch (c->state) {
	case CONN_OPEN:
		if (c->h2)
			h2_timeout(c);
		else if (c->h1)
			h1_timeout(c);
		else
			conn_close(c);
		break;
	case CONN_FINISH:
		if (waits(c))
			conn_reset(c);
		else
			conn_close(c);
		break;
	default:
		aside_timeout(c);
	}
}

void conns_tick(struct gate *g)
{
	for (size_t i = 0; i < CONNS; i++) {
		struct conn *c = g->conn[i];

		if (!c || c->deadline == 0 || c->state == CONN_DEAD)
			continue;
		if (c->deadline <= g->now) {
			c->deadline = 0;
			timeout(c);
		}
		if (c->deadline != 0)
			gate_due(g, c->deadline);
	}
}
