/* Streams that gate steps aside from, with vault, wire, the guest and the server played (live.h): whatever is written
 * when, and whoever stops, every byte arrives once and in order, and each direction's end behind its last. The front of
 * a stream is a request in clear, TLS of another name, another protocol, or one byte; several streams at once. */
#include "livegate.h"

#define STREAMS_MAX_SEEN 6

struct seen {
	/* What is to be. */
	uint64_t up, down; /* behind the front */
	struct span front;
	bool waits; /* the server ends its side only behind the guest's */
	/* Wire: the guest's bytes go to the pair, and to the socket that takes its place. */
	int pair; /* -1: over */
	uint64_t sent;
	bool fin, held;
	bool owes_held; /* HOLD came */
	int direct;	/* -1: not handed over yet */
	/* Vault and the server. */
	bool dialled;
	int to_say; /* the end that gate gets; -1: it has it */
	int server;
	uint64_t heard, said, got;
	bool heard_fin, said_fin, got_fin;
};

static struct seen seen[STREAMS_MAX_SEEN];
static int n_seen;

static struct buf hello;

static void live_tell(void)
{
	for (int i = 0; i < n_seen; i++) {
		const struct seen *s = &seen[i];

		(void)fprintf(stderr,
			      "%d: front %zu, up %llu: sent %llu, fin %d, heard %llu, fin %d; down %llu: said %llu, "
			      "fin %d, got %llu, "
			      "fin %d; dialled %d, HOLD %d, held %d, direct %d; gate's state %d\n",
			      i, s->front.n, (unsigned long long)s->up, (unsigned long long)s->sent, s->fin,
			      (unsigned long long)s->heard, s->heard_fin, (unsigned long long)s->down,
			      (unsigned long long)s->said, s->said_fin, (unsigned long long)s->got, s->got_fin,
			      s->dialled, s->owes_held, s->held, s->direct >= 0,
			      g.conn[i] ? (int)g.conn[i]->state : -1);
	}
}

static bool messages(void)
{
	union {
		struct net_head head;
		struct net_dial dial;
	} m;
	bool any = false;
	struct seen *s;
	int fd = -1;

	while (recv(vault_fd, &m, sizeof(m), MSG_DONTWAIT) > 0) {
		any = true;
		HOLDS(m.head.type == NET_DIAL && m.head.slot < (uint32_t)n_seen);
		s = &seen[m.head.slot];
		HOLDS(!s->dialled);
		s->dialled = true;
	}
	while (fd_recv(wire_fd, &m, sizeof(m), &fd, 1) > 0) {
		any = true;
		HOLDS(m.head.slot < (uint32_t)n_seen);
		s = &seen[m.head.slot];
		if (m.head.type == NET_HOLD) {
			s->owes_held = true;
		} else {
			HOLDS(m.head.type == NET_HANDOVER && s->held && fd >= 0 && s->direct < 0);
			s->direct = TAKE_FD(fd);
			close_p(&s->pair);
			s->pair = -1;
		}
		fd = -1;
	}
	return any;
}

/* The next bytes of the guest, in one piece. */
static struct span next_up(const struct seen *s, size_t n)
{
	if (s->sent < s->front.n)
		return SPAN(s->front.p + s->sent, MIN(n, s->front.n - (size_t)s->sent));
	return SPAN(body_at((unsigned)(s - seen) * 2, s->sent - s->front.n),
		    (size_t)MIN((uint64_t)MIN(n, (size_t)BODY_PIECE), s->front.n + s->up - s->sent));
}

static size_t wire_writes(struct seen *s, size_t n)
{
	struct net_held m = { .head = { NET_VERSION, NET_HELD, sizeof(m), (uint32_t)(s - seen), 1 }, .bytes = s->sent };
	int fd = s->direct >= 0 ? s->direct : s->held ? -1 : s->pair;
	struct span p;
	ssize_t k;

	if (s->owes_held) {
		s->owes_held = false;
		s->held = true;
		HOLDS(send(wire_fd, &m, sizeof(m), MSG_DONTWAIT) == (ssize_t)sizeof(m));
		return 1;
	}
	if (fd < 0)
		return 0;
	p = next_up(s, n);
	if (p.n == 0) {
		/* The end that the pair saw is passed on to what takes its place. */
		if (s->fin && (s->direct < 0 || s->heard_fin))
			return 0;
		s->fin = true;
		(void)shutdown(fd, SHUT_WR);
		return s->direct < 0;
	}
	k = send(fd, p.p, p.n, MSG_DONTWAIT | MSG_NOSIGNAL);
	s->sent += k > 0 ? (uint64_t)k : 0;
	return k > 0 ? (size_t)k : 0;
}

static size_t guest_reads(struct seen *s, size_t n)
{
	static uint8_t bytes[64 << 10];
	ssize_t k;

	if (s->direct < 0 || s->got_fin)
		return 0;
	k = recv(s->direct, bytes, MIN(n, sizeof(bytes)), MSG_DONTWAIT);
	if (k < 0)
		return 0;
	HOLDS(body_is((unsigned)(s - seen) * 2 + 1, s->got, SPAN(bytes, k)));
	s->got += (uint64_t)k;
	s->got_fin = k == 0;
	HOLDS(!s->got_fin || s->got == s->down);
	return (size_t)k + 1;
}

