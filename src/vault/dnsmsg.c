/* Layout (RFC 1035 section 4.1):
 *
 *   ID(2) flags(2) QD(2) AN(2) NS(2) AR(2)  question: name type(2) class(2)  records: name type(2) class(2) ttl(4) n(2) data
 *
 * What bounds a message: DNS_RRS_MAX records, DNS_ARENA_MAX bytes of unpacked names and data. A compression pointer must
 * point before the place where its own name began, so every name ends. */
#include "vault/dnsmsg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"

#define CLASS_IN 1
#define HEAD 12
#define OPT_FIXED 11
#define POINTS_MAX 128

#define FLAG_QR 0x8000
#define FLAG_AA 0x0400
#define FLAG_TC 0x0200
#define FLAG_RD 0x0100
#define FLAG_RA 0x0080
#define FLAG_AD 0x0020
#define FLAG_CD 0x0010

/* What data consists of: numbers are bytes as they are, n a name that may be compressed, N one that is not, * the rest. */
static const struct {
	uint16_t type;
	const char *form;
	bool squeeze; /* RFC 3597 section 4: only types of RFC 1035 may be compressed when written */
} forms[] = {
	{ DNS_A, "4", false }, { DNS_AAAA, "@", false }, /* @: 16 */
	{ DNS_NS, "n", true }, { 3, "n", true }, { 4, "n", true }, { DNS_CNAME, "n", true }, { 7, "n", true },
	{ 8, "n", true }, { 9, "n", true }, { DNS_PTR, "n", true }, { DNS_MX, "2n", true }, { 14, "nn", true },
	{ DNS_SOA, "nn$", true }, /* $: 20 */
	{ DNS_TXT, "t", false }, { DNS_HINFO, "t", false }, { 17, "nn", false }, { 18, "2n", false }, { 21, "2n", false },
	{ 26, "2nn", false }, { DNS_SRV, "6n", false }, { 36, "2n", false }, { DNS_DNAME, "n", false },
	{ DNS_SVCB, "2Ns", false }, { DNS_HTTPS, "2Ns", false },
};

static const char *form_of(uint16_t type, bool *ret_squeeze)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].type == type) {
			*ret_squeeze = forms[i].squeeze;
			return forms[i].form;
		}
	*ret_squeeze = false;
	return "*";
}

static size_t form_bytes(char c)
{
	return c == '@' ? 16 : c == '$' ? 20 : (size_t)(c - '0');
}

static int be16(struct span *s, uint16_t *ret)
{
	uint32_t u;

	if (span_be(s, 2, &u) < 0)
		return -EBADMSG;
	*ret = (uint16_t)u;
	return 0;
}

static void put16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/* A name at the front of @s, which is a part of the message @whole. @points: may it hold pointers? */
static int take_name(struct span whole, struct span *s, bool points, struct dns_name *ret)
{
	size_t at = (size_t)(s->p - whole.p), end = at + s->n, used = 0, lowest = at, n = 0;
	bool jumped = false;

	for (;;) {
		uint8_t c;

		if (at >= (jumped ? whole.n : end))
			return -EBADMSG;
		c = whole.p[at];
		if ((c & 0xc0) == 0xc0) {
			size_t to;

			if (!points || at + 1 >= (jumped ? whole.n : end))
				return -EBADMSG;
			to = (size_t)(c & 0x3f) << 8 | whole.p[at + 1];
			if (!jumped)
				used = at + 2 - (size_t)(s->p - whole.p);
			jumped = true;
			if (to >= lowest || to < HEAD)
				return -EBADMSG;
			at = lowest = to;
			continue;
		}
		if (c > 63 || n + 1 + c > DNS_NAME_MAX || at + 1 + c > (jumped ? whole.n : end))
			return -EBADMSG;
		memcpy(ret->b + n, whole.p + at, 1u + c);
		n += 1u + c;
		at += 1u + c;
		if (c == 0)
			break;
	}
	if (!jumped)
		used = at - (size_t)(s->p - whole.p);
	ret->n = (uint8_t)n;
	s->p += used;
	s->n -= used;
	return 0;
}

