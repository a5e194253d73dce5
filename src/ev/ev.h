/* The event loop: epoll with events that carry a kind, a slot and a generation instead of a pointer, so that an event of
 * this batch for something that was freed in the same batch is recognised. A role has one loop and one switch over the
 * kinds; it reads the clock once a batch and hands it down. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define EV_BATCH 64

struct ev {
	int epfd;
};

struct ev_event {
	uint8_t kind;
	uint16_t slot;
	uint32_t gen;
	uint32_t events; /* EPOLLIN ... */
};

/* Returns 0 or a negative errno. */
int ev_open(struct ev *ev);
void ev_close(struct ev *ev);

/**
 * ev_watch() - Watch a descriptor, or change what is watched for
 * @events:	Level-triggered epoll events; 0 still reports EPOLLERR and EPOLLHUP
 * @slot:	Index in the owner's table, 0 if the kind has one object
 * @gen:	Generation of that slot, compared by the owner before it acts
 *
 * Return: 0; -EPERM for files that epoll cannot watch (regular files are always ready); another negative errno
 */
int ev_watch(struct ev *ev, int fd, uint32_t events, uint8_t kind, uint16_t slot, uint32_t gen);

/* Stop watching; the descriptor may be closed afterwards. Must come before close when the file is shared with others. */
void ev_unwatch(struct ev *ev, int fd);

/**
 * ev_wait() - Wait for the next batch
 * @out:	Room for EV_BATCH events
 * @until_ns:	now_ns() time to return at with no event; negative: none
 *
 * Return: number of events (0 at the time limit or after a signal), or a negative errno
 */
int ev_wait(struct ev *ev, struct ev_event *out, int64_t until_ns);
