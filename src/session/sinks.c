#include "session/sinks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sha2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "session/gitconfig.h"
#include "session/gitdir.h"
#include "session/guard.h"
#include "session/path.h"
#include "session/sink_places.h"
#include "session/treewalk.h"

#define MARKS_MAX 20000	       /* a tree */
#define CONTENT_MAX (1 << 20)  /* bytes hashed; of a longer file size, times and inode count */
#define CONFIGS_MAX 1000       /* different ones of a tree */
#define FOLDER_MAX 2000	       /* entries of one hooks folder */
#define MODULES_MAX 20000      /* entries below modules/ and worktrees/ */
#define ITEMS_SHOWN 20

struct mark {
	char *id;
	char *shown; /* for the report, escaped */
	enum sink_class class;
	bool only_changed; /* nothing when it is new */
	uint8_t hash[SHA256_DIGEST_LENGTH];
};

struct tree {
	char *path;
	int fd;
	struct mark *v;
	size_t n, room;
	int64_t until;
	bool cut;
	struct strv *hooks_paths;   /* of all trees: a config and the folder it names can lie in two */
	struct strv configs, bases; /* git configs, and the top of the work tree that each counts for */
	size_t n_configs_read;
};

struct sinks {
	struct tree *v;
	size_t n;
};

/* A tree can hold more to read than there is time. */
static bool is_spent(struct tree *t)
{
	if (t->n < MARKS_MAX && now_ns() <= t->until)
		return false;
	t->cut = true;
	return true;
}

static void mark(struct tree *t, char *id, char *shown, enum sink_class class, bool only_changed, const SHA2_CTX *sum)
{
	struct mark m = { .id = id, .shown = shown, .class = class, .only_changed = only_changed };
	SHA2_CTX copy = *sum;

	SHA256Final(m.hash, &copy);
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->v = xrealloc(t->v, t->room * sizeof(*t->v));
	}
	t->v[t->n++] = m;
}

/* Opens @rel below the tree; links are followed as long as they stay in it. */
static int open_in(const struct tree *t, const char *rel, int flags)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	char to[PATH_MAX];
	AUTO_FREE(char, tidy);
	const char *rest;
	ssize_t n;
	long fd;

	fd = syscall(SYS_openat2, t->fd, *rel ? rel : ".", &how, sizeof(how));
	if (fd >= 0 || errno != EXDEV)
		return fd < 0 ? -errno : (int)fd;
	/* An absolute link back into the tree. */
	n = readlinkat(t->fd, rel, to, sizeof(to) - 1);
	if (n <= 0 || to[0] != '/')
		return -EXDEV;
	to[n] = '\0';
	tidy = path_tidy("/", to);
	rest = path_rest(t->path, tidy);
	if (!rest)
		return -EXDEV;
	fd = syscall(SYS_openat2, t->fd, *rest ? rest : ".", &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static void sum_text(SHA2_CTX *sum, const char *s)
{
	SHA256Update(sum, (const uint8_t *)s, strlen(s) + 1);
}

static void sum_content(const struct tree *t, const char *rel, SHA2_CTX *sum)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	struct stat st;
	size_t n;

	fd = open_in(t, rel, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		sum_text(sum, "unreadable");
		return;
	}
	sum_text(sum, S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "folder" : "other");
	if (!S_ISREG(st.st_mode))
		return;
	sum_text(sum, st.st_mode & 0111 ? "x" : "-");
	if (fd_read_file(fd, CONTENT_MAX, &text, &n) == 0) {
		SHA256Update(sum, (const uint8_t *)text, n);
		return;
	}
	SHA256Update(sum, (const uint8_t *)&st.st_ino, sizeof(st.st_ino));
	SHA256Update(sum, (const uint8_t *)&st.st_size, sizeof(st.st_size));
	SHA256Update(sum, (const uint8_t *)&st.st_ctim, sizeof(st.st_ctim));
}

/* Of what is at @rel: kind, exec bit, content; of a link where it leads and, in the tree, what is there. */
static void mark_file(struct tree *t, const char *rel, enum sink_class class, bool only_changed)
{
	char to[PATH_MAX];
	AUTO_FD(fd);
	struct stat st;
	SHA2_CTX sum;
	ssize_t n;

	if (is_spent(t))
		return;
	fd = file_open_beneath(t->fd, rel, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	SHA256Init(&sum);
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(fd, "", to, sizeof(to) - 1);
		to[n > 0 ? n : 0] = '\0';
		sum_text(&sum, "link");
		sum_text(&sum, to);
	}
	sum_content(t, rel, &sum);
	mark(t, xstrdup(rel), path_shown(rel), class, only_changed, &sum);
}

