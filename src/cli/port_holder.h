/* Who has a port of this host. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * port_holder() - The program that keeps us from a port
 * @family:	AF_INET or AF_INET6
 * @addr:	The address that we wanted
 *
 * Seen are one's own programs, and as root all.
 *
 * Return: "nginx (pid 12)", escaped, caller owns; NULL when it cannot be seen
 */
char *port_holder(int family, const void *addr, uint16_t port, bool udp);
