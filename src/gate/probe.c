/* agent-vm-probe: a client of gate's, through the guest, before the agent starts (proto/probecfg.h).
 *
 * For each host one connection and on it one request after the other; each must be answered as the launcher said. It
 * trusts the session's root alone, so an answer from upstream cannot be taken for gate's. The guest carries the bytes
 * and may do with them what it likes: that ends in an error here and so in no agent. */
#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"
#include "gate/walls.h"
#include "proto/ctl.h"
#include "proto/netmsg.h"
#include "proto/probecfg.h"
#include "proto/rec.h"

#define STREAM 1
#define PORT 443
#define ANSWER_MAX (64 << 10)

struct ask {
	struct span request, code, what;
	uint64_t status;
};

struct host {
	char name[256];
	struct ask asks[PROBE_ASKS_MAX];
	size_t n_asks;
};

static struct {
	struct span ca, addr;
	struct host hosts[PROBE_HOSTS_MAX];
	size_t n_hosts;
} conf;

static int parse_ask(struct span in, struct ask *a)
{
	struct span v;
	uint16_t key;
	int r;

	while ((r = rec_next(&in, &key, &v)) == 1) {
		switch (key) {
		case PBC_REQUEST:
			a->request = v;
			break;
		case PBC_CODE:
			a->code = v;
			break;
		case PBC_WHAT:
			a->what = v;
			break;
		case PBC_STATUS:
			r = rec_u64(v, 999, &a->status);
			break;
		default:
			r = -EBADMSG;
		}
		if (r < 0)
			return r;
	}
	return r < 0 || a->request.n == 0 || a->status == 0 ? -EBADMSG : 0;
}

static int parse_host(struct span in)
{
	struct host *h = &conf.hosts[conf.n_hosts];
	struct span v;
	uint16_t key;
	int r;

	if (conf.n_hosts++ == PROBE_HOSTS_MAX)
		return -EBADMSG;
	while ((r = rec_next(&in, &key, &v)) == 1) {
		if (key == PBC_NAME && v.n > 0 && v.n < sizeof(h->name))
			memcpy(h->name, v.p, v.n);
		else
			r = key == PBC_ASK && h->n_asks < PROBE_ASKS_MAX ? parse_ask(v, &h->asks[h->n_asks++])
									 : -EBADMSG;
		if (r < 0)
			return r;
	}
	return r < 0 || h->name[0] == '\0' ? -EBADMSG : 0;
}

static int read_config(struct err *err)
{
	struct span in, v;
	struct stat st;
	uint16_t key;
	int r;
	void *p;

	if (fstat(PROBE_FD_CONFIG, &st) < 0 || st.st_size <= 0 || st.st_size > PROBE_CONFIG_MAX)
		return err_set(err, -EBADMSG, "agent-vm-probe: no configuration; it is started by agent-vm");
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, PROBE_FD_CONFIG, 0);
	if (p == MAP_FAILED)
		return err_set(err, -errno, "agent-vm-probe: its configuration: %s", strerror(errno));
	in = SPAN(p, (size_t)st.st_size);
	while ((r = rec_next(&in, &key, &v)) == 1) {
		if (key == PBC_CA)
			conf.ca = v;
		else if (key == PBC_ADDR)
			conf.addr = v;
		else
			r = key == PBC_HOST ? parse_host(v) : -EBADMSG;
		if (r < 0)
			break;
	}
	if (r < 0 || conf.ca.n == 0 || conf.addr.n == 0)
		return err_set(err, -EBADMSG,
			       "agent-vm-probe: its configuration is not understood; all parts of agent-vm must be of "
			       "one build");
	return 0;
}

/* --- the guest's connection --- */

struct conn {
	int fd;
	struct buf in;
	SSL *ssl;
	BIO *from, *to; /* what came, what is to be sent; of ssl */
};

static int dial(struct conn *c)
{
	struct buf b;
	ssize_t at;
	int r = 0;

	buf_init(&b, 256);
	at = ctl_begin(&b, CTL_DIAL, 0, STREAM);
	if (at < 0 || rec_put(&b, CTL_K_ADDR, conf.addr.p, conf.addr.n) < 0 || rec_put_u64(&b, CTL_K_PORT, PORT) < 0)
		r = -ENOBUFS;
	if (r == 0) {
		ctl_end(&b, (size_t)at);
		r = fd_write_all(c->fd, buf_span(&b).p, b.n);
	}
	buf_done(&b);
	return r;
}

