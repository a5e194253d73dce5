/* http-decide [--cuts] [--fixture FILE] [--but ID]... VECTORS.json: requests of the guest over a file of cases
 *(credentials page 12), through everything that decides: gate's parser and judge, the message between the processes,
 *vault's own check and the head that goes out. Prints "ID VERDICT [STATUS CODE]" a line; exit status 0 when all agree
 *with their "expect", 1 when some do not (or cannot be understood, which is said on their line), 2 for a bad file.
 *
 *	--cuts		each input also in two pieces, cut at every byte
 *	--fixture FILE	the launch; else http-fixture.json beside the cases, else the one of the source tree
 *	--but ID	this one is known to differ; that it agrees is an error, too
 *
 * Of several requests on one connection "expect" tells of the last, or of the first that was refused. "then", in the
 *case, its context or its "expect", is what comes next on the connection: as text, as {input or input_b64}, or as what
 *is expected of it, and then the rest of "expect" tells of the first. */
#include "http-decide.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/macros.h"
#include "base/str.h"
#include "gate/http1.h"
#include "vault/recheck.h"
#include "vault/reqhead.h"

#define IO_MAX (4 << 20)

__attribute__((weak)) enum refusal_code decide_login(const struct decide_case *c, enum ph_kind kind,
						     struct decide_result *r);
__attribute__((weak)) int decide_upgrade(const json_t *after);
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

/* "input" or "input_b64" of a case, or neither. */
static bool put_input(struct buf *b, const json_t *v)
{
	const json_t *text = json_object_get(v, "input"), *coded = json_object_get(v, "input_b64");

	if (json_is_string(coded))
		return put_base64(b, coded);
	if (json_is_string(text))
		put_json_text(b, text);
	return true;
}

static bool is_verdict(const char *s)
{
	return strcmp(s, "forward") == 0 || strcmp(s, "refuse") == 0 || strcmp(s, "answer") == 0;
}

/* What "then" adds to the connection. */
static bool put_then(struct buf *b, const json_t *v)
{
	const json_t *e;
	size_t i;

	if (json_is_string(v) && !is_verdict(json_string_value(v)))
		put_json_text(b, v);
	json_array_foreach(v, i, e) if (!put_then(b, e)) return false;
	return !json_is_object(v) || (put_input(b, v) && put_then(b, json_object_get(v, "then")));
}

