/* agent-vm-vault: makes every connection, answers every name, and judges both (network page).
 *
 *	agent-vm-vault
 *	descriptors as in proto/vaultcfg.h
 *
 * One thread, one epoll loop. It starts in this order: descriptors, configuration, netlink, files, sandbox, NET_CONFIG to
 * wire, READY to the launcher; then messages. It ends when the launcher or wire is gone, when wire or gate breaks the rules
 * of proto/netmsg.h, or by SIGTERM. It parses no guest bytes: what comes from wire are numbers and checked names, from gate
 * requests in canonical form. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/signalfd.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "sandbox/hide.h"
#include "vault/flows.h"
#include "vault/logins.h"
#include "vault/renewals.h"
#include "vault/upstream.h"

#define AT_ONCE 64 /* messages of wire an event */
#define FAMILY_LOOK_NS NS

static const uint8_t gateway_mac[6] = { 0x02, 0x61, 0x76, 0, 0, 1 }, gateway4[4] = { 192, 0, 0, 1 }, guest4[4] = { 192, 0, 0, 2 },
		     gateway6[16] = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 1 },
		     guest6[16] = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 2 };

static void tell(enum net_control what, const char *text)
{
	char msg[1 + ERR_TEXT_MAX] = { (char)what };
	size_t n = strnlen(text, ERR_TEXT_MAX);

	memcpy(msg + 1, text, n);
	/* If the launcher is gone nobody is left to hear it. */
	(void)fd_send(NET_FD_CONTROL, msg, 1 + n, NULL, 0);
}

void vault_end(struct vault *v, const char *why)
{
	if (!v->ended)
		v->ended = why;
}

/* What a launcher of another build, or a person at a shell, gets wrong. */
static int check_fds(struct err *err)
{
	static const int pairs[] = { NET_FD_CONTROL, NET_FD_WIRE, NET_FD_TO_GATE };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		if (!fd_is_socket(pairs[i], SOCK_SEQPACKET))
			return err_set(err, -EBADF, "descriptor %d is no sequential packet socket", pairs[i]);
	if (!fd_is_sealed(VAULT_FD_CONFIG))
		return err_set(err, -EBADF, "descriptor %d is no sealed memory", VAULT_FD_CONFIG);
	if (close_range(VAULT_FD_EXTRA + VAULT_FDS_MAX, ~0u, 0) < 0)
		return err_set(err, -errno, "close what was inherited: %s", strerror(errno));
	for (int fd = NET_FD_CONTROL; fd < VAULT_FD_EXTRA + VAULT_FDS_MAX; fd++)
		if (fcntl(fd, F_GETFD) >= 0 && (r = fd_cloexec(fd, true)) < 0)
			return err_set(err, r, "descriptor %d: %s", fd, strerror(-r));
	r = fd_nonblock(NET_FD_WIRE, true);
	if (r == 0)
		r = fd_nonblock(NET_FD_TO_GATE, true);
	if (r == 0)
		r = fd_nonblock(NET_FD_CONTROL, true);
	return r < 0 ? err_set(err, r, "its sockets: %s", strerror(-r)) : 0;
}

static int read_config(struct vault_config *ret, struct err *err)
{
	struct span config;
	int r;

	r = fd_map_config(VAULT_FD_CONFIG, "the vault", VAULT_CONFIG_MAX, &config, err);
	if (r < 0)
		return r;
	r = vault_config_parse(config, ret, err);
	(void)munmap((void *)(uintptr_t)config.p, config.n);
	return r;
}

static void send_wire_config(struct vault *v)
{
	struct net_config m = { .head = net_head(NET_CONFIG, sizeof(m), 0, 0), .mtu = v->cfg.mtu, .ipv6 = v->guest_ipv6,
				.no_network = v->policy.no_network };

	memcpy(m.guest_mac, v->cfg.guest_mac, 6);
	memcpy(m.gateway_mac, gateway_mac, 6);
	memcpy(m.guest4, guest4, 4);
	memcpy(m.gateway4, gateway4, 4);
	memcpy(m.guest6, guest6, 16);
	memcpy(m.gateway6, gateway6, 16);
	wire_send(v, &m, sizeof(m), -1);
}

