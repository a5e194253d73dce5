/* Vault between gate and services, which are both played (live.h): several exchanges at once, over HTTP/1.1 and HTTP/2,
 * on connections that are kept or closed, and a websocket. Each exchange ends, whole and byte for byte, in both
 * directions, and nothing is left. */
#include "livepeer.h"

#include <nghttp2/nghttp2.h>
#include <openssl/pem.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "gate/ca.h"
#include "vault/logins.h"
#include "vault/renewals.h"
#include "vault/upstream.h"

#define ASKED 8
#define SERVICES 32
#define SECRET "CANARY-0123456789abcdef0123"

enum when { WHEN_HEARD, WHEN_ONCE, WHEN_EARLY, WHENS };

struct asked {
	/* What is to be. */
	enum http_body up_kind;
	enum { LENGTH, CHUNKED, CLOSE, BARE, DOWN_KINDS } down_kind;
	uint64_t up, down;
	bool login, h2, trailers, ws, closes;
	enum when when;
	/* Gate's side. */
	int fd; /* -1: not begun, or over */
	bool begun, sent_all, got_head, done;
	uint64_t sent, got;
	struct buf in, out;
	struct xch_reader reader;
	/* The service's. */
	struct service *at;
	int32_t stream;
	bool heard, said_head, said_all, waiting;
	uint64_t got_up, said;
	size_t uneaten; /* where windows are opened by hand */
};

struct service {
	struct peer p;
	nghttp2_session *h2;
	struct asked *a; /* HTTP/1.1: whom it serves */
	struct buf rx;
	enum { RX_HEAD, RX_LENGTH, RX_SIZE, RX_CHUNK, RX_CHUNK_END, RX_LAST, RX_BYTES, RX_OVER } state;
	uint64_t left;
	bool closing, bye; /* bye: by close_notify, and not by a FIN alone */
	size_t uneaten; /* of the connection */
	bool by_hand;
};

static struct vault v;
static SSL_CTX *server;
static struct asked ask[ASKED];
static int n_asked;
static struct service sv[SERVICES];
static int n_sv;
static struct service *reading;
static bool speaks_h2, one_by_one;
static int64_t paused;

static void live_tell(void)
{
	for (int i = 0; i < n_sv; i++)
		(void)fprintf(stderr, "service %d: fd %d, ready %d, h2 %d, state %d, tx %zu, eof %d, broken %d\n", i,
			      sv[i].p.fd, sv[i].p.ready, sv[i].h2 != NULL, sv[i].state, sv[i].p.tx.n, sv[i].p.eof,
			      sv[i].p.broken);
	for (int i = 0; i < n_asked; i++) {
		const struct asked *a = &ask[i];

		(void)fprintf(stderr,
			      "%d: up %d %llu: sent %llu, all %d, heard %llu, all %d; down %d %llu when %d%s%s%s: said "
			      "%llu, all %d, "
			      "got %llu, head %d; begun %d, done %d; service %d\n",
			      i, a->up_kind, (unsigned long long)a->up, (unsigned long long)a->sent, a->sent_all,
			      (unsigned long long)a->got_up, a->heard, a->down_kind, (unsigned long long)a->down,
			      a->when, a->ws ? " ws" : "", a->trailers ? " trailers" : "", a->login ? " login" : "",
			      (unsigned long long)a->said, a->said_all, (unsigned long long)a->got, a->got_head,
			      a->begun, a->done, a->at ? (int)(a->at - sv) : -1);
	}
}

static unsigned up_of(const struct asked *a)
{
	return (unsigned)(a - ask) * 2;
}

static unsigned down_of(const struct asked *a)
{
	return (unsigned)(a - ask) * 2 + 1;
}

/* ---- the seams: dialling, names ---- */

