/* Gate between a guest and vault, which are both played (live.h): HTTP/1.1 with requests behind each other, HTTP/2 with
 * several at once, and a websocket. Each request that was begun ends, whole and byte for byte, in both directions; then
 * the connection ends as it was asked to, and nothing is left. */
#include "livegate.h"
#include "livepeer.h"

#include <nghttp2/nghttp2.h>

#define ASKED 8 /* requests of a case */

enum when { WHEN_HEARD, WHEN_ONCE, WHEN_EARLY, WHENS };

struct asked {
	/* What is to be. */
	enum http_body up_kind, down_kind;
	uint64_t up, down;
	bool head, expects, trailers, ws, leaves;
	enum when when; /* its answer comes when the body was heard, begins at once, or is given without hearing it */
	/* The guest's side. */
	bool sent_head, sent_all, got_head, done, reset;
	uint64_t sent, got;
	int32_t stream;
	bool waiting;	/* nghttp2 asked in vain */
	size_t uneaten; /* where windows are opened by hand */
	/* Vault's. */
	int fd; /* -1: not there yet, or over */
	bool came, heard, said_head, said_all;
	struct xch_reader reader;
	struct buf in, out;
	uint64_t got_up, said;
};

static const struct ph_claims claims = { .exp = 1 };
static SSL_CTX *client;
static struct peer guest;
static struct asked ask[ASKED];
static int n_asked, at_tx, at_rx;
static bool h2, pipelined, half_close, last_closes;
static int way_to_vault; /* how much its socket holds; 0: as it comes */

