#include "vault/ties.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"

#define NS INT64_C(1000000000)
#define TTL_MIN_S 60
#define TTL_MAX_S 3600
#define EXTRA_S 600

void ties_init(struct ties *t)
{
	memset(t, 0, sizeof(*t));
	t->v = xcalloc(TIES_MAX, sizeof(*t->v));
}

void ties_done(struct ties *t)
{
	free(t->v);
	t->v = NULL;
}

/* The guest can choose the addresses of names that it owns, so it can fill one chain: that costs at most TIES_MAX steps. */
static size_t bucket(const struct addr *a)
{
	return addr_hash(a) % TIES_HASH;
}

static void drop(struct ties *t, size_t i)
{
	uint16_t *at = &t->hash[bucket(&t->v[i].addr)];

	while (*at != i + 1)
		at = &t->v[*at - 1].next;
	*at = t->v[i].next;
	t->v[i].used = false;
	t->n--;
}

static bool dead(const struct tie *e, int64_t now)
{
	return e->flows == 0 && e->end_ns <= now;
}

/* Which one goes: dead ones, then those of ordinary names, then the least recently used. */
static bool goes_before(const struct tie *a, const struct tie *b, int64_t now)
{
	if (dead(a, now) != dead(b, now))
		return dead(a, now);
	if (a->keep_long != b->keep_long)
		return !a->keep_long;
	return a->seen_ns < b->seen_ns;
}

/* A free slot; -1: none can be freed. @name: among its ties only, NULL: among all. */
static int make_room(struct ties *t, const char *name, int64_t now)
{
	int victim = -1;

	for (size_t i = 0; i < TIES_MAX; i++) {
		if (!t->v[i].used) {
			if (!name)
				return (int)i;
			continue;
		}
		if (t->v[i].flows > 0 || (name && strcmp(t->v[i].name, name) != 0))
			continue;
		if (victim < 0 || goes_before(&t->v[i], &t->v[victim], now))
			victim = (int)i;
	}
	if (victim >= 0)
		drop(t, (size_t)victim);
	return victim;
}

int ties_add(struct ties *t, const struct addr *a, const char *name, uint32_t ttl_s, bool keep_long, int64_t now)
{
	int64_t ttl = ttl_s < TTL_MIN_S ? TTL_MIN_S : ttl_s > TTL_MAX_S ? TTL_MAX_S : ttl_s, end = now + (ttl + EXTRA_S) * NS;
	uint32_t flows = 0;
	size_t same = 0;
	struct tie *e;
	int i;

	for (uint16_t k = t->hash[bucket(a)]; k; k = t->v[k - 1].next) {
		e = &t->v[k - 1];
		if (!addr_equal(&e->addr, a))
			continue;
		flows = e->flows > flows ? e->flows : flows;
		if (strcmp(e->name, name) == 0) {
			e->end_ns = end > e->end_ns ? end : e->end_ns;
			e->seen_ns = now;
			return 0;
		}
	}
	for (size_t k = 0; k < TIES_MAX; k++)
		same += t->v[k].used && strcmp(t->v[k].name, name) == 0;
	i = same >= TIES_PER_NAME ? make_room(t, name, now) : make_room(t, NULL, now);
	if (i < 0)
		return -ENOSPC;
	e = &t->v[i];
	*e = (struct tie){ .addr = *a, .used = true, .keep_long = keep_long, .flows = flows, .end_ns = end, .seen_ns = now,
			   .next = t->hash[bucket(a)] };
	memcpy(e->name, name, strnlen(name, POLICY_NAME_MAX));
	t->hash[bucket(a)] = (uint16_t)(i + 1);
	t->n++;
	return 0;
}

const char *const *ties_names(struct ties *t, const struct addr *a, int64_t now)
{
	size_t n = 0;

	for (uint16_t k = t->hash[bucket(a)], next; k; k = next) {
		struct tie *e = &t->v[k - 1];

		next = e->next;
		if (!addr_equal(&e->addr, a))
			continue;
		if (dead(e, now)) {
			drop(t, k - 1u);
			continue;
		}
		e->seen_ns = now;
		t->names[n++] = e->name;
	}
	t->names[n] = NULL;
	return t->names;
}

void ties_flow(struct ties *t, const struct addr *a, bool begins, int64_t now)
{
	for (uint16_t k = t->hash[bucket(a)]; k; k = t->v[k - 1].next) {
		struct tie *e = &t->v[k - 1];

		if (!addr_equal(&e->addr, a))
			continue;
		e->seen_ns = now;
		if (begins)
			e->flows++;
		else if (e->flows > 0)
			e->flows--;
	}
}

void standins_init(struct standins *s)
{
	s->names = xcalloc(STANDINS_MAX, sizeof(*s->names));
	s->seen_ns = xcalloc(STANDINS_MAX, sizeof(*s->seen_ns));
}

void standins_done(struct standins *s)
{
	free(s->names);
	free(s->seen_ns);
}

/* Slot i is 198.19.(1 + i / 256).(i % 256). */
struct addr standins_get(struct standins *s, const char *name, int64_t now)
{
	size_t i, at = 0;

	for (i = 0; i < STANDINS_MAX; i++) {
		if (strcmp(s->names[i], name) == 0) {
			at = i;
			break;
		}
		if (s->seen_ns[i] < s->seen_ns[at])
			at = i;
	}
	if (i == STANDINS_MAX) {
		memset(s->names[at], 0, sizeof(s->names[at]));
		memcpy(s->names[at], name, strnlen(name, POLICY_NAME_MAX));
	}
	s->seen_ns[at] = now;
	return (struct addr){ AF_INET, { 198, 19, (uint8_t)(1 + at / 256), (uint8_t)at } };
}

const char *standins_name(struct standins *s, const struct addr *a, int64_t now)
{
	size_t i;

	if (a->family != AF_INET || a->b[0] != 198 || a->b[1] != 19 || a->b[2] < 1 || a->b[2] > STANDINS_MAX / 256)
		return NULL;
	i = (size_t)(a->b[2] - 1) * 256 + a->b[3];
	if (s->names[i][0] == '\0')
		return NULL;
	s->seen_ns[i] = now;
	return s->names[i];
}
