/* JWTs of the host: what is read fits its grammar, and the signature lies in the token. */
#include "fuzz.h"

#include <string.h>

#include "vault/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct jwt j;

	if (jwt_read(SPAN(p, n), &j) < 0)
		return 0;
	MUST(j.exp >= 0);
	MUST(j.account_id[0] == '\0' || jwt_is_account(span_str(j.account_id)));
	MUST(j.plan[0] == '\0' || jwt_is_plan(span_str(j.plan)));
	MUST(j.signature.n > 0 && j.signature.p > p && j.signature.p + j.signature.n == p + n);
	return 0;
}
