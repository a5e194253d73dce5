/* Questions of the guest: cache, resolvers with failover, filter, answer (network page 7).
 *
 *   ask ── answered here (dnsnames.c), cached, or too much (rates.c) ──────────────> answer
 *    └─> joined to an equal query, or a new one
 *          query ── attempt at the first server ── good answer ─> checked, cached ─> filter ─> answer
 *            ├─ after 300 ms of silence, or on a failure: attempt at the next one
 *            └─ 4 s, or all failed: what pre-flight found, a stand-in, or SERVFAIL
 *
 * c-ares carries one attempt a channel: its own socket and source port, one server, retransmission, TCP after a cut answer.
 * The answer's bytes are checked by our parser and kept as they came; what the guest gets is decided and encoded anew each
 * time. A channel must not be destroyed in its own callback, so attempts are only marked there and freed by dns_tick().
 *
 * upstream.c asks the same resolvers and the same cache for the hosts that it dials; their addresses are judged when they are.
 *
 * Bounds: ASKS_MAX questions of wire (more is a broken wire and ends the session), queries_max[] queries (more fail), ATTEMPTS_MAX
 * attempts. */
#include <ares.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "vault/dnscache.h"
#include "vault/dnsfilter.h"
#include "vault/dnsnames.h"
#include "vault/resolvconf.h"
#include "vault/vault.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define RESOLV_CONF_MAX (64 << 10)
#define ASKS_MAX 256
#define QUERIES_UP 128
#define QUERIES_MAX (ASKS_MAX + QUERIES_UP + 1) /* queries_max[] together */
#define ATTEMPTS_MAX 2048
#define HEDGE_NS (300 * MS)
#define TOTAL_NS (4 * NS)
#define LOOK_NS NS	      /* between two looks at resolv.conf */
#define LAST_NS (30 * NS)     /* how long a server that failed goes last */
#define FAILS_LAST 2
#define TRY_MS 1000	      /* of c-ares: sent again after 1 s, 3 s */
#define TRIES 3
#define UDP_MAX 4096
#define STANDIN_TTL_S 60
#define TTL_MAX_S 3600

#define KEY_DO 1
#define KEY_CD 2
#define KEY_RD 4

/* RFC 8914 section 4 */
enum { EDE_NONE = -1, EDE_BLOCKED = 15, EDE_PROHIBITED = 18, EDE_NO_REACHABLE = 22 };

struct ask {
	bool used;
	uint32_t slot, generation;
	uint16_t query; /* index */
	uint16_t size;
	bool tcp, edns, dnssec_ok, rd, cd, ad;
};

enum query_for { FOR_ASKS, FOR_NAT64, FOR_HOST, QUERY_FORS };

struct query {
	bool used;
	enum query_for who;
	uint16_t up_slot;
	uint32_t up_gen;
	struct dns_key key;
	bool rd, cd, ad, dnssec_ok;
	int64_t start, next;
	uint8_t order[RESOLVERS_MAX], n_order, sent, running;
};

struct attempt {
	struct vault *v;
	bool used, over;
	ares_channel ch;
	uint16_t query;
	uint8_t server;
	uint16_t id;
	int64_t start, check;
};

struct server {
	struct resolver r;
	unsigned int fails;
	int64_t last_until;
	bool silent; /* a line said so */
};

struct dns {
	struct ask asks[ASKS_MAX];
	struct query queries[QUERIES_MAX];
	struct attempt attempts[ATTEMPTS_MAX];
	size_t n_asks, n_queries, n_for[QUERY_FORS], n_attempts;
	struct server servers[RESOLVERS_MAX];
	size_t n_servers;
	struct stat conf;
	bool conf_read, conf_bad, warned_198;
	int64_t looked;
	struct dnscache cache;
	struct dns_msg m; /* the one being worked on */
};

static const size_t queries_max[] = { [FOR_ASKS] = ASKS_MAX, [FOR_NAT64] = 1, [FOR_HOST] = QUERIES_UP };
static_assert(ARRAY_SIZE(queries_max) == QUERY_FORS, "queries_max[] is incomplete");

static void query_next(struct vault *v, struct query *q);

/* What one question's answer is made with. */
struct result {
	int server; /* -1: none */
	int ede;
	const char *reason;
	const char *rule;
	unsigned int kept, dropped;
	struct addr first; /* dropped */
	enum policy_group group;
};

