#include "vault/config.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/str.h"
#include "proto/rec.h"

#define MTU_MIN 1500
#define MTU_MAX 65520

static int flag(struct span v, bool *ret)
{
	uint64_t u;
	int r = rec_u64(v, 1, &u);

	if (r == 0)
		*ret = u;
	return r;
}

static int port(struct span v, uint16_t *ret)
{
	uint64_t u;
	int r = rec_u64(v, UINT16_MAX, &u);

	if (r == 0)
		*ret = (uint16_t)u;
	return r;
}

static int fd_number(struct span v, int *ret)
{
	uint64_t u;

	if (rec_u64(v, VAULT_FD_EXTRA + VAULT_FDS_MAX - 1, &u) < 0 || u < VAULT_FD_EXTRA)
		return -EBADMSG;
	*ret = (int)u;
	return 0;
}

static int text(struct span v, char *to, size_t size)
{
	if (v.n == 0 || v.n >= size || memchr(v.p, 0, v.n))
		return -EBADMSG;
	memcpy(to, v.p, v.n);
	to[v.n] = '\0';
	return 0;
}

/* Lower case, no control bytes, no dot at the end: as the policy compares it. */
static int name(struct span v, char to[POLICY_NAME_MAX + 1])
{
	if (v.n == 0 || v.n > POLICY_NAME_MAX || v.p[v.n - 1] == '.')
		return -EBADMSG;
	for (size_t i = 0; i < v.n; i++)
		if (v.p[i] <= ' ' || v.p[i] >= 0x7f || (v.p[i] >= 'A' && v.p[i] <= 'Z'))
			return -EBADMSG;
	return text(v, to, POLICY_NAME_MAX + 1);
}

static int address(struct span v, struct addr *ret)
{
	struct addr a = { 0 };
	uint8_t family;

	if (span_u8(&v, &family) < 0 || (family != 4 && family != 6) || v.n != (family == 4 ? 4u : 16u))
		return -EBADMSG;
	a.family = family == 4 ? AF_INET : AF_INET6;
	memcpy(a.b, v.p, v.n);
	*ret = a;
	return 0;
}

static int rule(struct span in, struct vault_config *c)
{
	struct policy_rule r = { 0 };
	struct span v;
	uint64_t bits = UINT64_MAX;
	uint16_t key;
	int k;

	if (c->policy.n_rules >= POLICY_RULES_MAX)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_NAME ? name(v, r.name) : key == VTC_ADDR ? address(v, &r.net.addr) :
		    key == VTC_BITS ? rec_u64(v, 128, &bits) : key == VTC_LO ? port(v, &r.lo) : key == VTC_HI ? port(v, &r.hi) :
		    key == VTC_TCP ? flag(v, &r.tcp) : key == VTC_UDP ? flag(v, &r.udp) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || r.lo > r.hi || (r.lo == 0 && r.hi != 0) || (!r.tcp && !r.udp))
		return -EBADMSG;
	if (r.name[0] == '\0' && (r.net.addr.family == 0 || bits > (r.net.addr.family == AF_INET ? 32 : 128)))
		return -EBADMSG;
	if (r.name[0] != '\0' && (r.net.addr.family != 0 || bits != UINT64_MAX))
		return -EBADMSG;
	r.net.bits = r.name[0] == '\0' ? (uint8_t)bits : 0;
	c->policy.rules[c->policy.n_rules++] = r;
	return 0;
}

static int named(struct span in, struct vault_config *c)
{
	struct vault_named n = { 0 };
	struct span v;
	uint16_t key;
	int k;

	if (c->n_named >= VAULT_NAMED_MAX)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		if (key == VTC_NAME)
			k = name(v, n.name);
		else if (key == VTC_ADDR && n.n_addrs < VAULT_NAMED_ADDRS)
			k = address(v, &n.addrs[n.n_addrs++]);
		else
			k = -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || n.name[0] == '\0')
		return -EBADMSG;
	c->named = xrealloc(c->named, (c->n_named + 1) * sizeof(n));
	c->named[c->n_named++] = n;
	return 0;
}