/* Which families work now. The guest has IPv6 only if it was there at the start; IPv4 is off only where IPv6 alone is. False: it
 * cannot be found out now, and stays as it is. */
static bool families(struct vault *v, bool tell)
{
	int has6 = host_has_ipv6(), has4 = host_has_ipv4();
	bool v6 = v->guest_ipv6 && has6 > 0 && v->ipv6_off_until <= v->now, v4 = has4 > 0 || !v6;
	struct net_family m = { .head = net_head(NET_FAMILY, sizeof(m), 0, 0), .ipv4 = v4, .ipv6 = v6 };

	if (has4 < 0 || has6 < 0)
		return false;
	if (v4 == v->ipv4 && v6 == v->ipv6)
		return true;
	if (v6 != v->ipv6 && tell)
		log_info("IPv6: %s", v6 ? "works again" : v->ipv6_off_until > v->now ? "connections time out; off for 10 minutes" :
									"the host has lost it; off");
	if (v4 != v->ipv4 && tell)
		log_info("IPv4: %s", v4 ? "works again" : "the host has lost it; off");
	v->ipv4 = v4;
	v->ipv6 = v6;
	if (tell)
		wire_send(v, &m, sizeof(m), -1);
	return true;
}

static void message(struct vault *v, const void *msg, size_t n, bool has_fd)
{
	struct net_dns_ask ask;
	struct net_ended ended;
	struct net_head h;
	int type = wire_check(msg, n, has_fd);

	switch (type) {
	case NET_OPEN_TCP:
	case NET_OPEN_UDP:
	case NET_OPEN_ECHO:
		opens_message(v, type, msg);
		break;
	case NET_DNS_ASK:
		memcpy(&ask, msg, sizeof(ask));
		dns_message(v, &ask);
		break;
	case NET_CANCEL:
		memcpy(&h, msg, sizeof(h));
		if (!dns_cancel(v, &h))
			opens_message(v, type, msg);
		break;
	case NET_ENDED:
		memcpy(&ended, msg, sizeof(ended));
		if (!publish_ended(v, &ended))
			opens_message(v, type, msg);
		break;
	case NET_INBOUND_DONE:
	case NET_UDP_OUT:
		if (!publish_message(v, type, msg, n))
			vault_end(v, "wire answers what was not asked");
		break;
	case NET_CONFIGURED:
		break;
	default:
		vault_end(v, "wire broke the rules of the protocol");
	}
}

static void from_wire(struct vault *v, uint32_t events)
{
	static _Alignas(8) uint8_t msg[sizeof(struct net_datagram) + NET_DATAGRAM_MAX];
	int fd;

	if (events & EPOLLOUT)
		link_flush(v, &v->wire);
	for (int i = 0; i < AT_ONCE && !v->ended; i++) {
		ssize_t k = fd_recv(NET_FD_WIRE, msg, sizeof(msg), &fd, 1);

		if (k == -EAGAIN)
			return;
		if (k <= 0) {
			vault_end(v, k == -EBADMSG ? "wire broke the rules of the protocol" : "wire is gone");
			return;
		}
		message(v, msg, (size_t)k, fd != -1);
		close_p(&fd);
	}
}

/* PROBED, one more port to publish, what became of a renewal, or another token of gh's. */
static void from_launcher(struct vault *v)
{
	static uint8_t msg[sizeof(struct vault_renewed) + 1]; /* a longer one shows */
	struct vault_listen l;
	int fd, r;
	ssize_t k = fd_recv(NET_FD_CONTROL, msg, sizeof(msg), &fd, 1);

	if (k == -EAGAIN)
		return;
	if (k == 0 || k == -ECONNRESET) {
		vault_end(v, "the launcher is gone");
	} else if (k > 0 && fd == FD_LOST) {
		log_warn("what the launcher passed on was lost: no descriptor is free");
	} else if (k == 1 && fd < 0 && msg[0] == NET_CTL_PROBED && v->audit.probing) {
		(void)audit_flush(&v->audit, v->now, true); /* the agent's refusals are not joined with the probe's */
		v->audit.probing = false;
	} else if (k > 0 && fd < 0 && msg[0] == NET_CTL_RENEWED && renewals_message(v, msg, (size_t)k)) {
		return;
	} else if (k == 2 && fd >= 0 && msg[0] == NET_CTL_GH) {
		if (logins_gh(v, (enum ph_kind)msg[1], fd) < 0)
			vault_end(v, "the launcher is not understood; all parts of agent-vm must be of one build");
	} else if (k < 0 || fd < 0 || vault_listen_check((const char *)msg, (size_t)k, &l) < 0) {
		close_p(&fd);
		vault_end(v, "the launcher is not understood; all parts of agent-vm must be of one build");
	} else {
		r = publish_add(v, &l, fd);
		if (r < 0)
			log_warn("port %u of the guest cannot be published on %s: %s", l.port, l.listen, strerror(-r));
	}
}

