#include "session/gitdir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "session/gitconfig.h"
#include "session/path.h"

#define POINTER_MAX (16 * 1024) /* a path of 4096 bytes and its keyword; git's own limit is 1 MiB */

void gitdir_done(struct gitdir *g)
{
	free(g->top);
	free(g->entry);
	free(g->common);
	free(g->admin);
	*g = (struct gitdir){ 0 };
}

void gitbind_done(struct gitbind *b)
{
	free(b->host);
	free(b->purpose);
	*b = (struct gitbind){ 0 };
}

int gitdir_path_line(const char *text, size_t n, char **ret)
{
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	if (n == 0)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return -EBADMSG;
	*ret = xstrndup(text, n);
	return 0;
}

int gitdir_pointer(const char *text, size_t n, char **ret)
{
	static const char word[] = "gitdir: ";

	if (n <= sizeof(word) - 1 || memcmp(text, word, sizeof(word) - 1) != 0)
		return -EBADMSG;
	return gitdir_path_line(text + sizeof(word) - 1, n - (sizeof(word) - 1), ret);
}

static bool is_kind(int dirfd, const char *name, mode_t kind)
{
	AUTO_FD(fd);
	struct stat st;

	fd = file_open_beneath(dirfd, name, O_PATH | O_NOFOLLOW, 0);
	return fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

static bool is_there(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0;
}

bool gitdir_looks_like(int dirfd)
{
	/* HEAD was a link in old repositories; git still takes those. */
	if (!is_kind(dirfd, "HEAD", S_IFREG) && !is_kind(dirfd, "HEAD", S_IFLNK))
		return false;
	return is_there(dirfd, "commondir") || (is_there(dirfd, "objects") && is_there(dirfd, "refs"));
}

bool gitdir_is(const char *path, int dirfd)
{
	const char *slash = strrchr(path, '/');

	return (slash && strcmp(slash, "/.git") == 0) || gitdir_looks_like(dirfd);
}

/* Opens an absolute tidy path, no component of which may be a link. */
static int open_plain(const char *path, int flags)
{
	AUTO_FD(root);

	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	return file_open_beneath(root, path[1] ? path + 1 : ".", flags, 0);
}

static int open_folder(const char *path)
{
	return open_plain(path, O_PATH | O_DIRECTORY);
}

static char *dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

static int read_line(int dirfd, const char *name, char **ret)
{
	AUTO_FREE(char, text);
	size_t n;
	int r;

	r = file_read_beneath(dirfd, name, POINTER_MAX, &text, &n);
	if (r < 0)
		return r;
	return gitdir_path_line(text, n, ret);
}

bool gitdir_has_other_common(int dirfd)
{
	AUTO_FREE(char, line);
	int r = read_line(dirfd, "commondir", &line);

	return r == 0 ? strcmp(line, ".") != 0 : r != -ENOENT;
}

/* What follows decides on one repository; the state of that. */
struct search {
	const struct gitdir_args *args;
	struct gitdir g;
	struct gitbind *binds;
	size_t n_binds;
	struct strv *rows;
	struct findings *found;
};

/* "PROJECT: git directory TARGET is not bound: WHY; ..." The --mount names the git directory that would be needed. */
static void not_bound(struct search *s, const char *target, const char *why, bool hint)
{
	AUTO_FREE(char, entry);
	AUTO_FREE(char, shown);

	entry = path_shown(s->g.entry ? s->g.entry : s->args->project);
	if (!target) {
		findings_add(s->found, FINDING_NOTE,
			     "%s: the git directory is not bound: %s; git will not work in the guest until it is repaired",
			     entry, why);
		return;
	}
	shown = path_shown(target);
	if (hint)
		findings_add(s->found, FINDING_NOTE,
			     "%s: git directory %s is not bound: %s; if it is meant, write --mount %s", entry, shown, why,
			     shown);
	else
		findings_add(s->found, FINDING_NOTE,
			     "%s: git directory %s is not bound: %s; git will not work in the guest", entry, shown, why);
}

/* Does @a name the same thing as the tidy path @b, as text or as inode? */
static bool same_path(const char *a, const char *b)
{
	AUTO_FD(fa);
	AUTO_FD(fb);
	struct stat sa, sb;

	if (strcmp(a, b) == 0)
		return true;
	fa = open_plain(a, O_PATH | O_NOFOLLOW);
	fb = open_plain(b, O_PATH | O_NOFOLLOW);
	return fa >= 0 && fb >= 0 && fstat(fa, &sa) == 0 && fstat(fb, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

static bool belongs(int fd, uid_t uid)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == uid;
}

/* Section 7 for something that would be bound. True: it may be. */
static bool may_show(struct search *s, const char *path, const char *why_prefix)
{
	struct exposure_result r;
	enum exposure_verdict v;

	v = exposure_check(s->args->exposure, path, EXPOSURE_GIT, NULL, &r);
	if (v == EXPOSURE_REFUSED_SOFT || v == EXPOSURE_REFUSED_HARD) {
		findings_add(s->found, FINDING_NOTE, "%s%s", why_prefix, r.text);
		exposure_result_done(&r);
		return false;
	}
	if (v == EXPOSURE_WARN)
		findings_add(s->found, FINDING_WARNING, "%s", r.text);
	for (size_t i = 0; s->rows && i < r.rows.n; i++)
		strv_add(s->rows, r.rows.v[i]);
	exposure_result_done(&r);
	return true;
}

static void bind(struct search *s, enum gitbind_role role, const char *host, bool ro, char *purpose)
{
	s->binds[s->n_binds++] = (struct gitbind){ .role = role, .host = xstrdup(host), .ro = ro, .purpose = purpose };
}

/* @admin is the folder that the pointer names, directly in a folder "worktrees". 0: believed and in s->g. */
static int worktree(struct search *s, const char *admin, int admin_fd)
{
	AUTO_FREE(char, worktrees);
	AUTO_FREE(char, common);
	AUTO_FREE(char, back);
	AUTO_FREE(char, back_tidy);
	AUTO_FREE(char, up);
	AUTO_FREE(char, up_tidy);
	AUTO_FD(fd);

	worktrees = dir_of(admin);
	common = dir_of(worktrees);
	if (read_line(admin_fd, "gitdir", &back) < 0) {
		not_bound(s, common, "it has no readable entry for this worktree", false);
		return -ENOENT;
	}
	back_tidy = path_tidy(admin, back);
	if (!same_path(back_tidy, s->g.entry)) {
		not_bound(s, common, "its entry points to another worktree, not back to this one", true);
		return -EACCES;
	}
	if (read_line(admin_fd, "commondir", &up) < 0) {
		not_bound(s, common, "its entry for this worktree has no readable commondir", true);
		return -ENOENT;
	}
	up_tidy = path_tidy(admin, up);
	if (!same_path(up_tidy, common)) {
		not_bound(s, common, "the commondir of its entry leads elsewhere", true);
		return -EACCES;
	}
	fd = open_folder(common);
	if (fd < 0 || !gitdir_looks_like(fd)) {
		not_bound(s, common, "it is no git directory", false);
		return -ENOENT;
	}
	if (!belongs(fd, s->args->uid) || !belongs(admin_fd, s->args->uid)) {
		not_bound(s, common, "it does not belong to you", true);
		return -EPERM;
	}
	s->g.kind = GITDIR_WORKTREE;
	s->g.common = TAKE_PTR(common);
	s->g.admin = xstrdup(admin);
	return 0;
}

static int module(struct search *s, const char *target, int fd)
{
	AUTO_FREE(char, config);
	AUTO_FREE(char, tree);
	AUTO_FREE(char, tree_tidy);
	size_t n;

	if (!belongs(fd, s->args->uid)) {
		not_bound(s, target, "it does not belong to you", true);
		return -EPERM;
	}
	if (!gitdir_looks_like(fd)) {
		not_bound(s, target, "it is no git directory", false);
		return -ENOENT;
	}
	if (gitdir_has_other_common(fd)) {
		not_bound(s, target, "it is a worktree's entry outside a folder named worktrees", true);
		return -EACCES;
	}
	if (file_read_beneath(fd, "config", GITCONFIG_MAX, &config, &n) < 0 ||
	    gitconfig_get(config, n, "core", "worktree", &tree) < 0) {
		not_bound(s, target, "its config has no core.worktree that points back", true);
		return -EACCES;
	}
	tree_tidy = path_tidy(target, tree);
	if (!same_path(tree_tidy, s->g.top)) {
		not_bound(s, target, "its core.worktree is another folder", true);
		return -EACCES;
	}
	s->g.kind = GITDIR_MODULE;
	s->g.common = xstrdup(target);
	return 0;
}

/* .git is a regular file in s->g.top. 0: a repository that is believed. */
static int follow_pointer(struct search *s, int top_fd)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, raw);
	AUTO_FREE(char, target);
	AUTO_FREE(char, parent);
	AUTO_FD(fd);
	size_t n;
	int r;

	r = file_read_beneath(top_fd, ".git", POINTER_MAX, &text, &n);
	if (r < 0) {
		not_bound(s, NULL, r == -EFBIG ? "the .git file is far too long" : strerror(-r), false);
		return r;
	}
	if (gitdir_pointer(text, n, &raw) < 0) {
		not_bound(s, NULL, "the .git file is not of the form 'gitdir: PATH'", false);
		return -EBADMSG;
	}
	s->g.relative = raw[0] != '/';
	target = path_tidy(s->g.top, raw);
	fd = open_folder(target);
	if (fd < 0) {
		not_bound(s, target,
			  fd == -ELOOP	     ? "a link lies on the way, and pointers are not followed through links" :
			  fd == -ENAMETOOLONG ? "the path is too long" :
						strerror(-fd),
			  fd == -ELOOP);
		return fd;
	}
	parent = dir_of(target);
	return strcmp(strrchr(parent, '/') + 1, "worktrees") == 0 ? worktree(s, target, fd) : module(s, target, fd);
}

