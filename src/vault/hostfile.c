#include "vault/hostfile.h"

#include <errno.h>
#include <strings.h>

#include "base/jread.h"
#include "base/macros.h"
#include "vault/jwt.h"

#define NO_JSON "it is no JSON that can be read"
#define WRONG_TYPE "a member has a wrong type"
#define NO_TOKEN "there is no token in it"
#define BAD_TOKEN "a token in it is no single word of printable characters"

void login_done(struct login *l)
{
	secret_done(&l->access);
	secret_done(&l->refresh);
	secret_done(&l->id);
	secret_done(&l->key);
	l->info = (struct login_info){ 0 };
}

void host_keys_done(struct host_keys *k)
{
	for (size_t i = 0; i < PH_KINDS; i++) {
		secret_done(&k->key[i]);
		k->id[i] = NULL;
	}
	k->have = 0;
}

static int fault(const char **ret_why, const char *why, int r)
{
	*ret_why = r == -ENOMEM ? "the memory that can be locked is too small for it" : why;
	return r;
}

static bool is_word(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f)
			return false;
	return true;
}

static bool is_label(struct span s, const char *more)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i], low = c | 0x20;

		if (!((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || (c && strchr(more, c))))
			return false;
	}
	return s.n > 0 && s.n <= 64;
}

/* What must be a string or null. Null: an empty secret. */
static int read_token(struct span v, struct secret *ret, const char **ret_why)
{
	uint8_t *tmp;
	ssize_t n;
	int r;

	if (jread_type(v) == JREAD_NULL)
		return 0;
	if (jread_type(v) != JREAD_STRING)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	tmp = secret_alloc(v.n);
	if (!tmp)
		return fault(ret_why, NULL, -ENOMEM);
	n = jread_string(v, tmp, v.n);
	r = n < 0 || !is_word(SPAN(tmp, (size_t)n)) ? -EBADMSG : secret_set(ret, SPAN(tmp, (size_t)n));
	secret_free(tmp);
	return r < 0 ? fault(ret_why, BAD_TOKEN, r == -E2BIG ? -EBADMSG : r) : 0;
}

/* Of a member; absent as null. */
static int read_secret(struct span object, const char *name, struct secret *ret, const char **ret_why)
{
	struct span v;

	return jread_member(object, name, &v) ? read_token(v, ret, ret_why) : 0;
}

/* A label of at most 64 characters; anything else is as if it were not there. */
static void read_label(struct span object, const char *name, const char *more, char *ret)
{
	struct span v;
	ssize_t n;

	ret[0] = '\0';
	if (!jread_member(object, name, &v))
		return;
	n = jread_string(v, (uint8_t *)ret, 64);
	ret[n > 0 && is_label(SPAN(ret, (size_t)n), more) ? n : 0] = '\0';
}

/* The words of a string that are scopes, behind those in @ret. */
static void add_scopes(struct span text, char *ret)
{
	size_t at = strlen(ret), n;

	for (; text.n > 0; text = SPAN(text.p + n, text.n - n)) {
		for (n = 0; n < text.n && !memchr(" \t\r\n", text.p[n], 4); n++)
			;
		if (is_label(SPAN(text.p, n), ":_.-") && at + n + 2 <= HOSTFILE_SCOPES) {
			if (at > 0)
				ret[at++] = ' ';
			memcpy(ret + at, text.p, n);
			at += n;
			ret[at] = '\0';
		}
		n += n == 0;
	}
}

static int read_scopes(struct span object, char *ret, const char **ret_why)
{
	char text[HOSTFILE_SCOPES];
	struct span v, e;
	ssize_t n;

	if (!jread_member(object, "scopes", &v) || jread_type(v) == JREAD_NULL)
		return 0;
	if (jread_type(v) == JREAD_STRING) {
		n = jread_string(v, (uint8_t *)text, sizeof(text));
		add_scopes(SPAN(text, n > 0 ? (size_t)n : 0), ret);
		return 0;
	}
	if (jread_type(v) != JREAD_ARRAY)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	while (jread_next_element(&v, &e)) {
		n = jread_string(e, (uint8_t *)text, sizeof(text));
		add_scopes(SPAN(text, n > 0 ? (size_t)n : 0), ret);
	}
	return 0;
}

