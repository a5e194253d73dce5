/* Places that were made in the user's git directories so that a guest cannot make them (struct guard.make), and by which
 * sessions they are needed: run/made, one JSON object, version 1:
 *
 *   version, made [{path (path_hex when it is not UTF-8), by [NAME ...]}]
 *
 * Two sessions can guard the same place, and the guard of one is a mount over what the other made; so a place is removed
 * when the last of them has ended, whichever made it, and a reaper does it for those that died. All under the registry's
 * lock. A place that was there before any session is never in the list. */
#pragma once

#include "base/err.h"
#include "session/guard.h"
#include "session/root.h"

#define MADE_FILE "made"

/**
 * made_take() - Make what is missing, and note that @session needs it and what others made
 * @session:	Its name
 *
 * After pre-flight, before the VM. Takes the registry's lock.
 *
 * Return: 0; negative errno with @err set: the launch must stop, and made_drop() cleans up
 */
int made_take(const struct state_root *root, const char *session, const struct guard *g, struct err *err);

/* The session needs nothing any more: remove what no other needs, as far as it is still as it was made. Errors do not
 * matter. made_drop() takes the registry's lock, the other is for who holds it. */
void made_drop(const struct state_root *root, const char *session);
void made_drop_locked(const struct state_root *root, const char *session);
