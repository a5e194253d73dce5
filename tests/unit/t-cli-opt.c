#include "test.h"

#include <errno.h>

#include "cli/opt.h"
#include "cli/size.h"

struct demo {
	bool flag, other;
	const char *text, *mode;
	struct strv many;
	uint64_t mib;
	unsigned n;
};

static const char *const modes[] = { "auto", "none", NULL };

static const struct opt demo_opts[] = {
	{ "Group", OPT_GROUP },
	{ "flag", OPT_FLAG, offsetof(struct demo, flag), NULL, "a flag" },
	{ "other", OPT_FLAG, offsetof(struct demo, other), NULL, "another" },
	{ "text", OPT_STRING, offsetof(struct demo, text), "TEXT", "text", 0, NULL, "hello" },
	{ "mode", OPT_CHOICE, offsetof(struct demo, mode), "auto|none", "mode", 0, NULL, "none", modes },
	{ "many", OPT_STRV, offsetof(struct demo, many), "WORD", "many", 0, NULL, "word" },
	{ "mib", OPT_MIB, offsetof(struct demo, mib), "SIZE", "size", 0, NULL, "4" },
	{ "n", OPT_INT, offsetof(struct demo, n), "N", "number", 0, NULL, "2" },
	{ 0 },
};

static struct demo demo;
static struct opt_parsed parsed;
static struct problems problems;

static void reset(void)
{
	opt_free(demo_opts, &demo);
	opt_parsed_done(&parsed);
	problems_done(&problems);
	demo = (struct demo){ 0 };
}

#define PARSE(...)                                                                        \
	char *argv[] = { (char *)"prog", (char *)"verb", ##__VA_ARGS__, NULL };           \
	reset();                                                                          \
	opt_parse(demo_opts, &demo, argv, 2, &parsed, &problems)

#define W (char *)

/* All that would be printed. */
static const char *report(int *ret_status)
{
	static char text[8192];
	FILE *f;

	text[0] = '\0';
	f = fmemopen(text, sizeof(text), "w");
	*ret_status = problems_report(&problems, f, "nothing was started");
	fclose(f);
	return text;
}

#define CHECK_REPORT(status, want)                 \
	do {                                       \
		int got_;                          \
		CHECK_STR(report(&got_), want);    \
		CHECK_INT(got_, ==, status);       \
	} while (0)

TEST(value_as_next_word_and_behind_the_equals_sign_are_the_same)
{
	PARSE(W "--text", W "a", W "--mib=8", W "--n", W "3", W "--flag", W "--mode=none", W "rest");
	CHECK_INT(problems.n, ==, 0);
	CHECK_STR(demo.text, "a");
	CHECK_INT(demo.mib, ==, 8192);
	CHECK_INT(demo.n, ==, 3);
	CHECK(demo.flag && !demo.other);
	CHECK_STR(demo.mode, "none");
	CHECK_STR(argv[parsed.n_read], "rest");
}

TEST(any_text_behind_the_equals_sign_is_a_value)
{
	PARSE(W "--text=--flag", W "--many==x=", W "--many", W "-x");
	CHECK_INT(problems.n, ==, 0);
	CHECK_STR(demo.text, "--flag");
	CHECK(!demo.flag);
	CHECK_INT(demo.many.n, ==, 2);
	CHECK_STR(demo.many.v[0], "=x=");
	CHECK_STR(demo.many.v[1], "-x");
}

TEST(reading_stops_at_the_first_word_that_is_no_option)
{
	PARSE(W "--flag", W "word", W "--other");
	CHECK(demo.flag && !demo.other && !parsed.dashes);
	CHECK_INT(parsed.n_read, ==, 3);
}

TEST(names_are_exact_there_are_no_abbreviations_and_no_short_options)
{
	static char *const words[] = { W "--fla", W "--flags", W "--Flag", W "-f", W "-n", W "--", W "--Group", W "-flag",
				       W "--=x" };

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		PARSE(words[i], W "x");
		CHECK_INT(problems.n, ==, 0);
		CHECK_INT(parsed.n_uses, ==, 0);
		CHECK_INT(parsed.n_read, ==, strcmp(words[i], "--") == 0 ? 3 : 2);
	}
}

TEST(only_the_first_double_dash_is_removed)
{
	PARSE(W "--flag", W "--", W "--", W "x");
	CHECK(parsed.dashes);
	CHECK_INT(parsed.n_read, ==, 4);
	CHECK_STR(argv[parsed.n_read], "--");
}

TEST(help_is_ours_before_the_first_foreign_word_only)
{
	{
		PARSE(W "--flag", W "--help");
		CHECK(parsed.full_help && !parsed.help);
	}
	{
		PARSE(W "-h");
		CHECK(parsed.help);
	}
	{
		PARSE(W "--", W "--help");
		CHECK(!parsed.full_help);
	}
	{
		PARSE(W "x", W "--help");
		CHECK(!parsed.full_help);
	}
	{
		PARSE(W "--text", W "-h");
		CHECK(!parsed.help);
		CHECK_STR(demo.text, "-h");
	}
}

