/* What the parts of wire share: the tables, and the two ways in which a flow waits (queues and timers). How it all works is
 * at the head of wire.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ev/ev.h"
#include "proto/netmsg.h"
#include "wire/pkt.h"
#include "wire/pool.h"

/* Slots of all kinds stand in one table, so that a number in a message says what it is. */
#define TCP_SLOTS 16384u
#define UDP_SLOTS 1024u
#define ECHO_SLOTS 32u
#define UDP_FIRST TCP_SLOTS
#define ECHO_FIRST (UDP_FIRST + UDP_SLOTS)
#define FLOWS (ECHO_FIRST + ECHO_SLOTS)
#define DNS_FIRST FLOWS
#define DNS_SLOTS 256u
#define DNS_CONNS 32u
#define UDP_PEERS 256u

#define TCP_ASKED_MAX 512u
#define INBOUND_MAX 512u /* published connections that vault lets wait for our answer */
#define TCP_ASKED_ADDR_MAX 128u
#define UDP_ASKED_MAX 64u

#define HASH_SIZE 32768u /* buckets, power of two, above the number of flows */
#define WHEEL_SIZE 1024u /* slots of WHEEL_MS */
#define WHEEL_MS 10u

#define FRAME_MAX 65550u /* that we take */
#define FRAME_SKIP (1u << 20)
#define LINK_LEN 4u
#define RX_READ (4u * (65520u + ETH_LEN + LINK_LEN)) /* whole frames of a guest that sends at full speed */
#define TX_FRAMES 256u
#define TX_IOV 1024u
#define TX_BYTES (512u << 10)
#define TX_HDR 96u
#define TX_STAGE (192u << 10) /* bytes of a batch that have no other home */
#define SMALL_N 256u
#define SMALL_LEN 224u

/* A unix socket is "writable again" each time that its peer reads: that is waited for only when a write was refused. */
#define WIRE_WATCH_IN (EPOLLIN | EPOLLET)
#define WIRE_WATCH_OUT (EPOLLIN | EPOLLOUT | EPOLLET)

enum ev_kind { EV_CONTROL, EV_LINK, EV_VAULT, EV_GATE, EV_FLOW, EV_KINDS };

enum flow_kind { FLOW_NONE, FLOW_TCP, FLOW_UDP, FLOW_ECHO };

enum flow_state {
	ST_FREE,
	ST_ASKED,    /* vault was asked */
	ST_SYN_RCVD, /* SYN-ACK sent */
	ST_SYN_SENT, /* to a published port */
	ST_OPEN,
	ST_TIME_WAIT,
	ST_REFUSED, /* UDP, echo: vault's "no" is repeated until due */
	ST_DEAD,    /* freed in the pass after the batch, when vault knows */
};

/* Where a flow waits. */
enum flow_queue { Q_NONE, Q_READY, Q_LINK, Q_POOL, Q_TIME_WAIT, Q_DEAD, QUEUES };

enum flow_flag {
	F_HOST_IN = 1 << 0,    /* its socket may have bytes */
	F_HOST_FULL = 1 << 1,  /* it takes none */
	F_READ_ON = 1 << 2,    /* a short read is not the end: hang-up or urgent data was announced */
	F_GUEST_FIN = 1 << 3,
	F_FIN_PASSED = 1 << 4,
	F_HOST_EOF = 1 << 5,
	F_FIN_ACKED = 1 << 6,
	F_FIN_FIRST = 1 << 7,  /* ours was sent before the guest's came */
	F_HOST_RST = 1 << 8,   /* reset when what was read is delivered */
	F_OWE_ACK = 1 << 9,
	F_OWE_SYN = 1 << 10,   /* SYN or SYN-ACK by the state */
	F_SCALE = 1 << 11,
	F_INSPECT = 1 << 12,   /* the socket is a pair whose other end is gate's */
	F_HELD = 1 << 13,
	F_INBOUND = 1 << 14,
	F_DNS = 1 << 15,       /* DNS over TCP: no socket */
	F_RECOVER = 1 << 16,
	F_PROBE = 1 << 17,     /* a probe is due or under way */
	F_TOLD = 1 << 18,      /* vault counts this flow: ENDED is owed at its end */
	F_OWE_CANCEL = 1 << 19,
	F_OWE_ENDED = 1 << 20,
	F_ASKED = 1 << 21,     /* the question went to vault */
	F_UP = 1 << 22,	       /* UDP: datagrams were seen this way */
	F_DOWN = 1 << 23,
	F_ACK_LATER = 1 << 24, /* an acknowledgement waits for an answer to ride on, 10 ms at most */
};

