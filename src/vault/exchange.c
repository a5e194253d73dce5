/* One request of gate on its way to a service, and the answer back (credentials page 7.4, 8).
 *
 *   recheck() ---> LOGIN --the credential now--> CONNECT --open--> SENT --head of the answer--> ANSWER --end--> OVER
 *       \             \                             \                \--101--> UPGRADED, bytes both ways -----> OVER
 *        \-------------\-----------------------------\---- refused by a code of ours -------------------------> OVER
 *
 *   broken frames, a cut on either side: CUT on the other one, never an end
 *
 * What comes of the answer is written to gate in the same batch, at its end or in pieces of AT_ONCE. Memory: XCH_WINDOW of
 * frames to gate, UP_OUT_FULL and a piece towards the service; who cannot go on stops reading. An exchange is freed in
 * exchanges_tick() alone, so that whoever tells it something may still look at it. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/pathtpl.h"
#include "vault/echo.h"
#include "vault/logins.h"
#include "vault/recheck.h"
#include "vault/renewals.h"
#include "vault/upstream.h"

#define LOGIN_NS (20 * NS)   /* a file that is being written, a renewal */
#define SILENT_NS (900 * NS) /* long thinking, long polls */
#define UPGRADED_NS (3600 * NS)
#define OVER_NS (60 * NS) /* for what still comes of the body */
/* What may still come when it is full: what was asked for, what the search held back, trailers, heads of frames. */
#define OUT_ROOM (XCH_WINDOW - ECHO_HOLD_MAX - XCH_TRAILERS_MAX - 4096)
#define TOLD_NS (60 * NS)
#define AT_ONCE (64 << 10) /* bytes to gate that do not wait for the batch's end */

struct exchanges {
	struct exchange *v[EXCHANGES_MAX];
	uint32_t gen[EXCHANGES_MAX];
	size_t n;
	int64_t told; /* that gate judges otherwise */
};

static void login(struct vault *v, struct exchange *x);
static void update(struct vault *v, struct exchange *x);

int exchanges_init(struct vault *v)
{
	v->exchanges = xcalloc(1, sizeof(*v->exchanges));
	v->exchanges->told = -TOLD_NS;
	return 0;
}

bool exchange_has_room(const struct exchange *x)
{
	return x->out.n < (size_t)OUT_ROOM - (x->conn && x->conn->h2 ? UP_STREAM_WINDOW : UP_READ);
}

/* --- ends --- */

static void forget_request(struct exchange *x)
{
	free(TAKE_PTR(x->msg));
	free(TAKE_PTR(x->m));
}

/* NULL: nothing. */
static void tell_echo(struct vault *v, const struct vault_echo *m)
{
	AUTO_FREE(char, text);

	if (!m)
		return;
	text = echoes_text(&v->echoes);
	log_warn(ECHOES_LINE "%s", text);
	/* If the launcher is gone nobody is left to hear it. */
	(void)fd_send(NET_FD_CONTROL, m, sizeof(*m), NULL, 0);
}

/* Its hits are told, and its set is not held any longer. */
static void search_over(struct vault *v, struct exchange *x)
{
	size_t hits = 0;

	for (int f = 0; x->echo && f < ECHO_FORMS; f++) {
		size_t n = echo_hits(x->echo, (enum echo_form)f);

		hits += n;
		if (n > 0)
			audit_echo(&v->audit, prov_hosts[x->w.host].name, x->path, echo_form_str[f], n);
	}
	if (hits > 0)
		tell_echo(v, echoes_add(&v->echoes, x->w.host, x->path, hits));
	echo_free(TAKE_PTR(x->echo));
}