static void answer(struct vault *v, const struct ask *a, const struct result *r)
{
	static uint8_t out[sizeof(struct net_dns_answer) + NET_DNS_MAX];
	struct dns_msg *m = &v->dns->m;
	struct dns_encode how = {
		.size = a->tcp ? a->size : MIN(a->size, (size_t)UDP_MAX),
		.edns = a->edns, .extended = r->ede, .reason = r->reason,
	};
	struct net_dns_answer h;
	int n;

	m->id = 0;
	m->rd = a->rd;
	m->cd = a->cd;
	m->aa = false;
	m->ra = true;
	m->tc = false;
	m->dnssec_ok = a->dnssec_ok;
	m->ad = m->ad && (a->ad || a->dnssec_ok);
	n = dns_encode(m, &how, out + sizeof(h));
	assert(n > 0); /* 512 bytes hold any question with OPT and reason */
	h = (struct net_dns_answer){ net_head(NET_DNS_ANSWER, sizeof(h) + (size_t)n, a->slot, a->generation), (uint32_t)n };
	memcpy(out, &h, sizeof(h));
	wire_send(v, out, sizeof(h) + (size_t)n, -1);
}

static void line(struct vault *v, const char *text, uint16_t type, const struct result *r, int64_t ms)
{
	char name[12];

	audit_dns(&v->audit, &(struct audit_dns){
		.q = text, .type = dns_type_str(type, name), .rcode = dns_rcode_str(v->dns->m.rcode), .rule = r->rule, .kept = r->kept,
		.dropped = r->dropped, .server = r->server, .ms = (uint32_t)ms, .first = r->first, .group = r->group }, v->now);
}

static int tie(void *ctx, const struct addr *a, const char *name, uint32_t ttl_s)
{
	struct vault *v = ctx;

	return ties_add(&v->ties, a, name, ttl_s, names_inspected(&v->policy, name), v->now);
}

/* The answer in v->dns->m goes through the filter. */
static void filter(struct vault *v, const char *text, struct result *r)
{
	static const struct prefix local_proxies = { { AF_INET, { 198, 18 } }, 15 };
	struct filter f = { .policy = &v->policy, .name = text, .ipv4 = v->ipv4, .ipv6 = v->ipv6, .tie = tie, .ctx = v };
	struct dns_msg *m = &v->dns->m;
	char addr[ADDR_TEXT], opens[400];

	(void)routes_refresh(&v->routes, &v->policy); /* what is opened is judged again */
	dnsfilter(&f, m);
	r->kept = f.kept;
	r->dropped = f.dropped;
	if (f.dropped == 0)
		return;
	r->rule = policy_step_str[STEP_REBIND];
	r->first = f.first_dropped;
	r->group = policy_group(&v->policy, &f.first_dropped, ROUTE_UNKNOWN);
	if (f.kept == 0) {
		r->ede = EDE_BLOCKED;
		r->reason = r->group == GROUP_PRIVATE ? "agent-vm: only addresses of the LAN; --allow-lan or --allow-egress NAME opens them" :
							"agent-vm: only addresses that no rule by name opens";
	}
	if (v->audit.probing)
		return;
	if (addr_in(&f.first_dropped, &local_proxies) && names_inspected(&v->policy, text) && !v->dns->warned_198) {
		v->dns->warned_198 = true;
		log_warn("dns: %s is %s, an address of a local proxy on this host; --allow-egress 198.18.0.0/15 opens it", text,
			 addr_format(&f.first_dropped, addr));
	} else if (f.kept == 0) {
		(void)audit_dns_opens(&(struct audit_dns){ .q = text, .first = r->first, .group = r->group }, opens);
		log_info("dns: %s: %s left out; %s opens it", text, addr_format(&f.first_dropped, addr),
			 *opens ? opens : "nothing");
	}
}

/* A proxy on this host resolves as this host does; its loopback is the host's, and no name may lead there. */
static bool proxy_is_here(struct vault *v)
{
	for (size_t i = 0; i < v->cfg.proxy.n_addrs; i++) {
		const struct addr *a = &v->cfg.proxy.addrs[i];
		int way = routes_to(&v->routes, a);
		enum policy_group g = way < 0 ? GROUP_HOST : policy_group(&v->policy, a, (enum policy_route)way);

		if (g == GROUP_NEVER || g == GROUP_HOST)
			return true;
	}
	return false;
}

/* Host names that a proxy can be asked for: two labels or more, no number at the end (that would be an address), and no place where
 * inner networks have their names. What a zone of the outside tells the proxy alone is not seen here. */
