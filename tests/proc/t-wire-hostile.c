/* A hostile guest: the rows of network page 13 against a real wire with its sandbox on. The number of a row is in the name.
 *
 *   1-22, 24-29, 31-34, 36, 37, 39   here
 *   23           here; on every flow at once in t-wire-limits.c
 *   30           t-wire-limits.c
 *   34           here; the slow one in t-wire-limits.c
 *   35           vault's side is tests/net/test_vault.py (test_too_many_names), both together test_both.py
 *   36           here; by a real ping socket in tests/net/test_both.py
 *   38           gate's
 *
 * What a well-behaved connection notices of rows 3-5, 7, 8, 10, 12, 13, 15-19, 21, 24, 31-33, 35-37: tests/net/test_hostile.py.
 * Random frames and sequences of them: tests/fuzz/fuzz-wire.c. */
#include "wire-host.h"

#include <sys/resource.h>

static struct host h;

static void put_udp(struct host *x, const uint8_t dst[4], uint16_t sport, uint16_t dport, const void *p, size_t n)
{
	size_t at = ip4_make(frame_mem, dst, PROTO_UDP, UDP_LEN + n);
	struct udp_hdr *u = (struct udp_hdr *)(frame_mem + at);

	*u = (struct udp_hdr){ .sport = be16(sport), .dport = be16(dport), .len = be16((uint16_t)(UDP_LEN + n)) };
	memcpy(u + 1, p, n);
	put_frame(x, frame_mem, at + UDP_LEN + n);
}

static void syn_make(uint8_t *f, size_t *n)
{
	*n = seg_make(f, &(struct seg){ .sport = 4000, .dport = 80, .seq = 1, .flags = TH_SYN, .win = 1000 });
}

TEST(row_1_lengths_that_are_no_frames_are_skipped)
{
	static uint8_t big[1 << 20];
	int status;

	host_start(&h);
	put_raw(&h, 0, big, 0);
	put_raw(&h, 13, big, 13);
	put_raw(&h, 65551, big, 65551);
	put_raw(&h, 1 << 20, big, 1 << 20);
	want_silence(&h);
	put_raw(&h, (1 << 20) + 1, big, 0); /* wire may be gone before a byte more is written */
	status = wire_status(&h);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	char text[200] = "";
	(void)!read(h.w.control, text, sizeof(text) - 1);
	CHECK(text[0] == NET_CTL_ERROR && strstr(text + 1, "link out of step"));
}

TEST(row_2_a_link_closed_in_mid_frame_is_a_monitor_that_is_gone)
{
	host_start(&h);
	put_raw(&h, 100, frame_mem, 50);
	host_end(&h);
}

TEST(rows_3_to_7_foreign_frames_and_addresses_are_dropped)
{
	static const uint16_t types[] = { 0x8100, 0x88cc, 0x0100, 0x0000, 0x8863 };
	uint8_t f[200];
	size_t n;

	host_start(&h);
	memset(f, 0, sizeof(f));
	put_frame(&h, f, 60);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		syn_make(f, &n);
		put16(f + 12, types[i]);
		put_frame(&h, f, n);
	}
	for (int i = 0; i < 4; i++) {
		syn_make(f, &n);
		if (i == 0)
			f[11] ^= 1; /* foreign source */
		if (i == 1)
			f[6] |= 1; /* group source */
		if (i == 2)
			memcpy(f + 6, fake_config.gateway_mac, 6);
		if (i == 3)
			f[5] ^= 1; /* to nobody */
		put_frame(&h, f, n);
	}
	static const uint8_t src[][4] = { { 192, 0, 0, 1 }, { 127, 0, 0, 1 }, { 0, 0, 0, 0 }, { 192, 168, 1, 5 } };
	for (size_t i = 0; i < ARRAY_SIZE(src); i++) {
		syn_make(f, &n);
		memcpy(f + ETH_LEN + 12, src[i], 4);
		ip4_sum(f);
		put_frame(&h, f, n);
	}
	static const uint8_t src6[][16] = { { [10] = 0xff, 0xff, 192, 0, 0, 2 }, { 0xfe, 0x80, [15] = 9 }, { 0x20, 1, [15] = 5 } };
	static const uint8_t dst6[16] = { 0x20, 1, 0x48, 0x60, [15] = 1 };
	for (size_t i = 0; i < ARRAY_SIZE(src6); i++) {
		size_t at = ip6_make(f, dst6, PROTO_TCP, TCP_LEN);

		memcpy(f + ETH_LEN + 8, src6[i], 16);
		*(struct tcp_hdr *)(f + at) = (struct tcp_hdr){ .sport = be16(5), .dport = be16(80), .off = 0x50, .flags = TH_SYN };
		put_frame(&h, f, at + TCP_LEN);
	}
	put_seg(&h, &(struct seg){ .dst = fake_config.guest4, .sport = 80, .dport = 80, .seq = 1, .flags = TH_SYN });
	put_seg(&h, &(struct seg){ .dst = fake_config.guest4, .sport = 80, .dport = 81, .seq = 1, .flags = TH_SYN });
	want_silence(&h);
	want_no_msg(&h);
	host_end(&h);
}

TEST(row_8_arp_teaches_nothing)
{
	uint8_t f[ETH_LEN + 28];
	struct arp_pkt *a = (struct arp_pkt *)(f + eth_make(f, ETH_ARP));
	static const uint8_t other[4] = { 192, 0, 0, 3 };

	host_start(&h);
	*a = (struct arp_pkt){ .hw = be16(1), .proto = be16(ETH_IP4), .hw_len = 6, .proto_len = 4, .op = be16(2) };
	memcpy(a->sha, fake_config.guest_mac, 6);
	memcpy(a->spa, fake_config.gateway4, 4); /* claims the gateway's */
	memcpy(a->tpa, fake_config.gateway4, 4);
	put_frame(&h, f, sizeof(f));
	a->op = be16(1);
	put_frame(&h, f, sizeof(f));
	memcpy(a->spa, fake_config.guest4, 4); /* gratuitous */
	memcpy(a->tpa, fake_config.guest4, 4);
	put_frame(&h, f, sizeof(f));
	put_arp(&h, other);
	put_frame(&h, f, sizeof(f) - 1);
	want_silence(&h);
	host_end(&h);
}

