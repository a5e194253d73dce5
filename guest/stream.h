/* Streams: one order of the host each (program or file), with up to three channels of bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/spawn.h"
#include "proto/ctl.h"

struct guest;

/* Towards the host. */
struct stream_out {
	int fd; /* -1: there is none, or its end was read */
	struct ctl_credit tx;
	bool ready;	 /* epoll said so, and since then no read found it empty */
	bool armed;	 /* epoll will say so, once */
	uint32_t dreg;	 /* bytes that the process left behind when it died */
};

struct stream {
	uint32_t id; /* 0: free */
	enum spawn_kind kind;
	pid_t pid;
	bool pty;
	bool started; /* the program runs, or the file is open */
	bool dead;    /* its end is known: how (CLD_EXITED ...), status */
	bool given_up;
	int how, status;
	int error; /* NOTE_FAIL */
	char text[NOTE_TEXT_MAX];
	int64_t kill_ns; /* SIGKILL is due then; 0: it is not */

	int status_fd;
	int in_fd;
	struct buf in;
	struct ctl_credit rx;
	bool in_eof, in_armed;
	struct stream_out out[2];
};

void streams_init(struct guest *g);
void streams_done(struct guest *g);

/* A frame that belongs to a stream. Return: 0, or -EBADMSG on a violation of the protocol. */
int stream_frame(struct guest *g, const struct ctl_frame *f, int64_t now);

/* Events of the descriptors of stream @id; nothing happens if it is gone. */
void stream_on_status(struct guest *g, unsigned int slot, uint32_t id);
void stream_on_in(struct guest *g, unsigned int slot, uint32_t id);
void stream_on_out(struct guest *g, unsigned int slot, unsigned int channel, uint32_t id);

/* Whether @pid is the process of a stream. */
bool stream_is_of(const struct guest *g, pid_t pid);

/* A child ended. */
void stream_on_death(struct guest *g, pid_t pid, int how, int status);

/* Moves bytes of processes to the port's queue, a bounded number of pieces, each stream in its turn. */
void streams_pump(struct guest *g);
bool streams_have_work(const struct guest *g);
bool streams_are_over(const struct guest *g);

/* What is due by time. Return: when to be called next, -1 for never. */
int64_t streams_tick(struct guest *g, int64_t now);

/* All that runs for a stream; used where kill(-1) is not for us. */
void streams_kill(struct guest *g, int sig);
