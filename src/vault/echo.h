/* The echo scanner (credentials page 8.2): no answer takes a secret back to the guest. Bytes in, the same number of
 * bytes out, with each hit overwritten by "x". Only a tail that may still become a hit is held back.
 *
 * A needle is found raw; with any of its characters percent-encoded or escaped as in JSON; and as base64, standard or
 * URL, at each of the three alignments, by the digits that it alone determines (what the digits at either end share
 * with their neighbours stays: at most 4 bits). Halves of a needle with other bytes between them are not found, nor is
 * what is encoded twice. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"

#define ECHO_NEEDLE_MIN 16 /* shorter ones are passed over: they would be found by chance */
#define ECHO_NEEDLE_MAX 4096
#define ECHO_NEEDLES_MAX 64
#define ECHO_WINDOW (16 << 10)		    /* looked at in one piece, beside what was held back */
#define ECHO_HOLD_MAX (6 * ECHO_NEEDLE_MAX) /* all of one as \uXXXX */

/* Which form a hit had, for the record. */
enum echo_form { ECHO_RAW, ECHO_ESCAPED, ECHO_BASE64, ECHO_FORMS };
extern const char *const echo_form_str[ECHO_FORMS];

/* All needles of one generation of the table; not changed afterwards, and shared by all answers that began with it. It
 * lies in the arena. */
struct echo_set;

/**
 * echo_set_new() - Prepare needles
 *
 * Return: the set, with one reference; NULL when the arena is full or there are more than ECHO_NEEDLES_MAX
 */
struct echo_set *echo_set_new(const struct span *needles, size_t n);
/* Whether a set of these @needles would be the same. */
bool echo_set_is(const struct echo_set *s, const struct span *needles, size_t n);
struct echo_set *echo_set_get(struct echo_set *s);
void echo_set_put(struct echo_set *s);

/* One stream. */
struct echo;

/* Takes a reference of its own on @set. NULL on lack of memory. */
struct echo *echo_new(struct echo_set *set);
void echo_free(struct echo *e);

/**
 * echo_feed() - Scan the next bytes of a stream
 * @in:		At most ECHO_WINDOW
 * @out:	Room for ECHO_HOLD_MAX + @in.n
 *
 * Return: how many bytes were written to @out; the others are held back
 */
size_t echo_feed(struct echo *e, struct span in, uint8_t *out);

/* The stream is over: what was held back. The same room. Afterwards the scanner is as new. */
size_t echo_end(struct echo *e, uint8_t *out);

/* Something whole, such as the value of a field, in place. */
void echo_whole(struct echo *e, uint8_t *p, size_t n);

/* Hits since the start. */
size_t echo_hits(const struct echo *e, enum echo_form form);
