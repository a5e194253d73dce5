/* Connections that the guest asks for (network page 5, 6, 9.1).
 *
 *   asked --- refused, or failed at once ---> answered
 *     |   \--- tied to an inspected name ---> answered with one end of a stream pair, the other one to gate: a flow
 *     |                                       gate steps aside ---> asked again, by gate
 *     +-> CONNECTING --- connected ---> checked with getpeername() ---> answered with the socket: a flow
 *     |        |  75 s, error ---> the alias's ::1, the proxy's next address, or answered with the error
 *     |        +--- by proxy ---> PROXY_HEAD --- 2xx ---> a flow
 *     +-> cancelled: closed, no answer
 *
 * What may have to be inspected, at an address that is not tied (port 443), is connected like the rest before the name is
 * known, so that who is refused or away looks like it, and no round trip is paid twice:
 *
 *   FOR_WIRE CONNECTING --- connected, or after AHEAD_NS ---> answered with the pair: a flow, and FOR_AHEAD
 *   FOR_AHEAD CONNECTING --- connected ---> WAITS
 *        |         |         \--- failed ---> the flow keeps the error for gate
 *        |         +--- gate steps aside ---> judged again, and FOR_GATE: gate is told how it ends
 *        |         WAITS --- the same ---> judged and checked again, the socket to gate
 *        +-> gate inspects, or the flow ends: closed, nobody is told
 *
 * Others than wire have connections made here as well: gate, to where an inspected flow wanted to go, and upstream.c, which
 * dials hosts by name and races their addresses.
 *
 * Bounds: OPENS_TCP, OPENS_UDP, OPENS_ECHO waiting (wire keeps them; more is a broken wire and ends the session), OPENS_GATE
 * of FOR_AHEAD and FOR_GATE and OPENS_UP (more fail). Nothing is connected ahead that would make more than
 * OPENS_TCP with those that wire waits for: then the pair is handed out at once, and the address dialled when gate steps
 * aside. So that one silent address does not take all of these places for 75 s, the oldest FOR_AHEAD of the address that has
 * the most gives way to one that has fewer; if gate asks for it later, it is dialled anew. */
#include <assert.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "vault/dnsnames.h"
#include "vault/flows.h"
#include "vault/proxy.h"
#include "vault/vault.h"

#define OPENS_TCP 512
#define OPENS_UDP 64
#define OPENS_ECHO 32
#define OPENS_GATE 512 /* as many as gate has undecided */
#define OPENS_UP 256
#define OPENS_MAX (OPENS_TCP + OPENS_UDP + OPENS_ECHO + OPENS_GATE + OPENS_UP)
#define PEEKS_MAX 512 /* that gate has not read */
#define CROWDS 1024 /* addresses that share one are taken for one */

#define CONNECT_NS (75 * NS)
#define AHEAD_NS (250 * MS) /* longer than curl's 200 ms for one family, so that the other one wins */
#define WAIT_NS (75 * NS)   /* gate decides within 20 s */
#define PROXY_NS (30 * NS)
#define HOLD_S 2		/* ties change, so not long */
#define LAME_TIMEOUTS 3
#define LAME_NS (600 * NS)
#define NOTE_LOG_NS (60 * NS)
#define ECHO_PORT 1 /* of a ping socket: means nothing, but getpeername() fails on one whose port is 0 */

enum open_state { OPEN_FREE, OPEN_CONNECTING, OPEN_PROXY_HEAD, OPEN_WAITS };
enum open_for { FOR_WIRE, FOR_AHEAD, FOR_GATE, FOR_UP, OPEN_FORS };

struct open {
	enum open_state state;
	enum open_for who;
	uint32_t gen; /* of this place in the table, for events */
	enum policy_proto proto;
	uint32_t slot, generation; /* wire's; of FOR_UP upstream's */
	struct addr dst;	   /* as the guest dialled it */
	uint16_t crowd;		   /* of those to that address; 0: not counted */
	uint16_t port;
	struct addr to; /* what is connected to */
	uint16_t to_port;
	struct policy_answer answer;
	char standin[POLICY_NAME_MAX + 1]; /* the name that dst stands for, "" */
	bool alias, proxied, probe, testing; /* testing: by AGENT_VM_CONNECT_TO */
	size_t proxy_at;
	int fd;
	int64_t start, until;
	int64_t inspect_at; /* to be inspected: wire is answered then, connected or not; 0: not, or it was answered */
	struct buf head; /* of the proxy's answer */
};

