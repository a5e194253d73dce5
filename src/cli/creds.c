#include "cli/creds.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/gh.h"
#include "vault/guestfile.h"

/* Variables whose value vault guards. */
static const struct guarded {
	const char *name;
	enum ph_kind kind;
	bool asked;	      /* only by --env NAME */
	const char *base_url; /* of a host that is not the provider's own it is another host's key */
	enum prov_host_id host;
} guarded[] = {
	{ "ANTHROPIC_API_KEY", PH_ANTHROPIC_KEY, false, "ANTHROPIC_BASE_URL", HOST_ANTHROPIC },
	{ "OPENAI_API_KEY", PH_OPENAI_KEY, false, "OPENAI_BASE_URL", HOST_OPENAI },
	{ "CLAUDE_CODE_OAUTH_TOKEN", PH_ANTHROPIC_OAT, true, "ANTHROPIC_BASE_URL", HOST_ANTHROPIC },
	{ "ANTHROPIC_AUTH_TOKEN", PH_ANTHROPIC_AT, true, "ANTHROPIC_BASE_URL", HOST_ANTHROPIC },
	{ "CODEX_API_KEY", PH_CODEX_KEY, true, "OPENAI_BASE_URL", HOST_OPENAI },
	/* In this order Copilot's program looks for them; the guest gets the first name alone. */
	{ "COPILOT_GITHUB_TOKEN", PH_COPILOT, false, NULL, HOSTS },
	{ "GH_TOKEN", PH_COPILOT, false, NULL, HOSTS },
	{ "GITHUB_TOKEN", PH_COPILOT, false, NULL, HOSTS },
};

static const struct guarded *guarded_find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(guarded); i++)
		if (strlen(guarded[i].name) == n && memcmp(guarded[i].name, name, n) == 0)
			return &guarded[i];
	return NULL;
}

/* The two that hold the login at GitHub, too. */
static bool is_github(const struct guarded *g)
{
	return strcmp(g->name, "GH_TOKEN") == 0 || strcmp(g->name, "GITHUB_TOKEN") == 0;
}

static uint32_t verb_kinds(const struct launch_args *args)
{
	return args->no_network ? 0 : prov_verb_kinds(args->verb);
}

/* False: it is no token, and nothing was added. */
static bool known_add(struct creds *c, struct span text)
{
	struct secret s = { 0 };

	int r = hostfile_token(text, &s);

	c->blind |= r == -ENOMEM;
	if (r < 0)
		return false;
	c->known = xrealloc(c->known, (c->n_known + 1) * sizeof(*c->known));
	c->known[c->n_known++] = s;
	return true;
}

static bool is_known(const struct creds *c, const char *value)
{
	struct secret s = { 0 };
	bool found = false;

	int r = c->n_known > 0 ? hostfile_token(span_str(value), &s) : -ENOENT;

	if (r < 0)
		return r == -ENOMEM;
	for (size_t i = 0; i < c->n_known && !found; i++)
		found = c->known[i].n == s.n && memcmp(c->known[i].p, s.p, s.n) == 0;
	secret_done(&s);
	return found;
}

/* --- the environment --- */

static void var_add(struct creds *c, const char *name, size_t n, enum ph_kind kind, bool typed)
{
	for (size_t i = 0; i < c->n_vars; i++)
		if (strlen(c->vars[i].name) == n && memcmp(c->vars[i].name, name, n) == 0) {
			c->vars[i].typed |= typed;
			return;
		}
	if (c->n_vars < CREDS_VARS_MAX)
		c->vars[c->n_vars++] = (struct creds_var){ xstrndup(name, n), kind, typed };
}

/* Wherever its token is from, its program in the guest finds it by this name. */
static void copilot_var(struct creds *c)
{
	static const char name[] = "COPILOT_GITHUB_TOKEN";

	var_add(c, name, strlen(name), PH_COPILOT, false);
}

static bool has_secret(const struct creds *c, enum ph_kind kind)
{
	for (size_t i = 0; i < c->n_secrets; i++)
		if (c->secrets[i].kind == kind)
			return true;
	return false;
}

