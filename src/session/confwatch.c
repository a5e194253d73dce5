#include "session/confwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "session/confdiff.h"
#include "session/gitconfig.h"
#include "session/guard.h"
#include "session/path.h"

#define FOLDER_EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR)
#define TRIES 5 /* of one undoing, against a guest that moves the names used for it */

struct conf {
	char *path, *shown;
	struct buf record;
	char *good; /* last content that may stay; NULL: there is none */
	size_t n_good;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	int folder, file; /* watches; -1: none */
	bool dirty;
};

struct confwatch {
	int fd;
	struct conf *v;
	size_t n;
	size_t n_undone;
	struct strv undone, failed;
	char *end;
};

static int watch(struct confwatch *w, int fd, uint32_t events, int *wd)
{
	char path[32];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = inotify_add_watch(w->fd, path, events);
	if (r < 0)
		return -errno;
	*wd = r;
	return 0;
}

/* What is at the name now. Returns 0 with a content; -ENOENT: nothing; another negative errno: nothing to read. */
static int read_now(struct confwatch *w, struct conf *c, int dir, const char *name, struct stat *ret_st, char **ret,
		    size_t *ret_n)
{
	int old = c->file, r;
	AUTO_FD(fd);

	fd = file_open_beneath(dir, name, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, ret_st) < 0)
		return -errno;
	if (S_ISLNK(ret_st->st_mode))
		return -ELOOP;
	if (!S_ISREG(ret_st->st_mode))
		return -EINVAL;
	/* Before it is read, so that nothing written afterwards is missed. */
	r = watch(w, fd, IN_MODIFY, &c->file);
	if (r < 0)
		return r;
	if (old >= 0 && old != c->file) {
		/* The guest may keep the old file under another name: it would cost a watch each time. */
		(void)inotify_rm_watch(w->fd, old);
		for (size_t i = 0; i < w->n; i++)
			w->v[i].dirty |= w->v[i].file == old;
	}
	return file_read_beneath(dir, name, GITCONFIG_MAX, ret, ret_n);
}

static int temporary(int dir, const char *name, char **ret)
{
	AUTO_FREE(char, tmp);
	uint64_t random;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	tmp = xasprintf(".%s.%016llx", name, (unsigned long long)random);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*ret = TAKE_PTR(tmp);
	return fd;
}

static int write_over(const struct conf *c, int dir, const char *name)
{
	AUTO_FREE(char, tmp);
	AUTO_FD(fd);
	int r;

	fd = temporary(dir, name, &tmp);
	if (fd < 0)
		return fd;
	if (c->uid != geteuid() || c->gid != getegid())
		(void)!fchown(fd, c->uid, c->gid);
	r = fd_write_all(fd, c->good, c->n_good);
	if (r == 0 && (fchmod(fd, c->mode) < 0 || renameat(dir, tmp, dir, name) < 0))
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir, tmp, 0);
	else
		(void)fsync(fd); /* afterwards: what it waits for would be time for what is undone */
	return r;
}

/* A folder in the file's place. */
static int move_aside(int dir, const char *name)
{
	AUTO_FREE(char, to);
	uint32_t random;

	if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
		return 0;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	to = xasprintf("%s.undone-%08x", name, random);
	return renameat2(dir, name, dir, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

static int put_back(const struct conf *c, int dir, const char *name)
{
	int r = 0;

	for (int i = 0; i < TRIES; i++) {
		if (c->good)
			r = write_over(c, dir, name);
		else
			r = unlinkat(dir, name, 0) == 0 || errno == ENOENT ? 0 : -errno;
		if (r == -EISDIR)
			(void)move_aside(dir, name);
		else if (r != -ENOENT && r != -EEXIST)
			break;
	}
	return r;
}

/* Not EACCES: a file that the guest made unreadable is replaced. */
static bool is_ours(int r)
{
	return r == -ENOSPC || r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EIO;
}

static char *reason(int r)
{
	return xstrdup(r == -ENOENT ? "removed" :
		       r == -ELOOP  ? "is a link" :
		       r == -EINVAL ? "is no plain file" :
		       r == -EFBIG  ? "is longer than 1 MiB" :
				      strerror(-r));
}

/* What may not stay as it is. Returns 0: it may; 1: @ret_what says why not; a negative errno: not known. */
static int judge(struct confwatch *w, struct conf *c, int dir, const char *name, char **ret_what)
{
	AUTO_FREE(char, text);
	struct stat st;
	size_t n;
	int r;

	r = read_now(w, c, dir, name, &st, &text, &n);
	if (is_ours(r))
		return r;
	if (r == -ENOENT && !c->good)
		return 0;
	if (r < 0) {
		*ret_what = reason(r);
		return 1;
	}
	r = confdiff(buf_span(&c->record), SPAN(text, n), ret_what);
	if (r != 0)
		return 1;
	free(c->good);
	c->good = TAKE_PTR(text);
	c->n_good = n;
	return 0;
}

static void must_end(struct confwatch *w, char *why)
{
	if (w->end)
		free(why);
	else
		w->end = why;
}

static void undone(struct confwatch *w, const struct conf *c, const char *what)
{
	w->n_undone++;
	/* After the last that counts the guest is ended; what it does until then is undone, and too much to tell. */
	if (w->undone.n < CONFWATCH_UNDONE_MAX)
		strv_addf(&w->undone, "%s: %s", c->shown, what);
	if (w->n_undone == CONFWATCH_UNDONE_MAX)
		must_end(w, xasprintf("git configs: changed %d times in a way that could run something on this host, and put back each "
				      "time (at last %s: %s)",
				      CONFWATCH_UNDONE_MAX, c->shown, what));
}

static void failed(struct confwatch *w, const struct conf *c, const char *doing, int r)
{
	AUTO_FREE(char, text);

	text = xasprintf("%s: cannot be %s: %s", c->shown, doing, strerror(-r));
	if (w->failed.n < w->n)
		strv_add(&w->failed, text);
	must_end(w, TAKE_PTR(text));
}

static void look(struct confwatch *w, struct conf *c)
{
	AUTO_FREE(char, what);
	const char *name;
	AUTO_FD(dir);
	int r;

	c->dirty = false;
	dir = guard_open_parent(c->path, &name);
	/* Without its folder there is no config that git could read. */
	if (dir == -ENOENT)
		return;
	r = dir < 0 ? dir : watch(w, dir, FOLDER_EVENTS, &c->folder);
	if (r == 0)
		r = judge(w, c, dir, name, &what);
	if (r < 0)
		failed(w, c, "looked at", r);
	if (r <= 0)
		return;
	r = put_back(c, dir, name);
	if (r < 0)
		failed(w, c, "put back", r);
	else
		undone(w, c, what);
}

static void mark(struct confwatch *w, const struct inotify_event *e)
{
	for (size_t i = 0; i < w->n; i++) {
		struct conf *c = &w->v[i];

		if ((e->mask & IN_Q_OVERFLOW) || (e->wd == c->file && !(e->mask & IN_IGNORED)) ||
		    (e->wd == c->folder && (e->len == 0 || strcmp(e->name, strrchr(c->path, '/') + 1) == 0)))
			c->dirty = true;
	}
}

static void look_at_dirty(struct confwatch *w)
{
	/* The first round may find that another lost its watch, of a file that both were. */
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < w->n; i++)
			if (w->v[i].dirty)
				look(w, &w->v[i]);
}

void confwatch_turn(struct confwatch *w)
{
	_Alignas(struct inotify_event) char bytes[16384];
	const struct inotify_event *e;
	ssize_t n;

	n = read(w->fd, bytes, sizeof(bytes));
	for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*e) + e->len)) {
		e = (const struct inotify_event *)(const void *)(bytes + at);
		mark(w, e);
	}
	look_at_dirty(w);
}

