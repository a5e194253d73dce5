#include "session/exposure.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/fd.h"
#include "session/path.h"

#define MOUNTINFO_MAX (16 * 1024 * 1024)
#define DEPTH_MAX 256 /* ancestors whose inodes are compared; deeper ones are still compared as text */

enum place_kind {
	PLACE_OWN_STATE, /* touches: hard */
	PLACE_HOME,	 /* is or contains: soft */
	PLACE_LOGIN,	 /* touches: soft */
	PLACE_SECRET,	 /* touches: warning */
	PLACE_PROGRAM,	 /* contains: warning */
};

/* Device and path within it: what a path is, whichever mount shows it. */
struct region {
	unsigned major, minor;
	char *path;
};

struct regions {
	struct region *v;
	size_t n;
};

struct inode {
	dev_t dev;
	ino_t ino;
};

struct place {
	enum place_kind kind;
	char *path; /* canonical as far as it exists */
	char *what;
	struct regions regions;
	struct inode *chain; /* of the path and its ancestors, the path first; only what exists */
	size_t n_chain;
	bool exists;
};

struct mount_row {
	unsigned major, minor;
	char *root, *point;
};

struct exposure {
	struct place *v;
	size_t n;
	struct mount_row *mounts; /* in the order of mountinfo: later ones lie on top */
	size_t n_mounts;
	struct strv lift;
	bool *used;
};

/* mountinfo writes space, tab, newline and backslash as \NNN. */
static char *unoctal(const char *s, size_t n)
{
	char *out = xmalloc(n + 1), *to = out;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\\' && i + 3 < n && s[i + 1] >= '0' && s[i + 1] <= '3') {
			*to++ = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 | (s[i + 3] - '0'));
			i += 3;
		} else {
			*to++ = s[i];
		}
	}
	*to = '\0';
	return out;
}

/* Lines of /proc/self/mountinfo (proc(5)): id parent MAJOR:MINOR ROOT POINT ... */
static void read_mounts(struct exposure *e)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	char *save = NULL;

	fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, MOUNTINFO_MAX, &text, NULL) < 0)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct mount_row m;
		int root, root_end, point, point_end;

		if (sscanf(line, "%*d %*d %u:%u %n%*s%n %n%*s%n", &m.major, &m.minor, &root, &root_end, &point,
			   &point_end) != 2)
			continue;
		m.root = unoctal(line + root, (size_t)(root_end - root));
		m.point = unoctal(line + point, (size_t)(point_end - point));
		e->mounts = xrealloc(e->mounts, (e->n_mounts + 1) * sizeof(*e->mounts));
		e->mounts[e->n_mounts++] = m;
	}
}

static void regions_add(struct regions *r, const struct mount_row *m, const char *rest)
{
	r->v = xrealloc(r->v, (r->n + 1) * sizeof(*r->v));
	r->v[r->n++] = (struct region){ m->major, m->minor, path_join(m->root, rest) };
}

static void regions_done(struct regions *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i].path);
	free(r->v);
	*r = (struct regions){ 0 };
}

/* Where @path lies, then what is mounted below it. The first is always @path's own, unless mountinfo was unreadable. */
static struct regions regions_of(const struct exposure *e, const char *path)
{
	const struct mount_row *at = NULL;
	struct regions r = { 0 };

	for (size_t i = 0; i < e->n_mounts; i++) {
		const struct mount_row *m = &e->mounts[i];

		if (path_within(m->point, path) && (!at || path_within(at->point, m->point)))
			at = m;
	}
	if (!at)
		return r;
	regions_add(&r, at, path_rest(at->point, path));
	for (size_t i = 0; i < e->n_mounts; i++)
		if (strcmp(e->mounts[i].point, path) != 0 && path_within(path, e->mounts[i].point))
			regions_add(&r, &e->mounts[i], "");
	return r;
}

static bool region_within(const struct region *outer, const struct region *in)
{
	return outer->major == in->major && outer->minor == in->minor && path_within(outer->path, in->path);
}