static bool proxy_can_reach(struct vault *v, const char *text, bool plain)
{
	const char *last = strrchr(text, '.');
	const char *names[] = { text, NULL };
	struct addr none = { 0 };

	return v->policy.proxied && plain && last && (last[1] < '0' || last[1] > '9') && !names_inner(text) && !proxy_is_here(v) &&
	       !no_proxy_matches(&v->cfg.proxy, &none, names, 0);
}

/* DNS has no address: what pre-flight found for a name typed in a rule, or a stand-in. False: neither. */
static bool without_dns(struct vault *v, const struct dns_name *name, uint16_t type, const char *text, bool plain, struct result *r)
{
	const struct vault_named *named = names_named(&v->cfg, text);
	struct dns_msg *m = &v->dns->m;
	struct addr a;

	if (type != DNS_A && type != DNS_AAAA)
		return false;
	if (named && named->n_addrs > 0) {
		dns_begin(m, name, type);
		for (size_t i = 0; i < named->n_addrs; i++)
			if ((named->addrs[i].family == AF_INET) == (type == DNS_A))
				(void)dns_add(m, DNS_ANSWER, name, type, NAMES_TTL_S, named->addrs[i].b, type == DNS_A ? 4 : 16);
		filter(v, text, r);
		return true;
	}
	/* A name that exists without this type may have an address of the other family, and that one may be private. */
	if (m->rcode == DNS_NOERROR || !proxy_can_reach(v, text, plain))
		return false;
	dns_begin(m, name, type);
	if (type == DNS_A) {
		a = standins_get(&v->standins, text, v->now);
		(void)dns_add(m, DNS_ANSWER, name, DNS_A, STANDIN_TTL_S, a.b, 4);
	}
	r->rule = "proxy";
	return true;
}

static bool has_answer(const struct dns_msg *m)
{
	for (size_t i = 0; i < m->n_rr; i++)
		if (m->rr[i].section == DNS_ANSWER && m->rr[i].type == m->qtype)
			return true;
	return false;
}

/* What a resolver said, or a NULL span: none did. Leaves the guest's answer in v->dns->m. */
static void make(struct vault *v, const struct dns_key *key, struct span said, uint32_t age_s, struct result *r)
{
	char text[DNS_TEXT_MAX * 4 + 1];
	struct dns_msg *m = &v->dns->m;
	bool plain = dns_name_to_text(&key->name, text);

	if (!said.p || dns_parse(said, m) < 0) {
		dns_begin(m, &key->name, key->type);
		m->rcode = DNS_SERVFAIL;
		r->ede = EDE_NO_REACHABLE;
		r->reason = "agent-vm: no resolver of this host gives an answer";
	}
	m->qname = key->name; /* lower case, as it was asked */
	if (!has_answer(m) && without_dns(v, &key->name, key->type, text, plain, r)) {
		r->ede = r->kept > 0 || r->dropped == 0 ? EDE_NONE : r->ede;
		return;
	}
	/* Nothing outlives its tie. */
	for (size_t i = 0; i < m->n_rr; i++)
		m->rr[i].ttl = MIN(m->rr[i].ttl, (uint32_t)TTL_MAX_S) - MIN(MIN(m->rr[i].ttl, (uint32_t)TTL_MAX_S), age_s);
	/* RFC 4035 section 4.9.3: the bit is worth what the way to the resolver is worth. */
	m->ad = m->ad && r->server >= 0 && (v->dns->servers[r->server].r.addr.family == AF_INET ?
		v->dns->servers[r->server].r.addr.b[0] == 127 : addr_equal(&v->dns->servers[r->server].r.addr,
									  &(struct addr){ AF_INET6, { [15] = 1 } }));
	if (plain)
		filter(v, text, r);
	else
		filter(v, "", r); /* no rule can mean it */
}

/* Resolvers. */

static void nat64_ask(struct vault *v);

