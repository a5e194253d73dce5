#include "session/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "session/exposure.h"
#include "session/guest_path.h"
#include "session/ignore.h"
#include "session/mount_spec.h"
#include "session/path.h"

#define GUARD_ROW_ITEMS 6 /* names in the row "guard" before it says how many more */

/* The work under way; the parts of the result move out of it at the end. */
struct plan {
	const struct layout_args *a;
	struct findings *found;
	struct exposure *exposure;
	struct layout l;
	struct mount *mounts;
	size_t n_mounts;
	struct gitbind binds[GITBINDS_MAX];
	size_t n_binds;
	bool mirrored;
	char *base;	      /* what /workspace stands for when not mirrored */
	struct strv hide;     /* host paths */
	struct strv patterns; /* that hid something */
};

void layout_done(struct layout *l)
{
	for (size_t i = 0; i < l->n_shares; i++) {
		struct layout_share *s = &l->shares[i];

		free(s->host);
		free(s->guest);
		strv_done(&s->guard_ro);
		strv_done(&s->guard_self);
		strv_done(&s->guard_rw);
		strv_done(&s->hide);
	}
	free(l->shares);
	free(l->project_guest);
	free(l->workspace_why);
	gitdir_done(&l->git);
	guard_done(&l->guard);
	strv_done(&l->rows.project);
	strv_done(&l->rows.git);
	strv_done(&l->rows.guard);
	strv_done(&l->rows.mounts);
	strv_done(&l->rows.hidden);
	strv_done(&l->rows.exposed);
	strv_done(&l->rows.state);
	*l = (struct layout){ 0 };
}

static bool strv_has(const struct strv *s, const char *what)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i], what) == 0)
			return true;
	return false;
}

static void strv_add_new(struct strv *s, const char *what)
{
	if (!strv_has(s, what))
		strv_add(s, what);
}

/* Section 7 for @path; rows and findings as it says. */
static bool may_show(struct plan *p, const char *path, enum exposure_role role, const char *object)
{
	struct exposure_result r;
	enum exposure_verdict v = exposure_check(p->exposure, path, role, object, &r);
	bool refused = v == EXPOSURE_REFUSED_SOFT || v == EXPOSURE_REFUSED_HARD;

	if (r.text)
		findings_add(p->found, refused ? FINDING_WORLD : FINDING_WARNING, "%s", r.text);
	for (size_t i = 0; i < r.rows.n; i++)
		strv_add_new(&p->l.rows.exposed, r.rows.v[i]);
	exposure_result_done(&r);
	return !refused;
}

static void take_mounts(struct plan *p)
{
	for (size_t i = 0; p->a->mounts && p->a->mounts[i]; i++) {
		AUTO_FREE(char, object);
		AUTO_FREE(char, shown);
		struct mount_spec spec;
		struct mount m;
		size_t from = p->found->n;

		shown = path_shown(p->a->mounts[i]);
		object = xasprintf("--mount %s", shown);
		if (mount_spec_parse(p->a->mounts[i], &spec, p->found) == 0) {
			if (mount_resolve(&spec, p->a->project, p->a->home, &m, p->found) == 0) {
				if (may_show(p, m.host, EXPOSURE_MOUNT, object)) {
					p->mounts = xrealloc(p->mounts, (p->n_mounts + 1) * sizeof(*p->mounts));
					m.word = i;
					p->mounts[p->n_mounts++] = m;
				} else {
					mount_done(&m);
				}
			}
			mount_spec_done(&spec);
		}
		findings_blame(p->found, from, "mount", i);
	}
}

static void drop_bind(struct plan *p, size_t i)
{
	gitbind_done(&p->binds[i]);
	memmove(&p->binds[i], &p->binds[i + 1], (--p->n_binds - i) * sizeof(*p->binds));
}

