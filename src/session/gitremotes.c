#include "session/gitremotes.h"

#include <errno.h>

#include "base/str.h"
#include "session/gitconfig.h"

#define URL_MAX 4096 /* a longer one names no repository of GitHub's */

struct reader {
	void (*each)(struct gh_slug repo, void *arg);
	void *arg;
	const char *origin; /* of the caller */
	char *found;	    /* remote.origin.url */
};

static void tell(const struct reader *r, const char *url)
{
	struct gh_slug repo;

	if (gh_remote_parse(span_str(url), &repo))
		r->each(repo, r->arg);
}

static int remote(const struct gitconfig_entry *e, void *arg)
{
	struct reader *r = arg;

	if (strcmp(e->section, "remote") != 0 || !e->sub || !e->value)
		return 0;
	if (strcmp(e->key, "url") == 0) {
		/* Of several git fetches from the first. */
		if (strcmp(e->sub, "origin") == 0 && !r->found)
			r->found = xstrdup(e->value);
		tell(r, e->value);
	} else if (strcmp(e->key, "pushurl") == 0) {
		tell(r, e->value);
	}
	return 0;
}

int gitremotes_read(const char *text, size_t n, void (*each)(struct gh_slug repo, void *arg), void *arg,
		    char **ret_origin)
{
	struct reader r = { .each = each, .arg = arg };
	int e = gitconfig_read(text, n, remote, &r);

	if (e < 0)
		free(r.found);
	else
		*ret_origin = r.found;
	return e;
}

/* @url against @origin as git does it: each "../" takes the last part off, behind a "/" or the ":" of the short form of
 * ssh. */
static bool resolve(const char *origin, const char *url, char out[URL_MAX])
{
	size_t n = strlen(origin), rest;

	if (n >= URL_MAX)
		return false;
	memcpy(out, origin, n);
	if (n > 0 && out[n - 1] == '/')
		n--;
	for (;;) {
		if (str_starts(url, "./")) {
			url += 2;
		} else if (str_starts(url, "../")) {
			url += 3;
			while (n > 0 && out[n - 1] != '/' && out[n - 1] != ':')
				n--;
			if (n == 0)
				return false;
			/* The ":" stays, for what follows it is a path, too. */
			if (out[n - 1] == '/')
				n--;
		} else {
			break;
		}
	}
	rest = strlen(url);
	if (n == 0 || n + 1 + rest >= URL_MAX)
		return false;
	if (out[n - 1] != ':')
		out[n++] = '/';
	memcpy(out + n, url, rest + 1);
	return true;
}

static int submodule(const struct gitconfig_entry *e, void *arg)
{
	const struct reader *r = arg;
	char whole[URL_MAX];

	if (strcmp(e->section, "submodule") != 0 || !e->sub || !e->value || strcmp(e->key, "url") != 0)
		return 0;
	if (!str_starts(e->value, "./") && !str_starts(e->value, "../"))
		tell(r, e->value);
	else if (r->origin && resolve(r->origin, e->value, whole))
		tell(r, whole);
	return 0;
}

int gitmodules_read(const char *text, size_t n, const char *origin, void (*each)(struct gh_slug repo, void *arg),
		    void *arg)
{
	struct reader r = { .each = each, .arg = arg, .origin = origin };

	return gitconfig_read(text, n, submodule, &r);
}
