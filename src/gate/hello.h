/* The first bytes of a stream: a TLS ClientHello, and what it says before anybody answers (RFC 8446 section 4.1.2, RFC
 * 5246 section 7.4.1.2, RFC 6066 section 3, RFC 7301). It may span records; the whole is at most 16 KiB. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define HELLO_MAX (16 << 10)				    /* of the handshake message */
#define HELLO_RECORDS_MAX 64				    /* an honest one takes one or two */
#define HELLO_INPUT_MAX (HELLO_MAX + 5 * HELLO_RECORDS_MAX) /* bytes after which no verdict is open */

enum hello_verdict {
	HELLO_MORE,    /* a front of one; read on */
	HELLO_OK,      /* whole */
	HELLO_NOT_TLS, /* something else speaks here */
	HELLO_BAD,     /* TLS, but not well-formed or too large: to be refused */
};

struct hello {
	char sni[256];	/* lower case; empty without one */
	bool alpn;	/* the guest offers names of protocols */
	bool h2, http1; /* of those, the two that we know */
	bool ech;	/* the name that is meant may be another one */
};

/* @in: the stream from its first byte. @ret is set for HELLO_OK. No front of an input has another verdict than the
 * whole, but for HELLO_MORE. */
enum hello_verdict hello_parse(struct span in, struct hello *ret);
