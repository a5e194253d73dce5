#include "cli/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

#define MIB_MAX ((uint64_t)1 << 44)

int size_parse(const char *s, uint64_t *ret_mib)
{
	uint64_t whole = 0, mib, unit = 1024, frac, scale = 1, num = 0;
	size_t digits = 0;

	for (; isdigit((unsigned char)*s); s++, digits++) {
		if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, *s - '0', &whole))
			whole = UINT64_MAX / 2; /* stays out of range below, and the form is still read to its end */
	}
	if (digits == 0)
		return -EINVAL;
	if (*s == '.') {
		s++;
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
		/* Nine places: far below a MiB of a TiB; what is beyond them only rounds up. */
		for (bool more = false; isdigit((unsigned char)*s); s++) {
			if (scale < 1000000000) {
				num = num * 10 + (uint64_t)(*s - '0');
				scale *= 10;
			} else if (*s != '0' && !more) {
				more = true;
				num++;
			}
		}
	}
	switch (tolower((unsigned char)*s)) {
	case 'm':
		unit = 1;
		s++;
		break;
	case 'g':
		s++;
		break;
	case 't':
		unit = 1024 * 1024;
		s++;
		break;
	case '\0':
		break;
	default:
		return -EINVAL;
	}
	if (*s != '\0' && (isdigit((unsigned char)s[-1]) || (strcasecmp(s, "b") != 0 && strcasecmp(s, "ib") != 0)))
		return -EINVAL;
	frac = (num * unit + scale - 1) / scale; /* at most 10^9 * 2^20: no overflow */
	if (__builtin_mul_overflow(whole, unit, &mib) || __builtin_add_overflow(mib, frac, &mib) || mib >= MIB_MAX)
		return -ERANGE;
	*ret_mib = mib;
	return 0;
}

char *size_text(uint64_t mib)
{
	static const char *const units[] = { "MiB", "GiB", "TiB" };
	unsigned unit = 0;
	uint64_t n = mib, rest = 0;

	/* A larger unit as long as quarters of it are exact. */
	while (unit + 1 < ARRAY_SIZE(units) && rest == 0 && n >= 1024 && n % 256 == 0) {
		rest = n % 1024 / 256;
		n /= 1024;
		unit++;
	}
	if (rest)
		return xasprintf("%" PRIu64 ".%s %s", n, rest == 1 ? "25" : rest == 2 ? "5" : "75", units[unit]);
	return xasprintf("%" PRIu64 " %s", n, units[unit]);
}
