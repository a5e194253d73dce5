/* Bundles of an image: as a new store, and added to that; and the bytes as a store. */
#include "fuzz.h"

#include <errno.h>

#include "guest/jks.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span in = SPAN(p, n);
	struct buf first, second;
	int r;

	buf_init(&first, JKS_MAX);
	buf_init(&second, JKS_MAX);
	r = jks_add(SPAN(NULL, 0), in, &first);
	MUST(r >= 0 || r == -EBADMSG || r == -ENOBUFS);
	if (r >= 0) {
		MUST(jks_add(buf_span(&first), in, &second) == r || 2 * first.n > JKS_MAX);
		MUST(second.n == 0 || (second.n - 32) == 2 * (first.n - 32));
	}
	buf_done(&second);
	buf_init(&second, JKS_MAX);
	r = n > 0 ? jks_add(in, SPAN(NULL, 0), &second) : 0;
	MUST(r <= 0 && second.n == (r == 0 ? n : 0));
	buf_done(&first);
	buf_done(&second);
	return 0;
}
