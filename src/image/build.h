/* The built-in image: Debian 13 and the agents' programs, made on this host without root, Docker or an image registry. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/store.h"

/* By size; each holds what the one before it holds. BUILD_BASE has no agents: for tests, and for agents that a project brings. */
enum build_set { BUILD_BASE, BUILD_MINIMAL, BUILD_DEFAULT, BUILD_FULL, BUILD_SETS };

extern const char *const build_set_str[];

/* Packages and programs are got at the same time; a phase is what is waited for. */
enum build_phase { BUILD_PACKAGES, BUILD_PROGRAMS, BUILD_LAYERS, BUILD_DISK, BUILD_PHASES };

extern const char *const build_phase_str[];

struct build_progress {
	enum build_phase phase;
	bool ends;	     /* the phase is done */
	uint64_t bytes;	     /* loaded, of layers made, or gone into the disk; 0 during BUILD_PACKAGES */
	const char *what;    /* what is being done, escaped; NULL: nothing to say */
	int64_t elapsed_ms;  /* of the phase */
};

struct build_args {
	enum build_set set;
	struct strv include;	/* more packages; checked here */
	bool latest;		/* the newest programs, not the pinned ones */
	const char *output;	/* also write a layout into this folder; NULL: no */
	const char *reference;	/* NULL: localhost/agent-vm:SET */
	const char *image_role; /* path of agent-vm-image */
};

struct build_result {
	char *reference;	 /* in full form; caller owns */
	char digest[IMAGE_HEX + 1];
	char was[IMAGE_HEX + 1]; /* "" when the reference is new */
	uint64_t disk_allocated; /* bytes that the disk takes on the host */
	uint64_t layer_bytes;	 /* of all layers */
	size_t n_layers, n_new;	 /* new: made now */
	char *note;		 /* a line for the user; NULL: none; caller owns */
	int64_t elapsed_ms;
	bool now_default; /* recorded as the default, because there was none */
};

/**
 * image_build() - Make the image and store it
 * @progress:	Called at most ten times a second and when a phase ends
 * @stop_fd:	Readable when the user wants to stop; -1: none
 *
 * Layers that were made before from the same (packages of Debian: by the date and content of its Release files; programs: by
 * their hash) are taken from the store; then nothing is loaded. A mirror that cannot be reached is no error when there is a
 * layer of the same packages. What mmdebstrap prints goes to build.log in the store, which is named when it fails.
 *
 * Return: 0; -EINTR when stopped; -EINVAL for a package name or reference; another negative errno; each with @err set. In
 * all of these nothing half-made is left and no child lives
 */
int image_build(const struct store *s, const struct build_args *args,
		void (*progress)(void *ctx, const struct build_progress *p), void *ctx, int stop_fd,
		struct build_result *ret, struct err *err);

/* Whether a layout can be made at @dir: nothing is there, its parent can be written. 0; a negative errno with @err set. */
int build_output_check(const char *dir, struct err *err);

/* What image_build() needs on this host and does not find, one "OBJECT: CAUSE; WHAT TO DO" each; empty when all is there. */
void build_missing(struct strv *ret);
