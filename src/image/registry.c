/* How an operation goes on:
 *
 *	READY ──(due)── FLYING ──┬── 2xx ─────────────────────────────── DONE
 *	  ^                      ├── 401, first time ── LOGIN ──(token)── READY
 *	  ├──(wait, less tries)──┼── cut, 408, 429, 5xx, short body
 *	  └──(other scheme)──────┼── no TLS there, and plain HTTP is allowed
 *	                         └── anything else ───────────────────── DONE with an error
 *
 * Nobody logs in before being asked. One login serves all operations: its number tells whether an operation was refused
 * with the present one or an older one. Every try begins at the registry, never at the place of a redirect, whose address
 * is signed for a short time. */
#include "image/registry.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/registry_int.h"


struct registry *registry_new(struct http *http, const struct ref *ref, struct auth *auth, int64_t deadline_ns)
{
	struct registry *r = xcalloc(1, sizeof(*r));
	const char *host = ref_api_host(ref), *end;

	*r = (struct registry){ .http = http, .ref = ref, .auth = auth, .deadline_ns = deadline_ns };
	if (*host == '[') {
		end = strchr(host, ']');
		r->host = xstrndup(host + 1, (size_t)(end - host - 1));
		r->has_port = end[1] == ':';
	} else {
		end = strchrnul(host, ':');
		r->host = xstrndup(host, (size_t)(end - host));
		r->has_port = *end == ':';
	}
	return r;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	http_req_done(&r->token);
	challenge_done(&r->ask);
	login_wipe(&r->login);
	free(r->host);
	free(r);
}

int content_range_parse(const char *s, uint64_t *ret_first, uint64_t *ret_total)
{
	AUTO_FREE(char, copy);
	uint64_t first, last, total = UINT64_MAX;
	char *dash, *slash;

	if (strncasecmp(s, "bytes ", 6) != 0)
		return -EBADMSG;
	copy = xstrdup(s + 6);
	dash = strchr(copy, '-');
	slash = dash ? strchr(dash, '/') : NULL;
	if (!slash)
		return -EBADMSG;
	*dash = *slash = '\0';
	if (str_u64(copy, INT64_MAX, &first) < 0 || str_u64(dash + 1, INT64_MAX, &last) < 0 || last < first)
		return -EBADMSG;
	if (strcmp(slash + 1, "*") != 0 && (str_u64(slash + 1, INT64_MAX, &total) < 0 || total <= last))
		return -EBADMSG;
	*ret_first = first;
	*ret_total = total;
	return 0;
}

/* --- ends --- */

void op_end(struct op *op, int error)
{
	struct op **p = &op->reg->ops;

	while (*p && *p != op)
		p = &(*p)->next;
	if (*p)
		*p = op->next;
	op->error = error;
	op->state = OP_DONE;
}

/* The registry's own code for a refusal, such as DENIED; "" if it says none. It is shown, so it must be plain. */
static void error_code(const struct http_answer *a, char ret[32])
{
	json_t *j = a->body ? json_loadb(a->body, a->n_body, 0, NULL) : NULL;
	const char *code = json_string_value(json_object_get(json_array_get(json_object_get(j, "errors"), 0), "code"));

	ret[0] = '\0';
	if (code && strlen(code) < 31 && strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(code)) {
		ret[0] = ' ';
		memcpy(ret + 1, code, strlen(code) + 1);
	}
	json_decref(j);
}

int registry_refused(struct registry *r, const struct http_answer *a, struct err *err)
{
	const char *domain = r->ref->domain;
	char code[32];

	error_code(a, code);
	if (!r->sent && r->auth->fault)
		return err_set(err, -EACCES, "%s/%s: access refused (%ld%s) without a login, and there is none to be had: %s",
			       domain, r->ref->path, a->status, code, r->auth->fault);
	return err_set(err, -EACCES, "%s/%s: access refused (%ld%s), %s%s; log in with: docker login %s (or skopeo login %s)",
		       domain, r->ref->path, a->status, code, r->sent ? "with the login from " : "without a login",
		       r->sent ? r->auth->from : "", domain, domain);
}

