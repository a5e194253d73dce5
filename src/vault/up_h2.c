/* HTTP/2 on a connection: as many requests as the service lets in, each a stream. nghttp2 knows the protocol; what
 * comes of a stream takes the same way as an answer of HTTP/1.1, through struct answer.
 *
 * A stream's bytes count as read only when gate took them, so a slow guest holds up its own stream alone. Of the
 * connection they count at once. nghttp2's memory is wiped when it is given back, and what it encoded when it was sent:
 * a head has the secret in it. Nothing is sent and no connection closed within its callbacks. */
#include <errno.h>
#include <malloc.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "proto/h2updates.h"
#include "vault/reqhead.h"
#include "vault/secret.h"
#include "vault/upstream.h"

#define CONN_WINDOW (1 << 20)
#define STREAMS_MAX 64
#define CHEAP_MAX 1000 /* frames and records that bring nothing, within CHEAP_NS */
#define CHEAP_NS (10 * NS)
#define FRAME_HEAD 9
#define LATE_MAX (STREAMS_MAX * UP_STREAM_WINDOW)
#define NV_MAX (4 + HTTP_FIELDS_MAX + 2 + HTTPMSG_CREDS)
/* Any head that gate admits, with its secrets; nghttp2 reckons with up to 12 bytes more for each field and for the
 * block. */
#define BLOCK_MAX (REQHEAD_MAX + 12 * (NV_MAX + 1))

struct h2 {
	nghttp2_session *s;
	struct vault *v;
	struct conn *c;
	unsigned n, cheap, updates;
	int64_t cheap_since;
	bool told;     /* of a frame, or of a part of one */
	size_t quiet;  /* bytes since */
	size_t late;   /* that may still come for streams of which we had enough */
	bool inside;   /* a callback runs */
	bool draining; /* no new streams */
	bool begun;    /* the preface went out */
	bool bad;
};

/* --- memory --- */

static void *take_mem(size_t n, void *arg)
{
	(void)arg;
	return malloc(n);
}

static void *take_zeroed(size_t n, size_t size, void *arg)
{
	(void)arg;
	return calloc(n, size);
}

