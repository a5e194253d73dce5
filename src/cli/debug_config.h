/* AGENT_VM_DEBUG_CONFIG: the session's configuration as one JSON object on stderr, before boot (spec/cli.md section 17). */
#pragma once

#include "cli/preflight.h"
#include "session/session.h"

/* As AGENT_VM_PROFILE's rule: set to anything but 0, false, no, off, even empty, is on. */
bool debug_config_wanted(void);

/* One JSON object on one line; values of --env as "***". Caller owns. */
char *debug_config_text(const struct plan *p, const char *session);
