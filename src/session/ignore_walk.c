#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "session/ignore.h"
#include "session/ignore_match.h"
#include "session/path.h"

struct walk {
	struct ignore *ig;
	int root;
	char *root_path; /* of the kernel, for links */
	struct ignore_hits hits;
	bool *used; /* patterns that hid something */
	size_t n_entries;
	char *path; /* relative, of the entry looked at */
	size_t room;
	struct err *err;
};

void ignore_hits_done(struct ignore_hits *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->v[i].path);
	free(h->v);
	strv_done(&h->patterns);
	*h = (struct ignore_hits){ 0 };
}

static int hit(struct walk *w, const char *path, bool is_dir, int pattern)
{
	if (w->hits.n >= IGNORE_HIDDEN_MAX)
		return err_set(w->err, -E2BIG, "hidden files: more than %d are matched; hide their folder instead",
			       IGNORE_HIDDEN_MAX);
	if ((w->hits.n & (w->hits.n - 1)) == 0)
		w->hits.v = xrealloc(w->hits.v, (w->hits.n ? 2 * w->hits.n : 1) * sizeof(*w->hits.v));
	w->hits.v[w->hits.n++] = (struct ignore_hit){ .path = xstrdup(path), .is_dir = is_dir };
	if (pattern >= 0)
		w->used[pattern] = true;
	return 0;
}

/* The path that the kernel has for a descriptor. */
static char *path_of(int fd)
{
	char link[64], buf[PATH_MAX];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, sizeof(buf));
	return n <= 0 || n == (ssize_t)sizeof(buf) ? NULL : xstrndup(buf, (size_t)n);
}

/* Follows links, but only within the root; an O_PATH descriptor, nothing is read. */
static int open_within(struct walk *w, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	long fd = syscall(SYS_openat2, w->root, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* A link cannot be covered by a mount; what it leads to can, where the guest sees that through this folder. */
static int hit_link(struct walk *w, const char *path, int pattern)
{
	AUTO_FREE(char, target);
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	const char *rest;
	struct stat st;

	fd = open_within(w, path);
	if (fd == -EXDEV) {
		char buf[PATH_MAX];
		AUTO_FREE(char, tidy);
		ssize_t n = readlinkat(w->root, path, buf, sizeof(buf) - 1);

		/* An absolute link into the folder works in a guest that has it at its own path. */
		if (n <= 0)
			return 0;
		buf[n] = '\0';
		tidy = buf[0] == '/' ? path_tidy("/", buf) : NULL;
		rest = tidy && w->root_path ? path_rest(w->root_path, tidy) : NULL;
		if (!rest)
			return 0;
		fd = open_within(w, *rest ? rest : ".");
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0; /* dangling, or out of the folder: the guest does not see it through the link */
	target = path_of(fd);
	rest = target && w->root_path ? path_rest(w->root_path, target) : NULL;
	shown = path_shown(path);
	if (!rest)
		return err_set(w->err, -ELOOP, "%s: where this hidden link leads cannot be found; take it out of the patterns",
			       shown);
	if (*rest == '\0' || path_within(rest, path))
		return err_set(w->err, -ELOOP,
			       "%s: this hidden link leads to a folder above itself; take it out of the patterns", shown);
	return hit(w, rest, S_ISDIR(st.st_mode), pattern);
}

static int hit_mode(struct walk *w, const char *path, mode_t mode, int pattern)
{
	return S_ISLNK(mode) ? hit_link(w, path, pattern) : hit(w, path, S_ISDIR(mode), pattern);
}

static int too_many(struct walk *w)
{
	return err_set(w->err, -E2BIG,
		       "hidden files: more than %d entries would have to be looked at; write patterns with a leading / and "
		       "without wildcards",
		       IGNORE_ENTRIES_MAX);
}

/* Sets w->path to its first @len bytes, a slash and @name. */
static size_t push(struct walk *w, size_t len, const char *name)
{
	size_t n = strlen(name), all = len + (len > 0) + n;

	if (all + 1 > w->room) {
		w->room = 2 * (all + 1);
		w->path = xrealloc(w->path, w->room);
	}
	if (len > 0)
		w->path[len++] = '/';
	memcpy(w->path + len, name, n + 1);
	return all;
}

/* Takes @fd, a folder whose path is the first @len bytes of w->path. */
static int walk_dir(struct walk *w, int fd, size_t len, int depth)
{
	struct dirent *e;
	DIR *d;
	int r = 0;

	d = fdopendir(fd);
	if (!d) {
		(void)close(fd);
		return err_set(w->err, -ENOMEM, "hidden files: out of memory");
	}
	while (r == 0 && (e = readdir(d))) {
		struct stat st = { .st_mode = DTTOIF(e->d_type) };
		size_t all;
		int k, sub;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (++w->n_entries > IGNORE_ENTRIES_MAX) {
			r = too_many(w);
			break;
		}
		if (e->d_type == DT_UNKNOWN && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
			continue;
		all = push(w, len, e->d_name);
		k = ignore_last_match(w->ig, w->path, all, S_ISDIR(st.st_mode));
		if (k >= 0 && !w->ig->v[k].negative) {
			r = hit_mode(w, w->path, st.st_mode, k);
			continue;
		}
		if (!S_ISDIR(st.st_mode) || strcmp(e->d_name, ".git") == 0)
			continue;
		if (depth >= IGNORE_DEPTH_MAX) {
			r = err_set(w->err, -E2BIG,
				    "hidden files: folders more than %d deep; write patterns with a leading / and without wildcards",
				    IGNORE_DEPTH_MAX);
			break;
		}
		sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0) {
			r = walk_dir(w, sub, all, depth + 1);
			continue;
		}
		/* A folder of the user's own that is unreadable now: the guest could change its mode, and what is in it
		 * cannot be known. One of somebody else is as shut for the guest. */
		if (errno == EACCES && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == geteuid())
			r = hit(w, w->path, true, -1);
		else if (errno == EMFILE || errno == ENFILE)
			r = err_set(w->err, -errno, "hidden files: %s; raise the limit of open files", strerror(errno));
	}
	(void)closedir(d);
	return r;
}

static bool all_plain(const struct ignore *ig)
{
	for (size_t i = 0; i < ig->n; i++)
		if (!ig->v[i].plain || ig->v[i].name_only || ig->v[i].negative)
			return false;
	return true;
}

static bool any_plain_in_git(const char *path)
{
	return str_starts(path, ".git/") || strstr(path, "/.git/");
}

/* Plain patterns, one look-up each. @git_only: those that the walk did not reach. */
static int look_up(struct walk *w, bool git_only)
{
	for (size_t i = 0; i < w->ig->n; i++) {
		const struct ignore_pattern *p = &w->ig->v[i];
		AUTO_FREE(char, path);
		AUTO_FREE(char, tidy);
		AUTO_FD(fd);
		struct stat st;
		int r;

		if (!p->plain || p->name_only || p->negative)
			continue;
		path = xcalloc(1, p->n + 1);
		for (size_t k = 0; k < p->n; k++)
			path[k] = (char)p->t[k].byte;
		if (git_only && !any_plain_in_git(path))
			continue;
		/* ".." and the root itself are nothing that can be hidden. */
		fd = file_open_beneath(w->root, path, O_PATH | O_NOFOLLOW, 0);
		tidy = path_tidy("/", path);
		if (fd < 0 || fstat(fd, &st) < 0 || (p->dir_only && !S_ISDIR(st.st_mode)) || tidy[1] == '\0')
			continue;
		r = hit_mode(w, tidy + 1, st.st_mode, (int)i);
		if (r < 0)
			return r;
	}
	return 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct ignore_hit *)a)->path, ((const struct ignore_hit *)b)->path);
}

