/* Names and metadata of npm packages. Pure: bytes in, strings or an error out; all of it may come from a registry, which is
 * hostile. Nothing of npm is needed on the host, and nothing of a package is run. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NPM_SHA512 64

/**
 * npm_spec_parse() - Take "NAME@VERSION" or "@SCOPE/NAME@VERSION" apart
 *
 * Source: npm's package name rules (validate-npm-package-name): lower case, at most 214 bytes; a version or a tag.
 *
 * Return: 0 and two strings that the caller owns; -EINVAL
 */
int npm_spec_parse(const char *spec, char **ret_name, char **ret_version);

/* Metadata of one version: REGISTRY/NAME/VERSION with the name's slash as %2f. Caller owns. */
char *npm_url(const char *registry, const char *name, const char *version);

/* The bytes of the sha512 among the hashes of an "integrity" member; -EINVAL: none or no base64. */
int npm_integrity_parse(const char *text, uint8_t ret[NPM_SHA512]);
/* The same as text in its one form; caller owns. */
char *npm_integrity_text(const uint8_t sha512[NPM_SHA512]);

struct npm_version {
	char *name, *version, *tarball;
	uint8_t sha512[NPM_SHA512];
};

/**
 * npm_metadata_parse() - Read the metadata of one version
 * @registry:	Where it came from: a tarball is loaded from the same place, or by https
 *
 * Return: 0, then @ret ends with npm_version_done(); -EBADMSG with @err set
 */
int npm_metadata_parse(const char *p, size_t n, const char *registry, struct npm_version *ret, struct err *err);
void npm_version_done(struct npm_version *v);

/**
 * npm_dependency() - What an optional dependency of a package is
 * @dependency:	Its key; the value is a version, or "npm:NAME@VERSION" for another package
 *
 * Return: 0 and two strings that the caller owns; -EBADMSG with @err set
 */
int npm_dependency(const char *p, size_t n, const char *dependency, char **ret_name, char **ret_version, struct err *err);
