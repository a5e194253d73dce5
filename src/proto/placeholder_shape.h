/* What drawing and recognising placeholders share. */
#pragma once

#include "proto/placeholder.h"

/* 32 characters, 5 bits each. None changes in a URL, in JSON or in a header; no l and o beside 1 and 0, which it lacks.
 */
#define PH_ALPHABET "abcdefghijkmnpqrstuvwxyz23456789"

/* What stands before R; returns its length. Not for JWTs. */
int ph_prefix(enum ph_kind kind, char ret[PH_MAX]);
