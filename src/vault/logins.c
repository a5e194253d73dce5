#include "vault/logins.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "vault/echo.h"

#define ENV_LOOK_NS (20 * MS)
#define GH_ASK_NS (60 * NS) /* the launcher is asked for another token no more often */
#define GH_NS (15 * NS)	    /* for it to come */
#define GH_OLD_MAX 16	    /* as many as can be replaced before the first is past its time */

struct login_file {
	struct source s;
	const struct vault_source *cfg; /* NULL: not lent */
	int last;			/* of source_look(), and its reason: for the log */
	const char *why;
};

/* Secrets that belong together: an answer of one is looked through for all. */
struct needles {
	struct echo_set *set;
	struct echo *log; /* over the same set */
	uint64_t generation;
	bool blind; /* there is no room for them: the log says nothing meanwhile */
};

struct logins {
	struct login_file file[SOURCES];
	struct secret env[PH_KINDS];
	struct {
		uint8_t *p; /* in the arena; NULL: nothing comes any more */
		size_t n;
		int fd;
		int64_t until; /* it is waited for no longer; 0: always */
	} pipe[PH_KINDS];
	/* The token of gh, which may be another one later. */
	struct {
		uint64_t generation;
		int64_t ask_at[PH_KINDS]; /* not before */
		bool refused[PH_KINDS];	  /* by GitHub, the one that there is */
		struct old_secret old[GH_OLD_MAX];
	} gh;
	struct needles needles[PROVS];
	uint32_t lacking; /* PH_BIT of kinds of which the launcher was told that there is none */
};

/* For the filter of the log, which has no argument. */
static struct logins *the_logins;

static const struct {
	enum prov prov; /* whose needles */
	int source;	/* enum source_kind; -1: environment alone */
} kinds[PH_KINDS] = {
	[PH_CLAUDE_A] = { PROV_ANTHROPIC, SOURCE_ANTHROPIC },
	[PH_CLAUDE_R] = { PROV_ANTHROPIC, SOURCE_ANTHROPIC },
	[PH_ANTHROPIC_OAT] = { PROV_ANTHROPIC, -1 },
	[PH_ANTHROPIC_AT] = { PROV_ANTHROPIC, -1 },
	[PH_ANTHROPIC_KEY] = { PROV_ANTHROPIC, -1 },
	[PH_CODEX_A] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_CODEX_R] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_CODEX_ID] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_CODEX_KEY] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_OPENCODE_A] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_OPENCODE_R] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_OPENCODE_ID] = { PROV_OPENAI, SOURCE_OPENAI },
	[PH_OPENAI_KEY] = { PROV_OPENAI, -1 },
	/* Copilot's token is often gh's. */
	[PH_GH] = { PROV_GITHUB, -1 },
	[PH_COPILOT] = { PROV_GITHUB, SOURCE_COPILOT },
	[PH_ZAI] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_ZAI_CP] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_ZHIPU] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_ZHIPU_CP] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_KIMI] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_MOONSHOT] = { PROV_OPENCODE, SOURCE_OPENCODE },
	[PH_MOONSHOT_CN] = { PROV_OPENCODE, SOURCE_OPENCODE },
};

static const enum prov source_prov[SOURCES] = {
	[SOURCE_ANTHROPIC] = PROV_ANTHROPIC,
	[SOURCE_OPENAI] = PROV_OPENAI,
	[SOURCE_OPENCODE] = PROV_OPENCODE,
	[SOURCE_COPILOT] = PROV_GITHUB,
};

/* Of the kinds that share a pipe the first has what comes out of it. */
static int holder(const struct vault *v, int kind)
{
	const int *fd = v->cfg.env_fd;

	for (int k = 0; k < kind && fd[kind] >= 0; k++)
		if (fd[k] == fd[kind])
			return k;
	return kind;
}

/* Whether the file that was opened lies in no folder that a guest can write: each folder above it is compared. */
static bool lies_well(int fd, void *arg)
{
	const struct vault_source *cfg = arg;
	char link[32], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || (size_t)n == sizeof(path) - 1 || path[0] != '/')
		return false;
	for (size_t i = (size_t)n; i-- > 0;) {
		if (path[i] != '/')
			continue;
		path[i > 0 ? i : 1] = '\0';
		if (stat(path, &st) < 0)
			return false;
		for (size_t g = 0; g < cfg->n_guards; g++)
			if (st.st_dev == cfg->guards[g].dev && st.st_ino == cfg->guards[g].ino)
				return false;
	}
	return true;
}

