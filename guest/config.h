/* CONFIG (proto/guestcfg.h) in parsed form. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct config_bind {
	char *sub, *tag; /* one of them */
	char *target;
	bool ro;
};

struct config_link {
	char *path, *target;
};

struct config_file {
	char *path;
	uint32_t mode;
	struct span content; /* borrowed from the records */
};

struct config_dir {
	char *path;
	uint32_t mode;
};

struct config {
	uint64_t clock_ns; /* 0: not said */
	uint64_t flags;
	uint64_t root_bytes; /* 0: not said */
	char *hostname, *root, *root_fs, *share_tag;
	struct config_bind *binds;
	struct config_link *links;
	struct config_file *files;
	struct config_dir *dirs;
	size_t n_binds, n_links, n_files, n_dirs;
};

/**
 * config_parse() - Read CONFIG
 *
 * Pure. Paths must be absolute and without "..", each record whole; binds are put in order, parents first.
 *
 * Return: 0; -EBADMSG or -ENOMEM with @err set. Free with config_done() in both cases
 */
int config_parse(struct span in, struct config *ret, struct err *err);
void config_done(struct config *c);
