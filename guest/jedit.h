/* A JSON object that is changed where it lies: members are replaced, added and taken out, and all else stays byte for byte:
 * order, spelling of numbers, unknown members, white space, and in JSONC comments. Pure.
 *
 * It takes what the agents' own reader takes and base/jread.h refuses: any number of members, halves of surrogate pairs, a
 * name twice (the last one counts). */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

#define JEDIT_DEPTH 200 /* nested objects and lists */

struct jedit {
	struct buf *text; /* checked; changed in place. Its maximum holds */
	bool comments;
};

/* Names of members, the outermost first, in plain UTF-8. */
struct jpath {
	const struct span *key;
	size_t n;
};

/* The text is one object of this form; else -EBADMSG. */
int jedit_check(struct span text, bool comments);

/* One JSON value and nothing around it. */
bool jedit_is_value(struct span text);

/* In checked text: the value at a path; false when it is not there, or something on the way is no object. */
bool jedit_get(struct span text, bool comments, struct jpath path, struct span *ret);

/* All return 0 (also when nothing had to be changed) or -ENOBUFS, and then nothing was changed.
 * @value is JSON text. What is no object on the way is replaced by one. */
int jedit_set(struct jedit *j, struct jpath path, struct span value);
/* Takes all of that name; an object on the way that had nothing else in it goes, too. */
int jedit_drop(struct jedit *j, struct jpath path);

/* Iterate over members or elements of a checked value: @at begins as the value. False at the end. Names keep their quotes. */
bool jedit_next_member(bool comments, struct span *at, struct span *ret_name, struct span *ret);
bool jedit_next_element(bool comments, struct span *at, struct span *ret);

/* Whether a string with its quotes is this UTF-8 text. */
bool jedit_string_is(struct span string, struct span text);
