/* How a long command shows how far it is: a block of lines that is drawn again on a terminal, plain lines without one, events
 * with --json, nothing with --quiet. All of it goes to stderr; stdout gets the result, or with --json one object a line. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct progress {
	bool quiet, json, tty;
	char *reference; /* what is being got or made, escaped */
	unsigned drawn;	 /* lines of the block on the terminal */
	int64_t next_line_ns; /* without a terminal */
};

/* Says "==> REFERENCE" and the event "start". */
void progress_init(struct progress *p, const char *reference, bool quiet, bool json);
/* Takes the block off the terminal and frees. Zeroed is fine. */
void progress_done(struct progress *p);

/**
 * progress_event() - Print an event on stdout, with --json
 * @name:	start layer disk done error ...; a name that was used once keeps its meaning
 * @more:	Members besides "event" and "reference"; NULL: none; taken
 */
void progress_event(struct progress *p, const char *name, json_t *more);

/**
 * progress_draw() - Draw the block anew, on a terminal
 * @lines:	Each is cut to the terminal's width; escaped by the caller. With fewer rows than lines only the last is drawn
 */
void progress_draw(struct progress *p, const struct strv *lines);
void progress_clear(struct progress *p);

/* A line that stays; also without a terminal. */
void progress_line(struct progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* True every ten seconds without a terminal: then a plain line is due. */
bool progress_line_is_due(struct progress *p);

/* "[#####.....]", @width characters between the brackets; caller owns. */
char *progress_bar(uint64_t got, uint64_t size, unsigned width);

/* "agent-vm: TEXT" and the event "error"; also with --quiet. */
void progress_error(struct progress *p, const char *text);
