/* Bytes through the guest program: much of it, nobody who reads, many at once, files, and a host that breaks the rules. */
#include "guest-host.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

static long rss_kb(pid_t pid)
{
	char path[64], line[256];
	long kb = -1;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kb = strtol(line + 6, NULL, 10);
	if (f)
		(void)fclose(f);
	return kb;
}

/* What it took since it was forked from us, pages of ours that it shares left out. */
static long grown_kb(const struct host *h, long rss_at_start)
{
	return rss_kb(h->pid) - rss_at_start;
}

static void fill(uint8_t *p, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++) {
		*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
		p[i] = (uint8_t)(*state >> 56);
	}
}

#ifdef __SANITIZE_ADDRESS__
#define BIG (20 << 20)
#define GROWN_MAX_KB 300000 /* what was freed stays in quarantine, up to 256 MB; the release build has the real bound */
#else
#define BIG (100 << 20)
#define GROWN_MAX_KB 3000
#endif

TEST(a_hundred_megabytes_go_through_cat_byte_for_byte)
{
	static uint8_t piece[CTL_DATA_MAX];
	uint64_t state = 1, sum = 0, sent = 0;
	struct host h;
	struct hs *s;
	long rss = 0;
	long rss_at_start;

	host_start(&h);
	rss_at_start = rss_kb(h.pid);
	s = host_exec(&h, 1, HX_STDIN, NULL, ARGV("cat"));
	while (sent < BIG) {
		while (sent < BIG && s->tx.left > 0 && h.out.n < 200000) {
			size_t n = MIN(MIN(sizeof(piece), (size_t)s->tx.left), (size_t)(BIG - sent));

			fill(piece, n, &state);
			for (size_t i = 0; i < n; i++)
				sum = sum * 31 + piece[i];
			CHECK_INT(ctl_put(&h.out, CTL_DATA, 0, 1, piece, n), ==, 0);
			s->tx.left -= (uint32_t)n;
			sent += n;
		}
		host_turn(&h, 1000);
		CHECK(!s->exited);
		rss = MAX(rss, grown_kb(&h, rss_at_start));
	}
	host_eof(&h, 1);
	HOST_UNTIL(&h, s->exited, 120);
	CHECK_INT(s->value, ==, 0);
	CHECK_INT(s->n[0], ==, BIG);
	CHECK_INT(s->sum[0], ==, sum);
	CHECK_INT(rss, <, GROWN_MAX_KB);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_reader_that_gives_no_credit_holds_the_program_and_no_memory)
{
	struct host h;
	struct hs *s;
	uint64_t at;
	long rss_at_start;

	host_start(&h);
	rss_at_start = rss_kb(h.pid);
	s = host_exec(&h, 1, 0, NULL, ARGV("head", "-c", "200000000", "/dev/zero"));
	s->hold = true;
	HOST_UNTIL(&h, s->n[0] == CTL_WINDOW, 20);
	at = s->n[0];
	for (int i = 0; i < 10; i++)
		host_turn(&h, 20);
	CHECK_INT(s->n[0], ==, at);
	CHECK_INT(grown_kb(&h, rss_at_start), <, GROWN_MAX_KB);
	CHECK(!s->exited);
	/* Others go on meanwhile. */
	CHECK_INT(host_run(&h, 2, 0, SH("exit 3"))->value, ==, 3);
	s->hold = false;
	CHECK_INT(ctl_put_u32(&h.out, CTL_CREDIT, 1, 1, ctl_credit_free(&s->rx[0], at)), ==, 0);
	HOST_UNTIL(&h, s->exited, 120);
	CHECK_INT(s->n[0], ==, 200000000);
	CHECK_INT(grown_kb(&h, rss_at_start), <, GROWN_MAX_KB);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(a_host_that_does_not_read_holds_everything_and_no_memory)
{
	struct host h;
	long rss_at_start;

	host_start(&h);
	rss_at_start = rss_kb(h.pid);
	for (uint32_t id = 1; id <= 8; id++)
		(void)host_exec(&h, id, 0, NULL, ARGV("yes"));
	CHECK_INT(send(h.fd, buf_span(&h.out).p, h.out.n, 0), ==, h.out.n);
	buf_consume(&h.out, h.out.n);
	(void)usleep(500000);
	CHECK_INT(grown_kb(&h, rss_at_start), <, GROWN_MAX_KB);
	HOST_UNTIL(&h, h.s[1].n[0] > 3 << 20 && h.s[8].n[0] > 3 << 20, 20);
	CHECK_INT(host_stop(&h), ==, 3);
}

enum { FLOODS = 20 }; /* streams 1 to 20 */

/* What came of all floods. */
static uint64_t flooded(const struct host *h)
{
	uint64_t sum = 0;

	for (uint32_t id = 1; id <= FLOODS; id++)
		sum += h->s[id].n[0];
	return sum;
}

/* What came of the least of them since there was so much of each. */
static uint64_t least_since(const struct host *h, const uint64_t *had)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t id = 1; id <= FLOODS; id++)
		least = MIN(least, h->s[id].n[0] - had[id]);
	return least;
}

