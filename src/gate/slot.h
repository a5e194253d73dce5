/* Credentials in a head (credentials page 5): which placeholder stands in which slot, and whether one stands anywhere
 * else. */
#pragma once

#include "gate/request.h"
#include "proto/httpmsg.h"
#include "proto/placeholder.h"

struct slot_use {
	size_t n;
	enum ph_kind kind[HTTPMSG_CREDS];
	enum prov_slot slot[HTTPMSG_CREDS];
	bool foreign; /* a credential of the guest's own, which this launch lets pass */
};

/* authorization, x-api-key, api-key, x-goog-api-key: never forwarded as they came, but for a foreign one that is let
 * pass. */
bool slot_is_credential(struct span name);

/* No value, or a known scheme with nothing behind it: counts as absent. */
bool slot_is_empty(struct span value);

/**
 * slot_judge() - Find the credentials of a request
 * @anon:	A credential that is not ours counts as none; it is not forwarded, as no header of these is
 * @ret:	What to attach; untouched on a fault
 *
 * Notes a fault of STAGE_CREDENTIALS in @r when a credential header is wrong or a placeholder stands elsewhere. A
 * request with an earlier fault is not looked at.
 */
void slot_judge(const struct prov_launch *launch, const struct ph_set *set, enum prov_host_id host, bool anon,
		struct request *r, struct slot_use *ret);
