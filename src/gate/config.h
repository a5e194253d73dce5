/* The launcher's configuration of gate (proto/gatecfg.h). */
#pragma once

#include "agents/providers.h"
#include "base/err.h"
#include "base/span.h"
#include "gate/policy/github/scope.h"

#define GATE_SESSION_MAX 48 /* of a session's name; with what stands before it a certificate's CN takes 64 */

struct gate_config {
	uint8_t seed[PH_SEED];
	struct prov_launch launch;
	char session[GATE_SESSION_MAX + 1];
	struct gh_scope github; /* n: 0 without a list */
};

/* Pure. 0; -EBADMSG with @err set: a record is unknown, malformed, given twice or missing, and @ret is of no use. */
int gate_config_parse(struct span in, struct gate_config *ret, struct err *err);