struct opens {
	struct open v[OPENS_MAX];
	size_t n, waiting[POLICY_PROTOS]; /* of wire */
	size_t others[OPEN_FORS];
	uint16_t crowds[CROWDS]; /* for the guest under way or waiting, by a hash of the address */
	unsigned int v6_timeouts;
	int64_t v4_ok, proxy_logged, lack_logged;
};

static const size_t waiting_max[] = { [POLICY_TCP] = OPENS_TCP, [POLICY_UDP] = OPENS_UDP, [POLICY_ECHO] = OPENS_ECHO };
static_assert(ARRAY_SIZE(waiting_max) == POLICY_PROTOS, "waiting_max[] is incomplete");
static const struct addr loopback4 = { AF_INET, { 127, 0, 0, 1 } }, loopback6 = { AF_INET6, { [15] = 1 } };

void opens_init(struct vault *v)
{
	v->opens = xcalloc(1, sizeof(*v->opens));
	v->opens->v4_ok = -CONNECT_NS;
	v->opens->proxy_logged = v->opens->lack_logged = -NOTE_LOG_NS;
}

static struct flow flow_of(const struct open *p)
{
	return (struct flow){ .inspected = p->answer.verdict == POLICY_INSPECT, .proto = p->proto,
			      .verdict = (uint8_t)p->answer.verdict, .step = (uint8_t)p->answer.step, .proxied = p->proxied,
			      .probe = p->probe, .port = p->port, .slot = p->slot, .generation = p->generation,
			      .dst = p->dst, .start = p->start };
}

/* What was allowed and came to nothing is a line as well. */
static void open_line(struct vault *v, const struct open *p, const char *end)
{
	struct flow f = flow_of(p);

	flow_failed(v, &f, end);
}

void opens_end(struct vault *v)
{
	for (size_t i = 0; i < OPENS_MAX; i++)
		if (v->opens->v[i].state != OPEN_FREE && v->opens->v[i].who == FOR_WIRE)
			open_line(v, &v->opens->v[i], "error:session");
}

/* Opens under way. */

static struct open *open_find(struct opens *o, enum open_for who, uint32_t slot, uint32_t generation, int proto)
{
	for (size_t i = 0, seen = 0; i < OPENS_MAX && seen < o->n; i++) {
		struct open *p = &o->v[i];

		if (p->state == OPEN_FREE)
			continue;
		seen++;
		if (p->who == who && p->slot == slot && p->generation == generation && (proto < 0 || (int)p->proto == proto))
			return p;
	}
	return NULL;
}

static size_t *open_count(struct opens *o, const struct open *p)
{
	return p->who == FOR_WIRE ? &o->waiting[p->proto] : &o->others[p->who];
}

static size_t of_gate(const struct opens *o)
{
	return o->others[FOR_AHEAD] + o->others[FOR_GATE];
}

static void open_now_for(struct opens *o, struct open *p, enum open_for who)
{
	*open_count(o, p) -= 1;
	p->who = who;
	*open_count(o, p) += 1;
}

/* A free place; the callers know that there is one. */
static struct open *open_new(struct vault *v, enum open_for who, enum policy_proto proto, uint32_t slot, uint32_t generation)
{
	struct opens *o = v->opens;
	struct open *p = NULL;

	for (size_t i = 0; !p && i < OPENS_MAX; i++)
		if (o->v[i].state == OPEN_FREE)
			p = &o->v[i];
	assert(p);
	*p = (struct open){ .state = OPEN_CONNECTING, .who = who, .gen = p->gen, .proto = proto, .slot = slot,
			    .generation = generation, .fd = -1, .start = v->now, .probe = v->audit.probing,
			    .until = v->now + CONNECT_NS };
	o->n++;
	*open_count(o, p) += 1;
	return p;
}

static void open_to(struct opens *o, struct open *p, const struct addr *dst)
{
	p->dst = *dst;
	p->crowd = (uint16_t)(1 + addr_hash(dst) % (CROWDS - 1));
	o->crowds[p->crowd]++;
}

static void open_free(struct vault *v, struct open *p)
{
	if (p->fd >= 0) {
		ev_unwatch(&v->ev, p->fd);
		(void)close(p->fd);
	}
	buf_done(&p->head);
	if (p->crowd)
		v->opens->crowds[p->crowd]--;
	if (p->state != OPEN_FREE) {
		v->opens->n--;
		*open_count(v->opens, p) -= 1;
	}
	*p = (struct open){ .state = OPEN_FREE, .gen = p->gen + 1, .fd = -1 };
}

