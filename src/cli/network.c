#include "cli/network.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "cli/credcfg.h"
#include "cli/spawn.h"
#include "proto/gatecfg.h"
#include "proto/guestcfg.h"
#include "proto/netmsg.h"
#include "proto/rec.h"
#include "proto/vaultcfg.h"

#define READY_MS 10000
#define STOP_MS 2000
#define LAST_WORDS_MS 300

#define AUDIT_FD VAULT_FD_EXTRA
#define AUDIT_OLD_FD (VAULT_FD_EXTRA + 1)
#define PORTS_FD (VAULT_FD_EXTRA + 2)
#define FDS_MAX (PORTS_FD + VAULT_PUBLISH_MAX + CREDCFG_FDS_MAX)
static_assert(FDS_MAX <= VAULT_FD_EXTRA + VAULT_FDS_MAX, "the vault takes no more");

int network_put_addr(struct buf *out, uint16_t key, const struct addr *a)
{
	uint8_t addr[17] = { a->family == AF_INET ? 4 : 6 };
	size_t n = a->family == AF_INET ? 4 : 16;

	memcpy(addr + 1, a->b, n);
	return rec_put(out, key, addr, n + 1);
}

static int put_rule(struct buf *out, const struct policy_rule *r)
{
	ssize_t at = rec_begin(out, VTC_RULE);
	int k = at < 0 ? -1 : 0;

	if (r->name[0] != '\0')
		k |= rec_put_str(out, VTC_NAME, r->name);
	else
		k |= network_put_addr(out, VTC_ADDR, &r->net.addr) | rec_put_u64(out, VTC_BITS, r->net.bits);
	k |= rec_put_u64(out, VTC_LO, r->lo) | rec_put_u64(out, VTC_HI, r->hi) | rec_put_u64(out, VTC_TCP, r->tcp) |
	     rec_put_u64(out, VTC_UDP, r->udp);
	if (k == 0)
		rec_end(out, (size_t)at);
	return k;
}

static int put_port(struct buf *out, const struct port_socket *s, size_t i)
{
	ssize_t at = rec_begin(out, VTC_PUBLISH);
	int k = at < 0 ? -1 :
			 rec_put_u64(out, VTC_FD, PORTS_FD + i) | rec_put_u64(out, VTC_PORT, s->guest) |
				 rec_put_u64(out, VTC_UDP, s->udp) | rec_put_str(out, VTC_TEXT, s->listen);

	if (k == 0)
		rec_end(out, (size_t)at);
	return k;
}

static int put_named(struct buf *out, const struct lookup_name *l)
{
	ssize_t at = rec_begin(out, VTC_NAMED);
	int k = at < 0 ? -1 : rec_put_str(out, VTC_NAME, l->name);

	for (size_t i = 0; i < l->n_addrs; i++)
		k |= network_put_addr(out, VTC_ADDR, &l->addrs[i]);
	if (k == 0)
		rec_end(out, (size_t)at);
	return k;
}

static int put_proxy(struct buf *out, const struct network_proxy *p)
{
	ssize_t at = rec_begin(out, VTC_PROXY);
	int k = at < 0 ? -1 : rec_put_u64(out, VTC_PORT, p->port) | rec_put_str(out, VTC_TEXT, p->text);

	for (size_t i = 0; i < p->n_addrs; i++)
		k |= network_put_addr(out, VTC_ADDR, &p->addrs[i]);
	if (p->auth)
		k |= rec_put_str(out, VTC_AUTH, p->auth);
	for (size_t i = 0; i < p->except.n; i++)
		k |= rec_put_str(out, VTC_NO_PROXY, p->except.v[i]);
	if (k == 0)
		rec_end(out, (size_t)at);
	return k;
}

/* @fds: gets those of the logins, which follow the ports; -ENOBUFS or how many. */
static int put_config(const struct network_plan *p, const uint8_t mac[6], int fds[CREDCFG_FDS_MAX], struct buf *out)
{
	uint64_t flags = (p->no_network ? VAULT_NO_NETWORK : 0) | (p->allow_lan ? VAULT_ALLOW_LAN : 0) |
			 (p->allow_host ? VAULT_ALLOW_HOST : 0);
	int k = rec_put_u64(out, VTC_FLAGS, flags) | rec_put(out, VTC_GUEST_MAC, mac, 6) |
		rec_put_u64(out, VTC_MTU, GC_NET_MTU_MAX);
	ssize_t at;

	for (size_t i = 0; i < p->n_rules; i++)
		k |= put_rule(out, &p->rules[i]);
	for (size_t i = 0; i < p->ports.n; i++)
		k |= put_port(out, &p->ports.v[i], i);
	/* That of the proxy is none that the guest may ask for. */
	for (size_t i = 0; i < p->lookup.n; i++)
		if (p->lookup.v[i].n_addrs > 0 && policy_rules_name(p->rules, p->n_rules, p->lookup.v[i].name))
			k |= put_named(out, &p->lookup.v[i]);
	if (p->proxy.text)
		k |= put_proxy(out, &p->proxy);
	if (p->probe[0] != '\0')
		k |= rec_put_str(out, VTC_PROBE, p->probe);
	at = rec_begin(out, VTC_AUDIT);
	k |= at < 0 ? -1 : rec_put_u64(out, VTC_FD, AUDIT_FD) | rec_put_u64(out, VTC_OLD_FD, AUDIT_OLD_FD);
	if (k < 0)
		return -ENOBUFS;
	rec_end(out, (size_t)at);
	return credcfg_vault(p->creds, p->upstream, fds, PORTS_FD + (int)p->ports.n, out);
}

