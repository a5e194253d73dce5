/* HTTP/2 with the guest (credentials page 7.5): nghttp2 reads and writes frames, here is what they mean. A stream is a
 * request; its field list becomes the same struct request that HTTP/1.1 makes, and is judged by the same functions.
 * What RFC 9113 section 8 asks of a request is checked by request_from_h2() and here, not by nghttp2, which would reset
 * where an answer helps.
 *
 * Windows are opened by hand: a stream's only as far as vault took its body, so that a service that does not read stops
 * its own guest stream and no other; the connection's at once, for what waits is bounded by the streams'. Answers are
 * fetched when nghttp2 wants bytes for a frame, and it is asked for frames while less than OUT_HIGH waits for the
 * guest.
 *
 * A request under way has the clock of its ask. Without one a stream has its own: IDLE_NS for an answer that the guest
 * does not read, FINISH_NS for what still comes of the body behind it; and the connection has one for heads and when
 * nothing is under way. All of them are looked at in h2_timeout().
 *
 * Cheap events are counted: resets, and frames that carry nothing (settings, pings, priorities, data that is padding,
 * window updates beyond what our data asks for). Past the limit the connection ends, not the session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "base/macros.h"
#include "gate/gate.h"
#include "proto/h2updates.h"

#define STREAMS_MAX 64
#define FIELDS_MAX (HTTP_FIELDS_MAX + 8) /* with pseudo-fields, and one more so that it shows */
#define LIST_MAX (HTTP_HEAD_MAX + HTTP_TARGET_MAX)
#define COUNT_NS (10 * NS)
#define RESETS_MAX 200
#define CONTROL_MAX 1000
#define QUEUE_MAX 200 /* control frames that wait for a guest that does not read */
#define CONNECTION_WINDOW (1 << 20)

struct h2stream {
	struct h2stream *next, **prev;
	struct h2conn *h;
	int32_t id;
	struct ask *ask; /* under way */
	bool submitted;	 /* an answer was begun */
	bool waiting;	 /* nghttp2 was told that there are no bytes now */
	bool bare;
	enum http_body body;
	uint64_t left;
	bool counted;	   /* the guest told its body's length */
	uint64_t expected; /* and so much of it is to come */
	uint64_t dropped;
	int64_t until;	/* 0: its ask has a clock, or it was reset */
	struct buf own; /* body of an answer of ours, or the trailers of vault's */
};

struct h2conn {
	nghttp2_session *s;
	struct conn *c;
	struct h2stream *streams;
	unsigned n_streams;
	bool ending;  /* nothing more is read */
	bool leaving; /* when the streams are through */
	bool head_open;
	/* The field list that is read now; lists do not mix. */
	struct buf list;
	struct {
		uint32_t name, name_n, value, value_n; /* offsets into list */
	} at[FIELDS_MAX];
	size_t n;
	bool too_large;
	int64_t until; /* of a head, or without a request */
	int64_t since; /* of the counts */
	unsigned resets, control, updates;
};

/* ---- answers ---- */

static void nv_put(nghttp2_nv *nv, struct span name, struct span value)
{
	*nv = (nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n,
			    NGHTTP2_NV_FLAG_NONE };
}

static void reset(struct h2stream *t, uint32_t code)
{
	(void)nghttp2_submit_rst_stream(t->h->s, NGHTTP2_FLAG_NONE, t->id, code);
}

/* The connection's deadline may come too early, never too late. */
static void set_clock(struct h2conn *h, int64_t *until, int64_t in_ns)
{
	struct conn *c = h->c;

	*until = c->g->now + in_ns;
	if (c->deadline == 0 || *until < c->deadline)
		conn_deadline(c, in_ns);
}

