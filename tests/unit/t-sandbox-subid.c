#include "sandbox/ns_map.h"
#include "test.h"

#include <errno.h>

static struct ns_range find(const char *text, const char *name, uid_t uid)
{
	struct ns_range r = { 7, 7 };
	int e = ns_subid_find(text, name, uid, &r);

	if (e == -ENOENT)
		CHECK_INT(r.first, ==, 7);
	return e == 0 ? r : (struct ns_range){ 0, 0 };
}

TEST(the_first_range_of_the_name_or_number_is_taken)
{
	static const char text[] = "# comment\nann:100000:65536\nbob:165536:65536\nbob:300000:10\n1002:400000:65536\n";

	CHECK_INT(find(text, "bob", 1001).first, ==, 165536);
	CHECK_INT(find(text, "carl", 1002).first, ==, 400000);
	CHECK_INT(find(text, NULL, 1002).first, ==, 400000);
	CHECK_INT(find(text, "dora", 1003).count, ==, 0);
	CHECK_INT(find("", "bob", 1).count, ==, 0);
}

TEST(at_most_the_ids_of_one_system_are_mapped)
{
	CHECK_INT(find("bob:100000:4000000", "bob", 1000).count, ==, 65535);
	CHECK_INT(find("bob:100000:1000", "bob", 1000).count, ==, 1000);
}

TEST(a_new_range_lies_behind_all_others)
{
	uint32_t first = 7;

	CHECK_INT(ns_subid_free("", &first), ==, 0);
	CHECK_INT(first, ==, 100000);
	CHECK_INT(ns_subid_free("# comment\nbob:300000:10\nann:100000:65536\n1002:5:5", &first), ==, 0);
	CHECK_INT(first, ==, 300010);
	CHECK_INT(ns_subid_free("bob:4294000000:900000\n", &first), ==, 0);
	CHECK_INT(first, ==, 4294900000);
	CHECK_INT(ns_subid_free("bob:4294000000:967295\n", &first), ==, -ENOSPC);
	CHECK_INT(ns_subid_free("bob:4294967295:4294967295\n", &first), ==, -ENOSPC);
	CHECK_INT(first, ==, 4294900000);
}

TEST(lines_that_make_no_sense_are_passed_over)
{
	static const char *const bad[] = { "bob", "bob:", "bob:1", "bob:x:1", "bob:1:", "bob:1:x", "bob:-5:9", "bob:5:0",
					   "bob:0:65536", "bob:4294967295:2", "bob:900:200", ":1:1", "bob:1:1:1" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char text[128];

		(void)snprintf(text, sizeof(text), "%s\nbob:200000:5\n", bad[i]);
		CHECK_INT(find(text, "bob", 1000).first, ==, 200000);
	}
}
