/* Lines of the log that a guest causes: the first of a kind is written, and those of the minute behind it are counted.
 * The next one says how many they were, the session's end those that are left. Without it a guest that does the same
 * wrong thing again and again fills the host's disk. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "base/macros.h"
#include "gate/gate.h"

#define LINE_NS (60 * NS)
#define TEXT_MAX 256

static const char *const line_str[] = {
	[LINE_NAMELESS] = "streams of no name that were reset",
	[LINE_SSH] = "streams of SSH on port 443",
	[LINE_HELLO] = "malformed ClientHellos",
	[LINE_SIGN_OUT] = "sign-outs",
	[LINE_STREAMS] = "streams too many",
	[LINE_INSPECTED] = "connections to inspected hosts too many",
	[LINE_FLOOD] = "HTTP/2 connections that flooded",
	[LINE_LOOKUP] = "questions that GitHub did not answer",
};
static_assert(ARRAY_SIZE(line_str) == LINE_KINDS, "line_str[] is incomplete");

void guest_line(struct gate *g, enum line_kind kind, const char *fmt, ...)
{
	struct line *l = &g->line[kind];
	char text[TEXT_MAX];
	va_list ap;

	if (l->at != 0 && g->now - l->at < LINE_NS) {
		l->held++;
		return;
	}
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (l->held > 0)
		log_warn("%s (and %llu more since the last such line)", text, (unsigned long long)l->held);
	else
		log_warn("%s", text);
	*l = (struct line){ .at = g->now };
}

void guest_lines_end(struct gate *g)
{
	for (size_t i = 0; i < LINE_KINDS; i++)
		if (g->line[i].held > 0)
			log_warn("not told one by one: %llu %s", (unsigned long long)g->line[i].held, line_str[i]);
}
