/* Connections to the services: made by name, with addresses of both families raced, kept for the next request of the
 * same kind, and never for another (credentials page 8.1).
 *
 *   NAMES --addresses--> DIAL --first that connects--> TLS --verified--> OPEN <--> a request, or kept
 *     \------- no address, 20 s, no certificate that fits, 10 s: closed, and whoever waits gets 502
 *
 * Through a proxy the name is asked of the proxy, and is not resolved here. Bounds: UP_CONNS connections, of which the
 * one that is unused for longest makes room; one that nobody uses lives for five minutes. What is told by opens.c and
 * dns.c is written down and acted upon in up_tick(), so that nothing is freed within a call of theirs. */
#include "vault/upstream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "vault/dnsmsg.h"

#define PORT 443
#define CONNECT_NS (20 * NS)
#define TLS_NS (10 * NS)
#define KEPT_NS (300 * NS)
#define NAMES_NS (50 * MS) /* RFC 8305 section 3: for the other family's answer */
#define NEXT_NS (250 * MS) /* section 5 */
#define TROUBLE_NS (60 * NS)
#define WATCH_NS (20 * MS)

struct upstream {
	struct conn v[UP_CONNS];
	size_t n;
	struct {
		const char *why;
		int64_t at;
	} told[HOSTS];
};

int upstream_init(struct vault *v)
{
	v->upstream = xcalloc(1, sizeof(*v->upstream));
	return 0;
}

uint16_t conn_at(const struct vault *v, const struct conn *c)
{
	return (uint16_t)(c - v->upstream->v);
}

void up_trouble(struct vault *v, enum prov_host_id host, const char *why)
{
	struct upstream *u = v->upstream;

	if (u->told[host].why && strcmp(u->told[host].why, why) == 0 && v->now - u->told[host].at < TROUBLE_NS)
		return;
	u->told[host].why = why;
	u->told[host].at = v->now;
	log_warn("upstream %s: %s", prov_hosts[host].name, why);
}

/* c->out to the socket, as far as it takes it. */
static void flush(struct conn *c)
{
	while (c->out.n > 0) {
		struct span s = buf_span(&c->out);
		ssize_t k = send(c->fd, s.p, s.n, MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno == EAGAIN)
			return;
		if (k < 0) {
			/* Of a lack of memory here the service knows nothing: it would wait for the rest, and we for its answer. */
			if (fd_is_lack(errno))
				(void)shutdown(c->fd, SHUT_RDWR);
			c->broken = true;
			buf_consume(&c->out, c->out.n);
			return;
		}
		buf_consume(&c->out, (size_t)k);
	}
	if (c->end_out) {
		c->end_out = false;
		(void)shutdown(c->fd, SHUT_WR);
	}
}

void conn_close(struct vault *v, struct conn *c)
{
	if (c->state == CONN_FREE)
		return;
	opens_up_cancel(v, conn_at(v, c), c->gen);
	if (c->ssl && c->state == CONN_OPEN) {
		tls_notify_end(c);
		flush(c);
	}
	if (c->fd >= 0) {
		ev_unwatch(&v->ev, c->fd);
		(void)close(c->fd);
	}
	if (c->x)
		c->x->conn = NULL;
	if (c->h2)
		exchanges_lost(v, c, h2_why(c));
	h2_free(c);
	tls_free(c);
	v->upstream->n--;
	*c = (struct conn){ .gen = c->gen + 1, .fd = -1 };
}

static void fail(struct vault *v, struct conn *c, const char *why)
{
	struct exchange *x = c->x;

	up_trouble(v, c->key.host, why);
	conn_close(v, c);
	if (x)
		exchange_failed(v, x, REFUSAL_UPSTREAM);
}

void conn_update(struct vault *v, struct conn *c)
{
	bool full = c->watched & EPOLLOUT, more;
	uint32_t want;

	if (c->state != CONN_TLS && c->state != CONN_OPEN)
		return;
	do {
		more = c->h2 && h2_send(c);
		full |= more;
		flush(c);
	} while (more && c->out.n == 0);
	want = (c->paused ? 0u : EPOLLIN) | (c->out.n > 0 ? EPOLLOUT : 0u);
	/* Without interest an error would be told again and again. */
	if (want != c->watched && want == 0)
		ev_unwatch(&v->ev, c->fd);
	else if (want != c->watched && ev_watch(&v->ev, c->fd, want, EV_UP, conn_at(v, c), c->gen) < 0) {
		/* The kernel has no memory for it: it was not watched, and no event would come. */
		c->watch_at = v->now + WATCH_NS;
		want = 0;
	}
	c->watched = want;
	/* No event will tell them. */
	if (full && c->out.n == 0)
		exchanges_writable(v, c);
}

