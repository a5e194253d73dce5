/* Requests on their way to the services, and the connections that carry them (credentials page 8).
 *
 *   exchange.c   one request of gate: judged again, given its secret, and its answer passed on
 *   upstream.c   connections by name, kept for the next request of the same kind
 *   up_tls.c     TLS, always verified
 *   up_h1.c      HTTP/1.1 on a connection
 *   up_h2.c      HTTP/2 on one */
#pragma once

#include <openssl/ssl.h>

#include "agents/providers.h"
#include "proto/exchange.h"
#include "proto/httpmsg.h"
#include "proto/refusal.h"
#include "vault/answer.h"
#include "vault/vault.h"

#define EXCHANGES_MAX (128 + 16) /* gate's, and beside them its own questions and some that just ended */
#define UP_CONNS 192
#define UP_READ (16 << 10) /* a record of TLS */
#define UP_READS 32	   /* in one go: records may be a byte long, and come for ever */
#define UP_OUT_MAX (512 << 10)
#define UP_OUT_FULL (192 << 10)	     /* no more is taken from gate until it went out */
#define UP_STREAM_WINDOW (128 << 10) /* of an answer, over HTTP/2 */
#define UP_BODY_MAX (XCH_WINDOW - 1)
#define UP_BODY_FULL (UP_BODY_MAX - XCH_DATA_MAX) /* the same for a stream */

struct echo;
struct h2;
struct conn;

/* What a connection may be used for again: the same credentials of the same contents of their files, or none. */
struct conn_key {
	enum prov_host_id host;
	bool h2, foreign;
	uint8_t kind[HTTPMSG_CREDS];
	uint64_t generation[HTTPMSG_CREDS];
};

enum exchange_state {
	EX_FREE,
	EX_LOGIN,    /* the host's file is being written, or renewed */
	EX_CONNECT,  /* its connection is being made */
	EX_SENT,     /* the head is out; the body follows */
	EX_ANSWER,   /* so is the answer's head */
	EX_UPGRADED, /* bytes of another protocol */
	EX_OVER,     /* END was written; what still comes of the body is dropped */
	EX_CUT,	     /* closed, when what was written is out */
};

struct exchange {
	enum exchange_state state;
	uint32_t gen;
	uint16_t at; /* its place in the table */
	int fd;	     /* to gate */
	uint32_t watched;

	uint8_t *msg; /* the request as it came; NULL when it cannot be sent again */
	struct httpmsg_request *m;
	struct httpmsg_request_wire w;
	char path[NET_NOTE_PATH];

	struct xch_reader reader;
	uint8_t rest[sizeof(struct xch_head)]; /* the front of a frame of gate */
	size_t n_rest;
	struct buf out;	 /* frames to gate */
	size_t tail;	 /* bytes of its last frame, if that is DATA */
	bool body_ended; /* END of gate */
	bool retried;

	struct conn *conn;
	struct conn_key key;
	bool reused;	 /* the connection carried others before */
	bool renewed;	 /* a renewal was waited for */
	uint32_t waiter; /* of renewals.c; 0: none */
	struct answer answer;
	struct echo *echo; /* NULL: not searched */
	bool scan_body;
	bool answered; /* some byte of the answer came */
	/* HTTP/2. */
	int32_t stream;	 /* 0: none */
	struct buf body; /* that did not go out yet */
	size_t unread;	 /* of the answer: gate has not taken it yet */
	bool malformed;

	int64_t start, until;
	int64_t looked; /* after its credentials */
	uint64_t up, down;
	uint16_t status;
	enum refusal_code code;
	bool cut;
};

static inline bool exchange_credentialed(const struct exchange *x)
{
	return x->w.kind[0] != HTTPMSG_NO_CRED;
}

/* Nothing of the request is still to come, even if gate's END is. */
static inline bool exchange_all_sent(const struct exchange *x)
{
	return x->body_ended || x->w.body == HTTP_BODY_NONE ||
	       (x->w.body == HTTP_BODY_LENGTH && x->up == x->w.body_len);
}

enum conn_state { CONN_FREE, CONN_NAMES, CONN_DIAL, CONN_TLS, CONN_OPEN };

struct conn {
	enum conn_state state;
	uint32_t gen;
	int fd;
	struct conn_key key;
	/* Until it is open. */
	struct addr addrs[2 * UP_ADDRS];
	uint8_t n_addrs, next_addr, asked, dialling;
	bool by_proxy, testing;
	uint16_t to_port;
	int64_t names_until, next_dial, until;
	int error;
	/* TLS. */
	SSL *ssl;
	unsigned handshakes; /* messages of it, and what follows of the kind */
	struct buf out; /* records that the socket did not take */
	uint32_t watched;
	int64_t watch_at; /* 0, or when to try that again */
	bool broken;	    /* it cannot be written to any more */
	bool in_eof;	    /* its socket has ended */
	bool paused;	    /* who reads it cannot go on */
	bool more;	    /* UP_READS were read: no event may tell of the rest, up_tick() goes on */
	bool end_out;	    /* close_notify is to be followed by the end of the stream */
	struct h2 *h2;	    /* NULL: HTTP/1.1 */
	struct exchange *x; /* whom it serves, or who waits for it to open; HTTP/2: nobody, once it is */
};

