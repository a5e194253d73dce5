#include "session/guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "session/confdiff.h"
#include "session/gitconfig.h"
#include "session/gitindex.h"
#include "session/path.h"
#include "session/treewalk.h"

struct walk {
	struct guard *g;
	struct findings *found;
	bool config_rw;
	size_t n_entries;
	const char *common; /* for texts */
	const char *admin;  /* the worktree that is the project's; others are read-only whole */
	bool worktree_config; /* extensions.worktreeConfig of the common directory */
};

void guard_done(struct guard *g)
{
	strv_done(&g->ro);
	strv_done(&g->self);
	strv_done(&g->make);
	strv_done(&g->configs);
}

/* 0 and the type when @name is there; negative errno. */
static int kind_of(int dirfd, const char *name, mode_t *ret)
{
	AUTO_FD(fd);
	struct stat st;

	fd = file_open_beneath(dirfd, name, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = st.st_mode & S_IFMT;
	return 0;
}

static void odd(struct walk *w, const char *path)
{
	AUTO_FREE(char, shown);

	shown = path_shown(path);
	findings_add(w->found, FINDING_WARNING,
		     "%s: is a link or no plain file, and cannot be kept read-only for the guest; what changes is reported at the "
		     "end, a plain one would be guarded",
		     shown);
}

/* Read-only when it is there as @kind. Returns 1: it is; 0: missing; other kinds are warned of. */
static int ro_if_there(struct walk *w, int dirfd, const char *dir, const char *name, mode_t kind)
{
	AUTO_FREE(char, path);
	mode_t mode;

	path = path_join(dir, name);
	if (kind_of(dirfd, name, &mode) < 0)
		return 0;
	if (mode != kind) {
		odd(w, path);
		return 1;
	}
	strv_add(&w->g->ro, path);
	return 1;
}

static bool worktree_config_on(int dirfd)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, value);
	size_t n;
	int r;

	/* A config that cannot be read counts as one that has it on; the file more does no harm. */
	r = file_read_beneath(dirfd, "config", GITCONFIG_MAX, &text, &n);
	if (r < 0)
		return r != -ENOENT;
	switch (gitconfig_get(text, n, "extensions", "worktreeconfig", &value)) {
	case 0:
		return gitconfig_true(value);
	case -ENOENT:
		return false;
	default:
		return true;
	}
}

/* A file that git reads only where it is there: read-only, made when missing. */
static void ro_made(struct walk *w, int fd, const char *dir, const char *name, mode_t kind)
{
	AUTO_FREE(char, path);
	struct stat st;
	mode_t mode;
	int r;

	path = path_join(dir, name);
	r = kind_of(fd, name, &mode);
	if (r == 0 && mode != kind) {
		odd(w, path);
		return;
	}
	/* Where the user cannot make it the guest cannot either, unless it could give itself the right. */
	if (r == -ENOENT && faccessat(fd, ".", W_OK, AT_EACCESS) < 0 &&
	    (errno == EROFS || (fstat(fd, &st) == 0 && st.st_uid != geteuid())))
		return;
	strv_add(&w->g->ro, path);
	strv_add(&w->g->make, path);
}

/* With a commondir git takes core.bare and core.worktree as not said (setup.c of git 2.39: they would be those of the
 * main work tree). For a submodule's git directory that is what the place of its work tree says anyway. */
static bool says_where_the_tree_is(int fd, const char *dir)
{
	const char *name = strrchr(dir, '/');
	AUTO_FREE(char, text);
	AUTO_FREE(char, bare);
	AUTO_FREE(char, tree);
	size_t n;

	if (file_read_beneath(fd, "config", GITCONFIG_MAX, &text, &n) < 0)
		return false;
	if (name && strcmp(name, "/.git") == 0 && gitconfig_get(text, n, "core", "bare", &bare) == 0 && gitconfig_true(bare))
		return true;
	return !strstr(dir, "/modules/") && gitconfig_get(text, n, "core", "worktree", &tree) == 0;
}

