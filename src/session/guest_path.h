/* Where the project lies in the guest (command line page, section 8.1): at its own path, or below /workspace. */
#pragma once

#include <stdbool.h>

#define GUEST_WORKSPACE "/workspace"
#define GUEST_STATE "/agent-vm-state"

/**
 * guest_path_mirrored() - Can @path be itself in the guest?
 * @ret_why:	Set only when it cannot: heap text such as "lies under /tmp, which the guest uses itself"; may be NULL
 */
bool guest_path_mirrored(const char *path, char **ret_why);

/**
 * guest_path_of() - Guest path of @path when @base is what is mapped
 * @base:	The deepest folder common to all that must keep their distances; contains @path
 * @mirrored:	From guest_path_mirrored()
 *
 * Return: @path itself, "/workspace" or "/workspace/REST"; caller owns
 */
char *guest_path_of(const char *base, const char *path, bool mirrored);

/**
 * guest_path_forbidden() - Why no mount may be at @path (section 8.3)
 * @path:	Absolute, tidy
 *
 * Return: NULL when it may; else heap text of the cause, caller owns
 */
char *guest_path_forbidden(const char *path);
