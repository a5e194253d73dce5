/* Messages between wire, gate, vault and launcher (network page 6).
 *
 * Each pair of processes has one SOCK_SEQPACKET socket pair. A message is one fixed struct, little endian as x86 and arm64
 * are, that begins with struct net_head; DNS and datagrams carry bytes behind it, as many as head.length says. Even types
 * ask, odd ones answer the type below. At most one descriptor comes with a message, only where the table says so.
 *
 * Unknown type or version, a wrong length, a second answer, a descriptor where none belongs, MSG_CTRUNC: the receiver ends
 * the session. Every field is checked as if the sender were hostile. */
#pragma once

#include <assert.h>
#include <stdint.h>

#define NET_VERSION 1

#define NET_FD_CONTROL 3 /* to the launcher: ready, log lines, the end */
#define NET_FD_LOG 4
/* wire */
#define NET_FD_LINK 5  /* SOCK_STREAM to the monitor: 4-byte big-endian length and an Ethernet frame */
#define NET_FD_VAULT 6 /* wire's and gate's end towards vault */
#define NET_FD_GATE 7  /* wire's end towards gate */
/* gate: NET_FD_VAULT and below (proto/gatecfg.h) */
/* vault */
#define NET_FD_WIRE 5
#define NET_FD_TO_GATE 6

/* On the control socket, a byte and then text without a NUL. */
enum net_control {
	NET_CTL_READY = 1, /* the sandbox is shut and the configuration is in force */
	NET_CTL_ERROR = 2, /* why it ends; exit status 1 follows */
	NET_CTL_PROBED = 3, /* launcher to vault, no text: the self-probe is over, what comes now is the agent's */
	NET_CTL_CA = 4,	    /* gate to launcher, before READY: the session's root certificate: its OpenSSL subject hash, four bytes,
			     * the lowest first, as the link in /etc/ssl/certs is called by; then DER */
	NET_CTL_RENEW = 5,  /* vault to launcher: struct vault_renew of proto/vaultcfg.h */
	NET_CTL_RENEWED = 6, /* launcher to vault: struct vault_renewed */
	NET_CTL_VIOLATIONS = 7, /* vault to launcher, once a host: enum prov_host_id in one byte (vault/violations.h) */
	NET_CTL_ECHO = 8,   /* vault to launcher: struct vault_echo */
	NET_CTL_GH = 9,	    /* enum ph_kind in one byte. Vault to launcher: GitHub refused that kind's token, which may be gh's, or there is
			     * none. Launcher to vault, with the reading end of a pipe: what gh says now, then its end */
	NET_CTL_NO_TOKEN = 10, /* vault to launcher: enum ph_kind in one byte, the first of those of a login file; a request needed it and
				* the host had none, or gh gave nothing that can be lent for it, or GitHub refuses what it gave */
};

/* CLOSE and ENDED name flows of wire; those that began with INBOUND by that message's slot with this bit, and its
 * generation. */
#define NET_SLOT_INBOUND 0x80000000u