/* Wait for one frame and take what it brings. 0, -EPIPE at the end, or another negative errno with why. */
static int take_frame(struct conn *c, struct err *err)
{
	struct ctl_frame f;
	size_t used;
	ssize_t n;
	uint8_t *to;
	int r;

	while ((r = ctl_decode(&c->in, CTL_SIDE_HOST, &f, &used)) == 0) {
		to = buf_room(&c->in, CTL_DATA_MAX);
		if (!to)
			return err_set(err, -ENOBUFS, "the answer is too large");
		n = read(c->fd, to, CTL_DATA_MAX);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, -EPIPE, "the connection ended");
		buf_grew(&c->in, (size_t)n);
	}
	if (r < 0)
		return err_set(err, r, "the guest broke the control protocol");
	if (f.type == CTL_DATA && f.channel == 1)
		(void)BIO_write(c->from, f.payload.p, (int)f.payload.n);
	r = 0;
	if (f.type == CTL_EXIT || (f.type == CTL_EOF && f.channel == 1))
		r = err_set(err, -EPIPE, "the connection ended");
	if (f.type == CTL_EXIT && f.payload.n > 8)
		r = err_set(err, -EPIPE, "no connection: %.*s", (int)f.payload.n - 8, (const char *)f.payload.p + 8);
	buf_consume(&c->in, used);
	return r;
}

static int flush(struct conn *c)
{
	uint8_t mem[CTL_DATA_MAX];
	int n, r = 0;

	while (r == 0 && (n = BIO_read(c->to, mem, sizeof(mem))) > 0) {
		struct buf b;

		buf_init(&b, CTL_HEAD + CTL_DATA_MAX);
		r = ctl_put(&b, CTL_DATA, 0, STREAM, mem, (size_t)n);
		if (r == 0)
			r = fd_write_all(c->fd, buf_span(&b).p, b.n);
		buf_done(&b);
	}
	return r;
}

/* After an operation of @ssl that returned @k: 1 it is done, 0 try again, negative: no. */
static int step(struct conn *c, int k, struct err *err)
{
	int want = SSL_get_error(c->ssl, k), r = flush(c);
	long verify;

	if (r < 0)
		return err_set(err, r, "the connection ended");
	if (k > 0)
		return 1;
	verify = SSL_get_verify_result(c->ssl);
	if (want == SSL_ERROR_WANT_READ)
		return take_frame(c, err);
	if (verify != X509_V_OK)
		return err_set(err, -EPROTO, "the certificate is not the session's: %s",
			       X509_verify_cert_error_string(verify));
	return err_set(err, -EPROTO, "TLS failed");
}

static int handshake(struct conn *c, SSL_CTX *ctx, const char *name, struct err *err)
{
	static const uint8_t alpn[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };
	int r;

	c->ssl = SSL_new(ctx);
	c->from = BIO_new(BIO_s_mem());
	c->to = BIO_new(BIO_s_mem());
	if (!c->ssl || !c->from || !c->to)
		return err_set(err, -ENOMEM, "out of memory");
	(void)BIO_set_mem_eof_return(c->from, -1);
	SSL_set_bio(c->ssl, c->from, c->to);
	SSL_set_connect_state(c->ssl);
	if (SSL_set_tlsext_host_name(c->ssl, name) != 1 || SSL_set1_host(c->ssl, name) != 1 ||
	    SSL_set_alpn_protos(c->ssl, alpn, sizeof(alpn)) != 0)
		return err_set(err, -ENOMEM, "out of memory");
	do
		r = step(c, SSL_do_handshake(c->ssl), err);
	while (r == 0);
	return r < 0 ? r : 0;
}

/* --- requests --- */

/* The value of a field of the head in @s, which ends with an empty line; an empty span: none. */
static struct span field(struct span s, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i + n + 1 < s.n; i++)
		if (s.p[i] == '\n' && s.n - i - 1 > n && strncasecmp((const char *)s.p + i + 1, name, n) == 0 &&
		    s.p[i + 1 + n] == ':') {
			const uint8_t *v = s.p + i + 2 + n, *end = memchr(v, '\r', s.n - (size_t)(v - s.p));

			while (end && v < end && *v == ' ')
				v++;
			return end ? SPAN(v, (size_t)(end - v)) : SPAN(v, 0);
		}
	return SPAN(s.p, 0);
}

static bool number(struct span s, size_t max, size_t *ret)
{
	size_t v = 0;

	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (size_t)(s.p[i] - '0');
		if (v > max)
			return false;
	}
	*ret = v;
	return true;
}