static void live_tell(void)
{
	(void)fprintf(stderr, "%s%s%s%s, ready %d, tx %d (%zu), rx %d, eof %d, broken %d\n", h2 ? "HTTP/2" : "HTTP/1.1",
		      pipelined ? ", pipelined" : "", half_close ? ", half-closed" : "",
		      last_closes ? ", the last closes" : "", guest.ready, at_tx, guest.tx.n, at_rx, guest.eof,
		      guest.broken);
	for (int i = 0; i < CONNS; i++)
		if (g.conn[i])
			(void)fprintf(stderr, "gate: state %d, out %zu, sealed %zu, watching %#x, eof %d, kicked %d\n",
				      g.conn[i]->state, g.conn[i]->out.n, g.conn[i]->sealed.n, g.conn[i]->watching,
				      g.conn[i]->in_eof, g.conn[i]->kicked);
	for (int i = 0; i < n_asked; i++) {
		const struct asked *a = &ask[i];

		(void)fprintf(stderr,
			      "%d: up %d %llu: sent %llu, all %d, heard %llu, all %d; down %d %llu when %d%s%s%s: said "
			      "%llu, all %d, "
			      "got %llu, head %d, done %d, reset %d; there %d\n",
			      i, a->up_kind, (unsigned long long)a->up, (unsigned long long)a->sent, a->sent_all,
			      (unsigned long long)a->got_up, a->heard, a->down_kind, (unsigned long long)a->down,
			      a->when, a->ws ? " ws" : "", a->trailers ? " trailers" : "", a->head ? " HEAD" : "",
			      (unsigned long long)a->said, a->said_all, (unsigned long long)a->got, a->got_head,
			      a->done, a->reset, a->fd >= 0);
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

static bool is_bare(const struct asked *a)
{
	return a->head || a->down_kind == HTTP_BODY_NONE;
}

/* ---- vault ---- */

static void vault_asked(const uint8_t *msg, size_t n, int fd)
{
	static struct httpmsg_request m;
	struct asked *a;

	HOLDS(fd >= 0 && httpmsg_request_parse(SPAN(msg, n), &m) == 0 && m.query.n == 1);
	a = &ask[m.query.p[0] - '0'];
	HOLDS(a < ask + n_asked && !a->came && m.w.body == a->up_kind &&
	      (a->up_kind != HTTP_BODY_LENGTH || m.w.body_len == a->up));
	a->came = true;
	a->fd = fd;
	a->reader = (struct xch_reader){ .side = XCH_TO_VAULT };
	buf_init(&a->in, 1 << 20);
	buf_init(&a->out, 1 << 20);
	/* Gate's end is not ours, but of this process. */
	for (int i = 0; way_to_vault > 0 && i < ASKS; i++)
		if (g.ask[i].used && g.ask[i].fd >= 0)
			(void)setsockopt(g.ask[i].fd, SOL_SOCKET, SO_SNDBUF, &way_to_vault, sizeof(way_to_vault));
}

static bool messages(void)
{
	static uint8_t msg[HTTPMSG_MAX];
	bool any = false;
	int fd = -1;
	ssize_t n;

	while ((n = fd_recv(vault_fd, msg, sizeof(msg), &fd, 1)) > 0) {
		struct net_head h;

		memcpy(&h, msg, sizeof(h));
		any = true;
		if (h.type == HTTPMSG_REQUEST)
			vault_asked(msg, (size_t)n, fd);
		else
			HOLDS(h.type == NET_INSPECTED);
		fd = -1;
	}
	/* Nothing is reset here. */
	HOLDS(recv(wire_fd, msg, sizeof(msg), MSG_DONTWAIT) < 0);
	return any;
}

static void vault_leaves(struct asked *a)
{
	close_p(&a->fd);
	a->fd = -1;
	buf_done(&a->in);
	buf_done(&a->out);
}

/* Vault is through when it has heard and said all; where its answer is out early it hears on, but not for ever. */
static void vault_through(struct asked *a)
{
	if (a->fd >= 0 && a->said_all && a->out.n == 0 && (a->heard || a->leaves))
		vault_leaves(a);
}

static size_t vault_reads(struct asked *a, size_t n)
{
	uint8_t *room = a->fd < 0 || a->heard ? NULL : buf_room(&a->in, MIN(n, (size_t)(256 << 10)));
	ssize_t k = room ? recv(a->fd, room, MIN(n, (size_t)(256 << 10)), MSG_DONTWAIT) : -1;
	struct span in, got;
	enum xch_got what;

	if (k < 0)
		return 0;
	if (k == 0) {
		/* Gate has what it wants, or its guest does not want it any more. */
		HOLDS(a->reset || (a->when == WHEN_EARLY && a->said_all) || (a->ws && a->said_all));
		vault_leaves(a);
		return 1;
	}
	buf_grew(&a->in, (size_t)k);
	in = buf_span(&a->in);
	while ((what = xch_take(&a->reader, &in, &got)) != XCH_GOT_MORE) {
		HOLDS(what == XCH_GOT_DATA || what == XCH_GOT_END);
		if (what == XCH_GOT_END) {
			HOLDS(a->got_up == a->up);
			a->heard = true;
			break;
		}
		HOLDS(body_is(up_of(a), a->got_up, got));
		a->got_up += got.n;
		HOLDS(a->got_up <= a->up);
	}
	buf_consume(&a->in, a->in.n - in.n);
	vault_through(a);
	return (size_t)k;
}

static void say_head(struct asked *a)
{
	const struct httpmsg_answer_wire w = { .status = a->ws ? 101 : 200,
					       .body = (uint8_t)a->down_kind,
					       .body_len = a->down_kind == HTTP_BODY_LENGTH ? a->down : 0 };
	struct buf m;

	buf_init(&m, HTTPMSG_MAX);
	HOLDS(httpmsg_answer_begin(&m, &w) == 0 && httpmsg_field(&m, span_str("x-a"), span_str("b")) == 0);
	httpmsg_end(&m, 1);
	HOLDS(xch_put(&a->out, XCH_ANSWER, buf_span(&m)) == 0);
	buf_done(&m);
	a->said_head = true;
}

static void say_end(struct asked *a)
{
	struct buf f;

	buf_init(&f, 1024);
	if (a->trailers) {
		HOLDS(httpmsg_field(&f, span_str("x-t"), span_str("1")) == 0);
		(void)xch_put(&a->out, XCH_TRAILERS, buf_span(&f));
	}
	buf_done(&f);
	(void)xch_put(&a->out, XCH_END, SPAN(NULL, 0));
	a->said_all = true;
}

/* Puts what may be said into a->out, as frames of any length. */
static void vault_speaks(struct asked *a, size_t n)
{
	bool bare = is_bare(a) && !a->ws;

	if (a->said_all || (a->when == WHEN_HEARD && !a->heard))
		return;
	if (!a->said_head)
		say_head(a);
	while (a->said < a->down && !bare && a->out.n < n) {
		size_t k = some_piece(a->down - a->said, XCH_DATA_MAX);

		(void)xch_put(&a->out, XCH_DATA, SPAN(body_at(down_of(a), a->said), k));
		a->said += k;
	}
	if ((a->said == a->down || bare) && (a->heard || a->when == WHEN_EARLY))
		say_end(a);
}

static size_t vault_writes(struct asked *a, size_t n)
{
	bool was = a->said_all;
	ssize_t k;

	if (a->fd < 0)
		return 0;
	vault_speaks(a, n);
	if (a->out.n == 0)
		return 0;
	k = send(a->fd, buf_span(&a->out).p, MIN(n, a->out.n), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (k < 0 && errno == EPIPE) {
		HOLDS(a->reset);
		vault_leaves(a);
		return 1;
	}
	if (k > 0)
		buf_consume(&a->out, (size_t)k);
	vault_through(a);
	return (k > 0 ? (size_t)k : 0) + (was != a->said_all);
}

/* ---- the guest, HTTP/1.1 ---- */

static void put_text(const char *s)
{
	HOLDS(buf_put(&guest.tx, s, strlen(s)) == 0);
}

static void put_login(struct buf *out, bool ws)
{
	HOLDS(ph_write(&g.judge.set, ws ? PH_CODEX_A : PH_ANTHROPIC_KEY, &claims, out) == 0);
}

static void h1_says_head(struct asked *a)
{
	char line[128];

	(void)snprintf(line, sizeof(line), "%s %s?%d HTTP/1.1\r\nHost: %s\r\n%s",
		       a->ws			      ? "GET"
		       : a->head		      ? "HEAD"
		       : a->up_kind == HTTP_BODY_NONE ? "GET"
						      : "POST",
		       a->ws			      ? "/backend-api/codex/responses"
		       : a->up_kind == HTTP_BODY_NONE ? "/v1/models"
						      : "/v1/messages",
		       (int)(a - ask), a->ws ? "chatgpt.com" : "api.anthropic.com",
		       a->ws ? "Authorization: Bearer " : "x-api-key: ");
	put_text(line);
	put_login(&guest.tx, a->ws);
	if (a->ws)
		put_text("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
			 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
	put_text("\r\n");
	if (a->expects)
		put_text("Expect: 100-continue\r\n");
	if (last_closes && a == &ask[n_asked - 1] && !a->ws)
		put_text("Connection: close\r\n");
	(void)snprintf(line, sizeof(line), "Content-Length: %llu\r\n", (unsigned long long)a->up);
	put_text(a->up_kind == HTTP_BODY_LENGTH	  ? line
		 : a->up_kind == HTTP_BODY_STREAM ? "Transfer-Encoding: chunked\r\n"
						  : "");
	put_text("\r\n");
	a->sent_head = true;
}

/* Something more to be sent, if it is time for it. */
static bool h1_says(void)
{
	struct asked *a = &ask[at_tx];
	char line[32];
	size_t k;

	if (at_tx == n_asked || (!pipelined && at_tx > at_rx))
		return false;
	if (!a->sent_head) {
		h1_says_head(a);
		return true;
	}
	if (a->sent < a->up) {
		k = some_piece(a->up - a->sent, BODY_PIECE);
		(void)snprintf(line, sizeof(line), "%zx\r\n", k);
		put_text(a->up_kind == HTTP_BODY_STREAM ? line : "");
		HOLDS(buf_put(&guest.tx, body_at(up_of(a), a->sent), k) == 0);
		put_text(a->up_kind == HTTP_BODY_STREAM ? "\r\n" : "");
		a->sent += k;
		return true;
	}
	put_text(a->up_kind == HTTP_BODY_STREAM ? "0\r\n\r\n" : "");
	a->sent_all = true;
	at_tx++;
	return true;
}

static struct buf rx;
static enum { RX_HEAD, RX_LENGTH, RX_SIZE, RX_CHUNK, RX_CHUNK_END, RX_TRAILERS, RX_BYTES } rx_state;
static uint64_t rx_left;

static void h1_over(struct asked *a)
{
	HOLDS(a->got == (a->ws || !is_bare(a) ? a->down : 0));
	a->done = true;
	at_rx++;
	rx_state = RX_HEAD;
}

/* The line at the front of @rx without its end; false: it is not whole. */
static bool rx_line(char *to, size_t size)
{
	struct span s = buf_span(&rx);
	const uint8_t *end = s.n > 0 ? memmem(s.p, s.n, "\r\n", 2) : NULL;
	size_t n = end ? (size_t)(end - s.p) : 0;

	if (!end)
		return false;
	HOLDS(n < size);
	memcpy(to, s.p, n);
	to[n] = '\0';
	buf_consume(&rx, n + 2);
	return true;
}

static bool h1_head_line(struct asked *a)
{
	static bool goes_on, chunked;
	char line[512];

	if (!rx_line(line, sizeof(line)))
		return false;
	if (strncmp(line, "HTTP/1.1 ", 9) == 0) {
		goes_on = strncmp(line + 9, "100", 3) == 0;
		HOLDS(goes_on ? a->expects : strncmp(line + 9, a->ws ? "101" : "200", 3) == 0);
		chunked = false;
		rx_left = 0;
	} else if (strncmp(line, "Content-Length: ", 16) == 0) {
		rx_left = strtoull(line + 16, NULL, 10);
	} else if (strcmp(line, "Transfer-Encoding: chunked") == 0) {
		chunked = true;
	}
	if (line[0] != '\0' || goes_on)
		return true;
	a->got_head = true;
	if (a->ws)
		rx_state = RX_BYTES;
	else if (chunked)
		rx_state = RX_SIZE;
	else if (!a->head && rx_left > 0)
		rx_state = RX_LENGTH;
	else
		h1_over(a);
	return true;
}

static bool rx_body(struct asked *a, uint64_t most)
{
	struct span s = buf_span(&rx);

	s.n = (size_t)MIN((uint64_t)s.n, most);
	if (s.n == 0)
		return false;
	HOLDS(body_is(down_of(a), a->got, s));
	a->got += s.n;
	rx_left -= s.n;
	buf_consume(&rx, s.n);
	return true;
}

static bool h1_hears(void)
{
	struct asked *a = &ask[at_rx];
	char line[512];

	if (rx.n == 0)
		return false;
	HOLDS(at_rx < n_asked);
	switch (rx_state) {
	case RX_HEAD:
		return h1_head_line(a);
	case RX_LENGTH:
	case RX_CHUNK:
		if (!rx_body(a, rx_left))
			return false;
		if (rx_left == 0 && rx_state == RX_LENGTH)
			h1_over(a);
		else if (rx_left == 0)
			rx_state = RX_CHUNK_END;
		return true;
	case RX_CHUNK_END:
		if (!rx_line(line, sizeof(line)))
			return false;
		HOLDS(line[0] == '\0');
		rx_state = RX_SIZE;
		return true;
	case RX_SIZE:
		if (!rx_line(line, sizeof(line)))
			return false;
		rx_left = strtoull(line, NULL, 16);
		rx_state = rx_left > 0 ? RX_CHUNK : RX_TRAILERS;
		return true;
	case RX_TRAILERS:
		if (!rx_line(line, sizeof(line)))
			return false;
		if (line[0] == '\0')
			h1_over(a);
		else
			HOLDS(a->trailers && strcmp(line, "x-t: 1") == 0);
		return true;
	default:
		return rx_body(a, rx.n);
	}
}

static void h1_takes(struct span s)
{
	HOLDS(buf_put(&rx, s.p, s.n) == 0);
	while (h1_hears())
		;
	/* The other protocol has no end but that of the connection. */
	if (at_rx < n_asked && ask[at_rx].ws && ask[at_rx].got_head && ask[at_rx].got == ask[at_rx].down)
		h1_over(&ask[at_rx]);
}

/* ---- the guest, HTTP/2 ---- */

static nghttp2_session *session;
static size_t uneaten; /* of the connection */
static bool by_hand;

static struct asked *of(int32_t stream)
{
	return nghttp2_session_get_stream_user_data(session, stream);
}

static ssize_t h2_body(nghttp2_session *s, int32_t id, uint8_t *p, size_t n, uint32_t *flags, nghttp2_data_source *from,
		       void *arg)
{
	struct asked *a = from->ptr;

	if (!eager && a->sent < a->up && once_in(8)) {
		a->waiting = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	n = some_piece(a->up - a->sent, n);
	memcpy(p, body_at(up_of(a), a->sent), n);
	a->sent += n;
	/* An end of its own now and then. */
	if (a->sent == a->up && (n == 0 || !once_in(3))) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		a->sent_all = true;
	}
	return (ssize_t)n;
}

static int h2_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n, const uint8_t *value,
		     size_t k, uint8_t flags, void *arg)
{
	struct asked *a = of(f->hd.stream_id);

	HOLDS(a || f->hd.stream_id == 0);
	if (a && n == 7 && memcmp(name, ":status", 7) == 0) {
		HOLDS(k == 3 && (memcmp(value, "200", 3) == 0 || (a->expects && memcmp(value, "100", 3) == 0)));
		a->got_head |= value[0] == '2';
	}
	return 0;
}

static int h2_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	struct asked *a = of(id);

	uneaten += n;
	if (!a)
		return 0;
	HOLDS(body_is(down_of(a), a->got, SPAN(p, n)));
	a->got += n;
	a->uneaten += n;
	return 0;
}

static int h2_closed(nghttp2_session *s, int32_t id, uint32_t error, void *arg)
{
	struct asked *a = of(id);

	if (!a)
		return 0;
	HOLDS(error == NGHTTP2_NO_ERROR || a->reset);
	HOLDS(a->reset || a->got == (is_bare(a) ? 0 : a->down));
	a->done = true;
	at_rx++;
	return 0;
}

static void h2_begin_guest(void)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, once_in(2) ? 65535 : (uint32_t)(1000 + some_burst()) },
		{ NGHTTP2_SETTINGS_MAX_FRAME_SIZE, once_in(2) ? 16384 : 1 << 20 },
	};
	nghttp2_session_callbacks *cb;
	nghttp2_option *opt;

	by_hand = once_in(2);
	uneaten = 0;
	HOLDS(nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0);
	nghttp2_session_callbacks_set_on_header_callback(cb, h2_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2_closed);
	nghttp2_option_set_no_auto_window_update(opt, by_hand);
	HOLDS(nghttp2_session_client_new2(&session, cb, NULL, opt) == 0);
	nghttp2_option_del(opt);
	nghttp2_session_callbacks_del(cb);
	HOLDS(nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) == 0);
}