int opens_up(struct vault *w, uint16_t slot, uint32_t gen, const struct up_dial *d)
{
	struct service *s = &sv[n_sv++];
	int pair[2];

	HOLDS(n_sv <= SERVICES);
	some_pair(pair);
	*s = (struct service){ .p = { .fd = pair[1], .ssl = SSL_new(server) } };
	buf_init(&s->p.tx, 1 << 20);
	buf_init(&s->rx, 1 << 20);
	HOLDS(s->p.ssl && SSL_set_fd(s->p.ssl, s->p.fd) == 1);
	if (once_in(4))
		(void)SSL_set_max_proto_version(s->p.ssl, TLS1_2_VERSION);
	SSL_set_accept_state(s->p.ssl);
	up_dialled(w, slot, gen, pair[0], 0);
	return 0;
}

void opens_up_cancel(struct vault *w, uint16_t slot, uint32_t gen)
{
}

void opens_dial(struct vault *w, const struct net_dial *m)
{
	HOLDS(!"nobody dials");
}

void opens_inspected(struct vault *w, const struct net_head *h)
{
	HOLDS(!"nobody inspects");
}

int dns_resolve(struct vault *w, const char *name, uint16_t type, uint16_t slot, uint32_t gen)
{
	HOLDS(!"nobody asks for a name");
	return -EAGAIN;
}

void vault_end(struct vault *w, const char *why)
{
	HOLDS(!"the session goes on");
}

/* ---- a service ---- */

static void put_text(struct service *s, const char *t)
{
	HOLDS(buf_put(&s->p.tx, t, strlen(t)) == 0);
}

static void heard_up(struct asked *a, struct span s)
{
	HOLDS(body_is(up_of(a), a->got_up, s));
	a->got_up += s.n;
	HOLDS(a->got_up <= a->up);
}

static void heard_all(struct asked *a)
{
	HOLDS(a->got_up == a->up);
	a->heard = true;
}

static struct asked *asked_by(struct span path)
{
	const uint8_t *q = memchr(path.p, '?', path.n);
	struct asked *a = q ? &ask[q[1] - '0'] : ask + n_asked;

	HOLDS(a < ask + n_asked && !a->at);
	return a;
}

static bool rx_line(struct service *s, char *to, size_t size)
{
	struct span in = buf_span(&s->rx);
	const uint8_t *end = in.n > 0 ? memmem(in.p, in.n, "\r\n", 2) : NULL;
	size_t n = end ? (size_t)(end - in.p) : 0;

	if (!end)
		return false;
	HOLDS(n < size);
	memcpy(to, in.p, n);
	to[n] = '\0';
	buf_consume(&s->rx, n + 2);
	return true;
}

static void h1_over(struct service *s)
{
	heard_all(s->a);
	s->state = RX_OVER;
}

static bool h1_head_line(struct service *s)
{
	char line[8192];

	if (!rx_line(s, line, sizeof(line)))
		return false;
	if (!s->a) {
		s->a = asked_by(span_str(line));
		s->a->at = s;
		s->left = 0;
	} else if (strncmp(line, "Content-Length: ", 16) == 0) {
		s->left = strtoull(line + 16, NULL, 10);
	}
	if (line[0] != '\0')
		return true;
	if (s->a->ws)
		s->state = RX_BYTES;
	else if (s->a->up_kind == HTTP_BODY_STREAM)
		s->state = RX_SIZE;
	else if (s->left > 0)
		s->state = RX_LENGTH;
	else
		h1_over(s);
	return true;
}

static bool rx_body(struct service *s, uint64_t most)
{
	struct span in = buf_span(&s->rx);

	in.n = (size_t)MIN((uint64_t)in.n, most);
	if (in.n == 0)
		return false;
	heard_up(s->a, in);
	s->left -= in.n;
	buf_consume(&s->rx, in.n);
	return true;
}

