/* Blobs to tar streams: layers are read, checked and decompressed one after the other by a thread of its own, while
 * another thread reads the result. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/imagemsg.h"

#define LAYERS_BYTES_MAX (UINT64_C(64) << 30) /* uncompressed, of all layers together */
#define LAYER_WINDOW_LOG 27		      /* zstd: 128 MiB */

/* A layer as it is announced. */
struct layer_spec {
	int fd; /* a pipe, or a file that may still grow; taken */
	enum im_compression compression; /* what its media type says; the magic bytes decide */
	uint64_t from;			 /* of a file: where the blob begins in it */
	bool sized;			 /* the blob has bytes, and is read only as far as layers_grown() says */
	uint64_t bytes;
	char blob[IM_DIGEST + 1];    /* "": not known */
	char diff_id[IM_DIGEST + 1]; /* "": not known */
};

struct layers;

/* For @n layers of at most @bytes_max uncompressed bytes together. Starts nothing. */
struct layers *layers_new(unsigned int n, uint64_t bytes_max);

/* Start the thread. 0 or -errno. */
int layers_start(struct layers *l);

/* Ends the thread and frees. */
void layers_free(struct layers *l);

/**
 * layers_add() - A layer is there; from any thread
 *
 * Return: 0; -EBADMSG with @err set: no such layer, or it was there already, or its descriptor is neither file nor pipe;
 * the descriptor is closed then
 */
int layers_add(struct layers *l, unsigned int i, const struct layer_spec *spec, struct err *err);

/* So many bytes of its blob may be read now; from any thread. -EBADMSG: unknown, fewer than before, more than it has. */
int layers_grown(struct layers *l, unsigned int i, uint64_t bytes, struct err *err);

/**
 * layers_read() - The next bytes of the tar at hand; layers come bottom first
 * @ret:	Borrowed until the next call
 *
 * Return: length; 0: the layer has ended and held what its digests say, the next call begins the next layer; -EBADMSG: the
 * blob is not what it should be; another negative errno; @err set
 */
ssize_t layers_read(struct layers *l, const uint8_t **ret, struct err *err);

struct layer_end {
	char diff_id[IM_DIGEST + 1];
	uint64_t bytes; /* uncompressed */
};

/* Of the layer that ended last. */
const struct layer_end *layers_ended(const struct layers *l);

/* Bytes of tar that may still come before there are too many. */
uint64_t layers_left(const struct layers *l);

/* Bytes of the blob behind what layers_read() returned last. */
uint64_t layers_consumed(const struct layers *l);
/* The layer that layers_read() reads, for messages: "layer 2 (9f2c41d0aa17)"; borrowed until the next layer. */
const char *layers_name(const struct layers *l);
