#include "session/treewalk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"

#define CLOCK_EVERY 256 /* entries between two looks at the clock */

struct queue {
	char **v;
	size_t head, n, room;
};

static void push(struct queue *q, const char *path)
{
	if (q->n == q->room) {
		q->room = q->room ? 2 * q->room : 64;
		q->v = xrealloc(q->v, q->room * sizeof(*q->v));
	}
	q->v[q->n++] = xstrdup(path);
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

static void look(struct tree_walk *w, struct queue *q, int root, const char *dir, int64_t until)
{
	struct dirent *e;
	int fd;
	DIR *d;

	fd = file_open_beneath(root, *dir ? dir : ".", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) {
		if (fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP && (fd != -EACCES || is_ours(root, dir)))
			w->cut = true;
		return;
	}
	d = fdopendir(fd);
	if (!d) {
		(void)close(fd);
		w->cut = true;
		return;
	}
	while ((e = readdir(d))) {
		struct tree_entry te = { .dirfd = dirfd(d), .name = e->d_name, .type = e->d_type };
		AUTO_FREE(char, path);
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (!in_time(w, until))
			break;
		if (te.type == DT_UNKNOWN) {
			if (fstatat(te.dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
				continue;
			te.type = IFTODT(st.st_mode);
		}
		path = *dir ? xasprintf("%s/%s", dir, e->d_name) : xstrdup(e->d_name);
		te.path = path;
		if (w->each(&te, w->arg) == TREE_ENTER && te.type == DT_DIR)
			push(q, path);
	}
	(void)closedir(d);
}

void tree_walk(int root, struct tree_walk *w)
{
	struct queue q = { 0 };
	int64_t until;

	if (w->entries_max == 0)
		w->entries_max = TREE_ENTRIES_MAX;
	until = now_ns() + (int64_t)(w->time_ms ? w->time_ms : TREE_TIME_MS) * 1000000;
	w->n_entries = 0;
	w->cut = false;
	look(w, &q, root, "", until);
	for (; q.head < q.n; q.head++) {
		if (w->n_entries < w->entries_max && now_ns() <= until)
			look(w, &q, root, q.v[q.head], until);
		else
			w->cut = true;
		free(q.v[q.head]);
	}
	free(q.v);
}