static bool h1_hears(struct service *s)
{
	char line[64];

	switch (s->state) {
	case RX_HEAD:
		return h1_head_line(s);
	case RX_LENGTH:
	case RX_CHUNK:
		if (!rx_body(s, s->left))
			return false;
		if (s->left == 0 && s->state == RX_LENGTH)
			h1_over(s);
		else if (s->left == 0)
			s->state = RX_CHUNK_END;
		return true;
	case RX_BYTES:
		return rx_body(s, s->rx.n);
	case RX_OVER:
		/* The next request waits until this one is answered. */
		if (!s->a->said_all || s->closing || s->rx.n == 0)
			return false;
		s->a = NULL;
		s->state = RX_HEAD;
		return true;
	default:
		if (!rx_line(s, line, sizeof(line)))
			return false;
		if (s->state == RX_SIZE) {
			s->left = strtoull(line, NULL, 16);
			s->state = s->left > 0 ? RX_CHUNK : RX_LAST;
			return true;
		}
		HOLDS(line[0] == '\0');
		if (s->state == RX_CHUNK_END)
			s->state = RX_SIZE;
		else
			h1_over(s);
		return true;
	}
}

static void h1_takes(struct span in)
{
	HOLDS(buf_put(&reading->rx, in.p, in.n) == 0);
	while (h1_hears(reading))
		;
}

static void h1_says_head(struct service *s)
{
	struct asked *a = s->a;
	char line[64];

	if (!a->ws && once_in(4))
		put_text(s, "HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n");
	put_text(s, a->ws ? "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
			  : "HTTP/1.1 200 OK\r\n");
	(void)snprintf(line, sizeof(line), "Content-Length: %llu\r\n", (unsigned long long)a->down);
	if (a->ws)
		;
	else if (a->down_kind == LENGTH || a->down_kind == BARE)
		put_text(s, line);
	else if (a->down_kind == CHUNKED)
		put_text(s, "Transfer-Encoding: chunked\r\n");
	if (a->closes && !a->ws)
		put_text(s, "Connection: close\r\n");
	put_text(s, "\r\n");
	a->said_head = true;
}

/* Something more of the answer; false: it is over, or not yet due. */
static bool h1_says(struct service *s)
{
	struct asked *a = s->a;
	char line[32];
	uint64_t may;
	size_t k;

	if (!a || s->closing || a->said_all || s->state == RX_HEAD || (a->when == WHEN_HEARD && !a->heard))
		return false;
	/* What tells its length is over with its last byte. */
	may = a->ws || a->down_kind != BARE ? a->down : 0;
	if (!a->heard && a->when != WHEN_EARLY && !a->ws && (a->down_kind == LENGTH || a->down_kind == BARE)) {
		if (may == 0)
			return false;
		may--;
	}
	if (!a->said_head) {
		h1_says_head(s);
		return true;
	}
	if (a->said < may) {
		k = some_piece(may - a->said, BODY_PIECE);
		(void)snprintf(line, sizeof(line), "%zx\r\n", k);
		put_text(s, a->down_kind == CHUNKED && !a->ws ? line : "");
		HOLDS(buf_put(&s->p.tx, body_at(down_of(a), a->said), k) == 0);
		put_text(s, a->down_kind == CHUNKED && !a->ws ? "\r\n" : "");
		a->said += k;
		return true;
	}
	if (!a->heard && a->when != WHEN_EARLY)
		return false;
	if (a->down_kind == CHUNKED && !a->ws)
		put_text(s, a->trailers ? "0\r\nX-T: 1\r\n\r\n" : "0\r\n\r\n");
	a->said_all = true;
	s->closing = a->ws || a->closes || a->down_kind == CLOSE;
	s->bye = once_in(2) || (!a->ws && a->down_kind == CLOSE);
	while (h1_hears(s))
		;
	return true;
}

/* ---- HTTP/2 ---- */

static struct asked *of(nghttp2_session *s, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(s, stream);
}

static int h2_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n, const uint8_t *value,
		     size_t k, uint8_t flags, void *arg)
{
	struct asked *a;

	if (n != 5 || memcmp(name, ":path", 5) != 0)
		return 0;
	a = asked_by(SPAN(value, k));
	a->at = arg;
	a->stream = f->hd.stream_id;
	(void)nghttp2_session_set_stream_user_data(s, a->stream, a);
	return 0;
}

static int h2_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	struct service *from = arg;
	struct asked *a = of(s, id);

	from->uneaten += n;
	if (!a)
		return 0;
	a->uneaten += n;
	heard_up(a, SPAN(p, n));
	return 0;
}

