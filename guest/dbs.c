#include "guest/dbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/mounts.h"

#define SET_MAX ((uint64_t)4 << 30) /* bytes of a set; what is larger is not worth its copies */
#define FILES_MAX 64
#define NUMBER_MAX 999999999

/* What was loaded, for the end. */
static struct set {
	char name[65];
	unsigned number;      /* of the set that was begun with; 0: none */
	struct timespec since; /* files that are not newer need not be saved */
} sets[GC_DBS_MAX];
static size_t n_sets;

static bool is_database(const char *name)
{
	static const char *const ends[] = { ".sqlite", ".sqlite-wal", ".db", ".db-wal" };
	size_t n = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (name[0] != '.' && n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

/* Regular, no link followed. */
static int open_regular(int dir, const char *name, struct stat *ret)
{
	AUTO_FD(fd);

	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, ret) < 0)
		return -errno;
	return S_ISREG(ret->st_mode) ? TAKE_FD(fd) : -EINVAL;
}

/* Return: 1; 0 for what is no regular file, which is left out; a negative errno. */
static int copy_one(int from, const char *name, int to, bool sync, uint64_t *left)
{
	AUTO_FD(in);
	AUTO_FD(out);
	struct stat st;
	uint64_t n;

	in = open_regular(from, name, &st);
	if (in < 0)
		return in == -EINVAL || in == -ELOOP ? 0 : in;
	n = (uint64_t)st.st_size;
	if (n > *left)
		return -EFBIG;
	*left -= n;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	while (n > 0) {
		ssize_t k = sendfile(out, in, NULL, MIN(n, (uint64_t)1 << 30));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO; /* it got shorter: a set is whole or it is none */
		n -= (uint64_t)k;
	}
	return sync && fsync(out) < 0 ? -errno : 1;
}

/* All databases of a folder. Return: how many, or a negative errno. */
static int copy_set(int from, int to, bool sync)
{
	uint64_t left = SET_MAX;
	struct dirent *e;
	int r = 0, n = 0;
	DIR *d;

	from = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = from < 0 ? NULL : fdopendir(from);
	if (!d)
		return -errno;
	while (r >= 0 && n <= FILES_MAX && (e = readdir(d)))
		if (is_database(e->d_name)) {
			r = copy_one(dirfd(d), e->d_name, to, sync, &left);
			n += r > 0;
		}
	(void)closedir(d);
	return r < 0 ? r : n > FILES_MAX ? -EFBIG : n;
}

/* Has a database in it changed since the start? */
static bool has_news(int dir, const struct timespec *since)
{
	struct dirent *e;
	bool news = false;
	struct stat st;
	DIR *d;

	dir = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = dir < 0 ? NULL : fdopendir(dir);
	while (d && !news && (e = readdir(d)))
		news = is_database(e->d_name) && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		       (st.st_mtim.tv_sec > since->tv_sec ||
			(st.st_mtim.tv_sec == since->tv_sec && st.st_mtim.tv_nsec > since->tv_nsec));
	if (d)
		(void)closedir(d);
	return news;
}

/* NAME.NUMBER; 0 if it is not that. @ret_more: what follows behind another dot, NULL: nothing. */
static unsigned number_of(const char *entry, const char *name, const char **ret_more)
{
	size_t n = strlen(name), digits;
	AUTO_FREE(char, text);
	uint64_t v;

	if (strncmp(entry, name, n) != 0 || entry[n] != '.')
		return 0;
	entry += n + 1;
	digits = strspn(entry, "0123456789");
	text = xstrndup(entry, digits);
	*ret_more = entry[digits] == '.' ? entry + digits + 1 : NULL;
	if (entry[0] == '0' || (entry[digits] != '\0' && !*ret_more) || str_u64(text, NUMBER_MAX, &v) < 0)
		return 0;
	return (unsigned)v;
}

