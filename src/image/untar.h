/* One tar to one root disk. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define UNTAR_HEX 64

struct untar_result {
	char sha256[UNTAR_HEX + 1]; /* of the whole tar stream */
	uint64_t entries;
	uint64_t used_bytes;	/* of the file system, metadata counted */
	bool has_version;	/* /etc/agent-vm-image-version is there as a regular file */
	char version[33];	/* its first bytes, as they are; NUL-terminated */
	bool has_bash;
};

/**
 * untar_to_disk() - Read an uncompressed tar to its end and write an ext4 file system with its content
 * @tar_fd:	Read to its end, so that the checksum covers all
 * @disk_fd:	Empty regular file, O_RDWR
 * @disk_bytes:	Size of the file system
 * @epoch:	Time of what the tar does not date; nothing else depends on the clock
 * @progress:	Called with the bytes of content written so far and the name of the entry at hand; may be NULL
 *
 * Return: 0; -EBADMSG: the tar is broken or holds what an image must not (the text names the entry); -ENOSPC; other
 */
int untar_to_disk(int tar_fd, int disk_fd, uint64_t disk_bytes, int64_t epoch,
		  void (*progress)(void *ctx, uint64_t bytes, const char *name), void *ctx, struct untar_result *ret,
		  struct err *err);
