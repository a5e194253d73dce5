/* Before the verdict: the first bytes of a stream, which TLS or HTTP begins with, name the host. A host that is not
 * ours to judge gets the stream as the guest sent it: vault connects to what was dialled (DIAL), wire stops writing to
 * the pair and says how much it wrote (HOLD), exactly that is passed on, and wire goes on with the socket itself
 * (HANDOVER). A byte lost or doubled here breaks the guest's connection, so everything is counted.
 *
 * A guest that says nothing waits for the server to speak: after a second the stream steps aside as well. At an address
 * that vault gave out for an inspected name nothing steps aside that has no name of its own: it is reset. What has one
 * takes it along, and vault refuses one that it did not give that address out for: a server that answers for an
 * inspected host under a name of the guest's choice would be asked past the rules. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "gate/gate.h"
#include "gate/hello.h"
#include "gate/http1.h"

#define METHOD_LONGEST 16

/* @name: what the stream says where it wants to go; vault knows whether it belongs to the address. */
static void step_aside(struct conn *c, const char *name)
{
	struct net_dial m = { .head = { NET_VERSION, NET_DIAL, sizeof(m), c->wire_slot, c->wire_gen } };

	static_assert(sizeof(m.name) >= sizeof(((struct hello *)NULL)->sni), "a name of a ClientHello fits");
	memcpy(m.name, name, strnlen(name, sizeof(m.name) - 1));

	c->state = CONN_DIAL;
	conn_deadline(c, DIAL_NS);
	vault_send(c->g, &m, sizeof(m), -1);
}

static bool is_bound(const struct conn *c, enum prov_host_id host)
{
	return host < HOSTS && prov_bound(&c->g->judge.launch, host);
}

/* @every_port: this is no other service's either, whatever the port. */
static void nameless(struct conn *c, const char *what, bool every_port)
{
	if (!c->tied || (!every_port && c->port != 443 && c->port != 80)) {
		step_aside(c, "");
		return;
	}
	guest_line(c->g, LINE_NAMELESS, "port %u of an inspected host: %s; reset", c->port, what);
	conn_reset(c);
}

/* Network page 3.2: GitHub and others answer SSH on 443, too. A front of it is told when no more came. */
static bool is_ssh(struct span s, bool over)
{
	return (s.n >= 4 || over) && memcmp(s.p, "SSH-", MIN(s.n, 4)) == 0;
}

/* "METHOD " or a front of it. */
static bool begins_as_http(struct span s)
{
	for (size_t i = 0; i < s.n && i <= METHOD_LONGEST; i++) {
		if (s.p[i] == ' ')
			return i > 0;
		if (s.p[i] < 'A' || s.p[i] > 'Z')
			return false;
	}
	return s.n <= METHOD_LONGEST;
}

/* An empty line in it, however its lines end. */
static bool has_whole_head(struct span s)
{
	return memmem(s.p, s.n, "\n\r\n", 3) || memmem(s.p, s.n, "\n\n", 2);
}

/* The host that a whole head names; HOSTS: none that we know. @name: lower case and without a port; empty when the head
 * is broken or names none. */
static enum prov_host_id clear_host(struct span s, char name[NET_DIAL_NAME])
{
	enum prov_host_id host = HOSTS;
	struct http1 h;
	struct span body, v;
	size_t n = 0;

	http1_init(&h, SPAN("", 0));
	if (http1_feed(&h, &s, &body) == HTTP1_HEAD) {
		v = request_host(&h.req);
		host = prov_host_find(v);
		for (; n < v.n && v.p[n] != ':'; n++) {
			if (n == NET_DIAL_NAME - 1 || v.p[n] <= ' ' || v.p[n] > '~') {
				n = 0;
				break;
			}
			name[n] = (char)(v.p[n] >= 'A' && v.p[n] <= 'Z' ? v.p[n] | 0x20 : v.p[n]);
		}
		if (n > 0 && name[n - 1] == '.')
			n--;
	}
	name[n] = '\0';
	http1_done(&h);
	return host;
}

static void not_tls(struct conn *c, bool over)
{
	struct span s = buf_span(&c->raw);
	char name[NET_DIAL_NAME];
	enum prov_host_id host;

	if (c->port == 443 && !c->named && is_ssh(s, over)) {
		guest_line(c->g, LINE_SSH, "SSH on port 443, which no rule opens; reset");
		conn_reset(c);
		return;
	}
	if (!begins_as_http(s)) {
		nameless(c, "neither TLS nor HTTP", false);
		return;
	}
	if (!has_whole_head(s)) {
		if (over || c->raw.n == c->raw.max)
			nameless(c, "no whole head of HTTP", false);
		return;
	}
	host = clear_host(s, name);
	if (is_bound(c, host))
		conn_inspect(c, host, false);
	else if (name[0] == '\0')
		nameless(c, "HTTP without a host", false);
	else
		step_aside(c, name);
}