#define NV(name, value)                                                                                     \
	{                                                                                                   \
		(uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), strlen(name), strlen(value), 0 \
	}

static void h2_asks(struct asked *a)
{
	const nghttp2_data_provider body = { .source.ptr = a, .read_callback = h2_body };
	char path[32], length[24];
	struct buf key;

	buf_init(&key, 4096);
	put_login(&key, false);
	(void)buf_put_u8(&key, 0);
	(void)snprintf(path, sizeof(path), "%s?%d", a->up_kind == HTTP_BODY_NONE ? "/v1/models" : "/v1/messages",
		       (int)(a - ask));
	(void)snprintf(length, sizeof(length), "%llu", (unsigned long long)a->up);
	{
		const nghttp2_nv nv[] = {
			NV(":method", a->head			     ? "HEAD"
				      : a->up_kind == HTTP_BODY_NONE ? "GET"
								     : "POST"),
			NV(":scheme", "https"),
			NV(":authority", "api.anthropic.com"),
			NV(":path", path),
			NV("x-api-key", (const char *)buf_span(&key).p),
			NV(a->up_kind == HTTP_BODY_LENGTH ? "content-length" : "x-a",
			   a->up_kind == HTTP_BODY_LENGTH ? length : "b"),
			NV(a->expects ? "expect" : "x-b", a->expects ? "100-continue" : "c"),
		};

		a->stream = nghttp2_submit_request(session, NULL, nv, ARRAY_SIZE(nv),
						   a->up_kind == HTTP_BODY_NONE ? NULL : &body, a);
	}
	HOLDS(a->stream > 0);
	a->sent_head = true;
	a->sent_all = a->up_kind == HTTP_BODY_NONE;
	buf_done(&key);
	at_tx++;
}

