/* How often the kernel ended a process because memory ran out. */
#pragma once

#include <stdint.h>

/* The counter of /proc/vmstat; 0 if it cannot be read. */
uint64_t oom_kills(void);
