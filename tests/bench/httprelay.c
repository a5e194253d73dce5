/* httprelay PORT ADDR: stands in for wire and the VM. TCP connections to 127.0.0.1:PORT become flows of a guest that dials
 * ADDR:443, so that any client of this machine goes through gate and vault.
 *
 * Descriptors 5 and 6 are wire's ends towards vault and gate. A thread a connection; the other two threads read the two
 * sockets. It adds a copy each way that a guest would not have. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/netmsg.h"

#define TO_VAULT 5
#define TO_GATE 6
#define CONNS 4096
#define PIECE (256 << 10)

struct conn {
	pthread_mutex_t lock; /* of everything but opened */
	pthread_cond_t opened_cond;
	uint32_t gen;
	int client, pair; /* -1: free */
	bool opened, held;
	uint32_t outcome;
	uint64_t written; /* to the pair */
};

static struct conn conns[CONNS];
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct in_addr dst;

static struct net_head head(uint16_t type, size_t n, const struct conn *c)
{
	return (struct net_head){ NET_VERSION, type, (uint32_t)n, (uint32_t)(c - conns), c->gen };
}

static void tell(int fd, const void *m, size_t n)
{
	if (send(fd, m, n, MSG_NOSIGNAL) != (ssize_t)n)
		err(1, "a role is gone");
}

static struct conn *conn_of(const struct net_head *h)
{
	return h->slot < CONNS && conns[h->slot].gen == h->generation ? &conns[h->slot] : NULL;
}

static void *from_vault(void *arg)
{
	union {
		struct net_head head;
		struct net_opened opened;
		uint8_t b[1024];
	} m;

	for (;;) {
		int fd = -1;
		ssize_t n = fd_recv(TO_VAULT, &m, sizeof(m), &fd, 1);
		struct conn *c;

		if (n <= 0)
			errx(1, "vault is gone");
		if (m.head.type == NET_CONFIG) {
			struct net_head done = { NET_VERSION, NET_CONFIGURED, sizeof(done), m.head.slot, m.head.generation };

			tell(TO_VAULT, &done, sizeof(done));
		}
		c = m.head.type == NET_TCP_OPENED ? conn_of(&m.head) : NULL;
		if (!c) {
			close_p(&fd);
			continue;
		}
		(void)pthread_mutex_lock(&c->lock);
		c->pair = fd;
		c->outcome = m.opened.outcome;
		c->opened = true;
		(void)pthread_cond_signal(&c->opened_cond);
		(void)pthread_mutex_unlock(&c->lock);
	}
	return arg;
}

static void *from_gate(void *arg)
{
	for (;;) {
		struct net_head h;
		int fd = -1;
		ssize_t n = fd_recv(TO_GATE, &h, sizeof(h), &fd, 1);
		struct conn *c;

		if (n <= 0)
			errx(1, "gate is gone");
		c = conn_of(&h);
		if (!c) {
			close_p(&fd);
			continue;
		}
		(void)pthread_mutex_lock(&c->lock);
		if (h.type == NET_HOLD) {
			struct net_held held = { .head = head(NET_HELD, sizeof(held), c), .bytes = c->written };

			c->held = true;
			tell(TO_GATE, &held, sizeof(held));
		} else if (h.type == NET_HANDOVER) {
			(void)dup2(fd, c->pair);
			c->held = false;
			close_p(&fd);
		} else if (h.type == NET_RESET) {
			(void)shutdown(c->client, SHUT_RDWR);
		}
		(void)pthread_mutex_unlock(&c->lock);
	}
	return arg;
}

