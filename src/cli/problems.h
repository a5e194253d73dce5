/* All mistakes of one command line, collected and printed together before anything is written.
 *
 * A problem is printed at the place of the word that it is about: whoever looks at a word, in whatever order, says which
 * word first with problems_at(). What belongs to no word (a variable, the project, the host) comes after all words, in
 * the order in which it was found. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/macros.h"

#define PROBLEMS_AT_END (~0u)

struct problem {
	char *text;
	unsigned at; /* index of the word typed, or PROBLEMS_AT_END */
	bool world;
};

struct problems {
	struct problem *v;
	size_t n;
	unsigned at;
};

void problems_init(struct problems *p);
void problems_done(struct problems *p);

/* The problems that follow are about word @at (opt_at()), or about none with PROBLEMS_AT_END, as after the start. */
void problems_at(struct problems *p, unsigned at);

/* In what was typed, in a variable or in a file: exit status 2. The text is "OBJECT: CAUSE; WHAT TO DO". */
void problem_text(struct problems *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* In the world (a path that is missing, a port that is in use): exit status 1 unless there is one of the other kind. */
void problem_world(struct problems *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/**
 * problems_report() - Print all, and with more than one the line that counts them
 * @last:	What the count says, such as "nothing was started"; NULL: no such line
 *
 * Return: exit status: 0 without a problem, 2 or 1
 */
int problems_report(const struct problems *p, FILE *to, const char *last);