/* @over: no more bytes come, or there was time enough for them. */
static void judge(struct conn *c, bool over)
{
	struct hello hello;
	enum prov_host_id host;

	switch (hello_parse(buf_span(&c->raw), &hello)) {
	case HELLO_MORE:
		if (over)
			conn_reset(c);
		break;
	case HELLO_BAD:
		guest_line(c->g, LINE_HELLO, "port %u: a ClientHello that is malformed or too long; reset", c->port);
		conn_reset(c);
		break;
	case HELLO_NOT_TLS:
		not_tls(c, over);
		break;
	case HELLO_OK:
		host = prov_host_find(span_str(hello.sni));
		/* An encrypted ClientHello within changes nothing: who is answered is who the outer one names, and
		 * every request must name that host. Browsers send one that means nothing to every host, so it is no
		 * reason to reset. */
		if (is_bound(c, host)) {
			conn_inspect(c, host, true);
		} else if (hello.sni[0] == '\0') {
			nameless(c, "TLS without a name", true);
		} else {
			step_aside(c, hello.sni);
		}
	}
}

void aside_peek(struct conn *c)
{
	bool eof = false, first = c->taken == 0;

	while (c->raw.n < c->raw.max) {
		size_t want = MIN(c->raw.max - c->raw.n, (size_t)(16 << 10));
		uint8_t *room = buf_room(&c->raw, want);
		ssize_t n = room ? recv(c->fd, room, want, MSG_DONTWAIT) : -1;

		if (n < 0 && room && errno == EINTR)
			continue;
		if (n < 0 && (!room || errno != EAGAIN)) {
			conn_reset(c);
			return;
		}
		eof = n == 0;
		if (n <= 0)
			break;
		buf_grew(&c->raw, (size_t)n);
		c->taken += (uint64_t)n;
	}
	if (first && c->taken > 0)
		conn_deadline(c, HANDSHAKE_NS);
	if (c->taken > 0)
		judge(c, eof);
	else if (eof)
		nameless(c, "nothing was said", true);
}

void aside_dialled(struct conn *c, const struct net_dialled *m, int fd)
{
	if (m->outcome != NET_CONNECTED || fd < 0) {
		conn_reset(c);
		return;
	}
	c->dialled = fd;
	c->state = CONN_HOLD;
	conn_deadline(c, HANDSHAKE_NS);
	wire_tell(c->g, NET_HOLD, c, -1);
}

void aside_held(struct conn *c, uint64_t bytes)
{
	c->written = bytes;
	c->state = CONN_DRAIN;
	conn_deadline(c, DIAL_NS);
	conn_kick(c);
}

/* True: all that was read is with the server. */
static bool pass_on(struct conn *c)
{
	while (c->raw.n > 0) {
		ssize_t n = send(c->dialled, buf_span(&c->raw).p, c->raw.n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (ev_watch(&c->g->ev, c->dialled, EPOLLOUT, EV_DIALLED, c->slot, c->gen) < 0)
				conn_reset(c);
			return false;
		}
		if (n < 0) {
			conn_reset(c);
			return false;
		}
		buf_consume(&c->raw, (size_t)n);
	}
	return true;
}

void aside_drain(struct conn *c)
{
	while (pass_on(c)) {
		size_t want = (size_t)MIN(c->written - c->taken, (uint64_t)(16 << 10));
		uint8_t *room;
		ssize_t n;

		if (want == 0) {
			ev_unwatch(&c->g->ev, c->dialled);
			wire_tell(c->g, NET_HANDOVER, c, TAKE_FD(c->dialled));
			conn_close(c);
			return;
		}
		room = buf_room(&c->raw, want);
		n = room ? recv(c->fd, room, want, MSG_DONTWAIT) : -1;
		if (n < 0 && room && errno == EINTR)
			continue;
		if (n <= 0) {
			/* Less than wire says that it wrote. */
			conn_reset(c);
			return;
		}
		buf_grew(&c->raw, (size_t)n);
		c->taken += (uint64_t)n;
	}
}

void aside_timeout(struct conn *c)
{
	if (c->state != CONN_PEEK)
		conn_reset(c);
	else if (c->taken == 0)
		nameless(c, "silence", true);
	else
		judge(c, true);
}
