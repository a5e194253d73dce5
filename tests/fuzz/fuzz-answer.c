/* Answers of a service. The first byte: HEAD, upgrade, and where the rest is cut. In one piece, in two and byte by byte
 * the same comes out, and fields are what they must be. */
#include "fuzz.h"

#include <string.h>

#include "vault/answer.h"

struct seen {
	uint64_t sum, body;
	int last;
};

static void note(struct seen *s, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s->sum = (s->sum ^ ((const uint8_t *)p)[i]) * UINT64_C(1099511628211);
}

static struct seen read_all(const uint8_t *p, size_t n, unsigned flags, size_t first, size_t step)
{
	struct seen s = { .sum = 1469598103934665603u };
	struct answer a;
	size_t at = 0;
	int r = ANSWER_MORE;

	answer_init(&a, flags & 1 ? METHOD_HEAD : METHOD_GET, flags & 2);
	while (at < n && r == ANSWER_MORE) {
		size_t k = at == 0 && first > 0 ? first : step;
		struct span in;

		k = k < n - at ? k : n - at;
		in = SPAN(p + at, k);
		at += k;
		do {
			r = answer_feed(&a, &in);
			if (r == ANSWER_BODY) {
				MUST(a.body.n > 0);
				s.body += a.body.n;
				note(&s, a.body.p, a.body.n);
			} else if (r == ANSWER_HEAD || r == ANSWER_TRAILERS || r == ANSWER_UPGRADED) {
				MUST(r == ANSWER_UPGRADED ? a.status == 101 && (flags & 2)
							  : a.status >= 200 && a.status < 600);
				note(&s, &a.status, sizeof(a.status));
				for (size_t i = 0; i < a.n_fields; i++) {
					MUST(http_is_token(a.f[i].name) && http_is_value(a.f[i].value));
					note(&s, a.f[i].name.p, a.f[i].name.n);
					note(&s, a.f[i].value.p, a.f[i].value.n);
					(void)answer_keeps(HOST_CHATGPT, &a, &a.f[i]);
				}
			}
		} while (r > 0 && r != ANSWER_END && r != ANSWER_UPGRADED);
		MUST(r != ANSWER_MORE || in.n == 0);
	}
	if (r == ANSWER_END && a.framing == HTTP_BODY_LENGTH)
		MUST(s.body == a.length);
	s.last = r == ANSWER_MORE ? 100 + answer_eof(&a) : r;
	answer_done(&a);
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct seen whole, two, bytes;

	if (n < 2)
		return 0;
	whole = read_all(p + 2, n - 2, p[0], 0, n);
	two = read_all(p + 2, n - 2, p[0], p[1], n);
	bytes = read_all(p + 2, n - 2, p[0], 0, 1);
	MUST(whole.last == two.last && whole.last == bytes.last);
	MUST(whole.sum == two.sum && whole.sum == bytes.sum && whole.body == bytes.body);
	return 0;
}
