/* base64 of RFC 4648, both alphabets, into and out of memory of the caller. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"

enum base64 {
	BASE64_STD, /* section 4, padded */
	BASE64_URL, /* section 5, without padding, as in a JWT */
};

/* Room that @n bytes need in either form, without a NUL. */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Writes BASE64_LEN(@n) digits at most, no NUL; returns how many. */
size_t base64_encode(enum base64 form, struct span in, char *out);

/**
 * base64_decode() - Strictly: no space, canonical padding, unused bits zero
 * @out:	Gets the bytes; @size of them fit
 *
 * Return: how many bytes; -EBADMSG when it is no base64 of this form; -ENOBUFS
 */
ssize_t base64_decode(enum base64 form, struct span in, uint8_t *out, size_t size);

/* Whether a byte is a digit of the form. */
bool base64_is_digit(enum base64 form, uint8_t c);
