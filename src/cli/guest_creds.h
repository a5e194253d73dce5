/* What the guest is given of the logins (credentials page 2.2): files of placeholders, and the certificates that its
 * programs trust. Nothing of it is secret. */
#pragma once

#include "cli/agent_files.h"
#include "cli/network.h"

/* GC_CA of proto/guestcfg.h, when there is something to trust. -ENOBUFS. */
int guest_creds_put_ca(const struct network *n, const struct upstream *u, struct buf *out);

/* What stands in the files of agent_files(); borrows from @c. */
void guest_creds_logins(const struct creds *c, struct agent_logins *ret);
void guest_creds_logins_done(struct agent_logins *l);

/* The file with the certificates that come beside a program's own, in the guest; NULL: none are given. */
const char *guest_creds_ca(const struct network *n, const struct upstream *u);
