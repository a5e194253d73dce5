#include "agents/tokens.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/jread.h"
#include "base/macros.h"
#include "proto/http.h"

/* --- bodies --- */

/* The two members that matter, in memory of the caller; n < 0: absent. */
struct asked {
	ssize_t grant_n, token_n;
	uint8_t grant[64], token[256];
};

/* One that is longer than any we know is as good as another: it is cut, and matches nothing. */
static ssize_t json_text(struct span object, const char *name, uint8_t *out, size_t size)
{
	struct span v;
	ssize_t n;

	if (!jread_member(object, name, &v))
		return -1;
	n = jread_string(v, out, size);
	return n == -ENOBUFS ? (ssize_t)size : n < 0 ? -EINVAL : n;
}

static int read_json(struct span body, struct asked *ret)
{
	struct span v;

	if (jread_check(body, TOKEN_DEPTH, &v) < 0 || jread_type(v) != JREAD_OBJECT)
		return -EBADMSG;
	ret->grant_n = json_text(v, "grant_type", ret->grant, sizeof(ret->grant));
	ret->token_n = json_text(v, "refresh_token", ret->token, sizeof(ret->token));
	return ret->grant_n == -EINVAL || ret->token_n == -EINVAL ? -EBADMSG : 0;
}

/* application/x-www-form-urlencoded, in place; the length, or -EBADMSG. */
static ssize_t form_decode(uint8_t *p, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		if (p[i] == '+')
			p[i] = ' ';
		if (p[i] == '%') {
			uint8_t c[3]; /* all of it comes back when it is no escape */

			if (n - i < 3 || http_percent_decode(SPAN(p + i, 3), c) != 1)
				return -EBADMSG;
			i += 2;
			p[i] = c[0];
		}
		if (p[i] < 0x20 || p[i] == 0x7f)
			return -EBADMSG;
		p[at++] = p[i];
	}
	return (ssize_t)at;
}

static int read_form(struct span body, struct asked *ret)
{
	struct span keys[TOKEN_KEYS_MAX], key, value;
	uint8_t text[TOKEN_BODY_MAX], *at = text, *end = text + body.n;
	size_t n_keys = 0;

	ret->grant_n = ret->token_n = -1;
	memcpy(text, body.p, body.n);
	while (at < end) {
		uint8_t *amp = memchr(at, '&', (size_t)(end - at)), *stop = amp ? amp : end,
			*eq = memchr(at, '=', (size_t)(stop - at));
		ssize_t kn = form_decode(at, (size_t)((eq ? eq : stop) - at)),
			vn = eq ? form_decode(eq + 1, (size_t)(stop - eq - 1)) : 0;

		if (kn < 0 || vn < 0 || n_keys == TOKEN_KEYS_MAX)
			return -EBADMSG;
		key = SPAN(at, (size_t)kn);
		value = SPAN(eq ? eq + 1 : stop, (size_t)vn);
		for (size_t i = 0; i < n_keys; i++)
			if (keys[i].n == key.n && memcmp(keys[i].p, key.p, key.n) == 0)
				return -EBADMSG;
		keys[n_keys++] = key;
		if (span_is(key, "grant_type")) {
			ret->grant_n = (ssize_t)MIN(value.n, sizeof(ret->grant));
			memcpy(ret->grant, value.p, (size_t)ret->grant_n);
		} else if (span_is(key, "refresh_token")) {
			ret->token_n = (ssize_t)MIN(value.n, sizeof(ret->token));
			memcpy(ret->token, value.p, (size_t)ret->token_n);
		}
		at = amp ? amp + 1 : end;
	}
	return 0;
}

enum token_verdict token_body(enum prov_host_id host, const struct ph_set *set, struct span type, bool coded,
			      struct span body, enum ph_kind *ret_kind)
{
	const uint8_t *semicolon = type.n > 0 ? memchr(type.p, ';', type.n) : NULL;
	struct asked asked;
	enum ph_kind kind;
	int r;

	if (semicolon)
		type.n = (size_t)(semicolon - type.p);
	type = http_trim(type);
	if (body.n > TOKEN_BODY_MAX)
		return TOKEN_TOO_LARGE;
	if (coded)
		return TOKEN_MEDIA;
	if (http_is(type, "application/json"))
		r = read_json(body, &asked);
	else if (http_is(type, "application/x-www-form-urlencoded"))
		r = read_form(body, &asked);
	else
		return TOKEN_MEDIA;
	if (r < 0)
		return TOKEN_INVALID;
	if (asked.grant_n >= 0 && !span_is(SPAN(asked.grant, (size_t)asked.grant_n), "refresh_token"))
		return TOKEN_UNSUPPORTED;
	if (asked.token_n < 0 || ph_match(set, SPAN(asked.token, (size_t)asked.token_n), &kind) == PH_FOREIGN)
		return TOKEN_INVALID;
	if (host == HOST_OPENAI_TOKEN ? kind != PH_CODEX_R && kind != PH_OPENCODE_R : kind != PH_CLAUDE_R)
		return TOKEN_INVALID;
	*ret_kind = kind;
	return TOKEN_ASK;
}

bool token_has_ours(const struct ph_set *set, struct span body)
{
	uint8_t text[TOKEN_BODY_MAX];

	if (body.n > TOKEN_BODY_MAX)
		return true;
	return ph_find(set, body, NULL) != PH_FOREIGN ||
	       ph_find(set, SPAN(text, http_percent_decode(body, text)), NULL) != PH_FOREIGN;
}

