#include "test.h"

#include <errno.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "proto/placeholder.h"

static const uint8_t seed[PH_SEED] = "a seed of thirty-two bytes, yes.";

static struct ph_set drawn(uint32_t lent)
{
	struct ph_set set;

	assert_int_equal(ph_draw(seed, lent, &set), 0);
	return set;
}

static const char *text(const struct ph_set *set, enum ph_kind kind, const struct ph_claims *c)
{
	static char out[8][1024];
	static int at;
	char *to = out[at++ % 8];
	struct buf b;

	buf_init(&b, sizeof(out[0]));
	assert_int_equal(ph_write(set, kind, c, &b), 0);
	(void)snprintf(to, sizeof(out[0]), "%.*s", (int)b.n, (const char *)buf_span(&b).p);
	buf_done(&b);
	return to;
}

TEST(a_set_is_a_function_of_its_seed)
{
	struct ph_set a = drawn(PH_ALL), b = drawn(PH_ALL), c;
	uint8_t other[PH_SEED];

	assert_memory_equal(&a, &b, sizeof(a));
	memcpy(other, seed, sizeof(other));
	other[31] ^= 1;
	assert_int_equal(ph_draw(other, PH_ALL, &c), 0);
	for (int k = 0; k < PH_KINDS; k++)
		assert_string_not_equal(a.v[k], c.v[k]);
}

TEST(what_is_lent_changes_no_value)
{
	struct ph_set all = drawn(PH_ALL), one = drawn(PH_BIT(PH_GH));

	assert_string_equal(all.v[PH_GH], one.v[PH_GH]);
	assert_string_equal(one.v[PH_ZAI], "");
}

TEST(shapes)
{
	static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
	struct ph_set set = drawn(PH_ALL);

	assert_memory_equal(set.v[PH_CLAUDE_A], "avm-claude-a-", 13);
	assert_int_equal(strlen(set.v[PH_CLAUDE_A]), 13 + 26);
	assert_int_equal(strspn(set.v[PH_CLAUDE_A] + 13, letters), 26);
	assert_memory_equal(set.v[PH_COPILOT], "gho_avm_", 8);
	assert_int_equal(strlen(set.v[PH_COPILOT]), 8 + 26);
	assert_int_equal(strlen(set.v[PH_CODEX_A]), PH_S);
}

TEST(tokens_of_codex_and_opencode_say_what_their_programs_read)
{
	struct ph_set set = drawn(PH_ALL);
	struct ph_claims c = { .exp = 1800086400, .account_id = "3f6d-x", .plan = "plus" };
	static const struct {
		enum ph_kind kind;
		const char *want;
	} t[] = {
		{ PH_CODEX_A, "{\"iss\":\"agent-vm\",\"exp\":1800086400}" },
		{ PH_CODEX_ID, "{\"iss\":\"agent-vm\",\"exp\":1800086400,\"email\":\"agent@agent-vm.invalid\","
			       "\"https://api.openai.com/auth\":{\"chatgpt_account_id\":\"3f6d-x\","
			       "\"chatgpt_user_id\":\"user-agent-vm\",\"chatgpt_plan_type\":\"plus\","
			       "\"chatgpt_account_is_fedramp\":false}}" },
		{ PH_OPENCODE_A, "{\"iss\":\"agent-vm\",\"exp\":1800086400,\"chatgpt_account_id\":\"3f6d-x\"}" },
		{ PH_OPENCODE_ID, "{\"iss\":\"agent-vm\",\"exp\":1800086400,\"chatgpt_account_id\":\"3f6d-x\"}" },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		const char *jwt = text(&set, t[i].kind, &c), *p = strchr(jwt, '.') + 1;
		uint8_t out[512];
		ssize_t n = base64_decode(BASE64_URL, SPAN(p, strcspn(p, ".")), out, sizeof(out));

		assert_int_equal(n, strlen(t[i].want));
		assert_memory_equal(out, t[i].want, (size_t)n);
		assert_memory_equal(jwt, PH_JWT_H ".", strlen(PH_JWT_H) + 1);
		assert_int_equal(strlen(strrchr(jwt, '.') + 1), PH_S);
	}
	/* Nothing that would have to be escaped gets in. */
	c = (struct ph_claims){ .account_id = "a\"b", .plan = "P L U S" };
	assert_null(strstr(text(&set, PH_CODEX_ID, &c), "YVwiYg"));
}