static bool h2_says(void)
{
	const uint8_t *p;
	ssize_t n;

	for (int i = 0; i < at_tx; i++) {
		struct asked *a = &ask[i];

		if (a->waiting && !a->done) {
			a->waiting = false;
			(void)nghttp2_session_resume_data(session, a->stream);
		}
		if (by_hand && a->uneaten > 0 && !a->done && (eager || once_in(3))) {
			(void)nghttp2_session_consume_stream(session, a->stream, a->uneaten);
			a->uneaten = 0;
		}
		if (!eager && !a->done && !a->reset && once_in(300)) {
			a->reset = true;
			(void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, a->stream, NGHTTP2_CANCEL);
		}
	}
	if (by_hand && uneaten > 0 && (eager || once_in(3))) {
		(void)nghttp2_session_consume_connection(session, uneaten);
		uneaten = 0;
	}
	if (at_tx < n_asked && (pipelined || at_tx == at_rx))
		h2_asks(&ask[at_tx]);
	n = nghttp2_session_mem_send(session, &p);
	HOLDS(n >= 0);
	HOLDS(buf_put(&guest.tx, p, (size_t)n) == 0);
	return n > 0;
}

static void h2_takes(struct span s)
{
	HOLDS(nghttp2_session_mem_recv(session, s.p, s.n) == (ssize_t)s.n);
}

