/* Messages of vault and wire. Both are checked to the last byte: a message that cannot be ends the session. */
#include <errno.h>
#include <string.h>

#include "agents/tokens.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "gate/gate.h"
#include "proto/gatecfg.h"

#define AT_ONCE 64

static void watch(struct gate *g, const struct seqlink *l, enum gate_ev kind, uint32_t *watching)
{
	uint32_t want = EPOLLIN | (seqlink_wants_out(l) ? (uint32_t)EPOLLOUT : 0);

	if (want != *watching && ev_watch(&g->ev, l->fd, want, (uint8_t)kind, 0, 0) == 0)
		*watching = want;
}

static void gone(struct gate *g, const struct seqlink *l, int r)
{
	/* That one of them is gone is how sessions end: wire does when the VM has. One that failed tells the launcher itself. */
	gate_end(g, r == -ENOMEM ? "out of memory" : l == &g->vault ? "vault is gone" : "wire is gone", r == -ENOMEM);
}

void vault_send(struct gate *g, const void *msg, size_t n, int fd)
{
	int r = seqlink_send(&g->vault, g->now, msg, n, fd);

	if (r < 0)
		gone(g, &g->vault, r);
	watch(g, &g->vault, EV_VAULT, &g->vault_watch);
}

void wire_tell(struct gate *g, uint16_t type, const struct conn *c, int fd)
{
	struct net_head m = { NET_VERSION, type, sizeof(m), c->wire_slot, c->wire_gen };
	int r = seqlink_send(&g->wire, g->now, &m, sizeof(m), fd);

	if (r < 0)
		gone(g, &g->wire, r);
	watch(g, &g->wire, EV_WIRE, &g->wire_watch);
}

static void flush(struct gate *g, struct seqlink *l, enum gate_ev kind, uint32_t *watching)
{
	int r = seqlink_flush(l, g->now);

	if (r < 0)
		gone(g, l, r);
	watch(g, l, kind, watching);
}

void links_flush(struct gate *g)
{
	if (g->vault.look_ns != 0 && g->vault.look_ns <= g->now)
		flush(g, &g->vault, EV_VAULT, &g->vault_watch);
	if (g->wire.look_ns != 0 && g->wire.look_ns <= g->now)
		flush(g, &g->wire, EV_WIRE, &g->wire_watch);
}

int64_t links_next(const struct gate *g)
{
	int64_t a = seqlink_next(&g->vault), b = seqlink_next(&g->wire);

	return a < 0 ? b : b < 0 ? a : MIN(a, b);
}

static bool is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	while (n > 0 && b[n - 1] == 0)
		n--;
	return n == 0;
}

/* A text with a NUL, and zeros behind it. */
static bool is_text(const char *s, size_t size)
{
	size_t n = strnlen(s, size);

	return n < size && is_zero(s + n, size - n);
}

static bool renewed_is_sane(const struct net_renewed *m)
{
	if (m->lack >= TOKEN_LACKS || m->fedramp > 1 || !is_zero(m->zero, sizeof(m->zero)) ||
	    !is_text(m->account_id, sizeof(m->account_id)) || !is_text(m->plan, sizeof(m->plan)) ||
	    !is_text(m->scope, sizeof(m->scope)) || m->expires_in < 0 || m->exp < 0)
		return false;
	/* Of the scope's words only what needs no escape in JSON. */
	for (const char *s = m->scope; *s; s++)
		if (*s < 0x20 || *s > 0x7e || *s == '"' || *s == '\\')
			return false;
	return m->lack == TOKEN_LACK_NONE || (m->expires_in == 0 && m->exp == 0 && m->fedramp == 0 &&
					      !m->account_id[0] && !m->plan[0] && !m->scope[0]);
}

static bool dialled_is_sane(const struct net_dialled *m, bool has_fd)
{
	if (m->outcome != NET_CONNECTED && m->outcome != NET_REFUSED && m->outcome != NET_FAILED)
		return false;
	return has_fd == (m->outcome == NET_CONNECTED) && (m->outcome == NET_FAILED || m->error == 0);
}

/* True: it was understood. @fd: taken if so and there is one. */
static bool vault_message(struct gate *g, const uint8_t *msg, size_t n, int fd)
{
	union {
		struct net_head head;
		struct net_peek peek;
		struct net_dialled dialled;
		struct net_renewed renewed;
	} m;
	struct conn *c;
	struct ask *a;

	if (n < sizeof(m.head) || n > sizeof(m))
		return false;
	memcpy(&m, msg, n);
	if (m.head.version != NET_VERSION || m.head.length != n)
		return false;
	switch (m.head.type) {
	case NET_PEEK:
		if (n != sizeof(m.peek) || fd == -1 || m.peek.tied > 1 || m.peek.named > 1 || !is_zero(m.peek.zero, sizeof(m.peek.zero)) ||
		    conn_by_flow(g, &m.head))
			return false;
		conn_new(g, &m.peek, fd);
		return true;
	case NET_DIALLED:
		if (n != sizeof(m.dialled) || !dialled_is_sane(&m.dialled, fd != -1))
			return false;
		c = conn_by_flow(g, &m.head);
		if (c && c->state != CONN_DIAL)
			return false;
		/* The guest may be gone meanwhile. */
		if (c)
			aside_dialled(c, &m.dialled, fd);
		else
			close_p(&fd);
		return true;
	case NET_RENEWED:
		if (n != sizeof(m.renewed) || fd != -1 || m.head.slot >= ASKS || !renewed_is_sane(&m.renewed))
			return false;
		a = ask_at(g, m.head.slot, m.head.generation);
		if (a && a->state != ASK_RENEW)
			return false;
		if (a)
			ask_renewed(a, &m.renewed);
		return true;
	default:
		return false;
	}
}

/* Wire answers HOLD and says nothing else. */
static bool wire_message(struct gate *g, const uint8_t *msg, size_t n, int fd)
{
	struct net_held m;
	struct conn *c;

	if (n != sizeof(m) || fd != -1)
		return false;
	memcpy(&m, msg, n);
	if (m.head.version != NET_VERSION || m.head.length != n || m.head.type != NET_HELD)
		return false;
	c = conn_by_flow(g, &m.head);
	if (c && (c->state != CONN_HOLD || m.bytes < c->taken))
		return false;
	if (c)
		aside_held(c, m.bytes);
	return true;
}

static void link_read(struct gate *g, struct seqlink *l, bool (*take)(struct gate *, const uint8_t *, size_t, int))
{
	static uint8_t msg[sizeof(struct net_renewed) + 1]; /* the largest; a longer one shows */

	for (int i = 0; i < AT_ONCE && !g->ended; i++) {
		int fd = -1;
		ssize_t n = fd_recv(l->fd, msg, sizeof(msg), &fd, 1);

		if (n == -EAGAIN)
			return;
		if (n == 0 || n == -ECONNRESET) {
			gone(g, l, 0);
		} else if (n < 0 || !take(g, msg, (size_t)n, fd)) {
			close_p(&fd);
			gate_end(g,
				 l == &g->vault ? "vault broke the rules of the protocol"
						: "wire broke the rules of the protocol",
				 true);
		}
	}
}

void vault_event(struct gate *g, uint32_t events)
{
	if (events & EPOLLOUT)
		flush(g, &g->vault, EV_VAULT, &g->vault_watch);
	link_read(g, &g->vault, vault_message);
}

void wire_event(struct gate *g, uint32_t events)
{
	if (events & EPOLLOUT)
		flush(g, &g->wire, EV_WIRE, &g->wire_watch);
	link_read(g, &g->wire, wire_message);
}
