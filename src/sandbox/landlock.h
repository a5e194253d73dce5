/* Landlock: a rule set of "below this path, these rights"; all else that it handles is refused. Raw system calls.
 *
 * Used from ABI 2 (Linux 5.19) on: ABI 1 forbids every rename and link from one folder to another, which a project
 * needs. From ABI 4 on TCP is refused as a whole, from 6 on signals and abstract sockets end at the domain. It binds the
 * calling thread and what it starts, so it must come before the first thread. */
#pragma once

#include <stdint.h>

#include "base/err.h"

enum landlock_right {
	LANDLOCK_READ = 1 << 0,	 /* files and folders */
	LANDLOCK_WRITE = 1 << 1, /* existing files, with truncation */
	LANDLOCK_EXEC = 1 << 2,
	LANDLOCK_MAKE = 1 << 3,	 /* make, remove, rename and link anything */
	LANDLOCK_IOCTL = 1 << 4, /* of devices */
};

/* ABI version of this kernel, 0 when it has none or it is turned off. */
int landlock_abi(void);

/**
 * landlock_new() - Begin a rule set that refuses everything
 *
 * Return: 0; -EOPNOTSUPP below ABI 2; another negative errno with @err set
 */
int landlock_new(int *ret_fd, struct err *err);

/* The same for a role that makes connections: TCP can be connected, and not bound. */
int landlock_new_client(int *ret_fd, struct err *err);

/**
 * landlock_allow() - Allow @rights at and below @path (for a file: on it)
 *
 * Return: 0; -ENOENT when there is no such path; negative errno with @err set
 */
int landlock_allow(int fd, const char *path, uint32_t rights, struct err *err);

/* Binds this thread; needs no-new-privs. */
int landlock_enforce(int fd, struct err *err);
