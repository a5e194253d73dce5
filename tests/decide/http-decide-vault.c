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

/* The request that is answered. */
struct asked {
	enum prov_host_id host;
	enum prov_method method;
	bool upgrade, credentialed, scans_body;
};

/* By its id, in this file or in the page's own; what is no id is the request itself. */
static const json_t *find_case(const struct decide_case *c, const char *id)
{
	const json_t *files[] = { c->all, c->known }, *v;
	size_t i;

	for (size_t k = 0; k < ARRAY_SIZE(files); k++)
		json_array_foreach(files[k], i, v) if (strcmp(str(v, "id"), id) == 0) return v;
	return NULL;
}

static struct asked find_request(const struct decide_case *c)
{
	/* The page's standard request. */
	struct asked a = { HOST_ANTHROPIC, METHOD_POST, false, true, true };
	const char *to = str(c->context, "to");
	const json_t *v = find_case(c, to);
	struct decide_case asked = { 0 };
	static struct httpmsg_request m;
	json_t *made = NULL;
	struct buf msg = { 0 };

	if (!v && strstr(to, " HTTP/1.1\r\n"))
		v = made = json_pack("{s:s,s:s,s:{}}", "kind", "request", "input", to, "context");
	if (v && decide_read(v, c->fixture, &asked) && asked.host < HOSTS)
		a.host = asked.host;
	if (v && decide_message(&asked, &msg, &m))
		a = (struct asked){ (enum prov_host_id)m.w.host, (enum prov_method)m.w.method,
				    m.w.flags & HTTPMSG_UPGRADE, m.w.kind[0] != HTTPMSG_NO_CRED,
				    recheck_scans_body(&m) };
	buf_done(&msg);
	buf_done(&asked.input);
	json_decref(made);
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

/* Without @e as it is. */
static void put_scanned(struct echo *e, struct span s, struct buf *out)
{
	uint8_t *copy = xmalloc(s.n + 1);

	memcpy(copy, s.p, s.n);
	if (e)
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
	struct asked asked;
	bool head, over;
};

static void answer_body(struct answering *w, struct span s, struct decide_result *r)
{
	static uint8_t room[ECHO_HOLD_MAX + ECHO_WINDOW];

	put(&w->plain, s);
	if (!w->asked.scans_body) {
		put(&r->out, s);
		return;
	}
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

	if (ev == ANSWER_HEAD && w->asked.scans_body && answer_is_coded(&w->a)) {
		w->over = true;
		refuse(c, w->asked.host, REFUSAL_ENCODING, r);
	} else if (ev == ANSWER_HEAD || ev == ANSWER_UPGRADED) {
		w->head = true;
		r->verdict = "forward";
		(void)snprintf(line, sizeof(line), "HTTP/1.1 %u \r\n", w->a.status);
		put(&r->out, span_str(line));
		put_fields(w->asked.credentialed ? w->fields : NULL, &w->a, w->asked.host, &r->out);
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
			put_fields(w->asked.credentialed ? w->fields : NULL, &w->a, w->asked.host, &r->out);
		r->truncated = ev < 0 && w->head;
		r->upstream_dropped |= ev < 0;
		if (ev < 0 && !w->head)
			refuse(c, w->asked.host, ev == -EPIPE ? REFUSAL_UPSTREAM : REFUSAL_UPSTREAM_FRAMING, r);
	}
}

int decide_upgrade(const json_t *after)
{
	struct span in = SPAN(json_string_value(after), json_string_length(after));
	struct answer a;
	int ev;

	answer_init(&a, METHOD_GET, true);
	ev = answer_feed(&a, &in);
	answer_done(&a);
	return ev < 0 || ev == ANSWER_MORE ? -1 : ev == ANSWER_UPGRADED;
}

int decide_response(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	struct asked asked = find_request(c);
	struct span in = buf_span(&c->input), piece, out;
	size_t step = c->cut == SIZE_MAX ? 1 : c->cut > 0 && c->cut < in.n ? c->cut : in.n;
	struct answering w = { .asked = asked };
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
	else if (strcmp(provider, "opencode-keys") == 0 || strcmp(provider, "opencode") == 0)
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
	/* None of what OpenCode can have. */
	if (e == 0 && r->out.n == 2 && memcmp(buf_span(&r->out).p, "{}", 2) == 0)
		e = -ENOENT;
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
	json_t *state;
	enum prov prov;
	int64_t start, wall, exp_s; /* when the case began, now, and the expiry as the file will say it */
	int64_t stamp;		    /* when a program was last started, from the beginning; STAMP_NONE */
	bool rotated;
	struct login login;
	struct renew_file file;
	struct renew m;
};

#define STAMP_NONE INT64_MIN

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

