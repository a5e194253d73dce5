/* A row of the kernel's tables of sockets. The first byte chooses the family. */
#include "fuzz.h"

#include <errno.h>

#include "base/nettab.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct nettab t = { .family = 99 };
	int family = n > 0 && p[0] % 2 ? AF_INET6 : AF_INET, r;

	if (n == 0)
		return 0;
	r = nettab_line((const char *)p + 1, n - 1, family, &t);
	MUST(r == 0 ? t.family == family : r == -EBADMSG && t.family == 99);
	return 0;
}
