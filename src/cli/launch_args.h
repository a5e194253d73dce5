/* What a launch verb was asked for, as text that has been checked for its form; and the checks that need only text and
 * facts of this host. The launch itself adds what it finds in the world to the same list of problems. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/agent.h"
#include "base/str.h"
#include "cli/cmd.h"

#define LAUNCH_MEMORY_MIN_MIB 256
#define LAUNCH_DISK_DEFAULT_MIB (16 * 1024)
/* The guest grows its file system at each start: 2 TiB take 18 s under emulation, 8 TiB minutes. */
#define LAUNCH_DISK_MAX_MIB (UINT64_C(2) << 20)

struct launch_args {
	/* set by main */
	const char *verb;          /* claude codex opencode copilot shell */
	const struct agent *agent; /* of the verb */
	char **agent_part;         /* verbatim, NULL-terminated, never NULL */
	bool agent_part_dashes;    /* a "--" in front of it was removed */

	/* machine; 0: not given, launch_resources() has the default */
	uint64_t memory_mib, disk_mib;
	unsigned cpus;
	const char *vmm;   /* "krun", "qemu" or NULL: probe */
	const char *image; /* --image, else AGENT_VM_IMAGE_TAG, else NULL: the default of the store */

	/* files */
	struct strv mounts, hide, expose;
	bool no_hide;

	/* git */
	const char *git_dir;    /* "auto", "none"; never NULL after launch_check() */
	const char *git_config; /* "ro", "rw"; likewise */
	bool no_git;
	struct strv repos, github, api;

	/* network */
	struct strv publish, allow_egress, allow_ssh;
	bool auto_publish, allow_lan, allow_host, no_network, trust_host_ca;

	/* guest and the rest */
	struct strv env; /* as typed; launch_check() turns NAME into NAME=VALUE of the host's */
	int log_level; /* AGENT_VM_LOG: what is also shown before the agent starts, enum log_level */
	bool no_update_check, no_host_settings, no_hook, quiet;
};

extern const struct opt launch_opts[];

/* Facts of the host that defaults and limits come from. */
struct host_facts {
	uint64_t memory_mib;
	unsigned cpus; /* that we may use: affinity and cgroup quota counted */
};

/* @root: "" outside of tests; /proc and /sys are looked for below it. What cannot be read is as if unlimited. */
void host_facts_read(const char *root, struct host_facts *ret);

/**
 * launch_check() - Everything about @args that text and host facts can tell
 * @getenv_fn:	How to look up a variable, getenv() itself outside of tests
 *
 * Fills in variables (AGENT_VM_MEMORY_GIB, AGENT_VM_CPUS, AGENT_VM_IMAGE_TAG) where the option was not given, and the
 * defaults that need no probe. Mistakes go to cli->problems at the words they are about. Not looked at: --mount, --hide,
 * --expose, whether a path, port, name or image exists.
 */
void launch_check(struct cli *cli, struct launch_args *args, const struct host_facts *host,
		  char *(*getenv_fn)(const char *));

/* Memory, cpus and disk in force: what was asked for, else the default, which is smaller under emulation. */
struct launch_resources {
	uint64_t memory_mib, disk_mib;
	unsigned cpus;
};

struct launch_resources launch_resources(const struct launch_args *args, const struct host_facts *host, bool emulated);

/* The notes of cli.md section 1, one string each without the newline; empty with --quiet. */
void launch_hints(const struct launch_args *args, struct strv *ret);

/* Warnings about what was asked for, likewise; --quiet does not silence them. */
void launch_warnings(const struct launch_args *args, struct strv *ret);

/* The launch (launch.c). */
int launch_run(struct cli *cli, void *args, char **rest);
