#include "ev/seqlink.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/macros.h"

#define IN_FLIGHT_MAX 64
#define LOOK_NS INT64_C(2000000)

void seqlink_init(struct seqlink *l, int fd)
{
	*l = (struct seqlink){ .fd = fd };
	l->last = &l->first;
}

static bool may_fly(struct seqlink *l)
{
	int unread = 0;

	if (l->in_flight >= IN_FLIGHT_MAX && ioctl(l->fd, SIOCOUTQ, &unread) == 0 && unread == 0)
		l->in_flight = 0;
	return l->in_flight < IN_FLIGHT_MAX;
}

/* 1: sent; 0: not now; negative errno: the other side is gone. */
static int try_send(struct seqlink *l, int64_t now, const void *msg, size_t n, int fd)
{
	ssize_t k;

	if (fd >= 0 && !may_fly(l)) {
		l->look_ns = now + LOOK_NS;
		return 0;
	}
	k = fd_send(l->fd, msg, n, &fd, fd >= 0);
	if (k == -EAGAIN || fd_is_lack((int)-k) || k == -ETOOMANYREFS) {
		if (k != -EAGAIN)
			l->look_ns = now + LOOK_NS;
		return 0;
	}
	if (k < 0)
		return (int)k;
	l->in_flight += fd >= 0;
	return 1;
}

int seqlink_send(struct seqlink *l, int64_t now, const void *msg, size_t n, int fd)
{
	int r = l->first ? 0 : try_send(l, now, msg, n, fd);
	struct seqlink_msg *m;

	if (r != 0) {
		close_p(&fd);
		return r < 0 ? r : 0;
	}
	m = malloc(sizeof(*m) + n);
	if (!m) {
		close_p(&fd);
		return -ENOMEM;
	}
	*m = (struct seqlink_msg){ .fd = fd, .n = n };
	memcpy(m->bytes, msg, n);
	*l->last = m;
	l->last = &m->next;
	l->n++;
	return 0;
}

int seqlink_flush(struct seqlink *l, int64_t now)
{
	l->look_ns = 0;
	while (l->first) {
		struct seqlink_msg *m = l->first;
		int r = try_send(l, now, m->bytes, m->n, m->fd);

		if (r <= 0)
			return r;
		l->first = m->next;
		if (!l->first)
			l->last = &l->first;
		l->n--;
		close_p(&m->fd);
		free(m);
	}
	return 0;
}
