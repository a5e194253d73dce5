/* The state of the role, and what its parts call in each other. One process, one thread, one of it; see main.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "ev/ev.h"
#include "ev/seqlink.h"
#include "gate/ca.h"
#include "gate/judge.h"
#include "gate/policy/github/reply.h"
#include "gate/walls.h"
#include "proto/exchange.h"
#include "proto/netmsg.h"

#define NS INT64_C(1000000000)
#define MS INT64_C(1000000)

/* Credentials page 7.6, network page 3.6. */
#define CONNS 1024 /* streams, whatever becomes of them */
#define UNDECIDED_MAX 512
#define INSPECTED_MAX 256 /* one more hears 503 */
#define CROWD_MAX 64	  /* how many at once hear that; the rest is reset */
#define ASKS 128
#define BODIES_MAX 32 /* of these with a body that is kept: 1 MiB, and what is printed of it; or with an answer of 8 MiB */
#define OUT_HIGH (64 << 10) /* more is not fetched for a guest that does not read */
#define WAIT_MAX (64 << 10) /* of a guest that sends before its answer has ended */
#define DISCARD_MAX (256 << 10)

#define HANDSHAKE_NS (10 * NS)
#define SILENT_NS NS /* then it is the server that speaks first */
#define HEAD_NS (30 * NS)
#define IDLE_NS (5 * 60 * NS)
#define BODY_NS (5 * 60 * NS)
#define ANSWER_NS (15 * 60 * NS)
#define RELAY_NS (60 * 60 * NS)
#define DIAL_NS (90 * NS)
#define FINISH_NS (2 * NS)
#define LOOKUP_NS (5 * NS)	  /* GitHub's answer to a question of ours */
#define LOOKUP_WAIT_NS (15 * NS)  /* for the questions of others as well */
#define RENEW_NS (60 * NS) /* vault answers within 15 s */

/* Kinds of events. */
enum gate_ev { EV_CONTROL, EV_SIGNAL, EV_VAULT, EV_WIRE, EV_CONN, EV_DIALLED, EV_ASK, EV_LOOKUP };

enum conn_state {
	CONN_PEEK,   /* what is it? */
	CONN_DIAL,   /* vault connects to what the guest dialled */
	CONN_HOLD,   /* wire says how much it wrote */
	CONN_DRAIN,  /* all of that goes to the socket that takes the pair's place */
	CONN_TLS,    /* handshake */
	CONN_OPEN,   /* requests */
	CONN_FINISH, /* all was said: flush, half-close, drop what still comes */
	CONN_DEAD,   /* freed after the batch */
};

struct h1conn;
struct h2conn;

/* A stream of the guest. */
struct conn {
	uint16_t slot;
	uint32_t gen;
	enum conn_state state;
	struct gate *g;
	uint32_t wire_slot, wire_gen; /* the flow as wire and vault name it */
	uint16_t port;
	bool tied, named; /* struct net_peek */
	int fd;		  /* our end of the pair */
	int dialled;	  /* -1, or the socket that takes its place */
	uint64_t taken;	  /* bytes read from the pair */
	uint64_t written; /* by wire, in all; in CONN_DRAIN */
	int64_t deadline; /* 0: none */
	struct buf raw;	  /* before the verdict: what was read; then what TLS has not read of it */
	SSL *ssl;	  /* NULL: in clear */
	enum prov_host_id host;
	bool inspected; /* counts as such */
	bool crowd;	/* there are too many: 503 */
	bool pair_eof;	/* of the bytes, and then of what TLS makes of them */
	bool in_eof;
	bool said_bye; /* in CONN_FINISH: close_notify and FIN were sent */
	bool kicked;
	unsigned after_hello; /* handshake messages after the handshake */
	uint64_t discarded;   /* in CONN_FINISH */
	struct buf out;	      /* plaintext for the guest */
	struct buf sealed;    /* behind TLS, what the pair did not take */
	uint32_t watching;
	bool unwanted; /* input came that is not read now */
	struct h1conn *h1; /* one of the two in CONN_OPEN */
	struct h2conn *h2;
	struct conn *next; /* kicked, or dead */
};

