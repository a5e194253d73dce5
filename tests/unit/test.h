/* Thin layer over cmocka: a test is TEST(what_holds) { ... } and is run because it exists. */
#pragma once

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEST_MAX 256

static struct CMUnitTest test_all[TEST_MAX];
static size_t test_n;

#define TEST(title)                                                                           \
	static void title(void **);                                                           \
	__attribute__((constructor)) static void title##_add(void)                            \
	{                                                                                     \
		assert_true(test_n < TEST_MAX);                                               \
		test_all[test_n++] = (struct CMUnitTest){ .name = #title, .test_func = title }; \
	}                                                                                     \
	static void title(void **test_state __attribute__((unused)))

#define CHECK(cond)                                                            \
	do {                                                                   \
		if (!(cond))                                                   \
			fail_msg("%s:%d: not true: %s", __FILE__, __LINE__, #cond); \
	} while (0)

#define CHECK_INT(a, op, b)                                                                                        \
	do {                                                                                                       \
		intmax_t a_ = (intmax_t)(a), b_ = (intmax_t)(b);                                                   \
		if (!(a_ op b_))                                                                                   \
			fail_msg("%s:%d: %s (%" PRIdMAX ") %s %s (%" PRIdMAX ")", __FILE__, __LINE__, #a, a_, #op, #b, b_); \
	} while (0)

#define CHECK_STR(a, b)                                                                                 \
	do {                                                                                            \
		const char *a_ = (a), *b_ = (b);                                                        \
		if (!a_ || !b_ || strcmp(a_, b_) != 0)                                                  \
			fail_msg("%s:%d: %s is \"%s\", not \"%s\"", __FILE__, __LINE__, #a, a_ ? a_ : "(null)", \
				 b_ ? b_ : "(null)");                                                   \
	} while (0)

int main(void)
{
	/* cmocka_run_group_tests() wants an array of known size; this is what it expands to. */
	return _cmocka_run_group_tests(__FILE__, test_all, test_n, NULL, NULL);
}
