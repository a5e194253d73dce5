/* Names of images (image page 2). */
#pragma once

#include <stdbool.h>

#include "base/err.h"

#define REF_MAX 4096
#define REF_NAME_MAX 255
#define REF_HUB "docker.io"

/* A reference in parts, each owned. */
struct ref {
	char *domain; /* host [":" port]; Docker Hub: REF_HUB */
	char *path;   /* repository: with "library/" where Docker Hub has it */
	char *tag;    /* NULL only when there is a digest */
	char *digest; /* "sha256:" and 64 hex digits; NULL: none. It decides, the tag is for display */
};

/**
 * ref_parse() - Check a reference and take it apart
 *
 *	[domain "/"] path [":" tag] ["@sha256:" 64 hex]; without a domain it is Docker Hub's, without tag and digest :latest
 *
 * Return: 0, then @ret is done with ref_done(); -EINVAL with @err saying what is wrong, and the corrected form where there
 * is an obvious one
 */
int ref_parse(const char *text, struct ref *ret, struct err *err);
void ref_done(struct ref *r);

/* The full form; caller owns. */
char *ref_full(const struct ref *r);

/* Whom to ask: the domain, but Docker Hub's API answers under a name of its own. Borrowed from @r or static. */
const char *ref_api_host(const struct ref *r);

/* Whether @s is "sha256:" and 64 hex digits in lower case. */
bool ref_digest_is_good(const char *s);

/* Whether @s can be a tag. */
bool ref_tag_is_good(const char *s);

/* ref_parse() and ref_full(): 0 and a string that the caller owns; -EINVAL with @err set. */
int ref_normalise(const char *text, char **ret, struct err *err);
