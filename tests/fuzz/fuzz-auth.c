/* Registry logins: config.json and a helper's answer. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "image/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const domains[] = { "docker.io", "r.example:5000", "[::1]:5000" };
	struct auth_entry e = { 0 };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(domains); i++) {
		r = auth_lookup(p, n, domains[i], "library/debian", &e);
		MUST(r == 0 || r == 1 || r == -EBADMSG);
		if (r != 1)
			continue;
		MUST((e.helper != NULL) == (e.server != NULL));
		MUST(e.helper || e.identity || (e.user && e.password));
		MUST(!e.helper || (!strchr(e.helper, '/') && *e.helper && strlen(e.helper) <= 64));
		auth_entry_done(&e);
	}
	r = auth_helper_answer(p, n, &e);
	MUST(r == 0 || r == -EBADMSG);
	if (r == 0)
		MUST(e.identity ? !e.user && !e.password : e.user && e.password);
	auth_entry_done(&e);
	return 0;
}
