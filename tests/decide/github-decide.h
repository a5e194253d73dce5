/* Between github-decide and its part for GraphQL. */
#pragma once

#include <jansson.h>

#include "gate/policy/github/decide.h"

struct github_case {
	const json_t *fixture;
	const struct gh_scope *scope;
	const struct request *r;
	struct span body;
};

/* Whether GitHub's credential is attached to a GraphQL request whose head has passed; else it is refused. */
bool decide_graphql(const struct github_case *c);
