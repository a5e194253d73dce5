/* agent-vm-gate: ends the guest's TLS to the hosts that its logins belong to, judges each request, and hands what may
 *go to vault. It holds no secret of the host and opens no connection.
 *
 *	agent-vm-gate
 *	descriptors as in proto/gatecfg.h
 *
 * One thread, one epoll loop. It starts in this order: descriptors, configuration, the session's root (its certificate
 *goes to the launcher), sandbox, READY. A batch is: events, which change state and kick streams; then each kicked
 *stream once (conn.c); then what is overdue. It ends when the launcher, vault or wire is gone, when vault or wire
 *breaks the rules, or by SIGTERM. What one guest connection does ends that connection at most. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "gate/config.h"
#include "gate/gate.h"
#include "proto/gatecfg.h"
#include "sandbox/hide.h"

#define CA_MAX 2048

static struct gate the_gate;

static void tell(enum net_control what, const void *p, size_t n)
{
	uint8_t m[1 + CA_MAX] = { (uint8_t)what };

	memcpy(m + 1, p, MIN(n, (size_t)CA_MAX));
	/* If the launcher is gone nobody is left to hear it. */
	(void)!write(NET_FD_CONTROL, m, 1 + MIN(n, (size_t)CA_MAX));
}

/* What a launcher of another build, or a person at a shell, gets wrong. */
static int check_fds(struct err *err)
{
	static const int pairs[] = { NET_FD_CONTROL, GATE_FD_WIRE, GATE_FD_VAULT };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		if (!fd_is_socket(pairs[i], SOCK_SEQPACKET))
			return err_set(err, -EBADF, "gate: descriptor %d is no sequential packet socket", pairs[i]);
		r = fd_nonblock(pairs[i], true);
		if (r < 0)
			return err_set(err, r, "gate: descriptor %d: %s", pairs[i], strerror(-r));
	}
	if (!fd_is_sealed(GATE_FD_CONFIG))
		return err_set(err, -EBADF, "gate: descriptor %d is no sealed memory", GATE_FD_CONFIG);
	if (close_range(GATE_FD_CONFIG + 1, ~0u, 0) < 0)
		return err_set(err, -errno, "gate: close what was inherited: %s", strerror(errno));
	for (int fd = NET_FD_CONTROL; fd <= GATE_FD_CONFIG; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			(void)fd_cloexec(fd, true);
	return 0;
}

static int read_config(struct gate_config *ret, struct err *err)
{
	struct span config;
	int r;

	r = fd_map_config(GATE_FD_CONFIG, "the gate", GATE_CONFIG_MAX, &config, err);
	if (r < 0)
		return r;
	r = gate_config_parse(config, ret, err);
	(void)munmap((void *)(uintptr_t)config.p, config.n);
	return r;
}

static int watch_all(struct gate *g, struct err *err)
{
	sigset_t set;
	int r, fd;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	r = fd < 0 ? -errno : ev_open(&g->ev);
	if (r == 0)
		r = ev_watch(&g->ev, fd, EPOLLIN, EV_SIGNAL, 0, 0);
	if (r == 0)
		r = ev_watch(&g->ev, NET_FD_CONTROL, EPOLLIN, EV_CONTROL, 0, 0);
	if (r == 0)
		r = ev_watch(&g->ev, GATE_FD_WIRE, EPOLLIN, EV_WIRE, 0, 0);
	if (r == 0)
		r = ev_watch(&g->ev, GATE_FD_VAULT, EPOLLIN, EV_VAULT, 0, 0);
	g->wire_watch = g->vault_watch = EPOLLIN;
	return r < 0 ? err_set(err, r, "gate: event loop: %s", strerror(-r)) : 0;
}