struct network_role *network_role(struct network *n, unsigned i)
{
	return i == 0 ? &n->wire : i == 1 ? &n->vault : &n->gate;
}

/* @fds: without 0 to 4, which are made here. */
static int spawn(struct network_role *role, const char *path, int log_fd, int *fds, int n, struct err *err)
{
	AUTO_FREE(char, name);
	int control[2], r;
	AUTO_FD(null);

	name = xasprintf("agent-vm-%s", role->name);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return err_set(err, -errno, "%s: its descriptors cannot be made: %s", name, strerror(errno));
	fds[0] = null;
	fds[1] = fds[2] = fds[4] = log_fd;
	fds[3] = control[1];
	r = spawn_role(path, name, fds, n, -1, &role->pid);
	(void)close(control[1]);
	if (r < 0) {
		(void)close(control[0]);
		return err_set(err, r, "%s: cannot be started: %s", name, strerror(-r));
	}
	role->fd = control[0];
	return 0;
}

/* One message of a role (enum net_control) into @bytes: its length, 0 when the role is gone, or a negative errno. */
static ssize_t said(struct network_role *role, uint8_t *bytes, size_t size)
{
	ssize_t n = fd_recv(role->fd, bytes, size, NULL, 0);

	if (n > 0 && bytes[0] == NET_CTL_ERROR) {
		free(role->error);
		role->error = str_escape(bytes + 1, (size_t)n - 1);
	}
	if (n == 2 && bytes[0] == NET_CTL_VIOLATIONS && bytes[1] < HOSTS)
		role->violated[bytes[1]] = true;
	if (n == 2 && bytes[0] == NET_CTL_NO_TOKEN && bytes[1] < PH_KINDS)
		role->lacks |= PH_BIT(bytes[1]);
	if (n > 0 && bytes[0] == NET_CTL_ECHO)
		(void)echoes_take(&role->echoes, bytes, (size_t)n);
	if (n == 2 && bytes[0] == NET_CTL_GH && bytes[1] < PH_KINDS)
		role->refused |= PH_BIT(bytes[1]);
	return n;
}

static int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

void network_drain(struct network *n, bool ends)
{
	int64_t until = now_ms() + (ends ? LAST_WORDS_MS : 0);
	struct pollfd p = { n->vault.fd, POLLIN, 0 };
	uint8_t bytes[1024];

	while (p.fd >= 0 && poll(&p, 1, (int)MAX(until - now_ms(), 0)) > 0 && said(&n->vault, bytes, sizeof(bytes)) > 0)
		;
}

int network_heard(struct network_role *role, struct vault_renew *ret)
{
	uint8_t bytes[1024];
	ssize_t n = said(role, bytes, sizeof(bytes));

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n <= 0 || bytes[0] == NET_CTL_ERROR)
		return -EPIPE;
	if (bytes[0] != NET_CTL_RENEW || n != sizeof(*ret))
		return 0;
	memcpy(ret, bytes, sizeof(*ret));
	return 1;
}

static int take_ca(struct network *n, const uint8_t *p, size_t size)
{
	if (size < 5 || size - 4 > sizeof(n->ca) || n->ca_n > 0)
		return -EBADMSG;
	n->ca_hash = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	n->ca_n = size - 4;
	memcpy(n->ca, p + 4, n->ca_n);
	return 0;
}