/* Does one of @outer's regions hold one of @in's? @own_only: only the first of @in, the thing itself. */
static bool regions_hold(const struct regions *outer, const struct regions *in, bool own_only)
{
	for (size_t i = 0; i < outer->n; i++)
		for (size_t j = 0; j < in->n && (j == 0 || !own_only); j++)
			if (region_within(&outer->v[i], &in->v[j]))
				return true;
	return false;
}

static size_t inode_chain(const char *path, struct inode **ret, bool *ret_exists)
{
	AUTO_FREE(char, s);
	struct inode *v = xcalloc(DEPTH_MAX, sizeof(*v));
	size_t n = 0;
	struct stat st;
	bool first = true;

	s = xstrdup(path);
	*ret_exists = false;
	while (*s && n < DEPTH_MAX) {
		if (stat(s, &st) == 0) {
			v[n++] = (struct inode){ st.st_dev, st.st_ino };
			*ret_exists |= first;
		}
		first = false;
		*strrchr(s, '/') = '\0';
	}
	*ret = v;
	return n;
}

static bool chain_has(const struct inode *v, size_t n, struct inode what)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].dev == what.dev && v[i].ino == what.ino)
			return true;
	return false;
}

static void add_canonical(struct exposure *e, enum place_kind kind, const char *path, const char *what)
{
	struct place p = { .kind = kind };

	for (size_t i = 0; i < e->n; i++)
		if (e->v[i].kind == kind && strcmp(e->v[i].path, path) == 0)
			return;
	p.path = xstrdup(path);
	p.what = xstrdup(what);
	p.regions = regions_of(e, path);
	p.n_chain = inode_chain(path, &p.chain, &p.exists);
	e->v = xrealloc(e->v, (e->n + 1) * sizeof(*e->v));
	e->v[e->n++] = p;
}

/* A thing counts where it is named (its folder's links resolved, its own not) and where it leads. */
static void add(struct exposure *e, enum place_kind kind, const char *path, const char *what)
{
	AUTO_FREE(char, tidy);
	AUTO_FREE(char, real);
	AUTO_FREE(char, dir);
	AUTO_FREE(char, named);
	char *slash;

	tidy = path_tidy("/", path);
	real = path_canonical(path);
	slash = strrchr(tidy, '/');
	dir = slash == tidy ? xstrdup("/") : xstrndup(tidy, (size_t)(slash - tidy));
	named = path_canonical(dir);
	free(dir);
	dir = TAKE_PTR(named);
	named = path_join(dir, slash + 1);
	add_canonical(e, kind, named, what);
	add_canonical(e, kind, real, what);
}

static void add_below(struct exposure *e, enum place_kind kind, const char *dir, const char *name, const char *what)
{
	AUTO_FREE(char, path);

	path = path_join(dir, name);
	add(e, kind, path, what);
}

/* A login folder, and where the login files in it lead when they are links (dotfile managers do that). */
static void add_login(struct exposure *e, const char *dir, const char *name, const char *what)
{
	static const char *const files[] = { ".credentials.json", "auth.json", "hosts.yml", "config.json", ".claude.json" };
	AUTO_FREE(char, path);

	path = path_join(dir, name);
	add(e, PLACE_LOGIN, path, what);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE(char, file);
		AUTO_FREE(char, real);
		AUTO_FREE(char, real_dir);

		file = path_join(path, files[i]);
		real = realpath(file, NULL);
		real_dir = path_canonical(path);
		if (real && !path_within(real_dir, real))
			add_canonical(e, PLACE_LOGIN, real, what);
	}
}

static const char *env_path(const struct exposure_args *args, const char *name)
{
	const char *v = args->env ? args->env(name, args->env_arg) : getenv(name);

	return v && v[0] == '/' ? v : NULL;
}