struct flow {
	uint8_t kind, state, queue, family;
	uint32_t gen, flags;
	int fd;
	uint16_t rport, gport; /* echo: rport 0, gport the identifier */
	uint8_t raddr[16];

	uint16_t hash_next, qprev, qnext, tprev, tnext, tslot; /* index + 1 */
	uint16_t asked_at;	/* bucket of the count of questions to this address */
	uint32_t due;		/* ms; 0: no timer */
	uint32_t wheel_due;
	uint32_t active, born;	/* ms */
	uint64_t up, down;	/* payload */
	uint32_t in_slot, in_gen; /* of INBOUND */

	uint32_t irs, iss;
	uint32_t rcv_nxt, rcv_adv;
	uint32_t snd_una, snd_nxt, snd_max, snd_wnd;
	uint32_t recover, rex_wnd, rex_una;
	uint32_t una_ms;   /* since when the first byte waits */
	uint32_t rex_ms;   /* of the last retransmission */
	uint32_t rst_by;   /* F_HOST_RST: at the latest */
	uint64_t written;  /* to the socket, ever */
	struct cq ring, store;
	struct cq ooo;	  /* one run of bytes behind a gap */
	uint32_t ooo_seq; /* its first */
	uint16_t mss, rto;
	uint8_t scale, dups, tries, drained, end;
	uint8_t dns;	   /* index of the DNS connection */
	uint8_t held_dgrams;
	uint8_t pingpong;  /* answers that came soon after what they answer; PINGPONG_OFF: waiting for one was in vain */
	uint32_t ack_ms;   /* of the last bytes up */
	uint8_t dup_acks;  /* owed besides F_OWE_ACK, for segments out of order: 3 of them start a fast retransmit */
};
static_assert(sizeof(struct flow) <= 256, "a slot is at most 256 bytes");

struct queue {
	uint16_t head, tail;
	uint32_t n;
};

/* A frame of the batch: what to take back if the link did not want it. */
enum tx_what { TX_KEEP, TX_FLOW };
struct tx_frame {
	uint8_t what, fin;
	uint16_t slot;
	uint32_t gen, seq, max, len; /* flow: first byte, snd_max before */
	uint16_t iov, n_iov;
	uint32_t bytes;
};

struct small {
	uint16_t len;
	uint8_t b[SMALL_LEN];
};

enum counter {
	C_FRAME_LEN, C_ETH_TYPE, C_ETH_ADDR, C_IP_SRC, C_IP_DST, C_IP_HEAD, C_IP_OPTIONS, C_GROUP, C_FRAG, C_TCP_HEAD, C_ND,
	C_UDP_HEAD, C_ICMP, C_ICMP_LIMIT, C_SMALL_FULL, C_SYN_LIMIT, C_TABLE_FULL, C_POOL_FULL, C_POOL_RESET, C_UDP_FULL, C_DNS,
	C_LACK, COUNTERS
};

struct dns_ask {
	bool used;
	bool tcp;
	uint8_t family, conn;
	uint16_t id, gport, qtype, size;
	uint32_t gen, conn_gen, asked; /* ms */
	uint8_t name_len, edns;
	uint8_t name[255]; /* as the guest wrote it */
};

struct dns_conn {
	uint16_t flow; /* index + 1 */
	uint8_t open;  /* questions under way */
	uint32_t gen;
};

struct udp_peer {
	bool used;
	uint16_t gport;
	uint32_t seen;
};

#define FRAG_SETS 16u
#define FRAG_DATA 65536u
struct frag_set {
	bool used;
	uint8_t family, proto;
	uint32_t id, born;
	uint32_t total, have, max; /* bytes; total 0: the last fragment is missing; max: end of the furthest */
	uint8_t dst[16];
	uint8_t map[FRAG_DATA / 64]; /* a bit each 8 bytes */
};

struct wire {
	struct ev ev;
	int control, link, vault, gate;
	uint32_t now;	/* ms */
	int64_t now_ns, base_ns;
	bool configured, over;
	const char *why; /* over: NULL for a plain end */
	struct net_config cfg;
	bool v4_on, v6_on;
	uint32_t max_flows;
	uint64_t key[2];

