#include "vault/rates.h"

#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"

#define NS INT64_C(1000000000)
#define HOUR (3600 * NS)
#define TEN_MIN (600 * NS)
#define LONG_LABEL 40
#define LOG2_ONE 65536u
#define RANDOM_BITS (38 * LOG2_ONE / 10)
#define SET_FIRST 16
#define SET_MAX 4096 /* a power of two above RATE_NAMES_REFUSED, so that a place is always free */

/* Hashes of names seen; 0 marks a free place. */
struct seen {
	uint32_t *v;
	size_t n, size;
};

struct rate_parent {
	struct dns_name name; /* n 0: free */
	int64_t hour_ns, ten_ns; /* when each window began */
	struct seen hour, ten;
	uint32_t bytes, random_labels;
	bool noticed;
};

void rates_init(struct rates *r, int64_t now)
{
	*r = (struct rates){ .milli = RATE_BURST * 1000, .filled_ns = now };
	r->parents = xcalloc(RATE_PARENTS, sizeof(*r->parents));
}

static void seen_clear(struct seen *s)
{
	free(s->v);
	*s = (struct seen){ 0 };
}

void rates_done(struct rates *r)
{
	for (size_t i = 0; r->parents && i < RATE_PARENTS; i++) {
		seen_clear(&r->parents[i].hour);
		seen_clear(&r->parents[i].ten);
	}
	free(r->parents);
}

static void seen_insert(uint32_t *v, size_t size, uint32_t h)
{
	size_t i = h & (size - 1);

	while (v[i] != 0 && v[i] != h)
		i = (i + 1) & (size - 1);
	v[i] = h;
}

/* Counts each name once; at most half full but for the largest size. Lack of memory counts the name as seen. */
static void seen_add(struct seen *s, uint32_t h)
{
	if (s->n * 2 >= s->size && s->size < SET_MAX) {
		size_t size = s->size ? s->size * 2 : SET_FIRST;
		uint32_t *v = calloc(size, sizeof(*v));

		if (!v)
			return;
		for (size_t i = 0; i < s->size; i++)
			if (s->v[i] != 0)
				seen_insert(v, size, s->v[i]);
		free(s->v);
		s->v = v;
		s->size = size;
	}
	if (s->n >= SET_MAX * 3 / 4)
		return;
	for (size_t i = h & (s->size - 1); s->v[i] != h; i = (i + 1) & (s->size - 1))
		if (s->v[i] == 0) {
			s->v[i] = h;
			s->n++;
			return;
		}
}

/* Of @v > 0, in 1/LOG2_ONE, rounded down: bit by bit, for 350 KB of libm's pages would be nobody else's. */
static uint64_t log2_of(uint32_t v)
{
	uint32_t whole = 31u - (uint32_t)__builtin_clz(v);
	uint64_t x = (uint64_t)v << (31 - whole), bits = whole * LOG2_ONE; /* x: 1 to 2, in 1/2^31 */

	for (uint32_t bit = LOG2_ONE / 2; bit > 0; bit /= 2) {
		x = x * x >> 31;
		if (x >> 32 != 0) {
			x >>= 1;
			bits += bit;
		}
	}
	return bits;
}

bool rate_label_random(const uint8_t *label, size_t n)
{
	unsigned int count[256] = { 0 };
	uint64_t bits;

	if (n <= LONG_LABEL)
		return false;
	for (size_t i = 0; i < n; i++)
		count[label[i]]++;
	bits = n * log2_of((uint32_t)n);
	for (size_t i = 0; i < 256; i++)
		if (count[i] > 0)
			bits -= count[i] * log2_of(count[i]);
	return bits >= n * RANDOM_BITS;
}

static struct dns_name parent_of(const struct dns_name *name)
{
	const uint8_t *labels[128];
	struct dns_name p = { 0 };
	size_t n = 0, take = 2;

	for (const uint8_t *l = name->b; *l; l += 1u + *l)
		labels[n++] = l;
	if (n >= 3 && labels[n - 2][0] <= 3)
		take = 3;
	if (n < take)
		return *name;
	p.n = (uint8_t)(name->b + name->n - labels[n - take]);
	memcpy(p.b, labels[n - take], p.n);
	return p;
}

/* The parent's counts; the table is full: the one with the fewest names makes room. */
static struct rate_parent *find(struct rates *r, const struct dns_name *name, int64_t now)
{
	struct rate_parent *least = &r->parents[0];

	for (size_t i = 0; i < RATE_PARENTS; i++) {
		struct rate_parent *p = &r->parents[i];

		if (p->name.n > 0 && dns_name_equal(&p->name, name))
			return p;
		if (p->name.n == 0) {
			least = p;
			break;
		}
		if (p->hour.n < least->hour.n || (p->hour.n == least->hour.n && p->hour_ns < least->hour_ns))
			least = p;
	}
	seen_clear(&least->hour);
	seen_clear(&least->ten);
	*least = (struct rate_parent){ .name = *name, .hour_ns = now, .ten_ns = now };
	return least;
}

enum rate_verdict rates_take(struct rates *r, const struct dns_name *name, int64_t now, struct dns_name *ret_parent)
{
	struct dns_name parent = parent_of(name);
	uint64_t refill = (uint64_t)(now - r->filled_ns) / 1000000 * RATE_PER_S; /* ms * (1/s) = thousandths */
	struct rate_parent *p;
	uint32_t h = 2166136261u;

	*ret_parent = parent;
	r->milli = MIN(r->milli + refill, (uint64_t)RATE_BURST * 1000);
	r->filled_ns += (now - r->filled_ns) / 1000000 * 1000000;
	if (r->milli < 1000)
		return RATE_BUSY;

	p = find(r, &parent, now);
	if (now - p->hour_ns >= HOUR) {
		seen_clear(&p->hour);
		p->hour_ns = now;
		p->bytes = p->random_labels = 0;
		p->noticed = false;
	}
	if (now - p->ten_ns >= TEN_MIN) {
		seen_clear(&p->ten);
		p->ten_ns = now;
	}
	if (p->hour.n >= RATE_NAMES_REFUSED || p->bytes >= RATE_BYTES_REFUSED)
		return RATE_REFUSED;
	r->milli -= 1000;
	for (size_t i = 0; i < name->n; i++)
		h = (h ^ name->b[i]) * 16777619u;
	h = (h ^ h >> 15) * 2654435761u;
	h += h == 0;
	seen_add(&p->hour, h);
	seen_add(&p->ten, h);
	p->bytes += name->n;
	for (const uint8_t *l = name->b; *l; l += 1u + *l)
		p->random_labels += rate_label_random(l + 1, *l);
	if (p->noticed || (p->ten.n < RATE_NAMES_NOTICED && p->random_labels < RATE_LABELS_NOTICED))
		return RATE_OK;
	p->noticed = true;
	return RATE_NOTICE;
}
