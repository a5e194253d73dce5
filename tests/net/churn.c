/* Load of the network tests, against `traffic serve PORT` at every ADDR.
 *
 *   churn run PORT SECONDS WORKERS [fixed] ADDR…   connections of every kind, one after the other in each worker, every byte
 *                                                  compared; the first ADDR has UDP, too; fixed: always the same UDP ports
 *   churn hold PORT N SECONDS EVERY ADDR…          N connections at once, a byte there and back on each every EVERY seconds
 *
 * Prints "ok" and what was done, or "wrong: " and what. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "base/macros.h"
#include "traffic.h"

#define GATEWAY "192.0.0.1"
#define PATIENCE_S 30 /* an answer that takes longer is lost */
#define UDP_FIRST 65100 /* above the range from which the test lets the kernel choose for others */
#define HOLD_MAX 16000
#define OPENING_MAX 100 /* wire has at most 128 questions for one address under way; beyond, a SYN waits a second */

enum kind { K_SHORT, K_DOWN, K_UP, K_HALF, K_ABORT, K_EARLY, K_RESET, K_REFUSED, K_UDP, K_DNS, K_DNS_TCP, K_PING, KINDS };
static const char *const kind_str[] = {
	[K_SHORT] = "short", [K_DOWN] = "down", [K_UP] = "up", [K_HALF] = "half-closed", [K_ABORT] = "aborted",
	[K_EARLY] = "given up", [K_RESET] = "reset", [K_REFUSED] = "refused", [K_UDP] = "udp", [K_DNS] = "dns",
	[K_DNS_TCP] = "dns-tcp", [K_PING] = "ping",
};
static_assert(sizeof(kind_str) / sizeof(*kind_str) == KINDS, "kind_str[] is incomplete");

static char **addrs;
static size_t n_addrs;
static uint16_t port;
static uint64_t seed;
static bool fixed;
static unsigned int me;

static uint64_t rnd(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static socklen_t address(const char *text, uint16_t to, struct sockaddr_storage *ss)
{
	struct sockaddr_in *a4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, text, &a4->sin_addr) == 1) {
		a4->sin_family = AF_INET;
		a4->sin_port = htons(to);
		return sizeof(*a4);
	}
	if (inet_pton(AF_INET6, text, &a6->sin6_addr) != 1)
		wrong("address", 0, 0);
	a6->sin6_family = AF_INET6;
	a6->sin6_port = htons(to);
	return sizeof(*a6);
}

/* A connected socket; -1 with errno. */
static int dial(const char *to, uint16_t at, int type)
{
	struct timeval tv = { PATIENCE_S, 0 };
	struct sockaddr_storage ss;
	socklen_t n = address(to, at, &ss);
	int s = socket(ss.ss_family, type | SOCK_CLOEXEC, 0), one = 1, e;

	(void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	(void)setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if ((type & 0xf) == SOCK_STREAM)
		(void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(s, (struct sockaddr *)&ss, n) == 0 || errno == EINPROGRESS)
		return s;
	e = errno;
	(void)close(s);
	errno = e;
	return -1;
}

static int server(enum what what, uint64_t n)
{
	struct head h = { what, n };
	int s = dial(addrs[rnd(n_addrs)], port, SOCK_STREAM);

	if (s < 0)
		wrong("connect", what, (uint64_t)errno);
	if (send(s, &h, sizeof(h), MSG_NOSIGNAL) != sizeof(h))
		wrong("head", what, (uint64_t)errno);
	return s;
}

static void reset_close(int s)
{
	const struct linger l = { 1, 0 };

	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	(void)close(s);
}

static void sent(int s, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = send(s, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);

		if (k <= 0)
			wrong("send", at, (uint64_t)errno);
		at += (size_t)k;
	}
}

/* @n bytes of the table, then the end if @end. */
static void received(int s, uint64_t n, bool end)
{
	static uint8_t b[65536];

	for (uint64_t at = 0; at < n;) {
		ssize_t k = recv(s, b, MIN(n - at, sizeof(b)), 0);

		if (k <= 0)
			wrong("stream ends", at, k < 0 ? (uint64_t)errno : 0);
		if (memcmp(b, table + at % TABLE, (size_t)k) != 0)
			wrong("bytes differ", at, (uint64_t)k);
		at += (uint64_t)k;
	}
	if (end && recv(s, b, 1, 0) != 0)
		wrong("no end", n, (uint64_t)errno);
}

