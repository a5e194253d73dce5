#include "guest/probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/ctl.h"
#include "proto/rec.h"

#define MS ((int64_t)1000000)

static void over(struct probe *p, int error)
{
	close_p(&p->fd);
	p->fd = -1;
	p->error = error;
}

static void say(struct probe *p, struct span what)
{
	p->connected = true;
	if (what.n > 0 && send(p->fd, what.p, what.n, MSG_NOSIGNAL) != (ssize_t)what.n)
		over(p, errno ? errno : EIO);
}

static void start(const struct config_probe *c, struct probe *p)
{
	struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_port = htons(c->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(c->port) };
	bool v4 = c->family == 4;

	*p = (struct probe){ .fd = -1 };
	memcpy(&in4.sin_addr, c->addr, 4);
	memcpy(&in6.sin6_addr, c->addr, 16);
	p->fd = socket(v4 ? AF_INET : AF_INET6, (c->tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0)
		over(p, errno);
	else if (connect(p->fd, v4 ? (struct sockaddr *)&in4 : (struct sockaddr *)&in6, v4 ? sizeof(in4) : sizeof(in6)) == 0)
		say(p, c->say);
	else if (errno != EINPROGRESS)
		over(p, errno);
}

void probe_start(const struct config *c, struct probe probes[GC_PROBES_MAX])
{
	for (size_t i = 0; i < c->n_probes; i++)
		start(&c->probes[i], &probes[i]);
}

/* Something happened on its socket. A reply is one datagram, or what a stream brings before its end. */
static void step(const struct config_probe *c, struct probe *p)
{
	socklen_t n = sizeof(int);
	int error = 0;
	ssize_t k;

	if (!p->connected) {
		(void)getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &n);
		if (error != 0)
			over(p, error);
		else
			say(p, c->say);
		return;
	}
	k = recv(p->fd, p->reply + p->n, sizeof(p->reply) - p->n, 0);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k > 0)
		p->n += (size_t)k;
	/* A stream that was reached and then broke off was reached. */
	if (k <= 0 || !c->tcp || p->n == sizeof(p->reply))
		over(p, k < 0 && !c->tcp ? errno : 0);
}

int probe_finish(const struct config *c, struct probe probes[GC_PROBES_MAX], struct buf *ready)
{
	int64_t until = now_ns() + (int64_t)c->probe_ms * MS, left;
	struct pollfd polls[GC_PROBES_MAX];
	size_t open = c->n_probes;
	int r = 0;

	while (open > 0 && (left = until - now_ns()) > 0) {
		open = 0;
		for (size_t i = 0; i < c->n_probes; i++) {
			polls[i] = (struct pollfd){ probes[i].fd, probes[i].connected ? POLLIN : POLLOUT, 0 };
			open += probes[i].fd >= 0;
		}
		if (open == 0 || poll(polls, c->n_probes, (int)(left / MS) + 1) <= 0)
			continue;
		for (size_t i = 0; i < c->n_probes; i++)
			if (polls[i].revents != 0 && probes[i].fd >= 0)
				step(&c->probes[i], &probes[i]);
	}
	for (size_t i = 0; i < c->n_probes && r == 0; i++) {
		ssize_t at = rec_begin(ready, CTL_K_PROBE);

		if (probes[i].fd >= 0)
			over(&probes[i], probes[i].connected && c->probes[i].tcp ? 0 : ETIMEDOUT);
		r = at < 0 ? (int)at : buf_put_u32(ready, (uint32_t)probes[i].error);
		if (r == 0)
			r = buf_put(ready, probes[i].reply, probes[i].n);
		if (r == 0)
			rec_end(ready, (size_t)at);
	}
	return r;
}