TEST(floods_starve_neither_each_other_nor_control)
{
	struct host h;
	struct hs *quiet;
	uint64_t most, least, had[FLOODS + 1];
	int slow = 0;

	host_start(&h);
	for (uint32_t id = 1; id <= FLOODS; id++)
		(void)host_exec(&h, id, 0, NULL, ARGV("yes"));
	quiet = host_exec(&h, FLOODS + 1, HX_STDIN, NULL, ARGV("cat"));
	HOST_UNTIL(&h, h.s[FLOODS].n[0] > 0 && quiet->started, 20);
	/* In bytes of the floods, for a machine has any speed: it is one MiB, and five where each has sent its window meanwhile. */
	for (int i = 0; i < 20; i++) {
		uint64_t quiet_had = quiet->n[0], before = flooded(&h);

		CHECK_INT(ctl_put_u64(&h.out, CTL_PING, 0, (uint64_t)i), ==, 0);
		host_send(&h, FLOODS + 1, "k");
		HOST_UNTIL(&h, h.pongs == i + 1 && quiet->n[0] == quiet_had + 1, 20);
		CHECK_INT(h.pong, ==, i);
		slow += flooded(&h) - before > FLOODS * CTL_WINDOW;
	}
	CHECK_INT(slow, <, 10); /* now and then cat has no processor */
	/* Up to three times: a flood that has no processor is not starved by the guest. */
	for (int tries = 1;; tries++) {
		for (uint32_t id = 1; id <= FLOODS; id++)
			had[id] = h.s[id].n[0];
		HOST_UNTIL(&h, least_since(&h, had) > 1 << 20, 60);
		least = least_since(&h, had);
		most = 0;
		for (uint32_t id = 1; id <= FLOODS; id++)
			most = MAX(most, h.s[id].n[0] - had[id]);
		if (most < 20 * least + (4 << 20))
			break;
		CHECK_INT(tries, <, 3);
	}
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(stdin_nobody_reads_holds_only_its_own_channel)
{
	static char zeros[CTL_DATA_MAX];
	struct host h;
	struct hs *s;

	host_start(&h);
	s = host_exec(&h, 1, HX_STDIN, NULL, ARGV("sleep", "100"));
	while (s->tx.left > 0) {
		CHECK_INT(ctl_put(&h.out, CTL_DATA, 0, 1, zeros, sizeof(zeros)), ==, 0);
		s->tx.left -= sizeof(zeros);
	}
	HOST_UNTIL(&h, h.out.n == 0, 20);
	CHECK_INT(host_run(&h, 2, 0, SH("exit 3"))->value, ==, 3);
	CHECK_INT(s->tx.left, <, CTL_WINDOW / 2);
	/* Its end frees what was held. */
	CHECK_INT(ctl_put_u32(&h.out, CTL_SIGNAL, 0, 1, SIGKILL), ==, 0);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(stdin_that_was_closed_is_discarded_and_gives_its_credit_back)
{
	static char zeros[CTL_DATA_MAX];
	struct host h;
	struct hs *s;
	uint64_t sent = 0;

	host_start(&h);
	s = host_exec(&h, 1, HX_STDIN, NULL, SH("exec <&-; echo closed; sleep 100"));
	HOST_UNTIL(&h, s->n[0] > 0, 20);
	while (sent < 4 * CTL_WINDOW) {
		HOST_UNTIL(&h, s->tx.left >= sizeof(zeros), 20);
		CHECK_INT(ctl_put(&h.out, CTL_DATA, 0, 1, zeros, sizeof(zeros)), ==, 0);
		s->tx.left -= sizeof(zeros);
		sent += sizeof(zeros);
	}
	CHECK_INT(ctl_put_u32(&h.out, CTL_SIGNAL, 0, 1, SIGTERM), ==, 0);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, SIGTERM);
	CHECK_INT(host_stop(&h), ==, 3);
}

TEST(streams_up_to_the_limit_run_at_once_and_one_more_is_refused)
{
	struct host h;

	host_start(&h);
	for (uint32_t id = 1; id <= CTL_STREAMS_MAX; id++)
		(void)host_exec(&h, id, HX_STDIN, NULL, ARGV("cat"));
	(void)host_exec(&h, CTL_STREAMS_MAX + 1, 0, NULL, ARGV("true"));
	HOST_UNTIL(&h, h.s[CTL_STREAMS_MAX + 1].exited, 20);
	CHECK_INT(h.s[CTL_STREAMS_MAX + 1].how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(h.s[CTL_STREAMS_MAX + 1].value, ==, EMFILE);
	for (uint32_t id = 1; id <= CTL_STREAMS_MAX; id++) {
		char text[16];

		(void)snprintf(text, sizeof(text), "<%u>", id);
		host_send(&h, id, text);
		host_eof(&h, id);
	}
	for (uint32_t id = 1; id <= CTL_STREAMS_MAX; id++) {
		char text[16];

		(void)snprintf(text, sizeof(text), "<%u>", id);
		HOST_UNTIL(&h, h.s[id].exited, 20);
		CHECK_STR(h.s[id].out[0], text);
	}
	CHECK_INT(host_run(&h, CTL_STREAMS_MAX + 2, 0, SH("exit 6"))->value, ==, 6);
	CHECK_INT(host_stop(&h), ==, 3);
}

static struct hs *file_order(struct host *h, uint32_t id, enum ctl_type type, const char *path, uint64_t v)
{
	struct hs *s = hs_open(h, id);
	ssize_t at = ctl_begin(&h->out, type, 0, id);

	(void)rec_put_str(&h->out, CTL_K_PATH, path);
	(void)rec_put_u64(&h->out, type == CTL_PUT ? CTL_K_MODE : CTL_K_MAX, v);
	ctl_end(&h->out, (size_t)at);
	return s;
}

static size_t entries(const char *dir)
{
	char cmd[128];
	size_t n = 0;
	FILE *p;

	(void)snprintf(cmd, sizeof(cmd), "ls -A %s", dir);
	p = popen(cmd, "re");
	while (p && fgets(cmd, sizeof(cmd), p))
		n++;
	if (p)
		(void)pclose(p);
	return n;
}

TEST(files_are_put_whole_with_their_mode_and_got_back)
{
	char dir[] = "/tmp/t-guest-flow-XXXXXX", path[64], fifo[64];
	struct host h;
	struct hs *s;
	struct stat st;

	CHECK(mkdtemp(dir) != NULL);
	(void)snprintf(path, sizeof(path), "%s/f", dir);
	(void)snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	CHECK_INT(symlink("/etc/passwd", path), ==, 0); /* is replaced, not followed */
	host_start(&h);
	s = file_order(&h, 1, CTL_PUT, path, 0640);
	for (int i = 0; i < 4; i++) {
		static char part[CTL_DATA_MAX];

		memset(part, 'a' + i, sizeof(part));
		CHECK_INT(ctl_put(&h.out, CTL_DATA, 0, 1, part, sizeof(part)), ==, 0);
		s->tx.left -= sizeof(part);
	}
	for (int i = 0; i < 5; i++)
		host_turn(&h, 20);
	CHECK(lstat(path, &st) == 0 && S_ISLNK(st.st_mode)); /* not before the end */
	host_eof(&h, 1);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_CODE);
	CHECK_INT(s->value, ==, 0);
	CHECK(lstat(path, &st) == 0 && S_ISREG(st.st_mode));
	CHECK_INT(st.st_mode & 07777, ==, 0640);
	CHECK_INT(st.st_size, ==, 4 * CTL_DATA_MAX);
	CHECK_INT(entries(dir), ==, 1);

	s = file_order(&h, 2, CTL_GET, path, 1 << 20);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, 0);
	CHECK_INT(s->file_mode, ==, 0640);
	CHECK_INT(s->file_size, ==, 4 * CTL_DATA_MAX);
	CHECK_INT(s->n[0], ==, 4 * CTL_DATA_MAX);
	CHECK(s->eof[0] && s->out[0][0] == 'a' && s->out[0][HS_KEEP - 1] == 'b');

	s = file_order(&h, 3, CTL_GET, path, 10);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, EFBIG);
	CHECK_INT(mkfifo(fifo, 0600), ==, 0);
	s = file_order(&h, 4, CTL_GET, fifo, 10);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(s->value, ==, EINVAL);
	s = file_order(&h, 5, CTL_GET, "/no/such", 10);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, ENOENT);
	s = file_order(&h, 6, CTL_PUT, "/no/such", 0644);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->value, ==, ENOENT);

	/* Given up: the old file stays and nothing is left beside it. */
	s = file_order(&h, 7, CTL_PUT, path, 0600);
	host_send(&h, 7, "half");
	for (int i = 0; i < 5; i++)
		host_turn(&h, 20);
	CHECK_INT(ctl_put(&h.out, CTL_CLOSE, 0, 7, NULL, 0), ==, 0);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(entries(dir), ==, 2);
	CHECK(stat(path, &st) == 0 && st.st_size == 4 * CTL_DATA_MAX);
	CHECK_INT(host_stop(&h), ==, 3);
	(void)unlink(path);
	(void)unlink(fifo);
	(void)rmdir(dir);
}

