/* Entries of the project's state folder that we write at every launch, and that the guest can turn into something else: a
 * link, a folder in a file's place, a file without end (command line page, section 11.1). */
#pragma once

#include "base/err.h"
#include "base/str.h"

#define ASIDE_SUFFIX ".agent-vm-bad" /* one is kept */
#define ASIDE_FILE_MAX (8 << 20)     /* bytes */

/**
 * aside_check() - Rename what is not what it should be, so that the launch begins afresh
 * @root_fd:	<root>; what lies where it is renamed to goes into its trash, which the caller empties (session/trash.h)
 * @state_fd:	<root>/<hash>; one component below it is renamed, nothing is followed
 * @state_path:	For texts
 * @lines:	One for each that was set aside is added
 *
 * Return: 0; negative errno with @err set: the launch must stop
 */
int aside_check(int root_fd, int state_fd, const char *state_path, struct strv *lines, struct err *err);