void conn_resume(struct vault *v, struct conn *c)
{
	uint32_t gen = c->gen;

	if (!c->paused)
		return;
	c->paused = false;
	h1_readable(v, c);
	if (c->gen == gen)
		conn_update(v, c);
}

/* --- to where --- */

static bool by_proxy(const struct vault *v, const char *name)
{
	const char *const names[] = { name, NULL };
	const struct addr none = { 0 };

	return v->policy.proxied && !no_proxy_matches(&v->cfg.proxy, &none, names, PORT);
}

/* Those that were not tried yet: IPv6 first, then in turns (RFC 8305 section 4). */
static void order(struct conn *c)
{
	struct addr was[2 * UP_ADDRS], *to = c->addrs + c->next_addr;
	size_t n = (size_t)(c->n_addrs - c->next_addr), at[2] = { 0, 0 };

	memcpy(was, to, n * sizeof(*was));
	for (size_t i = 0; i < n; i++) {
		size_t f = i % 2;

		for (int tries = 0; tries < 2; tries++, f = 1 - f) {
			while (at[f] < n && was[at[f]].family != (f == 0 ? AF_INET6 : AF_INET))
				at[f]++;
			if (at[f] < n)
				break;
		}
		to[i] = was[at[f]++];
	}
}

void up_resolved(struct vault *v, uint16_t slot, uint32_t gen, const struct addr *a, size_t n)
{
	struct conn *c = &v->upstream->v[slot];

	if (slot >= UP_CONNS || c->gen != gen || (c->state != CONN_NAMES && c->state != CONN_DIAL))
		return;
	c->asked--;
	for (size_t i = 0; i < n && c->n_addrs < ARRAY_SIZE(c->addrs); i++)
		c->addrs[c->n_addrs++] = a[i];
	if (c->n_addrs > 0 && c->names_until < 0)
		c->names_until = v->now + NAMES_NS;
	if (c->state == CONN_DIAL)
		order(c);
	v->again = true;
}

void up_dialled(struct vault *v, uint16_t slot, uint32_t gen, int fd, int error)
{
	struct conn *c = &v->upstream->v[slot];

	if (slot >= UP_CONNS || c->gen != gen || c->state != CONN_DIAL || c->fd >= 0) {
		close_p(&fd);
		return;
	}
	c->dialling--;
	c->fd = fd;
	if (fd < 0) {
		c->error = error;
		c->next_dial = v->now;
	}
	v->again = true;
}

static void begin(struct vault *v, struct conn *c)
{
	const char *name = prov_hosts[c->key.host].name;
	static const uint16_t types[] = { DNS_AAAA, DNS_A };
	bool family[] = { v->ipv6, v->ipv4 };

	c->to_port = PORT;
	c->until = v->now + CONNECT_NS;
	c->names_until = -1;
	for (size_t i = 0; i < v->cfg.n_connect_to; i++)
		if (strcmp(v->cfg.connect_to[i].name, name) == 0 && v->cfg.connect_to[i].port == PORT) {
			c->testing = true;
			c->to_port = v->cfg.connect_to[i].to_port;
			c->addrs[c->n_addrs++] = v->cfg.connect_to[i].addr;
			break;
		}
	c->by_proxy = !c->testing && by_proxy(v, name);
	c->state = c->testing || c->by_proxy ? CONN_DIAL : CONN_NAMES;
	c->next_dial = v->now;
	if (c->state == CONN_DIAL) {
		c->n_addrs = 1;
		return;
	}
	c->asked = (uint8_t)(family[0] + family[1]);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (family[i] && dns_resolve(v, name, types[i], conn_at(v, c), c->gen) < 0)
			c->asked--;
}

