/* Headers on the link, as RFC 826, 791, 8200, 792, 4443, 4861, 768 and 9293 draw them. Packed: frames stand at any address. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PKT __attribute__((packed))

#define ETH_LEN 14
#define ETH_IP4 0x0800
#define ETH_ARP 0x0806
#define ETH_IP6 0x86dd
#define IP4_LEN 20
#define IP6_LEN 40
#define TCP_LEN 20
#define UDP_LEN 8
#define ICMP_LEN 8
#define FRAG6_LEN 8

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_FRAG6 44
#define PROTO_ICMP6 58

#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OFF 0x1fff

struct PKT eth_hdr {
	uint8_t dst[6], src[6];
	uint16_t type;
};

struct PKT arp_pkt {
	uint16_t hw, proto;
	uint8_t hw_len, proto_len;
	uint16_t op;
	uint8_t sha[6], spa[4], tha[6], tpa[4];
};

struct PKT ip4_hdr {
	uint8_t vihl, tos;
	uint16_t len, id, frag;
	uint8_t ttl, proto;
	uint16_t sum;
	uint8_t src[4], dst[4];
};

struct PKT ip6_hdr {
	uint32_t vtf;
	uint16_t len;
	uint8_t next, hops;
	uint8_t src[16], dst[16];
};

struct PKT frag6_hdr {
	uint8_t next, zero;
	uint16_t off; /* 13 bits of offset in units of 8, then reserved 2, then M */
	uint32_t id;
};

struct PKT tcp_hdr {
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t off, flags;
	uint16_t win, sum, urg;
};

#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_PSH 0x08
#define TH_ACK 0x10
#define TH_URG 0x20

struct PKT udp_hdr {
	uint16_t sport, dport, len, sum;
};

struct PKT icmp_hdr {
	uint8_t type, code;
	uint16_t sum;
	uint16_t id, seq;
};

struct PKT nd_hdr {
	uint8_t type, code;
	uint16_t sum;
	uint32_t flags;
	uint8_t target[16];
};

static_assert(sizeof(struct eth_hdr) == ETH_LEN && sizeof(struct arp_pkt) == 28 && sizeof(struct ip4_hdr) == IP4_LEN &&
		      sizeof(struct ip6_hdr) == IP6_LEN && sizeof(struct frag6_hdr) == FRAG6_LEN &&
		      sizeof(struct tcp_hdr) == TCP_LEN && sizeof(struct udp_hdr) == UDP_LEN &&
		      sizeof(struct icmp_hdr) == ICMP_LEN && sizeof(struct nd_hdr) == 24,
	      "headers have no holes");

static inline uint16_t be16(uint16_t v)
{
	return __builtin_bswap16(v);
}

static inline uint32_t be32(uint32_t v)
{
	return __builtin_bswap32(v);
}

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}
