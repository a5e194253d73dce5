#include "session/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/lock.h"

#define REGISTRY_LOCK "registry" /* in run/locks, beside names of 12 hex digits */
/* It is only held for some file operations; but who waits asks again and again, so on a busy machine others come first. */
#define REGISTRY_WAIT_MS 30000
#define PREFIX_MIN 4
#define LISTED_MAX 8 /* candidates in an error text */

int registry_lock(const struct state_root *root, struct err *err)
{
	int fd = lock_file_at(root->locks_fd, REGISTRY_LOCK, REGISTRY_WAIT_MS);

	if (fd < 0)
		return err_set(err, fd, "%s/run/locks/" REGISTRY_LOCK ": cannot be locked: %s; see what holds it, or set "
			       "AGENT_VM_STATE_DIR to another folder",
			       root->path, fd == -EWOULDBLOCK ? "another agent-vm holds it" : strerror(-fd));
	return fd;
}

int registry_each(int dirfd, int (*each)(const char *name, void *arg), void *arg)
{
	struct dirent *e;
	int fd, r = 0;
	DIR *d;

	/* Opened anew: a copy of @dirfd would share its place in the listing with everybody else's. */
	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	while (r >= 0 && (e = readdir(d)))
		if (session_name_is_ours(e->d_name))
			r = each(e->d_name, arg);
	(void)closedir(d);
	return r < 0 ? r : 0;
}

static int open_folder(int dirfd, const char *name)
{
	if (!session_name_is_ours(name))
		return -EINVAL;
	return file_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
}

int registry_open_session(const struct state_root *root, const char *name)
{
	return open_folder(root->sessions_fd, name);
}

int registry_open_logs(const struct state_root *root, const char *name)
{
	return open_folder(root->logs_fd, name);
}

/* The lock is only tried, and shared, so that two that look do not see each other. */
static bool lock_is_free(int dirfd)
{
	AUTO_FD(fd);

	fd = file_open_beneath(dirfd, SESSION_LOCK, O_RDONLY, 0);
	return fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0;
}

bool registry_is_gone(const struct state_root *root, const char *name)
{
	AUTO_FD(dir);

	dir = registry_open_session(root, name);
	return dir < 0 || lock_is_free(dir);
}

struct walk {
	const struct state_root *root;
	struct session_list *list;
};

static void list_take(struct session_list *l, struct session_info *info)
{
	l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = *info;
}

static int live_add(const char *name, void *arg)
{
	struct walk *w = arg;
	struct session_info info;
	AUTO_FD(dir);
	struct err why;
	int r;

	dir = registry_open_session(w->root, name);
	if (dir < 0 || lock_is_free(dir))
		return 0;
	r = session_info_read(dir, &info, &why);
	if (r < 0) {
		strv_addf(&w->list->warnings, "session %s: %s", name + strlen(SESSION_NAME_PREFIX), why.text);
		return 0;
	}
	/* The lock of a dead session is held by who is clearing it away. */
	if (strcmp(info.name, name) != 0 || proc_id_is_gone(&info.launcher)) {
		session_info_done(&info);
		return 0;
	}
	info.live = true;
	list_take(w->list, &info);
	return 0;
}

static int ended_add(const char *name, void *arg)
{
	struct walk *w = arg;
	struct session_info info;
	AUTO_FD(session);
	AUTO_FD(dir);
	struct stat st;
	struct err why;
	int r;

	session = registry_open_session(w->root, name);
	dir = registry_open_logs(w->root, name);
	if (dir < 0 || fstat(dir, &st) < 0)
		return 0;
	r = session_info_read(dir, &info, &why);
	if (r == -ENOENT && session >= 0)
		return 0; /* lives, or waits for being cleared away */
	if (r == -EOPNOTSUPP) {
		strv_addf(&w->list->warnings, "session %s: %s", name + strlen(SESSION_NAME_PREFIX), why.text);
		return 0;
	}
	if (r < 0) {
		session_info_from_name(name, &info);
		info.result = SESSION_LOST;
		info.started_ms = info.ended_ms = (int64_t)st.st_mtime * 1000;
	}
	/* The folder's name is what is opened, whatever the file says. */
	(void)snprintf(info.name, sizeof(info.name), "%s", name);
	list_take(w->list, &info);
	return 0;
}

