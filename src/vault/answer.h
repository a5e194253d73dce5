/* Strict parser of what a service answers over HTTP/1.1 (credentials page 8.2): bytes in, events out. What is not
 * exactly HTTP is an error, for an answer that two programs read differently is the end of their agreement on where the
 * next one begins. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/providers.h"
#include "base/buf.h"
#include "proto/http.h"

#define ANSWER_INTERIM_MAX 8
#define ANSWER_TRAILER_MAX (8 << 10)

enum answer_event {
	ANSWER_MORE,	 /* all bytes were used up; give more */
	ANSWER_HEAD,	 /* status, fields, framing */
	ANSWER_BODY,	 /* @body */
	ANSWER_TRAILERS, /* fields; only if there are any */
	ANSWER_END,	 /* complete; bytes that are left belong to no answer: drop the connection */
	ANSWER_UPGRADED, /* 101: after its head; what is left are the first bytes of the other protocol */
};

struct answer {
	/* What the request was; set by answer_init(). */
	bool head_only, upgrade;
	/* Result, from ANSWER_HEAD on. */
	unsigned status;
	enum http_body framing;
	uint64_t length;
	bool closes;	 /* the connection carries no other answer */
	size_t n_fields; /* of ANSWER_HEAD or ANSWER_TRAILERS, until the next call */
	struct http_field f[HTTP_FIELDS_MAX];
	struct span body; /* borrowed from the input */
	/* Its own. */
	int state;
	unsigned interim;
	bool chunked, told;
	uint64_t left;
	struct buf head; /* lines under way */
};

/* @method, @upgrade: of the request that was sent. */
void answer_init(struct answer *a, enum prov_method method, bool upgrade);
void answer_done(struct answer *a);

/**
 * answer_feed() - Read on
 * @in:		Moved past what was used; call again until ANSWER_MORE, ANSWER_END or ANSWER_UPGRADED
 *
 * Return: enum answer_event; -EPROTO: this is no answer, and nothing after it is one (502 upstream-framing, or a reset
 * when the head was already passed on); -ENOMEM
 */
int answer_feed(struct answer *a, struct span *in);

/* The service closed. ANSWER_END when that ends the answer; -EPIPE: it was cut, and must be cut for the guest too. */
int answer_eof(struct answer *a);

/* Whether a field of head or trailers goes to the guest. */
bool answer_keeps(enum prov_host_id host, const struct answer *a, const struct http_field *f);

/* Whether the body has a content coding, which we did not ask for and cannot look into. */
bool answer_is_coded(const struct answer *a);
