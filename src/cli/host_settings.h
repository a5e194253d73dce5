/* The user's own settings of the agents (cli page 11.2): what an allow-list names of them is copied into the session's folder,
 * which the guest sees read-only at GC_HOST_AT, and linked, name by name, where the project's state has nothing of that name.
 * Files that could hold a login are never among them. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

struct host_settings {
	char *dir;	     /* of the copies, on the host; NULL: there are none, and no links */
	struct strv links;   /* below the copies, and the same below the state */
	struct strv members; /* of Claude's settings.json: NAME, JSON text, NAME, ... */
	char *codex, *opencode, *copilot; /* texts for the agents' own instruction files; NULL: none */
};

/**
 * host_settings_folder() - The folder of the copies, empty, when there is something to copy
 * @home:	NULL: there is nothing
 * @dir_fd, @dir_path:	The session's folder
 * @ret:	Set in any case
 */
bool host_settings_folder(const char *home, int dir_fd, const char *dir_path, struct host_settings *ret);

/**
 * host_settings_take() - Read, and copy where host_settings_folder() has made a folder
 * @notes:	Gets what was left out and why
 */
void host_settings_take(const char *home, int dir_fd, struct host_settings *h, struct strv *notes);
void host_settings_done(struct host_settings *h);

/* Folders of the state in which links may be. */
extern const char *const host_settings_folders[];
