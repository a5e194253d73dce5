#include "session/logs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/registry.h"

struct entry {
	char name[SESSION_NAME_MAX + 1];
	int64_t ended_s;
	uint64_t bytes;
	bool failed;
};

struct walk {
	const struct state_root *root;
	struct entry *v;
	size_t n;
};

/* The roles write files into the folder, no folders. */
static uint64_t folder_bytes(int dirfd)
{
	uint64_t sum = 0;
	struct dirent *e;
	struct stat st;
	DIR *d;
	int fd;

	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			(void)close(fd);
		return 0;
	}
	while ((e = readdir(d)))
		if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_blocks * 512;
	(void)closedir(d);
	return sum;
}

static int entry_add(const char *name, void *arg)
{
	struct walk *w = arg;
	struct session_info info;
	struct entry e = { .failed = true };
	AUTO_FD(session);
	AUTO_FD(dir);
	struct stat st;
	int r;

	session = registry_open_session(w->root, name);
	dir = registry_open_logs(w->root, name);
	if (session >= 0 || dir < 0 || fstat(dir, &st) < 0)
		return 0;
	memcpy(e.name, name, strlen(name) + 1);
	e.ended_s = st.st_mtime;
	e.bytes = folder_bytes(dir);
	r = session_info_read(dir, &info, NULL);
	if (r == -EOPNOTSUPP)
		return 0;
	if (r == 0) {
		e.ended_s = info.ended_ms / 1000;
		e.failed = info.result == SESSION_START_FAILED || info.result == SESSION_LOST ||
			   info.result == SESSION_USAGE;
		session_info_done(&info);
	}
	w->v = xrealloc(w->v, (w->n + 1) * sizeof(*w->v));
	w->v[w->n++] = e;
	return 0;
}

static int newest_first(const void *va, const void *vb)
{
	const struct entry *a = va, *b = vb;

	if (a->ended_s != b->ended_s)
		return a->ended_s < b->ended_s ? 1 : -1;
	return strcmp(b->name, a->name);
}

static bool same_project(const struct entry *a, const struct entry *b)
{
	size_t n = strlen(SESSION_NAME_PREFIX) + PROJECT_HASH_LEN;

	return strncmp(a->name, b->name, n) == 0;
}

int logs_retain(const struct state_root *root, const struct logs_rule *rule, int64_t now_s)
{
	struct walk w = { .root = root };
	uint64_t bytes = 0;
	size_t kept = 0;
	int removed = 0, r;

	r = registry_each(root->logs_fd, entry_add, &w);
	if (w.n > 0)
		qsort(w.v, w.n, sizeof(*w.v), newest_first);
	/* v[0 .. kept) are those that stay, newest first. */
	for (size_t i = 0; r == 0 && i < w.n; i++) {
		struct entry e = w.v[i];
		int64_t age_s = now_s - e.ended_s;
		unsigned int before = 0;

		for (size_t k = 0; k < kept; k++)
			before += same_project(&w.v[k], &e);
		if (age_s < rule->fresh_age_s || (e.failed && age_s < rule->failed_age_s) ||
		    (before < rule->per_project && age_s <= rule->max_age_s && bytes + e.bytes <= rule->max_bytes)) {
			bytes += e.bytes;
			w.v[kept++] = e;
			continue;
		}
		if (file_remove_tree_at(root->logs_fd, e.name) == 0)
			removed++;
	}
	free(w.v);
	return r < 0 ? r : removed;
}
