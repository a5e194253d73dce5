/* Small helpers that every module uses: array sizes, cleanup attributes, ownership moves. */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void close_p(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void free_p(void *p)
{
	free(*(void **)p);
}

/* Declares an owner and initialises it; ownership leaves the scope by TAKE_FD or TAKE_PTR. */
#define AUTO_FD(name) CLEANUP(close_p) int name = -1
#define AUTO_FREE(type, name) CLEANUP(free_p) type *name = NULL

static inline int take_fd_p(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

#define TAKE_FD(fd) take_fd_p(&(fd))
#define TAKE_PTR(p)                          \
	({                                   \
		__typeof__(p) take_ = (p);   \
		(p) = NULL;                  \
		take_;                       \
	})