/* Into a pipe, whose buffer is larger than any secret. */
static int secret_hand_over(struct creds *c, enum ph_kind kind, const struct secret *s)
{
	int pipefd[2], r;

	if (c->n_secrets == CREDS_SECRETS_MAX)
		return -ENOBUFS;
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	r = fd_write_all(pipefd[1], s->p, s->n);
	(void)close(pipefd[1]);
	if (r < 0) {
		(void)close(pipefd[0]);
		return r;
	}
	c->secrets[c->n_secrets++] = (struct creds_secret){ .kind = kind, .fd = pipefd[0] };
	c->launch.lent |= PH_BIT(kind);
	return 0;
}

/* Why a value of the environment cannot be lent: static text, or NULL, then @ret is it. */
static const char *secret_read(const struct guarded *g, const char *value, char *(*env)(const char *),
			       struct secret *ret)
{
	const char *url = g->base_url ? env(g->base_url) : NULL, *why = NULL;
	int r = hostfile_token(span_str(value), ret);

	if (r == -ENOENT)
		return "it is empty";
	if (r == -ENOMEM)
		return "no memory can be locked for it";
	if (r < 0)
		return "it is not one word of printable characters";
	if (url && !hostfile_base_url_is(url, prov_hosts[g->host].name))
		why = g->host == HOST_ANTHROPIC
			      ? "it belongs to the host of ANTHROPIC_BASE_URL, and keys of other hosts are not lent"
			      : "it belongs to the host of OPENAI_BASE_URL, and keys of other hosts are not lent";
	else if (g->kind == PH_COPILOT)
		(void)hostfile_copilot_takes(secret_span(ret), &why);
	if (why)
		secret_done(ret);
	return why;
}

static void secret_taken(struct cli *cli, struct creds *c, const struct guarded *g, struct secret *s,
			 struct strv *warnings)
{
	int r = secret_hand_over(c, g->kind, s);

	if (r < 0)
		problem_world(&cli->problems, "%s: cannot be handed on: %s", g->name, strerror(-r));
	if (s->n < SECRET_MIN)
		strv_addf(warnings, "%s: shorter than %d bytes, so it is not looked for in what comes back", g->name,
			  SECRET_MIN);
	strv_addf(&c->shown, "%s%s", g->kind == PH_COPILOT ? "copilot: " : "", g->name);
	secret_done(s);
}

/* What a variable of ours holds; with it goes what /proc/self/environ shows. */
static void overwrite(char *value)
{
	explicit_bzero(value, strlen(value));
}

/* The last of the known secrets may be lent by creds_github(); the first so noted is. */
static void github_noted(struct creds *c, const char *name)
{
	if (c->gh_env)
		return;
	c->gh_env = name;
	c->gh_known = c->n_known - 1;
}

/* --env of a guarded name: the guest gets the placeholder; where none can be made the launch stops. */
static void env_word(struct cli *cli, struct launch_args *args, size_t i, char *(*env)(const char *), struct creds *c,
		     struct strv *warnings)
{
	char *word = args->env.v[i], *value = strchr(word, '=');
	size_t n = (size_t)(strchrnul(word, '=') - word);
	const struct guarded *g = guarded_find(word, n);
	struct guarded as_github;
	struct secret s = { 0 };
	const char *why = NULL;

