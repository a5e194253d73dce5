/* HTTP/1.1 with the guest (credentials page 7.3): one request at a time. The parser is http1.c; here is what follows
 * from it.
 *
 *   HEAD -> ask_begin() -> body to the ask, answer from it -> both over: http1_next()
 *                       -> refused: answer, what still comes of the body is dropped, to DISCARD_MAX and FINISH_NS
 *   101                 -> bytes both ways until both have ended
 *
 * What the guest sends before its answer has ended waits in @in, and past WAIT_MAX in its own send buffer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/macros.h"
#include "gate/gate.h"
#include "gate/http1.h"

struct h1conn {
	struct http1 h;
	struct buf in;
	struct ask *ask;     /* under way */
	bool busy;	     /* a request was read and its answer has not ended */
	bool body_done;	     /* its body was read to the end */
	bool head_open;	     /* some bytes of a head are there */
	bool refused;	     /* its answer was given: the rest of the body is dropped */
	bool last;	     /* nothing is read behind this request */
	bool relay;	     /* after 101 */
	bool bare;	     /* the answer has no body */
	enum http_body body; /* of the answer */
	uint64_t left;	     /* of an answer by length */
	uint64_t dropped;
	bool trailers;
	struct buf trailer; /* lines, ready to be sent */
};

static void reply_put(struct conn *c, const struct reply *r, bool is_head)
{
	struct buf out;

	buf_init(&out, 64 << 10);
	if (reply_http1(r, is_head, &out) < 0)
		conn_reset(c);
	else
		conn_put(c, buf_span(&out));
	buf_done(&out);
}

static struct h1conn *h1_new(struct conn *c, struct span sni)
{
	struct h1conn *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	http1_init(&h->h, sni);
	buf_init(&h->in, WAIT_MAX + (32 << 10));
	buf_init(&h->trailer, 2 * XCH_TRAILERS_MAX);
	c->h1 = h;
	return h;
}

bool h1_open(struct conn *c)
{
	conn_deadline(c, IDLE_NS);
	return h1_new(c, span_str(prov_hosts[c->host].name)) != NULL;
}

void h1_free(struct conn *c)
{
	struct h1conn *h = c->h1;

	if (!h)
		return;
	c->h1 = NULL;
	if (h->ask)
		ask_end(h->ask);
	http1_done(&h->h);
	buf_done(&h->in);
	buf_done(&h->trailer);
	free(h);
}

/* ---- one request ends ---- */

/* Both its body and its answer may have ended. */
static void next(struct conn *c)
{
	struct h1conn *h = c->h1;

	if (h->busy || !h->body_done)
		return;
	if (h->last || h->h.req.last) {
		conn_finish(c);
		return;
	}
	http1_next(&h->h);
	h->body_done = h->refused = h->bare = h->trailers = false;
	h->dropped = 0;
	if (c->out.n == 0 && c->out.size > (16 << 10))
		buf_done(&c->out);
	conn_deadline(c, IDLE_NS);
	conn_kick(c);
}

/* The answer was given whole. */
static void answered(struct conn *c)
{
	struct h1conn *h = c->h1;

	h->busy = false;
	h->refused = true;
	if (h->last) {
		conn_finish(c);
		return;
	}
	if (!h->body_done)
		conn_deadline(c, FINISH_NS);
	next(c);
}

/* A reply of ours to the request that was read last. */
static void reply(struct conn *c, const struct reply *r)
{
	struct h1conn *h = c->h1;

	h->last = h->last || r->close;
	reply_put(c, r, h->h.req.is_head);
	if (c->state == CONN_OPEN)
		answered(c);
}

void h1_reply(struct ask *a, struct reply *r)
{
	struct conn *c = a->c;
	struct h1conn *h = c->h1;

	h->ask = NULL;
	/* Whoever waits for "100 Continue" may send no body now, and whoever sends a long one is not to be heard out.
	 */
	if (!h->body_done && (h->h.req.expects || h->h.req.body_len > DISCARD_MAX))
		r->close = true;
	reply(c, r);
}

static void refuse(struct conn *c, const struct refusal *f)
{
	struct h1conn *h = c->h1;
	struct reply r;

	if (h->ask) {
		ask_refuse(h->ask, f, false);
		return;
	}
	if (reply_refusal(f, c->host, h->h.req.path, &r) < 0)
		conn_reset(c);
	else
		reply(c, &r);
	reply_done(&r);
}

void h1_cut(struct ask *a)
{
	const struct refusal gone = refusal_by_vault(REFUSAL_UPSTREAM, PH_KINDS);

	if (a->answered)
		conn_reset(a->c);
	else
		ask_refuse(a, &gone, false);
}

/* ---- requests ---- */

static void head(struct conn *c)
{
	struct h1conn *h = c->h1;
	struct request *q = &h->h.req;
	struct reply r;

	h->busy = true;
	h->head_open = false;
	conn_deadline(c, 0);
	h->ask = ask_begin(c, NULL, q, NULL, &r);
	if (h->ask) {
		if (q->expects && q->body != HTTP_BODY_NONE)
			conn_put(c, span_str("HTTP/1.1 100 Continue\r\n\r\n"));
		return;
	}
	if (q->body != HTTP_BODY_NONE && (q->expects || q->body_len > DISCARD_MAX))
		r.close = true;
	if (h->h.state == HTTP1_DEAD)
		h->body_done = true;
	reply(c, &r);
	reply_done(&r);
}