static void add_logins(struct exposure *e, const struct exposure_args *args)
{
	static const struct {
		const char *name, *what;
	} home[] = {
		{ ".claude", "the Claude login" },	{ ".claude.json", "the Claude login" },
		{ ".codex", "the Codex login" },	{ ".local/share/opencode", "the OpenCode logins" },
		{ ".copilot", "the Copilot login" },	{ ".config/gh", "the GitHub login" },
		{ ".cache/claude-vm", "stored logins" },
	}, env[] = {
		{ "CLAUDE_SECURESTORAGE_CONFIG_DIR", "the Claude login" },
		{ "CLAUDE_CONFIG_DIR", "the Claude login" },
		{ "CODEX_HOME", "the Codex login" },
		{ "COPILOT_HOME", "the Copilot login" },
		{ "GH_CONFIG_DIR", "the GitHub login" },
	};
	const char *v;

	for (size_t i = 0; args->home && i < ARRAY_SIZE(home); i++)
		add_login(e, args->home, home[i].name, home[i].what);
	for (size_t i = 0; i < ARRAY_SIZE(env); i++)
		if ((v = env_path(args, env[i].name)))
			add_login(e, v, "", env[i].what);
	if ((v = env_path(args, "XDG_DATA_HOME")))
		add_login(e, v, "opencode", "the OpenCode logins");
	if ((v = env_path(args, "XDG_CONFIG_HOME")))
		add_login(e, v, "gh", "the GitHub login");
}

static void add_secrets(struct exposure *e, const struct exposure_args *args)
{
	static const struct {
		const char *name, *what;
	} home[] = {
		{ ".ssh", "SSH keys" },
		{ ".gnupg", "GnuPG keys" },
		{ ".aws", "AWS logins" },
		{ ".azure", "Azure logins" },
		{ ".kube", "Kubernetes logins" },
		{ ".docker", "Docker logins" },
		{ ".config/gcloud", "Google Cloud logins" },
		{ ".password-store", "passwords" },
		{ ".local/share/keyrings", "passwords" },
		{ ".mozilla", "browser logins" },
		{ ".netrc", "passwords" },
		{ ".npmrc", "npm tokens" },
		{ ".pypirc", "PyPI tokens" },
		{ ".git-credentials", "git passwords" },
		{ ".config/git/credentials", "git passwords" },
	};
	const char *v;

	for (size_t i = 0; args->home && i < ARRAY_SIZE(home); i++)
		add_below(e, PLACE_SECRET, args->home, home[i].name, home[i].what);
	if ((v = env_path(args, "XDG_CONFIG_HOME"))) {
		add_below(e, PLACE_SECRET, v, "gcloud", "Google Cloud logins");
		add_below(e, PLACE_SECRET, v, "git/credentials", "git passwords");
	}
	if ((v = env_path(args, "XDG_DATA_HOME")))
		add_below(e, PLACE_SECRET, v, "keyrings", "passwords");
}

/* Who can write a folder above a file can replace the file. */
static bool can_replace(const char *path)
{
	AUTO_FREE(char, at);
	char *slash;

	if (access(path, W_OK) == 0)
		return true;
	at = xstrdup(path);
	while ((slash = strrchr(at, '/'))) {
		*slash = '\0';
		if (access(*at ? at : "/", W_OK) == 0)
			return true;
	}
	return false;
}

struct exposure *exposure_new(const struct exposure_args *args)
{
	struct exposure *e = xcalloc(1, sizeof(*e));

	read_mounts(e);
	add(e, PLACE_OWN_STATE, args->state_root, "agent-vm's own state");
	if (args->image_store)
		add(e, PLACE_OWN_STATE, args->image_store, "agent-vm's images");
	if (args->home)
		add(e, PLACE_HOME, args->home, "your home folder");
	add_logins(e, args);
	add_secrets(e, args);
	for (size_t i = 0; args->own && args->own[i]; i++)
		if (can_replace(args->own[i]))
			add(e, PLACE_PROGRAM, args->own[i], "a program of agent-vm");
	for (size_t i = 0; args->lift && args->lift[i]; i++)
		strv_take(&e->lift, args->lift[i][0] == '/' ? path_canonical(args->lift[i]) : xstrdup(args->lift[i]));
	e->used = xcalloc(e->lift.n, sizeof(*e->used));
	return e;
}

void exposure_free(struct exposure *e)
{
	if (!e)
		return;
	for (size_t i = 0; i < e->n; i++) {
		free(e->v[i].path);
		free(e->v[i].what);
		free(e->v[i].chain);
		regions_done(&e->v[i].regions);
	}
	for (size_t i = 0; i < e->n_mounts; i++) {
		free(e->mounts[i].root);
		free(e->mounts[i].point);
	}
	free(e->v);
	free(e->mounts);
	strv_done(&e->lift);
	free(e->used);
	free(e);
}

