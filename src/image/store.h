/* The image store, <root>/images: disks made once and never changed, and references that name them.
 *
 *	blobs/sha256/HEX	config, manifests, layers as a registry serves them; complete and verified, or not there
 *	partial/HEX		downloads under way; flock by who loads
 *	disks/HEX.ext4		a root file system, 0400; HEX = SHA-256 of what it was made from and of the format's number
 *	disks/HEX.json		what it is: written before the first reference to it
 *	refs/HEX16.json		a reference; HEX16 = the first 16 hex digits of the SHA-256 of its text. Its mtime is the last use
 *	checks/HEX16		its mtime: when the registry was last asked for something newer
 *	default.json		the reference that a local build recorded as default
 *	tmp/			a disk being made; whoever makes it holds an exclusive flock on it
 *	lock			flock: shared to look up, exclusive to add, delete or list
 *	pulls			flock: shared by each pull for as long as it lasts, exclusive to delete blobs
 *
 * Blobs and partials are the business of agent-vm-image's fetching half; here they are only counted and deleted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/ref.h"
#include "proto/imageapi.h"

#define IMAGE_REF_MAX REF_MAX
#define IMAGE_REF_DEFAULT "ghcr.io/wirenboard/agent-vm-template:latest"
#define IMAGE_REF_STDIN "stdin:" /* NAME as an archive on standard input has it */
#define IMAGE_REF_LOCAL "localhost/agent-vm:" /* made by build, in no registry */
#define IMAGE_HEX 64 /* hex digits of a SHA-256 */
#define IMAGE_SHORT 12 /* digits that a person sees */

struct store {
	int fd;	    /* <root>/images */
	int disks, refs, tmp;
	char *path; /* of fd, for messages and for the monitor */
	/* While a lock is waited for; set by the caller after store_open(), which leaves them empty. */
	int stop_fd; /* readable: the user wants to stop, then -EINTR; -1: none */
	void (*waits)(void *ctx); /* called once a wait, after a second; may be NULL */
	void *waits_ctx;
};