/* The body of an answer of ours. */
static ssize_t read_own(nghttp2_session *s, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
			nghttp2_data_source *source, void *u)
{
	struct h2stream *t = source->ptr;

	n = MIN(n, t->own.n);
	memcpy(p, buf_span(&t->own).p, n);
	buf_consume(&t->own, n);
	if (t->own.n == 0)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static void submit_own(struct h2stream *t, const struct reply *r, bool is_head)
{
	nghttp2_data_provider body = { .source.ptr = t, .read_callback = read_own };
	char status[8], length[24];
	nghttp2_nv nv[8];
	size_t n = 0;

	(void)snprintf(status, sizeof(status), "%u", r->status);
	(void)snprintf(length, sizeof(length), "%zu", r->body.n);
	nv_put(&nv[n++], span_str(":status"), span_str(status));
	if (r->code != REFUSAL_NONE)
		nv_put(&nv[n++], span_str("x-sandbox-policy"), span_str(refusal_code_str[r->code]));
	nv_put(&nv[n++], span_str("content-type"), span_str(r->type));
	nv_put(&nv[n++], span_str("content-length"), span_str(length));
	nv_put(&nv[n++], span_str("cache-control"), span_str("no-store"));
	if (r->allow)
		nv_put(&nv[n++], span_str("allow"), span_str(r->allow));
	t->submitted = true;
	set_clock(t->h, &t->until, IDLE_NS);
	if (is_head || r->body.n == 0 || buf_put(&t->own, buf_span(&r->body).p, r->body.n) < 0)
		(void)nghttp2_submit_response(t->h->s, t->id, nv, n, NULL);
	else
		(void)nghttp2_submit_response(t->h->s, t->id, nv, n, &body);
	conn_kick(t->h->c);
}

/* Its answer is given: what still waits for vault is heard by nobody, and whoever sends it waits for its window. */
static struct ask *answered(struct h2stream *t)
{
	struct ask *a = TAKE_PTR(t->ask);

	(void)nghttp2_session_consume_stream(t->h->s, t->id, a->owed);
	return a;
}

void h2_reply(struct ask *a, struct reply *r)
{
	struct h2stream *t = a->stream;

	(void)answered(t);
	submit_own(t, r, a->is_head);
}

void h2_cut(struct ask *a)
{
	const struct refusal gone = refusal_by_vault(REFUSAL_UPSTREAM, PH_KINDS);
	struct h2stream *t = a->stream;

	if (!a->answered) {
		ask_refuse(a, &gone, false);
		return;
	}
	reset(t, NGHTTP2_INTERNAL_ERROR);
	ask_end(a);
	t->ask = NULL;
	conn_kick(a->c);
}

/* How many there are; -1: they cannot be. They lie in @own until they are sent. */
static int submit_trailers(struct h2stream *t)
{
	static const struct httpmsg_answer m = { .w = { .status = 204 } };
	static struct http_field f[HTTP_FIELDS_MAX];
	static nghttp2_nv nv[HTTP_FIELDS_MAX];
	size_t n, k = 0;

	if (xch_trailers(buf_span(&t->own), f, &n) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (ask_keeps(t->ask, &m, &f[i]))
			nv_put(&nv[k++], f[i].name, f[i].value);
	return k == 0 || nghttp2_submit_trailer(t->h->s, t->id, nv, k) == 0 ? (int)k : -1;
}

/* The body of an answer of vault's. */
static ssize_t read_ask(nghttp2_session *s, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
			nghttp2_data_source *source, void *u)
{
	struct h2stream *t = source->ptr;
	size_t have = 0;
	struct span got;
	int k;

	while (t->ask && have < n) {
		switch (ask_take(t->ask, n - have, &got)) {
		case XCH_GOT_MORE:
			if (have > 0)
				return (ssize_t)have;
			t->waiting = true;
			return NGHTTP2_ERR_DEFERRED;
		case XCH_GOT_DATA:
			if (t->bare || (t->body == HTTP_BODY_LENGTH && got.n > t->left) || t->body == HTTP_BODY_NONE)
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
			t->left -= t->body == HTTP_BODY_LENGTH ? got.n : 0;
			memcpy(p + have, got.p, got.n);
			have += got.n;
			break;
		case XCH_GOT_TRAILERS:
			if (buf_put(&t->own, got.p, got.n) < 0)
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
			break;
		case XCH_GOT_END:
			k = submit_trailers(t);
			if (k < 0 || (t->body == HTTP_BODY_LENGTH && t->left > 0 && !t->bare))
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
			*flags |= k > 0 ? NGHTTP2_DATA_FLAG_NO_END_STREAM : 0;
			ask_end(answered(t));
			set_clock(t->h, &t->until, IDLE_NS);
			*flags |= NGHTTP2_DATA_FLAG_EOF;
			return (ssize_t)have;
		default:
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* cut, and a reset for the guest */
		}
	}
	return (ssize_t)have;
}

static void submit_answer(struct h2stream *t, const struct httpmsg_answer *m)
{
	static nghttp2_nv nv[HTTP_FIELDS_MAX + 2];
	nghttp2_data_provider body = { .source.ptr = t, .read_callback = read_ask };
	char status[8], length[24];
	size_t n = 0;
	int r;

	t->bare = ask_is_bare(t->ask, m->w.status);
	t->body = m->w.body;
	t->left = m->w.body == HTTP_BODY_LENGTH ? m->w.body_len : 0;
	(void)snprintf(status, sizeof(status), "%u", m->w.status);
	(void)snprintf(length, sizeof(length), "%llu", (unsigned long long)t->left);
	nv_put(&nv[n++], span_str(":status"), span_str(status));
	for (size_t i = 0; i < m->w.n_fields; i++)
		if (ask_keeps(t->ask, m, &m->f[i]))
			nv_put(&nv[n++], m->f[i].name, m->f[i].value);
	if (m->w.body != HTTP_BODY_STREAM && !t->bare)
		nv_put(&nv[n++], span_str("content-length"), span_str(length));
	t->submitted = true;
	r = nghttp2_submit_response(t->h->s, t->id, nv, n, &body);
	if (r != 0)
		reset(t, NGHTTP2_INTERNAL_ERROR);
}

/* Looks whether an answer has begun, or lets nghttp2 fetch more of it. */
static void look(struct h2stream *t)
{
	static struct httpmsg_answer m;
	struct span s;

	if (!t->ask)
		return;
	if (t->submitted) {
		if (t->waiting) {
			t->waiting = false;
			(void)nghttp2_session_resume_data(t->h->s, t->id);
		}
		return;
	}
	switch (ask_take(t->ask, XCH_DATA_MAX, &s)) {
	case XCH_GOT_MORE:
		break;
	case XCH_GOT_ANSWER:
		if (ask_answer(t->ask, s, &m))
			submit_answer(t, &m);
		break;
	default:
		h2_cut(t->ask);
	}
}

void h2_news(struct ask *a)
{
	struct h2stream *t = a->stream;
	struct conn *c = a->c;

	if (a->owed > 0 && !ask_is_full(a)) {
		(void)nghttp2_session_consume_stream(t->h->s, t->id, a->owed);
		a->owed = 0;
	}
	look(t);
	conn_kick(c);
}

/* ---- requests ---- */

static bool spend(struct h2conn *h, unsigned *count, unsigned max)
{
	int64_t now = h->c->g->now;

	if (now - h->since > COUNT_NS) {
		h->since = now;
		h->resets = h->control = 0;
	}
	if (++*count <= max)
		return true;
	if (!h->ending)
		guest_line(h->c->g, LINE_FLOOD, "%s: an HTTP/2 connection of the guest floods; closed",
			   prov_hosts[h->c->host].name);
	h->ending = true;
	(void)nghttp2_session_terminate_session(h->s, NGHTTP2_ENHANCE_YOUR_CALM);
	return false;
}

static int on_begin_headers(nghttp2_session *s, const nghttp2_frame *frame, void *user)
{
	struct h2conn *h = user;
	struct h2stream *t;

	buf_consume(&h->list, h->list.n);
	h->n = 0;
	h->too_large = false;
	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	if (h->n_streams >= STREAMS_MAX || h->ending)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	t->h = h;
	t->id = frame->hd.stream_id;
	buf_init(&t->own, 64 << 10);
	t->next = h->streams;
	t->prev = &h->streams;
	if (t->next)
		t->next->prev = &t->next;
	h->streams = t;
	h->n_streams++;
	h->head_open = true;
	set_clock(h, &h->until, HEAD_NS);
	(void)nghttp2_session_set_stream_user_data(s, t->id, t);
	return 0;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
		     const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
	struct h2conn *h = user;
	size_t at = h->list.n;

	/* Trailers of a request are dropped. */
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST || h->too_large)
		return 0;
	if (h->n == FIELDS_MAX || buf_put(&h->list, name, name_n) < 0 || buf_put(&h->list, value, value_n) < 0) {
		h->too_large = true;
		return 0;
	}
	h->at[h->n].name = (uint32_t)at;
	h->at[h->n].name_n = (uint32_t)name_n;
	h->at[h->n].value = (uint32_t)(at + name_n);
	h->at[h->n].value_n = (uint32_t)value_n;
	h->n++;
	return 0;
}

/* Malformed (RFC 9113 section 8.1.1): vault sees a cut, the guest a reset. */
static void broken(struct h2stream *t)
{
	if (t->ask)
		ask_end(t->ask);
	t->ask = NULL;
	t->counted = false;
	reset(t, NGHTTP2_PROTOCOL_ERROR);
}

static void request(struct h2conn *h, struct h2stream *t, bool end)
{
	static struct http_field f[FIELDS_MAX];
	static struct request q;
	const uint8_t *base = buf_span(&h->list).p;
	nghttp2_nv go_on;
	struct reply r;

	for (size_t i = 0; i < h->n; i++)
		f[i] = (struct http_field){ SPAN(base + h->at[i].name, h->at[i].name_n),
					    SPAN(base + h->at[i].value, h->at[i].value_n) };
	if (request_from_h2(f, h->n, end, span_str(prov_hosts[h->c->host].name), &q) < 0) {
		broken(t);
		return;
	}
	t->counted = q.body == HTTP_BODY_LENGTH;
	t->expected = q.body_len;
	if (h->too_large)
		request_fault(&q, STAGE_FIELDS,
			      (struct refusal){ .status = 431,
						.code = REFUSAL_LIMIT,
						.why = "the head is larger than 64 KiB or 128 fields" });
	t->ask = ask_begin(h->c, t, &q, &h->list, &r);
	if (!t->ask) {
		submit_own(t, &r, q.is_head);
		/* One answer, and it is the last. */
		if (h->c->crowd && !h->leaving)
			(void)nghttp2_submit_goaway(h->s, NGHTTP2_FLAG_NONE, t->id, NGHTTP2_NO_ERROR, NULL, 0);
		h->leaving = h->leaving || h->c->crowd;
		reply_done(&r);
		return;
	}
	if (q.expects && !end) {
		nv_put(&go_on, span_str(":status"), span_str("100"));
		(void)nghttp2_submit_headers(h->s, NGHTTP2_FLAG_NONE, t->id, NULL, &go_on, 1, NULL);
	}
}

static void body_end(struct h2stream *t)
{
	if (t->counted && t->expected > 0)
		broken(t);
	else if (t->ask)
		ask_body_end(t->ask);
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *frame, void *user)
{
	struct h2conn *h = user;
	struct h2stream *t = frame->hd.stream_id ? nghttp2_session_get_stream_user_data(s, frame->hd.stream_id) : NULL;
	bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		h->head_open = false;
		set_clock(h, &h->until, IDLE_NS);
		if (t && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
			request(h, t, end);
		else if (t && !end)
			broken(t); /* trailers end a request */
		if (t && end)
			body_end(t);
		break;
	case NGHTTP2_DATA:
		if (t && end)
			body_end(t);
		else if (frame->hd.length == frame->data.padlen)
			(void)spend(h, &h->control, CONTROL_MAX);
		break;
	case NGHTTP2_RST_STREAM:
		(void)spend(h, &h->resets, RESETS_MAX);
		break;
	case NGHTTP2_WINDOW_UPDATE:
		if (h->updates > 0)
			h->updates--;
		else
			(void)spend(h, &h->control, CONTROL_MAX);
		break;
	default:
		(void)spend(h, &h->control, CONTROL_MAX);
	}
	return 0;
}

static int on_invalid_frame(nghttp2_session *s, const nghttp2_frame *frame, int code, void *user)
{
	struct h2conn *h = user;

	(void)spend(h, &h->resets, RESETS_MAX);
	return 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
	struct h2stream *t = nghttp2_session_get_stream_user_data(s, id);

	(void)nghttp2_session_consume_connection(s, n);
	if (t && t->counted && n > t->expected)
		broken(t);
	else if (t)
		t->expected -= t->counted ? n : 0;
	if (t && t->ask)
		ask_body(t->ask, SPAN(p, n));
	if (t && t->ask) {
		/* What waits for vault is owed; what was only collected is not. */
		if (t->ask->state != ASK_FORWARD) {
			(void)nghttp2_session_consume_stream(s, id, n);
			t->ask->owed = 0;
		} else if (!ask_is_full(t->ask)) {
			(void)nghttp2_session_consume_stream(s, id, t->ask->owed);
			t->ask->owed = 0;
		}
	} else if (t) {
		(void)nghttp2_session_consume_stream(s, id, n);
		t->dropped += n;
		/* It has its answer, and goes on talking. */
		if (t->dropped > DISCARD_MAX && t->dropped - n <= DISCARD_MAX)
			reset(t, NGHTTP2_NO_ERROR);
	}
	return 0;
}

static int on_frame_sent(nghttp2_session *s, const nghttp2_frame *frame, void *user)
{
	struct h2conn *h = user;
	int32_t id = frame->hd.stream_id;
	bool ends = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
		    frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct h2stream *t = ends ? nghttp2_session_get_stream_user_data(s, id) : NULL;

	if (frame->hd.type == NGHTTP2_DATA)
		h2updates_earn(&h->updates, frame->hd.length);
	if (t && nghttp2_session_get_stream_remote_close(s, id) != 1)
		set_clock(h, &t->until, FINISH_NS);
	return 0;
}

static void stream_free(struct h2stream *t)
{
	if (t->ask)
		ask_end(t->ask);
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->h->n_streams--;
	buf_done(&t->own);
	free(t);
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t code, void *user)
{
	struct h2conn *h = user;
	struct h2stream *t = nghttp2_session_get_stream_user_data(s, id);

	if (t)
		stream_free(t);
	if (h->n_streams == 0)
		set_clock(h, &h->until, IDLE_NS);
	return 0;
}

/* ---- the connection ---- */

static int session_new(struct h2conn *h)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, XCH_WINDOW },
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 4096 },
	};
	nghttp2_session_callbacks *cb;
	nghttp2_option *opt;
	int r = -1;

	if (nghttp2_session_callbacks_new(&cb) != 0)
		return -1;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	if (nghttp2_option_new(&opt) == 0) {
		nghttp2_option_set_no_auto_window_update(opt, 1);
		nghttp2_option_set_no_http_messaging(opt, 1);
		nghttp2_option_set_max_settings(opt, 32);
		nghttp2_option_set_max_outbound_ack(opt, CONTROL_MAX);
		nghttp2_option_set_max_deflate_dynamic_table_size(opt, 4096);
		/* Its own limit is just below the longest head, which it would drop without a word. */
		nghttp2_option_set_max_send_header_block_length(opt, HTTPMSG_MAX);
		r = nghttp2_session_server_new2(&h->s, cb, h, opt);
		nghttp2_option_del(opt);
	}
	nghttp2_session_callbacks_del(cb);
	if (r == 0)
		r = nghttp2_submit_settings(h->s, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings));
	if (r == 0)
		r = nghttp2_session_set_local_window_size(h->s, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
	return r;
}

