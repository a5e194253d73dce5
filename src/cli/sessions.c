#include "cli/sessions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"

int sessions_root(struct state_root *ret, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	int r;

	r = state_root_path(&path, &warning, err);
	if (r < 0)
		return r;
	if (warning)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", warning);
	r = state_root_open(path, false, &root, err);
	if (r == -ENOENT)
		return 0;
	/* -EINVAL is the wrong variable's. */
	if (r < 0)
		return r == -EINVAL ? -EIO : r;
	r = registry_reap(&root, REAP_GRACE_MS, NULL, err);
	if (r < 0) {
		/* What can be shown is shown. */
		(void)fprintf(stderr, "agent-vm: warning: %s\n", err->text);
	}
	*ret = root;
	return 1;
}

int sessions_fail(int code, const struct err *err)
{
	(void)fprintf(stderr, "agent-vm: %s\n", err->text);
	return code == -EINVAL ? 2 : 1;
}

void sessions_warn(const struct strv *warnings)
{
	for (size_t i = 0; i < warnings->n; i++)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", warnings->v[i]);
}

int sessions_here(char hash[PROJECT_HASH_LEN + 1], struct err *err)
{
	struct project p = PROJECT_INIT;
	int r;

	r = project_open_cwd(&p, err);
	if (r < 0)
		return r;
	memcpy(hash, p.hash, sizeof(p.hash));
	project_close(&p);
	return 0;
}

const char *sessions_short(const struct session_info *info)
{
	return info->name + strlen(SESSION_NAME_PREFIX);
}

void table_init(struct table *t, size_t cols)
{
	*t = (struct table){ .cols = cols };
}

void table_add(struct table *t, const char *cell)
{
	t->cells = xrealloc(t->cells, (t->n + 1) * sizeof(*t->cells));
	t->cells[t->n++] = str_escape(cell, strlen(cell));
}

/* Characters, not bytes; the escaped text is UTF-8. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

void table_print(struct table *t, FILE *to)
{
	AUTO_FREE(size_t, widths);

	widths = xcalloc(t->cols, sizeof(*widths));
	for (size_t i = 0; i < t->n; i++)
		widths[i % t->cols] = MAX(widths[i % t->cols], width(t->cells[i]));
	for (size_t row = 0; row < t->n; row += t->cols) {
		size_t pad = 0;

		for (size_t i = 0; i < t->cols; i++) {
			const char *cell = t->cells[row + i];

			/* The padding waits for the next cell that holds something, so no line ends in spaces. */
			if (*cell) {
				(void)fprintf(to, "%*s%s", (int)pad, "", cell);
				pad = 0;
			}
			pad += widths[i] - width(cell) + 2;
		}
		(void)fputc('\n', to);
	}
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct table){ .cols = t->cols };
}

int sessions_print_json(json_t *v)
{
	int r = v ? json_dumpf(v, stdout, JSON_INDENT(2)) : -1;

	json_decref(v);
	if (r < 0)
		return 1;
	(void)fputc('\n', stdout);
	return sessions_flush();
}

int sessions_flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	(void)fprintf(stderr, "agent-vm: standard output: cannot be written: %s\n", strerror(errno));
	return 1;
}
