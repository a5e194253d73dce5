#include "vault/guestfile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define EXPIRY_UNKNOWN_S 3600

static int put(struct buf *out, const char *text)
{
	return buf_put(out, text, strlen(text));
}

/* "NAME":"TEXT" with what stands in front; the text has no character that JSON escapes. */
static int put_text(struct buf *out, const char *name, const char *text)
{
	int r = put(out, name);

	if (r == 0)
		r = put(out, "\"");
	if (r == 0)
		r = put(out, text);
	return r < 0 ? r : put(out, "\"");
}

static int put_number(struct buf *out, const char *name, int64_t n)
{
	char text[24];
	int r = put(out, name);

	(void)snprintf(text, sizeof(text), "%" PRId64, n);
	return r < 0 ? r : put(out, text);
}

static int put_ph(struct buf *out, const char *name, const struct ph_set *set, enum ph_kind kind,
		  const struct ph_claims *c)
{
	int r = put(out, name);

	if (r == 0)
		r = put(out, "\"");
	if (r == 0)
		r = ph_write(set, kind, c, out);
	return r < 0 ? r : put(out, "\"");
}

struct ph_claims guestfile_claims(const struct login_info *info, int64_t now_s)
{
	return (struct ph_claims){ .exp = info->exp_ms > 0 ? info->exp_ms / 1000 : now_s + EXPIRY_UNKNOWN_S,
				   .account_id = info->account_id,
				   .plan = info->plan,
				   .fedramp = info->fedramp };
}

static int put_scopes(struct buf *out, const char *scopes)
{
	int r = put(out, ",\"scopes\":[");

	for (size_t n; r == 0 && *scopes; scopes += n + (scopes[n] == ' ')) {
		n = strcspn(scopes, " ");
		r = put(out, "\"");
		if (r == 0)
			r = buf_put(out, scopes, n);
		if (r == 0)
			r = put(out, scopes[n] ? "\"," : "\"");
	}
	return r < 0 ? r : put(out, "]");
}

int guestfile_claude(const struct login_info *info, const struct ph_set *set, struct buf *out)
{
	int r;

	if (info->mode != LOGIN_ANTHROPIC)
		return -ENOENT;
	r = put_ph(out, "{\"claudeAiOauth\":{\"accessToken\":", set, PH_CLAUDE_A, NULL);
	if (r == 0)
		r = put_ph(out, ",\"refreshToken\":", set, PH_CLAUDE_R, NULL);
	if (r == 0 && info->has_expiry)
		r = put_number(out, ",\"expiresAt\":", info->exp_ms);
	if (r == 0 && info->scopes[0])
		r = put_scopes(out, info->scopes);
	if (r == 0 && info->subscription[0])
		r = put_text(out, ",\"subscriptionType\":", info->subscription);
	if (r == 0 && info->tier[0])
		r = put_text(out, ",\"rateLimitTier\":", info->tier);
	return r < 0 ? r : put(out, "}}");
}

int guestfile_codex_key(enum ph_kind kind, const struct ph_set *set, struct buf *out)
{
	int r = put_ph(out, "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":", set, kind, NULL);

	return r < 0 ? r : put(out, "}");
}

int guestfile_codex(const struct login_info *info, const struct ph_set *set, int64_t now_s, struct buf *out)
{
	struct ph_claims c = guestfile_claims(info, now_s);
	char now[32];
	struct tm tm;
	time_t t = (time_t)now_s;
	int r;

	if (info->mode == LOGIN_APIKEY)
		return guestfile_codex_key(PH_CODEX_KEY, set, out);
	if (info->mode != LOGIN_CHATGPT || !gmtime_r(&t, &tm))
		return -ENOENT;
	(void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &tm);
	r = put_ph(out, "{\"auth_mode\":\"chatgpt\",\"OPENAI_API_KEY\":null,\"tokens\":{\"id_token\":", set,
		   PH_CODEX_ID, &c);
	if (r == 0)
		r = put_ph(out, ",\"access_token\":", set, PH_CODEX_A, &c);
	if (r == 0)
		r = put_ph(out, ",\"refresh_token\":", set, PH_CODEX_R, NULL);
	if (r == 0 && info->account_id[0])
		r = put_text(out, ",\"account_id\":", info->account_id);
	if (r == 0)
		r = put_text(out, "},\"last_refresh\":", info->last_refresh[0] ? info->last_refresh : now);
	return r < 0 ? r : put(out, "}");
}

int guestfile_opencode(const struct login_info *info, const char *const ids[PH_KINDS], const struct ph_set *set,
		       int64_t now_s, struct buf *out)
{
	const char *sep = "";
	int r = put(out, "{");

	if (r == 0 && info && info->mode == LOGIN_CHATGPT) {
		struct ph_claims c = guestfile_claims(info, now_s);

		r = put_ph(out, "\"openai\":{\"type\":\"oauth\",\"access\":", set, PH_OPENCODE_A, &c);
		if (r == 0)
			r = put_ph(out, ",\"refresh\":", set, PH_OPENCODE_R, NULL);
		if (r == 0)
			r = put_number(out, ",\"expires\":", c.exp * 1000);
		if (r == 0 && info->account_id[0])
			r = put_text(out, ",\"accountId\":", info->account_id);
		if (r == 0)
			r = put(out, "}");
		sep = ",";
	}
	for (int k = 0; r == 0 && k < PH_KINDS; k++) {
		if (!ids[k])
			continue;
		r = put(out, sep);
		if (r == 0)
			r = put_text(out, "", ids[k]);
		if (r == 0)
			r = put_ph(out, ":{\"type\":\"api\",\"key\":", set, (enum ph_kind)k, NULL);
		if (r == 0)
			r = put(out, "}");
		sep = ",";
	}
	return r < 0 ? r : put(out, "}");
}
