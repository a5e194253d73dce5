/* What a launch would do with one request: what gate's own judge says, and the network's policy, for
 * `agent-vm why`. Pure: what the host has comes in. */
#pragma once

#include "agents/providers.h"
#include "base/err.h"
#include "base/str.h"
#include "gate/policy/github/scope.h"
#include "vault/policy.h"

struct why_url {
	bool tls;			/* https; plain HTTP and a bare HOST:PORT otherwise */
	bool http;			/* with a scheme */
	char host[POLICY_NAME_MAX + 1]; /* lower case; of an IPv6 address without brackets */
	uint16_t port;
	char *target; /* path and query, raw; "/" at least. Caller owns */
};

/* URL, HOST[:PORT] or IP:PORT. 0 or -EINVAL with @err set. */
int why_url_parse(const char *s, struct why_url *ret, struct err *err);

struct why {
	const char *decision; /* "allow", "refuse", "answer"; "body": what stands in it decides */
	char *rule;	      /* in words; caller owns */
	char *opens;	      /* the option that would change it; NULL: none does. Caller owns */
	char *note;	      /* NULL: nothing more to say. Caller owns */
	const char *kind;     /* of the credential that goes along; NULL: none */
	const char *class;    /* of the rule that matched; NULL: none */
};

void why_done(struct why *w);

/**
 * why_request() - A request to an inspected host, as gate judges it
 * @github:	The launch's list, of which nothing was looked up at GitHub
 * @host:	One that prov_bound() says yes to
 * @target:	Path and query
 */
void why_request(const struct prov_launch *l, const struct gh_scope *github, enum prov_host_id host,
		 enum prov_method method, const char *target, struct why *ret);

/**
 * why_network() - A connection that is not inspected
 * @p:		With the addresses of this host
 * @name:	That was asked for, NULL: an address
 * @addr:	One of its addresses; NULL: none is known, and it is the name of a public service
 */
void why_network(const struct policy *p, const char *name, const struct addr *addr, uint16_t port, struct why *ret);