/* .git is a folder in s->g.top. One in the project is guarded whatever is in it, since the guest can put there what lacks;
 * one above is bound only when it is a git directory, and nothing of it can be written otherwise. */
static int look_inside(struct search *s, int top_fd, bool below)
{
	AUTO_FREE(char, shown);
	AUTO_FD(fd);

	fd = file_open_beneath(top_fd, ".git", O_PATH | O_DIRECTORY, 0);
	if (below && (fd < 0 || !gitdir_looks_like(fd))) {
		/* git would look further up here; the first .git is where we stop. */
		return -ENOENT;
	}
	if (fd >= 0 && gitdir_has_other_common(fd)) {
		shown = path_shown(s->g.entry);
		findings_add(s->found, FINDING_WARNING,
			     "%s: its file commondir names another git directory, whose hooks and config are not guarded; run no git "
			     "there before you have read that file, or repair it",
			     shown);
	}
	s->g.kind = GITDIR_INSIDE;
	s->g.common = xstrdup(s->g.entry);
	s->g.relative = true;
	return 0;
}

/* @top has an entry .git of type @mode. What is found is in s->g; what must be bound in s->binds. */
static void decide(struct search *s, const char *top, int top_fd, mode_t mode)
{
	AUTO_FREE(char, shown);
	bool below = strcmp(top, s->args->project) != 0;
	int r;

	s->g.top = xstrdup(top);
	s->g.entry = path_join(top, ".git");
	s->g.entry_is_file = S_ISREG(mode);
	s->g.entry_is_odd = !S_ISREG(mode) && !S_ISDIR(mode);
	shown = path_shown(s->g.entry);
	if (s->g.entry_is_odd) {
		not_bound(s, NULL, S_ISLNK(mode) ? "it is a link, which is not followed" : "it is neither a file nor a folder",
			  false);
		return;
	}
	if (below && !belongs(top_fd, s->args->uid)) {
		AUTO_FREE(char, where);

		where = path_shown(top);
		findings_add(s->found, FINDING_NOTE,
			     "%s: the work tree is not bound: it does not belong to you; if it is meant, write --mount %s:ro",
			     where, where);
		return;
	}
	r = S_ISREG(mode) ? follow_pointer(s, top_fd) : look_inside(s, top_fd, below);
	if (r < 0)
		return;
	if (below) {
		AUTO_FREE(char, prefix);

		prefix = xasprintf("%s: the work tree around the project is not bound: ", shown);
		if (!may_show(s, top, prefix)) {
			free(s->g.common);
			free(s->g.admin);
			s->g.common = s->g.admin = NULL;
			s->g.kind = GITDIR_NONE;
			return;
		}
	}
	if (S_ISREG(mode) && !path_within(s->args->project, s->g.common)) {
		AUTO_FREE(char, prefix);

		prefix = xasprintf("%s: the git directory is not bound: ", shown);
		if (!may_show(s, s->g.common, prefix)) {
			free(s->g.common);
			free(s->g.admin);
			s->g.common = s->g.admin = NULL;
			s->g.kind = GITDIR_NONE;
			return;
		}
	}
	if (below)
		bind(s, GITBIND_TOP, top, true, xstrdup("work tree around the project"));
	if (S_ISREG(mode)) {
		if (!path_within(s->args->project, s->g.common))
			bind(s, s->g.kind == GITDIR_WORKTREE ? GITBIND_COMMON : GITBIND_MODULE, s->g.common, false,
			     xstrdup(s->g.kind == GITDIR_WORKTREE      ? "common directory of this worktree" :
				     strstr(s->g.common, "/modules/") ? "git directory of this submodule" :
									"git directory of this work tree"));
	} else if (below) {
		bind(s, GITBIND_COMMON, s->g.common, false, xstrdup("git directory of this work tree"));
	}
}

