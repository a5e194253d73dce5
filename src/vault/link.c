#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "vault/vault.h"

/* The kernel counts descriptors under way against the sender's RLIMIT_NOFILE; unread ones are bounded well below it. */
#define IN_FLIGHT_MAX 64
#define LOOK_NS (2 * MS)

struct net_head net_head(uint16_t type, size_t n, uint32_t slot, uint32_t generation)
{
	return (struct net_head){ NET_VERSION, type, (uint32_t)n, slot, generation };
}

/* Has wire read all that was sent? */
static bool read_empty(void)
{
	int unread = 0;

	return ioctl(NET_FD_WIRE, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/* May one more descriptor be under way? */
static bool may_fly(struct wire_link *w)
{
	if (w->in_flight >= IN_FLIGHT_MAX && read_empty())
		w->in_flight = 0;
	return w->in_flight < IN_FLIGHT_MAX;
}

/* 1: sent; 0: not now; negative errno: wire is gone. */
static int try_send(struct vault *v, const void *msg, size_t n, int fd)
{
	ssize_t k;

	if (fd >= 0 && !may_fly(&v->wire)) {
		v->wire.look_ns = v->now + LOOK_NS;
		return 0;
	}
	k = fd_send(NET_FD_WIRE, msg, n, &fd, fd >= 0);
	if (k == -EAGAIN || k == -ENOBUFS || k == -ETOOMANYREFS) {
		if (k != -EAGAIN)
			v->wire.look_ns = v->now + LOOK_NS;
		return 0;
	}
	if (k < 0)
		return (int)k;
	if (fd >= 0)
		v->wire.in_flight++;
	return 1;
}

void wire_send(struct vault *v, const void *msg, size_t n, int fd)
{
	struct wire_link *w = &v->wire;
	struct out_msg *m;
	int r = w->first ? 0 : try_send(v, msg, n, fd);

	if (r != 0) {
		close_p(&fd);
		if (r < 0)
			vault_end(v, "wire is gone");
		return;
	}
	m = malloc(sizeof(*m) + n);
	if (!m) {
		close_p(&fd);
		vault_end(v, "out of memory");
		return;
	}
	*m = (struct out_msg){ .fd = fd, .n = n };
	memcpy(m->bytes, msg, n);
	*w->last = m;
	w->last = &m->next;
	w->n++;
	(void)ev_watch(&v->ev, NET_FD_WIRE, EPOLLIN | (w->look_ns ? 0u : EPOLLOUT), EV_WIRE, 0, 0);
}

void wire_flush(struct vault *v)
{
	struct wire_link *w = &v->wire;
	bool waited = w->first;

	w->look_ns = 0;
	while (w->first) {
		struct out_msg *m = w->first;
		int r = try_send(v, m->bytes, m->n, m->fd);

		if (r == 0)
			break;
		if (r < 0)
			vault_end(v, "wire is gone");
		w->first = m->next;
		if (!w->first)
			w->last = &w->first;
		w->n--;
		close_p(&m->fd);
		free(m);
	}
	if (waited)
		(void)ev_watch(&v->ev, NET_FD_WIRE, EPOLLIN | (w->first && !w->look_ns ? EPOLLOUT : 0u), EV_WIRE, 0, 0);
}

int64_t wire_next(const struct vault *v)
{
	return v->wire.first && v->wire.look_ns ? v->wire.look_ns : -1;
}

bool wire_clogged(const struct vault *v)
{
	return v->wire.first;
}
