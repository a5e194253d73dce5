/* The sessions of this user, of all projects: those that live (run/sessions), those that ended (run/logs), and the
 * clearing away of those that died.
 *
 * A session lives while somebody holds its lock. Folders are made, judged and removed under one lock of the registry
 * (run/locks/registry), so that a folder between its making and its locking is never taken for a dead one, and two reapers
 * never disturb each other or a launch. */
#pragma once

#include "session/session.h"

#define REAP_GRACE_MS 10000 /* children of a dead launcher end by themselves in this time, then they are killed */

struct session_list {
	struct session_info *v; /* newest first */
	size_t n;
	struct strv warnings; /* entries that could not be read, texts for a person */
};

/* The registry's lock, see above; descriptor whose closing frees it, or a negative errno with @err set. */
int registry_lock(const struct state_root *root, struct err *err);

enum session_which { SESSIONS_LIVE = 1, SESSIONS_ENDED = 2 };

/**
 * registry_list() - Sessions as they are now; nothing is changed
 * @which:	SESSIONS_LIVE | SESSIONS_ENDED
 *
 * Return: 0, @ret to be released with session_list_done(); negative errno with @err set
 */
int registry_list(const struct state_root *root, int which, struct session_list *ret, struct err *err);
void session_list_done(struct session_list *l);

/**
 * registry_reap() - Clear away the sessions whose launcher is dead
 * @grace_ms:	REAP_GRACE_MS
 * @ret_n:	How many; may be NULL
 *
 * Recorded children get @grace_ms to end by themselves, as they do when the launcher's descriptors close (the guest
 * is synced then), and are then killed; only processes of which pid, start time, boot and pid namespace match. Disk
 * and sockets go, logs stay with the result "lost". Also does the retention of logs.
 *
 * Return: 0 or a negative errno with @err set
 */
int registry_reap(const struct state_root *root, int grace_ms, unsigned int *ret_n, struct err *err);

/**
 * session_find() - The one session that a person means
 * @list:	Where to look: live sessions for exec and stop, all for logs
 * @what:	Full name, name without "agent-vm-", a unique prefix of that of 4 or more characters, or a project path
 *		(holds "/" or is "."); NULL: the one of the current project
 * @here:	Hash of the current project, for NULL
 * @newest:	Several of one project: take the newest instead of an error
 * @ret:	Borrowed from @list
 *
 * Return: 0; -ENOENT: none; -ENOTUNIQ: several; both with an @err that lists the candidates
 */
int session_find(const struct session_list *list, const char *what, const char *here, bool newest,
		 const struct session_info **ret, struct err *err);

/* The live session of the list with that exact name, or NULL. */
const struct session_info *session_by_name(const struct session_list *list, const char *name);

/**
 * session_others_note() - One line for each other live session of this project, without "==> "
 *
 * "another session runs in this project: claude, pid 4711, 12m; history and settings are shared"
 *
 * @names:	Their names, as many
 *
 * Return: number of lines added to @ret, or a negative errno
 */
int session_others_note(const struct session *s, struct strv *ret, struct strv *names);

/* How long it runs: "12s", "12m", "3h", "2d". @ret holds at least 24 bytes. */
void session_up(const struct session_info *info, char *ret, size_t n);

/* run/sessions/NAME or run/logs/NAME as a descriptor; NAME must be a session's name. Negative errno. */
int registry_open_session(const struct state_root *root, const char *name);
int registry_open_logs(const struct state_root *root, const char *name);

/**
 * registry_each() - Call @each with every name of ours in run/sessions or run/logs
 *
 * Return: 0, the first negative value of @each, or a negative errno
 */
int registry_each(int dirfd, int (*each)(const char *name, void *arg), void *arg);

/* True when the lock of run/sessions/NAME is free or the folder is gone. */
bool registry_is_gone(const struct state_root *root, const char *name);