static void commondir(struct walk *w, int fd, const char *dir)
{
	AUTO_FREE(char, shown);
	mode_t mode;

	if (gitdir_has_other_common(fd)) {
		(void)ro_if_there(w, fd, dir, "commondir", S_IFREG);
	} else if (kind_of(fd, "commondir", &mode) < 0 && says_where_the_tree_is(fd, dir)) {
		shown = path_shown(dir);
		findings_add(w->found, FINDING_WARNING,
			     "%s: its config has core.bare or core.worktree, so the file commondir in it cannot be kept from "
			     "being made; run no git there before you have read what the report at the end says",
			     shown);
	} else {
		ro_made(w, fd, dir, "commondir", S_IFREG);
	}
}

/* A config that is left writable. What cannot be compared cannot be watched. */
static void rw_watched(struct walk *w, int fd, const char *dir, const char *name)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, shown);
	AUTO_FREE(char, text);
	struct buf record;
	size_t n;
	int r;

	path = path_join(dir, name);
	r = file_read_beneath(fd, name, GITCONFIG_MAX, &text, &n);
	if (r == 0) {
		r = confdiff_record(SPAN(text, n), &record);
		buf_done(&record);
	}
	if (r < 0 && r != -ENOENT) {
		shown = path_shown(path);
		findings_add(w->found, FINDING_WORLD,
			     "--git-config rw: %s: cannot be watched, since it is no plain file, or holds what git would not read; "
			     "repair it, or leave the option out",
			     shown);
	}
	strv_add(&w->g->configs, path);
}

/* The places that every git directory has. */
static void git_places(struct walk *w, int fd, const char *dir)
{
	bool worktree_config = worktree_config_on(fd);

	ro_made(w, fd, dir, "hooks", S_IFDIR);
	if (w->config_rw) {
		rw_watched(w, fd, dir, "config");
		rw_watched(w, fd, dir, "config.worktree");
	} else {
		ro_made(w, fd, dir, "config", S_IFREG);
		if (worktree_config)
			ro_made(w, fd, dir, "config.worktree", S_IFREG);
		else
			(void)ro_if_there(w, fd, dir, "config.worktree", S_IFREG);
	}
	commondir(w, fd, dir);
}

static int too_much(struct walk *w)
{
	AUTO_FREE(char, shown);

	shown = path_shown(w->common);
	findings_add(w->found, FINDING_WORLD,
		     "%s: has more or deeper modules and worktrees than can be guarded (%d folders); take old ones out of it, or "
		     "write --git-dir none where the git directory lies outside the project",
		     shown, GUARD_ENTRIES_MAX);
	return -E2BIG;
}

typedef int each_fn(struct walk *w, int fd, const char *path, int depth);

/* Calls @each for every folder in the folder @name; links and files are passed over. */
static int each_folder(struct walk *w, int at, const char *name, const char *path, int depth, each_fn *each)
{
	struct dirent *e;
	DIR *d;
	int fd, r = 0;

	if (depth > GUARD_MODULE_DEPTH)
		return too_much(w);
	fd = file_open_beneath(at, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		(void)close(fd);
		return -ENOMEM;
	}
	while (r == 0 && (e = readdir(d))) {
		AUTO_FREE(char, below);
		AUTO_FD(sub);

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (++w->n_entries > GUARD_ENTRIES_MAX) {
			r = too_much(w);
			break;
		}
		if (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN)
			continue;
		sub = file_open_beneath(dirfd(d), e->d_name, O_PATH | O_DIRECTORY, 0);
		if (sub == -ENOTDIR || sub == -ELOOP || sub == -ENOENT)
			continue;
		below = path_join(path, e->d_name);
		r = sub < 0 ? sub : each(w, sub, below, depth);
	}
	(void)closedir(d);
	return r;
}

static int modules_in(struct walk *w, int fd, const char *dir, int depth);
static int one_module(struct walk *w, int fd, const char *path, int depth);

/* A folder of a git directory in modules/: what git keeps there holds no modules. */
static int in_module(struct walk *w, int fd, const char *path, int depth)
{
	static const char *const names[] = { "annex", "hooks",   "info", "lfs",	   "logs",	"modules",
					     "objects", "refs", "rr-cache", "svn", "worktrees" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(strrchr(path, '/') + 1, names[i]) == 0)
			return 0;
	return one_module(w, fd, path, depth);
}

