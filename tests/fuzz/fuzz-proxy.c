/* Proxy variables: lines are https_proxy, http_proxy, no_proxy, host. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/proxy.h"

static char *lines[4];

static const char *env(const char *name)
{
	return strcmp(name, "https_proxy") == 0 ? lines[0] :
	       strcmp(name, "http_proxy") == 0	? lines[1] :
	       strcmp(name, "no_proxy") == 0	? lines[2] :
						  NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	AUTO_FREE(char, text);
	char *at;

	text = xstrndup((const char *)p, n);
	at = text;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		lines[i] = at ? strsep(&at, "\n") : NULL;
	for (int https = 0; https <= 1; https++) {
		struct proxy proxy;
		struct err note;
		int r = proxy_for(https, lines[3] ? lines[3] : "h.example", 443, env, &proxy, &note);

		MUST(r == 0 || r == 1 || r == -EINVAL);
		MUST(!strchr(note.text, '\n') && !strchr(note.text, '\033'));
		if (r == 1) {
			MUST(*proxy.host && proxy.port > 0 && !strpbrk(proxy.host, "/@\r\n ") && !proxy.user == !proxy.password);
			proxy_done(&proxy);
		}
	}
	return 0;
}
