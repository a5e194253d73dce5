/* What wire may do from its first hostile byte on (network page 4). */
#pragma once

#include "base/err.h"

/* Landlock without any path, no capabilities, the system calls of the page and no others (they kill); for good. */
int wire_sandbox(struct err *err);