TEST(missing_values_are_said_and_reading_goes_on)
{
	PARSE(W "--mib", W "--text", W "--flag", W "--many=", W "--text", W "", W "--n");
	CHECK(demo.flag);
	CHECK_REPORT(2, "agent-vm: --mib: the value is missing, '--text' follows; write --mib SIZE, such as --mib 4\n"
			"agent-vm: --text: the value is missing, '--flag' follows; write --text TEXT, such as --text hello\n"
			"agent-vm: --many=: the value is empty; write --many WORD, such as --many word\n"
			"agent-vm: --text '': the value is empty; write --text TEXT, such as --text hello\n"
			"agent-vm: --text: given twice; leave one out\n"
			"agent-vm: --n: the value is missing; write --n N, such as --n 2\n"
			"agent-vm: 6 problems, nothing was started\n");
}

TEST(double_dash_is_not_a_value)
{
	PARSE(W "--text", W "--", W "x");
	CHECK_INT(problems.n, ==, 1);
	CHECK(parsed.dashes);
	CHECK_STR(argv[parsed.n_read], "x");
}

TEST(a_flag_takes_no_value)
{
	PARSE(W "--flag=yes");
	CHECK(!demo.flag);
	CHECK_REPORT(2, "agent-vm: --flag=yes: --flag takes no value; write --flag alone or leave it out\n");
}

TEST(a_single_value_given_twice_is_an_error_and_a_repeatable_one_is_not)
{
	PARSE(W "--text", W "a", W "--text=b", W "--many", W "a", W "--many", W "b");
	CHECK_STR(demo.text, "a");
	CHECK_INT(demo.many.n, ==, 2);
	CHECK_REPORT(2, "agent-vm: --text: given twice; leave one out\n");
}

TEST(values_of_a_wrong_kind_are_said)
{
	PARSE(W "--mib", W "x", W "--n=-1", W "--mode", W "never\x1b");
	CHECK_REPORT(2, "agent-vm: --mib x: not NUMBER[M|G|T]; write --mib SIZE, such as --mib 4\n"
			"agent-vm: --n -1: not a whole number; write --n N, such as --n 2\n"
			"agent-vm: --mode never\\x1b: no such value; write --mode auto or --mode none\n"
			"agent-vm: 3 problems, nothing was started\n");
	CHECK(!demo.mode);
}

TEST(a_use_is_found_by_name_and_number)
{
	PARSE(W "--many", W "a", W "--flag", W "--many=b");
	CHECK_INT(opt_at(&parsed, "many", 0), ==, 2);
	CHECK_INT(opt_at(&parsed, "many", 1), ==, 5);
	CHECK_INT(opt_at(&parsed, "many", 2), ==, PROBLEMS_AT_END);
	CHECK(opt_given(&parsed, "flag") && !opt_given(&parsed, "other"));
}

TEST(words_between_the_options_of_other_commands)
{
	char *argv[] = { W "prog", W "verb", W "a", W "--flag", W "-", W "--flga", W "-x", W "--", W "--other", NULL };
	char *words[10];

	reset();
	opt_parse_mixed(demo_opts, &demo, argv, 2, words, &parsed, &problems);
	CHECK(demo.flag && !demo.other);
	CHECK_STR(words[0], "a");
	CHECK_STR(words[1], "-");
	CHECK_STR(words[2], "--other");
	CHECK(words[3] == NULL);
	CHECK_REPORT(2, "agent-vm: --flga: no such option; did you mean --flag?\n"
			"agent-vm: -x: no such option; --help lists them\n"
			"agent-vm: 2 problems, nothing was started\n");
}

TEST(problems_are_printed_in_the_order_of_the_words)
{
	reset();
	problem_world(&problems, "the host");
	problems_at(&problems, 7);
	problem_world(&problems, "seventh");
	problems_at(&problems, 3);
	problem_world(&problems, "third");
	problem_world(&problems, "third, again");
	problems_at(&problems, PROBLEMS_AT_END);
	problem_world(&problems, "the host, again");
	CHECK_REPORT(1, "agent-vm: third\nagent-vm: third, again\nagent-vm: seventh\nagent-vm: the host\n"
			"agent-vm: the host, again\nagent-vm: 5 problems, nothing was started\n");
}

TEST(one_problem_in_the_text_makes_it_status_two)
{
	reset();
	CHECK_REPORT(0, "");
	problem_world(&problems, "a");
	CHECK_REPORT(1, "agent-vm: a\n");
	problem_text(&problems, "b");
	CHECK_REPORT(2, "agent-vm: a\nagent-vm: b\nagent-vm: 2 problems, nothing was started\n");
}

