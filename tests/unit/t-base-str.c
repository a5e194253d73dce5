#include "test.h"

#include <errno.h>

#include "base/err.h"
#include "base/str.h"

static void check_escape(const char *in, const char *want)
{
	char *got = str_escape(in, strlen(in));

	CHECK_STR(got, want);
	free(got);
}

TEST(control_bytes_are_shown_not_sent)
{
	check_escape("plain text", "plain text");
	check_escape("a\x1b[2Jb\n", "a\\x1b[2Jb\\x0a");
	check_escape("проект 🙂", "проект 🙂");
	check_escape("\xc2\x9b" "2J", "\\xc2\\x9b2J");	 /* U+009B: CSI in one code point */
	check_escape("a\xff" "b", "a\\xffb");
	check_escape("\xe2\x80\xae" "txt", "\\xe2\\x80\\xaetxt"); /* right-to-left override */
	check_escape("\xc0\xaf", "\\xc0\\xaf");		 /* overlong */
	check_escape("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* surrogate */
	check_escape("\xe2\x82", "\\xe2\\x82");		 /* cut short */
}

TEST(numbers_are_whole_and_bounded)
{
	uint64_t v = 1;

	CHECK_INT(str_u64("65535", 65535, &v), ==, 0);
	CHECK_INT(v, ==, 65535);
	CHECK_INT(str_u64("65536", 65535, &v), ==, -ERANGE);
	CHECK_INT(str_u64("18446744073709551616", UINT64_MAX, &v), ==, -ERANGE);
	CHECK_INT(str_u64("", 1, &v), ==, -EINVAL);
	CHECK_INT(str_u64(" 1", 1, &v), ==, -EINVAL);
	CHECK_INT(str_u64("+1", 1, &v), ==, -EINVAL);
	CHECK_INT(str_u64("1x", 1, &v), ==, -EINVAL);
}

TEST(switches_are_on_or_off_or_wrong)
{
	CHECK_INT(str_switch("1"), ==, 1);
	CHECK_INT(str_switch("Yes"), ==, 1);
	CHECK_INT(str_switch("TRUE"), ==, 1);
	CHECK_INT(str_switch("on"), ==, 1);
	CHECK_INT(str_switch("0"), ==, 0);
	CHECK_INT(str_switch("No"), ==, 0);
	CHECK_INT(str_switch("false"), ==, 0);
	CHECK_INT(str_switch("OFF"), ==, 0);
	CHECK_INT(str_switch(""), ==, -EINVAL);
	CHECK_INT(str_switch("ture"), ==, -EINVAL);
	CHECK_INT(str_switch("01"), ==, -EINVAL);
}

TEST(context_goes_in_front_and_long_texts_are_cut)
{
	struct err e;
	char big[2 * ERR_TEXT_MAX];

	CHECK_INT(err_set(&e, -ENOENT, "no file %s", "x"), ==, -ENOENT);
	CHECK_INT(err_ctx(&e, -ENOENT, "reading %d", 3), ==, -ENOENT);
	CHECK_STR(e.text, "reading 3: no file x");
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	CHECK_INT(err_ctx(&e, -EIO, "%s", big), ==, -EIO);
	CHECK_INT(strlen(e.text), ==, ERR_TEXT_MAX - 1);
	CHECK_INT(err_set(NULL, -EIO, "nobody listens"), ==, -EIO);
}

TEST(a_list_grows_and_stays_terminated)
{
	struct strv s = { 0 };

	for (int i = 0; i < 100; i++) {
		strv_addf(&s, "%d", i);
		CHECK(s.v[s.n] == NULL);
	}
	CHECK_STR(s.v[99], "99");
	strv_done(&s);
}
