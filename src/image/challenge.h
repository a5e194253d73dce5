/* WWW-Authenticate (RFC 9110 section 11): what a registry asks for. Pure. */
#pragma once

#include <stddef.h>

#define CHALLENGES_MAX 8       /* in one header value */
#define CHALLENGE_VALUE_MAX 8192 /* bytes of a header value; realms and scopes are a few hundred */

enum challenge_scheme { CHALLENGE_OTHER, CHALLENGE_BASIC, CHALLENGE_BEARER };

/* Strings are owned, unquoted, NULL when absent. */
struct challenge {
	enum challenge_scheme scheme;
	char *realm, *service, *scope, *error;
};

/**
 * challenge_parse() - Take one header value apart
 * @ret:	Room for CHALLENGES_MAX
 *
 * Schemes and names in any case; values are tokens or quoted strings with escapes; commas separate challenges as well as
 * parameters. A parameter that comes twice makes its challenge bad, as does a control byte in a value: they would be read
 * differently by others.
 *
 * Return: count, each to be ended with challenge_done(); -EBADMSG, then @ret holds nothing
 */
int challenge_parse(const char *value, size_t n, struct challenge ret[CHALLENGES_MAX]);
void challenge_done(struct challenge *c);
