#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

#define LINE_NS (10 * INT64_C(1000000000))
#define COLUMNS_DEFAULT 80
#define COLUMNS_MAX 400

void progress_init(struct progress *p, const char *reference, bool quiet, bool json)
{
	*p = (struct progress){ .quiet = quiet, .json = json, .tty = !quiet && isatty(STDERR_FILENO),
				.reference = str_escape(reference, strlen(reference)), .next_line_ns = now_ns() + LINE_NS };
	progress_event(p, "start", NULL);
	progress_line(p, "==> %s", p->reference);
}

void progress_done(struct progress *p)
{
	progress_clear(p);
	free(p->reference);
	p->reference = NULL;
}

void progress_event(struct progress *p, const char *name, json_t *more)
{
	json_t *j = p->json ? json_pack("{s:s, s:s}", "event", name, "reference", p->reference ? p->reference : "") : NULL;

	if (j && more)
		(void)json_object_update(j, more);
	if (j && json_dumpf(j, stdout, JSON_COMPACT) == 0) {
		(void)fputc('\n', stdout);
		(void)fflush(stdout);
	}
	json_decref(j);
	json_decref(more);
}

static void terminal_size(unsigned *ret_rows, unsigned *ret_columns)
{
	struct winsize ws;

	*ret_rows = ~0u;
	*ret_columns = COLUMNS_DEFAULT;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) < 0)
		return;
	if (ws.ws_row > 0)
		*ret_rows = ws.ws_row;
	if (ws.ws_col > 20)
		*ret_columns = MIN(ws.ws_col, (unsigned)COLUMNS_MAX);
}

/* Bytes of @s that fit into @columns, cut at a character's border. Characters of more than one column have three bytes or
 * more, so a line of so many bytes never wraps. */
static int fitting(const char *s, unsigned columns)
{
	size_t n = strlen(s);

	if (n > columns) {
		n = columns;
		while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
			n--;
	}
	return (int)n;
}

/* Sequences of ECMA-48: up, first column, erase to the end of the screen. */
static char *erasing(unsigned lines)
{
	return lines > 1 ? xasprintf("\033[%uA\r\033[J", lines - 1) : xstrdup(lines == 1 ? "\r\033[J" : "");
}

void progress_clear(struct progress *p)
{
	AUTO_FREE(char, erase);

	erase = erasing(p->drawn);
	(void)fputs(erase, stderr);
	p->drawn = 0;
}

void progress_draw(struct progress *p, const struct strv *lines)
{
	unsigned rows, columns;
	size_t first = 0;
	char *all;

	if (!p->tty || lines->n == 0)
		return;
	terminal_size(&rows, &columns);
	if (lines->n >= rows)
		first = lines->n - 1;
	/* One write, or the block flickers. */
	all = erasing(p->drawn);
	for (size_t i = first; i < lines->n; i++) {
		char *more = xasprintf("%s%s%.*s", all, i > first ? "\n" : "", fitting(lines->v[i], columns - 1), lines->v[i]);

		free(all);
		all = more;
	}
	(void)fputs(all, stderr);
	free(all);
	p->drawn = (unsigned)(lines->n - first);
}

void progress_line(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	if (p->quiet)
		return;
	progress_clear(p);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
}

bool progress_line_is_due(struct progress *p)
{
	if (p->quiet || p->tty || now_ns() < p->next_line_ns)
		return false;
	p->next_line_ns = now_ns() + LINE_NS;
	return true;
}

char *progress_bar(uint64_t got, uint64_t size, unsigned width)
{
	unsigned full = size == 0 ? width : (unsigned)((double)MIN(got, size) * width / (double)size);
	char *s = xmalloc(width + 3);

	s[0] = '[';
	memset(s + 1, '#', full);
	memset(s + 1 + full, '.', width - full);
	s[width + 1] = ']';
	s[width + 2] = '\0';
	return s;
}

void progress_error(struct progress *p, const char *text)
{
	progress_clear(p);
	progress_event(p, "error", json_pack("{s:s}", "reason", text));
	(void)fprintf(stderr, "agent-vm: %s\n", text);
}
