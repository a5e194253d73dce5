/* The built-in image: a Debian 13 root disk made on this host without root, Docker or a registry. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "image/store.h"

enum build_set { BUILD_MINIMAL, BUILD_DEFAULT, BUILD_SETS };

extern const char *const build_set_str[BUILD_SETS];

enum build_phase { BUILD_PACKAGES, BUILD_DISK, BUILD_PHASES };

extern const char *const build_phase_str[BUILD_PHASES];

struct build_progress {
	enum build_phase phase;
	bool begins, ends;
	uint64_t done, total; /* bytes written to the disk, or packages; total 0: not known */
	const char *what;     /* what is being done, foreign text escaped; NULL: nothing to say */
};

struct build_args {
	enum build_set set;
	struct strv include;	/* more packages, each name checked */
	const char *reference;	/* NULL: localhost/agent-vm:SET */
	const char *image_role; /* path of agent-vm-image */
	const char *log_path;	/* where mmdebstrap's own output goes; named when it fails */
	int log_fd;		/* open on it */
	uint64_t disk_bytes;	/* 0: 16 GiB */
};

struct build_result {
	char reference[IMAGE_REF_MAX + 1];
	char digest[IMAGE_HEX + 1];
	char was[IMAGE_HEX + 1]; /* "" when the reference is new */
	uint64_t disk_allocated; /* bytes that the disk takes on the host */
	int64_t elapsed_ms;
	bool now_default;
};

/**
 * image_build() - Make the image and store it
 * @progress:	Called at phase ends and at most ten times a second
 * @stop_fd:	Readable (a signalfd or a pipe) when the user wants to stop; -1: none
 *
 * Return: 0; -EINTR when stopped; another negative errno with @err set. In each of these nothing half-made is left and no
 * child lives
 */
int image_build(const struct store *s, const struct build_args *args,
		void (*progress)(void *ctx, const struct build_progress *p), void *ctx, int stop_fd,
		struct build_result *ret, struct err *err);

/* What image_build() needs on this host and does not find: one "OBJECT: CAUSE; WHAT TO DO" a line. 0 when all is there. */
int build_missing(const struct build_args *args, struct strv *ret_lines);
