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

void link_init(struct link *w, int fd, enum vault_ev ev, const char *gone)
{
	*w = (struct link){ .fd = fd, .ev = ev, .gone = gone, .last = &w->first };
}

/* Has the other end read all that was sent? */
static bool read_empty(const struct link *w)
{
	int unread = 0;

	return ioctl(w->fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/* May one more descriptor be under way? */
static bool may_fly(struct link *w)
{
	if (w->in_flight >= IN_FLIGHT_MAX && read_empty(w))
		w->in_flight = 0;
	return w->in_flight < IN_FLIGHT_MAX;
}

/* 1: sent; 0: not now; negative errno: the other end is gone. */
static int try_send(struct link *w, int64_t now, const void *msg, size_t n, int fd)
{
	ssize_t k;

	if (fd >= 0 && !may_fly(w)) {
		w->look_ns = now + LOOK_NS;
		return 0;
	}
	k = fd_send(w->fd, msg, n, &fd, fd >= 0);
	if (k == -EAGAIN || k == -ENOBUFS || k == -ETOOMANYREFS) {
		if (k != -EAGAIN)
			w->look_ns = now + LOOK_NS;
		return 0;
	}
	if (k < 0)
		return (int)k;
	if (fd >= 0)
		w->in_flight++;
	return 1;
}

void link_send(struct vault *v, struct link *w, const void *msg, size_t n, int fd)
{
	struct out_msg *m;
	int r = w->first ? 0 : try_send(w, v->now, msg, n, fd);

	if (r != 0) {
		close_p(&fd);
		if (r < 0)
			vault_end(v, w->gone);
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
	(void)ev_watch(&v->ev, w->fd, EPOLLIN | (w->look_ns ? 0u : EPOLLOUT), w->ev, 0, 0);
}

void link_flush(struct vault *v, struct link *w)
{
	bool waited = w->first;

	w->look_ns = 0;
	while (w->first) {
		struct out_msg *m = w->first;
		int r = try_send(w, v->now, m->bytes, m->n, m->fd);

		if (r == 0)
			break;
		if (r < 0)
			vault_end(v, w->gone);
		w->first = m->next;
		if (!w->first)
			w->last = &w->first;
		w->n--;
		close_p(&m->fd);
		free(m);
	}
	if (waited)
		(void)ev_watch(&v->ev, w->fd, EPOLLIN | (w->first && !w->look_ns ? EPOLLOUT : 0u), w->ev, 0, 0);
}

int64_t link_tick(struct vault *v, struct link *w)
{
	if (w->first && w->look_ns && w->look_ns <= v->now)
		link_flush(v, w);
	return w->first && w->look_ns ? w->look_ns : -1;
}

bool link_clogged(const struct link *w)
{
	return w->first;
}