static void line(struct vault *v, struct exchange *x, bool session_ends)
{
	audit_request(&v->audit,
		      &(struct audit_request){ .host = prov_hosts[x->w.host].name,
					       .method = prov_method_str[x->w.method],
					       .path = x->path,
					       .cred = exchange_credentialed(x) ? ph_kind_str[x->w.kind[0]] : NULL,
					       .verdict = x->code ? "refuse" : "forward",
					       .code = refusal_code_str[x->code],
					       .status = x->status,
					       .up = x->up,
					       .down = x->down,
					       .ms = (uint32_t)((v->now - x->start) / MS),
					       .end = session_ends ? "error:session"
						      : x->cut	   ? "cut"
								   : NULL,
					       .probe = v->audit.probing });
	request_refused(v, x->w.host, x->code, exchange_credentialed(x));
	search_over(v, x);
}

static void release(struct vault *v, struct exchange *x)
{
	line(v, x, false);
	up_put(v, x, false);
	renewals_forget(v, x->waiter);
	ev_unwatch(&v->ev, x->fd);
	(void)close(x->fd);
	forget_request(x);
	answer_done(&x->answer);
	buf_done(&x->out);
	buf_done(&x->body);
	v->exchanges->v[x->at] = NULL;
	v->exchanges->gen[x->at]++;
	v->exchanges->n--;
	free(x);
}

/* Gate is gone, or its frames are broken: nothing goes on. */
static void drop(struct vault *v, struct exchange *x)
{
	x->cut = x->state != EX_OVER;
	x->state = EX_CUT;
	buf_consume(&x->out, x->out.n);
	up_put(v, x, false);
	v->again = true;
}

/* The answer broke off: what came of it is passed on, without an end. */
static void cut(struct vault *v, struct exchange *x)
{
	x->cut = true;
	x->state = EX_CUT;
	x->until = v->now + OVER_NS;
	v->again = true;
}

/* Many small pieces behind each other would be more heads than bytes: they lengthen the last frame, if its head is
 * still here. */
static bool lengthen(struct exchange *x, struct span bytes)
{
	const size_t head = sizeof(struct xch_head);

	if (x->tail == 0 || x->out.n < head + x->tail || x->tail + bytes.n > XCH_DATA_MAX ||
	    buf_put(&x->out, bytes.p, bytes.n) < 0)
		return false;
	x->tail += bytes.n;
	buf_set_u32(&x->out, x->out.n - x->tail - head + offsetof(struct xch_head, length), (uint32_t)x->tail);
	return true;
}

static void put(struct vault *v, struct exchange *x, enum xch_type type, struct span bytes)
{
	if (x->state == EX_CUT || (type == XCH_DATA && lengthen(x, bytes)))
		return;
	if (xch_put(&x->out, type, bytes) < 0)
		drop(v, x);
	x->tail = type == XCH_DATA && bytes.n <= XCH_DATA_MAX ? bytes.n : 0;
}

static unsigned status_of(enum refusal_code code)
{
	switch (code) {
	case REFUSAL_UPSTREAM:
	case REFUSAL_UPSTREAM_FRAMING:
	case REFUSAL_ENCODING:
		return 502;
	case REFUSAL_LIMIT:
	case REFUSAL_CREDENTIAL_UNAVAILABLE:
	case REFUSAL_REFRESH_PENDING:
		return 503;
	default:
		return 403;
	}
}

static void refuse(struct vault *v, struct exchange *x, enum refusal_code code)
{
	struct httpmsg_answer_wire w = { .status = (uint16_t)status_of(code),
					 .code = (uint8_t)code,
					 .body = HTTP_BODY_NONE };
	struct buf msg;

	up_put(v, x, false);
	x->code = code;
	x->status = w.status;
	x->state = EX_OVER;
	x->until = v->now + OVER_NS;
	buf_init(&msg, HTTPMSG_MAX);
	if (httpmsg_answer_begin(&msg, &w) < 0) {
		drop(v, x);
	} else {
		httpmsg_end(&msg, 0);
		put(v, x, XCH_ANSWER, buf_span(&msg));
		put(v, x, XCH_END, SPAN(NULL, 0));
	}
	buf_done(&msg);
	update(v, x);
}

