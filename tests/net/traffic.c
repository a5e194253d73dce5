/* Traffic for the network tests and benchmarks.
 *
 *   traffic serve PORT ADDR [bench]           TCP on every address, UDP on the IPv4 address ADDR, until killed
 *   traffic up|down|both ADDR PORT BYTES N    N streams at once; every byte compared; "ok" or what was wrong
 *   traffic slow ADDR PORT BYTES RATE         down at RATE bytes a second
 *   traffic halfclose ADDR PORT BYTES         ask, close, then read BYTES
 *   traffic duplex ADDR PORT BYTES how        both ways at once on one stream; how: 0 plain, 1 the client reads only when it
 *                                             has sent all, 2 the server does so: "ok", ms of the longest standstill, ms in all
 *   traffic reset ADDR PORT                   the server resets: the client must see it
 *   traffic bup|bdown|bboth ADDR PORT S N     S seconds, the first not counted: bit/s at the receiver (both: the sum),
 *                                             slowest / mean
 *   traffic crr|rr|udprr ADDR PORT S N        N at once: a second, p50 and p99 in microseconds
 *   traffic udpup ADDR PORT S                 datagrams of 1,400 bytes that arrive, a second
 *
 * What the streams carry is in traffic.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "traffic.h"

#define CONNS 70000
#define STREAMS 1024

static uint8_t buf[PIECE];

struct conn {
	bool used, got_eof, told;
	size_t head_n;
	struct head head;
	uint64_t in, out, counted, bad;
	int64_t first, last;
};

static struct conn *conns; /* by descriptor */

static bool verify = true;

/* Count what came; true at its end. */
static bool take(int fd, struct conn *c, size_t max)
{
	ssize_t n = recv(fd, buf, MIN(max, sizeof(buf)), MSG_DONTWAIT);
	int64_t t;

	if (n < 0)
		return errno != EAGAIN && errno != EINTR;
	if (n == 0) {
		c->got_eof = true;
		return true;
	}
	if (verify && memcmp(buf, table + c->in % TABLE, (size_t)n) != 0)
		c->bad++;
	c->in += (uint64_t)n;
	t = now();
	if (c->first == 0)
		c->first = t;
	if (t - c->first >= 1000000000)
		c->counted += (uint64_t)n, c->last = t;
	return false;
}

/* Send the stream's next bytes; false when it is over or broken. */
static bool give(int fd, struct conn *c, uint64_t total)
{
	while (c->out < total) {
		ssize_t n = send(fd, table + c->out % TABLE, MIN(total - c->out, (uint64_t)PIECE), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		c->out += (uint64_t)n;
	}
	return false;
}

static void watch(int ep, int fd, uint32_t events, int op)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	(void)epoll_ctl(ep, op, fd, &e);
}

static void conn_close(int fd)
{
	conns[fd].used = false;
	(void)close(fd);
}

/* What a sink or both answers at the end: how much came in, how much of that after the first second, in which time, errors. */
static void report(int fd, struct conn *c)
{
	struct sunk r = { c->in, c->counted, (uint64_t)(c->last - c->first - 1000000000), c->bad };

	c->told = true;
	(void)!send(fd, &r, sizeof(r), MSG_NOSIGNAL);
}