/* A folder as such: that it is there. @rel with a slash at its end. */
static void mark_folder(struct tree *t, const char *rel)
{
	SHA2_CTX sum;

	if (is_spent(t))
		return;
	SHA256Init(&sum);
	sum_text(&sum, "git directory");
	mark(t, xstrdup(rel), *rel ? path_shown(rel) : xstrdup("./"), SINK_ITSELF, false, &sum);
}

/* Hooks: what lies directly in the folder. git runs no *.sample. */
static void hooks(struct tree *t, const char *rel)
{
	size_t n = 0;
	struct dirent *e;
	struct stat st;
	int fd, link;
	DIR *d;

	link = file_open_beneath(t->fd, rel, O_PATH | O_NOFOLLOW, 0);
	if (link >= 0 && fstat(link, &st) == 0 && !S_ISDIR(st.st_mode))
		mark_file(t, rel, SINK_ITSELF, false);
	if (link >= 0)
		(void)close(link);
	fd = open_in(t, rel, O_RDONLY | O_DIRECTORY);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((e = readdir(d))) {
		AUTO_FREE(char, id);
		size_t len = strlen(e->d_name);
		SHA2_CTX sum;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    (len > 7 && strcmp(e->d_name + len - 7, ".sample") == 0))
			continue;
		if (++n > FOLDER_MAX)
			t->cut = true;
		if (n > FOLDER_MAX || is_spent(t))
			break;
		id = path_join(rel, e->d_name);
		SHA256Init(&sum);
		sum_content(t, id, &sum);
		mark(t, xstrdup(id), path_shown(id), SINK_ITSELF, false, &sum);
	}
	(void)closedir(d);
}

struct config {
	struct tree *t;
	const char *rel;    /* of the file */
	const char *base;   /* folder that a relative hooksPath is about */
};

/* Each is read once, however often it is included: 200 lines that include their own file must not take all the time. */
static void config_add(struct tree *t, const char *rel, const char *base)
{
	for (size_t i = 0; i < t->configs.n; i++)
		if (strcmp(t->configs.v[i], rel) == 0 && strcmp(t->bases.v[i], base) == 0)
			return;
	if (t->configs.n == CONFIGS_MAX) {
		t->cut = true;
		return;
	}
	strv_add(&t->configs, rel);
	strv_add(&t->bases, base);
}

/* @path of a setting, as a path in the tree. NULL: outside. Caller owns. */
static char *in_tree(const struct tree *t, const char *base, const char *path)
{
	AUTO_FREE(char, full);
	AUTO_FREE(char, tidy);
	const char *rest;

	full = path_join(t->path, base);
	tidy = path_tidy(full, path);
	rest = path_rest(t->path, tidy);
	return rest ? xstrdup(rest) : NULL;
}

static char *dir_of(const char *rel)
{
	const char *slash = strrchr(rel, '/');

	return slash ? xstrndup(rel, (size_t)(slash - rel)) : xstrdup("");
}

static int config_each(const struct gitconfig_entry *e, void *arg)
{
	const struct config *c = arg;
	const char *value = e->value ? e->value : "true";
	AUTO_FREE(char, name);
	AUTO_FREE(char, file);
	AUTO_FREE(char, text);
	AUTO_FREE(char, at);
	SHA2_CTX sum;
	char *id;

	if (sink_config_is_harmless(e))
		return 0;
	if (is_spent(c->t))
		return 1;
	name = gitconfig_name(e);
	file = path_shown(c->rel);
	text = gitconfig_shown(name, value);
	SHA256Init(&sum);
	sum_text(&sum, value);
	id = xasprintf("%s\n%s", c->rel, name);
	mark(c->t, id, xasprintf("%s %s", file, text), SINK_ITSELF, false, &sum);
	if (strcmp(e->section, "core") == 0 && !e->sub && strcmp(e->key, "hookspath") == 0) {
		strv_add(c->t->hooks_paths, value);
		at = in_tree(c->t, c->base, value);
		if (at && *at)
			hooks(c->t, at);
	} else if ((strcmp(e->section, "include") == 0 || strcmp(e->section, "includeif") == 0) && strcmp(e->key, "path") == 0) {
		AUTO_FREE(char, dir);

		dir = dir_of(c->rel);
		at = in_tree(c->t, dir, value);
		if (at && *at)
			config_add(c->t, at, c->base);
	}
	return 0;
}

