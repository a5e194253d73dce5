/* Flows of a well-behaved guest against a real wire with its sandbox on: answers of vault, published connections, gate's
 * step-aside, limits of what wire may do. */
#include "wire-host.h"




#include "wire/sandbox.h"

static struct host h;

TEST(a_refusal_is_a_reset_and_an_unreachable_host_an_icmp_error)
{
	struct frame f;

	host_start(&h);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN });
	want_msg(&h, NET_OPEN_TCP);
	CHECK(vm.open.dst.family == NET_V4 && memcmp(vm.open.dst.b, world4, 4) == 0);
	fake_answer(h.w.vault, &vm.head, NET_REFUSED, 0, -1);
	CHECK_INT(be32(want_tcp(&h, TH_RST | TH_ACK).tcp->ack), ==, 101);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 200, .flags = TH_SYN });
	want_msg(&h, NET_OPEN_TCP);
	fake_answer(h.w.vault, &vm.head, NET_FAILED, EHOSTUNREACH, -1);
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_ICMP && f.l4[0] == 3 && f.l4[1] == 1);
	/* The quoted segment: the guest's ports and number. */
	CHECK(get16(f.l4 + 28) == 5 && get16(f.l4 + 30) == 80 && get16(f.l4 + 34) == 200);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 300, .flags = TH_SYN });
	want_msg(&h, NET_OPEN_TCP);
	fake_answer(h.w.vault, &vm.head, NET_FAILED, ENETUNREACH, -1);
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_ICMP && f.l4[0] == 3 && f.l4[1] == 0);
	host_end(&h);
}

TEST(a_family_that_is_off_has_no_route_and_asks_nobody)
{
	struct net_family m = { { NET_VERSION, NET_FAMILY, sizeof(m), 0, 0 }, 0, 1, { 0, 0 } };
	struct frame f;

	host_start(&h);
	CHECK_INT(write(h.w.vault, &m, sizeof(m)), ==, sizeof(m));
	wait_for_vaults_word(&h);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN });
	CHECK(get_frame(&h, &f, 20000));
	CHECK(f.proto == PROTO_ICMP && f.l4[0] == 3 && f.l4[1] == 0);
	want_silence(&h);
	want_no_msg(&h);
	host_end(&h);
}

TEST(without_network_every_frame_is_discarded)
{
	struct net_config cfg = fake_config;
	struct frame f;

	cfg.no_network = 1;
	host_start_with(&h, &cfg, false);
	put_arp(&h, fake_config.gateway4);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN });
	CHECK(!get_frame(&h, &f, 300));
	want_no_msg(&h);
	host_end(&h);
}

TEST(a_connection_of_the_world_that_is_reset_resets_the_guest_after_its_bytes)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct linger now = { 1, 0 };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0), s, fd;
	struct frame f;

	host_start(&h);
	CHECK(bind(l, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(l, 5) == 0);
	(void)getsockname(l, (struct sockaddr *)&a, &len);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 100, .flags = TH_SYN, .win = 65535 });
	want_msg(&h, NET_OPEN_TCP);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	(void)connect(fd, (struct sockaddr *)&a, sizeof(a));
	s = accept(l, NULL, NULL);
	fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, fd);
	(void)close(fd);
	uint32_t ack = be32(want_tcp(&h, TH_SYN | TH_ACK).tcp->seq) + 1;
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 101, .ack = ack, .flags = TH_ACK, .win = 65535 });
	CHECK_INT(write(s, "last words", 10), ==, 10);
	f = want_tcp(&h, TH_ACK);
	CHECK_INT(f.data_n, ==, 10);
	put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 101, .ack = ack + 10, .flags = TH_ACK, .win = 65535 });
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	(void)close(s);
	(void)want_tcp(&h, TH_RST | TH_ACK);
	want_msg(&h, NET_ENDED);
	CHECK(vm.ended.how == NET_END_RST_HOST && vm.ended.down == 10);
	/* And the other way: the guest's reset is one for the world. */
	put_seg(&h, &(struct seg){ .sport = 6, .dport = 80, .seq = 100, .flags = TH_SYN, .win = 65535 });
	want_msg(&h, NET_OPEN_TCP);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	(void)connect(fd, (struct sockaddr *)&a, sizeof(a));
	s = accept(l, NULL, NULL);
	fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, fd);
	(void)close(fd);
	ack = be32(want_tcp(&h, TH_SYN | TH_ACK).tcp->seq) + 1;
	put_seg(&h, &(struct seg){ .sport = 6, .dport = 80, .seq = 101, .ack = ack, .flags = TH_ACK, .win = 65535 });
	put_seg(&h, &(struct seg){ .sport = 6, .dport = 80, .seq = 101, .ack = ack, .flags = TH_RST });
	want_msg(&h, NET_ENDED);
	char b;
	CHECK(recv(s, &b, 1, 0) < 0 && errno == ECONNRESET);
	(void)close(s);
	(void)close(l);
	host_end(&h);
}