static void serve_conn(int ep, int fd, uint32_t events)
{
	struct conn *c = &conns[fd];
	bool over = false;

	if (c->head_n < sizeof(c->head)) {
		ssize_t n = recv(fd, (uint8_t *)&c->head + c->head_n, sizeof(c->head) - c->head_n, MSG_DONTWAIT);

		if (n <= 0) {
			if (n == 0 || errno != EAGAIN)
				conn_close(fd);
			return;
		}
		c->head_n += (size_t)n;
		if (c->head_n < sizeof(c->head))
			return;
		if (c->head.what == SOURCE || c->head.what == BOTH || c->head.what == LAZY)
			watch(ep, fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
		if (c->head.what == RESET) {
			const struct linger l = { 1, 0 };

			(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
			conn_close(fd);
			return;
		}
	}
	if (c->head.what == ECHO) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n > 0)
			(void)!send(fd, buf, (size_t)n, MSG_NOSIGNAL);
		else if (n == 0 || errno != EAGAIN)
			conn_close(fd);
		return;
	}
	if (c->head.what == LAZY) {
		if (give(fd, c, c->head.n)) {
			watch(ep, fd, EPOLLOUT, EPOLL_CTL_MOD);
			return;
		}
		if (c->out < c->head.n) {
			conn_close(fd);
			return;
		}
		c->head.what = BOTH;
		watch(ep, fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->got_eof)
		over = take(fd, c, sizeof(buf));
	if (over && !c->got_eof) {
		conn_close(fd);
		return;
	}
	if (c->head.what == SINK && over) {
		report(fd, c);
		conn_close(fd);
		return;
	}
	if (c->head.what == SOURCE || c->head.what == BOTH) {
		if (c->out < c->head.n && !give(fd, c, c->head.n) && c->out < c->head.n) {
			conn_close(fd);
			return;
		}
		if (c->out == c->head.n && (c->got_eof || c->head.what == SOURCE)) {
			if (c->head.what == BOTH)
				report(fd, c);
			/* Not closed before the peer's end was read: that would be a reset. */
			(void)shutdown(fd, SHUT_WR);
			if (c->got_eof)
				conn_close(fd);
			else
				watch(ep, fd, EPOLLIN, EPOLL_CTL_MOD);
			return;
		}
		watch(ep, fd, (c->got_eof ? 0 : EPOLLIN) | (c->out < c->head.n ? EPOLLOUT : 0), EPOLL_CTL_MOD);
	}
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, no = 0;

	(void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	(void)setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 4096) < 0) {
		perror("listen");
		exit(1);
	}
	return s;
}

static void serve_udp(int s, uint64_t *n_up)
{
	struct sockaddr_storage from;
	socklen_t k = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(s, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &k)) >= 0) {
		if (n == 1400) {
			(*n_up)++;
		} else if (n == 2) {
			(void)!sendto(s, n_up, sizeof(*n_up), 0, (struct sockaddr *)&from, k);
			*n_up = 0;
		} else {
			(void)!sendto(s, buf, (size_t)n, 0, (struct sockaddr *)&from, k);
		}
		k = sizeof(from);
	}
}

/* An answer must come from the address that was asked. */
static int bind_udp(const char *addr, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (inet_pton(AF_INET, addr, &a.sin_addr) != 1 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0) {
		perror(addr);
		exit(1);
	}
	return s;
}

