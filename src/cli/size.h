/* Sizes as they are typed: NUMBER[M|G|T], a fraction allowed, "iB" or "B" behind the letter, any case. A bare number is
 * GiB. */
#pragma once

#include <stdint.h>

#define SIZE_FORM "NUMBER[M|G|T]"

/**
 * size_parse() - Read a size
 * @ret_mib:	In MiB, a part of one rounded up
 *
 * Return: 0; -EINVAL when it has another form; -ERANGE at 2^44 MiB (16 EiB) and above
 */
int size_parse(const char *s, uint64_t *ret_mib);

/* "4 GiB", "1.5 GiB", "300 MiB", "2 TiB": exact. Heap string that the caller owns. */
char *size_text(uint64_t mib);