int logins_open(struct vault *v, struct err *err)
{
	struct logins *l = v->logins = the_logins = xcalloc(1, sizeof(*l));
	bool any = v->cfg.n_sources > 0;

	for (int k = 0; k < PH_KINDS; k++)
		any |= v->cfg.env_fd[k] >= 0;
	for (int k = 0; k < PH_KINDS; k++)
		l->pipe[k].fd = holder(v, k) == k ? v->cfg.env_fd[k] : -1;
	/* What needs no login goes on. */
	if (any && secret_arena_open(SECRET_ARENA, err) < 0) {
		log_warn("%s; requests with a login get 503", err->text);
		for (int k = 0; k < PH_KINDS; k++)
			close_p(&l->pipe[k].fd);
		return 0;
	}
	for (size_t i = 0; i < v->cfg.n_sources; i++) {
		const struct vault_source *cfg = &v->cfg.sources[i];
		struct login_file *f = &l->file[cfg->kind];

		f->cfg = cfg;
		source_init(&f->s, cfg->kind, cfg->fd, cfg->name, getuid());
		f->s.may = cfg->n_guards > 0 ? lies_well : NULL;
		f->s.arg = (void *)(uintptr_t)cfg; /* read only by lies_well() */
	}
	for (int k = 0; k < PH_KINDS; k++) {
		if (l->pipe[k].fd < 0)
			continue;
		l->pipe[k].p = secret_alloc(SECRET_MAX);
		if (!l->pipe[k].p || fd_nonblock(l->pipe[k].fd, true) < 0)
			return err_set(err, -ENOMEM,
				       "no memory for the logins of the environment; raise its limit (ulimit -l)");
	}
	return 0;
}

int logins_watch(struct vault *v)
{
	int r = 0;

	for (int k = 0; k < PH_KINDS && r == 0; k++)
		if (v->logins->pipe[k].p)
			r = ev_watch(&v->ev, v->logins->pipe[k].fd, EPOLLIN, EV_LOGIN, (uint16_t)k, 0);
	return r;
}

static void forget_needles(struct needles *n)
{
	echo_set_put(n->set);
	echo_free(n->log);
	*n = (struct needles){ .blind = n->blind };
}

static struct login_file *file_of(struct logins *l, enum prov prov)
{
	for (int i = 0; i < SOURCES; i++)
		if (source_prov[i] == prov && l->file[i].cfg)
			return &l->file[i];
	return NULL;
}

/* The set as of now, made anew if its secrets are not the same. False: no memory. */
static bool remake_needles(struct vault *v, enum prov prov)
{
	struct logins *l = v->logins;
	struct needles *n = &l->needles[prov];
	struct login_file *f = file_of(l, prov);
	struct span s[ECHO_NEEDLES_MAX];
	size_t count = 0;

	static_assert(SOURCE_NEEDLES_MAX + 3 <= ECHO_NEEDLES_MAX,
		      "three secrets of the environment at most are of one provider");
	for (int k = 0; k < PH_KINDS; k++)
		if (kinds[k].prov == prov && l->env[k].n > 0)
			s[count++] = secret_span(&l->env[k]);
	if (prov == PROV_GITHUB)
		count += old_needles(l->gh.old, GH_OLD_MAX, v->now / MS, s + count, ECHO_NEEDLES_MAX - count);
	if (f)
		count += source_needles(&f->s, v->now / MS, s + count, ECHO_NEEDLES_MAX - count);
	if (!n->set || !echo_set_is(n->set, s, count)) {
		/* First, for on a host that locks little there is no room for two. */
		forget_needles(n);
		n->set = echo_set_new(s, count);
		n->log = n->set ? echo_new(n->set) : NULL;
	}
	n->generation = f ? f->s.generation : 0;
	if (!n->log) {
		forget_needles(n);
		if (!n->blind)
			log_warn("login %s: no locked memory to search for its secrets; requests with it get 503, "
				 "and lines of this log are blotted out; raise the limit (ulimit -l)",
				 prov_str[prov]);
	}
	n->blind = !n->log;
	return n->log;
}

