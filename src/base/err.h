/* One error text, written where the failure is known and printed once by main. */
#pragma once

#include "base/macros.h"

#define ERR_TEXT_MAX 1024

struct err {
	char text[ERR_TEXT_MAX];
};

/**
 * err_set() - Write the text of a failure
 * @err:	Where to, may be NULL
 * @code:	Negative errno to hand on
 *
 * The text is "OBJECT: CAUSE; WHAT TO DO", without a trailing newline; control bytes of foreign text must already be
 * escaped (str_escape()).
 *
 * Return: @code, so that the caller can write return err_set(...)
 */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/**
 * err_ctx() - Put what the caller was doing in front of the text
 * @err:	May be NULL; @code must be negative
 *
 * Return: @code
 */
int err_ctx(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
