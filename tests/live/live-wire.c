/* Wire between a guest, vault, gate and the world, which are all played (live.h): several TCP flows at once, both ways,
 * each end stopping as it likes, half-closed in any order, with a plain connection or behind gate, which reads the
 * front, holds, and hands over. The guest's TCP is the least that is one: its link loses nothing, it repeats nothing,
 * and it never asks again whether a window has opened. So wire has to tell, at once. Its clock stands, but for the
 * delayed acknowledgement. */
#include "live.h"

#include "ev/ev.h"
#include "wire/csum.h"
#include "wire/flow.h"

#define FLOWS_MAX 4
#define DOWN_MAX (256 << 10) /* what the guest keeps unread */

struct flow_seen {
	/* What is to be. */
	uint64_t up, down;
	uint16_t port, mss;
	bool inspected;
	uint64_t peeked; /* gate holds when it has read so much */
	bool waits;	 /* the world ends its side only behind the guest's */
	/* The guest's TCP. */
	enum { CLOSED, SYN_SENT, OPEN } state;
	uint32_t iss, snd_nxt, snd_una, rcv_nxt, window;
	uint64_t sent, got, read, acked;
	bool fin_sent, fin_acked, fin_got, owe_ack;
	int scale; /* of the guest's window */
	/* Vault's answer, gate, and the world. */
	struct net_head asked;
	bool open_due;
	int fd; /* -1: not there yet, or over */
	uint64_t heard, said;
	bool heard_fin, said_fin, held, hold_sent, handed;
	uint32_t slot, gen;
	uint64_t to_hand; /* bytes that wire wrote to the pair */
	bool ended;
};

static struct wire w;
static struct flow_seen fl[FLOWS_MAX];
static int n_fl;
static int link_fd, vault_fd, gate_fd;
static int64_t t_ns;
static struct buf to_wire, from_wire;

static const struct net_config config = {
	.head = { NET_VERSION, NET_CONFIG, sizeof(struct net_config), 0, 0 },
	.guest_mac = { 2, 0x61, 0x76, 1, 2, 3 },
	.gateway_mac = { 2, 0x61, 0x76, 0, 0, 1 },
	.guest4 = { 192, 0, 0, 2 },
	.gateway4 = { 192, 0, 0, 1 },
	.mtu = 65520,
};

static void live_tell(void)
{
	for (int i = 0; i < n_fl; i++) {
		const struct flow_seen *f = &fl[i];

		(void)fprintf(stderr,
			      "%d: up %llu: sent %llu, fin %d %d, heard %llu, fin %d; down %llu: said %llu, fin %d, "
			      "got %llu, read %llu, fin %d; "
			      "state %d, window %u, inspected %d at %llu, held %d, handed %d, waits %d, ended %d\n",
			      i, (unsigned long long)f->up, (unsigned long long)f->sent, f->fin_sent, f->fin_acked,
			      (unsigned long long)f->heard, f->heard_fin, (unsigned long long)f->down,
			      (unsigned long long)f->said, f->said_fin, (unsigned long long)f->got,
			      (unsigned long long)f->read, f->fin_got, f->state, f->window, f->inspected,
			      (unsigned long long)f->peeked, f->held, f->handed, f->waits, f->ended);
	}
}

static unsigned up_of(const struct flow_seen *f)
{
	return (unsigned)(f - fl) * 2;
}

static unsigned down_of(const struct flow_seen *f)
{
	return (unsigned)(f - fl) * 2 + 1;
}

/* ---- the guest ---- */

static uint32_t my_window(const struct flow_seen *f)
{
	uint64_t unread = f->got - f->read;
	uint64_t most = f->scale < 0 ? 65535 : DOWN_MAX;

	return unread < most ? (uint32_t)(most - unread) : 0;
}