static bool make_needles(struct vault *v, enum prov prov)
{
	struct needles *n = &v->logins->needles[prov];
	struct login_file *f = file_of(v->logins, prov);

	return (n->set && n->generation == (f ? f->s.generation : 0)) || remake_needles(v, prov);
}

/* The launcher tells the user at the end. If it is gone nobody is left to hear it. False: it was told, or is not lent. */
static bool lacks(struct vault *v, enum ph_kind kind)
{
	const uint8_t msg[] = { NET_CTL_NO_TOKEN, (uint8_t)kind };

	if (!(v->cfg.launch.lent & PH_BIT(kind)) || v->logins->lacking & PH_BIT(kind))
		return false;
	v->logins->lacking |= PH_BIT(kind);
	(void)fd_send(NET_FD_CONTROL, msg, sizeof(msg), NULL, 0);
	return true;
}

/* Of the environment, or of gh: only the launcher knows. */
static bool may_be_gh(int kind)
{
	return kind == PH_GH || kind == PH_COPILOT;
}

/* What came out of a pipe, for each kind that shares it; @why: it is no token, or none that works. */
static void told(struct vault *v, enum ph_kind first, const char *why)
{
	const struct secret *s = &v->logins->env[first];

	for (int k = first; k < PH_KINDS; k++) {
		const char *cause = why;

		if (v->cfg.env_fd[k] != v->cfg.env_fd[first])
			continue;
		if (!cause && (k != PH_COPILOT || hostfile_copilot_takes(secret_span(s), &cause)))
			v->logins->lacking &= ~PH_BIT((enum ph_kind)k);
		else if (lacks(v, (enum ph_kind)k))
			log_warn("login %s: %s", ph_kind_str[k], cause);
	}
}

/* No more of it is wanted. */
static void pipe_end(struct vault *v, enum ph_kind kind)
{
	struct logins *l = v->logins;

	ev_unwatch(&v->ev, l->pipe[kind].fd);
	close_p(&l->pipe[kind].fd);
	secret_free(TAKE_PTR(l->pipe[kind].p));
	l->pipe[kind].n = 0;
	l->pipe[kind].until = 0;
}

/* @got: taken. A host that signed out lends nothing any more; a gh that hangs or is just being replaced changes nothing. */
static void gh_answered(struct vault *v, enum ph_kind kind, int r, struct secret *got)
{
	struct logins *l = v->logins;
	struct secret *now = &l->env[kind];
	bool had = now->n > 0;

	if (had && r < 0 && r != -ENOENT) {
		log_warn("login %s: gh gave no answer when it was asked again; what there was stays", ph_kind_str[kind]);
		return;
	}
	if (had && got->n == now->n && memcmp(got->p, now->p, now->n) == 0) {
		log_info("login %s: gh has no other token", ph_kind_str[kind]);
		secret_done(got);
		told(v, kind, l->gh.refused[kind] ? "GitHub refuses the token that gh has" : NULL);
		return;
	}
	if (had)
		old_keep(l->gh.old, GH_OLD_MAX, now, v->now / MS);
	*now = *got;
	l->gh.generation++;
	l->gh.refused[kind] = false;
	if (had && r == 0)
		log_info("login %s: gh gave another token, which counts from now on", ph_kind_str[kind]);
	else if (r == 0 && l->lacking & PH_BIT(kind))
		log_info("login %s: can be used again", ph_kind_str[kind]);
	told(v, kind, r < 0 ? "gh gave no token; requests with it get 503 until it has one" : NULL);
}

int logins_gh(struct vault *v, enum ph_kind kind, int fd)
{
	struct logins *l = v->logins;

	if (!may_be_gh(kind) || !(v->cfg.launch.lent & PH_BIT(kind)) || v->cfg.env_fd[kind] < 0 || holder(v, kind) != (int)kind) {
		(void)close(fd);
		return -EPROTO;
	}
	/* What gh said first may lie in its pipe, with its end behind it. */
	for (int i = 0; i < 2 && l->pipe[kind].p; i++)
		logins_event(v, (uint16_t)kind);
	if (l->pipe[kind].p)
		pipe_end(v, kind);
	l->pipe[kind].p = secret_alloc(SECRET_MAX);
	l->pipe[kind].fd = fd;
	l->pipe[kind].until = v->now + GH_NS;
	if (!l->pipe[kind].p || ev_watch(&v->ev, fd, EPOLLIN, EV_LOGIN, (uint16_t)kind, 0) < 0) {
		log_warn("login %s: no memory for another token", ph_kind_str[kind]);
		pipe_end(v, kind);
	}
	return 0;
}