/* @n: takes gate's certificate. @ret_text: what came with READY; caller owns. */
static int wait_ready(struct network *n, struct network_role *role, char **ret_text, struct err *err)
{
	int64_t until = now_ms() + READY_MS;
	struct pollfd p = { role->fd, POLLIN, 0 };

	for (;;) {
		uint8_t bytes[1 + 4 + NETWORK_CA_MAX];
		int64_t left = until - now_ms();
		AUTO_FREE(char, text);
		ssize_t k = 0;

		if (left <= 0)
			return err_set(err, -ETIMEDOUT, "network process (%s): did not start within %d s", role->name, READY_MS / 1000);
		if (poll(&p, 1, (int)left) <= 0)
			continue;
		if (p.revents & POLLIN)
			k = said(role, bytes, sizeof(bytes));
		if (k > 0 && bytes[0] == NET_CTL_CA && role == &n->gate && take_ca(n, bytes + 1, (size_t)k - 1) == 0)
			continue;
		if (k > 0 && bytes[0] == NET_CTL_READY) {
			*ret_text = str_escape(bytes + 1, (size_t)k - 1);
			return 0;
		}
		text = network_ended(role);
		return err_set(err, -EPIPE, "%s",
			       role->end == NETWORK_IN_ORDER ? "VM: it ended before its network was ready" : text);
	}
}

char *network_ended(struct network_role *role)
{
	const struct timespec moment = { .tv_nsec = 10000000 };
	uint8_t bytes[1024];
	int status = 0;
	pid_t pid = 0;

	if (!role->error)
		(void)said(role, bytes, sizeof(bytes));
	for (int i = 0; i < 200 && role->pid > 0 && (pid = waitpid(role->pid, &status, WNOHANG)) == 0; i++)
		(void)nanosleep(&moment, NULL);
	if (pid == role->pid)
		role->pid = -1;
	role->end = NETWORK_IN_ORDER; /* also when it only closed its socket: no cause is known */
	if (role->error) {
		role->end = NETWORK_FAILED;
		return xasprintf("network process (%s) ended: %s", role->name, role->error);
	}
	if (pid > 0 && WIFSIGNALED(status)) {
		role->end = NETWORK_KILLED;
		return xasprintf("network process (%s) ended: signal %d (%s)", role->name, WTERMSIG(status),
				 strsignal(WTERMSIG(status)));
	}
	if (pid > 0 && status != 0)
		role->end = NETWORK_FAILED;
	return xasprintf("network process (%s) ended: status %d", role->name, pid > 0 ? WEXITSTATUS(status) : -1);
}

/* Is what vault goes by what the table prints (network page 9.4)? @ready: what it said, its digest last. */
static bool as_asked(const struct network_plan *plan, const char *ready)
{
	char want[POLICY_DIGEST];
	AUTO_FREE(struct policy, p);
	const char *is = strrchr(ready, ' ');

	p = xcalloc(1, sizeof(*p));
	p->no_network = plan->no_network;
	p->allow_lan = plan->allow_lan;
	p->allow_host = plan->allow_host;
	p->proxied = plan->proxy.text;
	p->n_rules = plan->n_rules;
	memcpy(p->rules, plan->rules, plan->n_rules * sizeof(*p->rules));
	policy_digest(p, plan->proxy.text, want);
	return is && strcmp(is + 1, want) == 0;
}

/* The socket pairs between the roles: [0] is the end of the one that is named first. */
struct pairs {
	int wire_vault[2], vault_gate[2], wire_gate[2];
};

static int start_gate(const struct network_plan *plan, const char *session, int log_fd, const struct pairs *s,
		      struct network *n, struct err *err)
{
	int gate[GATE_FD_CONFIG + 1] = { [GATE_FD_WIRE] = s->wire_gate[1], [GATE_FD_VAULT] = s->vault_gate[1] };
	AUTO_FD(config);
	struct buf records;
	int r;

	buf_init(&records, GATE_CONFIG_MAX);
	r = credcfg_gate(plan->creds, plan->github, session, &records);
	if (r == 0)
		r = config = spawn_sealed("agent-vm-gate config", &records);
	buf_done(&records);
	if (r < 0)
		return err_set(err, r, "network: gate's configuration cannot be made: %s", strerror(-r));
	gate[GATE_FD_CONFIG] = config;
	return spawn(&n->gate, plan->gate_path, log_fd, gate, (int)ARRAY_SIZE(gate), err);
}

static int start_all(const struct network_plan *plan, int link_fd, int config, const int *fds, int n_fds, const char *session,
		     const int log_fd[NETWORK_ROLES], const int audit_fd[2], const struct pairs *s, struct network *n,
		     struct err *err)
{
	int vault[FDS_MAX] = { [NET_FD_WIRE] = s->wire_vault[1], [NET_FD_TO_GATE] = s->vault_gate[0],
			       [VAULT_FD_CONFIG] = config, [AUDIT_FD] = audit_fd[0], [AUDIT_OLD_FD] = audit_fd[1] };
	int wire[NET_FD_GATE + 1] = { [NET_FD_LINK] = link_fd, [NET_FD_VAULT] = s->wire_vault[0],
				      [NET_FD_GATE] = s->wire_gate[0] };
	int at = PORTS_FD, r;
	AUTO_FREE(char, families);
	AUTO_FREE(char, none);
	AUTO_FREE(char, gate);

