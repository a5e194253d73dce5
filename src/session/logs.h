/* How long logs are kept: per project the last 20 sessions, in all 14 days or 200 MB; failed launches at least 7 days. */
#pragma once

#include <stdint.h>

#include "session/root.h"

struct logs_rule {
	unsigned int per_project;
	int64_t max_age_s, failed_age_s, fresh_age_s;
	uint64_t max_bytes;
};

#define LOGS_RULE_DEFAULT { 20, 14 * 86400, 7 * 86400, 600, UINT64_C(200) << 20 }

/**
 * logs_retain() - Remove the logs of ended sessions that the rule no longer keeps
 * @now_s:	Seconds since 1970
 *
 * Never the logs of a live session, of one that a newer version wrote, or of one that ended within fresh_age_s: a path
 * that was just named in a message exists when it is read. Must run under the registry's lock.
 *
 * Return: number removed, or a negative errno
 */
int logs_retain(const struct state_root *root, const struct logs_rule *rule, int64_t now_s);
