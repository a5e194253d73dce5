/* PLACEHOLDER until the launch is merged: the checks of the command line, and no launch. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/launch_args.h"

int launch_run(struct cli *cli, void *args, char **rest)
{
	struct launch_args *a = args;
	struct host_facts host;
	struct strv notes = { 0 };

	host_facts_read("", &host);
	launch_check(cli, a, &host, getenv);
	for (size_t i = 0; i < a->mounts.n; i++) {
		struct stat st;

		problems_at(&cli->problems, opt_at(&cli->parsed, "mount", i));
		if (stat(a->mounts.v[i], &st) < 0)
			problem_world(&cli->problems, "--mount %s: no such file or directory; create it or correct the path",
				      a->mounts.v[i]);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
	if (cli->problems.n > 0)
		return problems_report(&cli->problems, stderr, "nothing was started");
	launch_warnings(a, &notes);
	for (size_t i = 0; i < notes.n; i++)
		fprintf(stderr, "agent-vm: warning: %s\n", notes.v[i]);
	strv_done(&notes);
	launch_hints(a, &notes);
	for (size_t i = 0; i < notes.n; i++)
		fprintf(stderr, "agent-vm: note: %s\n", notes.v[i]);
	strv_done(&notes);
	fprintf(stderr, "agent-vm: %s: there is no launch in this build yet\n", a->verb);
	return 1;
}
