/* What the guest is given of the logins (credentials page 2.2): files of placeholders, and the certificates that its programs
 * trust. Nothing of it is secret. */
#pragma once

#include "cli/agent_files.h"
#include "cli/network.h"

/**
 * guest_creds_put() - Records of proto/guestcfg.h: GC_CA, and rules for each login file
 * @alone:	No other session of the project lives: a login that the host no longer has goes
 *
 * Return: 0 or -ENOBUFS
 */
int guest_creds_put(const struct creds *c, const struct network *n, const struct upstream *u, bool alone, struct buf *out);

/* What stands in the files of agent_files(). Its texts are those of @c. */
struct agent_logins guest_creds_logins(const struct creds *c);

/* The file with the certificates that come beside a program's own, in the guest; NULL: none are given. */
const char *guest_creds_ca(const struct network *n, const struct upstream *u);
