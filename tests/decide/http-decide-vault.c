/* The half of vault of http-decide: answers of a service, renewals, and the host's files. Host files are written as the
 * case describes them and read by the real reader; programs, locks and the clock are played. */
#include "http-decide.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agents/tokens.h"
#include "base/base64.h"
#include "base/macros.h"
#include "base/str.h"
#include "gate/http1.h"
#include "vault/answer.h"
#include "vault/echo.h"
#include "vault/guestfile.h"
#include "vault/recheck.h"
#include "vault/renew.h"
#include "vault/reqhead.h"

static const char *str(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static void put(struct buf *b, struct span s)
{
	if (buf_put(b, s.p, s.n) < 0)
		exit(2);
}

static void open_arena(void)
{
	static bool open;
	struct err err;

	if (!open && secret_arena_open(SECRET_ARENA, &err) < 0) {
		(void)fprintf(stderr, "http-decide: %s\n", err.text);
		exit(2);
	}
	open = true;
}

static void refuse(const struct decide_case *c, enum prov_host_id host, enum refusal_code code, struct decide_result *r)
{
	struct refusal f = refusal_by_vault(code, PH_KINDS);

	r->verdict = "refuse";
	r->status = f.status;
	r->code = refusal_code_str[code];
	if (refusal_http1(&f, host, SPAN("/", 1), false, &r->answer) < 0)
		exit(2);
}

/* --- response --- */

/* The request that is answered: its host, method and whether it is an upgrade. */
struct asked {
	enum prov_host_id host;
	enum prov_method method;
	bool upgrade;
};

static struct asked find_request(const struct decide_case *c)
{
	struct asked a = { HOST_ANTHROPIC, METHOD_POST, false };
	const char *to = str(c->context, "to");
	const json_t *v;
	size_t i;

	json_array_foreach(c->all, i, v)
	{
		const char *text = str(v, "input");
		struct span in = span_str(text), body;
		struct http1 h;

		if (strcmp(str(v, "id"), to) != 0)
			continue;
		a.host = prov_host_find(span_str(str(json_object_get(v, "context"), "sni")));
		if (a.host == HOSTS)
			a.host = HOST_ANTHROPIC;
		http1_init(&h, span_str(prov_hosts[a.host].name));
		if (http1_feed(&h, &in, &body) == HTTP1_HEAD && h.req.fault.status == 0) {
			a.method = h.req.method;
			a.upgrade = h.req.websocket;
		}
		http1_done(&h);
	}
	return a;
}

/* All secrets of the provider: those whose names begin alike. */
static struct echo *scanner(const struct decide_case *c, enum prov_host_id host)
{
	static const char *const names[HOSTS] = {
		[HOST_ANTHROPIC] = "anthropic",
		[HOST_ANTHROPIC_MCP] = "anthropic",
		[HOST_CHATGPT] = "openai",
		[HOST_OPENAI] = "openai",
		[HOST_ZAI] = "zai",
		[HOST_ZHIPU] = "zhipu",
		[HOST_KIMI] = "kimi",
		[HOST_MOONSHOT] = "moonshot",
		[HOST_MOONSHOT_CN] = "moonshot",
	};
	const char *group = names[host] ? names[host] : prov_hosts[host].prov == PROV_COPILOT ? "copilot" : "gh", *key;
	struct span needles[ECHO_NEEDLES_MAX];
	struct echo_set *set;
	struct echo *e;
	size_t n = 0;
	const json_t *v;

	json_object_foreach((json_t *)(uintptr_t)json_object_get(c->fixture, "secrets"), key, v)
	{
		const char *s = json_string_value(v), *dot = strrchr(s, '.');

		if (str_starts(key, group) && n < ARRAY_SIZE(needles))
			needles[n++] = span_str(str_starts(s, "eyJ") && dot ? dot + 1 : s);
	}
	set = echo_set_new(needles, n);
	e = set ? echo_new(set) : NULL;
	if (!e)
		exit(2);
	echo_set_put(set);
	return e;
}

static size_t hits(const struct echo *e)
{
	return echo_hits(e, ECHO_RAW) + echo_hits(e, ECHO_ESCAPED) + echo_hits(e, ECHO_BASE64);
}

static void put_scanned(struct echo *e, struct span s, struct buf *out)
{
	uint8_t *copy = xmalloc(s.n + 1);

	memcpy(copy, s.p, s.n);
	echo_whole(e, copy, s.n);
	put(out, SPAN(copy, s.n));
	free(copy);
}

static void put_fields(struct echo *fields, const struct answer *a, enum prov_host_id host, struct buf *out)
{
	for (size_t i = 0; i < a->n_fields; i++) {
		if (!answer_keeps(host, a, &a->f[i]))
			continue;
		put_scanned(fields, a->f[i].name, out);
		put(out, SPAN(": ", 2));
		put_scanned(fields, a->f[i].value, out);
		put(out, SPAN("\r\n", 2));
	}
}

struct answering {
	struct answer a;
	struct echo *body, *fields;
	struct buf plain; /* the body before it was scanned */
	enum prov_host_id host;
	bool head, over;
};

static void answer_body(struct answering *w, struct span s, struct decide_result *r)
{
	static uint8_t room[ECHO_HOLD_MAX + ECHO_WINDOW];

	put(&w->plain, s);
	while (s.n > 0) {
		size_t n = MIN(s.n, (size_t)ECHO_WINDOW);

		put(&r->out, SPAN(room, echo_feed(w->body, SPAN(s.p, n), room)));
		s = SPAN(s.p + n, s.n - n);
	}
}

static void answer_event(const struct decide_case *c, struct answering *w, int ev, struct decide_result *r)
{
	static uint8_t room[ECHO_HOLD_MAX + ECHO_WINDOW];
	char line[64];

	if (ev == ANSWER_HEAD && answer_is_coded(&w->a)) {
		w->over = true;
		refuse(c, w->host, REFUSAL_ENCODING, r);
	} else if (ev == ANSWER_HEAD || ev == ANSWER_UPGRADED) {
		w->head = true;
		r->verdict = "forward";
		(void)snprintf(line, sizeof(line), "HTTP/1.1 %u \r\n", w->a.status);
		put(&r->out, span_str(line));
		put_fields(w->fields, &w->a, w->host, &r->out);
		put(&r->out, SPAN("\r\n", 2));
		w->over = ev == ANSWER_UPGRADED;
	} else if (ev == ANSWER_BODY) {
		answer_body(w, w->a.body, r);
	} else {
		if (ev == ANSWER_END || ev < 0) {
			put(&r->out, SPAN(room, echo_end(w->body, room)));
			w->over = true;
		}
		if (ev == ANSWER_TRAILERS)
			put_fields(w->fields, &w->a, w->host, &r->out);
		r->truncated = ev < 0 && w->head;
		r->upstream_dropped |= ev < 0;
		if (ev < 0 && !w->head)
			refuse(c, w->host, ev == -EPIPE ? REFUSAL_UPSTREAM : REFUSAL_UPSTREAM_FRAMING, r);
	}
}

int decide_response(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	struct asked asked = find_request(c);
	struct span in = buf_span(&c->input), piece, out;
	size_t step = c->cut == SIZE_MAX ? 1 : c->cut > 0 && c->cut < in.n ? c->cut : in.n;
	struct answering w = { .host = asked.host };
	int ev;

	open_arena();
	w.body = scanner(c, asked.host);
	w.fields = scanner(c, asked.host);
	buf_init(&w.plain, 4 << 20);
	answer_init(&w.a, asked.method, asked.upgrade);
	while (in.n > 0 && !w.over) {
		uint8_t *copy = xmalloc(MIN(step, in.n));

		piece = SPAN(copy, MIN(step, in.n));
		memcpy(copy, in.p, piece.n);
		in = SPAN(in.p + piece.n, in.n - piece.n);
		step = c->cut == SIZE_MAX ? 1 : in.n;
		do {
			ev = answer_feed(&w.a, &piece);
			if (ev != ANSWER_MORE)
				answer_event(c, &w, ev, r);
		} while (ev > 0 && !w.over);
		r->upstream_dropped |= w.over && (piece.n > 0 || in.n > 0);
		free(copy);
	}
	if (!w.over && !str_starts(str(c->context, "end"), "open"))
		answer_event(c, &w, strcmp(str(c->context, "end"), "reset") == 0 ? -EPIPE : answer_eof(&w.a), r);
	if (hits(w.body) + hits(w.fields) > 0)
		r->record = "echo";
	out = buf_span(&r->out);
	r->unchanged_body = w.plain.n > 0 && out.n >= w.plain.n &&
			    memcmp(out.p + out.n - w.plain.n, buf_span(&w.plain).p, w.plain.n) == 0;
	r->checks_itself = true; /* "within_ms": what may go out was written before anything else came */
	buf_done(&w.plain);
	answer_done(&w.a);
	echo_free(w.body);
	echo_free(w.fields);
	return 0;
}

/* --- host files --- */

int decide_hostfile(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	const char *provider = str(c->context, "provider"), *file = str(c->context, "guest_file"), *why = NULL;
	int64_t now = json_integer_value(json_object_get(c->fixture, "now"));
	struct span in = buf_span(&c->input);
	struct host_keys keys = { 0 };
	struct login l = { 0 };
	int e;

	open_arena();
	if (strcmp(provider, "anthropic") == 0)
		e = hostfile_anthropic(in, &l, &why);
	else if (strcmp(provider, "openai") == 0)
		e = hostfile_openai(in, &l, &why);
	else if (strcmp(provider, "opencode-keys") == 0)
		e = hostfile_opencode(in, &keys, &why);
	else
		return -1;
	if (e == 0 && strcmp(file, "claude/.credentials.json") == 0)
		e = guestfile_claude(&l.info, &c->judge.set, &r->out);
	else if (e == 0 && strcmp(file, "codex/auth.json") == 0)
		e = guestfile_codex(&l.info, &c->judge.set, now, &r->out);
	else if (e == 0 && strcmp(file, "opencode/auth.json") == 0)
		e = guestfile_opencode(&l.info, keys.id, &c->judge.set, now, &r->out);
	else if (e == 0)
		return -1;
	r->verdict = e == 0 ? "answer" : "refuse";
	if (why)
		put(&r->answer, span_str(why));
	r->checks_itself = true;
	if (json_object_get(expect, "lent") && json_is_true(json_object_get(expect, "lent")) != (e == 0))
		r->verdict = "lent otherwise";
	login_done(&l);
	host_keys_done(&keys);
	return 0;
}

/* --- renewals --- */

/* A host as the case describes it, and what the world around it does. */
struct world {
	const struct decide_case *c;
	const json_t *state;
	enum prov prov;
	int64_t wall, exp_s; /* expiry as the file will say it */
	bool rotated;
	struct login login;
	struct renew_file file;
};

static char *jwt_with(const char *payload, const char *like)
{
	char mid[1024];
	const char *sig = strrchr(like, '.');
	size_t n = base64_encode(BASE64_URL, span_str(payload), mid);

	return xasprintf("%.*s.%.*s%s", (int)strcspn(like, "."), like, (int)n, mid, sig ? sig : ".c2ln");
}

static char *anthropic_file(const struct world *w)
{
	const json_t *secrets = json_object_get(w->c->fixture, "secrets"),
		     *ms = json_object_get(w->state, "expires_at_ms"), *scopes = json_object_get(w->state, "scopes");
	json_t *o = json_pack("{s:s,s:s}", "accessToken", str(secrets, "anthropic-access"), "refreshToken",
			      str(secrets, "anthropic-refresh"));
	char *inner, *whole;

	if (w->rotated || !ms)
		(void)json_object_set_new(o, "expiresAt", json_integer(w->exp_s * 1000));
	else
		(void)json_object_set(o, "expiresAt", (json_t *)(uintptr_t)ms);
	if (scopes)
		(void)json_object_set(o, "scopes", (json_t *)(uintptr_t)scopes);
	else
		(void)json_object_set_new(o, "scopes", json_pack("[s,s]", "user:inference", "user:profile"));
	inner = json_dumps(o, JSON_COMPACT);
	whole = xasprintf("{\"claudeAiOauth\":%s}", inner);
	free(inner);
	json_decref(o);
	return whole;
}

static char *openai_file(const struct world *w)
{
	const json_t *secrets = json_object_get(w->c->fixture, "secrets");
	const char *access = str(secrets, "openai-access"), *mode = str(w->state, "auth_mode");
	char payload[64], *token, *whole;

	if (strcmp(mode, "apikey") == 0 || strcmp(str(w->state, "mode"), "apikey") == 0)
		return xasprintf("{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"%s\"}", str(secrets, "openai-key"));
	(void)snprintf(payload, sizeof(payload), "{\"exp\":%lld}", (long long)w->exp_s);
	token = json_is_true(json_object_get(w->state, "opaque")) ? xstrdup("CANARY-opaque-0123456789abcdef")
								  : jwt_with(payload, access);
	whole = xasprintf("{\"tokens\":{\"access_token\":\"%s\",\"refresh_token\":\"%s\",\"id_token\":\"%s\",\"account_"
			  "id\":\"%s\"}}",
			  token, str(secrets, "openai-refresh"), str(secrets, "openai-id"),
			  str(w->c->fixture, "account_id"));
	free(token);
	return whole;
}

static void read_world(struct world *w)
{
	const json_t *text = json_object_get(w->state, "file");
	bool bridged = json_number_value(json_object_get(w->state, "unparsable_s")) < 5 &&
		       json_object_get(w->state, "unparsable_s");
	AUTO_FREE(char, file);
	const char *why;
	int e;

	file = text && !w->rotated && !bridged ? xstrdup(json_string_value(text))
	       : w->prov == PROV_ANTHROPIC     ? anthropic_file(w)
					       : openai_file(w);
	e = json_is_false(json_object_get(w->state, "signed_in")) ? -ENOENT
	    : w->prov == PROV_ANTHROPIC				  ? hostfile_anthropic(span_str(file), &w->login, &why)
								  : hostfile_openai(span_str(file), &w->login, &why);
	w->file = (struct renew_file){ .generation = w->rotated ? 2 : 1, .exp_ms = w->login.info.exp_ms };
	w->file.state = e == -ENOENT			     ? RENEW_FILE_SIGNED_OUT
			: e < 0				     ? RENEW_FILE_BAD
			: w->login.info.mode == LOGIN_APIKEY ? RENEW_FILE_KEY
							     : RENEW_FILE_OK;
}

static void rotate(struct world *w, const char *how)
{
	const char *to = strstr(how, "rotat") ? strstr(how, " to ") : NULL;
	uint64_t left = 28800;
	char digits[16] = "";

	if (to) {
		memcpy(digits, to + 4, MIN(strspn(to + 4, "0123456789"), sizeof(digits) - 1));
		(void)str_u64(digits, INT32_MAX, &left);
	}
	w->rotated = true;
	w->exp_s = w->wall / 1000 + (int64_t)left;
	read_world(w);
}

/* Plays until the one request is answered. True: 15 seconds passed first. */
static bool play(struct world *w, struct renew *m, struct decide_result *r)
{
	const char *program = str(w->state, "program"), *lock = str(w->state, "lock");
	uint64_t held = 0;
	char digits[16] = "";
	int64_t t = 0, ends = INT64_MAX, start = w->wall;
	const json_t *stamp = json_object_get(w->state, "stamp_age_s");
	enum renew_program p;
	bool pending;

	if (str_starts(lock, "held ")) {
		const char *n = strchr(lock, ' ') + 1; /* gcc 12 warns of lock + 5: str() may give "" */

		memcpy(digits, n, MIN(strspn(n, "0123456789"), sizeof(digits) - 1));
		(void)str_u64(digits, 3600, &held);
	}
	for (;;) {
		w->wall = start + t;
		if (strstr(lock, "rotat") && !w->rotated && t >= (int64_t)held * 500)
			rotate(w, lock);
		if (t >= ends) {
			ends = INT64_MAX;
			if (str_starts(program, "rotat") || strstr(program, "after rotating"))
				rotate(w, program);
			renew_ended(m, &w->file, w->wall);
		}
		switch (renew_act(m, &w->file, t, w->wall, &p)) {
		case RENEW_LOCK:
			renew_lock(m, t >= (int64_t)held * 1000, stamp ? json_integer_value(stamp) * 1000 : -1,
				   &w->file, t, w->wall);
			continue;
		case RENEW_RUN:
			r->programs_run += strcmp(program, "missing") != 0;
			/* It takes no time, so that what remains is as the case says. */
			ends = str_starts(program, "hang") ? t + renew_program_limit_ms(p) : t;
			continue;
		default:
			break;
		}
		if (renew_next_done(m, t, &pending) != 0)
			return pending;
		t = MIN(renew_wake(m), ends);
	}
}

static void renew(struct world *w, enum ph_kind kind, struct decide_result *r)
{
	struct token_values v;
	enum token_lack lack = TOKEN_LACK_NONE;
	struct renew m;
	int e;

	renew_init(&m, w->prov);
	if (json_is_true(json_object_get(w->state, "rejected")))
		renew_rejected(&m, w->file.generation);
	if (renew_ask(&m, &w->file, 1, 0, w->wall) == RENEW_WAITS && play(w, &m, r))
		lack = TOKEN_LACK_PENDING;
	if (lack == TOKEN_LACK_NONE)
		lack = renew_values(&m, &w->file, &w->login.info, kind, w->wall, &v);
	r->status = lack == TOKEN_LACK_NONE ? 200 : 503;
	e = lack == TOKEN_LACK_NONE ? token_write_renewed(&w->c->judge.set, kind, &v, &r->answer)
				    : token_write_lack(w->prov, lack, &r->answer);
	if (e < 0)
		exit(2);
}

static void token_request(const struct decide_case *c, const struct request *q, struct span body,
			  struct decide_result *r)
{
	enum prov prov = prov_hosts[c->host].prov;
	struct world w = { .c = c, .prov = prov };
	const json_t *states = json_object_get(c->context, "hosts"), *remaining;
	struct span type = { 0 };
	enum token_verdict v;
	enum ph_kind kind;
	bool coded = false;

	for (size_t i = 0; i < q->n; i++) {
		if (http_is(q->f[i].name, "content-type"))
			type = q->f[i].value;
		coded |= http_is(q->f[i].name, "content-encoding") && !http_is(q->f[i].value, "identity");
	}
	v = token_body(c->host, &c->judge.set, type, coded, body, &kind);
	if (v != TOKEN_ASK && prov_foreign(&c->judge.launch, c->host) && !token_has_ours(&c->judge.set, body)) {
		r->verdict = "forward";
		r->upstream_requests++;
		put(&r->out, body);
		return;
	}
	r->verdict = "answer";
	if (v != TOKEN_ASK) {
		r->status = token_status(v);
		if (token_write_refusal(prov, v, &r->answer) < 0)
			exit(2);
		return;
	}
	w.state = json_object_get(states, prov_str[prov]);
	w.wall = json_integer_value(json_object_get(c->fixture, "now")) * 1000;
	remaining = json_object_get(w.state, "remaining_s");
	w.exp_s = w.wall / 1000 + (remaining ? json_integer_value(remaining) : 86400);
	read_world(&w);
	renew(&w, kind, r);
	login_done(&w.login);
}

int decide_refresh(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	struct span in = buf_span(&c->input), got, whole;
	struct judged judged;
	struct buf body;
	struct http1 h;
	enum verdict v = JUDGE_REFUSE;
	int ev;

	open_arena();
	if (c->host == HOSTS || prov_hosts[c->host].role != HOST_TOKEN)
		return -1;
	buf_init(&body, 4 << 20);
	http1_init(&h, span_str(prov_hosts[c->host].name));
	/* How the head is cut is a matter of requests; here it comes whole. */
	while ((ev = http1_feed(&h, &in, &got)) != HTTP1_MORE && ev != HTTP1_DONE && ev != HTTP1_BAD) {
		if (ev == HTTP1_HEAD)
			v = judge_request(&c->judge, c->host, true, &h.req, &judged);
		else if (ev == HTTP1_BODY)
			put(&body, got);
	}
	whole = buf_span(&body);
	if (v == JUDGE_TOKEN && ev == HTTP1_DONE) {
		token_request(c, &h.req, whole, r);
	} else if (v == JUDGE_REVOKE) {
		r->verdict = "answer";
		r->status = 200;
		put(&r->answer, SPAN("{}", 2));
	} else if (v == JUDGE_FORWARD) {
		r->verdict = "forward";
		r->upstream_requests++;
		put(&r->out, buf_span(&c->input));
	} else {
		/* What is no request for a token is answered all the same; only a login is refused by policy. */
		r->verdict = h.req.fault.code == REFUSAL_LOGIN_INSIDE ? "refuse" : "answer";
		r->status = h.req.fault.status;
		r->code = refusal_code_str[h.req.fault.code];
		r->close = h.req.fault.close;
		if (refusal_http1(&h.req.fault, c->host, h.req.path, h.req.is_head, &r->answer) < 0)
			exit(2);
	}
	r->checks_itself = true; /* "max_ms": play() runs on the clock of the case */
	http1_done(&h);
	buf_done(&body);
	return 0;
}
