/* agent-vm-image unpack: layers come in by descriptor, a disk goes out; no path, no network. */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* The role. Its exit status: 0 after IM_DONE. */
int unpack_main(void);

/* The sandbox in its two steps, for its test. */

/**
 * unpack_confine() - Before the first thread: resource limits, no new privileges, Landlock without a path
 * @disk_bytes:	Most that any file may grow to
 *
 * A kernel without Landlock is no error: unpack_seal() refuses every open as well.
 */
int unpack_confine(uint64_t disk_bytes, struct err *err);

/* With all threads running: seccomp. What the table does not name ends the process. */
int unpack_seal(struct err *err);
