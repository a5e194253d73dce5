/* One session: what is known of it (session.json), and its folders while it lives.
 *
 *   <root>/<hash>/			guest-writable state of the project; only touched through file_open_beneath(), or one component
 *				deep and without following a link
 *   <root>/run/projects/<hash>		path, first and last use; seed of the placeholders (seed.h)
 *   <root>/run/sessions/<name>/	lock (flock, held while the launcher lives), session.json, control.sock, disk.qcow2
 *   <root>/run/logs/<name>/		logs of the roles; session.json with result, exit status and cause
 *   <root>/run/trash/			while it is being emptied (trash.h)
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "session/procid.h"
#include "session/project.h"
#include "session/root.h"

#define SESSION_JSON "session.json"
#define SESSION_LOCK "lock"
#define SESSION_SOCK "control.sock"
#define SESSION_DISK "disk.qcow2"
#define SESSION_STOP "stop" /* made by agent-vm stop before its signal: the end counts as "stopped" */
#define SESSION_JSON_VERSION 1
#define SESSION_CHILDREN_MAX 16 /* vault, gate, wire, vmm, image and some room */

enum session_result {
	SESSION_RUNNING,
	SESSION_EXIT,	      /* the agent ended; exit status */
	SESSION_SIGNAL,	      /* the agent or the launcher was ended by a signal; exit status 128+n */
	SESSION_START_FAILED, /* the agent never ran */
	SESSION_LOST,	      /* the VM, a part or the launcher died */
	SESSION_STOPPED,      /* agent-vm stop */
	SESSION_USAGE,	      /* refused for what was typed */
	SESSION_RESULTS
};

struct session_child {
	char role[16];
	struct proc_id id;
};

struct session_row {
	char *label, *text;
};

/* The content of session.json. */
struct session_info {
	char name[SESSION_NAME_MAX + 1];
	char hash[PROJECT_HASH_LEN + 1];
	char *project;
	char *verb;
	char *image, *monitor;	/* NULL until known; monitor: "krun" or "qemu" */
	char *cgroup;		/* where the monitor's group is or will be (session/cgroup.h); NULL: it gets none */
	struct proc_id launcher;
	int64_t started_ms, ended_ms; /* since 1970; ended_ms 0 while it lives */
	struct strv options;	    /* words of the launch, values of --env as *** */
	struct strv ports;	    /* "127.0.0.1:3000->3000/tcp" */
	struct session_row *rows;   /* the table of what is open */
	size_t n_rows;
	struct session_child children[SESSION_CHILDREN_MAX];
	size_t n_children;
	enum session_result result;
	int exit_status;
	char *cause; /* NULL: nothing to say */

	/* not in the file */
	bool live;
};

void session_info_done(struct session_info *info);
const char *session_result_name(enum session_result r);
json_t *session_info_to_json(const struct session_info *info);

/**
 * session_info_parse() - Read a session.json
 *
 * Return: 0; -EBADMSG for what is none of ours; -EOPNOTSUPP for a newer version; both with @err set
 */
int session_info_parse(const char *text, size_t n, struct session_info *ret, struct err *err);

/* session.json in a folder: as above, or a negative errno of reading it (-ENOENT: there is none). */
int session_info_read(int dirfd, struct session_info *ret, struct err *err);
/* What a session's name alone tells, for one whose session.json was never written. */
void session_info_from_name(const char *name, struct session_info *ret);
/* @sync: onto the disk. Who clears sessions away takes one that is broken by its name, so only the record in the logs,
 * which nobody could make again, needs it. */
int session_info_write(int dirfd, const struct session_info *info, bool sync);

struct session {
	const struct state_root *root; /* kept */
	struct session_info info;
	pid_t owner;		/* the process that made it; forked children can do no harm with it */
	bool ended;
	int lock_fd;		/* held for life */
	int dir_fd;		/* run/sessions/<name> */
	int log_fd;		/* run/logs/<name> */
	int state_fd;		/* <root>/<hash>: inside, only file_open_beneath() */
	char *dir_path, *log_path, *state_path;
};

#define SESSION_INIT { .lock_fd = -1, .dir_fd = -1, .log_fd = -1, .state_fd = -1 }

/**
 * session_create() - Make the folders of a new session, take its lock, and write the first session.json
 * @ret:	Initialised with SESSION_INIT
 * @root:	Kept; must outlive the session
 * @verb:	"claude", "shell" ...
 * @words:	The launch's own words (not the agent part), NULL-terminated; borrowed. Values of --env are left out
 *
 * Also makes <root>/<hash>/ and run/projects/<hash>. On failure nothing else is left.
 *
 * Return: 0; negative errno with @err set
 */
int session_create(struct session *ret, const struct state_root *root, const struct project *project, const char *verb,
		   const char *const *words, struct err *err);

/* These change session.json at once; 0 or a negative errno (the session can go on; log it). */
int session_add_child(struct session *s, const char *role, pid_t pid);
int session_drop_child(struct session *s, pid_t pid);
/* @cgroup: taken, may be NULL. */
int session_set_vm(struct session *s, const char *image, const char *monitor, char *cgroup);
/* The whole list; it is empty at first. */
int session_set_ports(struct session *s, const struct strv *ports);
/* Only in memory; session_write_json() makes them last. */
void session_add_row(struct session *s, const char *label, const char *text);
int session_write_json(struct session *s);

/**
 * session_end() - Remove disk, sockets, cgroup and registry entry; keep the logs with the final session.json
 * @cause:	One line for the record, or NULL
 *
 * May be called on every way out, also twice and on a session that was never made; only the first call counts, and only
 * in the process that made the session. The children must have ended. A step that fails does not stop the next. Not for
 * signal handlers.
 *
 * Return: 0 or the first negative errno
 */
int session_end(struct session *s, enum session_result result, int exit_status, const char *cause);
/* Did agent-vm stop ask for the end? Then a SIGTERM makes SESSION_STOPPED of SESSION_SIGNAL. */
bool session_stop_asked(const struct session *s);
/* Ends it as SESSION_LOST if nobody did, and frees. */
void session_done(struct session *s);

/**
 * session_listen() - A unix stream socket at @name in @dirfd, listening, 0600, close-on-exec, non-blocking
 *
 * Bound through the folder's descriptor, so the length of the folder's path does not matter.
 */
int session_listen(int dirfd, const char *name, int *ret_fd);
int session_connect(int dirfd, const char *name, int *ret_fd);
