/* Records, nested to some depth: every value lies in the input, and what is read can be written again to the same bytes. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "proto/rec.h"

static void walk(struct span in, int depth)
{
	struct span rest = in, val;
	struct buf again;
	uint16_t key;
	uint64_t v = 5;
	int r;

	buf_init(&again, in.n);
	while ((r = rec_next(&rest, &key, &val)) == 1) {
		MUST(val.n <= in.n && (val.n == 0 || (val.p >= in.p && val.p + val.n <= in.p + in.n)));
		MUST(rec_put(&again, key, val.p, val.n) == 0);
		r = rec_u64(val, 1000, &v);
		MUST(r == 0 ? val.n == 8 && v <= 1000 : r == -EBADMSG && v == 5);
		v = 5;
		if (depth < 4)
			walk(val, depth + 1);
	}
	MUST(r == 0 || r == -EBADMSG);
	MUST(again.n == in.n - (r == 0 ? 0 : rest.n) && (again.n == 0 || memcmp(buf_span(&again).p, in.p, again.n) == 0));
	buf_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	walk(SPAN(p, n), 0);
	return 0;
}