static void give_back(void *p, void *arg)
{
	(void)arg;
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *take_more(void *p, size_t n, void *arg)
{
	void *q = malloc(n);

	if (p && q) {
		memcpy(q, p, MIN(n, malloc_usable_size(p)));
		give_back(p, arg);
	}
	return q;
}

/* --- what comes --- */

static struct exchange *of(nghttp2_session *s, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(s, stream);
}

/* The answer is none: the stream is reset, and the exchange hears of it when that is done. */
static int bad(struct h2 *h, struct exchange *x)
{
	x->malformed = true;
	(void)nghttp2_submit_rst_stream(h->s, NGHTTP2_FLAG_NONE, x->stream, NGHTTP2_PROTOCOL_ERROR);
	return 0;
}

/* One more that brings nothing: pings, settings, resets, priorities, padding alone, window updates beyond what our data
 * asks for. What nghttp2 passes over without a word, as of streams that are over, is seen by the record. */
static int spend(struct h2 *h)
{
	if (h->v->now - h->cheap_since > CHEAP_NS) {
		h->cheap_since = h->v->now;
		h->cheap = 0;
	}
	return ++h->cheap > CHEAP_MAX ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_frame(nghttp2_session *s, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2 *h = arg;

	h->told = true;
	switch (hd->type) {
	case NGHTTP2_DATA:
		return 0;
	case NGHTTP2_HEADERS:
	case NGHTTP2_CONTINUATION:
		return of(s, hd->stream_id) ? 0 : spend(h);
	case NGHTTP2_WINDOW_UPDATE:
		if (h->updates > 0) {
			h->updates--;
			return 0;
		}
		return spend(h);
	default:
		return spend(h);
	}
}

static int on_begin_headers(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct exchange *x = of(s, f->hd.stream_id);

	(void)arg;
	if (x) {
		buf_consume(&x->answer.head, x->answer.head.n);
		x->answer.n_fields = 0;
	}
	return 0;
}

/* Name and value go into the answer's lines, one behind the other; spans are made when all are there. */
static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n, const uint8_t *value,
		     size_t k, uint8_t flags, void *arg)
{
	struct exchange *x = of(s, f->hd.stream_id);
	struct answer *a = x ? &x->answer : NULL;
	struct span status = SPAN(value, k);

	(void)flags;
	((struct h2 *)arg)->told = true;
	if (!x || x->malformed)
		return 0;
	x->answered = true;
	if (n > 0 && name[0] == ':') {
		/* Three digits: nghttp2 has looked. */
		if (!span_is(SPAN(name, n), ":status") || status.n != 3)
			return bad(arg, x);
		a->status =
			(unsigned)(value[0] - '0') * 100 + (unsigned)(value[1] - '0') * 10 + (unsigned)(value[2] - '0');
		return 0;
	}
	if (a->n_fields == HTTP_FIELDS_MAX || n > HTTP_NAME_MAX || !http_is_token(SPAN(name, n)) ||
	    !http_is_value(SPAN(value, k)) || buf_put(&a->head, name, n) < 0 || buf_put(&a->head, value, k) < 0)
		return bad(arg, x);
	a->f[a->n_fields++] = (struct http_field){ SPAN(NULL, n), SPAN(NULL, k) };
	return 0;
}

/* What nghttp2 would pass over. */
static int on_invalid_header(nghttp2_session *s, const nghttp2_frame *f, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
			     uint8_t flags, void *arg)
{
	struct exchange *x = of(s, f->hd.stream_id);

	(void)name;
	(void)value;
	(void)flags;
	return x && !x->malformed ? bad(arg, x) : 0;
}

static int on_invalid_frame(nghttp2_session *s, const nghttp2_frame *f, int error, void *arg)
{
	struct exchange *x = of(s, f->hd.stream_id);

	(void)error;
	if (x)
		x->malformed = true;
	return spend(arg);
}

static void make_spans(struct answer *a)
{
	const uint8_t *p = buf_span(&a->head).p;

	for (size_t i = 0; i < a->n_fields; i++) {
		a->f[i].name.p = p;
		a->f[i].value.p = p + a->f[i].name.n;
		p += a->f[i].name.n + a->f[i].value.n;
	}
}

/* The framing that gate is told; that DATA are as many as Content-Length says is nghttp2's to see. */
static bool framing(struct answer *a, bool ends)
{
	size_t n = 0;

	a->framing = HTTP_BODY_STREAM;
	for (size_t i = 0; i < a->n_fields; i++)
		if (http_is(a->f[i].name, "content-length")) {
			if (++n > 1 || http_length(a->f[i].value, &a->length) < 0)
				return false;
			a->framing = HTTP_BODY_LENGTH;
		}
	if (ends || a->head_only || a->status == 204 || a->status == 304)
		a->framing = HTTP_BODY_NONE;
	return true;
}

static void headers(struct h2 *h, struct exchange *x, bool ends)
{
	struct answer *a = &x->answer;

	make_spans(a);
	if (x->state != EX_SENT) {
		exchange_trailers(h->v, x);
	} else if (a->status < 200) {
		if (++a->interim > ANSWER_INTERIM_MAX || a->status == 101 || ends)
			(void)bad(h, x);
	} else if (!framing(a, ends)) {
		(void)bad(h, x);
	} else {
		(void)exchange_head(h->v, x);
	}
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct h2 *h = arg;
	struct exchange *x = of(s, f->hd.stream_id);
	bool ends =
		(f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) && f->hd.flags & NGHTTP2_FLAG_END_STREAM;

	if (f->hd.type == NGHTTP2_DATA && f->hd.length == f->data.padlen && spend(h) != 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (f->hd.type == NGHTTP2_GOAWAY)
		h->draining = true;
	if (x && f->hd.type == NGHTTP2_HEADERS && !x->malformed)
		headers(h, x, ends);
	if (x && x->conn == h->c && ends && !x->malformed) {
		up_put(h->v, x, true);
		exchange_end(h->v, x);
	}
	return 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *p, size_t n, void *arg)
{
	struct exchange *x = of(s, stream);
	struct h2 *h = arg;

	(void)flags;
	h->told = true;
	(void)nghttp2_session_consume_connection(s, n);
	if (!x || x->malformed)
		return 0;
	x->unread += n;
	exchange_data(h->v, x, SPAN(p, n));
	h2_read(h->c, x);
	return 0;
}

static int on_close(nghttp2_session *s, int32_t stream, uint32_t error, void *arg)
{
	struct exchange *x = of(s, stream);
	struct h2 *h = arg;

	(void)error;
	if (!x || x->conn != h->c)
		return 0;
	(void)nghttp2_session_set_stream_user_data(s, stream, NULL); /* there is nothing to reset */
	up_put(h->v, x, true);
	exchange_failed(h->v, x, x->malformed ? REFUSAL_UPSTREAM_FRAMING : REFUSAL_UPSTREAM);
	return 0;
}

/* --- what goes --- */

static int on_frame_sent(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct h2 *h = arg;

	(void)s;
	if (f->hd.type == NGHTTP2_DATA)
		h2updates_earn(&h->updates, f->hd.length);
	return 0;
}

static ssize_t give_body(nghttp2_session *s, int32_t stream, uint8_t *p, size_t n, uint32_t *flags,
			 nghttp2_data_source *from, void *arg)
{
	struct exchange *x = of(s, stream);
	struct span have;

	(void)from;
	(void)arg;
	if (!x)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	have = buf_span(&x->body);
	if (have.n == 0 && !exchange_all_sent(x))
		return NGHTTP2_ERR_DEFERRED;
	n = MIN(n, have.n);
	if (n > 0)
		memcpy(p, have.p, n);
	buf_consume(&x->body, n);
	if (x->body.n == 0 && exchange_all_sent(x))
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

int h2_begin(struct vault *v, struct conn *c)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UP_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_MAX },
	};
	nghttp2_mem mem = { NULL, take_mem, give_back, take_zeroed, take_more };
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *option = NULL;
	struct h2 *h = calloc(1, sizeof(*h));
	int r = -1;

	if (h && nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&option) == 0) {
		nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
		nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
		nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
		nghttp2_session_callbacks_set_on_invalid_header_callback2(cb, on_invalid_header);
		nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
		nghttp2_option_set_no_auto_window_update(option, 1);
		nghttp2_option_set_max_send_header_block_length(option, BLOCK_MAX);
		h->v = v;
		h->c = c;
		r = nghttp2_session_client_new3(&h->s, cb, h, option, &mem);
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(option);
	if (r == 0 && (nghttp2_submit_settings(h->s, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) != 0 ||
		       nghttp2_session_set_local_window_size(h->s, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW) != 0))
		nghttp2_session_del(h->s), r = -1;
	if (r != 0) {
		free(h);
		return -ENOMEM;
	}
	c->h2 = h;
	return 0;
}

