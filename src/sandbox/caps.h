/* Capabilities: keep exactly a set, everywhere. */
#pragma once

#include <stdint.h>

#include "base/err.h"

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

/**
 * caps_keep() - Give up every capability that is not in @keep
 * @keep:	CAP_BIT()s; what the process does not have now stays away
 *
 * Permitted and effective become their part of @keep, so does the bounding set where it may be changed; inheritable and
 * ambient become empty. With an empty bounding set a later exec by root gains nothing.
 *
 * Return: 0; negative errno with @err set
 */
int caps_keep(uint64_t keep, struct err *err);

/* What is effective now. */
int caps_effective(uint64_t *ret);
