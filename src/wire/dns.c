#include "wire/dns.h"

#include <errno.h>

#include "base/macros.h"
#include "base/span.h"
#include "wire/link.h"
#include "wire/tcp.h"
#include "wire/udp.h"
#include "wire/vaultlink.h"

#define QR 0x80
#define OPCODE 0x78
#define RD 0x01
#define AD 0x20
#define CD 0x10
#define CLASS_IN 1
#define TYPE_OPT 41
#define EDNS_DO 0x8000
#define UDP_PLAIN 512
#define UDP_LARGEST 4096
#define CONN_QUESTIONS 16
#define ASK_MS 10000u /* vault answers within 4 s; a question that it forgot does not keep its place */

static int be(struct span *s, uint16_t *ret)
{
	struct span two;

	if (span_take(s, 2, &two) < 0)
		return -EBADMSG;
	*ret = get16(two.p);
	return 0;
}

/* A name without compression; its root label included. */
static int name(struct span *s, struct dns_question *q)
{
	struct span label;
	size_t n = 0;
	uint8_t len;

	do {
		if (span_u8(s, &len) < 0 || len > 63 || n + 1 + len > sizeof(q->name) || span_take(s, len, &label) < 0)
			return -EBADMSG;
		q->name[n++] = len;
		memcpy(q->name + n, label.p, len);
		n += len;
	} while (len > 0);
	q->name_len = (uint8_t)n;
	return 0;
}

/* OPT is all that may follow. */
static int additional(struct span *s, struct dns_question *q)
{
	struct span rdata, opt;
	uint16_t type, size, version, flags, len, code;
	uint8_t root;

	if (span_u8(s, &root) < 0 || root != 0 || be(s, &type) < 0 || type != TYPE_OPT || be(s, &size) < 0 ||
	    be(s, &version) < 0 || be(s, &flags) < 0 || be(s, &len) < 0 || span_take(s, len, &rdata) < 0)
		return DNS_FORMERR;
	while (rdata.n > 0)
		if (be(&rdata, &code) < 0 || be(&rdata, &len) < 0 || span_take(&rdata, len, &opt) < 0)
			return DNS_FORMERR;
	q->edns = 1;
	q->dnssec_ok = (flags & EDNS_DO) != 0;
	q->size = (uint16_t)MAX(UDP_PLAIN, MIN(size, UDP_LARGEST));
	/* The upper byte is the extended code, which a question has none of. */
	return version & 0xff ? DNS_BADVERS : DNS_NOERROR;
}

int dns_parse(const uint8_t *p, size_t n, struct dns_question *ret)
{
	struct span s = SPAN(p, n), head;
	uint16_t qtype, qclass;
	int r = DNS_NOERROR;

	if (n < DNS_HEAD || p[2] & QR)
		return -EBADMSG;
	*ret = (struct dns_question){ .id = get16(p), .rd = p[2] & RD, .ad = (p[3] & AD) != 0, .cd = (p[3] & CD) != 0,
				      .size = UDP_PLAIN };
	if (p[2] & OPCODE)
		return DNS_NOTIMP;
	(void)span_take(&s, DNS_HEAD, &head);
	if (get16(p + 4) != 1 || get16(p + 6) != 0 || get16(p + 8) != 0 || get16(p + 10) > 1)
		return DNS_FORMERR;
	if (name(&s, ret) < 0 || be(&s, &qtype) < 0 || be(&s, &qclass) < 0)
		return DNS_FORMERR;
	ret->qtype = qtype;
	ret->question = n - DNS_HEAD - s.n;
	if (get16(p + 10) == 1)
		r = additional(&s, ret);
	if (r == DNS_FORMERR || s.n != 0)
		return DNS_FORMERR;
	if (r == DNS_NOERROR && (qclass != CLASS_IN || qtype == TYPE_OPT))
		return DNS_NOTIMP;
	return r;
}