/* The address for which most is connected ahead gives its oldest place up, if it has more than @n. */
static bool give_way(struct vault *v, uint16_t n)
{
	struct opens *o = v->opens;
	struct open *oldest = NULL;

	for (size_t i = 0; i < OPENS_MAX; i++) {
		struct open *p = &o->v[i];
		uint16_t has = o->crowds[p->crowd], most = oldest ? o->crowds[oldest->crowd] : n;

		if (p->state != OPEN_FREE && p->who == FOR_AHEAD && (has > most || (oldest && has == most && p->start < oldest->start)))
			oldest = p;
	}
	if (oldest)
		open_free(v, oldest);
	return oldest;
}

/* May @p be connected ahead? Addresses share the places until they have as many: then a flood moves nothing. */
static bool ahead_room(struct vault *v, const struct open *p)
{
	return v->opens->waiting[POLICY_TCP] + of_gate(v->opens) <= OPENS_TCP || give_way(v, v->opens->crowds[p->crowd]);
}

static const uint16_t answer_type[] = {
	[POLICY_TCP] = NET_TCP_OPENED, [POLICY_UDP] = NET_UDP_OPENED, [POLICY_ECHO] = NET_ECHO_OPENED,
};

static void dialled(struct vault *v, uint32_t slot, uint32_t generation, enum net_outcome outcome, int error, int fd)
{
	struct net_dialled m = { .head = net_head(NET_DIALLED, sizeof(m), slot, generation), .outcome = outcome,
				 .error = (uint32_t)error };

	link_send(v, &v->gate, &m, sizeof(m), fd);
}

/* Tells whoever asked. */
static void reply(struct vault *v, const struct open *p, enum net_outcome outcome, int error, int fd)
{
	struct net_opened m = {
		.head = net_head(answer_type[p->proto], sizeof(m), p->slot, p->generation),
		.outcome = outcome, .error = (uint32_t)error, .step = p->answer.step,
		.hold_s = outcome == NET_REFUSED && p->proto != POLICY_TCP ? HOLD_S : 0,
	};

	if (p->who == FOR_WIRE)
		wire_send(v, &m, sizeof(m), fd);
	else if (p->who == FOR_GATE)
		dialled(v, p->slot, p->generation, outcome, error, fd);
	else if (p->who == FOR_AHEAD)
		flow_find(v, p->slot, p->generation)->error = outcome == NET_REFUSED ? EACCES : error;
	else
		up_dialled(v, (uint16_t)p->slot, p->generation, fd, outcome == NET_REFUSED ? EACCES : error);
}

/* Nothing is to be connected for it any more. */
static void flow_undial(struct vault *v, const struct flow *f)
{
	struct open *p = open_find(v->opens, f->decided ? FOR_GATE : FOR_AHEAD, f->slot, f->generation, POLICY_TCP);

	if (!p)
		return;
	if (p->who == FOR_GATE)
		reply(v, p, NET_FAILED, ECANCELED, -1);
	open_free(v, p);
}

static void ended(struct vault *v, struct flow *f, const struct net_ended *e)
{
	if (f->inspected)
		flow_undial(v, f);
	flow_end(v, f, e);
}

static void refuse(struct vault *v, struct open *p)
{
	const char *name = p->standin[0] ? p->standin : ties_names(&v->ties, &p->dst, v->now)[0];

	audit_refused(&v->audit, &(struct audit_refused){
		p->proto, name, p->dst, p->port, p->answer.step, .alias = p->answer.group == GROUP_GATEWAY,
		.closed = p->answer.verdict != POLICY_REFUSE, .judged = policy_judged(&v->policy, &p->dst) }, v->now);
	reply(v, p, NET_REFUSED, 0, -1);
	open_free(v, p);
}

static void fail(struct vault *v, struct open *p, int error)
{
	const char *name = strerrorname_np(error);
	char end[40];

	(void)snprintf(end, sizeof(end), "error:%s", name ? name : "io");
	if (p->who != FOR_UP) /* the request has a line of its own */
		open_line(v, p, end);
	if ((fd_is_lack(error) || error == EADDRNOTAVAIL) && v->now - v->opens->lack_logged >= NOTE_LOG_NS) {
		v->opens->lack_logged = v->now;
		log_warn("open: refused for lack of something on this host: %s; told once a minute", strerror(error));
	}
	reply(v, p, NET_FAILED, error, -1);
	open_free(v, p);
}

