/* The body beside a request and its answer: one stream socket pair an exchange, between gate and vault.
 *
 * gate makes the pair and sends the far end with HTTPMSG_REQUEST (proto/httpmsg.h). On the pair each direction is a row of
 * frames, a struct xch_head and its bytes:
 *
 *   gate to vault   DATA* END                                          the request's body; END at once if it has none
 *   vault to gate   ANSWER DATA* TRAILERS? END                         ANSWER holds HTTPMSG_ANSWER
 *                   ANSWER(101) DATA* END, and from gate DATA* END     after an upgrade: bytes of the other protocol
 *
 * A direction that closes without END was cut, and is cut for whoever reads it: a reset, never a clean end. After an answer
 * of vault's own (code set) nothing but END follows, and what still comes of the request's body is dropped. Vault may answer
 * before the body has ended. A request with HTTPMSG_UPGRADE has no body and sends no END before an answer has come: its
 * direction is the one that a 101 opens. The answer to HEAD, and a 304, has no body; the length that it tells is a field.
 * Slot and generation of ANSWER mean nothing, for the pair has one request. Either end closes its descriptor when it is through; DATA is 1..XCH_DATA_MAX bytes. Nobody
 * keeps more than XCH_WINDOW bytes of a direction in memory: who cannot go on stops reading.
 *
 * Both ends check each frame as hostile; a broken rule ends the exchange, never the process. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/http.h"

#define XCH_DATA_MAX (64 << 10)
#define XCH_WINDOW (256 << 10)

enum xch_type { XCH_DATA = 1, XCH_END, XCH_ANSWER, XCH_TRAILERS, XCH_TYPES };

struct xch_head {
	uint32_t length; /* of what follows */
	uint8_t type;	 /* enum xch_type */
	uint8_t zero[3];
};

/* TRAILERS: fields as in an HTTPMSG_ANSWER, one behind the other, of at most 8 KiB of lines and HTTP_FIELDS_MAX: a
 * field needs 6 bytes here and at least 3 there. */
#define XCH_TRAILERS_MAX ((8 << 10) + 3 * HTTP_FIELDS_MAX)

static_assert(sizeof(struct xch_head) == 8, "frames have no holes");

enum xch_side { XCH_TO_VAULT, XCH_TO_GATE, XCH_SIDES };

/* Reads one direction. Pure. */
struct xch_reader {
	enum xch_side side;
	uint8_t last;  /* enum xch_type of the frame before, 0: none */
	uint32_t left; /* of a DATA frame under way */
};

enum xch_got {
	XCH_GOT_MORE, /* what is left in the input is the front of a frame; append to it and ask again */
	XCH_GOT_DATA, /* @ret: the next bytes, as many as are there */
	XCH_GOT_END,
	XCH_GOT_ANSWER,	  /* @ret: the message, whole */
	XCH_GOT_TRAILERS, /* @ret: the fields, whole */
	XCH_GOT_BAD,
};

/**
 * xch_take() - Take the next frame, or the next part of a DATA frame, off the front
 * @in:		What has come and was not taken; borrowed, and so is @ret
 *
 * The order is checked as it stands at the head of this file, but for what an answer's content asks for: that nothing
 * but END follows one of vault's own, and no TRAILERS a 101, is the caller's to see.
 */
enum xch_got xch_take(struct xch_reader *r, struct span *in, struct span *ret);

/* Whether the direction closed cleanly: END was there. */
static inline bool xch_ended(const struct xch_reader *r)
{
	return r->last == XCH_END;
}

/* Writes a frame; DATA of any length, as several if need be, none for no bytes. 0 or -ENOBUFS. */
int xch_put(struct buf *out, enum xch_type type, struct span bytes);

/* Reads the fields of TRAILERS into @ret. 0 or -EBADMSG. */
int xch_trailers(struct span in, struct http_field ret[HTTP_FIELDS_MAX], size_t *ret_n);