static void put_nd(const uint8_t src[16], const uint8_t target[16], uint8_t type, uint8_t hops)
{
	static const uint8_t group[16] = { 0xff, 2, [11] = 1, 0xff, 0, 0, 1 };
	uint8_t f[200];
	size_t at = ip6_make(f, group, PROTO_ICMP6, 24);
	struct nd_hdr *n = (struct nd_hdr *)(f + at);

	memcpy(f, "\x33\x33\xff\x00\x00\x01", 6);
	memcpy(f + ETH_LEN + 8, src, 16);
	f[ETH_LEN + 7] = hops;
	*n = (struct nd_hdr){ .type = type };
	memcpy(n->target, target, 16);
	put_frame(&h, f, at + 24);
}

TEST(row_9_nd_answers_for_the_gateway_and_learns_nothing)
{
	static const uint8_t zero[16], other[16] = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 9 };
	static const uint8_t ll_gateway[16] = { 0xfe, 0x80, [15] = 1 };
	uint8_t syn[100];
	struct frame f;
	size_t at;

	host_start(&h);
	put_nd(fake_config.guest6, fake_config.gateway6, 135, 255);
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_ICMP6 && f.l4[0] == 136 && memcmp(f.l4 + 8, fake_config.gateway6, 16) == 0);
	put_nd(fake_config.guest6, fake_config.gateway6, 136, 255);
	put_nd(fake_config.guest6, fake_config.gateway6, 137, 255);
	put_nd(fake_config.guest6, fake_config.gateway6, 134, 255);
	put_nd(fake_config.guest6, fake_config.gateway6, 133, 255);
	put_nd(fake_config.guest6, fake_config.gateway6, 135, 254);
	put_nd(zero, fake_config.gateway6, 135, 255);
	put_nd(fake_config.guest6, other, 135, 255);
	want_silence(&h);
	want_no_msg(&h);
	/* What it resolves to is nobody's to connect to, and that is vault's to say: silence would hold the caller for minutes. */
	at = ip6_make(syn, ll_gateway, PROTO_TCP, TCP_LEN);
	*(struct tcp_hdr *)(syn + at) = (struct tcp_hdr){ .sport = be16(5), .dport = be16(80), .off = 0x50, .flags = TH_SYN };
	put_frame(&h, syn, at + TCP_LEN);
	want_msg(&h, NET_OPEN_TCP);
	CHECK(memcmp(vm.open.dst.b, ll_gateway, 16) == 0);
	host_end(&h);
}

TEST(rows_10_to_12_broken_ip_headers_and_options_are_dropped)
{
	static const uint8_t dst6[16] = { 0x20, 1, 0x48, 0x60, [15] = 1 };
	uint8_t f[9000];
	size_t n;

	host_start(&h);
	for (int i = 0; i < 5; i++) {
		syn_make(f, &n);
		if (i == 0)
			f[ETH_LEN] = 0x44;
		if (i == 1)
			f[ETH_LEN] = 0x55;
		if (i == 2)
			put16(f + ETH_LEN + 2, 41); /* beyond the frame */
		if (i == 3)
			put16(f + ETH_LEN + 2, 19);
		if (i == 4) { /* source route */
			memmove(f + ETH_LEN + 28, f + ETH_LEN + 20, 20);
			memcpy(f + ETH_LEN + 20, "\x83\x07\x04\x0a\x00\x00\x01\x00", 8);
			f[ETH_LEN] = 0x47;
			put16(f + ETH_LEN + 2, 48);
			n += 8;
		}
		ip4_sum(f);
		put_frame(&h, f, n);
	}
	syn_make(f, &n);
	f[ETH_LEN + 10] ^= 1; /* header sum */
	put_frame(&h, f, n);
	for (int next = 0; next < 256; next += 43) { /* 0 hop-by-hop, 43 routing, 129, 172, 215 unknown */
		size_t at = ip6_make(f, dst6, (uint8_t)next, 8000);

		memset(f + at, 0, 8000);
		if (next != 86)
			put_frame(&h, f, at + 8000);
	}
	want_silence(&h);
	want_no_msg(&h);
	/* Shorter than the frame: trimmed. A wrong TCP sum: taken, the bytes never left memory. */
	syn_make(f, &n);
	f[ETH_LEN + IP4_LEN + 16] ^= 0x55;
	memset(f + n, 0xaa, 30);
	put_frame(&h, f, n + 30);
	want_msg(&h, NET_OPEN_TCP);
	host_end(&h);
}

static void put_frag(uint16_t id, size_t off, bool more, uint8_t proto, const void *p, size_t n)
{
	size_t at = ip4_make(frame_mem, world4, proto, n);

	put16(frame_mem + ETH_LEN + 4, id);
	put16(frame_mem + ETH_LEN + 6, (uint16_t)(off / 8 | (more ? IP4_MF : 0)));
	ip4_sum(frame_mem);
	memcpy(frame_mem + at, p, n);
	put_frame(&h, frame_mem, at + n);
}

/* A datagram to port 54, or what looks like one; a SYN. Complete, each would be asked of vault. */
static uint8_t frag_udp[65600] = { 0x10, 0, 0, 54, 0x06, 0x40 };
static uint8_t frag_syn[1600] = { 0x10, 0, 0, 54, [12] = 0x50, TH_SYN };

static uint8_t together[100000]; /* frames that go out in one piece */

