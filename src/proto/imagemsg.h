/* What the launcher and the two halves of agent-vm-image tell each other.
 *
 * Both are started with 0, 1, 2 on /dev/null and
 *   3 SOCK_SEQPACKET to the launcher; its end means that the launcher is gone, then they end
 *   4 the role's log
 *   5 fetch only: the folder <root>/images of the store
 * A message is u32 type, little endian, then records (proto/rec.h); at most IM_MSG_MAX bytes, at most one descriptor.
 *
 *	agent-vm-image fetch	network, registry login; writes blobs; parses manifests, never layers
 *	agent-vm-image unpack	no network, no login, no path; reads layers, writes the disk
 *	agent-vm-image pack	the same for a tar of a build: writes a layer
 *
 * fetch:   > FETCH (or HEAD)    < MANIFEST, LAYER × n    > GO    < PART, PROGRESS, BLOB …    < DONE
 * unpack:  > DISK, LAYER × n (bottom first)    > GROWN …    < PROGRESS …, LAYER_DONE × n    < DONE
 * pack:    > PACK, SCRATCH (with rules only), LAYER    < PROGRESS …    < PACKED, DONE
 * fetch of a build, "npm:…":     > FETCH    < PACKAGE    > GO    < PART, PROGRESS …, BLOB    < DONE   (one layer, number 0)
 *                   "debian:…":  > FETCH    < RELEASE    < DONE
 * At any time  < ERROR, after which the process ends. The launcher ends either by closing its end of 3 and a kill.
 *
 * The launcher checks what comes up as hostile: fetch has parsed what a registry sent, unpack what an image holds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

#define IM_FD_CONTROL 3
#define IM_FD_LOG 4
#define IM_FD_STORE 5

#define IM_MSG_MAX 8192
#define IM_LAYERS_MAX 512
#define IM_DIGEST 64 /* a digest travels as 64 lower-case hex digits of SHA-256, without "sha256:" */

enum im_msg {
	/* to fetch */
	IM_FETCH = 1, /* IM_K_SOURCE, IM_K_ARCH; with a descriptor when the source is "-"; npm: IM_K_REGISTRY, IM_K_INTEGRITY?,
		       * IM_K_BYTES? (a pin), IM_K_DEPENDENCY? (that optional dependency is meant, not the package) */
	IM_HEAD,      /* the same, of a registry: only MANIFEST is wanted, without CONFIG and layers; nothing is written, and
		       * it takes 5 s at most. IM_K_SERVED?: what is known; if that is still served, it is not asked what
		       * it holds (that would count as a pull), and PLATFORM repeats it. */
	IM_GO,	      /* IM_K_LAYER × those that are wanted; none: all */
	/* from fetch */
	IM_MANIFEST, /* IM_K_SERVED, IM_K_PLATFORM, IM_K_CONFIG, IM_K_LAYERS, IM_K_NAME*: what an archive calls it. Of docker save,
		      * which has no digests, SERVED and PLATFORM are that of the config. */
	IM_PART,     /* IM_K_LAYER, IM_K_BYTES there already; descriptor: the blob, read-only, growing or complete */
	IM_BLOB,     /* IM_K_LAYER: complete, verified, in blobs/ */
	/* to unpack */
	IM_DISK,  /* IM_K_BYTES of the file system, IM_K_LAYERS, IM_K_EPOCH; descriptor: an empty file, O_RDWR */
	IM_GROWN, /* IM_K_LAYER, IM_K_BYTES that may be read now; not sent for a layer whose descriptor is a pipe */
	/* from unpack */
	IM_LAYER_DONE, /* IM_K_LAYER, IM_K_DIFF_ID as found, IM_K_BYTES of the uncompressed layer */
	/* both ways, or from both */
	IM_LAYER,    /* IM_K_LAYER, IM_K_COMPRESSION, IM_K_BLOB, IM_K_BYTES of the blob, IM_K_DIFF_ID; to unpack with a
		      * descriptor. A pipe or a locally made tar has no IM_K_BLOB, IM_K_BYTES and IM_K_DIFF_ID. */
	IM_PROGRESS, /* IM_K_LAYER, IM_K_BYTES of the blob loaded or consumed; unpack: IM_K_NAME of the entry, escaped. From fetch
		      * before PART: of what the store has, checked so far; beyond that, what another process has loaded */
	IM_DONE,     /* unpack: IM_K_ENTRIES, IM_K_USED, IM_K_VERSION?, IM_K_HAS* */
	IM_ERROR,    /* IM_K_ERRNO, IM_K_TEXT: OBJECT: CAUSE; WHAT TO DO */
	/* builds */
	IM_PACKAGE, /* IM_K_PACKAGE as it was resolved, IM_K_INTEGRITY, IM_K_BYTES of its tarball */
	IM_RELEASE, /* IM_K_EPOCH: date of the newest; IM_K_BLOB: digest of all that was asked for */
	IM_PACK,    /* IM_K_BYTES: most that the layer may have, IM_K_EPOCH: time of all entries, IM_K_RULE*; descriptor: an
		     * empty file, O_RDWR. Without rules the tar is taken as it is. */
	IM_SCRATCH, /* descriptor: an empty file, O_RDWR */
	IM_PACKED,  /* IM_K_BLOB, IM_K_DIFF_ID, IM_K_BYTES of the blob, IM_K_USED: bytes of the tar */
	IM_MSGS,
};

