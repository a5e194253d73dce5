/* What a source holds, found from the document that its name leads to: index, nested index, manifest, config. */
#pragma once

#include "image/blobs.h"
#include "image/manifest.h"

struct plan {
	char served[IM_DIGEST + 1]; /* of the document that the name leads to */
	char platform[IM_DIGEST + 1];
	struct manifest manifest;
	struct image_config config;
	struct strv names; /* what the source calls it; empty for a registry */
};

/* Where further documents come from. The bytes need no check; caller of get() owns them. 0, negative errno with @err set. */
struct plan_source {
	int (*get)(void *ctx, const struct descriptor *d, const char *what, char **ret, size_t *ret_n, struct err *err);
	void *ctx;
	const char *arch;
	const struct blobs *blobs; /* where the documents are put; NULL: nowhere, and only the digests are found */
};

/**
 * plan_find() - Follow a document to the image for this machine
 * @p, @n:	The document that was served, not yet verified
 * @type:	Its Content-Type, NULL: none
 * @want:	Hex digest that it must have, NULL: any
 *
 * Return: 0, then @ret ends with plan_done(); negative errno with @err set
 */
int plan_find(const struct plan_source *s, const char *p, size_t n, const char *type, const char *want, struct plan *ret,
	      struct err *err);
void plan_done(struct plan *p);