/* The path that is asked about, in the three views. */
struct asked {
	const char *path;
	struct regions regions;
	struct inode *chain;
	size_t n_chain;
	bool exists;
};

/* Is @a the thing, or does it contain it? */
static bool contains(const struct asked *a, const struct place *p)
{
	return path_within(a->path, p->path) || regions_hold(&a->regions, &p->regions, true) ||
	       (a->exists && chain_has(p->chain, p->n_chain, a->chain[0]));
}

/* Does @a lie in the thing, or in something that is mounted in it? */
static bool lies_in(const struct asked *a, const struct place *p)
{
	return path_within(p->path, a->path) || regions_hold(&p->regions, &a->regions, false) ||
	       (p->exists && chain_has(a->chain, a->n_chain, p->chain[0]));
}

/* Something below @a is mounted from inside the thing, or the other way round. */
static bool meets(const struct asked *a, const struct place *p)
{
	return regions_hold(&a->regions, &p->regions, false);
}

static bool lifted(struct exposure *e, const char *path, const char *thing)
{
	bool yes = false;

	for (size_t i = 0; i < e->lift.n; i++) {
		if (strcmp(e->lift.v[i], path) == 0 || strcmp(e->lift.v[i], thing) == 0) {
			e->used[i] = true;
			yes = true;
		}
	}
	return yes;
}

int exposure_unused(const struct exposure *e, int from)
{
	for (size_t i = (size_t)(from + 1); i < e->lift.n; i++)
		if (!e->used[i])
			return (int)i;
	return -1;
}

static const char *elsewhere(enum exposure_role role)
{
	return role == EXPOSURE_PROJECT ? "run agent-vm in another folder" :
	       role == EXPOSURE_MOUNT	? "mount another folder" :
					  "keep the repository elsewhere";
}

/* Paths that are refused whatever the user has. */
static char *system_cause(const struct asked *a)
{
	static const char *const trees[] = { "/proc", "/sys", "/dev" };
	struct statfs fs;

	if (strcmp(a->path, "/") == 0)
		return xstrdup("the whole file system cannot be shown to the guest");
	if (strcmp(a->path, "/run") == 0)
		return xstrdup("/run holds the sockets of this machine's services");
	if (path_within("/dev/shm", a->path))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		if (path_within(trees[i], a->path))
			return xasprintf("%s belongs to this machine's kernel", trees[i]);
	if (statfs(a->path, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC))
		return xstrdup("it is a file system of this machine's kernel");
	return NULL;
}

/* @hard: --expose would not help, because the state root is in there too. */
static char *home_text(const struct asked *a, const struct place *p, enum exposure_role role, const char *object,
		       bool hard)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, cause);
	bool same = strcmp(a->path, p->path) == 0;

	shown = path_shown(a->path);
	cause = xstrdup(same ? "your home folder holds your logins" : "holds your home folder and with it your logins");
	if (role == EXPOSURE_PROJECT)
		return xasprintf("%s: %s and cannot be a project; run agent-vm in a folder below it", object, cause);
	if (role == EXPOSURE_MOUNT && hard)
		return xasprintf("%s: %s; mount a folder below it", object, cause);
	if (role == EXPOSURE_MOUNT)
		return xasprintf("%s: %s; mount a folder below it, or allow it with --expose %s", object, cause, shown);
	return hard ? xasprintf("%s: %s; keep the repository elsewhere", object, cause) :
		      xasprintf("%s: %s; allow it with --expose %s", object, cause, shown);
}

static void row(struct strv *rows, const struct asked *a, const struct place *p)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, thing);

	path = path_shown(a->path);
	thing = path_shown(p->path);
	if (strcmp(path, thing) == 0 || !path_within(p->path, a->path))
		strv_addf(rows, "%s (%s)", thing, p->what);
	else
		strv_addf(rows, "%s (in %s: %s)", path, thing, p->what);
}

