/* A neighbour's end of a TLS connection. */
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "live.h"

/* One end of a TLS connection that reads and writes in bursts. */
struct peer {
	int fd;
	SSL *ssl;
	struct buf tx; /* plain, to be written */
	size_t again;  /* of a write that has to be repeated */
	bool ready;    /* the handshake is over */
	bool ended;    /* its own direction was ended */
	bool eof, broken;
};

static void peer_done(struct peer *p)
{
	SSL_free(p->ssl);
	close_p(&p->fd);
	buf_done(&p->tx);
	*p = (struct peer){ .fd = -1 };
}

/* 1: more of the handshake was done; 0: it waits for the other side. */
static bool peer_handshake(struct peer *p)
{
	int r, e;

	ERR_clear_error();
	r = SSL_do_handshake(p->ssl);
	e = SSL_get_error(p->ssl, r);
	p->ready = r == 1;
	if (r != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
		p->broken = true;
	return p->ready;
}

/* What OpenSSL says after something that did not go. */
static void peer_failed(struct peer *p, int r)
{
	switch (SSL_get_error(p->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		break;
	case SSL_ERROR_ZERO_RETURN:
		p->eof = true;
		break;
	default:
		p->broken = true;
	}
}

/* Up to @n bytes of p->tx. How many went. */
static size_t peer_write(struct peer *p, size_t n)
{
	size_t k, sum = 0;
	int r;

	while (p->ready && !p->broken && p->tx.n > 0 && sum < n) {
		ERR_clear_error();
		k = MAX(MIN(MIN(p->tx.n, n - sum), (size_t)(32 << 10)), p->again);
		r = SSL_write(p->ssl, buf_span(&p->tx).p, (int)k);
		p->again = r > 0 ? 0 : k;
		if (r <= 0) {
			/* Whoever closed both directions hears no more, and may still have said something. */
			if (SSL_get_error(p->ssl, r) != SSL_ERROR_WANT_WRITE)
				buf_consume(&p->tx, p->tx.n);
			return sum;
		}
		buf_consume(&p->tx, (size_t)r);
		sum += (size_t)r;
	}
	return sum;
}

/* The same, now and then as many small records behind each other. */
static size_t peer_writes(struct peer *p, size_t n)
{
	size_t sum = 0;

	if (once_in(8))
		for (uint32_t k = dice(60); k > 0; k--)
			sum += peer_write(p, 1 + dice(200));
	return sum + peer_write(p, n);
}

/* Up to @n bytes, to @take. How many came; the end counts as one. */
static size_t peer_read(struct peer *p, size_t n, void (*take)(struct span))
{
	static uint8_t bytes[64 << 10];
	size_t sum = 0;

	while (p->ready && !p->broken && !p->eof && sum < n) {
		int r;

		ERR_clear_error();
		r = SSL_read(p->ssl, bytes, (int)MIN(n - sum, sizeof(bytes)));
		if (r <= 0) {
			peer_failed(p, r);
			return sum + (p->eof || p->broken);
		}
		sum += (size_t)r;
		take(SPAN(bytes, r));
	}
	return sum;
}
