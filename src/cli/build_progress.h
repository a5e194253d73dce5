/* How a build shows its progress on stderr, and its end on stdout. */
#pragma once

#include <stdbool.h>

#include "image/build.h"

struct build_view {
	bool quiet, json, tty;
	const char *reference;
	int64_t next_line_ns; /* without a terminal */
	char what[160];	      /* last thing that was said to be done */
	bool drawn;
};

void build_view_init(struct build_view *v, const char *reference, bool quiet, bool json);
/* For image_build(); @ctx is the view. */
void build_view_progress(void *ctx, const struct build_progress *p);
/* Takes the line off the terminal. */
void build_view_clear(struct build_view *v);
void build_view_done(struct build_view *v, const struct build_result *r);
void build_view_error(struct build_view *v, const char *text);