/* ---- the guest ---- */

static size_t guest_writes(size_t n)
{
	size_t k;

	if (!guest.ready)
		return peer_handshake(&guest);
	while (guest.tx.n < n && guest.tx.n < 400000 && (h2 ? h2_says() : h1_says()))
		;
	if (!eager && once_in(40) && SSL_version(guest.ssl) == TLS1_3_VERSION && guest.again == 0 && guest.tx.n > 0)
		(void)SSL_key_update(guest.ssl, SSL_KEY_UPDATE_REQUESTED);
	k = peer_writes(&guest, n);
	if (half_close && !guest.ended && at_tx == n_asked && guest.tx.n == 0 && (!h2 || at_rx == n_asked)) {
		guest.ended = true;
		if (once_in(2))
			(void)SSL_shutdown(guest.ssl);
		(void)shutdown(guest.fd, SHUT_WR);
		return k + 1;
	}
	return k;
}

static size_t guest_reads(size_t n)
{
	return peer_read(&guest, n, h2 ? h2_takes : h1_takes);
}

/* ---- the run ---- */

static bool over(void)
{
	const struct asked *last = &ask[n_asked - 1];
	bool ends = half_close || (!h2 && (last_closes || last->ws));

	/* Who was answered without having been heard out is not always heard out. */
	if (at_rx < n_asked || (!guest.eof && !guest.broken && (guest.tx.n > 0 || at_tx < n_asked)))
		return false;
	for (int i = 0; i < n_asked; i++)
		if (ask[i].fd >= 0)
			return false;
	return !ends || guest.eof || (last->when == WHEN_EARLY && guest.broken);
}

