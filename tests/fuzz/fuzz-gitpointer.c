/* What git files of a project may hold: pointers, bare paths, and a config. What is taken is one clean line; strings that
 * the config reader hands out are whole; nothing is handed out by a failed look-up. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "session/gitconfig.h"
#include "session/gitdir.h"
#include "session/path.h"

static void clean(const char *s)
{
	MUST(*s != '\0');
	for (; *s; s++)
		MUST((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static int each(const struct gitconfig_entry *e, void *arg)
{
	size_t *sum = arg;

	MUST(*e->section && *e->key && strlen(e->section) < GITCONFIG_MAX);
	*sum += strlen(e->section) + strlen(e->key) + (e->sub ? strlen(e->sub) : 0) + (e->value ? strlen(e->value) : 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	const char *p = (const char *)bytes;
	char *s = NULL, *tidy;
	size_t sum = 0;
	int r;

	if (gitdir_pointer(p, n, &s) == 0) {
		clean(s);
		tidy = path_tidy("/srv/project", s);
		MUST(tidy[0] == '/' && !strstr(tidy, "//") && !strstr(tidy, "/../") && !strstr(tidy, "/./"));
		free(tidy);
		free(s);
		s = NULL;
	}
	if (gitdir_path_line(p, n, &s) == 0) {
		clean(s);
		free(s);
		s = NULL;
	}
	r = gitconfig_read(p, n, each, &sum);
	MUST(r == 0 || r == -EBADMSG);
	r = gitconfig_get(p, n, "core", "worktree", &s);
	MUST((r == 0) == (s != NULL));
	free(s);
	return 0;
}