/* The highest set of a name, 0: there is none. With @keep what is older than that number goes. */
static unsigned walk_sets(int db, const char *name, unsigned keep)
{
	int fd = openat(db, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned best = 0, n;
	struct dirent *e;
	const char *more;

	while (d && (e = readdir(d))) {
		n = number_of(e->d_name, name, &more);
		if (n == 0)
			continue;
		if (n < keep)
			(void)file_remove_tree_at(db, e->d_name);
		else if (!more)
			best = MAX(best, n);
	}
	if (d)
		(void)closedir(d);
	return best;
}

/* A folder of the state, made where it is missing and @make; -ELOOP, -ENOTDIR: something else has its name. */
static int state_folder(const char *name, bool make)
{
	AUTO_FD(state);
	int r;

	state = open(GC_STATE_AT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state < 0)
		return -errno;
	r = make ? dir_make_at(state, name, 0700) : 0;
	return r < 0 ? r : file_open_beneath(state, name, O_RDONLY | O_DIRECTORY, 0);
}

static int local_folder(const char *name)
{
	AUTO_FREE(char, path);
	int r;

	path = xasprintf(GC_DB_AT "/%s", name);
	r = mounts_make_dir(path);
	if (r < 0 || chmod(GC_DB_AT, 0700) < 0)
		return r < 0 ? r : -errno;
	r = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

static void empty(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (is_database(e->d_name))
			(void)unlinkat(fd, e->d_name, 0);
	if (d)
		(void)closedir(d);
}

/* FOLDER/LINK leads to the local file. @bad: what is there could not be taken over, so it is kept under another name. */
static void make_link(const struct config_db *db, bool bad)
{
	AUTO_FREE(char, target);
	AUTO_FREE(char, aside);
	AUTO_FD(dir);

	if (!db->link)
		return;
	target = xasprintf(GC_DB_AT "/%s/%s", db->name, db->link);
	dir = state_folder(db->folder, true);
	aside = xasprintf("%s" GC_STATE_ASIDE, db->link);
	if (dir >= 0 && bad && file_remove_tree_at(dir, aside) == 0)
		(void)!renameat(dir, db->link, dir, aside);
	if (dir >= 0 && file_remove_tree_at(dir, db->link) == 0)
		(void)!symlinkat(target, dir, db->link);
}

/* @ret_beside: another session has saved since this one began. */
static int save_one(const struct set *s, const char *session, bool *ret_beside)
{
	AUTO_FREE(char, tmp);
	AUTO_FREE(char, name);
	AUTO_FREE(char, beside);
	AUTO_FD(from);
	AUTO_FD(db);
	AUTO_FD(to);
	int r;

	from = local_folder(s->name);
	if (from < 0 || !has_news(from, &s->since))
		return from < 0 ? from : 0;
	db = state_folder("db", true);
	if (db < 0)
		return db;
	tmp = xasprintf(".%s.new.%s", s->name, session);
	name = xasprintf("%s.%u", s->name, s->number + 1);
	beside = xasprintf("%s.%s", name, session);
	r = file_remove_tree_at(db, tmp);
	if (r == 0)
		r = dir_make_at(db, tmp, 0700);
	to = r < 0 ? r : file_open_beneath(db, tmp, O_RDONLY | O_DIRECTORY, 0);
	r = to < 0 ? to : copy_set(from, to, true);
	/* A folder with something in it is not replaced by rename(2): that is how it shows that another one has saved. */
	if (r >= 0 && renameat(db, tmp, db, name) < 0) {
		*ret_beside = errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR;
		(void)file_remove_tree_at(db, beside);
		r = *ret_beside && renameat(db, tmp, db, beside) == 0 ? 0 : -errno;
	}
	if (r < 0)
		(void)file_remove_tree_at(db, tmp);
	else
		(void)walk_sets(db, s->name, MAX(s->number, 1u));
	return r < 0 ? r : 0;
}

static int load_one(struct guest *g, const struct config_db *db, const char *session, struct set *s)
{
	bool beside = false;
	AUTO_FREE(char, name);
	AUTO_FD(saved);
	AUTO_FD(from);
	AUTO_FD(to);
	int r;

	to = local_folder(db->name);
	if (to < 0)
		return to;
	saved = state_folder("db", false);
	s->number = saved < 0 ? 0 : walk_sets(saved, db->name, 0);
	if (s->number > 0) {
		name = xasprintf("%s.%u", db->name, s->number);
		from = file_open_beneath(saved, name, O_RDONLY | O_DIRECTORY, 0);
	} else {
		from = state_folder(db->folder, false);
	}
	r = from < 0 ? 0 : copy_set(from, to, false);
	if (r < 0) {
		guest_log(g, LOG_LV_WARN, "history: the databases of %s cannot be read: %s; new ones are begun", db->name,
			  strerror(-r));
		empty(to);
	}
	/* What the older program has left is a set at once: a link will take its place. */
	if (r > 0 && s->number == 0) {
		r = save_one(s, session, &beside);
		s->number = r == 0 && !beside;
	}
	make_link(db, r < 0);
	(void)clock_gettime(CLOCK_REALTIME, &s->since);
	return 0;
}

int dbs_load(struct guest *g, const struct config *c, struct err *err)
{
	char session[65] = "";

	(void)gethostname(session, sizeof(session) - 1);
	for (size_t i = 0; i < c->n_dbs; i++) {
		struct set *s = &sets[n_sets];
		int r;

		(void)snprintf(s->name, sizeof(s->name), "%s", c->dbs[i].name);
		r = load_one(g, &c->dbs[i], session, s);
		if (r < 0)
			return err_set(err, r, GC_DB_AT "/%s: cannot be made in the guest: %s", s->name, strerror(-r));
		n_sets++;
	}
	return 0;
}

void dbs_save(struct guest *g)
{
	char session[65] = "";

	(void)gethostname(session, sizeof(session) - 1);
	for (size_t i = 0; i < n_sets; i++) {
		const struct set *s = &sets[i];
		bool beside = false;
		int r = save_one(s, session, &beside);

		if (r < 0)
			guest_log(g, LOG_LV_WARN, "history: the databases of %s cannot be saved: %s; the last set is kept", s->name,
				  strerror(-r));
		else if (beside)
			guest_log(g, LOG_LV_WARN, "history: another session has saved the databases of %s meanwhile; those of this one "
				  "are db/%s.%u.%s in the project's state", s->name, s->name, s->number + 1, session);
	}
	n_sets = 0;
}
