/* Seccomp by tables: a role is a list of rows and an answer for what no row names. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum seccomp_do { SECCOMP_ALLOW, SECCOMP_EPERM, SECCOMP_ENOSYS, SECCOMP_KILL };

/* A condition on one argument: (argument & mask) == value, or != where @unequal. Row without one: mask 0. */
struct seccomp_row {
	const char *name; /* system call; one that this libseccomp or this machine does not know is passed over */
	enum seccomp_do what;
	unsigned int arg;
	uint64_t mask, value;
	int unequal;
};

struct seccomp_table {
	const char *role;
	enum seccomp_do otherwise;
	const struct seccomp_row *rows;
	size_t n_rows;
};

/**
 * seccomp_apply() - Build and load the filter, for all threads of the process
 * @extra:	Rows whose values are known at run time only, may be NULL
 *
 * Sets no-new-privs. Nothing is logged by the kernel. Other architectures' system calls kill.
 *
 * Return: 0; negative errno with @err set
 */
int seccomp_apply(const struct seccomp_table *table, const struct seccomp_row *extra, size_t n_extra, struct err *err);