/* The git directory lies where the guest will not see it: what is said of it is not for the guest. */
static void forget_git(struct plan *p)
{
	while (p->n_binds > 0)
		drop_bind(p, 0);
	if (p->l.git.common && !path_within(p->a->project, p->l.git.common)) {
		free(p->l.git.common);
		free(p->l.git.admin);
		p->l.git.common = p->l.git.admin = NULL;
		p->l.git.kind = GITDIR_NONE;
	}
}

static int find_git(struct plan *p)
{
	struct gitdir_args args = {
		.project = p->a->project, .home = p->a->home, .uid = p->a->uid, .exposure = p->exposure
	};
	struct findings quiet = { 0 };
	struct strv no_rows = { 0 };
	int r;

	if (!p->a->no_git_dir)
		return gitdir_find(&args, &p->l.git, p->binds, &p->n_binds, &p->l.rows.exposed, p->found);
	/* Still asked, for the guard of what lies in the project. */
	r = gitdir_find(&args, &p->l.git, p->binds, &p->n_binds, &no_rows, &quiet);
	for (size_t i = 0; i < quiet.n; i++)
		if (quiet.v[i].kind == FINDING_WORLD)
			findings_add(p->found, FINDING_WORLD, "%s", quiet.v[i].text);
	findings_done(&quiet);
	strv_done(&no_rows);
	forget_git(p);
	return r;
}

/* Where the project and its git binds lie in the guest. */
static void place_project(struct plan *p)
{
	AUTO_FREE(char, why);
	AUTO_FREE(char, project);

	project = path_shown(p->a->project);
	p->base = xstrdup(p->a->project);
	p->mirrored = guest_path_mirrored(p->a->project, &why);
	for (size_t i = 0; i < p->n_binds; i++) {
		char *common;

		if (p->binds[i].role != GITBIND_TOP && !p->l.git.relative)
			continue;
		common = path_common(p->base, p->binds[i].host);
		free(p->base);
		p->base = common;
		if (p->mirrored && !guest_path_mirrored(p->binds[i].host, &why))
			p->mirrored = false;
	}
	p->l.project_guest = guest_path_of(p->base, p->a->project, p->mirrored);
	if (!p->mirrored)
		p->l.workspace_why = xasprintf("%s is %s in the guest, because its path %s", project, p->l.project_guest, why);
}

/* An absolute pointer leads to the same absolute path in the guest; a relative one to the same distance. */
static char *bind_guest(const struct plan *p, const struct gitbind *b)
{
	if (b->role != GITBIND_TOP && !p->l.git.relative)
		return xstrdup(b->host);
	return guest_path_of(p->base, b->host, p->mirrored);
}

static void check_bind_places(struct plan *p)
{
	for (size_t i = 0; i < p->n_binds; i++) {
		AUTO_FREE(char, guest);
		AUTO_FREE(char, why);
		AUTO_FREE(char, shown);

		guest = bind_guest(p, &p->binds[i]);
		why = guest_path_forbidden(guest);
		if (!why)
			continue;
		shown = path_shown(p->binds[i].host);
		findings_add(p->found, FINDING_NOTE,
			     "%s: git directory not bound: %s; move the repository, or write --mount %s:OTHER/PATH and correct the "
			     "pointer in the guest",
			     shown, why, shown);
		forget_git(p);
		return;
	}
}

static void add_share(struct layout *l, enum layout_kind kind, const char *host, char *guest, bool ro)
{
	l->shares = xrealloc(l->shares, (l->n_shares + 1) * sizeof(*l->shares));
	l->shares[l->n_shares++] =
		(struct layout_share){ .kind = kind, .host = xstrdup(host), .guest = guest, .ro = ro };
}

/* Parents before children; in the order of the words otherwise. */
void layout_add_settings(struct layout *l, const char *host, const char *guest, bool ro)
{
	add_share(l, LAYOUT_SETTINGS, host, xstrdup(guest), ro);
	strv_addf(&l->rows.mounts, "%s your own settings of the agents -> %s", ro ? "ro" : "rw a copy of", guest);
}

