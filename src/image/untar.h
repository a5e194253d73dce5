/* Layers into one disk: the walk over the tars, on libarchive. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "image/layer.h"

#define UNTAR_ENTRIES_MAX 1000000
#define UNTAR_XATTRS_MAX 64
#define UNTAR_VERSION_MAX 32

struct untar_result {
	uint64_t entries;    /* read, markers counted */
	uint64_t used_bytes; /* of the file system, metadata counted */
	bool has_version;    /* /etc/agent-vm-image-version is there as a regular file */
	uint8_t version[UNTAR_VERSION_MAX];
	size_t n_version; /* its first bytes, as they are */
	uint64_t has;	  /* of enum im_has */
};

struct untar;

/**
 * untar_new() - Begin a disk
 * @l:		Kept; its layers are all read
 * @disk_fd:	Empty regular file, O_RDWR; kept, not closed
 * @disk_bytes:	Size of the file system
 * @epoch:	Time of the root and of lost+found as long as no layer says one
 * @progress:	Called for each entry and each piece of content; may be NULL
 *
 * The process needs a UTF-8 LC_CTYPE: in another libarchive cannot read names in PAX headers.
 *
 * Return: 0, then @ret ends with untar_free(); -errno with @err set
 */
int untar_new(struct layers *l, int disk_fd, uint64_t disk_bytes, int64_t epoch, void (*progress)(void *ctx, const char *name),
	      void *ctx, struct untar **ret, struct err *err);

/**
 * untar_layer() - Read the next layer to its end
 *
 * Return: 0; -EBADMSG: it is broken or holds what an image must not, the text names layer, entry and cause; -ENOSPC; other
 */
int untar_layer(struct untar *u, struct err *err);

/**
 * untar_finish() - Write inodes and folders
 * @diff_ids:	Of all layers that were read, bottom first: the file system's UUID comes from them
 */
int untar_finish(struct untar *u, const char (*diff_ids)[IM_DIGEST + 1], size_t n, struct untar_result *ret, struct err *err);
void untar_free(struct untar *u);