static void event(struct vault *v, const struct ev_event *e)
{
	switch ((enum vault_ev)e->kind) {
	case EV_CONTROL:
		from_launcher(v);
		break;
	case EV_SIGNAL:
		vault_end(v, "told to end");
		break;
	case EV_WIRE:
		from_wire(v, e->events);
		break;
	case EV_GATE:
		from_gate(v, e->events);
		break;
	case EV_NETLINK:
		(void)routes_news(&v->routes);
		break;
	case EV_OPEN:
		opens_event(v, e->slot, e->gen, e->events);
		break;
	case EV_DNS:
		dns_event(v, e->slot, e->gen, e->events);
		break;
	case EV_LISTEN:
		publish_event(v, e->slot);
		break;
	case EV_XCH:
		exchange_event(v, e->slot, e->gen, e->events);
		break;
	case EV_UP:
		up_event(v, e->slot, e->gen, e->events);
		break;
	case EV_LOGIN:
		logins_event(v, e->slot);
		break;
	}
}

static int loop(struct vault *v, struct err *err)
{
	int64_t next = -1, family_at = -1, lame = 0;
	struct ev_event batch[EV_BATCH];

	while (!v->ended) {
		int n = ev_wait(&v->ev, batch, next);

		if (n < 0)
			return err_set(err, n, "epoll: %s", strerror(-n));
		v->now = now_ns();
		for (int i = 0; i < n && !v->ended; i++)
			event(v, &batch[i]);
		v->again = false;
		next = opens_tick(v);
		next = sooner(next, flows_tick(v));
		next = sooner(next, dns_tick(v));
		next = sooner(next, publish_tick(v));
		next = sooner(next, renewals_tick(v));
		next = sooner(next, exchanges_tick(v));
		next = sooner(next, up_tick(v));
		next = sooner(next, logins_tick(v));
		/* At most once a second, however often the routes change. */
		if (v->routes.stale) {
			(void)routes_refresh(&v->routes, &v->policy);
			family_at = sooner(family_at, v->now + FAMILY_LOOK_NS);
		}
		if (v->ipv6_off_until != lame) {
			lame = v->ipv6_off_until;
			family_at = v->now;
		}
		if (family_at >= 0 && family_at <= v->now) {
			family_at = !families(v, true) ? v->now + FAMILY_LOOK_NS : lame > v->now ? lame : -1;
		}
		next = sooner(next, family_at);
		next = sooner(next, audit_flush(&v->audit, v->now, false));
		next = sooner(next, link_tick(v, &v->wire));
		next = sooner(next, link_tick(v, &v->gate));
		if (v->again)
			next = v->now;
	}
	return 0;
}

static int watch_all(struct vault *v, struct err *err)
{
	sigset_t set;
	int r, fd;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	r = fd < 0 ? -errno : ev_open(&v->ev);
	if (r == 0)
		r = ev_watch(&v->ev, fd, EPOLLIN, EV_SIGNAL, 0, 0);
	if (r == 0)
		r = ev_watch(&v->ev, NET_FD_CONTROL, EPOLLIN, EV_CONTROL, 0, 0);
	if (r == 0)
		r = ev_watch(&v->ev, NET_FD_WIRE, EPOLLIN, EV_WIRE, 0, 0);
	if (r == 0)
		r = ev_watch(&v->ev, NET_FD_TO_GATE, EPOLLIN, EV_GATE, 0, 0);
	if (r == 0)
		r = ev_watch(&v->ev, v->routes.news_fd, EPOLLIN, EV_NETLINK, 0, 0);
	return r < 0 ? err_set(err, r, "event loop: %s", strerror(-r)) : 0;
}