static int keep(struct dns_msg *m, const void *p, size_t n)
{
	if (n > DNS_ARENA_MAX - m->arena_n)
		return -EBADMSG;
	memcpy(m->arena + m->arena_n, p, n);
	m->arena_n += n;
	return 0;
}

/* RFC 9460 section 2.2: keys ascend, each once. */
static int check_params(struct span s)
{
	int last = -1;

	while (s.n > 0) {
		uint16_t key = 0, n = 0;
		struct span v;

		if (be16(&s, &key) < 0 || be16(&s, &n) < 0 || span_take(&s, n, &v) < 0 || key <= last)
			return -EBADMSG;
		if ((key == 4 && (n == 0 || n % 4 != 0)) || (key == 6 && (n == 0 || n % 16 != 0)))
			return -EBADMSG;
		last = key;
	}
	return 0;
}

static int check_strings(struct span s)
{
	struct span v;
	uint8_t n;

	if (s.n == 0)
		return -EBADMSG;
	while (s.n > 0)
		if (span_u8(&s, &n) < 0 || span_take(&s, n, &v) < 0)
			return -EBADMSG;
	return 0;
}

static int take_data(struct span whole, struct span s, struct dns_msg *m, struct dns_rr *rr)
{
	struct dns_name name = { 0 };
	bool squeeze;
	struct span v;
	int r = 0;

	rr->data = (uint32_t)m->arena_n;
	for (const char *f = form_of(rr->type, &squeeze); *f && r == 0; f++) {
		switch (*f) {
		case 'n':
		case 'N':
			r = take_name(whole, &s, *f == 'n', &name);
			if (r == 0)
				r = keep(m, name.b, name.n);
			break;
		case 't':
		case 's':
			r = *f == 't' ? check_strings(s) : check_params(s);
			__attribute__((fallthrough));
		case '*':
			if (r == 0)
				r = keep(m, s.p, s.n);
			s.n = 0;
			break;
		default:
			r = span_take(&s, form_bytes(*f), &v);
			if (r == 0)
				r = keep(m, v.p, v.n);
		}
	}
	rr->data_n = (uint32_t)m->arena_n - rr->data;
	/* A name of 2 bytes can become 255: the data of one record still has to fit the 16 bits of its length. */
	return r < 0 || s.n != 0 || rr->data_n > UINT16_MAX ? -EBADMSG : 0;
}

static int take_opt(struct dns_msg *m, const struct dns_name *name, uint16_t class, uint32_t ttl, struct span data)
{
	uint16_t code, n = 0;
	struct span v;

	if (m->has_opt || name->n != 1 || (ttl >> 16 & 0xff) != 0)
		return -EBADMSG;
	while (data.n > 0)
		if (be16(&data, &code) < 0 || be16(&data, &n) < 0 || span_take(&data, n, &v) < 0)
			return -EBADMSG;
	m->has_opt = true;
	m->udp_size = class;
	m->dnssec_ok = ttl & 0x8000;
	m->rcode |= (uint16_t)(ttl >> 24 << 4);
	return 0;
}

static int take_rr(struct span whole, struct span *s, enum dns_section section, struct dns_msg *m)
{
	struct dns_rr rr = { .section = section };
	struct dns_name name = { 0 };
	struct span data;
	uint16_t n = 0;

	if (take_name(whole, s, true, &name) < 0 || be16(s, &rr.type) < 0 || be16(s, &rr.class) < 0 ||
	    span_be(s, 4, &rr.ttl) < 0 || be16(s, &n) < 0 || span_take(s, n, &data) < 0)
		return -EBADMSG;
	if (rr.type == DNS_OPT)
		return section == DNS_ADDITIONAL ? take_opt(m, &name, rr.class, rr.ttl, data) : -EBADMSG;
	if (rr.class != CLASS_IN || m->n_rr >= DNS_RRS_MAX)
		return -EBADMSG;
	if (rr.ttl > INT32_MAX) /* RFC 2181 section 8 */
		rr.ttl = 0;
	rr.name = (uint32_t)m->arena_n;
	rr.name_n = name.n;
	if (keep(m, name.b, name.n) < 0 || take_data(whole, data, m, &rr) < 0)
		return -EBADMSG;
	m->rr[m->n_rr++] = rr;
	return 0;
}

