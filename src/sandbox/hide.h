/* A process that holds what others must not see: no core, no look into it by others of its user. */
#pragma once

/* Of this process and of what it executes: no core. A limit of 0 would stop the file alone; a kernel whose core_pattern names a
 * program starts that whatever the limit is, but for a limit of 1 (core(5), "Piping core dumps to a program"), which is also less
 * than any file may be. Async-signal-safe; where the hard limit is 0 already it stays. */
void hide_no_core(void);

/**
 * hide_process() - The same, and not dumpable: no core whatever the limit is set to from outside, no ptrace, no /proc/PID/mem
 *
 * The kernel takes the second back with an exec and with a change of the user or group that files are opened as: then again.
 *
 * Return: 0 or -errno
 */
int hide_process(void);