static void sort_shares(struct layout *l)
{
	for (size_t i = 1; i < l->n_shares; i++) {
		struct layout_share s = l->shares[i];
		size_t depth = path_depth(s.guest), k = i;

		for (; k > 0 && path_depth(l->shares[k - 1].guest) > depth; k--)
			l->shares[k] = l->shares[k - 1];
		l->shares[k] = s;
	}
	for (size_t i = 0; i < l->n_shares; i++)
		if (l->shares[i].kind == LAYOUT_PROJECT)
			l->project = i;
}

static void make_shares(struct plan *p)
{
	add_share(&p->l, LAYOUT_PROJECT, p->a->project, xstrdup(p->l.project_guest), false);
	for (size_t i = 0; i < p->n_binds; i++)
		add_share(&p->l, LAYOUT_GIT, p->binds[i].host, bind_guest(p, &p->binds[i]), p->binds[i].ro);
	for (size_t i = 0; i < p->n_mounts; i++) {
		AUTO_FREE(char, shown);
		size_t from = p->found->n;
		bool twice = false;

		for (size_t k = 0; k < p->l.n_shares && !twice; k++)
			twice = p->l.shares[k].kind == LAYOUT_GIT && strcmp(p->l.shares[k].guest, p->mounts[i].guest) == 0;
		if (twice) {
			shown = path_shown(p->mounts[i].typed);
			findings_add(p->found, FINDING_TYPED,
				     "--mount %s: the git directory of the project is there already; leave it out, or write "
				     "--git-dir none",
				     shown);
			findings_blame(p->found, from, "mount", p->mounts[i].word);
			continue;
		}
		add_share(&p->l, LAYOUT_MOUNT, p->mounts[i].host, xstrdup(p->mounts[i].guest), p->mounts[i].ro);
	}
	if (p->a->state_dir)
		add_share(&p->l, LAYOUT_STATE, p->a->state_dir, xstrdup(GUEST_STATE), false);
	sort_shares(&p->l);
}

/* Who is to blame for a share: its --mount, if it is one. */
static void blame_share(struct plan *p, const struct layout_share *s, size_t from)
{
	for (size_t i = 0; i < p->n_mounts; i++)
		if (s->kind == LAYOUT_MOUNT && strcmp(p->mounts[i].guest, s->guest) == 0) {
			findings_blame(p->found, from, "mount", p->mounts[i].word);
			return;
		}
}

/* A mount point inside another share must exist there: a guest cannot make it in a share that is read-only, and in the
 * others the user's folder would be littered. */
static void check_mount_points(struct plan *p)
{
	for (size_t i = 1; i < p->l.n_shares; i++) {
		const struct layout_share *s = &p->l.shares[i], *outer = NULL;
		AUTO_FREE(char, inside);
		AUTO_FREE(char, host);
		AUTO_FREE(char, guest);
		AUTO_FD(dir);
		AUTO_FD(fd);
		const char *rest;
		size_t from = p->found->n;

		for (size_t k = 0; k < i; k++)
			if (strcmp(p->l.shares[k].guest, s->guest) != 0 && path_within(p->l.shares[k].guest, s->guest))
				outer = &p->l.shares[k]; /* the last one is the deepest */
		if (!outer)
			continue;
		rest = path_rest(outer->guest, s->guest);
		dir = open(outer->host, O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = dir < 0 ? -errno : file_open_beneath(dir, rest, O_PATH | O_DIRECTORY, 0);
		if (fd >= 0)
			continue;
		inside = path_join(outer->host, rest);
		host = path_shown(inside);
		guest = path_shown(s->guest);
		findings_add(p->found, FINDING_WORLD,
			     "%s%s: its place in the guest lies in another share, where %s %s; make that folder, or choose "
			     "another guest path",
			     s->kind == LAYOUT_MOUNT ? "--mount " : "", guest, host,
			     fd == -ENOENT  ? "does not exist" :
			     fd == -ENOTDIR ? "is no folder" :
			     fd == -ELOOP   ? "is or lies behind a link" :
					      strerror(-fd));
		blame_share(p, s, from);
	}
}

/* A writable mount of something inside a git directory would open its hooks or its config under another name. */
static void check_inside_git(struct plan *p, const struct layout_share *s)
{
	AUTO_FREE(char, at);
	size_t from = p->found->n;

	at = xstrdup(s->host);
	while (strrchr(at, '/') != at) {
		AUTO_FREE(char, shown);
		AUTO_FREE(char, git);
		AUTO_FD(fd);

		*strrchr(at, '/') = '\0';
		fd = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || !gitdir_is(at, fd))
			continue;
		shown = path_shown(s->host);
		git = path_shown(at);
		findings_add(p->found, FINDING_WORLD,
			     "--mount %s: lies inside the git directory %s, parts of which run on the host; mount it with :ro",
			     shown, git);
		blame_share(p, s, from);
		return;
	}
}

