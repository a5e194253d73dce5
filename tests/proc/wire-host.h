/* Both sides of a real agent-vm-wire with its sandbox shut: a guest that speaks raw frames and a vault that answers as the test
 * wants. Frames out of wire come in the order in which it made them, so an ARP question is a barrier: its answer comes after all
 * that earlier frames caused in the same turn; only acknowledgements may come later, if the link was full. On a busy machine this
 * process may stand still for longer than the 200 ms after which wire sends again what was not acknowledged; get_frame() leaves
 * that out. */
#pragma once

#include "../unit/test.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../net/fakevault.h"
#include "wire/csum.h"
#include "wire/pkt.h"

struct host {
	struct wire_proc w;
	uint8_t rx[1 << 20];
	size_t rx_n, used;
	uint8_t *batch; /* if set, frames are collected here and go out with put_batch() */
	size_t batch_n;
	int64_t here_ns; /* when this side did something last */
	struct seen {
		uint16_t sport, dport, type;
		unsigned int n;
		uint32_t end; /* of what came */
		struct {
			uint32_t seq, end;
			int64_t from_ns; /* wire may have sent it then */
		} last[32];
	} seen[64];
};

struct frame {
	const uint8_t *p;
	size_t n;
	uint16_t type;
	uint8_t proto;
	const uint8_t *l4;
	size_t l4_n;
	const struct tcp_hdr *tcp;
	const uint8_t *data;
	size_t data_n;
};

static const uint8_t world4[4] = { 93, 184, 216, 34 };

static void host_start_with(struct host *h, const struct net_config *cfg, bool gate)
{
	const char *path = getenv("WIRE");
	struct pollfd p;
	char c = 0;

	CHECK(path != NULL);
	h->rx_n = h->used = h->batch_n = 0;
	h->batch = NULL;
	memset(h->seen, 0, sizeof(h->seen));
	h->here_ns = now_ns();
	h->w = wire_start(path, -1, STDERR_FILENO, gate);
	CHECK_INT(write(h->w.vault, cfg, sizeof(*cfg)), ==, sizeof(*cfg));
	p = (struct pollfd){ h->w.control, POLLIN, 0 };
	CHECK_INT(poll(&p, 1, 20000), ==, 1);
	CHECK_INT(read(h->w.control, &c, 1), ==, 1);
	CHECK_INT(c, ==, NET_CTL_READY);
	struct net_head done;
	CHECK_INT(read(h->w.vault, &done, sizeof(done)), ==, sizeof(done));
	CHECK_INT(done.type, ==, NET_CONFIGURED);
}

static void host_start(struct host *h)
{
	host_start_with(h, &fake_config, false);
}

/* The wait status of a wire that is to end by itself. */
static int wire_status(struct host *h)
{
	int status;

	for (int i = 0; i < 6000; i++) {
		pid_t pid = waitpid(h->w.pid, &status, WNOHANG);

		CHECK(pid == 0 || pid == h->w.pid);
		if (pid != 0)
			return status;
		(void)usleep(10000);
	}
	fail_msg("wire does not end");
	return -1;
}

/* It must still live; then it is told that the monitor is gone and must end by itself with 0. */
static void host_end(struct host *h)
{
	int status = -1;

	CHECK_INT(waitpid(h->w.pid, &status, WNOHANG), ==, 0);
	(void)close(h->w.link);
	status = wire_status(h);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("wire ended with wait status %#x", (unsigned int)status);
	(void)close(h->w.vault);
	(void)close(h->w.control);
	if (h->w.gate >= 0)
		(void)close(h->w.gate);
}

static void put_raw(struct host *h, uint32_t len, const void *p, size_t n)
{
	uint8_t head[4];

	put32(head, len);
	if (h->batch) {
		memcpy(h->batch + h->batch_n, head, 4);
		memcpy(h->batch + h->batch_n + 4, p, n);
		h->batch_n += 4 + n;
		return;
	}
	CHECK_INT(fd_write_all(h->w.link, head, 4), ==, 0);
	CHECK_INT(fd_write_all(h->w.link, p, n), ==, 0);
	h->here_ns = now_ns();
}

/* The frames that were collected in one piece: wire finds all of them there when it finds one. */
__attribute__((unused)) static void put_batch(struct host *h)
{
	uint8_t *batch = h->batch;

	h->batch = NULL;
	CHECK_INT(fd_write_all(h->w.link, batch, h->batch_n), ==, 0);
	h->batch_n = 0;
	h->here_ns = now_ns();
}

static void put_frame(struct host *h, const void *p, size_t n)
{
	put_raw(h, (uint32_t)n, p, n);
}

