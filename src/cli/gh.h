/* GitHub's program gh on this host: where its login lies, and how we start it. */
#pragma once

#include "base/str.h"

/* Its folder of settings, whether it is there or not; a variable counts only when it is absolute. NULL: none can be named.
 * Caller owns. */
char *gh_folder(char *(*env)(const char *), const char *home);

/* What it needs beside prog_env(): that folder and no other, the way to the keyring, and no questions. No token of the
 * environment: it answers for the login that it keeps. */
void gh_env(const char *folder, struct strv *ret);
