#include <errno.h>

#include "vault/vault.h"

struct net_head net_head(uint16_t type, size_t n, uint32_t slot, uint32_t generation)
{
	return (struct net_head){ NET_VERSION, type, (uint32_t)n, slot, generation };
}

void link_init(struct link *w, int fd, enum vault_ev ev, const char *gone)
{
	*w = (struct link){ .ev = ev, .gone = gone };
	seqlink_init(&w->q, fd);
}

static void watch(struct vault *v, const struct link *w)
{
	(void)ev_watch(&v->ev, w->q.fd, EPOLLIN | (seqlink_wants_out(&w->q) ? (uint32_t)EPOLLOUT : 0u), w->ev, 0, 0);
}

void link_send(struct vault *v, struct link *w, const void *msg, size_t n, int fd)
{
	int r = seqlink_send(&w->q, v->now, msg, n, fd);

	if (r < 0)
		vault_end(v, r == -ENOMEM ? "out of memory" : w->gone);
	else if (w->q.first)
		watch(v, w);
}

void link_flush(struct vault *v, struct link *w)
{
	bool waited = w->q.first;

	if (seqlink_flush(&w->q, v->now) < 0)
		vault_end(v, w->gone);
	if (waited)
		watch(v, w);
}

int64_t link_tick(struct vault *v, struct link *w)
{
	int64_t next = seqlink_next(&w->q);

	if (next >= 0 && next <= v->now)
		link_flush(v, w);
	return seqlink_next(&w->q);
}

bool link_clogged(const struct link *w)
{
	return w->q.first;
}
