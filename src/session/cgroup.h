/* A cgroup (version 2) of the session's own, with limits of memory and processes: what holds a monitor that the guest has
 * taken over from using the host up. Only where one is delegated: nobody is asked for it, and a session without one runs
 * as well.
 *
 * The place is the nearest folder above our own group in which this user may make groups. That folder is then also the
 * common ancestor of both, whose cgroup.procs the kernel wants to be writable for a move (cgroup-v2.txt, "Delegation
 * Containment").
 *
 * The group's name is the session's. session.json has its path before it is made, so whoever clears a dead session away
 * finds it, whatever group he himself is in. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define CGROUP_TOP "/sys/fs/cgroup"

struct cgroup_place {
	char *path;  /* of the folder */
	bool enable; /* memory and pids must be passed on to groups in it first */
};

void cgroup_place_done(struct cgroup_place *p);

/**
 * cgroup_find() - Where this process may make a group with limits; nothing is changed
 *
 * Return: 0; -EOPNOTSUPP: no version 2 here, -EACCES: nothing is delegated, -ENODEV: something is, but without memory or
 * pids; @err says what to do
 */
int cgroup_find(struct cgroup_place *ret, struct err *err);

/* The same for the folder @top of that file system and our group @own ("/a/b") in it. For tests, where @top is any folder. */
int cgroup_find_in(const char *top, const char *own, struct cgroup_place *ret, struct err *err);

struct cgroup_limits {
	uint64_t memory_bytes, pids;
};

/**
 * cgroup_make() - Make the group @name with its limits
 *
 * When memory runs out all of the group is killed together: half a VM is of no use.
 *
 * Return: its folder's descriptor for clone3(2), caller owns; negative errno with @err set, and then it is not there
 */
int cgroup_make(const struct cgroup_place *p, const char *name, const struct cgroup_limits *l, struct err *err);

/**
 * cgroup_drop() - Remove a group, and end what is left in it
 * @path:	As it was recorded; its last component must be @name, a session's
 *
 * Return: 0, also when it was not there; -EINVAL for another path, -EBUSY when processes in it do not end
 */
int cgroup_drop(const char *path, const char *name);

/* Did the kernel kill in it because memory.max was reached? */
bool cgroup_ran_out(const char *path);
