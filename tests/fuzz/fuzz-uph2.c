/* A hostile service that speaks HTTP/2 with vault: exchanges, connections and streams as they are, with the real
 * nghttp2 beneath, over socket pairs; instead of TLS the bytes go as they are. gate is played, and cuts. An input is a
 * row of steps (enum step); the logins are two keys of the environment.
 *
 * What must hold: a secret is in its field alone, of its own host, and never indexed; it never goes back to gate;
 * bodies are framed as gate's message said; no two streams mix, in either direction; an answer that was cut never ends
 * cleanly; vault does not spin; and when gate is gone and time has passed nothing is left. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "h2peer.h"
#include "vault/logins.h"
#include "vault/renewals.h"
#include "vault/secret.h"
#include "vault/upstream.h"

#define EXCHANGES 32
#define SERVICES 8 /* connections that the service takes in a run */
#define TURNS_MAX 2000
#define LETTER 0x80 /* and a number: each byte of a body, in both directions */

enum step {
	STEP_RAW,    /* service, length, bytes */
	STEP_FRAME,  /* service, type, flags, stream, length, payload */
	STEP_ANSWER, /* service, stream, flags, status, n fields */
	STEP_DATA,   /* service, stream, flags, length / 64 */
	STEP_SECRET, /* service, stream, flags, how much of it */
	STEP_TURN,
	STEP_TIME,    /* 2^n ms */
	STEP_READ,    /* service, n * 64 bytes; 255: all */
	STEP_REQUEST, /* template, body, n fields */
	STEP_GATE,    /* exchange, enum act */
	STEP_END,     /* service, how */
	STEP_KINDS,
};

enum act { ACT_DATA, ACT_FINISH, ACT_READ, ACT_CLOSE, ACT_SHUT, ACTS };

static const struct {
	enum prov_host_id host;
	enum prov_method method;
	const char *path;
	int kind; /* -1: without a login */
	enum prov_slot slot;
} templates[] = {
	{ HOST_ANTHROPIC, METHOD_POST, "/v1/messages", PH_ANTHROPIC_KEY, SLOT_KEY },
	{ HOST_ANTHROPIC, METHOD_GET, "/v1/models", PH_ANTHROPIC_KEY, SLOT_KEY },
	{ HOST_ANTHROPIC, METHOD_HEAD, "/v1/models", PH_ANTHROPIC_KEY, SLOT_KEY },
	{ HOST_OPENAI, METHOD_POST, "/v1/responses", PH_OPENAI_KEY, SLOT_BEARER },
	{ HOST_OPENAI, METHOD_GET, "/v1/models", PH_OPENAI_KEY, SLOT_BEARER },
	{ HOST_ANTHROPIC, METHOD_GET, "/elsewhere", -1, SLOTS },
	{ HOST_OPENAI, METHOD_POST, "/elsewhere", -1, SLOTS },
};

static const struct {
	int kind;
	enum prov_host_id host;
	const char *field, *before, *text;
} secrets[] = {
	{ PH_ANTHROPIC_KEY, HOST_ANTHROPIC, "x-api-key", "", "CANARY-anthropic-0123456789abcdef" },
	{ PH_OPENAI_KEY, HOST_OPENAI, "authorization", "Bearer ", "CANARY-openai-fedcba9876543210" },
};

static const char *const names[] = { "content-length", "content-type", "content-encoding", "x-a", "Set-Cookie",
				     "connection",     ":status",      "trailer",	   "",	  "transfer-encoding" };
static const char *const statuses[] = {
	"200", "204", "304", "100", "103", "401", "500", "101", "99", "2000", "abc", ""
};

struct exchange_seen {
	int fd; /* gate's end */
	size_t t;
	uint8_t body;
	uint64_t length, said, sent; /* of the request: declared, gate said, the service got */
	bool ended, cut;
	int service; /* where it went last */
	uint32_t stream;
	/* The answer. */
	struct xch_reader reader;
	struct buf in;
	uint8_t tail[64]; /* of the last bytes of DATA */
	size_t n_tail;
	bool own; /* vault's own */
	bool whole;
	int fill; /* of its bytes; 0: none yet, -1: two */
	uint8_t framing;
	uint64_t expected, got;
};