/* -ENOENT: an empty object. */
static int read_object(struct span text, struct span *ret, const char **ret_why)
{
	*ret_why = NULL;
	if (text.n > HOSTFILE_MAX)
		return fault(ret_why, "it is larger than 1 MiB", -EBADMSG);
	if (jread_check(text, HOSTFILE_DEPTH, ret) < 0)
		return fault(ret_why, NO_JSON, -EBADMSG);
	if (jread_type(*ret) != JREAD_OBJECT)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	return 0;
}

static int take_login(struct login *l, struct login *ret, int r)
{
	if (r < 0) {
		login_done(l);
		return r;
	}
	login_done(ret);
	*ret = *l;
	return 0;
}

static int anthropic(struct span o, struct login *l, const char **ret_why)
{
	struct span v;
	int r;

	if (!jread_member(o, "accessToken", &v))
		return fault(ret_why, NO_TOKEN, -EBADMSG);
	if (jread_string_is(v, ""))
		return -ENOENT;
	r = read_secret(o, "accessToken", &l->access, ret_why);
	if (r == 0)
		r = read_secret(o, "refreshToken", &l->refresh, ret_why);
	if (r == 0)
		r = read_scopes(o, l->info.scopes, ret_why);
	if (r < 0)
		return r;
	if (l->access.n == 0)
		return fault(ret_why, NO_TOKEN, -EBADMSG);
	if (jread_member(o, "expiresAt", &v) && jread_type(v) != JREAD_NULL) {
		if (jread_type(v) != JREAD_NUMBER)
			return fault(ret_why, WRONG_TYPE, -EBADMSG);
		l->info.has_expiry = true;
		if (jread_int(v, &l->info.exp_ms) < 0 || l->info.exp_ms < 0)
			l->info.exp_ms = 0;
	}
	read_label(o, "subscriptionType", "_.-", l->info.subscription);
	read_label(o, "rateLimitTier", "_.-", l->info.tier);
	l->info.mode = LOGIN_ANTHROPIC;
	return 0;
}

int hostfile_anthropic(struct span text, struct login *ret, const char **ret_why)
{
	struct login l = { 0 };
	struct span v, o;
	int r = read_object(text, &v, ret_why);

	if (r < 0)
		return r;
	/* Signing out takes the member away and leaves the others. */
	if (!jread_member(v, "claudeAiOauth", &o) || jread_type(o) == JREAD_NULL)
		return -ENOENT;
	if (jread_type(o) != JREAD_OBJECT)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	return take_login(&l, ret, anthropic(o, &l, ret_why));
}

static bool is_rfc3339(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!(s.p[i] >= '0' && s.p[i] <= '9') && !memchr("-:.TZ+", s.p[i], 6))
			return false;
	return s.n >= 20 && s.n <= 40 && s.p[4] == '-' && s.p[10] == 'T';
}

static int chatgpt(struct span v, struct login *l, const char **ret_why)
{
	struct jwt id = { 0 }, access = { 0 };
	struct span o, m;
	ssize_t n = -1;
	int r;

	if (!jread_member(v, "tokens", &o) || jread_type(o) == JREAD_NULL)
		return fault(ret_why, NO_TOKEN, -EBADMSG);
	if (jread_type(o) != JREAD_OBJECT)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	if (!jread_member(o, "access_token", &m))
		return fault(ret_why, NO_TOKEN, -EBADMSG);
	if (jread_string_is(m, ""))
		return -ENOENT;
	r = read_secret(o, "access_token", &l->access, ret_why);
	if (r == 0)
		r = read_secret(o, "refresh_token", &l->refresh, ret_why);
	if (r == 0)
		r = read_secret(o, "id_token", &l->id, ret_why);
	if (r < 0)
		return r;
	if (l->access.n == 0)
		return fault(ret_why, NO_TOKEN, -EBADMSG);
	(void)jwt_read(secret_span(&l->access), &access);
	(void)jwt_read(secret_span(&l->id), &id);
	l->info.exp_ms = access.exp * 1000;
	l->info.has_expiry = access.exp > 0;
	memcpy(l->info.plan, id.plan, sizeof(l->info.plan));
	l->info.fedramp = id.fedramp;
	if (jread_member(o, "account_id", &m))
		n = jread_string(m, (uint8_t *)l->info.account_id, 64);
	if (n <= 0 || !jwt_is_account(SPAN(l->info.account_id, (size_t)n)))
		memcpy(l->info.account_id, id.account_id, sizeof(l->info.account_id));
	else
		l->info.account_id[n] = '\0';
	n = jread_member(v, "last_refresh", &m) ? jread_string(m, (uint8_t *)l->info.last_refresh, 64) : 0;
	l->info.last_refresh[n > 0 && is_rfc3339(SPAN(l->info.last_refresh, (size_t)n)) ? n : 0] = '\0';
	l->info.mode = LOGIN_CHATGPT;
	return 0;
}