int registry_limited(struct registry *r, const struct http_answer *a, struct err *err)
{
	AUTO_FREE(char, when);
	bool hub = strcmp(r->ref->domain, REF_HUB) == 0;

	when = a->retry_after_s > 0 ? xasprintf("in %ld s", a->retry_after_s) : xstrdup("later");
	return err_set(err, -EBUSY, "%s: the registry limits requests (%ld); try again %s%s", r->ref->domain, a->status, when,
		       hub && !r->sent ? "; a login raises the limit: docker login" : "");
}

static int not_there(struct op *op, struct err *err)
{
	AUTO_FREE(char, full);

	full = ref_full(op->reg->ref);
	if (!op->manifest)
		return err_set(err, -ENOENT, "%s: the registry lacks its %s (404); pull again, or another tag", full, op->what);
	return err_set(err, -ENOENT, "%s: no such tag or repository, or it is private (404); check the name, or name another "
		       "with --image HOST/NAME:TAG or HOST/NAME@sha256:DIGEST", full);
}

void op_fail(struct op *op)
{
	const struct http_answer *a = &op->req.answer;
	struct registry *r = op->reg;
	int code;

	if (op->url) {
		op_end(op, err_set(&op->err, a->status == 404 ? -ENOENT : a->status >= 500 ? -EIO : -EPROTO,
				   "%s: %s: answers %ld; check its name, or try again later", r->ref->domain, op->what,
				   a->status));
		return;
	}
	switch (a->status) {
	case 401:
	case 403:
		if (op->req.elsewhere)
			code = err_set(&op->err, -EACCES, "%s: %s: the storage that the registry sends to refuses it (%ld); "
				       "pull again later", r->ref->domain, op->what, a->status);
		else
			code = registry_refused(r, a, &op->err);
		break;
	case 404:
		code = not_there(op, &op->err);
		break;
	case 429:
		code = registry_limited(r, a, &op->err);
		break;
	default:
		code = err_set(&op->err, a->status >= 500 ? -EIO : -EPROTO, "%s: %s: answers %ld; %s", r->ref->domain, op->what,
			       a->status, a->status >= 500 ? "try again later" : "is it a registry?");
	}
	op_end(op, code);
}

/* Doubling from 1 s, with up to a quarter more, so that many clients do not come back at once. */
int64_t registry_backoff_ns(int tries)
{
	int64_t ns = SECOND_NS << MIN(tries - 1, 6);
	uint16_t dice = 0;

	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) < 0)
		dice = 0;
	return ns + ns / 4 * dice / UINT16_MAX;
}

/* Another try, or the end with what op->err says. */
static void op_again(struct op *op, int64_t wait_ns, int code)
{
	if (op->reg->deadline_ns != 0 || ++op->tries >= REGISTRY_TRIES) {
		op_end(op, code);
		return;
	}
	op->due_ns = now_ns() + (wait_ns > 0 ? wait_ns : registry_backoff_ns(op->tries));
	op->state = OP_READY;
	log_info("%s: try %d failed: %s", op->what, op->tries, op->err.text);
}

/* --- operations --- */

int registry_left_ms(const struct registry *r, int most_ms)
{
	int64_t left = r->deadline_ns ? (r->deadline_ns - now_ns()) / 1000000 : most_ms;

	return (int)MAX(1, MIN(left, (int64_t)most_ms));
}

/* What a 2xx announces about a blob, before its first byte. -ESTALE: begin again at the first byte. */
static int blob_answer_check(struct op *op)
{
	const struct http_answer *a = &op->req.answer;
	uint64_t first, total, size = blob_size(op->blob);
	char got[64];

	if (a->status == 206) {
		if (content_range_parse(a->range, &first, &total) < 0 || first != op->req.from ||
		    (total != UINT64_MAX && total != size))
			return -ESTALE;
		return 0;
	}
	if (a->status != 200)
		return -EPROTO;
	if (a->has_length && a->length != size) {
		(void)snprintf(got, sizeof(got), "%llu bytes", (unsigned long long)a->length);
		return blob_refuse(op->blob, got, &op->err);
	}
	if (blob_pos(op->blob) > 0)
		blob_rewind(op->blob);
	return 0;
}

