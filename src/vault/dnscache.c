#include "vault/dnscache.h"

#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#define NS INT64_C(1000000000)
#define TTL_MAX_S 3600
#define TTL_EMPTY_S 60
#define TTL_FAILED_S 2

struct dnscache_entry {
	struct dnscache_entry *next; /* of the chain */
	struct dnscache_entry *newer, *older;
	struct dns_key key;
	int64_t from_ns, end_ns;
	uint8_t server;
	size_t n;
	uint8_t bytes[];
};

bool dns_key_equal(const struct dns_key *a, const struct dns_key *b)
{
	return a->type == b->type && a->flags == b->flags && dns_name_equal(&a->name, &b->name);
}

static size_t bucket(const struct dns_key *k)
{
	uint32_t h = k->type * 31u + k->flags;

	for (size_t i = 0; i < k->name.n; i++)
		h = (h ^ k->name.b[i]) * 16777619u;
	return (h ^ h >> 15) % DNSCACHE_HASH;
}

uint32_t dnscache_ttl(const struct dns_msg *m)
{
	uint32_t ttl = TTL_MAX_S;
	bool any = false;

	if (m->rcode != DNS_NOERROR && m->rcode != DNS_NXDOMAIN)
		return TTL_FAILED_S;
	for (size_t i = 0; i < m->n_rr; i++) {
		const struct dns_rr *rr = &m->rr[i];

		if (rr->section == DNS_ANSWER) {
			any = any || rr->type == m->qtype;
			ttl = MIN(ttl, rr->ttl);
		} else if (rr->type == DNS_SOA && rr->section == DNS_AUTHORITY) {
			const uint8_t *minimum = m->arena + rr->data + rr->data_n - 4;
			uint32_t soa = (uint32_t)minimum[0] << 24 | (uint32_t)minimum[1] << 16 | (uint32_t)minimum[2] << 8 |
				       minimum[3];

			ttl = MIN(ttl, MIN(soa, rr->ttl));
		}
	}
	if (!any || m->rcode == DNS_NXDOMAIN)
		ttl = MIN(ttl, (uint32_t)TTL_EMPTY_S);
	return MAX(ttl, 1u);
}

static void unlist(struct dnscache *c, struct dnscache_entry *e)
{
	*(e->newer ? &e->newer->older : &c->newest) = e->older;
	*(e->older ? &e->older->newer : &c->oldest) = e->newer;
}

static void list_first(struct dnscache *c, struct dnscache_entry *e)
{
	e->newer = NULL;
	e->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static void drop(struct dnscache *c, struct dnscache_entry *e)
{
	struct dnscache_entry **at = &c->hash[bucket(&e->key)];

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	unlist(c, e);
	c->n--;
	c->bytes -= sizeof(*e) + e->n;
	free(e);
}

static struct dnscache_entry *find(struct dnscache *c, const struct dns_key *key)
{
	struct dnscache_entry *e = c->hash[bucket(key)];

	while (e && !dns_key_equal(&e->key, key))
		e = e->next;
	return e;
}

void dnscache_put(struct dnscache *c, const struct dns_key *key, struct span answer, uint32_t ttl_s, uint8_t server, int64_t now)
{
	struct dnscache_entry *e = find(c, key);

	if (e)
		drop(c, e);
	e = malloc(sizeof(*e) + answer.n);
	if (!e)
		return;
	*e = (struct dnscache_entry){ .key = *key, .from_ns = now, .end_ns = now + ttl_s * NS, .server = server, .n = answer.n };
	if (answer.n > 0)
		memcpy(e->bytes, answer.p, answer.n);
	e->next = c->hash[bucket(key)];
	c->hash[bucket(key)] = e;
	list_first(c, e);
	c->n++;
	c->bytes += sizeof(*e) + e->n;
	while (c->n > DNSCACHE_MAX || c->bytes > DNSCACHE_BYTES)
		drop(c, c->oldest);
}

bool dnscache_get(struct dnscache *c, const struct dns_key *key, int64_t now, struct span *ret, uint32_t *ret_age_s,
		  uint8_t *ret_server)
{
	struct dnscache_entry *e = find(c, key);

	if (!e)
		return false;
	if (e->end_ns <= now) {
		drop(c, e);
		return false;
	}
	unlist(c, e);
	list_first(c, e);
	*ret = SPAN(e->bytes, e->n);
	*ret_age_s = (uint32_t)((now - e->from_ns) / NS);
	*ret_server = e->server;
	return true;
}

void dnscache_clear(struct dnscache *c)
{
	while (c->oldest)
		drop(c, c->oldest);
}
