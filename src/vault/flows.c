#include "vault/flows.h"

#include <assert.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/str.h"
#include "vault/vault.h"

#define FLOWS_MAX (16384 + 1024 + 32)
#define FLOWS_HASH 8192
#define NOTE_NS (60 * NS)

struct record {
	struct flow flow; /* the first member */
	uint64_t id;
	bool used, noted;
	uint32_t next;		/* of the chain, or of the free ones; index + 1 */
	uint32_t newer, older; /* of those that have no line yet; index + 1 */
};

struct flows {
	struct record *v;
	uint32_t hash[FLOWS_HASH], free, used_to, newest, oldest;
	uint64_t last_id;
};

void flows_init(struct vault *v)
{
	v->flows = xcalloc(1, sizeof(*v->flows));
	v->flows->v = xcalloc(FLOWS_MAX, sizeof(struct record));
}

static uint32_t *bucket_of(struct flows *t, uint32_t slot, uint32_t generation)
{
	return &t->hash[(slot * 2654435761u ^ generation * 40503u) % FLOWS_HASH];
}

struct flow *flow_find(struct vault *v, uint32_t slot, uint32_t generation)
{
	struct flows *t = v->flows;

	for (uint32_t i = *bucket_of(t, slot, generation); i; i = t->v[i - 1].next)
		if (t->v[i - 1].flow.slot == slot && t->v[i - 1].flow.generation == generation)
			return &t->v[i - 1].flow;
	return NULL;
}

bool flow_add(struct vault *v, const struct flow *what)
{
	struct flows *t = v->flows;
	uint32_t i = t->free, *bucket = bucket_of(t, what->slot, what->generation);

	if (!i && t->used_to == FLOWS_MAX) {
		vault_end(v, "wire has more flows open than it may");
		return false;
	}
	if (!i)
		i = ++t->used_to;
	else
		t->free = t->v[i - 1].next;
	t->v[i - 1] = (struct record){ .flow = *what, .id = ++t->last_id, .used = true, .next = *bucket, .older = t->newest };
	*bucket = i;
	*(t->newest ? &t->v[t->newest - 1].newer : &t->oldest) = i;
	t->newest = i;
	ties_flow(&v->ties, &what->dst, true, v->now);
	return true;
}

static void unlist(struct flows *t, struct record *r)
{
	*(r->newer ? &t->v[r->newer - 1].older : &t->newest) = r->older;
	*(r->older ? &t->v[r->older - 1].newer : &t->oldest) = r->newer;
	r->noted = true;
}

static void line(struct vault *v, const struct flow *f, uint64_t id, const struct net_ended *e, const char *end)
{
	const char *name = standins_name(&v->standins, &f->dst, v->now);

	if (!name)
		name = ties_names(&v->ties, &f->dst, v->now)[0];
	audit_flow(&v->audit, &(struct audit_flow){
		.proto = f->proto, .id = id, .name = name, .dst = f->dst, .port = f->port, .verdict = f->verdict,
		.step = f->step, .via = f->proto != POLICY_TCP ? NULL : f->proxied ? v->cfg.proxy.text : "direct",
		.counted = e, .up = e ? e->up : 0, .down = e ? e->down : 0,
		.ms = e ? e->ms : (uint32_t)((v->now - f->start) / MS), .end = end, .probe = f->probe });
}

void flow_end(struct vault *v, struct flow *f, const struct net_ended *e)
{
	static const char *const ends[] = {
		[NET_END_FIN] = "fin", [NET_END_RST_GUEST] = "rst", [NET_END_RST_HOST] = "rst", [NET_END_IDLE] = "idle",
		[NET_END_EVICTED] = "evicted", [NET_END_ERROR] = "error:io",
	};
	struct flows *t = v->flows;
	struct record *r = (struct record *)f;
	uint32_t i = (uint32_t)(r - t->v) + 1, *at = bucket_of(t, f->slot, f->generation);

	static_assert(ARRAY_SIZE(ends) == NET_ENDS, "ends[] is incomplete");
	static_assert(offsetof(struct record, flow) == 0, "a flow is found in its record");
	line(v, f, r->id, e, e ? ends[e->how] : "error:ECANCELED");
	ties_flow(&v->ties, &f->dst, false, v->now);
	if (!r->noted)
		unlist(t, r);
	while (*at != i)
		at = &t->v[*at - 1].next;
	*at = r->next;
	r->used = false;
	r->next = t->free;
	t->free = i;
}

void flow_failed(struct vault *v, const struct flow *what, const char *end)
{
	line(v, what, ++v->flows->last_id, NULL, end);
}

int64_t flows_tick(struct vault *v)
{
	struct flows *t = v->flows;

	while (t->oldest && t->v[t->oldest - 1].flow.start + NOTE_NS <= v->now) {
		struct record *r = &t->v[t->oldest - 1];

		line(v, &r->flow, r->id, NULL, NULL);
		unlist(t, r);
	}
	return t->oldest ? t->v[t->oldest - 1].flow.start + NOTE_NS : -1;
}

void flows_end(struct vault *v)
{
	for (uint32_t i = 0; i < v->flows->used_to; i++)
		if (v->flows->v[i].used)
			line(v, &v->flows->v[i].flow, v->flows->v[i].id, NULL, "error:session");
}