static size_t eth_make(uint8_t *p, uint16_t type)
{
	memcpy(p, fake_config.gateway_mac, 6);
	memcpy(p + 6, fake_config.guest_mac, 6);
	put16(p + 12, type);
	return ETH_LEN;
}

static size_t ip4_make(uint8_t *p, const uint8_t dst[4], uint8_t proto, size_t n)
{
	struct ip4_hdr *i = (struct ip4_hdr *)(p + eth_make(p, ETH_IP4));

	*i = (struct ip4_hdr){ .vihl = 0x45, .len = be16((uint16_t)(IP4_LEN + n)), .ttl = 64, .proto = proto };
	memcpy(i->src, fake_config.guest4, 4);
	memcpy(i->dst, dst, 4);
	i->sum = (uint16_t)~csum_fold(csum_add(i, IP4_LEN));
	return ETH_LEN + IP4_LEN;
}

__attribute__((unused)) static size_t ip6_make(uint8_t *p, const uint8_t dst[16], uint8_t next, size_t n)
{
	struct ip6_hdr *i = (struct ip6_hdr *)(p + eth_make(p, ETH_IP6));

	*i = (struct ip6_hdr){ .vtf = be32(0x60000000), .len = be16((uint16_t)n), .next = next, .hops = 255 };
	memcpy(i->src, fake_config.guest6, 16);
	memcpy(i->dst, dst, 16);
	return ETH_LEN + IP6_LEN;
}

__attribute__((unused)) static void ip4_sum(uint8_t *p)
{
	struct ip4_hdr *i = (struct ip4_hdr *)(p + ETH_LEN);

	i->sum = 0;
	i->sum = (uint16_t)~csum_fold(csum_add(i, IP4_LEN));
}

struct seg {
	const uint8_t *dst; /* NULL: world4 */
	uint16_t sport, dport, win;
	uint32_t seq, ack;
	uint8_t flags;
	const void *opts, *data;
	size_t opts_n, data_n;
};

static uint8_t frame_mem[70000];

static size_t seg_make(uint8_t *f, const struct seg *s)
{
	size_t at = ip4_make(f, s->dst ? s->dst : world4, PROTO_TCP, TCP_LEN + s->opts_n + s->data_n);
	struct tcp_hdr *t = (struct tcp_hdr *)(f + at);

	*t = (struct tcp_hdr){ .sport = be16(s->sport), .dport = be16(s->dport), .seq = be32(s->seq), .ack = be32(s->ack),
			       .off = (uint8_t)((TCP_LEN + s->opts_n) / 4 << 4), .flags = s->flags, .win = be16(s->win) };
	if (s->opts_n > 0)
		memcpy(f + at + TCP_LEN, s->opts, s->opts_n);
	if (s->data_n > 0)
		memcpy(f + at + TCP_LEN + s->opts_n, s->data, s->data_n);
	return at + TCP_LEN + s->opts_n + s->data_n;
}

static void put_seg(struct host *h, const struct seg *s)
{
	put_frame(h, frame_mem, seg_make(frame_mem, s));
}

static void put_arp(struct host *h, const uint8_t ask[4])
{
	uint8_t f[ETH_LEN + 28];
	struct arp_pkt *a = (struct arp_pkt *)(f + eth_make(f, ETH_ARP));

	memset(f, 0xff, 6);
	*a = (struct arp_pkt){ .hw = be16(1), .proto = be16(ETH_IP4), .hw_len = 6, .proto_len = 4, .op = be16(1) };
	memcpy(a->sha, fake_config.guest_mac, 6);
	memcpy(a->spa, fake_config.guest4, 4);
	memcpy(a->tpa, ask, 4);
	put_frame(h, f, sizeof(f));
}

/* The sum of a TCP, UDP or ICMPv6 segment with its pseudo-header must be right: the guest's kernel verifies it. */
static void check_sums(const struct frame *f)
{
	const uint8_t *src = f->p + ETH_LEN + (f->type == ETH_IP4 ? 12 : 8);
	uint64_t sum = csum_add(src, f->type == ETH_IP4 ? 8 : 32) + be16(f->proto) + be16((uint16_t)f->l4_n) +
		       csum_add(f->l4, f->l4_n);

	if (f->type == ETH_IP4)
		CHECK_INT(csum_fold(csum_add(f->p + ETH_LEN, IP4_LEN)), ==, 0xffff);
	if (f->proto == PROTO_TCP || f->proto == PROTO_ICMP6)
		CHECK_INT(csum_fold(sum), ==, 0xffff);
	if (f->proto == PROTO_ICMP)
		CHECK_INT(csum_fold(csum_add(f->l4, f->l4_n)), ==, 0xffff);
}

