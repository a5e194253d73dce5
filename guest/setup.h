/* What CONFIG makes of the VM; the configure and set_clock of PID 1. */
#pragma once

#include "guest/config.h"
#include "guest/guest.h"

int setup_configure(struct guest *g, struct span config, struct buf *ready, struct err *err);
void setup_clock(struct guest *g, uint64_t ns);

/* One file, one link: folders are made, what is there is replaced. 0; negative errno with @err set. */
int setup_file(const struct config_file *f, struct err *err);
int setup_link(const struct config_link *l, struct err *err);

/* The text of /etc/profile.d/agent-vm.sh. For tests. */
extern const char setup_profile[];
