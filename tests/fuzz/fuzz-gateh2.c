/* A hostile guest that speaks HTTP/2 with gate: its streams, their requests and exchanges as they are, with the real
 * nghttp2 beneath, over socket pairs; instead of TLS the bytes go as they are. vault is played, and lies as well. The
 * first byte chooses the host, and then come steps (enum step). After an input of odd length the guest stays and does
 * nothing, else it leaves.
 *
 * What must hold: every message to vault is one that vault takes, and its own check agrees; bodies are framed as the
 * message said; no two streams mix, in either direction; an answer that vault cut never ends cleanly; nothing that a
 * guest does ends the session or lets gate spin; and when the guest is gone, or silent for an
 * hour, nothing is left of it. */
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macros.h"
#include "gate/gate.h"
#include "h2peer.h"
#include "vault/recheck.h"

/* vault/vault.h, which names its own things as gate/gate.h does. */
int gate_check(const void *msg, size_t n, bool has_fd);

#define EXCHANGES 64 /* that vault is played for; the rest is closed at once */
#define TURNS_MAX 2000
#define LETTER 0x80 /* and an exchange's number: each byte of its answer's body */

enum step {
	STEP_RAW,     /* length, bytes */
	STEP_FRAME,   /* type, flags, stream, length, payload */
	STEP_REQUEST, /* stream, flags, template, login, n fields: name, length, value */
	STEP_DATA,    /* stream, flags, length / 64: each byte is the stream's number */
	STEP_BODY,    /* stream, flags, length, bytes */
	STEP_TURN,
	STEP_TIME,  /* 2^n ms */
	STEP_READ,  /* n * 64 bytes; 255: all */
	STEP_VAULT, /* exchange, enum act, and what that wants */
	STEP_END,   /* the guest's direction */
	STEP_RENEWED,
	STEP_KINDS,
};

enum act { ACT_ANSWER, ACT_DATA, ACT_TRAILERS, ACT_FINISH, ACT_RAW, ACT_CLOSE, ACT_SHUT, ACT_READ, ACT_REFUSE, ACTS };

static const struct {
	const char *method, *path;
} templates[] = {
	{ "POST", "/v1/messages" },
	{ "GET", "/v1/models" },
	{ "HEAD", "/v1/models" },
	{ "POST", "/backend-api/codex/responses" },
	{ "POST", "/v1/responses" },
	{ "POST", "/chat/completions" },
	{ "POST", "/v1/oauth/token" },
	{ "POST", "/oauth/token" },
	{ "POST", "/mcp/" },
	{ "GET", "/nowhere" },
	{ "POST", "/v1/oauth/revoke" },
	{ "OPTIONS", "*" },
	{ "PRI", "" },
};

static const char *const names[] = {
	"content-length",    "content-type", "expect", "te",	  "connection",
	"transfer-encoding", "host",	     "cookie", "x-a",	  "accept-encoding",
	"authorization",     "x-api-key",    ":path",  "upgrade",
};

/* What vault was asked, and what it said. */
struct exchange_seen {
	int fd;
	struct xch_reader reader;
	struct buf in;
	struct httpmsg_request_wire w;
	uint64_t body; /* of the request, so far */
	int fill;      /* each byte of it; -1: none yet */
	bool ended;    /* its END */
	/* The answer. */
	bool answered, lied, bare, finished;
	uint8_t framing;
	uint64_t length, sent;
};

struct stream_seen {
	int k; /* the exchange whose answer it gets; -1: none of vault's */
	uint64_t got;
	bool over;
};

static struct gate g;
static SSL_CTX *nothing; /* of which each connection has an SSL that is never used */
static int guest, vault_fd, wire_fd;
static struct exchange_seen ex[EXCHANGES];
static int n_ex;
static struct stream_seen st[H2_STREAMS];
static struct h2_reader down;
static struct buf up; /* for the guest's socket */
static bool wild;     /* bytes went out whose frames we do not know */
static uint32_t renew_slot, renew_gen;
static bool renew_asked;