/* An answer of our own: head, the question if it could be read, an OPT if there was one. */
static size_t error_answer(const struct dns_question *q, const uint8_t *p, int rcode, uint8_t *out)
{
	size_t n = DNS_HEAD;

	memset(out, 0, DNS_HEAD);
	put16(out, q->id);
	out[2] = (uint8_t)(QR | (p[2] & OPCODE) | (p[2] & RD));
	out[3] = (uint8_t)(0x80 | (p[3] & CD) | (rcode & 15));
	if (q->question) {
		out[5] = 1;
		memcpy(out + n, p + DNS_HEAD, q->question);
		n += q->question;
	}
	if (q->edns) {
		out[11] = 1;
		memset(out + n, 0, 11);
		put16(out + n + 1, TYPE_OPT);
		put16(out + n + 3, UDP_LARGEST);
		out[n + 5] = (uint8_t)(rcode >> 4);
		n += 11;
	}
	return n;
}

static struct dns_ask *ask_new(struct wire *w, uint32_t *ret_slot)
{
	struct dns_ask *old = NULL;

	for (uint32_t i = 0; i < DNS_SLOTS; i++) {
		struct dns_ask *a = &w->ask[i];

		if (a->used && w->now - a->asked > ASK_MS)
			old = a;
		if (a->used)
			continue;
		*ret_slot = DNS_FIRST + i;
		return a;
	}
	if (old)
		*ret_slot = DNS_FIRST + (uint32_t)(old - w->ask);
	return old;
}

/* Asks vault. 0, or the code to answer with. */
static int ask(struct wire *w, const struct dns_question *q, uint8_t family, uint16_t gport, const struct flow *conn)
{
	uint32_t slot = 0;
	struct dns_ask *a = ask_new(w, &slot);
	struct net_dns_ask m = { .head = { NET_VERSION, NET_DNS_ASK, sizeof(m), 0, 0 }, .qtype = q->qtype,
				 .size = conn ? NET_DNS_MAX : q->size, .rd = q->rd, .cd = q->cd, .ad = q->ad,
				 .dnssec_ok = q->dnssec_ok, .tcp = conn != NULL, .name_len = q->name_len, .edns = q->edns };

	if (!a) {
		wire_count(w, C_DNS);
		return DNS_SERVFAIL;
	}
	for (size_t i = 0; i < q->name_len; i++)
		m.name[i] = q->name[i] >= 'A' && q->name[i] <= 'Z' ? q->name[i] | 0x20 : q->name[i];
	m.head.slot = slot;
	m.head.generation = w->dns_gen + 1;
	if (!vault_dns(w, &m))
		return DNS_SERVFAIL;
	if (a->used && a->tcp && w->conn[a->conn].gen == a->conn_gen)
		w->conn[a->conn].open--;
	*a = (struct dns_ask){ .used = true, .tcp = conn != NULL, .family = family, .id = q->id, .gport = gport,
			       .qtype = q->qtype, .size = m.size, .gen = ++w->dns_gen, .asked = w->now, .name_len = q->name_len,
			       .edns = q->edns };
	memcpy(a->name, q->name, q->name_len);
	if (conn) {
		a->conn = conn->dns;
		a->conn_gen = w->conn[conn->dns].gen;
		w->conn[conn->dns].open++;
	}
	return DNS_NOERROR;
}

static void say_udp(struct wire *w, uint8_t family, uint16_t gport, const uint8_t *p, size_t n)
{
	struct peer from = ip_gateway(w, family);
	uint8_t *m = link_stage(w, UDP_LEN + n);

	if (!m)
		return;
	memcpy(m + UDP_LEN, p, n);
	udp_send(w, &from, 53, gport, m + UDP_LEN, n);
}

void dns_udp(struct wire *w, uint8_t family, uint16_t gport, const uint8_t *p, size_t n)
{
	uint8_t out[DNS_HEAD + 255 + 4 + 11];
	struct dns_question q;
	int r = dns_parse(p, n, &q);

	if (r < 0) {
		wire_count(w, C_DNS);
		return;
	}
	if (r == DNS_NOERROR)
		r = ask(w, &q, family, gport, NULL);
	if (r != DNS_NOERROR)
		say_udp(w, family, gport, out, error_answer(&q, p, r, out));
}

static bool say_tcp(struct wire *w, struct flow *f, const uint8_t *p, size_t n)
{
	uint8_t len[2];
	struct iovec iov[2] = { { len, 2 }, { (void *)(uintptr_t)p, n } };

	put16(len, (uint16_t)n);
	return tcp_say(w, f, iov, 2);
}