	if (!g || !value)
		return;
	if (is_github(g)) {
		as_github = *g;
		as_github.kind = PH_GH;
		g = &as_github;
	}
	problems_at(&cli->problems, opt_at(&cli->parsed, "env", i));
	if (!(verb_kinds(args) & PH_BIT(g->kind)))
		why = args->no_network ? "nothing is lent with --no-network" : "this verb lends it not";
	else
		why = secret_read(g, value + 1, env, &s);
	if (why) {
		problem_text(&cli->problems, "--env %s: a secret that would pass in clear: %s; leave it out", g->name,
			     why);
	} else {
		if (known_add(c, secret_span(&s)) && g->kind == PH_GH)
			github_noted(c, g->name);
		if (g->kind != PH_GH && !has_secret(c, g->kind))
			secret_taken(cli, c, g, &s, warnings);
		secret_done(&s);
		var_add(c, g->name, n, g->kind, true);
	}
	overwrite(value + 1);
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

static void env_value(struct cli *cli, const struct launch_args *args, const struct guarded *g, const char *value,
		      char *(*env)(const char *), struct creds *c, struct strv *warnings)
{
	const char **unasked = &c->unasked[g->host == HOST_ANTHROPIC ? SOURCE_ANTHROPIC : SOURCE_OPENAI];
	struct secret s = { 0 };
	bool noted = known_add(c, span_str(value)), silent = false;
	const char *why;

	if (noted && is_github(g)) {
		github_noted(c, g->name);
		/* It is a token of GitHub's; what Copilot minds about it is of Copilot's verb alone. */
		silent = strcmp(args->verb, "copilot") != 0;
	}
	if (!(verb_kinds(args) & PH_BIT(g->kind)) || has_secret(c, g->kind))
		return;
	if (g->asked) {
		if (!*unasked)
			*unasked = g->name;
		return;
	}
	why = secret_read(g, value, env, &s);
	if (why && !silent)
		strv_addf(warnings, "%s: %s", g->name, why);
	if (why)
		return;
	secret_taken(cli, c, g, &s, warnings);
	if (g->kind == PH_COPILOT)
		copilot_var(c);
	else
		var_add(c, g->name, strlen(g->name), g->kind, false);
}

/* Lent or not, afterwards it does not stand there any more. */
static void env_variable(struct cli *cli, const struct launch_args *args, const struct guarded *g,
			 char *(*env)(const char *), struct creds *c, struct strv *warnings)
{
	char *value = env(g->name);

	if (!value || *value == '\0')
		return;
	env_value(cli, args, g, value, env, c, warnings);
	overwrite(value);
}

void creds_begin(struct cli *cli, struct launch_args *args, char *(*env)(const char *), struct creds *ret,
		 struct strv *warnings)
{
	*ret = (struct creds){ .n_sources = 0 };
	for (size_t i = 0; i < args->api.n; i++)
		if (prov_open(&ret->launch, span_str(args->api.v[i])) == 0)
			strv_add(&ret->opened, args->api.v[i]);
	for (size_t i = 0; i < args->env.n; i++)
		env_word(cli, args, i, env, ret, warnings);
	for (size_t i = 0; i < ARRAY_SIZE(guarded); i++)
		env_variable(cli, args, &guarded[i], env, ret, warnings);
}

/* --- login files --- */

static const struct place {
	enum source_kind kind;
	const char *agent;	  /* whose login it is */
	const char *variables[3]; /* of the folder, first that counts */
	const char *below;	  /* in that folder */
	const char *home;	  /* in the home folder, else */
	const char *name;
	const char *program; /* renews it */
	uint32_t kinds;	     /* that it may give */
} places[] = {
	{ SOURCE_ANTHROPIC,
	  "claude",
	  { "CLAUDE_SECURESTORAGE_CONFIG_DIR", "CLAUDE_CONFIG_DIR" },
	  "",
	  ".claude",
	  ".credentials.json",
	  "claude",
	  PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R) },
	{ SOURCE_OPENAI,
	  "codex",
	  { "CODEX_HOME" },
	  "",
	  ".codex",
	  "auth.json",
	  "codex",
	  PH_BIT(PH_CODEX_A) | PH_BIT(PH_CODEX_R) | PH_BIT(PH_CODEX_ID) | PH_BIT(PH_CODEX_KEY) | PH_BIT(PH_OPENCODE_A) |
		  PH_BIT(PH_OPENCODE_R) | PH_BIT(PH_OPENCODE_ID) },
	{ SOURCE_OPENCODE,
	  "opencode",
	  { "XDG_DATA_HOME" },
	  "/opencode",
	  ".local/share/opencode",
	  "auth.json",
	  NULL,
	  PH_BIT(PH_ZAI) | PH_BIT(PH_ZAI_CP) | PH_BIT(PH_ZHIPU) | PH_BIT(PH_ZHIPU_CP) | PH_BIT(PH_KIMI) |
		  PH_BIT(PH_MOONSHOT) | PH_BIT(PH_MOONSHOT_CN) },
	{ SOURCE_COPILOT, "copilot", { "COPILOT_HOME" }, "", ".copilot", "config.json", NULL, PH_BIT(PH_COPILOT) },
	/* Of the older agent-vm, which signed in by itself. */
	{ SOURCE_COPILOT, "copilot", { NULL }, "", ".cache/claude-vm", "copilot-token.json", NULL, PH_BIT(PH_COPILOT) },
};

