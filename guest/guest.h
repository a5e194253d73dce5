/* The guest program's one object, and its loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/span.h"
#include "ev/ev.h"
#include "guest/port.h"
#include "guest/stream.h"
#include "proto/ctl.h"

enum guest_event { EV_PORT = 1, EV_CHILD, EV_STATUS, EV_IN, EV_OUT, EV_ERR, EV_PORTS, EV_DBS };

enum guest_state {
	GUEST_NEW,    /* HELLO is said, CONFIG is awaited */
	GUEST_SERVES, /* READY is said */
	GUEST_ENDS,   /* everything is told to end */
	GUEST_KILLS,  /* everything was killed; the last are awaited */
	GUEST_OVER,
};

struct guest;

/* What differs between PID 1 of a VM, an ordinary process in the tests, and the fuzz targets. */
struct guest_ops {
	/* Makes the machine what CONFIG says, and adds CTL_K_PHASE records to @ready. */
	int (*configure)(struct guest *g, struct span config, struct buf *ready, struct err *err);
	int (*spawn)(const struct spawn_req *req, struct spawned *ret);
	/* To a process, or to a group if @pid is negative. */
	int (*kill)(pid_t pid, int sig);
	void (*set_clock)(struct guest *g, uint64_t ns);
	bool is_init; /* all processes are ours: kill(-1, sig) */
};

#define GUEST_PHASES_MAX 8

struct guest_phase {
	const char *name;
	int64_t start_ns, ns;
};

struct guest {
	const struct guest_ops *ops;
	enum guest_state state;
	struct ev ev;
	struct port port;
	int child_fd; /* signalfd for SIGCHLD */
	int kmsg_fd;
	int ports_fd; /* guest/ports.h; -1: nothing is published, or it ended */
	bool ports_watched;
	int dbs_fd; /* guest/dbwatch.h; -1: nothing is saved while the session runs */
	bool childless;
	bool reap_more;
	int64_t until_ns; /* end of GUEST_ENDS or GUEST_KILLS */
	int64_t hup_ns;	  /* in GUEST_ENDS: SIGHUP is due then */
	uint32_t last_id;
	unsigned int turn; /* channel that may send next */
	struct stream streams[CTL_STREAMS_MAX];
	uint8_t piece[CTL_DATA_MAX];
};

/* @fd: the control port, taken. @hello: phases of the start. */
int guest_init(struct guest *g, const struct guest_ops *ops, int fd);
void guest_done(struct guest *g);

/* Queues HELLO. */
void guest_hello(struct guest *g, const struct guest_phase *phases, size_t n);

/* Runs until the session is over: SHUTDOWN was done, the host is gone, or FAIL was said. Return: 0 or a negative errno. */
int guest_serve(struct guest *g);

/* Handles the frames that have come; used by the loop and by the fuzz target. */
void guest_frames(struct guest *g, int64_t now);

/* Tells everything to end. */
void guest_end(struct guest *g, uint32_t grace_ms, int64_t now);

/* Queues a frame; if the queue does not take it, which its bounds exclude but for lack of memory, the port is lost. */
void guest_put(struct guest *g, enum ctl_type type, uint8_t channel, uint32_t stream, const void *p, size_t n);
void guest_log(struct guest *g, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

int guest_put_phase(struct buf *out, const char *name, int64_t start_ns, int64_t ns);