static void guard_share(struct plan *p, const struct layout_share *s)
{
	struct guard *g = &p->l.guard;
	AUTO_FREE(char, entry);
	AUTO_FD(fd);

	check_inside_git(p, s);
	fd = open(s->host, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && gitdir_is(s->host, fd))
		(void)guard_git(g, s->host, NULL, p->a->git_config_rw, p->found);
	(void)guard_top(g, s->host, p->found);
	entry = path_join(s->host, ".git");
	(void)close_p(&fd);
	fd = open(entry, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	(void)guard_below(g, s->host, fd >= 0 ? entry : NULL, fd >= 0 ? entry : NULL, p->a->git_config_rw, p->found);
	if (fd >= 0 && (!p->l.git.common || strcmp(entry, p->l.git.common) != 0))
		(void)guard_git(g, entry, NULL, p->a->git_config_rw, p->found);
}

static void collect_guards(struct plan *p)
{
	const struct gitdir *g = &p->l.git;
	bool at_top;

	(void)guard_top(&p->l.guard, p->a->project, p->found);
	/* In a subfolder names in the index are not those of the walk; then every repository counts. */
	at_top = g->top && strcmp(g->top, p->a->project) == 0;
	(void)guard_below(&p->l.guard, p->a->project, !at_top ? NULL : g->admin ? g->admin : g->common, at_top ? g->common : NULL,
			  p->a->git_config_rw, p->found);
	if (g->common)
		(void)guard_git(&p->l.guard, g->common, g->admin, p->a->git_config_rw, p->found);
	for (size_t i = 0; i < p->n_binds; i++)
		if (p->binds[i].role == GITBIND_TOP)
			(void)guard_top(&p->l.guard, p->binds[i].host, p->found);
	for (size_t i = 0; i < p->l.n_shares; i++)
		if (p->l.shares[i].kind == LAYOUT_MOUNT && !p->l.shares[i].ro)
			guard_share(p, &p->l.shares[i]);
}

static void read_ignore_file(struct plan *p, struct ignore *ig, int dir, const char *host)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, shown);
	size_t n;
	int r;

	shown = path_shown(host);
	r = file_read_beneath(dir, IGNORE_FILE, IGNORE_FILE_MAX, &text, &n);
	if (r == -ENOENT)
		return;
	if (r == 0)
		r = ignore_add_file(ig, text, n);
	if (r < 0)
		findings_add(p->found, FINDING_WORLD, "%s/" IGNORE_FILE ": %s; correct it, or write --no-hide", shown,
			     r == -ELOOP   ? "is a link, which is not followed" :
			     r == -EINVAL  ? "is no regular file" :
			     r == -EBADMSG ? "holds a NUL byte" :
			     r == -E2BIG || r == -EFBIG ? "is too long" :
					     strerror(-r));
}