	/* link */
	bool link_in, link_hup, link_full;
	uint32_t link_since; /* ms: since when it takes frames */
	size_t rx_n, rx_skip;
	size_t rest_n, rest_at;
	unsigned int tx_n, tx_iov_n, tx_hdr_n;
	size_t tx_bytes, stage_n;
	unsigned int small_head, small_n;
	uint32_t icmp_second, icmp_n;

	/* vault */
	bool vault_in, vault_full;
	uint32_t done_head, n_done;
	struct net_opened done[INBOUND_MAX]; /* owed to vault: what became of published connections */
	bool gate_in;

	/* up: neighbouring segments of one flow */
	uint16_t gather; /* slot + 1 */
	int gather_iov;
	size_t gather_n;

	uint32_t n_fresh[4], n_flows[4], n_asked, n_udp_asked, n_echo_asked;
	uint32_t scan_ms, pressure_ms, echo_second, echo_n;
	uint64_t trim_taken;
	uint32_t trim_ms;
	uint16_t ephemeral;
	uint64_t count[COUNTERS];
	uint32_t log_ms[COUNTERS];
	struct queue q[QUEUES], free[4];
	uint32_t wheel_now; /* ms / WHEEL_MS of the last slot that was run */
	uint32_t n_timers;
	uint64_t wheel_map[WHEEL_SIZE / 64];
	uint16_t wheel[WHEEL_SIZE];
	uint16_t asked_count[4096];
	struct pool pool;
	struct dns_conn conn[DNS_CONNS];
	struct udp_peer peer[UDP_PEERS];
	uint32_t dns_gen;
	uint16_t ip_id;
	uint32_t frag_id;

	struct tx_frame tx[TX_FRAMES];
	struct iovec tx_iov[TX_IOV];
	struct iovec gather_v[64];
	uint16_t hash[HASH_SIZE];
	struct dns_ask ask[DNS_SLOTS];
	struct frag_set frag[FRAG_SETS];
	struct flow flow[FLOWS];

	/* bytes; never read before they were written */
	uint8_t tx_hdr[TX_FRAMES][TX_HDR];
	struct small small[SMALL_N];
	uint8_t stage[TX_STAGE];
	uint8_t rest[TX_STAGE + TX_FRAMES * TX_HDR + SMALL_N * SMALL_LEN + FRAME_MAX + LINK_LEN];
	uint8_t rx[RX_READ];
	uint8_t msg[sizeof(struct net_datagram) + NET_DNS_MAX + 64];
	uint8_t scratch[65536] __attribute__((aligned(16)));
	uint8_t frag_data[FRAG_SETS][FRAG_DATA];
};

/**
 * wire_init() - Begin with descriptors that are open; nothing is read from the link before CONFIG came
 * @w:		Zeroed
 * @gate, @control:	-1 if there is none
 * @key:	Random, of this session
 * @max_flows:	TCP flows, at most TCP_SLOTS
 *
 * The descriptors stay the caller's.
 *
 * Return: 0 or a negative errno
 */
int wire_init(struct wire *w, int link, int vault, int gate, int control, const uint64_t key[2], uint32_t max_flows);
/* Resets every flow on both sides; makes no call that the sandbox refuses. */
void wire_done(struct wire *w);
/* The same, and gives the memory back: for callers that live on. */
void wire_free(struct wire *w);

/* An event of the loop, then the work that it made: to be called once a batch, also when there were no events. */
void wire_event(struct wire *w, const struct ev_event *e);
void wire_turn(struct wire *w, int64_t now_ns);
/* When to call wire_turn() with no event: now_ns() time, 0 for at once, negative for never. */
int64_t wire_until(const struct wire *w);

/* End the session; the first cause counts. NULL: the other side of something is gone, in order. */
void wire_over(struct wire *w, const char *why);
/* Count; log the first and then at most one line a minute. */
void wire_count(struct wire *w, enum counter c);

/* Queues of flows. */
void flow_queue(struct wire *w, struct flow *f, enum flow_queue q);
/* To Q_READY, unless it waits for the link. */
void flow_wake(struct wire *w, struct flow *f);
/* Set the timer to @ms; 0: none. */
void flow_due(struct wire *w, struct flow *f, uint32_t ms);

static inline uint16_t flow_slot(const struct wire *w, const struct flow *f)
{
	return (uint16_t)(f - w->flow);
}

static inline int32_t seq_diff(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b);
}

static inline size_t addr_len(uint8_t family)
{
	return family == NET_V4 ? 4 : 16;
}
