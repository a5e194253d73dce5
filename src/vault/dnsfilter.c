#include "vault/dnsfilter.h"

#include <string.h>

#include "base/macros.h"

struct chain {
	struct dns_name names[FILTER_CHAIN_MAX];
	size_t n;
};

static bool in_chain(const struct chain *c, const struct dns_name *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (dns_name_equal(&c->names[i], name))
			return true;
	return false;
}

/* The question's name and what CNAMEs lead to from it, in whatever order the records stand. */
static void follow(const struct dns_msg *m, struct chain *c)
{
	bool more = true;

	c->names[0] = m->qname;
	c->n = 1;
	while (more && c->n < FILTER_CHAIN_MAX) {
		more = false;
		for (size_t i = 0; i < m->n_rr; i++) {
			struct dns_name owner, target;

			if (m->rr[i].section != DNS_ANSWER || m->rr[i].type != DNS_CNAME)
				continue;
			owner = dns_rr_name(m, &m->rr[i]);
			if (!dns_name_equal(&owner, &c->names[c->n - 1]) || dns_rr_target(m, &m->rr[i], &target) < 0 ||
			    in_chain(c, &target))
				continue;
			c->names[c->n++] = target;
			more = true;
			break;
		}
	}
}

/* DNAME stands at a name above the one that it leads on from (RFC 6672). */
static bool above_chain(const struct chain *c, const struct dns_name *name)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct dns_name *n = &c->names[i];
		size_t at = 0;

		while (n->b[at] != 0 && n->n - at > name->n)
			at += 1u + n->b[at];
		if (n->n - at == name->n) {
			struct dns_name tail = { .n = name->n };

			memcpy(tail.b, n->b + at, tail.n);
			if (dns_name_equal(&tail, name))
				return true;
		}
	}
	return false;
}

static bool family_wanted(const struct filter *f, const struct addr *a)
{
	return a->family == AF_INET ? f->ipv4 : f->ipv6;
}

/* @asked: the record belongs to the question. Others (glue, targets of MX and SRV) say something of a name that nobody asked
 * its own zone about: they are judged with no name and tied to none, so that they open nothing. */
struct judge {
	struct filter *f;
	const struct chain *chain;
	bool asked;
	uint32_t ttl;
};

static bool tie_all(struct judge *j, const struct addr *a)
{
	struct filter *f = j->f;
	char text[DNS_TEXT_MAX * 4 + 1];

	if (!f->tie || !j->asked)
		return true;
	for (size_t i = 0; i < j->chain->n; i++)
		if (dns_name_to_text(&j->chain->names[i], text) && f->tie(f->ctx, a, text, j->ttl) != 0)
			return false;
	return true;
}

static bool judge_addr(void *ctx, const struct addr *a)
{
	struct judge *j = ctx;
	struct filter *f = j->f;

	if (!family_wanted(f, a))
		return false;
	if (policy_keeps(f->policy, a, j->asked ? f->name : "").verdict != POLICY_ALLOW) {
		if (f->dropped++ == 0)
			f->first_dropped = *a;
		return false;
	}
	if (!tie_all(j, a))
		return false;
	f->kept++;
	return true;
}

static bool stays(struct filter *f, struct dns_msg *m, struct dns_rr *rr, const struct chain *chain)
{
	struct dns_name owner = dns_rr_name(m, rr);
	struct judge j = { f, chain, in_chain(chain, &owner), rr->ttl };
	struct addr a;

	if (rr->section == DNS_ANSWER && !j.asked && !(rr->type == DNS_DNAME && above_chain(chain, &owner)))
		return false;
	if (rr->type == DNS_HTTPS || rr->type == DNS_SVCB)
		(void)dns_svcb_hints(m, rr, judge_addr, &j);
	return !dns_rr_addr(m, rr, &a) || judge_addr(&j, &a);
}

void dnsfilter(struct filter *f, struct dns_msg *m)
{
	struct chain chain;
	size_t n = 0;

	follow(m, &chain);
	f->kept = f->dropped = 0;
	for (size_t i = 0; i < m->n_rr; i++)
		if (stays(f, m, &m->rr[i], &chain))
			m->rr[n++] = m->rr[i];
	m->n_rr = n;
	if (f->dropped == 0)
		return;
	m->ad = false;
	/* Signatures of what is no longer whole. */
	for (size_t i = n = 0; i < m->n_rr; i++)
		if (m->rr[i].type != DNS_RRSIG || m->rr[i].section != DNS_ANSWER)
			m->rr[n++] = m->rr[i];
	m->n_rr = n;
}
