/* The project's hook, .agent-vm.runtime.sh (cli page 13): the bash that sources it and then becomes the agent. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

#define HOOK_FILE ".agent-vm.runtime.sh"
/* Whether the project has one, as far as the host can see without following links. */
bool hook_is_there(int project_fd);

/* @argv, what runs in the guest, becomes what first runs GC_SEED of the image and, with @hook, the hook. @lacks: the line when the
 * guest has no such program; NULL: one that names the program. */
void hook_wrap(struct strv *argv, bool hook, const char *lacks);

/* What stands before the words of `exec`, so that they get the environment that the hook has left. */
void hook_exec_prefix(struct strv *ret);