struct service {
	int fd; /* -1: closed */
	enum prov_host_id host;
	struct h2_reader in;
	struct buf out;
	bool wild; /* bytes went out whose frames we do not know */
	struct {
		int k; /* whose request it is; -1: nobody's */
		bool ended, over;
	} st[H2_STREAMS];
	uint32_t reading; /* the stream whose fields are read */
};

static struct vault v;
static struct exchange_seen ex[EXCHANGES];
static int n_ex;
static struct service sv[SERVICES];
static int n_sv;
static size_t room; /* what one piece of the arena may have when nothing is under way */

/* ---- the seams: TLS, dialling, names ---- */

int tls_begin(struct vault *w, struct conn *c, const char **ret_why)
{
	buf_init(&c->out, UP_OUT_MAX);
	return 0;
}

int tls_handshake(struct conn *c, bool *ret_h2, const char **ret_why)
{
	*ret_h2 = c->key.h2;
	return 1;
}

ssize_t tls_read(struct conn *c, void *p, size_t n)
{
	ssize_t k = recv(c->fd, p, n, MSG_DONTWAIT);

	return k >= 0 ? k : errno == EAGAIN ? -EAGAIN : -EIO;
}

bool tls_holds(const struct conn *c)
{
	return false;
}

bool tls_is_drained(struct conn *c)
{
	return true;
}

int tls_write(struct conn *c, struct span s)
{
	return c->broken || buf_put(&c->out, s.p, s.n) < 0 ? -EPIPE : 0;
}

void tls_notify_end(struct conn *c)
{
}

void tls_free(struct conn *c)
{
	buf_done(&c->out);
}

int opens_up(struct vault *w, uint16_t slot, uint32_t gen, const struct up_dial *d)
{
	struct service *s = &sv[n_sv];
	int pair[2];

	if (n_sv == SERVICES)
		return -ECONNREFUSED;
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	n_sv++;
	*s = (struct service){ .fd = pair[1], .host = prov_host_find(span_str(d->name)) };
	h2_reader_init(&s->in, true);
	buf_init(&s->out, 1 << 20);
	for (size_t i = 0; i < H2_STREAMS; i++)
		s->st[i].k = -1;
	up_dialled(w, slot, gen, pair[0], 0);
	return 0;
}

void opens_up_cancel(struct vault *w, uint16_t slot, uint32_t gen)
{
}

void opens_dial(struct vault *w, const struct net_dial *m)
{
	MUST(!"nobody dials");
}

void opens_inspected(struct vault *w, const struct net_head *h)
{
	MUST(!"nobody inspects");
}

int dns_resolve(struct vault *w, const char *name, uint16_t type, uint16_t slot, uint32_t gen)
{
	MUST(!"nobody asks for a name");
	return -EAGAIN;
}

void vault_end(struct vault *w, const char *why)
{
	MUST(!"the session goes on");
}

/* ---- what vault's loop does ---- */

static void turns(void)
{
	struct ev_event batch[EV_BATCH];
	int n, i = 0;

	do {
		for (int k = 0; k < n_sv; k++) {
			struct service *s = &sv[k];
			ssize_t m = s->fd >= 0 && s->out.n > 0
					    ? send(s->fd, buf_span(&s->out).p, s->out.n, MSG_DONTWAIT | MSG_NOSIGNAL)
					    : 0;

			if (m > 0)
				buf_consume(&s->out, (size_t)m);
		}
		n = ev_wait(&v.ev, batch, 0);
		MUST(n >= 0);
		for (int k = 0; k < n; k++) {
			if (batch[k].kind == EV_XCH)
				exchange_event(&v, batch[k].slot, batch[k].gen, batch[k].events);
			else if (batch[k].kind == EV_UP)
				up_event(&v, batch[k].slot, batch[k].gen, batch[k].events);
			else
				logins_event(&v, batch[k].slot);
		}
		v.again = false;
		(void)exchanges_tick(&v);
		(void)up_tick(&v);
		(void)audit_flush(&v.audit, v.now, true);
		MUST(i++ < TURNS_MAX);
	} while (n > 0 || v.again);
}

/* ---- the service ---- */

static struct exchange_seen *exchange_at(struct service *s)
{
	uint32_t id = s->in.stream;

	return id < H2_STREAMS && s->st[id].k >= 0 ? &ex[s->st[id].k] : NULL;
}