static int h2_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct asked *a = f->hd.stream_id ? of(s, f->hd.stream_id) : NULL;

	if (a && (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) && f->hd.flags & NGHTTP2_FLAG_END_STREAM)
		heard_all(a);
	return 0;
}

static int h2_closed(nghttp2_session *s, int32_t id, uint32_t error, void *arg)
{
	struct asked *a = of(s, id);

	if (a)
		HOLDS(a->said_all && (a->heard || a->when == WHEN_EARLY));
	if (a)
		a->stream = 0;
	return 0;
}

static ssize_t h2_gives(nghttp2_session *s, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
			nghttp2_data_source *from, void *arg)
{
	static const nghttp2_nv trailer = { (uint8_t *)(uintptr_t) "x-t", (uint8_t *)(uintptr_t) "1", 3, 1, 0 };
	struct asked *a = from->ptr;
	uint64_t all = a->down_kind == BARE ? 0 : a->down;
	bool may_end = a->heard || a->when == WHEN_EARLY;

	if ((a->said == all && !may_end) || (!eager && once_in(8))) {
		a->waiting = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	n = some_piece(all - a->said, n);
	memcpy(p, body_at(down_of(a), a->said), n);
	a->said += n;
	if (a->said == all && may_end && (n == 0 || !once_in(3))) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		a->said_all = true;
		if (a->trailers && nghttp2_submit_trailer(s, id, &trailer, 1) == 0)
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	}
	return (ssize_t)n;
}

#define NV(name, value)                                                                                     \
	{                                                                                                   \
		(uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), strlen(name), strlen(value), 0 \
	}

static void h2_answers(struct service *s, struct asked *a)
{
	const nghttp2_data_provider body = { .source.ptr = a, .read_callback = h2_gives };
	char length[24];

	(void)snprintf(length, sizeof(length), "%llu", (unsigned long long)a->down);
	{
		const nghttp2_nv nv[] = { NV(":status", "200"), NV(a->down_kind == LENGTH ? "content-length" : "x-a",
								   a->down_kind == LENGTH ? length : "b") };

		HOLDS(nghttp2_submit_response(s->h2, a->stream, nv, ARRAY_SIZE(nv), &body) == 0);
	}
	a->said_head = true;
}

static bool h2_says(struct service *s)
{
	const uint8_t *p;
	ssize_t n;

	for (int i = 0; i < n_asked; i++) {
		struct asked *a = &ask[i];

		if (a->at != s || a->stream == 0)
			continue;
		if (!a->said_head && (a->heard || a->when != WHEN_HEARD) && (eager || once_in(2)))
			h2_answers(s, a);
		if (a->waiting) {
			a->waiting = false;
			(void)nghttp2_session_resume_data(s->h2, a->stream);
		}
		if (s->by_hand && a->uneaten > 0 && (eager || once_in(3))) {
			(void)nghttp2_session_consume_stream(s->h2, a->stream, a->uneaten);
			a->uneaten = 0;
		}
	}
	if (s->by_hand && s->uneaten > 0 && (eager || once_in(3))) {
		(void)nghttp2_session_consume_connection(s->h2, s->uneaten);
		s->uneaten = 0;
	}
	if (!eager && once_in(200))
		(void)nghttp2_submit_shutdown_notice(s->h2);
	n = nghttp2_session_mem_send(s->h2, &p);
	HOLDS(n >= 0 && buf_put(&s->p.tx, p, (size_t)n) == 0);
	return n > 0;
}

static void h2_hears(struct span in)
{
	HOLDS(nghttp2_session_mem_recv(reading->h2, in.p, in.n) == (ssize_t)in.n);
}

