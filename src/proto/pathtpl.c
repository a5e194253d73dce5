#include "proto/pathtpl.h"

#include <string.h>

#define SEGMENT_MAX 30 /* a placeholder has 33 and more */
#define DIGITS_MAX 2

static bool is_letter(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_plain(struct span s)
{
	size_t digits = 0;

	if (s.n > SEGMENT_MAX || !is_letter(s.p[0]))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		bool digit = s.p[i] >= '0' && s.p[i] <= '9';

		digits += digit;
		if (!digit && !is_letter(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
			return false;
	}
	return digits <= DIGITS_MAX;
}

void pathtpl_write(struct span path, char out[NET_NOTE_PATH])
{
	static const char cut[] = "/*";
	size_t at = 0;

	memset(out, 0, NET_NOTE_PATH);
	while (path.n > 0 && path.p[0] == '/') {
		const uint8_t *slash = path.n > 1 ? memchr(path.p + 1, '/', path.n - 1) : NULL;
		size_t n = slash ? (size_t)(slash - path.p) : path.n;
		struct span one = SPAN(path.p, n);

		if (n > 1 && !is_plain(SPAN(path.p + 1, n - 1)))
			one = span_str(cut);
		path = SPAN(path.p + n, path.n - n);
		/* Room for this one, a last cut behind it if there is more, and a NUL. */
		if (at + one.n + (path.n > 0 ? strlen(cut) : 0) + 1 > NET_NOTE_PATH) {
			memcpy(out + at, cut, strlen(cut));
			return;
		}
		memcpy(out + at, one.p, one.n);
		at += one.n;
	}
}

bool pathtpl_is(const char path[NET_NOTE_PATH])
{
	char again[NET_NOTE_PATH];
	size_t n = strnlen(path, NET_NOTE_PATH);

	if (n == NET_NOTE_PATH)
		return false;
	pathtpl_write(SPAN(path, n), again);
	return memcmp(path, again, NET_NOTE_PATH) == 0;
}