/* ---- the seam: what tls.c does with TLS ---- */

int tls_start(struct conn *c)
{
	if (!nothing)
		nothing = SSL_CTX_new(TLS_server_method());
	c->ssl = SSL_new(nothing);
	return c->ssl ? 0 : -ENOMEM;
}

int tls_handshake(struct conn *c)
{
	return 1;
}

bool tls_is_h2(const struct conn *c)
{
	return true;
}

ssize_t tls_read(struct conn *c, uint8_t *p, size_t n)
{
	ssize_t k = recv(c->fd, p, n, MSG_DONTWAIT);

	return k >= 0 ? k : errno == EAGAIN ? -EAGAIN : -EPROTO;
}

ssize_t tls_write(struct conn *c, const uint8_t *p, size_t n)
{
	ssize_t k = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	return k >= 0 ? k : errno == EAGAIN ? -EAGAIN : -EPROTO;
}

int tls_flush(struct conn *c)
{
	return 0;
}

/* ---- vault ---- */

static void close_exchange(struct exchange_seen *x)
{
	close_p(&x->fd);
	x->fd = -1;
}

static void asked(const uint8_t *msg, size_t n, int fd)
{
	static struct httpmsg_request m;
	struct exchange_seen *x = &ex[n_ex];

	MUST(httpmsg_request_parse(SPAN(msg, n), &m) == 0);
	MUST(recheck(&g.judge.launch, &m) == REFUSAL_NONE);
	MUST(m.w.flags & HTTPMSG_H2 && !(m.w.flags & HTTPMSG_UPGRADE));
	for (size_t i = 0; i < m.w.n_fields; i++)
		MUST(ph_find(&g.judge.set, m.f[i].value, NULL) != PH_OURS);
	if (n_ex == EXCHANGES) {
		(void)close(fd);
		return;
	}
	n_ex++;
	*x = (struct exchange_seen){ .fd = fd, .reader = { .side = XCH_TO_VAULT }, .w = m.w, .fill = -1 };
	buf_init(&x->in, 1 << 20);
}

static void drain_links(void)
{
	static uint8_t msg[HTTPMSG_MAX];
	int fd = -1;
	ssize_t n;

	while ((n = fd_recv(vault_fd, msg, sizeof(msg), &fd, 1)) > 0) {
		switch (gate_check(msg, (size_t)n, fd >= 0)) {
		case HTTPMSG_REQUEST:
			asked(msg, (size_t)n, fd);
			break;
		case NET_RENEW:
			memcpy(&renew_slot, msg + offsetof(struct net_head, slot), 4);
			memcpy(&renew_gen, msg + offsetof(struct net_head, generation), 4);
			renew_asked = true;
			break;
		case NET_INSPECTED:
		case NET_NOTE:
			break;
		default:
			MUST(!"a message that vault does not take");
		}
		fd = -1;
	}
	while (recv(wire_fd, msg, sizeof(msg), MSG_DONTWAIT) > 0)
		;
}

/* Frames of gate, as vault reads them. */
static void read_exchange(struct exchange_seen *x)
{
	uint8_t *room = x->fd < 0 ? NULL : buf_room(&x->in, 256 << 10);
	ssize_t k = room ? recv(x->fd, room, 256 << 10, MSG_DONTWAIT) : 0;
	struct span in, got;
	enum xch_got what;

	if (k <= 0)
		return;
	buf_grew(&x->in, (size_t)k);
	in = buf_span(&x->in);
	while ((what = xch_take(&x->reader, &in, &got)) != XCH_GOT_MORE) {
		MUST(what == XCH_GOT_DATA || what == XCH_GOT_END);
		if (what == XCH_GOT_END) {
			x->ended = true;
			MUST(x->w.body != HTTP_BODY_LENGTH || x->body == x->w.body_len);
			break;
		}
		x->body += got.n;
		MUST(x->w.body == HTTP_BODY_STREAM || (x->w.body == HTTP_BODY_LENGTH && x->body <= x->w.body_len));
		for (size_t i = 0; i < got.n && !wild; i++) {
			MUST(x->fill < 0 || x->fill == got.p[i]);
			x->fill = got.p[i];
		}
	}
	buf_consume(&x->in, x->in.n - in.n);
}