enum ask_state {
	ASK_COLLECT, /* the body decides */
	ASK_LOOKUP,  /* GitHub is asked first */
	ASK_RENEW,   /* vault says the numbers */
	ASK_FORWARD, /* at vault */
};

/* What becomes of an answer of GitHub's. */
enum filter_state {
	FILTER_NONE,  /* passes */
	FILTER_HEAD,  /* its head decides */
	FILTER_SCRUB, /* passes, with tokens overwritten */
	FILTER_LEARN, /* passes, and a copy is kept to learn from */
	FILTER_HOLD,  /* is read whole first */
	FILTER_GIVE_HEAD, /* what we make of it */
	FILTER_GIVE_BODY,
};

struct filter {
	enum filter_state state;
	struct gh_scrub scrub;
	struct buf head; /* HTTPMSG_ANSWER */
	struct buf body;
	size_t given;
	bool ends;    /* behind the body; else vault's frames go on */
	bool refuses; /* the head is a refusal of gate's own */
};

/* A request of the guest that is under way, and its exchange with vault. */
struct ask {
	uint16_t slot;
	uint32_t gen;
	bool used;
	enum ask_state state;
	struct conn *c;
	void *stream; /* struct h2stream, NULL with HTTP/1.1 */
	enum prov_host_id host;
	enum prov_method method;
	bool is_head;
	bool websocket, relaying;
	bool answered;	   /* the answer's head was taken */
	enum ph_kind kind; /* of the first credential, PH_KINDS: none */
	char path[NET_NOTE_PATH];
	int64_t begun, deadline;
	uint64_t up, down;

	/* ASK_COLLECT */
	struct buf body;
	struct request *req; /* its spans lie in @head, or in the parser of HTTP/1.1 */
	struct buf head;
	struct judged judged;
	enum verdict verdict;
	unsigned turns; /* questions to GitHub so far */
	bool asked;	/* the one under way is its own */
	bool counted;	/* among n_bodies, until it ends */

	/* ASK_FORWARD */
	int fd;
	struct buf out, in;
	size_t open_at; /* where in @out a DATA frame begins of which nothing was sent; SIZE_MAX: nowhere */
	uint64_t owed;	/* bytes of body taken and not yet passed on: credit that HTTP/2 still owes its guest */
	bool body_ended, eof;
	struct xch_reader reader;
	size_t eaten; /* of @in: handed out, and dropped at the next look */
	bool lost;    /* no memory for its way to vault: its protocol is to hear of the end */
	uint32_t watching;
	struct filter filter;
};

/* Questions of gate's own to GitHub, one at a time, each an exchange with vault as a request of the guest's is. */
struct lookup {
	uint32_t gen;
	int fd; /* -1: none is under way */
	bool facts; /* about the list; else @ask */
	struct github_ask ask;
	uint8_t keys[NODE_QUESTIONS_MAX * NODEID_MAX];
	struct buf out, in, text;
	struct xch_reader reader;
	bool answered, good; /* its head has come; it is a 200 */
	uint32_t watching;
	int64_t deadline;
	int64_t facts_due; /* when the list is asked about again; 0: it never was */
	bool facts_known;
	int64_t minute; /* when the count began */
	unsigned n;	/* in that minute */
};

/* What a guest can bring about as often as it likes, and what the log tells of it. */
enum line_kind {
	LINE_NAMELESS,
	LINE_SSH,
	LINE_HELLO,
	LINE_SIGN_OUT,
	LINE_STREAMS,
	LINE_INSPECTED,
	LINE_FLOOD,
	LINE_LOOKUP,
	LINE_KINDS,
};

struct line {
	int64_t at;    /* of the last one that was written; 0: none was */
	uint64_t held; /* so many since */
};