static int publish(struct span in, struct vault_config *c)
{
	struct vault_publish p = { .fd = -1 };
	struct span v;
	uint16_t key;
	int k;

	if (c->n_publishes >= VAULT_PUBLISH_MAX)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_FD ? fd_number(v, &p.fd) : key == VTC_PORT ? port(v, &p.port) :
		    key == VTC_UDP ? flag(v, &p.udp) : key == VTC_TEXT ? text(v, p.listen, sizeof(p.listen)) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || p.fd < 0 || p.port == 0 || p.listen[0] == '\0')
		return -EBADMSG;
	c->publishes[c->n_publishes++] = p;
	return 0;
}

/* RFC 7617: "Basic " and the base64 of user:password. */
static int basic(struct span v, char *to, size_t size)
{
	if (v.n == 0 || 6 + BASE64_LEN(v.n) >= size)
		return -EBADMSG;
	memcpy(to, "Basic ", 6);
	to[6 + base64_encode(BASE64_STD, v, to + 6)] = '\0';
	return 0;
}

static int proxy(struct span in, struct vault_config *c)
{
	struct vault_proxy *p = &c->proxy;
	char entry[POLICY_NAME_MAX + 16];
	struct span v;
	uint16_t key;
	int k;

	if (p->n_addrs > 0)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		switch (key) {
		case VTC_ADDR:
			k = p->n_addrs < VAULT_PROXY_ADDRS ? address(v, &p->addrs[p->n_addrs++]) : -EBADMSG;
			break;
		case VTC_PORT:
			k = port(v, &p->port);
			break;
		case VTC_TEXT:
			k = text(v, p->text, sizeof(p->text));
			break;
		case VTC_AUTH:
			k = basic(v, p->basic, sizeof(p->basic));
			break;
		case VTC_NO_PROXY:
			k = p->n_except < VAULT_NO_PROXY_MAX ? text(v, entry, sizeof(entry)) : -EBADMSG;
			if (k == 0)
				k = no_proxy_parse(entry, &p->except[p->n_except++]);
			break;
		default:
			k = -EBADMSG;
		}
		if (k < 0)
			return -EBADMSG;
	}
	if (k < 0 || p->n_addrs == 0 || p->port == 0 || p->text[0] == '\0')
		return -EBADMSG;
	c->policy.proxied = true;
	return 0;
}

static int audit(struct span in, struct vault_config *c)
{
	struct span v;
	uint16_t key;
	int k;

	if (c->audit_fd >= 0)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_FD ? fd_number(v, &c->audit_fd) : key == VTC_OLD_FD ? fd_number(v, &c->audit_old_fd) : -EBADMSG;
		if (k < 0)
			return k;
	}
	return k < 0 || c->audit_fd < 0 ? -EBADMSG : 0;
}

static int inspected(struct span v, struct vault_config *c, size_t *n)
{
	char s[POLICY_NAME_MAX + 1];

	if (name(v, s) < 0)
		return -EBADMSG;
	c->inspected = xrealloc(c->inspected, (*n + 2) * sizeof(*c->inspected));
	c->inspected[(*n)++] = xstrdup(s);
	c->inspected[*n] = NULL;
	return 0;
}

static int opened(struct span in, struct vault_config *c)
{
	uint64_t prov = PROVS, bits = 0;
	struct span v;
	uint16_t key;
	int k;

	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_PROV ? rec_u64(v, PROVS - 1, &prov) : key == VTC_BITS ? rec_u64(v, (1u << CLASSES) - 1, &bits) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || prov == PROVS)
		return -EBADMSG;
	c->launch.opened[prov] |= (uint16_t)bits;
	return 0;
}

static int guard(struct span v, struct vault_source *s)
{
	uint64_t dev, ino;

	if (s->n_guards == VAULT_GUARDS_MAX || v.n != 16 || span_u64(&v, &dev) < 0 || span_u64(&v, &ino) < 0)
		return -EBADMSG;
	s->guards[s->n_guards].dev = dev;
	s->guards[s->n_guards++].ino = ino;
	return 0;
}

static int source(struct span in, struct vault_config *c)
{
	struct vault_source s = { .fd = -1 };
	uint64_t kind = UINT64_MAX;
	struct span v;
	uint16_t key;
	int k;

	if (c->n_sources >= VAULT_SOURCES_MAX)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_KIND ? rec_u64(v, SOURCES - 1, &kind) : key == VTC_FD ? fd_number(v, &s.fd) :
		    key == VTC_NAME ? text(v, s.name, sizeof(s.name)) : key == VTC_PROGRAM ? flag(v, &s.program) :
		    key == VTC_GUARD ? guard(v, &s) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || kind == UINT64_MAX || s.fd < 0 || s.name[0] == '\0' || strchr(s.name, '/'))
		return -EBADMSG;
	s.kind = (enum source_kind)kind;
	for (size_t i = 0; i < c->n_sources; i++)
		if (c->sources[i].kind == s.kind)
			return -EBADMSG;
	c->sources = xrealloc(c->sources, (c->n_sources + 1) * sizeof(s));
	c->sources[c->n_sources++] = s;
	return 0;
}