bool h2_open(struct conn *c)
{
	struct h2conn *h = calloc(1, sizeof(*h));

	if (!h)
		return false;
	c->h2 = h;
	h->c = c;
	h->since = c->g->now;
	buf_init(&h->list, LIST_MAX);
	set_clock(h, &h->until, IDLE_NS);
	return session_new(h) == 0;
}

void h2_free(struct conn *c)
{
	struct h2conn *h = c->h2;

	if (!h)
		return;
	c->h2 = NULL;
	while (h->streams)
		stream_free(h->streams);
	nghttp2_session_del(h->s);
	buf_done(&h->list);
	free(h);
}

void h2_input(struct conn *c, struct span in)
{
	struct h2conn *h = c->h2;
	ssize_t n = nghttp2_session_mem_recv(h->s, in.p, in.n);

	/* It has queued what is to be said about it. */
	if (n < 0 || (size_t)n != in.n) {
		(void)nghttp2_session_terminate_session(h->s, n == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM
										       : NGHTTP2_PROTOCOL_ERROR);
		h->ending = true;
	}
}

bool h2_wants_input(const struct conn *c)
{
	return !c->h2->ending && nghttp2_session_get_outbound_queue_size(c->h2->s) < QUEUE_MAX;
}

void h2_run(struct conn *c)
{
	struct h2conn *h = c->h2;
	const uint8_t *p;
	ssize_t n;

	while (c->state == CONN_OPEN && c->out.n < OUT_HIGH) {
		n = nghttp2_session_mem_send(h->s, &p);
		if (n < 0)
			conn_reset(c);
		if (n <= 0)
			break;
		conn_put(c, SPAN(p, (size_t)n));
	}
	if (c->state != CONN_OPEN)
		return;
	if (h->n_streams == 0 && c->out.n == 0 && c->out.size > (16 << 10))
		buf_done(&c->out);
	if (c->in_eof || (h->ending && c->out.n < OUT_HIGH) || (h->leaving && h->n_streams == 0) ||
	    (!nghttp2_session_want_read(h->s) && !nghttp2_session_want_write(h->s)))
		conn_finish(c);
}

void h2_timeout(struct conn *c)
{
	struct h2conn *h = c->h2;
	int64_t now = c->g->now, next = INT64_MAX;
	bool busy = false;

	for (struct h2stream *t = h->streams; t; t = t->next) {
		if (t->until != 0 && t->until <= now) {
			t->until = 0;
			reset(t, nghttp2_session_get_stream_local_close(h->s, t->id) == 1 ? NGHTTP2_NO_ERROR
											  : NGHTTP2_CANCEL);
		}
		busy |= t->ask || t->until != 0;
		next = t->until != 0 ? MIN(next, t->until) : next;
	}
	if (h->until <= now && (h->head_open || !busy)) {
		(void)nghttp2_session_terminate_session(h->s, NGHTTP2_NO_ERROR);
		h->ending = true;
		/* Who does not read does not hear of it. */
		if (c->out.n >= OUT_HIGH)
			conn_finish(c);
	} else {
		h->until = h->until <= now ? now + IDLE_NS : h->until;
		conn_deadline(c, MIN(next, h->until) - now);
	}
	conn_kick(c);
}
