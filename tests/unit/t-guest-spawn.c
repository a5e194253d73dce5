#include "guest/spawn.h"
#include "test.h"

#include <string.h>

#include "base/buf.h"
#include "proto/ctl.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"

/* Whether a variable reaches a program, beside what stands around it. */
static bool var_stays(const char *var)
{
	struct buf b;
	struct spawn_req req;
	size_t n;

	buf_init(&b, 4096);
	CHECK_INT(rec_put_str(&b, CTL_K_ARG, "date"), ==, 0);
	CHECK_INT(rec_put_str(&b, CTL_K_ENV, "A=1"), ==, 0);
	CHECK_INT(rec_put_str(&b, CTL_K_ENV, var), ==, 0);
	CHECK_INT(rec_put_str(&b, CTL_K_ENV, "TZDIR=x"), ==, 0);
	CHECK_INT(spawn_parse(SPAWN_EXEC, buf_span(&b), &req), ==, 0);
	for (n = 0; req.env[n]; n++)
		;
	CHECK_STR(req.env[0], "A=1");
	CHECK_STR(req.env[n - 1], "TZDIR=x");
	if (n == 3)
		CHECK_STR(req.env[1], var);
	spawn_req_done(&req);
	buf_done(&b);
	return n == 3;
}

static bool zone_stays(const char *tz)
{
	char var[600];

	(void)snprintf(var, sizeof(var), "TZ=%s", tz);
	return var_stays(var);
}

/* There is none on this machine. */
TEST(our_store_of_java_is_left_out_where_there_is_none)
{
	CHECK_INT(var_stays(GC_JAVA_VAR "=" GC_JAVA_VALUE), ==, false);
	CHECK_INT(var_stays(GC_JAVA_VAR "=" GC_JAVA_VALUE " -Xmx1g"), ==, true);
	CHECK_INT(var_stays(GC_JAVA_VAR "=-Xmx1g"), ==, true);
	CHECK_INT(var_stays(GC_JAVA_VAR "="), ==, true);
}

TEST(a_zone_that_is_no_file_and_no_rule_is_left_out)
{
	static const char *const rules[] = { "CET-1CEST", "MSK-3", "<+0330>-3:30", "EST5EDT,M3.2.0,M11.1.0", "UTC0",
					     ":XYZ+3",	  "",	   "/etc/passwd" };
	static const char *const none[] = { "Nowhere/City", "Europe", "Nowhere", "AB3",		"<+03",
					    "<+03>",	    "ABC+",   "ABC-x",	 "/nosuchfile", "../nosuch" };
	char longest[500];

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		CHECK_INT(zone_stays(rules[i]), ==, true);
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		CHECK_INT(zone_stays(none[i]), ==, false);
	memset(longest, 'A', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	CHECK_INT(zone_stays(longest), ==, false);
}