static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* Data, a SYN or a FIN that came already, in whatever pieces, so long ago that wire has every right to send it again. */
static bool is_sent_again(struct host *h, const struct frame *f)
{
	int64_t from_ns = h->here_ns, first_ns = INT64_MAX;
	unsigned int i, n;
	uint32_t seq, end;
	struct seen *s;

	h->here_ns = now_ns();
	if (!f->tcp || (f->data_n == 0 && !(f->tcp->flags & (TH_SYN | TH_FIN))))
		return false;
	seq = be32(f->tcp->seq);
	end = seq + (uint32_t)f->data_n + ((f->tcp->flags & (TH_SYN | TH_FIN)) != 0);
	s = &h->seen[be16(f->tcp->dport) % ARRAY_SIZE(h->seen)];
	if (s->n == 0 || s->type != f->type || s->sport != f->tcp->sport || s->dport != f->tcp->dport)
		*s = (struct seen){ .sport = f->tcp->sport, .dport = f->tcp->dport, .type = f->type, .end = seq };
	n = MIN(s->n, (unsigned int)ARRAY_SIZE(s->last));
	for (i = 0; i < n; i++)
		if (!is_before(seq, s->last[i].seq) && is_before(seq, s->last[i].end))
			first_ns = MIN(first_ns, s->last[i].from_ns);
	if (first_ns < INT64_MAX && !is_before(s->end, end) && h->here_ns - first_ns > INT64_C(190000000))
		return true;
	i = s->n++ % ARRAY_SIZE(s->last);
	s->last[i].seq = seq;
	s->last[i].end = end;
	s->last[i].from_ns = from_ns;
	if (is_before(s->end, end))
		s->end = end;
	return false;
}

/* The next frame within @ms, whatever it is; false: none. It is valid until the next call. */
static bool get_any_frame(struct host *h, struct frame *f, int ms)
{
	size_t len;

	memmove(h->rx, h->rx + h->used, h->rx_n - h->used);
	h->rx_n -= h->used;
	h->used = 0;
	for (;;) {
		struct pollfd p = { h->w.link, POLLIN, 0 };
		ssize_t k;

		if (h->rx_n >= 4) {
			len = (size_t)get16(h->rx) << 16 | get16(h->rx + 2);
			CHECK_INT(len, <=, 65520 + ETH_LEN);
			if (h->rx_n >= 4 + len)
				break;
		}
		if (poll(&p, 1, ms) == 0)
			return false;
		k = read(h->w.link, h->rx + h->rx_n, sizeof(h->rx) - h->rx_n);
		if (k <= 0)
			return false;
		h->rx_n += (size_t)k;
	}
	h->used = 4 + len;
	*f = (struct frame){ .p = h->rx + 4, .n = len, .type = get16(h->rx + 4 + 12) };
	CHECK(memcmp(f->p, fake_config.guest_mac, 6) == 0 && memcmp(f->p + 6, fake_config.gateway_mac, 6) == 0);
	if (f->type == ETH_IP4) {
		const struct ip4_hdr *i = (const struct ip4_hdr *)(f->p + ETH_LEN);

		f->proto = i->proto;
		f->l4 = f->p + ETH_LEN + IP4_LEN;
		f->l4_n = len - ETH_LEN - IP4_LEN;
		CHECK_INT(be16(i->len), ==, len - ETH_LEN);
		CHECK(memcmp(i->dst, fake_config.guest4, 4) == 0);
	} else if (f->type == ETH_IP6) {
		const struct ip6_hdr *i = (const struct ip6_hdr *)(f->p + ETH_LEN);

		f->proto = i->next;
		f->l4 = f->p + ETH_LEN + IP6_LEN;
		f->l4_n = len - ETH_LEN - IP6_LEN;
		CHECK_INT(be16(i->len), ==, f->l4_n);
	}
	if (f->type != ETH_ARP)
		check_sums(f);
	if (f->proto == PROTO_TCP) {
		f->tcp = (const struct tcp_hdr *)f->l4;
		f->data = f->l4 + (f->tcp->off >> 4) * 4;
		f->data_n = f->l4_n - (size_t)(f->tcp->off >> 4) * 4;
	}
	return true;
}

static bool get_frame(struct host *h, struct frame *f, int ms)
{
	do
		if (!get_any_frame(h, f, ms))
			return false;
	while (is_sent_again(h, f));
	return true;
}

/* A segment with these flags must come next. */
static struct frame want_tcp(struct host *h, uint8_t flags)
{
	struct frame f;

	CHECK(get_frame(h, &f, 20000));
	CHECK(f.tcp != NULL);
	CHECK_INT(f.tcp->flags & ~TH_PSH, ==, flags);
	return f;
}

