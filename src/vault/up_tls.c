/* TLS to the services (credentials page 8.1): 1.2 at least, always verified, for the name of the host's row and by what
 * the launcher said is to be trusted. There is no switch.
 *
 * What is written is encrypted at once, into c->out: the plain bytes, which may be a head with a secret, are nobody's
 * afterwards. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macros.h"
#include "vault/upstream.h"

#define TRUST_MAX (4 << 20) /* a file of it */
#define HANDSHAKES_MAX 64 /* messages of a connection, tickets and key updates among them: cheap for a service, not for us */
#define READ_AHEAD (48 << 10) /* two records of the largest kind a call, and more; kept only while one of them is not whole */

static SSL_CTX *the_ctx;
static BIO_METHOD *the_bio;

/* --- the socket --- */

static int bio_write(BIO *b, const char *p, int n)
{
	struct conn *c = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	return n > 0 && buf_put(&c->out, p, (size_t)n) == 0 ? n : -1;
}

static int bio_read(BIO *b, char *p, int n)
{
	struct conn *c = BIO_get_data(b);
	ssize_t k;

	BIO_clear_retry_flags(b);
	if (n <= 0)
		return 0;
	/* OpenSSL reads on within one call while such messages come. */
	if (c->handshakes > HANDSHAKES_MAX)
		return -1;
	do
		k = recv(c->fd, p, (size_t)n, 0);
	while (k < 0 && errno == EINTR);
	if (k < 0 && errno == EAGAIN)
		BIO_set_retry_read(b);
	c->in_eof = k == 0;
	return k < 0 ? -1 : (int)k;
}

/* Without EOF a service that ends by a FIN alone would look like an error. */
static long bio_ctrl(BIO *b, int cmd, long num, void *p)
{
	const struct conn *c = BIO_get_data(b);

	(void)num;
	(void)p;
	if (cmd == BIO_CTRL_EOF)
		return c && c->in_eof;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO *bio_new(struct conn *c)
{
	BIO *b;

	if (!the_bio) {
		the_bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "socket");
		if (!the_bio || !BIO_meth_set_write(the_bio, bio_write) || !BIO_meth_set_read(the_bio, bio_read) ||
		    !BIO_meth_set_ctrl(the_bio, bio_ctrl))
			return NULL;
	}
	b = BIO_new(the_bio);
	if (b) {
		BIO_set_data(b, c);
		BIO_set_init(b, 1);
	}
	return b;
}

/* --- whom to trust --- */

/* Every certificate of a file. How many. */
static size_t add_certificates(X509_STORE *store, int fd)
{
	AUTO_FREE(uint8_t, text);
	struct stat st;
	size_t n = 0, got = 0;
	ssize_t k = 1;
	X509 *cert;
	BIO *b;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > TRUST_MAX)
		return 0;
	text = malloc((size_t)st.st_size);
	while (text && got < (size_t)st.st_size && k > 0) {
		k = pread(fd, text + got, (size_t)st.st_size - got, (off_t)got);
		got += k > 0 ? (size_t)k : 0;
	}
	b = text ? BIO_new_mem_buf(text, (int)got) : NULL;
	while (b && (cert = PEM_read_bio_X509_AUX(b, NULL, NULL, NULL))) {
		n += X509_STORE_add_cert(store, cert) == 1;
		X509_free(cert);
	}
	BIO_free(b);
	ERR_clear_error();
	return n;
}

static void count(int out, int version, int type, const void *p, size_t n, SSL *ssl, void *arg)
{
	struct conn *c = BIO_get_data(SSL_get_rbio(ssl));

	(void)version;
	(void)p;
	(void)n;
	(void)arg;
	if (!out && type == SSL3_RT_HANDSHAKE)
		c->handshakes++;
}

static int ctx_make(struct vault *v)
{
	SSL_CTX *ctx;
	size_t n = 0;

	/* Without the host's openssl.cnf: it could lower what is asked here, and lies behind the wall. */
	if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL))
		return -ENOMEM;
	ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx)
		return -ENOMEM;
	for (size_t i = 0; i < v->cfg.n_trust; i++)
		n += add_certificates(SSL_CTX_get_cert_store(ctx), v->cfg.trust[i]);
	SSL_CTX_set_security_level(ctx, 2);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_msg_callback(ctx, count);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	if (n == 0 || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
		SSL_CTX_free(ctx);
		return n == 0 ? -ENOENT : -ENOMEM;
	}
	the_ctx = ctx;
	return 0;
}