void exchange_failed(struct vault *v, struct exchange *x, enum refusal_code code)
{
	x->conn = NULL;
	if (x->state == EX_CUT || x->state == EX_OVER)
		return;
	if (x->state >= EX_ANSWER) {
		cut(v, x);
		update(v, x);
	} else if (code == REFUSAL_UPSTREAM && x->reused && !x->retried && !x->answered && x->up == 0 && x->m) {
		/* The service closed a kept connection while this was on its way. */
		x->retried = true;
		answer_done(&x->answer);
		buf_done(&x->body);
		up_get(v, x, true);
	} else {
		refuse(v, x, code);
	}
}

/* --- towards gate --- */

/* The answer is there to its end: the guest may read it as slowly as it reads any other. */
static void over(const struct vault *v, struct exchange *x)
{
	x->until = v->now + (x->out.n > 0 ? SILENT_NS : OVER_NS);
}

/* False: it is dropped. */
static bool flush(struct vault *v, struct exchange *x)
{
	size_t had = x->out.n;

	while (x->out.n > 0) {
		struct span s = buf_span(&x->out);
		ssize_t k = send(x->fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno == EAGAIN)
			break;
		if (k < 0) {
			drop(v, x);
			return false;
		}
		buf_consume(&x->out, (size_t)k);
	}
	if (x->state == EX_OVER && x->out.n < had)
		over(v, x);
	return true;
}

static bool wants_body(const struct exchange *x)
{
	if (x->body_ended)
		return false;
	if (x->state == EX_OVER)
		return true;
	if (x->state < EX_SENT || x->state > EX_UPGRADED)
		return false;
	return !x->conn || x->conn->broken || (x->conn->h2 ? x->body.n < UP_BODY_FULL : x->conn->out.n < UP_OUT_FULL);
}

static void update(struct vault *v, struct exchange *x)
{
	uint32_t want;

	if (!flush(v, x))
		return;
	want = (wants_body(x) ? EPOLLIN : 0u) | (x->out.n > 0 ? EPOLLOUT : 0u);
	if (want != x->watched) {
		x->watched = want;
		(void)ev_watch(&v->ev, x->fd, want, EV_XCH, x->at, x->gen);
	}
	if (x->out.n == 0 && (x->state == EX_CUT || (x->state == EX_OVER && x->body_ended)))
		v->again = true;
}

/* Something was: a system call for each record or line of a service would cost more than the bytes. */
static void written(struct vault *v, struct exchange *x)
{
	if (x->out.n >= AT_ONCE)
		update(v, x);
	else
		v->again = true; /* exchanges_tick(), should it be over in this batch */
}

/* --- the way to a connection --- */

static void wait_login(struct vault *v, struct exchange *x, int64_t until)
{
	x->state = EX_LOGIN;
	x->until = until;
	v->again = true;
}

/* The state of each credential now: what connection fits, whether it has to be renewed first. */
static void login(struct vault *v, struct exchange *x)
{
	struct cred c;
	int64_t at = 0;
	int r;

	x->looked = v->now;
	for (int i = 0; i < HTTPMSG_CREDS && x->w.kind[i] != HTTPMSG_NO_CRED; i++) {
		r = logins_get(v, (enum ph_kind)x->w.kind[i], true, &c, &at);
		if (r == -EAGAIN && v->now - x->start < LOGIN_NS) {
			wait_login(v, x, at);
			return;
		}
		if (r < 0) {
			refuse(v, x, REFUSAL_CREDENTIAL_UNAVAILABLE);
			return;
		}
		x->key.generation[i] = c.generation;
		if (c.prov == PROVS || x->renewed)
			continue;
		r = renewals_want(v, c.prov, x);
		if (r > 0) {
			x->renewed = true;
			wait_login(v, x, v->now + LOGIN_NS);
			return;
		}
		if (r < 0) {
			refuse(v, x, REFUSAL_LIMIT);
			return;
		}
	}
	up_get(v, x, false);
}