static void conf_look(struct vault *v)
{
	struct resolver found[RESOLVERS_MAX];
	struct dns *d = v->dns;
	AUTO_FREE(char, text);
	struct stat st;
	AUTO_FD(fd);
	size_t n;

	if (d->conf_read && v->now - d->looked < LOOK_NS)
		return;
	d->looked = v->now;
	if (d->conf_read && stat(RESOLV_CONF, &st) == 0 && st.st_dev == d->conf.st_dev && st.st_ino == d->conf.st_ino &&
	    st.st_size == d->conf.st_size && st.st_mtim.tv_sec == d->conf.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == d->conf.st_mtim.tv_nsec)
		return;
	fd = open(RESOLV_CONF, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fd_read_file(fd, RESOLV_CONF_MAX, &text, NULL) < 0) {
		if (!d->conf_bad)
			log_warn("%s: cannot be read; %s", RESOLV_CONF, d->n_servers ? "the resolvers stay as they were" : "127.0.0.1 is asked");
		d->conf_bad = true;
		if (d->n_servers > 0)
			return;
		memset(&st, 0, sizeof(st));
	} else {
		d->conf_bad = false;
	}
	d->conf = st;
	n = resolvconf_parse(text ? text : "", found);
	if (d->conf_read)
		log_info("%s changed: %zu resolvers, caches dropped", RESOLV_CONF, n);
	d->conf_read = true;
	dnscache_clear(&d->cache);
	/* Queries under way know servers by number: those that stay in their place keep their record. */
	for (size_t i = 0; i < n; i++)
		if (i >= d->n_servers || !addr_equal(&d->servers[i].r.addr, &found[i].addr) ||
		    strcmp(d->servers[i].r.scope, found[i].scope) != 0)
			d->servers[i] = (struct server){ .r = found[i] };
	d->n_servers = n;
	v->policy.nat64.bits = 0;
	nat64_ask(v);
}

static void server_failed(struct vault *v, uint8_t i, const char *why)
{
	struct server *s = &v->dns->servers[i];
	char text[ADDR_TEXT];

	if (++s->fails < FAILS_LAST)
		return;
	s->last_until = v->now + LAST_NS;
	if (!s->silent)
		log_warn("resolver %s: %s; the others are asked first for 30 s", addr_format(&s->r.addr, text), why);
	s->silent = true;
}

static void server_answered(struct vault *v, uint8_t i)
{
	struct server *s = &v->dns->servers[i];
	char text[ADDR_TEXT];

	if (s->silent)
		log_info("resolver %s: answers again", addr_format(&s->r.addr, text));
	s->silent = false;
	s->fails = 0;
	s->last_until = 0;
}

/* Attempts: c-ares. */


static void on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
	struct attempt *a = data;
	struct vault *v = a->v;

	if (!readable && !writable)
		ev_unwatch(&v->ev, fd);
	else
		(void)ev_watch(&v->ev, fd, (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u), EV_DNS,
			       (uint16_t)(a - v->dns->attempts), (uint32_t)fd);
}

/* A link-local server is on one link. */
static int on_configure(ares_socket_t fd, int type, void *data)
{
	const struct attempt *a = data;
	const char *scope = a->v->dns->servers[a->server].r.scope;
	uint64_t number;
	int index;

	if (scope[0] == '\0')
		return 0;
	if (str_u64(scope, INT32_MAX, &number) == 0) {
		index = (int)number;
		return setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof(index));
	}
	return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, scope, (socklen_t)strlen(scope));
}

static void attempt_check(struct attempt *a)
{
	struct timeval tv, *t = a->over ? NULL : ares_timeout(a->ch, NULL, &tv);

	a->check = t ? a->v->now + t->tv_sec * NS + t->tv_usec * 1000 + MS : INT64_MAX;
}

static void query_end(struct vault *v, struct query *q, struct span said, int server);

/* Is it an answer to this question, in form? Leaves it in d->m. */
static bool answers(struct dns *d, const struct query *q, const struct attempt *a, struct span said)
{
	struct dns_msg *m = &d->m;

	return dns_parse(said, m) == 0 && m->qr && !m->tc && m->opcode == 0 && m->id == a->id && m->has_question &&
	       m->qtype == q->key.type && dns_name_equal(&m->qname, &q->key.name);
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *p, int n)
{
	struct attempt *a = arg;
	struct vault *v = a->v;
	struct dns *d = v->dns;
	struct query *q = &d->queries[a->query];

	if (a->over || status == ARES_EDESTRUCTION || status == ARES_ECANCELLED)
		return;
	a->over = true;
	q->running--;
	if (status != ARES_SUCCESS) {
		server_failed(v, a->server, ares_strerror(status));
	} else if (!answers(d, q, a, SPAN(p, (size_t)n))) {
		server_failed(v, a->server, "its answer is malformed");
	} else if (d->m.rcode == DNS_NOERROR || d->m.rcode == DNS_NXDOMAIN) {
		server_answered(v, a->server);
		query_end(v, q, SPAN(p, (size_t)n), a->server);
		return;
	}
	/* SERVFAIL, REFUSED and the like: it lives, and the next one may know. */
	query_next(v, q);
}