TEST(recognition)
{
	struct ph_set set = drawn(PH_ALL & ~PH_BIT(PH_KIMI)), all = drawn(PH_ALL), old;
	struct ph_claims now = { .exp = 1 }, later = { .exp = 1900000000 };
	uint8_t other[PH_SEED] = { 1 };
	enum ph_kind kind;
	char bytes[256];

	assert_int_equal(ph_draw(other, PH_ALL, &old), 0);
	assert_int_equal(ph_match(&set, span_str(set.v[PH_ZAI_CP]), &kind), PH_OURS);
	assert_int_equal(kind, PH_ZAI_CP);
	assert_int_equal(ph_match(&set, span_str(old.v[PH_ZAI_CP]), &kind), PH_STALE);
	assert_int_equal(kind, PH_ZAI_CP);
	assert_int_equal(ph_match(&set, span_str(all.v[PH_KIMI]), &kind), PH_STALE);
	assert_int_equal(ph_match(&set, span_str("sk-ant-x"), &kind), PH_FOREIGN);
	assert_int_equal(ph_match(&set, span_str(""), &kind), PH_FOREIGN);
	(void)snprintf(bytes, sizeof(bytes), "%sx", set.v[PH_GH]);
	assert_int_equal(ph_match(&set, span_str(bytes), &kind), PH_FOREIGN);
	assert_int_equal(ph_find(&set, span_str(bytes), &kind), PH_OURS);
	/* A JWT's second part changes with every renewal. */
	assert_int_equal(ph_match(&set, span_str(text(&set, PH_CODEX_A, &now)), &kind), PH_OURS);
	assert_int_equal(ph_match(&set, span_str(text(&set, PH_CODEX_A, &later)), &kind), PH_OURS);
	assert_int_equal(kind, PH_CODEX_A);
	assert_int_equal(ph_match(&set, span_str(text(&old, PH_CODEX_A, &later)), &kind), PH_STALE);
	assert_int_equal(ph_match(&set, span_str(PH_JWT_H ".eyJhIjoxfQ.bjR0cmdwcXpybWd5cWJtenZkZXVnM211"), &kind),
			 PH_FOREIGN);
	(void)snprintf(bytes, sizeof(bytes), PH_JWT_H ".eyJhIjoxfQ.%sA", set.v[PH_CODEX_A]);
	assert_int_equal(ph_match(&set, span_str(bytes), &kind), PH_FOREIGN);
	assert_int_equal(ph_find(&set, span_str(bytes), &kind), PH_OURS);
	/* Ours counts more than an older one before it. */
	(void)snprintf(bytes, sizeof(bytes), "%s,%s", old.v[PH_GH], set.v[PH_COPILOT]);
	assert_int_equal(ph_find(&set, span_str(bytes), &kind), PH_OURS);
	assert_int_equal(kind, PH_COPILOT);
}

TEST(every_kind_is_recognised_as_itself)
{
	struct ph_set set = drawn(PH_ALL);
	struct ph_claims c = { .exp = 5 };

	for (int k = 0; k < PH_KINDS; k++) {
		enum ph_kind kind = PH_KINDS;
		const char *v = text(&set, (enum ph_kind)k, &c);

		assert_int_equal(ph_match(&set, span_str(v), &kind), PH_OURS);
		assert_int_equal(kind, k);
		assert_int_equal(ph_kind_find(span_str(ph_kind_str[k])), k);
	}
}

TEST(a_set_with_a_value_in_a_value_or_like_a_key_is_thrown_away)
{
	struct ph_set set = drawn(PH_ALL);

	assert_true(ph_set_is_good(&set));
	strcpy(set.v[PH_GH], "gho_abcdefghijklmnopqrstuvwxyz0123456789");
	assert_false(ph_set_is_good(&set));
	set = drawn(PH_ALL);
	memcpy(set.v[PH_ZAI] + 4, set.v[PH_CODEX_A], PH_S + 1);
	assert_false(ph_set_is_good(&set));
	set = drawn(PH_ALL);
	strcpy(set.v[PH_ZAI], "avm-zai-short");
	assert_false(ph_set_is_good(&set));
}

TEST(base64_is_strict)
{
	uint8_t out[16];

	assert_int_equal(base64_decode(BASE64_STD, span_str("eDp5"), out, sizeof(out)), 3);
	assert_memory_equal(out, "x:y", 3);
	assert_int_equal(base64_decode(BASE64_STD, span_str("eDo="), out, sizeof(out)), 2);
	assert_int_equal(base64_decode(BASE64_STD, span_str("eDo"), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_STD, span_str("eDp="), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_STD, span_str("eD=5"), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_STD, span_str("e==="), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_STD, span_str("-_-_"), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_URL, span_str("-_-_"), out, sizeof(out)), 3);
	assert_int_equal(base64_decode(BASE64_URL, span_str("eDo="), out, sizeof(out)), -EBADMSG);
	assert_int_equal(base64_decode(BASE64_URL, span_str("eDp5"), out, 2), -ENOBUFS);
}
