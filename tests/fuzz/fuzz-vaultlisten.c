/* What the launcher tells the vault while it runs. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "vault/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct vault_listen l = { .port = 0 };
	int r = vault_listen_check(p, n, &l);

	MUST(r == 0 || (r == -EBADMSG && l.port == 0));
	if (r == 0)
		MUST(n == sizeof(l) && l.port > 0 && strnlen(l.listen, sizeof(l.listen)) < sizeof(l.listen) && l.listen[0]);
	return 0;
}
