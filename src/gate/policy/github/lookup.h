/* The look-up of what is listed, made beside the boot with the user's own token (page on GitHub, 2.1): numbers, node
 * ids, names as of now, and what each is a fork of. Until its answer is in, repositories are known by their names
 * alone. */
#pragma once

#include "base/buf.h"
#include "gate/policy/github/scope.h"

#define GH_LOOKUP_MAX (64 << 10)

/* The body of one POST to /graphql for all that is not known yet, or, from time to time, for all: whether a name still
 * means the same repository. 1; 0: nothing is to be asked; -ENOBUFS. */
int gh_lookup_body(const struct gh_scope *s, bool again, struct buf *out);

/* Takes in the answer; what is null or odd stays unknown. How many became known; -EBADMSG: this is no answer. */
int gh_lookup_answer(struct gh_scope *s, struct span text);
