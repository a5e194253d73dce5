#include <sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "vault/policy.h"

static void line(SHA2_CTX *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void line(SHA2_CTX *c, const char *fmt, ...)
{
	char text[512]; /* the longest names a rule: POLICY_NAME_MAX and a hundred bytes */
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	SHA256Update(c, (const uint8_t *)text, MIN((size_t)n, sizeof(text) - 1));
}

void policy_digest(const struct policy *p, const char *proxy, char ret[POLICY_DIGEST])
{
	char addr[ADDR_TEXT];
	SHA2_CTX c;

	SHA256Init(&c);
	line(&c, "%s\n", p->no_network ? "none" : "public internet");
	if (p->allow_lan)
		line(&c, "LAN\n");
	if (p->allow_host)
		line(&c, "this host\n");
	for (size_t i = 0; i < p->n_rules; i++) {
		const struct policy_rule *r = &p->rules[i];

		if (r->name[0] != '\0')
			line(&c, "name %s", r->name);
		else
			line(&c, "net %s/%u", addr_format(&r->net.addr, addr), r->net.bits);
		line(&c, " ports %u-%u%s%s\n", r->lo, r->hi, r->tcp ? " tcp" : "", r->udp ? " udp" : "");
	}
	if (p->proxied)
		line(&c, "by proxy %s\n", proxy);
	(void)SHA256End(&c, ret);
}