/* A folder in modules/: a git directory, or, as names may hold slashes, one that holds some. A guest can take HEAD away for
 * the time of a launch, but not the config that was guarded; and it can make the second kind look like the first. */
static int one_module(struct walk *w, int fd, const char *path, int depth)
{
	mode_t mode;
	int r;

	if (!gitdir_looks_like(fd) && (kind_of(fd, "config", &mode) < 0 || mode == S_IFDIR))
		return each_folder(w, fd, ".", path, depth + 1, one_module);
	git_places(w, fd, path);
	r = modules_in(w, fd, path, depth + 1);
	return r < 0 ? r : each_folder(w, fd, ".", path, depth + 1, in_module);
}

static int modules_in(struct walk *w, int fd, const char *dir, int depth)
{
	AUTO_FREE(char, path);
	mode_t mode;

	path = path_join(dir, "modules");
	if (kind_of(fd, "modules", &mode) < 0) {
		return 0;
	}
	if (mode != S_IFDIR) {
		odd(w, path);
		return 0;
	}
	return each_folder(w, fd, "modules", path, depth, one_module);
}

/* Of a project that is the main work tree, or of this worktree: what names the git directory and the config. */
static int worktree_files(struct walk *w, int fd, const char *path)
{
	(void)ro_if_there(w, fd, path, "commondir", S_IFREG);
	(void)ro_if_there(w, fd, path, "gitdir", S_IFREG);
	if (w->config_rw)
		rw_watched(w, fd, path, "config.worktree");
	else if (w->worktree_config)
		ro_made(w, fd, path, "config.worktree", S_IFREG);
	else
		(void)ro_if_there(w, fd, path, "config.worktree", S_IFREG);
	return 0;
}

static int one_worktree(struct walk *w, int fd, const char *path, int depth)
{
	if (!w->admin || strcmp(path, w->admin) == 0)
		return worktree_files(w, fd, path);
	strv_add(&w->g->ro, path);
	return 0;
}

int guard_git(struct guard *g, const char *common, const char *admin, bool config_rw, struct findings *found)
{
	struct walk w = { .g = g, .found = found, .config_rw = config_rw, .common = common, .admin = admin };
	AUTO_FREE(char, worktrees);
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	mode_t mode;
	int r;

	shown = path_shown(common);
	fd = open(common, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		findings_add(found, FINDING_WORLD, "%s: cannot be opened to guard it: %s; repair it", shown, strerror(-r));
		return r;
	}
	w.worktree_config = worktree_config_on(fd);
	git_places(&w, fd, common);
	r = modules_in(&w, fd, common, 0);
	if (r == 0 && kind_of(fd, "worktrees", &mode) == 0 && mode == S_IFDIR) {
		worktrees = path_join(common, "worktrees");
		r = each_folder(&w, fd, "worktrees", worktrees, 0, one_worktree);
	}
	if (r == 0 && g->ro.n > GUARD_PLACES_MAX)
		r = too_much(&w);
	if (r < 0 && r != -E2BIG)
		findings_add(found, FINDING_WORLD, "%s: cannot be looked through to guard it: %s; repair it", shown, strerror(-r));
	return r;
}

/* The entry .git of @dir: file: read-only; folder: stays where it is. Returns its type, 0 when there is none. */
static mode_t git_entry(struct walk *w, int fd, const char *dir)
{
	AUTO_FREE(char, entry);
	mode_t mode;

	entry = path_join(dir, ".git");
	if (kind_of(fd, ".git", &mode) < 0)
		return 0;
	if (mode == S_IFDIR)
		strv_add(&w->g->self, entry);
	else if (mode == S_IFREG)
		strv_add(&w->g->ro, entry);
	else
		odd(w, entry);
	return mode;
}

