/* What the guest hears when a request is refused (credentials page 9): status, code, one JSON body in the shape of the
 * host, and a text that says what was refused, why, and what to write instead. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/providers.h"
#include "base/buf.h"
#include "proto/refusal.h"

struct gh_decision;

struct refusal {
	uint16_t status; /* 0: no refusal */
	enum refusal_code code;
	bool close;	 /* after the answer the connection is closed */
	const char *why; /* static text: what, why, what instead */
	/* What the text may name besides; both optional. */
	enum ph_kind kind;     /* with has_kind */
	enum prov_class class; /* CLASS_DEFAULT: none */
	bool has_kind;
	const struct gh_decision *github; /* kept; NULL: else its rules say text, form and content-type */
};

/* The status of a refusal that vault asked for by its code. */
struct refusal refusal_by_vault(enum refusal_code code, enum ph_kind kind);

/**
 * refusal_text() - The sentence for person and agent
 * @path:	Of the request, already found well-formed; empty if it was not
 *
 * Only our own words, and the path's bytes of which none needs an escape in JSON.
 */
void refusal_text(const struct refusal *r, enum prov_host_id host, struct span path, char *out, size_t size);

/**
 * refusal_body() - The JSON (or for git the two lines) in the shape of the host
 * @host:	HOSTS: of none, for plain HTTP
 *
 * Return: 0 or -ENOBUFS; *@ret_type: the value for content-type
 */
int refusal_body(const struct refusal *r, enum prov_host_id host, struct span path, struct buf *out,
		 const char **ret_type);

/* An answer of our own, whole, for either version of HTTP. */
struct reply {
	uint16_t status;
	enum refusal_code code; /* REFUSAL_NONE: no refusal */
	bool close;
	const char *type;    /* content-type */
	const char *allow;   /* of a 405, else NULL */
	const char *upgrade; /* of a 426, else NULL */
	struct buf body;     /* owned */
};

/* The refusal as a reply. 0, or -ENOBUFS; reply_done() in either case. */
int reply_refusal(const struct refusal *r, enum prov_host_id host, struct span path, struct reply *ret);
void reply_done(struct reply *r);

/* As HTTP/1.1. @is_head: no body. 0 or -ENOBUFS. */
int reply_http1(const struct reply *r, bool is_head, struct buf *out);

/* Both in one. */
int refusal_http1(const struct refusal *r, enum prov_host_id host, struct span path, bool is_head, struct buf *out);

/* The 301 that a GET or HEAD in clear gets: to https, the same target. @host is our own spelling, @target was checked.
 */
int refusal_to_https(const char *host, struct span target, struct buf *out);
