#include "proto/exchange.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "proto/httpmsg.h"

/* Which types may follow which, a bit each; the row of 0 is the beginning. */
static const uint8_t follows[XCH_SIDES][XCH_TYPES] = {
	[XCH_TO_VAULT] = { [0] = 1 << XCH_DATA | 1 << XCH_END, [XCH_DATA] = 1 << XCH_DATA | 1 << XCH_END },
	[XCH_TO_GATE] = { [0] = 1 << XCH_ANSWER,
			  [XCH_ANSWER] = 1 << XCH_DATA | 1 << XCH_TRAILERS | 1 << XCH_END,
			  [XCH_DATA] = 1 << XCH_DATA | 1 << XCH_TRAILERS | 1 << XCH_END,
			  [XCH_TRAILERS] = 1 << XCH_END },
};

static bool fits(uint8_t type, uint32_t n)
{
	switch (type) {
	case XCH_DATA:
		return n >= 1 && n <= XCH_DATA_MAX;
	case XCH_END:
		return n == 0;
	case XCH_ANSWER:
		return n >= sizeof(struct httpmsg_answer_wire) && n <= HTTPMSG_MAX;
	default:
		return n <= XCH_TRAILERS_MAX;
	}
}

enum xch_got xch_take(struct xch_reader *r, struct span *in, struct span *ret)
{
	static const enum xch_got whole[XCH_TYPES] = { [XCH_ANSWER] = XCH_GOT_ANSWER, [XCH_TRAILERS] = XCH_GOT_TRAILERS };
	struct span rest = *in, s;
	struct xch_head h;

	if (r->left == 0) {
		if (in->n == 0)
			return XCH_GOT_MORE;
		if (r->last == XCH_END)
			return XCH_GOT_BAD;
		if (span_take(&rest, sizeof(h), &s) < 0)
			return XCH_GOT_MORE;
		memcpy(&h, s.p, sizeof(h));
		if (h.type == 0 || h.type >= XCH_TYPES || !(follows[r->side][r->last] & 1 << h.type) || h.zero[0] || h.zero[1] ||
		    h.zero[2] || !fits(h.type, h.length))
			return XCH_GOT_BAD;
		/* A head alone stays where it is, so that MORE never means that something was taken. */
		if (h.type == XCH_DATA ? rest.n == 0 : span_take(&rest, h.length, ret) < 0)
			return XCH_GOT_MORE;
		r->last = h.type;
		*in = rest;
		if (h.type == XCH_END)
			return XCH_GOT_END;
		if (h.type != XCH_DATA)
			return whole[h.type];
		r->left = h.length;
	}
	if (in->n == 0)
		return XCH_GOT_MORE;
	(void)span_take(in, MIN(in->n, (size_t)r->left), ret);
	r->left -= (uint32_t)ret->n;
	return XCH_GOT_DATA;
}

int xch_put(struct buf *out, enum xch_type type, struct span bytes)
{
	do {
		size_t n = type == XCH_DATA ? MIN(bytes.n, (size_t)XCH_DATA_MAX) : bytes.n;
		struct xch_head h = { .length = (uint32_t)n, .type = (uint8_t)type };

		if (type == XCH_DATA && n == 0)
			return 0;
		if (!buf_room(out, sizeof(h) + n))
			return -ENOBUFS;
		(void)buf_put(out, &h, sizeof(h));
		(void)buf_put(out, bytes.p, n);
		if (n > 0)
			bytes = SPAN(bytes.p + n, bytes.n - n);
	} while (bytes.n > 0);
	return 0;
}

int xch_trailers(struct span in, struct http_field ret[HTTP_FIELDS_MAX], size_t *ret_n)
{
	size_t n = 0;

	if (in.n > XCH_TRAILERS_MAX)
		return -EBADMSG;
	for (; in.n > 0; n++)
		if (n == HTTP_FIELDS_MAX || httpmsg_take_field(&in, &ret[n]) < 0)
			return -EBADMSG;
	*ret_n = n;
	return 0;
}
