/* --publish: the sockets of this host (network page 9.2). They are opened before anything is made, so that a port that
 * cannot be had is a mistake among the others, and handed to agent-vm-vault. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "cli/cmd.h"
#include "cli/specs.h"
#include "proto/vaultcfg.h"
#include "session/root.h"

#define PORTS_PUBLISH_MAX (VAULT_PUBLISH_MAX / 2) /* each may need a socket for both families */
#define PORTS_TEXT 80

struct port_socket {
	int fd;
	uint16_t guest;
	bool udp;
	char listen[VAULT_LISTEN_TEXT]; /* "127.0.0.1:3000", "[::1]:3000" */
};

struct ports {
	struct port_socket *v;
	size_t n;
	struct publish *what; /* [n_what], as typed */
	size_t n_what;
};

/**
 * ports_open() - Open what the uses of --publish want
 * @root:	Whose sessions are looked at for who has a port; its fd may be -1
 *
 * What is malformed, or given twice, was reported before and is passed over. What cannot be opened goes to cli->problems at
 * its word.
 */
void ports_open(struct cli *cli, const struct state_root *root, struct ports *ret);
/* After the vault has them. */
void ports_close(struct ports *p);
void ports_done(struct ports *p);

/* "127.0.0.1:3000 -> 3000/tcp", or without the spaces, for the table and for session.json. Caller owns. */
char *ports_text(const struct publish *p, bool spaces);
/* Is it on an address that others than this host can reach? */
bool ports_is_open(const struct publish *p);

/**
 * port_socket() - Open one
 * @family:	AF_INET or AF_INET6
 * @addr:	4 or 16 bytes
 * @port:	0: any
 *
 * TCP listens. An IPv6 socket is for IPv6 alone.
 *
 * Return: the descriptor; a negative errno
 */
int port_socket(int family, const void *addr, uint16_t port, bool udp);
/* Has this host the IPv6 loopback address? */
bool port_has_loopback6(void);