static void h2_begin_service(struct service *s)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 65535 + (once_in(2) ? 0 : (uint32_t)some_burst()) },
		{ NGHTTP2_SETTINGS_MAX_FRAME_SIZE, once_in(2) ? 16384 : 1 << 20 },
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, once_in(2) ? 100 : 1 + dice(3) },
	};
	nghttp2_session_callbacks *cb;
	nghttp2_option *opt;

	s->by_hand = once_in(2);
	HOLDS(nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0);
	nghttp2_session_callbacks_set_on_header_callback(cb, h2_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, h2_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2_closed);
	nghttp2_option_set_no_auto_window_update(opt, s->by_hand);
	HOLDS(nghttp2_session_server_new2(&s->h2, cb, s, opt) == 0);
	nghttp2_option_del(opt);
	nghttp2_session_callbacks_del(cb);
	HOLDS(nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) == 0);
}

static void service_leaves(struct service *s)
{
	peer_done(&s->p);
	nghttp2_session_del(s->h2);
	s->h2 = NULL;
	buf_done(&s->rx);
}

/* False: the socket is full. */
static bool said_bye(SSL *ssl)
{
	int r = SSL_shutdown(ssl);

	return r >= 0 || SSL_get_error(ssl, r) != SSL_ERROR_WANT_WRITE;
}

static size_t service_writes(struct service *s, size_t n)
{
	const unsigned char *name;
	unsigned int k;
	size_t sum;

	if (s->p.fd < 0)
		return 0;
	if (!s->p.ready) {
		if (!peer_handshake(&s->p))
			return 0;
		SSL_get0_alpn_selected(s->p.ssl, &name, &k);
		if (k == 2)
			h2_begin_service(s);
		return 1;
	}
	while (s->p.tx.n < n && s->p.tx.n < 400000 && (s->h2 ? h2_says(s) : h1_says(s)))
		;
	/* Whoever said goodbye cannot answer one, says OpenSSL. */
	if (!eager && once_in(40) && SSL_version(s->p.ssl) == TLS1_3_VERSION && s->p.again == 0 && s->p.tx.n > 0 &&
	    !(s->a && s->a->ws))
		(void)SSL_key_update(s->p.ssl, SSL_KEY_UPDATE_REQUESTED);
	sum = peer_writes(&s->p, n);
	/* Some say goodbye, some do not; what ends with the connection alone is not believed without. */
	if (s->closing && s->p.tx.n == 0 && !s->p.ended && (!s->bye || said_bye(s->p.ssl))) {
		s->p.ended = true;
		(void)shutdown(s->p.fd, SHUT_WR);
		sum++;
	}
	if (s->p.broken || (s->p.eof && (s->p.ended || !s->a || !s->a->ws)))
		service_leaves(s);
	return sum;
}

static size_t service_reads(struct service *s, size_t n)
{
	size_t k;

	reading = s;
	k = peer_read(&s->p, n, s->h2 ? h2_hears : h1_takes);
	/* The end of the other protocol's direction. */
	if (s->p.eof && s->a && s->a->ws && !s->a->heard)
		h1_over(s);
	return k;
}

/* ---- gate ---- */

static void gate_begins(struct asked *a)
{
	struct httpmsg_request_wire w = { .host = a->ws ? HOST_OPENAI : HOST_ANTHROPIC,
					  .method = a->ws || a->up_kind == HTTP_BODY_NONE ? METHOD_GET : METHOD_POST,
					  .flags = (uint8_t)(HTTPMSG_HAS_QUERY | (a->h2 ? HTTPMSG_H2 : 0) |
							     (a->ws ? HTTPMSG_UPGRADE : 0)),
					  .body = (uint8_t)a->up_kind,
					  .body_len = a->up_kind == HTTP_BODY_LENGTH ? a->up : 0,
					  .kind = { HTTPMSG_NO_CRED, HTTPMSG_NO_CRED },
					  .slot = { HTTPMSG_NO_CRED, HTTPMSG_NO_CRED } };
	const char query[] = { (char)('0' + (a - ask)), '\0' };
	struct buf m;
	int pair[2];

	if (a->login) {
		w.kind[0] = PH_ANTHROPIC_KEY;
		w.slot[0] = SLOT_KEY;
	}
	buf_init(&m, HTTPMSG_MAX);
	HOLDS(httpmsg_request_begin(&m, &w,
				    span_str(a->ws		      ? "/v1/responses"
					     : w.method == METHOD_GET ? "/v1/models"
								      : "/v1/messages"),
				    span_str(query)) == 0);
	HOLDS(httpmsg_field(&m, span_str("Accept-Encoding"), span_str("identity")) == 0);
	httpmsg_end(&m, 1);
	some_pair(pair);
	a->fd = pair[0];
	a->begun = true;
	a->reader = (struct xch_reader){ .side = XCH_TO_GATE };
	buf_init(&a->in, 1 << 20);
	buf_init(&a->out, 1 << 20);
	exchange_begin(&v, buf_span(&m).p, m.n, pair[1]);
	v.again = true; /* it came by an event */
	buf_done(&m);
}

