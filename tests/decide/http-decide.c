/* http-decide [--cuts] [--but ID]... VECTORS.json: requests of the guest over a file of cases (credentials page 12),
 *through everything that decides: gate's parser and judge, the message between the processes, vault's own check and the
 *head that goes out. http-fixture.json stands beside the file. Prints "ID VERDICT [STATUS CODE]" a line; exit status 0
 *when all agree with their "expect", 1 when some do not, 2 for a bad file.
 *
 *	--cuts		each input also in two pieces, cut at every byte
 *	--but ID	this one is known to differ; that it agrees is an error, too */
#include "http-decide.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/macros.h"
#include "base/str.h"
#include "gate/http1.h"
#include "vault/recheck.h"
#include "vault/reqhead.h"

#define IO_MAX (4 << 20)

__attribute__((weak)) int decide_response(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
__attribute__((weak)) int decide_refresh(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
__attribute__((weak)) int decide_hostfile(const struct decide_case *c, const json_t *expect, struct decide_result *ret);

static const char *str(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static void put(struct buf *b, struct span s)
{
	if (buf_put(b, s.p, s.n) < 0) {
		(void)fprintf(stderr, "http-decide: more than %d bytes\n", IO_MAX);
		exit(2);
	}
}

/* ---- the case ---- */

/* Text with $PAD(n), which stands for n times "a". */
static void put_text(struct buf *b, const char *s, size_t n)
{
	static const char pad[] = "$PAD(";
	const char *at;

	while ((at = memmem(s, n, pad, strlen(pad)))) {
		char digits[16] = "";
		const char *end = memchr(at, ')', n - (size_t)(at - s));
		uint64_t count;

		if (!end || (size_t)(end - at) - strlen(pad) >= sizeof(digits))
			break;
		memcpy(digits, at + strlen(pad), (size_t)(end - at) - strlen(pad));
		if (str_u64(digits, IO_MAX, &count) < 0)
			break;
		put(b, SPAN(s, (size_t)(at - s)));
		while (count-- > 0)
			put(b, SPAN("a", 1));
		n -= (size_t)(end + 1 - s);
		s = end + 1;
	}
	put(b, SPAN(s, n));
}

static void put_json_text(struct buf *b, const json_t *v)
{
	put_text(b, json_string_value(v), json_string_length(v));
}

static bool put_base64(struct buf *b, const json_t *v)
{
	struct span s = SPAN(json_string_value(v), json_string_length(v));
	uint8_t *room = buf_room(b, s.n + 1);
	ssize_t n = room ? base64_decode(BASE64_STD, s, room, s.n + 1) : -1;

	if (n < 0)
		return false;
	buf_grew(b, (size_t)n);
	return true;
}

/* Which kinds a word of "lent" means: a provider, or one kind. */
static uint32_t lent_kinds(const char *word)
{
	uint32_t kinds = 0;

	for (int k = 0; k < PH_KINDS; k++) {
		const char *name = ph_kind_str[k];
		bool api = k >= PH_ZAI;

		if (strcmp(word, name) == 0 ||
		    (strcmp(word, "anthropic") == 0 && (str_starts(name, "claude") || str_starts(name, "anthropic"))) ||
		    (strcmp(word, "openai") == 0 &&
		     (str_starts(name, "codex") || str_starts(name, "opencode") || str_starts(name, "openai"))) ||
		    (strcmp(word, "github") == 0 && k == PH_GH) || (strcmp(word, "opencode") == 0 && api))
			kinds |= PH_BIT(k);
	}
	return kinds;
}

/* A host that is signed out, or whose token is over and whose program does not renew it. */
static bool is_unavailable(const struct decide_case *c, enum ph_kind kind)
{
	const char *prov = kind <= PH_CLAUDE_R						    ? "anthropic"
			   : ph_is_jwt(kind) || kind == PH_CODEX_R || kind == PH_OPENCODE_R ? "openai"
											    : NULL;
	const json_t *host = prov ? json_object_get(json_object_get(c->context, "hosts"), prov) : NULL, *left;

	if (!host)
		return false;
	left = json_object_get(host, "remaining_s");
	return json_is_false(json_object_get(host, "signed_in")) ||
	       (json_is_number(left) && json_number_value(left) <= 0 && json_object_get(host, "program") &&
		strcmp(str(host, "program"), "rotates") != 0);
}

/* The host that the input itself names. */
static struct span named_host(const struct decide_case *c)
{
	static const char host[] = "\r\nHost: ", authority[] = ":authority";
	struct span in = buf_span(&c->input);
	const uint8_t *at = in.n > 0 ? memmem(in.p, in.n, host, strlen(host)) : NULL, *end;
	const json_t *e;
	size_t i;

	json_array_foreach(
		json_object_get(c->context, "fields"), i,
		e) if (json_is_string(json_array_get(e, 0)) &&
		       strcmp(json_string_value(json_array_get(e, 0)), authority) == 0 &&
		       json_is_string(json_array_get(e, 1))) return span_str(json_string_value(json_array_get(e, 1)));
	end = at ? memchr(at + 2, '\r', in.n - (size_t)(at - in.p) - 2) : NULL;
	return end ? SPAN(at + strlen(host), (size_t)(end - at) - strlen(host)) : SPAN("", 0);
}

/* The list of the cases' launch. */
static struct gh_scope listed;

static bool read_case(const json_t *v, const json_t *fixture, struct decide_case *c)
{
	const json_t *names = json_object_get(fixture, "placeholders"), *slots = json_object_get(fixture, "slots"),
		     *secrets = json_object_get(fixture, "secrets"), *context = json_object_get(v, "context"), *e,
		     *lent = json_object_get(context, "lent");
	const char *verb = json_object_get(context, "verb") ? str(context, "verb") : "shell";
	uint32_t kinds = lent ? 0 : PH_ALL;
	size_t i;

	c->fixture = fixture;
	c->context = context;
	c->kind = str(v, "kind");
	buf_init(&c->input, IO_MAX);
	if (json_is_string(json_object_get(v, "input_b64")) ? !put_base64(&c->input, json_object_get(v, "input_b64"))
							    : !json_is_string(json_object_get(v, "input")))
		return false;
	if (json_is_string(json_object_get(v, "input")))
		put_json_text(&c->input, json_object_get(v, "input"));
	json_array_foreach(lent, i, e) kinds |= json_is_string(e) ? lent_kinds(json_string_value(e)) : 0;
	kinds &= prov_verb_kinds(verb);
	for (int k = 0; k < PH_KINDS; k++) {
		const char *ph = json_string_value(json_object_get(names, ph_kind_str[k]));
		const json_t *slot = json_object_get(slots, ph_kind_str[k]);
		const char *secret =
			str(secrets, json_array_size(slot) == 3 ? json_string_value(json_array_get(slot, 2)) : "");

		if (!ph || !(kinds & PH_BIT(k)))
			continue;
		ph = ph_is_jwt((enum ph_kind)k) && strrchr(ph, '.') ? strrchr(ph, '.') + 1 : ph;
		if (strlen(ph) >= PH_MAX)
			return false;
		memcpy(c->judge.set.v[k], ph, strlen(ph) + 1);
		c->judge.launch.lent |= PH_BIT(k);
		c->secret[k] = span_str(secret);
		c->unavailable[k] = is_unavailable(c, (enum ph_kind)k);
	}
	json_array_foreach(json_object_get(context, "api"), i,
			   e) if (!json_is_string(e) ||
				  prov_open(&c->judge.launch, span_str(json_string_value(e))) < 0) return false;
	c->judge.github = &listed;
	c->host = prov_host_find(json_object_get(context, "sni") ? span_str(str(context, "sni")) : named_host(c));
	c->account = span_str(str(fixture, "account_id"));
	if (strcmp(str(context, "write"), "one byte at a time") == 0)
		c->cut = SIZE_MAX;
	return true;
}

/* ---- gate and vault, without their processes ---- */

static void refused(const struct decide_case *c, const struct refusal *f, struct span path, bool is_head,
		    struct decide_result *r)
{
	r->verdict = "refuse";
	r->status = f->status;
	r->code = refusal_code_str[f->code];
	r->close = f->close;
	if (refusal_http1(f, c->host, path, is_head, &r->answer) < 0)
		exit(2);
}

/* Writes the message, reads it as vault does, judges again and writes the head. False: refused after all. */
static bool forward(const struct decide_case *c, const struct judged *d, const struct request *q,
		    struct decide_result *r)
{
	static struct httpmsg_request m;
	static uint8_t head[REQHEAD_MAX];
	struct span secret[HTTPMSG_CREDS] = { 0 };
	enum refusal_code code = REFUSAL_NONE;
	struct refusal f;
	struct buf msg;
	ssize_t n;

	buf_init(&msg, HTTPMSG_MAX);
	if (judge_message(d, q, 1, 1, &msg) < 0 || httpmsg_request_parse(buf_span(&msg), &m) < 0) {
		(void)fprintf(stderr, "http-decide: vault cannot read the message of gate\n");
		exit(2);
	}
	code = recheck(&c->judge.launch, &m);
	for (size_t i = 0; code == REFUSAL_NONE && i < HTTPMSG_CREDS && m.w.kind[i] != HTTPMSG_NO_CRED; i++) {
		secret[i] = c->secret[m.w.kind[i]];
		if (c->unavailable[m.w.kind[i]] || secret[i].n == 0)
			code = REFUSAL_CREDENTIAL_UNAVAILABLE;
	}
	if (code != REFUSAL_NONE) {
		f = refusal_by_vault(code, m.w.kind[0] < PH_KINDS ? (enum ph_kind)m.w.kind[0] : PH_KINDS);
		refused(c, &f, q->path, q->is_head, r);
		buf_done(&msg);
		return false;
	}
	n = reqhead_write(&m, secret, c->account, head, sizeof(head));
	if (n < 0) {
		(void)fprintf(stderr, "http-decide: vault cannot write the head: %s\n", strerror((int)-n));
		exit(2);
	}
	put(&r->out, SPAN(head, (size_t)n));
	r->upstream_requests++;
	r->verdict = "forward";
	r->status = 0;
	r->code = NULL;
	buf_done(&msg);
	return true;
}

/* A judged head. */
enum next { NEXT_REFUSED, NEXT_FORWARD, NEXT_BODY };

static enum next head(const struct decide_case *c, bool tls, struct request *q, struct judged *d,
		      struct decide_result *r)
{
	switch (judge_request(&c->judge, c->host, tls, q, d)) {
	case JUDGE_FORWARD:
		return forward(c, d, q, r) ? NEXT_FORWARD : NEXT_REFUSED;
	case JUDGE_BODY:
		return NEXT_BODY;
	case JUDGE_TO_HTTPS:
		r->verdict = "answer";
		r->status = 301;
		if (refusal_to_https(prov_hosts[c->host].name, q->target, &r->answer) < 0)
			exit(2);
		return NEXT_REFUSED;
	case JUDGE_TOKEN:
	case JUDGE_REVOKE:
		r->verdict = "answer";
		return NEXT_REFUSED;
	default:
		refused(c, &q->fault, q->path, q->is_head, r);
		return NEXT_REFUSED;
	}
}

/* What has come of a body that GitHub's rules read. */
static enum next body_so_far(const struct decide_case *c, struct request *q, struct span body, bool ended,
			     struct judged *d, struct decide_result *r)
{
	enum github_need need = github_need(q, &d->github, body, ended);
	struct buf other = { .max = IO_MAX };
	enum verdict v;

	if (need == GITHUB_MORE)
		return NEXT_BODY;
	v = judge_body(&c->judge, q, body, d, &other);
	buf_done(&other); /* of GraphQL, which no case here has */
	if (v == JUDGE_FORWARD)
		return forward(c, d, q, r) ? NEXT_FORWARD : NEXT_REFUSED;
	refused(c, &q->fault, q->path, q->is_head, r);
	return NEXT_REFUSED;
}

static void put_chunk(struct buf *out, struct span s)
{
	char size[32];

	put(out, SPAN(size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", s.n)));
	put(out, s);
	put(out, SPAN("\r\n", 2));
}

struct connection {
	struct http1 h;
	struct judged judged;
	enum next next;
	struct buf front; /* of a body that is read before the verdict */
	bool tls, relaying, over;
};

static void put_body(const struct connection *k, struct span body, struct decide_result *r)
{
	if (k->h.req.body == HTTP_BODY_STREAM)
		put_chunk(&r->out, body);
	else
		put(&r->out, body);
}

static void read_front(const struct decide_case *c, struct connection *k, bool ended, struct decide_result *r)
{
	k->next = body_so_far(c, &k->h.req, buf_span(&k->front), ended, &k->judged, r);
	if (k->next == NEXT_FORWARD && k->front.n > 0)
		put_body(k, buf_span(&k->front), r);
}

static void feed(const struct decide_case *c, struct connection *k, struct span in, struct decide_result *r)
{
	while (!k->over) {
		struct span body;
		struct refusal f;

		if (k->relaying) {
			put(&r->out, in);
			return;
		}
		switch (http1_feed(&k->h, &in, &body)) {
		case HTTP1_HEAD:
			k->next = head(c, k->tls, &k->h.req, &k->judged, r);
			k->over = r->close;
			break;
		case HTTP1_BODY:
			if (k->next == NEXT_FORWARD)
				put_body(k, body, r);
			if (k->next != NEXT_BODY)
				break;
			put(&k->front, body);
			read_front(c, k, false, r);
			break;
		case HTTP1_DONE:
			if (k->next == NEXT_BODY)
				read_front(c, k, true, r);
			buf_done(&k->front);
			if (k->next == NEXT_FORWARD && k->h.req.body == HTTP_BODY_STREAM)
				put(&r->out, SPAN("0\r\n\r\n", 5));
			k->relaying = k->next == NEXT_FORWARD && k->h.req.websocket &&
				      str_starts(str(c->context, "after"), "HTTP/1.1 101 ");
			k->over = k->h.req.last && !k->relaying;
			r->close = r->close || k->over;
			http1_next(&k->h);
			break;
		case HTTP1_BAD:
			f = http1_fault();
			refused(c, &f, k->h.req.path, k->h.req.is_head, r);
			k->over = true;
			break;
		default:
			return;
		}
	}
}

static int decide_request(const struct decide_case *c, struct decide_result *r)
{
	const json_t *tls = json_object_get(c->context, "tls");
	struct connection k = { .tls = !tls || json_is_true(tls), .front = { .max = IO_MAX } };
	struct span in = buf_span(&c->input);
	size_t step = c->cut == SIZE_MAX ? 1 : c->cut > 0 && c->cut < in.n ? c->cut : in.n;

	if (c->host == HOSTS || !prov_bound(&c->judge.launch, c->host)) {
		r->verdict = "forward";
		r->mode = "not inspected";
		put(&r->out, in);
		return 0;
	}
	r->verdict = "incomplete";
	http1_init(&k.h, k.tls ? span_str(prov_hosts[c->host].name) : SPAN("", 0));
	while (in.n > 0) {
		size_t n = MIN(step, in.n);
		/* A copy of its size, so that a sanitizer sees the first byte too many. */
		uint8_t *piece = xmalloc(n);

		memcpy(piece, in.p, n);
		feed(c, &k, SPAN(piece, n), r);
		free(piece);
		in = SPAN(in.p + n, in.n - n);
		step = c->cut == SIZE_MAX ? 1 : in.n;
	}
	http1_done(&k.h);
	buf_done(&k.front);
	return 0;
}

static int decide_h2(const struct decide_case *c, struct decide_result *r)
{
	static struct http_field f[HTTP_FIELDS_MAX + 8];
	static struct request q;
	struct span body = buf_span(&c->input);
	struct judged d;
	enum next next;
	const json_t *e;
	size_t i, n = 0;

	json_array_foreach(json_object_get(c->context, "fields"), i, e)
	{
		const json_t *name = json_array_get(e, 0), *value = json_array_get(e, 1);

		if (n == ARRAY_SIZE(f) || !json_is_string(name) || !json_is_string(value))
			return -1;
		f[n].name = SPAN(json_string_value(name), json_string_length(name));
		f[n++].value = SPAN(json_string_value(value), json_string_length(value));
	}
	if (c->host == HOSTS || !prov_bound(&c->judge.launch, c->host)) {
		r->verdict = "forward";
		r->mode = "not inspected";
		return 0;
	}
	r->verdict = "refuse";
	if (request_from_h2(f, n, body.n == 0, span_str(prov_hosts[c->host].name), &q) < 0) {
		r->stream_reset = true;
		return 0;
	}
	next = head(c, true, &q, &d, r);
	if (next == NEXT_BODY)
		next = body_so_far(c, &q, body, true, &d, r);
	if (next != NEXT_FORWARD)
		return 0;
	if (q.body == HTTP_BODY_STREAM) {
		put_chunk(&r->out, body);
		put(&r->out, SPAN("0\r\n\r\n", 5));
		return 0;
	}
	put(&r->out, SPAN(body.p, MIN(body.n, q.body_len)));
	/* As nghttp2 finds it at the end of the stream. */
	if (q.body_len != body.n) {
		r->verdict = "refuse";
		r->stream_reset = true;
	}
	return 0;
}

/* ---- what is expected ---- */

static char wrong[8192];

static void differs(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void differs(const char *fmt, ...)
{
	size_t n = strlen(wrong);
	va_list ap;

	if (n + 256 > sizeof(wrong))
		return;
	n += (size_t)snprintf(wrong + n, sizeof(wrong) - n, "%s", n > 0 ? "; " : "");
	va_start(ap, fmt);
	(void)vsnprintf(wrong + n, 256, fmt, ap);
	va_end(ap);
}

static bool contains(const struct buf *b, const json_t *text, bool base64)
{
	struct span s = buf_span(b);
	struct buf want;
	bool found;

	buf_init(&want, IO_MAX);
	if (base64 ? !put_base64(&want, text) : (put_json_text(&want, text), false))
		exit(2);
	found = want.n == 0 || (s.n > 0 && memmem(s.p, s.n, buf_span(&want).p, want.n));
	buf_done(&want);
	return found;
}

static void check_texts(const json_t *expect, const char *key, const struct buf *b, bool base64, bool want)
{
	const json_t *e;
	size_t i;

	json_array_foreach(json_object_get(expect, key), i, e) if (!json_is_string(e) || contains(b, e, base64) != want)
		differs("%s \"%.100s\" does not hold", key, json_is_string(e) ? json_string_value(e) : "?");
}

static size_t count_secrets(const struct decide_case *c, const struct buf *b)
{
	const char *key;
	const json_t *v;
	size_t n = 0;

	json_object_foreach((json_t *)(uintptr_t)json_object_get(c->fixture, "secrets"), key, v)
	{
		struct span s = buf_span(b), needle = SPAN(json_string_value(v), json_string_length(v));
		const uint8_t *at;

		while (s.n > 0 && (at = memmem(s.p, s.n, needle.p, needle.n))) {
			n++;
			s = SPAN(at + 1, s.n - 1 - (size_t)(at - s.p));
		}
	}
	return n;
}

static void check(const struct decide_case *c, const json_t *expect, const struct decide_result *r)
{
	const char *key;
	const json_t *v;

	json_object_foreach((json_t *)(uintptr_t)expect, key, v)
	{
		if (strcmp(key, "verdict") == 0) {
			if (strcmp(json_string_value(v), r->verdict) != 0)
				differs("verdict is %s, not %s", r->verdict, json_string_value(v));
		} else if (strcmp(key, "status") == 0) {
			if ((unsigned)json_integer_value(v) != r->status)
				differs("status is %u, not %u", r->status, (unsigned)json_integer_value(v));
		} else if (strcmp(key, "code") == 0) {
			if (!r->code || strcmp(json_string_value(v), r->code) != 0)
				differs("code is %s, not %s", r->code ? r->code : "none", json_string_value(v));
		} else if (strcmp(key, "close") == 0) {
			if (json_is_true(v) != r->close)
				differs("the connection is %s", r->close ? "closed" : "kept");
		} else if (strcmp(key, "stream_reset") == 0) {
			if (json_is_true(v) != r->stream_reset)
				differs("the stream is %s", r->stream_reset ? "reset" : "not reset");
		} else if (strcmp(key, "upstream_requests") == 0) {
			if ((size_t)json_integer_value(v) != r->upstream_requests)
				differs("%zu requests went out, not %lld", r->upstream_requests, json_integer_value(v));
		} else if (strcmp(key, "mode") == 0) {
			if (!r->checks_itself && (!r->mode || strcmp(json_string_value(v), r->mode) != 0))
				differs("mode is %s", r->mode ? r->mode : "inspected");
		} else if (strcmp(key, "secret_count") == 0) {
			if ((size_t)json_integer_value(v) != count_secrets(c, &r->out))
				differs("%zu secrets went out, not %lld", count_secrets(c, &r->out),
					json_integer_value(v));
		} else if (strcmp(key, "programs_run") == 0) {
			if ((size_t)json_integer_value(v) != r->programs_run)
				differs("%zu programs ran, not %lld", r->programs_run, json_integer_value(v));
		} else if (strcmp(key, "record") == 0) {
			if (!r->record || strcmp(json_string_value(v), r->record) != 0)
				differs("the record is %s", r->record ? r->record : "missing");
		} else if (strcmp(key, "truncated") == 0) {
			if (json_is_true(v) != r->truncated)
				differs("truncated is %d", r->truncated);
		} else if (strcmp(key, "upstream_dropped") == 0) {
			if (json_is_true(v) != r->upstream_dropped)
				differs("upstream_dropped is %d", r->upstream_dropped);
		} else if (strcmp(key, "unchanged_body") == 0) {
			if (json_is_true(v) != r->unchanged_body)
				differs("unchanged_body is %d", r->unchanged_body);
		} else if (!str_starts(key, "out_") && !str_starts(key, "answer_") && !r->checks_itself) {
			differs("\"%s\" is expected, which nobody checks", key);
		}
	}
	check_texts(expect, "out_contains", &r->out, false, true);
	check_texts(expect, "out_contains_b64", &r->out, true, true);
	check_texts(expect, "out_lacks", &r->out, false, false);
	check_texts(expect, "out_lacks_b64", &r->out, true, false);
	check_texts(expect, "answer_contains", &r->answer, false, true);
	check_texts(expect, "answer_contains_b64", &r->answer, true, true);
	check_texts(expect, "answer_lacks", &r->answer, false, false);
	check_texts(expect, "answer_lacks_b64", &r->answer, true, false);
	/* Whatever a case says: our own words never hold a secret. */
	if (count_secrets(c, &r->answer) > 0)
		differs("our answer holds a secret");
}

static int run(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	buf_init(&r->out, IO_MAX);
	buf_init(&r->answer, IO_MAX);
	r->verdict = "none";
	if (strcmp(c->kind, "request") == 0 || strcmp(c->kind, "upgrade") == 0)
		return decide_request(c, r);
	if (strcmp(c->kind, "request-h2") == 0)
		return decide_h2(c, r);
	if (strcmp(c->kind, "response") == 0)
		return decide_response ? decide_response(c, expect, r) : 1;
	if (strcmp(c->kind, "refresh") == 0)
		return decide_refresh ? decide_refresh(c, expect, r) : 1;
	if (strcmp(c->kind, "hostfile") == 0)
		return decide_hostfile ? decide_hostfile(c, expect, r) : 1;
	return -1;
}

/* 1: agrees, 0: does not, 2: nobody decides this kind yet, -1: no case. */
static int decide(const json_t *v, const json_t *all, const json_t *fixture, bool cuts)
{
	const json_t *expect = json_object_get(v, "expect");
	struct decide_case c = { .all = all };
	struct decide_result r = { 0 };
	size_t step = 1;
	int e;

	wrong[0] = '\0';
	if (!json_is_string(json_object_get(v, "id")) || !json_is_object(expect) ||
	    !json_is_string(json_object_get(expect, "verdict")) || !read_case(v, fixture, &c))
		return -1;
	e = run(&c, expect, &r);
	if (e < 0)
		return -1;
	if (e == 0) {
		check(&c, expect, &r);
		(void)printf("%s %s", str(v, "id"), r.verdict);
		if (r.status > 0)
			(void)printf(" %u%s%s", r.status, r.code ? " " : "", r.code ? r.code : "");
	} else {
		(void)printf("%s not decided", str(v, "id"));
	}
	buf_done(&r.out);
	buf_done(&r.answer);
	/* Large inputs at 64 places. */
	step = c.input.n > 4096 ? c.input.n / 64 : 1;
	for (c.cut = 1; e == 0 && wrong[0] == '\0' && c.cut < c.input.n + step && strcmp(c.kind, "request-h2") != 0;
	     c.cut += step) {
		bool last = c.cut >= c.input.n;
		struct decide_result again = { 0 };

		if (!cuts && !last)
			continue;
		c.cut = last ? SIZE_MAX : c.cut;
		if (run(&c, expect, &again) != 0)
			return -1;
		check(&c, expect, &again);
		if (wrong[0] != '\0')
			differs("in pieces (cut at %zd)", (ssize_t)c.cut);
		buf_done(&again.out);
		buf_done(&again.answer);
		if (last)
			break;
	}
	(void)printf("%s%s\n", wrong[0] ? "  DIFFERS: " : "", wrong);
	buf_done(&c.input);
	return e != 0 ? 2 : wrong[0] == '\0';
}

static json_t *load(const char *path)
{
	json_error_t error;
	json_t *v = json_load_file(path, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

	if (!v)
		(void)fprintf(stderr, "http-decide: %s: %s\n", path, error.text);
	return v;
}

static const char usage[] = "usage: http-decide [--cuts] [--but ID]... VECTORS.json\n";

static void list_app(void)
{
	struct gh_slug app;

	gh_scope_init(&listed);
	(void)gh_slug_parse(span_str("acme/app"), &app);
	(void)gh_scope_add(&listed, app, GH_WRITE);
}

int main(int argc, char **argv)
{
	size_t i, n_wrong = 0, n_open = 0, n;
	AUTO_FREE(char, beside);
	json_t *all, *fixture, *v;
	const char *slash;
	bool cuts = false;
	int at = 1;

	list_app();
	while (at < argc && str_starts(argv[at], "--")) {
		cuts = cuts || strcmp(argv[at], "--cuts") == 0;
		if (strcmp(argv[at], "--cuts") != 0 && (strcmp(argv[at], "--but") != 0 || ++at == argc))
			break;
		at++;
	}
	if (at != argc - 1 || argv[at][0] == '-') {
		(void)fputs(usage, stderr);
		return 2;
	}
	slash = strrchr(argv[at], '/');
	beside = xasprintf("%.*shttp-fixture.json", slash ? (int)(slash + 1 - argv[at]) : 0, argv[at]);
	all = load(argv[at]);
	fixture = load(beside);
	if (!json_is_array(all) || !json_is_object(fixture)) {
		(void)fprintf(stderr, "http-decide: %s: no array of cases with its fixture\n", argv[at]);
		return 2;
	}
	json_array_foreach(all, i, v)
	{
		int r = decide(v, all, fixture, cuts);
		bool but = false;

		for (int k = 1; k + 1 < at; k++)
			but = but || (strcmp(argv[k], "--but") == 0 && strcmp(argv[k + 1], str(v, "id")) == 0);
		if (r < 0) {
			(void)fprintf(stderr, "http-decide: %s: case %zu is none that can be understood\n", argv[at],
				      i);
			return 2;
		}
		if (but && r == 1)
			(void)fprintf(stderr, "http-decide: %s agrees now; take its --but away\n", str(v, "id"));
		n_wrong += r == but;
		n_open += r == 2;
	}
	n = json_array_size(all);
	json_decref(all);
	json_decref(fixture);
	if (n_open)
		(void)fprintf(stderr, "http-decide: %zu of %zu are of kinds that nothing decides yet\n", n_open, n);
	if (n_wrong)
		(void)fprintf(stderr, "http-decide: %zu of %zu differ\n", n_wrong, n);
	return n_wrong ? 1 : 0;
}