static char *place_folder(const struct place *p, char *(*env)(const char *), const char *home)
{
	for (size_t i = 0; i < ARRAY_SIZE(p->variables) && p->variables[i]; i++) {
		const char *dir = env(p->variables[i]);

		if (dir && dir[0] == '/')
			return xasprintf("%s%s", dir, p->below);
	}
	return home ? xasprintf("%s/%s", home, p->home) : NULL;
}

static bool lies_outside(int fd, void *arg)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return !prog_is_shunned(path);
}

static int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

/* A file that is just being written is waited for. */
static int look(struct source *s)
{
	const struct timespec moment = { .tv_nsec = SOURCE_RETRY_MS * 1000000 };
	int r;

	while ((r = source_look(s, now_ms())) == -EAGAIN)
		(void)nanosleep(&moment, NULL);
	return r;
}

/* Which kinds a source gives. */
static uint32_t source_kinds(const struct source *s)
{
	switch (s->login.info.mode) {
	case LOGIN_ANTHROPIC:
		return PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R);
	case LOGIN_CHATGPT:
		return PH_BIT(PH_CODEX_A) | PH_BIT(PH_CODEX_R) | PH_BIT(PH_CODEX_ID) | PH_BIT(PH_OPENCODE_A) |
		       PH_BIT(PH_OPENCODE_R) | PH_BIT(PH_OPENCODE_ID);
	case LOGIN_APIKEY:
		return PH_BIT(PH_CODEX_KEY);
	case LOGIN_COPILOT:
		return PH_BIT(PH_COPILOT);
	default:
		return s->keys.have;
	}
}

/* Each secret of it, so that --env does not pass it on. Whether one is short. */
static bool source_secrets(struct creds *c, const struct source *s)
{
	const struct secret *const all[] = { &s->login.access, &s->login.refresh, &s->login.id, &s->login.key };
	bool is_short = false;

	for (size_t i = 0; i < ARRAY_SIZE(all) + PH_KINDS; i++) {
		const struct secret *one = i < ARRAY_SIZE(all) ? all[i] : &s->keys.key[i - ARRAY_SIZE(all)];

		if (one->n > 0)
			(void)known_add(c, secret_span(one));
		is_short |= one->n > 0 && one->n < SECRET_MIN;
	}
	return is_short;
}

/* Of a login that is not lent: the guest must not get it by --env either. */
static void place_known(const struct place *p, int dir, struct creds *c)
{
	struct source s;
	int r;

	source_init(&s, p->kind, dir, p->name, geteuid());
	s.may = lies_outside;
	r = look(&s);
	c->blind |= r == -ENOMEM;
	if (r == 0)
		(void)source_secrets(c, &s);
	source_done(&s);
}

static void source_shown(struct creds *c, const struct place *p, const struct source *s)
{
	AUTO_FREE(char, ids);

	if (p->kind != SOURCE_OPENCODE) {
		strv_addf(&c->shown, "%s: %s", p->agent,
			  s->login.info.mode == LOGIN_ANTHROPIC ? "subscription"
			  : s->login.info.mode == LOGIN_CHATGPT ? "ChatGPT"
			  : s->login.info.mode == LOGIN_COPILOT ? "stored login"
								: "API key");
		return;
	}
	ids = xstrdup("opencode:");
	for (int k = 0; k < PH_KINDS; k++)
		if (s->keys.have & PH_BIT(k)) {
			str_append(&ids, " ");
			str_append(&ids, s->keys.id[k]);
		}
	strv_add(&c->shown, ids);
}