static bool attempt_start(struct vault *v, struct query *q, uint8_t server)
{
	struct ares_options o = {
		.flags = ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOALIASES | ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS,
		.timeout = TRY_MS, .tries = TRIES, .ndots = 1, .udp_port = 53, .tcp_port = 53, .lookups = (char *)"b",
		.sock_state_cb = on_socket, .ednspsz = 1232, .nservers = 1,
	};
	struct ares_addr_port_node node = { .udp_port = 53, .tcp_port = 53 };
	struct in_addr unused = { 0 }; /* everything is set, so that c-ares reads no file */
	struct dns *d = v->dns;
	struct attempt *a = NULL;
	uint8_t msg[300];
	size_t n;

	for (size_t i = 0; !a && i < ATTEMPTS_MAX; i++)
		if (!d->attempts[i].used)
			a = &d->attempts[i];
	if (!a)
		return false;
	*a = (struct attempt){ .v = v, .used = true, .query = (uint16_t)(q - d->queries), .server = server, .start = v->now,
			       .check = INT64_MAX };
	o.sock_state_cb_data = a;
	o.servers = &unused;
	if (getrandom(&a->id, sizeof(a->id), 0) != sizeof(a->id) ||
	    ares_init_options(&a->ch, &o, ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_UDP_PORT |
			      ARES_OPT_TCP_PORT | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB | ARES_OPT_EDNSPSZ | ARES_OPT_SERVERS |
			      ARES_OPT_DOMAINS | ARES_OPT_SORTLIST) != ARES_SUCCESS) {
		a->used = false;
		return false;
	}
	ares_set_socket_configure_callback(a->ch, on_configure, a);
	node.family = d->servers[server].r.addr.family;
	memcpy(&node.addr, d->servers[server].r.addr.b, node.family == AF_INET ? 4 : 16);
	(void)ares_set_servers_ports(a->ch, &node);
	d->n_attempts++;
	q->running++;
	n = dns_question(&q->key.name, q->key.type, a->id, q->rd, q->cd, q->ad, q->dnssec_ok, msg);
	ares_send(a->ch, msg, (int)n, on_answer, a); /* may call back at once */
	attempt_check(a);
	return true;
}

/* Queries. */

/* @beaten: by another server or by time. Otherwise nobody is to blame: it is given up. */
static void query_free(struct vault *v, struct query *q, bool beaten)
{
	struct dns *d = v->dns;

	for (size_t i = 0, left = d->n_attempts; left > 0 && i < ATTEMPTS_MAX; i++) {
		struct attempt *a = &d->attempts[i];

		if (!a->used)
			continue;
		left--;
		if (a->query != (uint16_t)(q - d->queries) || a->over)
			continue;
		/* By more than the head start that this server had. */
		if (beaten && v->now - a->start >= HEDGE_NS)
			server_failed(v, a->server, "does not answer");
		a->over = true;
	}
	q->used = false;
	d->n_queries--;
	d->n_for[q->who]--;
}

static void nat64_found(struct vault *v, struct span said);

static void host_found(struct vault *v, struct span said, uint16_t slot, uint32_t gen)
{
	struct dns_msg *m = &v->dns->m;
	struct addr a[UP_ADDRS];
	size_t n = 0;

	if (said.n > 0 && dns_parse(said, m) == 0)
		for (size_t i = 0; i < m->n_rr && n < UP_ADDRS; i++)
			if (m->rr[i].section == DNS_ANSWER && m->rr[i].type == m->qtype && dns_rr_addr(m, &m->rr[i], &a[n]))
				n++;
	up_resolved(v, slot, gen, a, n);
}

/* @said is NULL when no server gave an answer. */
static void query_end(struct vault *v, struct query *q, struct span said, int server)
{
	struct dns *d = v->dns;
	struct result r = { .server = server, .ede = EDE_NONE };
	char text[DNS_TEXT_MAX * 4 + 1];

	query_free(v, q, true);
	if (q->who == FOR_NAT64) {
		nat64_found(v, said);
		return;
	}
	if (said.p)
		dnscache_put(&d->cache, &q->key, said, dnscache_ttl(&d->m), (uint8_t)server, v->now);
	else
		/* So that a program that asks again at once does not wait 4 s again: an answer that says SERVFAIL by its absence. */
		dnscache_put(&d->cache, &q->key, SPAN(NULL, 0), 2, 0, v->now);
	if (q->who == FOR_HOST) {
		host_found(v, said, q->up_slot, q->up_gen);
		return;
	}
	make(v, &q->key, said, 0, &r);
	(void)dns_name_to_text(&q->key.name, text);
	for (size_t i = 0; i < ASKS_MAX; i++) {
		struct ask *a = &d->asks[i];
		bool ad = d->m.ad;

		if (!a->used || a->query != (uint16_t)(q - d->queries))
			continue;
		answer(v, a, &r);
		d->m.ad = ad;
		a->used = false;
		d->n_asks--;
	}
	line(v, text, q->key.type, &r, (v->now - q->start) / MS);
}