static void echo_byte(int s)
{
	uint8_t c = (uint8_t)rnd(256), d = 0;

	sent(s, &c, 1);
	if (recv(s, &d, 1, 0) != 1 || d != c)
		wrong("echo", d, (uint64_t)errno);
}

static void up(uint64_t n)
{
	int s = server(SINK, 0);
	struct sunk r;

	sent(s, table, n);
	(void)shutdown(s, SHUT_WR);
	if (recv(s, &r, sizeof(r), MSG_WAITALL) != sizeof(r) || r.in != n || r.bad != 0)
		wrong("the server has", r.in, n);
	(void)close(s);
}

/* A datagram there and back. Datagrams may be lost, so the question is repeated, and the second answer may come to who has the
 * port by then: the two bytes at id_at tell. The first own bytes are the same in all answers to this port. */
static void ask(int s, const uint8_t *q, size_t n, size_t own, size_t id_at, uint8_t *a, size_t *ret_n)
{
	struct timeval tv = { 1, 0 };
	ssize_t k = -1;

	(void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	for (int i = 0; i < PATIENCE_S && k < 0; i++) {
		if (send(s, q, n, MSG_NOSIGNAL) < 0 && errno != ECONNREFUSED)
			wrong("datagram", n, (uint64_t)errno);
		do {
			k = recv(s, a, 65536, 0);
			if (k >= (ssize_t)own && memcmp(a, q, own) != 0)
				wrong("datagram for another", n, (uint64_t)k);
		} while (k >= (ssize_t)id_at + 2 && memcmp(a + id_at, q + id_at, 2) != 0);
	}
	if (k < 0)
		wrong("no answer to a datagram", n, (uint64_t)errno);
	*ret_n = (size_t)k;
}

static void udp(void)
{
	static uint8_t q[2048], a[65536];
	size_t n = 8 + rnd(2000), k;
	uint16_t id = (uint16_t)rnd(65536);
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons((uint16_t)(UDP_FIRST + me)) };
	struct sockaddr_storage ss;
	socklen_t len = address(addrs[0], port, &ss);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (n == 1400) /* those are counted, not sent back */
		n++;
	if (fixed && bind(s, (struct sockaddr *)&own, sizeof(own)) < 0)
		wrong("bind", me, (uint64_t)errno);
	(void)connect(s, (struct sockaddr *)&ss, len);
	len = sizeof(own);
	(void)getsockname(s, (struct sockaddr *)&own, &len);
	memcpy(q, table + n, n);
	memcpy(q, &own.sin_port, 2);
	memcpy(q + 2, &id, 2);
	ask(s, q, n, 2, 2, a, &k);
	if (k != n || memcmp(a, q, n) != 0)
		wrong("datagram differs", n, k);
	(void)close(s);
}

/* One of a few names, so that the answer is mostly remembered. */
static size_t question(uint8_t *q, uint16_t id)
{
	static const uint8_t tail[] = { 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1 };
	const uint8_t head[] = { (uint8_t)(id >> 8), (uint8_t)id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 'n', (uint8_t)('a' + rnd(20)) };

	memcpy(q, head, sizeof(head));
	memcpy(q + sizeof(head), tail, sizeof(tail));
	return sizeof(head) + sizeof(tail);
}

static void dns(void)
{
	static uint8_t a[65536];
	uint16_t id = (uint16_t)rnd(65536);
	uint8_t q[64];
	size_t n = question(q, id), k;
	int s = dial(GATEWAY, 53, SOCK_DGRAM);

	ask(s, q, n, 0, 0, a, &k);
	if (k < n || a[0] != q[0] || a[1] != q[1] || !(a[2] & 0x80) || memcmp(a + 12, q + 12, n - 12) != 0)
		wrong("answer of DNS", k, a[3]);
	(void)close(s);
}