void exchange_renewed(struct vault *v, uint16_t at, uint32_t gen, bool pending)
{
	struct exchange *x = at < EXCHANGES_MAX ? v->exchanges->v[at] : NULL;

	if (!x || x->gen != gen)
		return;
	x->waiter = 0; /* its place is free for others, whatever became of it */
	if (x->state != EX_LOGIN)
		return;
	if (pending)
		refuse(v, x, REFUSAL_REFRESH_PENDING);
	else
		wait_login(v, x, v->now);
}

/* Room for the search of this answer, with what is secret now. */
static bool prepare_echo(struct vault *v, struct exchange *x)
{
	struct echo_set *set;

	if (!exchange_credentialed(x))
		return true;
	set = logins_needles(v, (enum ph_kind)x->w.kind[0]);
	echo_free(x->echo);
	x->echo = set ? echo_new(set) : NULL;
	echo_set_put(set);
	x->scan_body = recheck_scans_body(x->m);
	return x->echo;
}

void exchange_open(struct vault *v, struct exchange *x)
{
	struct span secret[HTTPMSG_CREDS] = { { 0 } }, account = { 0 };
	struct cred c;
	int64_t at = 0;
	int r;

	/* It may be long since the connection was asked for, unless one was there. */
	for (int i = 0; i < HTTPMSG_CREDS && x->w.kind[i] != HTTPMSG_NO_CRED; i++) {
		r = logins_get(v, (enum ph_kind)x->w.kind[i], x->looked != v->now, &c, &at);
		if (r < 0 || c.generation != x->key.generation[i]) {
			up_put(v, x, true);
			wait_login(v, x, v->now);
			return;
		}
		secret[i] = c.secret;
		if (c.account.n > 0)
			account = c.account;
	}
	if (!prepare_echo(v, x)) {
		refuse(v, x, REFUSAL_CREDENTIAL_UNAVAILABLE);
		return;
	}
	r = (x->conn->h2 ? h2_head : h1_head)(x->conn, x, secret, account);
	if (r == -EPIPE) {
		up_put(v, x, false);
		exchange_failed(v, x, REFUSAL_UPSTREAM);
		return;
	}
	if (r < 0) {
		refuse(v, x, REFUSAL_CREDENTIAL_UNAVAILABLE);
		return;
	}
	x->state = EX_SENT;
	x->until = v->now + SILENT_NS;
	if (x->body_ended) /* a second try */
		(x->conn->h2 ? h2_body_end : h1_body_end)(x->conn, x);
	conn_update(v, x->conn);
	update(v, x);
}

static bool is_stream(int fd)
{
	int domain = 0, type = 0;
	socklen_t n = sizeof(int), k = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &k) == 0 && domain == AF_UNIX && type == SOCK_STREAM;
}

/* The message is kept until the answer begins, for another try. */
static bool read_request(struct exchange *x, const void *msg, size_t n)
{
	x->msg = malloc(n);
	x->m = malloc(sizeof(*x->m));
	if (!x->msg || !x->m)
		return false;
	memcpy(x->msg, msg, n);
	return true;
}

static void judged_otherwise(struct vault *v, struct exchange *x, enum refusal_code code)
{
	if (v->now - v->exchanges->told >= TOLD_NS)
		log_error("gate let a request pass that is refused here (%s): nothing went out",
			  refusal_code_str[code]);
	v->exchanges->told = v->now;
	refuse(v, x, code);
}