int tls_begin(struct vault *v, struct conn *c, const char **ret_why)
{
	static const uint8_t both[] = "\x02h2\x08http/1.1", one[] = "\x08http/1.1";
	const char *name = prov_hosts[c->key.host].name;
	BIO *b;
	int r = the_ctx ? 0 : ctx_make(v);

	*ret_why = r == -ENOENT ? "no certificates to trust on this host; install ca-certificates, or set SSL_CERT_FILE"
				: "no memory for TLS";
	if (r < 0)
		return r;
	buf_init(&c->out, UP_OUT_MAX);
	c->ssl = SSL_new(the_ctx);
	b = c->ssl ? bio_new(c) : NULL;
	if (!b)
		return -ENOMEM;
	SSL_set_bio(c->ssl, b, b);
	SSL_set_hostflags(c->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (SSL_set1_host(c->ssl, name) != 1 || SSL_set_tlsext_host_name(c->ssl, name) != 1 ||
	    SSL_set_alpn_protos(c->ssl, c->key.h2 ? both : one, (c->key.h2 ? sizeof(both) : sizeof(one)) - 1) != 0)
		return -ENOMEM;
	SSL_set_connect_state(c->ssl);
	return 0;
}

/* The library's fixed text for what went wrong. */
static const char *why_not(struct conn *c)
{
	long verify = SSL_get_verify_result(c->ssl);
	const char *s = verify != X509_V_OK ? X509_verify_cert_error_string(verify)
					    : ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return s ? s : "the connection broke within the TLS handshake";
}

int tls_handshake(struct conn *c, bool *ret_h2, const char **ret_why)
{
	const uint8_t *alpn;
	unsigned n;
	int r, e;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	e = r == 1 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, r);
	if (e == SSL_ERROR_WANT_READ)
		return 0;
	if (r != 1) {
		*ret_why = why_not(c);
		return -1;
	}
	SSL_get0_alpn_selected(c->ssl, &alpn, &n);
	*ret_h2 = n == 2 && c->key.h2 && memcmp(alpn, "h2", 2) == 0;
	/* OpenSSL takes what it did not offer. */
	if (!*ret_h2 && n != 0 && (n != 8 || memcmp(alpn, "http/1.1", 8) != 0)) {
		*ret_why = "it chose a protocol that was not offered";
		return -1;
	}
	return 1;
}

ssize_t tls_read(struct conn *c, void *p, size_t n)
{
	size_t k;
	int r, e;

	ERR_clear_error();
	r = SSL_read_ex(c->ssl, p, n, &k);
	if (r == 1)
		return (ssize_t)k;
	e = SSL_get_error(c->ssl, r);
	if (e == SSL_ERROR_WANT_READ)
		return -EAGAIN;
	if (e == SSL_ERROR_ZERO_RETURN)
		return 0;
	return ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? -EPIPE : -EIO;
}

bool tls_holds(const struct conn *c)
{
	return SSL_has_pending(c->ssl);
}

bool tls_is_drained(struct conn *c)
{
	uint8_t one;

	/* It may be a record of the protocol's own, such as a ticket. */
	return !tls_holds(c) || tls_read(c, &one, 1) == -EAGAIN;
}

int tls_write(struct conn *c, struct span s)
{
	size_t k;

	if (c->broken)
		return -EPIPE;
	if (s.n == 0)
		return 0;
	ERR_clear_error();
	if (SSL_write_ex(c->ssl, s.p, s.n, &k) == 1 && k == s.n)
		return 0;
	c->broken = true;
	return -EPIPE;
}

void tls_notify_end(struct conn *c)
{
	if (c->broken || !SSL_is_init_finished(c->ssl))
		return;
	ERR_clear_error();
	(void)SSL_shutdown(c->ssl);
}

void tls_free(struct conn *c)
{
	SSL_free(c->ssl);
	c->ssl = NULL;
	buf_done(&c->out);
}
