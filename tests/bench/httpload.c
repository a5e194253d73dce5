/* Both ends of the benchmark of requests: a server that answers at once, and a client that counts.
 *
 *	httpload serve PORT CERT KEY
 *	httpload kept|new ADDR PORT COUNT              microseconds of each request, one a line
 *	httpload rate ADDR PORT CONNECTIONS SECONDS    requests a second
 *	httpload down|up ADDR PORT BYTES               seconds
 *	httpload sse ADDR PORT COUNT                   microseconds of each event from server to client, one a line
 *	httpload idle ADDR PORT COUNT                  that many open streams of events, silent; ends with its input
 *
 * HTTP/1.1 over TLS for api.anthropic.com with the credential that AUTH holds; certificates are not checked, which is the
 * same for every way that is compared. GET /v1/models/N: N bytes. POST /v1/messages: takes a body; with "sse" in its query
 * COUNT events 5 ms apart, each with the server's clock. */
#include <arpa/inet.h>
#include <err.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAME "api.anthropic.com"
#define PIECE (64 << 10)
#define HEAD_MAX 16384
#define CONNS_MAX 4096

static SSL_CTX *ctx;
static const char *addr, *auth;
static uint16_t port;
static char zeros[PIECE];

static int64_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void nodelay(int s)
{
	int on = 1;

	(void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Reading by lines and by count from one buffer. */
struct in {
	SSL *ssl;
	size_t at, n;
	char b[PIECE];
};

static bool more(struct in *in)
{
	int k = SSL_read(in->ssl, in->b, sizeof(in->b));

	in->at = 0;
	in->n = k > 0 ? (size_t)k : 0;
	return k > 0;
}

static bool line(struct in *in, char *out, size_t size)
{
	size_t n = 0;

	for (;;) {
		char c;

		if (in->at == in->n && !more(in))
			return false;
		c = in->b[in->at++];
		if (c == '\n')
			break;
		if (n + 1 < size && c != '\r')
			out[n++] = c;
	}
	out[n] = '\0';
	return true;
}

static bool skip(struct in *in, uint64_t bytes)
{
	while (bytes > 0) {
		uint64_t k;

		if (in->at == in->n && !more(in))
			return false;
		k = in->n - in->at < bytes ? in->n - in->at : bytes;
		in->at += k;
		bytes -= k;
	}
	return true;
}

static void say(SSL *ssl, const char *text)
{
	(void)SSL_write(ssl, text, (int)strlen(text));
}

static void send_bytes(SSL *ssl, uint64_t bytes)
{
	while (bytes > 0) {
		int k = SSL_write(ssl, zeros, (int)(bytes < sizeof(zeros) ? bytes : sizeof(zeros)));

		if (k <= 0)
			return;
		bytes -= (uint64_t)k;
	}
}

struct message {
	char first[256];
	uint64_t length;
	bool chunked;
};

static bool read_head(struct in *in, struct message *m)
{
	char text[HEAD_MAX];

	*m = (struct message){ 0 };
	if (!line(in, m->first, sizeof(m->first)))
		return false;
	while (line(in, text, sizeof(text)) && text[0]) {
		if (strncasecmp(text, "content-length:", 15) == 0)
			m->length = strtoull(text + 15, NULL, 10);
		if (strncasecmp(text, "transfer-encoding:", 18) == 0)
			m->chunked = true;
	}
	return true;
}

static bool skip_body(struct in *in, const struct message *m)
{
	char text[64];

	if (!m->chunked)
		return skip(in, m->length);
	while (line(in, text, sizeof(text))) {
		uint64_t n = strtoull(text, NULL, 16);

		if (n == 0)
			return line(in, text, sizeof(text));
		if (!skip(in, n + 2))
			return false;
	}
	return false;
}

static void events(SSL *ssl, uint64_t count)
{
	say(ssl, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
	if (count == 0)
		(void)pause();
	for (uint64_t i = 0; i < count; i++) {
		char data[64], chunk[96];

		(void)usleep(5000);
		(void)snprintf(data, sizeof(data), "data: %" PRId64 "\n\n", now());
		(void)snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(data), data);
		say(ssl, chunk);
	}
	say(ssl, "0\r\n\r\n");
}

static void *serve_one(void *arg)
{
	int s = (int)(intptr_t)arg;
	struct in *in = calloc(1, sizeof(*in));
	struct message m;
	char *q;

	nodelay(s);
	in->ssl = SSL_new(ctx);
	(void)SSL_set_fd(in->ssl, s);
	if (SSL_accept(in->ssl) == 1) {
		while (read_head(in, &m) && skip_body(in, &m)) {
			uint64_t bytes = 2;
			char head[128];

			q = strstr(m.first, "?sse=");
			if (q) {
				events(in->ssl, strtoull(q + 5, NULL, 10));
				continue;
			}
			if (strncmp(m.first, "GET /v1/models/", 15) == 0)
				bytes = strtoull(m.first + 15, NULL, 10);
			(void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %" PRIu64 "\r\n\r\n%s", bytes,
				       bytes == 2 ? "ok" : "");
			say(in->ssl, head);
			if (bytes != 2)
				send_bytes(in->ssl, bytes);
		}
	}
	SSL_free(in->ssl);
	free(in);
	(void)close(s);
	return NULL;
}

static int serve(const char *cert, const char *key)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	pthread_attr_t small;

	if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 || SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		errx(1, "%s, %s: cannot be used", cert, key);
	(void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 1024) < 0)
		err(1, "port %u", port);
	(void)pthread_attr_init(&small);
	(void)pthread_attr_setstacksize(&small, 256 << 10);
	(void)pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	for (;;) {
		int c = accept(s, NULL, NULL);
		pthread_t t;

		if (c >= 0 && pthread_create(&t, &small, serve_one, (void *)(intptr_t)c))
			errx(1, "threads");
	}
}

