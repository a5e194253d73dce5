#include "cli/link.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"

#define READ_ONCE (1 << 17)
/* What credit allows all streams together, and frames without credit on top. */
#define OUT_MAX ((size_t)CTL_STREAMS_MAX * CTL_WINDOW * 2 + CTL_RECS_MAX)

int link_open(struct link *l, int fd, enum ctl_side side, struct ev *ev, uint8_t kind, uint16_t slot, uint32_t gen)
{
	int r;

	r = fd_nonblock(fd, true);
	if (r == 0)
		r = ev_watch(ev, fd, EPOLLIN, kind, slot, gen);
	if (r < 0)
		return r;
	*l = (struct link){ .fd = fd, .side = side, .ev = ev, .kind = kind, .slot = slot, .gen = gen };
	buf_init(&l->in, CTL_HEAD + CTL_RECS_MAX + READ_ONCE);
	buf_init(&l->out, OUT_MAX);
	return 0;
}

void link_close(struct link *l)
{
	if (l->fd >= 0) {
		ev_unwatch(l->ev, l->fd);
		(void)close(l->fd);
		l->fd = -1;
	}
	/* Also when it was closed before: frames may have been queued since, towards nobody. */
	buf_done(&l->in);
	buf_done(&l->out);
}

ssize_t link_fill(struct link *l)
{
	uint8_t *to;
	ssize_t k;

	/* A whole frame is there, and we are behind with them: a peer that sends many small ones waits. */
	if (l->in.n > CTL_HEAD + CTL_RECS_MAX)
		return 0;
	to = buf_room(&l->in, READ_ONCE);
	if (!to)
		return -ENOBUFS;
	k = read(l->fd, to, READ_ONCE);
	if (k == 0)
		return -EPIPE;
	if (k < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	buf_grew(&l->in, (size_t)k);
	return k;
}

static int link_watch(struct link *l)
{
	return ev_watch(l->ev, l->fd, (l->paused ? 0 : EPOLLIN) | (l->writing ? EPOLLOUT : 0), l->kind, l->slot, l->gen);
}

int link_flush(struct link *l)
{
	bool writing;

	if (l->fd < 0)
		return -EPIPE;
	while (l->out.n > 0) {
		struct span q = buf_span(&l->out);
		ssize_t k = send(l->fd, q.p, q.n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno == EAGAIN)
			break;
		if (k < 0)
			return -errno;
		buf_consume(&l->out, (size_t)k);
	}
	writing = l->out.n > 0;
	if (writing == l->writing)
		return 0;
	l->writing = writing;
	return link_watch(l);
}

void link_pause(struct link *l, bool on)
{
	if (l->fd < 0 || l->paused == on)
		return;
	l->paused = on;
	(void)link_watch(l);
}
