/* Whom the session's services are believed to be: the certificates that vault and, with --trust-host-ca, the guest
 * trust, and stand-ins for tests (credentials page 8.1). */
#pragma once

#include "base/err.h"
#include "cli/launch_args.h"
#include "proto/vaultcfg.h"
#include "vault/policy.h"

/* AGENT_VM_CONNECT_TO: @name at @port is dialled at @addr and @to_port. */
struct connect_to {
	char name[POLICY_NAME_MAX + 1]; /* lower case */
	struct addr addr;
	uint16_t port, to_port;
};

#define UPSTREAM_PEM_MAX (1 << 20)

struct upstream {
	struct connect_to to[VAULT_CONNECT_TO_MAX];
	size_t n_to;
	int trust[3]; /* certificates in PEM form: files, or memory */
	size_t n_trust;
	char *host_ca; /* with --trust-host-ca: this host's own authorities, PEM; NULL: none */
};

/**
 * connect_to_parse() - NAME:PORT:ADDR:PORT[,...]
 * @ret:	Room for VAULT_CONNECT_TO_MAX
 *
 * Pure.
 *
 * Return: 0, or -EINVAL with the cause in @err
 */
int connect_to_parse(const char *s, struct connect_to *ret, size_t *ret_n, struct err *err);

/**
 * upstream_plan() - Read the variables and open what they name
 * @lent:	A login is lent: else the session dials no service itself, and no certificates are looked at but those of
 *		--trust-host-ca
 *
 * After prog_shun() knows the project and the mounts: what lies there is not believed.
 */
void upstream_plan(struct cli *cli, const struct launch_args *args, char *(*env)(const char *), bool lent,
		   struct upstream *ret, struct strv *warnings);
void upstream_done(struct upstream *u);

/* The row `testing`: NULL when there is none. Caller owns. */
char *upstream_text(const struct upstream *u);