static void all_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int start(struct gate *g, struct err *err)
{
	static struct gate_config cfg;
	struct buf der;
	int r;

	/* Before the placeholders are drawn and the key of the session's certificates is. */
	r = hide_process();
	if (r < 0)
		return err_set(err, r, "gate: cannot be hidden from others of its user: %s", strerror(-r));
	r = read_config(&cfg, err);
	if (r < 0)
		return r;
	g->judge.launch = cfg.launch;
	r = ph_draw(cfg.seed, cfg.launch.lent, &g->judge.set);
	if (r < 0)
		return err_set(err, r, "gate: no set of placeholders comes of this seed");
	g->judge.foreign_anon = gh_scope_has(&cfg.github, GH_FOREIGN_ANON);
	lookup_init(g);
	if (cfg.github.n > 0 && cfg.launch.lent & PH_BIT(PH_GH)) {
		g->scope = cfg.github;
		r = github_init(&g->github);
		if (r < 0)
			return err_set(err, r, "gate: no memory for GitHub's rules");
		g->judge.github = &g->scope;
		g->judge.github_known = &g->github;
	}
	seqlink_init(&g->wire, GATE_FD_WIRE);
	seqlink_init(&g->vault, GATE_FD_VAULT);
	g->now = now_ns();
	g->due = -1;
	all_files();
	r = watch_all(g, err);
	if (r < 0)
		return r;
	/* No configuration of the host's OpenSSL, which might name modules and files; no texts of errors, which nobody
	 * reads. */
	if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_SSL_STRINGS |
				     OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
			     NULL) != 1)
		return err_set(err, -ENOMEM, "gate: cannot start OpenSSL");
	r = ca_init(&g->ca, cfg.session, time(NULL), err);
	if (r < 0)
		return r;
	g->tls = tls_server(err);
	if (!g->tls)
		return -ENOMEM;
	buf_init(&der, CA_MAX);
	r = buf_put_u32(&der, (uint32_t)X509_subject_name_hash(g->ca.root));
	if (r == 0)
		r = ca_root(&g->ca, &der);
	if (r == 0)
		tell(NET_CTL_CA, buf_span(&der).p, der.n);
	buf_done(&der);
	if (r < 0)
		return err_set(err, r, "gate: the session's root certificate is too large");
	/* Also reads the time zone, which the sandbox would not let it do later. */
	log_info("speaks for hosts of the logins that are lent: %#x", cfg.launch.lent);
	r = gate_sandbox(err);
	if (r == 0)
		tell(NET_CTL_READY, "", 0);
	return r;
}

static int loop(struct gate *g, struct err *err)
{
	struct ev_event batch[EV_BATCH];

	while (!g->ended) {
		int64_t next = g->due, link = links_next(g);
		int n;

		if (link >= 0 && (next < 0 || link < next))
			next = link;
		n = ev_wait(&g->ev, batch, g->kicked ? g->now : next);
		if (n < 0)
			return err_set(err, n, "gate: epoll: %s", strerror(-n));
		g->now = now_ns();
		gate_turn(g, batch, n);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct gate *g = &the_gate;
	struct err err = { 0 };
	int r;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("agent-vm-gate " AGENT_VM_VERSION);
		return 0;
	}
	if (argc > 1 || fcntl(GATE_FD_VAULT, F_GETFD) < 0) {
		(void)dprintf(STDERR_FILENO, "agent-vm-gate: started by agent-vm; by hand only with --version\n");
		return 2;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive the session */
	r = check_fds(&err);
	if (r == 0) {
		log_open("gate", NET_FD_LOG, LOG_LV_INFO);
		r = start(g, &err);
	}
	if (r == 0)
		r = loop(g, &err);
	guest_lines_end(g);
	if (r == 0 && g->notes_lost > 0)
		log_warn("%llu refused requests were not recorded", (unsigned long long)g->notes_lost);
	if (r == 0 && g->failed)
		r = err_set(&err, -EPROTO, "gate: %s; the session ends", g->ended);
	if (r < 0) {
		log_error("%s", err.text);
		tell(NET_CTL_ERROR, err.text, strlen(err.text));
	} else {
		log_info("%s", g->ended);
	}
	/* No handlers of libraries: they were written for a process that may do more. */
	_exit(r < 0);
}