void exchange_begin(struct vault *v, const void *msg, size_t n, int fd)
{
	struct exchanges *e = v->exchanges;
	struct exchange *x = calloc(1, sizeof(*x));
	enum refusal_code code;
	uint16_t at = 0;

	bool well = x && read_request(x, msg, n);

	if (!is_stream(fd) || (well && (httpmsg_request_parse(SPAN(x->msg, n), x->m) < 0 || x->m->w.host >= HOSTS ||
					x->m->w.method >= METHODS))) {
		vault_end(v, "gate broke the rules of the protocol");
		well = false;
	}
	while (at < EXCHANGES_MAX && e->v[at])
		at++;
	/* gate counts them as well; that the pair is closed says that this one is not taken. */
	if (!well || at == EXCHANGES_MAX) {
		if (x)
			forget_request(x);
		free(x);
		(void)close(fd);
		return;
	}
	x->at = at;
	x->gen = e->gen[at];
	x->fd = fd;
	x->w = x->m->w;
	x->start = v->now;
	x->reader.side = XCH_TO_VAULT;
	x->key = (struct conn_key){ .host = (enum prov_host_id)x->w.host,
				    .h2 = x->w.flags & HTTPMSG_H2 && !(x->w.flags & HTTPMSG_UPGRADE),
				    .foreign = x->w.flags & HTTPMSG_FOREIGN };
	memcpy(x->key.kind, x->w.kind, sizeof(x->key.kind));
	buf_init(&x->out, XCH_WINDOW);
	pathtpl_write(x->m->path, x->path);
	e->v[at] = x;
	e->n++;
	x->state = EX_LOGIN;
	if (ev_watch(&v->ev, fd, 0, EV_XCH, at, x->gen) < 0) {
		drop(v, x);
		return;
	}
	code = recheck(&v->cfg.launch, x->m);
	if (code != REFUSAL_NONE)
		judged_otherwise(v, x, code);
	else
		login(v, x);
}

/* --- the body --- */

static bool broken(struct vault *v, struct exchange *x)
{
	if (v->now - v->exchanges->told >= TOLD_NS)
		log_error("gate broke the rules of an exchange; it was cut");
	v->exchanges->told = v->now;
	drop(v, x);
	return false;
}

static bool body(struct vault *v, struct exchange *x, struct span bytes)
{
	if (x->state == EX_OVER)
		return true;
	x->up += bytes.n;
	if (x->state != EX_UPGRADED &&
	    (x->w.body == HTTP_BODY_NONE || (x->w.body == HTTP_BODY_LENGTH && x->up > x->w.body_len)))
		return broken(v, x);
	if (x->conn)
		(x->conn->h2 ? h2_body : h1_body)(x->conn, x, bytes);
	x->until = v->now + (x->state == EX_UPGRADED ? UPGRADED_NS : SILENT_NS);
	return true;
}

static bool body_end(struct vault *v, struct exchange *x)
{
	x->body_ended = true;
	if (x->state == EX_OVER)
		return true;
	if (x->state != EX_UPGRADED && x->w.body == HTTP_BODY_LENGTH && x->up != x->w.body_len)
		return broken(v, x);
	if (x->conn)
		(x->conn->h2 ? h2_body_end : h1_body_end)(x->conn, x);
	return true;
}