static void broken_body(struct conn *c)
{
	struct h1conn *h = c->h1;
	const struct refusal f = http1_fault();

	h->body_done = true;
	if (h->refused)
		conn_finish(c);
	else if (h->ask && h->ask->answered)
		conn_reset(c);
	else
		refuse(c, &f);
}

/* Takes what it can off the front of @in. */
static void take(struct conn *c, struct span *in)
{
	struct h1conn *h = c->h1;
	struct span body;

	while (c->state == CONN_OPEN && c->h1) {
		if (h->relay) {
			if (in->n > 0)
				ask_body(h->ask, *in);
			*in = SPAN(in->p ? in->p + in->n : NULL, 0);
			return;
		}
		/* The next request is read when this one's answer has ended and went out. */
		if (h->body_done || (h->ask && ask_is_full(h->ask)) || (!h->busy && c->out.n >= OUT_HIGH))
			return;
		switch (http1_feed(&h->h, in, &body)) {
		case HTTP1_HEAD:
			head(c);
			break;
		case HTTP1_BODY:
			if (h->ask)
				ask_body(h->ask, body);
			else if ((h->dropped += body.n) > DISCARD_MAX)
				conn_finish(c);
			break;
		case HTTP1_DONE:
			h->body_done = true;
			if (h->ask && !h->h.req.websocket)
				ask_body_end(h->ask);
			if (c->state == CONN_OPEN)
				next(c);
			break;
		case HTTP1_BAD:
			broken_body(c);
			break;
		default:
			if (!h->busy && !h->refused && !http1_is_idle(&h->h) && !h->head_open) {
				h->head_open = true;
				conn_deadline(c, HEAD_NS);
			}
			return;
		}
	}
}

void h1_input(struct conn *c, struct span in)
{
	struct h1conn *h = c->h1;

	if (h->in.n == 0)
		take(c, &in);
	if (c->state == CONN_OPEN && c->h1 && in.n > 0 && buf_put(&h->in, in.p, in.n) < 0)
		conn_reset(c);
}

bool h1_wants_input(const struct conn *c)
{
	const struct h1conn *h = c->h1;

	return h->in.n < WAIT_MAX && !(h->ask && ask_is_full(h->ask)) && (h->busy || c->out.n < OUT_HIGH);
}

/* ---- answers ---- */

static void put_field(struct buf *out, struct span name, struct span value)
{
	(void)buf_put(out, name.p, name.n);
	(void)buf_put(out, ": ", 2);
	(void)buf_put(out, value.p, value.n);
	(void)buf_put(out, "\r\n", 2);
}

static void put_text(struct buf *out, const char *s)
{
	(void)buf_put(out, s, strlen(s));
}