static void one_field(void *arg, const nghttp2_nv *nv)
{
	struct service *s = arg;
	struct span name = SPAN(nv->name, nv->namelen), value = SPAN(nv->value, nv->valuelen);
	const char *query;
	unsigned k = 0;

	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
		struct span before = span_str(secrets[i].before), text = span_str(secrets[i].text);

		MUST(!memmem(name.p, name.n, text.p, text.n));
		if (!memmem(value.p, value.n, text.p, text.n))
			continue;
		MUST(span_is(name, secrets[i].field) && s->host == secrets[i].host);
		MUST(value.n == before.n + text.n && memcmp(value.p, before.p, before.n) == 0);
		MUST(nv->flags & NGHTTP2_NV_FLAG_NO_INDEX);
	}
	for (size_t i = 0; i < name.n; i++)
		MUST(name.p[i] < 'A' || name.p[i] > 'Z');
	if (!span_is(name, ":path"))
		return;
	query = memmem(value.p, value.n, "?k=", 3);
	MUST(query && s->reading < H2_STREAMS);
	for (query += 3; query < (const char *)value.p + value.n; query++)
		k = k * 10 + (unsigned)(*query - '0');
	MUST(k < (unsigned)n_ex && s->st[s->reading].k < 0 && templates[ex[k].t].host == s->host);
	s->st[s->reading].k = (int)k;
	ex[k].service = (int)(s - sv);
	ex[k].stream = s->reading;
	ex[k].sent = 0;
}

static void got_frame(struct service *s, struct span p)
{
	struct exchange_seen *x;

	if (s->in.type == H2_HEADERS || s->in.type == H2_CONT) {
		s->reading = s->in.stream;
		h2_fields(&s->in, p, one_field, s);
	}
	x = exchange_at(s);
	if (!x)
		return;
	if (s->in.type == H2_DATA) {
		x->sent += p.n;
		MUST(x->sent <= x->said);
		for (size_t i = 0; i < p.n; i++)
			MUST(p.p[i] == LETTER + (int)(x - ex));
	}
	if ((s->in.type == H2_DATA || s->in.type == H2_HEADERS) && s->in.flags & H2_END_STREAM) {
		MUST(x->body == HTTP_BODY_NONE || x->ended || (x->body == HTTP_BODY_LENGTH && x->sent == x->length));
		MUST(x->body != HTTP_BODY_LENGTH || x->sent == x->length);
		MUST(x->body != HTTP_BODY_NONE || x->sent == 0);
	}
}

static void service_reads(struct service *s, size_t n)
{
	uint8_t *to = s->fd < 0 ? NULL : buf_room(&s->in.in, n);
	ssize_t k = to ? recv(s->fd, to, n, MSG_DONTWAIT) : 0;
	struct span p;

	if (k > 0)
		buf_grew(&s->in.in, (size_t)k);
	while (h2_next(&s->in, &p))
		got_frame(s, p);
}

static int fill_of(int service, uint32_t stream)
{
	return LETTER | (service * 16 + (int)(stream / 2 % 16));
}

static void ends(struct service *s, uint32_t stream, uint8_t type, uint8_t flags)
{
	if ((type == H2_DATA || type == H2_HEADERS) && flags & H2_END_STREAM)
		s->st[stream].ended = true;
}

static void answer(struct service *s, struct span *in)
{
	uint32_t stream = fuzz_u8(in);
	uint8_t flags = fuzz_u8(in);
	const char *status = statuses[fuzz_u8(in) % ARRAY_SIZE(statuses)];
	struct buf block, value;

	buf_init(&block, 64 << 10);
	buf_init(&value, 1024);
	if (!(flags & 2))
		hpack_field(&block, span_str(":status"), span_str(status), flags & 4);
	for (unsigned k = fuzz_u8(in) % 8; k > 0; k--) {
		struct span name = span_str(names[fuzz_u8(in) % ARRAY_SIZE(names)]), raw = fuzz_bytes(in, fuzz_u8(in));

		buf_consume(&value, value.n);
		for (size_t i = 0; i < raw.n; i++)
			if (raw.p[i] == 1 || raw.p[i] == 2)
				(void)buf_put(&value, secrets[raw.p[i] - 1].text, strlen(secrets[raw.p[i] - 1].text));
			else
				(void)buf_put_u8(&value, raw.p[i]);
		hpack_field(&block, name, buf_span(&value), flags & 4);
	}
	ends(s, stream, H2_HEADERS, flags);
	h2_put_headers(&s->out, stream, flags & 1, buf_span(&block), flags & 8 ? flags >> 4 : SIZE_MAX);
	buf_done(&block);
	buf_done(&value);
}

