/* A tar header is a block of 512 bytes (POSIX.1-2001 pax interchange format; "ustar"):
 *
 *	0 name  100 mode  108 uid  116 gid  124 size  136 mtime  148 checksum  156 type  157 link name  257 "ustar" …
 *
 * Types x and g (and X of Solaris) have a body of records "LENGTH KEY=VALUE\n", L and K (GNU) one with a long name. A number
 * is octal, or, with the first bit set, a two's complement number in base 256. */
#include "image/tarhead.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"

#define BLOCK TARHEAD_BLOCK
#define AT_UID 108
#define AT_GID 116
#define AT_SIZE 124
#define SIZE_BYTES 12
#define AT_CHECKSUM 148
#define CHECKSUM_BYTES 8
#define AT_TYPE 156

static int refuse(struct err *err, const char *why)
{
	return err_set(err, -EBADMSG, "%s", why);
}

/* The size of a header's body. -EBADMSG also above @max. */
static int body_size(const uint8_t *head, uint64_t max, uint64_t *ret)
{
	const uint8_t *p = head + AT_SIZE;
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		if (p[0] != 0x80)
			return -EBADMSG;
		for (i = 1; i < SIZE_BYTES; i++) {
			if (v >> 56)
				return -EBADMSG;
			v = v << 8 | p[i];
		}
	} else {
		while (i < SIZE_BYTES && p[i] == ' ')
			i++;
		for (; i < SIZE_BYTES && p[i] >= '0' && p[i] <= '7'; i++)
			v = v << 3 | (uint64_t)(p[i] - '0');
	}
	if (v > max)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static bool is_name(struct span key)
{
	return span_is(key, "path") || span_is(key, "linkpath") || span_is(key, "GNU.sparse.name");
}

/* One record off the front. */
static int record(struct span *s, struct err *err)
{
	size_t n = 0, digits = 0;
	const uint8_t *eq;
	struct span r;

	while (digits < s->n && digits < 8 && s->p[digits] >= '0' && s->p[digits] <= '9')
		n = n * 10 + (size_t)(s->p[digits++] - '0');
	/* "5 a=\n" is the shortest. */
	if (digits == 0 || digits == s->n || s->p[digits] != ' ' || n < digits + 4 || n > s->n || s->p[n - 1] != '\n')
		return refuse(err, "a PAX header with a broken record");
	r = SPAN(s->p + digits + 1, n - digits - 2);
	eq = memchr(r.p, '=', r.n);
	if (!eq)
		return refuse(err, "a PAX header with a broken record");
	if (is_name(SPAN(r.p, (size_t)(eq - r.p))) && memchr(eq, '\0', r.n - (size_t)(eq - r.p)))
		return refuse(err, "a name with a zero byte");
	*s = SPAN(s->p + n, s->n - n);
	return 0;
}

static int records(struct span s, struct err *err)
{
	unsigned int left = TARHEAD_RECORDS_MAX;

	while (s.n > 0) {
		/* Some writers pad the body with zeros. */
		if (s.p[0] == 0)
			return 0;
		if (left-- == 0)
			return refuse(err, "a PAX header with more than 256 records");
		if (record(&s, err) < 0)
			return -EBADMSG;
	}
	return 0;
}

static bool is_negative(const uint8_t *field)
{
	return (field[0] & 0xc0) == 0xc0;
}

bool tarhead_begins(const uint8_t *p)
{
	uint32_t sum = 0, all = 0, said = 0;
	size_t i;

	for (i = 0; i < BLOCK; i++) {
		all |= p[i];
		sum += i >= AT_CHECKSUM && i < AT_CHECKSUM + CHECKSUM_BYTES ? ' ' : p[i];
	}
	for (i = AT_CHECKSUM; i < AT_CHECKSUM + CHECKSUM_BYTES && p[i] == ' '; i++)
		;
	for (; i < AT_CHECKSUM + CHECKSUM_BYTES && p[i] >= '0' && p[i] <= '7'; i++)
		said = said << 3 | (uint32_t)(p[i] - '0');
	return all == 0 || sum == said;
}

int tarhead_check(const uint8_t *p, size_t n, struct err *err)
{
	for (unsigned int i = 0; i <= TARHEAD_SPECIALS_MAX; i++) {
		uint64_t size, padded;

		if (n < BLOCK)
			return refuse(err, "headers that are cut off");
		if (is_negative(p + AT_UID) || is_negative(p + AT_GID) || is_negative(p + AT_SIZE))
			return refuse(err, "a number below 0");
		if (!memchr("xgXLK", p[AT_TYPE], 5))
			return 0;
		if (body_size(p, TARHEAD_PAX_MAX, &size) < 0)
			return refuse(err, "a special header of more than 1 MiB");
		padded = BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
		if (padded > n)
			return refuse(err, "headers that are cut off");
		if (p[AT_TYPE] != 'L' && p[AT_TYPE] != 'K' && records(SPAN(p + BLOCK, size), err) < 0)
			return -EBADMSG;
		p += padded;
		n -= (size_t)padded;
	}
	return refuse(err, "more than 16 special headers");
}