	for (size_t i = 0; i < plan->ports.n; i++)
		vault[at++] = plan->ports.v[i].fd;
	for (int i = 0; i < n_fds; i++)
		vault[at++] = fds[i];
	r = spawn(&n->vault, plan->vault_path, log_fd[1], vault, at, err);
	if (r == 0 && creds_lent(plan->creds))
		r = start_gate(plan, session, log_fd[2], s, n, err);
	if (r == 0)
		r = spawn(&n->wire, plan->wire_path, log_fd[0], wire, (int)ARRAY_SIZE(wire), err);
	if (r == 0)
		r = wait_ready(n, &n->vault, &families, err);
	if (r == 0 && n->gate.fd >= 0)
		r = wait_ready(n, &n->gate, &gate, err);
	if (r == 0)
		r = wait_ready(n, &n->wire, &none, err);
	if (r == 0 && n->gate.fd >= 0 && n->ca_n == 0)
		r = err_set(err, -EBADMSG, "network process (gate): it made no certificate; all parts of agent-vm must be of one build");
	if (r < 0)
		return r;
	n->ipv4 = strstr(families, "ipv4");
	n->ipv6 = strstr(families, "ipv6");
	n->as_asked = as_asked(plan, families);
	return 0;
}

void network_probed(struct network *n)
{
	const uint8_t what = NET_CTL_PROBED;

	/* If it is gone, that is noticed elsewhere. */
	(void)fd_send(n->vault.fd, &what, sizeof(what), NULL, 0);
}

void network_gh(struct network *n, enum ph_kind kind, int fd)
{
	const uint8_t msg[] = { NET_CTL_GH, (uint8_t)kind };

	(void)fd_send(n->vault.fd, msg, sizeof(msg), &fd, 1);
	(void)close(fd);
}

static int pair(int ret[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret);
}

int network_start(struct network_plan *plan, int link_fd, const uint8_t mac[6], const char *session,
		  const int log_fd[NETWORK_ROLES], const int audit_fd[2], struct network *ret, struct err *err)
{
	struct pairs s = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	int fds[CREDCFG_FDS_MAX], n_fds, r = 0;
	AUTO_FD(config);
	struct buf records;

	buf_init(&records, VAULT_CONFIG_MAX);
	n_fds = put_config(plan, mac, fds, &records);
	if (n_fds >= 0)
		r = config = spawn_sealed("agent-vm-vault config", &records);
	else
		r = n_fds;
	if (records.mem)
		explicit_bzero(records.mem, records.size); /* the proxy's password */
	buf_done(&records);
	if (r < 0)
		return err_set(err, r, "network: its configuration cannot be made: %s", strerror(-r));
	/* Without a gate vault's end towards it has nobody at the other end. */
	if (pair(s.wire_vault) < 0 || pair(s.vault_gate) < 0 || (creds_lent(plan->creds) && pair(s.wire_gate) < 0))
		r = err_set(err, -errno, "network: its sockets cannot be made: %s", strerror(errno));
	else
		r = start_all(plan, link_fd, config, fds, n_fds, session, log_fd, audit_fd, &s, ret, err);
	close_p(&s.wire_vault[0]);
	close_p(&s.wire_vault[1]);
	close_p(&s.wire_gate[0]);
	close_p(&s.wire_gate[1]);
	close_p(&s.vault_gate[0]);
	if (creds_lent(plan->creds))
		close_p(&s.vault_gate[1]);
	else
		ret->gate_fd = s.vault_gate[1];
	ports_close(&plan->ports);
	creds_close(plan->creds);
	if (r < 0)
		network_stop(ret);
	return r;
}

static void stop(struct network_role *role)
{
	const struct timespec moment = { .tv_nsec = 5000000 };
	int64_t until = now_ms() + STOP_MS;

	close_p(&role->fd);
	while (role->pid > 0 && waitpid(role->pid, NULL, WNOHANG) == 0) {
		if (now_ms() > until) {
			(void)kill(role->pid, SIGKILL);
			(void)waitpid(role->pid, NULL, 0);
			break;
		}
		(void)nanosleep(&moment, NULL);
	}
	role->pid = -1;
}

void network_stop(struct network *n)
{
	for (unsigned i = 0; i < NETWORK_ROLES; i++)
		close_p(&network_role(n, i)->fd);
	for (unsigned i = 0; i < NETWORK_ROLES; i++) {
		struct network_role *role = network_role(n, i);

		role->fd = -1;
		stop(role);
		free(role->error);
		role->error = NULL;
	}
	close_p(&n->gate_fd);
	n->gate_fd = -1;
}
