/* Published ports (network page 9.2): connections and datagrams from outside into the guest.
 *
 * TCP: accept, hand the socket to wire, keep a record until wire says that it ended. At most INBOUND_ASKED wait for wire's
 * answer; beyond that nothing is accepted, the clients wait in the backlog. wire gives a connection up after 6 s, but its
 * answer may be lost when the link to it is full, so a place is free again after 20 s. UDP: a number per peer, PEERS_MAX, idle
 * 60 s, then a line in the audit; answers go to that peer only, and the unconnected socket never leaves this process.
 *
 * With --auto-publish TCP sockets come and go while the session runs (proto/vaultcfg.h); connections outlive theirs. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "vault/vault.h"

#define INBOUND_ASKED 512
#define INBOUND_MAX 16384
#define INBOUND_NS (20 * NS)
#define PEERS_MAX 256
#define PEER_IDLE_NS (60 * NS)
#define PAUSE_NS (100 * MS)
#define LACK_LOG_NS (60 * NS)
#define AT_ONCE 32 /* accepts or datagrams an event */

enum inbound_state { INBOUND_FREE, INBOUND_WAITS, INBOUND_OPEN };

struct inbound {
	enum inbound_state state;
	uint32_t generation, next_free;
	uint16_t port; /* of the guest */
	int64_t start;
	struct sockaddr_storage peer;
	char listen[VAULT_LISTEN_TEXT]; /* its publish may be gone before it */
};

struct peer {
	bool used;
	uint16_t publish;
	int64_t start, seen;
	uint64_t up, down;
	struct sockaddr_storage from;
	socklen_t from_n;
};

struct publish {
	struct inbound *in;
	uint32_t free, used_to;
	size_t asked;
	int64_t asked_until; /* no place that waits has to be given up before */
	int64_t pause_until; /* 0: none */
	int64_t lack_logged; /* that accept() lacked something; 0: never */
	bool stopped;
	struct peer peers[PEERS_MAX];
	size_t n_peers;
};

static void watch(struct vault *v, bool on)
{
	for (size_t i = 0; i < v->cfg.n_publishes; i++)
		if (v->cfg.publishes[i].fd >= 0 && !v->cfg.publishes[i].udp)
			(void)ev_watch(&v->ev, v->cfg.publishes[i].fd, on ? EPOLLIN : 0, EV_LISTEN, (uint16_t)i, 0);
	v->publish->stopped = !on;
}

/* Serve a socket. */
static int begin(struct vault *v, size_t i)
{
	struct vault_publish *p = &v->cfg.publishes[i];
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof(sa);
	int r = fd_nonblock(p->fd, true);

	if (r == 0 && getsockname(p->fd, (struct sockaddr *)&sa, &n) < 0)
		r = -errno;
	if (r == 0)
		r = ev_watch(&v->ev, p->fd, v->publish->stopped && !p->udp ? 0 : EPOLLIN, EV_LISTEN, (uint16_t)i, 0);
	if (r < 0)
		return r;
	p->own = ntohs(sa.ss_family == AF_INET ? ((struct sockaddr_in *)&sa)->sin_port :
						 ((struct sockaddr_in6 *)&sa)->sin6_port);
	return 0;
}

