/* Rows of the hostile table (see t-wire-hostile.c) that need every slot or a minute. */
#include "wire-host.h"

#include <sys/resource.h>

enum { FULL = 16384, NEED = 17100, IDLE_MS = 60000 };

static struct host h;
static struct net_head question[FULL];
static uint32_t isn[FULL];

/* Guest port of flow @i: not those that the tests use by hand. */
static uint16_t port_of(int i)
{
	return (uint16_t)(10000 + i);
}

static void send_syn(uint16_t sport, const uint8_t *dst)
{
	const uint8_t opts[4] = { 2, 4, 0xff, 0xc8 };

	put_seg(&h, &(struct seg){ .dst = dst, .sport = sport, .dport = 80, .seq = 1, .flags = TH_SYN, .win = 65535, .opts = opts,
				   .opts_n = 4 });
}

/* Every fourth elsewhere: "the destination with the most" means something. */
static const uint8_t *dst_of(int i)
{
	static const uint8_t other[4] = { 93, 184, 216, 99 };

	return i % 4 == 3 ? other : world4;
}

/* What flow @i has to say: an acknowledgement of all, with a byte if @data. */
static void put_ack(int i, uint16_t win, const char *data, uint32_t seq)
{
	put_seg(&h, &(struct seg){ .dst = dst_of(i), .sport = port_of(i), .dport = 80, .seq = seq, .ack = isn[i], .flags = TH_ACK,
				   .win = win, .data = data, .data_n = data ? 1 : 0 });
}

/* 64 at a time: asked, answered with the same open file as the world, accepted. */
static void fill(int world)
{
	struct frame f;

	for (int i = 0; i < FULL; i += 64) {
		for (int k = i; k < i + 64; k++)
			send_syn(port_of(k), dst_of(k));
		for (int k = 0; k < 64; k++) {
			want_msg(&h, NET_OPEN_TCP);
			question[vm.open.guest_port - 10000] = vm.head;
			fake_answer(h.w.vault, &vm.head, NET_CONNECTED, 0, world);
		}
		for (int k = 0; k < 64; k++) {
			int n;

			f = want_tcp(&h, TH_SYN | TH_ACK);
			n = be16(f.tcp->dport) - 10000;
			isn[n] = be32(f.tcp->seq) + 1;
			put_ack(n, 65535, NULL, 2);
		}
	}
}

static long resident_kb(void)
{
	char path[64], line[200];
	long kb = -1;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)h.w.pid);
	f = fopen(path, "r");
	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f))
		(void)sscanf(line, "VmRSS: %ld", &kb);
	(void)fclose(f);
	return kb;
}

TEST(row_23_a_window_of_one_on_every_flow_takes_no_more_than_the_pool)
{
	struct rlimit lim;
	struct frame f;
	long most = 0;
	int sv[2], got = 0;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_max < NEED)
		skip();
	host_start(&h);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
	fill(sv[1]);
	for (int i = 0; i < FULL; i++)
		put_ack(i, 1, NULL, 2);
	want_silence(&h);
	/* Every flow reads the same end, a byte at a time; each byte takes a chunk until it is acknowledged. */
	CHECK_INT(write(sv[0], question, FULL), ==, FULL);
	(void)usleep(300000);
	most = resident_kb();
	for (int n; got < FULL;) {
		do
			CHECK(get_frame(&h, &f, 20000));
		while (!f.tcp || f.data_n == 0);
		CHECK_INT(f.tcp->flags & TH_RST, ==, 0);
		CHECK_INT(f.data_n, ==, 1);
		n = be16(f.tcp->dport) - 10000;
		CHECK(n >= 0 && n < FULL);
		if (be32(f.tcp->seq) == isn[n]) {
			isn[n]++;
			got++;
		} else {
			CHECK_INT(be32(f.tcp->seq) + 1, ==, isn[n]); /* sent again: 200 ms were over */
		}
		put_ack(n, 1, NULL, 2);
	}
	print_message("16384 windows of 1: %ld kB resident\n", most);
#if !defined(__SANITIZE_ADDRESS__)
	CHECK_INT(most, <=, 16384);