static int openai(struct span v, struct login *l, const char **ret_why)
{
	bool has_tokens, has_key, named;
	struct span mode, tokens, key;
	int r;

	named = jread_member(v, "auth_mode", &mode) && jread_type(mode) != JREAD_NULL;
	if (named && jread_type(mode) != JREAD_STRING)
		return fault(ret_why, WRONG_TYPE, -EBADMSG);
	if (named && !jread_string_is(mode, "chatgpt") && !jread_string_is(mode, "apikey"))
		return fault(ret_why, "its kind of login is not lent; sign in with `codex login`", -ENOTSUP);
	has_tokens = jread_member(v, "tokens", &tokens) && jread_type(tokens) != JREAD_NULL;
	has_key = jread_member(v, "OPENAI_API_KEY", &key) && jread_type(key) != JREAD_NULL && !jread_string_is(key, "");
	if (named ? jread_string_is(mode, "chatgpt") : has_tokens)
		return chatgpt(v, l, ret_why);
	if (!has_key)
		return -ENOENT;
	r = read_secret(v, "OPENAI_API_KEY", &l->key, ret_why);
	if (r == 0)
		l->info.mode = LOGIN_APIKEY;
	return r;
}

int hostfile_openai(struct span text, struct login *ret, const char **ret_why)
{
	struct login l = { 0 };
	struct span v;
	int r = read_object(text, &v, ret_why);

	return r < 0 ? r : take_login(&l, ret, openai(v, &l, ret_why));
}

static const struct {
	enum ph_kind kind;
	const char *id;
} opencode_ids[] = {
	{ PH_ZAI, "zai" },
	{ PH_ZAI_CP, "zai-coding-plan" },
	{ PH_ZHIPU, "zhipuai" },
	{ PH_ZHIPU_CP, "zhipuai-coding-plan" },
	{ PH_KIMI, "kimi-code-plan-cn" }, /* since OpenCode 1.18; goes before the old name */
	{ PH_KIMI, "kimi-for-coding" },
	{ PH_MOONSHOT, "moonshotai" },
	{ PH_MOONSHOT_CN, "moonshotai-cn" },
};

const char *hostfile_opencode_id(size_t i)
{
	return i < ARRAY_SIZE(opencode_ids) ? opencode_ids[i].id : NULL;
}

int hostfile_opencode(struct span text, struct host_keys *ret, const char **ret_why)
{
	struct host_keys k = { 0 };
	struct span v, e, type;
	int r = read_object(text, &v, ret_why);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(opencode_ids); i++) {
		enum ph_kind kind = opencode_ids[i].kind;

		if (k.id[kind] || !jread_member(v, opencode_ids[i].id, &e))
			continue;
		if (jread_type(e) != JREAD_OBJECT || !jread_member(e, "type", &type)) {
			*ret_why = WRONG_TYPE;
			continue;
		}
		if (!jread_string_is(type, "api"))
			continue;
		r = read_secret(e, "key", &k.key[kind], ret_why);
		if (r == 0 && k.key[kind].n > 0) {
			k.have |= PH_BIT(kind);
			k.id[kind] = opencode_ids[i].id;
		}
		r = r == -ENOMEM ? r : 0; /* one entry that is wrong takes no other with it */
	}
	if (r == 0 && k.have == 0)
		r = *ret_why ? -EBADMSG : -ENOENT;
	if (r < 0) {
		host_keys_done(&k);
		return r;
	}
	host_keys_done(ret);
	*ret = k;
	return 0;
}