static void segment(struct flow_seen *f, uint8_t flags, const uint8_t *data, size_t n)
{
	static const uint8_t world4[] = { 93, 184, 216, 34 };
	uint8_t head[4 + ETH_LEN + IP4_LEN + TCP_LEN + 8] = { 0 }, *p = head + 4;
	size_t opt = flags & TH_SYN ? 8 : 0;
	struct ip4_hdr *ip = (struct ip4_hdr *)(void *)(p + ETH_LEN);
	struct tcp_hdr *t = (struct tcp_hdr *)(void *)(ip + 1);
	uint32_t window = f->scale > 0 && !(flags & TH_SYN) ? my_window(f) >> f->scale : MIN(my_window(f), 65535u);
	const uint8_t opts[8] = { 2,
				  4,
				  (uint8_t)(f->mss >> 8),
				  (uint8_t)f->mss,
				  f->scale < 0 ? 1 : 3,
				  f->scale < 0 ? 1 : 3,
				  f->scale < 0 ? 1 : (uint8_t)f->scale,
				  1 };

	put32(head, (uint32_t)(ETH_LEN + IP4_LEN + TCP_LEN + opt + n));
	memcpy(p, config.gateway_mac, 6);
	memcpy(p + 6, config.guest_mac, 6);
	put16(p + 12, ETH_IP4);
	*ip = (struct ip4_hdr){
		.vihl = 0x45, .len = be16((uint16_t)(IP4_LEN + TCP_LEN + opt + n)), .ttl = 64, .proto = PROTO_TCP
	};
	memcpy(ip->src, config.guest4, 4);
	memcpy(ip->dst, world4, 4);
	ip->sum = (uint16_t)~csum_fold(csum_add(ip, IP4_LEN));
	*t = (struct tcp_hdr){ .sport = be16(f->port),
			       .dport = be16(443),
			       .seq = be32(f->snd_nxt),
			       .ack = be32(flags & TH_ACK ? f->rcv_nxt : 0),
			       .off = (uint8_t)((TCP_LEN + opt) / 4 << 4),
			       .flags = flags,
			       .win = be16((uint16_t)window) };
	if (opt > 0)
		memcpy(t + 1, opts, opt);
	HOLDS(buf_put(&to_wire, head, 4 + ETH_LEN + IP4_LEN + TCP_LEN + opt) == 0 && buf_put(&to_wire, data, n) == 0);
	f->snd_nxt += (uint32_t)n + !!(flags & (TH_SYN | TH_FIN));
	if (flags & TH_ACK)
		f->owe_ack = false;
}

/* Something more to be sent. */
static bool guest_says(struct flow_seen *f, size_t most)
{
	uint32_t in_flight = f->snd_nxt - f->snd_una;
	size_t n;

	if (f->state == CLOSED) {
		f->iss = f->snd_nxt = f->snd_una = dice(UINT32_MAX);
		segment(f, TH_SYN, NULL, 0);
		f->state = SYN_SENT;
		return true;
	}
	if (f->state != OPEN || to_wire.n > 300000)
		return false;
	n = in_flight < f->window ? MIN(f->window - in_flight, f->mss) : 0;
	n = (size_t)MIN((uint64_t)MIN(n, most), f->up - f->sent);
	if (n > 0) {
		bool last = f->sent + n == f->up && once_in(2);

		HOLDS(n <= BODY_PIECE);
		segment(f, (uint8_t)(TH_ACK | (last ? TH_FIN : 0)), body_at(up_of(f), f->sent), n);
		f->sent += n;
		f->fin_sent |= last;
		return true;
	}
	if (f->sent == f->up && !f->fin_sent) {
		segment(f, TH_ACK | TH_FIN, NULL, 0);
		f->fin_sent = true;
		return true;
	}
	if (!f->owe_ack)
		return false;
	segment(f, TH_ACK, NULL, 0);
	return true;
}

