/* The login of a registry: what a 401 asks for, and tokens. Several operations may wait for one token; a renewed login has a
 * new number, so that an operation which was refused with the former one only tries again. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/proxy.h"
#include "image/registry_int.h"

#define TOKEN_BODY_MAX (64 << 10)
#define TOKEN_S 60 /* distribution's token specification: the default of expires_in */
#define TOKEN_EARLY_S 5
#define CLIENT_ID "agent-vm"

void login_wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

static void login_set(struct registry *r, char *value, int64_t until_ns)
{
	login_wipe(&r->login);
	r->login = value;
	r->login_gen++;
	r->login_until_ns = until_ns;
}

static void login_over(struct registry *r, int error, const struct err *err)
{
	struct op *next;

	for (struct op *op = r->ops; op; op = next) {
		next = op->next;
		if (op->state != OP_LOGIN)
			continue;
		if (error < 0) {
			op->err = *err;
			op_end(op, error);
		} else {
			op->state = OP_READY;
			op->due_ns = 0;
		}
	}
}

/* A token goes into a header: visible ASCII only. */
static bool token_is_good(const char *s)
{
	if (!s || *s == '\0')
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false;
	return true;
}

static int token_take(struct registry *r, const struct http_answer *a, struct err *err)
{
	json_t *j = json_loadb(a->body ? a->body : "", a->n_body, 0, NULL);
	const char *token = json_string_value(json_object_get(j, "token"));
	const json_t *life = json_object_get(j, "expires_in");
	json_int_t seconds = json_is_integer(life) ? json_integer_value(life) : TOKEN_S;
	int code = 0;

	if (!token)
		token = json_string_value(json_object_get(j, "access_token"));
	seconds = MIN(MAX(seconds, TOKEN_S), 24 * 3600);
	if (token_is_good(token))
		login_set(r, xasprintf("Bearer %s", token), now_ns() + (seconds - TOKEN_EARLY_S) * SECOND_NS);
	else
		code = err_set(err, -EPROTO, "%s: its token server gave no token that can be used", r->ref->domain);
	json_decref(j);
	return code;
}

static void token_again(struct registry *r, int64_t wait_ns, int code, const struct err *err)
{
	if (r->deadline_ns != 0 || ++r->token_tries >= REGISTRY_TRIES) {
		login_over(r, code, err);
		return;
	}
	r->token_due_ns = now_ns() + (wait_ns > 0 ? wait_ns : registry_backoff_ns(r->token_tries));
}

static void on_token(struct http_req *req)
{
	struct registry *r = req->ctx;
	const struct http_answer *a = &req->answer;
	struct err err = req->err;
	int code = 0;

	r->token_flying = false;
	if (req->fault == HTTP_CUT) {
		token_again(r, 0, -EIO, &err);
		return;
	}
	if (req->fault != HTTP_FINE) {
		login_over(r, req->fault == HTTP_NO_ADDRESS ? -EHOSTUNREACH :
			      req->fault == HTTP_REFUSED    ? -ECONNREFUSED :
							      -EPROTO, &err);
		return;
	}
	if (a->status == 200)
		code = token_take(r, a, &err);
	else if (a->status == 429)
		code = registry_limited(r, a, &err);
	else if (a->status == 400 || a->status == 401 || a->status == 403 || a->status == 404)
		code = registry_refused(r, a, &err);
	else
		code = err_set(&err, a->status >= 500 ? -EIO : -EPROTO, "%s: its token server answers %ld; try again later",
			       r->ref->domain, a->status);
	if ((code == -EIO || code == -EBUSY) && a->retry_after_s <= RETRY_AFTER_MAX_S)
		token_again(r, a->retry_after_s * SECOND_NS, code, &err);
	else
		login_over(r, code, &err);
}

/* Who answered in plain may be anybody between. Then a login goes to nobody but the host that the user named, and there only
 * by https, whose certificate says that it is it; this machine's own registries excepted. Without a login a token may be
 * asked for by plain HTTP where the registry itself is spoken to. @host as in a URL, with brackets around IPv6. */
static bool realm_is_good(const struct registry *r, const char *scheme, const char *host, const char *port)
{
	bool has_login = r->auth->user || r->auth->identity, here = host_is_loopback(r->host), same;
	AUTO_FREE(char, bare);

	bare = *host == '[' ? xstrndup(host + 1, strcspn(host + 1, "]")) : xstrdup(host);
	same = strcasecmp(bare, r->host) == 0;
	if (strcmp(scheme, "https") == 0)
		return !has_login || !r->plain || here || same;
	same &= strcmp(port, r->has_port ? strrchr(ref_api_host(r->ref), ':') + 1 : "80") == 0;
	return strcmp(scheme, "http") == 0 && r->plain && ((here && host_is_loopback(bare)) || (!has_login && same));
}

/* The realm is the registry's word. No user in it. */
static int realm_check(struct registry *r, CURLU *u, struct err *err)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
	AUTO_FREE(char, shown);
	bool ok;

	ok = curl_url_set(u, CURLUPART_URL, r->ask.realm, 0) == CURLUE_OK &&
	     curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	     curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	     curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
	     curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK && realm_is_good(r, scheme, host, port);
	shown = str_escape(r->ask.realm, MIN(strlen(r->ask.realm), (size_t)200));
	if (!ok && scheme && !user && strcmp(scheme, "https") == 0)
		(void)err_set(err, -EACCES, "%s: names its token server %s over plain http; no login is sent there; the registry "
			      "needs https", r->ref->domain, shown);
	else if (!ok)
		(void)err_set(err, -EACCES, "%s: its token server %s is not https; no login is sent there", r->ref->domain, shown);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(user);
	return ok ? 0 : -EACCES;
}