TEST(rows_13_to_15_fragments)
{
	const uint8_t *d = frag_udp;

	host_start(&h);
	put_frag(1, 0, true, PROTO_UDP, d, 800);
	put_frag(1, 0, true, PROTO_UDP, d, 792); /* overlap */
	put_frag(1, 1592, false, PROTO_UDP, d, 8);
	put_frag(2, 0, true, PROTO_UDP, d, 0);
	put_frag(3, 0, true, PROTO_UDP, d, 7);
	put_frag(4, 0, true, PROTO_TCP, frag_syn, 800);
	put_frag(4, 800, false, PROTO_TCP, frag_syn + 800, 800);
	put_frag(5, 0, true, PROTO_UDP, d, 65480); /* above 65,535 */
	put_frag(5, 65480, false, PROTO_UDP, d, 40);
	put_frag(6, 16, true, PROTO_UDP, d, 800); /* the end before the furthest */
	put_frag(6, 8, false, PROTO_UDP, d, 8);
	for (int i = 0; i < 100000; i++)
		put_frag((uint16_t)(100 + i), 0, true, PROTO_UDP, d, 16);
	want_silence(&h);
	want_no_msg(&h);
	h.batch = together; /* the first is kept for two seconds */
	put_frag(7, 800, false, PROTO_UDP, d, 800);
	put_frag(7, 0, true, PROTO_UDP, d, 800);
	put_batch(&h);
	want_msg(&h, NET_OPEN_UDP);
	CHECK_INT(vm.open.port, ==, 54);
	host_end(&h);
}

static const uint8_t world6[16] = { 0x20, 1, 0x48, 0x60, [15] = 1 };

static void put_frag6(uint32_t id, size_t off, bool more, uint8_t proto, const void *p, size_t n)
{
	size_t at = ip6_make(frame_mem, world6, PROTO_FRAG6, FRAG6_LEN + n);

	*(struct frag6_hdr *)(frame_mem + at) = (struct frag6_hdr){ .next = proto, .off = be16((uint16_t)(off | more)), .id = be32(id) };
	memcpy(frame_mem + at + FRAG6_LEN, p, n);
	put_frame(&h, frame_mem, at + FRAG6_LEN + n);
}

TEST(rows_13_and_14_fragments_of_ipv6)
{
	const uint8_t *d = frag_udp;

	host_start(&h);
	put_frag6(1, 0, true, PROTO_UDP, d, 800);
	put_frag6(1, 0, true, PROTO_UDP, d, 792); /* overlap */
	put_frag6(1, 1592, false, PROTO_UDP, d, 8);
	put_frag6(2, 0, true, PROTO_UDP, d, 7);
	put_frag6(2, 8, false, PROTO_UDP, d, 1592);
	put_frag6(3, 0, true, PROTO_TCP, frag_syn, 800);
	put_frag6(3, 800, false, PROTO_TCP, frag_syn + 800, 800);
	put_frag6(4, 0, true, PROTO_UDP, d, 65440); /* above 65,535 */
	put_frag6(4, 65440, false, PROTO_UDP, d, 96);
	put_frame(&h, frame_mem, ip6_make(frame_mem, world6, PROTO_FRAG6, 7) + 7); /* no room for the header */
	want_silence(&h);
	want_no_msg(&h);
	h.batch = together;
	put_frag6(7, 800, false, PROTO_UDP, d, 800);
	put_frag6(7, 0, true, PROTO_UDP, d, 800);
	put_batch(&h);
	want_msg(&h, NET_OPEN_UDP);
	CHECK_INT(vm.open.port, ==, 54);
	host_end(&h);
}

TEST(row_17_flags_that_cannot_be_touch_no_connection)
{
	static const uint8_t flags[] = { TH_SYN | TH_FIN, TH_SYN | TH_RST, 0, 0x3f, TH_RST | TH_FIN, TH_FIN, TH_PSH, TH_SYN | TH_FIN | TH_ACK };

	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		put_seg(&h, &(struct seg){ .sport = c.sport, .dport = c.dport, .seq = c.seq, .ack = c.ack, .flags = flags[i], .win = 65535,
					   .data = "x", .data_n = 1 });
	want_silence(&h);
	want_no_msg(&h);
	check_alive(&h, &c);
	host_end(&h);
}

TEST(rows_16_and_17_broken_tcp_headers)
{
	static const uint8_t bad[][4] = { { 2, 0, 0, 0 }, { 2, 1, 0, 0 }, { 1, 1, 1, 2 }, { 3, 200, 1, 1 } };
	static const uint8_t flags[] = { TH_SYN | TH_FIN, TH_SYN | TH_RST, 0, 0x3f, TH_RST | TH_FIN, TH_FIN, TH_PSH };
	size_t n;

	host_start(&h);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .flags = TH_SYN, .opts = bad[i], .opts_n = 4 });
	for (int off = 0; off < 16; off++) {
		syn_make(frame_mem, &n);
		frame_mem[ETH_LEN + IP4_LEN + 12] = (uint8_t)(off << 4);
		if (off != 5)
			put_frame(&h, frame_mem, n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .flags = flags[i] });
	put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .flags = TH_RST | TH_ACK });
	want_silence(&h);
	want_no_msg(&h);
	/* Without a flow: one RST. */
	put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .ack = 77, .flags = TH_SYN | TH_ACK });
	CHECK_INT(be32(want_tcp(&h, TH_RST).tcp->seq), ==, 77);
	put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .ack = 78, .flags = TH_ACK, .data = "x", .data_n = 1 });
	CHECK_INT(be32(want_tcp(&h, TH_RST).tcp->seq), ==, 78);
	want_silence(&h);
	host_end(&h);
}