/* Frames of gate, as many as upstream takes. */
static void read_gate(struct vault *v, struct exchange *x)
{
	static uint8_t bytes[sizeof(struct xch_head) + XCH_DATA_MAX];

	while (wants_body(x)) {
		struct span in, got;
		ssize_t k = recv(x->fd, bytes + x->n_rest, sizeof(bytes) - sizeof(struct xch_head), MSG_DONTWAIT);
		bool go_on = true;

		if (k < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (k <= 0) {
			drop(v, x);
			return;
		}
		memcpy(bytes, x->rest, x->n_rest);
		in = SPAN(bytes, x->n_rest + (size_t)k);
		while (go_on) {
			switch (xch_take(&x->reader, &in, &got)) {
			case XCH_GOT_MORE:
				go_on = false;
				break;
			case XCH_GOT_DATA:
				if (!body(v, x, got))
					return;
				break;
			case XCH_GOT_END:
				if (!body_end(v, x))
					return;
				break;
			default:
				(void)broken(v, x);
				return;
			}
		}
		x->n_rest = MIN(in.n, sizeof(x->rest));
		memcpy(x->rest, in.p, x->n_rest);
		if (x->conn)
			conn_update(v, x->conn);
	}
	update(v, x);
}

void exchanges_writable(struct vault *v, const struct conn *c)
{
	for (size_t i = 0; v->exchanges->n > 0 && i < EXCHANGES_MAX; i++)
		if (v->exchanges->v[i] && v->exchanges->v[i]->conn == c)
			update(v, v->exchanges->v[i]);
}

void exchanges_lost(struct vault *v, const struct conn *c, enum refusal_code code)
{
	for (size_t i = 0; v->exchanges->n > 0 && i < EXCHANGES_MAX; i++)
		if (v->exchanges->v[i] && v->exchanges->v[i]->conn == c) {
			v->exchanges->v[i]->stream = 0;
			exchange_failed(v, v->exchanges->v[i], code);
		}
}

/* Gate took something: there may be room for more of the answer. */
static void go_on(struct vault *v, struct exchange *x)
{
	if (!x->conn || !exchange_has_room(x))
		return;
	if (x->conn->h2 && x->unread > 0) {
		h2_read(x->conn, x);
		conn_update(v, x->conn);
	} else if (!x->conn->h2) {
		conn_resume(v, x->conn);
	}
}

void exchange_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events)
{
	struct exchange *x = slot < EXCHANGES_MAX ? v->exchanges->v[slot] : NULL;

	if (!x || x->gen != gen)
		return;
	if (events & EPOLLIN)
		read_gate(v, x);
	else if (events & (EPOLLHUP | EPOLLERR))
		drop(v, x);
	if (events & EPOLLOUT && x->state != EX_CUT)
		update(v, x);
	else if (events & EPOLLOUT)
		(void)flush(v, x);
	go_on(v, x);
}

/* --- the answer --- */

static bool put_field(struct exchange *x, struct buf *msg, const struct http_field *f)
{
	if (x->echo) {
		/* They lie in the answer's own memory. */
		echo_whole(x->echo, (uint8_t *)(uintptr_t)f->name.p, f->name.n);
		echo_whole(x->echo, (uint8_t *)(uintptr_t)f->value.p, f->value.n);
	}
	return httpmsg_field(msg, f->name, f->value) == 0;
}

/* Those that go to the guest. How many; -1: they do not fit. */
static int put_fields(struct exchange *x, struct buf *msg)
{
	struct answer *a = &x->answer;
	size_t lines = 0;
	int n = 0;

	for (size_t i = 0; i < a->n_fields; i++) {
		if (!answer_keeps(x->key.host, a, &a->f[i]))
			continue;
		lines += a->f[i].name.n + a->f[i].value.n + HTTPMSG_LINE_ANSWER;
		if (lines > HTTP_HEAD_MAX || !put_field(x, msg, &a->f[i]))
			return -1;
		n++;
	}
	return n;
}

int exchange_head(struct vault *v, struct exchange *x)
{
	struct answer *a = &x->answer;
	struct httpmsg_answer_wire w = { .status = (uint16_t)a->status,
					 .body = (uint8_t)a->framing,
					 .body_len = a->framing == HTTP_BODY_LENGTH ? a->length : 0 };
	struct buf msg;
	int n;

	if (x->scan_body && answer_is_coded(a)) {
		refuse(v, x, REFUSAL_ENCODING);
		return -1;
	}
	if (a->status == 401)
		for (int i = 0; i < HTTPMSG_CREDS && x->w.kind[i] != HTTPMSG_NO_CRED; i++)
			renewals_rejected(v, (enum ph_kind)x->w.kind[i], x->key.generation[i]);
	buf_init(&msg, HTTPMSG_MAX);
	n = httpmsg_answer_begin(&msg, &w) < 0 ? -1 : put_fields(x, &msg);
	if (n >= 0) {
		httpmsg_end(&msg, (uint16_t)n);
		forget_request(x);
		x->status = (uint16_t)a->status;
		x->state = a->status == 101 ? EX_UPGRADED : EX_ANSWER;
		x->until = v->now + (a->status == 101 ? UPGRADED_NS : SILENT_NS);
		put(v, x, XCH_ANSWER, buf_span(&msg));
		if (a->status == 101)
			search_over(v, x);
	}
	buf_done(&msg);
	if (n < 0) {
		refuse(v, x, REFUSAL_UPSTREAM_FRAMING);
		return -1;
	}
	written(v, x);
	return x->state == EX_CUT ? -1 : 0;
}