struct gate {
	struct ev ev;
	struct judge judge;
	struct ca ca;
	SSL_CTX *tls;
	struct seqlink vault, wire;
	uint32_t vault_watch, wire_watch;
	int64_t now; /* of this batch */
	struct conn *conn[CONNS];
	uint32_t conn_gen;
	unsigned n_conns, n_undecided, n_inspected;
	struct conn *kicked, *dead;
	struct ask ask[ASKS];
	unsigned n_asks;
	bool bodies_wait; /* for asks_flush() */
	unsigned n_bodies; /* of these: with a body that was, or is to be, read for GitHub's rules, or such a long answer */
	struct gh_scope scope;
	struct github github;
	struct lookup lookup;
	int64_t due; /* when the earliest deadline may be over */
	uint64_t notes_lost;
	struct line line[LINE_KINDS];
	const char *ended; /* why the session ends; NULL: it does not */
	bool failed;
};

/* turn.c */
/* End the process: vault or wire broke the rules, or is gone. @why is a literal. */
void gate_end(struct gate *g, const char *why, bool failed);

/* A deadline was set: look at it in time. */
void gate_due(struct gate *g, int64_t when);

/* A batch of events, at g->now. */
void gate_turn(struct gate *g, const struct ev_event *batch, int n);

/* lines.c: a warning that a guest causes; one a minute of each kind, the rest is counted. */
void guest_line(struct gate *g, enum line_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
void guest_lines_end(struct gate *g);

/* link.c: messages. */
void vault_send(struct gate *g, const void *msg, size_t n, int fd); /* @fd: taken */
void wire_tell(struct gate *g, uint16_t type, const struct conn *c, int fd);
void vault_event(struct gate *g, uint32_t events);
void wire_event(struct gate *g, uint32_t events);
void links_flush(struct gate *g);
int64_t links_next(const struct gate *g);

/* conn.c: the table of streams, and bytes to and from the guest. */
void conn_new(struct gate *g, const struct net_peek *m, int fd); /* @fd: taken */
struct conn *conn_by_flow(struct gate *g, const struct net_head *h);
struct conn *conn_at(struct gate *g, uint16_t slot, uint32_t gen);
void conn_event(struct gate *g, const struct ev_event *e);
/* Look at it again in this turn. */
void conn_kick(struct conn *c);
/* Reset the flow at wire; the object goes after the batch. */
void conn_reset(struct conn *c);
/* Free it after the batch; the pair closes. */
void conn_close(struct conn *c);
/* No more requests: flush, say goodbye, drop what still comes. */
void conn_finish(struct conn *c);
/* Bytes for the guest; the caller watches OUT_HIGH. */
void conn_put(struct conn *c, struct span s);
void conn_deadline(struct conn *c, int64_t in_ns); /* 0: none */
void conns_turn(struct gate *g);
void conns_tick(struct gate *g);
/* The verdict is: gate speaks for @host. */
void conn_inspect(struct conn *c, enum prov_host_id host, bool tls);

/* aside.c: before the verdict, and streams that are not ours to judge. */
void aside_peek(struct conn *c);
void aside_dialled(struct conn *c, const struct net_dialled *m, int fd); /* @fd: taken */
void aside_held(struct conn *c, uint64_t bytes);
void aside_drain(struct conn *c);
void aside_timeout(struct conn *c);

/* tls.c */
SSL_CTX *tls_server(struct err *err);
int tls_start(struct conn *c);
/* 1: done; 0: not yet; -EPROTO. */
int tls_handshake(struct conn *c);
bool tls_is_h2(const struct conn *c);
/* Bytes; 0: the guest has ended its direction; -EAGAIN; -EPROTO. */
ssize_t tls_read(struct conn *c, uint8_t *p, size_t n);
ssize_t tls_write(struct conn *c, const uint8_t *p, size_t n);
/* What was sealed and waits for the pair. 0: all of it is out; -EAGAIN; -EPROTO. */
int tls_flush(struct conn *c);

/* ask.c: one request, whichever version it came by. */

/**
 * ask_begin() - Judge a request and begin what follows from the verdict
 * @stream:	Of HTTP/2, else NULL
 * @r:		Its spans stay where they are until the ask has ended, or lie in @head
 * @head:	NULL, or memory of the spans, which is taken if it is needed longer
 * @ret:	Filled when the answer is here already
 *
 * Return: the request under way; NULL: @ret is the answer, and what comes of the body is to be dropped
 */
struct ask *ask_begin(struct conn *c, void *stream, struct request *r, struct buf *head, struct reply *ret);
void ask_body(struct ask *a, struct span s);
void ask_body_end(struct ask *a);
/* What came of bodies in this batch goes to vault, in few pieces. */
void asks_flush(struct gate *g);
/* Vault does not keep up: read no more of the body. */
bool ask_is_full(const struct ask *a);
/* Next frame of the answer, of DATA at most @max bytes. XCH_GOT_BAD also when it was cut. */
enum xch_got ask_take(struct ask *a, size_t max, struct span *ret);
/* Reads the head of an answer. False: it was a refusal, vault's or the filter's, or vault does not keep to the rules, or it is an
 * upgrade that nobody asked for; the guest has its answer from here, and the ask has ended. */
bool ask_answer(struct ask *a, struct span msg, struct httpmsg_answer *ret);
/* Whether the answer to this request has no body, whatever it says. */
bool ask_is_bare(const struct ask *a, uint16_t status);
/* Whether a field of an answer, or of its trailers, goes to the guest: what frames it is written by us. */
bool ask_keeps(const struct ask *a, const struct httpmsg_answer *m, const struct http_field *f);
/* The answer comes from here after all, and the request is over. @recorded: vault has the record of it. */
void ask_refuse(struct ask *a, const struct refusal *f, bool recorded);
/* The record of an answer that came from here, to a request that never became an ask. */
void ask_note(struct conn *c, const struct request *r, const struct reply *reply);
/* It is over: the exchange closes, cut if it has not ended. */
void ask_end(struct ask *a);
void ask_event(struct gate *g, const struct ev_event *e);
struct ask *ask_at(struct gate *g, uint32_t slot, uint32_t gen);
void ask_renewed(struct ask *a, const struct net_renewed *m);
void asks_tick(struct gate *g);

/* GitHub has told, or will not: judge again. */
void ask_looked_up(struct ask *a, bool told);

/* lookup.c */
void lookup_init(struct gate *g);
/* The list is asked about in time; true: the answer is awaited for the first time. */
bool lookup_facts(struct gate *g);
/* Ask; false: another question is under way, or no more may be asked (@ret_never). */
bool lookup_ask(struct gate *g, const struct github_ask *ask, struct span body, bool *ret_never);
void lookup_event(struct gate *g, const struct ev_event *e);
void lookup_tick(struct gate *g);

/* filter.c: what GitHub's rules do to an answer, between ask_take() and the frames of vault. */
enum xch_got filter_take(struct ask *a, size_t max, struct span *ret, enum xch_got (*next)(struct ask *, size_t, struct span *));
void filter_begin(struct ask *a); /* before it is forwarded */
void filter_done(struct ask *a);

/* h1conn.c, h2conn.c: a connection's requests. The first three return false when there is nothing more to do. */
bool h1_open(struct conn *c);
void h1_free(struct conn *c);
void h1_input(struct conn *c, struct span in);
void h1_run(struct conn *c); /* what waits, and answers */
bool h1_wants_input(const struct conn *c);
void h1_reply(struct ask *a, struct reply *r); /* the answer is ours after all; @r is done by the caller */
void h1_cut(struct ask *a);		       /* it breaks off: a reset for the guest, if it had begun */
void h1_timeout(struct conn *c);
/* A stream in clear whose head was read as far as it is here. */
void h1_clear(struct conn *c, struct span raw);
bool h2_open(struct conn *c);
void h2_free(struct conn *c);
void h2_input(struct conn *c, struct span in);
void h2_run(struct conn *c);
bool h2_wants_input(const struct conn *c);
void h2_reply(struct ask *a, struct reply *r);
void h2_cut(struct ask *a);
void h2_news(struct ask *a); /* frames have come, or room */
void h2_timeout(struct conn *c);
