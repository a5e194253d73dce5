/* What a registry says an image consists of: index, manifest, config (OCI image-spec 1.1, Docker schema 2). Pure: bytes in,
 * structures or an error out. Everything in them is hostile. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/imagemsg.h"

#define MANIFEST_MAX (4 << 20) /* bytes of an index, manifest or config: the limit that registries keep themselves */
#define MANIFEST_ENTRIES_MAX 1024 /* of an index */

/* The Accept header's value: one header that names all four, or a registry says that it has no such manifest. */
extern const char manifest_accept[];

enum manifest_kind { MANIFEST_UNKNOWN, MANIFEST_INDEX, MANIFEST_IMAGE };

struct descriptor {
	char hex[IM_DIGEST + 1];
	uint64_t bytes;
};

struct manifest_layer {
	struct descriptor blob;
	enum im_compression compression;
};

struct manifest {
	struct descriptor config;
	struct manifest_layer *layers; /* bottom first */
	size_t n_layers;	       /* 1..IM_LAYERS_MAX */
};

struct image_config {
	char (*diff_ids)[IM_DIGEST + 1]; /* as many as layers */
	size_t n_diff_ids;
	struct strv env; /* NAME=VALUE as it is, unescaped */
	char *user;	 /* NULL: none */
};

/* Whether @s is "sha256:" and 64 hex digits; then @ret gets the digits. */
int digest_parse(const char *s, char ret[IM_DIGEST + 1]);

/**
 * manifest_kind() - Decide what a document is
 * @type:	Content-Type or the descriptor's mediaType, parameters allowed; NULL: not known
 *
 * The header decides; the body's own mediaType must not contradict it. A header that says nothing (JSON, text) leaves it
 * to the members "manifests" and "layers". A document with both is refused: two readers would see two images.
 *
 * Return: 0 and the kind; -EBADMSG; -EPROTONOSUPPORT: a type that is no image (schema 1, artifacts), named in @err
 */
int manifest_kind(const void *p, size_t n, const char *type, enum manifest_kind *ret, struct err *err);

/* Whether no registry serves such a document: no JSON object, or of a type that is no manifest's. */
bool manifest_is_foreign(const void *p, size_t n, const char *type);

/**
 * index_pick() - Choose the entry for a platform
 * @arch:	GOARCH name; arm64 also takes variant v8
 * @ret_kind:	What the entry says it is; MANIFEST_INDEX: nested
 *
 * The first entry as written; attestations (platform "unknown") are passed over. A lone entry without a platform is taken:
 * the config decides. Nothing fits: -ENOEXEC with the platforms offered in @err.
 */
int index_pick(const void *p, size_t n, const char *arch, struct descriptor *ret, enum manifest_kind *ret_kind,
	       struct err *err);

/* Caller ends @ret with manifest_done(). -EBADMSG, -EPROTONOSUPPORT (a layer or config type by name, foreign layers). */
int manifest_parse(const void *p, size_t n, struct manifest *ret, struct err *err);
void manifest_done(struct manifest *m);

/**
 * config_parse() - Read the image's config
 * @arch:	What it must be for, with os linux; else -ENOEXEC
 * @n_layers:	What the count of diff_ids must be
 *
 * Caller ends @ret with config_done().
 */
int config_parse(const void *p, size_t n, const char *arch, size_t n_layers, struct image_config *ret, struct err *err);
void config_done(struct image_config *c);

/* An entry of the index.json of a layout: what it is called and where it is. */
struct layout_entry {
	char *name; /* io.containerd.image.name as people write it, else the tag; NULL: none */
	char *tag;  /* org.opencontainers.image.ref.name, which is the whole name where nothing else is; NULL: none */
	struct descriptor desc;
};

/* All entries of a layout's index.json, at most MANIFEST_ENTRIES_MAX; caller ends them with layout_entries_done(). */
int layout_entries(const void *p, size_t n, struct layout_entry **ret, size_t *ret_n, struct err *err);
void layout_entries_done(struct layout_entry *e, size_t n);

/* The manifest.json of `docker save`. */
struct saved_image {
	char *config;	    /* name of an archive entry */
	struct strv layers; /* the same, bottom first */
	struct strv names;  /* RepoTags */
};

int saved_images(const void *p, size_t n, struct saved_image **ret, size_t *ret_n, struct err *err);
void saved_images_done(struct saved_image *s, size_t n);
