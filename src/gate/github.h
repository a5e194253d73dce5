/* Requests to GitHub's hosts. The rules of the page on GitHub (repositories, GraphQL, git) have their place here; until
 * they stand, no credential of GitHub is attached to any request: reading goes out anonymously, everything else is
 * refused. */
#pragma once

#include "gate/request.h"

enum github_verdict {
	GITHUB_ANONYMOUS,  /* forward without a credential */
	GITHUB_CREDENTIAL, /* attach GitHub's */
	GITHUB_REFUSE,	   /* a fault of STAGE_POLICY was noted */
	GITHUB_BODY,	   /* the body decides: github_body() gets it */
};

/**
 * github_judge() - Decide over a well-formed request to a GitHub host
 * @asks:	The request came with GitHub's placeholder in its slot
 * @ret_body_max: For GITHUB_BODY: how many bytes of it are read; not 0
 */
enum github_verdict github_judge(enum prov_host_id host, struct request *r, bool asks, size_t *ret_body_max);

/**
 * github_body() - The same once the body is there
 * @body:	Whole; one byte more than was asked for says that there was more
 * @ret_body:	Empty; what is written there is sent in place of @body
 *
 * Return: not GITHUB_BODY
 */
enum github_verdict github_body(enum prov_host_id host, struct request *r, bool asks, struct span body,
				struct buf *ret_body);
