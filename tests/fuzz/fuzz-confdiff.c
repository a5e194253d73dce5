/* A git config as it was, a NUL byte, and as the guest left it: it may stay exactly when its record is the same. */
#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "session/confdiff.h"

static bool same(const struct buf *a, const struct buf *b)
{
	return a->n == b->n && (a->n == 0 || memcmp(buf_span(a).p, buf_span(b).p, a->n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	const uint8_t *nul = n > 0 ? memchr(bytes, '\0', n) : NULL;
	struct span was = SPAN(bytes, nul ? (size_t)(nul - bytes) : n);
	struct span now = nul ? SPAN(nul + 1, n - was.n - 1) : was;
	struct buf a, b;
	char *what = NULL;
	int r, of_now;

	r = confdiff_record(was, &a);
	MUST(r == 0 || r == -EBADMSG || r == -ENOBUFS);
	if (r == 0) {
		MUST(confdiff(buf_span(&a), was, &what) == 0 && !what);
		r = confdiff(buf_span(&a), now, &what);
		MUST((r == 0) == (what == NULL));
		of_now = confdiff_record(now, &b);
		/* With something that may not stay it is not read to its end. */
		MUST(r != 0 || (of_now == 0 && same(&a, &b)));
		MUST(r != -EBADMSG || of_now == -EBADMSG);
		MUST(r != 1 || of_now != 0 || !same(&a, &b));
		for (const char *s = what; s && *s; s++)
			MUST((unsigned char)*s >= 0x20 && *s != 0x7f);
		free(what);
		buf_done(&b);
	}
	buf_done(&a);
	return 0;
}
