#include "session/finding.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"

void findings_done(struct findings *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->v[i].text);
	free(f->v);
	*f = (struct findings){ 0 };
}

void findings_add(struct findings *f, enum finding_kind kind, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	f->v = xrealloc(f->v, (f->n + 1) * sizeof(*f->v));
	f->v[f->n++] = (struct finding){ .kind = kind, .text = text };
}

void findings_blame(struct findings *f, size_t from, const char *option, size_t index)
{
	for (; from < f->n; from++) {
		f->v[from].option = option;
		f->v[from].index = index;
	}
}

bool findings_stop(const struct findings *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].kind == FINDING_TYPED || f->v[i].kind == FINDING_WORLD)
			return true;
	return false;
}
