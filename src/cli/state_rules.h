/* Writes what must hold in a file of the project's state (GC_STATE of proto/guestcfg.h); the guest brings the file there.
 *
 *    struct state_rules w = { .out = config };
 *
 *    state_begin(&w, "claude/.credentials.json", GC_FORM_JSON);
 *    state_rule(&w, GC_RULE_LOGIN, STATE_KEYS("claudeAiOauth"), "{\"claudeAiOauth\":{...}}");
 *    state_end(&w);
 *    if (w.failed) ...
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "proto/guestcfg.h"

struct state_rules {
	struct buf *out; /* borrowed */
	size_t at;	 /* of the file that was begun */
	bool failed;	 /* @out was full: what was written is not whole */
};

#define STATE_KEYS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* @path: relative to the project's state. */
void state_begin(struct state_rules *w, const char *path, enum guestcfg_form form);
/* @value: JSON text or lines of TOML; NULL: none. Kinds and what they need are drawn at enum guestcfg_rule. */
void state_rule(struct state_rules *w, enum guestcfg_rule kind, const char *const *keys, const char *value);
/* Only where the guest has that program. */
void state_rule_with(struct state_rules *w, const char *program, enum guestcfg_rule kind, const char *const *keys, const char *value);
void state_content(struct state_rules *w, const char *text);
void state_target(struct state_rules *w, const char *target);
void state_end(struct state_rules *w);

/* The text as a JSON string with its quotes; it is UTF-8. Caller owns. */
char *state_json_string(const char *s);
