/* One end of the control protocol over a stream descriptor: buffers, decoding, and what may be queued. Used by the
 * launcher towards the guest, by the launcher towards an exec client (where the launcher plays the guest), and by the
 * exec client. */
#pragma once

#include "ev/ev.h"
#include "proto/ctl.h"

/* Streams stop feeding the queue above this, so that a keystroke waits behind little. */
#define LINK_BUSY (1 << 18)

struct link {
	int fd; /* owned; -1 once closed */
	enum ctl_side side;
	struct buf in, out;
	struct ev *ev;
	uint8_t kind;
	uint16_t slot;
	uint32_t gen;
	bool writing; /* EPOLLOUT is watched */
	bool paused;  /* EPOLLIN is not */
};

/**
 * link_open() - Take over a connected stream
 * @fd:		Taken on success; made non-blocking
 * @side:	The side that we are
 *
 * Return: 0 or a negative errno
 */
int link_open(struct link *l, int fd, enum ctl_side side, struct ev *ev, uint8_t kind, uint16_t slot, uint32_t gen);
void link_close(struct link *l);

/* Read once. Returns bytes; 0 when there is nothing now; -EPIPE at the peer's end; another negative errno. */
ssize_t link_fill(struct link *l);

/* Write what is queued as far as it goes and watch for room when something stays. 0 or a negative errno. */
int link_flush(struct link *l);

/* Stop or go on reading, for a peer whose bytes have nowhere to go. */
void link_pause(struct link *l, bool on);

static inline bool link_busy(const struct link *l)
{
	return l->out.n > LINK_BUSY;
}