static struct in *connect_to(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct in *in = calloc(1, sizeof(*in));
	int s = socket(AF_INET, SOCK_STREAM, 0);

	(void)inet_pton(AF_INET, addr, &to.sin_addr);
	if (connect(s, (struct sockaddr *)&to, sizeof(to)) < 0)
		err(1, "connect");
	nodelay(s);
	in->ssl = SSL_new(ctx);
	(void)SSL_set_fd(in->ssl, s);
	(void)SSL_set_tlsext_host_name(in->ssl, NAME);
	if (SSL_connect(in->ssl) != 1)
		errx(1, "TLS handshake failed");
	return in;
}

static void end(struct in *in)
{
	(void)SSL_shutdown(in->ssl);
	(void)close(SSL_get_fd(in->ssl));
	SSL_free(in->ssl);
	free(in);
}

static void ask(struct in *in, const char *method, const char *path, uint64_t body)
{
	char head[2048], length[64] = "";

	if (strcmp(method, "POST") == 0)
		(void)snprintf(length, sizeof(length), "Content-Length: %" PRIu64 "\r\n", body);
	(void)snprintf(head, sizeof(head),
		       "%s %s HTTP/1.1\r\nHost: " NAME "\r\nAuthorization: Bearer %s\r\nUser-Agent: httpload\r\n"
		       "anthropic-version: 2023-06-01\r\nContent-Type: application/json\r\n%s\r\n", method, path, auth, length);
	say(in->ssl, head);
	send_bytes(in->ssl, body);
}

static void answered(struct in *in)
{
	struct message m;

	if (!read_head(in, &m) || strncmp(m.first, "HTTP/1.1 200", 12) != 0 || !skip_body(in, &m))
		errx(1, "no good answer: %s", m.first);
}

static void print_us(int64_t start)
{
	(void)printf("%.1f\n", (double)(now() - start) / 1e3);
}

static volatile bool over;
static uint64_t counts[CONNS_MAX];

static void *rate_one(void *arg)
{
	struct in *in = connect_to();
	uint64_t *count = arg;

	while (!over) {
		ask(in, "GET", "/v1/models", 0);
		answered(in);
		(*count)++;
	}
	return NULL;
}

static void rate(size_t n, unsigned int seconds)
{
	int64_t start = now();
	uint64_t sum = 0;
	pthread_t t[CONNS_MAX];

	for (size_t i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, rate_one, &counts[i]))
			errx(1, "threads");
	(void)sleep(seconds);
	over = true;
	for (size_t i = 0; i < n; i++) {
		(void)pthread_join(t[i], NULL);
		sum += counts[i];
	}
	(void)printf("%.1f\n", (double)sum / ((double)(now() - start) / 1e9));
}

static void read_events(struct in *in)
{
	struct message m;
	char text[256];

	if (!read_head(in, &m))
		errx(1, "no answer");
	while (line(in, text, sizeof(text)) && strcmp(text, "0") != 0)
		if (strncmp(text, "data: ", 6) == 0)
			print_us(strtoll(text + 6, NULL, 10));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool server = strcmp(what, "serve") == 0;
	char path[64];
	int64_t start;
	uint64_t n;

	if (argc < 5)
		errx(2, "usage: see the top of httpload.c");
	(void)signal(SIGPIPE, SIG_IGN);
	ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	auth = getenv("AUTH") ? getenv("AUTH") : "none";
	if (server) {
		port = (uint16_t)strtoul(argv[2], NULL, 10);
		return serve(argv[3], argv[4]);
	}
	addr = argv[2];
	port = (uint16_t)strtoul(argv[3], NULL, 10);
	n = strtoull(argv[4], NULL, 10);
	if (strcmp(what, "kept") == 0) {
		struct in *in = connect_to();

		for (uint64_t i = 0; i <= n; i++) {
			start = now();
			ask(in, "GET", "/v1/models", 0);
			answered(in);
			if (i > 0) /* the first one also connects upstream */
				print_us(start);
		}
	} else if (strcmp(what, "new") == 0) {
		for (uint64_t i = 0; i < n; i++) {
			struct in *in;

			start = now();
			in = connect_to();
			ask(in, "GET", "/v1/models", 0);
			answered(in);
			print_us(start);
			end(in);
		}
	} else if (strcmp(what, "rate") == 0 && argc > 5) {
		rate(n < CONNS_MAX ? n : CONNS_MAX, (unsigned int)strtoul(argv[5], NULL, 10));
	} else if (strcmp(what, "down") == 0 || strcmp(what, "up") == 0) {
		struct in *in = connect_to();

		(void)snprintf(path, sizeof(path), "/v1/models/%" PRIu64, n);
		start = now();
		if (*what == 'd')
			ask(in, "GET", path, 0);
		else
			ask(in, "POST", "/v1/messages", n);
		answered(in);
		(void)printf("%.4f\n", (double)(now() - start) / 1e9);
	} else if (strcmp(what, "sse") == 0) {
		struct in *in = connect_to();

		(void)snprintf(path, sizeof(path), "/v1/messages?sse=%" PRIu64, n);
		ask(in, "POST", path, 0);
		read_events(in);
	} else if (strcmp(what, "idle") == 0) {
		for (uint64_t i = 0; i < n; i++) {
			struct in *in = connect_to();
			struct message m;

			ask(in, "POST", "/v1/messages?sse=0", 0);
			if (!read_head(in, &m))
				errx(1, "stream %" PRIu64 ": no answer", i);
		}
		(void)puts("open");
		(void)fflush(stdout);
		while (read(0, path, sizeof(path)) > 0)
			;
	} else {
		errx(2, "%s: no such measurement", what);
	}
	return 0;
}
