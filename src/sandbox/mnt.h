/* Mounts by descriptor (open_tree, move_mount, mount_setattr; Linux 5.15 has all of it): no path is looked up twice, no
 * link is followed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define MNT_RO (1 << 0)
#define MNT_EXEC (1 << 1) /* without it: noexec */
#define MNT_DEV (1 << 2)  /* without it: nodev */
#define MNT_DEEP (1 << 3) /* the flags for all mounts below as well */

/**
 * mnt_open() - O_PATH descriptor of a canonical path
 *
 * Return: 0; -ELOOP with @err set when a part of it is a link (somebody has put it there since it was resolved)
 */
int mnt_open(const char *path, int *ret_fd, struct err *err);

/**
 * mnt_clone() - Detached copy of what is at @fd, with all mounts below
 * @flags:	MNT_*; nosuid is always set
 *
 * Flags are only ever added to what the host has set.
 */
int mnt_clone(int fd, uint32_t flags, int *ret_tree);

/* Put a detached tree onto the file or folder behind @fd. */
int mnt_put(int tree, int fd);

/**
 * mnt_bind() - mnt_open(), mnt_clone() and mnt_put() onto @name below @dirfd, which is made if missing
 *
 * @name may have several components; they must not be links. A file goes onto a file, a folder onto a folder.
 */
int mnt_bind(const char *path, int dirfd, const char *name, uint32_t flags, struct err *err);

/* An empty file system of at most @kib KiB. */
int mnt_tmpfs(const char *path, unsigned int kib, unsigned int inodes, mode_t mode, struct err *err);

/* Make @path the root and the old one unreachable. */
int mnt_pivot(const char *path, struct err *err);
