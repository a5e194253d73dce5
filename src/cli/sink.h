/* An output of ours (stdout, stderr) that must not block the loop and whose flags other programs share.
 *
 * O_NONBLOCK belongs to the open file description, which the shell and its other children share, so it must not be set
 * on what we were given. A pipe or terminal is opened again through /proc/self/fd; a socket is written with
 * MSG_DONTWAIT; a regular file never blocks for long and keeps its shared offset. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"

struct sink {
	int fd;
	bool own;    /* fd is ours to close */
	bool socket; /* use send(2) */
	bool always; /* epoll cannot watch it: always ready */
	bool gone;   /* the reader went away: bytes are thrown away, the writer inside gets SIGPIPE */
	bool hup;     /* owner: epoll reported an error or hang-up */
	bool waiting; /* owner's note: EPOLLOUT is watched */
	int error;   /* why, as a positive errno; EPIPE is the ordinary end of a pipeline */
	struct buf q;
};

void sink_open(struct sink *s, int fd, size_t max);
void sink_close(struct sink *s);

/**
 * sink_flush() - Write what is queued as far as it goes
 *
 * Return: bytes that left the queue now, thrown away ones (reader gone) included
 */
size_t sink_flush(struct sink *s);