int gitdir_follow(const char *top, uid_t uid, char **ret)
{
	const struct gitdir_args args = { .project = top, .uid = uid };
	struct findings quiet = { 0 };
	struct search s = { .args = &args, .found = &quiet };
	struct stat entry;
	AUTO_FD(fd);
	int r;

	fd = open_folder(top);
	if (fd < 0)
		return fd;
	if (fstatat(fd, ".git", &entry, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(entry.st_mode))
		return S_ISDIR(entry.st_mode) ? -EISDIR : -EINVAL;
	s.g.top = xstrdup(top);
	s.g.entry = path_join(top, ".git");
	r = follow_pointer(&s, fd);
	if (r == 0)
		*ret = TAKE_PTR(s.g.common);
	else if (r == -ENOENT)
		r = -EINVAL; /* the file is there */
	gitdir_done(&s.g);
	findings_done(&quiet);
	return r;
}

int gitdir_find(const struct gitdir_args *args, struct gitdir *ret, struct gitbind *binds, size_t *ret_n_binds,
		struct strv *rows, struct findings *found)
{
	struct search s = { .args = args, .binds = binds, .rows = rows, .found = found };
	AUTO_FREE(char, at);
	struct stat st, entry;
	dev_t dev = 0;

	at = xstrdup(args->project);
	for (;;) {
		AUTO_FD(fd);
		char *up;

		fd = open_folder(at);
		if (fd < 0 || fstat(fd, &st) < 0)
			break;
		if (dev != 0 && st.st_dev != dev)
			break;
		dev = st.st_dev;
		if (fstatat(fd, ".git", &entry, AT_SYMLINK_NOFOLLOW) == 0) {
			decide(&s, at, fd, entry.st_mode);
			break;
		}
		if (gitdir_is(at, fd)) {
			if (strcmp(at, args->project) != 0) {
				AUTO_FREE(char, project);
				AUTO_FREE(char, git);

				project = path_shown(args->project);
				git = path_shown(at);
				findings_add(found, FINDING_WORLD,
					     "%s: lies inside the git directory %s, parts of which run on the host; "
					     "run agent-vm in the work tree",
					     project, git);
				return -EACCES;
			}
			if (gitdir_has_other_common(fd)) {
				AUTO_FREE(char, git);

				git = path_shown(at);
				findings_add(found, FINDING_WORLD,
					     "%s: is a git directory whose file commondir names another one, so it cannot be guarded; run "
					     "agent-vm in the work tree, or remove that file",
					     git);
				return -EACCES;
			}
			s.g.kind = GITDIR_BARE;
			s.g.common = xstrdup(at);
			break;
		}
		if (strcmp(at, "/") == 0 || (args->home && strcmp(at, args->home) == 0))
			break;
		up = dir_of(at);
		free(at);
		at = up;
	}
	*ret = s.g;
	*ret_n_binds = s.n_binds;
	return 0;
}