static void proxy_trouble(struct vault *v, const char *what)
{
	if (v->now - v->opens->proxy_logged < NOTE_LOG_NS)
		return;
	v->opens->proxy_logged = v->now;
	log_warn("proxy %s: %s; connections by it fail", v->cfg.proxy.text, what);
}

static socklen_t to_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = a->family;
	if (a->family == AF_INET) {
		in4->sin_port = htons(port);
		memcpy(&in4->sin_addr, a->b, 4);
		return sizeof(*in4);
	}
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, a->b, 16);
	return sizeof(*in6);
}

static bool is_own(const struct vault *v, const struct addr *a)
{
	for (size_t i = 0; i < v->policy.n_hosts; i++)
		if (addr_equal(a, &v->policy.hosts[i].addr))
			return true;
	return false;
}

/* Is the other end what was judged? Last look before the socket leaves. */
static bool peer_ok(const struct vault *v, const struct open *p)
{
	bool host = p->alias || p->answer.group == GROUP_HOST || p->proxied || p->testing;
	struct sockaddr_storage want, is = { 0 };
	socklen_t n = sizeof(is), len = to_sockaddr(&p->to, p->to_port, &want);

	if (getpeername(p->fd, (struct sockaddr *)&is, &n) < 0 || n < len || is.ss_family != want.ss_family)
		return false;
	if (!host && is_own(v, &p->to))
		return false;
	if (is.ss_family == AF_INET) {
		struct sockaddr_in *a = (struct sockaddr_in *)&is, *b = (struct sockaddr_in *)&want;

		return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
	}
	return memcmp(&((struct sockaddr_in6 *)&is)->sin6_addr, &((struct sockaddr_in6 *)&want)->sin6_addr, 16) == 0 &&
	       ((struct sockaddr_in6 *)&is)->sin6_port == ((struct sockaddr_in6 *)&want)->sin6_port;
}

/* Was this address given out for a name that is looked into? @standin: the name that it stands for; "": for none. */
static bool is_tied(struct vault *v, const struct addr *dst, const char *standin)
{
	const char *const *names = ties_names(&v->ties, dst, v->now);

	if (standin[0] && names_inspected(&v->policy, standin))
		return true;
	while (*names && !names_inspected(&v->policy, *names))
		names++;
	return *names;
}

/* gate looks at the first bytes; wire and gate get a stream each, and what was decided stays with the flow. */
static void inspect(struct vault *v, struct open *p)
{
	struct net_peek m = { .head = net_head(NET_PEEK, sizeof(m), p->slot, p->generation), .port = p->port,
			      .tied = is_tied(v, &p->dst, p->standin), .named = p->answer.step == STEP_FLAG };
	struct flow f = flow_of(p);
	int pair[2];

	if (v->gate.q.n >= PEEKS_MAX) {
		fail(v, p, EAGAIN);
	} else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		fail(v, p, errno);
	} else if (!flow_add(v, &f)) {
		(void)close(pair[0]);
		(void)close(pair[1]);
		open_free(v, p);
	} else {
		link_send(v, &v->gate, &m, sizeof(m), pair[1]);
		reply(v, p, NET_INSPECT, 0, pair[0]);
		p->inspect_at = 0;
		/* gate says only of what is not tied when it needs no connection. */
		if (p->fd < 0 || m.tied || of_gate(v->opens) >= OPENS_GATE)
			open_free(v, p);
		else
			open_now_for(v->opens, p, FOR_AHEAD);
	}
}

/* To whoever asked for it. */
static void connected(struct vault *v, struct open *p)
{
	int fd;

	if (!peer_ok(v, p)) {
		char text[ADDR_TEXT];

		log_warn("open: the socket to %s port %u is connected elsewhere; closed", addr_format(&p->to, text), p->to_port);
		p->answer.step = STEP_HOST;
		refuse(v, p);
		return;
	}
	if (p->inspect_at) {
		inspect(v, p);
		return;
	}
	if (p->who == FOR_AHEAD)
		return;
	if (p->who == FOR_WIRE) {
		struct flow f = flow_of(p);

		(void)flow_add(v, &f);
	}
	fd = TAKE_FD(p->fd);
	reply(v, p, NET_CONNECTED, 0, fd);
	open_free(v, p);
}

static void done(struct vault *v, struct open *p)
{
	if (p->to.family == AF_INET)
		v->opens->v4_ok = v->now;
	else
		v->opens->v6_timeouts = 0;
	ev_unwatch(&v->ev, p->fd);
	p->state = OPEN_WAITS;
	p->until = v->now + WAIT_NS;
	connected(v, p);
}

