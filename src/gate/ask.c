/* One request of the guest, from the verdict to the end of its answer, whichever version of HTTP it came by.
 *
 *   COLLECT: the body decides (token endpoints, GitHub) -> RENEW (vault says the numbers), FORWARD, or an answer from here
 *   LOOKUP:  GitHub is asked first, and then judged again (lookup.c)
 *   FORWARD: the judged head goes to vault with one end of a stream pair; the body follows as frames, the answer comes back
 *
 * At most ASKS at once, each with at most XCH_WINDOW and a little in memory a direction. The protocol above is told by
 * h1_reply() and h2_reply() when the answer is ours after all, and looks for frames with ask_take(). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agents/tokens.h"
#include "base/log.h"
#include "base/fd.h"
#include "base/macros.h"
#include "gate/gate.h"
#include "proto/pathtpl.h"

#define AT_ONCE (64 << 10)
#define NOWHERE SIZE_MAX
#define NOTES_WAIT 1024 /* of vault's queue: more is not recorded, and counted */

static const char revoked[] = "{}";

struct ask *ask_at(struct gate *g, uint32_t slot, uint32_t gen)
{
	return slot < ASKS && g->ask[slot].used && g->ask[slot].gen == gen ? &g->ask[slot] : NULL;
}

static void touch(struct ask *a)
{
	int64_t in = a->state == ASK_RENEW			    ? RENEW_NS
		     : a->relaying				    ? RELAY_NS
		     : a->body_ended || a->answered || a->out.n > 0 ? ANSWER_NS
								    : BODY_NS;

	a->deadline = a->c->g->now + in;
	gate_due(a->c->g, a->deadline);
}

static void note(struct gate *g, struct net_note m, const struct reply *r)
{
	m.head = (struct net_head){ NET_VERSION, NET_NOTE, sizeof(m), 0, 0 };
	m.status = r->status;
	m.code = (uint8_t)r->code;
	m.down = r->body.n;
	if (g->vault.n > NOTES_WAIT) {
		if (g->notes_lost++ == 0)
			log_warn("vault does not keep up with what is refused; some records are lost");
		return;
	}
	vault_send(g, &m, sizeof(m), -1);
}

void ask_note(struct conn *c, const struct request *r, const struct reply *reply)
{
	struct net_note m = { .host = (uint8_t)c->host,
			      .method = (uint8_t)r->method,
			      .kind = r->fault.has_kind ? (uint8_t)r->fault.kind : HTTPMSG_NO_CRED };

	pathtpl_write(r->path, m.path);
	note(c->g, m, reply);
}

static void note_ask(const struct ask *a, const struct reply *reply)
{
	struct net_note m = { .host = (uint8_t)a->host,
			      .method = (uint8_t)a->method,
			      .up = a->up,
			      .ms = (uint32_t)((a->c->g->now - a->begun) / MS),
			      .kind = a->kind < PH_KINDS ? (uint8_t)a->kind : HTTPMSG_NO_CRED };

	memcpy(m.path, a->path, sizeof(m.path));
	note(a->c->g, m, reply);
}

/* ---- answers from here ---- */

static void answer(struct ask *a, struct reply *r)
{
	if (a->stream)
		h2_reply(a, r);
	else
		h1_reply(a, r);
	reply_done(r);
	ask_end(a);
}

void ask_refuse(struct ask *a, const struct refusal *f, bool recorded)
{
	struct reply r;

	if (reply_refusal(f, a->host, span_str(a->path), &r) < 0)
		r.close = true; /* no memory: the status alone says enough */
	if (!recorded)
		note_ask(a, &r);
	answer(a, &r);
}

static void answer_token(struct ask *a, unsigned status, int (*write)(struct ask *a, const void *arg, struct buf *out),
			 const void *arg)
{
	struct reply r = { .status = (uint16_t)status, .type = "application/json" };
	struct refusal none = refusal_by_vault(REFUSAL_CREDENTIAL_UNAVAILABLE, PH_KINDS);

	buf_init(&r.body, TOKEN_ANSWER_MAX);
	if (write(a, arg, &r.body) < 0) {
		reply_done(&r);
		ask_refuse(a, &none, false);
		return;
	}
	note_ask(a, &r);
	answer(a, &r);
}