	file = json_is_string(text) && !w->rotated && !bridged ? xstrdup(json_string_value(text))
	       : w->prov == PROV_ANTHROPIC		       ? anthropic_file(w)
							       : openai_file(w);
	e = json_is_false(json_object_get(w->state, "signed_in")) || json_is_null(text) ||
			    json_is_true(json_object_get(w->state, "keyring"))
		    ? -ENOENT
	    : w->prov == PROV_ANTHROPIC ? hostfile_anthropic(span_str(file), &w->login, &why)
					: hostfile_openai(span_str(file), &w->login, &why);
	w->file = (struct renew_file){ .generation = w->rotated ? 2 : 1, .exp_ms = w->login.info.exp_ms };
	w->file.state = e == -ENOENT			     ? RENEW_FILE_SIGNED_OUT
			: e < 0				     ? RENEW_FILE_BAD
			: w->login.info.mode == LOGIN_APIKEY ? RENEW_FILE_KEY
							     : RENEW_FILE_OK;
}

/* The number behind @word; @other without one. */
static uint64_t number_after(const char *text, const char *word, uint64_t other)
{
	const char *at = strstr(text, word);
	char digits[16] = "";

	if (!at)
		return other;
	at += strlen(word);
	memcpy(digits, at, MIN(strspn(at, "0123456789"), sizeof(digits) - 1));
	(void)str_u64(digits, INT32_MAX, &other);
	return other;
}

static void rotate(struct world *w, const char *how)
{
	w->rotated = true;
	w->exp_s = w->wall / 1000 + (int64_t)number_after(how, " to ", 28800);
	read_world(w);
}

/* The state of the case over that of the launch. */
static void world_init(struct world *w, const struct decide_case *c, enum prov prov)
{
	const json_t *of_launch = json_object_get(json_object_get(c->fixture, "hosts"), prov_str[prov]),
		     *of_case = json_object_get(json_object_get(c->context, "hosts"), prov_str[prov]), *age, *v;
	bool other_boot = false, rejected = false;
	uint64_t asked = 0, waiting = 0;
	const char *key;

	*w = (struct world){ .c = c, .prov = prov, .state = json_object() };
	(void)json_object_update(w->state, (json_t *)(uintptr_t)of_launch);
	(void)json_object_update(w->state, (json_t *)(uintptr_t)of_case);
	if (json_is_null(of_case) || json_is_false(of_case))
		(void)json_object_set_new(w->state, "signed_in", json_false());
	json_object_foreach(w->state, key, v)
	{
		other_boot |= strstr(key, "boot") && !json_is_false(v) && !json_is_null(v);
		rejected |= strstr(key, "reject") && json_is_true(v);
		if (str_starts(key, "asked") && json_is_integer(v))
			asked = (uint64_t)json_integer_value(v);
		if (str_starts(key, "waiting") && json_is_integer(v))
			waiting = (uint64_t)json_integer_value(v);
	}
	w->start = w->wall = json_integer_value(json_object_get(c->fixture, "now")) * 1000;
	w->exp_s = w->wall / 1000 + (int64_t)json_number_value(json_object_get(w->state, "remaining_s"));
	/* One of another boot, or from the future, is none. */
	age = json_object_get(w->state, "stamp_age_s");
	w->stamp = json_is_number(age) && json_number_value(age) >= 0 && !other_boot
			   ? -(int64_t)(json_number_value(age) * 1000)
			   : STAMP_NONE;
	read_world(w);
	renew_init(&w->m, prov);
	if (rejected)
		renew_rejected(&w->m, w->file.generation);
	/* Others of this session, just now. */
	for (size_t i = 0; i < MIN(asked, RENEW_ASKED_MAX); i++)
		w->m.asked[i] = 0;
	for (size_t i = 0; i < MIN(waiting, RENEW_WAITING_MAX); i++) {
		w->m.waiting[i].id = (uint32_t)i + 2;
		w->m.waiting[i].until = RENEW_DEADLINE_MS;
	}
}

static void world_done(struct world *w)
{
	json_decref(w->state);
	login_done(&w->login);
}

