/* A process that can be named beyond the life of its pid: pid, start time, boot and pid namespace. A signal goes only to
 * a process of which all four are as recorded, through a pidfd, so a pid that was used again is never hit. Nothing is
 * found by a process's name. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BOOT_ID_LEN 36

struct proc_id {
	pid_t pid;
	uint64_t start;		       /* field 22 of /proc/PID/stat, clock ticks since boot */
	char boot_id[BOOT_ID_LEN + 1]; /* /proc/sys/kernel/random/boot_id */
	uint64_t pid_ns;	       /* inode of /proc/self/ns/pid of who recorded */
};

/* This process; 0 or a negative errno. */
int proc_id_self(struct proc_id *ret);

/**
 * proc_id_of() - A process of our pid namespace, such as a child that was just started
 *
 * Return: 0; -ESRCH when there is none
 */
int proc_id_of(pid_t pid, struct proc_id *ret);

/**
 * proc_id_open() - A pidfd for the process that was recorded
 *
 * Return: descriptor that the caller owns; -ESRCH when that process is gone (its pid may be another's by now);
 * -EXDEV when it was recorded in another pid namespace, where its pid says nothing to us
 */
int proc_id_open(const struct proc_id *id);

/* Ended, as far as this pid namespace can tell; false for one of another namespace on the same boot. */
bool proc_id_is_gone(const struct proc_id *id);

/* Wait until all of @pidfds are ended, entries of -1 skipped; 0, or -ETIMEDOUT. */
int pidfd_wait_all(const int *pidfds, size_t n, int timeout_ms);