static void gate_leaves(struct asked *a)
{
	close_p(&a->fd);
	a->fd = -1;
	buf_done(&a->in);
	buf_done(&a->out);
}

static size_t gate_writes(struct asked *a, size_t n)
{
	ssize_t k;

	if (!a->begun) {
		if (one_by_one && a > ask && !a[-1].done)
			return 0;
		gate_begins(a);
		return 1;
	}
	if (a->fd < 0)
		return 0;
	while (a->sent < a->up && a->out.n < n && a->out.n < 400000 && (!a->ws || a->got_head)) {
		size_t piece = some_piece(a->up - a->sent, XCH_DATA_MAX);

		(void)xch_put(&a->out, XCH_DATA, SPAN(body_at(up_of(a), a->sent), piece));
		a->sent += piece;
	}
	if (a->sent == a->up && !a->sent_all && (!a->ws || a->got_head)) {
		(void)xch_put(&a->out, XCH_END, SPAN(NULL, 0));
		a->sent_all = true;
	}
	if (a->out.n == 0)
		return 0;
	k = send(a->fd, buf_span(&a->out).p, MIN(n, a->out.n), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (k < 0 && errno == EPIPE) {
		/* What the answer did not wait for, if only for the END, is not heard for ever. */
		HOLDS(a->said_all && (a->heard || a->when == WHEN_EARLY));
		a->sent = a->up;
		a->sent_all = true;
		k = (ssize_t)a->out.n;
	}
	HOLDS(k > 0 || errno == EAGAIN);
	buf_consume(&a->out, k > 0 ? (size_t)k : 0);
	/* What was said is over when it was heard and said. */
	if (a->done && a->sent_all && a->out.n == 0)
		gate_leaves(a);
	return k > 0 ? (size_t)k : 0;
}

static void got_head(struct asked *a, struct span msg)
{
	static struct httpmsg_answer m;

	HOLDS(httpmsg_answer_parse(msg, &m) == 0 && m.w.code == 0 && m.w.status == (a->ws ? 101 : 200));
	a->got_head = true;
}

static size_t gate_reads(struct asked *a, size_t n)
{
	uint8_t *room = a->fd < 0 || a->done ? NULL : buf_room(&a->in, MIN(n, (size_t)(256 << 10)));
	ssize_t k = room ? recv(a->fd, room, MIN(n, (size_t)(256 << 10)), MSG_DONTWAIT) : -1;
	struct span in, got;
	enum xch_got what;

	if (k < 0)
		return 0;
	HOLDS(k > 0); /* nothing is cut */
	buf_grew(&a->in, (size_t)k);
	in = buf_span(&a->in);
	while (!a->done && (what = xch_take(&a->reader, &in, &got)) != XCH_GOT_MORE) {
		HOLDS(what != XCH_GOT_BAD);
		if (what == XCH_GOT_ANSWER) {
			got_head(a, got);
		} else if (what == XCH_GOT_DATA) {
			HOLDS(body_is(down_of(a), a->got, got));
			a->got += got.n;
		} else if (what == XCH_GOT_END) {
			HOLDS(a->got == (a->down_kind == BARE && !a->ws ? 0 : a->down));
			a->done = true;
		}
	}
	buf_consume(&a->in, a->in.n - in.n);
	/* Gate closes at once what was answered without being heard out, or when it has written all. */
	if (a->done && ((a->sent_all && a->out.n == 0) || (a->when == WHEN_EARLY && once_in(2))))
		gate_leaves(a);
	return (size_t)k;
}

/* ---- the run ---- */

static bool turn(void)
{
	struct ev_event batch[EV_BATCH];
	int n = ev_wait(&v.ev, batch, 0);

	HOLDS(n >= 0);
	/* Its loop would sleep. */
	if (n == 0 && !v.again)
		return false;
	for (int i = 0; i < n; i++) {
		if (batch[i].kind == EV_XCH)
			exchange_event(&v, batch[i].slot, batch[i].gen, batch[i].events);
		else if (batch[i].kind == EV_UP)
			up_event(&v, batch[i].slot, batch[i].gen, batch[i].events);
		else
			logins_event(&v, batch[i].slot);
	}
	v.again = false;
	(void)exchanges_tick(&v);
	(void)up_tick(&v);
	(void)audit_flush(&v.audit, v.now, true);
	return true;
}

static bool over(void)
{
	for (int i = 0; i < n_asked; i++)
		if (!ask[i].done || ask[i].fd >= 0)
			return false;
	return true;
}

/* Everyone may pause, for ten minutes in all; but not within a handshake. */
static void time_passes(void)
{
	int64_t ns = (int64_t)dice(200) * NS;

	for (int i = 0; i < n_asked; i++)
		if (ask[i].begun && !ask[i].at)
			return;
	paused += ns;
	if (paused < 600 * NS)
		v.now += ns, v.again = true;
}

static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned int n,
		  void *arg)
{
	static const unsigned char all[] = "\x02h2\x08http/1.1";

	return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, speaks_h2 ? all : all + 3,
				     speaks_h2 ? 12 : 9, in, n) == OPENSSL_NPN_NEGOTIATED
		       ? SSL_TLSEXT_ERR_OK
		       : SSL_TLSEXT_ERR_NOACK;
}

