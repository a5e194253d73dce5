#include "cli/ghlist.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "proto/gatecfg.h"
#include "proto/rec.h"
#include "session/gitremotes.h"

#define CONFIG_MAX (1 << 20)

struct source {
	struct ghlist *list;
	enum gh_level level;
	const char *from;
	bool decides; /* its level holds, whatever was said before */
};

static void add(struct gh_slug slug, void *arg)
{
	const struct source *s = arg;
	struct ghlist *l = s->list;
	struct ghlist_repo *r;

	for (size_t i = 0; i < l->n; i++) {
		r = &l->v[i];
		if (!gh_same(span_str(r->repo.owner), slug.owner) || !gh_same(span_str(r->repo.name), slug.name))
			continue;
		if (s->decides || s->level > r->repo.level) {
			r->repo.level = s->level;
			r->from = s->from;
		}
		return;
	}
	if (l->n == GH_REPOS_MAX) {
		l->left_out++;
		return;
	}
	r = &l->v[l->n++];
	*r = (struct ghlist_repo){ .repo.level = s->level, .from = s->from };
	memcpy(r->repo.owner, slug.owner.p, slug.owner.n);
	memcpy(r->repo.name, slug.name.p, slug.name.n);
}

/* A regular file of a folder that a guest may have written; no link is followed below the folder. NULL: there is none. */
static char *text_of(const char *dir, const char *name, size_t *ret_n, struct strv *warnings)
{
	char *text = NULL;
	struct stat st;
	AUTO_FD(at);
	AUTO_FD(fd);
	int r;

	at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = at < 0 ? at : file_open_beneath(at, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
	if (fd < 0)
		return NULL;
	r = fstat(fd, &st) < 0 ? -errno : !S_ISREG(st.st_mode) ? -EINVAL : fd_read_file(fd, CONFIG_MAX, &text, ret_n);
	if (r < 0)
		strv_addf(warnings, "%s/%s: cannot be read for the GitHub list: %s", dir, name, strerror(-r));
	return r < 0 ? NULL : text;
}

/* @config: folder of git's configuration; @top: of .gitmodules, NULL: none. */
static void read_tree(struct ghlist *l, const char *config, const char *name, const char *top, bool ro, struct strv *warnings)
{
	struct source remotes = { l, ro ? GH_READ : GH_WRITE, NULL, false }, modules = { l, GH_READ, ".gitmodules", false };
	AUTO_FREE(char, text);
	AUTO_FREE(char, submodules);
	AUTO_FREE(char, origin);
	size_t n;

	text = text_of(config, name, &n, warnings);
	if (text && gitremotes_read(text, n, add, &remotes, &origin) < 0)
		strv_addf(warnings, "%s/%s: git would refuse this file; its remotes may be missing on the GitHub list", config, name);
	submodules = top ? text_of(top, ".gitmodules", &n, warnings) : NULL;
	if (submodules && gitmodules_read(submodules, n, origin, add, &modules) < 0)
		strv_addf(warnings, "%s/.gitmodules: git would refuse this file; it may be missing on the GitHub list", top);
}

static void take_switches(const struct strv *words, struct ghlist *l)
{
	static const struct {
		const char *key;
		enum gh_switch sw;
		const char *opens;
	} rows[] = {
		{ "merge=", GH_MERGE, "on" },
		{ "ci=", GH_CI, "on" },
		{ "wiki=", GH_WIKI, "on" },
		{ "protect-workflows=", GH_WORKFLOWS, "off" },
		{ "public-graphql-lane=", GH_PUBLIC_GRAPHQL, "on" },
		{ "foreign-credentials=", GH_FOREIGN_ANON, "anon" },
	};
	static const char refs[] = "push-refs=";

	l->switches = GH_SWITCHES_DEFAULT;
	for (size_t i = 0; i < words->n; i++) {
		const char *w = words->v[i];

		if (str_starts(w, refs))
			l->push_refs = w + strlen(refs);
		for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
			if (str_starts(w, rows[k].key)) {
				l->switches &= ~GH_SWITCH_BIT(rows[k].sw);
				if (strcmp(w + strlen(rows[k].key), rows[k].opens) == 0)
					l->switches |= GH_SWITCH_BIT(rows[k].sw);
			}
	}
}

/* A mount may be a worktree or a submodule: then .git is a file, and believed if what it names points back. */
static void read_mount(struct ghlist *l, const char *top, bool ro, struct strv *warnings)
{
	AUTO_FREE(char, common);
	int r = gitdir_follow(top, geteuid(), &common);

	if (r == 0)
		read_tree(l, common, "config", top, ro, warnings);
	else if (r == -ENOENT || r == -EISDIR)
		read_tree(l, top, ".git/config", top, ro, warnings);
	else
		strv_addf(warnings, "%s/.git: leads to no repository that points back to it; its remotes are not on the GitHub list", top);
}

void ghlist_take(const struct launch_args *args, const struct layout *l, struct ghlist *ret, struct strv *warnings)
{
	struct source option = { ret, GH_WRITE, "--repo", true };
	struct repo one;

	*ret = (struct ghlist){ .n = 0 };
	take_switches(&args->github, ret);
	if (!args->no_git && l->git.common)
		read_tree(ret, l->git.common, "config", l->git.top, false, warnings);
	for (size_t i = 0; !args->no_git && i < l->n_shares; i++)
		if (i != l->project && l->shares[i].kind == LAYOUT_MOUNT)
			read_mount(ret, l->shares[i].host, l->shares[i].ro, warnings);
	for (size_t i = 0; i < args->repos.n; i++)
		if (repo_parse(args->repos.v[i], &one, NULL) == 0) {
			option.level = one.level;
			add((struct gh_slug){ span_str(one.owner), span_str(one.name) }, &option);
		}
	if (ret->left_out > 0)
		strv_addf(warnings, "GitHub: %zu repositories are left out of the list, which holds %d", ret->left_out, GH_REPOS_MAX);
}

int ghlist_put(const struct ghlist *l, struct buf *out)
{
	char text[GH_SLUG_MAX + 16];
	ssize_t at = rec_begin(out, GTC_GITHUB);
	int r = at < 0 ? -ENOBUFS : 0;

	for (size_t i = 0; r == 0 && i < l->n; i++) {
		const struct repo *p = &l->v[i].repo;

		(void)snprintf(text, sizeof(text), "%s/%s=%s", p->owner, p->name, gh_level_str[p->level]);
		r = rec_put_str(out, GTC_REPO, text);
	}
	if (r == 0)
		r = rec_put_u64(out, GTC_SWITCHES, l->switches);
	if (r == 0 && l->push_refs)
		r = rec_put_str(out, GTC_PUSH_REFS, l->push_refs);
	if (r == 0)
		rec_end(out, (size_t)at);
	return r;
}

char *ghlist_repos(const struct ghlist *l)
{
	char *text = xstrdup("");

	for (int level = GH_LEVELS - 1; level >= 0; level--) {
		const char *sep = NULL;

		for (size_t i = 0; i < l->n; i++) {
			const struct ghlist_repo *r = &l->v[i];
			AUTO_FREE(char, one);

			if (r->repo.level != (enum gh_level)level)
				continue;
			one = xasprintf("%s%s/%s%s%s%s", sep ? sep : "", r->repo.owner, r->repo.name, r->from ? " (" : "",
					r->from ? r->from : "", r->from ? ")" : "");
			if (!sep) {
				str_append(&text, *text ? "; " : "");
				str_append(&text, gh_level_str[level]);
				str_append(&text, " ");
			}
			str_append(&text, one);
			sep = ", ";
		}
	}
	return text;
}

char *ghlist_text(const struct ghlist *l, bool lent)
{
	char *text;

	if (l->n == 0 || !lent) {
		text = xstrdup(l->n == 0 ? "none; all repositories without your rights"
					 : "no login of GitHub's on this host (gh auth login); all repositories without your rights");
	} else {
		text = ghlist_repos(l);
		str_append(&text, "; all others without your rights");
	}
	if (l->switches & GH_SWITCH_BIT(GH_FOREIGN_ANON))
		str_append(&text, "; other accounts' credentials are taken off");
	return text;
}
