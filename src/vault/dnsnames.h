/* Names that are answered without a resolver (network page 7.2). Pure. */
#pragma once

#include "vault/config.h"
#include "vault/dnsmsg.h"

enum names_do {
	NAMES_ASK,    /* a resolver */
	NAMES_ANSWER, /* @m is the answer, with its rcode */
	NAMES_PROBE,  /* @m is an answer that goes through the filter first, as a resolver's does */
};

/* Names of this host as the guest knows it; the addresses are the gateway's. */
#define NAMES_TTL_S 60

/**
 * names_local() - Is this question one that the vault answers itself?
 * @name:	Lower case
 * @ipv6:	The guest has it
 * @m:		Written for NAMES_ANSWER and NAMES_PROBE
 * @ret_rule:	Then what decided, for the audit: a word; NULL: an ordinary answer
 */
enum names_do names_local(const struct vault_config *cfg, const struct policy *policy, const struct dns_name *name, uint16_t type,
			  bool ipv6, struct dns_msg *m, const char **ret_rule);

/* A name as inner networks and clouds have it: what a proxy finds for it is no part of the internet. */
bool names_inner(const char *text);

/* The name is, or is a port-prefixed form of (RFC 9460 section 2.3), one that is inspected. @text as dns_name_to_text(). */
bool names_inspected(const struct policy *policy, const char *text);

/* What pre-flight found for a name typed in a rule; NULL: it is none. */
const struct vault_named *names_named(const struct vault_config *cfg, const char *text);
