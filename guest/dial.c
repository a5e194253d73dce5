#include "guest/dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/spawn.h"

/* One direction: what was read and is not written yet. */
struct half {
	int src, dst;
	uint8_t mem[16384];
	size_t at, n;
	bool eof, done; /* nothing more to read; @dst knows it */
};

static int connect_to(uint8_t family, const uint8_t addr[16], uint16_t port)
{
	struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	socklen_t n = sizeof(int);
	struct pollfd p;
	int error = 0, r;
	AUTO_FD(fd);

	memcpy(&in4.sin_addr, addr, 4);
	memcpy(&in6.sin6_addr, addr, 16);
	fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = family == 4 ? connect(fd, (struct sockaddr *)&in4, sizeof(in4))
			: connect(fd, (struct sockaddr *)&in6, sizeof(in6));
	if (r < 0 && errno != EINPROGRESS)
		return -errno;
	p = (struct pollfd){ fd, POLLOUT, 0 };
	if (poll(&p, 1, DIAL_MS) <= 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error != 0)
		return -error;
	return TAKE_FD(fd);
}

/* As far as it goes without waiting. False when the direction broke. */
static bool half_move(struct half *h, int sock)
{
	ssize_t k;

	if (h->n == 0 && !h->eof) {
		k = read(h->src, h->mem, sizeof(h->mem));
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		h->eof = k == 0;
		h->at = 0;
		h->n = k > 0 ? (size_t)k : 0;
	}
	if (h->n > 0) {
		k = write(h->dst, h->mem + h->at, h->n);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		h->at += k > 0 ? (size_t)k : 0;
		h->n -= k > 0 ? (size_t)k : 0;
	}
	if (h->eof && h->n == 0 && !h->done) {
		h->done = true;
		if (h->dst == sock)
			(void)shutdown(sock, SHUT_WR);
		else
			close_p(&h->dst);
	}
	return true;
}

static short wants(const struct half *h, bool source)
{
	if (source)
		return h->n == 0 && !h->eof ? POLLIN : 0;
	return h->n > 0 ? POLLOUT : 0;
}

int dial(uint8_t family, const uint8_t addr[16], uint16_t port, int in, int out, int status)
{
	static struct half up, down;
	int fd = connect_to(family, addr, port);

	if (fd < 0)
		return spawn_fail(status, -fd, "connection to port %u: %s", port, strerror(-fd));
	(void)close(status);
	(void)fd_nonblock(in, true);
	(void)fd_nonblock(out, true);
	up = (struct half){ .src = in, .dst = fd };
	down = (struct half){ .src = fd, .dst = out };
	while (!up.done || !down.done) {
		struct pollfd p[] = { { fd, (short)(wants(&down, true) | wants(&up, false)), 0 },
				      { wants(&up, true) ? in : -1, POLLIN, 0 },
				      { down.n > 0 ? out : -1, POLLOUT, 0 } };

		if (!p[0].events)
			p[0].fd = -1;
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return 1;
		if (!half_move(&up, fd) || !half_move(&down, fd))
			return 1;
	}
	return 0;
}