int guard_top(struct guard *g, const char *dir, struct findings *found)
{
	struct walk w = { .g = g, .found = found, .common = dir };
	AUTO_FD(fd);

	fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)git_entry(&w, fd, dir);
	(void)ro_if_there(&w, fd, dir, ".agentvmignore", S_IFREG);
	(void)ro_if_there(&w, fd, dir, ".agent-vm.conf", S_IFREG);
	return 0;
}

/* A repository that was met. */
struct repo {
	char *top;    /* relative to the walk's; "" is that itself */
	char *gitdir; /* host path of the folder with its index; NULL: unknown */
	char *common; /* host path */
	bool guarded;
	bool loaded, all; /* all: what its submodules are cannot be known, so everything inside counts as one */
	struct strv links; /* sorted */
};

struct below {
	struct walk w;
	const char *top;
	void *repos; /* tsearch(3) by top */
	int r;
};

static int by_top(const void *a, const void *b)
{
	return strcmp(((const struct repo *)a)->top, ((const struct repo *)b)->top);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void repo_free(void *arg)
{
	struct repo *p = arg;

	free(p->top);
	free(p->gitdir);
	free(p->common);
	strv_done(&p->links);
	free(p);
}

static void repo_add(struct below *b, char *top, char *gitdir, char *common, bool guarded)
{
	struct repo *p = xmalloc(sizeof(*p));

	*p = (struct repo){ .top = top, .gitdir = gitdir, .common = common, .guarded = guarded };
	/* One that is there already was met twice by a walk that raced with renames; the first counts. */
	if (*(struct repo **)tsearch(p, &b->repos, by_top) != p)
		repo_free(p);
}

static void repo_load(struct repo *p)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	size_t n;
	int r;

	p->loaded = true;
	p->all = true;
	fd = p->gitdir ? open(p->gitdir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	r = file_read_beneath(fd, "index", GITINDEX_MAX, &text, &n);
	p->all = r != -ENOENT && (r < 0 || gitindex_links(SPAN(text, n), &p->links) < 0);
	if (p->links.n > 0)
		qsort(p->links.v, p->links.n, sizeof(*p->links.v), by_text);
}

/* The innermost repository around @path; @ret_rest: what of @path lies in it. */
static struct repo *around(struct below *b, const char *path, const char **ret_rest)
{
	AUTO_FREE(char, top);
	struct repo key = { .top = NULL };
	struct repo *const *found = NULL;

	key.top = top = xstrdup(path);
	while (!found && *top) {
		char *slash = strrchr(top, '/');

		*(slash ? slash : top) = '\0';
		found = tfind(&key, &b->repos, by_top);
	}
	*ret_rest = path + strlen(top) + (*top != '\0');
	return found ? *found : NULL;
}

static bool is_link_of(const struct repo *p, const char *rest)
{
	return p->links.n > 0 && bsearch(&rest, p->links.v, p->links.n, sizeof(*p->links.v), by_text) != NULL;
}

/* Where the .git file in @dirfd, the folder @full, points to; NULL: it is none. Caller owns. */
static char *pointer(int dirfd, const char *full)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, raw);
	size_t n;

	if (file_read_beneath(dirfd, ".git", GITCONFIG_MAX, &text, &n) < 0 || gitdir_pointer(text, n, &raw) < 0)
		return NULL;
	return path_tidy(full, raw);
}

static enum tree_next below_each(const struct tree_entry *e, void *arg)
{
	struct below *b = arg;
	AUTO_FREE(char, rel);
	AUTO_FREE(char, full);
	AUTO_FREE(char, entry);
	AUTO_FREE(char, target);
	struct repo *outer;
	const char *rest;
	bool guarded = true;

	if (strcmp(e->name, ".git") != 0)
		return TREE_ENTER;
	/* That of the top is guard_top()'s. */
	if (strcmp(e->path, ".git") == 0 || b->r < 0)
		return TREE_PASS;
	rel = xstrndup(e->path, strlen(e->path) - strlen("/.git"));
	full = path_join(b->top, rel);
	entry = path_join(b->top, e->path);
	target = e->type == DT_REG ? pointer(e->dirfd, full) : xstrdup(entry);
	outer = around(b, rel, &rest);
	if (outer) {
		if (!outer->loaded)
			repo_load(outer);
		guarded = outer->guarded && (outer->all || is_link_of(outer, rest) ||
					     (e->type == DT_REG && target && outer->common && path_within(outer->common, target)));
	}
	repo_add(b, TAKE_PTR(rel), target ? xstrdup(target) : NULL, target ? xstrdup(target) : NULL, guarded);
	if (guarded && git_entry(&b->w, e->dirfd, full) == S_IFDIR)
		b->r = guard_git(b->w.g, entry, NULL, b->w.config_rw, b->w.found);
	return TREE_PASS;
}

