/* The network processes of a session: agent-vm-vault, which makes every connection, agent-vm-wire, which speaks with the
 * guest's kernel, and, when a login is lent, agent-vm-gate, which judges requests (docs/architecture.md). */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "cli/creds.h"
#include "cli/ghlist.h"
#include "cli/lookup.h"
#include "cli/ports.h"
#include "cli/upstream.h"
#include "proto/vaultcfg.h"
#include "vault/echoes.h"
#include "vault/policy.h"

/* The user's HTTP proxy. */
struct network_proxy {
	const char *variable; /* where it stands, static */
	char *text;	      /* as shown, without user and password; NULL: no proxy */
	char *host;
	char *auth;	      /* "user:password", wiped when it is freed; NULL: none */
	struct addr addrs[VAULT_PROXY_ADDRS];
	size_t n_addrs;
	uint16_t port;
	struct strv except;
};

/* What was asked for, with names looked up (cli/netplan.h). */
struct network_plan {
	char *wire_path, *vault_path, *gate_path, *probe_path;
	bool no_network, allow_lan, allow_host, auto_publish;
	struct ports ports; /* their sockets until network_start() has handed them over */
	struct policy_rule *rules;
	size_t n_rules;
	struct network_proxy proxy;
	struct lookup lookup;
	struct creds *creds;		 /* kept */
	const struct ghlist *github;	 /* kept */
	const struct upstream *upstream; /* kept */
	char probe[33]; /* the self-probe's random value; "": none */
};

/* How a role ended; the higher, the more it is the cause and not what followed from it. In order is what it does when the VM
 * or another role is gone. */
enum network_end { NETWORK_IN_ORDER, NETWORK_FAILED, NETWORK_KILLED };

struct network_role {
	const char *name; /* "wire" */
	pid_t pid;	  /* -1: not started */
	int fd;		  /* launcher's end of its control socket; -1 */
	char *error;	  /* what it said last: why it ends */
	enum network_end end; /* set by network_ended() */
	bool violated[HOSTS]; /* vault's: hosts that got requests with credentials that are not for them */
	uint32_t lacks;	      /* vault's: PH_BIT of kinds that the host had no login for when it was needed */
	uint32_t refused;     /* vault's: PH_BIT of kinds whose token GitHub refused; cleared by who acts on it */
	struct echoes echoes; /* vault's: where logins came back */
};

#define NETWORK_CA_MAX 4000

struct network {
	struct network_role wire, vault, gate;
	bool ipv4, ipv6; /* the guest is given it */
	bool as_asked;	 /* the digest of vault's policy is that of the plan's */
	int gate_fd;	 /* without a gate: far end of what vault has for it; nobody reads it */
	uint8_t ca[NETWORK_CA_MAX]; /* with one: the session's root certificate, DER */
	size_t ca_n;
	uint32_t ca_hash; /* of its subject, as OpenSSL's hash links are called */
};

#define NETWORK_INIT { .wire = { "wire", -1, -1, NULL }, .vault = { "vault", -1, -1, NULL }, .gate = { "gate", -1, -1, NULL }, \
		       .gate_fd = -1 }
#define NETWORK_ROLES 3

/* The roles by number; one that was not started has no fd. */
struct network_role *network_role(struct network *n, unsigned i);

/**
 * network_start() - Start them and wait until the policy is in force
 * @link_fd:	Far end of the VM's network device; borrowed
 * @mac:	The guest's
 * @session:	Its name
 * @log_fd:	For wire, vault and gate, borrowed
 * @audit_fd:	audit.jsonl and the one before it, borrowed
 *
 * They have a few hundred milliseconds of the boot, which goes on meanwhile.
 *
 * Return: 0; negative errno with @err set and nothing left
 */
int network_start(struct network_plan *plan, int link_fd, const uint8_t mac[6], const char *session,
		  const int log_fd[NETWORK_ROLES], const int audit_fd[2], struct network *ret, struct err *err);

/* A record with an address as in proto/vaultcfg.h. */
int network_put_addr(struct buf *out, uint16_t key, const struct addr *a);

/* The self-probe is over: what is refused from now on is the agent's. */
void network_probed(struct network *n);

/* What gh says now of that kind's token can be read from @fd, which is taken. */
void network_gh(struct network *n, enum ph_kind kind, int fd);

/* Close their control sockets, give them a moment, and wait for them. Safe at any time. */
void network_stop(struct network *n);

/* Takes in what vault said and nobody has read yet; with @ends its last words as well, for the VM is gone and so it ends. */
void network_drain(struct network *n, bool ends);

/**
 * network_heard() - A role's control socket is readable
 * @ret:	What vault wants renewed
 *
 * Return: 1 and @ret; 0 when there is nothing to do or @role says it; -EPIPE when it ended or said why it will, see network_ended()
 */
int network_heard(struct network_role *role, struct vault_renew *ret);

/**
 * network_ended() - Why a role's control socket is at its end
 *
 * "network process (wire) ended: CAUSE", with what it said or how it was killed. No cause of anything when @role's end is
 * then NETWORK_IN_ORDER. Caller owns.
 */
char *network_ended(struct network_role *role);