static int write_refusal(struct ask *a, const void *arg, struct buf *out)
{
	return token_write_refusal(prov_hosts[a->host].prov, *(const enum token_verdict *)arg, out);
}

static int write_lack(struct ask *a, const void *arg, struct buf *out)
{
	return token_write_lack(prov_hosts[a->host].prov, *(const enum token_lack *)arg, out);
}

static int write_renewed(struct ask *a, const void *arg, struct buf *out)
{
	const struct net_renewed *m = arg;
	struct token_values v = {
		.expires_in = m->expires_in,
		.claims = { .exp = m->exp, .account_id = m->account_id, .plan = m->plan, .fedramp = m->fedramp },
		.scope = m->scope
	};

	return token_write_renewed(&a->c->g->judge.set, a->kind, &v, out);
}

void ask_renewed(struct ask *a, const struct net_renewed *m)
{
	enum token_lack lack = m->lack;

	if (lack != TOKEN_LACK_NONE)
		answer_token(a, 503, write_lack, &lack);
	else
		answer_token(a, 200, write_renewed, m);
}

/* ---- to vault ---- */

/* The head of an answer is handed out whole, and its frame may be longer than what is kept of a body. */
static bool reads_on(const struct ask *a)
{
	size_t high = a->reader.last == 0 ? sizeof(struct xch_head) + HTTPMSG_MAX : OUT_HIGH;

	return !a->eof && a->in.n - a->eaten < high;
}

/* The host has no memory for what has to be said to vault, or for hearing of it. Who asked hears of that in asks_tick(), for here it
 * may be in the middle of something. */
static void lose(struct ask *a)
{
	a->eof = a->lost = true;
	a->deadline = a->c->g->now;
	gate_due(a->c->g, a->deadline);
}

/* That it is not read for a while is told only when something came meanwhile (@unwanted): within a body that is for
 * moments. */
static void watch(struct ask *a, bool unwanted)
{
	struct ev *ev = &a->c->g->ev;
	uint32_t want = (reads_on(a) ? EPOLLIN : 0) | (a->out.n > 0 ? EPOLLOUT : 0);

	if (!unwanted && !a->eof)
		want |= a->watching & EPOLLIN;
	if (a->fd < 0 || want == a->watching)
		return;
	/* With nothing to wait for it is not watched at all: the other end's close would wake us again and again. */
	if (want == 0)
		ev_unwatch(ev, a->fd);
	else if (ev_watch(ev, a->fd, want, EV_ASK, a->slot, a->gen) < 0)
		lose(a);
	a->watching = want;
}

static void flush(struct ask *a)
{
	while (a->out.n > 0) {
		ssize_t n = send(a->fd, buf_span(&a->out).p, a->out.n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			/* Vault has its answer already, or is gone: what it said before is still to be read. */
			if (fd_is_lack(errno))
				lose(a);
			buf_consume(&a->out, a->out.n);
			a->open_at = NOWHERE;
			break;
		}
		buf_consume(&a->out, (size_t)n);
		a->open_at = a->open_at != NOWHERE && a->open_at >= (size_t)n ? a->open_at - (size_t)n : NOWHERE;
	}
	watch(a, false);
}

/* DATA joins the frame before it if nothing of that has gone: many small pieces of a guest must not become many frames.
 */
static int put_data(struct ask *a, struct span s)
{
	struct xch_head h;
	size_t at = a->open_at;

	if (at != NOWHERE) {
		memcpy(&h, buf_span(&a->out).p + at, sizeof(h));
		if (h.length + s.n <= XCH_DATA_MAX) {
			if (buf_put(&a->out, s.p, s.n) < 0)
				return -ENOBUFS;
			buf_set_u32(&a->out, at, (uint32_t)(h.length + s.n));
			return 0;
		}
	}
	a->open_at = s.n <= XCH_DATA_MAX ? a->out.n : NOWHERE;
	return xch_put(&a->out, XCH_DATA, s);
}