TEST(row_18_syn_floods_cost_a_bounded_number_of_opens)
{
	int opens = 0;

	host_start(&h);
	struct conn c = connect_ok(&h, 1);
	for (int i = 0; i < 100000; i++)
		put_seg(&h, &(struct seg){ .sport = (uint16_t)(2 + (i & 1 ? i % 60000 : 0)),
					   .dport = (uint16_t)(1 + (i & 1 ? 80 : i % 60000)), .seq = 5, .flags = TH_SYN });
	want_silence(&h);
	while (get_msg_of(h.w.vault, 0))
		opens += vm.head.type == NET_OPEN_TCP;
	CHECK_INT(opens, ==, 128);
	for (int i = 0; i < 100000; i++) {
		uint8_t dst[4] = { 8, 8, (uint8_t)(i >> 8), (uint8_t)i };

		put_seg(&h, &(struct seg){ .dst = dst, .sport = 7, .dport = 80, .seq = 5, .flags = TH_SYN });
		while (get_msg_of(h.w.vault, 0))
			opens += vm.head.type == NET_OPEN_TCP;
	}
	want_silence(&h);
	while (get_msg_of(h.w.vault, 0))
		opens += vm.head.type == NET_OPEN_TCP;
	CHECK_INT(opens, ==, 512);
	check_alive(&h, &c);
	host_end(&h);
}

TEST(row_19_syn_and_rst_leave_nothing)
{
	int opens = 0, cancels = 0;

	host_start(&h);
	for (int i = 0; i < 20000; i++) {
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 5, .flags = TH_SYN });
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 6, .flags = TH_RST });
		while (get_msg_of(h.w.vault, 0)) {
			opens += vm.head.type == NET_OPEN_TCP;
			cancels += vm.head.type == NET_CANCEL;
		}
	}
	want_silence(&h);
	/* A CANCEL may wait for room. */
	while (get_msg_of(h.w.vault, opens == cancels ? 100 : 20000)) {
		opens += vm.head.type == NET_OPEN_TCP;
		cancels += vm.head.type == NET_CANCEL;
	}
	/* Pairs that came while vault's socket was full asked nothing and so cancel nothing. */
	CHECK_INT(opens, ==, cancels);
	CHECK_INT(opens, >, 0);
	struct conn c = connect_ok(&h, 6);
	check_alive(&h, &c);
	host_end(&h);
}

/* As many opens as may wait do, and then in one batch each SYN that follows a RST is one too many for a vault that has not read
 * the CANCEL yet. */
TEST(row_18_and_19_vault_never_sees_more_opens_than_may_wait)
{
	enum { WAIT = 512, AGAIN = 200 };
	int waiting = WAIT, most = 0, opens = 0;

	host_start(&h);
	for (int i = 0; i < WAIT; i++) {
		uint8_t dst[4] = { 8, 8, 8, (uint8_t)(i / 128) };

		put_seg(&h, &(struct seg){ .dst = dst, .sport = (uint16_t)(1000 + i), .dport = 80, .seq = 5, .flags = TH_SYN });
		want_msg(&h, NET_OPEN_TCP); /* read one by one: a SYN for which vault's socket has no room asks nothing */
	}
	want_silence(&h);
	want_no_msg(&h);
	h.batch = together;
	for (int i = 0; i < 2 * AGAIN; i++) {
		uint8_t old[4] = { 8, 8, 8, (uint8_t)(i / 2 / 128) }, new[4] = { 8, 8, 9, (uint8_t)(i % 4 / 2) };
		struct seg rst = { .dst = old, .sport = (uint16_t)(1000 + i / 2), .dport = 80, .seq = 6, .flags = TH_RST };
		struct seg syn = { .dst = new, .sport = (uint16_t)(5000 + i), .dport = 80, .seq = 5, .flags = TH_SYN };

		put_seg(&h, i & 1 ? &syn : &rst);
	}
	put_batch(&h);
	want_silence(&h);
	while (get_msg_of(h.w.vault, waiting == WAIT - AGAIN + opens ? 100 : 20000)) {
		waiting += vm.head.type == NET_OPEN_TCP;
		waiting -= vm.head.type == NET_CANCEL;
		opens += vm.head.type == NET_OPEN_TCP;
		if (waiting > most)
			most = waiting;
	}
	CHECK_INT(most, <=, WAIT);
	CHECK_INT(waiting, ==, WAIT - AGAIN + opens);
	/* What was cancelled counts no more. */
	put_seg(&h, &(struct seg){ .sport = 9, .dport = 80, .seq = 5, .flags = TH_SYN });
	want_msg(&h, NET_OPEN_TCP);
	host_end(&h);
}

/* The world ends first: TIME_WAIT; a higher SYN takes the place at once. False: it was over before all of that was tried. */
static bool time_wait(struct conn *c)
{
	int64_t start;
	struct frame f;
	bool over;

	(void)shutdown(c->fd, SHUT_WR);
	(void)want_tcp(&h, TH_FIN | TH_ACK);
	c->ack++;
	start = now_ns();
	put_data(&h, c, NULL, 0, TH_FIN);
	(void)want_tcp(&h, TH_ACK);
	put_seg(&h, &(struct seg){ .sport = c->sport, .dport = 80, .seq = c->seq - 1, .ack = c->ack, .flags = TH_ACK | TH_FIN });
	CHECK(get_frame(&h, &f, 20000) && f.tcp);
	over = f.tcp->flags != TH_ACK;
	put_seg(&h, &(struct seg){ .sport = c->sport, .dport = 80, .seq = c->seq + 1000, .flags = TH_SYN });
	do
		CHECK(get_msg_of(h.w.vault, 20000));
	while (vm.head.type == NET_ENDED);
	CHECK_INT(vm.head.type, ==, NET_OPEN_TCP);
	over = over || now_ns() - start > INT64_C(2000000000);
	if (over)
		CHECK(now_ns() - start > INT64_C(1900000000));
	return !over;
}

