/* Where an image comes from other than a registry: an OCI layout in a folder or an archive, `docker save`, standard input.
 * All of it is hostile: names only choose among what is there, and every byte is hashed against a digest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/plan.h"
#include "image/ref.h"
#include "image/tarindex.h"

enum source_kind { SOURCE_REGISTRY, SOURCE_OCI_DIR, SOURCE_OCI_ARCHIVE, SOURCE_DOCKER_ARCHIVE, SOURCE_STDIN, SOURCE_STORE };

struct source {
	enum source_kind kind;
	struct ref ref; /* SOURCE_REGISTRY */
	char *path;	/* of a folder or file; NULL otherwise */
	char *name;	/* tag or name in it; NULL: the only image */
	struct descriptor manifest; /* SOURCE_STORE */
	int fd;		/* folder, archive, or standard input; -1 for a registry and the store */
	struct tar_index tar;
	struct strv parts; /* archive or folder names of the layers, once the plan is found */
};

/**
 * source_open() - Take a source's text apart and open it
 * @text:	"oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:NAME]", "-", "store:HEX:BYTES" (a manifest that a
 *		build put into blobs/), or a reference; paths absolute
 * @input:	Standard input for "-", taken; else -1
 *
 * A path may hold colons: the whole is tried first, then the shortest that is there.
 *
 * Return: 0, then @ret ends with source_done(); negative errno with @err set
 */
int source_open(const char *text, int input, struct source *ret, struct err *err);
void source_done(struct source *s);

/* Whether it must be copied into a seekable file first: standard input, a pipe. */
bool source_is_stream(const struct source *s);

/* Name it for messages; borrowed. */
const char *source_name(const struct source *s);

/**
 * source_plan() - Find the image in it
 * @where:	get and ctx are set here; arch and blobs by the caller
 *
 * Return: 0, then @ret ends with plan_done(); negative errno with @err set
 */
int source_plan(struct source *s, struct plan_source *where, struct plan *ret, struct err *err);

/* Bytes of one part of a source; fd is the caller's. */
struct part {
	int fd;
	uint64_t at, bytes;
};

/* Where a name lies in a layout or archive. -ENOENT, with @err set. */
int source_part(const struct source *s, const char *name, struct part *ret, struct err *err);

/* Read a whole part of at most MANIFEST_MAX bytes. */
int source_read(const struct source *s, const char *name, char **ret, size_t *ret_n, struct err *err);

/* The two kinds of content; see source_plan(). */
int source_plan_oci(struct source *s, struct plan_source *where, struct plan *ret, struct err *err);
int source_plan_docker(struct source *s, const struct plan_source *where, struct plan *ret, struct err *err);

/* "Which of its images?", with their names. */
#define SOURCE_LIST_MAX 308 /* bytes of the list, with the end */
void source_list(char list[SOURCE_LIST_MAX], const char *name);
int source_which(const struct source *s, size_t n, const char *word, const char *list, struct err *err);

/* An error about a source: "SOURCE: TEXT". */
int source_bad(const struct source *s, int code, struct err *err);