void confwatch_look(struct confwatch *w)
{
	strv_done(&w->failed);
	for (size_t i = 0; i < w->n; i++)
		look(w, &w->v[i]);
}

static bool is_listed(const struct confwatch *w, const char *path)
{
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->v[i].path, path) == 0)
			return true;
	return false;
}

/* As it is before the guest can write it. */
static int take(struct confwatch *w, struct conf *c)
{
	struct stat st;
	const char *name;
	AUTO_FD(dir);
	int r;

	dir = guard_open_parent(c->path, &name);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	r = watch(w, dir, FOLDER_EVENTS, &c->folder);
	if (r == 0)
		r = read_now(w, c, dir, name, &st, &c->good, &c->n_good);
	if (r == 0) {
		c->mode = st.st_mode & 0777;
		c->uid = st.st_uid;
		c->gid = st.st_gid;
		buf_done(&c->record);
		r = confdiff_record(SPAN(c->good, c->n_good), &c->record);
	}
	return r == -ENOENT ? 0 : r;
}

int confwatch_open(const struct strv *paths, struct confwatch **ret, struct err *err)
{
	struct confwatch *w = xcalloc(1, sizeof(*w));
	int r = 0;

	w->v = xcalloc(paths->n + 1, sizeof(*w->v));
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd < 0)
		r = err_set(err, -errno, "--git-config rw: no watch can be made: inotify: %s; leave the option out, or close what uses "
			    "many (fs.inotify.max_user_instances)", strerror(errno));
	for (size_t i = 0; i < paths->n && r == 0; i++) {
		struct conf *c = &w->v[w->n];

		if (is_listed(w, paths->v[i]))
			continue;
		*c = (struct conf){ .path = xstrdup(paths->v[i]), .shown = path_shown(paths->v[i]), .mode = 0644, .uid = geteuid(),
				    .gid = getegid(), .folder = -1, .file = -1 };
		buf_init(&c->record, CONFDIFF_RECORD_MAX);
		w->n++;
		r = take(w, c);
		if (r < 0)
			(void)err_set(err, r, "--git-config rw: %s: cannot be watched: %s; leave the option out%s", c->shown,
				      r == -EBADMSG ? "git would not read it" : strerror(-r),
				      r == -ENOSPC ? ", or raise fs.inotify.max_user_watches" : "");
	}
	if (r < 0) {
		confwatch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void confwatch_free(struct confwatch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n; i++) {
		free(w->v[i].path);
		free(w->v[i].shown);
		free(w->v[i].good);
		buf_done(&w->v[i].record);
	}
	free(w->v);
	strv_done(&w->undone);
	strv_done(&w->failed);
	free(w->end);
	(void)close_p(&w->fd);
	free(w);
}

int confwatch_fd(const struct confwatch *w)
{
	return w->fd;
}

const struct strv *confwatch_undone(const struct confwatch *w)
{
	return &w->undone;
}

const struct strv *confwatch_failed(const struct confwatch *w)
{
	return &w->failed;
}

const char *confwatch_end(const struct confwatch *w)
{
	return w->end;
}
