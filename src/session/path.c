#include "session/path.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

const char *path_rest(const char *outer, const char *path)
{
	size_t n = strlen(outer);

	if (n == 1 && outer[0] == '/')
		return path[0] == '/' ? path + 1 : NULL;
	if (strncmp(outer, path, n) != 0)
		return NULL;
	if (path[n] == '\0')
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

bool path_within(const char *outer, const char *path)
{
	return path_rest(outer, path) != NULL;
}

char *path_join(const char *dir, const char *rest)
{
	if (*rest == '\0')
		return xstrdup(dir);
	return xasprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, rest);
}

char *path_tidy(const char *base, const char *path)
{
	AUTO_FREE(char, whole);
	char *out, *to;

	whole = path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", base, path);
	to = out = xmalloc(strlen(whole) + 2);
	for (const char *s = whole; *s;) {
		size_t n = strcspn(s, "/");

		if (n == 2 && s[0] == '.' && s[1] == '.') {
			while (to > out && *--to != '/')
				;
		} else if (n > 0 && !(n == 1 && s[0] == '.')) {
			*to++ = '/';
			memcpy(to, s, n);
			to += n;
		}
		s += n;
		s += *s == '/';
	}
	if (to == out)
		*to++ = '/';
	*to = '\0';
	return out;
}

char *path_common(const char *a, const char *b)
{
	size_t i = 0, cut = 0;

	for (; a[i] && a[i] == b[i]; i++)
		if (a[i] == '/')
			cut = i;
	if ((a[i] == '\0' || a[i] == '/') && (b[i] == '\0' || b[i] == '/'))
		cut = i;
	return cut == 0 ? xstrdup("/") : xstrndup(a, cut);
}

size_t path_depth(const char *path)
{
	size_t n = 0;

	if (strcmp(path, "/") == 0)
		return 0;
	for (; *path; path++)
		n += *path == '/';
	return n;
}

char *path_canonical(const char *path)
{
	AUTO_FREE(char, tidy);
	AUTO_FREE(char, real);
	size_t cut;

	if (path[0] != '/')
		return NULL;
	real = realpath(path, NULL);
	if (real)
		return TAKE_PTR(real);
	/* Ask for shorter and shorter heads; the empty one is "/". */
	tidy = path_tidy("/", path);
	for (cut = strlen(tidy); cut > 0; cut--) {
		AUTO_FREE(char, head);

		if (tidy[cut] != '/')
			continue;
		head = xstrndup(tidy, cut);
		real = realpath(head, NULL);
		if (real)
			return path_join(real, tidy + cut + 1);
	}
	return TAKE_PTR(tidy);
}

char *path_shown(const char *path)
{
	return str_escape(path, strlen(path));
}