/* What lies in a hidden folder, or was found twice, goes. */
static void prune(struct ignore_hits *h)
{
	size_t to = 0;

	if (h->n > 0)
		qsort(h->v, h->n, sizeof(*h->v), by_path);
	for (size_t i = 0; i < h->n; i++) {
		bool gone = false;

		/* "a", "a-b", "a/c": the folder need not be the one before. Few hits, so all are asked. */
		for (size_t k = 0; k < to && !gone; k++)
			gone = path_within(h->v[k].path, h->v[i].path);
		if (gone)
			free(h->v[i].path);
		else
			h->v[to++] = h->v[i];
	}
	h->n = to;
}

int ignore_walk(struct ignore *ig, int dirfd, struct ignore_hits *ret, struct err *err)
{
	struct walk w = { .ig = ig, .root = dirfd, .err = err };
	int r, fd;

	if (ig->n == 0) {
		*ret = (struct ignore_hits){ 0 };
		return 0;
	}
	w.root_path = path_of(dirfd);
	w.used = xcalloc(ig->n, sizeof(*w.used));
	if (all_plain(ig)) {
		r = look_up(&w, false);
	} else {
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? err_set(err, -errno, "hidden files: the folder cannot be read: %s", strerror(errno)) :
			     walk_dir(&w, fd, 0, 0);
		if (r == 0)
			r = look_up(&w, true);
	}
	for (size_t i = 0; r == 0 && i < ig->n; i++)
		if (w.used[i])
			strv_add(&w.hits.patterns, ig->v[i].text);
	free(w.used);
	free(w.path);
	free(w.root_path);
	if (r < 0) {
		ignore_hits_done(&w.hits);
		return r;
	}
	prune(&w.hits);
	*ret = w.hits;
	return 0;
}
