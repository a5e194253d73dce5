/* From words to a command that runs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/prog.h"
#include "cli/cmd.h"
#include "cli/help.h"
#include "cli/launch_args.h"

#define STATUS_USAGE 2

/* Output that is the product of the command must have arrived: a full disk is a failure. */
static int finish_stdout(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "agent-vm: standard output: %s\n", strerror(errno));
	return 1;
}

int cmd_unknown(const char *name)
{
	AUTO_FREE(char, shown);
	const char *near = NULL;
	unsigned least = 3;

	shown = str_escape(name, strlen(name));
	for (const struct cmd *const *c = cmds; *c; c++) {
		/* Of two letters any two letters are two edits away. */
		unsigned max = strlen((*c)->name) <= 3 ? 1 : 2, d = opt_distance(name, (*c)->name, max);

		if (!(*c)->hidden && d <= max && d < least) {
			least = d;
			near = (*c)->name;
		}
	}
	if (near)
		fprintf(stderr, "agent-vm: no command '%s'; did you mean '%s'? (agent-vm --help lists them)\n", shown, near);
	else
		fprintf(stderr, "agent-vm: no command '%s' (agent-vm --help lists them)\n", shown);
	return STATUS_USAGE;
}

/* A word that begins with a dash where a command must stand. */
static int before_command(char **argv)
{
	const char *word = argv[1], *verb = "shell";
	size_t n = strcspn(word, "=");
	const struct opt *opt = n > 2 && str_starts(word, "--") ? opt_find(launch_opts, word + 2, n - 2) : NULL;
	bool value = opt && opt->kind != OPT_FLAG && word[n] == '\0' && argv[2];
	AUTO_FREE(char, shown);
	AUTO_FREE(char, shown_value);

	shown = str_escape(word, strlen(word));
	shown_value = str_escape(value ? argv[2] : "", value ? strlen(argv[2]) : 0);
	for (char **w = argv + 2 + value; *w; w++) {
		const struct cmd *cmd = cmd_find(*w);

		if (cmd && cmd->launch_verb) {
			verb = cmd->name;
			break;
		}
	}
	if (opt)
		fprintf(stderr, "agent-vm: %s: options come after the command; write agent-vm %s %s%s%s\n", shown, verb, shown,
			value ? " " : "", shown_value);
	else
		fprintf(stderr, "agent-vm: %s: no such option; before the command there are only --help and --version\n",
			shown);
	return STATUS_USAGE;
}

static int run(const struct cmd *cmd, char **argv, unsigned first)
{
	struct cli cli = { .started = now_ns(), .cmd = cmd, .argv = argv };
	AUTO_FREE(void, args);
	AUTO_FREE(char *, words);
	char **rest;
	size_t n = 0;
	int status;

	while (argv[n])
		n++;
	args = xcalloc(1, MAX(cmd->args_size, 1));
	words = xcalloc(n + 1, sizeof(*words));
	problems_init(&cli.problems);
	if (cmd->words == CMD_WORDS_GUEST) {
		opt_parse(cmd->opts, args, argv, first, &cli.parsed, &cli.problems);
		rest = argv + cli.parsed.n_read;
	} else {
		opt_parse_mixed(cmd->opts, args, argv, first, words, &cli.parsed, &cli.problems);
		rest = words;
		for (n = 0; words[n]; n++)
			if (n == (cmd->words == CMD_WORDS_NONE ? 0 : cmd->max_words)) {
				AUTO_FREE(char, shown);

				shown = str_escape(words[n], strlen(words[n]));
				problem_text(&cli.problems, "%s: one word too many for %s; see agent-vm %s --help", shown,
					     cmd->name, cmd->name);
			}
	}
	if (cli.parsed.help) {
		help_short(stdout, cmd, help_width(STDOUT_FILENO));
		status = finish_stdout(0);
	} else if (cli.parsed.full_help) {
		help_full(stdout, cmd, help_width(STDOUT_FILENO));
		status = finish_stdout(0);
	} else if (cli.problems.n > 0 && !cmd->launch_verb) {
		status = problems_report(&cli.problems, stderr, "nothing was done");
	} else {
		if (cmd->launch_verb) {
			struct launch_args *a = args;

			a->verb = cmd->name;
			a->agent = agent_find(cmd->name);
			a->agent_part = rest;
			a->agent_part_dashes = cli.parsed.dashes;
		}
		status = finish_stdout(cmd->run(&cli, args, rest));
	}
	opt_parsed_done(&cli.parsed);
	problems_done(&cli.problems);
	opt_free(cmd->opts, args);
	return status;
}

int cmd_main(char **argv)
{
	const char *word = argv[0] ? argv[1] : NULL;
	const struct cmd *cmd;

	/* The project, for every command: what an agent left in it is not to be started by us. */
	prog_shun(".");
	if (!word) {
		help_short(stderr, NULL, help_width(STDERR_FILENO));
		return STATUS_USAGE;
	}
	if (strcmp(word, "-h") == 0) {
		help_short(stdout, NULL, help_width(STDOUT_FILENO));
		return finish_stdout(0);
	}
	if (strcmp(word, "--help") == 0) {
		help_full(stdout, NULL, help_width(STDOUT_FILENO));
		return finish_stdout(0);
	}
	if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0) {
		puts("agent-vm " AGENT_VM_VERSION);
		return finish_stdout(0);
	}
	cmd = cmd_find(word);
	if (cmd)
		return run(cmd, argv, 2);
	return word[0] == '-' ? before_command(argv) : cmd_unknown(word);
}
