/* Descriptors: whole reads and writes, flags, and descriptors passed over a socket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/span.h"

/* All of these repeat on EINTR and return 0 or a negative errno unless said otherwise. */
int fd_write_all(int fd, const void *p, size_t n);
/* Reads exactly @n bytes; -EPIPE when the end comes first. */
int fd_read_exact(int fd, void *p, size_t n);
int fd_nonblock(int fd, bool on);
int fd_cloexec(int fd, bool on);

/**
 * fd_read_file() - Read to the end of a file of at most @max bytes
 * @ret:	Heap bytes with a NUL behind them; caller owns
 * @ret_len:	Bytes without that NUL; may be NULL
 *
 * Return: 0; -EFBIG above @max; negative errno of read(2)
 */
int fd_read_file(int fd, size_t max, char **ret, size_t *ret_len);

/**
 * fd_send() - Send one message with descriptors on a unix socket
 *
 * Return: bytes sent, or a negative errno
 */
ssize_t fd_send(int sock, const void *p, size_t n, const int *fds, size_t n_fds);

/* In place of a descriptor that came, and for which this process had none free: its sender is not to blame. */
#define FD_LOST (-2)

/**
 * fd_recv() - Receive one message and the descriptors in it
 * @fds:	Room for @n_fds descriptors; unused entries become -1, received ones are close-on-exec and the caller's
 *
 * More descriptors than fit, or a cut message: all are closed and it is -EBADMSG. The first that did not come for lack of room in
 * this process's table is FD_LOST; the message is whole.
 *
 * Return: bytes received, 0 at the end, or a negative errno
 */
ssize_t fd_recv(int sock, void *p, size_t n, int *fds, size_t n_fds);

/* The host has no descriptor, buffer or memory for a call now; it may have one later. */
bool fd_is_lack(int error);
/* Since 1970, in milliseconds. */
int64_t wall_ms(void);
/* Of that SO_TYPE. */
bool fd_is_socket(int fd, int type);
/* Memory that nobody can change or cut any more. */
bool fd_is_sealed(int fd);

/**
 * fd_map_config() - The configuration that a role was started with
 * @fd:		fd_is_sealed(); closed on success
 * @what:	Of whom, for the error: "the vault"
 * @ret:	To be given back by munmap(2)
 *
 * Return: 0; -EBADMSG when it is empty or above @max; another negative errno
 */
int fd_map_config(int fd, const char *what, size_t max, struct span *ret, struct err *err);

/* CLOCK_BOOTTIME in nanoseconds: counts while the host sleeps, unlike CLOCK_MONOTONIC. */
int64_t now_ns(void);