/* Plays until the one request is answered. True: 15 seconds passed first. */
static bool play(struct world *w, struct decide_result *r)
{
	const char *program = str(w->state, "program"), *lock = str(w->state, "lock");
	bool rotates = strstr(program, "rotat") && !strstr(program, "not "), hangs = strstr(program, "hangs");
	int64_t held = (int64_t)number_after(lock, "held ", 0) * 1000,
		slow = (int64_t)number_after(program, "after ", 0) * 1000, t = w->wall - w->start, ends = INT64_MAX;
	enum renew_program p;
	bool pending;

	for (;;) {
		w->wall = w->start + t;
		if (strstr(lock, "rotat") && !w->rotated && t >= held / 2)
			rotate(w, lock);
		if (t >= ends) {
			ends = INT64_MAX;
			if (rotates)
				rotate(w, program);
			renew_ended(&w->m, &w->file, w->wall);
		}
		switch (renew_act(&w->m, &w->file, t, w->wall, &p)) {
		case RENEW_LOCK:
			renew_lock(&w->m, t >= held, w->stamp == STAMP_NONE ? -1 : t - w->stamp, &w->file, t, w->wall);
			continue;
		case RENEW_RUN:
			w->stamp = t;
			r->programs_run += strcmp(program, "missing") != 0;
			/* It takes no time unless it is said, so that what remains is as the case says. */
			ends = t + (hangs ? renew_program_limit_ms(p) : MIN(slow, renew_program_limit_ms(p)));
			continue;
		default:
			break;
		}
		switch (renew_next_done(&w->m, t, &pending)) {
		case 0:
			break;
		case 1:
			return pending;
		default:
			continue;
		}
		t = MIN(renew_wake(&w->m), ends);
	}
}

/* As the guest gets it. */
static void answer(struct reply *reply, unsigned status, struct decide_result *r)
{
	r->status = status;
	reply->status = (uint16_t)status;
	if (reply_http1(reply, false, &r->answer) < 0)
		exit(2);
	reply_done(reply);
}

static void renew(struct world *w, enum ph_kind kind, struct decide_result *r)
{
	struct token_values v;
	enum token_lack lack = TOKEN_LACK_NONE;
	enum renew_reply reply = renew_ask(&w->m, &w->file, 1, w->wall - w->start, w->wall);
	struct reply text = { .type = "application/json" };
	int e;

	buf_init(&text.body, TOKEN_ANSWER_MAX);
	if (reply == RENEW_LIMIT)
		lack = TOKEN_LACK_LIMIT;
	else if (reply == RENEW_WAITS && play(w, r))
		lack = TOKEN_LACK_PENDING;
	if (lack == TOKEN_LACK_NONE)
		lack = renew_values(&w->m, &w->file, &w->login.info, kind, w->wall, &v);
	e = lack == TOKEN_LACK_NONE ? token_write_renewed(&w->c->judge.set, kind, &v, &text.body)
				    : token_write_lack(w->prov, lack, &text.body);
	if (e < 0)
		exit(2);
	answer(&text, lack == TOKEN_LACK_NONE ? 200 : 503, r);
}

enum refusal_code decide_login(const struct decide_case *c, enum ph_kind kind, struct decide_result *r)
{
	enum refusal_code code = REFUSAL_NONE;
	struct world w;

	if (kind != PH_CLAUDE_A && kind != PH_CODEX_A && kind != PH_OPENCODE_A)
		return REFUSAL_NONE;
	open_arena();
	world_init(&w, c, kind == PH_CLAUDE_A ? PROV_ANTHROPIC : PROV_OPENAI);
	/* As exchange.c does: what is over is renewed first, and then what the file holds goes out. */
	if (renew_is_over(&w.file, w.wall) && renew_ask(&w.m, &w.file, 1, 0, w.wall) == RENEW_WAITS && play(&w, r))
		code = REFUSAL_REFRESH_PENDING;
	else if (w.file.state != RENEW_FILE_OK)
		code = REFUSAL_CREDENTIAL_UNAVAILABLE;
	world_done(&w);
	return code;
}

/* What passes goes out with its body as one piece. */
static void pass(const struct decide_case *c, const struct judged *d, const struct request *q, struct span body,
		 struct decide_result *r)
{
	char size[32];

