/* Whether the registry has a newer image than the one that runs: looked for beside a session, told after it. */
#pragma once

#include "image/store.h"

struct update; /* a check under way */

/**
 * update_start() - Begin a check
 * @log_fd:	Its log; borrowed
 *
 * Not for images that were built here, references with a digest, files, and references that were looked at within the
 * last hour. Costs a fork; nothing is waited for.
 *
 * Return: a check that update_finish() ends; NULL when there is nothing to check, or it could not be begun
 */
struct update *update_start(const struct store *s, const struct image *img, const char *image_role, int log_fd);

/**
 * update_finish() - Take the answer if there is one, and end the check in any case; NULL is fine
 *
 * Does not wait. On any doubt (no answer yet, an error) there is no update. An answer or an error is remembered for an
 * hour, so that the registry is asked no more often.
 *
 * Return: a line for the user, without "agent-vm: note: ", which the caller owns; NULL: nothing new, or not known
 */
char *update_finish(struct update *u);
