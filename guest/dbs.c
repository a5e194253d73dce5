#include "guest/dbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/mounts.h"

#define NUMBER_MAX 999999999
#define OLD ".old"
#define ANEW "anew" /* in place of a number */

/* What was loaded, for the end. */
static struct dbs_set sets[GC_DBS_MAX];
static size_t n_sets;
static const char *local_at = GC_DB_AT, *state_at = GC_STATE_AT;
static char session[65]; /* a program of the guest can change the host name later */

void dbs_at(const char *local, const char *state, const char *name)
{
	local_at = local;
	state_at = state;
	(void)snprintf(session, sizeof(session), "%s", name);
	n_sets = 0;
}

const struct dbs_set *dbs_sets(size_t *ret_n)
{
	*ret_n = n_sets;
	return sets;
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

/* The highest set of a name, 0: there is none; or a negative errno. With @keep what is older than that number goes. */
static int walk_sets(int db, const char *name, unsigned keep)
{
	DIR *d = dbset_open(db);
	unsigned best = 0, n;
	struct dirent *e;
	const char *more;
	int r;

	if (!d)
		return -errno;
	while ((errno = 0, e = readdir(d))) {
		n = number_of(e->d_name, name, &more);
		if (n == 0)
			continue;
		if (n < keep)
			(void)file_remove_tree_at(db, e->d_name);
		else if (!more)
			best = MAX(best, n);
	}
	r = errno != 0 ? -errno : (int)best;
	(void)closedir(d);
	return r;
}

/* A folder of the state, made where it is missing and @make; -ELOOP, -ENOTDIR: something else has its name. */
static int state_folder(const char *name, bool make)
{
	AUTO_FD(state);
	int r;

	state = open(state_at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state < 0)
		return -errno;
	r = make ? dir_make_at(state, name, 0700) : 0;
	return r < 0 ? r : file_open_beneath(state, name, O_RDONLY | O_DIRECTORY, 0);
}

int dbs_local(const char *name, char **ret)
{
	AUTO_FREE(char, path);
	int r;

	path = xasprintf("%s/%s", local_at, name);
	r = mounts_make_dir(path);
	if (r < 0 || chmod(local_at, 0700) < 0)
		return r < 0 ? r : -errno;
	r = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r < 0)
		return -errno;
	if (ret)
		*ret = TAKE_PTR(path);
	return r;
}

