/* What is taken out of GitHub's answers (2.9). */
#pragma once

#include "gate/policy/github/decide.h"

/* Fields of an answer that do not reach the guest, besides those that no answer keeps. */
bool gh_reply_drops(struct span name);

/* In a stream of JSON, the text of each member "temp_clone_token" is overwritten with "x": it would work outside of the
 * sandbox. Only a member can be written so: inside a string its quotes have backslashes. */
struct gh_scrub {
	unsigned state; /* matched so far of the name and what follows it */
};
void gh_scrub(struct gh_scrub *s, uint8_t *p, size_t n);

#define GH_USER_MAX (256 << 10)
/* GET /user, 200: who the user is and nothing else. 0, -EBADMSG for anything but a JSON object, -ENOBUFS. */
int gh_reply_user(struct span body, struct buf *out);

/* An answer with GH_REPLY_ISSUES: each issue or pull request, however deep, that does not lie in a listed repository is cut down to
 * number, html_url and its repository's name. 0, -EBADMSG for anything but JSON, -ENOBUFS. */
int gh_reply_issues(const struct gh_scope *s, struct span body, struct buf *out);

#define GH_LEARN_MAX (1 << 20)
/* The numbers of the issue or the issues that an answer with .learns holds; what is no such JSON teaches nothing. */
void gh_learn(struct span body, struct gh_issues *known);