TEST(row_20_and_21_syn_again_and_data_with_it)
{
	const uint8_t opts[8] = { 2, 4, 0xff, 0xc8, 1, 3, 3, 8 };
	struct frame f;
	int sv[2];

	host_start(&h);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN, .data = "early", .data_n = 5 });
	want_msg(&h, NET_OPEN_TCP);
	struct net_head q = vm.head;
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN });
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 900, .flags = TH_SYN, .opts = opts, .opts_n = 8 });
	want_silence(&h);
	want_no_msg(&h);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
	fake_answer(h.w.vault, &q, NET_CONNECTED, 0, sv[1]);
	f = want_tcp(&h, TH_SYN | TH_ACK);
	CHECK_INT(be32(f.tcp->ack), ==, 901); /* the newest counts; its bytes are not acknowledged */
	struct conn c = { sv[0], 5, 80, 901, be32(f.tcp->seq) + 1, q };
	put_data(&h, &c, NULL, 0, 0);
	check_alive(&h, &c);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 5000, .flags = TH_SYN });
	f = want_tcp(&h, TH_ACK);
	CHECK_INT(be32(f.tcp->ack), ==, c.seq);
	check_alive(&h, &c);
	/* TIME_WAIT is two seconds, in which the machine may have other things to do. */
	for (int tries = 1; !time_wait(&c); tries++) {
		CHECK_INT(tries, <, 3);
		want_silence(&h);
		while (get_msg_of(h.w.vault, 0))
			;
		c = connect_ok(&h, (uint16_t)(5 + tries));
		check_alive(&h, &c);
	}
	host_end(&h);
}

TEST(row_22_acknowledgements_of_nothing)
{
	struct frame f;
	int rex = 0;

	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	check_alive(&h, &c);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack + 1000, .flags = TH_ACK, .win = 65535 });
	(void)want_tcp(&h, TH_ACK);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack - 3, .flags = TH_ACK, .win = 65535 });
	want_silence(&h);
	/* A million duplicates while a byte is outstanding. */
	struct timespec a, b;
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	CHECK_INT(write(c.fd, "b", 1), ==, 1);
	(void)want_tcp(&h, TH_ACK);
	size_t n = seg_make(frame_mem, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK,
						       .win = 65535 });
	for (int i = 0; i < 1000000; i++)
		put_frame(&h, frame_mem, n);
	put_arp(&h, fake_config.gateway4);
	for (;;) {
		CHECK(get_any_frame(&h, &f, 20000));
		if (f.type == ETH_ARP)
			break;
		rex++;
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &b);
	CHECK_INT(rex, <=, (b.tv_sec - a.tv_sec + 1) * 5 + 1);
	CHECK_INT(rex, >, 0);
	c.ack++;
	put_data(&h, &c, NULL, 0, 0);
	check_alive(&h, &c);
	host_end(&h);
}

/* The next frame that begins with this byte. */
static struct frame data_at(uint32_t seq)
{
	struct frame f;

	do
		CHECK(get_any_frame(&h, &f, 20000));
	while (!f.tcp || be32(f.tcp->seq) != seq || f.data_n == 0);
	return f;
}

TEST(row_23_a_window_of_zero_is_probed_and_the_last_told_edge_holds)
{
	struct frame f;

	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 0 });
	want_silence(&h);
	CHECK_INT(write(c.fd, "0123456789", 10), ==, 10);
	for (int i = 0; i < 3; i++) {
		CHECK(get_any_frame(&h, &f, 20000)); /* the probe: one byte that was acknowledged before */
		CHECK(f.tcp && be32(f.tcp->seq) == c.ack - 1 && f.data_n == 1);
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 0 });
	}
	/* From here on what is sent again, or one probe more, is passed over by its number. */
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 4 });
	f = data_at(c.ack);
	CHECK_INT(f.data_n, ==, 4);
	c.ack += 4;
	/* Taken back, then opened again. */
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 2 });
	f = data_at(c.ack);
	CHECK_INT(f.data_n, ==, 2);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack + 2, .flags = TH_ACK, .win = 65535 });
	f = data_at(c.ack + 2);
	CHECK_INT(f.data_n, ==, 4);
	c.ack += 6;
	put_data(&h, &c, NULL, 0, 0);
	put_arp(&h, fake_config.gateway4);
	do
		CHECK(get_any_frame(&h, &f, 20000));
	while (f.type != ETH_ARP);
	check_alive(&h, &c);
	host_end(&h);
}

TEST(row_24_strange_options_are_clamped)
{
	static const struct { uint8_t o[8]; size_t n, first; } cases[] = {
		{ { 2, 4, 0, 0, 3, 3, 255, 1 }, 8, 216 },   { { 2, 4, 0, 1, 1, 1, 1, 1 }, 8, 216 },
		{ { 2, 4, 255, 255, 1, 1, 1, 1 }, 8, 5000 }, { { 0 }, 0, 536 },
		{ { 2, 4, 3, 0, 2, 4, 9, 9 }, 8, 768 },
	};
	static uint8_t big[5000];
	struct frame f;

	host_start(&h);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct conn c = { .sport = (uint16_t)(100 + i), .dport = 80, .seq = 1 };
		int sv[2];

		put_seg(&h, &(struct seg){ .sport = c.sport, .dport = 80, .seq = c.seq++, .flags = TH_SYN, .win = 65535,
					   .opts = cases[i].o, .opts_n = cases[i].n });
		want_msg(&h, NET_OPEN_TCP);
		CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
		CHECK_INT(write(sv[0], big, sizeof(big)), ==, sizeof(big));
		fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, sv[1]);
		(void)close(sv[1]);
		c.ack = be32(want_tcp(&h, TH_SYN | TH_ACK).tcp->seq) + 1;
		put_data(&h, &c, NULL, 0, 0);
		f = want_tcp(&h, TH_ACK);
		CHECK_INT(f.data_n, ==, cases[i].first);
		size_t got = f.data_n;
		while (got < sizeof(big)) {
			CHECK(get_frame(&h, &f, 20000));
			got += f.data_n;
		}
		c.ack += sizeof(big);
		put_data(&h, &c, NULL, 0, TH_RST);
		(void)close(sv[0]);
		want_msg(&h, NET_ENDED);
	}
	host_end(&h);
}

TEST(row_25_urgent_and_garbage_options_are_ignored)
{
	static const uint8_t opts[12] = { 5, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1 };
	char b[8];

	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK | TH_URG, .win = 65535,
				   .opts = opts, .opts_n = 12, .data = "abc", .data_n = 3 });
	(void)want_tcp(&h, TH_ACK);
	CHECK_INT(read(c.fd, b, 8), ==, 3);
	c.seq += 3;
	check_alive(&h, &c);
	host_end(&h);
}