static int newest_first(const void *va, const void *vb)
{
	const struct session_info *a = va, *b = vb;

	if (a->started_ms != b->started_ms)
		return a->started_ms < b->started_ms ? 1 : -1;
	return strcmp(a->name, b->name);
}

int registry_list(const struct state_root *root, int which, struct session_list *ret, struct err *err)
{
	struct session_list list = { NULL };
	struct walk w = { root, &list };
	AUTO_FD(lock);
	int r = 0;

	/* So that no lock is tried between its making and its taking. */
	lock = registry_lock(root, err);
	if (lock < 0)
		return lock;
	if (which & SESSIONS_LIVE)
		r = registry_each(root->sessions_fd, live_add, &w);
	if (r == 0 && (which & SESSIONS_ENDED))
		r = registry_each(root->logs_fd, ended_add, &w);
	if (r < 0) {
		session_list_done(&list);
		return err_set(err, r, "%s/run: cannot be listed: %s", root->path, strerror(-r));
	}
	if (list.n > 0)
		qsort(list.v, list.n, sizeof(*list.v), newest_first);
	*ret = list;
	return 0;
}

void session_list_done(struct session_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		session_info_done(&l->v[i]);
	free(l->v);
	strv_done(&l->warnings);
	*l = (struct session_list){ NULL };
}

const struct session_info *session_by_name(const struct session_list *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].live && strcmp(list->v[i].name, name) == 0)
			return &list->v[i];
	return NULL;
}

static const char *short_name(const struct session_info *info)
{
	return info->name + strlen(SESSION_NAME_PREFIX);
}

/* "a, b, c and 2 more" of those for which @marks is set; all with NULL. */
static char *candidates(const struct session_list *list, const bool *marks)
{
	char *text = xstrdup("");
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++) {
		char *more;

		if (marks && !marks[i])
			continue;
		if (n++ >= LISTED_MAX)
			continue;
		more = xasprintf("%s%s%s", text, n > 1 ? ", " : "", short_name(&list->v[i]));
		free(text);
		text = more;
	}
	if (n > LISTED_MAX) {
		char *more = xasprintf("%s and %zu more", text, n - LISTED_MAX);

		free(text);
		text = more;
	}
	return text;
}

/* The hash that a path stands for. A project's folder may be gone while its logs are there: then the path itself counts. */
static void path_hash(const char *what, char hash[PROJECT_HASH_LEN + 1])
{
	AUTO_FREE(char, path);
	size_t n;

	path = realpath(what, NULL);
	if (!path)
		path = xstrdup(what);
	n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	project_hash(path, n, hash);
}

static size_t mark(const struct session_list *list, const char *what, const char *hash, bool *marks)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++) {
		const char *name = short_name(&list->v[i]);

		marks[i] = hash ? strcmp(list->v[i].hash, hash) == 0 : str_starts(name, what);
		if (!hash && strcmp(name, what) == 0) {
			/* A whole name is that session, also where it begins another's ("-2"). */
			memset(marks, 0, list->n * sizeof(*marks));
			marks[i] = true;
			return 1;
		}
		n += marks[i];
	}
	return n;
}

static int none(const struct session_list *list, const char *what, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, all);

	all = candidates(list, NULL);
	if (!what && list->n == 0)
		return err_set(err, -ENOENT, "session: none for this project, and none at all; agent-vm ps lists them");
	if (!what)
		return err_set(err, -ENOENT, "session: none for this project; name one of: %s", all);
	shown = str_escape(what, strlen(what));
	if (list->n == 0)
		return err_set(err, -ENOENT, "session %s: there is none; agent-vm ps lists them", shown);
	return err_set(err, -ENOENT, "session %s: there is none; name one of: %s", shown, all);
}

