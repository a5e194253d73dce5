/* HTTP/1.1 on a connection: one request at a time. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "vault/reqhead.h"
#include "vault/secret.h"
#include "vault/upstream.h"

int h1_head(struct conn *c, struct exchange *x, const struct span *secret, struct span account)
{
	/* What the arena is for; where nothing is lent there is none. */
	bool secretly = exchange_credentialed(x);
	size_t size = REQHEAD_ROOM(x->w.head.length, secret);
	uint8_t *head = secretly ? secret_alloc(size) : malloc(size);
	ssize_t n;
	int r;

	if (!head)
		return -ENOMEM;
	n = reqhead_write(x->m, secret, account, head, size);
	r = n < 0 ? (int)n : tls_write(c, SPAN(head, (size_t)n));
	if (secretly)
		secret_free(head);
	else
		free(head);
	answer_init(&x->answer, (enum prov_method)x->w.method, x->w.flags & HTTPMSG_UPGRADE);
	return r;
}

void h1_body(struct conn *c, struct exchange *x, struct span bytes)
{
	char size[24];
	int n;

	if (x->state == EX_UPGRADED || x->w.body == HTTP_BODY_LENGTH) {
		(void)tls_write(c, bytes);
		return;
	}
	n = snprintf(size, sizeof(size), "%zx\r\n", bytes.n);
	(void)tls_write(c, SPAN(size, (size_t)n));
	(void)tls_write(c, bytes);
	(void)tls_write(c, SPAN("\r\n", 2));
}

void h1_body_end(struct conn *c, struct exchange *x)
{
	if (x->state == EX_UPGRADED) {
		tls_notify_end(c);
		c->end_out = true;
	} else if (x->w.body == HTTP_BODY_STREAM) {
		(void)tls_write(c, SPAN("0\r\n\r\n", 5));
	}
}

/* Bytes of the answer. False: the exchange is over. */
static bool take(struct vault *v, struct conn *c, struct exchange *x, struct span in)
{
	struct answer *a = &x->answer;
	bool keep;
	int r;

	while (x->conn == c) {
		if (x->state == EX_UPGRADED) {
			exchange_data(v, x, in);
			break;
		}
		r = answer_feed(a, &in);
		switch (r) {
		case ANSWER_MORE:
			return true;
		case ANSWER_HEAD:
		case ANSWER_UPGRADED:
			if (exchange_head(v, x) < 0)
				return false;
			break;
		case ANSWER_BODY:
			exchange_data(v, x, a->body);
			break;
		case ANSWER_TRAILERS:
			exchange_trailers(v, x);
			break;
		case ANSWER_END:
			/* Bytes beyond the end belong to no answer. */
			keep = !a->closes && in.n == 0 && (exchange_all_sent(x) || a->upgrade) && !c->broken &&
			       tls_is_drained(c);
			up_put(v, x, keep);
			exchange_end(v, x);
			return false;
		default:
			up_put(v, x, false);
			exchange_failed(v, x, r == -ENOMEM ? REFUSAL_UPSTREAM : REFUSAL_UPSTREAM_FRAMING);
			return false;
		}
	}
	return x->conn == c;
}

/* The service ended its side; @k: as of tls_read(). An answer that ends with its connection is whole only by TLS's own end: a FIN may
 * be anybody's. Many leave that out, but tell a length or send chunks, and after an upgrade the bytes have ends of their own. */
static void ended(struct vault *v, struct exchange *x, ssize_t k)
{
	bool whole = x->state == EX_UPGRADED ? k != -EIO : k == 0 && answer_eof(&x->answer) == ANSWER_END;

	up_put(v, x, false);
	if (whole)
		exchange_end(v, x);
	else
		exchange_failed(v, x, REFUSAL_UPSTREAM);
}

void h1_readable(struct vault *v, struct conn *c)
{
	static uint8_t bytes[UP_READ];

	for (int i = 0; c->state == CONN_OPEN && !(c->more = i == UP_READS); i++) {
		struct exchange *x = c->x;
		ssize_t k;

		if (x && !exchange_has_room(x)) {
			c->paused = true;
			return;
		}
		k = tls_read(c, bytes, sizeof(bytes));
		if (k == -EAGAIN)
			return;
		if (!x) { /* a kept one ends, or says what nobody asked */
			conn_close(v, c);
			return;
		}
		if (k <= 0) {
			ended(v, x, k);
			return;
		}
		x->answered = true;
		if (!take(v, c, x, SPAN(bytes, (size_t)k)))
			return;
	}
}