static void source_program(struct creds_source *to, const struct place *p, struct strv *warnings)
{
	if (p->program && to->info.mode != LOGIN_APIKEY && prog_find(p->program, &to->program) == -EPERM)
		strv_addf(warnings, "%s: " PROG_SHUNNED ", so its login is not renewed", p->program);
}

static void source_take(struct creds *c, const struct place *p, int *dir, const char *folder, const struct source *s,
			struct strv *warnings)
{
	struct creds_source *to = &c->sources[c->n_sources++];
	AUTO_FREE(char, path);

	path = xasprintf("%s/%s", folder, p->name);
	*to = (struct creds_source){ .kind = p->kind, .fd = TAKE_FD(*dir), .name = p->name, .info = s->login.info };
	to->path = realpath(path, NULL);
	if (!to->path)
		to->path = TAKE_PTR(path); /* it was there a moment ago */
	source_program(to, p, warnings);
	c->launch.lent |= source_kinds(s) & p->kinds;
	if (p->kind == SOURCE_OPENCODE)
		memcpy(c->opencode_ids, s->keys.id, sizeof(c->opencode_ids));
	if (p->kind == SOURCE_COPILOT)
		copilot_var(c);
	source_shown(c, p, s);
}

/* Whether the verb is about this login, so that its absence is worth a word. Copilot has more sources, and starts with one alone. */
static void place_missing(struct creds *c, const struct place *p, const char *verb, const char *why)
{
	const char *unasked = c->unasked[p->kind];

	if (strcmp(p->agent, verb) == 0 && p->kind != SOURCE_COPILOT && !c->missing)
		c->missing = xasprintf("%s: %s%s%s%s", p->agent, why, unasked ? " (--env " : "", unasked ? unasked : "",
				       unasked ? " would lend that)" : "");
}

/* Of a file of settings, which may hold secrets as well; NULL: none that can be read. For secret_free(). */
static char *text_read(int dir, const char *name)
{
	AUTO_FD(fd);
	uint8_t *text;
	size_t n;

	fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd >= 0 && secret_read_file(fd, HOSTFILE_MAX, &text, &n) == 0 ? (char *)text : NULL;
}

/* cli_auth_credentials_store of Codex's config.toml, in front of its first table: "file" without one. */
static void codex_store(int dir, char ret[16])
{
	static const char key[] = "cli_auth_credentials_store";
	char *text = text_read(dir, "config.toml"), *save = NULL;

	(void)snprintf(ret, 16, "file");
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		line += strspn(line, " \t");
		if (*line == '[')
			break;
		if (!str_starts(line, key))
			continue;
		line += strlen(key);
		line += strspn(line, " \t");
		if (*line != '=')
			continue;
		line += 1 + strspn(line + 1, " \t\"'");
		(void)snprintf(ret, 16, "%.*s", (int)strcspn(line, "\"' \t\r#"), line);
		break;
	}
	secret_free(text);
}

