#include "vault/violations.h"

#include "base/macros.h"

#define WITHIN_NS INT64_C(60000000000)

static bool is_violation(enum refusal_code code, bool login)
{
	return code == REFUSAL_SLOT || code == REFUSAL_WRONG_HOST || code == REFUSAL_STALE ||
	       code == REFUSAL_FOREIGN_CRED || (code == REFUSAL_PATH_DENIED && login);
}

bool violations_add(struct violations *v, enum prov_host_id host, enum refusal_code code, bool login, int64_t now)
{
	uint8_t *next = &v->next[host];

	if (v->told[host] || !is_violation(code, login))
		return false;
	v->at[host][*next] = now;
	*next = (uint8_t)((*next + 1) % VIOLATIONS_TOLD);
	v->n[host] = MIN(v->n[host] + 1, VIOLATIONS_TOLD);
	/* The ring's next place has the oldest. */
	v->told[host] = v->n[host] == VIOLATIONS_TOLD && now - v->at[host][*next] <= WITHIN_NS;
	return v->told[host];
}