static void dial_next(struct vault *v, struct conn *c)
{
	struct up_dial d = { .name = prov_hosts[c->key.host].name,
			     .to = c->addrs[c->next_addr],
			     .port = c->to_port,
			     .testing = c->testing,
			     .by_proxy = c->by_proxy };
	int r;

	c->next_addr++;
	c->next_dial = v->now + NEXT_NS;
	c->dialling++;
	r = opens_up(v, conn_at(v, c), c->gen, &d);
	if (r == 0)
		return;
	c->dialling--;
	c->error = -r;
	c->next_dial = v->now;
}

/* --- TLS --- */

/* One that is open is there for @x. */
static void serve(struct vault *v, struct conn *c, struct exchange *x)
{
	c->x = c->h2 ? NULL : x;
	x->conn = c;
	exchange_open(v, x);
}

/* @c may be gone afterwards, and another in its place. */
static void readable(struct vault *v, struct conn *c)
{
	uint32_t gen = c->gen;

	if (c->h2)
		h2_readable(v, c);
	else if (!c->paused)
		h1_readable(v, c);
	if (c->gen != gen)
		return;
	conn_update(v, c);
	v->again |= c->more;
}

static void handshake(struct vault *v, struct conn *c)
{
	uint32_t gen = c->gen;
	const char *why;
	bool h2 = false;
	int r = tls_handshake(c, &h2, &why);

	flush(c);
	if (r < 0 || c->broken) {
		fail(v, c, r < 0 ? why : "the connection broke within the TLS handshake");
		return;
	}
	if (r > 0 && h2 && h2_begin(v, c) < 0) {
		fail(v, c, "no memory for HTTP/2");
		return;
	}
	if (r > 0) {
		c->state = CONN_OPEN;
		c->until = v->now + KEPT_NS;
	}
	conn_update(v, c);
	if (r > 0)
		serve(v, c, c->x);
	if (r > 0 && c->gen == gen && tls_holds(c))
		readable(v, c);
}

static void connected(struct vault *v, struct conn *c)
{
	const char *why;

	opens_up_cancel(v, conn_at(v, c), c->gen);
	c->state = CONN_TLS;
	c->until = v->now + TLS_NS;
	if (tls_begin(v, c, &why) < 0)
		fail(v, c, why);
	else
		handshake(v, c);
}

/* --- what is due --- */

static const char *why_none(const struct conn *c)
{
	if (c->error == EACCES)
		return "its address is one that this session may not reach";
	if (c->by_proxy)
		return "the proxy does not connect to it";
	return c->error ? strerror(c->error) : "its name has no address";
}

/* Nobody uses it. */
static bool is_kept(const struct conn *c)
{
	return c->state == CONN_OPEN && (c->h2 ? h2_streams(c) == 0 && !h2_is_inside(c) : !c->x);
}

/* One thing after the other until there is nothing to do but to wait. */
static void step(struct vault *v, struct conn *c)
{
	uint32_t gen = c->gen;

	if (c->watch_at && c->watch_at <= v->now) {
		c->watch_at = 0;
		conn_update(v, c);
	}
	if (c->more) {
		c->more = false;
		readable(v, c);
		if (c->gen != gen)
			return;
	}
	if (c->state == CONN_NAMES && (c->asked == 0 || (c->names_until >= 0 && c->names_until <= v->now))) {
		order(c);
		c->state = CONN_DIAL;
		c->next_dial = v->now;
	}
	while (c->state == CONN_DIAL && c->fd < 0 && c->next_addr < c->n_addrs && c->next_dial <= v->now)
		dial_next(v, c);
	if (c->state == CONN_DIAL && c->fd >= 0)
		connected(v, c);
	else if (c->state == CONN_DIAL && c->asked == 0 && c->dialling == 0 && c->next_addr == c->n_addrs)
		fail(v, c, why_none(c));
	if (c->gen == gen && c->h2 && h2_is_over(c))
		conn_close(v, c);
	if (c->gen != gen || c->state == CONN_FREE || c->until > v->now)
		return;
	if (c->state != CONN_OPEN)
		fail(v, c, c->state == CONN_TLS ? "no TLS handshake within 10 s" : "no connection within 20 s");
	else if (is_kept(c))
		conn_close(v, c);
}