static void say(struct exchange_seen *x, struct buf *b)
{
	/* What gate does not take at once is a cut, which vault's end may be as well. */
	if (b->n > 0 && send(x->fd, buf_span(b).p, b->n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)b->n)
		x->lied = true;
	buf_done(b);
}

static void put_fields(struct buf *b, struct span *in, uint16_t *n)
{
	for (unsigned k = fuzz_u8(in) % 4; k > 0; k--) {
		struct span name = span_str(names[fuzz_u8(in) % ARRAY_SIZE(names)]),
			    value = fuzz_bytes(in, fuzz_u8(in));

		if (httpmsg_field(b, name, value) == 0)
			(*n)++;
	}
}

static void answer(struct exchange_seen *x, struct span *in, bool refuse)
{
	static const uint16_t status[] = { 200, 204, 304, 404, 401, 500, 101, 100 };
	struct httpmsg_answer_wire w = { .status = status[fuzz_u8(in) % ARRAY_SIZE(status)],
					 .body = fuzz_u8(in) % HTTP_BODIES };
	char k[8];
	struct buf b, m;
	uint16_t n = 1;

	if (w.body == HTTP_BODY_LENGTH)
		w.body_len = (uint64_t)fuzz_u8(in) * 64;
	if (refuse)
		w = (struct httpmsg_answer_wire){ .status = 502, .code = fuzz_u8(in) % REFUSAL_CODES };
	buf_init(&b, HTTPMSG_MAX);
	buf_init(&m, HTTPMSG_MAX + 64);
	(void)snprintf(k, sizeof(k), "%d", (int)(x - ex));
	MUST(httpmsg_answer_begin(&m, &w) == 0);
	if (refuse)
		n = 0;
	else
		MUST(httpmsg_field(&m, span_str("x-k"), span_str(k)) == 0);
	if (!refuse)
		put_fields(&m, in, &n);
	httpmsg_end(&m, n);
	x->lied |= x->answered;
	x->answered = true;
	x->bare = x->w.method == METHOD_HEAD || w.status == 204 || w.status == 304;
	x->framing = w.body;
	x->length = w.body_len;
	(void)xch_put(&b, XCH_ANSWER, buf_span(&m));
	buf_done(&m);
	say(x, &b);
}

static void act(struct span *in)
{
	static uint8_t bytes[64 * 256];
	unsigned which = fuzz_u8(in);
	struct exchange_seen *x = n_ex > 0 ? &ex[which % (unsigned)n_ex] : NULL;
	enum act what = fuzz_u8(in) % ACTS;
	uint16_t n = 0;
	struct span raw;
	struct buf b, f;
	size_t k;

	if (!x || x->fd < 0)
		return;
	buf_init(&b, 1 << 20);
	switch (what) {
	case ACT_ANSWER:
	case ACT_REFUSE:
		answer(x, in, what == ACT_REFUSE);
		break;
	case ACT_DATA:
		k = (size_t)fuzz_u8(in) * 64;
		memset(bytes, LETTER + (int)(x - ex), k);
		(void)xch_put(&b, XCH_DATA, SPAN(bytes, k));
		x->sent += x->finished ? 0 : k;
		say(x, &b);
		break;
	case ACT_TRAILERS:
		buf_init(&f, XCH_TRAILERS_MAX);
		put_fields(&f, in, &n);
		(void)xch_put(&b, XCH_TRAILERS, buf_span(&f));
		buf_done(&f);
		say(x, &b);
		break;
	case ACT_FINISH:
		(void)xch_put(&b, XCH_END, SPAN(NULL, 0));
		x->finished = true;
		say(x, &b);
		break;
	case ACT_RAW:
		x->lied = true;
		raw = fuzz_bytes(in, fuzz_u8(in));
		(void)buf_put(&b, raw.p, raw.n);
		say(x, &b);
		break;
	case ACT_CLOSE:
		close_exchange(x);
		break;
	case ACT_SHUT:
		(void)shutdown(x->fd, SHUT_WR);
		break;
	default:
		read_exchange(x);
	}
	buf_done(&b);
}

