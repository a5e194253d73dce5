/* How a pull shows its progress on stderr, and its end on stdout (image page 9). */
#pragma once

#include "cli/progress.h"
#include "image/pull.h"

/* What is said when a lock of the store has been waited for a second. */
#define IMAGES_WAITS "    waiting for another pull, build or prune to let go of the image store"

/* Bytes a second, smoothed over some seconds. */
struct rate {
	uint64_t bytes;
	int64_t at_ns; /* 0: nothing measured yet */
	double per_s;
};

struct pull_view {
	struct progress p;
	struct rate total;
	struct rate *layers;
	int64_t next_draw_ns, next_event_ns;
	int64_t loaded_ns; /* when the last layer was in */
	bool waits;	   /* it was said what is waited for */
};

/* Zeroed is a view that shows nothing, for pull_view_done(). */
void pull_view_init(struct pull_view *v, const char *reference, bool quiet, bool json);
/* For image_pull(); @ctx is the view. */
void pull_view_progress(void *ctx, const struct pull_state *st, enum pull_event e, size_t layer);
/* The block off the terminal, then the result on stdout, or with @on_stderr there, with "==> " before it. */
void pull_view_result(struct pull_view *v, const struct pull_result *r, bool on_stderr);
void pull_view_done(struct pull_view *v);

/* "REF 2f9c1e07ab34 (was 0d11c7be9a02; 2 of 14 layers new, 157.0 MB in 6.2 s)"; caller owns. */
char *pull_result_text(const struct pull_result *r);