static int on_blob(struct http_req *req, const void *p, size_t n)
{
	struct op *op = req->ctx;
	int r = op->checked ? 0 : blob_answer_check(op);

	op->checked = true;
	if (r == 0)
		r = blob_write(op->blob, p, n, &op->err);
	if (r == 0 && blob_pos(op->blob) > op->best) {
		op->best = blob_pos(op->blob);
		op->tries = 0;
		op->renewed = false;
	}
	return r;
}

static void blob_over(struct op *op)
{
	int r;

	if (blob_pos(op->blob) < blob_size(op->blob)) {
		/* Also when a body of no bytes came, which nobody has checked. */
		(void)err_set(&op->err, -EIO, "%s: %s: ended after %llu of %llu bytes; try again later", op->reg->ref->domain,
			      op->what, (unsigned long long)blob_pos(op->blob), (unsigned long long)blob_size(op->blob));
		op_again(op, 0, -EIO);
		return;
	}
	r = blob_finish(op->blob, &op->err);
	op_end(op, r);
}

static void document_over(struct op *op)
{
	struct http_answer *a = &op->req.answer;

	memcpy(op->type, a->type, sizeof(op->type));
	memcpy(op->digest, a->digest, sizeof(op->digest));
	op->length = a->has_length ? a->length : UINT64_MAX;
	op->body = TAKE_PTR(a->body);
	op->n_body = a->n_body;
	if (!op->body)
		op->body = xstrdup("");
	op_end(op, 0);
}

static void on_fault(struct op *op)
{
	struct registry *r = op->reg;
	struct http_req *q = &op->req;

	if (q->fault == HTTP_SINK && q->sink_r == -ESTALE) {
		(void)err_set(&op->err, -EPROTO, "%s: %s: sends another part than was asked for", r->ref->domain, op->what);
		op->no_range = true;
		blob_rewind(op->blob);
		op_again(op, 1, -EPROTO);
		return;
	}
	if (q->fault == HTTP_SINK && op->blob) {
		op_end(op, q->sink_r);
		return;
	}
	op->err = q->err;
	switch (q->fault) {
	case HTTP_NOT_TLS:
	case HTTP_REFUSED:
		if (!op->url && !r->settled && !r->plain && http_plain_ok(r->http, r->host) &&
		    (q->fault == HTTP_NOT_TLS || !r->has_port)) {
			log_info("%s: speaks no TLS, and plain http is allowed there", r->ref->domain);
			r->plain = true;
			op->state = OP_READY;
			op->due_ns = 0;
			return;
		}
		/* In the middle of a pull it may come back. */
		if (r->settled)
			op_again(op, 0, q->fault == HTTP_REFUSED ? -ECONNREFUSED : -EPROTO);
		else
			op_end(op, q->fault == HTTP_REFUSED ? -ECONNREFUSED : -EPROTO);
		return;
	case HTTP_NO_ADDRESS:
		if (r->settled)
			op_again(op, 0, -EHOSTUNREACH);
		else
			op_end(op, -EHOSTUNREACH);
		return;
	case HTTP_CUT:
		op_again(op, 0, -EIO);
		return;
	case HTTP_SINK:
		op_end(op, q->sink_r);
		return;
	default:
		op_end(op, -EPROTO);
	}
}