static int run(struct vault *v, struct err *err)
{
	char digest[POLICY_DIGEST], ready[sizeof("ipv4 ipv6 ") + POLICY_DIGEST];
	int r;

	/* Before its first secret, the password of the host's proxy. */
	r = hide_process();
	if (r < 0)
		return err_set(err, r, "this process cannot be hidden from others of its user: %s", strerror(-r));
	r = read_config(&v->cfg, err);
	if (r < 0)
		return r;
	v->policy = v->cfg.policy;
	link_init(&v->wire, NET_FD_WIRE, EV_WIRE, "wire is gone");
	link_init(&v->gate, NET_FD_TO_GATE, EV_GATE, "gate is gone");
	v->now = now_ns();
	r = routes_open(&v->routes, err);
	if (r == 0)
		r = watch_all(v, err);
	if (r < 0)
		return r;
	ties_init(&v->ties);
	standins_init(&v->standins);
	rates_init(&v->rates, v->now);
	audit_open(&v->audit, v->cfg.audit_fd, v->cfg.audit_old_fd);
	flows_init(v);
	opens_init(v);
	r = publish_init(v);
	if (r < 0)
		return err_set(err, r, "published ports: %s; all parts of agent-vm must be of one build", strerror(-r));
	r = logins_open(v, err);
	if (r == 0)
		r = exchanges_init(v);
	if (r == 0)
		r = upstream_init(v);
	if (r == 0)
		r = renewals_init(v);
	if (r < 0)
		return r;
	log_filter(logins_redact);
	tzset(); /* gmtime_r() would read its file later, behind the wall */
	r = vault_sandbox(v->cfg.sources, v->cfg.n_sources, err);
	if (r < 0)
		return r;
	r = logins_watch(v);
	if (r < 0)
		return err_set(err, r, "logins of the environment: %s", strerror(-r));
	r = routes_refresh(&v->routes, &v->policy);
	if (r < 0)
		return err_set(err, r, "addresses of this host: %s; without them nothing can be judged", strerror(-r));
	v->guest_ipv6 = v->ipv4 = !v->policy.no_network;
	(void)families(v, false);
	v->guest_ipv6 = v->ipv6;
	r = dns_init(v, err);
	if (r < 0)
		return r;
	send_wire_config(v);
	v->audit.probing = v->cfg.probe[0] != '\0';
	policy_digest(&v->policy, v->cfg.proxy.text, digest);
	(void)snprintf(ready, sizeof(ready), "%s %s", !v->ipv6 ? "ipv4" : v->ipv4 ? "ipv4 ipv6" : "ipv6", digest);
	tell(NET_CTL_READY, ready);
	r = loop(v, err);
	opens_end(v);
	flows_end(v);
	exchanges_end(v);
	publish_end(v);
	(void)audit_flush(&v->audit, v->now, true);
	return r;
}

/* Wire ends by itself when the VM has, so this is how sessions end; one that failed tells the launcher itself. */
static bool in_order(const char *ended)
{
	static const char *const all[] = { "told to end", "the launcher is gone", "wire is gone", "gate is gone" };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strcmp(ended, all[i]) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	static struct vault vault;
	struct err err = { 0 };
	int r;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("agent-vm-vault " AGENT_VM_VERSION);
		return 0;
	}
	if (argc > 1 || !fd_is_socket(NET_FD_CONTROL, SOCK_SEQPACKET)) {
		(void)dprintf(STDERR_FILENO, "agent-vm-vault: started by agent-vm, not by hand\n");
		return 2;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive the session */
	r = check_fds(&err);
	if (r == 0) {
		log_open("vault", NET_FD_LOG, LOG_LV_INFO);
		r = run(&vault, &err);
	}
	/* _exit(): nothing is left to do, and exit handlers may want what the sandbox refuses. */
	if (r < 0) {
		log_error("%s", err.text);
		tell(NET_CTL_ERROR, err.text);
		_exit(1);
	}
	if (!in_order(vault.ended)) {
		log_error("session ends: %s", vault.ended);
		tell(NET_CTL_ERROR, vault.ended);
		_exit(1);
	}
	log_info("session ends: %s", vault.ended);
	_exit(0);
}