void exchange_data(struct vault *v, struct exchange *x, struct span bytes)
{
	static uint8_t out[ECHO_HOLD_MAX + ECHO_WINDOW];
	bool search = x->echo && x->scan_body;
	struct span piece;

	x->down += bytes.n;
	x->until = v->now + (x->state == EX_UPGRADED ? UPGRADED_NS : SILENT_NS);
	while (bytes.n > 0 && x->state != EX_CUT) {
		(void)span_take(&bytes, MIN(bytes.n, (size_t)ECHO_WINDOW), &piece);
		put(v, x, XCH_DATA, search ? SPAN(out, echo_feed(x->echo, piece, out)) : piece);
	}
	written(v, x);
}

/* What the search held back. */
static void put_held(struct vault *v, struct exchange *x)
{
	static uint8_t out[ECHO_HOLD_MAX];

	if (x->echo && x->scan_body && x->state == EX_ANSWER)
		put(v, x, XCH_DATA, SPAN(out, echo_end(x->echo, out)));
}

void exchange_trailers(struct vault *v, struct exchange *x)
{
	struct buf fields;
	int n;

	put_held(v, x);
	buf_init(&fields, XCH_TRAILERS_MAX);
	n = put_fields(x, &fields);
	if (n > 0)
		put(v, x, XCH_TRAILERS, buf_span(&fields));
	buf_done(&fields);
	if (n < 0) {
		up_put(v, x, false);
		cut(v, x);
	}
	update(v, x);
}

void exchange_end(struct vault *v, struct exchange *x)
{
	if (x->state != EX_ANSWER && x->state != EX_UPGRADED)
		return;
	put_held(v, x);
	put(v, x, XCH_END, SPAN(NULL, 0));
	if (x->state != EX_CUT) {
		x->state = EX_OVER;
		over(v, x);
	}
	update(v, x);
}

/* --- what is due --- */

static void late(struct vault *v, struct exchange *x)
{
	switch (x->state) {
	case EX_LOGIN:
		login(v, x);
		break;
	case EX_SENT:
	case EX_ANSWER:
	case EX_UPGRADED:
		up_trouble(v, x->key.host, "nothing came for too long");
		x->retried = true;
		up_put(v, x, false);
		exchange_failed(v, x, REFUSAL_UPSTREAM);
		break;
	default:
		break;
	}
}

int64_t exchanges_tick(struct vault *v)
{
	struct exchanges *e = v->exchanges;
	int64_t next = -1;

	for (size_t i = 0; e->n > 0 && i < EXCHANGES_MAX; i++) {
		struct exchange *x = e->v[i];

		if (!x)
			continue;
		if (x->out.n > 0 && !(x->watched & EPOLLOUT))
			update(v, x);
		/* What was written last may have been taken at once: then no event tells of the room. */
		go_on(v, x);
		if (x->until <= v->now && x->state != EX_CONNECT)
			late(v, x);
		if ((x->state == EX_CUT || x->state == EX_OVER) &&
		    (x->until <= v->now || (x->out.n == 0 && (x->state == EX_CUT || x->body_ended)))) {
			release(v, x);
			continue;
		}
		if (x->state != EX_CONNECT) /* the connection has the clock */
			next = sooner(next, x->until);
	}
	return next;
}

void exchanges_end(struct vault *v)
{
	for (size_t i = 0; i < EXCHANGES_MAX; i++)
		if (v->exchanges->v[i])
			line(v, v->exchanges->v[i], true);
	for (const struct vault_echo *m; (m = echoes_rest(&v->echoes));)
		tell_echo(v, m);
}