static void check(struct exposure *e, const struct asked *a, enum exposure_role role, const char *object,
		  struct exposure_result *ret)
{
	AUTO_FREE(char, warn);
	AUTO_FREE(char, cause);
	AUTO_FREE(char, shown);
	const struct place *state = NULL, *home = NULL;

	shown = path_shown(a->path);
	cause = system_cause(a);
	if (cause) {
		ret->verdict = EXPOSURE_REFUSED_HARD;
		ret->text = xasprintf("%s: %s; %s", object, cause, elsewhere(role));
		return;
	}
	/* What cannot be lifted wins over what can; but of a home folder, in which the root usually lies, the reader is told
	 * that it is the home folder. */
	for (size_t i = 0; i < e->n; i++) {
		const struct place *p = &e->v[i];

		if (p->kind == PLACE_OWN_STATE && !state && (contains(a, p) || lies_in(a, p) || meets(a, p)))
			state = p;
		if (p->kind == PLACE_HOME && !home && contains(a, p) && !lifted(e, a->path, p->path))
			home = p;
	}
	if (home) {
		ret->verdict = state ? EXPOSURE_REFUSED_HARD : EXPOSURE_REFUSED_SOFT;
		ret->text = home_text(a, home, role, object, state != NULL);
		return;
	}
	if (state) {
		AUTO_FREE(char, thing);

		thing = path_shown(state->path);
		ret->verdict = EXPOSURE_REFUSED_HARD;
		ret->text = xasprintf("%s: the guest would reach %s (%s); %s", object, state->what, thing, elsewhere(role));
		return;
	}
	for (size_t i = 0; i < e->n; i++) {
		const struct place *p = &e->v[i];
		AUTO_FREE(char, thing);
		bool touches;

		if (p->kind == PLACE_OWN_STATE)
			continue;
		touches = contains(a, p);
		if (p->kind == PLACE_LOGIN || p->kind == PLACE_SECRET)
			touches = touches || lies_in(a, p) || meets(a, p);
		/* Of secrets that the user does not have nothing can be seen; logins may be made later. */
		if (!touches || (p->kind == PLACE_SECRET && !p->exists && !lies_in(a, p)))
			continue;
		if (p->kind == PLACE_SECRET || p->kind == PLACE_PROGRAM) {
			char *more;

			row(&ret->rows, a, p);
			if (lifted(e, a->path, p->path)) {
				ret->verdict = MAX(ret->verdict, EXPOSURE_SHOWN);
				continue;
			}
			ret->verdict = EXPOSURE_WARN;
			thing = path_shown(p->path);
			more = xasprintf("%s%s%s (%s)", warn ? warn : "", warn ? ", " : "", thing, p->what);
			free(warn);
			warn = more;
			continue;
		}
		if (lifted(e, a->path, p->path)) {
			ret->verdict = MAX(ret->verdict, EXPOSURE_SHOWN);
			row(&ret->rows, a, p);
			continue;
		}
		thing = path_shown(p->path);
		ret->verdict = EXPOSURE_REFUSED_SOFT;
		ret->text = xasprintf("%s: the guest would reach %s (%s); %s, or allow it with --expose %s", object, p->what, thing,
				      elsewhere(role), shown);
		strv_done(&ret->rows);
		return;
	}
	if (warn)
		ret->text = xasprintf("%s: the guest will see %s; %s, or write --expose %s if that is meant", object, warn,
				      elsewhere(role), shown);
}

enum exposure_verdict exposure_check(struct exposure *e, const char *path, enum exposure_role role, const char *object,
				     struct exposure_result *ret)
{
	AUTO_FREE(char, shown);
	struct asked a = { .path = path };

	*ret = (struct exposure_result){ 0 };
	shown = path_shown(path);
	a.regions = regions_of(e, path);
	a.n_chain = inode_chain(path, &a.chain, &a.exists);
	check(e, &a, role, object ? object : shown, ret);
	regions_done(&a.regions);
	free(a.chain);
	return ret->verdict;
}

void exposure_result_done(struct exposure_result *r)
{
	free(r->text);
	strv_done(&r->rows);
	*r = (struct exposure_result){ 0 };
}
