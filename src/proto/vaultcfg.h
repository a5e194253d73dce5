/* What the launcher tells agent-vm-vault, and what it hears back.
 *
 * agent-vm-vault is started with these descriptors and no others:
 *   0 /dev/null  1, 2 the role's log
 *   3 SOCK_SEQPACKET to the launcher: READY or ERROR go up, PROBED and struct vault_listen come down; its end means
 *     that the launcher is gone
 *   4 the role's log
 *   5 SOCK_SEQPACKET to wire, 6 SOCK_SEQPACKET to gate (proto/netmsg.h)
 *   7 sealed memfd with the configuration: records VTC_*
 *   8... listening sockets and audit files, each named by its number in the record that it belongs to
 *
 * The configuration is the launcher's and trusted; it is checked to find a launcher of another build. */
#pragma once

#include <stdint.h>

#include "proto/netmsg.h"

#define VAULT_FD_CONFIG 7
#define VAULT_FD_EXTRA 8   /* first of those that records name */
#define VAULT_FDS_MAX 160  /* 64 publishes of both families, the audit files, and room */
#define VAULT_CONFIG_MAX (1 << 20)
#define VAULT_PUBLISH_MAX 128 /* sockets: 64 publishes, each on 127.0.0.1 and ::1 */
#define VAULT_LISTEN_MAX 64   /* sockets at one time by struct vault_listen */
#define VAULT_LISTEN_TEXT 64
#define VAULT_NAMED_MAX 256
#define VAULT_NAMED_ADDRS 32
#define VAULT_PROXY_ADDRS 8
#define VAULT_NO_PROXY_MAX 128

enum vaultcfg_flag {
	VAULT_NO_NETWORK = 1 << 0,
	VAULT_ALLOW_LAN = 1 << 1,
	VAULT_ALLOW_HOST = 1 << 2,
	VAULT_FLAGS_ALL = (1 << 3) - 1,
};

/* An address is 5 bytes (IPv4) or 17 (IPv6): its family, 4 or 6, and the bytes in network order. */
enum vaultcfg_key {
	VTC_FLAGS = 1,	/* u64 enum vaultcfg_flag */
	VTC_GUEST_MAC,	/* 6 bytes */
	VTC_MTU,	/* u64: 1500..65520 */
	VTC_RULE,	/* records NAME or ADDR and BITS; LO, HI, TCP, UDP */
	VTC_INSPECTED,	/* name, lower case: its answers carry no ECH, its addresses are looked into */
	VTC_NAMED,	/* records NAME, ADDR*: a name typed in a rule and what pre-flight found for it */
	VTC_PUBLISH,	/* records FD, PORT, UDP, TEXT ("127.0.0.1:3000") */
	VTC_PROXY,	/* records ADDR+, PORT, TEXT (as shown, no user or password), AUTH, NO_PROXY* */
	VTC_AUDIT,	/* records FD, OLD_FD: audit.jsonl and audit.jsonl.1, O_RDWR | O_APPEND */
	VTC_PROBE,	/* the session's random value for the self-probe */
	VTC_LENT,	/* u64 PH_BIT of each kind */
	VTC_OPENED,	/* records PROV, BITS: --api PROVIDER=CLASS */
	VTC_SOURCE,	/* records KIND (enum source_kind), FD (its folder, O_PATH or O_RDONLY), NAME (the file in it), PROGRAM? (u64 1:
			 * the launcher knows a program that renews it); GUARD* */
	VTC_ENV,	/* records KIND (enum ph_kind), FD (a pipe: the secret, then its end); of the user's environment or of gh.
			 * Kinds may share a pipe: one answer of gh is for GitHub and for Copilot */
	VTC_CONNECT_TO, /* records NAME, PORT, ADDR, TO_PORT: AGENT_VM_CONNECT_TO */
	VTC_TRUST,	/* records FD*: PEM files or memfds with the certificates that upstream servers are trusted by */
	/* inside the records above */
	VTC_NAME = 32,	/* string */
	VTC_ADDR,
	VTC_BITS,	/* u64 */
	VTC_LO,
	VTC_HI,
	VTC_TCP,	/* u64 0 or 1 */
	VTC_UDP,
	VTC_FD,		/* u64 */
	VTC_OLD_FD,
	VTC_PORT,
	VTC_TEXT,
	VTC_AUTH,	/* "user:password", percent-decoded */
	VTC_NO_PROXY,	/* one entry: "*", NAME, IP or CIDR, each with an optional port as in NAME:PORT */
	VTC_PROV,	/* u64 enum prov */
	VTC_KIND,	/* u64 */
	VTC_TO_PORT,
	VTC_PROGRAM,
	VTC_GUARD,	/* 16 bytes: st_dev and st_ino (u64 each) of a folder that a guest can write: no login file may lie below it */
};

#define VAULT_SOURCES_MAX 4
#define VAULT_SOURCE_NAME 255
#define VAULT_TRUST_MAX 64
#define VAULT_CONNECT_TO_MAX 32
#define VAULT_GUARDS_MAX 80 /* as many folders as a guest can have: GC_BINDS_MAX */

/* Renewals: vault asks, the launcher does it and answers each message with one; at most one per provider is under way. */
enum vault_renew_act {
	VAULT_RENEW_LOCK,   /* try once; answer: result 0 or -errno, age_ms of the stamp */
	VAULT_RENEW_RUN,    /* write the stamp, run the program to its end; answer: result as of renew_run() */
	VAULT_RENEW_UNLOCK, /* no answer */
};

struct vault_renew {
	uint8_t what; /* NET_CTL_RENEW */
	uint8_t prov; /* PROV_ANTHROPIC or PROV_OPENAI */
	uint8_t act;  /* enum vault_renew_act */
	uint8_t program; /* enum renew_program, for RUN */
};

#define VAULT_RENEW_ERRORS 2048

struct vault_renewed {
	uint8_t what; /* NET_CTL_RENEWED */
	uint8_t prov, act, zero;
	int32_t result;
	int64_t age_ms; /* -1: none */
	char errors[VAULT_RENEW_ERRORS]; /* what the program said last on stderr, for the log and through its filter; zeros behind it */
};

/* Answers of one place that held a login and were overwritten, so far (vault/echoes.h). */
struct vault_echo {
	uint8_t what; /* NET_CTL_ECHO */
	uint8_t host; /* enum prov_host_id; HOSTS: of all other places, with an empty path */
	uint16_t zero;
	uint32_t n; /* hits, not 0 */
	char path[NET_NOTE_PATH]; /* template; zeros behind it */
};

/* Down on fd 3, any number of times while the session runs: publish one more TCP port of the guest. The listening socket
 * comes with it. It ends by shutdown(2) of the launcher's copy; connections live on. */
struct vault_listen {
	uint16_t port;			/* of the guest */
	char listen[VAULT_LISTEN_TEXT]; /* "127.0.0.1:3000", for the audit; ends with a NUL, zeros behind it */
};

/* On fd 3 enum net_control of proto/netmsg.h goes up. The text of NET_CTL_READY says which families the host has, and so the
 * guest gets: "ipv4", "ipv6", "ipv4 ipv6"; and behind a space the policy_digest() of what is in force. With VTC_PROBE the
 * launcher says NET_CTL_PROBED once; refusals before it are marked as the self-probe's in the audit. */