static void plan(void)
{
	bool ws = !h2 && once_in(8);

	n_asked = ws ? 1 : 1 + (int)dice(once_in(3) ? ASKED : 3);
	for (int i = 0; i < n_asked; i++) {
		struct asked *a = &ask[i];
		uint32_t kind = dice(10);

		*a = (struct asked){ .fd = -1, .ws = ws };
		a->up_kind = ws || kind == 0 ? HTTP_BODY_NONE : kind < 6 ? HTTP_BODY_LENGTH : HTTP_BODY_STREAM;
		a->head = !ws && kind == 0 && once_in(3);
		a->up = a->up_kind == HTTP_BODY_NONE && !ws ? 0 : i < 3 ? some_length() : dice(3000);
		a->expects = a->up > 0 && !ws && once_in(8);
		kind = dice(10);
		a->down_kind = ws || kind == 0 ? HTTP_BODY_NONE : kind < 6 ? HTTP_BODY_LENGTH : HTTP_BODY_STREAM;
		a->down = a->down_kind == HTTP_BODY_NONE && !ws ? 0 : i < 3 ? some_length() : dice(3000);
		a->trailers = a->down_kind != HTTP_BODY_NONE && once_in(4);
		/* HTTP/1.1 reads nothing behind an answer that did not wait for its body. */
		a->when = ws ? WHEN_ONCE : dice(h2 || i == n_asked - 1 ? WHENS : WHEN_EARLY);
		a->leaves = a->when == WHEN_EARLY && once_in(2);
	}
}

