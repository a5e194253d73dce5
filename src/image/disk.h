/* What names a disk: the content of its layers, its size and the number of the format that wrote it. The launcher computes
 * it to find a disk, the unpacker to give the file system its UUID. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/imagemsg.h"

#define DISK_FORMAT 2		 /* rises when the same layers would give other bytes */
#define DISK_BYTES (16ULL << 30) /* of an ordinary image's file system */

/**
 * disk_key() - Name of the disk that these layers give
 * @bytes:	Size of its file system
 * @diff_ids:	SHA-256 of each uncompressed layer, 64 hex digits, bottom first
 * @ret:	64 hex digits and a NUL
 */
void disk_key(uint64_t bytes, const char (*diff_ids)[IM_DIGEST + 1], size_t n, char ret[IM_DIGEST + 1]);

/* The file system's UUID (version 8 of RFC 9562: free form) and the seed of its folders' hashes, from its key. */
void disk_ids(const char key[IM_DIGEST + 1], uint8_t ret_uuid[16], uint8_t ret_seed[16]);
