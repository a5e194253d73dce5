/* Paths and queries of GitHub's hosts as the rules read them. A path is always forwarded as it came; what is asked here
 * is what it means, strictly where something is to be allowed and in every way that a server might read it where
 * something is to be refused. */
#pragma once

#include "agents/providers.h"
#include "gate/policy/github/scope.h"

/* Which repository a path is about. */
enum gh_place_kind {
	GH_NOWHERE, /* none */
	GH_BY_NAME,
	GH_BY_ID,
	GH_ODD, /* where the name stands are bytes that no name has, or that would need decoding */
};

struct gh_place {
	enum gh_place_kind kind;
	struct gh_slug slug; /* without ".git" and ".wiki" where the host takes them off */
	uint64_t id;	     /* 0: written as no number is */
	bool wiki;
	struct span tail; /* what follows, without the "/" in front */
};

void gh_place(enum prov_host_id host, struct span path, struct gh_place *ret);
/* The listed repository at a place, whatever its wiki's switch says; NULL. */
const struct gh_repo *gh_place_repo(const struct gh_scope *s, const struct gh_place *p);

/**
 * gh_match() - Does a tail fit a pattern?
 *
 * "N" is digits, "*" any one segment, a "**" at the end any rest with its "/": "labels/" and two stars takes "labels",
 * too. Byte by byte, as written, but for one "/" at the end of the tail.
 */
bool gh_match(const char *pattern, struct span tail);

/* May a server read it so? Also decoded, in any case of letters, with "\" for "/", and with what
 * could be a format or parameters behind a segment (".json", ";x"). "N" is any segment here. */
bool gh_match_loosely(const char *pattern, struct span tail);

/* The path of a file that is in .github/workflows, or may be to whoever reads it otherwise; or that stands in place of
 * one of these folders. */
bool gh_is_workflow(struct span path);

/**
 * gh_query() - The value of a key that a rule reads
 * @ret:	As it came, not decoded
 *
 * Return: 1; 0 if there is none; -EBADMSG when it stands there twice, or in a form that Rack would read as the key, too
 * ("q[]", "[q]", coded letters, behind ";")
 */
int gh_query(struct span query, const char *key, struct span *ret);

/* A form value: "+" is a space, %XX its byte. How many bytes, -EBADMSG for a lone "%", -ENOBUFS. */
ssize_t gh_form_decode(struct span value, uint8_t *out, size_t size);
