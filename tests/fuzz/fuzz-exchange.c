/* One direction of an exchange, as a hostile peer might write it: the first byte says which, the second where the bytes are
 * cut. What is understood does not depend on the cuts, and is the same once it was written again. */
#include "fuzz.h"

#include <string.h>

#include "base/buf.h"
#include "proto/exchange.h"

#define ROOM (8 << 20)

/* All frames, the DATA joined as it comes, into @out; returns the last verdict. */
static enum xch_got run(enum xch_side side, struct span in, size_t step, struct buf *out)
{
	struct xch_reader r = { .side = side };
	static struct http_field f[HTTP_FIELDS_MAX];
	struct buf wait;
	struct span left, got;
	enum xch_got what = XCH_GOT_MORE;
	size_t n;

	buf_init(&wait, ROOM);
	while (in.n > 0 && what != XCH_GOT_BAD) {
		size_t k = step < in.n ? step : in.n;

		MUST(buf_put(&wait, in.p, k) == 0);
		in = SPAN(in.p + k, in.n - k);
		for (;;) {
			left = buf_span(&wait);
			what = xch_take(&r, &left, &got);
			if (what == XCH_GOT_MORE || what == XCH_GOT_BAD)
				break;
			MUST(buf_put_u8(out, (uint8_t)what) == 0);
			if (what != XCH_GOT_END)
				MUST(buf_put(out, got.p, got.n) == 0);
			if (what == XCH_GOT_DATA)
				MUST(got.n >= 1 && got.n <= XCH_DATA_MAX);
			if (what == XCH_GOT_TRAILERS)
				(void)xch_trailers(got, f, &n);
			buf_consume(&wait, wait.n - left.n);
		}
		/* What waits is the front of a frame, so it is no larger than one. */
		MUST(what == XCH_GOT_BAD || wait.n <= XCH_WINDOW);
	}
	MUST(r.left <= XCH_DATA_MAX);
	buf_done(&wait);
	return what == XCH_GOT_BAD ? XCH_GOT_BAD : xch_ended(&r) ? XCH_GOT_END : XCH_GOT_MORE;
}

/* Without the marks of DATA, whose number depends on the cuts. */
static void join(struct span in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++)
		if (in.p[i] != XCH_GOT_DATA)
			MUST(buf_put_u8(out, in.p[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct buf whole, cut, a, b;

	if (n < 2)
		return 0;
	buf_init(&whole, ROOM);
	buf_init(&cut, ROOM);
	buf_init(&a, ROOM);
	buf_init(&b, ROOM);
	MUST(run(p[0] % XCH_SIDES, SPAN(p + 2, n - 2), n, &whole) == run(p[0] % XCH_SIDES, SPAN(p + 2, n - 2), 1 + p[1] % 64, &cut));
	join(buf_span(&whole), &a);
	join(buf_span(&cut), &b);
	MUST(a.n == b.n && (a.n == 0 || memcmp(buf_span(&a).p, buf_span(&b).p, a.n) == 0));
	buf_done(&whole);
	buf_done(&cut);
	buf_done(&a);
	buf_done(&b);
	return 0;
}
