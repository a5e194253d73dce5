/* The overlay disk of a session: a qcow2 file that holds what the guest writes, on top of an image's ext4 file. */
#pragma once

#include <stdint.h>

#include "base/err.h"

#define QCOW2_BACKING_MAX 1023 /* bytes; the format's own bound */
#define QCOW2_SIZE_MAX (64ULL << 40) /* 64 TiB; far above any --disk, and the L1 table stays at 1 MiB */

/**
 * qcow2_create() - Make an empty overlay, mode 0600
 * @dirfd:	Folder to make it in
 * @name:	Its name there, one component; it must not exist yet
 * @size_bytes:	Size of the guest's disk, a multiple of 512; may be larger than the backing file, the rest reads as zeros
 * @backing_name: Name of the raw backing file as it is written into the header; a relative one is looked up beside the
 *		overlay by who opens it. It need not exist here
 *
 * Not synced: an overlay is thrown away with its session.
 *
 * Return: 0; -EINVAL for a size or name out of range; -EEXIST; another negative errno, then nothing is left behind
 */
int qcow2_create(int dirfd, const char *name, uint64_t size_bytes, const char *backing_name, struct err *err);
