/* What the older program left in the state root (command line page, section 6.4). */
#pragma once

#include "session/root.h"

/* Text of the warning about <root>/<hash>.secrets, NULL if there is none. Caller owns. */
char *older_secrets_warning(const struct state_root *root, const char *hash);

/**
 * older_tokens_remove() - Remove <root>/<hash>/tokens, which the guest would see
 * @state_fd:	<root>/<hash>
 *
 * Return: 0, also when there is none; negative errno with @err set: the launch must stop
 */
int older_tokens_remove(int state_fd, const char *state_path, struct err *err);
