/* What the older program left in the state root (command line page, section 6.4). */
#pragma once

#include "session/root.h"

/* Text of the warning about <root>/<hash>.secrets, NULL if there is none. Caller owns. */
char *older_secrets_warning(const struct state_root *root, const char *hash);

/**
 * older_tokens_remove() - Take <root>/<hash>/tokens away, which the guest would see; the caller empties the trash (session/trash.h)
 * @root_fd:	<root>
 * @state_fd:	<root>/<hash>
 *
 * Return: 0, also when there is none; negative errno with @err set: the launch must stop
 */
int older_tokens_remove(int root_fd, int state_fd, const char *state_path, struct err *err);