static int env(struct span in, struct vault_config *c)
{
	uint64_t kind = UINT64_MAX;
	int fd = -1, k;
	struct span v;
	uint16_t key;

	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_KIND ? rec_u64(v, PH_KINDS - 1, &kind) : key == VTC_FD ? fd_number(v, &fd) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || kind == UINT64_MAX || fd < 0 || c->env_fd[kind] >= 0)
		return -EBADMSG;
	c->env_fd[kind] = fd;
	return 0;
}

static int connect_to(struct span in, struct vault_config *c)
{
	struct vault_connect_to t = { 0 };
	struct span v;
	uint16_t key;
	int k;

	if (c->n_connect_to >= VAULT_CONNECT_TO_MAX)
		return -EBADMSG;
	while ((k = rec_next(&in, &key, &v)) > 0) {
		k = key == VTC_NAME ? name(v, t.name) : key == VTC_ADDR ? address(v, &t.addr) : key == VTC_PORT ? port(v, &t.port) :
		    key == VTC_TO_PORT ? port(v, &t.to_port) : -EBADMSG;
		if (k < 0)
			return k;
	}
	if (k < 0 || t.name[0] == '\0' || t.addr.family == 0 || t.port == 0 || t.to_port == 0)
		return -EBADMSG;
	c->connect_to = xrealloc(c->connect_to, (c->n_connect_to + 1) * sizeof(t));
	c->connect_to[c->n_connect_to++] = t;
	return 0;
}

static int trust(struct span in, struct vault_config *c)
{
	struct span v;
	uint16_t key;
	int k, fd;

	while ((k = rec_next(&in, &key, &v)) > 0) {
		if (key != VTC_FD || c->n_trust >= VAULT_TRUST_MAX || fd_number(v, &fd) < 0)
			return -EBADMSG;
		c->trust = xrealloc(c->trust, (c->n_trust + 1) * sizeof(*c->trust));
		c->trust[c->n_trust++] = fd;
	}
	return k;
}

const struct vault_connect_to *connect_to_find(const struct vault_config *c, const char *name_, uint16_t port_no)
{
	for (size_t i = 0; i < c->n_connect_to; i++)
		if (strcmp(c->connect_to[i].name, name_) == 0 && (port_no == 0 || c->connect_to[i].port == port_no))
			return &c->connect_to[i];
	return NULL;
}

