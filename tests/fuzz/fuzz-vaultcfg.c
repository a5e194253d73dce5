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
	MUST(c.n_sources <= VAULT_SOURCES_MAX && c.n_connect_to <= VAULT_CONNECT_TO_MAX && c.n_trust <= VAULT_TRUST_MAX);
	for (size_t i = 0; i < c.n_sources; i++)
		MUST(c.sources[i].kind < SOURCES && c.sources[i].n_guards <= VAULT_GUARDS_MAX && c.sources[i].name[0] && !strchr(c.sources[i].name, '/'));
	free(c.named);
	free(c.sources);
	free(c.connect_to);
	free(c.trust);
	return 0;
}
