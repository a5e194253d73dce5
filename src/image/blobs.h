/* Blobs of the store: blobs/sha256/HEX is complete and verified or not there; partial/HEX is a download under way, which
 * its maker holds an exclusive flock on.
 *
 * A blob is hashed while it is written, and what is there already is hashed before it is used: what an earlier try left, and
 * what is complete, for a disk can damage it. It becomes visible by fsync and rename. A file that somebody reads while it grows never shrinks: starting over rewrites it in
 * place. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/manifest.h"

struct blobs {
	int dir, partial;
};

/* Open below <root>/images, making what is missing; blobs_close() ends it. */
int blobs_open(int store_fd, struct blobs *ret, struct err *err);
void blobs_close(struct blobs *b);

/**
 * blobs_have() - Open a complete blob
 *
 * One of another size is damage: it is deleted.
 *
 * Return: read-only descriptor, caller owns; -ENOENT; another negative errno
 */
int blobs_have(const struct blobs *b, const struct descriptor *d);

/* How far a download is, whoever makes it; 0 when there is none. */
uint64_t blobs_under_way(const struct blobs *b, const struct descriptor *d);

struct blob; /* one that is being written, or checked */

/**
 * blob_begin() - Take up or begin a download, or begin to check what is complete
 * @b:	kept
 *
 * Return: 0 and @ret, then blob_check() until it is through; -EAGAIN: another process is at it, try again in a while;
 * another negative errno with @err set
 */
int blob_begin(const struct blobs *b, const struct descriptor *d, struct blob **ret, struct err *err);

/**
 * blob_check() - Hash some more of what was there when it was begun
 *
 * Return: 1: that is all, blob_pos() bytes; 0: there is more; negative errno with @err set
 */
int blob_check(struct blob *b, uint64_t most, struct err *err);

/* Whether it was complete when it was begun: then only blob_finish() follows. */
bool blob_is_stored(const struct blob *b);

/**
 * blob_begin_tarball() - Take up or begin the download of a package
 * @sha512:	That it must have
 *
 * It stays in partial/, by the hex digits of that digest, when it is finished: it is turned into a layer and then deleted
 * by who wanted it. A finished one is taken up like any other.
 *
 * Return: 0 and @ret; -EAGAIN; another negative errno; @err set
 */
int blob_begin_tarball(const struct blobs *b, const uint8_t sha512[64], uint64_t bytes, struct blob **ret, struct err *err);

/* Give it up; what was loaded stays for the next. */
void blob_close(struct blob *b);

uint64_t blob_pos(const struct blob *b);
uint64_t blob_size(const struct blob *b);
const char *blob_hex(const struct blob *b);

/* The file, read-only and growing; caller owns. */
int blob_reader(const struct blob *b, struct err *err);

/* Append. -EBADMSG past the size: nothing is written and the file is gone; -ENOSPC and the like; @err set. */
int blob_write(struct blob *b, const void *p, size_t n, struct err *err);

/* Refuse it for what the server announced: the file is deleted. -EBADMSG with @err set. */
int blob_refuse(struct blob *b, const char *got, struct err *err);

/* Start over at the first byte. */
void blob_rewind(struct blob *b);

/**
 * blob_finish() - Verify it and put it among the complete ones
 *
 * The caller closes it in any case.
 *
 * Return: 0; -EBADMSG: too short or another digest, the file is gone; -ESTALE: one that was complete is damaged and gone,
 * begin again; another negative errno; @err set
 */
int blob_finish(struct blob *b, struct err *err);

/* Put bytes of a document; waits for another process that writes the same one. */
int blobs_put(const struct blobs *b, const void *p, size_t n, char ret_hex[IM_DIGEST + 1], struct err *err);

/* Read and verify a document. -ENOENT, -EBADMSG (then it is deleted). Caller owns @ret. */
int blobs_read(const struct blobs *b, const struct descriptor *d, char **ret, struct err *err);

void sha256_hex(const void *p, size_t n, char ret[IM_DIGEST + 1]);