static int64_t due(const struct conn *c)
{
	int64_t at = c->state == CONN_OPEN && !is_kept(c) ? -1 : c->until;

	if (c->watch_at)
		at = sooner(at, c->watch_at);
	if (c->state == CONN_NAMES)
		at = sooner(at, c->names_until);
	if (c->state == CONN_DIAL && c->next_addr < c->n_addrs)
		at = sooner(at, c->next_dial);
	return at;
}

int64_t up_tick(struct vault *v)
{
	struct upstream *u = v->upstream;
	int64_t next = -1;

	for (size_t i = 0; u->n > 0 && i < UP_CONNS; i++) {
		if (u->v[i].state != CONN_FREE)
			step(v, &u->v[i]);
		if (u->v[i].state != CONN_FREE)
			next = sooner(next, due(&u->v[i]));
	}
	return next;
}

void up_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events)
{
	struct conn *c = &v->upstream->v[slot];

	if (slot >= UP_CONNS || c->gen != gen)
		return;
	if (c->state == CONN_TLS) {
		handshake(v, c);
		return;
	}
	if (c->state != CONN_OPEN)
		return;
	if (events & (EPOLLOUT | EPOLLERR))
		flush(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		readable(v, c);
	else
		conn_update(v, c);
	if (c->gen == gen && c->out.n < UP_OUT_FULL)
		exchanges_writable(v, c);
}

/* --- who gets one --- */

static bool same_kinds(const struct conn_key *a, const struct conn_key *b)
{
	return a->host == b->host && memcmp(a->kind, b->kind, sizeof(a->kind)) == 0;
}

static bool same_key(const struct conn_key *a, const struct conn_key *b)
{
	return same_kinds(a, b) && a->h2 == b->h2 && a->foreign == b->foreign &&
	       memcmp(a->generation, b->generation, sizeof(a->generation)) == 0;
}

/* A kept one that fits; those of an earlier content of the login's file are closed. */
static struct conn *find_kept(struct vault *v, const struct conn_key *key)
{
	struct upstream *u = v->upstream;
	struct conn *found = NULL;

	for (size_t i = 0; u->n > 0 && i < UP_CONNS; i++) {
		struct conn *c = &u->v[i];

		if (c->state != CONN_OPEN || (!c->h2 && c->x) || !same_kinds(&c->key, key))
			continue;
		if (memcmp(c->key.generation, key->generation, sizeof(key->generation)) == 0)
			found = same_key(&c->key, key) && (!c->h2 || h2_takes(c)) && (!found || c->until > found->until)
					? c
					: found;
		else if (c->h2) /* its streams may end */
			h2_drain(c);
		else
			conn_close(v, c);
	}
	return found;
}

/* A free place, if need be that of the one that is unused for longest. */
static struct conn *find_place(struct vault *v)
{
	struct upstream *u = v->upstream;
	struct conn *oldest = NULL;

	for (size_t i = 0; i < UP_CONNS; i++) {
		struct conn *c = &u->v[i];

		if (c->state == CONN_FREE)
			return c;
		if (is_kept(c) && (!oldest || c->until < oldest->until))
			oldest = c;
	}
	if (oldest)
		conn_close(v, oldest);
	return oldest;
}

void up_get(struct vault *v, struct exchange *x, bool fresh)
{
	struct conn *c = fresh ? NULL : find_kept(v, &x->key);

	x->state = EX_CONNECT;
	x->reused = c;
	if (c) {
		serve(v, c, x);
		return;
	}
	c = find_place(v);
	if (!c) {
		exchange_failed(v, x, REFUSAL_LIMIT);
		return;
	}
	*c = (struct conn){ .gen = c->gen, .fd = -1, .key = x->key, .x = x };
	x->conn = c;
	v->upstream->n++;
	begin(v, c);
	v->again = true;
}

void up_put(struct vault *v, struct exchange *x, bool keep)
{
	struct conn *c = x->conn;

	x->conn = NULL;
	if (!c)
		return;
	if (c->h2) {
		h2_leave(c, x, keep);
		c->until = v->now + KEPT_NS;
		conn_update(v, c);
		return;
	}
	c->x = NULL;
	if (!keep || c->state != CONN_OPEN) {
		conn_close(v, c);
		return;
	}
	c->paused = false;
	c->until = v->now + KEPT_NS;
	conn_update(v, c);
	v->again = true;
}
