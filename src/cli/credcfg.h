/* What vault and gate are told of the logins: the records of proto/vaultcfg.h and proto/gatecfg.h. */
#pragma once

#include "base/buf.h"
#include "cli/creds.h"
#include "cli/ghlist.h"
#include "cli/upstream.h"

/* Descriptors that the vault's records name. */
#define CREDCFG_FDS_MAX (VAULT_SOURCES_MAX + CREDS_SECRETS_MAX + 3)

/**
 * credcfg_vault() - Records for vault
 * @fds:	Gets the descriptors, borrowed
 * @first:	Number that fds[0] will have there
 *
 * Return: how many descriptors, or -ENOBUFS
 */
int credcfg_vault(const struct creds *c, const struct upstream *u, int fds[CREDCFG_FDS_MAX], int first,
		  struct buf *out);

/* Records for gate; @session: its name. 0 or -ENOBUFS. */
int credcfg_gate(const struct creds *c, const struct ghlist *github, const char *session, struct buf *out);
