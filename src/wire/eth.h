/* Ethernet and ARP: one neighbour, the guest, and one address that is asked for, the gateway. */
#pragma once

#include "wire/wire.h"

/* A frame of the guest; @n at least ETH_LEN. */
void eth_input(struct wire *w, const uint8_t *p, size_t n);
/* Header of a frame to the guest; returns what follows it. */
uint8_t *eth_put(const struct wire *w, uint8_t *p, uint16_t type);
