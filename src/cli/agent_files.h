/* What the agents find in the guest (cli page 11, agents page): their settings so that no first question is asked, the
 * project trusted, their defaults, and a text that tells an agent where it is. */
#pragma once

#include "base/buf.h"
#include "cli/preflight.h"

/* What of the logins stands in files that are made here. All may be NULL. */
struct agent_logins {
	/* JSON of the login files, as vault/guestfile.h writes it; NULL: the host has no such login, so one of ours goes. */
	const char *claude_file, *codex_file, *opencode_file;
	const char *github;	  /* placeholder; needs plan->gitid.login */
	const char *api_key_tail; /* last GC_TAIL characters of the placeholder of ANTHROPIC_API_KEY */
	const char *copilot;	  /* placeholder */
	bool opencode_openai;	  /* OpenCode has a login at OpenAI: its model is pinned to one of OpenAI's */
};

/* Appends records of CONFIG. 0 or -ENOBUFS. */
int agent_files(const struct plan *p, const struct agent_logins *logins, struct buf *out);

/* The text for the agent inside; caller owns. */
char *agent_instructions(const struct plan *p);