/* The next server, or the end when none is left and none may still answer. */
static void query_next(struct vault *v, struct query *q)
{
	q->next = INT64_MAX;
	while (q->used && q->sent < q->n_order) {
		uint8_t server = q->order[q->sent++];

		q->next = q->sent < q->n_order ? v->now + HEDGE_NS : INT64_MAX;
		/* A server that fails at once comes back here by itself. */
		if (server < v->dns->n_servers && attempt_start(v, q, server))
			return;
	}
	if (q->used && q->running == 0)
		query_end(v, q, SPAN(NULL, 0), -1);
}

/* NULL: there are as many as may be. */
static struct query *query_new(struct vault *v, const struct dns_key *key, enum query_for who)
{
	struct dns *d = v->dns;
	struct query *q = NULL;

	if (d->n_for[who] >= queries_max[who])
		return NULL;
	for (size_t i = 0; !q && i < QUERIES_MAX; i++)
		if (!d->queries[i].used)
			q = &d->queries[i];
	assert(q);
	*q = (struct query){ .used = true, .who = who, .key = *key, .rd = key->flags & KEY_RD, .cd = key->flags & KEY_CD,
			     .dnssec_ok = key->flags & KEY_DO, .ad = true, .start = v->now, .next = v->now };
	d->n_queries++;
	d->n_for[who]++;
	for (int last = 0; last <= 1; last++)
		for (uint8_t i = 0; i < d->n_servers; i++)
			if ((d->servers[i].last_until > v->now) == last)
				q->order[q->n_order++] = i;
	return q;
}

static struct query *query_find(struct dns *d, const struct dns_key *key)
{
	for (size_t i = 0; i < QUERIES_MAX; i++)
		if (d->queries[i].used && d->queries[i].who == FOR_ASKS && dns_key_equal(&d->queries[i].key, key))
			return &d->queries[i];
	return NULL;
}

/* RFC 7050: what the resolvers make of ipv4only.arpa shows their NAT64 prefix. */
static void nat64_ask(struct vault *v)
{
	struct dns_key key = { .type = DNS_AAAA, .flags = KEY_RD };
	struct dns *d = v->dns;

	/* What the former ones make of it counts no more. */
	for (size_t i = 0; d->n_for[FOR_NAT64] > 0 && i < QUERIES_MAX; i++)
		if (d->queries[i].used && d->queries[i].who == FOR_NAT64)
			query_free(v, &d->queries[i], false);
	if (!v->ipv6 || v->policy.no_network)
		return;
	(void)dns_name_from_text("ipv4only.arpa", &key.name);
	query_next(v, query_new(v, &key, FOR_NAT64));
}

int dns_resolve(struct vault *v, const char *name, uint16_t type, uint16_t slot, uint32_t gen)
{
	struct dns_key key = { .type = type, .flags = KEY_RD };
	struct dns *d = v->dns;
	struct span said;
	struct query *q;
	uint32_t age_s;
	uint8_t server;

	if (dns_name_from_text(name, &key.name) < 0 || v->policy.no_network)
		return -EAGAIN;
	conf_look(v);
	if (dnscache_get(&d->cache, &key, v->now, &said, &age_s, &server)) {
		host_found(v, said, slot, gen);
		return 0;
	}
	q = query_new(v, &key, FOR_HOST);
	if (!q)
		return -EAGAIN;
	q->up_slot = slot;
	q->up_gen = gen;
	query_next(v, q);
	return 0;
}

/* A prefix inside our own networks, or one that is no one's global one, would turn private addresses into public ones. */
static bool nat64_usable(const struct policy *p, const struct prefix *n)
{
	static const struct prefix global = { { AF_INET6, { 0x20 } }, 3 },
				   local_use = { { AF_INET6, { 0, 0x64, 0xff, 0x9b, 0, 1 } }, 48 };

	if (!prefix_in(n, &global) && !prefix_in(n, &local_use))
		return false;
	for (size_t i = 0; i < p->n_hosts; i++)
		if (prefix_in(n, &p->hosts[i]) || prefix_in(&p->hosts[i], n))
			return false;
	return true;
}

