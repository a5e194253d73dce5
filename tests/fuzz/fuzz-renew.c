/* Bodies that a guest sends to a token endpoint: the first byte is host and content type. An answer is given to an
 * owner alone, and is JSON. */
#include "fuzz.h"

#include <string.h>

#include "agents/tokens.h"
#include "base/jread.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const types[] = { "application/json", "application/x-www-form-urlencoded",
					     "application/json; charset=utf-8", "text/plain" };
	struct token_values v = { .expires_in = 3600, .scope = "user:inference" };
	enum prov_host_id host;
	enum token_verdict verdict;
	enum ph_kind kind = PH_KINDS;
	struct ph_set set = { 0 };
	struct span body, json;
	struct buf out;

	if (n == 0)
		return 0;
	host = p[0] & 1 ? HOST_OPENAI_TOKEN : HOST_CLAUDE_TOKEN;
	for (int k = 0; k < PH_KINDS; k++) {
		if (ph_is_jwt((enum ph_kind)k))
			(void)snprintf(set.v[k], PH_MAX, "abcdefghijklmnopqrstuvwxyz01234%c", 'a' + k);
		else
			(void)snprintf(set.v[k], PH_MAX, "avm-%s-22222222222222222222222222", ph_kind_str[k]);
	}
	body = SPAN(p + 1, n - 1);
	verdict = token_body(host, &set, span_str(types[p[0] >> 1 & 3]), p[0] & 8, body, &kind);
	buf_init(&out, TOKEN_ANSWER_MAX);
	if (verdict == TOKEN_ASK) {
		MUST(host == HOST_OPENAI_TOKEN ? kind == PH_CODEX_R || kind == PH_OPENCODE_R : kind == PH_CLAUDE_R);
		MUST(token_write_renewed(&set, kind, &v, &out) == 0);
	} else {
		MUST(kind == PH_KINDS);
		MUST(token_write_refusal(prov_hosts[host].prov, verdict, &out) == 0);
		MUST(token_status(verdict) >= 400);
	}
	MUST(jread_check(buf_span(&out), 4, &json) == 0);
	(void)token_has_ours(&set, body);
	buf_done(&out);
	return 0;
}
