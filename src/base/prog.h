/* Programs of the host that we start (command line page 4): found once by an absolute path, with a cleaned environment,
 * in "/", in a process group of their own, with no descriptor but those that are named. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

/**
 * prog_find() - An executable file called @name in the absolute entries of PATH, then in the system's folders
 * @ret:	Its path without links, caller owns
 *
 * Passed over is what lies in a folder that prog_shun() named.
 *
 * Return: 0; -ENOENT; -EPERM: there is one, but only in such folders
 */
int prog_find(const char *name, char **ret);

/* From now on run nothing from @dir or below: a guest can write there, or could have (command line page, section 4). "/"
 * and what is not there change nothing. */
void prog_shun(const char *dir);
/* Whether an existing path leads into such a folder; what does not exist does. */
bool prog_is_shunned(const char *path);
/* PATH without relative folders and those that are shunned, in its order; "" when none is left. Caller owns. */
char *prog_path(void);
/* For a role that looks for programs itself: the variable that tells it, and its taking over in that role. */
#define PROG_SHUN_ENV "AGENT_VM_SHUN"
void prog_shun_env(struct strv *ret);
void prog_shun_from_env(void);
#define PROG_SHUNNED "is only in a folder that a guest can write, whose programs are not run on the host"

/* The environment that they get: HOME, USER, LOGNAME, LANG=C.UTF-8, a fixed PATH, TMPDIR, XDG_RUNTIME_DIR, the proxy and
 * the SSL_CERT_ variables, those not where they lead into a shunned folder; nothing else. */
void prog_env(struct strv *ret);
/* Those of our variables that are set and have one of @names, NULL behind the last: what one program needs beside that. */
void prog_env_keep(struct strv *ret, const char *const *names);

/* For programs that the user has set up for himself, such as credential helpers: all of his environment but GIT_*, LD_*,
 * BASH_ENV, ENV and NODE_OPTIONS (command line page, section 4), with a PATH of the absolute folders that are not shunned. It
 * is for a role that starts such a program, and under names of its own, so that it does not work on the role. */
#define PROG_USER_ENV "AGENT_VM_HELPER:"
void prog_user_env(struct strv *ret);
/* In the role: what came, for struct prog; and wipe it, before the role reads anything hostile. */
void prog_user_env_take(struct strv *ret);
void prog_user_env_forget(void);

struct prog {
	const char *path;	/* absolute */
	char *const *argv;	/* [0] is the name */
	struct strv env;	/* in addition to prog_env(), "NAME=VALUE"; later ones win */
	int in, out, errfd;	/* borrowed; -1: /dev/null */
	int fd3, fd4, fd5;	/* borrowed; -1: closed */
	bool follows;		/* when we die its process group gets SIGTERM, and 30 s later SIGKILL; its wait status is 128 + n
				 * for a signal, as in a shell */
	bool own_ids;		/* we are root and it must not be: it is root of a user namespace with PROG_IDS ids that no user has */
};

/* systemd's table of ids (UIDS-GIDS.md) leaves what is behind its containers' ranges to nobody. */
#define PROG_IDS_FIRST 1879048192U
#define PROG_IDS 65536U

#define PROG_INIT { NULL, NULL, { NULL, 0 }, -1, -1, -1, -1, -1, -1 }

/* Start. 0 and the pid; a negative errno when it cannot be executed, with @err set. */
int prog_start(const struct prog *p, pid_t *ret, struct err *err);

/* End a started one with its process group: SIGTERM, @grace_ms, SIGKILL; waited for. Its wait status. */
int prog_stop(pid_t pid, int grace_ms);

/* Wait for its end. Its wait status. */
int prog_wait(pid_t pid);

/**
 * prog_output() - Run to the end and take what it prints on stdout
 * @max:	Most bytes taken
 *
 * Return: 0 when it exited with 0; -ETIMEDOUT (then it was ended), -EFBIG, -EIO for another exit; negative errno of the
 * start; each with @err set
 */
int prog_output(const struct prog *p, size_t max, int timeout_ms, char **ret, struct err *err);

/* The same for a program whose exit status is an answer: 0 with its wait status whatever that is. */
int prog_capture(const struct prog *p, size_t max, int timeout_ms, char **ret, int *ret_status, struct err *err);
