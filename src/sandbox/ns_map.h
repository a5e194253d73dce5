/* The id maps of a new user namespace (see ns.h for who gets which). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/**
 * ns_map_ids() - Write the maps of the user namespace of @pid, our child
 * @ret_many:	More than the caller's own id is mapped
 *
 * Return: 0; negative errno with @err set
 */
int ns_map_ids(pid_t pid, bool *ret_many, struct err *err);

struct ns_range {
	uint32_t first, count;
};

/**
 * ns_subid_find() - Find the first usable range of a user in the text of /etc/subuid or /etc/subgid
 * @name:	Login name, may be NULL
 *
 * Return: 0; -ENOENT when there is none
 */
int ns_subid_find(const char *text, const char *name, uid_t uid, struct ns_range *ret);

#define NS_SUBIDS_GIVEN 65536 /* as useradd gives */
/* The first of NS_SUBIDS_GIVEN ids behind all ranges in such a text; -ENOSPC when there are not so many behind them. */
int ns_subid_free(const char *text, uint32_t *ret);
