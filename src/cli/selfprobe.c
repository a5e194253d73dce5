#include "cli/selfprobe.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"
#include "vault/dnsmsg.h"

#define LIMIT_S 2
#define LIMIT_EMULATED_S 20 /* a refusal takes no time, but a host that emulates may stand still */
#define NAME_TXT "probe.agent-vm.internal"
#define NAME_REBIND "rebind.probe.agent-vm.internal"

static const struct addr gateway4 = { AF_INET, { 192, 0, 0, 1 } }, loopback4 = { AF_INET, { 127, 0, 0, 1 } },
			 metadata = { AF_INET, { 169, 254, 169, 254 } }, resolver = { AF_INET, { 1, 1, 1, 1 } },
			 documentation = { AF_INET6, { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } },
			 lan = { AF_INET, { 10, 255, 255, 1 } };

int selfprobe_value(struct network_plan *plan, struct err *err)
{
	uint8_t bytes[(sizeof(plan->probe) - 1) / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return err_set(err, -EIO, "self-probe: no random bytes");
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(plan->probe + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

/* Is there a rule that could open this? Not how the policy finds that out: what is left out wrongly is only not probed.
 * @exact: only a rule for that very address opens it. @named: only one that names the port does. */
static bool ruled(const struct network_plan *plan, const struct addr *a, bool tcp, uint16_t port, bool exact, bool named)
{
	for (size_t i = 0; i < plan->n_rules; i++) {
		const struct policy_rule *r = &plan->rules[i];
		bool all = r->lo == 0 && r->hi == 0;

		if (r->name[0] != '\0' || !(tcp ? r->tcp : r->udp) || !addr_in(a, &r->net))
			continue;
		if (exact && r->net.bits != (a->family == AF_INET ? 32 : 128))
			continue;
		if (all ? !named : r->lo <= port && port <= r->hi)
			return true;
	}
	return false;
}

static void target(struct selfprobe *p, enum selfprobe_want want, bool tcp, const struct addr *a, uint16_t port)
{
	p->v[p->n++] = (struct selfprobe_target){ .want = p->plan->no_network ? WANT_NOTHING : want, .tcp = tcp, .addr = *a,
						  .port = port };
}

static void question(struct selfprobe *p, enum selfprobe_want want, const char *name, uint16_t type)
{
	target(p, want, false, &gateway4, 53);
	p->v[p->n - 1].name = name;
	p->v[p->n - 1].type = type;
}

/* An address of this host that others reach it by, and whether 10.255.255.1 is one. IPv4 is what the guest surely has. */
static bool own_address(struct addr *ret, bool *ret_is_lan)
{
	static const struct prefix link_local = { { AF_INET, { 169, 254 } }, 16 };
	struct ifaddrs *all;
	bool found = false;

	*ret_is_lan = false;
	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		struct addr a;

		if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || !lookup_addr(i->ifa_addr, &a) || a.family != AF_INET)
			continue;
		*ret_is_lan |= addr_equal(&a, &lan);
		if (found || i->ifa_flags & IFF_LOOPBACK || addr_in(&a, &link_local))
			continue;
		*ret = a;
		found = true;
	}
	freeifaddrs(all);
	return found;
}

static int listen_at(struct selfprobe_listener *l, const struct addr *a, struct err *err)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t n = sizeof(in);
	char text[ADDR_TEXT];
	AUTO_FD(fd);

	memcpy(&in.sin_addr, a->b, 4);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)&in, &n) < 0)
		return err_set(err, -errno, "self-probe: no port can be opened on %s: %s", addr_format(a, text), strerror(errno));
	*l = (struct selfprobe_listener){ .fd = TAKE_FD(fd), .addr = *a, .port = ntohs(in.sin_port) };
	return 0;
}

