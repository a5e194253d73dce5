#include "session/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/macros.h"
#include "session/path.h"
#include "session/trash.h"

static const struct {
	const char *name;
	mode_t kind;
} entries[] = {
	{ "claude", S_IFDIR },		{ "codex", S_IFDIR },	  { "opencode", S_IFDIR },     { "opencode-config", S_IFDIR },
	{ "copilot", S_IFDIR },		{ "db", S_IFDIR },
		{ "gh-config", S_IFDIR }, { "bash_history", S_IFREG }, { "gitconfig", S_IFREG },
};

static const char *wrong(const struct stat *st, mode_t want)
{
	if (S_ISLNK(st->st_mode))
		return "is a link";
	if ((st->st_mode & S_IFMT) != want)
		return want == S_IFDIR ? "is no folder" : "is no regular file";
	return S_ISREG(st->st_mode) && st->st_size > ASIDE_FILE_MAX ? "is larger than 8 MiB" : NULL;
}

int aside_check(int root_fd, int state_fd, const char *state_path, struct strv *lines, struct err *err)
{
	AUTO_FREE(char, shown);

	shown = path_shown(state_path);
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		const char *name = entries[i].name, *why;
		AUTO_FREE(char, bad);
		struct stat st;
		int r;

		if (fstatat(state_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		why = wrong(&st, entries[i].kind);
		if (!why)
			continue;
		bad = xasprintf("%s" ASIDE_SUFFIX, name);
		r = trash_put(root_fd, state_fd, bad);
		if (r == 0 && renameat(state_fd, name, state_fd, bad) < 0)
			r = -errno;
		if (r < 0)
			return err_set(err, r, "%s/%s: %s, and cannot be renamed: %s; remove it", shown, name, why, strerror(-r));
		strv_addf(lines, "%s/%s: %s; it was renamed %s, and a new one is used", shown, name, why, bad);
	}
	return 0;
}
