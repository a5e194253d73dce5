/* agent-vm-wire: started by agent-vm with the descriptors of proto/netmsg.h. What it does is at the head of wire.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "wire/sandbox.h"
#include "wire/wire.h"

#define FDS_OTHER 616u /* UDP, ping sockets and ours are within 17,000 - 16,384 */
#define LINK_BUFFER (8 << 20)

static struct wire the_wire;

static void say(enum net_control what, const char *text)
{
	char m[1 + ERR_TEXT_MAX];
	size_t n = strlen(text);

	m[0] = (char)what;
	memcpy(m + 1, text, n);
	(void)!write(NET_FD_CONTROL, m, 1 + n);
}

static int socket_check(int fd, int type, const char *name, bool may_miss, struct err *err)
{
	int domain, is;
	socklen_t n = sizeof(domain), k = sizeof(is);

	if (fcntl(fd, F_GETFD) < 0 && may_miss)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &k) < 0 ||
	    domain != AF_UNIX || is != type)
		return err_set(err, -ENOTSOCK, "wire: descriptor %d (%s) is no unix socket of the right type", fd, name);
	(void)fd_cloexec(fd, true);
	return fd_nonblock(fd, true);
}

/* As many descriptors as the table has flows, or a smaller table. */
static uint32_t flows_by_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 256;
	lim.rlim_cur = lim.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &lim);
	if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur < 2 * FDS_OTHER)
		return 256;
	return (uint32_t)MIN(lim.rlim_cur - FDS_OTHER, (rlim_t)TCP_SLOTS);
}

static void grow(int fd, int what, int force)
{
	int n = LINK_BUFFER;

	if (setsockopt(fd, SOL_SOCKET, force, &n, sizeof(n)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, what, &n, sizeof(n));
}

static int start(struct wire *w, struct err *err)
{
	bool gate = fcntl(NET_FD_GATE, F_GETFD) >= 0;
	uint64_t key[2];
	uint32_t flows;
	int r;

	r = socket_check(NET_FD_CONTROL, SOCK_SEQPACKET, "control", false, err);
	if (r == 0)
		r = socket_check(NET_FD_LINK, SOCK_STREAM, "link", false, err);
	if (r == 0)
		r = socket_check(NET_FD_VAULT, SOCK_SEQPACKET, "vault", false, err);
	if (r == 0)
		r = socket_check(NET_FD_GATE, SOCK_SEQPACKET, "gate", true, err);
	if (r < 0)
		return r;
	(void)fd_cloexec(NET_FD_LOG, true);
	(void)close_range(gate ? NET_FD_GATE + 1 : NET_FD_GATE, ~0u, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	grow(NET_FD_LINK, SO_SNDBUF, SO_SNDBUFFORCE);
	grow(NET_FD_LINK, SO_RCVBUF, SO_RCVBUFFORCE);
	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return err_set(err, -errno, "wire: random bytes: %m");
	flows = flows_by_limit();
	r = wire_init(w, NET_FD_LINK, NET_FD_VAULT, gate ? NET_FD_GATE : -1, NET_FD_CONTROL, key, flows);
	if (r < 0)
		return err_set(err, r, "wire: start: %s", strerror(-r));
	/* Also reads the time zone, which the sandbox would not let it do later. */
	log_info("up to %u TCP flows%s", flows, flows < TCP_SLOTS ? "; raise the limit of open files (ulimit -Hn) for more" : "");
	return wire_sandbox(err);
}

static int loop(struct wire *w, struct err *err)
{
	struct ev_event e[EV_BATCH];
	bool ready = false;
	int n;

	while (!w->over) {
		n = ev_wait(&w->ev, e, wire_until(w));
		if (n < 0)
			return err_set(err, n, "wire: epoll: %s", strerror(-n));
		for (int i = 0; i < n; i++)
			wire_event(w, &e[i]);
		wire_turn(w, now_ns());
		if (w->configured && !ready) {
			ready = true;
			say(NET_CTL_READY, "");
		}
	}
	return w->why ? err_set(err, -EPROTO, "wire: %s; the session ends", w->why) : 0;
}

int main(int argc, char **argv)
{
	struct err err = { 0 };
	int r;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("agent-vm-wire " AGENT_VM_VERSION);
		return 0;
	}
	if (argc > 1 || fcntl(NET_FD_VAULT, F_GETFD) < 0) {
		(void)dprintf(STDERR_FILENO, "agent-vm-wire: started by agent-vm; by hand only with --version\n");
		return 2;
	}
	log_open("wire", NET_FD_LOG, LOG_LV_INFO);
	r = start(&the_wire, &err);
	if (r == 0)
		r = loop(&the_wire, &err);
	if (r < 0) {
		log_error("%s", err.text);
		say(NET_CTL_ERROR, err.text);
	}
	wire_done(&the_wire);
	/* No handlers of libraries: they were written for a process that may do more. */
	_exit(r < 0);
}
