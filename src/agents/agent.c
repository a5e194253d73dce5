#include "agents/agent.h"

#include <string.h>

static const struct agent *const agents[] = {
	&agent_claude, &agent_codex, &agent_opencode, &agent_copilot, &agent_shell,
};

const struct agent *agent_find(const char *verb)
{
	for (size_t i = 0; i < ARRAY_SIZE(agents); i++)
		if (strcmp(agents[i]->verb, verb) == 0)
			return agents[i];
	return NULL;
}

bool agent_knows(const struct agent *agent, const char *name, size_t n)
{
	for (const char *const *k = agent->known; *k; k++)
		if (strlen(*k) == n && memcmp(*k, name, n) == 0)
			return true;
	return false;
}

/* Does a word of the agent part say itself what our flag would say? */
static bool flag_dropped(const struct agent *agent, char *const *part)
{
	for (; *part; part++)
		for (const char *const *u = agent->unless; *u; u++) {
			size_t n = strlen(*u);

			if (strncmp(*part, *u, n) == 0 && ((*part)[n] == '\0' || (*part)[n] == '='))
				return true;
		}
	return false;
}

void agent_argv(const struct agent *agent, char *const *part, bool stdin_tty, struct strv *ret)
{
	if (!agent->program) {
		agent_shell_argv(part, stdin_tty, ret);
		return;
	}
	strv_add(ret, agent->program);
	if (agent->flag && !flag_dropped(agent, part))
		strv_add(ret, agent->flag);
	for (; *part; part++)
		strv_add(ret, *part);
}

const char *agent_note(const struct agent *agent, char *const *part, int status)
{
	if (agent->program || status != 127 || !part[0] || part[1] || part[0][0] == '-')
		return NULL;
	if (!part[0][strcspn(part[0], " \t\n\r\v\f;&|<>()")])
		return NULL;
	return "to run a shell line use -c, as in: -c 'a && b'";
}
