/* What ps, stop, logs and exec share: the state root as a verb that makes nothing sees it, and how text is laid out. */
#pragma once

#include <stdio.h>

#include "session/registry.h"

/**
 * sessions_root() - Open the state root of a verb that only looks, and clear dead sessions away
 *
 * Warnings go to stderr.
 *
 * Return: 1; 0 when there is no root yet, so no session; -EINVAL for a wrong variable (exit 2), or another negative
 * errno, with @err set
 */
int sessions_root(struct state_root *ret, struct err *err);

/* "agent-vm: TEXT" on stderr; returns the exit status: 2 for -EINVAL, 1 otherwise. */
int sessions_fail(int code, const struct err *err);
void sessions_warn(const struct strv *warnings);

/**
 * sessions_here() - Hash of the current project, for "the session of this project"
 *
 * Return: 0, or negative errno with @err set
 */
int sessions_here(char hash[PROJECT_HASH_LEN + 1], struct err *err);

/* Rows of cells, escaped, columns as wide as needed and two spaces between. Cells are copied. */
struct table {
	char **cells;
	size_t n, cols;
};

void table_init(struct table *t, size_t cols);
void table_add(struct table *t, const char *cell);
/* Prints and frees. */
void table_print(struct table *t, FILE *to);

/* The short name: without "agent-vm-". */
const char *sessions_short(const struct session_info *info);
/* One JSON value and a newline. Takes @v. Returns the exit status. */
int sessions_print_json(json_t *v);
/* Exit status after stdout was flushed: a full disk or a closed pipe is 1. */
int sessions_flush(void);
