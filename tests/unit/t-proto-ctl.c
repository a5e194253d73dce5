#include "test.h"

#include <errno.h>

#include "proto/ctl.h"
#include "proto/rec.h"

TEST(frames_come_out_as_they_went_in_whatever_the_cuts)
{
	struct buf out, in;
	struct ctl_frame f;
	size_t used, sent = 0;
	int got = 0;

	buf_init(&out, 1 << 20);
	buf_init(&in, CTL_HEAD + CTL_RECS_MAX);
	CHECK_INT(ctl_put(&out, CTL_DATA, 0, 1, "hello", 5), ==, 0);
	CHECK_INT(ctl_put(&out, CTL_EOF, 0, 1, NULL, 0), ==, 0);
	CHECK_INT(ctl_put_u64(&out, CTL_CLOCK, 0, 0x1122334455667788), ==, 0);
	while (sent < out.n) {
		CHECK_INT(buf_put(&in, out.mem + sent++, 1), ==, 0);
		if (ctl_decode(&in, CTL_SIDE_GUEST, &f, &used) == 1) {
			static const enum ctl_type want[] = { CTL_DATA, CTL_EOF, CTL_CLOCK };

			CHECK_INT(f.type, ==, want[got++]);
			buf_consume(&in, used);
		}
	}
	CHECK_INT(got, ==, 3);
	CHECK_INT(in.n, ==, 0);
	buf_done(&out);
	buf_done(&in);
}

static int decode(enum ctl_side side, uint8_t type, uint8_t channel, uint16_t zero, uint32_t stream, uint32_t len)
{
	struct ctl_frame f;
	struct buf in;
	size_t used;
	int r;

	buf_init(&in, 1 << 20);
	(void)buf_put_u8(&in, type);
	(void)buf_put_u8(&in, channel);
	(void)buf_put_u16(&in, zero);
	(void)buf_put_u32(&in, stream);
	(void)buf_put_u32(&in, len);
	r = ctl_decode(&in, side, &f, &used);
	buf_done(&in);
	return r;
}

TEST(a_bad_head_is_refused_before_its_payload_came)
{
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 1, 0, 1, 5), ==, 0);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 0, 0, 1, 5), ==, -EBADMSG); /* channel 0 goes to the guest */
	CHECK_INT(decode(CTL_SIDE_GUEST, CTL_DATA, 1, 0, 1, 5), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 3, 0, 1, 5), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 1, 1, 1, 5), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 1, 0, 0, 5), ==, -EBADMSG); /* stream missing */
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 1, 0, 1, 0), ==, -EBADMSG); /* empty DATA would be free */
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_DATA, 1, 0, 1, CTL_DATA_MAX + 1), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_EXEC, 0, 0, 1, 5), ==, -EBADMSG); /* the guest gives no orders */
	CHECK_INT(decode(CTL_SIDE_GUEST, CTL_EXEC, 0, 0, 1, 5), ==, 0);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_BYE, 0, 0, 1, 0), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_BYE, 0, 0, 0, CTL_TEXT_MAX + 1), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, 0, 0, 0, 0, 0), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_TYPES, 0, 0, 0, 0), ==, -EBADMSG);
	CHECK_INT(decode(CTL_SIDE_HOST, CTL_CREDIT, 1, 0, 1, 4), ==, -EBADMSG); /* credit goes against the data */
	CHECK_INT(decode(CTL_SIDE_GUEST, CTL_CREDIT, 1, 0, 1, 4), ==, 0);
}

TEST(credit_bounds_what_a_channel_may_hold)
{
	struct ctl_credit rx = CTL_CREDIT_INIT, tx = CTL_CREDIT_INIT;
	size_t held = 0;

	for (int i = 0; i < 1000; i++) {
		uint32_t give;

		if (tx.left >= CTL_DATA_MAX) {
			tx.left -= CTL_DATA_MAX;
			CHECK_INT(ctl_credit_use(&rx, CTL_DATA_MAX), ==, 0);
			held += CTL_DATA_MAX;
		}
		CHECK_INT(held, <=, CTL_WINDOW);
		if (i % 2 && held > 0) {
			held -= CTL_DATA_MAX;
			give = ctl_credit_free(&rx, CTL_DATA_MAX);
			if (give > 0)
				CHECK_INT(ctl_credit_add(&tx, give), ==, 0);
		}
	}
	CHECK_INT(ctl_credit_use(&rx, (size_t)CTL_WINDOW + 1), ==, -EBADMSG);
	CHECK_INT(ctl_credit_use(&rx, 0), ==, -EBADMSG);
	CHECK_INT(ctl_credit_add(&tx, CTL_WINDOW + 1), ==, -EBADMSG);
	CHECK_INT(ctl_credit_add(&tx, UINT32_MAX), ==, -EBADMSG);
}

TEST(a_starved_sender_always_gets_credit_back)
{
	struct ctl_credit rx = CTL_CREDIT_INIT;

	CHECK_INT(ctl_credit_use(&rx, CTL_WINDOW), ==, 0);
	CHECK_INT(ctl_credit_free(&rx, 1), ==, 1);
	CHECK_INT(ctl_credit_use(&rx, 1), ==, 0);
	CHECK_INT(ctl_credit_free(&rx, CTL_WINDOW), ==, CTL_WINDOW);
}

TEST(records_nest_and_cut_ones_are_refused)
{
	struct buf b;
	struct span in, val, inner;
	uint16_t key;
	uint64_t v = 0;
	ssize_t at;

	buf_init(&b, 4096);
	at = rec_begin(&b, 9);
	CHECK(at > 0);
	CHECK_INT(rec_put_u64(&b, 1, 77), ==, 0);
	CHECK_INT(rec_put_str(&b, 2, "x"), ==, 0);
	rec_end(&b, (size_t)at);
	CHECK_INT(rec_put_str(&b, 3, ""), ==, 0);

	in = buf_span(&b);
	CHECK_INT(rec_next(&in, &key, &inner), ==, 1);
	CHECK_INT(key, ==, 9);
	CHECK_INT(rec_next(&inner, &key, &val), ==, 1);
	CHECK_INT(rec_u64(val, 77, &v), ==, 0);
	CHECK_INT(v, ==, 77);
	CHECK_INT(rec_u64(val, 76, &v), ==, -EBADMSG);
	CHECK_INT(rec_next(&inner, &key, &val), ==, 1);
	CHECK(span_is(val, "x"));
	CHECK_INT(rec_next(&inner, &key, &val), ==, 0);
	CHECK_INT(rec_next(&in, &key, &val), ==, 1);
	CHECK_INT(val.n, ==, 0);
	CHECK_INT(rec_next(&in, &key, &val), ==, 0);

	for (size_t cut = 1; cut < b.n; cut++) {
		int r;

		in = SPAN(b.mem, cut);
		do
			r = rec_next(&in, &key, &val);
		while (r == 1);
		CHECK(r == -EBADMSG || cut == b.n - 6);
	}
	buf_done(&b);
}
