/* A proxy's answer to CONNECT, and entries of no_proxy. The verdict does not depend on how the bytes come: no front of the
 * head has another one than "more is needed" or the final one. */
#include "fuzz.h"

#include <string.h>

#include "base/str.h"
#include "vault/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct vault_no_proxy e;
	size_t len = 0, front_len = 0;
	int whole = proxy_head(SPAN(p, n), &len);
	char *s = xstrndup((const char *)p, n);

	MUST(whole <= 0 || (whole >= 100 && whole <= 599 && len >= 14 && len <= n && len <= PROXY_HEAD_MAX && p[len - 1] == '\n'));
	for (size_t i = 0; i < n && i < 256; i++) {
		int front = proxy_head(SPAN(p, i), &front_len);

		MUST(front == 0 || front == whole);
		MUST(front <= 0 || front_len == len);
	}
	(void)no_proxy_parse(s, &e);
	free(s);
	return 0;
}