void h2_free(struct conn *c)
{
	if (!c->h2)
		return;
	nghttp2_session_del(c->h2->s);
	free(TAKE_PTR(c->h2));
}

unsigned h2_streams(const struct conn *c)
{
	return c->h2->n;
}

bool h2_is_inside(const struct conn *c)
{
	return c->h2->inside;
}

bool h2_takes(const struct conn *c)
{
	uint32_t limit = nghttp2_session_get_remote_settings(c->h2->s, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

	return !c->h2->draining && c->h2->n < MIN(limit, (uint32_t)STREAMS_MAX) &&
	       nghttp2_session_check_request_allowed(c->h2->s);
}

void h2_drain(struct conn *c)
{
	c->h2->draining = true;
}

bool h2_is_over(const struct conn *c)
{
	return (c->h2->n == 0 && c->h2->draining) ||
	       (!nghttp2_session_want_read(c->h2->s) && !nghttp2_session_want_write(c->h2->s));
}

enum refusal_code h2_why(const struct conn *c)
{
	/* nghttp2 wants nothing any more when it told the service that it broke the rules. */
	return c->h2->bad || (!c->h2->draining && h2_is_over(c)) ? REFUSAL_UPSTREAM_FRAMING : REFUSAL_UPSTREAM;
}

struct list {
	nghttp2_nv v[NV_MAX];
	size_t n;
	uint8_t *at, *end; /* room for what has to be written first */
	bool full;
};

static void add(struct list *l, struct span name, struct span value, uint8_t flags)
{
	if (l->n == NV_MAX) {
		l->full = true;
		return;
	}
	l->v[l->n++] =
		(nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n, flags };
}

static uint8_t *room(struct list *l, size_t n)
{
	uint8_t *p = l->at;

	if ((size_t)(l->end - l->at) < n) {
		l->full = true;
		return NULL;
	}
	l->at += n;
	return p;
}

/* RFC 9113 section 8.2.1: in lower case. */
static void add_lower(struct list *l, const struct http_field *f)
{
	uint8_t *p = room(l, f->name.n);

	for (size_t i = 0; p && i < f->name.n; i++)
		p[i] = f->name.p[i] >= 'A' && f->name.p[i] <= 'Z' ? f->name.p[i] | 0x20 : f->name.p[i];
	if (p)
		add(l, SPAN(p, f->name.n), f->value, 0);
}

static void add_request(struct list *l, const struct httpmsg_request *m, const struct span *secret, struct span account)
{
	bool query = m->w.flags & HTTPMSG_HAS_QUERY;
	uint8_t *p;
	ssize_t n;

	add(l, span_str(":method"), span_str(prov_method_str[m->w.method]), 0);
	add(l, span_str(":scheme"), span_str("https"), 0);
	add(l, span_str(":authority"), span_str(prov_hosts[m->w.host].name), 0);
	p = room(l, m->path.n + query + m->query.n);
	if (!p)
		return;
	memcpy(p, m->path.p, m->path.n);
	if (query)
		p[m->path.n] = '?';
	if (m->query.n > 0)
		memcpy(p + m->path.n + 1, m->query.p, m->query.n);
	add(l, span_str(":path"), SPAN(p, m->path.n + query + m->query.n), 0);
	for (size_t i = 0; i < m->w.n_fields; i++)
		add_lower(l, &m->f[i]);
	p = room(l, 24);
	if (p && m->w.body == HTTP_BODY_LENGTH) {
		n = snprintf((char *)p, 24, "%llu", (unsigned long long)m->w.body_len);
		add(l, span_str("content-length"), SPAN(p, (size_t)n), 0);
	}
	if (m->w.flags & HTTPMSG_ACCOUNT && account.n > 0)
		add(l, span_str("chatgpt-account-id"), account, NGHTTP2_NV_FLAG_NO_INDEX);
	for (int i = 0; i < HTTPMSG_CREDS && m->w.kind[i] != HTTPMSG_NO_CRED; i++) {
		n = reqhead_slot((enum prov_slot)m->w.slot[i], secret[i], l->at, (size_t)(l->end - l->at));
		p = n < 0 ? NULL : room(l, (size_t)n);
		if (p)
			add(l, span_str(m->w.slot[i] == SLOT_KEY ? "x-api-key" : "authorization"), SPAN(p, (size_t)n),
			    NGHTTP2_NV_FLAG_NO_INDEX);
		l->full |= !p;
	}
}

int h2_head(struct conn *c, struct exchange *x, const struct span *secret, struct span account)
{
	const nghttp2_data_provider body = { .read_callback = give_body };
	size_t size = REQHEAD_ROOM(x->w.head.length, secret);
	bool secretly = exchange_credentialed(x);
	uint8_t *p;
	struct list l = { 0 };

	if (!reqhead_is_plain(x->m, secret, account))
		return -EINVAL;
	p = secretly ? secret_alloc(size) : malloc(size);
	if (!p)
		return -ENOMEM;
	l.at = p;
	l.end = p + size;
	add_request(&l, x->m, secret, account);
	answer_init(&x->answer, (enum prov_method)x->w.method, false);
	buf_init(&x->body, UP_BODY_MAX);
	x->malformed = false;
	x->unread = 0;
	x->stream = l.full ? -1
			   : nghttp2_submit_request(c->h2->s, NULL, l.v, l.n,
						    x->w.body == HTTP_BODY_NONE ? NULL : &body, x);
	if (secretly)
		secret_free(p);
	else
		free(p);
	if (x->stream < 0)
		return -EPIPE;
	c->h2->n++;
	return 0;
}

void h2_body(struct conn *c, struct exchange *x, struct span bytes)
{
	/* The reader stops before it is full. */
	if (buf_put(&x->body, bytes.p, bytes.n) < 0)
		(void)nghttp2_submit_rst_stream(c->h2->s, NGHTTP2_FLAG_NONE, x->stream, NGHTTP2_CANCEL);
	else
		(void)nghttp2_session_resume_data(c->h2->s, x->stream);
}

void h2_body_end(struct conn *c, struct exchange *x)
{
	(void)nghttp2_session_resume_data(c->h2->s, x->stream);
}

void h2_read(struct conn *c, struct exchange *x)
{
	if (x->conn != c || x->unread == 0 || !exchange_has_room(x))
		return;
	(void)nghttp2_session_consume_stream(c->h2->s, x->stream, x->unread);
	x->unread = 0;
}

void h2_leave(struct conn *c, struct exchange *x, bool answered)
{
	if (x->stream <= 0)
		return;
	if (of(c->h2->s, x->stream) == x) {
		(void)nghttp2_session_set_stream_user_data(c->h2->s, x->stream, NULL);
		/* A service counts resets; one that answered and got all needs none. */
		if (!answered || nghttp2_session_get_stream_local_close(c->h2->s, x->stream) != 1)
			(void)nghttp2_submit_rst_stream(c->h2->s, NGHTTP2_FLAG_NONE, x->stream,
							answered ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
		if (!answered)
			c->h2->late = MIN(c->h2->late + UP_STREAM_WINDOW, (size_t)LATE_MAX);
	}
	x->stream = 0;
	c->h2->n--;
	c->h2->v->again = true;
}

bool h2_send(struct conn *c)
{
	const uint8_t *p;
	ssize_t n;

	if (c->h2->inside)
		return false;
	c->h2->inside = true;
	while (c->out.n < UP_OUT_FULL && !c->broken && (n = nghttp2_session_mem_send(c->h2->s, &p)) != 0) {
		if (n < 0 || tls_write(c, SPAN(p, (size_t)n)) < 0) {
			c->broken = true;
			break;
		}
		/* It was sent, and nothing else looks at it: here the secret stood, packed. The first bytes are a
		 * constant. */
		if (c->h2->begun)
			explicit_bzero((void *)(uintptr_t)p, (size_t)n);
		c->h2->begun = true;
	}
	c->h2->inside = false;
	return c->out.n >= UP_OUT_FULL && !c->broken;
}

void h2_readable(struct vault *v, struct conn *c)
{
	static uint8_t bytes[UP_READ];
	ssize_t k = -EAGAIN, used = 0;
	size_t late;

	for (int i = 0; !(c->more = i == UP_READS) && (k = tls_read(c, bytes, sizeof(bytes))) > 0; i++) {
		/* No callback closes it: a place is made of one that nobody is inside of (is_kept()). */
		c->h2->inside = true;
		c->h2->told = false;
		used = nghttp2_session_mem_recv(c->h2->s, bytes, (size_t)k);
		c->h2->inside = false;
		late = MIN(c->h2->late, c->h2->told ? 0 : (size_t)k);
		c->h2->late -= late;
		c->h2->quiet = c->h2->told ? 0 : c->h2->quiet + (size_t)k - late;
		if (used == k && c->h2->quiet >= FRAME_HEAD) {
			c->h2->quiet = 0;
			used = spend(c->h2) < 0 ? -1 : k;
		}
		if (used != k)
			break;
	}
	c->h2->bad = used < 0;
	if (used < 0 && c->h2->cheap > CHEAP_MAX)
		up_trouble(v, c->key.host, "it floods with frames that mean nothing");
	if ((k <= 0 && k != -EAGAIN) || used < 0 || c->broken)
		conn_close(v, c);
}