/* @host: the folder that the patterns are about; @typed: --hide counts too. */
static void hide_in(struct plan *p, const char *host, bool typed)
{
	struct ignore *ig = ignore_new();
	struct ignore_hits hits = { 0 };
	struct err err = { "" };
	AUTO_FD(dir);

	dir = open(host, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0 && !p->a->no_hide)
		read_ignore_file(p, ig, dir, host);
	for (size_t i = 0; typed && p->a->hide && p->a->hide[i]; i++) {
		AUTO_FREE(char, shown);
		size_t from = p->found->n;
		int r = ignore_add(ig, p->a->hide[i]);

		if (r == 0)
			continue;
		shown = path_shown(p->a->hide[i]);
		findings_add(p->found, FINDING_TYPED, "--hide %s: %s; write a pattern as in .gitignore, such as --hide .env", shown,
			     r == -E2BIG ? "is too long" : "can match nothing");
		findings_blame(p->found, from, "hide", i);
	}
	if (dir < 0)
		findings_add(p->found, FINDING_WORLD, "%s: cannot be opened: %s; run agent-vm in another folder", host,
			     strerror(errno));
	else if (ignore_walk(ig, dir, &hits, &err) < 0)
		findings_add(p->found, FINDING_WORLD, "%s", err.text);
	for (size_t i = 0; i < hits.n; i++)
		strv_take(&p->hide, path_join(host, hits.v[i].path));
	for (size_t i = 0; i < hits.patterns.n; i++)
		strv_add_new(&p->patterns, hits.patterns.v[i]);
	/* An absolute path, or one with "..", looks as if it hid the file. */
	for (size_t i = 0; typed && !findings_stop(p->found) && p->a->hide && p->a->hide[i]; i++) {
		AUTO_FREE(char, shown);

		if (p->a->hide[i][0] == '!' || strv_has(&hits.patterns, p->a->hide[i]))
			continue;
		shown = path_shown(p->a->hide[i]);
		findings_add(p->found, FINDING_NOTE, "--hide %s: nothing matches it that is not hidden already; a pattern is relative to the "
			     "project, as in .gitignore", shown);
	}
	ignore_hits_done(&hits);
	ignore_free(ig);
}

static int by_depth(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;
	size_t dx = path_depth(*x), dy = path_depth(*y);

	return dx != dy ? (dx < dy ? -1 : 1) : strcmp(*x, *y);
}

static void sort_paths(struct strv *s)
{
	if (s->n > 0)
		qsort(s->v, s->n, sizeof(*s->v), by_depth);
}

/* Names joined with ", ", a tail counted. Caller owns. */
static char *list_text(const struct strv *v, const char *base, size_t max)
{
	char *text = xstrdup("");

	for (size_t i = 0; i < v->n; i++) {
		const char *rest = base ? path_rest(base, v->v[i]) : NULL;
		AUTO_FREE(char, shown);
		char *more;

		shown = path_shown(rest && *rest ? rest : v->v[i]);
		more = i == max ? xasprintf("%s and %zu more", text, v->n - i) :
				  xasprintf("%s%s%s", text, i ? ", " : "", shown);
		free(text);
		text = more;
		if (i == max)
			break;
	}
	return text;
}

/* The patterns of the top and those of the project can hide the same. */
static void sort_hidden(struct strv *hide)
{
	size_t to = 0;

	sort_paths(hide);
	for (size_t i = 0; i < hide->n; i++)
		if (to > 0 && strcmp(hide->v[to - 1], hide->v[i]) == 0)
			free(hide->v[i]);
		else
			hide->v[to++] = hide->v[i];
	if (to < hide->n)
		hide->v[to] = NULL;
	hide->n = to;
}