static void append(CURLU *u, const char *name, const char *value)
{
	AUTO_FREE(char, pair);

	pair = xasprintf("%s=%s", name, value);
	if (curl_url_set(u, CURLUPART_QUERY, pair, CURLU_APPENDQUERY | CURLU_URLENCODE) != CURLUE_OK)
		abort(); /* only for lack of memory: the URL was parsed before */
}

static void form_add(char **form, const char *name, const char *value)
{
	char *enc = curl_easy_escape(NULL, value, 0), *old = *form;

	if (!enc)
		abort(); /* out of memory */
	*form = xasprintf("%s%s%s=%s", old ? old : "", old ? "&" : "", name, enc);
	login_wipe(&old);
	explicit_bzero(enc, strlen(enc));
	curl_free(enc);
}

/* Ask the realm (distribution-spec's token authentication; with an identity token its OAuth2 form). The scope is always
 * ours: some registries put a placeholder into the challenge. */
static int token_aim(struct registry *r, struct http_req *q, struct err *err)
{
	AUTO_FREE(char, scope);
	CURLU *u = curl_url();
	char *url = NULL;
	int code;

	if (!u)
		abort(); /* out of memory */
	scope = xasprintf("repository:%s:pull", r->ref->path);
	code = realm_check(r, u, err);
	if (code == 0)
		(void)curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
	if (code == 0 && r->auth->identity) {
		q->method = "POST";
		form_add(&q->form, "grant_type", "refresh_token");
		if (r->ask.service)
			form_add(&q->form, "service", r->ask.service);
		form_add(&q->form, "scope", scope);
		form_add(&q->form, "refresh_token", r->auth->identity);
		form_add(&q->form, "client_id", CLIENT_ID);
		r->sent = true;
	} else if (code == 0) {
		q->method = "GET";
		if (r->ask.service)
			append(u, "service", r->ask.service);
		append(u, "scope", scope);
		if (r->auth->user) {
			char *basic = auth_basic(r->auth->user, r->auth->password);

			q->auth = xasprintf("Basic %s", basic);
			login_wipe(&basic);
			r->sent = true;
		}
	}
	if (code == 0 && curl_url_get(u, CURLUPART_URL, &url, 0) != CURLUE_OK)
		abort();
	if (url)
		q->url = xstrdup(url);
	curl_free(url);
	curl_url_cleanup(u);
	return code;
}

void login_token_start(struct registry *r)
{
	struct err err;
	int code;

	r->token_due_ns = 0;
	http_req_done(&r->token);
	r->token.body_max = TOKEN_BODY_MAX;
	r->token.max_ms = registry_left_ms(r, DOCUMENT_MS);
	r->token.done = on_token;
	r->token.ctx = r;
	code = token_aim(r, &r->token, &err);
	if (code < 0) {
		login_over(r, code, &err);
		return;
	}
	r->token_flying = true;
	http_start(r->http, &r->token);
}

void login_wait(struct op *op)
{
	struct registry *r = op->reg;

	op->state = OP_LOGIN;
	if (!r->token_flying && r->token_due_ns == 0) {
		r->token_tries = 0;
		login_token_start(r);
	}
}

/* Basic: the login itself goes to the registry. */
static void login_basic(struct op *op)
{
	struct registry *r = op->reg;
	char *basic;

	if (r->plain && !host_is_loopback(r->host)) {
		op_end(op, err_set(&op->err, -EACCES, "%s: wants user and password over plain http; not sent; the registry needs "
				   "https", r->ref->domain));
		return;
	}
	basic = auth_basic(r->auth->user, r->auth->password);
	login_set(r, xasprintf("Basic %s", basic), 0);
	login_wipe(&basic);
	r->sent = true;
	op->state = OP_READY;
	op->due_ns = 0;
}

/* What the registry asks for; a token first, which works without a login too. */
static enum challenge_scheme challenge_pick(struct registry *r, const struct http_answer *a)
{
	enum challenge_scheme best = CHALLENGE_OTHER;

	for (size_t i = 0; i < a->n_www; i++) {
		struct challenge c[CHALLENGES_MAX];
		int n = challenge_parse(a->www[i], strlen(a->www[i]), c);

		for (int k = 0; k < n; k++) {
			if (c[k].scheme == CHALLENGE_BEARER && c[k].realm && best != CHALLENGE_BEARER) {
				challenge_done(&r->ask);
				r->ask = c[k];
				c[k] = (struct challenge){ 0 };
				best = CHALLENGE_BEARER;
			} else if (c[k].scheme == CHALLENGE_BASIC && best == CHALLENGE_OTHER) {
				best = CHALLENGE_BASIC;
			}
			challenge_done(&c[k]);
		}
	}
	return best;
}

void login_asked(struct op *op)
{
	struct registry *r = op->reg;

	if (op->login_gen != r->login_gen) {
		op->state = OP_READY; /* refused with an older login than there is now */
		op->due_ns = 0;
		return;
	}
	if (op->renewed) {
		op_fail(op);
		return;
	}
	op->renewed = true;
	auth_want(r->auth);
	switch (challenge_pick(r, &op->req.answer)) {
	case CHALLENGE_BEARER:
		login_wait(op);
		return;
	case CHALLENGE_BASIC:
		if (r->auth->user)
			login_basic(op);
		else
			op_fail(op);
		return;
	case CHALLENGE_OTHER:
		break;
	}
	op_end(op, err_set(&op->err, -EACCES, "%s: refuses access (401) and asks for no kind of login that is known here (Bearer, "
			   "Basic)", r->ref->domain));
}