static void guest_gets(struct flow_seen *f, const struct tcp_hdr *t, struct span data)
{
	uint32_t seq = be32(t->seq), ack = be32(t->ack), acked = ack - f->snd_una;

	HOLDS(!(t->flags & TH_RST) && t->flags & TH_ACK);
	if (f->state == SYN_SENT) {
		HOLDS(t->flags & TH_SYN && ack == f->snd_nxt);
		f->state = OPEN;
		f->snd_una = ack;
		f->rcv_nxt = seq + 1;
		f->window = be16(t->win);
		f->owe_ack = true;
		return;
	}
	if (t->flags & TH_SYN) {
		f->owe_ack = true;
		return;
	}
	HOLDS(acked <= f->snd_nxt - f->snd_una);
	f->snd_una = ack;
	f->fin_acked |= f->fin_sent && ack == f->snd_nxt;
	f->window = (uint32_t)be16(t->win) << (f->scale < 0 ? 0 : 8);
	if (data.n == 0 && !(t->flags & TH_FIN))
		return;
	f->owe_ack = true;
	if (seq != f->rcv_nxt) {
		HOLDS((int32_t)(seq - f->rcv_nxt) < 0); /* a probe; nothing is lost */
		return;
	}
	HOLDS(data.n <= my_window(f) && body_is(down_of(f), f->got, data));
	f->got += data.n;
	f->rcv_nxt += (uint32_t)data.n;
	if (t->flags & TH_FIN) {
		HOLDS(f->got == f->down);
		f->rcv_nxt++;
		f->fin_got = true;
	}
}

static bool guest_frame(void)
{
	struct span s = buf_span(&from_wire);
	const struct tcp_hdr *t;
	struct flow_seen *f;
	size_t n, off;

	if (s.n < 4)
		return false;
	n = (size_t)get16(s.p) << 16 | get16(s.p + 2);
	if (s.n < 4 + n)
		return false;
	HOLDS(n >= ETH_LEN + IP4_LEN + TCP_LEN && s.p[4 + ETH_LEN + 9] == PROTO_TCP);
	t = (const struct tcp_hdr *)(const void *)(s.p + 4 + ETH_LEN + IP4_LEN);
	off = ETH_LEN + IP4_LEN + (size_t)(t->off >> 4) * 4;
	f = &fl[be16(t->dport) - fl[0].port];
	HOLDS(f >= fl && f < fl + n_fl);
	guest_gets(f, t, SPAN(s.p + 4 + off, n - off));
	buf_consume(&from_wire, 4 + n);
	return true;
}

/* Frames off the link, and their acknowledgements at once: only the program that reads may stop. */
static size_t link_reads(size_t n)
{
	uint8_t *room = buf_room(&from_wire, MIN(n, (size_t)(256 << 10)));
	ssize_t k = recv(link_fd, room, MIN(n, (size_t)(256 << 10)), MSG_DONTWAIT);

	if (k <= 0)
		return 0;
	buf_grew(&from_wire, (size_t)k);
	while (guest_frame())
		;
	for (int i = 0; i < n_fl; i++)
		if (fl[i].owe_ack && fl[i].state == OPEN && to_wire.n < 600000)
			segment(&fl[i], TH_ACK, NULL, 0);
	return (size_t)k;
}

static size_t link_writes(size_t n)
{
	ssize_t k;

	for (int i = 0; i < n_fl; i++)
		while (to_wire.n < n && guest_says(&fl[i], eager ? ALL : some_piece(ALL, ALL)))
			;
	if (to_wire.n == 0)
		return 0;
	k = send(link_fd, buf_span(&to_wire).p, MIN(n, to_wire.n), MSG_DONTWAIT | MSG_NOSIGNAL);
	buf_consume(&to_wire, k > 0 ? (size_t)k : 0);
	return k > 0 ? (size_t)k : 0;
}

/* The guest's program reads: the window opens, and the guest says so as RFC 9293 section 3.8.6.2.2 has it. */
static size_t guest_reads(size_t n)
{
	size_t sum = 0;

	for (int i = 0; i < n_fl; i++) {
		struct flow_seen *f = &fl[i];
		uint32_t before = my_window(f);

		if (f->got == f->read)
			continue;
		sum += (size_t)MIN((uint64_t)n, f->got - f->read);
		f->read += MIN((uint64_t)n, f->got - f->read);
		f->acked += my_window(f) - before;
		if (!f->fin_got && (f->acked >= f->mss || f->acked >= DOWN_MAX / 4 || f->got == f->read)) {
			f->owe_ack = true;
			f->acked = 0;
		}
	}
	return sum;
}

/* ---- vault, gate, the world ---- */

static struct flow_seen *by_slot(const struct net_head *h)
{
	for (int i = 0; i < n_fl; i++)
		if (fl[i].slot == h->slot && fl[i].gen == h->generation)
			return &fl[i];
	HOLDS(!"a flow that is known");
	return NULL;
}