/* --- answers --- */

unsigned token_status(enum token_verdict v)
{
	return v == TOKEN_TOO_LARGE ? 413 : v == TOKEN_MEDIA ? 415 : 400;
}

/* @program renews the login on the host, @sign_in makes a new one. */
#define LACKS(program, sign_in)                                                                                              \
	{                                                                                                                    \
		[TOKEN_LACK_LOGIN] = "the host is signed out; sign in on the host with `" sign_in "`",                       \
		[TOKEN_LACK_FILE] = "the host's login cannot be read; sign in on the host with `" sign_in "`",               \
		[TOKEN_LACK_KEY] = "the host uses an API key, which is not renewed",                                         \
		[TOKEN_LACK_SOON] =                                                                                          \
			"the host's login ends within minutes and was not renewed yet; it still works until then",           \
		[TOKEN_LACK_EXPIRED] = "the host's login has expired and was not renewed; run `" program "` on the host",    \
		[TOKEN_LACK_UNKNOWN] = "the host's login does not say when it ends; run `" program "` on the host",          \
		[TOKEN_LACK_REJECTED] =                                                                                      \
			"the service does not take the host's login any more; sign in on the host with `" sign_in "`",       \
		[TOKEN_LACK_PENDING] = "the host's login is being renewed; ask again",                                       \
		[TOKEN_LACK_LIMIT] = "too many renewals are asked for; ask again later",                                     \
	}

const char *token_lack_text(enum prov prov, enum token_lack lack)
{
	static const char *const anthropic[TOKEN_LACKS] = LACKS("claude", "claude");
	static const char *const openai[TOKEN_LACKS] = LACKS("codex", "codex login");

	return (prov == PROV_ANTHROPIC ? anthropic : openai)[lack];
}

/* Our own texts have no character that JSON escapes. */
static int put_all(struct buf *out, const char *const *parts, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = buf_put(out, parts[i], strlen(parts[i]));
	return r;
}

static int put_error(struct buf *out, const char *error, const char *text)
{
	const char *parts[] = {
		"{\"error\":\"", error, "\",\"error_description\":\"", text, "\",\"message\":\"", text, "\"}"
	};

	return put_all(out, parts, ARRAY_SIZE(parts));
}

int token_write_lack(enum prov prov, enum token_lack lack, struct buf *out)
{
	return put_error(out, "temporarily_unavailable", token_lack_text(prov, lack));
}

int token_write_refusal(enum prov prov, enum token_verdict v, struct buf *out)
{
	switch (v) {
	case TOKEN_UNSUPPORTED:
		return put_error(out, "unsupported_grant_type", prov_login_text(prov));
	case TOKEN_TOO_LARGE:
		return put_error(out, "invalid_request", "the body is longer than 16 KiB");
	case TOKEN_MEDIA:
		return put_error(out, "invalid_request", "the body must be JSON or a form, without content coding");
	default:
		return put_error(out, "invalid_request",
				 "this is no refresh token of this session, or the request cannot be read");
	}
}

static int put_ph(struct buf *out, const char *name, const struct ph_set *set, enum ph_kind kind,
		  const struct ph_claims *c)
{
	int r = buf_put(out, name, strlen(name));

	if (r == 0)
		r = ph_write(set, kind, c, out);
	return r < 0 ? r : buf_put(out, "\"", 1);
}

/* As the agents need it: without user:inference they take the login for one of another product. */
static const char *scope_or_default(const char *scope)
{
	for (const char *at = scope ? scope : ""; *at; at += strcspn(at, " "), at += *at == ' ')
		if (strcspn(at, " ") == 14 && memcmp(at, "user:inference", 14) == 0)
			return scope;
	return "user:inference user:profile";
}

int token_write_renewed(const struct ph_set *set, enum ph_kind kind, const struct token_values *v, struct buf *out)
{
	static const struct {
		enum ph_kind refresh, access, id;
	} own[] = { { PH_CLAUDE_R, PH_CLAUDE_A, PH_KINDS },
		    { PH_CODEX_R, PH_CODEX_A, PH_CODEX_ID },
		    { PH_OPENCODE_R, PH_OPENCODE_A, PH_OPENCODE_ID } };
	char number[48];
	size_t i = 0;
	int r;

	while (own[i].refresh != kind) {
		i++;
		assert(i < ARRAY_SIZE(own));
	}
	(void)snprintf(number, sizeof(number), ",\"expires_in\":%" PRId64, v->expires_in);
	r = put_ph(out, "{\"token_type\":\"Bearer\",\"access_token\":\"", set, own[i].access, &v->claims);
	if (r == 0)
		r = put_ph(out, ",\"refresh_token\":\"", set, kind, NULL);
	if (r == 0 && own[i].id != PH_KINDS)
		r = put_ph(out, ",\"id_token\":\"", set, own[i].id, &v->claims);
	if (r == 0)
		r = buf_put(out, number, strlen(number));
	if (r == 0 && kind == PH_CLAUDE_R) {
		const char *parts[] = { ",\"scope\":\"", scope_or_default(v->scope), "\"" };

		r = put_all(out, parts, ARRAY_SIZE(parts));
	}
	return r < 0 ? r : buf_put(out, "}", 1);
}
