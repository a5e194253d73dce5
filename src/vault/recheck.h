/* vault's own judgement of a request that gate already judged (credentials page 1.2): a gate that was taken over gets
 * no credential onto a bad path, and no field past the list of what stays on its side. */
#pragma once

#include "agents/providers.h"
#include "proto/httpmsg.h"
#include "proto/refusal.h"

/**
 * recheck() - Whether this may go out as it is
 * @m:		From httpmsg_request_parse()
 *
 * Return: REFUSAL_NONE: yes, with the credentials that it names; else the reason
 */
enum refusal_code recheck(const struct prov_launch *launch, const struct httpmsg_request *m);

/* Whether the answer's body is looked through for what was sent: every credentialed one but git's own transfers. */
bool recheck_scans_body(const struct httpmsg_request *m);
