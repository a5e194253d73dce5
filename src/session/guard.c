#include "session/guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "session/gitconfig.h"
#include "session/path.h"

struct walk {
	struct guard *g;
	struct findings *found;
	bool config_rw;
	size_t n_entries;
	const char *common; /* for texts */
	const char *admin;  /* the worktree that is the project's; others are read-only whole */
};

void guard_done(struct guard *g)
{
	strv_done(&g->ro);
	strv_done(&g->self);
	strv_done(&g->make_dir);
	strv_done(&g->make_file);
	strv_done(&g->watch);
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
	strv_add(&w->g->watch, path);
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

static void watch(struct walk *w, const char *dir, const char *name)
{
	strv_take(&w->g->watch, path_join(dir, name));
}

/* The places that every git directory has. */
static void git_places(struct walk *w, int fd, const char *dir)
{
	AUTO_FREE(char, path);
	bool worktree_config = worktree_config_on(fd);

	if (!ro_if_there(w, fd, dir, "hooks", S_IFDIR)) {
		path = path_join(dir, "hooks");
		strv_add(&w->g->ro, path);
		strv_add(&w->g->make_dir, path);
	}
	if (w->config_rw) {
		strv_take(&w->g->configs, path_join(dir, "config"));
		strv_take(&w->g->configs, path_join(dir, "config.worktree"));
	} else {
		if (!ro_if_there(w, fd, dir, "config", S_IFREG))
			watch(w, dir, "config");
		if (!ro_if_there(w, fd, dir, "config.worktree", S_IFREG)) {
			if (worktree_config) {
				AUTO_FREE(char, file);

				file = path_join(dir, "config.worktree");
				strv_add(&w->g->ro, file);
				strv_add(&w->g->make_file, file);
			} else {
				watch(w, dir, "config.worktree");
			}
		}
	}
	/* A commondir file makes git take hooks and config from elsewhere (tried with git 2.39: an alias of that other
	 * config ran). It cannot be kept from being made, so the report at the end looks for it. */
	if (!ro_if_there(w, fd, dir, "commondir", S_IFREG))
		watch(w, dir, "commondir");
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

/* A folder in modules/: a git directory, or, as names may hold slashes, one that holds some. */
static int one_module(struct walk *w, int fd, const char *path, int depth)
{
	if (gitdir_looks_like(fd)) {
		git_places(w, fd, path);
		return modules_in(w, fd, path, depth + 1);
	}
	return each_folder(w, fd, ".", path, depth + 1, one_module);
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
		strv_take(&w->g->configs, path_join(path, "config.worktree"));
	else if (!ro_if_there(w, fd, path, "config.worktree", S_IFREG))
		watch(w, path, "config.worktree");
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

int guard_top(struct guard *g, const char *dir, struct findings *found)
{
	struct walk w = { .g = g, .found = found, .common = dir };
	AUTO_FREE(char, entry);
	AUTO_FD(fd);
	mode_t mode;

	fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	entry = path_join(dir, ".git");
	if (kind_of(fd, ".git", &mode) == 0) {
		if (mode == S_IFDIR)
			strv_add(&g->self, entry);
		else if (mode == S_IFREG)
			strv_add(&g->ro, entry);
		else
			odd(&w, entry);
	} else {
		strv_add(&g->watch, entry);
	}
	(void)ro_if_there(&w, fd, dir, ".agentvmignore", S_IFREG);
	(void)ro_if_there(&w, fd, dir, ".agent-vm.conf", S_IFREG);
	return 0;
}

/* Opens the folder of an absolute path; no link on the way. @ret_name points into @path. */
static int open_parent(const char *path, const char **ret_name)
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

static int make_one(const char *path, bool folder, struct strv *made, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FD(dir);
	const char *name;
	int r = 0, fd;

	shown = path_shown(path);
	dir = open_parent(path, &name);
	if (dir < 0)
		return err_set(err, dir, "%s: cannot be made to guard it: %s; repair the git directory", shown, strerror(-dir));
	if (folder) {
		r = mkdirat(dir, name, 0777) < 0 ? -errno : 0;
	} else {
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
		r = fd < 0 ? -errno : 0;
		if (fd >= 0)
			(void)close(fd);
	}
	/* Another session of the project may have made it since; then that one removes it. */
	if (r == -EEXIST)
		return 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot be made to guard it: %s; make it, or repair the git directory", shown,
			       strerror(-r));
	strv_add(made, path);
	return 0;
}

int guard_make(const struct guard *g, struct strv *made, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->make_dir.n; i++)
		r = make_one(g->make_dir.v[i], true, made, err);
	for (size_t i = 0; r == 0 && i < g->make_file.n; i++)
		r = make_one(g->make_file.v[i], false, made, err);
	return r;
}

void guard_unmake(const struct strv *made)
{
	for (size_t i = made->n; i > 0; i--) {
		AUTO_FD(dir);
		const char *name;
		struct stat st;

		dir = open_parent(made->v[i - 1], &name);
		if (dir < 0 || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
			(void)unlinkat(dir, name, AT_REMOVEDIR);
		else if (S_ISREG(st.st_mode) && st.st_size == 0)
			(void)unlinkat(dir, name, 0);
	}
}