/* What the host sends ends the session at once, and what ran is ended. */
static void check_violation(void (*send)(struct host *))
{
	struct host h;
	struct hs *s;
	int64_t start;

	host_start(&h);
	s = host_exec(&h, 5, HX_STDIN, NULL, ARGV("sleep", "100"));
	HOST_UNTIL(&h, s->started, 20);
	start = now_ns();
	send(&h);
	while (!h.gone && now_ns() - start < 40 * S_NS)
		host_turn(&h, 20);
	CHECK(h.gone && !h.bye);
	CHECK(strstr(h.log, "broke the control protocol"));
	CHECK(kill((pid_t)s->pid, 0) < 0 && errno == ESRCH);
	CHECK_INT(host_stop(&h), ==, 3);
}

static void send_beyond_credit(struct host *h)
{
	static char zeros[CTL_DATA_MAX];

	h->lax = true;
	for (int i = 0; i < CTL_WINDOW / CTL_DATA_MAX; i++)
		(void)ctl_put(&h->out, CTL_DATA, 0, 5, zeros, sizeof(zeros));
	/* The pipe took 64 KiB, whose credit came back; so much more is needed. */
	for (int i = 0; i < 3; i++)
		(void)ctl_put(&h->out, CTL_DATA, 0, 5, zeros, sizeof(zeros));
}