TEST(a_published_connection_reaches_the_guest_or_is_refused)
{
	struct net_inbound m = { { NET_VERSION, NET_INBOUND, sizeof(m), 3, 9 }, 3000, NET_V4, 0 };
	const uint8_t opts[8] = { 2, 4, 0xff, 0xc8, 1, 3, 3, 0 };
	struct frame f;
	int sv[2];

	host_start(&h);
	for (int refused = 0; refused < 2; refused++) {
		CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
		CHECK_INT(fd_send(h.w.vault, &m, sizeof(m), &sv[1], 1), ==, sizeof(m));
		(void)close(sv[1]);
		f = want_tcp(&h, TH_SYN);
		CHECK_INT(be16(f.tcp->dport), ==, 3000);
		CHECK(memcmp(f.p + ETH_LEN + 12, fake_config.gateway4, 4) == 0);
		uint16_t rport = be16(f.tcp->sport);
		uint32_t ack = be32(f.tcp->seq) + 1;
		if (refused) {
			put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 3000, .dport = rport, .ack = ack,
						   .flags = TH_RST | TH_ACK });
			CHECK(get_frame(&h, &f, 20000)); /* the other family is tried */
			CHECK(f.type == ETH_IP6 && f.tcp->flags == TH_SYN);
			rport = be16(f.tcp->sport);
			ack = be32(f.tcp->seq) + 1;
			size_t at = ip6_make(frame_mem, fake_config.gateway6, PROTO_TCP, TCP_LEN);
			*(struct tcp_hdr *)(frame_mem + at) = (struct tcp_hdr){ .sport = be16(3000), .dport = be16(rport),
										 .ack = be32(ack), .off = 0x50,
										 .flags = TH_RST | TH_ACK };
			put_frame(&h, frame_mem, at + TCP_LEN);
			do
				CHECK(get_msg_of(h.w.vault, 20000));
			while (vm.head.type != NET_INBOUND_DONE);
			CHECK(vm.opened.outcome == NET_REFUSED && vm.head.slot == 3 && vm.head.generation == 9);
			break;
		}
		put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 3000, .dport = rport, .seq = 500, .ack = ack,
					   .flags = TH_SYN | TH_ACK, .win = 65535, .opts = opts, .opts_n = 8 });
		want_msg(&h, NET_INBOUND_DONE);
		CHECK_INT(vm.opened.outcome, ==, NET_TAKEN);
		(void)want_tcp(&h, TH_ACK);
		CHECK_INT(write(sv[0], "GET", 3), ==, 3);
		f = want_tcp(&h, TH_ACK);
		CHECK(f.data_n == 3 && memcmp(f.data, "GET", 3) == 0);
		put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 3000, .dport = rport, .seq = 501, .ack = ack + 3,
					   .flags = TH_RST });
		want_msg(&h, NET_ENDED);
		CHECK_INT(vm.head.slot, ==, 3 | NET_SLOT_INBOUND);
		CHECK_INT(vm.head.generation, ==, 9);
		(void)close(sv[0]);
	}
	host_end(&h);
}