static bool messages(void)
{
	union {
		struct net_head head;
		struct net_open open;
		struct net_ended ended;
		struct net_held held;
	} m;
	bool any = false;
	struct flow_seen *f;

	while (recv(vault_fd, &m, sizeof(m), MSG_DONTWAIT) > 0) {
		any = true;
		if (m.head.type == NET_OPEN_TCP) {
			f = &fl[m.open.guest_port - fl[0].port];
			f->asked = m.head;
			f->slot = m.head.slot;
			f->gen = m.head.generation;
			f->open_due = true;
		} else if (m.head.type == NET_ENDED) {
			f = by_slot(&m.head);
			HOLDS(m.ended.how == NET_END_FIN && m.ended.up == f->up && m.ended.down == f->down);
			f->ended = true;
		} else {
			HOLDS(m.head.type == NET_CONFIGURED);
		}
	}
	while (recv(gate_fd, &m, sizeof(m), MSG_DONTWAIT) > 0) {
		any = true;
		HOLDS(m.head.type == NET_HELD);
		f = by_slot(&m.head);
		f->held = true;
		f->to_hand = m.held.bytes;
		HOLDS(f->to_hand >= f->heard);
	}
	return any;
}

static bool vault_answers(struct flow_seen *f)
{
	struct net_opened m = { .head = f->asked, .outcome = f->inspected ? NET_INSPECT : NET_CONNECTED };
	int pair[2];

	if (!f->open_due)
		return false;
	f->open_due = false;
	m.head.type = NET_TCP_OPENED;
	m.head.length = sizeof(m);
	some_pair(pair);
	f->fd = pair[0];
	HOLDS(fd_send(vault_fd, &m, sizeof(m), &pair[1], 1) == (ssize_t)sizeof(m));
	(void)close(pair[1]);
	return true;
}

/* What gate does once it knows that the stream is none of its own. */
static bool gate_goes_on(struct flow_seen *f)
{
	struct net_head m = { NET_VERSION, NET_HOLD, sizeof(m), f->slot, f->gen };
	int pair[2], none = -1;

	if (!f->inspected || f->handed || f->fd < 0)
		return false;
	if (!f->hold_sent) {
		if (f->heard < f->peeked && !f->heard_fin)
			return false;
		f->hold_sent = true;
		HOLDS(fd_send(gate_fd, &m, sizeof(m), &none, 0) == (ssize_t)sizeof(m));
		return true;
	}
	if (!f->held || f->heard < f->to_hand)
		return false;
	HOLDS(f->heard == f->to_hand);
	/* Wire may see this end before it hears why. */
	(void)close(f->fd);
	if (once_in(2))
		(void)settle();
	some_pair(pair);
	f->fd = pair[0];
	f->heard_fin = false; /* the socket is another one */
	f->handed = true;
	m.type = NET_HANDOVER;
	HOLDS(fd_send(gate_fd, &m, sizeof(m), &pair[1], 1) == (ssize_t)sizeof(m));
	(void)close(pair[1]);
	return true;
}

static size_t world_reads(size_t n)
{
	static uint8_t bytes[256 << 10];
	size_t sum = 0;

	for (int i = 0; i < n_fl; i++) {
		struct flow_seen *f = &fl[i];
		size_t most = MIN(n, sizeof(bytes));
		ssize_t k;

		sum += vault_answers(f) + gate_goes_on(f);
		if (f->inspected && !f->handed)
			most = (size_t)MIN((uint64_t)most, (f->hold_sent ? f->to_hand : f->peeked) - f->heard);
		if (f->fd < 0 || f->heard_fin || most == 0)
			continue;
		k = recv(f->fd, bytes, most, MSG_DONTWAIT);
		if (k < 0)
			continue;
		HOLDS(body_is(up_of(f), f->heard, SPAN(bytes, k)));
		f->heard += (uint64_t)k;
		f->heard_fin = k == 0;
		HOLDS(!f->heard_fin || f->heard == f->up);
		sum += (size_t)k + 1;
	}
	return sum;
}