static void renewed(struct span *in)
{
	struct net_renewed m = { .head = { NET_VERSION, NET_RENEWED, sizeof(m), renew_slot, renew_gen } };

	if (!renew_asked)
		return;
	renew_asked = false;
	m.lack = fuzz_u8(in) & 1;
	if (m.lack == 0)
		m.expires_in = m.exp = fuzz_u8(in);
	MUST(send(vault_fd, &m, sizeof(m), MSG_DONTWAIT) == sizeof(m));
}

/* ---- the guest ---- */

static void one_field(void *arg, const nghttp2_nv *nv)
{
	struct stream_seen *s = arg;
	unsigned k = 0;

	MUST(nv->namelen > 0);
	for (size_t i = 0; i < nv->namelen; i++)
		MUST(nv->name[i] < 'A' || nv->name[i] > 'Z');
	for (size_t i = 0; i < nv->valuelen; i++)
		MUST(nv->value[i] != '\r' && nv->value[i] != '\n' && nv->value[i] != 0);
	if (!s || nv->namelen != 3 || memcmp(nv->name, "x-k", 3) != 0)
		return;
	for (size_t i = 0; i < nv->valuelen; i++)
		k = k * 10 + nv->value[i] - '0';
	MUST(k < (unsigned)n_ex && s->k < 0);
	s->k = (int)k;
}

static void got_frame(struct span p)
{
	struct stream_seen *s = down.stream > 0 && down.stream < H2_STREAMS ? &st[down.stream] : NULL;
	const struct exchange_seen *x;

	if (down.type != H2_DATA && down.type != H2_HEADERS && down.type != H2_CONT && down.type != H2_RST)
		return;
	if (s && (down.type == H2_DATA || down.type == H2_HEADERS))
		MUST(!s->over);
	if (down.type == H2_HEADERS || down.type == H2_CONT)
		h2_fields(&down, p, one_field, s);
	if (!s)
		return;
	x = s->k >= 0 ? &ex[s->k] : NULL;
	if (down.type == H2_DATA && x) {
		s->got += p.n;
		for (size_t i = 0; i < p.n && !x->lied; i++)
			MUST(p.p[i] == LETTER + s->k);
		MUST(x->lied || s->got <= x->sent);
	}
	if ((down.type == H2_DATA || down.type == H2_HEADERS) && down.flags & H2_END_STREAM) {
		s->over = true;
		if (x && !x->lied) {
			MUST(x->finished && s->got == x->sent);
			MUST(x->framing != HTTP_BODY_LENGTH || x->bare || s->got == x->length);
			MUST(!x->bare || s->got == 0);
		}
	}
	s->over |= down.type == H2_RST;
}

static void guest_reads(size_t n)
{
	uint8_t *room = guest < 0 ? NULL : buf_room(&down.in, n);
	ssize_t k = room ? recv(guest, room, n, MSG_DONTWAIT) : 0;
	struct span p;

	if (k > 0)
		buf_grew(&down.in, (size_t)k);
	while (h2_next(&down, &p))
		got_frame(p);
}

