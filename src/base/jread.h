/* Strict JSON (RFC 8259) read where it lies: no copy, no allocation, no tree. Made for files that hold secrets and for
 * small bodies of a guest: the whole text is checked once by jread_check(), then values are picked out of it by name.
 *
 * A "value" is a span of checked text, from its first byte to its last, without white space around it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"

#define JREAD_MEMBERS_MAX 256 /* of one object: each name is compared with all before it */

enum jread_type { JREAD_NULL, JREAD_BOOL, JREAD_NUMBER, JREAD_STRING, JREAD_ARRAY, JREAD_OBJECT };

/**
 * jread_check() - Check a whole text
 * @depth:	Most nested arrays and objects
 * @ret_value:	The one value in it; borrowed from @text
 *
 * Refused: what is not UTF-8, bytes behind the value, deeper nesting, a member twice in one object (after its escapes),
 * the character U+0000 and halves of surrogate pairs.
 *
 * Return: 0 or -EBADMSG
 */
int jread_check(struct span text, unsigned depth, struct span *ret_value);

enum jread_type jread_type(struct span value);

/* The value of a member; false when @value is no object or has no such member. @name is plain ASCII. */
bool jread_member(struct span value, const char *name, struct span *ret);

/* Iterate: @at begins as the object or array itself and is moved. False at the end. Names keep their quotes. */
bool jread_next_member(struct span *at, struct span *ret_name, struct span *ret);
bool jread_next_element(struct span *at, struct span *ret);

/* Whether a string value (with its quotes) means this plain ASCII text. */
bool jread_string_is(struct span value, const char *text);

/* The text of a string value into @out, no NUL; how many bytes, -EINVAL when it is no string, -ENOBUFS. @out may be the
 * memory of the value: text is never longer than what stood for it. */
ssize_t jread_string(struct span value, uint8_t *out, size_t size);

/* Takes a number off the front; false when there is none. */
bool jread_take_number(struct span *s);

/* A number cut towards zero; -EINVAL when it is none, -ERANGE outside of 2^53. */
int jread_int(struct span value, int64_t *ret);