int dns_parse(struct span in, struct dns_msg *m)
{
	struct span whole = in;
	uint16_t flags = 0, count[4] = { 0 };

	/* Not the records and the arena: they are large, and only what is counted is read. */
	memset(m, 0, offsetof(struct dns_msg, rr));
	m->n_rr = m->arena_n = 0;
	if (in.n > UINT16_MAX || be16(&in, &m->id) < 0 || be16(&in, &flags) < 0)
		return -EBADMSG;
	for (size_t i = 0; i < 4; i++)
		if (be16(&in, &count[i]) < 0)
			return -EBADMSG;
	m->qr = flags & FLAG_QR;
	m->aa = flags & FLAG_AA;
	m->tc = flags & FLAG_TC;
	m->rd = flags & FLAG_RD;
	m->ra = flags & FLAG_RA;
	m->ad = flags & FLAG_AD;
	m->cd = flags & FLAG_CD;
	m->opcode = flags >> 11 & 15;
	m->rcode = flags & 15;
	if (count[0] > 1)
		return -EBADMSG;
	if (count[0] == 1) {
		if (take_name(whole, &in, false, &m->qname) < 0 || be16(&in, &m->qtype) < 0 || be16(&in, &m->qclass) < 0 ||
		    m->qclass != CLASS_IN)
			return -EBADMSG;
		m->has_question = true;
	}
	for (int s = 0; s < DNS_SECTIONS; s++)
		for (uint16_t i = 0; i < count[s + 1]; i++)
			if (take_rr(whole, &in, s, m) < 0)
				return -EBADMSG;
	return in.n == 0 ? 0 : -EBADMSG;
}

void dns_begin(struct dns_msg *m, const struct dns_name *qname, uint16_t qtype)
{
	memset(m, 0, offsetof(struct dns_msg, rr));
	m->n_rr = m->arena_n = 0;
	m->qr = m->ra = m->rd = m->has_question = true;
	m->qname = *qname;
	m->qtype = qtype;
	m->qclass = CLASS_IN;
}

int dns_add(struct dns_msg *m, enum dns_section section, const struct dns_name *name, uint16_t type, uint32_t ttl,
	    const void *data, size_t n)
{
	struct dns_rr rr = { .section = section, .type = type, .class = CLASS_IN, .ttl = ttl, .name_n = name->n };

	if (m->n_rr >= DNS_RRS_MAX || n > UINT16_MAX || name->n + n > DNS_ARENA_MAX - m->arena_n)
		return -ENOBUFS;
	rr.name = (uint32_t)m->arena_n;
	(void)keep(m, name->b, name->n);
	rr.data = (uint32_t)m->arena_n;
	rr.data_n = (uint32_t)n;
	(void)keep(m, data, n);
	m->rr[m->n_rr++] = rr;
	return 0;
}

/* Where labels stand in what was written, for pointers to them. */
struct writer {
	uint8_t *out;
	size_t n, size;
	uint16_t points[POINTS_MAX];
	size_t n_points;
};

static int put(struct writer *w, const void *p, size_t n)
{
	if (n > w->size - w->n)
		return -ENOBUFS;
	memcpy(w->out + w->n, p, n);
	w->n += n;
	return 0;
}

static bool label_equal(const uint8_t *a, const uint8_t *b)
{
	if (a[0] != b[0])
		return false;
	for (size_t i = 1; i <= a[0]; i++) {
		uint8_t x = a[i], y = b[i];

		/* RFC 4343: only the letters of ASCII */
		if (x >= 'A' && x <= 'Z')
			x |= 0x20;
		if (y >= 'A' && y <= 'Z')
			y |= 0x20;
		if (x != y)
			return false;
	}
	return true;
}