enum net_type {
	/* wire to vault */
	NET_OPEN_TCP = 0x10, /* struct net_open */
	NET_TCP_OPENED = 0x11, /* struct net_opened; descriptor when the verdict is CONNECTED or INSPECT */
	NET_OPEN_UDP = 0x12,
	NET_UDP_OPENED = 0x13,
	NET_OPEN_ECHO = 0x14,
	NET_ECHO_OPENED = 0x15,
	NET_DNS_ASK = 0x16, /* struct net_dns_ask */
	NET_DNS_ANSWER = 0x17, /* struct net_dns_answer and the bytes */
	NET_CANCEL = 0x18,  /* head alone; no answer, and none to the open either */
	NET_ENDED = 0x1a,   /* struct net_ended; no answer */
	/* vault to wire */
	NET_INBOUND = 0x20, /* struct net_inbound; descriptor: the accepted connection */
	NET_INBOUND_DONE = 0x21, /* struct net_opened with TAKEN, REFUSED or FAILED */
	NET_UDP_IN = 0x22,  /* struct net_datagram and the bytes; no answer */
	NET_UDP_OUT = 0x24, /* wire to vault, the same */
	NET_CONFIG = 0x26,  /* struct net_config; once, before the first frame is read */
	NET_CONFIGURED = 0x27, /* head alone */
	NET_CLOSE = 0x28,   /* head alone: reset the flow */
	NET_FAMILY = 0x2a,  /* struct net_family */
	/* vault to gate, gate to vault, gate to wire. Slot and generation are those of wire's flow, but for RENEW and NOTE. */
	NET_PEEK = 0x40,     /* struct net_peek; descriptor: the far end of what wire got with INSPECT; DIAL or INSPECTED may follow */
	NET_DIAL = 0x42,     /* struct net_dial: gate steps aside, connect to what the guest dialled */
	NET_DIALLED = 0x43,  /* struct net_dialled; descriptor with CONNECTED */
	NET_RENEW = 0x44,    /* struct net_renew: a token endpoint was asked; slot and generation of gate's exchange */
	NET_RENEWED = 0x45,  /* struct net_renewed */
	NET_NOTE = 0x46,     /* struct net_note: gate answered by itself; no answer */
	NET_INSPECTED = 0x48, /* head alone: gate answers that flow, which is not tied, by itself; no answer */
	NET_HOLD = 0x50,     /* head alone: write no more to the pair */
	NET_HELD = 0x51,     /* struct net_held */
	NET_HANDOVER = 0x52, /* head alone; descriptor: the socket that takes the pair's place */
	NET_RESET = 0x54,    /* head alone: reset the flow */
};

struct net_head {
	uint16_t version, type;
	uint32_t length; /* of the whole message */
	uint32_t slot, generation; /* the asker's; the answer repeats them */
};

enum net_family_id { NET_V4 = 4, NET_V6 = 6 };

struct net_addr {
	uint8_t family; /* enum net_family_id */
	uint8_t zero[3];
	uint8_t b[16]; /* IPv4: the first four, the rest zero */
};

struct net_open {
	struct net_head head;
	struct net_addr dst;
	uint16_t port, guest_port; /* 0 for echo */
};

enum net_outcome {
	NET_CONNECTED, /* descriptor: the socket, connected, non-blocking */
	NET_INSPECT,   /* descriptor: one end of a stream pair whose other end is gate's */
	NET_REFUSED,   /* by policy */
	NET_FAILED,    /* error says how */
	NET_TAKEN,     /* an inbound connection's handshake is done */
	NET_OUTCOMES
};

struct net_opened {
	struct net_head head;
	uint32_t outcome; /* enum net_outcome */
	uint32_t error;	  /* positive errno of Linux for NET_FAILED, else 0 */
	uint32_t step;	  /* enum policy_step, for the counters */
	uint32_t hold_s;  /* UDP and echo: a refusal that wire may repeat itself for so long */
};

struct net_dns_ask {
	struct net_head head;
	uint16_t qtype;
	uint16_t size;	    /* largest answer that the guest takes: 512..65535 */
	uint8_t rd, cd, ad, dnssec_ok; /* 0 or 1 */
	uint8_t tcp;	    /* asked over TCP */
	uint8_t name_len;   /* of name, 1..255 */
	uint8_t name[255];  /* wire form, lower case, no compression, with the root label; zeros behind it */
	uint8_t edns;	    /* the question had an OPT, so the answer may have one */
	uint8_t zero[2];
};

#define NET_DNS_MAX 65535
#define NET_DATAGRAM_MAX 65507

/* Followed by a whole DNS message whose ID is 0; wire puts the guest's in. */
struct net_dns_answer {
	struct net_head head;
	uint32_t bytes;
};

enum net_end { NET_END_FIN, NET_END_RST_GUEST, NET_END_RST_HOST, NET_END_IDLE, NET_END_EVICTED, NET_END_ERROR, NET_ENDS };

struct net_ended {
	struct net_head head;
	uint64_t up, down; /* bytes of payload */
	uint32_t ms;
	uint32_t how; /* enum net_end */
};