int selfprobe_open(struct selfprobe *p, const struct network_plan *plan, bool emulated, struct err *err)
{
	struct addr own;
	int r = 0;
	bool is_lan, has_own = own_address(&own, &is_lan), lan_open;

	*p = (struct selfprobe)SELFPROBE_INIT;
	p->plan = plan;
	p->limit_s = emulated ? LIMIT_EMULATED_S : LIMIT_S;
	if (has_own)
		r = listen_at(&p->listen[0], &own, err);
	if (r == 0)
		r = listen_at(&p->listen[1], &loopback4, err);
	if (r < 0)
		return r;
	lan_open = !is_lan && plan->allow_lan;
	for (size_t i = 0; i < plan->n_rules && !lan_open && !is_lan; i++)
		lan_open = plan->rules[i].name[0] == '\0' && addr_in(&lan, &plan->rules[i].net);
	question(p, WANT_TXT, NAME_TXT, DNS_TXT);
	question(p, lan_open ? WANT_PRIVATE : WANT_EMPTY, NAME_REBIND, DNS_A);
	question(p, WANT_EMPTY, NAME_REBIND, DNS_AAAA);
	if (has_own && (plan->allow_host || !ruled(plan, &own, true, p->listen[0].port, true, false)))
		target(p, plan->allow_host ? WANT_VALUE : WANT_REFUSED, true, &own, p->listen[0].port);
	target(p, plan->allow_host ? WANT_VALUE : WANT_REFUSED, true, &gateway4, p->listen[1].port);
	for (int tcp = 1; tcp >= 0; tcp--) {
		if (!ruled(plan, &metadata, tcp, 80, true, false))
			target(p, WANT_REFUSED, tcp, &metadata, 80);
		if (!ruled(plan, &resolver, tcp, 53, false, true))
			target(p, WANT_REFUSED, tcp, &resolver, 53);
	}
	if (!ruled(plan, &documentation, true, 80, false, false))
		target(p, WANT_NOTHING, true, &documentation, 80);
	return 0;
}

void selfprobe_close(struct selfprobe *p)
{
	for (size_t i = 0; i < SELFPROBE_LISTENERS; i++) {
		close_p(&p->listen[i].fd);
		p->listen[i].fd = -1;
	}
}

static int put_target(const struct selfprobe_target *t, struct buf *out)
{
	uint8_t ask[300] = { 0 };
	size_t n_ask = t->tcp ? 0 : 1;
	ssize_t at = rec_begin(out, GC_PROBE);
	struct dns_name name;
	int k;

	if (t->name) {
		(void)dns_name_from_text(t->name, &name);
		n_ask = dns_question(&name, t->type, 1, true, false, false, false, ask);
	}
	k = at < 0 ? -1 : rec_put_u64(out, GC_PROBE_TCP, t->tcp) | network_put_addr(out, GC_PROBE_ADDR, &t->addr) |
				  rec_put_u64(out, GC_PROBE_PORT, t->port);
	if (n_ask > 0)
		k |= rec_put(out, GC_PROBE_SAY, ask, n_ask);
	if (k == 0)
		rec_end(out, (size_t)at);
	return k < 0 ? -ENOBUFS : 0;
}

int selfprobe_orders(struct selfprobe *p, const struct network *net, struct buf *out)
{
	int r = rec_put_u64(out, GC_PROBE_MS, p->limit_s * 1000);

	p->ipv4 = net->ipv4;
	for (size_t i = 0; i < p->n && r == 0; i++)
		r = put_target(&p->v[i], out);
	return r;
}