/* The launcher asks gh, if it is gh's. */
static void gh_wanted(struct vault *v, int from, const char *why)
{
	struct logins *l = v->logins;
	const uint8_t msg[] = { NET_CTL_GH, (uint8_t)from };

	if (l->pipe[from].p || v->now < l->gh.ask_at[from])
		return;
	l->gh.ask_at[from] = v->now + GH_ASK_NS;
	log_info("login %s: %s; if it is gh's, gh is asked again", ph_kind_str[from], why);
	/* If the launcher is gone nobody is left to hear it. */
	(void)fd_send(NET_FD_CONTROL, msg, sizeof(msg), NULL, 0);
}

void logins_refused(struct vault *v, enum ph_kind kind, uint64_t generation)
{
	struct logins *l = v->logins;
	int from = holder(v, kind);

	if (l->env[from].n == 0 || generation != l->gh.generation)
		return;
	l->gh.refused[from] = true;
	gh_wanted(v, from, "GitHub refuses the token");
}

void logins_event(struct vault *v, uint16_t kind)
{
	struct logins *l = v->logins;
	struct secret got = { 0 };
	size_t n;
	ssize_t k;
	int r;

	if (kind >= PH_KINDS || !l->pipe[kind].p)
		return;
	n = l->pipe[kind].n;
	k = read(l->pipe[kind].fd, l->pipe[kind].p + n, SECRET_MAX - n);
	if (k > 0)
		l->pipe[kind].n += (size_t)k;
	if ((k < 0 && (errno == EAGAIN || errno == EINTR)) || (k > 0 && n + (size_t)k < SECRET_MAX))
		return;
	/* A NUL alone is a gh that says that it has none. */
	r = k > 0 ? -EBADMSG : n == 1 && l->pipe[kind].p[0] == '\0' ? -ENOENT : hostfile_token(SPAN(l->pipe[kind].p, n), &got);
	pipe_end(v, kind);
	if (may_be_gh(kind)) {
		gh_answered(v, kind, r, &got);
	} else {
		l->env[kind] = got;
		told(v, kind, r < 0 ? "what came is no token; requests with it get 503" : NULL);
	}
	(void)remake_needles(v, kinds[kind].prov);
}

/* One kind stands for all of a file. */
static void file_lacks(struct vault *v, const struct login_file *f, bool so)
{
	for (int k = 0; k < PH_KINDS; k++) {
		if (kinds[k].source != (int)f->s.kind || !(v->cfg.launch.lent & PH_BIT(k)))
			continue;
		if (so)
			(void)lacks(v, (enum ph_kind)k);
		else
			v->logins->lacking &= ~PH_BIT(k);
		return;
	}
}

/* Says so when it changed. */
static int look_at(struct vault *v, struct login_file *f)
{
	const char *prov = prov_str[f->s.kind == SOURCE_COPILOT ? PROV_COPILOT : source_prov[f->s.kind]];
	int r;

	vault_files_as(true);
	r = source_look(&f->s, v->now / MS);
	vault_files_as(false);
	/* Before anything of the new content can reach the log. */
	(void)make_needles(v, source_prov[f->s.kind]);
	if (r == -EAGAIN || (r == f->last && (r == 0 || f->s.why == f->why)))
		return r;
	if (r == 0 && f->last < 0)
		log_info("login %s: can be used again", prov);
	else if (r == -ENOENT)
		log_warn("login %s: signed out on the host; requests with it get 503 until it is back", prov);
	else if (r < 0)
		log_warn("login %s: the host's file cannot be used: %s; requests with it get 503", prov,
			 f->s.why ? f->s.why : strerror(-r));
	file_lacks(v, f, r < 0);
	f->last = r;
	f->why = f->s.why;
	return r;
}

