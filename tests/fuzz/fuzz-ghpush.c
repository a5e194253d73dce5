/* Bodies of pushes: no front is judged otherwise than the whole, what is found lies in the input, and the refusal is
 * well-formed pkt-lines with a line for each ref. */
#include "fuzz.h"

#include <string.h>

#include "base/macros.h"
#include "gate/policy/github/push.h"

/* Takes a pkt-line off; its length with the digits, 0 for a flush. */
static size_t pkt(struct span *s)
{
	char digits[5] = "";
	size_t n;

	MUST(s->n >= 4);
	memcpy(digits, s->p, 4);
	n = (size_t)strtoul(digits, NULL, 16);
	MUST(n == 0 || (n > 4 && n <= s->n && n <= 65520));
	*s = SPAN(s->p + MAX(n, (size_t)4), s->n - MAX(n, (size_t)4));
	return n;
}

static void check_answer(const struct gh_push *push, struct buf *out)
{
	struct buf report;
	struct span s = buf_span(out);
	size_t lines = 0;

	buf_init(&report, 1 << 20);
	if (push->sideband && push->report) {
		for (;;) {
			const uint8_t *at = s.p;
			size_t n = pkt(&s);

			if (n == 0)
				break;
			MUST(at[4] == 1 || at[4] == 2);
			if (at[4] == 1)
				MUST(buf_put(&report, at + 5, n - 5) == 0);
		}
		MUST(s.n == 0);
		s = buf_span(&report);
	}
	while (pkt(&s) > 0)
		lines++;
	MUST(s.n == 0 && lines == (push->report ? push->n + 1 : 1));
	buf_done(&report);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct gh_push push, part;
	enum gh_push_scan whole = gh_push_scan(SPAN(p, n), &push);
	size_t step = n > 512 ? n / 64 : 1;
	struct buf out;

	for (size_t i = 0; i < n; i += step) {
		enum gh_push_scan v = gh_push_scan(SPAN(p, i), &part);

		MUST(v == GH_PUSH_MORE || v == whole);
		MUST(v != GH_PUSH_ENOUGH || part.n == push.n);
	}
	if (whole != GH_PUSH_ENOUGH || push.n == 0)
		return 0;
	for (size_t i = 0; i < push.n; i++)
		MUST(push.cmd[i].ref.n > 0 && push.cmd[i].ref.p > p && push.cmd[i].ref.p + push.cmd[i].ref.n <= p + n);
	buf_init(&out, 1 << 20);
	MUST(gh_push_answer(&push, 0, "why", "how", &out) == 0);
	check_answer(&push, &out);
	buf_done(&out);
	return 0;
}
