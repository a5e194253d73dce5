/* One case of http-vectors.json (credentials page 12) and what came out of it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "gate/judge.h"

struct decide_case {
	const json_t *fixture;
	const json_t *all;   /* the file of cases, for those that name another */
	const json_t *known; /* the page's own file, where it is another one; or NULL */
	const json_t *context;
	const char *kind;
	struct buf input;
	size_t cut; /* the input comes in two pieces: so many bytes and the rest; 0: whole, SIZE_MAX: byte by byte */
	/* The launch that the context describes. */
	struct judge judge;
	enum prov_host_id host;	      /* of context.sni; HOSTS: none of ours */
	struct span secret[PH_KINDS]; /* empty: the host has none */
	struct span account;
};

#define DECIDE_MSGS 16

/* Of one request of a connection. */
struct decide_msg {
	const char *verdict; /* forward, refuse, answer */
	unsigned status;
	const char *code;
};

struct decide_result {
	/* Of the last one. */
	const char *verdict;
	unsigned status;
	const char *code;
	struct decide_msg msg[DECIDE_MSGS], told;
	size_t n_msgs;
	bool close, stream_reset;
	bool token; /* the body of a request to a token endpoint decides */
	size_t upstream_requests;
	const char *mode;  /* NULL: inspected */
	struct buf out;	   /* the far side */
	struct buf plain;  /* the same without the framing of chunks, which is as the pieces came */
	struct buf answer; /* our own answers */
	/* Of kinds that run programs or read files. */
	size_t programs_run;
	const char *record;
	bool truncated, upstream_dropped, unchanged_body;
	bool checks_itself; /* what the common part does not know was checked by the function itself */
};

/* The case as the page's defaults complete it; also of another record than the one that is decided. */
bool decide_read(const json_t *v, const json_t *fixture, struct decide_case *c);
/* What vault would be given for the head of a record's first request. False: it is not forwarded as it stands. */
bool decide_message(const struct decide_case *c, struct buf *msg, struct httpmsg_request *ret);

/* Writes the message, reads it as vault does, judges again and writes the head. False: refused after all. */
bool decide_forward(const struct decide_case *c, const struct judged *d, const struct request *q,
		    struct decide_result *r);

/* Whether the login of a kind can go out now: the host's state as the case describes it, renewed if it has to be. */
enum refusal_code decide_login(const struct decide_case *c, enum ph_kind kind, struct decide_result *r);
/* What a service answered to an upgrade. 1: it went over, 0: it did not, -1: that is no answer. */
int decide_upgrade(const json_t *after);

/* One function a kind: 0 and the result; -1: the case cannot be understood. Those of vault's half stand in
 * http-decide-vault.c; a kind without a function is told as not decided. */
int decide_response(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
int decide_refresh(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
int decide_hostfile(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
