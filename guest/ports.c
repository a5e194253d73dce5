/* The process "agent-vm-ports" of a guest.
 *
 * Each 200 ms it reads which TCP sockets listen, in /proc/net/tcp and tcp6: the kernel of libkrunfw has no sock_diag for
 * TCP, and so no notices of their end either. Whether anything ran meanwhile is not asked first: the kernel's own threads
 * did in three of four such intervals of an idle guest (docs/network.md).
 *
 * A listener on a loopback address that is of interest gets a forwarder: a listener of ours on the guest's own IPv4
 * address, same port, whose connections we make again to the loopback address and pump, a buffer for each direction. It
 * is there as long as the service's is. Listeners on any address need none.
 *
 * It is not PID 1, so that nothing that connects or listens in the guest can stop that one's loop. What it holds is bounded
 * by PORTS_MAX and CONNS_MAX; what it tells is a state, told again at the next look if PID 1 had no room. */
#include "guest/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "ev/ev.h"
#include "proto/guestcfg.h"

#define MS ((int64_t)1000000)
#define LOOK_NS (200 * MS)
#define ROWS_MAX 4096 /* of one table */
#define CONNS_MAX 256
#define BUFFER (64 << 10)
#define TURNS 8 /* of one connection before others get theirs */
#define BACKLOG 128
#define PID1_FD 3

enum kind { EV_SERVICE, EV_CONN, EV_PID1 };

struct service {
	uint16_t port;
	enum port_reach reach; /* at this look */
	int family;	       /* of the loopback address that the forwarder leads to */
	uint8_t addr[16];
	bool told;
	int fd; /* forwarder; -1 */
};

struct half {
	uint8_t *bytes; /* BUFFER; what was read from one side for the other */
	size_t from, to;
	bool eof, done; /* read to the end; and that was passed on */
};

struct conn {
	int fd[2]; /* -1: the place is free */
	uint32_t gen;
	struct half half[2]; /* [i] read from fd[i] */
	uint32_t watched[2];
	bool hup[2]; /* epoll would say so without end: looked at when the other side moves */
};

static struct {
	const struct config_ports *conf;
	uint8_t addr4[4], addr6[16];
	struct ev ev;
	int tab_fd[2];
	struct service services[PORTS_MAX];
	size_t n_services;
	struct conn conns[CONNS_MAX];
	size_t n_conns;
} ports;

enum port_reach port_reach(const struct nettab *t, const uint8_t addr4[4], const uint8_t addr6[16])
{
	static const uint8_t zero[16], mapped[12] = { [10] = 0xff, 0xff }, one[16] = { [15] = 1 };
	const uint8_t *a = t->addr;

	if (t->family == AF_INET6 && memcmp(a, mapped, 12) != 0)
		return memcmp(a, zero, 16) == 0 || memcmp(a, addr6, 16) == 0 ? PORT_DIRECT :
		       memcmp(a, one, 16) == 0				       ? PORT_LOOPBACK : PORT_NOT;
	if (t->family == AF_INET6)
		a += 12;
	return memcmp(a, zero, 4) == 0 || memcmp(a, addr4, 4) == 0 ? PORT_DIRECT : a[0] == 127 ? PORT_LOOPBACK : PORT_NOT;
}

static bool of_interest(uint16_t port)
{
	if (ports.conf->automatic && port >= GC_AUTO_PORT_MIN)
		return true;
	for (size_t i = 0; i < ports.conf->n; i++)
		if (ports.conf->v[i] == port)
			return true;
	return false;
}

static int on_row(const struct nettab *t, void *unused)
{
	enum port_reach reach = port_reach(t, ports.addr4, ports.addr6);
	struct service *s = NULL;

	(void)unused;
	if (t->state != NETTAB_LISTEN)
		return 1; /* those that listen come first */
	if (reach == PORT_NOT || !of_interest(t->port))
		return 0;
	for (size_t i = 0; i < ports.n_services && !s; i++)
		if (ports.services[i].port == t->port)
			s = &ports.services[i];
	/* Our own forwarder: nobody else can have this address while it is there. */
	if (s && s->fd >= 0 && t->family == AF_INET && memcmp(t->addr, ports.addr4, 4) == 0)
		return 0;
	if (!s) {
		if (ports.n_services == PORTS_MAX)
			return 0;
		s = &ports.services[ports.n_services++];
		*s = (struct service){ .port = t->port, .fd = -1 };
	}
	if (s->reach == PORT_NOT && reach == PORT_LOOPBACK) {
		s->family = t->family;
		memcpy(s->addr, t->addr, sizeof(s->addr));
	}
	if (s->reach != PORT_DIRECT)
		s->reach = reach;
	return 0;
}

