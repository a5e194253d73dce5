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

/* Go on with a GraphQL request whose head has passed; false when what would be sent is not what was judged. */
bool decide_graphql(const struct github_case *c, struct gh_decision *d);
