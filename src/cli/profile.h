/* AGENT_VM_PROFILE: one line a phase after the end (spec/cli.md section 17). */
#pragma once

#include <stdint.h>

#include "cli/run.h"

/* Moments of the launcher itself, now_ns(); 0: did not happen. The rest is in run_times() and run_phases(). */
struct profile {
	int64_t start, parsed, preflight, image, spawned, probe, down, reported, cleaned;
	int64_t cpu_before_vmm_ns; /* launcher's own, user and system */
};

/* 0: off, 1: lines, 2: one line of JSON. By the variable's rule: set to anything but 0, false, no, off is on. */
int profile_wanted(void);
/* CPU time of this process so far, nanoseconds. */
int64_t profile_cpu_ns(void);
/* @r may be NULL when no monitor was started. */
void profile_print(const struct profile *p, const struct run *r, int mode);
