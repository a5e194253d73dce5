/* The guest's half of the self-probe (network page 9.4): tries what CONFIG lists and tells what came of it. The launcher
 * knows what must. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "guest/config.h"

struct probe {
	int fd; /* -1: it is over */
	bool connected;
	int error; /* positive errno; 0: reached */
	size_t n;
	uint8_t reply[GC_PROBE_REPLY_MAX];
};

/* Sends all off and waits for nothing. */
void probe_start(const struct config *c, struct probe probes[GC_PROBES_MAX]);
/* Waits for what is not over, c->probe_ms from now at most, and adds the records to @ready. 0 or -ENOBUFS. */
int probe_finish(const struct config *c, struct probe probes[GC_PROBES_MAX], struct buf *ready);