static size_t world_writes(size_t n)
{
	size_t sum = 0;

	for (int i = 0; i < n_fl; i++) {
		struct flow_seen *f = &fl[i];
		ssize_t k;

		if (f->fd < 0 || f->said_fin || (f->inspected && !f->handed))
			continue;
		if (f->said < f->down) {
			size_t most = MIN(n, (size_t)BODY_PIECE);

			most = (size_t)MIN((uint64_t)most, f->down - f->said);
			k = send(f->fd, body_at(down_of(f), f->said), most, MSG_DONTWAIT | MSG_NOSIGNAL);
			f->said += k > 0 ? (uint64_t)k : 0;
			sum += k > 0 ? (size_t)k : 0;
		} else if (!f->waits || f->heard_fin) {
			f->said_fin = true;
			(void)shutdown(f->fd, SHUT_WR);
			sum++;
		}
	}
	return sum;
}

/* ---- the run ---- */

static bool turn(void)
{
	struct ev_event batch[EV_BATCH];
	int n = ev_wait(&w.ev, batch, 0);

	HOLDS(n >= 0);
	/* Its loop would sleep. */
	if (n == 0 && (wire_until(&w) < 0 || wire_until(&w) > t_ns + idle_ns))
		return messages();
	for (int i = 0; i < n; i++)
		wire_event(&w, &batch[i]);
	wire_turn(&w, t_ns + idle_ns);
	HOLDS(!w.over);
	(void)messages();
	return true;
}

static bool over(void)
{
	for (int i = 0; i < n_fl; i++)
		if (!fl[i].ended || !fl[i].fin_got || !fl[i].heard_fin || fl[i].got != fl[i].down)
			return false;
	return true;
}

static void begin(void)
{
	const uint64_t key[2] = { 1, 2 };
	int pair[2];

	/* All but the bytes, which are never read before they were written. */
	memset(&w, 0, offsetof(struct wire, tx_hdr));
	t_ns = 5000000000;
	buf_init(&to_wire, 2 << 20);
	buf_init(&from_wire, 2 << 20);
	n_fl = 1 + (int)dice(FLOWS_MAX);
	for (int i = 0; i < n_fl; i++)
		fl[i] = (struct flow_seen){ .fd = -1,
					    .up = some_length(),
					    .down = some_length(),
					    .port = (uint16_t)(40000 + i),
					    .mss = (uint16_t)(once_in(2) ? 65480 : 1000 + dice(40000)),
					    .inspected = once_in(2),
					    .peeked = dice(16384),
					    .waits = once_in(2),
					    .scale = once_in(4) ? -1 : 7 };
	some_pair(pair);
	link_fd = pair[0];
	w.link = pair[1];
	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	vault_fd = pair[0];
	w.vault = pair[1];
	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	gate_fd = pair[0];
	HOLDS(wire_init(&w, w.link, w.vault, pair[1], -1, key, 64) == 0);
	HOLDS(write(vault_fd, &config, sizeof(config)) == sizeof(config));
	(void)settle();
}

static void end(void)
{
	int fds[] = { w.link, w.vault, w.gate, link_fd, vault_fd, gate_fd };

	/* What both ends have ended is kept for two seconds, and then nothing is left. */
	for (int i = 0; i < 4; i++) {
		t_ns += 1000000000;
		(void)settle();
		(void)link_reads(ALL);
	}
	HOLDS(w.n_flows[FLOW_TCP] == 0 && w.pool.n_free[POOL_UP] == POOL_HALF && w.pool.n_free[POOL_DOWN] == POOL_HALF);
	wire_free(&w);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)close(fds[i]);
	for (int i = 0; i < n_fl; i++)
		close_p(&fl[i].fd);
	buf_done(&to_wire);
	buf_done(&from_wire);
}

enum actor { LINK_READS, LINK_WRITES, GUEST_READS, WORLD_READS, WORLD_WRITES, ACTORS };

static size_t acts(uint32_t who, size_t n)
{
	switch (who) {
	case LINK_READS:
		return link_reads(n);
	case LINK_WRITES:
		return link_writes(n);
	case GUEST_READS:
		return guest_reads(n);
	case WORLD_READS:
		return world_reads(n);
	default:
		return world_writes(n);
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
