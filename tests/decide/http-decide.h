/* One case of http-vectors.json (credentials page 12) and what came out of it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "gate/judge.h"

struct decide_case {
	const json_t *fixture;
	const json_t *all; /* the file of cases, for those that name another */
	const json_t *context;
	const char *kind;
	struct buf input;
	size_t cut; /* the input comes in two pieces: so many bytes and the rest; 0: whole, SIZE_MAX: byte by byte */
	/* The launch that the context describes. */
	struct judge judge;
	enum prov_host_id host;	      /* of context.sni; HOSTS: none of ours */
	struct span secret[PH_KINDS]; /* empty: the host has none */
	bool unavailable[PH_KINDS];   /* its login cannot be used now */
	struct span account;
};

struct decide_result {
	const char *verdict; /* forward, refuse, answer */
	unsigned status;
	const char *code;
	bool close, stream_reset;
	size_t upstream_requests;
	const char *mode;  /* NULL: inspected */
	struct buf out;	   /* the far side */
	struct buf answer; /* our own answers */
	/* Of kinds that run programs or read files. */
	size_t programs_run;
	const char *record;
	bool truncated, upstream_dropped, unchanged_body;
	bool checks_itself; /* what the common part does not know was checked by the function itself */
};

/* One function a kind: 0 and the result; -1: the case cannot be understood. Those of vault's half stand in
 * http-decide-vault.c; a kind without a function is told as not decided. */
int decide_response(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
int decide_refresh(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
int decide_hostfile(const struct decide_case *c, const json_t *expect, struct decide_result *ret);