/* Does what was written at @at spell @name? Exactly, byte by byte: names keep their case. */
static bool spells(const struct writer *w, size_t at, const uint8_t *name)
{
	for (;;) {
		const uint8_t *l = w->out + at;

		if ((l[0] & 0xc0) == 0xc0) {
			at = (size_t)(l[0] & 0x3f) << 8 | l[1];
			continue;
		}
		if (memcmp(l, name, 1u + name[0]) != 0)
			return false;
		if (name[0] == 0)
			return true;
		at += 1u + l[0];
		name += 1u + name[0];
	}
}

/* @name is whole and ends with the root label. */
static int put_name(struct writer *w, const uint8_t *name, bool squeeze)
{
	size_t whole = w->n_points; /* not the labels of this name: it is not yet written to its end */

	for (; name[0] != 0; name += 1u + name[0]) {
		for (size_t i = 0; squeeze && i < whole; i++) {
			uint8_t p[2];

			if (!spells(w, w->points[i], name))
				continue;
			put16(p, 0xc000u | w->points[i]);
			return put(w, p, 2);
		}
		if (w->n < 0x4000 && w->n_points < POINTS_MAX)
			w->points[w->n_points++] = (uint16_t)w->n;
		if (put(w, name, 1u + name[0]) < 0)
			return -ENOBUFS;
	}
	return put(w, "", 1);
}

static size_t name_len(const uint8_t *name)
{
	size_t n = 0;

	while (name[n] != 0)
		n += 1u + name[n];
	return n + 1;
}

static int put_rr(struct writer *w, const struct dns_msg *m, const struct dns_rr *rr)
{
	const uint8_t *d = m->arena + rr->data, *end = d + rr->data_n;
	uint8_t fixed[10];
	bool squeeze;
	size_t at;
	int r;

	r = put_name(w, m->arena + rr->name, true);
	put16(fixed, rr->type);
	put16(fixed + 2, rr->class);
	put32(fixed + 4, rr->ttl);
	put16(fixed + 8, 0);
	if (r == 0)
		r = put(w, fixed, sizeof(fixed));
	at = w->n;
	for (const char *f = form_of(rr->type, &squeeze); *f && r == 0; f++) {
		size_t n = *f == 'n' || *f == 'N' ? name_len(d) :
			   *f == 't' || *f == 's' || *f == '*' ? (size_t)(end - d) : form_bytes(*f);

		r = *f == 'n' && squeeze ? put_name(w, d, true) : put(w, d, n);
		d += n;
	}
	if (r == 0)
		put16(w->out + at - 2, (unsigned int)(w->n - at));
	return r;
}

