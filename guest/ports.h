/* What listens in the guest: the process that looks, makes loopback services reachable, and tells PID 1. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/nettab.h"
#include "guest/config.h"

/* What the process tells PID 1, one message each. */
struct ports_note {
	uint16_t port;
	uint8_t open; /* 0 or 1 */
	uint8_t zero;
};

/**
 * ports_start() - Fork the process
 * @addr4:	The guest's own address
 * @ret_fd:	SOCK_SEQPACKET on which struct ports_note come, never blocking; caller owns
 *
 * Return: its process number, or a negative errno
 */
pid_t ports_start(const struct config_ports *c, const uint8_t addr4[4], const uint8_t addr6[16], int *ret_fd);

/* --- its parts, for tests --- */

#define PORTS_MAX 256 /* followed at one time; the host takes fewer */

enum port_reach { PORT_NOT, PORT_DIRECT, PORT_LOOPBACK };

/* Can a connection to the guest's own addresses reach this listener? PORT_NOT: neither so nor by way of loopback. */
enum port_reach port_reach(const struct nettab *t, const uint8_t addr4[4], const uint8_t addr6[16]);
