/* What lies where in the tarball of an npm package: plain files and folders, as `npm publish` makes them. Anything else is
 * refused, so that nothing has to be judged: links, devices, sparse files, GNU's own headers. Pure but for a function that
 * reads at an offset; the tarball is hostile.
 *
 * Rules and limits of image page 4.1, 4.2: names are relative, without "..", NUL, a component over 255 or a path over 4096
 * bytes; right checksums; no size past the end; PAX headers of at most 64 KiB and 256 records; after the end only zeros; at
 * most 65,536 entries. Of two entries of one name the later counts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define NPMTAR_NAME_MAX 4096
#define NPMTAR_ENTRIES_MAX 65536

struct npmtar_entry {
	char *name; /* tidy: no "./", no doubled slash, none at the end */
	bool executable;
	uint64_t at, bytes;
};

struct npmtar {
	struct npmtar_entry *files; /* folders are left out: they have nothing that is used */
	size_t n;
};

/* Reads up to @n bytes at @at; a count, 0 at the end, negative errno. */
typedef ssize_t npmtar_read(void *ctx, uint64_t at, void *p, size_t n);

/**
 * npmtar_index() - Walk a tarball that was decompressed
 * @bytes:	Its length
 *
 * Return: 0, then @ret ends with npmtar_done(); -EBADMSG with the entry's name and the cause in @err; errno of @read
 */
int npmtar_index(npmtar_read *read, void *ctx, uint64_t bytes, struct npmtar *ret, struct err *err);
void npmtar_done(struct npmtar *t);
