/* What a guest can carry out in names (network page 7.5): bounded and shown, not closed. Pure but for the heap.
 *
 * Questions that go to a resolver: 50 a second, 500 at once. Per parent (the last two labels, three if the second is of at
 * most 3 letters): a line in the log at 200 names in 10 minutes or at 50 long and random labels; REFUSED until the hour is
 * over at 2,000 names or 256 KiB of names. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vault/dnsmsg.h"

#define RATE_PER_S 50
#define RATE_BURST 500
#define RATE_PARENTS 1024
#define RATE_NAMES_NOTICED 200
#define RATE_NAMES_REFUSED 2000
#define RATE_BYTES_REFUSED (256 << 10)
#define RATE_LABELS_NOTICED 50

enum rate_verdict {
	RATE_OK,
	RATE_NOTICE,  /* ok, and the first sight of a tunnel: write one line */
	RATE_BUSY,    /* too many a second */
	RATE_REFUSED, /* too much for this parent */
};

struct rate_parent;

struct rates {
	struct rate_parent *parents; /* [RATE_PARENTS] */
	uint64_t milli; /* thousandths of a question that are left */
	int64_t filled_ns;
};

void rates_init(struct rates *r, int64_t now);
void rates_done(struct rates *r);

/* One question for a resolver, @name in lower case. @ret_parent: which parent it counts for. */
enum rate_verdict rates_take(struct rates *r, const struct dns_name *name, int64_t now, struct dns_name *ret_parent);

/* A label of more than 40 characters with at least 3.8 bits of entropy a character. */
bool rate_label_random(const uint8_t *label, size_t n);
