/* Names of images (image page 2). */
#pragma once

#include "base/err.h"

#define REF_MAX 4096
#define REF_NAME_MAX 255

/**
 * ref_normalise() - Check a reference and bring it to its full form
 *
 *	[domain "/"] path [":" tag] ["@sha256:" 64 hex]; without a domain it is Docker Hub's, without tag and digest :latest
 *
 * Return: 0 and a string that the caller owns; -EINVAL with @err saying what is wrong
 */
int ref_normalise(const char *ref, char **ret, struct err *err);