static int forward(struct ask *a, const struct request *r, struct span body)
{
	struct gate *g = a->c->g;
	struct buf msg;
	int pair[2], e;

	buf_init(&msg, HTTPMSG_MAX);
	/* A body that was collected is here at once. */
	a->out.max += body.n + (body.n / XCH_DATA_MAX + 1) * sizeof(struct xch_head);
	filter_begin(a);
	e = judge_message(&a->judged, r, a->slot, a->gen, &msg);
	if (e == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		e = -errno;
	if (e == 0) {
		a->fd = pair[0];
		a->state = ASK_FORWARD;
		a->reader = (struct xch_reader){ .side = XCH_TO_GATE };
		vault_send(g, buf_span(&msg).p, msg.n, pair[1]);
		e = xch_put(&a->out, XCH_DATA, body);
		touch(a);
		watch(a, false);
	}
	buf_done(&msg);
	return e;
}

/* ---- the body ---- */

static struct span field(const struct request *r, const char *name)
{
	for (size_t i = 0; i < r->n; i++)
		if (http_is(r->f[i].name, name))
			return r->f[i].value;
	return SPAN(NULL, 0);
}

static void decide_token(struct ask *a)
{
	struct gate *g = a->c->g;
	struct net_renew m = { .head = { NET_VERSION, NET_RENEW, sizeof(m), a->slot, a->gen } };
	struct refusal busy = refusal_by_vault(REFUSAL_LIMIT, PH_KINDS);
	struct span body = buf_span(&a->body), coding = field(a->req, "content-encoding");
	enum token_verdict v = token_body(a->host, &g->judge.set, field(a->req, "content-type"),
					  coding.n > 0 && !http_is(coding, "identity"), body, &a->kind);

	if (v == TOKEN_ASK) {
		a->state = ASK_RENEW;
		m.kind = (uint8_t)a->kind;
		touch(a);
		vault_send(g, &m, sizeof(m), -1);
	} else if (v != TOKEN_TOO_LARGE && prov_foreign(&g->judge.launch, a->host) &&
		   !token_has_ours(&g->judge.set, body)) {
		if (forward(a, a->req, body) < 0)
			ask_refuse(a, &busy, false);
	} else {
		answer_token(a, token_status(v), write_refusal, &v);
	}
}

static void end_body(struct ask *a)
{
	a->open_at = NOWHERE;
	(void)xch_put(&a->out, XCH_END, SPAN(NULL, 0));
	flush(a);
	touch(a);
}

/* The time is told once, however often it is judged. */
static void await(struct ask *a)
{
	if (a->state != ASK_LOOKUP)
		a->deadline = a->c->g->now + LOOKUP_WAIT_NS;
	a->state = ASK_LOOKUP;
	gate_due(a->c->g, a->deadline);
}

/* What the body says is decided; what is sent of it may be another text. */
static void decide_github(struct ask *a)
{
	static struct github_ask ask;
	struct gate *g = a->c->g;
	struct refusal busy = refusal_by_vault(REFUSAL_LIMIT, PH_KINDS);
	struct span body = buf_span(&a->body);
	enum verdict v;
	struct buf other;
	bool never;

	if (a->judged.github.body == GH_BODY_GRAPHQL && a->turns < GITHUB_TURNS_MAX && lookup_facts(g)) {
		await(a);
		return;
	}
	g->github.now_ms = (uint64_t)(g->now / MS);
	buf_init(&other, GQL_SENT_MAX);
	ask.turns = a->turns;
	a->judged.ask = &ask;
	v = judge_body(&g->judge, a->req, body, &a->judged, &other);
	if (v == JUDGE_ASK) {
		a->asked = lookup_ask(g, &ask, buf_span(&other), &never);
		a->turns = a->asked ? ask.turns : a->turns;
		if (!never) {
			await(a);
			buf_done(&other);
			return;
		}
		a->judged.ask = NULL;
		buf_consume(&other, other.n);
		v = judge_body(&g->judge, a->req, body, &a->judged, &other);
	}
	if (v != JUDGE_FORWARD) {
		ask_refuse(a, &a->req->fault, false);
	} else {
		if (other.n > 0) {
			/* Written here as a whole, so its length is known. */
			body = buf_span(&other);
			a->req->body = HTTP_BODY_LENGTH;
			a->req->body_len = body.n;
		}
		if (forward(a, a->req, body) < 0)
			ask_refuse(a, &busy, false);
		else if (a->body_ended)
			end_body(a);
	}
	buf_done(&other);
}

void ask_looked_up(struct ask *a, bool told)
{
	/* Whoever asked and heard nothing asks no more. */
	if (!told && a->asked)
		a->turns = GITHUB_TURNS_MAX;
	decide_github(a);
}

static void decide(struct ask *a)
{
	if (a->verdict == JUDGE_TOKEN)
		decide_token(a);
	else
		decide_github(a);
}

/* More of a body that decides. */
static void collect_more(struct ask *a, struct span s)
{
	struct refusal busy = refusal_by_vault(REFUSAL_LIMIT, PH_KINDS);

	if (a->verdict == JUDGE_TOKEN) {
		/* One byte more than is allowed says that it is too much. */
		size_t room = TOKEN_BODY_MAX + 1 - a->body.n;

		if (buf_put(&a->body, s.p, MIN(s.n, room)) < 0 || s.n >= room)
			decide(a);
		else
			touch(a);
		return;
	}
	/* What does not fit is past the maximum anyway. */
	if (buf_put(&a->body, s.p, MIN(s.n, a->body.max - a->body.n)) < 0) {
		ask_refuse(a, &busy, false);
		return;
	}
	switch (github_need(a->req, &a->judged.github, buf_span(&a->body), false)) {
	case GITHUB_MORE:
		touch(a);
		break;
	case GITHUB_ENOUGH:
		decide(a);
		break;
	default:
		ask_refuse(a, &a->req->fault, false);
	}
}

void ask_body(struct ask *a, struct span s)
{
	a->up += s.n;
	if (a->state == ASK_COLLECT) {
		collect_more(a, s);
	} else if (a->state == ASK_FORWARD) {
		a->owed += s.n;
		if (a->fd < 0)
			return;
		if (put_data(a, s) < 0) {
			a->eof = true; /* more than was let in: no honest window leads here */
			return;
		}
		if (ask_is_full(a))
			flush(a);
		else
			a->c->g->bodies_wait = true;
		touch(a);
	}
}

void ask_body_end(struct ask *a)
{
	uint16_t slot = a->slot;
	uint32_t gen = a->gen;
	struct gate *g = a->c->g;

	if (a->state == ASK_COLLECT)
		decide(a);
	a = ask_at(g, slot, gen);
	if (!a || a->body_ended)
		return;
	a->body_ended = true;
	if (a->state == ASK_FORWARD && a->fd >= 0)
		end_body(a);
}

void asks_flush(struct gate *g)
{
	if (!g->bodies_wait)
		return;
	g->bodies_wait = false;
	for (size_t i = 0; i < ASKS; i++)
		if (g->ask[i].used && g->ask[i].fd >= 0 && g->ask[i].out.n > 0 && !(g->ask[i].watching & EPOLLOUT))
			flush(&g->ask[i]);
}

bool ask_is_full(const struct ask *a)
{
	return a->out.n >= OUT_HIGH;
}

/* ---- the answer ---- */

static enum xch_got take(struct ask *a, size_t max, struct span *ret)
{
	struct span in, part;
	enum xch_got got;

	buf_consume(&a->in, a->eaten);
	a->eaten = 0;
	in = buf_span(&a->in);
	/* Only DATA is handed out in parts; another frame comes whole or not yet. */
	if (a->reader.left > 0)
		in.n = MIN(in.n, max);
	else if (in.n > sizeof(struct xch_head) && in.p[offsetof(struct xch_head, type)] == XCH_DATA)
		in.n = MIN(in.n, sizeof(struct xch_head) + max);
	part = in;
	got = a->state == ASK_FORWARD ? xch_take(&a->reader, &part, ret) : XCH_GOT_MORE;
	a->eaten = in.n - part.n;
	if (got == XCH_GOT_DATA)
		a->down += ret->n;
	if (got == XCH_GOT_MORE && a->eof)
		got = XCH_GOT_BAD;
	watch(a, false);
	return got;
}

enum xch_got ask_take(struct ask *a, size_t max, struct span *ret)
{
	return filter_take(a, max, ret, take);
}

bool ask_keeps(const struct ask *a, const struct httpmsg_answer *m, const struct http_field *f)
{
	static const char *const framing[] = { "connection", "keep-alive",	  "te",
					       "trailer",    "transfer-encoding", "upgrade" };
	uint64_t n;

	if (http_is(f->name, "content-length"))
		return ask_is_bare(a, m->w.status) && m->w.status != 204 && http_length(f->value, &n) == 0;
	return !http_is_one_of(f->name, framing, ARRAY_SIZE(framing)) && !http_begins(f->name, "proxy-") &&
	       !http_begins(f->name, "x-sandbox-") && !(prov_hosts[a->host].role == HOST_GITHUB && gh_reply_drops(f->name));
}

bool ask_is_bare(const struct ask *a, uint16_t status)
{
	return a->is_head || status == 204 || status == 304;
}

bool ask_answer(struct ask *a, struct span msg, struct httpmsg_answer *ret)
{
	const struct gh_decision *d = &a->judged.github;
	struct refusal f;

	if (httpmsg_answer_parse(msg, ret) < 0 ||
	    (ret->w.status == 101 && (!a->websocket || ret->w.code != 0 || ret->w.body == HTTP_BODY_LENGTH))) {
		f = refusal_by_vault(REFUSAL_UPSTREAM_FRAMING, PH_KINDS);
		ask_refuse(a, &f, false);
		return false;
	}
	if (ret->w.code != REFUSAL_NONE) {
		f = refusal_by_vault(ret->w.code, a->kind);
		if (a->filter.refuses && d->verdict == GH_REFUSE)
			f = github_refusal(d);
		ask_refuse(a, &f, !a->filter.refuses);
		return false;
	}
	a->answered = true;
	a->relaying = ret->w.status == 101;
	touch(a);
	return true;
}

void ask_event(struct gate *g, const struct ev_event *e)
{
	struct ask *a = ask_at(g, e->slot, e->gen);
	bool unwanted;
	uint8_t *room;
	ssize_t n;

	if (!a)
		return;
	unwanted = !reads_on(a);
	if (e->events & EPOLLOUT)
		flush(a);
	if (a->fd >= 0 && e->events & (EPOLLIN | EPOLLHUP | EPOLLERR) && reads_on(a)) {
		buf_consume(&a->in, a->eaten);
		a->eaten = 0;
		room = buf_room(&a->in, AT_ONCE);
		do
			n = room ? recv(a->fd, room, AT_ONCE, MSG_DONTWAIT) : 0;
		while (n < 0 && errno == EINTR);
		if (n > 0)
			buf_grew(&a->in, (size_t)n);
		else if (n == 0 || errno != EAGAIN)
			a->eof = true;
	}
	if (a->eof && a->fd >= 0) {
		ev_unwatch(&g->ev, a->fd);
		(void)close(a->fd);
		a->fd = -1;
		buf_done(&a->out);
	}
	touch(a);
	watch(a, unwanted && !reads_on(a));
	if (a->stream)
		h2_news(a);
	else
		conn_kick(a->c);
}

/* ---- begin and end ---- */

static struct ask *ask_new(struct gate *g)
{
	struct ask *a = g->ask;

	if (g->n_asks == ASKS)
		return NULL;
	while (a->used)
		a++;
	*a = (struct ask){ .slot = (uint16_t)(a - g->ask),
			   .gen = a->gen + 1,
			   .used = true,
			   .fd = -1,
			   .open_at = NOWHERE,
			   .kind = PH_KINDS,
			   .begun = g->now };
	buf_init(&a->out, 3 * XCH_WINDOW);
	buf_init(&a->in, XCH_WINDOW);
	buf_init(&a->body, 0);
	g->n_asks++;
	return a;
}

void ask_end(struct ask *a)
{
	struct gate *g = a->c->g;

	if (!a->used)
		return;
	if (a->fd >= 0) {
		ev_unwatch(&g->ev, a->fd);
		(void)close(a->fd);
	}
	a->fd = -1;
	buf_done(&a->out);
	buf_done(&a->in);
	buf_done(&a->body);
	buf_done(&a->head);
	filter_done(a);
	g->n_bodies -= a->counted;
	free(a->req);
	a->req = NULL;
	a->used = false;
	g->n_asks--;
}

/* Keeps what is needed until the body is there. */
static bool collect(struct ask *a, const struct request *r, struct buf *head)
{
	a->state = ASK_COLLECT;
	buf_init(&a->body, a->verdict == JUDGE_TOKEN ? TOKEN_BODY_MAX + 1 : GH_JSON_MAX + 1);
	a->req = malloc(sizeof(*a->req));
	if (!a->req)
		return false;
	*a->req = *r;
	if (head) {
		a->head = *head;
		buf_init(head, head->max);
	}
	touch(a);
	return true;
}

static struct ask *begin(struct conn *c, void *stream, const struct request *r, struct buf *head, enum verdict v,
			 const struct judged *d)
{
	struct ask *a = c->crowd ? NULL : ask_new(c->g);

	if (!a)
		return NULL;
	a->c = c;
	a->stream = stream;
	a->host = c->host;
	a->method = r->method;
	a->is_head = r->is_head;
	a->websocket = r->websocket;
	a->verdict = v;
	a->judged = *d;
	if (d->use.n > 0)
		a->kind = d->use.kind[0];
	pathtpl_write(r->path, a->path);
	if (v == JUDGE_BODY) {
		if (c->g->n_bodies == BODIES_MAX) {
			ask_end(a);
			return NULL;
		}
		a->counted = true;
		c->g->n_bodies++;
	}
	if (v == JUDGE_FORWARD ? forward(a, r, SPAN(NULL, 0)) == 0 :
				 collect(a, r, head))
		return a;
	ask_end(a);
	return NULL;
}

struct ask *ask_begin(struct conn *c, void *stream, struct request *r, struct buf *head, struct reply *ret)
{
	struct refusal busy = refusal_by_vault(REFUSAL_LIMIT, PH_KINDS);
	struct judged d;
	enum verdict v = judge_request(&c->g->judge, c->host, true, r, &d);
	struct ask *a = NULL;

	if (c->host == HOST_GITHUB_API)
		(void)lookup_facts(c->g);

	busy.close = r->fault.close || c->crowd;
	if (v == JUDGE_REVOKE && !c->crowd) {
		guest_line(c->g, LINE_SIGN_OUT, "%s: a sign-out inside the guest; the host's login stays",
			   prov_hosts[c->host].name);
		*ret = (struct reply){ .status = 200, .type = "application/json" };
		buf_init(&ret->body, sizeof(revoked));
		(void)buf_put(&ret->body, revoked, strlen(revoked));
	} else if (v == JUDGE_REFUSE) {
		(void)reply_refusal(&r->fault, c->host, r->path, ret);
	} else {
		a = v == JUDGE_REVOKE ? NULL : begin(c, stream, r, head, v, &d);
		if (a)
			return a;
		(void)reply_refusal(&busy, c->host, r->path, ret);
	}
	ret->close = ret->close || c->crowd;
	ask_note(c, r, ret);
	return NULL;
}

static void timeout(struct ask *a)
{
	const struct refusal slow = { .status = 408,
				      .code = REFUSAL_LIMIT,
				      .close = true,
				      .why = "the request's body stopped for five minutes; send it again" };
	enum token_lack lack = TOKEN_LACK_PENDING;

	if (a->lost) {
		a->lost = false;
		touch(a);
		if (a->stream)
			h2_news(a);
		else
			conn_kick(a->c);
	} else if (a->state == ASK_LOOKUP) {
		a->turns = GITHUB_TURNS_MAX;
		decide_github(a);
	} else if (a->state == ASK_RENEW) {
		answer_token(a, 503, write_lack, &lack);
	} else if (!a->answered && !a->body_ended) {
		ask_refuse(a, &slow, false);
	} else if (a->stream) {
		h2_cut(a);
	} else {
		h1_cut(a);
	}
}

void asks_tick(struct gate *g)
{
	for (size_t i = 0; i < ASKS; i++) {
		struct ask *a = &g->ask[i];

		if (!a->used || a->deadline == 0)
			continue;
		if (a->deadline <= g->now) {
			a->deadline = 0;
			timeout(a);
		}
		if (a->used && a->deadline != 0)
			gate_due(g, a->deadline);
	}
}