/* Moves what there is by a pipe; false at the end. */
static bool move(int from, int to, const int pipefd[2], uint64_t *count)
{
	ssize_t n = splice(from, NULL, pipefd[1], NULL, PIECE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	*count += (uint64_t)n;
	while (n > 0) {
		ssize_t k = splice(pipefd[0], NULL, to, NULL, (size_t)n, SPLICE_F_MOVE);

		if (k < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd p = { to, POLLOUT, 0 };

			(void)poll(&p, 1, -1);
			continue;
		}
		if (k <= 0)
			return false;
		n -= k;
	}
	return true;
}

static void relay(struct conn *c)
{
	bool up = true, down = true;
	uint64_t n_down = 0;
	int a[2], b[2];

	if (pipe(a) < 0 || pipe(b) < 0)
		err(1, "pipe");
	(void)fcntl(a[1], F_SETPIPE_SZ, PIECE);
	(void)fcntl(b[1], F_SETPIPE_SZ, PIECE);
	while (up || down) {
		struct pollfd p[2] = { { up && !c->held ? c->client : -1, POLLIN, 0 }, { down ? c->pair : -1, POLLIN, 0 } };

		(void)poll(p, 2, c->held ? 1 : -1);
		if (p[0].revents) {
			(void)pthread_mutex_lock(&c->lock);
			if (!c->held && !move(c->client, c->pair, a, &c->written)) {
				(void)shutdown(c->pair, SHUT_WR);
				up = false;
			}
			(void)pthread_mutex_unlock(&c->lock);
		}
		if (p[1].revents && !move(c->pair, c->client, b, &n_down)) {
			(void)shutdown(c->client, SHUT_WR);
			down = false;
		}
	}
	for (int i = 0; i < 2; i++) {
		(void)close(a[i]);
		(void)close(b[i]);
	}
}

static void *serve(void *arg)
{
	struct conn *c = arg;
	struct net_open open = { .head = head(NET_OPEN_TCP, sizeof(open), c), .dst = { .family = NET_V4 }, .port = 443,
				 .guest_port = 40000 };
	struct net_ended ended = { .head = head(NET_ENDED, sizeof(ended), c), .how = NET_END_FIN };

	memcpy(open.dst.b, &dst, 4);
	(void)pthread_mutex_lock(&c->lock);
	tell(TO_VAULT, &open, sizeof(open));
	while (!c->opened)
		(void)pthread_cond_wait(&c->opened_cond, &c->lock);
	(void)pthread_mutex_unlock(&c->lock);
	if (c->pair >= 0) {
		relay(c);
		tell(TO_VAULT, &ended, sizeof(ended));
	} else {
		warnx("refused: outcome %u", c->outcome);
	}
	(void)pthread_mutex_lock(&table);
	(void)close(c->client);
	if (c->pair >= 0)
		(void)close(c->pair);
	c->client = -1;
	(void)pthread_mutex_unlock(&table);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_attr_t small;
	pthread_t t;

	if (argc != 3 || inet_pton(AF_INET, argv[2], &dst) != 1)
		errx(2, "usage: httprelay PORT ADDR");
	at.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	(void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 1024) < 0)
		err(1, "port %s", argv[1]);
	for (size_t i = 0; i < CONNS; i++) {
		conns[i].client = conns[i].pair = -1;
		(void)pthread_mutex_init(&conns[i].lock, NULL);
		(void)pthread_cond_init(&conns[i].opened_cond, NULL);
	}
	(void)pthread_attr_init(&small);
	(void)pthread_attr_setstacksize(&small, 64 << 10);
	(void)pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &small, from_vault, NULL) || pthread_create(&t, &small, from_gate, NULL))
		errx(1, "threads");
	for (;;) {
		int client = accept4(s, NULL, NULL, SOCK_CLOEXEC);
		struct conn *c = NULL;

		if (client < 0)
			continue;
		(void)setsockopt(client, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
		(void)pthread_mutex_lock(&table);
		for (size_t i = 0; i < CONNS && !c; i++)
			if (conns[i].client < 0)
				c = &conns[i];
		if (c) {
			c->client = client;
			c->pair = -1;
			c->gen++;
			c->opened = c->held = false;
			c->written = 0;
		}
		(void)pthread_mutex_unlock(&table);
		if (!c || pthread_create(&t, &small, serve, c))
			errx(1, "too many connections");
	}
}
