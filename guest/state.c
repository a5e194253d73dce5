#include "guest/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/merge.h"
#include "proto/guestcfg.h"

#define ROOM (1 << 20) /* that rules may add to a file of GC_STATE_MAX */

/* @name, in whatever form it is, becomes @name GC_STATE_ASIDE. */
static int set_aside(struct guest *g, int dir, const char *name, const char *path, const char *why)
{
	AUTO_FREE(char, bad);
	int r;

	bad = xasprintf("%.200s" GC_STATE_ASIDE, name);
	r = file_remove_tree_at(dir, bad);
	if (r == 0 && renameat(dir, name, dir, bad) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0)
		guest_log(g, LOG_LV_WARN, GC_STATE_AT "/%s: %s; it was renamed %s, and a new one is used", path, why, bad);
	return r;
}

static bool is_of(int dir, const char *name, mode_t kind)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* A folder in another one, made where it is missing. @path: for the log. */
static int folder_in(struct guest *g, int in, const char *name, const char *path)
{
	int r = file_open_beneath(in, name, O_RDONLY | O_DIRECTORY, 0);

	if (r >= 0 || (r != -ENOENT && r != -ELOOP && r != -ENOTDIR))
		return r;
	r = r == -ENOENT ? 0 : set_aside(g, in, name, path, "is no folder");
	if (r == 0)
		r = dir_make_at(in, name, 0700);
	return r < 0 ? r : file_open_beneath(in, name, O_RDONLY | O_DIRECTORY, 0);
}

/* The folder of a path, made where it is missing; @ret_name: in it. */
static int folder_open(struct guest *g, int state, const char *path, const char **ret_name)
{
	AUTO_FREE(char, part);
	int fd = file_open_beneath(state, ".", O_RDONLY | O_DIRECTORY, 0);
	size_t done = 0;
	char *slash;

	part = xstrdup(path);
	for (; fd >= 0 && (slash = strchr(part + done, '/')); done = (size_t)(slash + 1 - part)) {
		AUTO_FD(in);

		*slash = '\0';
		in = fd;
		fd = folder_in(g, in, part + done, part);
		*slash = '/';
	}
	*ret_name = path + done;
	return fd;
}

/* Why the file of that name is none that is read; NULL: it was read into @ret, or there is none, or *@ret_r. */
static const char *read_file(int dir, const char *name, char **ret, size_t *ret_n, int *ret_r)
{
	int r = file_read_beneath(dir, name, GC_STATE_MAX, ret, ret_n);

	*ret_r = 0;
	switch (r) {
	case 0:
	case -ENOENT:
		return NULL;
	case -ELOOP:
		return "is a link";
	case -EFBIG:
		return "is larger than 8 MiB";
	case -EINVAL:
	case -ENXIO: /* a socket */
		return "is no regular file";
	default:
		*ret_r = r;
		return NULL;
	}
}

/* A link of ours, from this session or an earlier one. */
static bool is_ours(int dir, const char *name)
{
	char there[sizeof(GC_HOST_AT "/")] = "";
	ssize_t n = readlinkat(dir, name, there, sizeof(there) - 1);

	return n == (ssize_t)sizeof(there) - 1 && strcmp(there, GC_HOST_AT "/") == 0;
}

/* Where nothing else has the name. */
static int make_link(int dir, const char *name, const char *target)
{
	if (is_ours(dir, name))
		(void)unlinkat(dir, name, 0);
	return symlinkat(target, dir, name) < 0 && errno != EEXIST ? -errno : 0;
}

/* Takes our links away that lead nowhere now. */
static void sweep(int in, const char *name)
{
	int fd = file_open_beneath(in, name, O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (is_ours(fd, e->d_name) && faccessat(fd, e->d_name, F_OK, 0) < 0)
			(void)unlinkat(fd, e->d_name, 0);
	if (d)
		(void)closedir(d);
}

static int write_file(int dir, const char *name, const struct buf *text)
{
	AUTO_FREE(char, tmp);

	/* What another guest may have put in the place that file_replace_at() uses. */
	tmp = xasprintf(".%.200s.new", name);
	if (!is_of(dir, tmp, S_IFREG))
		(void)file_remove_tree_at(dir, tmp);
	return file_replace_at(dir, name, buf_span(text).p, text->n, 0600);
}

static int remove_file(struct guest *g, int dir, const char *name, const char *path)
{
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	return errno == EISDIR || errno == EPERM ? set_aside(g, dir, name, path, "is no regular file") : -errno;
}

static int merge_file(struct guest *g, int dir, const char *name, const struct config_state *s)
{
	AUTO_FREE(char, content);
	const char *why;
	struct buf text;
	size_t n = 0;
	int r;

	why = read_file(dir, name, &content, &n, &r);
	buf_init(&text, GC_STATE_MAX + ROOM);
	if (r == 0 && !why)
		r = buf_put(&text, content, n);
	if (r == 0 && !why)
		r = merge(s, &text);
	if (r == -EBADMSG)
		why = s->form == GC_FORM_TOML ? "is no TOML" : s->form == GC_FORM_BLOCK ? "is no text" : "is no JSON object";
	if (why) {
		buf_done(&text);
		r = set_aside(g, dir, name, s->path, why);
		if (r == 0)
			r = merge(s, &text);
	}
	if (r > 0) {
		guest_log(g, LOG_LV_WARN, GC_STATE_AT "/%s: it holds a login that was made in the guest; it is kept, and needs "
			  "--api PROVIDER=foreign to be let through", s->path);
		r = 0;
	}
	if (r == 0 && text.n == 0)
		r = unlinkat(dir, name, 0) < 0 && errno != ENOENT ? -errno : 0;
	else if (r == 0 && (why || !content || n != text.n || memcmp(content, buf_span(&text).p, n) != 0))
		r = write_file(dir, name, &text);
	buf_done(&text);
	return r;
}

static int apply_one(struct guest *g, int state, const struct config_state *s)
{
	const char *name;
	AUTO_FD(dir);

	dir = folder_open(g, state, s->path, &name);
	if (dir < 0)
		return dir;
	if (s->form == GC_FORM_NONE)
		return remove_file(g, dir, name, s->path);
	if (s->form == GC_FORM_SWEEP) {
		sweep(dir, name);
		return 0;
	}
	return s->form == GC_FORM_LINK ? make_link(dir, name, s->target) : merge_file(g, dir, name, s);
}

/* Rules for programs that the image does not have, and those for what is left of one that it has. */
static void leave_out(struct config_state *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_rules; i++) {
		struct config_rule *rule = &s->rules[i];

		if (rule->with && (access(rule->with, X_OK) < 0) == (rule->kind != GC_RULE_ORPHAN))
			free(rule->with);
		else
			s->rules[n++] = *rule;
	}
	s->n_rules = n;
}

int state_apply(struct guest *g, struct config *c, struct err *err)
{
	AUTO_FD(state);

	if (c->n_states == 0)
		return 0;
	state = open(GC_STATE_AT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state < 0)
		return err_set(err, -errno, GC_STATE_AT ": cannot be opened in the guest: %s", strerror(errno));
	for (size_t i = 0; i < c->n_states; i++) {
		struct config_state *s = &c->states[i];
		int r;

		leave_out(s);
		r = apply_one(g, state, s);
		/* Once more: another guest may have changed something under us. */
		if (r < 0)
			r = apply_one(g, state, s);
		if (r < 0)
			return err_set(err, r, GC_STATE_AT "/%s: cannot be written in the guest: %s", s->path, strerror(-r));
	}
	return 0;
}