static void nat64_found(struct vault *v, struct span said)
{
	static const uint8_t lengths[] = { 96, 64, 56, 48, 40, 32 };
	struct dns_msg *m = &v->dns->m;
	struct addr a, v4;

	if (!said.p || dns_parse(said, m) < 0)
		return;
	(void)routes_refresh(&v->routes, &v->policy); /* what is opened is judged again */
	for (size_t i = 0; i < m->n_rr; i++) {
		if (m->rr[i].section != DNS_ANSWER || m->rr[i].type != DNS_AAAA || !dns_rr_addr(m, &m->rr[i], &a))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(lengths); k++) {
			struct prefix p = { .addr = a, .bits = lengths[k] };
			char text[ADDR_TEXT];

			if (!addr_nat64(&a, &p, &v4) || v4.b[0] != 192 || v4.b[1] != 0 || v4.b[2] != 0 || (v4.b[3] & 0xfe) != 170)
				continue;
			memset(p.addr.b + p.bits / 8, 0, sizeof(p.addr.b) - p.bits / 8);
			if (!nat64_usable(&v->policy, &p)) {
				log_warn("dns: NAT64 prefix %s/%u is not a public one; not used", addr_format(&p.addr, text), p.bits);
				continue;
			}
			v->policy.nat64 = p;
			log_info("dns: NAT64 prefix %s/%u", addr_format(&p.addr, text), p.bits);
			return;
		}
	}
}

/* Questions of wire. */

static bool too_much(struct vault *v, const struct dns_name *name, struct result *r)
{
	char text[DNS_TEXT_MAX * 4 + 1];
	struct dns_name parent;
	enum rate_verdict verdict = rates_take(&v->rates, name, v->now, &parent);

	if (verdict == RATE_NOTICE) {
		(void)dns_name_to_text(&parent, text);
		log_warn("dns-tunnel? many or random names below %s", text);
	}
	if (verdict == RATE_OK || verdict == RATE_NOTICE)
		return false;
	r->ede = EDE_PROHIBITED;
	r->rule = "rate";
	r->reason = verdict == RATE_BUSY ? "agent-vm: more than 50 new names a second" :
					   "agent-vm: too many names of this domain; wait an hour";
	return true;
}

/* Answered without a query. */
static void at_once(struct vault *v, const struct ask *a, const struct dns_key *key, const struct result *r, bool log)
{
	char text[DNS_TEXT_MAX * 4 + 1];

	(void)dns_name_to_text(&key->name, text);
	answer(v, a, r);
	if (log)
		line(v, text, key->type, r, 0);
}

/* Wire takes a slot again when it has waited for 10 s. After a stall its message is read before dns_tick() ends the old ask, which
 * the new one replaces then. ASKS_MAX: there is no place. */
static size_t ask_place(const struct dns *d, uint32_t slot)
{
	size_t place = ASKS_MAX;

	for (size_t i = 0; i < ASKS_MAX; i++) {
		if (d->asks[i].used && d->asks[i].slot == slot)
			return i;
		if (!d->asks[i].used)
			place = i;
	}
	return place;
}

