/* Requests to GitHub's hosts. The rules of the page on GitHub (repositories, GraphQL, git) have their place here; until
 * they stand, no credential of GitHub is attached to any request: reading goes out anonymously, everything else is
 * refused. */
#pragma once

#include "gate/request.h"

enum github_verdict {
	GITHUB_ANONYMOUS,  /* forward without a credential */
	GITHUB_CREDENTIAL, /* attach GitHub's */
	GITHUB_REFUSE,	   /* a fault of STAGE_POLICY was noted */
};

/**
 * github_judge() - Decide over a well-formed request to a GitHub host
 * @asks:	The request came with GitHub's placeholder in its slot
 */
enum github_verdict github_judge(enum prov_host_id host, struct request *r, bool asks);