static void data(struct service *s, struct span *in, bool secret)
{
	static uint8_t bytes[64 * 256];
	uint32_t stream = fuzz_u8(in);
	uint8_t flags = fuzz_u8(in);
	size_t n = fuzz_u8(in);
	struct span p = SPAN(bytes, n * 64), text = span_str(secrets[s->host == HOST_OPENAI].text);

	memset(bytes, fill_of((int)(s - sv), stream), p.n);
	if (secret) /* its front, or its rest: so that it comes in two */
		p = n < 64 ? SPAN(text.p, MIN(n, text.n))
			   : SPAN(text.p + MIN(n - 64, text.n), text.n - MIN(n - 64, text.n));
	ends(s, stream, H2_DATA, flags);
	h2_put(&s->out, H2_DATA, flags & H2_END_STREAM, stream, p);
}

static void frame(struct service *s, struct span *in)
{
	uint8_t type = fuzz_u8(in), flags = fuzz_u8(in);
	uint32_t stream = fuzz_u8(in);
	struct span p = fuzz_bytes(in, fuzz_u8(in));
	uint8_t ascii[UINT8_MAX];

	for (size_t i = 0; i < p.n; i++) /* no byte of a body, but for what tells the stream by it */
		ascii[i] = p.p[i] & (LETTER - 1);
	ends(s, stream, type, flags);
	h2_put(&s->out, type, flags, stream, type == H2_DATA ? SPAN(ascii, p.n) : p);
}

/* ---- gate ---- */

static void request(struct span *in)
{
	size_t t = fuzz_u8(in) % ARRAY_SIZE(templates);
	uint8_t body = fuzz_u8(in);
	struct httpmsg_request_wire w = { .host = (uint8_t)templates[t].host,
					  .method = (uint8_t)templates[t].method,
					  .flags = HTTPMSG_H2 | HTTPMSG_HAS_QUERY,
					  .body = body % HTTP_BODIES,
					  .kind = { HTTPMSG_NO_CRED, HTTPMSG_NO_CRED },
					  .slot = { HTTPMSG_NO_CRED, HTTPMSG_NO_CRED } };
	struct exchange_seen *x = &ex[n_ex];
	uint16_t n = 1;
	char query[16];
	struct buf m;
	int pair[2];

	if (n_ex == EXCHANGES)
		return;
	if (templates[t].kind >= 0) {
		w.kind[0] = (uint8_t)templates[t].kind;
		w.slot[0] = (uint8_t)templates[t].slot;
	}
	if (w.body == HTTP_BODY_LENGTH)
		w.body_len = (uint64_t)(body / HTTP_BODIES) * 64;
	(void)snprintf(query, sizeof(query), "k=%d", n_ex);
	buf_init(&m, HTTPMSG_MAX);
	MUST(httpmsg_request_begin(&m, &w, span_str(templates[t].path), span_str(query)) == 0);
	MUST(httpmsg_field(&m, span_str("Accept-Encoding"), span_str("identity")) == 0);
	for (unsigned k = fuzz_u8(in) % 8; k > 0; k--) {
		struct span value = http_trim(fuzz_bytes(in, fuzz_u8(in)));

		if (http_is_value(value) && !memmem(value.p, value.n, "CANARY", 6) &&
		    httpmsg_field(&m, span_str("X-Any"), value) == 0)
			n++;
	}
	httpmsg_end(&m, n);
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	n_ex++;
	*x = (struct exchange_seen){ .fd = pair[0],
				     .t = t,
				     .body = w.body,
				     .length = w.body_len,
				     .service = -1,
				     .reader = { .side = XCH_TO_GATE } };
	buf_init(&x->in, 1 << 20);
	exchange_begin(&v, buf_span(&m).p, m.n, pair[1]);
	buf_done(&m);
}

static void no_secret(struct exchange_seen *x, struct span p, bool data)
{
	static uint8_t all[sizeof(x->tail) + XCH_DATA_MAX + HTTPMSG_MAX];
	size_t n = data ? x->n_tail : 0;

	if (templates[x->t].kind < 0)
		return;
	memcpy(all, x->tail, n);
	memcpy(all + n, p.p, p.n);
	n += p.n;
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		if (secrets[i].kind == templates[x->t].kind)
			MUST(!memmem(all, n, secrets[i].text, strlen(secrets[i].text)));
	x->n_tail = MIN(n, sizeof(x->tail));
	memcpy(x->tail, all + n - x->n_tail, x->n_tail);
}