#endif
	(void)close(sv[0]);
	(void)close(sv[1]);
	host_end(&h);
}

TEST(row_34_a_dns_connection_that_dribbles_is_closed)
{
	const uint8_t opts[4] = { 2, 4, 0xff, 0xc8 };
	struct seg s = { .dst = fake_config.gateway4, .sport = 100, .dport = 53, .seq = 1, .flags = TH_SYN, .win = 65535,
			 .opts = opts, .opts_n = 4 };
	struct timespec a, b;
	struct frame f;

	host_start(&h);
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	put_seg(&h, &s);
	s.ack = be32(want_tcp(&h, TH_SYN | TH_ACK).tcp->seq) + 1;
	s.seq = 2;
	s.flags = TH_ACK;
	s.opts_n = 0;
	/* A question of 65,535 bytes, one a second. */
	for (int i = 0; i < 20; i++) {
		s.data = i < 2 ? "\377" : "x";
		s.data_n = 1;
		put_seg(&h, &s);
		s.seq++;
		while (get_frame(&h, &f, 1000))
			if (f.tcp->flags & (TH_FIN | TH_RST)) {
				(void)clock_gettime(CLOCK_MONOTONIC, &b);
				CHECK_INT(b.tv_sec - a.tv_sec, >=, 9);
				host_end(&h);
				return;
			}
	}
	fail_msg("still open");
}

TEST(row_30_a_full_table_gives_up_idle_flows_alone)
{
	struct rlimit lim;
	struct frame f;
	int sv[2];

	CHECK_INT(getrlimit(RLIMIT_NOFILE, &lim), ==, 0);
	if (lim.rlim_max < NEED) {
		print_message("this user may have %lu descriptors, of %d\n", (unsigned long)lim.rlim_max, NEED);
		skip();
	}
	host_start(&h);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), ==, 0);
	fill(sv[1]);
	(void)close(sv[1]);
	print_message("16384 idle flows: %ld kB resident\n", resident_kb());
	/* All were active a moment ago: the new one is refused, and nobody is asked for it. */
	send_syn(5, NULL);
	(void)want_tcp(&h, TH_RST | TH_ACK);
	want_no_msg(&h);
	/* A minute later one goes, of the destination with the most; the one that spoke meanwhile stays. */
	(void)usleep((IDLE_MS - 10000) * 1000);
	put_ack(0, 65535, "x", 2);
	(void)want_tcp(&h, TH_ACK);
	(void)usleep(13000 * 1000);
	for (int i = 0; i < 20; i++) {
		int gone = -1;

		(void)usleep(20000); /* one search each 10 ms */
		send_syn((uint16_t)(100 + i), NULL);
		f = want_tcp(&h, TH_RST | TH_ACK);
		gone = be16(f.tcp->dport) - 10000;
		CHECK(gone > 0 && gone < FULL);
		CHECK_INT(gone % 4, !=, 3);
		for (int k = 0; k < 2; k++) {
			CHECK(get_msg_of(h.w.vault, 20000));
			if (vm.head.type == NET_ENDED) {
				CHECK_INT(vm.ended.how, ==, NET_END_EVICTED);
				CHECK(vm.head.slot == question[gone].slot && vm.head.generation == question[gone].generation);
			} else {
				CHECK_INT(vm.head.type, ==, NET_OPEN_TCP);
				CHECK_INT(vm.open.guest_port, ==, 100 + i);
				fake_answer(h.w.vault, &vm.head, NET_REFUSED, 0, -1);
				(void)want_tcp(&h, TH_RST | TH_ACK);
				/* Its place is free again: taken, so that the next one finds a full table. */
				send_syn((uint16_t)(200 + i), NULL);
			}
		}
		want_msg(&h, NET_OPEN_TCP);
		CHECK_INT(vm.open.guest_port, ==, 200 + i);
	}
	/* The one that spoke. */
	put_ack(0, 65535, "y", 3);
	f = want_tcp(&h, TH_ACK);
	CHECK_INT(be32(f.tcp->ack), ==, 4);
	(void)close(sv[0]);
	host_end(&h);
}