static void begin(void)
{
	static const int ways[] = { 0, 0, 1, 20000, 70000 };
	static const uint8_t protocols[] = "\x02h2\x08http/1.1";
	const struct net_peek peek = { .head = { NET_VERSION, NET_PEEK, sizeof(peek), 1, 1 }, .port = 443 };
	int pair[2];

	gate_enter();
	if (!client) {
		client = SSL_CTX_new(TLS_client_method());
		HOLDS(client);
		(void)SSL_CTX_set_mode(client, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	}
	h2 = once_in(2);
	pipelined = once_in(2);
	plan();
	/* The other protocol ends with its direction. */
	half_close = ask[0].ws || once_in(3);
	last_closes = once_in(3);
	way_to_vault = ways[dice(ARRAY_SIZE(ways))];
	at_tx = at_rx = 0;
	buf_init(&rx, 1 << 20);
	rx_state = RX_HEAD;
	some_pair(pair);
	guest = (struct peer){ .fd = pair[1], .ssl = SSL_new(client) };
	buf_init(&guest.tx, 1 << 20);
	HOLDS(guest.ssl && SSL_set_fd(guest.ssl, guest.fd) == 1 &&
	      SSL_set_tlsext_host_name(guest.ssl,
				       (char *)(uintptr_t)(ask[0].ws ? "chatgpt.com" : "api.anthropic.com")) == 1 &&
	      SSL_set_alpn_protos(guest.ssl, h2 ? protocols : protocols + 3, h2 ? 3 : 9) == 0);
	if (once_in(4))
		(void)SSL_set_max_proto_version(guest.ssl, TLS1_2_VERSION);
	SSL_set_connect_state(guest.ssl);
	if (h2)
		h2_begin_guest();
	conn_new(&g, &peek, pair[0]);
}

static void end(void)
{
	peer_done(&guest);
	gate_leave();
	for (int i = 0; i < n_asked; i++)
		vault_leaves(&ask[i]);
	if (h2)
		nghttp2_session_del(session);
	buf_done(&rx);
}

enum actor { GUEST_READS, GUEST_WRITES, VAULT_READS, VAULT_WRITES, ACTORS };

static size_t acts(uint32_t who, size_t n)
{
	size_t sum = 0;

	switch (who) {
	case GUEST_READS:
		return guest_reads(n);
	case GUEST_WRITES:
		return guest_writes(n);
	default:
		for (int i = 0; i < n_asked; i++)
			sum += who == VAULT_READS ? vault_reads(&ask[i], n) : vault_writes(&ask[i], n);
		return sum;
	}
}

static void run(void)
{
	begin();
	play(ACTORS);
	end();
}

int main(int argc, char **argv)
{
	return live_main(argc, argv, run);
}
