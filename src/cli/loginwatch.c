#include "cli/loginwatch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/macros.h"

/* What cannot be looked at counts as not there: the agent could not read it either. */
static void look(struct loginwatch_file *f)
{
	struct stat st;

	f->there = stat(f->path, &st) == 0;
	if (!f->there)
		return;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->size = (uint64_t)st.st_size;
	f->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

void loginwatch_begin(const struct strv *paths, struct loginwatch *ret)
{
	*ret = (struct loginwatch){ 0 };
	for (size_t i = 0; i < paths->n && i < ARRAY_SIZE(ret->v); i++) {
		ret->v[ret->n].path = xstrdup(paths->v[i]);
		look(&ret->v[ret->n++]);
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
	const struct loginwatch_file *was = &w->v[i];
	struct loginwatch_file now = { .path = was->path };

	look(&now);
	if (!now.there)
		return was->there ? "gone" : NULL;
	if (was->there && now.dev == was->dev && now.ino == was->ino && now.size == was->size && now.mtime_ns == was->mtime_ns)
		return NULL;
	if (w->ours && w->ours(w->arg, i, was->path))
		return NULL;
	return was->there ? "changed" : "new";
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
	look(&w->v[i]);
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