static void send_after_eof(struct host *h)
{
	host_eof(h, 5);
	host_send(h, 5, "x");
}

static void send_unknown_stream(struct host *h)
{
	(void)ctl_put_u32(&h->out, CTL_SIGNAL, 0, 6, SIGINT);
}

static void send_used_number(struct host *h)
{
	h->s[4].open = true;
	(void)ctl_put(&h->out, CTL_EXEC, 0, 4, "\1\0\1\0\0\0x", 7);
}

static void send_second_config(struct host *h)
{
	(void)ctl_put(&h->out, CTL_CONFIG, 0, 0, NULL, 0);
}

static void send_broken_records(struct host *h)
{
	(void)ctl_put(&h->out, CTL_EXEC, 0, 6, "\1\0\11\0\0\0x", 7);
}

static void send_too_much_credit(struct host *h)
{
	(void)ctl_put_u32(&h->out, CTL_CREDIT, 1, 5, 1);
}

static void send_garbage(struct host *h)
{
	(void)buf_put(&h->out, "GET / HTTP/1.1\r\n", 16);
}

TEST(violations_of_the_protocol_end_the_session)
{
	check_violation(send_beyond_credit);
	check_violation(send_after_eof);
	check_violation(send_unknown_stream);
	check_violation(send_used_number);
	check_violation(send_second_config);
	check_violation(send_broken_records);
	check_violation(send_too_much_credit);
	check_violation(send_garbage);
}