static void set_options(int fd, enum policy_proto proto, sa_family_t family)
{
	static const int on = 1, idle_s = 60, again_s = 30, tries = 4, want4 = IP_PMTUDISC_WANT, want6 = IPV6_PMTUDISC_WANT;

	if (proto == POLICY_TCP) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &again_s, sizeof(again_s));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
	} else if (proto == POLICY_UDP && family == AF_INET) {
		(void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &want4, sizeof(want4));
	} else if (proto == POLICY_UDP) {
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &want6, sizeof(want6));
	}
}

static void dial(struct vault *v, struct open *p);

/* One address did not do: the next one that may stand for it, or the end. */
static void next_or_fail(struct vault *v, struct open *p, int error)
{
	if (p->fd >= 0) {
		ev_unwatch(&v->ev, p->fd);
		(void)close(TAKE_FD(p->fd));
	}
	if (p->alias && error == ECONNREFUSED && p->to.family == AF_INET && p->proto == POLICY_TCP) {
		p->to = loopback6;
		dial(v, p);
		return;
	}
	if (p->proxied) {
		if (p->state == OPEN_CONNECTING && ++p->proxy_at < v->cfg.proxy.n_addrs) {
			p->to = v->cfg.proxy.addrs[p->proxy_at];
			dial(v, p);
			return;
		}
		proxy_trouble(v, strerror(error));
		error = ECONNREFUSED; /* the proxy's trouble is not the destination's */
	}
	fail(v, p, error);
}

static void dial(struct vault *v, struct open *p)
{
	int type = p->proto == POLICY_TCP ? SOCK_STREAM : SOCK_DGRAM, proto = 0;
	struct sockaddr_storage to;
	socklen_t n = to_sockaddr(&p->to, p->to_port, &to);

	if (p->proto == POLICY_ECHO)
		proto = p->to.family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	p->state = OPEN_CONNECTING;
	p->until = v->now + CONNECT_NS;
	p->fd = socket(p->to.family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, proto);
	if (p->fd < 0) {
		fail(v, p, errno);
		return;
	}
	set_options(p->fd, p->proto, p->to.family);
	if (connect(p->fd, (struct sockaddr *)&to, n) < 0) {
		if (errno != EINPROGRESS)
			next_or_fail(v, p, errno);
		else if (ev_watch(&v->ev, p->fd, EPOLLOUT, EV_OPEN, (uint16_t)(p - v->opens->v), p->gen) < 0)
			fail(v, p, ENOMEM);
		return;
	}
	if (p->proxied)
		opens_event(v, (uint16_t)(p - v->opens->v), p->gen, EPOLLOUT);
	else
		done(v, p);
}

/* The form in which the way is looked up: an IPv4 address in NAT64's form is judged as itself. But a prefix is only what a resolver
 * says, and a network of this host's own, such as a VPN's, stays one; the well-known prefix can be none, and is on link where this
 * host translates itself. A negative errno: as routes_to(). */
static int way(struct vault *v, const struct addr *a)
{
	struct addr judged = policy_judged(&v->policy, a);
	int r = routes_to(&v->routes, a);

	if (r < 0 || r == ROUTE_LOCAL || r == ROUTE_NEVER || (r == ROUTE_ON_LINK && !addr_in(a, &policy_nat64)))
		return r;
	return addr_equal(&judged, a) ? r : routes_to(&v->routes, &judged);
}

/* A stand-in is judged as a public address that is tied to its name: it has no address that this host could find. */
static bool decide_standin(struct vault *v, struct open *p)
{
	static const struct addr some_public = { AF_INET, { 1, 1, 1, 1 } };
	const char *name = p->proto == POLICY_TCP ? standins_name(&v->standins, &p->dst, v->now) : NULL;
	const struct vault_connect_to *to = name ? connect_to_find(&v->cfg, name, p->port) : NULL;
	const char *names[] = { name, NULL };

	if (!name || (!v->policy.proxied && !to))
		return false;
	if (to) {
		p->testing = true;
		p->to = to->addr;
		p->to_port = to->to_port;
	}
	p->answer = policy_decide(&v->policy, &(struct policy_question){ p->proto, some_public, p->port, names, ROUTE_GATEWAY });
	(void)strcpy(p->standin, name); /* both are POLICY_NAME_MAX + 1 */
	return true;
}