enum im_key {
	IM_K_SOURCE = 1,  /* string: reference in full form, "oci:DIR[:TAG]", "oci-archive:…", "docker-archive:…", "-";
			   * "store:HEX:BYTES": a manifest in blobs/; "npm:NAME@VERSION"; "debian:URL URL …": Release files */
	IM_K_ARCH,	  /* string: GOARCH name, "amd64" */
	IM_K_SERVED,	  /* digest of what the reference names: an index or a manifest */
	IM_K_PLATFORM,	  /* digest of the manifest of our platform */
	IM_K_CONFIG,	  /* digest of the config, which is in blobs/ now */
	IM_K_LAYERS,	  /* u64 count */
	IM_K_LAYER,	  /* u64 index from the bottom, 0.. */
	IM_K_COMPRESSION, /* u64 enum im_compression; what the media type says */
	IM_K_BLOB,	  /* digest of the compressed bytes */
	IM_K_DIFF_ID,	  /* digest of the uncompressed bytes */
	IM_K_BYTES,	  /* u64 */
	IM_K_EPOCH,	  /* u64, seconds: time of what no layer dates */
	IM_K_NAME,	  /* string, escaped */
	IM_K_ENTRIES,	  /* u64 */
	IM_K_USED,	  /* u64, bytes of the file system in use, metadata counted */
	IM_K_VERSION,	  /* bytes, at most 32: content of /etc/agent-vm-image-version as it is; absent: no such regular file */
	IM_K_HAS,	  /* u64 of enum im_has, or'ed */
	IM_K_ERRNO,	  /* u64, positive */
	IM_K_TEXT,	  /* string, escaped */
	IM_K_REGISTRY,	  /* string: URL without a slash at its end */
	IM_K_PACKAGE,	  /* string: NAME@VERSION */
	IM_K_INTEGRITY,	  /* string: "sha512-" and base64 (W3C Subresource Integrity) */
	IM_K_DEPENDENCY,  /* string: name of a package */
	IM_K_RULE,	  /* string: see pack.h */
	IM_KEYS,
};

enum im_compression { IM_PLAIN, IM_GZIP, IM_ZSTD, IM_COMPRESSIONS };

/* Programs found in the image's folders of programs. */
enum im_has {
	IM_HAS_BASH = 1 << 0,
	IM_HAS_CLAUDE = 1 << 1,
	IM_HAS_CODEX = 1 << 2,
	IM_HAS_OPENCODE = 1 << 3,
	IM_HAS_COPILOT = 1 << 4,
	IM_HAS_CHROMIUM = 1 << 5,
};

/* Which way a message goes. */
enum im_way { IM_TO_FETCH = 1 << 0, IM_FROM_FETCH = 1 << 1, IM_TO_UNPACK = 1 << 2, IM_FROM_UNPACK = 1 << 3,
	      IM_TO_PACK = 1 << 4, IM_FROM_PACK = 1 << 5 };

/* A message that was checked: its type goes that way, it has each key that the type must have and none that it must not,
 * each value is of the key's kind and within its bounds, a key stands once unless the type says that it repeats. */
struct im {
	enum im_msg type;
	int fd;	       /* -1: none came with it */
	uint64_t seen; /* bit 1 << key */
	struct span body;
	uint8_t mem[IM_MSG_MAX];
};

/**
 * im_parse() - Check a message
 * @m:		mem holds the @n bytes; the rest is set. fd is not touched
 *
 * Return: 0 or -EBADMSG
 */
int im_parse(struct im *m, size_t n, enum im_way way);

/**
 * im_recv() - Receive one message
 *
 * Blocks where the socket does. Descriptors that the type has no use for are -EBADMSG.
 *
 * Return: 1, then the caller owns @ret->fd; 0 at the other side's end; -EBADMSG; another negative errno
 */
int im_recv(int sock, enum im_way way, struct im *ret);

bool im_has(const struct im *m, enum im_key key);
/* Value of a key that is there, else 0. */
uint64_t im_u64(const struct im *m, enum im_key key);
/* Digest or string as a heap string that the caller owns; NULL when the key is not there. Ends the program without memory. */
char *im_str(const struct im *m, enum im_key key);
/* As bytes of @m; empty when it is not there. For keys that repeat: rec_next() over body. */
struct span im_bytes(const struct im *m, enum im_key key);

/* Begin a message; rec_put() adds to it. What did not fit is missing, which im_send() finds where it must be there. */
void im_begin(struct buf *b, enum im_msg type);

/**
 * im_send() - Send a message and free it
 * @pass:	Descriptor that goes with it, borrowed; -1: none
 *
 * Return: 0; -EPIPE when the other side is gone; -EBADMSG: the receiver would refuse it; another negative errno
 */
int im_send(int sock, struct buf *b, int pass);
