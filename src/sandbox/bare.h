/* The walls of a role that reads hostile bytes and needs nothing of the host: wire and gate. */
#pragma once

#include "sandbox/seccomp.h"

/**
 * sandbox_bare() - No new privileges, no files, no capabilities, no children, no core, and the calls of @table alone
 *
 * What is open stays so. A kernel without Landlock is no failure: the calls that open are not in the table. (The log may be
 * a file, so files may grow.)
 *
 * Return: 0; negative errno with @err set
 */
int sandbox_bare(const struct seccomp_table *table, struct err *err);
