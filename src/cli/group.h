/* The cgroup around the monitor, for a launch (session/cgroup.h does the work). Nothing of it can fail a launch: without a
 * group there is one wall less, which doctor says. */
#pragma once

#include "cli/preflight.h"
#include "session/cgroup.h"

/**
 * group_limits() - What the processes of a monitor may use
 *
 * Generous: it bounds one that was taken over, and must never end one that was not.
 */
struct cgroup_limits group_limits(const struct plan *p);

/* Path of the group that the session of that name gets; NULL: none. @place to be released in any case. Caller owns. */
char *group_plan(const char *session, struct cgroup_place *place);

/* Makes it; a folder's descriptor for vmm_spawn(), -1: none. */
int group_make(const struct plan *p, const char *session, const struct cgroup_place *place);