/* What is mounted over a file covers one name of it. */
static void warn_of_names(struct plan *p)
{
	struct stat *of = xcalloc(p->hide.n + 1, sizeof(*of));
	struct strv shown = { 0 };

	for (size_t i = 0; i < p->hide.n; i++)
		if (lstat(p->hide.v[i], &of[i]) < 0 || !S_ISREG(of[i].st_mode))
			of[i].st_nlink = 0;
	for (size_t i = 0; i < p->hide.n; i++) {
		nlink_t n_hidden = 1; /* itself */

		for (size_t k = 0; k < p->hide.n && of[i].st_nlink > 1; k++)
			n_hidden += k != i && of[k].st_nlink > 0 && of[k].st_dev == of[i].st_dev && of[k].st_ino == of[i].st_ino;
		if (n_hidden < of[i].st_nlink)
			strv_add(&shown, p->hide.v[i]);
	}
	if (shown.n > 0) {
		AUTO_FREE(char, list);

		list = list_text(&shown, p->a->project, GUARD_ROW_ITEMS);
		findings_add(p->found, FINDING_WARNING,
			     "hidden files: %s: hidden under that name, and there are more names (hard links), under which the guest "
			     "can read the same where it sees them; hide those as well, or put a copy in the place of the file",
			     list);
	}
	strv_done(&shown);
	free(of);
}

static void collect_hidden(struct plan *p)
{
	hide_in(p, p->a->project, true);
	for (size_t i = 0; i < p->n_binds; i++)
		if (p->binds[i].role == GITBIND_TOP)
			hide_in(p, p->binds[i].host, false);
	sort_hidden(&p->hide);
	warn_of_names(p);
	if (p->a->report_only && p->hide.n > 0)
		findings_add(p->found, FINDING_WORLD,
			     "hidden files: hiding cannot be enforced on this host; 'agent-vm doctor' says what is missing, "
			     "--no-hide starts without it%s",
			     p->a->hide && p->a->hide[0] ? " (and without --hide)" : "");
}

static bool within_any(const struct strv *outer, const char *path)
{
	for (size_t i = 0; i < outer->n; i++)
		if (path_within(outer->v[i], path))
			return true;
	return false;
}

/* Bind each folder between the share and @rest onto itself, so that none can be renamed and made anew. */
static void hold_parents(struct layout_share *s, const char *rest)
{
	for (const char *slash = strchr(rest, '/'); slash; slash = strchr(slash + 1, '/')) {
		AUTO_FREE(char, part);

		part = xstrndup(rest, (size_t)(slash - rest));
		strv_add_new(&s->guard_self, part);
	}
}

static void guard_writable(struct plan *p, struct layout_share *s)
{
	const struct guard *g = &p->l.guard;

	for (size_t i = 0; i < g->ro.n; i++) {
		const char *rest = path_rest(s->host, g->ro.v[i]);

		if (path_within(g->ro.v[i], s->host)) {
			AUTO_FREE(char, shown);

			shown = path_shown(s->host);
			findings_add(p->found, FINDING_WARNING,
				     "%s: runs on the host or decides what does, and is mounted read-only; write :ro to be rid of this "
				     "line",
				     shown);
			s->ro = true;
			return;
		}
		if (!rest || within_any(&p->hide, g->ro.v[i]))
			continue;
		strv_add_new(&s->guard_ro, rest);
		hold_parents(s, rest);
	}
	for (size_t i = 0; i < g->self.n; i++) {
		const char *rest = path_rest(s->host, g->self.v[i]);

		if (!rest || !*rest || within_any(&p->hide, g->self.v[i]))
			continue;
		strv_add_new(&s->guard_self, rest);
		hold_parents(s, rest);
	}
}