static void place_look(const struct launch_args *args, const struct place *p, char *(*env)(const char *),
		       const char *home, struct creds *c, struct strv *warnings)
{
	AUTO_FREE(char, folder);
	AUTO_FREE(char, shown);
	AUTO_FREE(char, path);
	AUTO_FD(dir);
	char store[16] = "file";
	struct source s;
	struct stat st;
	int r;

	folder = place_folder(p, env, home);
	if (folder)
		dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!(verb_kinds(args) & p->kinds) || (p->kind == SOURCE_COPILOT && c->launch.lent & PH_BIT(PH_COPILOT))) {
		if (dir >= 0 && args->env.n > 0)
			place_known(p, dir, c);
		return;
	}
	if (dir < 0) {
		place_missing(c, p, args->verb, "not signed in on the host");
		return;
	}
	shown = str_escape(folder, strlen(folder));
	path = xasprintf("%s/%s", shown, p->name);
	if (!lies_outside(dir, NULL)) {
		strv_addf(warnings,
			  "%s: lies in the project or in what is shared with the guest, so that login is not lent",
			  shown);
		place_missing(c, p, args->verb, "not lent");
		return;
	}
	if (p->kind == SOURCE_OPENAI)
		codex_store(dir, store);
	source_init(&s, p->kind, dir, p->name, geteuid());
	s.may = lies_outside;
	r = strcmp(store, "keyring") == 0 ? -ENOENT : look(&s);
	c->blind |= r == -ENOMEM;
	if (r == 0) {
		if (fstatat(dir, p->name, &st, 0) == 0 && st.st_mode & S_IWGRP)
			strv_addf(warnings, "%s: others may write it; correct that with chmod 600", path);
		if (source_secrets(c, &s))
			strv_addf(warnings,
				  "%s: a key in it is shorter than %d bytes, so it is not looked for in what comes "
				  "back",
				  path, SECRET_MIN);
		if (s.why)
			strv_addf(warnings, "%s: an entry is not lent: %s", path, s.why);
		source_take(c, p, &dir, folder, &s, warnings);
	} else if (r == -ENOENT && (strcmp(store, "keyring") == 0 || strcmp(store, "auto") == 0)) {
		strv_add(warnings, "codex: the login is in the keyring; set cli_auth_credentials_store = \"file\" on "
				   "the host and sign "
				   "in once more");
		place_missing(c, p, args->verb, "in the keyring");
	} else if (r == -ENOENT) {
		place_missing(c, p, args->verb, "not signed in on the host");
	} else {
		strv_addf(warnings, "%s: %s; that login is not lent", path, s.why ? s.why : strerror(-r));
		place_missing(c, p, args->verb, "not lent");
	}
	source_done(&s);
}

/* gh writes the host there whether the token stands beside it or in a keyring. */
static bool gh_is_signed_in(const char *folder, struct strv *warnings)
{
	AUTO_FD(at);
	bool found;
	char *text;

	at = folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (at < 0)
		return false;
	if (!lies_outside(at, NULL)) {
		strv_addf(warnings, "%s: lies in the project or in what is shared with the guest, so that login is not lent", folder);
		return false;
	}
	text = text_read(at, "hosts.yml");
	found = text && (str_starts(text, "github.com:") || strstr(text, "\ngithub.com:"));
	secret_free(text);
	return found;
}

/* Its token is asked for beside the boot, so it is lent before it is known. False: gh has none. */
static bool gh_lend(enum ph_kind kind, char *(*env)(const char *), const char *home, struct creds *c, struct strv *warnings)
{
	int pipefd[2], r;

	free(c->gh.folder);
	c->gh.folder = gh_folder(env, home);
	if (c->n_secrets == CREDS_SECRETS_MAX || !gh_is_signed_in(c->gh.folder, warnings))
		return false;
	r = prog_find("gh", &c->gh.program);
	if (r == -EPERM)
		strv_add(warnings, "gh: " PROG_SHUNNED ", so its login is not lent");
	if (r < 0 || pipe2(pipefd, O_CLOEXEC) < 0) {
		free(TAKE_PTR(c->gh.program));
		return false;
	}
	c->gh.kind = kind;
	c->gh_out = pipefd[1];
	c->secrets[c->n_secrets++] = (struct creds_secret){ .kind = kind, .fd = pipefd[0] };
	c->launch.lent |= PH_BIT(kind);
	return true;
}

/* The last of Copilot's sources. One answer of gh is for both, if both are its. */
static void copilot_by_gh(const struct launch_args *args, char *(*env)(const char *), const char *home, struct creds *c,
			  struct strv *warnings)
{
	if (!(verb_kinds(args) & ~c->launch.lent & PH_BIT(PH_COPILOT)))
		return;
	if (c->gh.program) {
		c->secrets[c->n_secrets - 1].copilot_too = true; /* creds_github() was the last to add one */
		c->launch.lent |= PH_BIT(PH_COPILOT);
	} else if (!gh_lend(PH_COPILOT, env, home, c, warnings)) {
		return;
	}
	copilot_var(c);
	strv_add(&c->shown, "copilot: gh");
}