int publish_init(struct vault *v)
{
	v->publish = xcalloc(1, sizeof(*v->publish));
	v->publish->in = xcalloc(INBOUND_MAX, sizeof(struct inbound));
	for (size_t i = 0; i < v->cfg.n_publishes; i++) {
		int r = begin(v, i);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The lowest free place, which may be one more. */
static struct vault_publish *place(struct vault_config *c)
{
	size_t i = 0, added = 0;

	for (size_t k = 0; k < c->n_publishes; k++)
		added += c->publishes[k].fd >= 0 && c->publishes[k].added;
	if (added >= VAULT_LISTEN_MAX)
		return NULL;
	while (i < c->n_publishes && c->publishes[i].fd >= 0)
		i++;
	if (i == c->n_publishes)
		c->n_publishes++;
	return &c->publishes[i];
}

static void drop(struct vault *v, struct vault_publish *p)
{
	ev_unwatch(&v->ev, p->fd);
	close_p(&p->fd);
	*p = (struct vault_publish){ .fd = -1 };
}

static bool listens(int fd)
{
	int on = 0;
	socklen_t n = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on;
}

int publish_add(struct vault *v, const struct vault_listen *l, int fd)
{
	struct vault_publish *p;
	bool live = listens(fd); /* else it has ended already */
	int r;

	p = live ? place(&v->cfg) : NULL;
	if (!p) {
		close_p(&fd);
		return live ? -ENOSPC : 0;
	}
	*p = (struct vault_publish){ .fd = fd, .added = true, .port = l->port };
	memcpy(p->listen, l->listen, sizeof(p->listen));
	r = begin(v, (size_t)(p - v->cfg.publishes));
	if (r < 0)
		drop(v, p);
	return r;
}

bool publish_uses(const struct vault *v, enum policy_proto proto, uint16_t port)
{
	for (size_t i = 0; i < v->cfg.n_publishes; i++)
		if (v->cfg.publishes[i].fd >= 0 && v->cfg.publishes[i].own == port && v->cfg.publishes[i].udp == (proto == POLICY_UDP))
			return true;
	return false;
}

static void inbound_free(struct publish *p, struct inbound *in)
{
	uint32_t generation = in->generation + 1;

	if (in->state == INBOUND_WAITS)
		p->asked--;
	*in = (struct inbound){ .generation = generation, .next_free = p->free };
	p->free = (uint32_t)(in - p->in) + 1;
}

/* False: no more for now. */
static bool accept_one(struct vault *v, uint16_t at)
{
	static const int on = 1;
	struct publish *p = v->publish;
	struct sockaddr_storage peer = { 0 };
	socklen_t n = sizeof(peer);
	struct net_inbound m;
	struct inbound *in;
	uint32_t i;
	int fd;

	fd = accept4(v->cfg.publishes[at].fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && fd_is_lack(errno)) {
		if (p->lack_logged == 0 || v->now - p->lack_logged >= LACK_LOG_NS) {
			p->lack_logged = v->now;
			log_warn("published port %u: accept: %s; tried again, told once a minute", v->cfg.publishes[at].port, strerror(errno));
		}
		p->pause_until = v->now + PAUSE_NS;
		watch(v, false);
		return false;
	}
	if (fd < 0)
		return errno == ECONNABORTED || errno == EINTR;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	i = p->free;
	if (i)
		p->free = p->in[i - 1].next_free;
	else if (p->used_to < INBOUND_MAX)
		i = ++p->used_to;
	else {
		(void)close(fd); /* wire's table is full as well */
		return true;
	}
	in = &p->in[i - 1];
	*in = (struct inbound){ .state = INBOUND_WAITS, .generation = in->generation, .port = v->cfg.publishes[at].port,
				.start = v->now, .peer = peer };
	memcpy(in->listen, v->cfg.publishes[at].listen, sizeof(in->listen));
	if (p->asked++ == 0)
		p->asked_until = v->now + INBOUND_NS;
	m = (struct net_inbound){ .head = net_head(NET_INBOUND, sizeof(m), i - 1, in->generation),
				  .port = v->cfg.publishes[at].port, .family = NET_V4 };
	wire_send(v, &m, sizeof(m), fd);
	if (p->asked < INBOUND_ASKED)
		return true;
	watch(v, false);
	return false;
}

static struct inbound *find(struct publish *p, uint32_t i, uint32_t generation)
{
	if (i >= p->used_to || p->in[i].state == INBOUND_FREE || p->in[i].generation != generation)
		return NULL;
	return &p->in[i];
}

/* "127.0.0.1:50312", "[::1]:50312" */
static void peer_text(const struct sockaddr_storage *sa, char *to, size_t size)
{
	struct addr a = { .family = sa->ss_family };
	char text[ADDR_TEXT];

	if (a.family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		memcpy(a.b, &in->sin_addr, 4);
		(void)snprintf(to, size, "%s:%u", addr_format(&a, text), ntohs(in->sin_port));
	} else {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;

		memcpy(a.b, &in->sin6_addr, 16);
		(void)snprintf(to, size, "[%s]:%u", addr_format(&a, text), ntohs(in->sin6_port));
	}
}

static void published_line(struct vault *v, const struct inbound *in, const struct net_ended *e, const char *end)
{
	char peer[ADDR_TEXT + 16];

	peer_text(&in->peer, peer, sizeof(peer));
	audit_published(&v->audit, &(struct audit_published){
		.listen = in->listen, .peer = peer, .port = in->port, .up = e ? e->up : 0, .down = e ? e->down : 0,
		.ms = e ? e->ms : (uint32_t)((v->now - in->start) / MS), .end = end });
}

static void peer_line(struct vault *v, const struct peer *q, const char *end)
{
	char peer[ADDR_TEXT + 16];

	peer_text(&q->from, peer, sizeof(peer));
	audit_published(&v->audit, &(struct audit_published){
		.udp = true, .listen = v->cfg.publishes[q->publish].listen, .peer = peer, .port = v->cfg.publishes[q->publish].port,
		.up = q->up, .down = q->down, .ms = (uint32_t)((v->now - q->start) / MS), .end = end });
}

bool publish_ended(struct vault *v, const struct net_ended *e)
{
	static const char *const ends[] = {
		[NET_END_FIN] = "fin", [NET_END_RST_GUEST] = "rst", [NET_END_RST_HOST] = "rst", [NET_END_IDLE] = "idle",
		[NET_END_EVICTED] = "evicted", [NET_END_ERROR] = "error:io",
	};
	struct inbound *in = NULL;

	if (e->head.slot & NET_SLOT_INBOUND)
		in = find(v->publish, e->head.slot & ~NET_SLOT_INBOUND, e->head.generation);
	if (!in)
		return false;
	published_line(v, in, e, ends[e->how]);
	inbound_free(v->publish, in);
	return true;
}

/* Answers go to the peer of that number only, and only from the port that it wrote to. */
static void udp_out(struct vault *v, const void *msg, size_t n)
{
	struct publish *p = v->publish;
	struct net_datagram d;
	struct peer *peer;
	ssize_t k;

	memcpy(&d, msg, sizeof(d));
	peer = &p->peers[d.peer % PEERS_MAX];
	if (d.peer >= PEERS_MAX || !peer->used || v->cfg.publishes[peer->publish].port != d.port)
		return; /* forgotten meanwhile */
	peer->seen = v->now;
	k = sendto(v->cfg.publishes[peer->publish].fd, (const char *)msg + sizeof(d), n - sizeof(d), MSG_DONTWAIT | MSG_NOSIGNAL,
		   (struct sockaddr *)&peer->from, peer->from_n);
	if (k > 0)
		peer->up += (uint64_t)k;
}

bool publish_message(struct vault *v, int type, const void *msg, size_t n)
{
	struct publish *p = v->publish;
	struct net_opened done;
	struct inbound *in;

	if (type == NET_UDP_OUT) {
		udp_out(v, msg, n);
		return true;
	}
	memcpy(&done, msg, sizeof(done));
	if (done.head.slot < p->used_to && done.head.generation < p->in[done.head.slot].generation)
		return true; /* asked, and given up since */
	in = find(p, done.head.slot, done.head.generation);
	if (!in || in->state != INBOUND_WAITS)
		return false;
	if (done.outcome == NET_TAKEN) {
		p->asked--;
		in->state = INBOUND_OPEN;
	} else {
		published_line(v, in, NULL, done.outcome == NET_REFUSED ? "error:ECONNREFUSED" : "error:EHOSTUNREACH");
		inbound_free(p, in);
	}
	if (p->stopped && !p->pause_until && p->asked < INBOUND_ASKED)
		watch(v, true);
	return true;
}

static size_t peer_of(struct vault *v, uint16_t at, const struct sockaddr_storage *from, socklen_t from_n)
{
	struct publish *p = v->publish;
	size_t oldest = 0;

	for (size_t i = 0; i < PEERS_MAX; i++) {
		struct peer *q = &p->peers[i];

		if (q->used && q->publish == at && q->from_n == from_n && memcmp(&q->from, from, from_n) == 0)
			return i;
		if (!q->used ? p->peers[oldest].used : p->peers[oldest].used && q->seen < p->peers[oldest].seen)
			oldest = i;
	}
	if (p->peers[oldest].used)
		peer_line(v, &p->peers[oldest], "evicted");
	else
		p->n_peers++;
	p->peers[oldest] = (struct peer){ .used = true, .publish = at, .start = v->now, .from = *from, .from_n = from_n };
	return oldest;
}

static bool datagram_in(struct vault *v, uint16_t at)
{
	static _Alignas(struct net_datagram) uint8_t msg[sizeof(struct net_datagram) + NET_DATAGRAM_MAX];
	struct sockaddr_storage from = { 0 };
	socklen_t from_n = sizeof(from);
	struct net_datagram *d = (struct net_datagram *)msg;
	struct peer *peer;
	size_t i;
	ssize_t k;

	k = recvfrom(v->cfg.publishes[at].fd, msg + sizeof(*d), NET_DATAGRAM_MAX, MSG_DONTWAIT, (struct sockaddr *)&from, &from_n);
	if (k < 0)
		return errno == EINTR || errno == ECONNREFUSED;
	if (link_clogged(&v->wire))
		return true; /* datagrams may be lost; they must not pile up */
	i = peer_of(v, at, &from, from_n);
	peer = &v->publish->peers[i];
	peer->seen = v->now;
	peer->down += (uint64_t)k;
	*d = (struct net_datagram){ .head = net_head(NET_UDP_IN, sizeof(*d) + (size_t)k, 0, 0),
				    .peer = (uint32_t)i, .port = v->cfg.publishes[at].port,
				    .bytes = (uint16_t)k };
	wire_send(v, msg, sizeof(*d) + (size_t)k, -1);
	return true;
}

void publish_event(struct vault *v, uint16_t slot)
{
	struct vault_publish *p = slot < v->cfg.n_publishes ? &v->cfg.publishes[slot] : NULL;

	if (!p || p->fd < 0)
		return;
	/* The launcher has shut it down. */
	if (p->added && !listens(p->fd)) {
		drop(v, p);
		return;
	}
	for (int i = 0; i < AT_ONCE; i++)
		if (v->cfg.publishes[slot].udp ? !datagram_in(v, slot) : v->publish->stopped || !accept_one(v, slot))
			break;
}

/* wire is told as well, so that the client is. */
static void give_up(struct vault *v)
{
	struct publish *p = v->publish;
	int64_t until = v->now + INBOUND_NS;

	for (uint32_t i = 0; i < p->used_to; i++) {
		struct inbound *in = &p->in[i];
		struct net_head m = net_head(NET_CLOSE, sizeof(m), i | NET_SLOT_INBOUND, in->generation);

		if (in->state != INBOUND_WAITS)
			continue;
		if (in->start + INBOUND_NS > v->now) {
			until = sooner(until, in->start + INBOUND_NS);
			continue;
		}
		wire_send(v, &m, sizeof(m), -1);
		published_line(v, in, NULL, "error:ETIMEDOUT");
		inbound_free(p, in);
	}
	p->asked_until = until;
	if (p->stopped && !p->pause_until && p->asked < INBOUND_ASKED)
		watch(v, true);
}

void publish_end(struct vault *v)
{
	struct publish *p = v->publish;

	for (uint32_t i = 0; i < p->used_to; i++)
		if (p->in[i].state != INBOUND_FREE)
			published_line(v, &p->in[i], NULL, "error:session");
	for (size_t i = 0; i < PEERS_MAX; i++)
		if (p->peers[i].used)
			peer_line(v, &p->peers[i], "error:session");
}

int64_t publish_tick(struct vault *v)
{
	struct publish *p = v->publish;
	int64_t next = -1;

	if (p->asked > 0 && p->asked_until <= v->now)
		give_up(v);
	if (p->asked > 0)
		next = p->asked_until;
	if (p->pause_until && p->pause_until <= v->now) {
		p->pause_until = 0;
		if (p->asked < INBOUND_ASKED)
			watch(v, true);
	}
	for (size_t i = 0; p->n_peers > 0 && i < PEERS_MAX; i++) {
		struct peer *q = &p->peers[i];

		if (q->used && q->seen + PEER_IDLE_NS <= v->now) {
			peer_line(v, q, "idle");
			q->used = false;
			p->n_peers--;
		}
		if (q->used)
			next = sooner(next, q->seen + PEER_IDLE_NS);
	}
	return p->pause_until ? sooner(next, p->pause_until) : next;
}
