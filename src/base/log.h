/* The log of a role: one line an event on the log descriptor (4 for children, a file for the launcher), with time and
 * role. Library code does not log above debug; it returns errors. Values of secrets never come here. */
#pragma once

#include "base/macros.h"

enum log_level { LOG_LV_ERROR, LOG_LV_WARN, LOG_LV_INFO, LOG_LV_DEBUG, LOG_LV_N };

/* @role is kept. @fd -1 turns the log off. */
void log_open(const char *role, int fd, enum log_level max);
/* "error", "warn", "info" or "debug"; -EINVAL. */
int log_level_parse(const char *name);
/* Called with the text of each line before it is written; may overwrite, not lengthen. */
void log_filter(void (*filter)(char *line, size_t n));
/* Lines at most this level go to stderr as well ("agent-vm: ..."), until turned off with -1. */
void log_stderr(int max);
void log_at(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_at(LOG_LV_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LV_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LV_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LV_DEBUG, __VA_ARGS__)
