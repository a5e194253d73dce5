/* The agents: data and small functions. What program a launch verb runs in the guest, and which options are its own. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

struct agent {
	const char *verb;
	const char *program; /* in the guest; NULL for the shell, which runs what it is told */
	/* Flag of ours in front of the agent part, or NULL; dropped when a word of the agent part is one of unless,
	 * bare or followed by "=". */
	const char *flag;
	const char *const *unless; /* NULL-terminated; may be NULL */
	const char *const *known;  /* long options of its top level, without dashes, NULL-terminated */
};

extern const struct agent agent_claude, agent_codex, agent_opencode, agent_copilot, agent_shell;

/* By launch verb, NULL if there is none. */
const struct agent *agent_find(const char *verb);
/* Whether @name (@n bytes, without dashes) is an option of the agent itself. */
bool agent_knows(const struct agent *agent, const char *name, size_t n);

/**
 * agent_argv() - The program and words to run in the guest
 * @part:	The agent part, NULL-terminated
 * @stdin_tty:	The guest program's stdin will be a terminal
 * @ret:	Gets the words; the caller owns the list
 */
void agent_argv(const struct agent *agent, char *const *part, bool stdin_tty, struct strv *ret);

/* The same for words that are typed as in `shell`: exec uses it, too. */
void agent_shell_argv(char *const *part, bool stdin_tty, struct strv *ret);

/**
 * agent_note() - What to say about an end of the guest program; of exec as of the shell
 * @status:	Its exit status
 *
 * Return: static text without prefix and newline, or NULL
 */
const char *agent_note(const struct agent *agent, char *const *part, int status);