int dns_encode(const struct dns_msg *m, const struct dns_encode *how, uint8_t *out)
{
	struct writer w = { .out = out, .size = MIN(how->size, (size_t)UINT16_MAX) };
	size_t reason = how->reason ? strlen(how->reason) : 0, opt = 0, count[DNS_SECTIONS] = { 0 };
	uint16_t flags = 0;
	bool tc = m->tc;
	uint8_t type[4];

	if (how->edns)
		opt = OPT_FIXED + (how->extended >= 0 ? 6 + reason : 0);
	if (w.size < HEAD + opt)
		return -ENOBUFS;
	w.size -= opt;
	w.n = HEAD;
	if (m->has_question) {
		put16(type, m->qtype);
		put16(type + 2, m->qclass);
		if (put_name(&w, m->qname.b, false) < 0 || put(&w, type, 4) < 0)
			return -ENOBUFS;
	}
	for (size_t i = 0; i < m->n_rr; i++) {
		size_t n = w.n, points = w.n_points;

		if (put_rr(&w, m, &m->rr[i]) < 0) {
			w.n = n;
			w.n_points = points;
			/* What is left out of the additional part is nobody's loss (RFC 2181 section 9). */
			tc = tc || m->rr[i].section != DNS_ADDITIONAL;
			break;
		}
		count[m->rr[i].section]++;
	}
	w.size += opt;
	if (how->edns) {
		uint8_t o[OPT_FIXED + 6] = { 0, 0, DNS_OPT, 4096 >> 8, 0, (uint8_t)(m->rcode >> 4), 0,
					     m->dnssec_ok ? 0x80 : 0, 0 };

		put16(o + 9, (unsigned int)(opt - OPT_FIXED));
		put16(o + 11, 15);
		put16(o + 13, (unsigned int)(2 + reason));
		put16(o + 15, (unsigned int)how->extended);
		(void)put(&w, o, how->extended >= 0 ? sizeof(o) : OPT_FIXED);
		if (how->extended >= 0 && reason > 0)
			(void)put(&w, how->reason, reason);
		count[DNS_ADDITIONAL]++;
	}
	flags |= m->qr ? FLAG_QR : 0;
	flags |= m->aa ? FLAG_AA : 0;
	flags |= tc ? FLAG_TC : 0;
	flags |= m->rd ? FLAG_RD : 0;
	flags |= m->ra ? FLAG_RA : 0;
	flags |= m->ad ? FLAG_AD : 0;
	flags |= m->cd ? FLAG_CD : 0;
	/* Without OPT the upper bits cannot be said. */
	flags |= (uint16_t)(m->rcode > 15 && !how->edns ? DNS_SERVFAIL : m->rcode & 15) | (uint16_t)(m->opcode << 11);
	put16(out, m->id);
	put16(out + 2, flags);
	put16(out + 4, m->has_question);
	for (size_t s = 0; s < DNS_SECTIONS; s++)
		put16(out + 6 + 2 * s, (unsigned int)count[s]);
	return (int)w.n;
}

size_t dns_question(const struct dns_name *qname, uint16_t qtype, uint16_t id, bool rd, bool cd, bool ad, bool dnssec_ok,
		    uint8_t *out)
{
	size_t n = HEAD;

	memset(out, 0, HEAD);
	put16(out, id);
	put16(out + 2, (rd ? FLAG_RD : 0u) | (cd ? FLAG_CD : 0u) | (ad ? FLAG_AD : 0u));
	out[5] = 1;
	out[11] = 1;
	memcpy(out + n, qname->b, qname->n);
	n += qname->n;
	put16(out + n, qtype);
	put16(out + n + 2, CLASS_IN);
	n += 4;
	memset(out + n, 0, OPT_FIXED);
	put16(out + n + 1, DNS_OPT);
	put16(out + n + 3, 1232);
	out[n + 7] = dnssec_ok ? 0x80 : 0;
	return n + OPT_FIXED;
}

int dns_name_check(struct span in, struct dns_name *ret)
{
	struct span s = in;

	return in.n > DNS_NAME_MAX || take_name(in, &s, false, ret) < 0 || s.n != 0 ? -EBADMSG : 0;
}

int dns_name_from_text(const char *s, struct dns_name *ret)
{
	struct dns_name n = { 0 };

	while (*s) {
		size_t l = strcspn(s, ".");

		if (l == 0 || l > 63 || n.n + 1 + l + 1 > DNS_NAME_MAX)
			return -EINVAL;
		n.b[n.n++] = (uint8_t)l;
		memcpy(n.b + n.n, s, l);
		n.n = (uint8_t)(n.n + l);
		s += l;
		if (*s == '.' && *++s == '\0')
			return -EINVAL;
	}
	n.b[n.n++] = 0;
	dns_name_lower(&n);
	*ret = n;
	return 0;
}

bool dns_name_to_text(const struct dns_name *name, char ret[DNS_TEXT_MAX * 4 + 1])
{
	bool plain = true;
	size_t n = 0;

	for (const uint8_t *l = name->b; *l; l += 1u + *l) {
		if (n > 0)
			ret[n++] = '.';
		for (size_t i = 1; i <= *l; i++) {
			uint8_t c = l[i];

			if (c >= 'A' && c <= 'Z')
				c |= 0x20;
			if (c > ' ' && c < 0x7f && c != '.' && c != '\\') {
				ret[n++] = (char)c;
			} else {
				n += (size_t)snprintf(ret + n, 5, "\\x%02x", c);
				plain = false;
			}
		}
	}
	ret[n] = '\0';
	return plain;
}