int guard_below(struct guard *g, const char *dir, const char *gitdir, const char *common, bool config_rw,
		struct findings *found)
{
	struct below b = { .w = { .g = g, .found = found, .config_rw = config_rw }, .top = dir };
	struct tree_walk walk = { .each = below_each, .arg = &b };
	AUTO_FREE(char, shown);
	AUTO_FD(fd);

	shown = path_shown(dir);
	fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (gitdir)
		repo_add(&b, xstrdup(""), xstrdup(gitdir), xstrdup(common), true);
	tree_walk(fd, &walk);
	tdestroy(b.repos, repo_free);
	if (b.r == 0 && g->ro.n > GUARD_PLACES_MAX) {
		findings_add(found, FINDING_WORLD,
			     "%s: holds more git repositories than can be guarded (%d places); run agent-vm in one of them", shown,
			     GUARD_PLACES_MAX);
		return -E2BIG;
	}
	if (b.r == 0 && walk.cut)
		findings_add(found, FINDING_WARNING,
			     "%s: is too large to be looked through (%zu entries), so repositories deep inside it may be unguarded; "
			     "run git there with care, or run agent-vm in a smaller folder",
			     shown, walk.n_entries);
	return b.r;
}

int guard_open_parent(const char *path, const char **ret_name)
{
	AUTO_FREE(char, dir);
	AUTO_FD(root);
	const char *slash = strrchr(path, '/');

	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	dir = xstrndup(path, (size_t)(slash - path));
	*ret_name = slash + 1;
	return file_open_beneath(root, dir[0] ? dir + 1 : ".", O_RDONLY | O_DIRECTORY, 0);
}

static bool is_named(const char *name, const char *what)
{
	return strcmp(name, what) == 0;
}

int guard_place_there(const char *path)
{
	AUTO_FD(dir);
	const char *name;
	struct stat st;

	dir = guard_open_parent(path, &name);
	if (dir < 0)
		return dir;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int guard_place_make(const char *path)
{
	AUTO_FD(dir);
	AUTO_FD(fd);
	const char *name;

	dir = guard_open_parent(path, &name);
	if (dir < 0)
		return dir;
	if (is_named(name, "hooks"))
		return mkdirat(dir, name, 0777) < 0 ? -errno : 0;
	if (is_named(name, "commondir")) {
		AUTO_FREE(char, tmp);

		/* Never empty, not even for a moment: git would stop with an error. */
		tmp = xasprintf(".%s.%ld", name, (long)getpid());
		fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
		if (fd < 0)
			return -errno;
		int r = fd_write_all(fd, GUARD_COMMONDIR, strlen(GUARD_COMMONDIR));

		if (r == 0 && renameat2(dir, tmp, dir, name, RENAME_NOREPLACE) < 0)
			r = -errno;
		if (r < 0)
			(void)unlinkat(dir, tmp, 0);
		return r;
	}
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	return fd < 0 ? -errno : 0;
}

void guard_place_remove(const char *path)
{
	AUTO_FREE(char, text);
	AUTO_FD(dir);
	const char *name;
	size_t n;

	dir = guard_open_parent(path, &name);
	if (dir < 0)
		return;
	if (is_named(name, "hooks"))
		(void)unlinkat(dir, name, AT_REMOVEDIR);
	else if (file_read_beneath(dir, name, sizeof(GUARD_COMMONDIR), &text, &n) == 0 &&
		 strcmp(text, is_named(name, "commondir") ? GUARD_COMMONDIR : "") == 0)
		(void)unlinkat(dir, name, 0);
}
