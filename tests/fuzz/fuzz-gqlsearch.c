/* A search string that passes holds a "repo:" of the listed repository as a word of its own, and in no reading any
 * other scope: wherever "repo:", "org:" or the like stands as a word, it is the listed one. */
#include "fuzz.h"

#include <string.h>

#include "gate/policy/github/search.h"

static uint8_t low(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static bool stands(struct span q, size_t at, const char *word)
{
	for (size_t i = 0; word[i]; i++)
		if (at + i >= q.n || low(q.p[at + i]) != (uint8_t)word[i])
			return false;
	return true;
}

static bool is_letter(uint8_t c)
{
	return low(c) >= 'a' && low(c) <= 'z';
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const scopes[] = { "repo:", "org:", "user:", "owner:", "enterprise:", "saved:" };
	static struct gh_scope scope;
	const struct gh_repo *repo = NULL;
	struct span q = SPAN(p, n);
	unsigned depth = 0, found = 0;
	const char *why = NULL;
	bool quoted = false;

	if (scope.n == 0) {
		gh_scope_init(&scope);
		MUST(gh_scope_add(&scope, (struct gh_slug){ span_str("acme"), span_str("app") }, GH_READ) == 0);
	}
	if (search_judge(&scope, q, &repo, &why) != SEARCH_LISTED) {
		MUST(why);
		return 0;
	}
	MUST(repo == &scope.repo[0]);
	for (size_t i = 0; i < n; i++) {
		bool begins = i == 0 || !(is_letter(p[i - 1]) || p[i - 1] == '-');

		MUST(p[i] >= ' ' || memchr("\t\r\n", p[i], 3));
		if (quoted && p[i] == '\\') {
			i++;
			continue;
		}
		quoted = quoted != (p[i] == '"');
		depth += !quoted && p[i] == '(';
		MUST(quoted || p[i] != ')' || depth > 0);
		depth -= !quoted && p[i] == ')';
		for (size_t s = 0; s < sizeof(scopes) / sizeof(*scopes) && begins; s++)
			if (stands(q, i, scopes[s])) {
				MUST(!quoted && stands(q, i, "repo:acme/app"));
				MUST(i == 0 || memchr(" \t\r\n(", p[i - 1], 5));
				MUST(i + 13 == n || memchr(" \t\r\n)", p[i + 13], 5));
				MUST(depth <= 1);
				found++;
			}
	}
	MUST(!quoted && depth == 0 && found > 0);
	return 0;
}
