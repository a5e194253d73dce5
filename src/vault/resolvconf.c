#include "vault/resolvconf.h"

#include <stdbool.h>
#include <string.h>

#include "base/macros.h"

/* "nameserver ADDRESS[%SCOPE]", blanks around it, anything behind. */
static bool server(const char *line, size_t n, struct resolver *ret)
{
	static const char word[] = "nameserver";
	struct resolver r = { 0 };
	char text[ADDR_TEXT];
	size_t k = 0, len;

	while (n > 0 && strchr(" \t", *line)) {
		line++;
		n--;
	}
	if (n < sizeof(word) || memcmp(line, word, sizeof(word) - 1) != 0 || !strchr(" \t", line[sizeof(word) - 1]))
		return false;
	line += sizeof(word) - 1;
	n -= sizeof(word) - 1;
	while (n > 0 && strchr(" \t", *line)) {
		line++;
		n--;
	}
	while (k < n && !strchr(" \t\r%", line[k]))
		k++;
	if (k >= sizeof(text))
		return false;
	memcpy(text, line, k);
	text[k] = '\0';
	if (k < n && line[k] == '%') {
		line += k + 1;
		n -= k + 1;
		for (len = 0; len < n && !strchr(" \t\r", line[len]); len++)
			;
		if (len == 0 || len >= sizeof(r.scope))
			return false;
		memcpy(r.scope, line, len);
	}
	if (addr_parse(text, &r.addr) < 0)
		return false;
	*ret = r;
	return true;
}

size_t resolvconf_parse(const char *text, struct resolver ret[RESOLVERS_MAX])
{
	size_t n = 0;

	for (const char *line = text; *line && n < RESOLVERS_MAX;) {
		size_t len = strcspn(line, "\n");
		bool again = false;
		struct resolver r;

		if (server(line, len, &r)) {
			for (size_t i = 0; i < n; i++)
				again = again || (addr_equal(&ret[i].addr, &r.addr) && strcmp(ret[i].scope, r.scope) == 0);
			if (!again)
				ret[n++] = r;
		}
		line += len + (line[len] == '\n');
	}
	if (n == 0)
		ret[n++] = (struct resolver){ .addr = { AF_INET, { 127, 0, 0, 1 } } };
	return n;
}