static void dns_tcp(void)
{
	uint8_t q[66], a[600];
	int s = dial(GATEWAY, 53, SOCK_STREAM);

	if (s < 0 && errno == ECONNREFUSED)
		return; /* 32 are open */
	if (s < 0)
		wrong("connect for DNS", 0, (uint64_t)errno);
	for (int i = 0; i < 3; i++) {
		size_t n = question(q + 2, (uint16_t)i), k;

		q[0] = 0;
		q[1] = (uint8_t)n;
		sent(s, q, n + 2);
		if (recv(s, a, 2, MSG_WAITALL) != 2)
			wrong("answer of DNS over TCP", (uint64_t)i, (uint64_t)errno);
		k = (size_t)a[0] << 8 | a[1];
		if (k < n || k > sizeof(a) || recv(s, a, k, MSG_WAITALL) != (ssize_t)k || a[1] != i)
			wrong("answer of DNS over TCP", k, a[1]);
	}
	(void)close(s);
}

/* One worker alone pings: wire passes on 50 a second. */
static void ping(void)
{
	static uint8_t a[65536];
	uint8_t q[64] = { 8 };
	struct sockaddr_storage ss;
	socklen_t len = address(addrs[0], 0, &ss);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
	size_t k;

	q[6] = (uint8_t)rnd(256);
	q[7] = (uint8_t)rnd(256);
	if (s < 0 || connect(s, (struct sockaddr *)&ss, len) < 0)
		wrong("ping socket", 0, (uint64_t)errno);
	ask(s, q, sizeof(q), 0, 6, a, &k);
	if (k != sizeof(q) || a[0] != 0)
		wrong("ping", k, a[0]);
	(void)close(s);
	(void)usleep(30000);
}

static void one(enum kind k)
{
	static uint8_t b[65536];
	uint64_t n = rnd(rnd(8) == 0 ? 1000000 : 20000);
	int s;

	switch (k) {
	case K_SHORT:
		s = server(ECHO, 0);
		echo_byte(s);
		(void)close(s);
		break;
	case K_DOWN:
		s = server(SOURCE, n);
		received(s, n, true);
		(void)close(s);
		break;
	case K_UP:
		up(n);
		break;
	case K_HALF:
		s = server(SOURCE, n);
		(void)shutdown(s, SHUT_WR);
		(void)usleep((useconds_t)rnd(20000));
		received(s, n, true);
		(void)close(s);
		break;
	case K_ABORT:
		s = server(SOURCE, 1000000 + n);
		(void)!recv(s, b, sizeof(b), 0);
		reset_close(s);
		break;
	case K_EARLY: /* before vault has answered, mostly */
		s = dial(addrs[rnd(n_addrs)], port, SOCK_STREAM | SOCK_NONBLOCK);
		(void)usleep((useconds_t)rnd(300));
		if (rnd(2))
			reset_close(s);
		else
			(void)close(s);
		break;
	case K_RESET:
		s = server(RESET, 0);
		if (recv(s, b, 1, 0) >= 0 || errno != ECONNRESET)
			wrong("no reset", 0, (uint64_t)errno);
		(void)close(s);
		break;
	case K_REFUSED:
		s = dial(addrs[rnd(n_addrs)], (uint16_t)(port + 1), SOCK_STREAM);
		if (s >= 0 || errno != ECONNREFUSED)
			wrong("not refused", 0, (uint64_t)errno);
		break;
	case K_UDP:
		udp();
		break;
	case K_DNS:
		dns();
		break;
	case K_DNS_TCP:
		dns_tcp();
		break;
	case K_PING:
	case KINDS:
		ping();
		break;
	}
}

static bool all_done(const uint64_t *done)
{
	for (int k = 0; k < KINDS; k++)
		if (__atomic_load_n(&done[k], __ATOMIC_RELAXED) == 0)
			return false;
	return true;
}

