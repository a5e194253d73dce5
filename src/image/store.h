/* The image store, <root>/images: disks made once and never changed, and references that name them.
 *
 *	disks/HEX.ext4		a root file system, 0400; HEX = SHA-256 of what it was made from and of the format's number
 *	disks/HEX.json		what it is: written before the first reference to it
 *	refs/HEX16.json		a reference; HEX16 = the first 16 hex digits of the SHA-256 of its text
 *	default.json		the reference that a local build recorded as default
 *	tmp/			a disk being made; whoever makes it holds an exclusive flock on it
 *	lock			flock: shared while the store is read or added to, exclusive to delete
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/ref.h"

#define IMAGE_REF_MAX REF_MAX
#define IMAGE_REF_DEFAULT "ghcr.io/wirenboard/agent-vm-template:latest"
#define IMAGE_API_MIN 1
#define IMAGE_API_MAX 1
#define IMAGE_HEX 64 /* hex digits of a SHA-256 */
#define IMAGE_SHORT 12 /* digits that a person sees */

struct store {
	int fd;	    /* <root>/images */
	int disks, refs, tmp;
	char *path; /* of fd, for messages and for the monitor */
};

/* An image that can be booted. The descriptor holds a shared flock on the disk: while it is open nobody deletes it. */
struct image {
	char *reference;
	char *disk_path; /* absolute; disk_fd is open on it */
	int disk_fd;
	uint64_t size_bytes;
	uint64_t min_bytes; /* least --disk that its content needs */
	uint32_t api_version;
	struct strv env;    /* NAME=VALUE of the image's config */
	char digest[IMAGE_HEX + 1];
	char digest_short[IMAGE_SHORT + 1];
};

/**
 * store_open() - Open the store below the state root, making what is missing (all folders 0700)
 * @root_fd:	State root
 * @root_path:	Its path, for messages
 *
 * Return: 0, then @ret is closed with store_close(); negative errno with @err set
 */
int store_open(int root_fd, const char *root_path, struct store *ret, struct err *err);
void store_close(struct store *s);

/**
 * store_find() - Find the image to boot
 * @ref:	--image, else AGENT_VM_IMAGE_TAG; NULL or "" for the default: IMAGE_REF_DEFAULT if it is stored, else what a
 *		local build recorded
 *
 * Nothing is believed for being there: JSON is parsed strictly, the disk must be a regular file of the recorded size, and
 * the API version must be one that this launcher supports. One open, two small files, no network.
 *
 * Return: 0, then @ret is done with image_done(); -ENOENT: not stored; -EINVAL: no reference; -EPROTO: API version;
 * -EBADMSG: the store is damaged; each with @err set to a line for the user
 */
int store_find(const struct store *s, const char *ref, struct image *ret, struct err *err);
void image_done(struct image *img);

/* Whether a reference is stored and its disk usable; no message. */
bool store_has(const struct store *s, const char *ref);

/* What a disk is, as its maker knows it. */
struct image_meta {
	const char *reference;
	char key[IMAGE_HEX + 1]; /* names the disk; the same inputs give the same key */
	uint32_t api_version;
	uint64_t min_bytes;
	const struct strv *env;	  /* may be NULL */
	const char *architecture; /* "amd64" */
};

/**
 * store_tmp() - Begin a disk
 * @need_bytes:	Room that the disk and what makes it will need; checked first
 * @ret_name:	Its name in @s->tmp, caller owns
 * @ret_fd:	Empty file, O_RDWR, held with an exclusive flock; caller owns
 *
 * What an earlier maker left without a lock is removed on the way.
 */
int store_tmp(const struct store *s, uint64_t need_bytes, char **ret_name, int *ret_fd, struct err *err);
void store_tmp_drop(const struct store *s, const char *name);

/**
 * store_add() - Put a finished disk into the store under a reference
 * @tmp_name:	From store_tmp(); gone afterwards, on failure too
 * @fd:		Its descriptor
 *
 * Order: fsync of the disk, its JSON, rename, the reference; each replaced whole. Killed anywhere, the reference names a
 * whole disk, the old one or the new one. Disks that no reference names and no session holds are deleted at the end.
 * When the store has the disk of this key already, that one stays and the new one goes.
 *
 * Return: 0 and the digest of the disk that was named before, "" if none; negative errno with @err set
 */
int store_add(const struct store *s, const char *tmp_name, int fd, const struct image_meta *meta,
	      char ret_was[IMAGE_HEX + 1], struct err *err);

/* Record @ref as the default of this store. */
int store_set_default(const struct store *s, const char *ref, struct err *err);
