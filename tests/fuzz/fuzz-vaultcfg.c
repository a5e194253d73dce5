/* The launcher's order to the vault. */
#include "fuzz.h"

#include <string.h>

#include "vault/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct vault_config c;
	struct err err = { 0 };

	if (vault_config_parse(SPAN(p, n), &c, &err) < 0) {
		MUST(err.text[0] != '\0');
		return 0;
	}
	MUST(c.policy.n_rules <= POLICY_RULES_MAX && c.n_publishes <= VAULT_PUBLISH_MAX && c.proxy.n_addrs <= VAULT_PROXY_ADDRS);
	for (char **s = c.inspected; s && *s; s++)
		free(*s);
	free(c.inspected);
	free(c.named);
	return 0;
}