static void got_answer(struct exchange_seen *x, struct span p)
{
	static struct httpmsg_answer m;

	MUST(httpmsg_answer_parse(p, &m) == 0);
	MUST(m.w.status != 101);
	x->own = m.w.code != 0;
	x->framing = m.w.body;
	x->expected = m.w.body_len;
}

/* Frames of vault, as gate reads them. */
static void read_exchange(struct exchange_seen *x)
{
	uint8_t *to = x->fd < 0 ? NULL : buf_room(&x->in, 256 << 10);
	ssize_t k = to ? recv(x->fd, to, 256 << 10, MSG_DONTWAIT) : 0;
	struct span in, got;
	enum xch_got what;

	if (k <= 0)
		return;
	buf_grew(&x->in, (size_t)k);
	in = buf_span(&x->in);
	while ((what = xch_take(&x->reader, &in, &got)) != XCH_GOT_MORE && what != XCH_GOT_END) {
		MUST(what != XCH_GOT_BAD);
		no_secret(x, got, what == XCH_GOT_DATA);
		if (what == XCH_GOT_ANSWER)
			got_answer(x, got);
		if (what != XCH_GOT_DATA)
			continue;
		x->got += got.n;
		MUST(!x->own && x->framing != HTTP_BODY_NONE);
		MUST(x->framing != HTTP_BODY_LENGTH || x->got <= x->expected);
		/* What is ASCII is of a secret, or stands in its place. */
		for (size_t i = 0; i < got.n; i++)
			if (got.p[i] >= LETTER && x->fill != got.p[i])
				x->fill = x->fill == 0 ? got.p[i] : -1;
	}
	x->whole |= what == XCH_GOT_END;
	buf_consume(&x->in, x->in.n - in.n);
}

/* What came of an answer is what the service said on that stream, when it is known which one that was. */
static void compare(const struct exchange_seen *x)
{
	const struct service *s = x->service >= 0 ? &sv[x->service] : NULL;

	if (x->own)
		return;
	MUST(s || (!x->whole && x->got == 0));
	if (!s || s->wild)
		return;
	MUST(x->fill == 0 || x->fill == fill_of(x->service, x->stream));
	MUST(!x->whole || s->st[x->stream].ended);
	MUST(!x->whole || x->framing != HTTP_BODY_LENGTH || x->got == x->expected);
}

static void act(struct span *in)
{
	static uint8_t bytes[64 * 256];
	unsigned which = fuzz_u8(in);
	enum act what = fuzz_u8(in) % ACTS;
	struct exchange_seen *x = n_ex > 0 ? &ex[which % (unsigned)n_ex] : NULL;
	struct buf b;
	size_t n;

	if (!x || x->fd < 0)
		return;
	buf_init(&b, 1 << 20);
	switch (what) {
	case ACT_DATA:
		n = (size_t)fuzz_u8(in) * 64;
		if (x->cut || x->ended || x->body == HTTP_BODY_NONE)
			break;
		if (x->body == HTTP_BODY_LENGTH)
			n = MIN(n, x->length - x->said);
		memset(bytes, LETTER + (int)(x - ex), n);
		(void)xch_put(&b, XCH_DATA, SPAN(bytes, n));
		x->said += n;
		break;
	case ACT_FINISH:
		if (x->cut || x->ended || (x->body == HTTP_BODY_LENGTH && x->said != x->length))
			break;
		(void)xch_put(&b, XCH_END, SPAN(NULL, 0));
		x->ended = true;
		break;
	case ACT_READ:
		read_exchange(x);
		break;
	case ACT_SHUT:
		x->cut = true;
		(void)shutdown(x->fd, SHUT_WR);
		break;
	default:
		close_p(&x->fd);
		x->fd = -1;
	}
	/* What vault does not take at once is a cut. */
	if (b.n > 0 && send(x->fd, buf_span(&b).p, b.n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)b.n) {
		x->cut = true;
		(void)shutdown(x->fd, SHUT_WR);
	}
	buf_done(&b);
}

/* ---- the run ---- */