static void forward(struct service *s, size_t slot)
{
	static const int on = 1;
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(s->port) };
	AUTO_FD(fd);

	memcpy(&sa.sin_addr, ports.addr4, 4);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0 ||
	    ev_watch(&ports.ev, fd, ports.n_conns < CONNS_MAX ? EPOLLIN : 0, EV_SERVICE, (uint16_t)slot, 0) < 0)
		return; /* somebody has it, for a moment at least: the next look tries again */
	s->fd = TAKE_FD(fd);
}

static void forward_end(struct service *s)
{
	if (s->fd < 0)
		return;
	ev_unwatch(&ports.ev, s->fd);
	close_p(&s->fd);
	s->fd = -1;
}

static bool tell(uint16_t port, bool open)
{
	struct ports_note n = { .port = port, .open = open };

	if (send(PID1_FD, &n, sizeof(n), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(n))
		return true;
	if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
		_exit(0);
	return false;
}

/* What follows from a look for one service. False: its place is free. */
static bool settle(struct service *s, size_t slot)
{
	bool reachable;

	if (s->reach != PORT_LOOPBACK)
		forward_end(s);
	else if (s->fd < 0)
		forward(s, slot);
	reachable = s->reach == PORT_DIRECT || s->fd >= 0;
	if (ports.conf->automatic && s->port >= GC_AUTO_PORT_MIN && s->told != reachable && tell(s->port, reachable))
		s->told = reachable;
	return s->reach != PORT_NOT || s->told;
}

static void look(void)
{
	static const int families[2] = { AF_INET, AF_INET6 };

	for (size_t i = 0; i < ports.n_services; i++)
		ports.services[i].reach = PORT_NOT;
	for (size_t i = 0; i < 2; i++)
		if (ports.tab_fd[i] >= 0)
			(void)nettab_read(ports.tab_fd[i], families[i], ROWS_MAX, on_row, NULL);
	for (size_t i = 0; i < ports.n_services; i++) {
		struct service *s = &ports.services[i], *last = &ports.services[ports.n_services - 1];

		if (settle(s, i))
			continue;
		*s = *last;
		ports.n_services--;
		if (s != last && s->fd >= 0)
			(void)ev_watch(&ports.ev, s->fd, ports.n_conns < CONNS_MAX ? EPOLLIN : 0, EV_SERVICE, (uint16_t)i, 0);
		i--;
	}
}

static void accept_more(bool on)
{
	for (size_t i = 0; i < ports.n_services; i++)
		if (ports.services[i].fd >= 0)
			(void)ev_watch(&ports.ev, ports.services[i].fd, on ? EPOLLIN : 0, EV_SERVICE, (uint16_t)i, 0);
}

static void conn_free(struct conn *c, bool reset)
{
	static const struct linger now = { .l_onoff = 1 };

	for (size_t i = 0; i < 2; i++) {
		if (c->fd[i] < 0)
			continue;
		ev_unwatch(&ports.ev, c->fd[i]);
		if (reset)
			(void)setsockopt(c->fd[i], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close_p(&c->fd[i]);
		free(c->half[i].bytes);
	}
	*c = (struct conn){ .fd = { -1, -1 }, .gen = c->gen + 1 };
	if (ports.n_conns-- == CONNS_MAX)
		accept_more(true);
}

/* One read and one write of a direction. Return: 1: something moved; 0: nothing can now; a negative errno. */
static int half_move(struct half *h, int src, int dst)
{
	bool moved = false;
	ssize_t k;

	if (h->from == h->to && !h->eof) {
		k = read(src, h->bytes, BUFFER);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		h->eof = k == 0;
		h->from = 0;
		h->to = k > 0 ? (size_t)k : 0;
		moved = k >= 0;
	}
	if (h->from < h->to) {
		k = send(dst, h->bytes + h->from, h->to - h->from, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		h->from += k > 0 ? (size_t)k : 0;
		moved |= k > 0;
	}
	if (h->eof && h->from == h->to && !h->done) {
		(void)shutdown(dst, SHUT_WR);
		h->done = true;
	}
	return moved;
}

static void conn_rearm(struct conn *c, size_t slot)
{
	for (size_t i = 0; i < 2; i++) {
		const struct half *in = &c->half[i], *out = &c->half[1 - i];
		uint32_t want = (in->from == in->to && !in->eof ? EPOLLIN : 0) | (out->from < out->to ? EPOLLOUT : 0);

		if (c->hup[i])
			ev_unwatch(&ports.ev, c->fd[i]);
		else if (want != c->watched[i])
			(void)ev_watch(&ports.ev, c->fd[i], want, EV_CONN, (uint16_t)(2 * slot + i), c->gen);
		c->watched[i] = want;
	}
}

static void conn_pump(size_t slot)
{
	struct conn *c = &ports.conns[slot];
	int r = 1;

	/* Of a side that has hung up nothing more than what is there can come, and nobody tells when there is. */
	for (int turn = 0; r > 0 && (turn < TURNS || c->hup[0] || c->hup[1]); turn++) {
		int a = half_move(&c->half[0], c->fd[0], c->fd[1]), b = half_move(&c->half[1], c->fd[1], c->fd[0]);

		r = a < 0 ? a : b < 0 ? b : a | b;
	}
	if (r < 0 || (c->half[0].done && c->half[1].done))
		conn_free(c, r < 0);
	else
		conn_rearm(c, slot);
}

static int connect_to(const struct service *s)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(s->port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(s->port) };
	bool six = s->family == AF_INET6;
	AUTO_FD(fd);

	memcpy(&v6.sin6_addr, s->addr, 16);
	memcpy(&v4.sin_addr, s->addr, 4);
	fd = socket(s->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || (connect(fd, six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, six ? sizeof(v6) : sizeof(v4)) < 0 &&
		       errno != EINPROGRESS))
		return -errno;
	return TAKE_FD(fd);
}

static void conn_new(const struct service *s)
{
	static const int on = 1;
	static const struct linger now = { .l_onoff = 1 };
	struct conn *c = ports.conns;
	AUTO_FD(in);
	int out;

	in = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (in < 0)
		return;
	out = connect_to(s);
	while (c->fd[0] >= 0)
		c++;
	if (out >= 0) {
		c->half[0].bytes = malloc(BUFFER);
		c->half[1].bytes = malloc(BUFFER);
	}
	if (out < 0 || !c->half[0].bytes || !c->half[1].bytes) {
		free(c->half[0].bytes);
		free(c->half[1].bytes);
		c->half[0].bytes = c->half[1].bytes = NULL;
		(void)setsockopt(in, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close_p(&out);
		return;
	}
	(void)setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->fd[0] = TAKE_FD(in);
	c->fd[1] = out;
	if (++ports.n_conns == CONNS_MAX)
		accept_more(false);
	conn_rearm(c, (size_t)(c - ports.conns));
}

static void on_event(const struct ev_event *e)
{
	struct conn *c;

	if (e->kind == EV_PID1)
		_exit(0); /* it wants no more of us */
	if (e->kind == EV_SERVICE) {
		if (e->slot < ports.n_services && ports.services[e->slot].fd >= 0 && ports.n_conns < CONNS_MAX)
			conn_new(&ports.services[e->slot]);
		return;
	}
	c = &ports.conns[e->slot / 2];
	if (c->fd[0] < 0 || c->gen != e->gen)
		return;
	if (e->events & (EPOLLHUP | EPOLLERR))
		c->hup[e->slot % 2] = true;
	conn_pump(e->slot / 2);
}

static void serve(void)
{
	struct ev_event batch[EV_BATCH];
	int64_t next = now_ns();

	for (;;) {
		int n = ev_wait(&ports.ev, batch, next);

		if (n < 0)
			return;
		for (int i = 0; i < n; i++)
			on_event(&batch[i]);
		if (now_ns() < next)
			continue;
		look();
		next = now_ns() + LOOK_NS;
	}
}

static void child(const struct config_ports *c, const uint8_t addr4[4], const uint8_t addr6[16], int fd)
{
	AUTO_FD(oom);
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_NAME, "agent-vm-ports");
	if (dup2(fd, PID1_FD) < 0)
		return;
	(void)close_range(PID1_FD + 1, ~0u, 0);
	/* It holds little, and the published ports hang on it. */
	oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (oom >= 0)
		(void)!write(oom, "-1000", 5);
	ports.conf = c;
	memcpy(ports.addr4, addr4, 4);
	memcpy(ports.addr6, addr6, 16);
	for (size_t i = 0; i < CONNS_MAX; i++)
		ports.conns[i].fd[0] = ports.conns[i].fd[1] = -1;
	ports.tab_fd[0] = open("/proc/net/tcp", O_RDONLY | O_CLOEXEC);
	ports.tab_fd[1] = open("/proc/net/tcp6", O_RDONLY | O_CLOEXEC);
	if (ports.tab_fd[0] >= 0 && ev_open(&ports.ev) == 0 &&
	    ev_watch(&ports.ev, PID1_FD, 0, EV_PID1, 0, 0) == 0)
		serve();
}

pid_t ports_start(const struct config_ports *c, const uint8_t addr4[4], const uint8_t addr6[16], int *ret_fd)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		child(c, addr4, addr6, pair[1]);
		_exit(1);
	}
	(void)close(pair[1]);
	if (pid < 0) {
		(void)close(pair[0]);
		return -errno;
	}
	*ret_fd = pair[0];
	return pid;
}
