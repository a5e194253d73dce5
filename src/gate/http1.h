/* HTTP/1.1 from the guest, read strictly and byte by byte if it comes so (credentials page 7.2, 7.3; RFC 9112).
 *
 *   LINE -> FIELDS -> (head) -> BODY -> END -> http1_next() -> LINE
 *                        \-> DEAD                 a fault that closes: nothing more is read
 *
 * No front of an input is judged otherwise than the whole: every decision is made on whole lines or at a fixed count of
 * bytes. Memory: the head, as it comes, to 64 KiB, and a trailer's line to 8 KiB; bodies are handed through. */
#pragma once

#include "base/buf.h"
#include "gate/request.h"

enum http1_state {
	HTTP1_LINE,
	HTTP1_FIELDS,
	HTTP1_LENGTH,	  /* body by Content-Length */
	HTTP1_CHUNK_SIZE, /* the line with the size */
	HTTP1_CHUNK_DATA,
	HTTP1_CHUNK_END, /* CR LF behind the data */
	HTTP1_TRAILER,
	HTTP1_END, /* to be told, or told: waits for http1_next() */
	HTTP1_DEAD,
};

struct http1 {
	enum http1_state state;
	struct span sni; /* kept; empty: in clear, where Host names the host */
	struct buf head; /* the head so far */
	struct buf text; /* the line of a chunk or trailer under way */
	size_t line;	 /* where the line under way begins in the head */
	uint64_t left;	 /* bytes of the body or chunk */
	size_t trailer;	 /* bytes of trailers so far */
	bool told;	 /* END was handed out */
	struct {
		uint32_t name, value; /* offsets into head */
		uint32_t name_n, value_n;
	} at[HTTP_FIELDS_MAX];
	uint32_t target, target_n;
	struct request req; /* valid from HTTP1_HEAD to http1_next() */
};

enum http1_event {
	HTTP1_MORE, /* all was taken; nothing to tell */
	HTTP1_HEAD, /* a head, or the part of it that is enough for its fault */
	HTTP1_BODY, /* @ret_body: the next bytes, borrowed from the input */
	HTTP1_DONE, /* the request is over; what follows stays in the input until http1_next() */
	HTTP1_BAD,  /* the body's framing is broken: refuse by http1_fault(), reset upstream, close */
};

/* @sni: the name of the TLS connection, lower case, kept; empty for a connection in clear. */
void http1_init(struct http1 *h, struct span sni);
void http1_done(struct http1 *h);

/**
 * http1_feed() - Read on
 * @in:		Bytes of the guest; what was taken is taken off the front
 * @ret_body:	Set for HTTP1_BODY
 *
 * The caller repeats it until HTTP1_MORE. After a fault that closes, everything is taken and dropped.
 */
enum http1_event http1_feed(struct http1 *h, struct span *in, struct span *ret_body);

/* The refusal for HTTP1_BAD. */
struct refusal http1_fault(void);

/* The answer has ended: the next request may be read. */
void http1_next(struct http1 *h);

/* Nothing of a next request has been read: a quiet connection may be closed. */
bool http1_is_idle(const struct http1 *h);