struct net_inbound {
	struct net_head head;
	uint16_t port; /* of the guest */
	uint8_t family; /* first to try: enum net_family_id; wire tries the other one after a refusal */
	uint8_t zero;
};

/* Published UDP. */
struct net_datagram {
	struct net_head head;
	uint32_t peer;	/* a number of vault's; wire never sees the address */
	uint16_t port;	/* of the guest */
	uint16_t bytes;
};

struct net_config {
	struct net_head head;
	uint8_t guest_mac[6], gateway_mac[6];
	uint8_t guest4[4], gateway4[4];
	uint8_t guest6[16], gateway6[16];
	uint16_t mtu;
	uint8_t ipv6;	    /* 0: the guest has none */
	uint8_t no_network; /* 1: every frame is read and dropped */
};

/* Bytes that wire ever wrote to the pair; none follow until HANDOVER. */
struct net_held {
	struct net_head head;
	uint64_t bytes;
};

struct net_peek {
	struct net_head head;
	uint16_t port; /* that the guest dialled */
	uint8_t tied;  /* 1: vault gave this address out for an inspected name, so what cannot be judged is not passed on */
	uint8_t named; /* 1: a rule of the user's names this port */
	uint8_t zero[4];
};

#define NET_DIAL_NAME 256

/* The name in the first bytes, lower case, zeros behind it; empty: none. vault compares it with names, no more. */
struct net_dial {
	struct net_head head;
	char name[NET_DIAL_NAME];
};

struct net_dialled {
	struct net_head head;
	uint32_t outcome; /* NET_CONNECTED, NET_REFUSED or NET_FAILED */
	uint32_t error;	  /* positive errno for NET_FAILED, else 0 */
};

struct net_renew {
	struct net_head head;
	uint8_t kind; /* enum ph_kind: PH_CLAUDE_R, PH_CODEX_R or PH_OPENCODE_R */
	uint8_t zero[7];
};

#define NET_SCOPE_MAX 1024

/* struct token_values; texts end with a NUL, zeros behind it. */
struct net_renewed {
	struct net_head head;
	int64_t expires_in, exp; /* seconds */
	uint32_t lack;		 /* enum token_lack; with another than TOKEN_LACK_NONE all else is zero */
	uint8_t fedramp;
	uint8_t zero[3];
	char account_id[72], plan[48];
	char scope[NET_SCOPE_MAX];
};

#define NET_NOTE_PATH 120

/* A request that never went to vault, for the record. */
struct net_note {
	struct net_head head;
	uint64_t up, down; /* bytes of body */
	uint32_t ms;
	uint16_t status;
	uint8_t host;	/* enum prov_host_id */
	uint8_t method; /* enum prov_method, METHODS: none */
	uint8_t code;	/* enum refusal_code; REFUSAL_NONE: answered, not refused */
	uint8_t kind;	/* enum ph_kind, or 0xff */
	uint8_t zero[6];
	char path[NET_NOTE_PATH]; /* template: no query, ids cut; zeros behind it */
};

struct net_family {
	struct net_head head;
	uint8_t ipv4, ipv6; /* 0: opens of it fail at once with no route */
	uint8_t zero[2];
};

static_assert(sizeof(struct net_head) == 16 && sizeof(struct net_addr) == 20 && sizeof(struct net_open) == 40 &&
		      sizeof(struct net_opened) == 32 && sizeof(struct net_dns_ask) == 284 &&
		      sizeof(struct net_dns_answer) == 20 && sizeof(struct net_ended) == 40 &&
		      sizeof(struct net_inbound) == 20 && sizeof(struct net_datagram) == 24 &&
		      sizeof(struct net_config) == 72 && sizeof(struct net_family) == 20 &&
		      sizeof(struct net_held) == 24 && sizeof(struct net_peek) == 24 && sizeof(struct net_dialled) == 24 &&
		      sizeof(struct net_dial) == 272 &&
		      sizeof(struct net_renew) == 24 && sizeof(struct net_renewed) == 1184 && sizeof(struct net_note) == 168,
	      "messages have no holes");