int vault_config_parse(struct span in, struct vault_config *ret, struct err *err)
{
	struct vault_config *c = xcalloc(1, sizeof(*c));
	bool mac = false, flags_seen = false;
	size_t n_inspected = 0;
	uint16_t key = 0;
	struct span v;
	uint64_t u;
	int r;

	c->audit_fd = c->audit_old_fd = -1;
	c->mtu = MTU_MAX;
	for (int i = 0; i < PH_KINDS; i++)
		c->env_fd[i] = -1;
	while ((r = rec_next(&in, &key, &v)) > 0) {
		switch (key) {
		case VTC_FLAGS:
			r = flags_seen ? -EBADMSG : rec_u64(v, VAULT_FLAGS_ALL, &u);
			if (r == 0) {
				c->policy.no_network = u & VAULT_NO_NETWORK;
				c->policy.allow_lan = u & VAULT_ALLOW_LAN;
				c->policy.allow_host = u & VAULT_ALLOW_HOST;
			}
			flags_seen = true;
			break;
		case VTC_GUEST_MAC:
			r = mac || v.n != sizeof(c->guest_mac) ? -EBADMSG : 0;
			if (r == 0)
				memcpy(c->guest_mac, v.p, v.n);
			mac = true;
			break;
		case VTC_MTU:
			r = rec_u64(v, MTU_MAX, &u);
			if (r == 0 && u < MTU_MIN)
				r = -EBADMSG;
			if (r == 0)
				c->mtu = (uint16_t)u;
			break;
		case VTC_RULE:
			r = rule(v, c);
			break;
		case VTC_INSPECTED:
			r = inspected(v, c, &n_inspected);
			break;
		case VTC_NAMED:
			r = named(v, c);
			break;
		case VTC_PUBLISH:
			r = publish(v, c);
			break;
		case VTC_PROXY:
			r = proxy(v, c);
			break;
		case VTC_AUDIT:
			r = audit(v, c);
			break;
		case VTC_PROBE:
			r = text(v, c->probe, sizeof(c->probe));
			break;
		case VTC_LENT:
			r = rec_u64(v, PH_ALL, &u);
			if (r == 0)
				c->launch.lent = (uint32_t)u;
			break;
		case VTC_OPENED:
			r = opened(v, c);
			break;
		case VTC_SOURCE:
			r = source(v, c);
			break;
		case VTC_ENV:
			r = env(v, c);
			break;
		case VTC_CONNECT_TO:
			r = connect_to(v, c);
			break;
		case VTC_TRUST:
			r = trust(v, c);
			break;
		default:
			r = -EBADMSG;
		}
		if (r < 0)
			break;
	}
	if (r == 0 && (!mac || !flags_seen))
		r = -EBADMSG;
	c->policy.inspected = (const char *const *)c->inspected;
	if (r == 0) {
		*ret = *c;
		free(c);
		return 0;
	}
	for (size_t i = 0; i < n_inspected; i++)
		free(c->inspected[i]);
	free(c->inspected);
	free(c->named);
	free(c->sources);
	free(c->connect_to);
	free(c->trust);
	free(c);
	return err_set(err, -EBADMSG, "configuration of the vault: record %u is malformed, given twice or missing; all parts of "
		       "agent-vm must be of one build", key);
}

int vault_listen_check(const void *msg, size_t n, struct vault_listen *ret)
{
	struct vault_listen l;
	size_t len;

	if (n != sizeof(l))
		return -EBADMSG;
	memcpy(&l, msg, n);
	len = strnlen(l.listen, sizeof(l.listen));
	if (l.port == 0 || len == 0 || len == sizeof(l.listen))
		return -EBADMSG;
	for (size_t i = len; i < sizeof(l.listen); i++)
		if (l.listen[i] != '\0')
			return -EBADMSG;
	*ret = l;
	return 0;
}

int no_proxy_parse(const char *s, struct vault_no_proxy *ret)
{
	struct vault_no_proxy e = { 0 };
	char host[POLICY_NAME_MAX + 16];
	const char *colon = strrchr(s, ':');
	size_t n = strlen(s);
	uint64_t port_no;

	/* A port follows the last colon, unless that is part of an IPv6 address without brackets. */
	if (prefix_parse(s, &e.net) == 0) {
		*ret = e;
		return 0;
	}
	if (colon && str_u64(colon + 1, UINT16_MAX, &port_no) == 0 && port_no > 0) {
		e.port = (uint16_t)port_no;
		n = (size_t)(colon - s);
	}
	if (n > 1 && s[0] == '[' && s[n - 1] == ']') {
		s++;
		n -= 2;
	}
	while (n > 0 && *s == '.') {
		s++;
		n--;
	}
	if (n == 0 || n > POLICY_NAME_MAX)
		return -EINVAL;
	memcpy(host, s, n);
	host[n] = '\0';
	if (prefix_parse(host, &e.net) == 0) {
		*ret = e;
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		e.name[i] = host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] | 0x20) : host[i];
	*ret = e;
	return 0;
}

static bool is_below(const char *name_, const char *domain)
{
	size_t n = strlen(name_), d = strlen(domain);

	return n >= d && strcmp(name_ + n - d, domain) == 0 && (n == d || name_[n - d - 1] == '.');
}

bool no_proxy_matches(const struct vault_proxy *p, const struct addr *a, const char *const *names, uint16_t port_no)
{
	for (size_t i = 0; i < p->n_except; i++) {
		const struct vault_no_proxy *e = &p->except[i];

		if (e->port != 0 && e->port != port_no)
			continue;
		if (strcmp(e->name, "*") == 0)
			return true;
		if (e->name[0] == '\0' && addr_in(a, &e->net))
			return true;
		for (const char *const *n = names; e->name[0] != '\0' && n && *n; n++)
			if (is_below(*n, e->name))
				return true;
	}
	return false;
}
