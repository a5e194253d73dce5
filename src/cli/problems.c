#include "cli/problems.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/str.h"

void problems_init(struct problems *p)
{
	*p = (struct problems){ .at = PROBLEMS_AT_END };
}

void problems_done(struct problems *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].text);
	free(p->v);
	problems_init(p);
}

void problems_at(struct problems *p, unsigned at)
{
	p->at = at;
}

__attribute__((format(printf, 3, 0)))
static void add(struct problems *p, bool world, const char *fmt, va_list ap)
{
	char *text;

	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	p->v = xrealloc(p->v, (p->n + 1) * sizeof(*p->v));
	p->v[p->n++] = (struct problem){ .text = text, .at = p->at, .world = world };
}

void problem_text(struct problems *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(p, false, fmt, ap);
	va_end(ap);
}

void problem_world(struct problems *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(p, true, fmt, ap);
	va_end(ap);
}

/* By word, and among those of one word in the order found: both point into one array. */
static int by_place(const void *a, const void *b)
{
	const struct problem *x = *(const struct problem *const *)a, *y = *(const struct problem *const *)b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x < y ? -1 : x > y;
}

int problems_report(const struct problems *p, FILE *to, const char *last)
{
	AUTO_FREE(const struct problem *, order);
	int status = 1;

	if (p->n == 0)
		return 0;
	order = xcalloc(p->n, sizeof(*order));
	for (size_t i = 0; i < p->n; i++) {
		order[i] = &p->v[i];
		if (!p->v[i].world)
			status = 2;
	}
	qsort(order, p->n, sizeof(*order), by_place);
	for (size_t i = 0; i < p->n; i++)
		fprintf(to, "agent-vm: %s\n", order[i]->text);
	if (p->n > 1 && last)
		fprintf(to, "agent-vm: %zu problems, %s\n", p->n, last);
	return status;
}