/* Copilot's program puts lines of comment in front of its file. */
static struct span skip_comments(struct span s)
{
	size_t n;

	for (;;) {
		for (n = 0; n < s.n && memchr(" \t\r\n", s.p[n], 4); n++)
			;
		s = SPAN(s.p + n, s.n - n);
		if (s.n < 2 || memcmp(s.p, "//", 2) != 0)
			return s;
		for (n = 0; n < s.n && s.p[n] != '\n'; n++)
			;
		s = SPAN(s.p + n, s.n - n);
	}
}

/* Of {"https://github.com:LOGIN": TOKEN}, with quotes around it, that of the user who signed in last, else the first. */
static bool copilot_token(struct span file, struct span tokens, struct span *ret)
{
	static const char site[] = "\"https://github.com:";
	const size_t n = strlen(site);
	struct span user, last = { 0 }, name, v;
	bool found = false;

	if (jread_member(file, "lastLoggedInUser", &user) || jread_member(file, "last_logged_in_user", &user))
		(void)jread_member(user, "login", &last);
	while (jread_next_member(&tokens, &name, &v)) {
		bool is_last;

		if (name.n < n || memcmp(name.p, site, n) != 0)
			continue;
		is_last = last.n > 0 && name.n - n == last.n - 1 && memcmp(name.p + n, last.p + 1, last.n - 1) == 0;
		if (!found || is_last)
			*ret = v;
		found = true;
		if (is_last)
			break;
	}
	return found;
}

int hostfile_copilot(struct span text, struct login *ret, const char **ret_why)
{
	struct login l = { .info.mode = LOGIN_COPILOT };
	struct span o, tokens, v;
	int r = read_object(skip_comments(text), &o, ret_why);

	if (r < 0)
		return r;
	if (jread_member(o, "copilotTokens", &tokens) || jread_member(o, "copilot_tokens", &tokens)) {
		if (jread_type(tokens) != JREAD_OBJECT)
			return fault(ret_why, WRONG_TYPE, -EBADMSG);
		r = copilot_token(o, tokens, &v) ? read_token(v, &l.access, ret_why) : -ENOENT;
	} else {
		r = read_secret(o, "access_token", &l.access, ret_why);
	}
	if (r == 0 && l.access.n == 0)
		r = -ENOENT;
	if (r == 0 && !hostfile_copilot_takes(secret_span(&l.access), ret_why))
		r = -ENOTSUP;
	return take_login(&l, ret, r);
}

int hostfile_token(struct span s, struct secret *ret)
{
	int r;

	while (s.n > 0 && memchr(" \t\r\n", s.p[s.n - 1], 4))
		s.n--;
	while (s.n > 0 && memchr(" \t\r\n", s.p[0], 4))
		s = SPAN(s.p + 1, s.n - 1);
	if (s.n == 0)
		return -ENOENT;
	if (!is_word(s))
		return -EBADMSG;
	r = secret_set(ret, s);
	return r == -E2BIG ? -EBADMSG : r;
}

static bool begins(struct span s, const char *with)
{
	return s.n > strlen(with) && memcmp(s.p, with, strlen(with)) == 0;
}

bool hostfile_copilot_takes(struct span token, const char **ret_why)
{
	*ret_why = NULL;
	if (begins(token, "gho_") || begins(token, "ghu_") || begins(token, "github_pat_"))
		return true;
	*ret_why = begins(token, "ghp_")
			   ? "a classic token (ghp_) is not taken by Copilot; sign in with `gh auth login` or `copilot`"
			   : "Copilot takes only tokens that begin with gho_, ghu_ or github_pat_";
	return false;
}

bool hostfile_base_url_is(const char *url, const char *host)
{
	size_t n = strlen(host);

	if (*url == '\0')
		return true;
	if (strncasecmp(url, "https://", 8) != 0 || strncasecmp(url + 8, host, n) != 0)
		return false;
	url += 8 + n;
	if (strncmp(url, ":443", 4) == 0)
		url += 4;
	return *url == '\0' || *url == '/';
}