void dns_name_lower(struct dns_name *n)
{
	for (uint8_t *l = n->b; *l; l += 1u + *l)
		for (size_t i = 1; i <= *l; i++)
			if (l[i] >= 'A' && l[i] <= 'Z')
				l[i] |= 0x20;
}

bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
	const uint8_t *x = a->b, *y = b->b;

	if (a->n != b->n)
		return false;
	for (; *x; x += 1u + *x, y += 1u + *y)
		if (!label_equal(x, y))
			return false;
	return true;
}

struct dns_name dns_rr_name(const struct dns_msg *m, const struct dns_rr *rr)
{
	struct dns_name n = { .n = rr->name_n };

	memcpy(n.b, m->arena + rr->name, n.n);
	return n;
}

int dns_rr_target(const struct dns_msg *m, const struct dns_rr *rr, struct dns_name *ret)
{
	return dns_name_check(SPAN(m->arena + rr->data, rr->data_n), ret);
}

bool dns_rr_addr(const struct dns_msg *m, const struct dns_rr *rr, struct addr *ret)
{
	struct addr a = { .family = rr->type == DNS_A ? AF_INET : AF_INET6 };

	if (!(rr->type == DNS_A && rr->data_n == 4) && !(rr->type == DNS_AAAA && rr->data_n == 16))
		return false;
	memcpy(a.b, m->arena + rr->data, rr->data_n);
	*ret = a;
	return true;
}

size_t dns_svcb_hints(struct dns_msg *m, struct dns_rr *rr, bool (*keep_it)(void *ctx, const struct addr *a), void *ctx)
{
	uint8_t *p = m->arena + rr->data, *end = p + rr->data_n, *to;
	size_t dropped = 0;

	p += 2;
	p += name_len(p);
	for (to = p; p < end;) {
		uint16_t key = (uint16_t)(p[0] << 8 | p[1]), n = (uint16_t)(p[2] << 8 | p[3]);
		size_t one = key == 4 ? 4 : 16;
		uint8_t *head = to, *v = p + 4;

		p = v + n;
		if (key != 4 && key != 6) {
			memmove(to, v - 4, 4u + n);
			to += 4u + n;
			continue;
		}
		memmove(to, v - 4, 4);
		to += 4;
		for (; v < p; v += one) {
			struct addr a = { .family = key == 4 ? AF_INET : AF_INET6 };

			memcpy(a.b, v, one);
			if (keep_it(ctx, &a)) {
				memmove(to, v, one);
				to += one;
			} else {
				dropped++;
			}
		}
		if (to == head + 4)
			to = head; /* an empty list is no list */
		else
			put16(head + 2, (unsigned int)(to - head - 4));
	}
	rr->data_n = (uint32_t)(to - (m->arena + rr->data));
	return dropped;
}

const char *dns_type_str(uint16_t type, char buf[12])
{
	static const struct {
		uint16_t type;
		const char *s;
	} names[] = {
		{ DNS_A, "A" }, { DNS_NS, "NS" }, { DNS_CNAME, "CNAME" }, { DNS_SOA, "SOA" }, { DNS_PTR, "PTR" },
		{ DNS_MX, "MX" }, { DNS_TXT, "TXT" }, { DNS_AAAA, "AAAA" }, { DNS_SRV, "SRV" }, { DNS_SVCB, "SVCB" },
		{ DNS_HTTPS, "HTTPS" }, { DNS_ANY, "ANY" }, { 43, "DS" }, { 48, "DNSKEY" }, { 257, "CAA" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].type == type)
			return names[i].s;
	(void)snprintf(buf, 12, "TYPE%u", type); /* RFC 3597 section 5 */
	return buf;
}

const char *dns_rcode_str(uint16_t rcode)
{
	static const char *const names[] = { "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED" };

	return rcode < ARRAY_SIZE(names) ? names[rcode] : "OTHER";
}