/* Another variable with the value of a secret would give it away all the same. */
static void env_values(struct cli *cli, struct launch_args *args, const struct creds *c)
{
	for (size_t i = 0; i < args->env.n; i++) {
		char *word = args->env.v[i], *value = strchr(word, '=');

		if (!value || guarded_find(word, (size_t)(value - word)) || !(c->blind || is_known(c, value + 1)))
			continue;
		overwrite(value + 1);
		problems_at(&cli->problems, opt_at(&cli->parsed, "env", i));
		problem_text(&cli->problems,
			     c->blind ? "--env %.*s: no memory can be locked for the logins of this host, so whether "
					"it is one of them cannot be told; raise the limit (ulimit -l) to 128 or more, "
					"or leave it out"
				      : "--env %.*s: its value is one of the logins that are kept from the guest; "
					"leave it out",
			     (int)(value - word), word);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

/* Whether the login at GitHub is lent was not known when --env was read. */
static void env_github(struct cli *cli, const struct creds *c)
{
	for (size_t i = 0; i < c->n_vars; i++)
		if (c->vars[i].kind == PH_GH && !(c->launch.lent & PH_BIT(PH_GH)))
			problem_text(&cli->problems,
				     "--env %s: a secret that would pass in clear: the GitHub list names no repository, so "
				     "the login at GitHub is not lent; leave it out, or add --repo OWNER/NAME",
				     c->vars[i].name);
}

/* Those of guarded names are no values for the guest any more. */
static void env_drop(struct launch_args *args)
{
	size_t n = 0;

	for (size_t i = 0; i < args->env.n; i++)
		if (guarded_find(args->env.v[i], strcspn(args->env.v[i], "=")))
			free(args->env.v[i]);
		else
			args->env.v[n++] = args->env.v[i];
	args->env.n = n;
	if (args->env.v)
		args->env.v[n] = NULL;
}

void creds_files(struct cli *cli, struct launch_args *args, char *(*env)(const char *), const char *home,
		 struct creds *c, struct strv *warnings)
{
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		place_look(args, &places[i], env, home, c, warnings);
	copilot_by_gh(args, env, home, c, warnings);
	env_values(cli, args, c);
	env_github(cli, c);
	env_drop(args);
	for (size_t i = 0; i < c->n_known; i++)
		secret_done(&c->known[i]);
	free(c->known);
	c->known = NULL;
	c->n_known = 0;
	if (strcmp(args->verb, "copilot") == 0 && !args->no_network && !(c->launch.lent & PH_BIT(PH_COPILOT)))
		problem_world(&cli->problems,
			      "copilot: not signed in on this host; sign in with `gh auth login`, or with `copilot login` where that "
			      "keeps the token in its file and not in a keyring, or set COPILOT_GITHUB_TOKEN");
}

void creds_close(struct creds *c)
{
	for (size_t i = 0; i < c->n_secrets; i++)
		close_p(&c->secrets[i].fd);
	c->n_secrets = 0;
	for (size_t i = 0; i < c->n_sources; i++) {
		close_p(&c->sources[i].fd);
		c->sources[i].fd = -1;
	}
}

void creds_done(struct creds *c)
{
	creds_close(c);
	for (size_t i = 0; i < c->n_sources; i++) {
		free(c->sources[i].path);
		free(c->sources[i].program);
	}
	for (size_t i = 0; i < c->n_vars; i++)
		free(c->vars[i].name);
	for (size_t i = 0; i < c->n_known; i++)
		secret_done(&c->known[i]);
	free(c->known);
	strv_done(&c->shown);
	strv_done(&c->opened);
	free(c->missing);
	if (c->gh.program)
		close_p(&c->gh_out);
	gh_done(&c->gh);
	*c = (struct creds){ .n_sources = 0 };
}

/* --- GitHub --- */

void creds_github(const struct launch_args *args, char *(*env)(const char *), const char *home, struct creds *c,
		  struct strv *warnings)
{
	int r;

	if (!(verb_kinds(args) & PH_BIT(PH_GH)))
		return;
	if (c->gh_env) {
		r = secret_hand_over(c, PH_GH, &c->known[c->gh_known]);
		if (r < 0)
			strv_addf(warnings, "%s: it is not lent: %s", c->gh_env, strerror(-r));
		else
			strv_addf(&c->shown, "github: %s", c->gh_env);
		return;
	}
	if (gh_lend(PH_GH, env, home, c, warnings))
		strv_add(&c->shown, "github: gh");
}

void creds_ask_gh(struct creds *c)
{
	if (!c->gh.program)
		return;
	gh_ask(&c->gh, c->gh_out);
	close_p(&c->gh_out);
	c->gh_out = -1;
}

/* --- what comes of it --- */

char *creds_text(const struct creds *c)
{
	char *text = xstrdup(c->missing ? c->missing : "");

	for (size_t i = 0; i < c->shown.n; i++) {
		str_append(&text, *text ? ", " : "");
		str_append(&text, c->shown.v[i]);
	}
	if (!*text)
		str_append(&text, "none");
	if (creds_lent(c))
		str_append(&text, "; the guest has placeholders");
	for (size_t i = 0; i < c->opened.n; i++) {
		str_append(&text, i == 0 ? "; open: " : ", ");
		str_append(&text, c->opened.v[i]);
	}
	return text;
}

void creds_guard(struct creds *c, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return; /* what it was is reported elsewhere */
	assert(c->n_guards < ARRAY_SIZE(c->guards));
	c->guards[c->n_guards++] = (struct creds_guard){ st.st_dev, st.st_ino };
}

void creds_draw(struct creds *c, const uint8_t seed[PH_SEED])
{
	int r = ph_draw(seed, c->launch.lent, &c->set);

	assert(r == 0);
	(void)r;
	memcpy(c->seed, seed, PH_SEED);
}

void creds_login_paths(char *(*env)(const char *), const char *home, struct strv *ret)
{
	AUTO_FREE(char, gh);

	for (size_t i = 0; places[i].kind != SOURCE_COPILOT; i++) {
		AUTO_FREE(char, folder);

		assert((size_t)places[i].kind == i);
		folder = place_folder(&places[i], env, home);
		if (folder)
			strv_addf(ret, "%s/%s", folder, places[i].name);
		else
			strv_add(ret, "");
	}
	gh = gh_folder(env, home);
	if (gh)
		strv_addf(ret, "%s/hosts.yml", gh);
}

void creds_there(char *(*env)(const char *), const char *home, struct strv *ret)
{
	for (size_t i = 0; i <= ARRAY_SIZE(places); i++) {
		AUTO_FREE(char, folder);
		AUTO_FREE(char, path);

		folder = i < ARRAY_SIZE(places) ? place_folder(&places[i], env, home) : gh_folder(env, home);
		path = folder ? xasprintf("%s/%s", folder, i < ARRAY_SIZE(places) ? places[i].name : "hosts.yml") : NULL;
		if (path && access(path, R_OK) == 0)
			strv_add(ret, path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(guarded); i++) {
		const char *value = env(guarded[i].name);

		if (value && *value)
			strv_add(ret, guarded[i].name);
	}
}

const struct creds_source *creds_source(const struct creds *c, enum source_kind kind)
{
	for (size_t i = 0; i < c->n_sources; i++)
		if (c->sources[i].kind == kind)
			return &c->sources[i];
	return NULL;
}

void creds_env(const struct creds *c, bool typed, struct strv *ret)
{
	for (size_t i = 0; i < c->n_vars; i++)
		if (c->vars[i].typed == typed && c->set.v[c->vars[i].kind][0])
			strv_addf(ret, "%s=%s", c->vars[i].name, c->set.v[c->vars[i].kind]);
}
