/* The state root. Its mode is the wall between users: everything below is made 0700 and 0600 as well, but a file system
 * that others can enter at the root is not used. */
#include "session/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"

#define ELSEWHERE "set AGENT_VM_STATE_DIR to another folder"

static const char *env_get(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

int state_root_path(char **ret, char **ret_warning, struct err *err)
{
	AUTO_FREE(char, warning);
	const char *own = env_get("AGENT_VM_STATE_DIR"), *xdg = env_get("XDG_STATE_HOME"), *home = env_get("HOME");
	struct passwd *pw;

	if (own) {
		AUTO_FREE(char, shown);

		if (own[0] == '/') {
			*ret = xstrdup(own);
			*ret_warning = NULL;
			return 0;
		}
		shown = str_escape(own, strlen(own));
		return err_set(err, -EINVAL,
			       "AGENT_VM_STATE_DIR=%s: not an absolute path; write the folder's full path, beginning with /",
			       shown);
	}
	if (xdg && xdg[0] == '/') {
		*ret = xasprintf("%s/agent-vm", xdg);
		*ret_warning = NULL;
		return 0;
	}
	if (xdg) {
		AUTO_FREE(char, shown);

		shown = str_escape(xdg, strlen(xdg));
		warning = xasprintf("XDG_STATE_HOME=%s: not an absolute path and ignored; write the folder's full path",
				    shown);
	}
	if (!home) {
		pw = getpwuid(geteuid());
		if (pw && pw->pw_dir && pw->pw_dir[0])
			home = pw->pw_dir;
	}
	if (!home)
		return err_set(err, -ENOENT, "home folder: HOME is not set and there is no passwd entry for uid %u; "
			       ELSEWHERE, (unsigned int)geteuid());
	if (home[0] != '/') {
		AUTO_FREE(char, shown);

		shown = str_escape(home, strlen(home));
		return err_set(err, -EINVAL, "HOME=%s: not an absolute path; " ELSEWHERE, shown);
	}
	*ret = xasprintf("%s/.local/state/agent-vm", home);
	*ret_warning = TAKE_PTR(warning);
	return 0;
}

static int owner_check(const struct stat *st, const char *shown, struct err *err)
{
	if (!S_ISDIR(st->st_mode))
		return err_set(err, -ENOTDIR, "%s: not a folder; remove it or " ELSEWHERE, shown);
	if (st->st_uid != geteuid())
		return err_set(err, -EPERM, "%s: belongs to uid %u and not to you (uid %u); " ELSEWHERE, shown,
			       (unsigned int)st->st_uid, (unsigned int)geteuid());
	return 0;
}

int state_root_check(const char *path, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, part);
	struct stat st;
	char *cut;

	shown = str_escape(path, strlen(path));
	if (stat(path, &st) == 0) {
		int r = owner_check(&st, shown, err);

		if (r == 0 && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0)
			r = err_set(err, -errno, "%s: cannot be written: %s; " ELSEWHERE, shown, strerror(errno));
		return r;
	}
	if (errno != ENOENT)
		return err_set(err, -errno, "%s: cannot be used: %s; " ELSEWHERE, shown, strerror(errno));
	/* The nearest folder that exists is where the first missing one would be made. */
	part = xstrdup(path);
	while ((cut = strrchr(part, '/')) && cut != part) {
		*cut = '\0';
		if (stat(part, &st) == 0)
			break;
		if (errno != ENOENT)
			return err_set(err, -errno, "%s: cannot be made: %s; " ELSEWHERE, shown, strerror(errno));
	}
	if (cut == part)
		part[1] = '\0';
	if (stat(part, &st) == 0 && !S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: cannot be made: %s; " ELSEWHERE, shown, strerror(ENOTDIR));
	if (faccessat(AT_FDCWD, part, W_OK | X_OK, AT_EACCESS) < 0)
		return err_set(err, -errno, "%s: cannot be made: %s; " ELSEWHERE, shown, strerror(errno));
	return 0;
}

#define FLOCK_FILE ".flock-check"

/* Earlier versions made a file a command and left it when they were killed. */
static void flock_files_sweep(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (str_starts(e->d_name, FLOCK_FILE "."))
			(void)unlinkat(dirfd, e->d_name, 0);
	if (d)
		(void)closedir(d);
	else if (fd >= 0)
		(void)close(fd);
}

/* On some network and FUSE file systems flock(2) fails, on others it succeeds for everybody; both cannot keep sessions
 * apart. Two descriptions of one file tell: while one shares the lock, the other cannot have it alone. Any number of
 * commands can ask at once, since where locks work none ever has it alone. The file stays. */
static int flock_check(int dirfd, const char *shown, struct err *err)
{
	AUTO_FD(one);
	AUTO_FD(two);

	one = openat(dirfd, FLOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (one < 0)
		return err_set(err, -errno, "%s: cannot be written: %s; " ELSEWHERE, shown, strerror(errno));
	(void)fchmod(one, 0600); /* whatever the umask */
	two = openat(dirfd, FLOCK_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (two < 0 || flock(one, LOCK_SH | LOCK_NB) < 0)
		return err_set(err, -errno, "%s: locks do not work there: %s; " ELSEWHERE, shown, strerror(errno));
	if (flock(two, LOCK_EX | LOCK_NB) == 0)
		return err_set(err, -ENOLCK, "%s: locks do not work there: two holders at once; " ELSEWHERE, shown);
	flock_files_sweep(dirfd);
	return 0;
}

static int sub_open(int dirfd, const char *name, int *ret, const char *shown, struct err *err)
{
	int fd, r;

	r = dir_make_at(dirfd, name, 0700);
	if (r < 0)
		return err_set(err, r, "%s/%s: cannot be made: %s; " ELSEWHERE, shown, name, strerror(-r));
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s/%s: cannot be opened: %s; " ELSEWHERE, shown, name, strerror(errno));
	*ret = fd;
	return 0;
}

static int root_fill(struct state_root *root, const char *shown, struct err *err)
{
	AUTO_FREE(char, shown_run);
	AUTO_FD(run);
	int r;

	shown_run = xasprintf("%s/" STATE_RUN, shown);
	r = sub_open(root->fd, STATE_RUN, &run, shown, err);
	if (r < 0)
		return r;
	r = sub_open(run, STATE_PROJECTS, &root->projects_fd, shown_run, err);
	if (r < 0)
		return r;
	r = sub_open(run, STATE_LOCKS, &root->locks_fd, shown_run, err);
	if (r < 0)
		return r;
	r = sub_open(run, STATE_SESSIONS, &root->sessions_fd, shown_run, err);
	if (r < 0)
		return r;
	r = sub_open(run, STATE_LOGS, &root->logs_fd, shown_run, err);
	if (r < 0)
		return r;
	r = sub_open(root->fd, STATE_CACHE, &root->cache_fd, shown, err);
	if (r < 0)
		return r;
	return flock_check(root->locks_fd, shown, err);
}

/* A folder that holds nothing of ours is no root, but one that somebody named by mistake, or only the older program's. */
static bool has_ours(int fd)
{
	static const char *const ours[] = { STATE_RUN, STATE_CACHE, STATE_IMAGES };

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (faccessat(fd, ours[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	return false;
}

int state_root_open(const char *path, bool make, struct state_root *ret, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, shown);
	struct err inner;
	struct stat st;
	int r;

	shown = str_escape(path, strlen(path));
	if (make)
		root.fd = dir_open_made(path, 0700, &inner);
	else
		root.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root.fd < 0 && make)
		return err_set(err, root.fd, "%s; " ELSEWHERE, inner.text);
	if (root.fd < 0)
		return err_set(err, -errno, "%s: cannot be opened: %s; " ELSEWHERE, shown, strerror(errno));
	if (fstat(root.fd, &st) < 0)
		r = err_set(err, -errno, "%s: cannot be read: %s; " ELSEWHERE, shown, strerror(errno));
	else
		r = owner_check(&st, shown, err);
	if (r == 0 && (st.st_mode & 0077) && fchmod(root.fd, 0700) < 0)
		r = err_set(err, -errno, "%s: others can enter it and its mode cannot be narrowed: %s; " ELSEWHERE, shown,
			    strerror(errno));
	if (r == 0)
		root.path = realpath(path, NULL);
	if (r == 0 && !root.path)
		r = err_set(err, -errno, "%s: its path cannot be resolved: %s; " ELSEWHERE, shown, strerror(errno));
	if (r == 0 && !make && !has_ours(root.fd))
		r = err_set(err, -ENOENT, "%s: nothing of agent-vm is there yet", shown);
	/* What is missing in a root that is there is made: it may have been thrown away to save space, and the rest counts. */
	if (r == 0)
		r = root_fill(&root, shown, err);
	if (r < 0) {
		state_root_close(&root);
		return r;
	}
	*ret = root;
	return 0;
}

static void fd_drop(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void state_root_close(struct state_root *root)
{
	free(root->path);
	root->path = NULL;
	fd_drop(&root->fd);
	fd_drop(&root->projects_fd);
	fd_drop(&root->locks_fd);
	fd_drop(&root->sessions_fd);
	fd_drop(&root->logs_fd);
	fd_drop(&root->cache_fd);
}