static void on_op(struct http_req *req)
{
	struct op *op = req->ctx;
	const struct http_answer *a = &req->answer;

	assert(op->state == OP_FLYING);
	if (req->fault != HTTP_FINE) {
		on_fault(op);
		return;
	}
	op->reg->settled = true;
	if (a->status == 200 || (a->status == 206 && op->blob)) {
		if (op->blob)
			blob_over(op);
		else
			document_over(op);
	} else if (a->status == 401 && !req->elsewhere && !op->url) {
		login_asked(op);
	} else if (a->status == 405 && op->head) {
		op->head = false;
		op->state = OP_READY;
		op->due_ns = 0;
	} else if (a->status == 416 && op->blob) {
		(void)err_set(&op->err, -EPROTO, "%s: %s: has not the part that is missing (416)", op->reg->ref->domain, op->what);
		op->no_range = true;
		blob_rewind(op->blob);
		op_again(op, 1, -EPROTO);
	} else if (a->status == 408 || a->status == 429 || a->status >= 500) {
		if (a->status == 429)
			(void)registry_limited(op->reg, a, &op->err);
		else
			(void)err_set(&op->err, -EIO, "%s: %s: answers %ld; try again later", op->reg->ref->domain, op->what,
				      a->status);
		if (a->retry_after_s > RETRY_AFTER_MAX_S)
			op_end(op, a->status == 429 ? -EBUSY : -EIO);
		else
			op_again(op, a->retry_after_s * SECOND_NS, a->status == 429 ? -EBUSY : -EIO);
	} else {
		op_fail(op);
	}
}

static void op_start(struct op *op)
{
	struct registry *r = op->reg;
	struct http_req *q = &op->req;

	if (r->login && r->login_until_ns != 0 && now_ns() >= r->login_until_ns) {
		login_wipe(&r->login); /* ended: the known realm is asked again at once */
		r->login_gen++;
	}
	if (!op->url && !r->login && r->ask.realm) {
		login_wait(op);
		return;
	}
	http_req_done(q);
	q->method = op->head ? "HEAD" : "GET";
	q->url = op->url ? xstrdup(op->url) : xasprintf("%s://%s/v2/%s/%s", r->plain ? "http" : "https", ref_api_host(r->ref), r->ref->path, op->path);
	q->auth = r->login && !op->url ? xstrdup(r->login) : NULL;
	q->accept = op->manifest ? manifest_accept : NULL;
	q->from = op->blob && !op->no_range ? blob_pos(op->blob) : 0;
	q->body_max = MANIFEST_MAX;
	q->max_ms = r->deadline_ns ? registry_left_ms(r, DOCUMENT_MS) : op->blob ? 0 : DOCUMENT_MS;
	q->sink = op->blob ? on_blob : NULL;
	q->done = on_op;
	q->ctx = op;
	op->login_gen = r->login_gen;
	op->checked = false;
	op->state = OP_FLYING;
	http_start(r->http, q);
}

void registry_submit(struct registry *r, struct op *op)
{
	op->reg = r;
	op->state = OP_READY;
	op->best = op->blob ? blob_pos(op->blob) : 0;
	op->next = r->ops;
	r->ops = op;
}

void registry_step(struct registry *r, struct pollfd *fds, unsigned int n_fds, int timeout_ms)
{
	int64_t now = now_ns(), next = now + (int64_t)timeout_ms * 1000000;
	struct op *after;

	if (r->deadline_ns != 0)
		next = MIN(next, r->deadline_ns);
	for (struct op *op = r->ops; op; op = after) {
		after = op->next;
		if (r->deadline_ns != 0 && now >= r->deadline_ns) {
			http_req_done(&op->req);
			op_end(op, err_set(&op->err, -ETIMEDOUT, "%s: no answer in time", r->ref->domain));
		} else if (op->state == OP_READY && op->due_ns <= now)
			op_start(op);
		else if (op->state == OP_READY)
			next = MIN(next, op->due_ns);
	}
	if (r->token_due_ns != 0 && r->token_due_ns <= now)
		login_token_start(r);
	else if (r->token_due_ns != 0)
		next = MIN(next, r->token_due_ns);
	http_step(r->http, fds, n_fds, (int)MAX((next - now) / 1000000, 0));
}

void op_done(struct op *op)
{
	if (op->reg && op->state != OP_DONE)
		op_end(op, -ECANCELED);
	http_req_done(&op->req);
	free(op->body);
	op->body = NULL;
}
