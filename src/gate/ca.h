/* The session's certificate authority (credentials page 7.1): a root that the guest is told to trust, and a leaf for
 * each host that gate speaks for. ECDSA P-256. The keys are made here and never leave this process. */
#pragma once

#include <openssl/x509.h>

#include "agents/providers.h"
#include "base/buf.h"
#include "base/err.h"

struct ca {
	EVP_PKEY *root_key, *leaf_key; /* the leaves share one */
	X509 *root;
	struct {
		X509 *cert;
		int64_t renew; /* seconds of the wall clock: make another one */
	} leaf[HOSTS];
};

/**
 * ca_init() - Make root and keys
 * @session:	For the subject, so that roots of sessions can be told from each other in the guest
 * @now:	Seconds of the wall clock
 */
int ca_init(struct ca *ca, const char *session, int64_t now, struct err *err);
void ca_done(struct ca *ca);

/* The root as DER. 0 or -ENOMEM. */
int ca_root(const struct ca *ca, struct buf *out);

/* The leaf for exactly this host; made at first use. NULL: no memory. Borrowed, until the next call for this host. */
X509 *ca_leaf(struct ca *ca, enum prov_host_id host, int64_t now);
