/* What a decider of this module found: mistakes, warnings and notes, in the order in which they are to be printed. The
 * module decides and words, the launcher prints: a text is "OBJECT: CAUSE; WHAT TO DO" without a prefix and a newline, and
 * foreign bytes in it are escaped already. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

enum finding_kind {
	FINDING_TYPED,	 /* a mistake in the words typed, a variable or a settings file: exit 2 */
	FINDING_WORLD,	 /* a mistake in the world (path missing, refused by section 7 ...): exit 1 */
	FINDING_WARNING, /* the launch goes on: "agent-vm: warning: " */
	FINDING_NOTE,	 /* the launch goes on: "agent-vm: note: " */
	FINDING_KINDS
};

struct finding {
	enum finding_kind kind;
	char *text;
	const char *option; /* static: "mount", "expose", "hide" when a word typed is to blame; NULL otherwise */
	size_t index;	    /* which of that option's values, from 0: the launcher sorts by the order of the words */
};

struct findings {
	struct finding *v;
	size_t n;
};

void findings_done(struct findings *f);
void findings_add(struct findings *f, enum finding_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Say of all findings from index @from on which word typed they are about. @option is kept. */
void findings_blame(struct findings *f, size_t from, const char *option, size_t index);

/* Is there one that stops the launch (TYPED or WORLD)? */
bool findings_stop(const struct findings *f);