/* Sets p->answer. 0; -EACCES: it is refused; another negative errno: it cannot be judged. */
static int judge(struct vault *v, struct open *p)
{
	const char *const *names;
	int r = routes_refresh(&v->routes, &v->policy);

	if (r < 0)
		return r;
	if (!decide_standin(v, p)) {
		r = way(v, &p->dst);
		if (r < 0)
			return r;
		names = ties_names(&v->ties, &p->dst, v->now);
		p->answer = policy_decide(&v->policy, &(struct policy_question){ p->proto, p->dst, p->port, names, (enum policy_route)r });
	}
	if (p->answer.verdict != POLICY_ALLOW && p->answer.verdict != POLICY_INSPECT)
		return -EACCES;
	if ((p->answer.group == GROUP_GATEWAY || p->answer.group == GROUP_HOST) && publish_uses(v, p->proto, p->port)) {
		p->answer.step = STEP_HOST; /* the guest would be talking to itself */
		return -EACCES;
	}
	return 0;
}

/* What judge() did not allow. */
static void deny(struct vault *v, struct open *p, int error)
{
	if (error == -EACCES)
		refuse(v, p);
	else
		fail(v, p, -error);
}

static void start(struct vault *v, struct open *p)
{
	const char *const *names;
	bool gates;
	int r = judge(v, p);

	if (r < 0) {
		deny(v, p, r);
		return;
	}
	if (!p->testing) {
		p->to = p->dst;
		p->to_port = p->proto == POLICY_ECHO ? ECHO_PORT : p->port;
	}
	p->alias = p->answer.group == GROUP_GATEWAY;
	if (p->alias)
		p->to = loopback4;
	else if (!p->standin[0] && !(p->dst.family == AF_INET ? v->ipv4 : v->ipv6)) {
		fail(v, p, ENETUNREACH);
		return;
	}
	names = ties_names(&v->ties, &p->dst, v->now);
	if (p->proto == POLICY_TCP && v->policy.proxied && !p->testing && p->answer.group == GROUP_PUBLIC &&
	    (p->standin[0] || !no_proxy_matches(&v->cfg.proxy, &p->dst, names, p->port))) {
		p->proxied = true;
		p->to = v->cfg.proxy.addrs[0];
		p->to_port = v->cfg.proxy.port;
	}
	gates = p->answer.verdict == POLICY_INSPECT && p->who == FOR_WIRE && v->cfg.inspected;
	if (gates && (is_tied(v, &p->dst, p->standin) || !ahead_room(v, p))) {
		inspect(v, p);
	} else {
		p->inspect_at = gates ? v->now + AHEAD_NS : 0;
		dial(v, p);
	}
}

static void asked(struct vault *v, enum policy_proto proto, const struct net_open *m)
{
	struct opens *o = v->opens;
	struct addr dst;
	struct open *p;

	if (o->waiting[proto] >= waiting_max[proto]) {
		vault_end(v, "wire waits for more opens than it may");
		return;
	}
	if (open_find(o, FOR_WIRE, m->head.slot, m->head.generation, (int)proto) ||
	    flow_find(v, m->head.slot, m->head.generation)) {
		vault_end(v, "wire asks twice with one slot and generation");
		return;
	}
	p = open_new(v, FOR_WIRE, proto, m->head.slot, m->head.generation);
	p->port = m->port;
	(void)net_addr_get(&m->dst, &dst);
	open_to(o, p, &dst);
	start(v, p);
}

/* An address of an inspected host (@p->dst), under a name that this guest never heard it for (network page 3.2). A tie lives
 * as long as a flow to its address, so it is not lost between the two questions. */
static bool is_foreign(struct vault *v, const struct open *p, const char *name)
{
	const char *standin = standins_name(&v->standins, &p->dst, v->now);

	if (standin && strcmp(standin, name) == 0)
		return false;
	for (const char *const *names = ties_names(&v->ties, &p->dst, v->now); *names; names++)
		if (strcmp(*names, name) == 0)
			return false;
	return is_tied(v, &p->dst, standin ? standin : "");
}

/* It was judged when the guest asked, and what was true then may not be any more. */
static int judge_again(struct vault *v, struct open *p)
{
	struct open now = { .proto = p->proto, .dst = p->dst, .port = p->port };
	int r = judge(v, &now);

	p->answer = now.answer;
	return r;
}