/* A git config: its settings that can start something; as a whole when it is none, or a link. */
static void config_read(struct tree *t, const char *rel, const char *base)
{
	struct config c = { .t = t, .rel = rel, .base = base };
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	struct stat st;
	size_t n;

	fd = file_open_beneath(t->fd, rel, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		mark_file(t, rel, SINK_ITSELF, false);
	(void)close_p(&fd);
	fd = open_in(t, rel, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	if (fd_read_file(fd, GITCONFIG_MAX, &text, &n) < 0 || gitconfig_read(text, n, config_each, &c) < 0)
		mark_file(t, rel, SINK_ITSELF, false);
}

/* With what it includes, one after the other, so that a chain of them costs no more memory than the longest. */
static void config(struct tree *t, const char *rel, const char *base)
{
	config_add(t, rel, base);
	for (; t->n_configs_read < t->configs.n; t->n_configs_read++) {
		AUTO_FREE(char, at);
		AUTO_FREE(char, of);

		if (is_spent(t))
			return;
		/* strv_add() may move what it holds. */
		at = xstrdup(t->configs.v[t->n_configs_read]);
		of = xstrdup(t->bases.v[t->n_configs_read]);
		config_read(t, at, of);
	}
}

static void git_directory(struct tree *t, const char *rel, const char *base);

struct modules {
	struct tree *t;
	const char *rel;
	const char *base;
};

/* What of a git directory has no places, or is walked by git_directory(). */
static bool is_bulk(const struct tree_entry *e)
{
	static const char *const names[] = { "objects", "refs", "logs", "lfs", "modules", "worktrees" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(e->name, names[i]) == 0)
			return gitdir_looks_like(e->dirfd);
	return false;
}

static enum tree_next modules_each(const struct tree_entry *e, void *arg)
{
	const struct modules *m = arg;

	if (strcmp(e->name, "HEAD") == 0 && gitdir_looks_like(e->dirfd)) {
		AUTO_FREE(char, below);
		AUTO_FREE(char, dir);

		below = dir_of(e->path);
		dir = path_join(m->rel, below);
		git_directory(m->t, dir, m->base);
	}
	return is_bulk(e) ? TREE_PASS : TREE_ENTER;
}

static enum tree_next worktrees_each(const struct tree_entry *e, void *arg)
{
	const struct modules *m = arg;
	AUTO_FREE(char, path);

	if (e->type == DT_DIR)
		return strchr(e->path, '/') ? TREE_PASS : TREE_ENTER;
	path = path_join(m->rel, e->path);
	if (strcmp(e->name, "config.worktree") == 0)
		config(m->t, path, m->base);
	else if (strcmp(e->name, "commondir") == 0 || strcmp(e->name, "gitdir") == 0)
		mark_file(m->t, path, SINK_ITSELF, true); /* a new one is nothing without a .git that points to it */
	return TREE_PASS;
}

static void below(struct tree *t, const char *rel, const char *base, enum tree_next (*each)(const struct tree_entry *, void *))
{
	struct modules m = { .t = t, .rel = rel, .base = base };
	struct tree_walk w = { .each = each, .arg = &m, .entries_max = MODULES_MAX };
	AUTO_FD(fd);

	if (is_spent(t))
		return;
	w.time_ms = (int)((t->until - now_ns()) / 1000000) + 1;
	fd = file_open_beneath(t->fd, rel, O_PATH | O_DIRECTORY, 0);
	if (fd == -ELOOP || fd == -ENOTDIR)
		mark_file(t, rel, SINK_ITSELF, false); /* what it leads to in the tree is found as a git directory of its own */
	if (fd < 0)
		return;
	tree_walk(fd, &w);
	t->cut |= w.cut;
}

/* @base: top of its work tree. */
static void git_directory(struct tree *t, const char *rel, const char *base)
{
	static const char *const names[] = { "hooks", "config", "config.worktree", "commondir", "modules", "worktrees" };
	char *at[ARRAY_SIZE(names)];
	AUTO_FREE(char, text);
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		at[i] = *rel ? path_join(rel, names[i]) : xstrdup(names[i]);
	hooks(t, at[0]);
	config(t, at[1], base);
	config(t, at[2], base);
	/* One that says "." changes nothing, and is made by the guard. */
	if (file_read_beneath(t->fd, at[3], sizeof(GUARD_COMMONDIR), &text, &n) < 0 || strcmp(text, GUARD_COMMONDIR) != 0)
		mark_file(t, at[3], SINK_ITSELF, false);
	below(t, at[4], base, modules_each);
	below(t, at[5], base, worktrees_each);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		free(at[i]);
}

static enum tree_next each(const struct tree_entry *e, void *arg)
{
	struct tree *t = arg;
	AUTO_FREE(char, dir);
	enum sink_class class;

	dir = dir_of(e->path);
	if (strcmp(e->name, ".git") == 0) {
		if (e->type == DT_DIR) {
			AUTO_FREE(char, shown);

			shown = xasprintf("%s/", e->path);
			mark_folder(t, shown);
			git_directory(t, e->path, dir);
		} else {
			mark_file(t, e->path, SINK_ITSELF, false);
		}
		return TREE_PASS;
	}
	if (strcmp(e->name, "HEAD") == 0 && gitdir_looks_like(e->dirfd)) {
		AUTO_FREE(char, shown);

		shown = *dir ? xasprintf("%s/", dir) : xstrdup("");
		mark_folder(t, shown);
		git_directory(t, dir, dir);
	}
	if (e->type == DT_DIR)
		return is_bulk(e) ? TREE_PASS : TREE_ENTER;
	class = sink_class_of(e->path);
	if (class != SINK_NONE)
		mark_file(t, e->path, class, false);
	return TREE_PASS;
}

static int by_id(const void *pa, const void *pb)
{
	return strcmp(((const struct mark *)pa)->id, ((const struct mark *)pb)->id);
}

static void take(struct tree *t)
{
	struct tree_walk w = { .each = each, .arg = t };

	t->fd = open(t->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (t->fd < 0) {
		t->cut = true;
		return;
	}
	t->until = now_ns() + (int64_t)TREE_TIME_MS * 1000000;
	tree_walk(t->fd, &w);
	t->cut |= w.cut;
}

/* core.hooksPath of the user's own settings counts in every work tree. */
static int own_each(const struct gitconfig_entry *e, void *arg)
{
	if (strcmp(e->section, "core") == 0 && !e->sub && strcmp(e->key, "hookspath") == 0 && e->value)
		strv_add(arg, e->value);
	return 0;
}

static void own_hooks_paths(const char *home, struct strv *ret)
{
	static const char *const files[] = { ".gitconfig", ".config/git/config" };

	for (size_t i = 0; home && i < ARRAY_SIZE(files); i++) {
		AUTO_FREE(char, path);
		AUTO_FREE(char, text);
		AUTO_FD(fd);
		size_t n;

		path = path_join(home, files[i]);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd >= 0 && fd_read_file(fd, GITCONFIG_MAX, &text, &n) == 0)
			(void)gitconfig_read(text, n, own_each, ret);
	}
}

/* Those of the trees' tops: relative to the top of the work tree, whichever that is. */
static void take_hooks_paths(struct tree *t)
{
	for (size_t i = 0; t->fd >= 0 && i < t->hooks_paths->n; i++) {
		AUTO_FREE(char, at);

		at = in_tree(t, "", t->hooks_paths->v[i]);
		if (at && *at && !is_spent(t))
			hooks(t, at);
	}
}

struct sinks *sinks_take(const struct strv *trees, const char *home)
{
	struct sinks *s = xcalloc(1, sizeof(*s));
	struct strv hooks_paths = { 0 };

	own_hooks_paths(home, &hooks_paths);
	s->v = xcalloc(trees->n + 1, sizeof(*s->v));
	for (size_t i = 0; i < trees->n; i++) {
		bool part = false;

		for (size_t k = 0; k < trees->n && !part; k++)
			part = k != i && path_within(trees->v[k], trees->v[i]) &&
			       (k < i || strcmp(trees->v[k], trees->v[i]) != 0);
		if (part)
			continue;
		s->v[s->n] = (struct tree){ .path = xstrdup(trees->v[i]), .fd = -1, .hooks_paths = &hooks_paths };
		take(&s->v[s->n++]);
	}
	for (size_t i = 0; i < s->n; i++) {
		struct tree *t = &s->v[i];

		take_hooks_paths(t);
		if (t->n > 0)
			qsort(t->v, t->n, sizeof(*t->v), by_id);
		(void)close_p(&t->fd);
		strv_done(&t->configs);
		strv_done(&t->bases);
		t->hooks_paths = NULL;
	}
	strv_done(&hooks_paths);
	return s;
}

void sinks_free(struct sinks *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		for (size_t k = 0; k < s->v[i].n; k++) {
			free(s->v[i].v[k].id);
			free(s->v[i].v[k].shown);
		}
		free(s->v[i].v);
		free(s->v[i].path);
	}
	free(s->v);
	free(s);
}

enum change { SAME, CHANGED, NEW };

/* A setting may have several values, so one of several marks may be the same. */
static enum change change_of(const struct tree *before, const struct mark *m)
{
	const struct mark *at = before->n ? bsearch(m, before->v, before->n, sizeof(*m), by_id) : NULL;

	if (!at)
		return m->only_changed ? SAME : NEW;
	while (at > before->v && strcmp(at[-1].id, m->id) == 0)
		at--;
	for (; at < before->v + before->n && strcmp(at->id, m->id) == 0; at++)
		if (memcmp(at->hash, m->hash, sizeof(m->hash)) == 0)
			return SAME;
	return CHANGED;
}

/* What decides about later sessions is also missed when it is gone. */
static void removed(const struct tree *before, const struct tree *after, struct strv *ret)
{
	static const char *const names[] = { ".agent-vm.conf", ".agentvmignore" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct mark key = { .id = xstrdup(names[i]) };
		bool was = before->n && bsearch(&key, before->v, before->n, sizeof(key), by_id);
		bool is = after->n && bsearch(&key, after->v, after->n, sizeof(key), by_id);

		if (was && !is)
			strv_addf(ret, "%s (removed)", names[i]);
		free(key.id);
	}
}

/* "a, b (new)": one text for those of one kind, a tail counted. */
static void group(const struct strv *names, const char *kind, struct strv *ret)
{
	char *text = NULL;

	for (size_t i = 0; i < names->n && i <= ITEMS_SHOWN; i++) {
		char *more = i == ITEMS_SHOWN ? xasprintf("%s and %zu more", text, names->n - i) :
						xasprintf("%s%s%s", text ? text : "", text ? ", " : "", names->v[i]);

		free(text);
		text = more;
	}
	if (text)
		strv_addf(ret, "%s (%s)", text, kind);
	free(text);
}

static void compare(const struct tree *before, const struct tree *after, struct sinks_left *ret)
{
	struct strv fresh = { 0 }, changed = { 0 };
	const char *last = "";

	for (size_t i = 0; i < after->n; i++) {
		const struct mark *m = &after->v[i];
		enum change c = change_of(before, m);

		if (c == SAME)
			continue;
		if (m->class == SINK_BUILD)
			strv_add(c == NEW ? &fresh : &changed, m->shown);
		else if (strcmp(last, m->shown) != 0) /* hooks can be reached in two ways */
			strv_addf(&ret->itself, "%s (%s)", m->shown, c == NEW ? "new" : "changed");
		last = m->shown;
	}
	removed(before, after, &ret->itself);
	group(&fresh, "new", &ret->build);
	group(&changed, "changed", &ret->build);
	strv_done(&fresh);
	strv_done(&changed);
	ret->tree = xstrdup(after->path);
	ret->cut = before->cut || after->cut;
}

void sinks_compare(const struct sinks *before, const struct sinks *after, struct sinks_left **ret, size_t *ret_n)
{
	struct sinks_left *v = xcalloc(after->n + 1, sizeof(*v));
	static const struct tree nothing;

	for (size_t i = 0; i < after->n; i++) {
		const struct tree *was = &nothing;

		for (size_t k = 0; k < before->n; k++)
			if (strcmp(before->v[k].path, after->v[i].path) == 0)
				was = &before->v[k];
		compare(was, &after->v[i], &v[i]);
	}
	*ret = v;
	*ret_n = after->n;
}

void sinks_left_free(struct sinks_left *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].tree);
		strv_done(&v[i].itself);
		strv_done(&v[i].build);
	}
	free(v);
}

static void print_row(FILE *to, const char *label, const struct strv *items)
{
	if (items->n == 0)
		return;
	(void)fprintf(to, "    %-18s", label);
	for (size_t i = 0; i < items->n && i < ITEMS_SHOWN; i++)
		(void)fprintf(to, "%s%s", i ? ", " : "", items->v[i]);
	if (items->n > ITEMS_SHOWN)
		(void)fprintf(to, " and %zu more", items->n - ITEMS_SHOWN);
	(void)fputc('\n', to);
}

void sinks_print(FILE *to, const struct sinks_left *v, size_t n, bool quiet)
{
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE(char, shown);

		shown = path_shown(v[i].tree);
		if (v[i].itself.n > 0 || (v[i].build.n > 0 && !quiet)) {
			(void)fprintf(to, "==> left in %s by this session:\n", shown);
			print_row(to, "runs by itself", &v[i].itself);
			if (!quiet)
				print_row(to, "runs on build", &v[i].build);
		}
		if (v[i].cut)
			(void)fprintf(to, "agent-vm: warning: %s: is too large to be looked through, or parts cannot be read; what this "
					  "session left there may be more than is listed\n",
				      shown);
	}
}
