/* The launcher's order to agent-vm-vmm (proto/vmmcfg.h) in parsed form. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "base/str.h"
#include "proto/vmmcfg.h"

struct vmm_share {
	char *path;
	bool ro;
	struct strv guard_ro, guard_self, guard_rw, hide; /* relative to path */
};

struct vmm_config {
	enum vmm_monitor monitor;
	uint32_t ram_mib, cpus;
	enum vmm_need namespaces;
	uint8_t mac[6];
	char *label;
	char *libkrun, *libkrunfw, *qemu, *virtiofsd;
	char *kernel; /* libkrunfw's as an ELF file, for libkrun; NULL: from libkrunfw itself */
	char *boot_dir, *boot_image;
	char *disk, *disk_base;
	char *work_dir;
	struct vmm_share *shares;
	size_t n_shares;
};

/**
 * vmm_config_parse() - Read the launcher's records
 *
 * Return: 0; -EBADMSG with @err set when a key is unknown, missing for the monitor, or out of range
 */
int vmm_config_parse(struct span in, struct vmm_config *ret, struct err *err);
void vmm_config_done(struct vmm_config *cfg);
