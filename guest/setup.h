/* What CONFIG makes of the VM; the configure and set_clock of PID 1. */
#pragma once

#include "guest/guest.h"

int setup_configure(struct guest *g, struct span config, struct buf *ready, struct err *err);
void setup_clock(struct guest *g, uint64_t ns);