static void request(struct span *in)
{
	uint32_t stream = fuzz_u8(in);
	uint8_t flags = fuzz_u8(in);
	size_t t = fuzz_u8(in) % ARRAY_SIZE(templates);
	unsigned login = fuzz_u8(in) % (PH_KINDS + 1);
	const struct ph_claims claims = { .exp = 1 };
	struct buf block, ph;

	buf_init(&block, 64 << 10);
	buf_init(&ph, 4096);
	hpack_field(&block, span_str(":method"), span_str(templates[t].method), false);
	hpack_field(&block, span_str(":scheme"), span_str("https"), true);
	hpack_field(&block, span_str(":authority"), span_str(prov_hosts[g.conn[0] ? g.conn[0]->host : 0].name), true);
	hpack_field(&block, span_str(":path"), span_str(templates[t].path), false);
	if (login < PH_KINDS && g.conn[0] && prov_slots((enum ph_kind)login, g.conn[0]->host) & SLOT_BIT(SLOT_KEY)) {
		(void)ph_write(&g.judge.set, (enum ph_kind)login, &claims, &ph);
		hpack_field(&block, span_str("x-api-key"), buf_span(&ph), true);
	} else if (login < PH_KINDS) {
		(void)buf_put(&ph, "Bearer ", 7);
		(void)ph_write(&g.judge.set, (enum ph_kind)login, &claims, &ph);
		hpack_field(&block, span_str("authorization"), buf_span(&ph), true);
	}
	for (unsigned k = fuzz_u8(in) % 8; k > 0; k--) {
		struct span name = span_str(names[fuzz_u8(in) % ARRAY_SIZE(names)]),
			    value = fuzz_bytes(in, fuzz_u8(in));

		hpack_field(&block, name, value, flags & 4);
	}
	h2_put_headers(&up, stream, flags & 1, buf_span(&block), flags & 2 ? flags >> 3 : SIZE_MAX);
	buf_done(&block);
	buf_done(&ph);
}

static void data(struct span *in, bool own)
{
	static uint8_t bytes[64 * 256];
	uint32_t stream = fuzz_u8(in);
	uint8_t flags = fuzz_u8(in) & H2_END_STREAM;
	size_t n = fuzz_u8(in);
	struct span s;

	if (own) {
		wild = true;
		s = fuzz_bytes(in, n);
	} else {
		s = SPAN(bytes, n * 64);
		memset(bytes, (int)stream, s.n);
	}
	h2_put(&up, H2_DATA, flags, stream, s);
}

static void frame(struct span *in)
{
	uint8_t type = fuzz_u8(in), flags = fuzz_u8(in);
	uint32_t stream = fuzz_u8(in);
	struct span s = fuzz_bytes(in, fuzz_u8(in));

	wild |= type == H2_DATA;
	h2_put(&up, type, flags, stream, s);
}

/* ---- the run ---- */

