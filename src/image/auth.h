/* A registry's credentials: from the files that docker and podman keep, and from credential helpers. Files are read once,
 * before the sandbox, for one registry; nothing of them is ever written or logged.
 *
 * A helper is run when a registry asks for a login, which is behind the sandbox, where nothing can be executed. So a process
 * is forked before it that waits for one byte, runs the helper that the file names, and answers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define AUTH_FILE_MAX (1 << 20)
#define AUTH_HELPER_MAX (64 << 10) /* bytes of a helper's answer */
#define AUTH_HELPER_MS 10000

/* Owned; wiped by auth_done(). User and password, or an identity token, or nothing: then all NULL. */
struct auth {
	char *user, *password;
	char *identity; /* a refresh token for the registry's token server */
	char *from;	/* where they were found, for messages: a file or a helper */
	char *fault;	/* why there are none, when there should be some: a line for the user; NULL: nothing is broken */
	int helper;	/* the process that runs the helper when asked; -1: none, or it was asked */
};

#define AUTH_INIT { NULL, NULL, NULL, NULL, NULL, -1 }

/* What one file says about one repository. */
struct auth_entry {
	char *user, *password, *identity;
	char *helper; /* NAME of docker-credential-NAME; then the others are NULL */
	char *server; /* what to ask it */
};

/**
 * auth_lookup() - Search the text of one file
 *
 * Keys: domain/path and its prefixes, longest first (containers-auth.json(5)); the domain with https:// and a tail of an
 * API version (docker); then credHelpers, then credsStore. Empty entries are marks of a store and are passed over.
 *
 * Return: 1 and @ret, to be ended with auth_entry_done(); 0: nothing there; -EBADMSG: no file of that kind
 */
int auth_lookup(const void *p, size_t n, const char *domain, const char *path, struct auth_entry *ret);
void auth_entry_done(struct auth_entry *e);

/* The answer of `docker-credential-NAME get`. 0 or -EBADMSG. */
int auth_helper_answer(const void *p, size_t n, struct auth_entry *ret);

/**
 * auth_load() - Find the credentials for a repository
 * @helpers:	Credential helpers may be asked; without it what only a helper knows is not there
 *
 * Order: $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, $DOCKER_CONFIG/config.json, ~/.docker/config.json;
 * the first that has an entry. A file that is broken is a fault, which matters when a registry wants a login.
 */
void auth_load(const char *domain, const char *path, bool helpers, struct auth *ret);

/**
 * auth_want() - A registry asks for a login: get what a helper has
 *
 * It runs as a program of the host's (prog.h) and has 10 s, in which this blocks; that it has nothing is no fault.
 */
void auth_want(struct auth *a);
void auth_done(struct auth *a);

/* base64 of RFC 4648 section 4 with padding; caller owns, and wipes. */
char *auth_basic(const char *user, const char *password);