static void start(void)
{
	static struct vault_connect_to to[ARRAY_SIZE(secrets)];
	struct err err = { 0 };
	int pair[2];

	v.now = 1000 * NS;
	v.cfg.audit_fd = v.cfg.audit_old_fd = -1;
	for (int k = 0; k < PH_KINDS; k++)
		v.cfg.env_fd[k] = -1;
	MUST(ev_open(&v.ev) == 0);
	audit_open(&v.audit, -1, -1);
	v.audit.probing = true; /* nobody is told of violations */
	v.cfg.connect_to = to;
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
		struct span text = span_str(secrets[i].text);

		MUST(pipe2(pair, O_CLOEXEC) == 0);
		MUST(write(pair[1], text.p, text.n) == (ssize_t)text.n);
		(void)close(pair[1]);
		v.cfg.env_fd[secrets[i].kind] = pair[0];
		v.cfg.launch.lent |= PH_BIT(secrets[i].kind);
		to[i] = (struct vault_connect_to){ .port = 443,
						   .addr = { .family = AF_INET, .b = { 127, 0, 0, 1 } },
						   .to_port = 443 };
		(void)snprintf(to[i].name, sizeof(to[i].name), "%s", prov_hosts[secrets[i].host].name);
	}
	v.cfg.n_connect_to = ARRAY_SIZE(secrets);
	MUST(logins_open(&v, &err) == 0 && exchanges_init(&v) == 0 && upstream_init(&v) == 0 && renewals_init(&v) == 0);
	MUST(prctl(PR_SET_DUMPABLE, 1) == 0); /* so that leaks can be looked for */
	MUST(logins_watch(&v) == 0);
	turns();
	for (void *p = NULL; (p = secret_alloc(room + 4096)); secret_free(p))
		room += 4096;
}

static void end(void)
{
	void *p;

	for (int i = 0; i < n_ex; i++) {
		close_p(&ex[i].fd);
		buf_done(&ex[i].in);
	}
	turns();
	/* Nobody reads what is kept, and it is closed in its time. */
	for (int i = 0; i < 3; i++) {
		v.now += 400 * NS;
		turns();
	}
	MUST(exchanges_tick(&v) == -1 && up_tick(&v) == -1);
	for (int i = 0; i < n_sv; i++) {
		char c[1];

		if (sv[i].fd >= 0)
			MUST(send(sv[i].fd, c, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE);
		close_p(&sv[i].fd);
		h2_reader_done(&sv[i].in);
		buf_done(&sv[i].out);
	}
	p = secret_alloc(room);
	MUST(p || room == 0);
	secret_free(p);
}

static void service_step(enum step what, struct span *in)
{
	struct service *s = n_sv > 0 ? &sv[fuzz_u8(in) % (unsigned)n_sv] : NULL;
	struct span p;
	size_t n;

	if (!s || s->fd < 0)
		return;
	switch (what) {
	case STEP_RAW:
		p = fuzz_bytes(in, fuzz_u8(in));
		s->wild = true;
		(void)buf_put(&s->out, p.p, p.n);
		break;
	case STEP_FRAME:
		frame(s, in);
		break;
	case STEP_ANSWER:
		answer(s, in);
		break;
	case STEP_DATA:
	case STEP_SECRET:
		data(s, in, what == STEP_SECRET);
		break;
	case STEP_READ:
		n = fuzz_u8(in);
		service_reads(s, n == 255 ? 1 << 20 : n * 64);
		break;
	default:
		turns();
		service_reads(s, 1 << 20);
		if (fuzz_u8(in) & 1) {
			(void)shutdown(s->fd, SHUT_WR);
		} else {
			close_p(&s->fd);
			s->fd = -1;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span in = SPAN(p, n);

	if (!v.exchanges)
		start();
	n_ex = n_sv = 0;
	while (in.n > 0) {
		enum step what = fuzz_u8(&in) % STEP_KINDS;

		switch (what) {
		case STEP_TURN:
			turns();
			break;
		case STEP_TIME:
			v.now += MS << (fuzz_u8(&in) % 22);
			turns();
			break;
		case STEP_REQUEST:
			request(&in);
			break;
		case STEP_GATE:
			act(&in);
			break;
		default:
			service_step(what, &in);
		}
	}
	turns();
	for (int i = 0; i < n_sv; i++)
		service_reads(&sv[i], 1 << 20);
	turns();
	for (int i = 0; i < n_ex; i++) {
		read_exchange(&ex[i]);
		compare(&ex[i]);
	}
	end();
	return 0;
}