TEST(row_26_readers_that_never_acknowledge_are_reset_when_buffers_are_short)
{
	enum { N = 540 };
	static struct conn c[N];
	struct rlimit lim;
	struct frame f;
	int resets = 0;

	CHECK_INT(getrlimit(RLIMIT_NOFILE, &lim), ==, 0);
	lim.rlim_cur = lim.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &lim);
	host_start(&h);
	for (int i = 0; i < N; i++)
		c[i] = connect_ok(&h, (uint16_t)(1000 + i));
	for (int i = 0; i < N; i++)
		CHECK_INT(write(c[i].fd, "x", 1), ==, 1);
	/* Each holds a chunk of 512, nothing is ever acknowledged; retransmissions come meanwhile. */
	for (int i = 0; i < 100000 && resets == 0; i++)
		if (get_frame(&h, &f, 20000) && f.tcp && f.tcp->flags & TH_RST)
			resets++;
	CHECK_INT(resets, ==, 1);
	want_msg(&h, NET_ENDED);
	CHECK_INT(vm.ended.how, ==, NET_END_ERROR);
	/* A new one finds its way. */
	struct conn good = { .sport = 5, .dport = 80, .seq = 1 };
	int sv[2];
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = good.seq++, .flags = TH_SYN, .win = 65535 });
	do
		CHECK(get_msg_of(h.w.vault, 20000));
	while (vm.head.type != NET_OPEN_TCP);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
	fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, sv[1]);
	(void)close(sv[1]);
	do
		CHECK(get_frame(&h, &f, 20000));
	while (!f.tcp || be16(f.tcp->dport) != 5);
	good.ack = be32(f.tcp->seq) + 1;
	put_data(&h, &good, "up", 2, 0);
	CHECK_INT(write(sv[0], "down", 4), ==, 4);
	do
		CHECK(get_frame(&h, &f, 20000));
	while (!f.tcp || be16(f.tcp->dport) != 5 || f.data_n == 0);
	CHECK_INT(f.data_n, ==, 4);
	for (int i = 0; i < N; i++)
		(void)close(c[i].fd);
	(void)close(sv[0]);
	host_end(&h);
}

TEST(rows_27_and_28_order_and_what_follows_a_fin)
{
	uint8_t out[3000], in[3000];
	size_t got = 0;
	struct frame f;

	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	/* Backwards, each byte twice, one at a time: the stream is right in the end. */
	for (int round = 0; round < 2 && got < 300; round++)
		for (int i = 299; i >= 0; i--)
			put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq + (uint32_t)i, .ack = c.ack,
						   .flags = TH_ACK, .win = 65535, .data = out + i, .data_n = 2 });
	for (uint32_t i = 0; i < 300; i++)
		for (int twice = 0; twice < 2; twice++)
			put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq + i, .ack = c.ack, .flags = TH_ACK,
						   .win = 65535, .data = out + i, .data_n = 1 });
	put_arp(&h, fake_config.gateway4);
	do
		CHECK(get_frame(&h, &f, 20000));
	while (f.type != ETH_ARP);
	/* Small pieces fill the pair early; the rest comes as it is read. */
	for (struct pollfd p = { c.fd, POLLIN, 0 }; got < 300 && poll(&p, 1, 20000) == 1;)
		got += (size_t)read(c.fd, in + got, sizeof(in) - got);
	CHECK_INT(got, >=, 300);
	CHECK(memcmp(in, out, got) == 0);
	c.seq += (uint32_t)got;
	check_alive(&h, &c);
	/* FIN beyond the window and out of order: nothing; then the real one; then data and 1,000 FINs behind it. */
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq + 1000000, .ack = c.ack, .flags = TH_ACK | TH_FIN });
	(void)want_tcp(&h, TH_ACK);
	put_data(&h, &c, NULL, 0, TH_FIN);
	(void)want_tcp(&h, TH_ACK);
	for (int i = 0; i < 1000; i++)
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq - 1, .ack = c.ack, .flags = TH_ACK | TH_FIN, .win = 65535 });
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 65535, .data = "late",
				   .data_n = 4 });
	put_arp(&h, fake_config.gateway4);
	do
		CHECK(get_frame(&h, &f, 20000));
	while (f.type != ETH_ARP);
	CHECK_INT(read(c.fd, in, 8), ==, 0);
	/* The other half still runs. */
	CHECK_INT(write(c.fd, "tail", 4), ==, 4);
	do
		f = want_tcp(&h, TH_ACK);
	while (f.data_n == 0); /* a thousand answers may have filled the link, and then the last is behind that to ARP */
	CHECK_INT(f.data_n, ==, 4);
	c.ack += 4;
	put_data(&h, &c, NULL, 0, 0);
	(void)close(c.fd);
	(void)want_tcp(&h, TH_FIN | TH_ACK);
	c.ack++;
	put_data(&h, &c, NULL, 0, 0);
	want_msg(&h, NET_ENDED);
	CHECK_INT(vm.ended.how, ==, NET_END_FIN);
	host_end(&h);
}

TEST(row_29_only_the_exact_rst_resets)
{
	host_start(&h);
	struct conn c = connect_ok(&h, 5);
	check_alive(&h, &c);
	for (int i = -70000; i < 70000; i += 7) {
		if (i == 0)
			continue;
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq + (uint32_t)i, .flags = TH_RST });
	}
	put_arp(&h, fake_config.gateway4);
	struct frame f;
	do
		CHECK(get_frame(&h, &f, 20000)); /* challenges for those in the window */
	while (f.type != ETH_ARP);
	check_alive(&h, &c);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .flags = TH_RST });
	want_msg(&h, NET_ENDED);
	CHECK_INT(vm.ended.how, ==, NET_END_RST_GUEST);
	host_end(&h);
}