/* What was sent so far caused no frame but those already read. */
__attribute__((unused)) static void want_silence(struct host *h)
{
	struct frame f;

	put_arp(h, fake_config.gateway4);
	CHECK(get_frame(h, &f, 20000));
	if (f.type != ETH_ARP)
		fail_msg("an unexpected frame: type %#x protocol %u flags %#x", f.type, f.proto, f.tcp ? f.tcp->flags : 0);
}

union vault_msg {
	struct net_head head;
	struct net_open open;
	struct net_dns_ask ask;
	struct net_ended ended;
	struct net_opened opened;
	struct net_datagram dgram;
	struct net_held held;
	uint8_t b[70000];
};
static union vault_msg vm;

static bool get_msg_of(int fd, int ms)
{
	struct pollfd p = { fd, POLLIN, 0 };

	if (poll(&p, 1, ms) == 0)
		return false;
	return recv(fd, &vm, sizeof(vm), 0) > 0;
}

static void want_msg(struct host *h, uint16_t type)
{
	CHECK(get_msg_of(h->w.vault, 20000));
	CHECK_INT(vm.head.type, ==, type);
	CHECK_INT(vm.head.version, ==, NET_VERSION);
}

/* Until wire has taken what vault sent: it does so before it looks at a frame that comes later. */
__attribute__((unused)) static void wait_for_vaults_word(struct host *h)
{
	int unread = 1;

	for (int i = 0; i < 20000 && unread > 0; i++) {
		CHECK_INT(ioctl(h->w.vault, SIOCOUTQ, &unread), ==, 0);
		if (unread > 0)
			(void)usleep(1000);
	}
	CHECK_INT(unread, ==, 0);
}

/* After want_silence(): vault heard nothing. */
static void want_no_msg(struct host *h)
{
	if (get_msg_of(h->w.vault, 0))
		fail_msg("an unexpected message %#x", vm.head.type);
}

struct conn {
	int fd; /* the world's end */
	uint16_t sport, dport;
	uint32_t seq, ack; /* of the guest's next segment */
	struct net_head q;
};

/* A whole handshake with a stream pair as the world. */
static struct conn connect_port(struct host *h, uint16_t sport, uint16_t dport, uint32_t outcome, uint8_t scale)
{
	const uint8_t opts[8] = { 2, 4, 0xff, 0xc8, 1, 3, 3, scale };
	struct conn c = { .sport = sport, .dport = dport, .seq = 1000 };
	struct frame f;
	int sv[2];

	put_seg(h, &(struct seg){ .sport = sport, .dport = dport, .seq = c.seq++, .flags = TH_SYN, .win = 65535, .opts = opts,
				  .opts_n = 8 });
	want_msg(h, NET_OPEN_TCP);
	c.q = vm.head;
	CHECK_INT(vm.open.port, ==, dport);
	CHECK_INT(vm.open.guest_port, ==, sport);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), ==, 0);
	fake_answer(h->w.vault, &c.q, outcome, 0, sv[1]);
	(void)close(sv[1]);
	c.fd = sv[0];
	f = want_tcp(h, TH_SYN | TH_ACK);
	CHECK_INT(be32(f.tcp->ack), ==, c.seq);
	c.ack = be32(f.tcp->seq) + 1;
	put_seg(h, &(struct seg){ .sport = sport, .dport = dport, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 65535 });
	return c;
}

__attribute__((unused)) static struct conn connect_ok(struct host *h, uint16_t sport)
{
	return connect_port(h, sport, 80, NET_CONNECTED, 0);
}

static void put_data(struct host *h, struct conn *c, const void *p, size_t n, uint8_t flags)
{
	put_seg(h, &(struct seg){ .sport = c->sport, .dport = c->dport, .seq = c->seq, .ack = c->ack, .flags = TH_ACK | flags,
				  .win = 65535, .data = p, .data_n = n });
	c->seq += (uint32_t)n + (flags & TH_FIN ? 1 : 0);
}

/* The flow works both ways. */
__attribute__((unused)) static void check_alive(struct host *h, struct conn *c)
{
	struct pollfd p = { c->fd, POLLIN, 0 };
	struct frame f;
	char b[8];

	put_data(h, c, "up", 2, TH_PSH);
	CHECK_INT(poll(&p, 1, 20000), ==, 1);
	CHECK_INT(read(c->fd, b, sizeof(b)), ==, 2);
	CHECK(memcmp(b, "up", 2) == 0);
	CHECK_INT(write(c->fd, "down", 4), ==, 4);
	do
		CHECK(get_frame(h, &f, 20000));
	while (!f.tcp || f.data_n == 0);
	CHECK(f.data_n == 4 && memcmp(f.data, "down", 4) == 0);
	CHECK_INT(be32(f.tcp->seq), ==, c->ack);
	CHECK_INT(be32(f.tcp->ack), ==, c->seq);
	c->ack += 4;
	put_data(h, c, NULL, 0, 0);
}
