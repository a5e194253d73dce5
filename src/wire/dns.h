/* The guest's DNS questions: parsed here and nowhere else, strictly; vault gets a checked name and numbers. */
#pragma once

#include "wire/flow.h"

#define DNS_IDLE_MS 10000u
#define DNS_HEAD 12u

enum dns_rcode { DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NOTIMP = 4, DNS_REFUSED = 5, DNS_BADVERS = 16 };

struct dns_question {
	uint16_t id, qtype;
	uint16_t size; /* that the asker takes over UDP, 512..4096 */
	uint8_t rd, cd, ad, dnssec_ok, edns;
	uint8_t name_len;
	uint8_t name[255]; /* as written, wire form */
	size_t question;   /* bytes of the question section, 0 when it could not be read */
};

/**
 * dns_parse() - Read a question
 * @ret:	id is set unless it is -EBADMSG; all else only for DNS_NOERROR
 *
 * One question of class IN, nothing else but one OPT of version 0 (RFC 1035 section 4.1, RFC 6891).
 *
 * Return: enum dns_rcode; what is not DNS_NOERROR is to be answered so. -EBADMSG: too short or no question, to be dropped
 */
int dns_parse(const uint8_t *p, size_t n, struct dns_question *ret);

/* A datagram to the gateway's port 53. */
void dns_udp(struct wire *w, uint8_t family, uint16_t gport, const uint8_t *p, size_t n);
/* vault's answer. */
void dns_answer(struct wire *w, uint32_t slot, uint32_t gen, uint8_t *p, size_t n);

/* DNS over TCP: a flow of 32 at most; bytes came into its store, or the guest's FIN; nothing for 10 s. */
bool dns_conn_room(const struct wire *w);
void dns_conn_open(struct wire *w, struct flow *f);
void dns_conn_data(struct wire *w, struct flow *f);
void dns_conn_idle(struct wire *w, struct flow *f);