/* Until nothing is left to do but to wait. */
static void turns(void)
{
	struct ev_event batch[EV_BATCH];
	int n, i = 0;

	do {
		ssize_t k =
			guest >= 0 && up.n > 0 ? send(guest, buf_span(&up).p, up.n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

		if (k > 0)
			buf_consume(&up, (size_t)k);
		n = ev_wait(&g.ev, batch, 0);
		MUST(n >= 0);
		gate_turn(&g, batch, n);
		drain_links();
		MUST(!g.ended);
		/* A queue that waits for descriptors to be read looks again in a moment. */
		g.now = MAX(g.now, links_next(&g));
		MUST(i++ < TURNS_MAX);
	} while (n > 0 || g.kicked || g.vault.first || (g.due >= 0 && g.due <= g.now));
	/* Whoever is reset is told to wire. */
	MUST(!g.wire.first);
}

static void link_open(struct seqlink *l, enum gate_ev ev, int *far, uint32_t *watched)
{
	int pair[2];

	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	seqlink_init(l, pair[0]);
	*watched = EPOLLIN;
	MUST(ev_watch(&g.ev, pair[0], EPOLLIN, (uint8_t)ev, 0, 0) == 0);
	*far = pair[1];
}

static void begin(uint8_t first)
{
	static const uint8_t seed[PH_SEED] = "fuzz";
	static struct ph_set set; /* drawn once */
	const struct net_peek peek = { .head = { NET_VERSION, NET_PEEK, sizeof(peek), 1, 1 }, .port = 443 };
	int pair[2];

	MUST(set.v[0][0] != '\0' || ph_draw(seed, PH_ALL, &set) == 0);
	g = (struct gate){ .due = -1, .now = NS, .judge = { .launch = { .lent = PH_ALL }, .set = set } };
	lookup_init(&g);
	if (first & 0x80)
		g.judge.launch.opened[PROV_ANTHROPIC] = g.judge.launch.opened[PROV_OPENAI] = 1 << CLASS_FOREIGN;
	MUST(ev_open(&g.ev) == 0);
	link_open(&g.vault, EV_VAULT, &vault_fd, &g.vault_watch);
	link_open(&g.wire, EV_WIRE, &wire_fd, &g.wire_watch);
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	guest = pair[1];
	n_ex = 0;
	wild = renew_asked = false;
	for (size_t i = 0; i < H2_STREAMS; i++)
		st[i] = (struct stream_seen){ .k = -1 };
	h2_reader_init(&down, false);
	buf_init(&up, 1 << 20);
	conn_new(&g, &peek, pair[0]);
	/* Those that HTTP/2 is offered for. */
	conn_inspect(g.conn[0], (enum prov_host_id)((first & 0x7f) % HOST_GITHUB_API), true);
}

/* Who neither sends nor reads any more holds its places for less than an hour, whatever it left open, and whatever
 * vault did. */
static void stay(void)
{
	for (int i = 0; i < 60; i++) {
		g.now += 60 * NS;
		turns();
	}
	MUST(g.n_conns == 0);
}

static void end(bool stays)
{
	if (stays)
		stay();
	close_p(&guest);
	guest = -1;
	turns();
	MUST(g.n_conns == 0 && g.n_asks == 0 && g.n_bodies == 0 && g.n_inspected == 0 && g.n_undecided == 0);
	for (int i = 0; i < n_ex; i++) {
		char c[1];

		/* The other end is closed, whatever is left in it. */
		if (ex[i].fd >= 0)
			MUST(send(ex[i].fd, c, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE);
		close_exchange(&ex[i]);
		buf_done(&ex[i].in);
	}
	h2_reader_done(&down);
	buf_done(&up);
	close_p(&vault_fd);
	close_p(&wire_fd);
	(void)close(g.vault.fd);
	(void)close(g.wire.fd);
	ev_close(&g.ev);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span in = SPAN(p, n);
	struct span s;
	bool stays = n % 2 == 1;

	begin(fuzz_u8(&in));
	while (in.n > 0) {
		switch ((enum step)(fuzz_u8(&in) % STEP_KINDS)) {
		case STEP_RAW:
			s = fuzz_bytes(&in, fuzz_u8(&in));
			/* The preface alone says nothing of frames. */
			wild |= s.n != NGHTTP2_CLIENT_MAGIC_LEN || memcmp(s.p, NGHTTP2_CLIENT_MAGIC, s.n) != 0;
			(void)buf_put(&up, s.p, s.n);
			break;
		case STEP_FRAME:
			frame(&in);
			break;
		case STEP_REQUEST:
			request(&in);
			break;
		case STEP_DATA:
			data(&in, false);
			break;
		case STEP_BODY:
			data(&in, true);
			break;
		case STEP_TURN:
			turns();
			break;
		case STEP_TIME:
			g.now += MS << (fuzz_u8(&in) % 22);
			turns();
			break;
		case STEP_READ:
			n = fuzz_u8(&in);
			guest_reads(n == 255 ? 1 << 20 : n * 64);
			break;
		case STEP_VAULT:
			act(&in);
			break;
		case STEP_END:
			turns();
			(void)shutdown(guest, SHUT_WR);
			break;
		default:
			renewed(&in);
		}
	}
	turns();
	for (int i = 0; i < n_ex; i++)
		read_exchange(&ex[i]);
	guest_reads(1 << 20);
	end(stays);
	return 0;
}
