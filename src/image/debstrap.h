/* What mmdebstrap is told: pure functions over text. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/build.h"

#define DEBSTRAP_SUITE "trixie"

/* Mirrors that the host's apt uses; both are set or neither. */
struct debstrap_mirrors {
	char *main, *security;
};

void debstrap_mirrors_done(struct debstrap_mirrors *m);

/**
 * debstrap_mirrors_parse() - Find Debian's mirrors among what apt knows
 * @text:	Output of apt-get indextargets --format '$(SITE) $(RELEASE)'
 *
 * The first http or https site that ends in /debian and the first that ends in /debian-security. With only one of them, or
 * none, @ret stays empty: mmdebstrap then uses Debian's own for all three suites.
 */
void debstrap_mirrors_parse(const char *text, struct debstrap_mirrors *ret);

/* Where the three suites' Release files are; empty when the mirrors are mmdebstrap's own choice. */
void debstrap_release_urls(const struct debstrap_mirrors *m, struct strv *ret);

/**
 * debstrap_package_check() - Whether a name can be a Debian package
 *
 * Source: Debian policy 5.6.7. Return: 0; -EINVAL with @err set
 */
int debstrap_package_check(const char *name, struct err *err);

/* The command line; the tar comes out of stdout. */
void debstrap_argv(enum build_set set, const struct strv *include, const struct debstrap_mirrors *mirrors,
		   struct strv *ret);
