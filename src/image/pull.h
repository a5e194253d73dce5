/* Getting an image into the store: the two halves of agent-vm-image are started, introduced to each other and watched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/store.h"
#include "proto/imagemsg.h"

#ifdef __aarch64__
#define IMAGE_ARCH "arm64"
#else
#define IMAGE_ARCH "amd64"
#endif

/* A layer, for who shows progress. Numbers are the roles' own, checked against the manifest's sizes. */
struct pull_layer {
	char blob[IMAGE_HEX + 1];
	char diff_id[IMAGE_HEX + 1];
	enum im_compression compression;
	uint64_t bytes;	   /* of the blob */
	uint64_t had, got; /* of it in the store: at the start, now */
	uint64_t checked;  /* of what was in the store, hashed so far; it is not handed over before all is */
	uint64_t unpacked; /* of it consumed by the unpacker */
	bool loaded;	   /* whole and verified */
	bool done;	   /* unpacked, its uncompressed digest as it must be */
	int fd;		   /* private: for the unpacker */
	bool has_part;	   /* private */
	uint64_t told;	   /* private: bytes that the unpacker knows of */
};

enum pull_event {
	PULL_KNOWN,	  /* the manifest is there: layers and sizes are known */
	PULL_LAYER_IN,	  /* a layer is whole and verified */
	PULL_DISK_MADE,	  /* all layers are unpacked */
	PULL_TICK,	  /* some time has passed */
	PULL_WAITS,	  /* another process has had a lock of the store for a second */
};

struct pull_state {
	const char *reference;
	char served[IMAGE_HEX + 1], platform[IMAGE_HEX + 1]; /* "" until PULL_KNOWN */
	struct pull_layer *layers;			     /* bottom first */
	size_t n_layers;
	size_t unpacking;  /* layer that the unpacker is at; n_layers when it is through */
	const char *entry; /* what it unpacks, escaped; "" */
	int64_t began_ns;
};

struct pull_args {
	const char *reference;	/* in full form, or a source of image page 2 in its stored form */
	const char *source;	/* where it comes from; NULL: the reference says */
	bool local;		/* built here: no registry is ever asked for something newer */
	const char *image_role; /* path of agent-vm-image */
	int archive_fd;		/* for the source "-", else -1; borrowed */
	int log_fd;		/* of the roles, -1: none; borrowed */
	int stop_fd;		/* readable when the user wants to stop; -1: none */
	void (*progress)(void *ctx, const struct pull_state *p, enum pull_event e, size_t layer);
	void *ctx;
};

struct pull_result {
	char *reference; /* under which it is stored; caller owns */
	char digest[IMAGE_HEX + 1];
	char was[IMAGE_HEX + 1]; /* digest that it had before, "" if it is new */
	size_t n_layers, n_new;	 /* new: loaded now, in whole or in part */
	uint64_t loaded;	 /* bytes */
	uint64_t disk_allocated; /* bytes that the disk takes on the host */
	int64_t elapsed_ms;
	bool made; /* a disk was made; otherwise it was there */
};

/**
 * image_pull() - Bring a reference up to date
 *
 * Until the very end the store names what it named before; whatever ends this, a kill included, leaves that usable and
 * keeps what was loaded for the next try. Any number of pulls at once are harmless.
 *
 * @s is copied; its stop_fd and waits are those of @args.
 *
 * Return: 0, then @ret->reference is the caller's; negative errno with @err set: -EINTR stopped; -EINVAL a reference that
 * is none; -ENOSPC; -EPROTO an API version that this launcher does not support; -ENETUNREACH no registry could be reached
 */
int image_pull(const struct store *s, const struct pull_args *args, struct pull_result *ret, struct err *err);

/* Variables that the fetching half needs besides those of prog_env(). */
void pull_env(struct strv *ret);