static bool is_file(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* A database and its log; what @to was goes. */
static int rename_db(int dir, const char *from, const char *to)
{
	AUTO_FREE(char, from_log);
	AUTO_FREE(char, to_log);

	from_log = xasprintf("%s-wal", from);
	to_log = xasprintf("%s-wal", to);
	if (file_remove_tree_at(dir, to) < 0 || file_remove_tree_at(dir, to_log) < 0 || renameat(dir, from, dir, to) < 0)
		return -1;
	(void)renameat(dir, from_log, dir, to_log);
	return 0;
}

/* Where nothing was saved yet: what make_link() put aside because it could not be read is tried again. */
static void take_back(const struct config_db *db)
{
	AUTO_FREE(char, aside);
	AUTO_FD(dir);

	dir = db->link ? state_folder(db->folder, false) : -ENOENT;
	aside = xasprintf("%s" GC_STATE_ASIDE, db->link ? db->link : "");
	if (dir >= 0 && !is_file(dir, db->link) && is_file(dir, aside))
		(void)rename_db(dir, aside, db->link);
}

/* FOLDER/LINK leads to the local file. A file that is there instead of the link is kept under another name, unless it @is_saved. */
static void make_link(struct guest *g, const struct config_db *db, bool is_saved)
{
	AUTO_FREE(char, target);
	AUTO_FREE(char, aside);
	AUTO_FD(dir);

	dir = db->link ? state_folder(db->folder, true) : -ENOENT;
	if (dir < 0)
		return;
	if (!is_saved && is_file(dir, db->link)) {
		aside = xasprintf("%s" GC_STATE_ASIDE, db->link);
		if (rename_db(dir, db->link, aside) < 0)
			return;
		guest_log(g, LOG_LV_WARN, "history: %s/%s was in no saved set; it is kept as %s", db->folder, db->link, aside);
	}
	target = xasprintf("%s/%s/%s", local_at, db->name, db->link);
	if (file_remove_tree_at(dir, db->link) == 0)
		(void)!symlinkat(target, dir, db->link);
}

/* The length of the name of the session in what follows a set's number. */
static size_t session_len(const char *more)
{
	size_t n = strlen(more), k = strlen(OLD);

	return n > k && strcmp(more + n - k, OLD) == 0 ? n - k : n;
}

/* All sets of this session, or all but @keep. */
static void remove_own(int db, const char *name, const char *keep)
{
	DIR *d = dbset_open(db);
	struct dirent *e;
	const char *more;

	while (d && (e = readdir(d)))
		if (number_of(e->d_name, name, &more) > 0 && more && session_len(more) == strlen(session) &&
		    str_starts(more, session) && !(keep && strcmp(e->d_name, keep) == 0))
			(void)file_remove_tree_at(db, e->d_name);
	if (d)
		(void)closedir(d);
}

/* @tmp becomes @name, which may be there: it is @name OLD until then. At each instant one of the two is whole, and it is the
 * one that counts. */
static int replace_set(int db, const char *tmp, const char *name)
{
	AUTO_FREE(char, old);
	int r;

	old = xasprintf("%s" OLD, name);
	if (faccessat(db, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		r = file_remove_tree_at(db, old);
		if (r < 0 || renameat(db, name, db, old) < 0)
			return r < 0 ? r : -errno;
	}
	if (renameat(db, tmp, db, name) < 0)
		return -errno;
	(void)fsync(db);
	(void)file_remove_tree_at(db, old);
	return 0;
}

/* A folder @tmp with a copy of @from. */
static int make_set(int db, const char *tmp, int from, uint64_t max)
{
	AUTO_FD(to);
	int r = file_remove_tree_at(db, tmp);

	if (r == 0)
		r = dir_make_at(db, tmp, 0700);
	to = r < 0 ? r : file_open_beneath(db, tmp, O_RDONLY | O_DIRECTORY, 0);
	return to < 0 ? to : dbset_copy(from, to, true, max);
}

/* NAME.NUMBER.SESSION: beside the last set, or before there is the next one. Caller owns. */
static char *own_name(const struct dbs_set *s, int last)
{
	if (s->unread < 0)
		return xasprintf("%s." ANEW ".%s", s->name, session);
	return xasprintf("%s.%d.%s", s->name, MAX(last, (int)s->number + 1), session);
}

/* @over: the session, whose set may then get a number alone. @ret_beside: what it is called otherwise; caller owns. */
static int save_set(const struct dbs_set *s, int from, bool over, char **ret_beside)
{
	AUTO_FREE(char, tmp);
	AUTO_FREE(char, name);
	AUTO_FD(db);
	int last, r;

	db = state_folder("db", true);
	if (db < 0)
		return db;
	tmp = xasprintf(".%s.new.%s", s->name, session);
	r = make_set(db, tmp, from, over ? DBSET_MAX : DBSET_MAX_RUNNING);
	name = xasprintf("%s.%u", s->name, s->number + 1);
	last = r < 0 ? r : walk_sets(db, s->name, 0);
	/* A folder with something in it is not replaced by rename(2): that is how it shows that another one has saved. */
	if (last >= 0 && over && s->unread == 0 && last <= (int)s->number && renameat(db, tmp, db, name) == 0) {
		remove_own(db, s->name, NULL);
		r = 0;
	} else if (last >= 0) {
		free(name);
		name = own_name(s, walk_sets(db, s->name, 0));
		r = replace_set(db, tmp, name);
		if (r == 0) {
			remove_own(db, s->name, name);
			*ret_beside = TAKE_PTR(name);
		}
	} else {
		r = last;
	}
	if (r < 0)
		(void)file_remove_tree_at(db, tmp);
	else if (s->unread == 0) /* else what is older may be all that can be read */
		(void)walk_sets(db, s->name, MAX(s->number, 1u));
	return r;
}

int dbs_keep(const struct dbs_set *s, int from)
{
	AUTO_FREE(char, name);

	return save_set(s, from, false, &name);
}

bool dbs_is_kept(const struct dbs_set *s)
{
	AUTO_FREE(char, name);
	AUTO_FD(db);

	db = state_folder("db", false);
	name = db < 0 ? NULL : own_name(s, walk_sets(db, s->name, 0));
	return name && faccessat(db, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool is_alive(const struct config *c, const char *name, size_t n)
{
	if (n == strlen(session) && memcmp(session, name, n) == 0)
		return true;
	for (size_t i = 0; i < c->n_live; i++)
		if (c->live[i].n == n && memcmp(c->live[i].p, name, n) == 0)
			return true;
	return !(c->flags & GC_F_LIVE);
}

/* The set of a session that was killed and that none has saved after: the one with the highest number @ret, of those of one
 * number the youngest; with @anew of those that were begun anew. Copies that a dead session has begun go. Caller owns. */
static char *find_dead(int db, const char *name, bool anew, unsigned last, const struct config *c, unsigned *ret)
{
	DIR *d = dbset_open(db);
	struct timespec when = { 0 };
	AUTO_FREE(char, begun);
	AUTO_FREE(char, start);
	char *found = NULL;
	struct dirent *e;

	start = xasprintf("%s." ANEW ".", name);
	begun = xasprintf(".%s.new.", name);
	*ret = last;
	while (d && (e = readdir(d))) {
		AUTO_FREE(char, newer);
		const char *more = NULL;
		unsigned n = number_of(e->d_name, name, &more);
		struct stat st;

		if (anew)
			more = str_starts(e->d_name, start) ? e->d_name + strlen(start) : NULL;
		if (str_starts(e->d_name, begun) && !is_alive(c, e->d_name + strlen(begun), strlen(e->d_name) - strlen(begun)))
			(void)file_remove_tree_at(db, e->d_name);
		if ((!anew && n <= last) || n < *ret || !more || is_alive(c, more, session_len(more)) ||
		    fstatat(db, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
			continue;
		newer = xstrndup(e->d_name, (size_t)(more - e->d_name) + session_len(more));
		if (strcmp(newer, e->d_name) != 0 && faccessat(db, newer, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			continue;
		if (n == *ret && found && (st.st_mtim.tv_sec < when.tv_sec ||
					   (st.st_mtim.tv_sec == when.tv_sec && st.st_mtim.tv_nsec <= when.tv_nsec)))
			continue;
		free(found);
		found = xstrdup(e->d_name);
		when = st.st_mtim;
		*ret = n;
	}
	if (d)
		(void)closedir(d);
	return found;
}

/* The number of the set to begin with; 0: there is none; or a negative errno. */
static int choose(struct guest *g, int db, const char *name, const struct config *c)
{
	int last = walk_sets(db, name, 0);
	AUTO_FREE(char, killed);
	AUTO_FREE(char, old);
	AUTO_FREE(char, to);
	unsigned n;

	killed = last < 0 ? NULL : find_dead(db, name, false, (unsigned)last, c, &n);
	if (!killed)
		return last;
	to = xasprintf("%s.%u", name, n);
	if (renameat(db, killed, db, to) < 0)
		return walk_sets(db, name, 0);
	old = xasprintf("%s" OLD, killed);
	(void)file_remove_tree_at(db, old); /* it was about to go */
	guest_log(g, LOG_LV_INFO, "history: the databases of %s are those of a session that did not end in order, db/%s", name, killed);
	return (int)n;
}

/* All of them, or none and a negative errno. */
static int load(int from, int to)
{
	int r = from < 0 ? from : dbset_copy(from, to, false, DBSET_MAX);

	if (r > 0 && dbset_is_damaged(to))
		r = -EBADMSG;
	if (r < 0)
		dbset_empty(to);
	return r;
}

static const char *why(int r)
{
	return r == -EBADMSG ? "a database is damaged" : r == -ENOSPC ? "no space left (a larger --disk would do)" : strerror(-r);
}

/* What sessions have begun anew while the last set could not be read is gone on with while it still cannot, or when there is no
 * other one. */
static void load_anew(struct guest *g, const struct config *c, struct dbs_set *s, int db, int to)
{
	unsigned n;
	AUTO_FREE(char, found);
	AUTO_FREE(char, name);
	AUTO_FD(from);
	int r;

	found = find_dead(db, s->name, true, 0, c, &n);
	if (!found)
		return;
	if (s->number > 0 && s->unread == 0) {
		guest_log(g, LOG_LV_WARN, "history: db/%s in the project's state has the databases that %s began anew when db/%s.%u or the one "
			  "before it could not be read; it stays until you remove it", found, s->name, s->name, s->number);
		return;
	}
	from = file_open_beneath(db, found, O_RDONLY | O_DIRECTORY, 0);
	r = load(from, to);
	if (r < 0) {
		/* No later session then takes a younger one for what has gone on with it. The first one, so that they do not add up. */
		name = xasprintf("%s." ANEW "-kept", s->name);
		guest_log(g, LOG_LV_WARN, "history: the databases of %s in db/%s in the project's state could not be read: %s", s->name,
			  renameat(db, found, db, name) == 0 ? name : found, why(r));
		return;
	}
	name = s->unread < 0 ? own_name(s, 0) : xasprintf("%s.1", s->name);
	if (renameat(db, found, db, name) < 0)
		return;
	if (s->unread == 0)
		s->number = 1;
	/* One is kept. */
	for (;;) {
		AUTO_FREE(char, old);

		old = find_dead(db, s->name, true, 0, c, &n);
		if (!old || file_remove_tree_at(db, old) < 0)
			return;
	}
}

static int load_one(struct guest *g, const struct config *c, const struct config_db *db, struct dbs_set *s)
{
	AUTO_FREE(char, beside);
	AUTO_FREE(char, name);
	bool is_saved = false, is_taken;
	AUTO_FD(saved);
	AUTO_FD(from);
	AUTO_FD(to);
	int r;

	to = dbs_local(db->name, NULL);
	if (to < 0)
		return to;
	saved = state_folder("db", false);
	r = saved >= 0 ? choose(g, saved, db->name, c) : saved == -ENOENT ? 0 : saved;
	s->number = r > 0 ? (unsigned)r : 0;
	name = r > 0 ? xasprintf("db/%s.%d", db->name, r) : xstrdup(r == 0 ? db->folder : "db");
	if (r == 0)
		take_back(db);
	if (r >= 0) {
		from = r > 0 ? file_open_beneath(saved, name + strlen("db/"), O_RDONLY | O_DIRECTORY, 0) : state_folder(db->folder, false);
		r = r == 0 && (from == -ENOENT || from == -ENOTDIR || from == -ELOOP) ? 0 : load(from, to);
	}
	s->unread = MIN(r, 0);
	if (r < 0) {
		guest_log(g, LOG_LV_INFO, "history: the databases of %s in %s cannot be read: %s", s->name, name, why(r));
		s->unread_at = TAKE_PTR(name);
	}
	is_taken = r > 0;
	/* What the older program has left is a set at once: a link will take its place. */
	if (is_taken && s->number == 0) {
		r = save_set(s, to, true, &beside);
		is_saved = r == 0;
		s->number = is_saved && !beside;
	}
	if (saved >= 0 && (s->number > 0 || !is_taken))
		load_anew(g, c, s, saved, to);
	s->seen = dbset_look(to);
	if (is_taken && r < 0)
		s->seen.sum = 0; /* it is yet to be saved */
	make_link(g, db, is_saved);
	return 0;
}

int dbs_load(struct guest *g, const struct config *c, struct err *err)
{
	if (session[0] == '\0')
		(void)gethostname(session, sizeof(session) - 1);
	for (size_t i = 0; i < c->n_dbs; i++) {
		struct dbs_set *s = &sets[n_sets];
		int r;

		(void)snprintf(s->name, sizeof(s->name), "%s", c->dbs[i].name);
		r = load_one(g, c, &c->dbs[i], s);
		if (r < 0)
			return err_set(err, r, "%s/%s: cannot be made in the guest: %s", local_at, s->name, strerror(-r));
		n_sets++;
	}
	return 0;
}

/* @ret_beside: save_set()'s; caller owns. */
static int save_one(const struct dbs_set *s, char **ret_beside)
{
	AUTO_FD(from);

	from = dbs_local(s->name, NULL);
	if (from < 0)
		return from;
	return dbset_look(from).sum == s->seen.sum ? 0 : save_set(s, from, true, ret_beside);
}

void dbs_save(struct guest *g)
{
	for (size_t i = 0; i < n_sets; i++) {
		const struct dbs_set *s = &sets[i];
		AUTO_FREE(char, beside);
		int r = save_one(s, &beside);

		if (r < 0)
			guest_log(g, LOG_LV_WARN, "history: the databases of %s cannot be saved: %s; the last set is kept", s->name,
				  strerror(-r));
		else if (beside && s->unread == 0)
			guest_log(g, LOG_LV_WARN, "history: another session has saved the databases of %s meanwhile; those of this one "
				  "are db/%s in the project's state", s->name, beside);
		if (s->unread < 0)
			guest_log(g, LOG_LV_WARN, "history: the databases of %s could not be read: %s; they stay in %s in the project's state "
				  "until a session has read them or you remove them%s%s", s->name, why(s->unread), s->unread_at,
				  beside ? "; those of this session are db/" : "", beside ? beside : "");
	}
	n_sets = 0;
}