/* An image that can be booted. The descriptor holds a shared flock on the disk: while it is open nobody deletes it. */
struct image {
	char *reference;
	char *disk_path; /* absolute; disk_fd is open on it */
	int disk_fd;
	uint64_t size_bytes;
	uint64_t min_bytes; /* least --disk that its content needs */
	uint32_t api_version;
	char api_found[IMAGE_API_FOUND]; /* "" if the image has no such file */
	bool has_known;			 /* an older store did not record has */
	uint64_t has;			 /* enum im_has */
	struct strv env;		 /* NAME=VALUE of the image's config */
	bool from_registry;		 /* which can be asked for something newer */
	bool pulled;			 /* from a registry or a file; digest is what the reference named there */
	char digest[IMAGE_HEX + 1];	 /* of a local build: its disk's */
	char digest_short[IMAGE_SHORT + 1];
	char platform[IMAGE_HEX + 1]; /* manifest of this machine's platform, "" for a local build */
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
 * store_ref_full() - The full form under which a reference is stored
 * @ref:	--image, AGENT_VM_IMAGE_TAG; NULL or "": IMAGE_REF_DEFAULT
 *
 * oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker-archive:FILE[:NAME] are references too, by their absolute path, and
 * stdin:NAME. What comes from one of them replaces nothing that came from elsewhere.
 *
 * Return: 0 and a string that the caller owns; -EINVAL with @err set
 */
int store_ref_full(const char *ref, char **ret, struct err *err);

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

/* Record that a session uses it now, for prune --older-than. No lock, no fsync: losing it costs nothing. */
void store_used(const struct store *s, const char *reference);

/* Whether this launcher can boot it. 0, or -EPROTO with @err saying which side to change. */
int image_api_check(const char *reference, uint32_t version, const char *found, struct err *err);

/* A layer as its registry serves it. */
struct image_blob {
	char digest[IMAGE_HEX + 1];
	uint64_t bytes;
};

/* What a disk is, as its maker knows it. */
struct image_meta {
	const char *reference;
	char key[IMAGE_HEX + 1]; /* names the disk; the same inputs give the same key */
	uint32_t api_version;	 /* image_api_parse() */
	const char *api_found;	 /* may be NULL */
	bool has_known;
	uint64_t has; /* enum im_has */
	uint64_t min_bytes;
	const struct strv *env;	  /* may be NULL */
	const char *architecture; /* "amd64" */
	/* of a pulled image; NULL and 0 for one that was built here */
	const char *served, *platform, *config; /* digests; config has no copy in blobs/ when it is NULL */
	const struct image_blob *layers;	/* bottom first */
	size_t n_layers;
};

void image_sha256(const void *p, size_t n, char ret[IMAGE_HEX + 1]);

/* Bytes that are free for this user where the store is; UINT64_MAX when that cannot be seen. */
uint64_t store_free_bytes(const struct store *s);

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

/**
 * store_link() - Name a disk that the store has already by a reference
 * @meta:	Of the disk only its key counts: what it is, its own JSON says
 *
 * Return: 0; -ENOENT when there is no whole disk of that key, without @err; -EPROTO: its API version; another negative
 * errno; the last two with @err set
 */
int store_link(const struct store *s, const struct image_meta *meta, struct err *err);

/* Record @ref as the default of this store. */
int store_set_default(const struct store *s, const char *ref, struct err *err);

/* What a reference names. */
struct image_ref {
	char *reference;
	char *architecture; /* NULL: recorded before references had it, see env */
	char disk[IMAGE_HEX + 1];
	char served[IMAGE_HEX + 1], platform[IMAGE_HEX + 1], config[IMAGE_HEX + 1]; /* "" for a local build */
	struct image_blob *layers;
	size_t n_layers;
	struct strv env;
	int64_t stored; /* seconds since 1970 */
};

/* Of a reference in full form. 0; -ENOENT; -EBADMSG or -EPROTO (newer version) with @err set. */
int store_ref_read(const struct store *s, const char *reference, struct image_ref *ret, struct err *err);
void image_ref_done(struct image_ref *ref);

/* A blob of the store, opened O_RDONLY; it was verified when it was put there. Descriptor or a negative errno. */
int store_blob_open(const struct store *s, const char *digest);
/* Bytes of a blob that are in the store, in whole or in part. */
uint64_t store_blob_have(const struct store *s, const char *digest);
/* Bytes that a disk takes on the host, 0 if there is none of that key. */
uint64_t store_disk_allocated(const struct store *s, const char *key);

/* The lock of a pull; closing the descriptor frees it. Negative errno with @err set; -EINTR: stopped. */
int store_pull_lock(const struct store *s, struct err *err);

/**
 * store_blobs_drop() - Delete those blobs of a former reference that nothing names any more
 *
 * Called without the pull's own lock. Left alone while another pull runs; prune finds them then.
 */
void store_blobs_drop(const struct store *s, const struct image_ref *former);

/* --- looking and tidying up --- */

struct image_entry {
	struct image_ref ref;
	int64_t used; /* seconds since 1970 */
	uint32_t api_version;
	char api_found[IMAGE_API_FOUND];
	uint64_t disk_bytes, layer_bytes; /* allocated on the host; a blob that two images share counts in both */
	bool in_use;			  /* some session holds its disk */
	bool usable;			  /* its disk is whole */
};

struct image_list {
	struct image_entry *v; /* by reference */
	size_t n;
	struct strv warnings; /* files that could not be read */
};

int store_list(const struct store *s, struct image_list *ret, struct err *err);
void image_list_done(struct image_list *l);
/* What NULL means to store_find(): caller owns. */
char *store_default(const struct store *s);

enum prune_kind { PRUNE_REFERENCE, PRUNE_DISK, PRUNE_BLOB, PRUNE_PARTIAL, PRUNE_TMP, PRUNE_KINDS };

extern const char *const prune_kind_str[];

struct prune_rule {
	int64_t unused_s;	    /* references unused for so long go; negative: none by age */
	bool layers;		    /* blobs of layers go although references name them */
	const char *const *keep;    /* references that are never removed by age, NULL-terminated; may be NULL */
	bool dry_run;
};

struct prune_item {
	enum prune_kind kind;
	char *name;
	uint64_t bytes; /* allocated */
	int64_t age_s;	/* of a reference: since its last use */
};

struct prune_list {
	struct prune_item *v;
	size_t n;
	uint64_t bytes;
	struct strv warnings;
};

#define PRUNE_PARTIAL_S (7 * 86400)

/**
 * store_prune() - Delete what nothing needs: references by age, disks that none names and no session holds, blobs that none
 * names, partial downloads of more than seven days, disks whose maker is gone
 *
 * With dry_run the same list, and nothing is deleted. A file in refs/ that cannot be read counts as naming everything.
 */
int store_prune(const struct store *s, const struct prune_rule *rule, struct prune_list *ret, struct err *err);
void prune_list_done(struct prune_list *l);
