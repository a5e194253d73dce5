/* The mounts of the VM: before the root disk, the root disk, and the shares of the host. */
#pragma once

#include "base/err.h"
#include "guest/config.h"

/* /proc, /sys and /dev of the boot root, where they are missing; what cannot be mounted shows later. */
void mounts_early(void);

/**
 * mounts_root() - Mount the root disk, give it the file systems that programs expect, and make it "/"
 * @dev:	"/dev/NAME", or the serial number of a virtio block device
 * @bytes:	What of an ext4 disk may be used; 0: all
 * @ret_note:	Heap text for the log, or NULL; caller owns
 *
 * Return: 0 or a negative errno with @err set
 */
int mounts_root(const char *dev, const char *fs, uint64_t bytes, char **ret_note, struct err *err);

/* Binds and shares of @c; afterwards each target is on virtio-fs and the share itself is out of reach. */
int mounts_shares(const struct config *c, struct err *err);

/* Syncs what mounts_shares() mounted, takes it away, and makes the root disk read-only. Nothing runs any more. */
void mounts_end(void);

/* Makes @path and its missing parents, mode 0755. Return: 0 or a negative errno. */
int mounts_make_dir(const char *path);
