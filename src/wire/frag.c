#include "wire/frag.h"

#include "base/macros.h"

#define FRAG_MS 2000u

static struct frag_set *set_of(struct wire *w, const struct peer *to, uint8_t proto, uint32_t id)
{
	struct frag_set *oldest = &w->frag[0];

	for (unsigned int i = 0; i < FRAG_SETS; i++) {
		struct frag_set *s = &w->frag[i];

		if (s->used && w->now - s->born > FRAG_MS)
			s->used = false;
		if (s->used && s->id == id && s->proto == proto && s->family == to->family && memcmp(s->dst, to->addr, 16) == 0)
			return s;
		if (!s->used || (oldest->used && s->born < oldest->born))
			oldest = s;
	}
	if (oldest->used)
		wire_count(w, C_FRAG);
	*oldest = (struct frag_set){ .used = true, .family = to->family, .proto = proto, .id = id, .born = w->now };
	memcpy(oldest->dst, to->addr, 16);
	return oldest;
}

/* The oldest that is free comes first above; a thrown-away set must not take later fragments of the same packet for new, but
 * without its beginning such a set never completes. */
static void discard(struct wire *w, struct frag_set *s)
{
	s->used = false;
	wire_count(w, C_FRAG);
}

void frag_input(struct wire *w, const struct peer *to, uint8_t proto, uint32_t id, size_t off, bool more, const uint8_t *p,
		size_t n, uint8_t hops)
{
	size_t head = to->family == NET_V4 ? IP4_LEN : 0;
	struct frag_set *s;
	uint8_t *data;

	if (proto != PROTO_UDP && proto != (to->family == NET_V4 ? PROTO_ICMP : PROTO_ICMP6)) {
		wire_count(w, C_FRAG);
		return;
	}
	s = set_of(w, to, proto, id);
	data = w->frag_data[s - w->frag];
	if (n == 0 || (more && n % 8 != 0) || off + n + head > 65535 || (off == 0 && n < UDP_LEN) ||
	    (s->total && (off + n > s->total || !more)) || (!more && s->max > off + n)) {
		discard(w, s);
		return;
	}
	for (size_t i = off / 8; i < (off + n + 7) / 8; i++) {
		if (s->map[i / 8] & 1u << i % 8) {
			discard(w, s);
			return;
		}
		s->map[i / 8] |= (uint8_t)(1u << i % 8);
	}
	memcpy(data + off, p, n);
	s->have += (uint32_t)n;
	s->max = MAX(s->max, (uint32_t)(off + n));
	if (!more)
		s->total = (uint32_t)(off + n);
	if (s->total && s->have == s->total) {
		s->used = false;
		ip_deliver(w, to, proto, data, s->total, hops);
	}
}
