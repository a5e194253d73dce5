/* What the launcher tells agent-vm-gate, and what it hears back.
 *
 * agent-vm-gate is started with these descriptors and no others:
 *   0 /dev/null  1, 2 the role's log
 *   3 SOCK_SEQPACKET to the launcher: CA and READY, or ERROR, go up; its end means that the launcher is gone
 *   4 the role's log
 *   5 SOCK_SEQPACKET to wire, 6 SOCK_SEQPACKET to vault (proto/netmsg.h)
 *   7 sealed memfd with the configuration: records GTC_*
 *
 * The key of the session's root is made by gate, before its sandbox is shut, and never leaves it. Seed and lent kinds are
 * the same for vault: both draw the set of placeholders from them (proto/placeholder.h). */
#pragma once

#define GATE_FD_WIRE 5
#define GATE_FD_VAULT 6
#define GATE_FD_CONFIG 7
#define GATE_CONFIG_MAX (1 << 20)

enum gatecfg_key {
	GTC_SEED = 1, /* PH_SEED bytes */
	GTC_LENT,     /* u64 PH_BIT of each kind */
	GTC_OPENED,   /* records GTC_PROV, GTC_BITS: --api PROVIDER=CLASS */
	GTC_SESSION,  /* string: the session's name, for the subject of the root */
	GTC_PROV,     /* u64 enum prov */
	GTC_BITS,     /* u64 1 << enum prov_class */
	GTC_GITHUB,   /* records GTC_REPO (each repository of the list), GTC_SWITCHES, GTC_PUSH_REFS: both once, or as by default */
	GTC_REPO,     /* string: OWNER/NAME=LEVEL (proto/ghrepo.h) */
	GTC_SWITCHES, /* u64 GH_SWITCH_BIT of each that is on */
	GTC_PUSH_REFS, /* string: globs with commas between them */
};