/* Vault's socket is full of what another connection causes; vault counts the published one as waiting until it is told. */
TEST(what_became_of_a_published_connection_waits_for_room)
{
	struct net_inbound m = { { NET_VERSION, NET_INBOUND, sizeof(m), 3, 9 }, 3000, NET_V4, 0 };
	int sv[2], done = 0, ended = 0;
	struct frame f;

	host_start(&h);
	for (int i = 0; i < 5000; i++) {
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 5, .flags = TH_SYN });
		put_seg(&h, &(struct seg){ .sport = 5, .dport = 80, .seq = 6, .flags = TH_RST });
		if (i % 50 == 0)
			want_silence(&h); /* a turn of its own */
	}
	/* Only now: a SYN that waits for its answer is sent again. */
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
	CHECK_INT(fd_send(h.w.vault, &m, sizeof(m), &sv[1], 1), ==, sizeof(m));
	(void)close(sv[1]);
	f = want_tcp(&h, TH_SYN);
	uint16_t rport = be16(f.tcp->sport);
	uint32_t ack = be32(f.tcp->seq) + 1;
	put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 3000, .dport = rport, .seq = 500, .ack = ack,
				   .flags = TH_SYN | TH_ACK, .win = 65535 });
	(void)want_tcp(&h, TH_ACK);
	put_seg(&h, &(struct seg){ .dst = fake_config.gateway4, .sport = 3000, .dport = rport, .seq = 501, .ack = ack, .flags = TH_RST });
	want_silence(&h);
	while (get_msg_of(h.w.vault, ended > 0 ? 300 : 20000)) {
		if (vm.head.type == NET_INBOUND_DONE) {
			CHECK(vm.opened.outcome == NET_TAKEN && vm.head.slot == 3 && vm.head.generation == 9 && ended == 0);
			done++;
		}
		ended += vm.head.type == NET_ENDED && vm.head.slot == (3 | NET_SLOT_INBOUND);
	}
	CHECK_INT(done, ==, 1);
	CHECK_INT(ended, ==, 1);
	(void)close(sv[0]);
	host_end(&h);
}

TEST(stepping_aside_loses_and_doubles_no_byte)
{
	struct net_head m = { NET_VERSION, NET_HOLD, sizeof(m), 0, 0 };
	struct pollfd p;
	char b[100];
	int sv[2], none = -1;

	host_start_with(&h, &fake_config, true);
	for (int round = 0; round < 50; round++) {
		struct conn c = connect_port(&h, (uint16_t)(1000 + round), 443, NET_INSPECT, 8);

		m.type = NET_HOLD;
		m.slot = c.q.slot;
		m.generation = c.q.generation;
		put_data(&h, &c, "hello ", 6, TH_PSH);
		(void)want_tcp(&h, TH_ACK);
		CHECK_INT(fd_send(h.w.gate, &m, sizeof(m), &none, 0), ==, sizeof(m));
		put_data(&h, &c, "gate and ", 9, TH_PSH); /* before or after HOLD, as it comes */
		CHECK(get_msg_of(h.w.gate, 20000));
		CHECK_INT(vm.head.type, ==, NET_HELD);
		size_t held = (size_t)vm.held.bytes;
		CHECK(held == 6 || held == 15);
		put_data(&h, &c, "world", 5, TH_PSH | (round & 1 ? TH_FIN : 0));
		CHECK_INT(read(c.fd, b, sizeof(b)), ==, held);
		CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
		CHECK_INT(write(sv[0], b, 0), ==, 0);
		m.type = NET_HANDOVER;
		CHECK_INT(fd_send(h.w.gate, &m, sizeof(m), &sv[1], 1), ==, sizeof(m));
		(void)close(sv[1]);
		(void)close(c.fd); /* gate is done with the pair */
		p = (struct pollfd){ sv[0], POLLIN, 0 };
		for (size_t n = held; n < 20; n += (size_t)read(sv[0], b + n, sizeof(b) - n))
			CHECK_INT(poll(&p, 1, 20000), ==, 1);
		CHECK(memcmp(b, "hello gate and world", 20) == 0);
		if (round & 1) {
			CHECK_INT(poll(&p, 1, 20000), ==, 1);
			CHECK_INT(read(sv[0], b, 1), ==, 0);
		}
		CHECK_INT(write(sv[0], "!", 1), ==, 1);
		struct frame f;
		do
			CHECK(get_frame(&h, &f, 20000));
		while (!f.tcp || f.data_n == 0);
		CHECK(f.data_n == 1 && f.data[0] == '!' && be32(f.tcp->seq) == c.ack);
		put_seg(&h, &(struct seg){ .sport = c.sport, .dport = 443, .seq = c.seq, .ack = c.ack + 1, .flags = TH_RST });
		want_msg(&h, NET_ENDED);
		(void)close(sv[0]);
		struct frame rest;
		put_arp(&h, fake_config.gateway4);
		do
			CHECK(get_frame(&h, &rest, 20000));
		while (rest.type != ETH_ARP);
	}
	host_end(&h);
}

