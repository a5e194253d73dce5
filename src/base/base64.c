#include "base/base64.h"

#include <errno.h>

static const char digits[2][65] = {
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

static int value(enum base64 form, uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == (uint8_t)digits[form][62])
		return 62;
	return c == (uint8_t)digits[form][63] ? 63 : -1;
}

bool base64_is_digit(enum base64 form, uint8_t c)
{
	return value(form, c) >= 0;
}

size_t base64_encode(enum base64 form, struct span in, char *out)
{
	const char *d = digits[form];
	size_t at = 0;

	while (in.n > 0) {
		size_t n = in.n < 3 ? in.n : 3;
		uint32_t v = (uint32_t)in.p[0] << 16 | (n > 1 ? (uint32_t)in.p[1] << 8 : 0) | (n > 2 ? in.p[2] : 0);

		out[at++] = d[v >> 18];
		out[at++] = d[v >> 12 & 63];
		if (n > 1)
			out[at++] = d[v >> 6 & 63];
		if (n > 2)
			out[at++] = d[v & 63];
		for (; form == BASE64_STD && n < 3; n++)
			out[at++] = '=';
		in = n < in.n ? SPAN(in.p + n, in.n - n) : SPAN(in.p, 0);
	}
	return at;
}

ssize_t base64_decode(enum base64 form, struct span in, uint8_t *out, size_t size)
{
	uint32_t bits = 0;
	size_t n = in.n, at = 0;

	if (form == BASE64_STD) {
		if (n % 4 != 0)
			return -EBADMSG;
		for (int pad = 0; n > 0 && pad < 2 && in.p[n - 1] == '='; pad++)
			n--;
	}
	if (n % 4 == 1)
		return -EBADMSG;
	if (n / 4 * 3 + n % 4 * 3 / 4 > size)
		return -ENOBUFS;
	for (size_t i = 0; i < n; i++) {
		int v = value(form, in.p[i]);

		if (v < 0)
			return -EBADMSG;
		bits = bits << 6 | (uint32_t)v;
		if (i % 4 != 0)
			out[at++] = (uint8_t)(bits >> (6 - i % 4 * 2));
	}
	/* What the last digit has beyond whole bytes. */
	if ((n % 4 == 2 && bits & 15) || (n % 4 == 3 && bits & 3))
		return -EBADMSG;
	return (ssize_t)at;
}
