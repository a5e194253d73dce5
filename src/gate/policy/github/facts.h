/* The question which repositories the names on the launch's list stand for, and GitHub's answer (page on GitHub, 2.1). */
#pragma once

#include "base/buf.h"
#include "gate/policy/github/scope.h"

/* As the body of a POST to /graphql, for a list that is not empty. 0 or -ENOBUFS. */
int gh_facts_body(const struct gh_scope *s, struct buf *out);

/**
 * gh_facts_answer() - Take in what the answer tells
 * @text:	The whole body of the answer
 *
 * A repository that is null or told oddly stays as it is known so far, which may be not at all.
 *
 * Return: 0; -EBADMSG when it is no answer at all
 */
int gh_facts_answer(struct gh_scope *s, struct span text);
