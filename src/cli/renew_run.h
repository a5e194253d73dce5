/* Runs a program of the host so that it renews its own login (credentials page 6.2). The vault names it by a number;
 * the file that it writes decides what came of it, never its exit status or output. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "vault/renew.h"

#define RENEW_GRACE_MS 2000
#define RENEW_OUTPUT_MAX (64 << 10)
#define RENEW_ERRORS_MAX (8 << 10)

struct renew_run {
	enum renew_program what; /* not RENEW_NOTHING */
	const char *program;	 /* absolute and without links; found by prog_find() at launch */
	const char *path;	 /* the filtered PATH for it, from prog_path() */
	int work_parent;	 /* borrowed; where the empty working folder is made */
	const char *work_path;	 /* its path */
	int limit_ms;
	int until_fd; /* borrowed; when its other end is closed the program is ended; 0: none */
	/* Result: the last bytes that it said on stderr, for the vault's log, through its filter. */
	char errors[RENEW_ERRORS_MAX + 1];
};

/**
 * renew_env() - The whole environment, built up and not cut down
 *
 * HOME USER LOGNAME SHELL LANG LC_*, PATH, TERM=dumb, XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_DATA_HOME,
 * DBUS_SESSION_BUS_ADDRESS, the provider's folder variables, proxies, and the variables for certificates that lie in no
 * folder which a guest can write.
 */
void renew_env(enum renew_program what, const char *path, struct strv *ret);

/**
 * renew_run() - Run it to the end or its limit
 *
 * Blocks for as long as it takes; the caller is a process of its own. Session and process group are new, and the whole
 * group is dead afterwards, whatever happened.
 *
 * Return: 0 when it ran, however it ended; -ETIMEDOUT when it was ended; a negative errno with @err set when it could
 * not start
 */
int renew_run(struct renew_run *r, struct err *err);

/* Removes the working folders below @parent that a process of ours which was killed has left. */
void renew_reap(int parent);
