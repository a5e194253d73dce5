#include "ev/ev.h"

#include <errno.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

static uint64_t pack(uint8_t kind, uint16_t slot, uint32_t gen)
{
	return (uint64_t)gen << 32 | (uint64_t)slot << 16 | kind;
}

int ev_open(struct ev *ev)
{
	ev->epfd = epoll_create1(EPOLL_CLOEXEC);
	return ev->epfd < 0 ? -errno : 0;
}

void ev_close(struct ev *ev)
{
	close_p(&ev->epfd);
	ev->epfd = -1;
}

int ev_watch(struct ev *ev, int fd, uint32_t events, uint8_t kind, uint16_t slot, uint32_t gen)
{
	struct epoll_event e = { .events = events, .data.u64 = pack(kind, slot, gen) };

	if (epoll_ctl(ev->epfd, EPOLL_CTL_MOD, fd, &e) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	return epoll_ctl(ev->epfd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

void ev_unwatch(struct ev *ev, int fd)
{
	(void)epoll_ctl(ev->epfd, EPOLL_CTL_DEL, fd, NULL);
}

int ev_wait(struct ev *ev, struct ev_event *out, int64_t until_ns)
{
	struct epoll_event got[EV_BATCH];
	int timeout_ms = -1;
	int n;

	if (until_ns >= 0) {
		int64_t left_ms = (until_ns - now_ns() + 999999) / 1000000;

		timeout_ms = (int)(left_ms < 0 ? 0 : MIN(left_ms, (int64_t)3600000));
	}
	n = epoll_wait(ev->epfd, got, EV_BATCH, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++)
		out[i] = (struct ev_event){ .kind = (uint8_t)got[i].data.u64,
					    .slot = (uint16_t)(got[i].data.u64 >> 16),
					    .gen = (uint32_t)(got[i].data.u64 >> 32),
					    .events = got[i].events };
	return n;
}