static void distribute(struct plan *p)
{
	for (size_t i = 0; i < p->l.n_shares; i++) {
		struct layout_share *s = &p->l.shares[i];

		if (s->kind == LAYOUT_STATE)
			continue;
		if (!s->ro && !p->a->report_only)
			guard_writable(p, s);
		if (s->ro) {
			strv_done(&s->guard_ro);
			strv_done(&s->guard_self);
		}
		for (size_t k = 0; k < p->hide.n; k++) {
			const char *rest = path_rest(s->host, p->hide.v[k]);

			if (rest && *rest) {
				strv_add_new(&s->hide, rest);
				/* What covers it stays with the folder above: moved away, that would lay the name bare. */
				if (!s->ro)
					hold_parents(s, rest);
			} else if (s->kind == LAYOUT_MOUNT && path_within(p->hide.v[k], s->host)) {
				AUTO_FREE(char, shown);

				shown = path_shown(s->host);
				findings_add(p->found, FINDING_WARNING,
					     "%s: is hidden in the project and mounted by --mount; the guest sees it at its own place",
					     shown);
			}
		}
		sort_paths(&s->guard_ro);
		sort_paths(&s->guard_self);
		sort_paths(&s->hide);
	}
	if (p->a->report_only) {
		/* Nothing is bound, so nothing is made; what is changed is in the report at the end. */
		strv_done(&p->l.guard.ro);
		strv_done(&p->l.guard.self);
		strv_done(&p->l.guard.make);
	}
}

/* "rw HOST" or "rw HOST -> GUEST". */
static char *share_text(const struct layout_share *s)
{
	AUTO_FREE(char, host);
	AUTO_FREE(char, guest);

	host = path_shown(s->host);
	guest = path_shown(s->guest);
	if (strcmp(s->host, s->guest) == 0)
		return xasprintf("%s %s", s->ro ? "ro" : "rw", host);
	return xasprintf("%s %s -> %s", s->ro ? "ro" : "rw", host, guest);
}

/* What a person knows: without the commondir that is made to keep another from being made. */
static char *guard_text(const struct plan *p)
{
	const struct guard *g = &p->l.guard;
	struct strv known = { 0 };
	char *text;

	for (size_t i = 0; i < g->ro.n; i++)
		if (strcmp(strrchr(g->ro.v[i], '/'), "/commondir") != 0 || !strv_has(&g->make, g->ro.v[i]))
			strv_add_new(&known, g->ro.v[i]);
	text = list_text(&known, p->a->project, GUARD_ROW_ITEMS);
	strv_done(&known);
	return text;
}

/* A config.worktree that is not there is nothing that a person knows. */
static char *watched_text(const struct plan *p)
{
	const struct strv *configs = &p->l.guard.configs;
	struct strv known = { 0 };
	char *text;

	for (size_t i = 0; i < configs->n; i++)
		if (strcmp(strrchr(configs->v[i], '/'), "/config.worktree") != 0 || guard_place_there(configs->v[i]) == 0)
			strv_add_new(&known, configs->v[i]);
	text = list_text(&known, p->a->project, GUARD_ROW_ITEMS);
	strv_done(&known);
	return text;
}

static void write_rows(struct plan *p)
{
	struct layout_rows *rows = &p->l.rows;
	AUTO_FREE(char, watched);
	AUTO_FREE(char, guard);
	AUTO_FREE(char, hidden);

	strv_take(&rows->project, share_text(&p->l.shares[p->l.project]));
	for (size_t i = 0; i < p->n_binds; i++) {
		AUTO_FREE(char, host);

		host = path_shown(p->binds[i].host);
		strv_addf(&rows->git, "%s %s (%s)", p->binds[i].ro ? "ro" : "rw", host, p->binds[i].purpose);
	}
	for (size_t i = 0; i < p->n_mounts; i++)
		for (size_t k = 0; k < p->l.n_shares; k++)
			if (p->l.shares[k].kind == LAYOUT_MOUNT && strcmp(p->l.shares[k].guest, p->mounts[i].guest) == 0)
				strv_take(&rows->mounts, share_text(&p->l.shares[k]));
	guard = guard_text(p);
	if (p->a->report_only)
		strv_add(&rows->guard, "report only");
	else if (*guard)
		strv_addf(&rows->guard, "ro %s", guard);
	watched = watched_text(p);
	if (*watched)
		strv_addf(&rows->guard, "rw %s (watched: what could run something is undone)", watched);
	hidden = list_text(&p->patterns, NULL, SIZE_MAX);
	if (p->hide.n > 0)
		strv_addf(&rows->hidden, "%s (%zu %s)", hidden, p->hide.n, p->hide.n == 1 ? "entry" : "entries");
	if (p->a->state_dir)
		strv_take(&rows->state, path_shown(p->a->state_dir));
}

