#include "test.h"

#include <errno.h>

#include "base/buf.h"

TEST(what_is_put_comes_out_in_order)
{
	struct buf b;

	buf_init(&b, 1 << 20);
	for (uint32_t i = 0; i < 5000; i++) {
		CHECK_INT(buf_put_u32(&b, i), ==, 0);
		if (i % 3 == 0) {
			struct span s = buf_span(&b);
			uint32_t v;

			CHECK_INT(span_u32(&s, &v), ==, 0);
			CHECK_INT(v, ==, i / 3);
			buf_consume(&b, 4);
		}
	}
	CHECK_INT(b.n, ==, 4 * (5000 - 1667));
	buf_done(&b);
}

TEST(the_maximum_holds_and_nothing_is_appended)
{
	struct buf b;

	buf_init(&b, 10);
	CHECK_INT(buf_put(&b, "12345678", 8), ==, 0);
	CHECK_INT(buf_put(&b, "abc", 3), ==, -ENOBUFS);
	CHECK_INT(b.n, ==, 8);
	CHECK(buf_room(&b, SIZE_MAX) == NULL);
	CHECK_INT(buf_put(&b, "ab", 2), ==, 0);
	CHECK(span_is(buf_span(&b), "12345678ab"));
	buf_consume(&b, 9);
	CHECK_INT(buf_put(&b, "123456789", 9), ==, 0);
	CHECK(span_is(buf_span(&b), "b123456789"));
	buf_done(&b);
}

TEST(reading_past_the_end_moves_nothing)
{
	struct span s = SPAN("\1\2\3", 3);
	uint32_t v = 7;
	uint16_t h;

	CHECK_INT(span_u32(&s, &v), ==, -EBADMSG);
	CHECK_INT(v, ==, 7);
	CHECK_INT(span_u16(&s, &h), ==, 0);
	CHECK_INT(h, ==, 0x0201);
	CHECK_INT(s.n, ==, 1);
}

TEST(a_nul_in_a_string_is_refused)
{
	char *s = NULL;

	CHECK_INT(span_dup(SPAN("a\0b", 3), &s), ==, -EBADMSG);
	CHECK(!s);
	CHECK_INT(span_dup(SPAN(NULL, 0), &s), ==, 0);
	CHECK_STR(s, "");
	free(s);
}