/* A certificate for the name that is asked for. */
static int for_name(SSL *ssl, int *alert, void *arg)
{
	struct ca *ca = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	X509 *leaf = name ? ca_leaf(ca, prov_host_find(span_str(name)), time(NULL)) : NULL;

	return leaf && SSL_use_certificate(ssl, leaf) == 1 && SSL_use_PrivateKey(ssl, ca->leaf_key) == 1
		       ? SSL_TLSEXT_ERR_OK
		       : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void start(void)
{
	static struct vault_connect_to to[2];
	static const enum prov_host_id hosts[] = { HOST_ANTHROPIC, HOST_OPENAI };
	static struct ca ca;
	static int trust;
	struct err err = { 0 };
	BIO *pem = BIO_new(BIO_s_mem());
	char *text;
	long size;
	int pair[2];

	server = SSL_CTX_new(TLS_server_method());
	HOLDS(server && pem && ca_init(&ca, "live", time(NULL), &err) == 0 && PEM_write_bio_X509(pem, ca.root) == 1);
	SSL_CTX_set_alpn_select_cb(server, choose, NULL);
	(void)SSL_CTX_set_tlsext_servername_callback(server, for_name);
	(void)SSL_CTX_set_tlsext_servername_arg(server, &ca);
	(void)SSL_CTX_set_mode(server, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	size = BIO_get_mem_data(pem, &text);
	trust = memfd_create("trust", MFD_CLOEXEC);
	HOLDS(trust >= 0 && write(trust, text, (size_t)size) == size);
	BIO_free(pem);

	v.now = 1000 * NS;
	v.cfg.audit_fd = v.cfg.audit_old_fd = -1;
	v.cfg.trust = &trust;
	v.cfg.n_trust = 1;
	for (int k = 0; k < PH_KINDS; k++)
		v.cfg.env_fd[k] = -1;
	HOLDS(ev_open(&v.ev) == 0 && pipe2(pair, O_CLOEXEC) == 0);
	audit_open(&v.audit, -1, -1);
	v.audit.probing = true; /* nobody is told of violations */
	HOLDS(write(pair[1], SECRET, strlen(SECRET)) == (ssize_t)strlen(SECRET));
	(void)close(pair[1]);
	v.cfg.env_fd[PH_ANTHROPIC_KEY] = pair[0];
	v.cfg.launch.lent = PH_BIT(PH_ANTHROPIC_KEY) | PH_BIT(PH_OPENAI_KEY);
	for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
		to[i] = (struct vault_connect_to){ .port = 443,
						   .addr = { .family = AF_INET, .b = { 127, 0, 0, 1 } },
						   .to_port = 443 };
		(void)snprintf(to[i].name, sizeof(to[i].name), "%s", prov_hosts[hosts[i]].name);
	}
	v.cfg.connect_to = to;
	v.cfg.n_connect_to = ARRAY_SIZE(to);
	HOLDS(logins_open(&v, &err) == 0 && exchanges_init(&v) == 0 && upstream_init(&v) == 0 &&
	      renewals_init(&v) == 0);
	HOLDS(prctl(PR_SET_DUMPABLE, 1) == 0); /* so that leaks can be looked for */
	HOLDS(logins_watch(&v) == 0);
	(void)settle();
}

static void plan(void)
{
	speaks_h2 = once_in(2);
	one_by_one = once_in(4);
	n_asked = 1 + (int)dice(once_in(3) ? ASKED : 3);
	for (int i = 0; i < n_asked; i++) {
		struct asked *a = &ask[i];
		uint32_t kind = dice(10);

		*a = (struct asked){ .fd = -1, .ws = once_in(12) };
		a->login = !a->ws && once_in(2);
		a->h2 = !a->ws;
		a->up_kind = a->ws || kind == 0 ? HTTP_BODY_NONE : kind < 6 ? HTTP_BODY_LENGTH : HTTP_BODY_STREAM;
		a->up = a->up_kind == HTTP_BODY_NONE && !a->ws ? 0 : i < 3 ? some_length() : dice(3000);
		a->down_kind = dice(once_in(4) ? DOWN_KINDS : CLOSE);
		/* In HTTP/1.1 no length of nothing is told. */
		a->down = a->down_kind == BARE && !a->ws ? 0 : i < 3 ? some_length() : dice(3000);
		a->trailers = a->down_kind == CHUNKED && once_in(4);
		a->closes = once_in(6);
		a->when = a->ws ? WHEN_ONCE : dice(WHENS);
	}
}

static void end(void)
{
	(void)settle();
	for (int i = 0; i < n_asked; i++) {
		HOLDS(!ask[i].at || ask[i].heard || ask[i].when == WHEN_EARLY);
		gate_leaves(&ask[i]);
	}
	/* Nobody reads what is kept, and it is closed in its time. */
	for (int i = 0; i < 3; i++) {
		v.now += 400 * NS;
		v.again = true;
		(void)settle();
	}
	HOLDS(exchanges_tick(&v) == -1 && up_tick(&v) == -1);
	for (int i = 0; i < n_sv; i++)
		service_leaves(&sv[i]);
}

enum actor { GATE_READS, GATE_WRITES, SERVICE_READS, SERVICE_WRITES, ACTORS };

static size_t acts(uint32_t who, size_t n)
{
	size_t sum = 0;

	if (!eager && once_in(100))
		time_passes();
	for (int i = 0; i < n_asked && who < SERVICE_READS; i++)
		sum += who == GATE_READS ? gate_reads(&ask[i], n) : gate_writes(&ask[i], n);
	for (int i = 0; i < n_sv && who >= SERVICE_READS; i++)
		sum += who == SERVICE_READS ? service_reads(&sv[i], n) : service_writes(&sv[i], n);
	return sum;
}

static void run(void)
{
	if (!v.exchanges)
		start();
	n_sv = 0;
	paused = 0;
	plan();
	play(ACTORS);
	end();
}

int main(int argc, char **argv)
{
	return live_main(argc, argv, run);
}
