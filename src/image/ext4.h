/* Writes one ext4 file system into a file, from nothing to clean, without mounting and without root. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define EXT4_BLOCK 4096U
#define EXT4_ROOT 2U /* inode number of the root folder */

struct ext4; /* being written */

struct ext4_attr {
	mode_t mode; /* with the kind */
	uint32_t uid, gid;
	int64_t mtime; /* seconds; also atime, ctime and crtime */
	uint32_t mtime_ns;
};

struct ext4_dirent {
	const char *name; /* 1..255 bytes without '/' */
	uint32_t ino;
	mode_t mode; /* the kind counts */
};

/**
 * ext4_new() - Begin a file system
 * @fd:		Empty regular file, O_RDWR; kept, not closed
 * @bytes:	Size; the file becomes that long and stays sparse
 * @epoch:	Time of everything that the file system itself dates
 *
 * Return: 0; caller ends with ext4_finish() or ext4_free()
 */
int ext4_new(int fd, uint64_t bytes, int64_t epoch, struct ext4 **ret, struct err *err);
void ext4_free(struct ext4 *e);

/* The number for the next inode. */
int ext4_ino(struct ext4 *e, mode_t mode, uint32_t *ret, struct err *err);

/* A regular file of @size bytes: begin, data at ascending offsets (what is left out reads as zeros), end. */
int ext4_file_begin(struct ext4 *e, uint64_t size, struct err *err);
int ext4_file_data(struct ext4 *e, uint64_t off, const void *p, size_t n, struct err *err);
int ext4_file_end(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, struct err *err);

int ext4_symlink(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, const char *target, struct err *err);
/* Device, FIFO or (with a mode that says so) an empty file. */
int ext4_special(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, dev_t dev, struct err *err);

/* One name more for a file that is not a folder. */
int ext4_link(struct ext4 *e, uint32_t ino, struct err *err);

int ext4_xattr(struct ext4 *e, uint32_t ino, const char *name, const void *p, size_t n, struct err *err);

/**
 * ext4_dir() - Write a folder whole
 * @parent:	Inode of its parent, its own for the root
 * @ents:	Its names without "." and "..", in the order they shall stand
 *
 * Also the root's; lost+found is added by the writer.
 */
int ext4_dir(struct ext4 *e, uint32_t ino, uint32_t parent, const struct ext4_attr *a, const struct ext4_dirent *ents,
	     size_t n, struct err *err);

/**
 * ext4_finish() - Write bitmaps, tables and superblocks
 * @ret_used:	Bytes of blocks in use, metadata counted
 *
 * @e is freed on success. The file is not synced.
 */
int ext4_finish(struct ext4 *e, uint64_t *ret_used, struct err *err);
