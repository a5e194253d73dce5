/* Options as rows of a table. One row gives the parsing, the line of -h, the text of --help and the entry of the man
 * page. There are only long names (but see OPT_INITIAL); "--name VALUE" and "--name=VALUE" are the same.
 *
 * The parser fills a plain struct of the command (zeroed by the caller), by kind and offset, and remembers which word of
 * the command line gave which value, so that a later check can report at that place (problems_at()). Words are borrowed
 * from argv; only the arrays of repeated options are allocated (opt_free()). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "cli/problems.h"

#define OPT_NAME_MAX 64 /* longer words are compared with no name */

enum opt_kind {
	OPT_FLAG,   /* bool */
	OPT_STRING, /* const char *, borrowed */
	OPT_STRV,   /* struct strv, one entry a use */
	OPT_MIB,    /* uint64_t, size in MiB (cli/size.h) */
	OPT_INT,    /* unsigned */
	OPT_CHOICE, /* const char *, one of choices */
	OPT_GROUP,  /* no option: a heading in the help, its text in name */
};

enum opt_flags {
	OPT_HIDDEN = 1 << 0, /* in no help */
	OPT_INITIAL = 1 << 1, /* a dash and its first letter are the same. Never of a launch verb */
};

struct opt {
	const char *name; /* without the dashes; NULL ends the table */
	enum opt_kind kind;
	size_t offset;
	const char *arg;  /* what stands for the value in the help, NULL for a flag */
	const char *help; /* one line */
	unsigned flags;
	const char *more;           /* further sentences: grammar, default, limits; may be NULL */
	const char *example;        /* a right value, for messages and help; NULL for a flag */
	const char *const *choices; /* OPT_CHOICE: NULL-terminated */
};

struct opt_use {
	const struct opt *opt;
	unsigned at;       /* index of the option's word in argv */
	const char *value; /* as typed, borrowed; NULL for a flag or when it was missing */
	bool bad;          /* a problem was reported; the field was not set */
};

struct opt_parsed {
	struct opt_use *uses; /* in the order typed */
	size_t n_uses;
	bool help;       /* -h was the first word that is no option of ours */
	bool full_help;  /* --help was */
	bool dashes;     /* a "--" ended the options and was removed */
	unsigned n_read; /* words that were consumed; the rest begins at argv[n_read] */
};

/**
 * opt_parse() - Read options from the front of @argv
 * @opts:	Table
 * @args:	Struct that the offsets refer to
 * @argv:	Words, NULL-terminated; [0] to [@first - 1] are skipped
 * @ret:	Filled; opt_parsed_done()
 * @p:		Every mistake goes here
 *
 * Stops before the first word that is none of the table's options, behind a "--", or at -h or --help. Reading goes on
 * after a mistake. Which word is none of ours is not judged here.
 */
void opt_parse(const struct opt *opts, void *args, char **argv, unsigned first, struct opt_parsed *ret,
	       struct problems *p);

/**
 * opt_parse_mixed() - The same for commands whose words may stand between the options
 * @words:	Gets the words that are no options, borrowed pointers; room for as many as @argv has, and a NULL
 *
 * A word that begins with "-" and is no option is a mistake.
 */
void opt_parse_mixed(const struct opt *opts, void *args, char **argv, unsigned first, char **words,
		     struct opt_parsed *ret, struct problems *p);
void opt_parsed_done(struct opt_parsed *parsed);
void opt_free(const struct opt *opts, void *args);

/* The row of that name (@n bytes), NULL if there is none. */
const struct opt *opt_find(const struct opt *opts, const char *name, size_t n);
bool opt_given(const struct opt_parsed *parsed, const char *name);
/* Word index of the @nth use (0 = first) of an option, for problems_at(); PROBLEMS_AT_END if it was not used. */
unsigned opt_at(const struct opt_parsed *parsed, const char *name, size_t nth);
/* Number of single-letter edits (insert, delete, replace, swap of neighbours) between two words, at most @max + 1. */
unsigned opt_distance(const char *a, const char *b, unsigned max);
