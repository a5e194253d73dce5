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
 * before the body has ended. Either end closes its descriptor when it is through; DATA is 1..XCH_DATA_MAX bytes. Nobody
 * keeps more than XCH_WINDOW bytes of a direction in memory: who cannot go on stops reading.
 *
 * Both ends check each frame as hostile; a broken rule ends the exchange, never the process. */
#pragma once

#include <assert.h>
#include <stdint.h>

#define XCH_DATA_MAX (64 << 10)
#define XCH_WINDOW (256 << 10)

enum xch_type { XCH_DATA = 1, XCH_END, XCH_ANSWER, XCH_TRAILERS, XCH_TYPES };

struct xch_head {
	uint32_t length; /* of what follows */
	uint8_t type;	 /* enum xch_type */
	uint8_t zero[3];
};

/* TRAILERS: fields as in an HTTPMSG_ANSWER, one behind the other, at most 8 KiB and HTTP_FIELDS_MAX. */
#define XCH_TRAILERS_MAX (8 << 10)

static_assert(sizeof(struct xch_head) == 8, "frames have no holes");
