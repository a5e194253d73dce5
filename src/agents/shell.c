/* The words of `shell` and `exec` as bash runs them. */
#include "agents/agent.h"

#include <string.h>

/* Long options of bash. */
static const char *const known[] = {
	"debug", "debugger", "dump-po-strings", "dump-strings", "help", "init-file", "login", "noediting",
	"noprofile", "norc", "posix", "pretty-print", "rcfile", "restricted", "verbose", "version", NULL,
};

const struct agent agent_shell = { .verb = "shell", .program = NULL, .known = known };

void agent_shell_argv(char *const *part, bool stdin_tty, struct strv *ret)
{
	strv_add(ret, "bash");
	if (!part[0]) {
		/* Without a terminal bash reads its commands from stdin by itself. */
		if (stdin_tty) {
			strv_add(ret, "-O");
			strv_add(ret, "histappend");
		}
		return;
	}
	if (part[0][0] != '-') {
		/* A line of one simple command: bash runs builtins itself and execs anything else in its own place
		 * (measured with 5.2: the program has the pid of bash), so that signals and status are the program's.
		 * The expansion of "$@" is not parsed again: every word stays what it is. */
		strv_add(ret, "-c");
		strv_add(ret, "\"$@\"");
		strv_add(ret, "bash");
	}
	for (; *part; part++)
		strv_add(ret, *part);
}