TEST(rows_31_and_32_udp)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int opens = 0, ended = 0, s = socket(AF_INET, SOCK_DGRAM, 0), n_fds = 0;
	struct frame f;
	char b[8];

	host_start(&h);
	CHECK_INT(bind(s, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	CHECK_INT(getsockname(s, (struct sockaddr *)&a, &len), ==, 0);
	for (int i = 0; i < 4; i++) {
		size_t at = ip4_make(frame_mem, world4, PROTO_UDP, 20);
		struct udp_hdr *u = (struct udp_hdr *)(frame_mem + at);

		*u = (struct udp_hdr){ be16(i == 2 ? 0 : 7), be16(i == 3 ? 0 : 8), be16(i == 0 ? 7 : i == 1 ? 21 : 20), 0 };
		put_frame(&h, frame_mem, at + 20);
	}
	want_silence(&h);
	want_no_msg(&h);
	for (uint32_t port = 1; port <= 65535; port++) {
		if (port == 53)
			continue;
		put_udp(&h, world4, 9, (uint16_t)port, "x", 1);
		while (get_msg_of(h.w.vault, opens - ended < 1024 && port < 2000 ? 2000 : 0)) {
			if (vm.head.type == NET_ENDED) {
				ended++;
				continue;
			}
			CHECK_INT(vm.head.type, ==, NET_OPEN_UDP);
			opens++;
			int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
			CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
			fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, fd);
			(void)close(fd);
			(void)recv(s, b, 8, MSG_DONTWAIT);
			break;
		}
	}
	while (get_msg_of(h.w.vault, opens - ended <= 1024 ? 200 : 20000))
		ended += vm.head.type == NET_ENDED;
	put_arp(&h, fake_config.gateway4); /* a turn behind the last one's */
	do
		CHECK(get_frame(&h, &f, 20000));
	while (f.type != ETH_ARP);
	char path[64];
	for (int i = 0; i < 3000; i++) {
		(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)h.w.pid, i);
		n_fds += faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	}
	CHECK_INT(n_fds, <=, 1024 + 16);
	CHECK_INT(opens, >, 1024);
	CHECK_INT(opens - ended, <=, 1024);
	(void)close(s);
	host_end(&h);
}

static const uint8_t good_dns[] = { 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'W', 'w', 'w', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1 };

TEST(row_33_dns_questions_that_are_none)
{
	uint8_t q[600];
	size_t n = sizeof(good_dns);
	struct frame f;

	host_start(&h);
	put_udp(&h, fake_config.gateway4, 77, 53, good_dns, 11);
	memcpy(q, good_dns, n);
	q[2] |= 0x80;
	put_udp(&h, fake_config.gateway4, 77, 53, q, n);
	want_silence(&h);
	for (int i = 0; i < 6; i++) {
		int want = i == 3 || i == 4 ? 4 : 1;

		n = sizeof(good_dns);
		memset(q, 0, sizeof(q));
		memcpy(q, good_dns, n);
		if (i == 0)
			q[5] = 2;
		if (i == 1) {
			q[12] = 0xc0;
			q[13] = 12;
		}
		if (i == 2) { /* a name of 256 bytes: 4 labels of 62, then 3 */
			for (n = 12; n < 12 + 4 * 63; n += 63) {
				q[n] = 62;
				memset(q + n + 1, 'a', 62);
			}
			memcpy(q + n, "\2aa\0\0\1\0\1", 8);
			n += 8;
		}
		if (i == 3)
			q[n - 1] = 3; /* CH */
		if (i == 4)
			q[2] = 5 << 3;
		if (i == 5) { /* two OPTs */
			q[11] = 2;
			for (int k = 0; k < 2; k++, n += 11)
				memcpy(q + n, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
		}
		put_udp(&h, fake_config.gateway4, 77, 53, q, n);
		CHECK(get_frame(&h, &f, 20000));
		CHECK(f.proto == PROTO_UDP && get16(f.l4) == 53 && get16(f.l4 + 2) == 77);
		CHECK_INT(get16(f.l4 + 8), ==, 0x1234);
		CHECK_INT(f.l4[8 + 3] & 15, ==, want);
	}
	want_silence(&h);
	want_no_msg(&h);
	put_udp(&h, fake_config.gateway4, 77, 53, good_dns, sizeof(good_dns));
	want_msg(&h, NET_DNS_ASK);
	CHECK(vm.ask.name_len == 10 && memcmp(vm.ask.name, "\3www\4test", 10) == 0);
	/* The answer has the guest's number and spelling. */
	struct {
		struct net_dns_answer m;
		uint8_t b[sizeof(good_dns)];
	} __attribute__((packed)) ans = { .m = { { NET_VERSION, NET_DNS_ANSWER, sizeof(ans), vm.head.slot, vm.head.generation },
						  sizeof(good_dns) } };
	memcpy(ans.b, good_dns, sizeof(good_dns));
	ans.b[0] = ans.b[1] = 0;
	ans.b[2] = 0x81;
	ans.b[13] = 'w';
	CHECK_INT(write(h.w.vault, &ans, sizeof(ans)), ==, sizeof(ans));
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.l4_n == 8 + sizeof(good_dns) && get16(f.l4 + 8) == 0x1234 && f.l4[8 + 13] == 'W');
	host_end(&h);
}

TEST(limit_256_questions_wait_and_one_more_is_a_servfail)
{
	struct frame f;

	host_start(&h);
	for (uint16_t i = 0; i < 256; i++) {
		put_udp(&h, fake_config.gateway4, (uint16_t)(1000 + i), 53, good_dns, sizeof(good_dns));
		want_msg(&h, NET_DNS_ASK); /* read, so that none waits for room */
	}
	put_udp(&h, fake_config.gateway4, 2000, 53, good_dns, sizeof(good_dns));
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_UDP && get16(f.l4 + 2) == 2000);
	CHECK_INT(f.l4[8 + 3] & 15, ==, 2);
	want_no_msg(&h);
	host_end(&h);
}

