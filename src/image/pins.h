/* The agents' programs: which npm packages, in which version with which content, and what of them goes where in an image.
 * From images/agents.lock, which is part of the program. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct pin {
	char *program;	  /* "codex" */
	char *umbrella;	  /* package whose "latest" is asked */
	char *dependency; /* its optional dependency for this platform; NULL: the umbrella itself */
	char *package, *version;
	char *integrity;  /* "sha512-..." */
	uint64_t bytes;	  /* of the tarball */
	struct strv rules; /* see pack.h; %v, once in a rule, is the version */
};

extern const char pins_lock[]; /* images/agents.lock */

/**
 * pins_find() - The pin of a program
 * @lock:	Text of a lock file
 * @arch:	GOARCH name
 *
 * Return: 0, then @ret ends with pin_done(); -ENOENT: none for this platform; -EBADMSG; @err set
 */
int pins_find(const char *lock, const char *program, const char *arch, struct pin *ret, struct err *err);
void pin_done(struct pin *p);

/**
 * pins_registry() - The npm registry to ask
 *
 * npm_config_registry, the "registry" line of the user's .npmrc, npm's default. No other line of that file is looked at, and
 * nothing of it but this address ever leaves the launcher.
 *
 * Return: 0 and an address without a slash at its end, caller owns; -EINVAL with @err set
 */
int pins_registry(char **ret, struct err *err);

/* The last "registry" line of an .npmrc; caller owns. NULL: none. */
char *npmrc_registry(const char *text);
