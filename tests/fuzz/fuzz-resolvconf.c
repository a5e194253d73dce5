/* resolv.conf: at least one server, at most eight, each once; what is printed of them is the same again. */
#include "fuzz.h"

#include <string.h>

#include "base/str.h"
#include "vault/resolvconf.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct resolver r[RESOLVERS_MAX], again[RESOLVERS_MAX];
	char *text = xstrndup((const char *)p, n), line[1024] = "", addr[ADDR_TEXT];
	size_t k = resolvconf_parse(text, r), at = 0;

	MUST(k >= 1 && k <= RESOLVERS_MAX);
	for (size_t i = 0; i < k; i++)
		at += (size_t)snprintf(line + at, sizeof(line) - at, "nameserver %s%s%s\n", addr_format(&r[i].addr, addr),
				       r[i].scope[0] ? "%" : "", r[i].scope);
	MUST(resolvconf_parse(line, again) == k);
	for (size_t i = 0; i < k; i++)
		MUST(addr_equal(&r[i].addr, &again[i].addr) && strcmp(r[i].scope, again[i].scope) == 0);
	free(text);
	return 0;
}
