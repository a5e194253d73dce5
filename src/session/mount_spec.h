/* --mount HOST[:GUEST][:ro|:rw]: the grammar, the folder that is meant, and how several of them and the project fit
 * together (command line page, section 8.3).
 *
 * A last part "ro" or "rw" is the mode; of what is left the first ':' that is not written "\:" divides. White space around
 * a side is trimmed. A backslash before anything but ':' is an ordinary byte. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "session/finding.h"

#define MOUNTS_MAX 64

/* What was typed, taken apart; nothing looked up yet. */
struct mount_spec {
	char *typed;
	char *host;  /* never empty */
	char *guest; /* NULL: not given */
	bool ro;
};

/* A mount that can be made. */
struct mount {
	char *typed;
	char *host;  /* canonical */
	char *guest; /* absolute, tidy */
	bool ro;
	size_t word; /* the caller's: which --mount it was, for findings_blame() */
};

void mount_spec_done(struct mount_spec *m);
void mount_done(struct mount *m);

/**
 * mount_spec_parse() - Take one value apart
 * @typed:	The value of --mount
 *
 * Return: 0; -EINVAL with a FINDING_TYPED in @found, then @ret is untouched
 */
int mount_spec_parse(const char *typed, struct mount_spec *ret, struct findings *found);

/**
 * mount_resolve() - Find the folder and the guest path that are meant
 * @cwd:	Absolute; HOST may be relative to it
 * @home:	For "~" and "~/"; NULL: there is none
 *
 * GUEST defaults to HOST made absolute and tidied, links unresolved. Looks at the host; changes nothing.
 *
 * Return: 0; a negative errno with one finding in @found (WORLD: missing, no folder, unreadable; TYPED: a guest path that
 * cannot be), then @ret is untouched
 */
int mount_resolve(const struct mount_spec *spec, const char *cwd, const char *home, struct mount *ret,
		  struct findings *found);

/**
 * mounts_check() - Look at them together: number, and guest paths that meet
 * @project_guest:	Guest path of the project
 *
 * One finding for each that is wrong.
 */
void mounts_check(const struct mount *v, size_t n, const char *project_guest, struct findings *found);
