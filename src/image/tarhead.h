/* What libarchive does not show of a tar's headers, judged on the bytes themselves. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TARHEAD_BLOCK 512U
#define TARHEAD_PAX_MAX (1U << 20) /* bytes of one header of records */
#define TARHEAD_RECORDS_MAX 256	   /* in it */
#define TARHEAD_SPECIALS_MAX 16	   /* headers before the entry's own */
/* Bytes that must be at hand to judge any entry that passes. */
#define TARHEAD_MAX (TARHEAD_SPECIALS_MAX * (TARHEAD_PAX_MAX + 1024U))

/**
 * tarhead_begins() - Whether a block is a header by its checksum, or the end mark
 * @p:	512 bytes
 */
bool tarhead_begins(const uint8_t *p);

/**
 * tarhead_check() - Judge the headers of one entry
 * @p:	From the first of them on: PAX and GNU headers, then the entry's own
 * @n:	Bytes there; all that libarchive has read for this entry are among them
 *
 * Refused: PAX headers of more than 1 MiB or 256 records, records of a wrong form, a name with NUL in a record, more than 16
 * headers, an owner or a size below 0 in base 256.
 *
 * Return: 0; -EBADMSG with the cause in @err
 */
int tarhead_check(const uint8_t *p, size_t n, struct err *err);