TEST(sizes)
{
	static const struct {
		const char *text;
		uint64_t mib;
	} right[] = {
		{ "4", 4096 },    { "0", 0 },        { "0.5", 512 },   { "512M", 512 },      { "512m", 512 },
		{ "1.5G", 1536 }, { "2GiB", 2048 },  { "2gb", 2048 },  { "1T", 1024 * 1024 }, { "1tib", 1024 * 1024 },
		{ "300MB", 300 }, { "0.3M", 1 },     { "1.0000000000000001M", 2 }, { "0.0", 0 }, { "007M", 7 },
		{ "1.5M", 2 },    { "0.1", 103 },
	};
	static const char *const wrong[] = { "",   "x",    "-1", "+1",  " 1",  "1 ",  "1.",  ".5",  "1..2", "4K",
					     "4B", "4iB", "4Gi", "4Gx", "4GBB", "1e3", "0x4", "4,5", "G",    "4.5.6" };
	static const char *const large[] = { "99999999999999999999", "17179869184T", "16777216T", "17592186044416M",
					     "999999999999999999999999M" };
	uint64_t mib;

	for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
		if (size_parse(right[i].text, &mib) < 0 || mib != right[i].mib)
			fail_msg("%s is %ju, not %ju", right[i].text, (uintmax_t)mib, (uintmax_t)right[i].mib);
	}
	mib = 7;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (size_parse(wrong[i], &mib) != -EINVAL || mib != 7)
			fail_msg("'%s' was taken", wrong[i]);
	for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++)
		if (size_parse(large[i], &mib) != -ERANGE || mib != 7)
			fail_msg("'%s' was taken", large[i]);
}

static void check_size_text(uint64_t mib, const char *want)
{
	char *s = size_text(mib);

	CHECK_STR(s, want);
	free(s);
}

TEST(sizes_are_shown_exactly)
{
	check_size_text(0, "0 MiB");
	check_size_text(300, "300 MiB");
	check_size_text(1024, "1 GiB");
	check_size_text(1536, "1.5 GiB");
	check_size_text(1300, "1300 MiB");
	check_size_text(7942, "7942 MiB");
	check_size_text(2 * 1024 * 1024, "2 TiB");
	check_size_text(1280 * 1024, "1.25 TiB");
}

TEST(distance_counts_single_edits_and_swaps)
{
	CHECK_INT(opt_distance("memory", "memory", 2), ==, 0);
	CHECK_INT(opt_distance("memroy", "memory", 2), ==, 1);
	CHECK_INT(opt_distance("emory", "memory", 2), ==, 1);
	CHECK_INT(opt_distance("memoryy", "memory", 2), ==, 1);
	CHECK_INT(opt_distance("cluade", "claude", 2), ==, 1);
	CHECK_INT(opt_distance("mmroy", "memory", 2), ==, 2);
	CHECK_INT(opt_distance("", "ab", 2), ==, 2);
	CHECK_INT(opt_distance("abcdef", "uvwxyz", 2), ==, 3);
	CHECK_INT(opt_distance("0123456789012345678901234567890123456789012345678901234567890123456789", "a", 2), ==, 3);
}

/* Words at random: what is not ours is handed on as the very same pointers, and nothing else is lost. */
TEST(the_rest_is_always_passed_verbatim)
{
	static char *const ours[][2] = {
		{ W "--flag", NULL },     { W "--other", NULL }, { W "--many", W "x" }, { W "--many", W "" "y" },
		{ W "--many=--", NULL }, { W "--many=a b", NULL },
	};
	static char *const foreign[] = { W "x",     W "-h2",    W "--resume", W "-p",	W "",	   W "--fla",
					 W "a b",   W "\xff\n", W "--flags=1", W "-",	W "--many2", W "---" };
	static char *const any[] = { W "--", W "--flag", W "--mib",  W "9",	 W "--help", W "-h", W "--text=",
				     W "",   W "--n=x",	 W "--many", W "\x1b[0m", W "-V",	     W "--flag=x" };

	srandom(20241124);
	for (int round = 0; round < 20000; round++) {
		char *argv[64] = { W "prog", W "verb" };
		size_t n = 2, first;
		bool dashes = random() % 3 == 0;

		for (long i = random() % 6; i > 0; i--) {
			char *const *o = ours[random() % (long)(sizeof(ours) / sizeof(*ours))];

			argv[n++] = o[0];
			if (o[1])
				argv[n++] = o[1];
		}
		if (dashes)
			argv[n++] = W "--";
		first = n;
		if (!dashes)
			argv[n++] = foreign[random() % (long)(sizeof(foreign) / sizeof(*foreign))];
		for (long i = random() % 12; i > 0; i--)
			argv[n++] = random() % 2 ? any[random() % (long)(sizeof(any) / sizeof(*any))] :
						   foreign[random() % (long)(sizeof(foreign) / sizeof(*foreign))];
		argv[n] = NULL;
		reset();
		opt_parse(demo_opts, &demo, argv, 2, &parsed, &problems);
		CHECK_INT(problems.n, ==, 0);
		CHECK_INT(parsed.n_read, ==, first);
		CHECK(parsed.dashes == dashes && !parsed.help && !parsed.full_help);
		CHECK(!demo.text && demo.mib == 0 && demo.n == 0);
	}
	reset();
}
