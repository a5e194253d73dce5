/* Files by descriptor: opening below a folder without following links, and replacing whole files. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/**
 * file_open_beneath() - Open @path below @dirfd, no link followed anywhere
 * @flags:	open(2) flags; O_CLOEXEC is added
 *
 * The only way in which the host opens anything that a guest can write (design section 7): openat2(2) with
 * RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS. "." opens the folder itself.
 *
 * Return: descriptor that the caller owns, or a negative errno (-ELOOP: a link on the way, -EXDEV: "..")
 */
int file_open_beneath(int dirfd, const char *path, int flags, mode_t mode);

/**
 * file_read_beneath() - Read a regular file of at most @max bytes, no link followed
 *
 * Opens with O_NONBLOCK, so that a FIFO in the file's place cannot hang us.
 *
 * Return: 0; -EINVAL when it is no regular file; -EFBIG; a negative errno of the open or read
 */
int file_read_beneath(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);

/**
 * file_replace_at() - Replace a file whole: ".NAME.new", fsync, rename
 * @name:	One component in @dirfd
 *
 * Readers see the old or the new content; what a crash leaves is overwritten by the next call.
 *
 * Return: 0 or a negative errno
 */
int file_replace_at(int dirfd, const char *name, const void *p, size_t n, mode_t mode);

/* The same without fsync, for what is made anew when the machine has crashed: then the file may be empty. */
int file_replace_unsynced_at(int dirfd, const char *name, const void *p, size_t n, mode_t mode);

/* What a file of the host is known by without reading it; a link is followed. What cannot be looked at is not there. */
struct file_mark {
	bool there;
	uint64_t dev, ino, size;
	int64_t mtime_ns;
};

struct file_mark file_mark(const char *path);
bool file_mark_is(const struct file_mark *a, const struct file_mark *b);

/**
 * dir_open_made() - Open a folder, making it and its missing parents with @mode whatever the umask
 *
 * Links are followed: the path is the user's own.
 *
 * Return: O_RDONLY | O_DIRECTORY descriptor that the caller owns, or a negative errno with @err set
 */
int dir_open_made(const char *path, mode_t mode, struct err *err);

/* Make one folder below @dirfd if it is missing, with @mode whatever the umask. 0 (also when it was there), or -errno. */
int dir_make_at(int dirfd, const char *name, mode_t mode);

/* Bytes on the disk (blocks) of a file or a folder with all below it, as far as it can be read; no link followed. */
uint64_t file_tree_allocated_at(int dirfd, const char *name);

/**
 * dir_open_own() - Open a folder of ours, and give us back the rights to it that a guest can take from its owner
 *
 * Return: descriptor, O_RDONLY and close-on-exec; negative errno: a link (-ENOTDIR) or no folder
 */
int dir_open_own(int dirfd, const char *name);

/**
 * file_remove_tree_at() - Remove a file or a folder with all below it, following no link and crossing no mount
 *
 * Folders below it may be of any depth, and without rights for their owner.
 *
 * Return: 0 (also when it was not there) or the first negative errno; what can be removed is
 */
int file_remove_tree_at(int dirfd, const char *name);

/* The same, for at most @ms or so (0: however long it takes); -ETIME: some of it is left. */
int file_remove_tree_within(int dirfd, const char *name, int64_t ms);
