/* Ctrl-C and its like, for commands that are no session: as a descriptor that a loop can watch. */
#pragma once

#include <signal.h>
#include <stdbool.h>

/* A hang-up that whoever started us has had us ignore is none: nohup(1). A signal that is blocked is read all the same. */
bool stop_is_meant(int sig);

/* Block SIGINT, SIGTERM, SIGHUP and SIGQUIT; they make the descriptor readable, if they are meant. -1 on failure. */
int stop_open(sigset_t *old);

/* The signal that made @fd readable; SIGINT when it cannot be read. */
int stop_signal(int fd);

/* End by the signal that made @fd readable, as the shell that waits for us expects. Returns 128 + it if that fails. */
int stop_end(int fd, const sigset_t *old);

/* The exit status of a command that ended with @r: 0 if all of stdout could be written, 2 for -EINVAL, 1 for another error;
 * -EINTR ends by the signal, as stop_end(). */
int stop_status(int r, int fd, const sigset_t *old);
