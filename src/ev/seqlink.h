/* One end of a SOCK_SEQPACKET between two of our processes: messages go out in order and wait when the other side does
 * not read, each perhaps with one descriptor. The kernel counts descriptors under way against the sender's limit of
 * open files, so few are sent unread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seqlink_msg {
	struct seqlink_msg *next;
	int fd; /* -1: none; owned */
	size_t n;
	uint8_t bytes[];
};

struct seqlink {
	int fd;
	struct seqlink_msg *first, **last;
	size_t n;		/* messages that wait */
	unsigned int in_flight; /* descriptors sent since the other side was last seen to have read all */
	int64_t look_ns;	/* when to try again without an event; 0: the event will come */
};

/* @fd: non-blocking; kept. */
void seqlink_init(struct seqlink *l, int fd);

/**
 * seqlink_send() - Send, or queue behind what waits
 * @fd:	Taken in every case; -1: none
 *
 * Return: 0; -ENOMEM; another negative errno: the other side is gone
 */
int seqlink_send(struct seqlink *l, int64_t now, const void *msg, size_t n, int fd);

/* Send what waits: at an event, and when seqlink_next() has come. As above. */
int seqlink_flush(struct seqlink *l, int64_t now);

/* Whether to watch for room. */
static inline bool seqlink_wants_out(const struct seqlink *l)
{
	return l->first && l->look_ns == 0;
}

/* When to flush without an event; -1: never. */
static inline int64_t seqlink_next(const struct seqlink *l)
{
	return l->first && l->look_ns != 0 ? l->look_ns : -1;
}
