#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"

#define LINE_MAX_BYTES 2048
#define SEEN_BYTES (32 << 10) /* by the filter: what begins within the line ends here, in whatever form it finds it */

static const char *const level_str[] = {
	[LOG_LV_ERROR] = "error",
	[LOG_LV_WARN] = "warn",
	[LOG_LV_INFO] = "info",
	[LOG_LV_DEBUG] = "debug",
};
static_assert(sizeof(level_str) / sizeof(*level_str) == LOG_LV_N, "level_str[] is incomplete");

static struct {
	const char *role;
	int fd;
	int max;
	int err_max;
	void (*filter)(char *line, size_t n);
} the_log = { .role = "agent-vm", .fd = -1, .max = LOG_LV_INFO, .err_max = -1 };

int log_level_parse(const char *name)
{
	for (int i = 0; i < LOG_LV_N; i++)
		if (strcmp(name, level_str[i]) == 0)
			return i;
	return -EINVAL;
}

void log_open(const char *role, int fd, enum log_level max)
{
	the_log.role = role;
	the_log.fd = fd;
	the_log.max = max;
}

void log_filter(void (*filter)(char *line, size_t n))
{
	the_log.filter = filter;
}

void log_stderr(int max)
{
	the_log.err_max = max;
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES + SEEN_BYTES];
	struct timespec ts;
	struct tm tm;
	size_t head, text;
	va_list ap;
	int n;

	if ((int)level > the_log.err_max && (the_log.fd < 0 || (int)level > the_log.max))
		return;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)gmtime_r(&ts.tv_sec, &tm);
	head = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	head += (size_t)snprintf(line + head, sizeof(line) - head, ".%03ldZ %s %s ", ts.tv_nsec / 1000000, the_log.role,
				 level_str[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	text = strlen(line);
	if (the_log.filter)
		the_log.filter(line + head, text - head);
	/* Not before: of what was cut the filter would not know the rest. */
	text = MIN(text, (size_t)LINE_MAX_BYTES - 2);
	line[text++] = '\n';
	if (the_log.fd >= 0 && (int)level <= the_log.max)
		(void)fd_write_all(the_log.fd, line, text);
	if ((int)level <= the_log.err_max)
		(void)dprintf(STDERR_FILENO, "agent-vm: %s%.*s", level == LOG_LV_WARN ? "warning: " : "",
			      (int)(text - head), line + head);
}
