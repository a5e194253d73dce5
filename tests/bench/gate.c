/* What gate costs: one guest, a vault that only moves frames. Usage: bench-gate AGENT-VM-GATE [MIB]. Prints start, MB/s
 * of one body each way over HTTP/1.1 in TLS 1.3, and microseconds of a small request on a kept connection. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/exchange.h"
#include "proto/gatecfg.h"
#include "proto/httpmsg.h"
#include "proto/netmsg.h"
#include "proto/placeholder.h"
#include "proto/rec.h"

#define HOST "api.anthropic.com"
#define ROUNDS 2000
#define AT_ONCE 16384

static int vault, control;
static uint64_t body;
static uint8_t block[sizeof(struct xch_head) + XCH_DATA_MAX];

static void die(const char *what)
{
	(void)fprintf(stderr, "bench-gate: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	return (double)now_ns() / 1e9;
}

static void put_all(int fd, const void *p, size_t n)
{
	if (fd_write_all(fd, p, n) < 0)
		die("write to gate");
}

static void answer(int fd, uint64_t length)
{
	struct httpmsg_answer_wire w = { .status = 200, .body = HTTP_BODY_LENGTH, .body_len = length };
	struct xch_head h = { .length = XCH_DATA_MAX, .type = XCH_DATA };
	struct buf msg, out;

	buf_init(&msg, HTTPMSG_MAX);
	buf_init(&out, HTTPMSG_MAX);
	if (httpmsg_answer_begin(&msg, &w) < 0)
		die("answer");
	httpmsg_end(&msg, 0);
	(void)xch_put(&out, XCH_ANSWER, buf_span(&msg));
	put_all(fd, buf_span(&out).p, out.n);
	for (; length > 0; length -= h.length) {
		h.length = (uint32_t)MIN(length, (uint64_t)XCH_DATA_MAX);
		memcpy(block, &h, sizeof(h));
		put_all(fd, block, sizeof(h) + h.length);
	}
	h = (struct xch_head){ .type = XCH_END };
	put_all(fd, &h, sizeof(h));
	buf_done(&msg);
	buf_done(&out);
}

/* Reads the request's body to its end. */
static void drain(int fd)
{
	struct xch_reader r = { .side = XCH_TO_VAULT };
	static uint8_t in[256 << 10];
	enum xch_got got = XCH_GOT_MORE;
	size_t have = 0;

	while (got != XCH_GOT_END) {
		ssize_t n = read(fd, in + have, sizeof(in) - have);
		struct span left, s;

		if (n <= 0)
			die("read of gate");
		left = SPAN(in, have + (size_t)n);
		while ((got = xch_take(&r, &left, &s)) == XCH_GOT_DATA)
			;
		if (got == XCH_GOT_BAD)
			die("frames of gate");
		memmove(in, left.p, left.n);
		have = left.n;
	}
}

static void *play_vault(void *arg)
{
	static uint8_t msg[HTTPMSG_MAX];
	static struct httpmsg_request q;

	for (;;) {
		int fd = -1;
		ssize_t n = fd_recv(vault, msg, sizeof(msg), &fd, 1);

		if (n <= 0)
			return NULL;
		if (fd < 0 || httpmsg_request_parse(SPAN(msg, (size_t)n), &q) < 0)
			die("request of gate");
		(void)fd_nonblock(fd, false);
		drain(fd);
		answer(fd, span_is(q.path, "/down") ? body : 2);
		(void)close(fd);
	}
}

static void start(const char *program)
{
	int pair[3][2], cfg = memfd_create("config", MFD_ALLOW_SEALING | MFD_CLOEXEC),
			null = open("/dev/null", O_RDWR | O_CLOEXEC);
	uint8_t seed[PH_SEED] = { 1 }, said[4096];
	double began = now_s();
	struct buf b;

	buf_init(&b, 4096);
	(void)rec_put(&b, GTC_SEED, seed, sizeof(seed));
	(void)rec_put_u64(&b, GTC_LENT, PH_ALL);
	(void)rec_put_str(&b, GTC_SESSION, "bench");
	if (write(cfg, buf_span(&b).p, b.n) != (ssize_t)b.n ||
	    fcntl(cfg, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		die("configuration");
	for (int i = 0; i < 3; i++)
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair[i]) < 0)
			die("socketpair");
	if (fork() == 0) {
		int fds[] = { null, null, 2, pair[0][1], null, pair[1][1], pair[2][1], cfg };

		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			fds[i] = fcntl(fds[i], F_DUPFD, 100);
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			(void)dup2(fds[i], (int)i);
		(void)execl(program, "agent-vm-gate", (char *)NULL);
		_exit(127);
	}
	control = pair[0][0];
	vault = pair[2][0];
	for (int i = 0; i < 3; i++)
		(void)close(pair[i][1]);
	do {
		if (read(control, said, sizeof(said)) <= 0)
			die("gate does not start");
	} while (said[0] != NET_CTL_READY);
	(void)printf("start          %7.1f ms\n", (now_s() - began) * 1e3);
	buf_done(&b);
}

