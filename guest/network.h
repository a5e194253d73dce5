/* The guest's end of the network: static addresses, no DHCP, no router advertisements (network page 1). */
#pragma once

#include "base/err.h"
#include "guest/config.h"

/* Brings "lo" up; errors do not matter, a program that needs it will say so. */
void network_loopback(void);

/**
 * network_up() - Give an interface its addresses, permanent neighbours and default routes, and bring it up
 * @ifname:	"eth0"
 *
 * The interface must be new: what is there already is an error.
 *
 * Return: 0 or a negative errno with @err set
 */
int network_up(const char *ifname, const struct config_net *net, struct err *err);
