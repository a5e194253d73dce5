/* What we read of the host's own JWTs (RFC 7519): when it ends, and whose account it is. Nothing is verified, for the
 * service does that; a token that cannot be read is an opaque one. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

#define JWT_PAYLOAD_MAX (12 << 10) /* bytes after base64 */

struct jwt {
	int64_t exp;	     /* seconds; 0: unknown */
	char account_id[65]; /* empty: unknown */
	char plan[41];	     /* empty: unknown */
	bool fedramp;
	struct span signature; /* third part as it stands; borrowed from the token */
};

/**
 * jwt_read() - Read a token of three parts
 *
 * Parts are base64url or, as some issuers write, the standard alphabet, with or without padding. Claims that do not fit
 * their grammar count as absent.
 *
 * Return: 0; -EBADMSG when it is no JWT, then @ret is untouched
 */
int jwt_read(struct span token, struct jwt *ret);

/* Identifiers that may stand in a header and in the guest's files: [A-Za-z0-9_-]{1,64}, and a plan's [a-z0-9_]{1,40}.
 */
bool jwt_is_account(struct span s);
bool jwt_is_plan(struct span s);