TEST(frames_for_a_stream_that_has_just_ended_are_no_violation)
{
	struct host h;

	host_start(&h);
	CHECK_INT(host_run(&h, 1, HX_STDIN, ARGV("true"))->value, ==, 0);
	host_send(&h, 1, "late");
	host_eof(&h, 1);
	CHECK_INT(ctl_put_u32(&h.out, CTL_SIGNAL, 0, 1, SIGINT), ==, 0);
	CHECK_INT(host_run(&h, 2, 0, SH("exit 3"))->value, ==, 3);
	CHECK_INT(host_stop(&h), ==, 3);
}

static struct hs *dial_order(struct host *h, uint32_t id, uint16_t port)
{
	static const uint8_t addr[5] = { 4, 127, 0, 0, 1 };
	struct hs *s = hs_open(h, id);
	ssize_t at = ctl_begin(&h->out, CTL_DIAL, 0, id);

	(void)rec_put(&h->out, CTL_K_ADDR, addr, sizeof(addr));
	(void)rec_put_u64(&h->out, CTL_K_PORT, port);
	ctl_end(&h->out, (size_t)at);
	return s;
}

TEST(a_connection_of_the_guest_carries_bytes_both_ways_and_its_end)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(in);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	char got[32] = "";
	struct host h;
	struct hs *s;

	CHECK_INT(bind(listener, (struct sockaddr *)&in, sizeof(in)), ==, 0);
	CHECK_INT(listen(listener, 1), ==, 0);
	CHECK_INT(getsockname(listener, (struct sockaddr *)&in, &n), ==, 0);
	host_start(&h);
	s = dial_order(&h, 1, ntohs(in.sin_port));
	host_send(&h, 1, "question");
	host_turn(&h, 20);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK_INT(fd, >=, 0);
	for (size_t k = 0; k < 8;) {
		ssize_t r;

		host_turn(&h, 20);
		r = recv(fd, got + k, sizeof(got) - k, MSG_DONTWAIT);
		k += r > 0 ? (size_t)r : 0;
	}
	CHECK_STR(got, "question");
	CHECK_INT(send(fd, "answer", 6, MSG_NOSIGNAL), ==, 6);
	CHECK_INT(shutdown(fd, SHUT_WR), ==, 0);
	HOST_UNTIL(&h, s->eof[0], 20);
	CHECK_STR(s->out[0], "answer");
	host_eof(&h, 1);
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_CODE);
	CHECK_INT(recv(fd, got, sizeof(got), 0), ==, 0);
	(void)close(fd);
	(void)close(listener);
	/* Nobody there: said with its errno. */
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	in.sin_port = 0;
	CHECK_INT(bind(listener, (struct sockaddr *)&in, sizeof(in)), ==, 0);
	CHECK_INT(getsockname(listener, (struct sockaddr *)&in, &n), ==, 0);
	s = dial_order(&h, 2, ntohs(in.sin_port));
	HOST_UNTIL(&h, s->exited, 20);
	CHECK_INT(s->how, ==, CTL_EXIT_ERRNO);
	CHECK_INT(s->value, ==, ECONNREFUSED);
	(void)close(listener);
	(void)ctl_put(&h.out, CTL_DIAL, 0, 3, "\1\0\1\0\0\0x", 7);
	CHECK_INT(host_stop(&h), !=, 0);
}
