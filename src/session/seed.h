/* The seed of a project's placeholders: sessions that overlap in time have one set, since they share the agents' files,
 * and the next session has another (command line page, section 6.3). It is no secret and lies host-only, in
 * run/projects/<hash> beside the names of the sessions that use it. */
#pragma once

#include <stdint.h>

#include "session/session.h"

#define SEED_BYTES 32

/**
 * seed_take() - The seed for this session: that of another live one of the project, else a new one
 *
 * Return: 0; negative errno with @err set
 */
int seed_take(const struct session *s, uint8_t ret[SEED_BYTES], struct err *err);

/* This session needs it no more; with the last one it is forgotten. Errors are not told: a seed whose sessions are gone
 * is not taken. */
void seed_drop(const struct session *s);
