#include "vault/jwt.h"

#include <errno.h>

#include "base/base64.h"
#include "base/jread.h"
#include "base/macros.h"

#define DEPTH 16
#define AUTH "https://api.openai.com/auth"

static bool all_of(struct span s, size_t max, const char *more, bool upper)
{
	if (s.n == 0 || s.n > max)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (upper && c >= 'A' && c <= 'Z') ||
		      (c && strchr(more, c))))
			return false;
	}
	return true;
}

bool jwt_is_account(struct span s)
{
	return all_of(s, 64, "_-", true);
}

bool jwt_is_plan(struct span s)
{
	return all_of(s, 40, "_", false);
}

/* Either alphabet, but not both in one part; padding right or none. */
static ssize_t decode(struct span in, uint8_t *out, size_t size)
{
	char url[BASE64_LEN(JWT_PAYLOAD_MAX)];
	bool std = false, other = false;
	size_t n = in.n;
	ssize_t r;

	while (n > 0 && in.p[n - 1] == '=')
		n--;
	if (n > sizeof(url) || (n < in.n && (in.n % 4 != 0 || in.n - n > 2)))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		uint8_t c = in.p[i];

		std |= c == '+' || c == '/';
		other |= c == '-' || c == '_';
		url[i] = c == '+' ? '-' : c == '/' ? '_' : (char)c;
	}
	r = std && other ? -EBADMSG : base64_decode(BASE64_URL, SPAN(url, n), out, size);
	explicit_bzero(url, n);
	return r;
}

static bool next_part(struct span *token, struct span *ret, bool last)
{
	const uint8_t *dot = token->n > 0 ? memchr(token->p, '.', token->n) : NULL;
	size_t n = dot ? (size_t)(dot - token->p) : token->n;

	if (!dot != last || n == 0)
		return false;
	*ret = SPAN(token->p, n);
	if (!last) {
		token->p += n + 1;
		token->n -= n + 1;
	}
	return true;
}

static void read_text(struct span object, const char *name, bool (*is_good)(struct span), char *ret, size_t size)
{
	struct span v;
	ssize_t n;

	ret[0] = '\0';
	if (!jread_member(object, name, &v))
		return;
	n = jread_string(v, (uint8_t *)ret, size - 1);
	if (n < 0 || !is_good(SPAN(ret, (size_t)n)))
		n = 0;
	ret[n] = '\0';
}

int jwt_read(struct span token, struct jwt *ret)
{
	struct span head, payload, signature, v, auth;
	uint8_t text[JWT_PAYLOAD_MAX];
	struct jwt j = { 0 };
	int r = -EBADMSG;
	ssize_t n;

	if (!next_part(&token, &head, false) || !next_part(&token, &payload, false) ||
	    !next_part(&token, &signature, true))
		return -EBADMSG;
	for (size_t i = 0; i < signature.n; i++)
		if (!base64_is_digit(BASE64_URL, signature.p[i]) && !memchr("+/=", signature.p[i], 3))
			return -EBADMSG;
	n = decode(head, text, sizeof(text));
	if (n < 0 || jread_check(SPAN(text, (size_t)n), DEPTH, &v) < 0 || jread_type(v) != JREAD_OBJECT)
		goto out;
	n = decode(payload, text, sizeof(text));
	if (n < 0 || jread_check(SPAN(text, (size_t)n), DEPTH, &v) < 0 || jread_type(v) != JREAD_OBJECT)
		goto out;
	j.signature = signature;
	if (jread_member(v, "exp", &auth) && (jread_int(auth, &j.exp) < 0 || j.exp < 0))
		j.exp = 0;
	if (jread_member(v, AUTH, &auth)) {
		read_text(auth, "chatgpt_account_id", jwt_is_account, j.account_id, sizeof(j.account_id));
		read_text(auth, "chatgpt_plan_type", jwt_is_plan, j.plan, sizeof(j.plan));
		j.fedramp = jread_member(auth, "chatgpt_account_is_fedramp", &v) && v.p[0] == 't';
	}
	*ret = j;
	r = 0;
out:
	explicit_bzero(text, sizeof(text));
	return r;
}
