/* Namespaces: which this user can have on this host, and a fork into a full set of them.
 *
 * Who gets what
 * - An ordinary user becomes root of a new user namespace: "0 UID 1", and behind it the sub-uid and sub-gid ranges that
 *   /etc/subuid and /etc/subgid give, when newuidmap and newgidmap are there and agree. Without them the single id alone.
 * - root keeps every id it has (identity map), so that only its capabilities end at the new namespace. Where user
 *   namespaces are refused to root, the other namespaces are made without one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* The same bits as enum cage_wall (proto/vmmcfg.h), which this module must not know; vmm/cage.c asserts it. */
enum ns_kind {
	NS_USER = 1 << 0,
	NS_MOUNT = 1 << 1,
	NS_NET = 1 << 2,
	NS_PID = 1 << 3,
	NS_SUBIDS = 1 << 6, /* more than one id is mapped */
};

/**
 * ns_probe() - Which namespaces can really be made here, by this user, now
 * @ret_kinds:	enum ns_kind bits
 * @why:	On failure the cause and the command that allows it
 *
 * Makes them all in a child of its own, with the id map, and mounts, clones and changes a mount in there: some hosts let
 * the namespace be made and then refuse everything in it (AppArmor's unprivileged_userns profile). Takes a few ms. The
 * caller must be single-threaded or at least hold no lock that a forked child needs.
 *
 * Return: 0 when mount, net and pid namespaces work (a cage with VMM_NS_USED can be built); negative errno
 */
int ns_probe(uint32_t *ret_kinds, struct err *why);

/**
 * ns_fork() - fork() whose child is process 1 of new user, mount, net, pid, ipc and uts namespaces
 * @inside:	False: a plain child in the host's namespaces with the same guarantee about the parent's death
 * @ret_kinds:	In the child, what was made; all mounts of the child are private
 * @ret_life:	In the child, a descriptor that is at its end when the parent is gone
 *
 * The child is ended by SIGKILL when the parent dies. It leads a session, so that kill(-pid) reaches what it starts
 * where there is no pid namespace. The parent becomes the subreaper of its descendants.
 *
 * Return: pid in the parent, 0 in the child, negative errno (in the parent only) with @err set
 */
pid_t ns_fork(bool inside, uint32_t *ret_kinds, int *ret_life, struct err *err);

/**
 * ns_tie() - Have the calling process killed when its parent dies
 * @life:	From ns_fork()
 *
 * To be called again after a change of credentials, which makes the kernel forget it. Ends the process if the parent is
 * gone already.
 */
void ns_tie(int life);