/* --expose: made absolute; what is not there is a mistake. */
static void take_expose(struct plan *p, struct strv *ret)
{
	for (size_t i = 0; p->a->expose && p->a->expose[i]; i++) {
		const char *typed = p->a->expose[i];
		AUTO_FREE(char, shown);
		AUTO_FREE(char, path);
		size_t from = p->found->n;
		struct stat st;

		shown = path_shown(typed);
		if ((strcmp(typed, "~") == 0 || str_starts(typed, "~/")) && p->a->home)
			path = path_join(p->a->home, typed[1] ? typed + 2 : "");
		else
			path = typed[0] == '/' ? xstrdup(typed) : path_join(p->a->project, typed);
		if (lstat(path, &st) < 0)
			findings_add(p->found, FINDING_WORLD, "--expose %s: %s; correct the path or leave it out", shown,
				     errno == ENOENT ? "no such file or directory" : strerror(errno));
		findings_blame(p->found, from, "expose", i);
		strv_take(ret, TAKE_PTR(path));
	}
}

static void warn_unused_expose(struct plan *p)
{
	for (int i = exposure_unused(p->exposure, -1); i >= 0; i = exposure_unused(p->exposure, i)) {
		AUTO_FREE(char, shown);
		size_t from = p->found->n;

		shown = path_shown(p->a->expose[i]);
		findings_add(p->found, FINDING_WARNING,
			     "--expose %s: lifts nothing in this launch; it opens only what the project or a --mount shows", shown);
		findings_blame(p->found, from, "expose", (size_t)i);
	}
}

static void plan_all(struct plan *p)
{
	bool project_ok;

	take_mounts(p);
	project_ok = may_show(p, p->a->project, EXPOSURE_PROJECT, NULL);
	if (project_ok && find_git(p) < 0)
		project_ok = false;
	place_project(p);
	check_bind_places(p);
	mounts_check(p->mounts, p->n_mounts, p->l.project_guest, p->found);
	make_shares(p);
	/* What follows looks into the project; one that is refused is not looked through. */
	if (!project_ok)
		return;
	check_mount_points(p);
	collect_guards(p);
	collect_hidden(p);
	if (findings_stop(p->found))
		return;
	distribute(p);
	write_rows(p);
	warn_unused_expose(p);
}

int layout_plan(const struct layout_args *args, struct layout *ret, struct findings *found)
{
	struct plan p = { .a = args, .found = found };
	struct strv lift = { 0 };
	struct exposure_args e = {
		.state_root = args->state_root, .image_store = args->image_store, .home = args->home, .own = args->own,
		.env = args->env, .env_arg = args->env_arg,
	};
	bool stop;

	take_expose(&p, &lift);
	e.lift = (const char *const *)lift.v;
	p.exposure = exposure_new(&e);
	plan_all(&p);
	stop = findings_stop(found);
	for (size_t i = 0; i < p.n_mounts; i++)
		mount_done(&p.mounts[i]);
	while (p.n_binds > 0)
		drop_bind(&p, 0);
	free(p.mounts);
	free(p.base);
	strv_done(&p.hide);
	strv_done(&p.patterns);
	strv_done(&lift);
	exposure_free(p.exposure);
	if (stop) {
		layout_done(&p.l);
		return -EINVAL;
	}
	*ret = p.l;
	return 0;
}
