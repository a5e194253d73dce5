/* Commands. Each cmd_NAME.c exports one struct cmd; cmds.c lists them in the order of the help; main.c reads the command
 * line by these tables and calls run(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "cli/opt.h"
#include "cli/problems.h"

/* What becomes of the words that are no options. */
enum cmd_words {
	CMD_WORDS_NONE,  /* any is a mistake */
	CMD_WORDS_MIXED, /* handed to run(), options may stand between them */
	CMD_WORDS_GUEST, /* from the first one on everything is the guest's, verbatim */
};

struct cli {
	int64_t started; /* now_ns() before the words were read */
	const struct cmd *cmd;
	char **argv; /* all words, [0] is the program */
	struct opt_parsed parsed;
	struct problems problems;
};

struct cmd {
	const char *name;
	const char *alias;   /* second name, in no help; may be NULL */
	const char *summary; /* one line for the list of commands */
	const char *usage;   /* "[OPTIONS] [--] [WORDS]", behind the name */
	const char *about;   /* paragraphs of --help and the man page, divided by empty lines; may be NULL */
	const char *examples; /* lines "command<TAB>what it does"; may be NULL */
	const struct opt *opts;
	size_t args_size; /* of the struct that opts refer to */
	enum cmd_words words;
	unsigned max_words; /* CMD_WORDS_MIXED: more are a mistake */
	bool launch_verb;   /* args is a struct launch_args; run() is called with problems and must report them */
	bool hidden;
	/* @args: zeroed, then filled; @rest: words, NULL-terminated, never NULL. Returns the exit status. */
	int (*run)(struct cli *cli, void *args, char **rest);
};

/* NULL-terminated, in the order of the help. */
extern const struct cmd *const cmds[];

/* By name or alias; NULL if there is none. */
const struct cmd *cmd_find(const char *name);

/* Says that there is no such command, and which one is near. Return: exit status */
int cmd_unknown(const char *name);

/**
 * cmd_main() - The whole program behind main()
 *
 * Return: exit status
 */
int cmd_main(char **argv);