	if (!decide_forward(c, d, q, r))
		return;
	if (q->body == HTTP_BODY_STREAM && body.n > 0)
		put(&r->out, SPAN(size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", body.n)));
	put(&r->out, body);
	if (q->body == HTTP_BODY_STREAM)
		put(&r->out, span_str(body.n > 0 ? "\r\n0\r\n\r\n" : "0\r\n\r\n"));
}

static void token_request(const struct decide_case *c, const struct judged *d, const struct request *q,
			  struct span body, struct world *w, struct decide_result *r)
{
	enum prov prov = prov_hosts[c->host].prov;
	struct reply reply = { .type = "application/json" };
	struct span type = { 0 };
	enum token_verdict v;
	enum ph_kind kind;
	bool coded = false;

	for (size_t i = 0; i < q->n; i++) {
		if (http_is(q->f[i].name, "content-type") && !type.p)
			type = q->f[i].value;
		coded |= http_is(q->f[i].name, "content-encoding") && !http_is(q->f[i].value, "identity");
	}
	v = token_body(c->host, &c->judge.set, type, coded, body, &kind);
	r->code = NULL;
	if (v != TOKEN_ASK && prov_foreign(&c->judge.launch, c->host) && !token_has_ours(&c->judge.set, body)) {
		pass(c, d, q, body, r);
		return;
	}
	r->verdict = "answer";
	if (v == TOKEN_ASK) {
		renew(w, kind, r);
		return;
	}
	buf_init(&reply.body, TOKEN_ANSWER_MAX);
	if (token_write_refusal(prov, v, &reply.body) < 0)
		exit(2);
	answer(&reply, token_status(v), r);
}

/* A request to a token endpoint whose body is there. */
static void refresh(const struct decide_case *c, const struct http1 *h, enum verdict v, const struct judged *d,
		    struct span body, struct world *w, struct decide_result *r)
{
	struct reply revoked = { .type = "application/json" };
	const struct refusal *f = &h->req.fault;

	if (v == JUDGE_TOKEN) {
		token_request(c, d, &h->req, body, w, r);
	} else if (v == JUDGE_REVOKE) {
		r->verdict = "answer";
		r->code = NULL;
		buf_init(&revoked.body, TOKEN_ANSWER_MAX);
		put(&revoked.body, SPAN("{}", 2));
		answer(&revoked, 200, r);
	} else if (v == JUDGE_FORWARD) {
		pass(c, d, &h->req, body, r);
	} else {
		/* What the endpoint itself says of path and method is an answer; all else is refused. */
		r->verdict = f->code == REFUSAL_METHOD || f->status == 404 ? "answer" : "refuse";
		r->status = f->status;
		r->code = refusal_code_str[f->code];
		r->close = f->close;
		if (refusal_http1(f, c->host, h->req.path, h->req.is_head, &r->answer) < 0)
			exit(2);
	}
	if (r->n_msgs < DECIDE_MSGS)
		r->msg[r->n_msgs++] = (struct decide_msg){ r->verdict, r->status, r->code };
}

int decide_refresh(const struct decide_case *c, const json_t *expect, struct decide_result *r)
{
	struct span in = buf_span(&c->input), got;
	enum verdict v = JUDGE_REFUSE;
	struct judged judged;
	struct world w;
	struct buf body;
	struct http1 h;
	int ev;

	if (c->host == HOSTS || prov_hosts[c->host].role != HOST_TOKEN)
		return -1;
	open_arena();
	world_init(&w, c, prov_hosts[c->host].prov);
	buf_init(&body, 4 << 20);
	http1_init(&h, span_str(prov_hosts[c->host].name));
	r->verdict = "incomplete";
	/* How the head is cut is a matter of requests; here it comes whole. */
	while (!r->close && (ev = http1_feed(&h, &in, &got)) != HTTP1_MORE) {
		if (ev == HTTP1_HEAD)
			v = judge_request(&c->judge, c->host, true, &h.req, &judged);
		else if (ev == HTTP1_BODY)
			put(&body, got);
		else if (ev == HTTP1_BAD)
			h.req.fault = http1_fault();
		if (ev == HTTP1_DONE || ev == HTTP1_BAD || h.req.fault.close) {
			refresh(c, &h, ev == HTTP1_DONE ? v : JUDGE_REFUSE, &judged, buf_span(&body), &w, r);
			buf_consume(&body, body.n);
		}
		if (ev == HTTP1_DONE)
			http1_next(&h);
	}
	r->checks_itself = true; /* "max_ms": play() runs on the clock of the case */
	http1_done(&h);
	buf_done(&body);
	world_done(&w);
	return 0;
}
