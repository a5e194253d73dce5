/* A guest and its vault against the whole of wire, without the process: frames, answers, bytes of the world and time as the
 * input says. Whatever comes, the tables stay consistent, nothing is written to the link that is no frame, and at the end all is
 * given back.
 *
 * Input: records of a byte. 0..127: a frame follows, its length in two bytes; addresses are filled in unless bit 0 is set. 128..:
 * 128 answer the oldest open question with a pair; 129 refuse it; 130 bytes from the world; 131 the world closes; 132 time passes
 * (a byte of 50 ms); 133 the guest reads nothing for a while; 134 a DNS answer; 135 a published connection; 136 HOLD and HANDOVER;
 * 137 answer it with a pair that gate inspects. Bit 5 of a frame: TCP numbers near those that wire sent last. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "wire/csum.h"
#include "wire/flow.h"

#define WORLD 64
#define OPENS 64

static struct wire w;
static int link_fd, vault_fd, gate_fd, world[WORLD];
static struct net_head opens[OPENS], asks[OPENS];
static size_t n_world, n_opens, n_asks;
static int64_t t_ns;
static bool stopped;
static uint32_t last_seq, last_ack;
static uint16_t last_sport, last_dport;

static const struct net_config config = {
	.head = { NET_VERSION, NET_CONFIG, sizeof(struct net_config), 0, 0 },
	.guest_mac = { 2, 0x61, 0x76, 1, 2, 3 }, .gateway_mac = { 2, 0x61, 0x76, 0, 0, 1 }, .guest4 = { 192, 0, 0, 2 },
	.gateway4 = { 192, 0, 0, 1 }, .guest6 = { 0xfd, 0x6b, [15] = 2 }, .gateway6 = { 0xfd, 0x6b, [15] = 1 }, .mtu = 65520, .ipv6 = 1,
};

static void queue_check(enum flow_queue q)
{
	uint32_t n = 0;

	for (uint16_t i = w.q[q].head; i; i = w.flow[i - 1].qnext) {
		MUST(w.flow[i - 1].queue == q);
		MUST(++n <= FLOWS);
	}
	MUST(n == w.q[q].n);
}

static void state_check(void)
{
	unsigned int asked = 0, chunks = 0;

	for (int q = Q_READY; q < QUEUES; q++)
		queue_check(q);
	for (int k = FLOW_TCP; k <= FLOW_ECHO; k++) {
		unsigned int first = k == FLOW_TCP ? 0 : k == FLOW_UDP ? UDP_FIRST : ECHO_FIRST;

		for (unsigned int i = first; i < first + w.n_fresh[k]; i++) {
			const struct flow *f = &w.flow[i];

			if (f->state == ST_FREE)
				continue;
			MUST(f->kind == k);
			asked += f->kind == FLOW_TCP && (f->state == ST_ASKED || (f->state == ST_DEAD && f->flags & F_ASKED));
			MUST(f->state != ST_DEAD || (f->fd < 0 && f->ring.len + f->store.len + f->ooo.len == 0));
			MUST(f->ring.len <= (2u << 20) && f->store.len + f->ooo.len <= (1u << 20) + 65536);
			chunks += (f->ring.len + CHUNK - 1) / CHUNK + (f->store.len + CHUNK - 1) / CHUNK;
			if (f->kind == FLOW_TCP && f->state == ST_OPEN) {
				MUST(seq_diff(f->snd_nxt, f->snd_una) >= 0 && seq_diff(f->snd_max, f->snd_nxt) >= 0);
				MUST(f->snd_max - f->snd_una <= f->ring.len + 1);
				MUST(seq_diff(f->rcv_adv, f->rcv_nxt) >= 0);
			}
		}
	}
	MUST(asked == w.n_asked && asked <= TCP_ASKED_MAX);
	MUST(chunks <= POOL_WAYS * POOL_HALF);
}

static void link_drain(void)
{
	static uint8_t b[1 << 20];
	static size_t n;
	ssize_t k;

	while (!stopped && (k = recv(link_fd, b + n, sizeof(b) - n, MSG_DONTWAIT)) > 0) {
		size_t at = 0;

		n += (size_t)k;
		while (n - at >= 4) {
			size_t len = (size_t)get16(b + at) << 16 | get16(b + at + 2);
			const uint8_t *f = b + at + 4;

			MUST(len >= ETH_LEN && len <= 65520 + ETH_LEN);
			if (n - at < 4 + len)
				break;
			MUST(memcmp(f, config.guest_mac, 6) == 0);
			if (get16(f + 12) == ETH_IP4) {
				MUST(csum_fold(csum_add(f + ETH_LEN, IP4_LEN)) == 0xffff);
				MUST(get16(f + ETH_LEN + 2) == len - ETH_LEN);
				if (f[ETH_LEN + 9] == PROTO_TCP) {
					const struct tcp_hdr *t = (const struct tcp_hdr *)(f + ETH_LEN + IP4_LEN);
					uint64_t s = csum_add(f + ETH_LEN + 12, 8) + be16(PROTO_TCP) +
						     be16((uint16_t)(len - ETH_LEN - IP4_LEN)) +
						     csum_add(t, len - ETH_LEN - IP4_LEN);

					MUST(csum_fold(s) == 0xffff);
					last_seq = be32(t->ack);
					last_ack = be32(t->seq) + (uint32_t)(len - ETH_LEN - IP4_LEN - (t->off >> 4) * 4u) +
						   (t->flags & (TH_SYN | TH_FIN) ? 1 : 0);
					last_sport = be16(t->dport);
					last_dport = be16(t->sport);
				}
			}
			at += 4 + len;
		}
		memmove(b, b + at, n - at);
		n -= at;
	}
	if (n > 0 && w.over)
		n = 0;
}

static void vault_drain(void)
{
	static uint8_t b[70000];
	struct net_head h;
	ssize_t k;

	while ((k = recv(vault_fd, b, sizeof(b), MSG_DONTWAIT)) > 0) {
		memcpy(&h, b, sizeof(h));
		MUST(h.version == NET_VERSION && h.length == (uint32_t)k);
		if ((h.type == NET_OPEN_TCP || h.type == NET_OPEN_UDP || h.type == NET_OPEN_ECHO) && n_opens < OPENS)
			opens[n_opens++] = h;
		if (h.type == NET_DNS_ASK) {
			const struct net_dns_ask *a = (const struct net_dns_ask *)b;

			MUST(a->name_len >= 1 && a->name[a->name_len - 1] == 0);
			if (n_asks < OPENS)
				asks[n_asks++] = h;
		}
	}
}

static void turn(void)
{
	struct ev_event e[EV_BATCH];

	for (int i = 0; i < 4 && !w.over; i++) {
		int n = ev_wait(&w.ev, e, 0);

		for (int k = 0; k < n; k++)
			wire_event(&w, &e[k]);
		wire_turn(&w, t_ns);
		link_drain();
		vault_drain();
	}
	state_check();
}

static void answer(uint32_t outcome)
{
	struct net_opened m = { .head = opens[0], .outcome = outcome };
	int sv[2] = { -1, -1 };

	if (n_opens == 0 || (outcome == NET_CONNECTED && n_world == WORLD))
		return;
	m.head.type++;
	m.head.length = sizeof(m);
	if (outcome != NET_REFUSED)
		MUST(socketpair(AF_UNIX, m.head.type == NET_TCP_OPENED ? SOCK_STREAM | SOCK_NONBLOCK : SOCK_DGRAM | SOCK_NONBLOCK, 0, sv) == 0);
	if (outcome == NET_INSPECT && m.head.type != NET_TCP_OPENED)
		m.outcome = NET_CONNECTED;
	(void)fd_send(vault_fd, &m, sizeof(m), &sv[1], sv[1] >= 0);
	if (sv[0] >= 0) {
		(void)close(sv[1]);
		world[n_world++] = sv[0];
	}
	memmove(opens, opens + 1, --n_opens * sizeof(*opens));
}

static void say(const void *m, size_t n, int fd)
{
	(void)fd_send(vault_fd, m, n, &fd, fd >= 0);
}

static void inbound(void)
{
	static uint32_t n;
	struct net_inbound m = { { NET_VERSION, NET_INBOUND, sizeof(m), n++, 1 }, 80, NET_V4, 0 };
	int sv[2];

	if (n_world == WORLD)
		return;
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) == 0);
	say(&m, sizeof(m), sv[1]);
	(void)close(sv[1]);
	world[n_world++] = sv[0];
}

static void dns_say(void)
{
	struct {
		struct net_dns_answer m;
		uint8_t b[12];
	} __attribute__((packed)) m = { .m = { { NET_VERSION, NET_DNS_ANSWER, sizeof(m), 0, 0 }, 12 }, .b = { 0, 0, 0x81 } };

	if (n_asks == 0)
		return;
	m.m.head.slot = asks[0].slot;
	m.m.head.generation = asks[0].generation;
	say(&m, sizeof(m), -1);
	memmove(asks, asks + 1, --n_asks * sizeof(*asks));
}

static void handover(void)
{
	struct net_head m = { NET_VERSION, NET_HOLD, sizeof(m), 0, 0 };
	uint8_t b[64];
	int sv[2], none = -1;

	for (unsigned int i = 0; i < w.n_fresh[FLOW_TCP]; i++)
		if (w.flow[i].flags & F_INSPECT && !(w.flow[i].flags & F_HELD) && w.flow[i].state != ST_DEAD &&
		    w.flow[i].state != ST_FREE && n_world < WORLD) {
			m.slot = i;
			m.generation = w.flow[i].gen;
			(void)fd_send(gate_fd, &m, sizeof(m), &none, 0);
			turn();
			(void)recv(gate_fd, b, sizeof(b), MSG_DONTWAIT);
			m.type = NET_HANDOVER;
			MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) == 0);
			(void)fd_send(gate_fd, &m, sizeof(m), &sv[1], 1);
			(void)close(sv[1]);
			world[n_world++] = sv[0];
			return;
		}
}

static void frame(uint8_t how, const uint8_t *p, size_t n)
{
	static uint8_t f[4 + 65600];

	put32(f, (uint32_t)n);
	memcpy(f + 4, p, n);
	if (!(how & 1) && n >= ETH_LEN) {
		memcpy(f + 4, config.gateway_mac, 6);
		memcpy(f + 10, config.guest_mac, 6);
		if (how & 2)
			put16(f + 16, ETH_IP4);
		if (get16(f + 16) == ETH_IP4 && n >= ETH_LEN + IP4_LEN) {
			struct ip4_hdr *i = (struct ip4_hdr *)(f + 4 + ETH_LEN);

			i->vihl = 0x45;
			memcpy(i->src, config.guest4, 4);
			if (how & 4)
				i->len = be16((uint16_t)(n - ETH_LEN));
			if (how & 8)
				i->frag = 0;
			if (how & 16)
				i->proto = PROTO_TCP;
			if (i->proto == PROTO_TCP && n >= ETH_LEN + IP4_LEN + TCP_LEN && how & 32) {
				struct tcp_hdr *t = (struct tcp_hdr *)(i + 1);

				t->sport = be16(last_sport);
				t->dport = be16(last_dport);
				t->seq = be32(be32(t->seq) % 4096 + last_seq);
				t->ack = be32(last_ack - be32(t->ack) % 4096);
				t->off = 0x50;
			}
			i->sum = 0;
			i->sum = (uint16_t)~csum_fold(csum_add(i, IP4_LEN));
		} else if (get16(f + 16) == ETH_IP6 && n >= ETH_LEN + IP6_LEN) {
			memcpy(f + 4 + ETH_LEN + 8, config.guest6, 16);
		}
	}
	(void)!send(link_fd, f, 4 + n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void world_do(bool end, uint8_t arg)
{
	static uint8_t b[70000];
	int fd;

	if (n_world == 0)
		return;
	fd = world[arg % n_world];
	if (end) {
		(void)shutdown(fd, SHUT_WR);
		return;
	}
	while (recv(fd, b, sizeof(b), MSG_DONTWAIT) > 0)
		;
	(void)!send(fd, b, (size_t)arg * 257, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const uint64_t key[2] = { 1, 2 };
	int l[2], v[2], g[2];

	/* All but the bytes, which are never read before they were written. */
	memset(&w, 0, offsetof(struct wire, tx_hdr));
	n_world = n_opens = n_asks = 0;
	stopped = false;
	t_ns = 5000000000;
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, l) == 0);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, v) == 0);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, g) == 0);
	link_fd = l[0];
	vault_fd = v[0];
	gate_fd = g[0];
	MUST(wire_init(&w, l[1], v[1], g[1], -1, key, 64) == 0);
	MUST(write(vault_fd, &config, sizeof(config)) == sizeof(config));
	turn();
	while (n > 0 && !w.over) {
		uint8_t op = *p++, arg = --n > 0 ? *p : 0;
		size_t len;

		if (op < 128) {
			if (n < 2)
				break;
			len = get16(p);
			p += 2;
			n -= 2;
			len = MIN(len, n);
			frame(op, p, len);
			p += len;
			n -= len;
		} else {
			switch (op) {
			case 128: answer(NET_CONNECTED); break;
			case 129: answer(NET_REFUSED); break;
			case 130: world_do(false, arg); break;
			case 131: world_do(true, arg); break;
			case 132: t_ns += (int64_t)arg * 50000000; break;
			case 133: stopped = !stopped; break;
			case 134: dns_say(); break;
			case 135: inbound(); break;
			case 136: handover(); break;
			case 137: answer(NET_INSPECT); break;
			default: break;
			}
		}
		turn();
	}
	stopped = false;
	wire_free(&w);
	(void)close(l[0]), (void)close(l[1]), (void)close(v[0]), (void)close(v[1]), (void)close(g[0]), (void)close(g[1]);
	while (n_world > 0)
		(void)close(world[--n_world]);
	link_drain();
	return 0;
}
