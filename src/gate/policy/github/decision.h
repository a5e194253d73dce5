/* What GitHub's rules say of a request (page on GitHub, part 2). */
#pragma once

#include "gate/policy/github/scope.h"
#include "proto/refusal.h"

enum gh_verdict {
	GH_REFUSE, /* first, so that what was not decided is refused */
	GH_ANONYMOUS,
	GH_CREDENTIAL,
	GH_BODY,
};

/* What a body is read for. */
enum gh_body {
	GH_BODY_NONE,
	GH_BODY_GRAPHQL, /* whole: the rules for GraphQL */
	GH_BODY_PULL,	 /* whole: a new pull request */
	GH_BODY_ISSUES,	 /* whole: links between issues, by numbers */
	GH_BODY_AGENT,	 /* whole, of any form: no agent at GitHub is told where to work */
	GH_BODY_REF,	 /* whole: which ref a write is for */
	GH_BODY_TREE,	 /* whole: the files of a new tree */
	GH_BODY_LFS,	 /* whole: download or upload */
	GH_BODY_PUSH,	 /* to the end of the commands: gh_push_scan() says when */
	GH_BODY_MCP,	 /* whole: a call of a tool */
};
#define GH_JSON_MAX (1 << 20)	/* of a body that is read whole */
#define GH_LFS_TYPE "application/vnd.git-lfs+json"
#define GH_PUSH_MAX (128 << 10) /* of the commands of a push: a thousand refs */

/* How a refusal reaches the person: each client shows another part of an answer (2.14). */
enum gh_form {
	GH_FORM_REST,
	GH_FORM_TEXT, /* git's first request, and web pages */
	GH_FORM_PUSH, /* inside the protocol of git push */
	GH_FORM_FETCH,
	GH_FORM_LFS,
	GH_FORM_MCP,
};

/* How an answer is treated (2.9). */
enum gh_reply {
	GH_REPLY_STREAM,   /* as it comes */
	GH_REPLY_JSON,	   /* tokens that GitHub puts into it are taken out */
	GH_REPLY_ISSUES,   /* of issues in other repositories only which ones they are is kept */
	GH_REPLY_USER,	   /* only what tells who the user is is kept */
	GH_REPLY_HINT,	   /* without credential: a failure gets a hint */
	GH_REPLY_HINT_GIT, /* the same, and only 403 makes git show it */
};

#define GH_TEXT_MAX 400

struct gh_decision {
	const struct gh_scope *scope; /* kept */
	struct span seen;	      /* what was read of the body, kept: refusals inside a protocol answer to it */
	enum gh_verdict verdict;
	enum gh_body body; /* for GH_BODY */
	enum gh_form form;
	enum gh_reply reply;
	const struct gh_repo *repo; /* listed; NULL */
	size_t bad_ref;		    /* of a refused push: which of its commands; all if there is none such */
	bool learns;		    /* the numbers of the answer's own issues belong to repo */
	bool completes;		    /* the answer is to get what was not asked of GitHub: it is read, or refused */
	const char *rule;	    /* which rule decided, for records: "write pulls/N/merge" */
	/* Of a refusal. Texts are ASCII without quotes, backslashes and control bytes. */
	enum refusal_code code;
	uint16_t status;
	char what[GH_TEXT_MAX]; /* what was refused and why; with a hint to come: the repository, if it has a name */
	char how[GH_TEXT_MAX];	/* what would open it; may be empty */
};