static void answer_head(struct conn *c, const struct httpmsg_answer *m)
{
	struct h1conn *h = c->h1;
	char line[64];
	struct buf out;

	buf_init(&out, HTTPMSG_MAX + (4 << 10));
	h->body = m->w.body;
	h->left = m->w.body == HTTP_BODY_LENGTH ? m->w.body_len : 0;
	h->bare = ask_is_bare(h->ask, m->w.status);
	(void)snprintf(line, sizeof(line), "HTTP/1.1 %u \r\n", m->w.status);
	put_text(&out, line);
	for (size_t i = 0; i < m->w.n_fields; i++)
		if (ask_keeps(h->ask, m, &m->f[i]))
			put_field(&out, m->f[i].name, m->f[i].value);
	if (m->w.status == 101) {
		h->relay = true;
		put_text(&out, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	} else if (m->w.body != HTTP_BODY_STREAM && !h->bare) {
		(void)snprintf(line, sizeof(line), "Content-Length: %llu\r\n", (unsigned long long)h->left);
		put_text(&out, line);
	} else if (m->w.body == HTTP_BODY_STREAM && !h->bare) {
		put_text(&out, "Transfer-Encoding: chunked\r\n");
	}
	if (m->w.status != 101 && h->h.req.last)
		put_text(&out, "Connection: close\r\n");
	put_text(&out, "\r\n");
	conn_put(c, buf_span(&out));
	buf_done(&out);
}

/* False: there may not be any. */
static bool answer_data(struct conn *c, struct span s)
{
	struct h1conn *h = c->h1;
	char line[24];

	if (h->relay) {
		conn_put(c, s);
		return true;
	}
	if (h->bare || h->body == HTTP_BODY_NONE || (h->body == HTTP_BODY_LENGTH && s.n > h->left))
		return false;
	if (h->body == HTTP_BODY_LENGTH) {
		h->left -= s.n;
		conn_put(c, s);
		return true;
	}
	(void)snprintf(line, sizeof(line), "%zx\r\n", s.n);
	conn_put(c, span_str(line));
	conn_put(c, s);
	conn_put(c, SPAN("\r\n", 2));
	return true;
}

static bool answer_trailers(struct conn *c, struct span s)
{
	static struct http_field f[HTTP_FIELDS_MAX];
	static const struct httpmsg_answer m = { .w = { .status = 204 } }; /* nothing behind a body tells its length */
	struct h1conn *h = c->h1;
	size_t n;

	if (h->relay || xch_trailers(s, f, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (ask_keeps(h->ask, &m, &f[i]))
			put_field(&h->trailer, f[i].name, f[i].value);
	return true;
}

static void answer_end(struct conn *c)
{
	struct h1conn *h = c->h1;

	if (h->body == HTTP_BODY_LENGTH && h->left > 0 && !h->bare) {
		conn_reset(c); /* less than was told */
		return;
	}
	if (h->relay) {
		conn_finish(c);
		return;
	}
	if (h->body == HTTP_BODY_STREAM && !h->bare) {
		/* Without memory it resets the connection, and @h is gone. */
		conn_put(c, SPAN("0\r\n", 3));
		if (c->state == CONN_OPEN)
			conn_put(c, buf_span(&h->trailer));
		conn_put(c, SPAN("\r\n", 2));
	}
	if (c->state != CONN_OPEN)
		return;
	buf_consume(&h->trailer, h->trailer.n);
	ask_end(h->ask);
	h->ask = NULL;
	answered(c);
}

static void pump(struct conn *c)
{
	static struct httpmsg_answer m;
	struct h1conn *h = c->h1;
	struct span s;

	while (c->state == CONN_OPEN && c->h1 && h->ask && c->out.n < OUT_HIGH) {
		switch (ask_take(h->ask, XCH_DATA_MAX, &s)) {
		case XCH_GOT_MORE:
			return;
		case XCH_GOT_ANSWER:
			if (ask_answer(h->ask, s, &m))
				answer_head(c, &m);
			break;
		case XCH_GOT_DATA:
			if (!answer_data(c, s))
				conn_reset(c);
			break;
		case XCH_GOT_TRAILERS:
			if (!answer_trailers(c, s))
				conn_reset(c);
			break;
		case XCH_GOT_END:
			answer_end(c);
			break;
		default:
			h1_cut(h->ask);
		}
	}
}

/* The guest's direction has ended. */
static void eof(struct conn *c)
{
	struct h1conn *h = c->h1;

	if (h->relay && h->ask) {
		ask_body_end(h->ask);
	} else if (!h->busy || !h->body_done) {
		/* Between two requests, or in the middle of one: what was sent of it must not look whole to anybody. */
		conn_finish(c);
	}
}

void h1_run(struct conn *c)
{
	struct h1conn *h = c->h1;
	struct span in;

	pump(c);
	if (c->state != CONN_OPEN || !c->h1)
		return;
	/* The end of a body needs no bytes: it was still to be told if the body's last ones filled the ask. */
	if (h->in.n > 0 || h->h.state == HTTP1_END) {
		in = buf_span(&h->in);
		take(c, &in);
		if (c->state != CONN_OPEN || !c->h1)
			return;
		buf_consume(&h->in, h->in.n - in.n);
		if (h->in.n == 0)
			buf_done(&h->in);
		pump(c);
		/* A 101 came just now, and what waits belongs to the other protocol. */
		if (c->state == CONN_OPEN && c->h1 && h->relay && h->in.n > 0)
			conn_kick(c);
	}
	if (c->state == CONN_OPEN && c->h1 && c->in_eof && h->in.n == 0)
		eof(c);
}

void h1_timeout(struct conn *c)
{
	struct h1conn *h = c->h1;
	const struct refusal slow = { .status = 408,
				      .code = REFUSAL_LIMIT,
				      .close = true,
				      .why = "the request's head did not come within 30 seconds; send it again" };

	if (!h->head_open || h->busy) {
		conn_finish(c); /* idle, or a body that nobody wants */
		return;
	}
	h->busy = true;
	h->body_done = true;
	refuse(c, &slow);
}

/* ---- in clear ---- */

void h1_clear(struct conn *c, struct span raw)
{
	struct h1conn *h = h1_new(c, SPAN("", 0));
	struct reply r = { .status = 301 };
	struct judged d;
	struct span body;
	struct buf out;
	int e = -1;

	buf_init(&out, HTTP_HEAD_MAX);
	if (h && http1_feed(&h->h, &raw, &body) == HTTP1_HEAD) {
		struct request *q = &h->h.req;

		if (judge_request(&c->g->judge, c->host, false, q, &d) == JUDGE_TO_HTTPS) {
			e = refusal_to_https(prov_hosts[c->host].name, q->target, &out);
		} else {
			q->fault.close = true;
			e = reply_refusal(&q->fault, c->host, q->path, &r);
			if (e == 0)
				e = reply_http1(&r, q->is_head, &out);
		}
		ask_note(c, q, &r);
		reply_done(&r);
	}
	if (e < 0) {
		conn_reset(c);
	} else {
		conn_put(c, buf_span(&out));
		conn_finish(c);
	}
	buf_done(&out);
}