int logins_get(struct vault *v, enum ph_kind kind, bool look, struct cred *ret, int64_t *ret_at)
{
	struct logins *l = v->logins;
	struct login_file *f = kinds[kind].source < 0 ? NULL : &l->file[kinds[kind].source];
	int from = holder(v, kind);
	struct cred c = { .prov = PROVS };
	const char *why;
	int r;

	if (l->pipe[from].p && l->env[from].n == 0) {
		*ret_at = v->now + ENV_LOOK_NS;
		return -EAGAIN;
	}
	c.secret = secret_span(&l->env[from]);
	c.generation = may_be_gh(from) ? l->gh.generation : 0;
	if (kind == PH_COPILOT && c.secret.n > 0 && !hostfile_copilot_takes(c.secret, &why))
		return -ENOENT;
	if (c.secret.n == 0 && f && f->cfg) {
		const struct login *login = &f->s.login;

		r = look ? look_at(v, f) : f->last;
		if (r < 0) {
			*ret_at = f->s.retry_at * MS;
			return r;
		}
		c.generation = f->s.generation;
		if (kind == PH_CODEX_KEY)
			c.secret = secret_span(&login->key);
		else if (kinds[kind].source == SOURCE_OPENCODE)
			c.secret = secret_span(&f->s.keys.key[kind]);
		else if (kind == PH_COPILOT)
			c.secret = secret_span(&login->access);
		else if (login->info.mode == LOGIN_ANTHROPIC || login->info.mode == LOGIN_CHATGPT) {
			c.secret = secret_span(&login->access);
			c.account = span_str(login->info.account_id);
			c.prov = source_prov[f->s.kind];
		}
	}
	if (c.secret.n == 0 && may_be_gh(from) && v->cfg.env_fd[from] >= 0)
		gh_wanted(v, from, "a request needs it, and there is none");
	if (c.secret.n == 0)
		return -ENOENT;
	*ret = c;
	return 0;
}

const struct source *logins_source(struct vault *v, enum prov prov, int *ret_look)
{
	struct login_file *f = &v->logins->file[prov == PROV_ANTHROPIC ? SOURCE_ANTHROPIC : SOURCE_OPENAI];

	if (!f->cfg)
		return NULL;
	*ret_look = look_at(v, f);
	return &f->s;
}

bool logins_renewable(const struct vault *v, enum prov prov)
{
	const struct login_file *f = &v->logins->file[prov == PROV_ANTHROPIC ? SOURCE_ANTHROPIC : SOURCE_OPENAI];

	return f->cfg && f->cfg->program;
}

struct echo_set *logins_needles(struct vault *v, enum ph_kind kind)
{
	enum prov prov = kinds[kind].prov;

	return make_needles(v, prov) ? echo_set_get(v->logins->needles[prov].set) : NULL;
}

/* Of one provider; when to call again, or -1. */
static int64_t old_tick(struct vault *v, enum prov prov, const struct old_secret *old, size_t n)
{
	int64_t until = old_until(old, n);

	if (until < 0 || until * MS > v->now)
		return until < 0 ? -1 : until * MS;
	(void)remake_needles(v, prov); /* it wipes */
	return v->now + NS;
}

int64_t logins_tick(struct vault *v)
{
	struct logins *l = v->logins;
	int64_t next = -1;

	for (int i = 0; i < SOURCES; i++)
		next = sooner(next, old_tick(v, source_prov[i], l->file[i].s.old, SOURCE_OLD_MAX));
	next = sooner(next, old_tick(v, PROV_GITHUB, l->gh.old, GH_OLD_MAX));
	for (int k = PH_GH; k <= PH_COPILOT; k++) {
		if (l->pipe[k].until > 0 && l->pipe[k].until <= v->now) {
			struct secret none = { 0 };

			pipe_end(v, (enum ph_kind)k);
			gh_answered(v, (enum ph_kind)k, -ETIMEDOUT, &none);
		}
		if (l->pipe[k].until > 0)
			next = sooner(next, l->pipe[k].until);
	}
	return next;
}

void logins_redact(char *line, size_t n)
{
	for (int p = 0; the_logins && p < PROVS; p++)
		if (the_logins->needles[p].blind)
			memset(line, 'x', n);
		else if (the_logins->needles[p].log)
			echo_whole(the_logins->needles[p].log, (uint8_t *)line, n);
}
