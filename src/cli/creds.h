/* Which of the host's logins a launch lends, and by what (credentials page 2): the plan that vault, gate and guest are
 * told of. No secret is in it. Those of the environment go into pipes that only vault reads, and are overwritten where
 * they stood; of login files only what may be shown is kept. */
#pragma once

#include "agents/providers.h"
#include "cli/gh.h"
#include "cli/launch_args.h"
#include "proto/vaultcfg.h"
#include "vault/source.h"

/* A login file. */
struct creds_source {
	enum source_kind kind;
	int fd;			/* its folder, O_PATH */
	const char *name;	/* of the file in it, static */
	char *path;		/* canonical, of the file: names the lock of renewals */
	char *program;		/* renews it; NULL: none found, or it has no need */
	struct login_info info; /* not of SOURCE_OPENCODE */
};

/* A secret of the environment, or gh's answer: the reading end of a pipe that holds it. */
struct creds_secret {
	enum ph_kind kind;
	int fd;
	bool copilot_too; /* of gh's for GitHub: it is Copilot's token as well */
};

/* A variable of the guest that holds a placeholder. */
struct creds_var {
	char *name;
	enum ph_kind kind;
	bool typed; /* by --env, so it wins over the image's */
};

#define CREDS_SECRETS_MAX 8
#define CREDS_VARS_MAX 32

struct creds {
	struct prov_launch launch;
	uint8_t seed[PH_SEED]; /* from session/seed.h, by creds_draw() */
	struct ph_set set;
	struct creds_source sources[VAULT_SOURCES_MAX];
	size_t n_sources;
	const char *opencode_ids[PH_KINDS]; /* of the keys of SOURCE_OPENCODE, as its file has them; static or NULL */
	struct creds_secret secrets[CREDS_SECRETS_MAX];
	size_t n_secrets;
	struct creds_var vars[CREDS_VARS_MAX];
	size_t n_vars;
	struct strv shown;  /* for the row `login`: "claude: subscription" */
	char *missing;	    /* why the verb's own login is not among them; NULL */
	const char *unasked[SOURCES]; /* a variable that --env would lend in the place of that login; static or NULL */
	struct strv opened; /* --api, as typed */
	struct creds_guard {
		uint64_t dev, ino;
	} guards[VAULT_GUARDS_MAX]; /* folders that the guest can see: no login file may lie below one */
	size_t n_guards;
	struct secret *known; /* what must not pass in clear; gone after creds_files() */
	size_t n_known;
	bool blind;	    /* a login is there that could not be noted: no memory can be locked */
	const char *gh_env; /* variable that holds the user's GitHub token; NULL: none */
	size_t gh_known;    /* which of @known that is */
	struct gh gh;	    /* the program that is asked for it, if one is */
	int gh_out;	    /* the pipe that it writes to at launch; only with @gh's program */
};

/**
 * creds_begin() - Take the secrets of the environment
 * @env:	How to look up a variable; those that hold a secret are overwritten in place, lent or not, so it is getenv() outside of tests
 *
 * Before any child starts; secret_arena_open() was called. Values of --env that are secrets are replaced in @args too.
 * Problems go to @cli.
 */
void creds_begin(struct cli *cli, struct launch_args *args, char *(*env)(const char *), struct creds *ret,
		 struct strv *warnings);

/**
 * creds_files() - Look at the login files
 * @home:	Of the user, NULL: none
 *
 * After prog_shun() knows the project and the mounts. Where nothing else has a token for Copilot, gh will be asked for one.
 * Afterwards this process holds no secret any more.
 */
void creds_files(struct cli *cli, struct launch_args *args, char *(*env)(const char *), const char *home,
		 struct creds *c, struct strv *warnings);
/**
 * creds_github() - Lend the user's login at GitHub: of the environment, else that of gh
 *
 * Between creds_begin() and creds_files(), for a launch whose list names a repository. That gh has a login shows in its
 * hosts.yml; the token itself is asked for by creds_ask_gh(), and only vault reads it.
 */
void creds_github(const struct launch_args *args, char *(*env)(const char *), const char *home, struct creds *c,
		  struct strv *warnings);

/* At launch. Returns at once. */
void creds_ask_gh(struct creds *c);

/* Vault has the secrets now. */
void creds_close(struct creds *c);
void creds_done(struct creds *c);

/* Is anything lent? Only then is there a gate. */
static inline bool creds_lent(const struct creds *c)
{
	return c->launch.lent != 0;
}

/* The row `login`; caller owns. */
char *creds_text(const struct creds *c);

/* A folder that the guest will see; before creds_files(). */
void creds_guard(struct creds *c, const char *path);

/* The placeholders of this session. */
void creds_draw(struct creds *c, const uint8_t seed[PH_SEED]);

/* After creds_draw(): "NAME=PLACEHOLDER" for each variable, those that are ours or those of --env. */
void creds_env(const struct creds *c, bool typed, struct strv *ret);

/* Every login file that an agent or gh of this user would have, lent or not, there or not: first those of enum source_kind in its
 * order, then gh's. Without a home folder one may be "". Not Copilot's, in which its program notes more at each start. */
void creds_login_paths(char *(*env)(const char *), const char *home, struct strv *ret);

/* For people: every login file that is there and can be read, Copilot's and the older program's too, then the names of the variables
 * that hold a secret. Nothing is opened. */
void creds_there(char *(*env)(const char *), const char *home, struct strv *ret);

/* The login file of a kind, NULL. */
const struct creds_source *creds_source(const struct creds *c, enum source_kind kind);
