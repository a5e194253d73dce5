/* Shared by run*.c only. */
#pragma once

#include "cli/link.h"
#include "cli/run.h"
#include "cli/sink.h"
#include "cli/term.h"

#define CLIENTS_MAX 32
#define SEC INT64_C(1000000000)

enum ev_kind { EV_PORT, EV_CONTROL, EV_SIGNAL, EV_CLOCK, EV_STDIN, EV_SINK, EV_LISTEN, EV_CLIENT, EV_CAPTURE,
	       EV_NETWORK, EV_PROBE, EV_RENEWER, EV_CREDPROBE, EV_CONFS };

enum run_stage { STAGE_BOOT, STAGE_CONFIG, STAGE_PROBE, STAGE_IDLE, STAGE_AGENT, STAGE_DOWN, STAGE_GONE };

/* Who is at our end of a stream. */
enum stream_kind { STREAM_FREE, STREAM_LOCAL, STREAM_CLIENT };

struct stream {
	enum stream_kind kind;
	uint16_t client;	 /* slot, for STREAM_CLIENT */
	uint32_t id;		 /* number towards the guest */
	struct ctl_credit tx;	 /* channel 0: what the guest granted */
	struct ctl_credit rx[2]; /* channels 1 and 2: what we granted */
	bool tx_eof, rx_eof[2];
	bool reader_gone[2]; /* said so to the guest */
	bool file;	     /* GET: FILE is in order */
};

struct client {
	bool used;
	bool probe; /* ours, for the self-probe: it may DIAL and nothing else */
	bool dying; /* closed in the deferred pass */
	uint32_t gen;
	struct link link;
};

struct run {
	struct run_spec spec;
	struct ev ev;
	struct link port;
	int control_fd, signal_fd, clock_fd, listen_fd;
	pid_t vmm_pid; /* -1 once reaped */
	int vmm_status;

	enum run_stage stage;
	enum run_end end;
	struct err err;
	struct run_times times;
	struct run_phase phases[RUN_PHASES_MAX];
	size_t n_phases;
	unsigned walls;
	int64_t port_lost; /* when the control port ended, 0: it did not */
	int64_t net_lost;  /* a network process ended, 0: none did */
	enum network_end net_end; /* of the one of net_text */
	char net_text[ERR_TEXT_MAX];
	bool bye, oom;
	bool seed; /* CTL_K_SEED came */
	struct strv held; /* lines for after the agent */
	size_t lines;	  /* of ports, so far */
	bool ports_changed; /* in this batch */
	unsigned vmm_lines; /* that agent-vm-vmm had written to our log */
	char vmm_text[ERR_TEXT_MAX];  /* why the monitor ended, in its own words, escaped */
	char exit_text[ERR_TEXT_MAX]; /* the agent was not started, in the guest's words, escaped */

	/* CONFIG waits for the project's lock. */
	int64_t lock_since; /* 0: it never had to */
	int64_t lock_at;    /* when it is tried again; -1: it is not waited for */
	bool lock_told, config_sent;

	/* Signals that ended or will end it. */
	int stop_signal;       /* what we end by, 0: none */
	int64_t deadline;      /* of the stage, or of a signal's grace; -1: none */
	int64_t last_int;      /* time of the last SIGINT without PTY */
	int64_t gh_at;	       /* when gh's login is looked at next; -1: never */
	bool grace_over;       /* the agent's time after a signal is up */

	struct stream streams[CTL_STREAMS_MAX];
	uint32_t next_id;
	struct client clients[CLIENTS_MAX];

	/* The local stream: our own stdin, stdout, stderr. */
	struct {
		struct stream *stream; /* while open */
		bool pty;
		bool stdin_open, stdin_always, stdin_watched;
		struct sink out[2];
		bool exited;
		int status; /* as a shell shows it */
	} local;

	/* Progress while booting; the word is that of the phase at hand, for a stderr that is no terminal. */
	int64_t started, progress_at;
	bool progress_shown;
	const char *progress_word;
};

/* run.c */
void run_fail(struct run *r, enum run_end end, const char *fmt, ...) PRINTF_LIKE(3, 4);
struct stream *run_stream_new(struct run *r, enum stream_kind kind);
void run_stream_free(struct stream *s);
void run_progress_clear(struct run *r);
void run_send_clock(struct run *r);
/* The guest is ready, and what it tried was as it must be: what follows until it may run something. */
void run_ready(struct run *r);
/* A status line about the session: shown at once unless the terminal is the agent's (spec/cli.md section 9.2). */
void run_line(struct run *r, const char *text);

/* run_guest.c: sends CONFIG, if the project's lock can be had. */
void run_send_config(struct run *r);
/* run_guest.c: frames of the guest. 0, or -EBADMSG when the guest broke the protocol. */
int run_guest_frames(struct run *r);

/* run_local.c */
int local_start(struct run *r, struct err *err);
void local_stdin(struct run *r);
/* Feed what the port and the credit allow; called after each batch. */
void local_pump(struct run *r);
int local_data(struct run *r, unsigned channel, struct span bytes);
void local_exit(struct run *r, uint32_t how, uint32_t value, struct span text);
bool local_drained(const struct run *r);
void local_resize(struct run *r);
void local_close(struct run *r);

/* run_client.c */
void clients_accept(struct run *r);
/* A client of ours, for the self-probe. @fd: taken. 0 or a negative errno. */
int clients_add(struct run *r, int fd);
void client_readable(struct run *r, struct client *c);
/* A frame of the guest for a client's stream. */
int client_forward(struct run *r, struct stream *s, const struct ctl_frame *f);
void clients_pump(struct run *r);
void clients_close(struct run *r);
