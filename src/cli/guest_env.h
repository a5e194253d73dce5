/* The environment of everything that runs in the guest (spec/cli.md section 10.1). */
#pragma once

#include "base/str.h"

struct guest_env_args {
	const struct strv *image;  /* NAME=VALUE of the image's config; borrowed */
	const struct strv *logins; /* NAME=PLACEHOLDER of ours; borrowed */
	const struct strv *user;   /* NAME=VALUE of --env; borrowed */
	const struct strv *typed;  /* NAME=PLACEHOLDER in place of an --env; borrowed */
	const char *ca;		   /* the file that NODE_EXTRA_CA_CERTS names; NULL: no certificate of ours is in the guest */
	const char *session;      /* its name */
	const char *project;      /* guest path */
};

/* Image < ours < --env; a later name replaces an earlier one in its place. Only what neither the image nor the user has set is
 * said of certificates. TERM is not among them: it belongs to a PTY. */
void guest_env(const struct guest_env_args *args, struct strv *ret);

/* Looks like a secret by its name: such --env variables are shown as "(in clear)". */
bool env_name_is_secretive(const char *name, size_t n);
