/* The state root: one folder of the user's in which everything lives that outlasts a command (the layout is in
 * session/session.h and session/registry.h). */
#pragma once

#include <stdbool.h>

#include "base/err.h"

/* Names below the root. */
#define STATE_RUN "run"
#define STATE_PROJECTS "projects"
#define STATE_LOCKS "locks"
#define STATE_SESSIONS "sessions"
#define STATE_LOGS "logs"
#define STATE_CACHE "cache"
#define STATE_IMAGES "images"

struct state_root {
	char *path;	 /* canonical */
	int fd;		 /* the root; all of these are O_RDONLY | O_DIRECTORY and close-on-exec */
	int projects_fd; /* run/projects */
	int locks_fd;	 /* run/locks */
	int sessions_fd; /* run/sessions */
	int logs_fd;	 /* run/logs */
	int cache_fd;	 /* cache */
};

#define STATE_ROOT_INIT { NULL, -1, -1, -1, -1, -1, -1 }

/**
 * state_root_path() - Where the root is, by the environment alone; nothing is opened or made
 * @ret:		AGENT_VM_STATE_DIR, else $XDG_STATE_HOME/agent-vm, else ~/.local/state/agent-vm; caller owns
 * @ret_warning:	NULL, or text of a warning to print (a relative XDG_STATE_HOME); caller owns
 *
 * An empty variable counts as unset; without HOME the passwd entry is used.
 *
 * Return: 0; -EINVAL when a variable's value is wrong (a usage error, exit 2); -ENOENT without any home
 */
int state_root_path(char **ret, char **ret_warning, struct err *err);

/**
 * state_root_check() - Say before boot what state_root_open() would refuse, as far as that shows without writing
 *
 * Return: 0; negative errno with @err set: owned by somebody else, not a folder, or no right to make it
 */
int state_root_check(const char *path, struct err *err);

/**
 * state_root_open() - Open the root and the folders of ours in it
 * @make:	Make the root if it is missing. Without it that is -ENOENT (a verb that only looks has nothing to show
 *		then), and so is a folder that holds nothing of ours
 *
 * Folders that are missing in a root are made, 0700 whatever the umask, with and without @make.
 *
 * A root that others can enter is narrowed to 0700. One that is owned by somebody else, or on which flock(2) does not
 * exclude, is refused.
 *
 * Return: 0, @ret to be released with state_root_close(); a negative errno with @err set
 */
int state_root_open(const char *path, bool make, struct state_root *ret, struct err *err);
void state_root_close(struct state_root *root);
