/* --auto-publish: what listens in the guest becomes a port of this host's loopback (network page 9.3).
 *
 * The guest only says that a port number is open or closed. Which port of the host that becomes, how many there are, and
 * how fast they may change, is decided here, so a guest that lies gets 32 loopback ports above 1023 at most, none of them
 * one that a service of this host is expected on.
 *
 * The launcher opens the sockets, keeps a copy of each, and hands them to the vault. It ends one by shutdown(2), which takes
 * effect at once for all who hold it: the port is free again whatever the vault does. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/ports.h"

#define AUTOPUB_MAX 32
#define AUTOPUB_NEXT 100 /* ports behind the guest's own that are tried before any other */

struct autopub;

/**
 * autopub_new() - Begin
 * @vault_fd:	Where struct vault_listen goes; borrowed
 * @taken:	What --publish opens: ports of the guest that are reachable already; kept
 */
struct autopub *autopub_new(int vault_fd, const struct ports *taken);
/* Closes what is open. NULL is fine. */
void autopub_free(struct autopub *a);

/**
 * autopub_change() - The guest says that something listens on a port, or no longer does
 * @port:	0 with @open false: nothing listens any more
 * @ret_changed: What is published is not as before
 *
 * Return: what to tell the user, without "==> ", caller owns; NULL: nothing
 */
char *autopub_change(struct autopub *a, uint16_t port, bool open, int64_t now, bool *ret_changed);

/* The sessions' list of ports as it is now, one text each ("127.0.0.1:3000->3000/tcp"). */
void autopub_list(const struct autopub *a, struct strv *ret);

enum autopub_why { AUTOPUB_SAME, AUTOPUB_IN_USE, AUTOPUB_KEPT };

/**
 * autopub_choose() - Which port of the host?
 * @try:	Opens it: 0, or a negative errno; port 0 stands for any
 *
 * Its own, else the next that can be had of AUTOPUB_NEXT, else any; those on which people expect a service of this host
 * never. Pure but for @try.
 *
 * Return: 0 and @ret_why; what @try said last
 */
int autopub_choose(uint16_t port, int (*try)(uint16_t, void *), void *arg, enum autopub_why *ret_why);