void dns_message(struct vault *v, const struct net_dns_ask *m)
{
	struct ask a = { .used = true, .slot = m->head.slot, .generation = m->head.generation, .size = m->size, .tcp = m->tcp,
			 .edns = m->edns, .dnssec_ok = m->dnssec_ok, .rd = m->rd,
			 .cd = m->cd, .ad = m->ad };
	struct dns_key key = { .type = m->qtype, .flags = (m->dnssec_ok ? KEY_DO : 0) | (m->cd ? KEY_CD : 0) | (m->rd ? KEY_RD : 0) };
	struct result r = { .server = -1, .ede = EDE_NONE };
	char text[DNS_TEXT_MAX * 4 + 1];
	struct dns *d = v->dns;
	struct addr addr;
	struct span said;
	struct query *q;
	uint32_t age_s;
	uint8_t server;
	size_t i;

	(void)dns_name_check(SPAN(m->name, m->name_len), &key.name); /* link.c has looked */
	dns_begin(&d->m, &key.name, key.type);
	if (v->policy.no_network) {
		d->m.rcode = DNS_REFUSED;
		r.ede = EDE_PROHIBITED;
		r.rule = policy_step_str[STEP_NO_NETWORK];
		at_once(v, &a, &key, &r, true);
		return;
	}
	(void)routes_refresh(&v->routes, &v->policy); /* what is opened is judged again */
	/* A name that is dialled elsewhere needs no address, and has none on a machine without a network. */
	if (dns_name_to_text(&key.name, text) && connect_to_find(&v->cfg, text, 0)) {
		if (key.type == DNS_A) {
			addr = standins_get(&v->standins, text, v->now);
			(void)dns_add(&d->m, DNS_ANSWER, &key.name, DNS_A, STANDIN_TTL_S, addr.b, 4);
		}
		r.rule = "testing";
		at_once(v, &a, &key, &r, true);
		return;
	}
	switch (names_local(&v->cfg, &v->policy, &key.name, key.type, v->guest_ipv6, &d->m, &r.rule)) {
	case NAMES_PROBE:
		(void)dns_name_to_text(&key.name, text);
		filter(v, text, &r);
		__attribute__((fallthrough));
	case NAMES_ANSWER:
		at_once(v, &a, &key, &r, r.rule);
		return;
	case NAMES_ASK:
		break;
	}
	if ((key.type == DNS_AAAA && !v->ipv6) || (key.type == DNS_A && !v->ipv4)) {
		at_once(v, &a, &key, &r, false);
		return;
	}
	conf_look(v);
	if (dnscache_get(&d->cache, &key, v->now, &said, &age_s, &server)) {
		r.server = server < d->n_servers && said.n > 0 ? server : -1;
		make(v, &key, said.n > 0 ? said : SPAN(NULL, 0), age_s, &r);
		r.server = -1;
		at_once(v, &a, &key, &r, r.dropped > 0);
		return;
	}
	i = ask_place(d, a.slot);
	if (i == ASKS_MAX) {
		vault_end(v, "wire waits for more names than it may");
		return;
	}
	q = query_find(d, &key);
	if (!q) {
		if (too_much(v, &key.name, &r)) {
			dns_begin(&d->m, &key.name, key.type);
			d->m.rcode = DNS_REFUSED;
			at_once(v, &a, &key, &r, true);
			return;
		}
		q = query_new(v, &key, FOR_ASKS);
		if (!q) { /* those of asks that were cancelled or replaced go on */
			dns_begin(&d->m, &key.name, key.type);
			d->m.rcode = DNS_SERVFAIL;
			at_once(v, &a, &key, &r, true);
			return;
		}
	}
	a.query = (uint16_t)(q - d->queries);
	d->n_asks += !d->asks[i].used;
	d->asks[i] = a;
	if (q->sent == 0)
		query_next(v, q);
}

bool dns_cancel(struct vault *v, const struct net_head *h)
{
	struct dns *d = v->dns;

	for (size_t i = 0; d->n_asks > 0 && i < ASKS_MAX; i++)
		if (d->asks[i].used && d->asks[i].slot == h->slot && d->asks[i].generation == h->generation) {
			d->asks[i].used = false; /* the query goes on, for the cache */
			d->n_asks--;
			return true;
		}
	return false;
}

void dns_event(struct vault *v, uint16_t slot, uint32_t fd, uint32_t events)
{
	struct attempt *a = slot < ATTEMPTS_MAX ? &v->dns->attempts[slot] : NULL;

	if (!a || !a->used || a->over)
		return;
	/* c-ares looks the descriptor up among its own, so one of a former attempt does nothing. */
	ares_process_fd(a->ch, events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? (ares_socket_t)fd : ARES_SOCKET_BAD,
			events & (EPOLLOUT | EPOLLERR) ? (ares_socket_t)fd : ARES_SOCKET_BAD);
	attempt_check(a);
}

int64_t dns_tick(struct vault *v)
{
	struct dns *d = v->dns;
	int64_t next = -1;

	for (size_t i = 0, left = d->n_queries; left > 0 && i < QUERIES_MAX; i++) {
		struct query *q = &d->queries[i];

		if (!q->used)
			continue;
		left--;
		if (q->start + TOTAL_NS <= v->now)
			query_end(v, q, SPAN(NULL, 0), -1);
		else if (q->next <= v->now)
			query_next(v, q);
		if (q->used)
			next = sooner(next, MIN(q->next, q->start + TOTAL_NS));
	}
	for (size_t i = 0, left = d->n_attempts; left > 0 && i < ATTEMPTS_MAX; i++) {
		struct attempt *a = &d->attempts[i];

		if (!a->used)
			continue;
		left--;
		if (!a->over && a->check <= v->now) {
			ares_process_fd(a->ch, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
			attempt_check(a);
		}
		if (a->over) {
			ares_destroy(a->ch);
			a->used = false;
			d->n_attempts--;
		} else {
			next = sooner(next, a->check);
		}
	}
	return next == INT64_MAX ? -1 : next;
}

int dns_init(struct vault *v, struct err *err)
{
	v->dns = xcalloc(1, sizeof(*v->dns));
	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return err_set(err, -ENOMEM, "c-ares: cannot be started");
	if (!v->policy.no_network)
		conf_look(v);
	return 0;
}