/* While the link is full wire reads gate's messages and not vault's. */
TEST(gate_may_be_faster_than_vaults_answer)
{
	static const uint16_t types[] = { NET_HOLD, NET_RESET };
	struct net_head m = { NET_VERSION, 0, sizeof(m), 0, 0 };
	int none = -1;

	host_start_with(&h, &fake_config, true);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(types); i++) {
		put_seg(&h, &(struct seg){ .sport = (uint16_t)(2000 + i), .dport = 443, .seq = 7, .flags = TH_SYN });
		want_msg(&h, NET_OPEN_TCP);
		m.type = types[i % ARRAY_SIZE(types)];
		m.slot = vm.head.slot;
		m.generation = vm.head.generation;
		CHECK_INT(fd_send(h.w.gate, &m, sizeof(m), &none, 0), ==, sizeof(m));
		(void)want_tcp(&h, TH_RST | TH_ACK);
		want_msg(&h, NET_CANCEL);
		CHECK_INT(vm.head.slot, ==, m.slot);
	}
	host_end(&h);
}

TEST(messages_that_cannot_be_end_the_session)
{
	struct net_head bad[] = {
		{ 2, NET_CLOSE, sizeof(bad[0]), 0, 0 },	 { NET_VERSION, 0x99, sizeof(bad[0]), 0, 0 },
		{ NET_VERSION, NET_CLOSE, 17, 0, 0 },	 { NET_VERSION, NET_TCP_OPENED, sizeof(bad[0]), 0, 0 },
		{ NET_VERSION, NET_CLOSE, sizeof(bad[0]), 0, 0 },
	};
	int status, fd;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		host_start(&h);
		fd = i == 4 ? h.w.control : -1; /* a descriptor where none belongs */
		CHECK(fd_send(h.w.vault, &bad[i], sizeof(bad[i]), &fd, i == 4) > 0);
		CHECK_INT(waitpid(h.w.pid, &status, 0), ==, h.w.pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
		(void)close(h.w.link);
		(void)close(h.w.vault);
		(void)close(h.w.control);
	}
}

/* The sandbox, from inside: each of these must fail or kill. */
static void try_socket(int udp) { _exit(socket(AF_INET, SOCK_STREAM, 0) >= 0); }
static void try_open(int udp) { _exit(open("/dev/null", O_RDONLY) >= 0); }
static void try_bind(int udp)
{
	struct sockaddr_in a = { .sin_family = AF_INET };

	_exit(bind(udp, (struct sockaddr *)&a, sizeof(a)) == 0);
}
static void try_connect(int udp)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	_exit(connect(udp, (struct sockaddr *)&a, sizeof(a)) == 0);
}
static void try_sendmsg(int udp)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct msghdr m = { .msg_name = &a, .msg_namelen = sizeof(a) };

	_exit(sendmsg(udp, &m, 0) >= 0);
}
static void try_sendto(int udp)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	_exit(sendto(udp, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) >= 0);
}
static void try_listen(int udp) { _exit(listen(udp, 1) == 0); }
static void try_option(int udp)
{
	int on = 1;

	_exit(setsockopt(udp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
}
static void may_send(int udp) { _exit(sendto(udp, "x", 1, MSG_NOSIGNAL, NULL, 0) != 1); }

TEST(the_sandbox_refuses_what_could_reach_anything)
{
	static const struct { const char *name; void (*what)(int); int must_pass; } tries[] = {
		{ "socket", try_socket, 0 }, { "open", try_open, 0 }, { "bind", try_bind, 0 }, { "connect", try_connect, 0 },
		{ "sendmsg", try_sendmsg, 0 }, { "sendto with an address", try_sendto, 0 }, { "listen", try_listen, 0 },
		{ "setsockopt", try_option, 0 }, { "sendto without an address", may_send, 1 },
	};
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int there = socket(AF_INET, SOCK_DGRAM, 0), status;

	CHECK_INT(bind(there, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	(void)getsockname(there, (struct sockaddr *)&a, &len);
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct err err;
			int udp = socket(AF_INET, SOCK_DGRAM, 0);

			(void)connect(udp, (struct sockaddr *)&a, sizeof(a));
			if (wire_sandbox(&err) < 0)
				_exit(77);
			tries[i].what(udp);
		}
		CHECK_INT(waitpid(pid, &status, 0), ==, pid);
		if (WIFEXITED(status) ? WEXITSTATUS(status) != 0 : WTERMSIG(status) != SIGSYS || tries[i].must_pass)
			fail_msg("%s: wait status %#x", tries[i].name, (unsigned int)status);
	}
	(void)close(there);
}
