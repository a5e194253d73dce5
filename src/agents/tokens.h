/* What is sent to a token endpoint, and what is answered (credentials page 6.4). Nothing of it leaves the host: gate
 * reads the request and writes the answer, vault says the numbers. Pure. */
#pragma once

#include "agents/providers.h"
#include "base/buf.h"

#define TOKEN_BODY_MAX (16 << 10)
#define TOKEN_ANSWER_MAX (8 << 10)
#define TOKEN_DEPTH 4
#define TOKEN_KEYS_MAX 64 /* of a form */

enum token_verdict {
	TOKEN_ASK,	   /* by the owner of a refresh placeholder: @ret_kind */
	TOKEN_TOO_LARGE,   /* 413 */
	TOKEN_MEDIA,	   /* 415 */
	TOKEN_INVALID,	   /* 400 invalid_request */
	TOKEN_UNSUPPORTED, /* 400 unsupported_grant_type */
};

/**
 * token_body() - Who asks for a renewal
 * @type:	Content-Type; a parameter is passed over
 * @coded:	There is a Content-Encoding
 * @body:	Whole, or the first TOKEN_BODY_MAX + 1 bytes of it
 * @ret_kind:	PH_CLAUDE_R, PH_CODEX_R or PH_OPENCODE_R; only for TOKEN_ASK
 */
enum token_verdict token_body(enum prov_host_id host, const struct ph_set *set, struct span type, bool coded,
			      struct span body, enum ph_kind *ret_kind);

/* Whether a body carries a placeholder, as it is or percent-decoded. With --api PROVIDER=foreign one that carries none
 * may go out although token_body() would not answer it. */
bool token_has_ours(const struct ph_set *set, struct span body);

/* HTTP status of a verdict other than TOKEN_ASK. */
unsigned token_status(enum token_verdict v);

/* Why there is no 200; the sentences are fixed and hold no output of a program, path or time. */
enum token_lack {
	TOKEN_LACK_NONE,
	TOKEN_LACK_LOGIN,    /* signed out, or no file */
	TOKEN_LACK_FILE,     /* it cannot be read */
	TOKEN_LACK_KEY,	     /* the host uses an API key */
	TOKEN_LACK_SOON,     /* it still lives, but not long enough */
	TOKEN_LACK_EXPIRED,  /* and was not renewed */
	TOKEN_LACK_UNKNOWN,  /* nobody knows until when */
	TOKEN_LACK_REJECTED, /* by the service */
	TOKEN_LACK_PENDING,  /* a renewal runs */
	TOKEN_LACK_LIMIT,    /* too many ask */
	TOKEN_LACKS,
};

struct token_values {
	int64_t expires_in;	 /* seconds */
	struct ph_claims claims; /* of JWTs */
	const char *scope;	 /* Claude; words with one blank between, may be empty */
};

/* The JSON of each answer. 0, -ENOENT (not lent) or -ENOBUFS. */
int token_write_renewed(const struct ph_set *set, enum ph_kind kind, const struct token_values *v, struct buf *out);
int token_write_lack(enum prov prov, enum token_lack lack, struct buf *out);
int token_write_refusal(enum prov prov, enum token_verdict v, struct buf *out);

/* Of 503 answers. */
const char *token_lack_text(enum prov prov, enum token_lack lack);