/* Read until one whole answer is there. @ret_head: borrowed from @b. */
static int read_answer(struct conn *c, struct buf *b, struct span *ret_head, struct err *err)
{
	uint8_t mem[4096];
	int r;

	for (;;) {
		struct span s = buf_span(b);
		const uint8_t *end = s.n > 0 ? memmem(s.p, s.n, "\r\n\r\n", 4) : NULL;
		size_t head = end ? (size_t)(end - s.p) + 4 : 0, body = 0;
		int n;

		if (end && number(field(SPAN(s.p, head), "content-length"), ANSWER_MAX, &body) && s.n >= head + body) {
			*ret_head = SPAN(s.p, head);
			return 0;
		}
		n = SSL_read(c->ssl, mem, sizeof(mem));
		if (n > 0 && buf_put(b, mem, (size_t)n) < 0)
			return err_set(err, -ENOBUFS, "the answer is too large");
		r = step(c, n, err);
		if (r < 0)
			return r;
	}
}

static int judge(const struct ask *a, struct span head, struct err *err)
{
	struct span code = field(head, "x-sandbox-policy");
	size_t status = 0;

	if (head.n < 13 || memcmp(head.p, "HTTP/1.1 ", 9) != 0 || !number(SPAN(head.p + 9, 3), 999, &status))
		return err_set(err, -EPROTO, "%.*s was not answered in HTTP/1.1", (int)a->what.n,
			       (const char *)a->what.p);
	if (status == a->status && (a->code.n == 0 || (code.n == a->code.n && memcmp(code.p, a->code.p, code.n) == 0)))
		return 0;
	return err_set(err, -EPERM, "%.*s was answered with %zu%s%.*s and must be with %u%s%.*s", (int)a->what.n,
		       (const char *)a->what.p, status, code.n > 0 ? " " : "", (int)MIN(code.n, (size_t)40),
		       (const char *)code.p, (unsigned)a->status, a->code.n > 0 ? " " : "", (int)a->code.n,
		       (const char *)a->code.p);
}

static int ask_all(struct conn *c, const struct host *h, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < h->n_asks && r == 0; i++) {
		const struct ask *a = &h->asks[i];
		struct span head = SPAN(NULL, 0);
		struct buf b;

		buf_init(&b, ANSWER_MAX);
		r = step(c, SSL_write(c->ssl, a->request.p, (int)a->request.n), err);
		r = r < 0 ? r : read_answer(c, &b, &head, err);
		if (r == 0)
			r = judge(a, head, err);
		buf_done(&b);
	}
	return r;
}

static int probe_host(SSL_CTX *ctx, size_t i, struct err *err)
{
	struct conn c = { .fd = PROBE_FD_HOST + (int)i };
	int r;

	buf_init(&c.in, CTL_HEAD + 2 * CTL_DATA_MAX);
	r = dial(&c);
	if (r < 0)
		(void)err_set(err, r, "the launcher does not take it");
	if (r == 0)
		r = handshake(&c, ctx, conf.hosts[i].name, err);
	if (r == 0)
		r = ask_all(&c, &conf.hosts[i], err);
	SSL_free(c.ssl);
	buf_done(&c.in);
	return r < 0 ? err_ctx(err, r, "self-probe: %s", conf.hosts[i].name) : 0;
}

static SSL_CTX *context(struct err *err)
{
	const uint8_t *p = conf.ca.p;
	X509 *root = d2i_X509(NULL, &p, (long)conf.ca.n);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!root || !ctx || X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), root) != 1) {
		(void)err_set(err, -EBADMSG, "agent-vm-probe: the session's certificate cannot be read");
		SSL_CTX_free(ctx);
		ctx = NULL;
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		(void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	}
	X509_free(root);
	return ctx;
}

int main(void)
{
	uint8_t say[1 + ERR_TEXT_MAX] = { NET_CTL_READY };
	struct err err = { "" };
	SSL_CTX *ctx = NULL;
	size_t n = 0;
	int r;

	r = read_config(&err);
	if (r == 0) {
		tzset(); /* what compares the times of certificates does it, too late to open a file */
		ctx = context(&err);
		r = ctx ? gate_sandbox(&err) : -EBADMSG;
	}
	for (size_t i = 0; i < conf.n_hosts && r == 0; i++)
		r = probe_host(ctx, i, &err);
	if (r < 0) {
		say[0] = NET_CTL_ERROR;
		n = strlen(err.text);
		memcpy(say + 1, err.text, n);
	}
	(void)!write(NET_FD_CONTROL, say, 1 + n);
	SSL_CTX_free(ctx);
	return r < 0;
}