void opens_dial(struct vault *v, const struct net_dial *m)
{
	const struct net_head *h = &m->head;
	struct flow *f = flow_find(v, h->slot, h->generation);
	struct open *p;
	bool ahead;
	int r;

	if (!f) {
		dialled(v, h->slot, h->generation, NET_FAILED, ECANCELED, -1); /* wire ended it meanwhile */
		return;
	}
	if (!f->inspected || f->decided) {
		vault_end(v, "gate asks for a flow that it has no part in, or twice");
		return;
	}
	f->decided = true;
	p = open_find(v->opens, FOR_AHEAD, h->slot, h->generation, POLICY_TCP);
	ahead = p;
	if (f->error != 0 || (!ahead && of_gate(v->opens) >= OPENS_GATE && !give_way(v, 0))) {
		dialled(v, h->slot, h->generation, NET_FAILED, f->error != 0 ? f->error : EAGAIN, -1);
		return;
	}
	if (ahead) {
		open_now_for(v->opens, p, FOR_GATE);
	} else {
		p = open_new(v, FOR_GATE, POLICY_TCP, h->slot, h->generation);
		open_to(v->opens, p, &f->dst);
		p->port = f->port;
		p->probe = f->probe;
	}
	if (m->name[0] != '\0' && is_foreign(v, p, m->name)) {
		p->answer = (struct policy_answer){ POLICY_REFUSE, STEP_FOREIGN_NAME, GROUP_PUBLIC };
		refuse(v, p);
	} else if (!ahead) {
		start(v, p);
	} else if ((r = judge_again(v, p)) < 0) {
		deny(v, p, r);
	} else if (p->state == OPEN_WAITS) {
		connected(v, p);
	}
}

void opens_inspected(struct vault *v, const struct net_head *h)
{
	struct flow *f = flow_find(v, h->slot, h->generation);

	if (!f)
		return; /* wire ended it meanwhile */
	if (!f->inspected || f->decided) {
		vault_end(v, "gate inspects a flow that it has no part in, or twice");
		return;
	}
	flow_undial(v, f);
	f->decided = true;
}

int opens_up(struct vault *v, uint16_t slot, uint32_t gen, const struct up_dial *d)
{
	const char *const names[] = { d->name, NULL };
	struct open *p;
	int r;

	if (v->policy.no_network)
		return -EACCES;
	r = v->opens->others[FOR_UP] >= OPENS_UP ? -EAGAIN : routes_refresh(&v->routes, &v->policy);
	if (r == 0 && !d->by_proxy)
		r = way(v, &d->to);
	if (r < 0)
		return r;
	p = open_new(v, FOR_UP, POLICY_TCP, slot, gen);
	p->port = d->port;
	p->testing = d->testing;
	if (d->by_proxy) {
		p->proxied = true;
		p->to = v->cfg.proxy.addrs[0];
		p->to_port = v->cfg.proxy.port;
		(void)strcpy(p->standin, d->name); /* a host of the table */
	} else {
		p->dst = p->to = d->to;
		p->to_port = d->port;
		p->answer = policy_decide(&v->policy, &(struct policy_question){ POLICY_TCP, d->to, d->port, names, (enum policy_route)r });
	}
	if (!p->testing && !p->proxied &&
	    ((p->answer.verdict != POLICY_ALLOW && p->answer.verdict != POLICY_INSPECT) || p->answer.group == GROUP_GATEWAY)) {
		open_free(v, p);
		return -EACCES;
	}
	dial(v, p);
	return 0;
}

void opens_up_cancel(struct vault *v, uint16_t slot, uint32_t gen)
{
	struct open *p;

	while ((p = open_find(v->opens, FOR_UP, slot, gen, POLICY_TCP)))
		open_free(v, p);
}

void opens_message(struct vault *v, int type, const void *msg)
{
	struct opens *o = v->opens;
	struct net_ended end;
	struct net_open open;
	struct net_head h;
	struct flow *f;
	struct open *p;

	memcpy(&h, msg, sizeof(h));
	switch (type) {
	case NET_OPEN_TCP:
	case NET_OPEN_UDP:
	case NET_OPEN_ECHO:
		memcpy(&open, msg, sizeof(open));
		asked(v, type == NET_OPEN_TCP ? POLICY_TCP : type == NET_OPEN_UDP ? POLICY_UDP : POLICY_ECHO, &open);
		break;
	case NET_CANCEL:
		p = open_find(o, FOR_WIRE, h.slot, h.generation, -1);
		f = p ? NULL : flow_find(v, h.slot, h.generation);
		if (p) {
			open_line(v, p, "error:ECANCELED");
			open_free(v, p);
		} else if (f)
			ended(v, f, NULL); /* the answer was on its way */
		break;
	case NET_ENDED:
		memcpy(&end, msg, sizeof(end));
		f = flow_find(v, h.slot, h.generation);
		if (f)
			ended(v, f, &end);
		break;
	default:
		break;
	}
}

