#include "cli/loginwatch.h"

#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

void loginwatch_begin(const struct strv *paths, struct loginwatch *ret)
{
	*ret = (struct loginwatch){ 0 };
	for (size_t i = 0; i < paths->n && i < ARRAY_SIZE(ret->v); i++) {
		ret->v[ret->n].path = xstrdup(paths->v[i]);
		/* What cannot be looked at counts as not there: the agent could not read it either. */
		ret->v[ret->n++].was = file_mark(paths->v[i]);
	}
}

void loginwatch_done(struct loginwatch *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->v[i].path);
	*w = (struct loginwatch){ 0 };
}

/* What became of it since it was looked at; NULL: nothing. */
static const char *news(const struct loginwatch *w, size_t i)
{
	const struct loginwatch_file *f = &w->v[i];
	struct file_mark now = file_mark(f->path);

	if (file_mark_is(&now, &f->was))
		return NULL;
	if (!now.there)
		return "gone";
	if (w->ours && w->ours(w->arg, i, f->path))
		return NULL;
	return f->was.there ? "changed" : "new";
}

void loginwatch_renewing(struct loginwatch *w, size_t i)
{
	const char *seen = i < w->n ? news(w, i) : NULL;

	if (i >= w->n)
		return;
	/* Somebody else's, from before. */
	if (seen)
		w->v[i].seen = seen;
	w->v[i].renewing = true;
}

void loginwatch_renewed(struct loginwatch *w, size_t i)
{
	if (i >= w->n || !w->v[i].renewing)
		return;
	w->v[i].renewing = false;
	w->v[i].was = file_mark(w->v[i].path);
}

void loginwatch_compare(const struct loginwatch *w, struct strv *ret)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct loginwatch_file *f = &w->v[i];
		const char *what = f->renewing ? NULL : news(w, i);
		AUTO_FREE(char, shown);

		if (!what && !f->seen)
			continue;
		shown = str_escape(f->path, strlen(f->path));
		strv_addf(ret, "%s (%s)", shown, what ? what : f->seen);
	}
}
