/* Whether the kernel ended a process because memory ran out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Kernel messages from now on; caller owns. Return: descriptor, or a negative errno. */
int oom_open(void);

/**
 * oom_take() - Look for victims among the messages since the last call
 * @fd:		From oom_open(); below 0: nothing is ever found
 * @ret:	What the kernel says of the last victim: "process 475 (tail)"
 *
 * Return: whether there was one
 */
bool oom_take(int fd, char *ret, size_t size);

/* One message as /dev/kmsg gives it; pure. */
bool oom_parse(const char *msg, char *ret, size_t size);
