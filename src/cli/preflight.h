/* Everything that can be known before anything is written: the plan of a launch, or all that is wrong with it. */
#pragma once

#include "cli/ghlist.h"
#include "cli/gitid.h"
#include "cli/host_settings.h"
#include "cli/launch_args.h"
#include "cli/network.h"
#include "image/store.h"
#include "proto/vmmcfg.h"
#include "session/layout.h"
#include "session/project.h"
#include "session/root.h"

struct plan {
	const struct launch_args *args; /* kept */
	char *root_path;
	char *home;
	struct project project;
	struct layout layout;
	struct launch_resources res;
	enum vmm_monitor monitor;
	bool probed_now;      /* KVM was seen to work just now */
	bool libkrunfw_new, libkrun_new; /* were seen to be good just now */
	char *kvm_reason;     /* why /dev/kvm cannot run a guest; NULL when it can or was not asked */
	uint32_t ns_kinds;    /* enum ns_kind */
	bool namespaces;      /* a full set of them works */
	struct image image;
	char *pull; /* reference to pull before the start, because it is not stored; then image is empty. NULL: none */
	char *image_role; /* agent-vm-image; NULL when it was not found and is not needed */
	char *kernel; /* libkrunfw's as a file; made by the launch, NULL when that failed */
	char *vmm_path, *libkrun, *libkrunfw, *qemu, *virtiofsd, *boot_dir, *boot_image;
	struct gitid gitid;
	struct host_settings settings; /* of the user's own; taken by the launch */
	bool alone, others_known;      /* no other session of the project lives; found by the launch */
	struct strv others;	       /* names of those that do */
	struct network_plan net;
	struct creds creds;
	struct ghlist github;
	struct upstream upstream;
	uint8_t mac[6]; /* the guest's */
	struct strv warnings, notes; /* texts to print when the launch goes on */
	struct strv argv;	     /* what runs in the guest */
};

#define PLAN_INIT(a) (struct plan){ .args = (a), .project = PROJECT_INIT, .image.disk_fd = -1 }

/* The part of it that decides what the guest may reach: project, list, logins, network. After launch_check(), which has looked at
 * @args; netplan_end() is the caller's. */
void preflight_policy(struct cli *cli, struct launch_args *args, struct plan *p);

/* HOME, else what passwd has; links resolved. Caller owns; NULL: none. */
char *preflight_home(void);

/**
 * preflight() - Make the plan; every mistake goes to cli->problems
 *
 * Looks at the host and writes nothing. plan_done() in any case.
 */
void preflight(struct cli *cli, struct launch_args *args, struct plan *ret);
void plan_done(struct plan *p);

/* What is wrong with the stored image for this plan: no bash in it, a disk larger than --disk. 0 or -EINVAL with @err set. */
int plan_image_fits(const struct plan *p, struct err *err);