int session_find(const struct session_list *list, const char *what, const char *here, bool newest,
		 const struct session_info **ret, struct err *err)
{
	AUTO_FREE(bool, marks);
	char hash_buf[PROJECT_HASH_LEN + 1];
	const char *typed = what, *hash = NULL;
	bool same = true;
	size_t n, first = 0;

	if (!what)
		hash = here;
	else if (strchr(what, '/') || strcmp(what, ".") == 0) {
		path_hash(what, hash_buf);
		hash = hash_buf;
	} else {
		if (*what == '\0')
			return err_set(err, -ENOENT, "session: its name is empty; agent-vm ps lists them");
		if (str_starts(what, SESSION_NAME_PREFIX))
			what += strlen(SESSION_NAME_PREFIX);
		if (strlen(what) < PREFIX_MIN) {
			AUTO_FREE(char, shown);

			shown = str_escape(typed, strlen(typed));
			return err_set(err, -ENOENT, "session %s: too short; write %d or more characters of its name, or a "
				       "path with /", shown, PREFIX_MIN);
		}
	}
	marks = xcalloc(list->n + 1, sizeof(*marks));
	n = mark(list, what, hash, marks);
	if (n == 0)
		return none(list, typed, err);
	while (!marks[first])
		first++;
	for (size_t i = first; i < list->n; i++)
		if (marks[i] && strcmp(list->v[i].hash, list->v[first].hash) != 0)
			same = false;
	if (n > 1 && !(newest && same)) {
		AUTO_FREE(char, all);
		AUTO_FREE(char, shown);

		all = candidates(list, marks);
		shown = typed ? str_escape(typed, strlen(typed)) : xstrdup("of this project");
		return err_set(err, -ENOTUNIQ, "session %s: there are %zu; name one of: %s", shown, n, all);
	}
	*ret = &list->v[first];
	return 0;
}

void session_up(const struct session_info *info, char *ret, size_t n)
{
	long ticks = sysconf(_SC_CLK_TCK);
	struct proc_id self;
	int64_t s;

	/* The process's own start, where it is of this boot: the clock on the wall can be set. */
	if (ticks > 0 && info->launcher.start > 0 && proc_id_self(&self) == 0 &&
	    strcmp(self.boot_id, info->launcher.boot_id) == 0)
		s = now_ns() / 1000000000 - (int64_t)(info->launcher.start / (uint64_t)ticks);
	else
		s = (int64_t)time(NULL) - info->started_ms / 1000;
	s = s < 0 ? 0 : s;
	if (s < 60)
		(void)snprintf(ret, n, "%ds", (int)s);
	else if (s < 3600)
		(void)snprintf(ret, n, "%dm", (int)(s / 60));
	else if (s < 2 * 86400)
		(void)snprintf(ret, n, "%dh", (int)(s / 3600));
	else
		(void)snprintf(ret, n, "%dd", (int)(s / 86400));
}

int session_others_note(const struct session *s, struct strv *ret, struct strv *names)
{
	struct session_list list;
	int r, n = 0;

	r = registry_list(s->root, SESSIONS_LIVE, &list, NULL);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++) {
		const struct session_info *o = &list.v[i];
		AUTO_FREE(char, verb);
		char up[24];

		if (strcmp(o->hash, s->info.hash) != 0 || strcmp(o->name, s->info.name) == 0)
			continue;
		session_up(o, up, sizeof(up));
		verb = str_escape(o->verb, strlen(o->verb));
		strv_addf(ret, "another session runs in this project: %s, pid %d, %s; history and settings are shared", verb,
			  (int)o->launcher.pid, up);
		strv_add(names, o->name);
		n++;
	}
	session_list_done(&list);
	return n;
}
