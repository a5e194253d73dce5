/* Words of HTTP that gate and vault judge alike (RFC 9110, 9112; credentials page 7.2): both look at every byte, gate
 * because it comes from the guest, vault because it comes from gate. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define HTTP_HEAD_MAX (64 << 10)
#define HTTP_FIELDS_MAX 128
#define HTTP_NAME_MAX 256
#define HTTP_TARGET_MAX (16 << 10)
#define HTTP_DECODINGS 3 /* of a path, by whoever may stand between us and its reader */
#define HTTP_LENGTH_MAX (UINT64_C(1) << 62)

struct http_field {
	struct span name, value;
};

enum http_body {
	HTTP_BODY_NONE,
	HTTP_BODY_LENGTH,
	HTTP_BODY_STREAM, /* its end is only known when it comes */
	HTTP_BODIES,
};

/* Equal but for the case of ASCII letters. */
bool http_is(struct span s, const char *lit);
/* The same for the front of @s. */
bool http_begins(struct span s, const char *lit);

bool http_is_one_of(struct span s, const char *const *list, size_t n);

/* Names of fields that no request takes to the other side: hop by hop, framing, what tells of proxies. Each side writes
 * its own, gate sends none to vault, and vault takes none. */
bool http_stays_here(struct span name);

/* Fields by which a service may take another method or path than the request line's, and so than what was judged. In
 * any case of letters, and with "_" for "-": a program behind CGI sees both as one. Neither is let out, by gate with a
 * reason. */
bool http_sets_method(struct span name);
bool http_sets_path(struct span name);

/* RFC 9110 section 5.6.2: one or more of its characters, all ASCII. */
bool http_is_token(struct span s);

/* A value of a field: HTAB, 0x20 to 0x7e and 0x80 to 0xff; no white space at either end. */
bool http_is_value(struct span s);

/* Without SP and HTAB at both ends. */
struct span http_trim(struct span s);

/**
 * http_next_item() - Take the next element of a comma-separated list off the front
 *
 * Return: true and the trimmed element, which may be empty; false at the end
 */
bool http_next_item(struct span *list, struct span *ret);

/* Content-Length: 1 to 19 digits and at most HTTP_LENGTH_MAX; 0 or -EBADMSG. */
int http_length(struct span s, uint64_t *ret);

/**
 * http_target_check() - An origin-form target: "/" PATH, and perhaps "?" QUERY
 * @ret_path:	Raw, with its "/"; borrowed from @target
 * @ret_query:	What follows the first "?", empty without one
 * @ret_has_query: There is a "?"
 *
 * Refused: bytes outside 0x21 to 0x7e, " < > \ ^ { } | ` #, "%" without two hex digits, an empty segment that is not
 * the last, and in the path what after up to three decodings is a control byte or, with "\" read as "/", a segment "",
 * "." or
 * "..".
 *
 * Return: 0 or -EBADMSG
 */
int http_target_check(struct span target, struct span *ret_path, struct span *ret_query, bool *ret_has_query);

/* A "/" or "\" comes out of a checked path within three decodings. Only GitHub has a use for that: the names of
 * branches. */
bool http_has_coded_slash(struct span path);

/* Of bytes that a target may have, path and query alike. */
bool http_is_target(struct span s);

/* Decodes each %XX once, other bytes as they are; @out has room for @in.n, and may be @in itself. Returns how many. */
size_t http_percent_decode(struct span in, uint8_t *out);