static _Noreturn void serve(uint16_t port, const char *addr)
{
	int ep = epoll_create1(0), tcp = listen_on(port), udp = bind_udp(addr, port), one = 1;
	uint64_t n_up = 0;

	watch(ep, tcp, EPOLLIN, EPOLL_CTL_ADD);
	watch(ep, udp, EPOLLIN, EPOLL_CTL_ADD);
	(void)puts("ready");
	(void)fflush(stdout);
	for (;;) {
		struct epoll_event e[64];
		int n = epoll_wait(ep, e, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = e[i].data.fd;

			if (fd == udp) {
				serve_udp(udp, &n_up);
			} else if (fd == tcp) {
				while ((fd = accept4(tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
					(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					conns[fd] = (struct conn){ .used = true };
					watch(ep, fd, EPOLLIN, EPOLL_CTL_ADD);
				}
			} else if (conns[fd].used) {
				serve_conn(ep, fd, e[i].events);
			}
		}
	}
}

static int dial(const char *addr, uint16_t port, int type)
{
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	bool v4 = inet_pton(AF_INET, addr, &a4.sin_addr) == 1;
	int s = socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0), one = 1;

	if (!v4)
		(void)inet_pton(AF_INET6, addr, &a6.sin6_addr);
	if (connect(s, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6, v4 ? sizeof(a4) : sizeof(a6)) < 0) {
		(void)printf("connect: %s\n", strerror(errno));
		exit(1);
	}
	if (type == SOCK_STREAM)
		(void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return s;
}

static void read_report(int s, struct sunk *r)
{
	if (recv(s, r, sizeof(*r), MSG_WAITALL) != sizeof(*r))
		wrong("report", 0, (uint64_t)errno);
}

/* N streams; up, down or both; to @bytes each, or until @until (nanoseconds). */
static int streams(enum what what, const char *addr, uint16_t port, uint64_t bytes, int n, int64_t until)
{
	static struct { int fd; bool out_done, done; struct conn c; struct sunk r; } s[STREAMS];
	static struct pollfd p[STREAMS];
	struct head h = { what, what == SINK ? 0 : bytes };
	uint64_t sum = 0, least = UINT64_MAX, got;
	int64_t begin = now();
	double rate = 0;
	int left = n;

	for (int i = 0; i < n; i++) {
		s[i].fd = dial(addr, port, SOCK_STREAM);
		if (send(s[i].fd, &h, sizeof(h), 0) != sizeof(h))
			wrong("head", 0, (uint64_t)errno);
		s[i].out_done = what == SOURCE;
		p[i].fd = s[i].fd;
		p[i].events = (short)((what != SINK ? POLLIN : 0) | (what != SOURCE ? POLLOUT : 0));
		if (what == SOURCE && !until)
			(void)shutdown(s[i].fd, SHUT_WR);
	}
	while (left > 0) {
		if (poll(p, (nfds_t)n, 30000) == 0)
			wrong("nothing for 30 s", (uint64_t)left, 0);
		for (int i = 0; i < n; i++) {
			bool late = until && now() >= until;

			if (s[i].done || (!p[i].revents && !late))
				continue;
			if (!s[i].out_done && p[i].revents & POLLOUT && !give(s[i].fd, &s[i].c, until ? UINT64_MAX : bytes) &&
			    s[i].c.out < bytes)
				wrong("send", s[i].c.out, (uint64_t)errno);
			if (!s[i].out_done && (until ? late : s[i].c.out == bytes)) {
				s[i].out_done = true;
				(void)shutdown(s[i].fd, SHUT_WR);
				p[i].events &= ~POLLOUT;
				if (what == SINK)
					p[i].events |= POLLIN;
			}
			if (what != SINK && p[i].revents & (POLLIN | POLLHUP | POLLERR) && s[i].c.in < bytes) {
				if (take(s[i].fd, &s[i].c, bytes - s[i].c.in > PIECE ? PIECE : (size_t)(bytes - s[i].c.in)))
					wrong("end too early", s[i].c.in, (uint64_t)errno);
				if (until && now() >= until)
					s[i].c.in = bytes;
			}
			if (what == SOURCE && s[i].c.in == bytes && !until) {
				if (recv(s[i].fd, buf, 1, 0) != 0)
					wrong("no end", 0, (uint64_t)errno);
				s[i].done = true;
			} else if (what == SOURCE && until && late) {
				s[i].done = true;
			} else if (what != SOURCE && s[i].out_done && (what == SINK || s[i].c.in >= bytes)) {
				if (what == BOTH && until) {
					s[i].done = true;
				} else if (p[i].revents & (POLLIN | POLLHUP) || what == BOTH) {
					read_report(s[i].fd, &s[i].r);
					if (!until && s[i].r.in != bytes)
						wrong("bytes at the server", s[i].r.in, bytes);
					if (recv(s[i].fd, buf, 1, 0) != 0)
						wrong("no end", 0, (uint64_t)errno);
					s[i].done = true;
				}
			}
			if (s[i].done) {
				if (s[i].c.bad + s[i].r.bad)
					wrong("bytes differ", s[i].c.bad, s[i].r.bad);
				p[i].fd = -1;
				left--;
			}
		}
	}
	if (!until) {
		(void)puts("ok");
		return 0;
	}
	for (int i = 0; i < n; i++) {
		got = what == SINK ? s[i].r.counted : s[i].c.counted;
		sum += got;
		least = MIN(least, got);
		rate += (double)got * 8e9 / (double)(what == SINK ? (int64_t)s[i].r.ns + 1 : s[i].c.last - s[i].c.first - 999999999);
		/* The server counts the way up of both; what was sent says enough here. */
		if (what == BOTH)
			rate += (double)s[i].c.out * 8e9 / (double)(now() - begin);
	}
	(void)printf("%.0f %.3f\n", rate, (double)least * n / (double)(sum ? sum : 1));
	return 0;
}

static int slow(const char *addr, uint16_t port, uint64_t bytes, uint64_t rate)
{
	int s = dial(addr, port, SOCK_STREAM);
	struct head h = { SOURCE, bytes };
	struct conn c = { 0 };
	int64_t t0 = now();

	(void)!send(s, &h, sizeof(h), 0);
	while (c.in < bytes) {
		uint64_t may = (uint64_t)(now() - t0) * rate / 1000000000;

		if (may <= c.in)
			(void)usleep(2000);
		else if (take(s, &c, MIN((size_t)(may - c.in), (size_t)(bytes - c.in))))
			wrong("end too early", c.in, (uint64_t)errno);
	}
	if (recv(s, buf, 1, 0) != 0 || c.bad)
		wrong("end", c.bad, (uint64_t)errno);
	(void)puts("ok");
	return 0;
}

/* One stream, both ways at once. A reader that stops must not stop the other way: the way that runs is what is timed. */
static int duplex(const char *addr, uint16_t port, uint64_t bytes, int how)
{
	int s = dial(addr, port, SOCK_STREAM);
	struct head h = { how == 2 ? LAZY : BOTH, bytes };
	struct conn c = { 0 };
	struct pollfd p = { s, POLLIN | POLLOUT, 0 };
	int64_t begin = now(), last = begin, longest = 0, t, half = 0;
	struct sunk r;
	uint64_t moved;

	(void)!send(s, &h, sizeof(h), 0);
	while (c.in < bytes || c.out < bytes) {
		bool reads = c.in < bytes && (how != 1 || c.out == bytes);

		p.events = (short)((reads ? POLLIN : 0) | (c.out < bytes ? POLLOUT : 0));
		if (poll(&p, 1, 30000) == 0)
			wrong("standstill for 30 s", c.in, c.out);
		moved = c.in + c.out;
		if (reads && p.revents & (POLLIN | POLLHUP | POLLERR) && take(s, &c, MIN(sizeof(buf), (size_t)(bytes - c.in))))
			wrong("end too early", c.in, (uint64_t)errno);
		if (c.out < bytes && p.revents & POLLOUT) {
			ssize_t n = send(s, table + c.out % TABLE, MIN(bytes - c.out, (uint64_t)PIECE), MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n < 0 && errno != EAGAIN)
				wrong("send", c.out, (uint64_t)errno);
			c.out += n > 0 ? (uint64_t)n : 0;
		}
		t = now();
		if (c.in + c.out > moved) {
			longest = MAX(longest, t - last);
			last = t;
		}
		if (half == 0 && (how == 1 ? c.out : c.in) == bytes)
			half = t - begin;
		if (half == 0 && how == 2 && c.out == bytes)
			wrong("the server did not stop reading", c.in, c.out);
	}
	(void)shutdown(s, SHUT_WR);
	read_report(s, &r);
	if (r.in != bytes || r.bad + c.bad > 0 || recv(s, buf, 1, 0) != 0)
		wrong("bytes", r.in, r.bad + c.bad);
	(void)printf("ok %.0f %.0f\n", (double)longest / 1e6, (double)half / 1e6);
	return 0;
}

static int reset(const char *addr, uint16_t port)
{
	int s = dial(addr, port, SOCK_STREAM);
	struct head h = { RESET, 0 };

	(void)!send(s, &h, sizeof(h), 0);
	if (recv(s, buf, 1, 0) >= 0 || errno != ECONNRESET)
		wrong("no reset", 0, (uint64_t)errno);
	(void)puts("ok");
	return 0;
}

static int cmp(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

#define SAMPLES 2000000
static int64_t samples[SAMPLES];

/* N at once, each in turn by poll: connect (if @fresh), a byte, a byte back, close. */
static int pingpong(const char *addr, uint16_t port, int seconds, int n, bool fresh, bool udp)
{
	static struct { int fd; int64_t t0; } s[STREAMS];
	static struct pollfd p[STREAMS];
	struct head h = { ECHO, 0 };
	const struct linger l = { 1, 0 };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	bool v4 = inet_pton(AF_INET, addr, &a4.sin_addr) == 1;
	int64_t begin = now(), end = begin + seconds * INT64_C(1000000000);
	uint8_t m[17] = { 0 };
	size_t k = 0;

	if (!v4)
		(void)inet_pton(AF_INET6, addr, &a6.sin6_addr);
	memcpy(m, &h, 16);
	for (int i = 0; i < n; i++) {
		s[i].fd = -1;
		if (!fresh) {
			s[i].fd = dial(addr, port, udp ? SOCK_DGRAM : SOCK_STREAM);
			if (!udp)
				(void)!send(s[i].fd, m, 16, 0);
			s[i].t0 = now();
			(void)!send(s[i].fd, "x", 1, 0);
			p[i] = (struct pollfd){ s[i].fd, POLLIN, 0 };
		}
	}
	while (now() < end) {
		for (int i = 0; i < n; i++) {
			if (s[i].fd >= 0)
				continue;
			s[i].t0 = now();
			s[i].fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
			(void)connect(s[i].fd, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6, v4 ? sizeof(a4) : sizeof(a6));
			p[i] = (struct pollfd){ s[i].fd, POLLOUT, 0 };
		}
		if (poll(p, (nfds_t)n, 5000) == 0)
			wrong("nothing for 5 s", k, 0);
		for (int i = 0; i < n; i++) {
			if (p[i].revents & (POLLERR | POLLHUP) && !(p[i].revents & POLLIN))
				wrong("connection", k, (uint64_t)p[i].revents);
			if (p[i].revents & POLLOUT) {
				if (send(s[i].fd, m, 17, MSG_NOSIGNAL) != 17)
					wrong("send", k, (uint64_t)errno);
				p[i].events = POLLIN;
			} else if (p[i].revents & POLLIN) {
				if (recv(s[i].fd, buf, 16, 0) != 1)
					wrong("answer", k, (uint64_t)errno);
				if (k < SAMPLES && now() - begin > 1000000000)
					samples[k++] = now() - s[i].t0;
				if (fresh) {
					/* Closed by reset: a client that measures for seconds has not enough ports for TIME_WAIT. */
					(void)setsockopt(s[i].fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
					(void)close(s[i].fd);
					s[i].fd = -1;
				} else {
					s[i].t0 = now();
					(void)!send(s[i].fd, "x", 1, 0);
				}
			}
		}
	}
	if (k == 0)
		wrong("no answer", 0, 0);
	qsort(samples, k, sizeof(*samples), cmp);
	(void)printf("%.0f %.1f %.1f\n", (double)k / (seconds - 1), (double)samples[k / 2] / 1e3,
		     (double)samples[k * 99 / 100] / 1e3);
	return 0;
}

static int udp_up(const char *addr, uint16_t port, int seconds)
{
	int s = dial(addr, port, SOCK_DGRAM);
	int64_t end = now() + seconds * INT64_C(1000000000);
	struct timeval tv = { 2, 0 };
	uint64_t n = 0;

	while (now() < end)
		for (int i = 0; i < 64; i++)
			(void)!send(s, buf, 1400, 0);
	(void)usleep(300000);
	(void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	(void)!send(s, buf, 2, 0);
	if (recv(s, &n, sizeof(n), 0) != sizeof(n))
		wrong("report", 0, (uint64_t)errno);
	(void)printf("%.0f 0 0\n", (double)n / seconds);
	return 0;
}

int main(int argc, char **argv)
{
	const char *m = argc > 1 ? argv[1] : "";
	uint16_t port = argc > 3 ? (uint16_t)strtoul(argv[3], NULL, 10) : 0;
	uint64_t a = argc > 4 ? strtoull(argv[4], NULL, 10) : 0, b = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
	int64_t until = now() + (int64_t)a * 1000000000;
	struct rlimit lim;

	if (b > STREAMS && strcmp(m, "slow") != 0)
		return 2;
	(void)signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = MIN(lim.rlim_max, (rlim_t)CONNS);
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	table_make();
	conns = calloc(CONNS, sizeof(*conns));
	verify = m[0] != 'b' || strcmp(m, "both") == 0;
	if (strcmp(m, "serve") == 0 && argc >= 4) {
		verify = argc < 5;
		serve((uint16_t)strtoul(argv[2], NULL, 10), argv[3]);
	}
	if (argc < 4)
		return 2;
	if (strcmp(m, "up") == 0)
		return streams(SINK, argv[2], port, a, (int)b, 0);
	if (strcmp(m, "down") == 0 || strcmp(m, "halfclose") == 0)
		return streams(SOURCE, argv[2], port, a, m[0] == 'h' ? 1 : (int)b, 0);
	if (strcmp(m, "both") == 0)
		return streams(BOTH, argv[2], port, a, (int)b, 0);
	if (strcmp(m, "slow") == 0)
		return slow(argv[2], port, a, b);
	if (strcmp(m, "duplex") == 0)
		return duplex(argv[2], port, a, (int)b);
	if (strcmp(m, "reset") == 0)
		return reset(argv[2], port);
	if (strcmp(m, "bup") == 0)
		return streams(SINK, argv[2], port, UINT64_MAX, (int)b, until);
	if (strcmp(m, "bdown") == 0)
		return streams(SOURCE, argv[2], port, UINT64_MAX, (int)b, until);
	if (strcmp(m, "bboth") == 0)
		return streams(BOTH, argv[2], port, UINT64_MAX, (int)b, until);
	if (strcmp(m, "crr") == 0 || strcmp(m, "rr") == 0 || strcmp(m, "udprr") == 0)
		return pingpong(argv[2], port, (int)a, (int)b, m[0] == 'c', m[0] == 'u');
	if (strcmp(m, "udpup") == 0)
		return udp_up(argv[2], port, (int)a);
	return 2;
}