static int run(int seconds, unsigned int workers)
{
	uint64_t *done = mmap(NULL, sizeof(*done) * KINDS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), sum = 0;
	int64_t end = now() + seconds * INT64_C(1000000000);
	int status, bad = 0;

	for (me = 0; me < workers; me++) {
		if (fork() != 0)
			continue;
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		seed = 88172645463325252u + me * 977;
		/* UDP first: with fixed ports all flows are there then, however few connections this is time for. */
		for (enum kind k = K_UDP; now() < end || !all_done(done); k = (enum kind)rnd(K_PING)) {
			k = me == 0 ? K_PING : k;
			one(k);
			(void)__atomic_add_fetch(&done[k], 1, __ATOMIC_RELAXED);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		bad += status != 0;
	if (bad > 0)
		return 1;
	for (int k = 0; k < KINDS; k++)
		sum += done[k];
	(void)printf("ok %llu:", (unsigned long long)sum);
	for (int k = 0; k < KINDS; k++)
		(void)printf(" %s %llu", kind_str[k], (unsigned long long)done[k]);
	(void)puts("");
	return 0;
}

static struct held {
	int fd;
	bool open, waits;
	int64_t asked;
} held[HOLD_MAX];

static void hold_open(int ep, unsigned int i)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = i };

	held[i].fd = dial(addrs[i % n_addrs], port, SOCK_STREAM | SOCK_NONBLOCK);
	if (held[i].fd < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, held[i].fd, &e) < 0)
		wrong("connect", i, (uint64_t)errno);
}

static int hold(unsigned int n, int seconds, int every)
{
	const struct head h = { ECHO, 0 };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned int started = 0, opened = 0, next = 0, waiting = 0;
	uint64_t bytes = 0;
	int64_t begin = 0, worst = 0, t;
	struct epoll_event e[256];

	for (;;) {
		int k = epoll_wait(ep, e, 256, 2);

		t = now();
		for (int i = 0; i < k; i++) {
			struct held *c = &held[e[i].data.u32];
			uint8_t b;

			if (e[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
				wrong("connection lost", e[i].data.u32, opened);
			if (!c->open && e[i].events & EPOLLOUT) {
				c->open = true;
				opened++;
				sent(c->fd, &h, sizeof(h));
			}
			if (e[i].events & EPOLLIN && c->waits && recv(c->fd, &b, 1, 0) == 1) {
				c->waits = false;
				waiting--;
				bytes++;
				worst = MAX(worst, t - c->asked);
			}
		}
		for (; started < n && started - opened < OPENING_MAX; started++)
			hold_open(ep, started);
		if (opened < n)
			continue;
		if (begin == 0) {
			begin = t;
			(void)puts("open");
			(void)fflush(stdout);
		}
		if (t - begin >= seconds * INT64_C(1000000000)) {
			if (waiting == 0)
				break;
			for (unsigned int i = 0; i < n; i++)
				if (held[i].waits && t - held[i].asked > PATIENCE_S * INT64_C(1000000000))
					wrong("no answer on connection", i, (uint64_t)(t - held[i].asked) / 1000000);
			continue;
		}
		for (; next < (uint64_t)(t - begin) * n / (uint64_t)every / 1000000000; next++) {
			struct held *c = &held[next % n];

			if (c->waits && t - c->asked > PATIENCE_S * INT64_C(1000000000))
				wrong("no answer on connection", next % n, (uint64_t)(t - c->asked) / 1000000);
			if (c->waits)
				continue;
			c->waits = true;
			waiting++;
			c->asked = t;
			sent(c->fd, "x", 1);
		}
	}
	(void)printf("ok %u connections, %llu bytes there and back, slowest %.0f ms\n", n, (unsigned long long)bytes,
		     (double)worst / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	bool runs = argc > 5 && strcmp(argv[1], "run") == 0, holds = argc > 6 && strcmp(argv[1], "hold") == 0;
	struct rlimit lim;
	int at = runs ? 5 : 6;

	if (!runs && !holds)
		return 2;
	fixed = runs && strcmp(argv[5], "fixed") == 0;
	at += fixed;
	addrs = argv + at;
	n_addrs = (size_t)(argc - at);
	port = (uint16_t)strtoul(argv[2], NULL, 10);
	if (n_addrs == 0)
		return 2;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	table_make();
	if (runs)
		return run((int)strtoul(argv[3], NULL, 10), (unsigned int)strtoul(argv[4], NULL, 10));
	if (strtoul(argv[3], NULL, 10) > HOLD_MAX)
		return 2;
	return hold((unsigned int)strtoul(argv[3], NULL, 10), (int)strtoul(argv[4], NULL, 10), (int)strtoul(argv[5], NULL, 10));
}
