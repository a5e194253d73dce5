/* A request as the guest sent it, whether over HTTP/1.1 or HTTP/2, and what is wrong with it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/providers.h"
#include "gate/refusal.h"
#include "proto/http.h"

/* The order in which a request is judged (credentials page 7.2): of several faults the first one is answered. */
enum stage {
	STAGE_LINE,
	STAGE_VERSION,
	STAGE_METHOD,
	STAGE_TARGET,
	STAGE_FIELDS,
	STAGE_HOST,
	STAGE_FRAMING,
	STAGE_CREDENTIALS,
	STAGE_POLICY,
	STAGES,
};

struct request {
	enum prov_method method; /* METHODS: none that is let in */
	bool is_head;		 /* the answer has no body, whatever the verdict */
	struct span target;	 /* origin-form, as received */
	struct span path, query;
	bool has_query;
	struct span authority; /* of an absolute-form target or :authority; empty without one */
	struct http_field f[HTTP_FIELDS_MAX];
	size_t n;
	enum http_body body;
	uint64_t body_len;
	bool last;	/* Connection: close; what follows is no request */
	bool expects;	/* Expect: 100-continue */
	bool websocket; /* a whole and valid upgrade */
	bool h2;	/* it came over HTTP/2 */
	enum stage stage;
	struct refusal fault; /* the first fault; status 0: none */
};

/**
 * request_fault() - Note a fault
 *
 * The earliest stage wins, then the first call. That the connection must be closed sticks, whichever fault is told.
 */
void request_fault(struct request *r, enum stage stage, struct refusal fault);

/* "https://AUTHORITY/…" or "/…": sets target, path, query and authority, or notes the fault. */
void request_set_target(struct request *r, struct span target);

/* A body of no length is none. */
static inline bool request_has_body(const struct request *r)
{
	return r->body == HTTP_BODY_STREAM || (r->body == HTTP_BODY_LENGTH && r->body_len > 0);
}

/* The host of a connection in clear: the first Host field, without the port 80; empty without one. */
struct span request_host(const struct request *r);

/**
 * request_check() - What holds for a whole head of either version
 * @sni:	The name of the TLS connection, lower case; empty in clear, where Host gives the name
 *
 * Host, framing, Expect, Connection, Upgrade and the fields that would change the method.
 */
void request_check(struct request *r, struct span sni);

/**
 * request_from_h2() - A field list as nghttp2 hands it over
 * @f:		Pseudo-header fields and fields in the order of arrival
 * @end:	The stream ended with the head: there is no body
 *
 * Return: 0, faults are in @ret; -EBADMSG: malformed (RFC 9113 section 8.1.1), the stream is to be reset
 */
int request_from_h2(const struct http_field *f, size_t n, bool end, struct span sni, struct request *ret);