/* Which kinds a word of "lent" means: a provider, one kind, or a name of OpenCode's. */
static uint32_t lent_kinds(const char *word)
{
	static const char *const alias[][2] = {
		{ "opencode-keys", "opencode" },
		{ "zai-coding-plan", "zai-cp" },
		{ "zhipuai", "zhipu" },
		{ "zhipuai-coding-plan", "zhipu-cp" },
		{ "kimi-for-coding", "kimi" },
		{ "moonshotai", "moonshot" },
		{ "moonshotai-cn", "moonshot-cn" },
		{ "gh", "github" },
	};
	uint32_t kinds = 0;

	for (size_t i = 0; i < ARRAY_SIZE(alias); i++)
		word = strcmp(word, alias[i][0]) == 0 ? alias[i][1] : word;
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

/* The host that the input itself names, without a port. */
static struct span named_host(const struct decide_case *c)
{
	static const char host[] = "\nhost:";
	struct span in = buf_span(&c->input), found = SPAN("", 0);
	const uint8_t *end;
	const json_t *e;
	size_t i;

	for (i = 0; found.n == 0 && i + strlen(host) < in.n; i++) {
		struct span at = SPAN(in.p + i, in.n - i);

		if (!http_begins(at, host))
			continue;
		at = SPAN(at.p + strlen(host), at.n - strlen(host));
		end = memchr(at.p, '\n', at.n);
		found = http_trim(SPAN(at.p, end ? (size_t)(end - at.p) - (end > at.p && end[-1] == '\r') : at.n));
	}
	json_array_foreach(json_object_get(c->context, "fields"), i, e)
	{
		const char *name = json_string_value(json_array_get(e, 0)),
			   *value = json_string_value(json_array_get(e, 1));

		if (name && value && strcmp(name, ":authority") == 0)
			found = span_str(value);
	}
	end = found.n > 0 ? memchr(found.p, ':', found.n) : NULL;
	return end ? SPAN(found.p, (size_t)(end - found.p)) : found;
}

/* The list of the cases' launch, and what it knows: nothing. */
static struct gh_scope listed;
static struct github known_github;

bool decide_read(const json_t *v, const json_t *fixture, struct decide_case *c)
{
	const json_t *names = json_object_get(fixture, "placeholders"), *slots = json_object_get(fixture, "slots"),
		     *secrets = json_object_get(fixture, "secrets"), *context = json_object_get(v, "context"), *e,
		     *lent = json_object_get(context, "lent"), *api = json_object_get(context, "api");
	const char *verb = json_is_string(json_object_get(context, "verb")) ? str(context, "verb") : "shell";
	uint32_t kinds = json_is_array(lent) || json_is_string(lent) ? 0 : PH_ALL;
	size_t i;

	c->fixture = fixture;
	c->context = context;
	c->kind = str(v, "kind");
	buf_init(&c->input, IO_MAX);
	if (!put_input(&c->input, v) || !put_then(&c->input, json_object_get(v, "then")) ||
	    !put_then(&c->input, json_object_get(context, "then")) ||
	    !put_then(&c->input, json_object_get(json_object_get(v, "expect"), "then")))
		return false;
	if (json_is_string(lent))
		kinds |= lent_kinds(json_string_value(lent));
	json_array_foreach(lent, i, e) kinds |= json_is_string(e) ? lent_kinds(json_string_value(e)) : 0;
	kinds &= prov_verb_kinds(verb);
	for (int k = 0; k < PH_KINDS; k++) {
		const char *ph = json_string_value(json_object_get(names, ph_kind_str[k]));
		const json_t *slot = json_object_get(slots, ph_kind_str[k]);
		const char *secret = json_string_value(json_array_get(slot, 2));

		if (!ph || !(kinds & PH_BIT(k)))
			continue;
		ph = ph_is_jwt((enum ph_kind)k) && strrchr(ph, '.') ? strrchr(ph, '.') + 1 : ph;
		if (strlen(ph) >= PH_MAX)
			return false;
		memcpy(c->judge.set.v[k], ph, strlen(ph) + 1);
		c->judge.launch.lent |= PH_BIT(k);
		c->secret[k] = span_str(secret ? str(secrets, secret) : "");
	}
	/* A class that this version does not have opens nothing. */
	if (json_is_string(api))
		(void)prov_open(&c->judge.launch, span_str(json_string_value(api)));
	json_array_foreach(api, i, e) if (json_is_string(e))(void)
		prov_open(&c->judge.launch, span_str(json_string_value(e)));
	c->judge.github = &listed;
	if (c->judge.launch.lent & PH_BIT(PH_GH))
		c->judge.github_known = &known_github;
	c->host = prov_host_find(json_is_string(json_object_get(context, "sni")) ? span_str(str(context, "sni"))
										 : named_host(c));
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

/* The field list of the context. -EINVAL: there is none, -EBADMSG: no request is read from it. */
static int from_h2(const struct decide_case *c, struct request *q)
{
	static struct http_field f[HTTP_FIELDS_MAX * 4];
	const json_t *e;
	size_t i, n = 0;

	json_array_foreach(json_object_get(c->context, "fields"), i, e)
	{
		const json_t *name = json_array_get(e, 0), *value = json_array_get(e, 1);

		if (n == ARRAY_SIZE(f) || !json_is_string(name) || !json_is_string(value))
			return -EINVAL;
		f[n].name = SPAN(json_string_value(name), json_string_length(name));
		f[n++].value = SPAN(json_string_value(value), json_string_length(value));
	}
	return n == 0 ? -EINVAL : request_from_h2(f, n, c->input.n == 0, span_str(prov_hosts[c->host].name), q);
}

/* A host that is signed out of this provider. */
static bool is_signed_out(const struct decide_case *c, enum ph_kind kind)
{
	const char *prov = kind <= PH_CLAUDE_R						    ? "anthropic"
			   : ph_is_jwt(kind) || kind == PH_CODEX_R || kind == PH_OPENCODE_R ? "openai"
			   : kind == PH_GH						    ? "github"
			   : kind == PH_COPILOT						    ? "copilot"
			   : kind >= PH_ZAI						    ? "opencode"
											    : "";
	const json_t *host = json_object_get(json_object_get(c->context, "hosts"), prov);

	return json_is_null(host) || json_is_false(json_object_get(host, "signed_in"));
}

static bool write_message(const struct judged *d, const struct request *q, struct buf *msg, struct httpmsg_request *ret)
{
	buf_init(msg, HTTPMSG_MAX);
	return judge_message(d, q, 1, 1, msg) == 0 && httpmsg_request_parse(buf_span(msg), ret) == 0;
}

bool decide_message(const struct decide_case *c, struct buf *msg, struct httpmsg_request *ret)
{
	static struct request q;
	struct span in = buf_span(&c->input), body;
	struct judged d;
	struct http1 h;
	bool ok;

	if (c->host == HOSTS || !prov_bound(&c->judge.launch, c->host))
		return false;
	if (strcmp(c->kind, "request-h2") == 0)
		return from_h2(c, &q) == 0 && judge_request(&c->judge, c->host, true, &q, &d) == JUDGE_FORWARD &&
		       write_message(&d, &q, msg, ret);
	http1_init(&h, span_str(prov_hosts[c->host].name));
	ok = http1_feed(&h, &in, &body) == HTTP1_HEAD &&
	     judge_request(&c->judge, c->host, true, &h.req, &d) == JUDGE_FORWARD &&
	     write_message(&d, &h.req, msg, ret);
	http1_done(&h);
	return ok;
}

/* Writes the message, reads it as vault does, judges again and writes the head. False: refused after all. */
bool decide_forward(const struct decide_case *c, const struct judged *d, const struct request *q,
		    struct decide_result *r)
{
	static struct httpmsg_request m;
	static uint8_t head[REQHEAD_MAX];
	struct span secret[HTTPMSG_CREDS] = { 0 };
	enum refusal_code code = REFUSAL_NONE;
	struct refusal f;
	struct buf msg;
	ssize_t n;

	if (!write_message(d, q, &msg, &m)) {
		(void)fprintf(stderr, "http-decide: vault cannot read the message of gate\n");
		exit(2);
	}
	code = recheck(&c->judge.launch, &m);
	for (size_t i = 0; code == REFUSAL_NONE && i < HTTPMSG_CREDS && m.w.kind[i] != HTTPMSG_NO_CRED; i++) {
		secret[i] = c->secret[m.w.kind[i]];
		if (secret[i].n == 0 || is_signed_out(c, (enum ph_kind)m.w.kind[i]))
			code = REFUSAL_CREDENTIAL_UNAVAILABLE;
		else if (decide_login)
			code = decide_login(c, (enum ph_kind)m.w.kind[i], r);
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
		return decide_forward(c, d, q, r) ? NEXT_FORWARD : NEXT_REFUSED;
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
		r->token = true;
		return NEXT_REFUSED;
	default:
		refused(c, &q->fault, q->path, q->is_head, r);
		return NEXT_REFUSED;
	}
}

/* What has come of a body that GitHub's rules read. */
static enum next body_so_far(const struct decide_case *c, struct request *q, struct span body, bool ended,
			     struct judged *d, bool *ret_replaced, struct decide_result *r)
{
	enum github_need need = github_need(q, &d->github, body, ended);
	struct buf other = { .max = IO_MAX };
	enum verdict v;

	if (need == GITHUB_MORE)
		return NEXT_BODY;
	v = judge_body(&c->judge, q, body, d, &other);
	if (v == JUDGE_FORWARD && other.n > 0) {
		/* As gate does: written as a whole, so its length is known. */
		q->body = HTTP_BODY_LENGTH;
		q->body_len = other.n;
	}
	if (v == JUDGE_FORWARD) {
		bool sent = decide_forward(c, d, q, r);

		if (sent && other.n > 0)
			put(&r->out, buf_span(&other));
		*ret_replaced = other.n > 0;
		buf_done(&other);
		return sent ? NEXT_FORWARD : NEXT_REFUSED;
	}
	buf_done(&other);
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

/* What became of the message that is under way. */
static void note(struct decide_result *r)
{
	if (r->n_msgs > 0)
		r->msg[r->n_msgs - 1] = (struct decide_msg){ r->verdict, r->status, r->code };
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
	put(&r->plain, body);
	if (k->h.req.body == HTTP_BODY_STREAM)
		put_chunk(&r->out, body);
	else
		put(&r->out, body);
}

static void read_front(const struct decide_case *c, struct connection *k, bool ended, struct decide_result *r)
{
	bool replaced = false;

	k->next = body_so_far(c, &k->h.req, buf_span(&k->front), ended, &k->judged, &replaced, r);
	if (k->next == NEXT_FORWARD && k->front.n > 0 && !replaced)
		put_body(k, buf_span(&k->front), r);
}

/* What the service answers to the upgrade: 101, unless the case says otherwise. */
static bool is_upgraded(const struct decide_case *c, struct connection *k, struct decide_result *r)
{
	const json_t *after = json_object_get(c->context, "after");
	const struct refusal f = refusal_by_vault(REFUSAL_UPSTREAM_FRAMING, PH_KINDS);
	int e;

	if (!json_is_string(after))
		return strcmp(c->kind, "upgrade") == 0;
	e = decide_upgrade ? decide_upgrade(after) : str_starts(json_string_value(after), "HTTP/1.1 101 ");
	if (e < 0) {
		refused(c, &f, k->h.req.path, false, r);
		k->over = true;
	}
	return e > 0;
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
			r->n_msgs += r->n_msgs < DECIDE_MSGS;
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
			k->relaying = k->next == NEXT_FORWARD && k->h.req.websocket && is_upgraded(c, k, r);
			k->over = k->over || (k->h.req.last && !k->relaying);
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
		note(r);
	}
}

static int decide_request(const struct decide_case *c, struct decide_result *r)
{
	struct connection k = { .tls = !json_is_false(json_object_get(c->context, "tls")), .front = { .max = IO_MAX } };
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
	static struct request q;
	struct span body = buf_span(&c->input);
	struct judged d;
	bool replaced = false;
	enum next next;
	int e;

	if (c->host == HOSTS || !prov_bound(&c->judge.launch, c->host)) {
		r->verdict = "forward";
		r->mode = "not inspected";
		return 0;
	}
	e = from_h2(c, &q);
	if (e == -EINVAL)
		return -1;
	r->verdict = "refuse";
	if (e < 0) {
		r->stream_reset = true;
		return 0;
	}
	next = head(c, true, &q, &d, r);
	if (next == NEXT_BODY)
		next = body_so_far(c, &q, body, true, &d, &replaced, r);
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
	/* One line a case. */
	for (; wrong[n]; n++)
		wrong[n] = iscntrl((unsigned char)wrong[n]) ? '.' : wrong[n];
}

static bool contains(const struct buf *b, const json_t *text, bool base64)
{
	struct span s = buf_span(b);
	struct buf want;
	bool found;

	buf_init(&want, IO_MAX);
	if (base64 ? !put_base64(&want, text) : (put_json_text(&want, text), false))
		differs("a text of the case is no base64");
	found = want.n == 0 || (s.n > 0 && memmem(s.p, s.n, buf_span(&want).p, want.n));
	buf_done(&want);
	return found;
}

/* @or: another form of the same bytes, or NULL. */
static void check_text(const char *key, const json_t *text, const struct buf *b, const struct buf * or, bool base64,
		       bool want)
{
	if (!json_is_string(text) || (contains(b, text, base64) || (or &&contains(or, text, base64))) != want)
		differs("%s \"%.100s\" does not hold", key, json_is_string(text) ? json_string_value(text) : "?");
}

static void check_texts(const json_t *expect, const char *key, const struct buf *b, const struct buf * or, bool base64,
			bool want)
{
	const json_t *e;
	size_t i;

	e = json_object_get(expect, key);
	if (json_is_string(e))
		check_text(key, e, b, or, base64, want);
	json_array_foreach(json_object_get(expect, key), i, e) check_text(key, e, b, or, base64, want);
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

/* A word of "expect": null and what is no text stand for none. */
static bool is_word(const json_t *v, const char *have)
{
	const char *want = json_string_value(v);

	return want ? have && strcmp(want, have) == 0 : !have;
}

static bool is_msg(const json_t *expect, const struct decide_msg *m)
{
	const json_t *verdict = json_object_get(expect, "verdict"), *status = json_object_get(expect, "status"),
		     *code = json_object_get(expect, "code");

	return (!verdict || is_word(verdict, m->verdict)) &&
	       (!status || (unsigned)json_integer_value(status) == m->status) && (!code || is_word(code, m->code));
}

static void check_msg(const json_t *expect, const struct decide_msg *m)
{
	const json_t *verdict = json_object_get(expect, "verdict"), *status = json_object_get(expect, "status"),
		     *code = json_object_get(expect, "code");

	if (verdict && !is_word(verdict, m->verdict))
		differs("verdict is %s, not %s", m->verdict, str(expect, "verdict"));
	if (status && (unsigned)json_integer_value(status) != m->status)
		differs("status is %u, not %u", m->status, (unsigned)json_integer_value(status));
	if (code && !is_word(code, m->code))
		differs("code is %s, not %s", m->code ? m->code : "none", str(expect, "code"));
}

/* The message of the connection that "expect" tells of. */
static struct decide_msg told(const json_t *expect, bool first, const struct decide_result *r)
{
	struct decide_msg last = { r->verdict, r->status, r->code };

	if (r->n_msgs == 0 || (!first && is_msg(expect, &last)))
		return last;
	for (size_t i = 0; !first && i < r->n_msgs; i++)
		if (strcmp(r->msg[i].verdict, "refuse") == 0)
			return is_msg(expect, &r->msg[i]) ? r->msg[i] : last;
	return first ? r->msg[0] : last;
}

/* What "then" expects of the requests behind the first. */
static bool check_then(const json_t *then, size_t at, const struct decide_result *r)
{
	static const struct decide_msg none = { "none", 0, NULL };
	const struct decide_msg *m = at < r->n_msgs ? &r->msg[at] : &none;
	const json_t *e;
	bool any = false;
	size_t i;

	json_array_foreach(then, i, e) any |= check_then(e, at + i, r);
	if (json_is_string(then) && is_verdict(json_string_value(then))) {
		if (strcmp(m->verdict, json_string_value(then)) != 0)
			differs("the next one's verdict is %s, not %s", m->verdict, json_string_value(then));
		return true;
	}
	if (!json_object_get(then, "verdict") && !json_object_get(then, "status") && !json_object_get(then, "code"))
		return any;
	check_msg(then, m);
	(void)check_then(json_object_get(then, "then"), at + 1, r);
	return true;
}

static void check(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	bool first = check_then(json_object_get(expect, "then"), 1, r);
	const char *key;
	const json_t *v;

	r->told = told(expect, first, r);
	check_msg(expect, &r->told);
	json_object_foreach((json_t *)(uintptr_t)expect, key, v)
	{
		if (strcmp(key, "close") == 0) {
			if (json_is_true(v) != r->close)
				differs("the connection is %s", r->close ? "closed" : "kept");
		} else if (strcmp(key, "stream_reset") == 0) {
			if (json_is_true(v) != r->stream_reset)
				differs("the stream is %s", r->stream_reset ? "reset" : "not reset");
		} else if (strcmp(key, "upstream_requests") == 0) {
			if ((size_t)json_integer_value(v) != r->upstream_requests)
				differs("%zu requests went out, not %lld", r->upstream_requests, json_integer_value(v));
		} else if (strcmp(key, "mode") == 0) {
			if (!r->checks_itself && !is_word(v, r->mode))
				differs("mode is %s", r->mode ? r->mode : "inspected");
		} else if (strcmp(key, "secret_count") == 0) {
			if ((size_t)json_integer_value(v) != count_secrets(c, &r->out))
				differs("%zu secrets went out, not %lld", count_secrets(c, &r->out),
					json_integer_value(v));
		} else if (strcmp(key, "programs_run") == 0) {
			if ((size_t)json_integer_value(v) != r->programs_run)
				differs("%zu programs ran, not %lld", r->programs_run, json_integer_value(v));
		} else if (strcmp(key, "record") == 0) {
			if (!is_word(v, r->record))
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
		} else if (strcmp(key, "verdict") != 0 && strcmp(key, "status") != 0 && strcmp(key, "code") != 0 &&
			   strcmp(key, "then") != 0 && !str_starts(key, "out_") && !str_starts(key, "answer_") &&
			   strcmp(key, "max_ms") != 0 && strcmp(key, "within_ms") != 0 && !r->checks_itself) {
			(void)fprintf(stderr, "http-decide: \"%s\" is expected, which nobody checks\n", key);
		}
	}
	check_texts(expect, "out_contains", &r->out, &r->plain, false, true);
	check_texts(expect, "out_contains_b64", &r->out, &r->plain, true, true);
	check_texts(expect, "out_lacks", &r->out, &r->plain, false, false);
	check_texts(expect, "out_lacks_b64", &r->out, &r->plain, true, false);
	check_texts(expect, "answer_contains", &r->answer, NULL, false, true);
	check_texts(expect, "answer_contains_b64", &r->answer, NULL, true, true);
	check_texts(expect, "answer_lacks", &r->answer, NULL, false, false);
	check_texts(expect, "answer_lacks_b64", &r->answer, NULL, true, false);
	/* Whatever a case says: our own words never hold a secret. */
	if (count_secrets(c, &r->answer) > 0)
		differs("our answer holds a secret");
}

static void forget(struct decide_result *r)
{
	buf_done(&r->out);
	buf_done(&r->plain);
	buf_done(&r->answer);
	*r = (struct decide_result){ .verdict = "none" };
	buf_init(&r->out, IO_MAX);
	buf_init(&r->plain, IO_MAX);
	buf_init(&r->answer, IO_MAX);
}

static int run(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	forget(r);
	/* In clear, or at a host that is not bound, a renewal is a request like any other. */
	if (strcmp(c->kind, "request") == 0 || strcmp(c->kind, "upgrade") == 0 ||
	    (strcmp(c->kind, "refresh") == 0 &&
	     (!prov_bound(&c->judge.launch, c->host) || json_is_false(json_object_get(c->context, "tls"))))) {
		if (decide_request(c, r) < 0)
			return -1;
		if (!r->token || !decide_refresh)
			return 0;
		/* The endpoint's own answer, which the body decides. */
		forget(r);
		return decide_refresh(c, expect, r);
	}
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
static int decide(const json_t *v, const char *id, struct decide_case from, const json_t *fixture, bool cuts)
{
	const json_t *expect = json_object_get(v, "expect");
	struct decide_result r = { 0 };
	struct decide_case c = from;
	size_t step = 1;
	int e;

	wrong[0] = '\0';
	if (!json_is_object(expect) || !decide_read(v, fixture, &c) || (e = run(&c, expect, &r)) < 0) {
		(void)printf("%s not understood\n", id);
		buf_done(&r.out);
		buf_done(&r.plain);
		buf_done(&r.answer);
		buf_done(&c.input);
		return -1;
	}
	if (e == 0) {
		check(&c, expect, &r);
		(void)printf("%s %s", id, r.told.verdict);
		if (r.told.status > 0)
			(void)printf(" %u%s%s", r.told.status, r.told.code ? " " : "", r.told.code ? r.told.code : "");
	} else {
		(void)printf("%s not decided", id);
	}
	buf_done(&r.out);
	buf_done(&r.plain);
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
			break;
		check(&c, expect, &again);
		if (wrong[0] != '\0')
			differs("in pieces (cut at %zd)", (ssize_t)c.cut);
		buf_done(&again.out);
		buf_done(&again.plain);
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
	json_t *v = json_load_file(path, JSON_ALLOW_NUL, &error);

	if (!v)
		(void)fprintf(stderr, "http-decide: %s: %s\n", path, error.text);
	return v;
}

static const char usage[] = "usage: http-decide [--cuts] [--fixture FILE] [--but ID]... VECTORS.json\n";

static void list_app(void)
{
	struct gh_slug app;

	if (github_init(&known_github) < 0)
		exit(2);
	gh_scope_init(&listed);
	(void)gh_slug_parse(span_str("acme/app"), &app);
	(void)gh_scope_add(&listed, app, GH_WRITE);
}

/* @name in the folder of @path, or that of the source tree. */
static char *beside(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	char *at = xasprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);

#ifdef DECIDE_DIR
	if (access(at, R_OK) < 0) {
		free(at);
		at = xasprintf("%s/%s", DECIDE_DIR, name);
	}
#endif
	return at;
}

struct options {
	bool cuts;
	const char *fixture;
	const char *but[64];
	size_t n_but;
};

/* The index of the file of cases; 0: wrong. */
static int options(int argc, char **argv, struct options *ret)
{
	int at = 1;

	for (; at < argc && str_starts(argv[at], "--"); at++) {
		if (strcmp(argv[at], "--cuts") == 0)
			ret->cuts = true;
		else if (strcmp(argv[at], "--fixture") == 0 && at + 1 < argc)
			ret->fixture = argv[++at];
		else if (strcmp(argv[at], "--but") == 0 && at + 1 < argc && ret->n_but < ARRAY_SIZE(ret->but))
			ret->but[ret->n_but++] = argv[++at];
		else
			return 0;
	}
	return at == argc - 1 && argv[at][0] != '-' ? at : 0;
}

/* Of any form; without one, the place in the file. */
static char *id_of(const json_t *v, size_t i)
{
	const json_t *id = json_object_get(v, "id");

	if (json_is_string(id))
		return xstrdup(json_string_value(id));
	return id ? json_dumps(id, JSON_COMPACT | JSON_ENCODE_ANY) : xasprintf("#%zu", i);
}

int main(int argc, char **argv)
{
	size_t i, n_wrong = 0, n_open = 0, n;
	struct decide_case from = { 0 };
	struct options o = { 0 };
	int at = options(argc, argv, &o);
	AUTO_FREE(char, fixture_path);
	AUTO_FREE(char, known_path);
	json_t *all, *fixture, *known, *v;

	list_app();
	if (at == 0) {
		(void)fputs(usage, stderr);
		return 2;
	}
	fixture_path = o.fixture ? xstrdup(o.fixture) : beside(argv[at], "http-fixture.json");
	known_path = beside(argv[at], "http-vectors.json");
	all = load(argv[at]);
	fixture = load(fixture_path);
	if (!json_is_array(all) || !json_is_object(fixture)) {
		(void)fprintf(stderr, "http-decide: %s: no array of cases with its fixture\n", argv[at]);
		return 2;
	}
	/* Answers may be to a request of the page's own file. */
	known = access(known_path, R_OK) == 0 ? load(known_path) : NULL;
	from.all = all;
	from.known = known;
	json_array_foreach(all, i, v)
	{
		char *id = id_of(v, i);
		int r = decide(v, id, from, fixture, o.cuts);
		bool but = false;

		for (size_t k = 0; k < o.n_but; k++)
			but = but || strcmp(o.but[k], id) == 0;
		if (but && r == 1)
			(void)fprintf(stderr, "http-decide: %s agrees now; take its --but away\n", id);
		n_wrong += r < 0 || r == but;
		n_open += r == 2;
		free(id);
	}
	n = json_array_size(all);
	json_decref(all);
	json_decref(fixture);
	json_decref(known);
	if (n_open)
		(void)fprintf(stderr, "http-decide: %zu of %zu are of kinds that nothing decides yet\n", n_open, n);
	if (n_wrong)
		(void)fprintf(stderr, "http-decide: %zu of %zu differ\n", n_wrong, n);
	return n_wrong ? 1 : 0;
}
