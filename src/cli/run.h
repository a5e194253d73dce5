/* A session from the moment that the monitor was started until it is gone: one loop over the guest's control port, the
 * user's terminal, exec clients, signals and clocks. The launch (launch.c) prepares, calls the stages in order, and
 * cleans up.
 *
 *    run_boot()   HELLO → CONFIG → READY       ends early: signal, timeout, FAIL, monitor gone
 *    run_agent()  EXEC → … → EXIT               ends early: signal, monitor gone, protocol error
 *    run_down()   SHUTDOWN → BYE → monitor gone  bounded by a deadline, then the monitor is killed
 *
 * How a byte travels: stdin → read → DATA frame → port queue → virtio → guest → pipe or PTY of the agent, and back by
 * DATA → sink queue → stdout. Each hop is bounded by the channel's credit (proto/ctl.h), so a slow end slows the other
 * end and nothing else. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "cli/autopub.h"
#include "cli/capture.h"
#include "cli/credprobe.h"
#include "cli/gh.h"
#include "cli/network.h"
#include "cli/renewer.h"
#include "cli/selfprobe.h"
#include "session/confwatch.h"

enum run_end {
	RUN_OPEN,    /* nothing ended it yet */
	RUN_EXIT,    /* the agent ended; status as a shell would show it */
	RUN_STOPPED, /* we were told to end by a signal */
	RUN_FAILED,  /* the guest could not be set up, or took too long; text in err */
	RUN_LOST,    /* monitor or protocol broke; text in err */
	RUN_ENDS
};

/* Moments for AGENT_VM_PROFILE, now_ns() values; 0: did not happen. */
struct run_times {
	int64_t running, hello, ready, exec, first_byte, exit, bye, gone;
};

/* A phase that the guest reports, on its own boot clock. */
struct run_phase {
	char name[24];
	int64_t start_ns, duration_ns;
};

#define RUN_PHASES_MAX 16

/* With vmm_pid 0 this is `agent-vm exec`: port_fd is connected to a launcher's control.sock, only run_agent() is called,
 * and environment and folder (env, cwd: NULL) are the session's. */
struct run_spec {
	int port_fd;	/* our end of the control port; taken */
	int control_fd; /* agent-vm-vmm's status socket, or -1; taken */
	int listen_fd;	/* control.sock for exec clients, or -1; taken */
	pid_t vmm_pid;
	struct network *network; /* NULL: none; its end ends the session. Borrowed */
	struct renewer *renewer; /* NULL: no login can be renewed; borrowed */
	struct gh *gh; /* whose token may be asked for again; NULL without a network. Borrowed */
	struct autopub *autopub; /* NULL: the guest was not asked for its listeners. Borrowed */
	void (*on_ports)(void *arg); /* what is published has changed; once for many changes */
	void *on_ports_arg;
	struct selfprobe *probe; /* what the guest tries before it is ready, NULL: nothing; borrowed */
	struct credprobe *credprobe; /* what follows it, NULL: nothing; borrowed */
	struct confwatch *confs; /* git configs that the guest may write, NULL: none; borrowed */
	bool emulated; /* longer time limits */
	int hello_s;   /* another limit for the boot, for tests; 0: none */
	bool quiet;
	bool progress; /* show what is going on when the boot takes long: on a terminal in one line, else a line a phase */
	bool terminal; /* stderr is one */
	const struct buf *config; /* CONFIG payload; read when lock() has been called */
	/* The lock of the project's files (session/lock.h) is held while the guest applies CONFIG; NULL: there is none.
	 * lock() never waits: 0 or more when it is held, -EWOULDBLOCK, or a negative errno with @err set. */
	int (*lock)(void *arg, struct err *err);
	void (*unlock)(void *arg);
	void *lock_arg;
	struct strv *argv;   /* the agent's, borrowed */
	struct strv *env;    /* the agent's and every exec's, without TERM; borrowed */
	const struct strv *exec_prefix; /* words in front of every exec's, NULL: none; borrowed */
	const char *cwd;     /* in the guest, borrowed */
	const char *log_dir; /* named in messages, borrowed */
	/* What the monitor's console and log write, watched here; borrowed, NULL: none. */
	struct capture *console, *vmm_log;
	bool stdin_forward;  /* a terminal's stdin without PTY is forwarded (shell, exec), not /dev/null */
};

struct run;

struct run *run_new(const struct run_spec *spec, struct err *err);
/* Closes everything, kills the monitor if it lives and waits for it, restores the terminal. NULL is fine. */
void run_free(struct run *r);

enum run_end run_boot(struct run *r, struct err *err);
enum run_end run_agent(struct run *r, struct err *err);
/**
 * run_down() - Orderly end of the VM
 * @grace_ms:	What processes in the guest get between SIGTERM and SIGKILL
 *
 * Return: whether the guest said that everything is synced
 */
bool run_down(struct run *r, unsigned grace_ms);

/* After RUN_EXIT: 0..255 as a shell shows it. After RUN_STOPPED: the signal. */
int run_status(const struct run *r);
/* The agent was not found (127) or could not be executed (126): the guest's words, else "". */
const char *run_exit_text(const struct run *r);
const struct run_times *run_times(const struct run *r);
const struct run_phase *run_phases(const struct run *r, size_t *ret_n);
unsigned run_walls(const struct run *r); /* enum cage_wall */
bool run_out_of_memory(const struct run *r);
/* After run_boot(): the image has a script that is to run before the agent. */
bool run_has_seed(const struct run *r);
/* Lines that could not be shown while the terminal was the agent's, to print after it. Borrowed. */
const struct strv *run_held(const struct run *r);
bool run_had_pty(const struct run *r);
/* stdout or stderr of ours failed with something else than a reader that went away: positive errno, else 0. */
int run_output_error(const struct run *r);
