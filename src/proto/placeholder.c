#include "proto/placeholder.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/base64.h"
#include "base/macros.h"
#include "proto/placeholder_shape.h"

const char *const ph_kind_str[PH_KINDS] = {
	[PH_CLAUDE_A] = "claude-a",
	[PH_CLAUDE_R] = "claude-r",
	[PH_ANTHROPIC_OAT] = "anthropic-oat",
	[PH_ANTHROPIC_AT] = "anthropic-at",
	[PH_ANTHROPIC_KEY] = "anthropic-key",
	[PH_CODEX_A] = "codex-a",
	[PH_CODEX_R] = "codex-r",
	[PH_CODEX_ID] = "codex-id",
	[PH_CODEX_KEY] = "codex-key",
	[PH_OPENCODE_A] = "opencode-a",
	[PH_OPENCODE_R] = "opencode-r",
	[PH_OPENCODE_ID] = "opencode-id",
	[PH_OPENAI_KEY] = "openai-key",
	[PH_GH] = "gh",
	[PH_COPILOT] = "copilot",
	[PH_ZAI] = "zai",
	[PH_ZAI_CP] = "zai-cp",
	[PH_ZHIPU] = "zhipu",
	[PH_ZHIPU_CP] = "zhipu-cp",
	[PH_KIMI] = "kimi",
	[PH_MOONSHOT] = "moonshot",
	[PH_MOONSHOT_CN] = "moonshot-cn",
};

#define PLAIN "avm-"
#define COPILOT "gho_avm_"
#define DECODED_MAX (PH_P_MAX / 4 * 3)

enum ph_kind ph_kind_find(struct span s)
{
	for (int k = 0; k < PH_KINDS; k++)
		if (span_is(s, ph_kind_str[k]))
			return (enum ph_kind)k;
	return PH_KINDS;
}

int ph_prefix(enum ph_kind kind, char ret[PH_MAX])
{
	return kind == PH_COPILOT ? snprintf(ret, PH_MAX, "%s", COPILOT)
				  : snprintf(ret, PH_MAX, "%s%s-", PLAIN, ph_kind_str[kind]);
}

static bool starts(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n >= n && memcmp(s.p, lit, n) == 0;
}

/* Which kind's words stand at the front of @s, before R: their length, or 0. No kind's are the beginning of another's
 * and then of an R, whose 26 characters know no "-". */
static size_t words(struct span s, enum ph_kind *ret)
{
	struct span name = s;

	if (starts(s, COPILOT)) {
		*ret = PH_COPILOT;
		return strlen(COPILOT);
	}
	if (!starts(s, PLAIN) || span_take(&name, strlen(PLAIN), &s) < 0)
		return 0;
	for (int k = 0; k < PH_KINDS; k++) {
		size_t n = strlen(ph_kind_str[k]);

		if (k == PH_COPILOT || ph_is_jwt((enum ph_kind)k) || !starts(name, ph_kind_str[k]) ||
		    name.n < n + 1 + PH_R || name.p[n] != '-' || memchr(name.p + n + 1, '-', PH_R))
			continue;
		*ret = (enum ph_kind)k;
		return strlen(PLAIN) + n + 1;
	}
	return 0;
}

/* The plain or Copilot shape at the front of @s: its length, or 0. */
static size_t shape(struct span s, enum ph_kind *ret)
{
	size_t n = words(s, ret);

	if (n == 0 || s.n < n + PH_R)
		return 0;
	for (size_t i = 0; i < PH_R; i++)
		if (s.p[n + i] == '\0' || !strchr(PH_ALPHABET, s.p[n + i]))
			return 0;
	return n + PH_R;
}

/* The claims of ours have the issuer first; nothing else of them is looked at. */
static bool issued_here(struct span p)
{
	uint8_t text[DECODED_MAX];
	ssize_t n = p.n > PH_P_MAX ? -EBADMSG : base64_decode(BASE64_URL, p, text, sizeof(text));

	return n > 0 && memmem(text, (size_t)n, "\"iss\":\"agent-vm\"", 16);
}

/* H.P.S at the front of @s: ours when S is, stale when P was issued here. *@ret_n: its length as far as it goes. */
static enum ph_match jwt(const struct ph_set *set, struct span s, enum ph_kind *ret, size_t *ret_n)
{
	struct span p, rest = s;
	size_t n = 0;