/* The proxy is connected: ask it for the tunnel. */
static void proxy_ask(struct vault *v, struct open *p)
{
	struct span s;
	struct buf b;
	bool sent;

	buf_init(&b, 4096);
	sent = proxy_request(&v->cfg.proxy, p->standin[0] ? p->standin : NULL, &p->dst, p->port, &b) == 0;
	s = buf_span(&b);
	/* A new socket's buffer takes it whole. */
	sent = sent && send(p->fd, s.p, s.n, MSG_NOSIGNAL) == (ssize_t)s.n;
	buf_done(&b);
	p->until = v->now + PROXY_NS;
	buf_init(&p->head, PROXY_HEAD_MAX + 1);
	if (!sent || ev_watch(&v->ev, p->fd, EPOLLIN, EV_OPEN, (uint16_t)(p - v->opens->v), p->gen) < 0)
		next_or_fail(v, p, EPIPE);
	else
		p->state = OPEN_PROXY_HEAD;
}

/* Takes the answer's head off the socket and not a byte more. */
static void proxy_read(struct vault *v, struct open *p)
{
	size_t before = p->head.n, len;
	char what[64];
	uint8_t *room;
	ssize_t k;
	int status;

	room = buf_room(&p->head, PROXY_HEAD_MAX + 1 - before);
	k = room ? recv(p->fd, room, PROXY_HEAD_MAX - before, MSG_PEEK) : 0;
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k <= 0) {
		proxy_trouble(v, k < 0 ? strerror(errno) : "closed the connection instead of an answer");
		fail(v, p, ECONNREFUSED);
		return;
	}
	buf_grew(&p->head, (size_t)k);
	status = proxy_head(buf_span(&p->head), &len);
	if (status == 0)
		len = p->head.n;
	if (status >= 0 && recv(p->fd, room, len - before, 0) != (ssize_t)(len - before))
		status = -EIO;
	if (status == 0)
		return;
	if (status >= 200 && status <= 299) {
		done(v, p);
		return;
	}
	if (status < 0)
		(void)snprintf(what, sizeof(what), "its answer is not HTTP");
	else
		(void)snprintf(what, sizeof(what), "it answered %d to CONNECT", status);
	proxy_trouble(v, what);
	fail(v, p, ECONNREFUSED);
}

void opens_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events)
{
	struct open *p = slot < OPENS_MAX ? &v->opens->v[slot] : NULL;
	socklen_t n = sizeof(int);
	int error = 0;

	if (!p || p->state == OPEN_FREE || p->state == OPEN_WAITS || p->gen != gen)
		return;
	if (p->state == OPEN_PROXY_HEAD) {
		proxy_read(v, p);
		return;
	}
	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error)
		next_or_fail(v, p, error);
	else if (p->proxied)
		proxy_ask(v, p);
	else
		done(v, p);
}

/* IPv6 that leads nowhere costs every program of the guest its patience. */
static void timed_out(struct vault *v, struct open *p)
{
	if (p->to.family == AF_INET6 && !p->proxied && ++v->opens->v6_timeouts >= LAME_TIMEOUTS &&
	    v->now - v->opens->v4_ok <= LAME_TIMEOUTS * CONNECT_NS)
		v->ipv6_off_until = v->now + LAME_NS;
	next_or_fail(v, p, ETIMEDOUT);
}

int64_t opens_tick(struct vault *v)
{
	struct opens *o = v->opens;
	int64_t next = -1;

	for (size_t i = 0, left = o->n; i < OPENS_MAX && left > 0; i++) {
		struct open *p = &o->v[i];

		if (p->state == OPEN_FREE)
			continue;
		left--;
		if (p->until <= v->now && p->state == OPEN_PROXY_HEAD) {
			proxy_trouble(v, "no answer to CONNECT within 30 s");
			fail(v, p, ETIMEDOUT);
		} else if (p->until <= v->now && p->state == OPEN_WAITS) {
			fail(v, p, ETIMEDOUT);
		} else if (p->until <= v->now) {
			timed_out(v, p);
		}
		if (p->state != OPEN_FREE && p->inspect_at && p->inspect_at <= v->now)
			inspect(v, p);
		if (p->state != OPEN_FREE)
			next = sooner(next, p->inspect_at ? p->inspect_at : p->until);
	}
	return next;
}
