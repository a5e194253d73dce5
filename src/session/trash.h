/* What a guest left in a folder that it shares with us, and that has to go. It may be of any size, and another VM may add to it: so
 * it is moved out of the guest's sight at once, and removed within a bounded time. */
#pragma once

#include <stdint.h>

/**
 * trash_put() - Move one entry of a folder into run/trash of the state root, which no VM mounts
 * @root_fd:	The state root, on the file system of @dirfd
 *
 * Return: 0 (also when it was not there); negative errno: it is there still
 */
int trash_put(int root_fd, int dirfd, const char *name);

/* Remove what lies in run/trash, for at most @ms or so (0: however long it takes); what is left stays for the next time. */
void trash_empty(int root_fd, int64_t ms);