	if (!starts(s, PH_JWT_H ".") || span_take(&rest, strlen(PH_JWT_H "."), &p) < 0)
		return PH_FOREIGN;
	while (n < rest.n && n < PH_P_MAX && base64_is_digit(BASE64_URL, rest.p[n]))
		n++;
	if (n == 0 || n == rest.n || rest.p[n] != '.' || span_take(&rest, n, &p) < 0 || span_take(&rest, 1, &s) < 0)
		return PH_FOREIGN;
	*ret_n = strlen(PH_JWT_H ".") + p.n + 1 + PH_S;
	for (int k = 0; k < PH_KINDS; k++)
		if (ph_is_jwt((enum ph_kind)k) && set->v[k][0] != '\0' && starts(rest, set->v[k])) {
			*ret = (enum ph_kind)k;
			return PH_OURS;
		}
	for (n = 0; n < rest.n && base64_is_digit(BASE64_URL, rest.p[n]);)
		n++;
	*ret_n += n - PH_S;
	*ret = PH_KINDS;
	return issued_here(p) ? PH_STALE : PH_FOREIGN;
}

/* A placeholder at the front of @s. */
static enum ph_match at_front(const struct ph_set *set, struct span s, enum ph_kind *ret, size_t *ret_n)
{
	*ret_n = shape(s, ret);
	if (*ret_n == 0)
		return jwt(set, s, ret, ret_n);
	return set->v[*ret][0] != '\0' && memcmp(s.p, set->v[*ret], *ret_n) == 0 ? PH_OURS : PH_STALE;
}

enum ph_match ph_match(const struct ph_set *set, struct span value, enum ph_kind *ret_kind)
{
	enum ph_kind kind = PH_KINDS;
	size_t n = 0;
	enum ph_match m = at_front(set, value, &kind, &n);

	if (m == PH_FOREIGN || n != value.n)
		return PH_FOREIGN;
	if (ret_kind)
		*ret_kind = kind;
	return m;
}

enum ph_match ph_find(const struct ph_set *set, struct span bytes, enum ph_kind *ret_kind)
{
	enum ph_match found = PH_FOREIGN;

	/* All three shapes begin with one of three letters; a value of 64 KiB is walked once. */
	for (size_t i = 0; i < bytes.n && found != PH_OURS; i++) {
		struct span s = SPAN(bytes.p + i, bytes.n - i);
		enum ph_kind kind = PH_KINDS;
		enum ph_match m = PH_FOREIGN;
		size_t n = 0;

		if (starts(s, PLAIN) || starts(s, COPILOT) || starts(s, PH_JWT_H))
			m = at_front(set, s, &kind, &n);
		if (m == PH_FOREIGN)
			continue;
		found = m;
		if (ret_kind)
			*ret_kind = kind;
	}
	return found;
}

static bool fits(const char *s, size_t max, bool upper)
{
	size_t n = s ? strlen(s) : 0;

	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') && s[i] != '_' &&
		    !(upper && ((s[i] >= 'A' && s[i] <= 'Z') || s[i] == '-')))
			return false;
	return n > 0 && n <= max;
}

/* The second part, as JSON. Every string in it has a grammar without characters that JSON escapes. */
static int claims_text(enum ph_kind kind, const struct ph_claims *c, char *text, size_t size)
{
	bool known = fits(c->account_id, 64, true);
	int n = snprintf(text, size, "{\"iss\":\"agent-vm\"");

	if (c->exp > 0)
		n += snprintf(text + n, size - (size_t)n, ",\"exp\":%lld", (long long)c->exp);
	if (kind == PH_CODEX_ID)
		n += snprintf(text + n, size - (size_t)n,
			      ",\"email\":\"agent@agent-vm.invalid\",\"https://api.openai.com/auth\":{%s%s%s"
			      "\"chatgpt_user_id\":\"user-agent-vm\",\"chatgpt_plan_type\":\"%s\",\"chatgpt_account_is_"
			      "fedramp\":%s}",
			      known ? "\"chatgpt_account_id\":\"" : "", known ? c->account_id : "", known ? "\"," : "",
			      fits(c->plan, 40, false) ? c->plan : "unknown", c->fedramp ? "true" : "false");
	else if (kind != PH_CODEX_A && known)
		n += snprintf(text + n, size - (size_t)n, ",\"chatgpt_account_id\":\"%s\"", c->account_id);
	return n + snprintf(text + n, size - (size_t)n, "}");
}

int ph_write(const struct ph_set *set, enum ph_kind kind, const struct ph_claims *claims, struct buf *out)
{
	char text[DECODED_MAX + 1], whole[PH_JWT_MAX + 1] = PH_JWT_H ".";
	size_t at = strlen(whole);
	int n;

	if (set->v[kind][0] == '\0')
		return -ENOENT;
	if (!ph_is_jwt(kind))
		return buf_put(out, set->v[kind], strlen(set->v[kind]));
	n = claims_text(kind, claims, text, sizeof(text));
	assert(n > 0 && (size_t)n < sizeof(text)); /* 64 + 40 + the fixed text is below it */
	at += base64_encode(BASE64_URL, SPAN(text, (size_t)n), whole + at);
	whole[at++] = '.';
	memcpy(whole + at, set->v[kind], PH_S);
	return buf_put(out, whole, at + PH_S);
}