static SSL *guest(void)
{
	struct net_peek m = { .head = { NET_VERSION, NET_PEEK, sizeof(m), 1, 1 }, .port = 443, .tied = 1 };
	SSL *ssl = SSL_new(SSL_CTX_new(TLS_client_method()));
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
	    fd_send(vault, &m, sizeof(m), &pair[1], 1) < 0)
		die("stream");
	(void)close(pair[1]);
	(void)SSL_set_tlsext_host_name(ssl, HOST);
	(void)SSL_set_fd(ssl, pair[0]);
	if (SSL_connect(ssl) != 1)
		die("TLS");
	return ssl;
}

static void say(SSL *ssl, const void *p, size_t n)
{
	if (SSL_write(ssl, p, (int)n) != (int)n)
		die("write of the guest");
}

/* Reads an answer with Content-Length. */
static void hear(SSL *ssl)
{
	static char in[64 << 10];
	uint64_t have = 0, want = UINT64_MAX;

	while (have < want) {
		int n = SSL_read(ssl, in, (int)sizeof(in) - 1);
		const char *end, *at;

		if (n <= 0)
			die("read of the guest");
		if (want == UINT64_MAX) {
			in[n] = '\0';
			end = strstr(in, "\r\n\r\n");
			at = strstr(in, "Content-Length: ");
			if (!end || !at || strncmp(in, "HTTP/1.1 200", 12) != 0)
				die("answer");
			want = (uint64_t)(end + 4 - in) + strtoull(at + 16, NULL, 10);
		}
		have += (uint64_t)n;
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const char down[] = "GET /down HTTP/1.1\r\nHost: " HOST "\r\n\r\n",
			  one[] = "GET /one HTTP/1.1\r\nHost: " HOST "\r\n\r\n";
	static double took[ROUNDS];
	static uint8_t up[AT_ONCE];
	char head[256];
	uint64_t mib = 64;
	pthread_t thread;
	double began;
	SSL *ssl;

	if (argc < 2 || argc > 3 || (argc == 3 && str_u64(argv[2], 1 << 20, &mib) < 0)) {
		(void)fprintf(stderr, "usage: bench-gate AGENT-VM-GATE [MIB]\n");
		return 2;
	}
	body = mib << 20;
	start(argv[1]);
	if (pthread_create(&thread, NULL, play_vault, NULL) != 0)
		die("thread");
	ssl = guest();
	for (int i = 0; i < ROUNDS; i++) {
		began = now_s();
		say(ssl, one, strlen(one));
		hear(ssl);
		took[i] = now_s() - began;
	}
	qsort(took, ROUNDS, sizeof(*took), by_size);
	(void)printf("small request  %7.0f us p50, %.0f us p99\n", took[ROUNDS / 2] * 1e6,
		     took[ROUNDS * 99 / 100] * 1e6);
	began = now_s();
	say(ssl, down, strlen(down));
	hear(ssl);
	(void)printf("answer         %7.0f MB/s\n", (double)body / 1e6 / (now_s() - began));
	began = now_s();
	say(ssl, head,
	    (size_t)snprintf(head, sizeof(head), "POST /up HTTP/1.1\r\nHost: " HOST "\r\nContent-Length: %llu\r\n\r\n",
			     (unsigned long long)body));
	for (uint64_t n = 0; n < body; n += sizeof(up))
		say(ssl, up, sizeof(up));
	hear(ssl);
	(void)printf("request's body %7.0f MB/s\n", (double)body / 1e6 / (now_s() - began));
	(void)close(control);
	(void)wait(NULL);
	return 0;
}