/* exchange.c */
int exchanges_init(struct vault *v);
/* HTTPMSG_REQUEST of gate; @fd: taken. */
void exchange_begin(struct vault *v, const void *msg, size_t n, int fd);
void exchange_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events);
int64_t exchanges_tick(struct vault *v);
/* A line for each that the end of the session ends. */
void exchanges_end(struct vault *v);
/* renewals.c: what was waited for has come, or @pending: has not in time. */
void exchange_renewed(struct vault *v, uint16_t at, uint32_t gen, bool pending);

/* What happens on its connection, told by upstream.c, up_h1.c, up_h2.c; the exchange may be over afterwards. */
void exchange_open(struct vault *v, struct exchange *x);			   /* send the head */
void exchange_failed(struct vault *v, struct exchange *x, enum refusal_code code); /* the connection is gone */
void exchanges_writable(struct vault *v, const struct conn *c);
void exchanges_lost(struct vault *v, const struct conn *c, enum refusal_code code);
int exchange_head(struct vault *v, struct exchange *x); /* x->answer has it; -1: not taken, and over */
void exchange_data(struct vault *v, struct exchange *x, struct span bytes);
void exchange_trailers(struct vault *v, struct exchange *x);
void exchange_end(struct vault *v, struct exchange *x);
/* May it be given UP_READ more bytes, or over HTTP/2 a window more? */
bool exchange_has_room(const struct exchange *x);

/* upstream.c */
int upstream_init(struct vault *v);
void up_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events);
int64_t up_tick(struct vault *v);
/* A connection for x->key: x->conn, and exchange_open() once it is open; or exchange_failed(). @fresh: no kept one. */
void up_get(struct vault *v, struct exchange *x, bool fresh);
/* @x needs it no more. @keep: another request may use it. */
void up_put(struct vault *v, struct exchange *x, bool keep);
void conn_close(struct vault *v, struct conn *c);
/* Flushes, and watches for what is wanted. */
void conn_update(struct vault *v, struct conn *c);
/* Whoever reads it can go on. */
void conn_resume(struct vault *v, struct conn *c);
uint16_t conn_at(const struct vault *v, const struct conn *c);
/* One line, and not the same one again within a minute. */
void up_trouble(struct vault *v, enum prov_host_id host, const char *why);

/* up_tls.c */
/* Makes c->ssl for the socket c->fd. 0; -errno: no trust, no memory. @ret_why: fixed text. */
int tls_begin(struct vault *v, struct conn *c, const char **ret_why);
/* 1: done; 0: not yet; -1 and @ret_why. @ret_h2: what was agreed on. */
int tls_handshake(struct conn *c, bool *ret_h2, const char **ret_why);
/* > 0: bytes; 0: the peer said that it ends; -EAGAIN; -EPIPE: it ends without that; -EIO: it broke */
ssize_t tls_read(struct conn *c, void *p, size_t n);
/* Something was read off the socket that tls_read() has not looked at: no event will tell of it. */
bool tls_holds(const struct conn *c);
/* No byte beyond those that tls_read() gave was read off the socket. */
bool tls_is_drained(struct conn *c);
/* All or nothing; it goes into c->out. 0 or -EPIPE. */
int tls_write(struct conn *c, struct span s);
void tls_notify_end(struct conn *c);
void tls_free(struct conn *c);

/* up_h1.c and up_h2.c */
/* Writes the head with its secrets. 0; -ENOMEM; -EINVAL: a secret cannot stand in a head; -EPIPE */
int h1_head(struct conn *c, struct exchange *x, const struct span *secret, struct span account);
void h1_body(struct conn *c, struct exchange *x, struct span bytes);
void h1_body_end(struct conn *c, struct exchange *x);
void h1_readable(struct vault *v, struct conn *c);

int h2_begin(struct vault *v, struct conn *c);
void h2_free(struct conn *c);
int h2_head(struct conn *c, struct exchange *x, const struct span *secret, struct span account);
void h2_body(struct conn *c, struct exchange *x, struct span bytes);
void h2_body_end(struct conn *c, struct exchange *x);
/* gate took bytes. */
void h2_read(struct conn *c, struct exchange *x);
/* @x needs its stream no more. */
void h2_leave(struct conn *c, struct exchange *x, bool answered);
/* What is to go out, into c->out. True: that is full, and there may be more. */
bool h2_send(struct conn *c);
void h2_readable(struct vault *v, struct conn *c);
unsigned h2_streams(const struct conn *c);
/* One of its callbacks runs: it must not be closed. */
bool h2_is_inside(const struct conn *c);
/* One more stream? */
bool h2_takes(const struct conn *c);
void h2_drain(struct conn *c);
/* It carries nothing any more: nobody uses it and nobody will, or the protocol was broken. */
bool h2_is_over(const struct conn *c);
/* Why its streams ended with it. */
enum refusal_code h2_why(const struct conn *c);
