/* The launcher's order to the vault (proto/vaultcfg.h), read into plain structs. */
#pragma once

#include "agents/providers.h"
#include "base/err.h"
#include "base/span.h"
#include "vault/source.h"
#include "proto/vaultcfg.h"
#include "vault/policy.h"

struct vault_named {
	char name[POLICY_NAME_MAX + 1];
	struct addr addrs[VAULT_NAMED_ADDRS];
	size_t n_addrs;
};

struct vault_publish {
	int fd;	       /* -1: the place is free */
	bool added;    /* by struct vault_listen: it may end before the session */
	uint16_t port; /* of the guest */
	uint16_t own;  /* of the host: what fd is bound to */
	bool udp;
	char listen[VAULT_LISTEN_TEXT]; /* for the audit */
};

struct vault_no_proxy {
	char name[POLICY_NAME_MAX + 1]; /* "*": all; else without a leading dot; "": the network */
	struct prefix net;
	uint16_t port; /* 0: any */
};

struct vault_proxy {
	struct addr addrs[VAULT_PROXY_ADDRS];
	size_t n_addrs; /* 0: no proxy */
	uint16_t port;
	char text[300];
	char basic[1400]; /* the whole value of Proxy-Authorization, "" without a password; wiped by nobody: it lives as long
			   * as the process, which is not dumped */
	struct vault_no_proxy except[VAULT_NO_PROXY_MAX];
	size_t n_except;
};

/* A login file of the host. */
struct vault_source {
	enum source_kind kind;
	int fd; /* its folder; -1: none of this kind */
	char name[VAULT_SOURCE_NAME + 1];
	bool program; /* the launcher knows one that renews it */
	struct {
		uint64_t dev, ino;
	} guards[VAULT_GUARDS_MAX];
	size_t n_guards;
};

struct vault_connect_to {
	char name[POLICY_NAME_MAX + 1];
	struct addr addr;
	uint16_t port, to_port;
};

struct vault_config {
	struct policy policy; /* hosts, nat64 not filled in */
	uint8_t guest_mac[6];
	uint16_t mtu;
	struct vault_named *named; /* [n_named] */
	size_t n_named;
	struct vault_publish publishes[VAULT_PUBLISH_MAX + VAULT_LISTEN_MAX];
	size_t n_publishes;
	struct vault_proxy proxy;
	int audit_fd, audit_old_fd; /* -1: none */
	char probe[65];
	char **inspected; /* NULL at the end; policy.inspected */
	struct prov_launch launch;
	struct vault_source *sources; /* [n_sources], each kind once */
	size_t n_sources;
	int env_fd[PH_KINDS]; /* -1: none */
	struct vault_connect_to *connect_to; /* [n_connect_to] */
	size_t n_connect_to;
	int *trust; /* [n_trust] */
	size_t n_trust;
};

/**
 * vault_config_parse() - Read the records
 * @ret:	Written on success only; lives as long as the process
 *
 * Return: 0; -EBADMSG with @err set
 */
int vault_config_parse(struct span in, struct vault_config *ret, struct err *err);

/**
 * vault_listen_check() - Is this a struct vault_listen, in form?
 *
 * Pure.
 *
 * Return: 0 and @ret; -EBADMSG
 */
int vault_listen_check(const void *msg, size_t n, struct vault_listen *ret);

/* Where @name is dialled instead; @port 0: any. NULL: nowhere else. */
const struct vault_connect_to *connect_to_find(const struct vault_config *c, const char *name, uint16_t port);

/* One entry of no_proxy. 0 or -EINVAL. */
int no_proxy_parse(const char *s, struct vault_no_proxy *ret);
/* Does a connection to @a, known as @names (NULL at the end, may be NULL), go past the proxy? */
bool no_proxy_matches(const struct vault_proxy *p, const struct addr *a, const char *const *names, uint16_t port);
