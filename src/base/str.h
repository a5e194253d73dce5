/* Strings of short-lived programs. The x-functions end the program when memory is out; long-lived roles do not use
 * them after their start. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* @more goes behind what *s holds, which is the caller's and may move. */
void str_append(char **s, const char *more);

/* Growing list of owned strings; v is NULL-terminated once something was added. */
struct strv {
	char **v;
	size_t n;
};

void strv_done(struct strv *s);
void strv_take(struct strv *s, char *str); /* takes @str */
void strv_add(struct strv *s, const char *str);
void strv_addf(struct strv *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

/**
 * str_escape() - Make foreign text fit for a terminal
 *
 * Control bytes (below 0x20, 0x7f, and the two-byte UTF-8 forms of U+0080 to U+009F), bidirectional overrides and bytes
 * that are not UTF-8 become \xNN; all else stays.
 *
 * Return: heap string, caller owns; ends the program without memory
 */
char *str_escape(const void *p, size_t n);

bool str_starts(const char *s, const char *prefix);
bool str_is_utf8(const char *s, size_t n);
/* The bytes of the character numbered @c, at most 0x10ffff; how many. RFC 3629 section 3. */
size_t str_put_utf8(uint32_t c, uint8_t out[4]);

/**
 * str_u64() - Whole decimal number without sign, space or leading garbage
 *
 * Return: 0; -EINVAL when it is none; -ERANGE above @max
 */
int str_u64(const char *s, uint64_t max, uint64_t *ret);

/**
 * str_switch() - Value of a variable that is a switch
 *
 * Source: cli page 4. Return: 1: 1, true, yes, on; 0: 0, false, no, off; in any case of letters; -EINVAL: else, also ""
 */
int str_switch(const char *s);
