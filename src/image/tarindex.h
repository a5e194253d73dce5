/* What lies where in a tar archive that holds an image (docker save, oci-archive): names with their places, no content.
 * Pure but for a function that reads at an offset. The archive is hostile: nothing is unpacked by name. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define TAR_NAME_MAX 4096
#define TAR_ENTRIES_MAX 65536

struct tar_entry {
	char *name; /* without leading "./" */
	char *link; /* of a link: where it leads, from the root; NULL: a file */
	uint64_t at, bytes;
};

struct tar_index {
	struct tar_entry *entries; /* files and links only, in order */
	size_t n;
};

/* Reads up to @n bytes at @at; a count, 0 at the end, negative errno. */
typedef ssize_t tar_read(void *ctx, uint64_t at, void *p, size_t n);

/**
 * tar_index_build() - Walk an archive
 * @bytes:	Its length: no entry may run past it
 *
 * ustar, GNU long names, PAX path, linkpath and size (POSIX.1-2017 pax). -EBADMSG when it is none or broken.
 */
int tar_index_build(tar_read *read, void *ctx, uint64_t bytes, struct tar_index *ret, struct err *err);
void tar_index_done(struct tar_index *t);

/* The file that a name leads to, following links; of several the last, as unpacking would have it. NULL if there is none. */
const struct tar_entry *tar_find(const struct tar_index *t, const char *name);