void selfprobe_accept(struct selfprobe *p, size_t i)
{
	struct selfprobe_listener *l = &p->listen[i];
	struct sockaddr_storage in = { 0 };
	socklen_t n = sizeof(in);
	struct addr from;
	AUTO_FD(fd);

	fd = accept4(l->fd, (struct sockaddr *)&in, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	/* A neighbour that looks through ports is not the guest: vault connects from this host. */
	if (fd < 0 || !lookup_addr((struct sockaddr *)&in, &from) || !addr_equal(&from, &l->addr))
		return;
	l->reached = true;
	if (p->plan->allow_host)
		(void)send(fd, p->plan->probe, strlen(p->plan->probe), MSG_NOSIGNAL);
}

/* "tcp 1.2.3.4:80", "dns NAME A". */
static void describe(const struct selfprobe_target *t, char *to, size_t size)
{
	char text[ADDR_TEXT], type[12];
	bool v6 = t->addr.family == AF_INET6;

	if (t->name)
		(void)snprintf(to, size, "dns %s %s", t->name, dns_type_str(t->type, type));
	else
		(void)snprintf(to, size, "%s %s%s%s:%u", t->tcp ? "tcp" : "udp", v6 ? "[" : "", addr_format(&t->addr, text),
			       v6 ? "]" : "", t->port);
}

static bool is_txt(const struct dns_msg *m, const char *value)
{
	size_t n = strlen(value);

	return m->n_rr == 1 && m->rr[0].type == DNS_TXT && m->rr[0].data_n == n + 1 && m->arena[m->rr[0].data] == n &&
	       memcmp(m->arena + m->rr[0].data + 1, value, n) == 0;
}

/* NULL: as it must be. */
static const char *judge_dns(const struct selfprobe *p, const struct selfprobe_target *t, struct span said)
{
	AUTO_FREE(struct dns_msg, m);
	struct addr a;

	m = xcalloc(1, sizeof(*m));
	if (dns_parse(said, m) < 0 || !m->qr || m->rcode != DNS_NOERROR)
		return "was not answered and must be";
	if (t->want == WANT_TXT)
		return is_txt(m, p->plan->probe) ? NULL : "was not answered by this session's vault";
	if (t->want == WANT_EMPTY)
		return m->n_rr == 0 ? NULL : "gave addresses that must be left out";
	if (m->n_rr == 1 && dns_rr_addr(m, &m->rr[0], &a) && addr_equal(&a, &lan))
		return NULL;
	return m->n_rr == 0 ? "did not give the private address that the options open" : "gave addresses that must be left out";
}

static const char *judge(const struct selfprobe *p, const struct selfprobe_target *t, uint32_t error, struct span said)
{
	const char *value = p->plan->probe;

	switch (t->want) {
	case WANT_REFUSED:
		if (error == ECONNREFUSED || (error == ENETUNREACH && !p->ipv4))
			return NULL;
		return error == 0 ? "was reachable and must not be" : "was not refused at once and must be";
	case WANT_NOTHING:
		if (error != 0 && (error != ETIMEDOUT || p->plan->no_network))
			return NULL;
		return error == 0 ? "was reachable and must not be" : "did not fail at once and must";
	case WANT_VALUE:
		return error == 0 && said.n == strlen(value) && memcmp(said.p, value, said.n) == 0 ?
			       NULL : "was not reachable and must be, with --allow-host";
	default:
		return error == 0 ? judge_dns(p, t, said) : "was not answered and must be";
	}
}

static void is_wrong(struct selfprobe *p, const char *what, const char *why)
{
	if (p->wrong.text[0] == '\0')
		(void)err_set(&p->wrong, -EPERM, "self-probe: %s %s", what, why);
}

int selfprobe_result(struct selfprobe *p, struct span val)
{
	const struct selfprobe_target *t = &p->v[p->n_results];
	const char *why;
	char what[128];
	uint32_t error;

	if (p->n_results >= p->n || span_u32(&val, &error) < 0 || val.n > GC_PROBE_REPLY_MAX)
		return -EBADMSG;
	p->n_results++;
	why = judge(p, t, error, val);
	describe(t, what, sizeof(what));
	if (why)
		is_wrong(p, what, why);
	return 0;
}

int selfprobe_judge(struct selfprobe *p, struct err *err)
{
	for (size_t i = 0; i < SELFPROBE_LISTENERS; i++) {
		struct selfprobe_listener *l = &p->listen[i];
		char text[ADDR_TEXT], what[128];

		/* It may be there and not have been seen yet. */
		if (l->fd >= 0)
			selfprobe_accept(p, i);
		(void)snprintf(what, sizeof(what), "tcp %s:%u", addr_format(&l->addr, text), l->port);
		if (l->reached && !p->plan->allow_host && !ruled(p->plan, &l->addr, true, l->port, true, false))
			is_wrong(p, what, "was reachable and must not be");
	}
	selfprobe_close(p);
	if (p->n_results != p->n)
		is_wrong(p, "the guest", "did not try all that it was told to");
	if (p->wrong.text[0] == '\0')
		return 0;
	*err = p->wrong;
	return -EPERM;
}
