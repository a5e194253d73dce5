/* CONFIG (proto/guestcfg.h) in parsed form. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "proto/guestcfg.h"

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

struct config_rule {
	enum guestcfg_rule kind;
	struct span keys[GC_KEYS_MAX]; /* borrowed from the records, as the value is; plain UTF-8 */
	size_t n_keys;
	struct span value; /* empty: there is none */
	char *with;	   /* NULL: always */
};

/* A file of the state. */
struct config_state {
	char *path; /* relative, without "." and ".." */
	enum guestcfg_form form;
	struct span content; /* borrowed */
	char *target;	     /* GC_FORM_LINK */
	struct config_rule *rules;
	size_t n_rules;
};

/* Databases of an agent; see guest/dbs.h. Names of one component. */
struct config_db {
	char *name;   /* GC_PATH */
	char *folder; /* GC_SUB */
	char *link;   /* GC_LINK; may be NULL */
};

/* Network order; bits 0: the family is not given. */
struct config_net {
	uint32_t mtu; /* 0: no network */
	uint8_t gateway_mac[6];
	uint8_t bits4, bits6;
	uint8_t addr4[4], gateway4[4];
	uint8_t addr6[16], gateway6[16];
};

/* Published ports; see guest/ports.h. */
struct config_ports {
	bool wanted, automatic;
	uint16_t v[GC_PORTS_MAX];
	size_t n;
};

/* What to try for the self-probe. */
struct config_probe {
	bool tcp;
	uint8_t family; /* 4 or 6 */
	uint8_t addr[16];
	uint16_t port;
	struct span say; /* borrowed from the records */
};

/* What is to be trusted. Borrowed from the records. */
struct config_ca {
	struct span own, host; /* PEM; empty: none */
	uint32_t hash;
};

struct config {
	uint64_t flags;
	uint64_t root_bytes; /* 0: not said */
	char *hostname, *root, *root_fs, *share_tag;
	struct config_net net;
	struct config_ports ports;
	struct config_probe probes[GC_PROBES_MAX];
	size_t n_probes;
	uint64_t probe_ms;
	struct config_ca ca;
	struct config_bind *binds;
	struct config_link *links;
	struct config_file *files;
	struct config_dir *dirs;
	struct config_state *states;
	struct config_db dbs[GC_DBS_MAX];
	struct span live[GC_LIVE_MAX]; /* names of other sessions; borrowed from the records */
	size_t n_binds, n_links, n_files, n_dirs, n_states, n_dbs, n_live;
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
