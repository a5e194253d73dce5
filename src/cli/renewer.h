/* Renewals that vault asks for (proto/vaultcfg.h): a process of ours for each provider takes the lock, writes the stamp
 * and runs the host's program, so that the launcher's loop never waits. It is made at the first question, has none of
 * the launcher's descriptors, and ends, with the program that it runs, when the launcher closes its end or dies. */
#pragma once

#include "cli/creds.h"
#include "cli/loginwatch.h"
#include "session/root.h"

#define RENEWERS 2 /* Anthropic, OpenAI */

struct renewer;

/**
 * renewer_new() - For the logins of this launch
 * @creds, @root:	Kept
 * @watch:	Kept; is told what a renewal writes
 *
 * Return: NULL when none of them can be renewed
 */
struct renewer *renewer_new(const struct creds *creds, const struct state_root *root, struct loginwatch *watch);
void renewer_free(struct renewer *r);

/**
 * renewer_ask() - Hand a question of vault on
 * @vault_fd:	Its control socket; a question that cannot be handed on is answered at once
 *
 * Return: number of the process that was started for it, to watch renewer_fd() of; -1: none was
 */
int renewer_ask(struct renewer *r, const struct vault_renew *m, int vault_fd);
int renewer_fd(const struct renewer *r, int i);

/* For struct loginwatch: whether a renewal, of whatever session, wrote that login file. @root: struct state_root */
bool renewer_wrote(void *root, size_t kind, const char *path);

/* Its descriptor is readable: the answer goes to vault. False when the process is gone and is not to be watched. */
bool renewer_read(struct renewer *r, int i, int vault_fd);
