/* What the guest is given of the logins (credentials page 2.2): files of placeholders, and the certificates that its programs
 * trust. Nothing of it is secret. */
#pragma once

#include "cli/network.h"

/* Records of proto/guestcfg.h: GC_CA, and a GC_FILE for each login file. @state: the state folder in the guest. -ENOBUFS. */
int guest_creds_put(const struct creds *c, const struct network *n, const struct upstream *u, const char *state, struct buf *out);

/* The file with the certificates that come beside a program's own, in the guest; NULL: none are given. */
const char *guest_creds_ca(const struct network *n, const struct upstream *u);