static size_t server_reads(struct seen *s, size_t n)
{
	static uint8_t bytes[64 << 10];
	size_t front;
	ssize_t k = s->server < 0 || s->heard_fin ? -1 : recv(s->server, bytes, MIN(n, sizeof(bytes)), MSG_DONTWAIT);

	if (k < 0)
		return 0;
	front = s->heard < s->front.n ? MIN(s->front.n - (size_t)s->heard, (size_t)k) : 0;
	HOLDS(front == 0 || memcmp(bytes, s->front.p + s->heard, front) == 0);
	HOLDS(body_is((unsigned)(s - seen) * 2, s->heard + front - s->front.n, SPAN(bytes + front, (size_t)k - front)));
	s->heard += (uint64_t)k;
	s->heard_fin = k == 0;
	HOLDS(!s->heard_fin || s->heard == s->front.n + s->up);
	return (size_t)k + 1;
}

static size_t server_writes(struct seen *s, size_t n)
{
	struct net_dialled m = { .head = { NET_VERSION, NET_DIALLED, sizeof(m), (uint32_t)(s - seen), 1 },
				 .outcome = NET_CONNECTED };
	ssize_t k;

	if (s->dialled && s->to_say >= 0) {
		HOLDS(fd_send(vault_fd, &m, sizeof(m), &s->to_say, 1) == (ssize_t)sizeof(m));
		close_p(&s->to_say);
		s->to_say = -1;
		return 1;
	}
	if (s->said_fin)
		return 0;
	/* It may speak before anybody listens. */
	if (s->said == s->down) {
		if (s->waits && !s->heard_fin)
			return 0;
		s->said_fin = true;
		(void)shutdown(s->server, SHUT_WR);
		return 1;
	}
	k = send(s->server, body_at((unsigned)(s - seen) * 2 + 1, s->said),
		 (size_t)MIN((uint64_t)MIN(n, (size_t)BODY_PIECE), s->down - s->said), MSG_DONTWAIT | MSG_NOSIGNAL);
	s->said += k > 0 ? (uint64_t)k : 0;
	return k > 0 ? (size_t)k : 0;
}

/* A ClientHello, as OpenSSL writes it. */
static void make_hello(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = ctx ? SSL_new(ctx) : NULL;
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	char *p;
	long n;

	HOLDS(ssl && in && out && SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t) "example.org") == 1);
	SSL_set_bio(ssl, in, out);
	SSL_set_connect_state(ssl);
	(void)SSL_do_handshake(ssl);
	n = BIO_get_mem_data(out, &p);
	buf_init(&hello, 1 << 16);
	HOLDS(n > 0 && buf_put(&hello, p, (size_t)n) == 0);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static void begin(void)
{
	static const char *const fronts[] = { "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "\x01\x02\x03 a protocol",
					      "x" };
	int pair[2];

	if (hello.n == 0)
		make_hello();
	gate_enter();

	n_seen = 1 + (int)dice(STREAMS_MAX_SEEN);
	for (int i = 0; i < n_seen; i++) {
		const struct net_peek peek = { .head = { NET_VERSION, NET_PEEK, sizeof(peek), (uint32_t)i, 1 },
					       .port = 8080 };
		struct seen *s = &seen[i];
		uint32_t k = dice(ARRAY_SIZE(fronts) + 1);

		*s = (struct seen){ .up = some_length(), .down = some_length(), .waits = once_in(2), .direct = -1 };
		s->front = k < ARRAY_SIZE(fronts) ? span_str(fronts[k]) : buf_span(&hello);
		some_pair(pair);
		s->server = pair[0];
		s->to_say = pair[1];
		some_pair(pair);
		s->pair = pair[1];
		conn_new(&g, &peek, pair[0]);
	}
}

static bool over(void)
{
	for (int i = 0; i < n_seen; i++)
		if (!seen[i].heard_fin || !seen[i].got_fin)
			return false;
	return true;
}

static void end(void)
{
	gate_leave();
	for (int i = 0; i < n_seen; i++) {
		close_p(&seen[i].pair);
		close_p(&seen[i].direct);
		close_p(&seen[i].server);
		close_p(&seen[i].to_say);
	}
}

static size_t (*const actors[])(struct seen *s, size_t n) = { wire_writes, guest_reads, server_reads, server_writes };

static size_t acts(uint32_t who, size_t n)
{
	size_t sum = 0;

	for (int i = 0; i < n_seen; i++)
		if (eager || once_in(2))
			sum += actors[who](&seen[i], n);
	return sum;
}

static void run(void)
{
	begin();
	play(ARRAY_SIZE(actors));
	end();
}

int main(int argc, char **argv)
{
	return live_main(argc, argv, run);
}
