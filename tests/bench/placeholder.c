/* placeholder SEED KIND: the stand-in of that kind (proto/placeholder.h) that gate and vault draw from the seed, 64 hex digits,
 * with the logins of every provider lent. For tests and benchmarks that play the guest. */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "proto/placeholder.h"

int main(int argc, char **argv)
{
	const struct ph_claims claims = { .exp = 4102444800 };
	uint8_t seed[PH_SEED];
	enum ph_kind kind;
	struct ph_set set;
	struct buf out;

	if (argc != 3 || strlen(argv[1]) != 2 * PH_SEED)
		errx(2, "usage: placeholder SEED KIND");
	for (size_t i = 0; i < PH_SEED; i++)
		if (sscanf(argv[1] + 2 * i, "%2hhx", &seed[i]) != 1)
			errx(2, "%s: not hexadecimal", argv[1]);
	kind = ph_kind_find(SPAN(argv[2], strlen(argv[2])));
	buf_init(&out, PH_JWT_MAX + 1);
	if (kind == PH_KINDS || ph_draw(seed, PH_ALL, &set) < 0 || ph_write(&set, kind, &claims, &out) < 0)
		errx(1, "%s: no such placeholder", argv[2]);
	(void)printf("%.*s\n", (int)buf_span(&out).n, (const char *)buf_span(&out).p);
	return 0;
}
