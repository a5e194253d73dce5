#include "session/treewalk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"

#define CLOCK_EVERY 256 /* entries between two looks at the clock */

struct walk {
	struct tree_walk *w;
	int root;
	int64_t until;
	char **v; /* folders that are to be entered, paths; from head on */
	size_t head, n, room;
	char path[PATH_MAX + NAME_MAX + 2]; /* of the entry that is looked at */
	/* As getdents64(2) fills it: readdir(3) would cost four calls of the system and 32 KiB of the heap a folder. */
	char entries[32768] __attribute__((aligned(8)));
};

static void push(struct walk *t)
{
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->v = xrealloc(t->v, t->room * sizeof(*t->v));
	}
	t->v[t->n++] = xstrdup(t->path);
}

/* One that is not ours is as shut for the guest. */
static bool is_ours(int root, const char *path)
{
	AUTO_FD(fd);
	struct stat st;

	fd = file_open_beneath(root, path, O_PATH | O_NOFOLLOW, 0);
	return fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid();
}

static bool in_time(struct tree_walk *w, int64_t until)
{
	if (w->n_entries >= w->entries_max || (w->n_entries % CLOCK_EVERY == 0 && now_ns() > until)) {
		w->cut = true;
		return false;
	}
	w->n_entries++;
	return true;
}

/* @at: of t->path, behind the folder's own part. False: it is enough. */
static bool look_at(struct walk *t, int dir, size_t at, const struct dirent64 *e)
{
	struct tree_entry te = { .dirfd = dir, .path = t->path, .name = t->path + at, .type = e->d_type };
	size_t n = strlen(e->d_name);
	struct stat st;

	if (e->d_name[0] == '.' && (n == 1 || (n == 2 && e->d_name[1] == '.')))
		return true;
	if (!in_time(t->w, t->until))
		return false;
	if (te.type == DT_UNKNOWN) {
		if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
			return true;
		te.type = IFTODT(st.st_mode);
	}
	if (at + n >= sizeof(t->path)) { /* longer than any path that could be opened */
		t->w->cut = true;
		return true;
	}
	memcpy(t->path + at, e->d_name, n + 1);
	if (t->w->each(&te, t->w->arg) == TREE_ENTER && te.type == DT_DIR)
		push(t);
	return true;
}

static void look(struct walk *t, const char *dir)
{
	size_t at = strlen(dir);
	AUTO_FD(fd);
	ssize_t got;

	fd = file_open_beneath(t->root, *dir ? dir : ".", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) {
		if (fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP && (fd != -EACCES || is_ours(t->root, dir)))
			t->w->cut = true;
		return;
	}
	memcpy(t->path, dir, at);
	if (at > 0)
		t->path[at++] = '/';
	while ((got = getdents64(fd, t->entries, sizeof(t->entries))) > 0) {
		for (ssize_t i = 0; i < got;) {
			const struct dirent64 *e = (const struct dirent64 *)(const void *)(t->entries + i);

			if (!look_at(t, fd, at, e))
				return;
			i += e->d_reclen;
		}
	}
	/* ENOENT: removed meanwhile. */
	if (got < 0 && errno != ENOENT)
		t->w->cut = true;
}

void tree_walk(int root, struct tree_walk *w)
{
	struct walk *t = xmalloc(sizeof(*t));

	if (w->entries_max == 0)
		w->entries_max = TREE_ENTRIES_MAX;
	t->w = w;
	t->root = root;
	t->until = now_ns() + (int64_t)(w->time_ms ? w->time_ms : TREE_TIME_MS) * 1000000;
	t->v = NULL;
	t->head = t->n = t->room = 0;
	w->n_entries = 0;
	w->cut = false;
	look(t, "");
	for (; t->head < t->n; t->head++) {
		if (w->n_entries < w->entries_max && now_ns() <= t->until)
			look(t, t->v[t->head]);
		else
			w->cut = true;
		free(t->v[t->head]);
	}
	free(t->v);
	free(t);
}
