/* How a build shows its progress on stderr, and its end on stdout. */
#pragma once

#include <stdbool.h>

#include "cli/progress.h"
#include "image/build.h"

struct build_view {
	struct progress p;
	char what[160]; /* last thing that was said to be done */
};

void build_view_init(struct build_view *v, const char *reference, bool quiet, bool json);
/* For image_build(); @ctx is the view. */
void build_view_progress(void *ctx, const struct build_progress *p);
void build_view_done(struct build_view *v, const struct build_result *r);
