/* Frames, both sides. First byte: bit 0 the side, the rest how many bytes come at a time. Whatever the cuts, the frames
 * are the same, each within its bounds, and what ctl_put() makes of a frame decodes to it again. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "proto/ctl.h"

static uint64_t frames_of(const uint8_t *p, size_t n, enum ctl_side side, size_t step)
{
	uint64_t sum = 0;
	struct ctl_frame f;
	struct buf in, again;
	size_t used;
	int r = 0;

	buf_init(&in, CTL_HEAD + CTL_RECS_MAX);
	buf_init(&again, CTL_HEAD + CTL_RECS_MAX);
	while (n > 0 && r >= 0) {
		size_t k = n < step ? n : step;

		MUST(buf_put(&in, p, k) == 0);
		p += k;
		n -= k;
		while ((r = ctl_decode(&in, side, &f, &used)) == 1) {
			MUST(f.type >= CTL_HELLO && f.type < CTL_TYPES && f.channel <= 2);
			MUST(f.payload.n <= CTL_RECS_MAX && used == CTL_HEAD + f.payload.n && used <= in.n);
			MUST(strcmp(ctl_type_str(f.type), "?") != 0);
			MUST(ctl_put(&again, f.type, f.channel, f.stream, f.payload.p, f.payload.n) == 0);
			MUST(again.n == used && memcmp(buf_span(&again).p, buf_span(&in).p, used) == 0);
			buf_consume(&again, used);
			sum = sum * 31 + f.type * 7 + f.stream + f.payload.n;
			buf_consume(&in, used);
		}
	}
	buf_done(&in);
	buf_done(&again);
	return r < 0 ? sum * 31 + 1 : sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	enum ctl_side side;

	if (n < 1 || n > CTL_RECS_MAX)
		return 0;
	side = p[0] & 1 ? CTL_SIDE_GUEST : CTL_SIDE_HOST;
	MUST(frames_of(p + 1, n - 1, side, n) == frames_of(p + 1, n - 1, side, 1 + (p[0] >> 1)));
	return 0;
}
