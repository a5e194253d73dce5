/* TLS towards the guest (credentials page 7.1): 1.2 and 1.3, a leaf for one name, no client certificate, no early data,
 * no ticket, no renegotiation. What was peeked at is read once more from memory, then the pair. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "base/macros.h"
#include "gate/gate.h"

#define READ_AHEAD (48 << 10) /* two records of the largest kind a call, and more; kept only while one of them is not whole */
#define AFTER_HELLO_MAX \
	64 /* handshake messages of the guest when it is over: key updates, cheap for it and not for us */

static int pair_read(BIO *b, char *p, int n)
{
	struct conn *c = BIO_get_data(b);
	ssize_t k = MIN((size_t)n, c->raw.n);

	BIO_clear_retry_flags(b);
	if (k > 0) {
		memcpy(p, buf_span(&c->raw).p, (size_t)k);
		buf_consume(&c->raw, (size_t)k);
		if (c->raw.n == 0)
			buf_done(&c->raw);
		return (int)k;
	}
	/* OpenSSL reads on within one call while such messages come. */
	if (c->after_hello > AFTER_HELLO_MAX)
		return -1;
	do
		k = recv(c->fd, p, (size_t)n, MSG_DONTWAIT);
	while (k < 0 && errno == EINTR);
	if (k < 0 && errno == EAGAIN)
		BIO_set_retry_read(b);
	c->pair_eof = k == 0;
	return (int)k;
}

/* How many it took, or a negative errno. */
static ssize_t to_pair(struct conn *c, struct span s)
{
	ssize_t k;

	do
		k = send(c->fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (k < 0 && errno == EINTR);
	return k < 0 ? -errno : k;
}

/* OpenSSL never has to write twice: what the pair does not take waits here, and nothing new is sealed meanwhile. With a record
 * of its own under way it could not answer a key update that it reads, nor say goodbye. */
static int pair_write(BIO *b, const char *p, int n)
{
	struct conn *c = BIO_get_data(b);
	struct span s = SPAN(p, n);
	ssize_t k = c->sealed.n > 0 ? -EAGAIN : to_pair(c, s);

	BIO_clear_retry_flags(b);
	if (k < 0 && k != -EAGAIN)
		return -1;
	(void)span_take(&s, (size_t)MAX(k, 0), &(struct span){ 0 });
	return buf_put(&c->sealed, s.p, s.n) < 0 ? -1 : n;
}

/* Without EOF a guest that ends its direction by a FIN alone would look like an error. */
static long pair_ctrl(BIO *b, int what, long num, void *ptr)
{
	const struct conn *c = BIO_get_data(b);

	if (what == BIO_CTRL_EOF)
		return c && c->pair_eof;
	return what == BIO_CTRL_FLUSH || what == BIO_CTRL_PUSH || what == BIO_CTRL_POP;
}

static BIO_METHOD *pair_method(void)
{
	static BIO_METHOD *m;

	if (m)
		return m;
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pair");
	if (m && BIO_meth_set_read(m, pair_read) && BIO_meth_set_write(m, pair_write) &&
	    BIO_meth_set_ctrl(m, pair_ctrl))
		return m;
	BIO_meth_free(m);
	return m = NULL;
}

/* The first of h2 and http/1.1 that the guest offers and the host's row allows. Without one of them the connection
 * speaks HTTP/1.1, as one without ALPN does. */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned int n,
		  void *arg)
{
	const struct conn *c = SSL_get_app_data(ssl);
	struct span list = SPAN(in, n), one;
	uint8_t len;

	while (span_u8(&list, &len) == 0 && span_take(&list, len, &one) == 0)
		if (span_is(one, "http/1.1") || (span_is(one, "h2") && prov_hosts[c->host].h2)) {
			*out = one.p;
			*out_n = (unsigned char)one.n;
			return SSL_TLSEXT_ERR_OK;
		}
	return SSL_TLSEXT_ERR_NOACK;
}

/* OpenSSL calls it a handshake again while it reads one of these, so the stream's own state says when it was over. */
static void count(int out, int version, int type, const void *p, size_t n, SSL *ssl, void *arg)
{
	struct conn *c = SSL_get_app_data(ssl);

	if (!out && type == SSL3_RT_HANDSHAKE && c && c->state > CONN_TLS)
		c->after_hello++;
}

SSL_CTX *tls_server(struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (!pair_method() || !ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(
		    ctx, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305") !=
		    1 ||
	    SSL_CTX_set_ciphersuites(
		    ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1 ||
	    SSL_CTX_set_num_tickets(ctx, 0) != 1 || SSL_CTX_set_max_early_data(ctx, 0) != 1) {
		SSL_CTX_free(ctx);
		(void)err_set(err, -ENOMEM, "gate: cannot set up TLS: error %#lx of OpenSSL", ERR_peek_error());
		return NULL;
	}
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					       SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					    SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
	SSL_CTX_set_msg_callback(ctx, count);
	return ctx;
}

int tls_start(struct conn *c)
{
	X509 *leaf = ca_leaf(&c->g->ca, c->host, time(NULL));
	BIO *bio = BIO_new(pair_method());

	c->ssl = SSL_new(c->g->tls);
	if (!leaf || !bio || !c->ssl || SSL_use_certificate(c->ssl, leaf) != 1 ||
	    SSL_use_PrivateKey(c->ssl, c->g->ca.leaf_key) != 1) {
		(void)BIO_free(bio);
		return -ENOMEM;
	}
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	SSL_set_bio(c->ssl, bio, bio);
	(void)SSL_set_app_data(c->ssl, c);
	SSL_set_accept_state(c->ssl);
	return 0;
}

/* What is wrong after @r, which is not positive. */
static int status(const struct conn *c, int r)
{
	switch (SSL_get_error(c->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return -EPROTO;
	}
}

int tls_handshake(struct conn *c)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	if (r == 1)
		return 1;
	return status(c, r) == -EAGAIN ? 0 : -EPROTO;
}

bool tls_is_h2(const struct conn *c)
{
	const unsigned char *name;
	unsigned int n;

	SSL_get0_alpn_selected(c->ssl, &name, &n);
	return span_is(SPAN(name ? name : (const unsigned char *)"", n), "h2");
}

ssize_t tls_read(struct conn *c, uint8_t *p, size_t n)
{
	int r;

	ERR_clear_error();
	r = SSL_read(c->ssl, p, (int)n);
	return r > 0 ? r : status(c, r);
}

int tls_flush(struct conn *c)
{
	ssize_t k = 0;

	while (c->sealed.n > 0 && k >= 0) {
		k = to_pair(c, buf_span(&c->sealed));
		buf_consume(&c->sealed, k > 0 ? (size_t)k : 0);
	}
	if (k >= 0)
		buf_done(&c->sealed);
	return k == -EAGAIN ? -EAGAIN : k < 0 ? -EPROTO : 0;
}

ssize_t tls_write(struct conn *c, const uint8_t *p, size_t n)
{
	int r = tls_flush(c);

	if (r < 0)
		return r;
	ERR_clear_error();
	r = SSL_write(c->ssl, p, (int)n);
	return r > 0 ? r : status(c, r);
}