/* The guest asked no more and everything is answered. */
static void conn_check(struct wire *w, struct flow *f)
{
	if (f->flags & F_GUEST_FIN && w->conn[f->dns].open == 0)
		tcp_say_end(w, f);
}

void dns_answer(struct wire *w, uint32_t slot, uint32_t gen, uint8_t *p, size_t n)
{
	struct dns_ask *a = slot >= DNS_FIRST && slot < DNS_FIRST + DNS_SLOTS ? &w->ask[slot - DNS_FIRST] : NULL;
	struct dns_conn *c;
	struct flow *f;

	if (!a || n < DNS_HEAD || !(p[2] & QR) || p[0] || p[1]) {
		wire_over(w, "vault: a DNS answer that cannot be");
		return;
	}
	if (!a->used || a->gen != gen) {
		if (gen == 0 || gen > w->dns_gen)
			wire_over(w, "vault: a DNS answer to no question");
		return;
	}
	a->used = false;
	put16(p, a->id);
	/* The question as the guest wrote it: some stubs compare the case of the letters. */
	if (get16(p + 4) == 1 && n >= DNS_HEAD + a->name_len + 4u)
		memcpy(p + DNS_HEAD, a->name, a->name_len);
	if (!a->tcp) {
		if (n <= a->size)
			say_udp(w, a->family, a->gport, p, n);
		else
			wire_count(w, C_DNS);
		return;
	}
	c = &w->conn[a->conn];
	if (c->flow == 0 || c->gen != a->conn_gen)
		return;
	f = &w->flow[c->flow - 1];
	c->open--;
	if (!say_tcp(w, f, p, n)) {
		tcp_reset(w, f, NET_END_ERROR);
		return;
	}
	/* Questions that waited for room. */
	dns_conn_data(w, f);
}

bool dns_conn_room(const struct wire *w)
{
	for (unsigned int i = 0; i < DNS_CONNS; i++)
		if (w->conn[i].flow == 0)
			return true;
	return false;
}

void dns_conn_open(struct wire *w, struct flow *f)
{
	for (unsigned int i = 0; i < DNS_CONNS; i++)
		if (w->conn[i].flow == 0) {
			w->conn[i] = (struct dns_conn){ .flow = (uint16_t)(flow_slot(w, f) + 1), .gen = w->conn[i].gen + 1 };
			f->dns = (uint8_t)i;
			return;
		}
}

/* Bytes @at.. of the store; the caller knows that they are there. */
static void peek(const struct wire *w, const struct flow *f, size_t at, size_t n, uint8_t *out)
{
	struct iovec iov[3];
	int k;

	(void)cq_get(&w->pool, &f->store, at, n, iov, ARRAY_SIZE(iov), &k);
	for (int i = 0; i < k; i++) {
		memcpy(out, iov[i].iov_base, iov[i].iov_len);
		out += iov[i].iov_len;
	}
}

void dns_conn_data(struct wire *w, struct flow *f)
{
	uint8_t out[DNS_HEAD + 255 + 4 + 11], len[2];
	struct dns_question q;
	size_t n;
	int r;

	while (f->store.len >= 2 && w->conn[f->dns].open < CONN_QUESTIONS) {
		peek(w, f, 0, 2, len);
		n = get16(len);
		if (n == 0) {
			tcp_reset(w, f, NET_END_ERROR);
			return;
		}
		if (f->store.len < 2 + n)
			break;
		peek(w, f, 2, n, w->scratch);
		cq_consume(&w->pool, &f->store, POOL_UP, 2 + n);
		f->rst_by = w->now; /* of the last whole question */
		r = dns_parse(w->scratch, n, &q);
		if (r == DNS_NOERROR)
			r = ask(w, &q, f->family, f->gport, f);
		if (r < 0 || (r != DNS_NOERROR && !say_tcp(w, f, out, error_answer(&q, w->scratch, r, out)))) {
			tcp_reset(w, f, NET_END_ERROR);
			return;
		}
	}
	conn_check(w, f);
}

/* No whole question for 10 s: half a one is a reset, none is a plain end. */
void dns_conn_idle(struct wire *w, struct flow *f)
{
	if (w->conn[f->dns].open > 0)
		return;
	if (f->store.len > 0)
		tcp_reset(w, f, NET_END_IDLE);
	else
		tcp_say_end(w, f);
}
