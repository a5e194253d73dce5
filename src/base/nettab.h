/* The kernel's tables of sockets as text: /proc/net/tcp, tcp6, udp, udp6. Slow next to sock_diag, but there in every kernel:
 * libkrunfw's is built without INET_DIAG. */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define NETTAB_LISTEN 10 /* TCP_LISTEN as the tables have it */

struct nettab {
	int family;
	uint8_t addr[16]; /* the local address, network order; AF_INET: the first four */
	uint16_t port;
	uint8_t state;
	uint64_t inode; /* of the socket */
};

/**
 * nettab_line() - Read one line
 * @family:	Of the table
 *
 * Pure.
 *
 * Return: 0; -EBADMSG for what is no row, as the heading is none
 */
int nettab_line(const char *line, size_t n, int family, struct nettab *ret);

/**
 * nettab_read() - Call @each for the rows of a table, from its beginning
 * @fd:		Of the table, open; borrowed
 * @each:	Returns 0 to go on; anything else ends the reading
 * @max:	Rows to read at most: whoever makes sockets chooses how many there are
 *
 * The rows of tcp begin with all that listen.
 *
 * Return: what @each returned last, 0 at the end or at @max, or a negative errno of read(2)
 */
int nettab_read(int fd, int family, size_t max, int (*each)(const struct nettab *, void *), void *arg);
