/* DNS messages: a strict parser and an encoder (RFC 1035, 3597, 6891, 9460). Pure: bytes in, records out, and back.
 *
 * An answer of a resolver is parsed whole into records whose names are whole and whose known types are understood, and is
 * encoded anew from these: nothing that we did not understand as a part of the form reaches the guest. Types that are not
 * known pass as opaque bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "vault/addr.h"

#define DNS_NAME_MAX 255 /* RFC 1035 section 2.3.4, in wire form with the root label */
#define DNS_TEXT_MAX 254 /* as text with its NUL, without the dot at the end */
#define DNS_RRS_MAX 2048
#define DNS_ARENA_MAX (256 << 10) /* names and data of one message, unpacked; a name of 2 bytes can stand for 255 */

enum dns_type {
	DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_NULL = 10, DNS_PTR = 12, DNS_HINFO = 13, DNS_MX = 15,
	DNS_TXT = 16, DNS_AAAA = 28, DNS_SRV = 33, DNS_DNAME = 39, DNS_OPT = 41, DNS_RRSIG = 46, DNS_SVCB = 64,
	DNS_HTTPS = 65, DNS_IXFR = 251, DNS_AXFR = 252, DNS_ANY = 255,
};

enum dns_rcode { DNS_NOERROR, DNS_FORMERR, DNS_SERVFAIL, DNS_NXDOMAIN, DNS_NOTIMP, DNS_REFUSED };

enum dns_section { DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL, DNS_SECTIONS };

/* A name in wire form: length bytes and labels with the root label, lower case where we made it so. */
struct dns_name {
	uint8_t n; /* 1..255 */
	uint8_t b[DNS_NAME_MAX];
};

struct dns_rr {
	uint8_t section; /* enum dns_section */
	uint8_t name_n;
	uint16_t type, class;
	uint32_t ttl;
	uint32_t name, data; /* offsets in the arena; names in data are whole and follow each other as the type says */
	uint32_t data_n;
};

struct dns_msg {
	uint16_t id;
	bool qr, tc, rd, ra, ad, cd, aa;
	uint8_t opcode;
	uint16_t rcode; /* with the upper bits of OPT */
	bool has_question, has_opt, dnssec_ok;
	uint16_t udp_size; /* of OPT */
	struct dns_name qname; /* as sent */
	uint16_t qtype, qclass;
	struct dns_rr rr[DNS_RRS_MAX];
	size_t n_rr;
	uint8_t arena[DNS_ARENA_MAX];
	size_t arena_n;
};

/**
 * dns_parse() - Read one whole message
 * @m:	Overwritten, also on failure
 *
 * At most one question and one OPT; class IN only, except for OPT; trailing bytes are an error. Of OPT the size, the DO
 * bit and the upper bits of the code are kept, its options are not.
 *
 * Return: 0; -EBADMSG
 */
int dns_parse(struct span in, struct dns_msg *m);

/* Begin an answer to a question: no records, rcode 0, recursion available. */
void dns_begin(struct dns_msg *m, const struct dns_name *qname, uint16_t qtype);

/* Append a record whose data is in whole form; 0, -ENOBUFS. */
int dns_add(struct dns_msg *m, enum dns_section section, const struct dns_name *name, uint16_t type, uint32_t ttl,
	    const void *data, size_t n);

struct dns_encode {
	size_t size; /* at most 65535 */
	bool edns;   /* with OPT */
	int extended; /* extended error (RFC 8914), -1: none */
	const char *reason; /* of it; may be NULL */
};

/**
 * dns_encode() - Write the message
 * @out:	Room for @how->size bytes
 *
 * Names are compressed. Records that do not fit are left out from the first such one on, and TC is set. The ID is the
 * message's.
 *
 * Return: bytes, at least 12; -ENOBUFS when not even head, question and OPT fit
 */
int dns_encode(const struct dns_msg *m, const struct dns_encode *how, uint8_t *out);

/* A question for a resolver, with OPT of 1232 bytes (RFC 9715: no fragments) at its end. Its length; @out has 300 bytes. */
size_t dns_question(const struct dns_name *qname, uint16_t qtype, uint16_t id, bool rd, bool cd, bool ad, bool dnssec_ok,
		    uint8_t *out);

/* One name in wire form without compression, all of @in: labels of 1..63 bytes, the root label last. 0 or -EBADMSG. */
int dns_name_check(struct span in, struct dns_name *ret);
/* Text such as "www.example.org" (no dot at the end, "" is the root). 0 or -EINVAL. */
int dns_name_from_text(const char *s, struct dns_name *ret);
/* The form in which names are compared with rules: lower case, and no dot at the end. False when a label holds a dot, a NUL
 * or another byte that makes it no host name; then it can match no rule. @ret is always usable for people. */
bool dns_name_to_text(const struct dns_name *n, char ret[DNS_TEXT_MAX * 4 + 1]);
bool dns_name_equal(const struct dns_name *a, const struct dns_name *b); /* whatever the case */
void dns_name_lower(struct dns_name *n);

struct dns_name dns_rr_name(const struct dns_msg *m, const struct dns_rr *rr);
/* The name at the front of the data of CNAME, DNAME, NS, PTR. */
int dns_rr_target(const struct dns_msg *m, const struct dns_rr *rr, struct dns_name *ret);
/* The address of A and AAAA. */
bool dns_rr_addr(const struct dns_msg *m, const struct dns_rr *rr, struct addr *ret);

/**
 * dns_svcb_hints() - Keep or drop each address hint of an HTTPS or SVCB record, in place
 * @keep:	Asked for each address
 *
 * Return: how many were dropped
 */
size_t dns_svcb_hints(struct dns_msg *m, struct dns_rr *rr, bool (*keep)(void *ctx, const struct addr *a), void *ctx);

const char *dns_type_str(uint16_t type, char buf[12]);
const char *dns_rcode_str(uint16_t rcode);
