/* GitHub's program gh on this host: where its login lies, how we start it, and when it is asked for its token. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/file.h"
#include "base/str.h"
#include "proto/placeholder.h"

/* Between a question, the launch's own aside, and the next: one that a guest can bring about, and one that only this host can. */
#define GH_AGAIN_MS 60000
#define GH_CHANGED_MS 5000

/* Its folder of settings, whether it is there or not; a variable counts only when it is absolute. NULL: none can be
 * named. Caller owns. */
char *gh_folder(char *(*env)(const char *), const char *home);

/* What it needs beside prog_env(): that folder and no other, the way to the keyring, and no questions. No token of the
 * environment: it answers for the login that it keeps. */
void gh_env(const char *folder, struct strv *ret);

/* The login that is lent is gh's, which is asked for its token: at launch, and again when GitHub has refused the token
 * or hosts.yml has changed (credentials page 2.1). */
struct gh {
	char *program; /* absolute, from prog_find(); NULL: it is not asked */
	char *folder;
	enum ph_kind kind; /* what its token is lent as; as PH_GH if as both */
	char *hosts;  /* the file in it */
	struct file_mark mark; /* as it was looked at last */
	pid_t pid;	       /* who asks; 0: nobody */
	bool wanted, changed;  /* by vault; the file is another one since gh was asked */
	int64_t asked;	       /* ms; 0: not since the launch */
};

void gh_done(struct gh *g);

/* Vault says that GitHub refused the token, or that a request needs one and there is none. */
void gh_refused(struct gh *g);

/* Whether it is to be asked again now. Looks at hosts.yml, and waits until it was the same twice: gh writes it in place. */
bool gh_is_due(struct gh *g, int64_t now_ms);

/**
 * gh_ask() - Start `gh auth token` in a process of its own, which ends it after 5 s; returns at once
 * @out:	Borrowed; gets what gh prints. Behind that a NUL if gh failed by itself, which alone says that it has no token, or
 *		two if it was ended or is not there; neither is a token
 *
 * Nobody of ours reads it but vault.
 */
void gh_ask(struct gh *g, int out);

/* The same again, for a question that is due: the reading end of a new pipe, or a negative errno. */
int gh_ask_again(struct gh *g, int64_t now_ms);
