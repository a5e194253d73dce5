/* Writes one ext4 file system into a file, from nothing to clean, without mounting and without root. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define EXT4_BLOCK 4096U
#define EXT4_ROOT 2U	    /* inode number of the root folder */
#define EXT4_LOST_FOUND 11U /* of lost+found */
#define EXT4_FIRST_INO 12U  /* of the caller's files; they are given upwards without gaps */

struct ext4; /* being written */

/* Blocks of a file that lie one after the other. */
struct ext4_run {
	uint64_t blk;  /* in the file system */
	uint32_t lblk; /* in the file */
	uint32_t n;
};

struct ext4_xattr {
	char *name; /* "user.x" */
	uint8_t *value;
	size_t n;
};

/* What a file is. Its memory is its owner's: ext4_inode_done(). */
struct ext4_inode {
	mode_t mode; /* with the kind */
	uint32_t uid, gid;
	int64_t mtime; /* seconds; also atime, ctime and crtime. Clamped to 1901-12-13 .. 2446-05-10 */
	uint32_t mtime_ns;
	uint32_t major, minor; /* of a device; below EXT4_MAJORS, EXT4_MINORS */
	char *target;	       /* of a symbolic link, 1..4095 bytes */
	uint64_t size;	       /* of a regular file */
	struct ext4_run *runs; /* its blocks, filled by ext4_data(); what they leave out are holes */
	size_t n_runs, size_runs;
	struct ext4_xattr *xattrs;
	size_t n_xattrs;
};

#define EXT4_MAJORS 4096U
#define EXT4_MINORS 1048576U
#define EXT4_FILE_MAX ((1ULL << 32) * EXT4_BLOCK - EXT4_BLOCK) /* bytes of a file */

void ext4_inode_done(struct ext4_inode *x);

/**
 * ext4_new() - Begin a file system
 * @fd:		Empty regular file, O_RDWR; kept, not closed
 * @bytes:	Size; the file becomes that long and stays sparse
 *
 * Return: 0; caller ends with ext4_finish() or ext4_free()
 */
int ext4_new(int fd, uint64_t bytes, struct ext4 **ret, struct err *err);
void ext4_free(struct ext4 *e);

/**
 * ext4_data_begin() - Begin the content of a regular file; its size is set
 * @x:		Kept until ext4_data_end(); has no blocks yet
 */
void ext4_data_begin(struct ext4 *e, struct ext4_inode *x);

/**
 * ext4_data() - Content at ascending offsets; what is left out reads as zeros
 *
 * Return: 0; -EBADMSG: past the file's end or back; -ENOSPC; -errno
 */
int ext4_data(struct ext4 *e, uint64_t off, const void *p, size_t n, struct err *err);
int ext4_data_end(struct ext4 *e, struct err *err);

/* The first @n bytes of a file that was written, zeros where it ends before. */
int ext4_peek(struct ext4 *e, const struct ext4_inode *x, void *ret, size_t n, struct err *err);

/* Give a file's blocks back, zeroed. A failure of that shows in ext4_finish(). */
void ext4_release(struct ext4 *e, struct ext4_inode *x);

/* Write an inode that is no folder, and its attributes. @n_names: hard links to it. */
int ext4_inode(struct ext4 *e, uint32_t ino, const struct ext4_inode *x, uint32_t n_names, struct err *err);

struct ext4_dirent {
	const char *name; /* 1..255 bytes without '/' */
	uint32_t ino;
	mode_t mode; /* the kind counts */
};

/**
 * ext4_dir() - Write a folder whole
 * @parent:	Inode of its parent, its own for the root
 * @ents:	Its names without "." and "..", in the order they shall stand; among the root's is lost+found
 */
int ext4_dir(struct ext4 *e, uint32_t ino, uint32_t parent, const struct ext4_inode *x, const struct ext4_dirent *ents,
	     size_t n, struct err *err);

/**
 * ext4_finish() - Write bitmaps, tables and superblocks
 * @uuid, @hash_seed: Of the file system
 * @ret_used:	Bytes of blocks in use, metadata counted
 *
 * @e is freed on success. The file is not synced.
 */
int ext4_finish(struct ext4 *e, const uint8_t uuid[16], const uint8_t hash_seed[16], uint64_t *ret_used, struct err *err);