TEST(row_34_dns_over_tcp)
{
	const uint8_t opts[4] = { 2, 4, 0xff, 0xc8 };
	struct conn c[33];
	uint8_t q[2 + sizeof(good_dns)];
	struct frame f;

	host_start(&h);
	for (int i = 0; i < 33; i++) {
		c[i] = (struct conn){ .sport = (uint16_t)(100 + i), .dport = 53, .seq = 1 };
		put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = c[i].sport, .dport = 53, .seq = c[i].seq++,
					   .flags = TH_SYN, .win = 65535, .opts = opts, .opts_n = 4 });
		if (i == 32) {
			(void)want_tcp(&h, TH_RST | TH_ACK);
			break;
		}
		c[i].ack = be32(want_tcp(&h, TH_SYN | TH_ACK).tcp->seq) + 1;
		put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = c[i].sport, .dport = 53, .seq = c[i].seq,
					   .ack = c[i].ack, .flags = TH_ACK, .win = 65535 });
	}
	want_silence(&h);
	put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 100, .dport = 53, .seq = c[0].seq, .ack = c[0].ack,
				   .flags = TH_ACK, .win = 65535, .data = "\0\0", .data_n = 2 });
	(void)want_tcp(&h, TH_RST | TH_ACK);
	put16(q, sizeof(good_dns));
	memcpy(q + 2, good_dns, sizeof(good_dns));
	for (size_t i = 0; i < sizeof(q); i++) {
		put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 101, .dport = 53, .seq = c[1].seq++, .ack = c[1].ack,
					   .flags = TH_ACK, .win = 65535, .data = q + i, .data_n = 1 });
		(void)want_tcp(&h, TH_ACK);
	}
	want_msg(&h, NET_DNS_ASK);
	CHECK_INT(vm.ask.tcp, ==, 1);
	struct {
		struct net_dns_answer m;
		uint8_t b[sizeof(good_dns)];
	} __attribute__((packed)) ans = { .m = { { NET_VERSION, NET_DNS_ANSWER, sizeof(ans), vm.head.slot, vm.head.generation },
						  sizeof(good_dns) } };
	memcpy(ans.b, good_dns, sizeof(good_dns));
	ans.b[0] = ans.b[1] = 0;
	ans.b[2] = 0x81;
	CHECK_INT(write(h.w.vault, &ans, sizeof(ans)), ==, sizeof(ans));
	f = want_tcp(&h, TH_ACK);
	CHECK(f.data_n == 2 + sizeof(good_dns) && get16(f.data) == sizeof(good_dns) && get16(f.data + 2) == 0x1234);
	host_end(&h);
}

TEST(rows_36_and_37_echo_and_groups)
{
	static const uint8_t groups[][4] = { { 224, 0, 0, 251 }, { 239, 255, 255, 250 }, { 255, 255, 255, 255 }, { 192, 0, 0, 7 } };
	static const uint8_t groups6[][16] = { { 0xff, 2, [15] = 1 }, { 0xff, 2, [15] = 0xfb }, { 0xff, 5, [13] = 1, 0, 3 } };
	static uint8_t big[65507];
	struct frame f;
	size_t at, n = 0;

	host_start(&h);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		put_udp(&h, groups[i], 5, 5353, "x", 1);
	for (size_t i = 0; i < ARRAY_SIZE(groups6); i++) {
		at = ip6_make(frame_mem, groups6[i], PROTO_UDP, UDP_LEN);
		*(struct udp_hdr *)(frame_mem + at) = (struct udp_hdr){ .sport = be16(5), .dport = be16(5353), .len = be16(UDP_LEN) };
		put_frame(&h, frame_mem, at + UDP_LEN);
		memcpy(frame_mem, "\x33\x33\0\0\0\1", 6); /* and as the guest's kernel would send it */
		put_frame(&h, frame_mem, at + UDP_LEN);
	}
	/* An ICMP error that quotes something. */
	at = ip4_make(frame_mem, world4, PROTO_ICMP, 36);
	memset(frame_mem + at, 0, 36);
	frame_mem[at] = 3;
	put_frame(&h, frame_mem, at + 36);
	want_silence(&h);
	want_no_msg(&h);
	at = ip4_make(frame_mem, fake_config.gateway4, PROTO_ICMP, 65492);
	memcpy(frame_mem + at, big, 65492);
	frame_mem[at] = 8;
	put_frame(&h, frame_mem, at + 65492);
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_ICMP && f.l4[0] == 0 && f.l4_n == 65492);
	/* Elsewhere: 32 questions at once, 50 a second. */
	for (int i = 0; i < 10000; i++) {
		at = ip4_make(frame_mem, world4, PROTO_ICMP, 16);
		memset(frame_mem + at, 0, 16);
		frame_mem[at] = 8;
		put16(frame_mem + at + 4, (uint16_t)i);
		put_frame(&h, frame_mem, at + 16);
	}
	want_silence(&h);
	while (get_msg_of(h.w.vault, 0))
		n += vm.head.type == NET_OPEN_ECHO;
	CHECK_INT(n, ==, 32);
	host_end(&h);
}

TEST(row_39_a_guest_that_does_not_read_stops_nobody)
{
	static uint8_t big[200000];
	struct pollfd p;
	int status;

	host_start(&h);
	struct conn c = connect_port(&h, 5, 80, NET_CONNECTED, 8);
	p = (struct pollfd){ c.fd, POLLIN, 0 };
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = c.seq, .ack = c.ack, .flags = TH_ACK, .win = 65535 });
	want_silence(&h);
	/* Down: far more than the link holds; nothing is read from the guest's end. */
	for (int i = 0; i < 200; i++) {
		(void)!write(c.fd, big, sizeof(big));
		(void)usleep(1000);
	}
	for (int i = 0; i < 20000; i++)
		put_arp(&h, fake_config.gateway4); /* answers have no place any more */
	/* Up still runs. */
	put_data(&h, &c, "up", 2, TH_PSH);
	CHECK_INT(poll(&p, 1, 20000), ==, 1);
	(void)close(h.w.control); /* the launcher is gone: it ends at once */
	status = wire_status(&h);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
