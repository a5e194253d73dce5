/* Shared by build*.c only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "image/build.h"
#include "image/role.h"
#include "image/store.h"
#include "proto/imagemsg.h"

/* A layer that a build has made, in blobs/. */
struct made {
	char blob[IMAGE_HEX + 1], diff_id[IMAGE_HEX + 1];
	uint64_t bytes; /* of the blob */
};

/* build_made.c: which layers were made from what.
 *
 *	made/HEX16.json		{"version":1, "key":"...", "state":"...", "blob":"HEX", "diff_id":"HEX", "bytes":N}
 *
 * HEX16 is of the SHA-256 of the key, which says what the layer is; the state says what it was made from. A record whose blob
 * is gone is none. */

/**
 * made_find() - Find a layer
 * @state:	That it must have been made from; NULL: anything
 *
 * Return: 0; -ENOENT
 */
int made_find(const struct store *s, const char *key, const char *state, struct made *ret);
int made_put(const struct store *s, const char *key, const char *state, const struct made *m, struct err *err);

/**
 * blob_place() - Put a layer that another process wrote into blobs/
 * @tmp_name, @fd:	From store_tmp(); the name is gone afterwards, on failure too
 * @m:		What that process says; nothing of it is believed
 *
 * Return: 0; -EPROTO: it is something else; -EINTR: @stop_fd; a negative errno; @err set
 */
int blob_place(const struct store *s, const char *tmp_name, int fd, const struct made *m, int stop_fd, struct err *err);

/* build_oci.c */

struct oci {
	char manifest[IMAGE_HEX + 1], config[IMAGE_HEX + 1];
	uint64_t manifest_bytes;
};

/* Put config and manifest of an image into blobs/ (OCI image-spec 1.1). @names: what each layer is, for the history. */
int oci_put(const struct store *s, const struct made *layers, const char *const *names, size_t n, struct oci *ret,
	    struct err *err);

/**
 * oci_export() - Write an image as a layout (OCI image-spec 1.1)
 * @dir:	Folder to make, which build_output_check() has let through
 * @tag:	Name in it
 *
 * It is made beside its place and moved there when it is whole. -EEXIST, -EINTR, a negative errno; @err set.
 */
int oci_export(const struct store *s, const struct oci *image, const struct made *layers, size_t n, const char *dir,
	       const char *tag, int stop_fd, struct err *err);

/* --- the build itself --- */

#define BUILD_PROGRAMS_MAX 8
#define BUILD_LINE 4096

/* Lines of a stream; one that is longer comes in pieces. */
struct lines {
	int fd; /* -1 at the end */
	size_t n;
	char mem[BUILD_LINE + 1];
};

/* agent-vm-image pack, and the file that it writes. */
struct packer {
	struct role role;
	char *tmp_name; /* NULL: none */
	int fd;
	bool packed;
	struct made made;
};

#define PACKER_INIT { ROLE_INIT, NULL, -1, false, { "", "", 0 } }

struct build {
	const struct store *s;
	const struct build_args *args;
	void (*progress)(void *ctx, const struct build_progress *p);
	void *ctx;
	int stop_fd, log_fd;
	enum build_phase phase;
	int64_t phase_began, next_progress;
	uint64_t loaded, packed; /* bytes, of what is finished */
	size_t n_new;
	char *note;
	/* build_base.c */
	struct debstrap *debstrap;
	/* build_program.c */
	struct programs *programs;
};

/* Say what is being done in a phase; of a phase that is not waited for nothing is shown. */
void build_tell(struct build *b, enum build_phase phase, uint64_t bytes, const char *what);

/* A file for a layer in the store's tmp/, and the role that writes it. @scratch: the rules need one. */
int packer_start(struct build *b, int in, const uint64_t *in_bytes, enum im_compression compression, const struct strv *rules,
		 uint64_t epoch, struct packer *p, struct err *err);
/* Its next message, or its end. @ret_bytes, @ret_name (NULL: none; caller owns) of its progress. 0 or a negative errno. */
int packer_read(struct packer *p, uint64_t *ret_bytes, char **ret_name, struct err *err);
/* It has ended well, and its layer can be placed. */
bool packer_is_through(const struct packer *p);
/* Put the layer into blobs/ and record what it was made from. */
int packer_place(struct build *b, struct packer *p, const char *key, const char *state, struct err *err);
void packer_end(struct build *b, struct packer *p);

/* build_work.c: the folder for mmdebstrap's tree. */
struct work {
	int dirfd, lock; /* its parent; itself, locked */
	char *name, *path;
};

#define WORK_INIT { -1, -1, NULL, NULL }

/* Remove what builds that were killed have left, and make a folder where @need bytes are free. */
int work_begin(uint64_t need, struct work *w, struct err *err);
/* Remove it with all that is in it. */
void work_end(struct work *w);

struct pollfd;

/* The base of Debian's packages. begin: 1 when it was made before. poll: adds what is waited for, 0..2. step: reads it;
 * 0: goes on, 1: it is through, negative errno. */
int base_begin(struct build *b, struct made *ret, struct err *err);
size_t base_poll(struct build *b, struct pollfd *ret);
int base_step(struct build *b, struct made *ret, struct err *err);
void base_end(struct build *b);

/* The programs, in the order of their layers. Same meaning; @ret has room for programs_count(). */
int programs_begin(struct build *b, struct err *err);
size_t programs_count(const struct build *b);
const char *programs_name(const struct build *b, size_t i); /* "claude 2.1.332" */
const struct made *programs_made(const struct build *b, size_t i);
uint64_t programs_bytes(const struct build *b); /* of what may have to be loaded */
size_t programs_poll(struct build *b, struct pollfd *ret);
int programs_step(struct build *b, struct err *err);
bool programs_loaded(const struct build *b); /* all are, and only packing is left */
void programs_end(struct build *b);
