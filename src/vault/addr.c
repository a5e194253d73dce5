#include "vault/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/str.h"

static unsigned int width(const struct addr *a)
{
	return a->family == AF_INET ? 32 : 128;
}

int addr_parse(const char *s, struct addr *ret)
{
	struct addr a = { .family = AF_INET };

	if (inet_pton(AF_INET, s, a.b) != 1) {
		a.family = AF_INET6;
		if (inet_pton(AF_INET6, s, a.b) != 1)
			return -EINVAL;
	}
	*ret = a;
	return 0;
}

const char *addr_format(const struct addr *a, char buf[ADDR_TEXT])
{
	return inet_ntop(a->family, a->b, buf, ADDR_TEXT) ? buf : "?";
}

int prefix_parse(const char *s, struct prefix *ret)
{
	const char *slash = strchr(s, '/');
	AUTO_FREE(char, text);
	struct prefix p;
	uint64_t bits;
	int r;

	text = xstrndup(s, slash ? (size_t)(slash - s) : strlen(s));
	r = addr_parse(text, &p.addr);
	if (r < 0)
		return r;
	bits = width(&p.addr);
	if (slash && str_u64(slash + 1, width(&p.addr), &bits) < 0)
		return -EINVAL;
	p.bits = (uint8_t)bits;
	*ret = p;
	return 0;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->family == b->family && memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

uint32_t addr_hash(const struct addr *a)
{
	uint32_t h = a->family;

	for (size_t i = 0; i < sizeof(a->b); i++)
		h = (h ^ a->b[i]) * 16777619u;
	return h ^ h >> 15;
}

bool addr_in(const struct addr *a, const struct prefix *p)
{
	size_t whole = p->bits / 8;
	unsigned int rest = p->bits % 8;

	if (a->family != p->addr.family || p->bits > width(a) || memcmp(a->b, p->addr.b, whole) != 0)
		return false;
	return rest == 0 || (a->b[whole] ^ p->addr.b[whole]) >> (8 - rest) == 0;
}

bool prefix_in(const struct prefix *in, const struct prefix *p)
{
	return in->bits >= p->bits && addr_in(&in->addr, p);
}

bool prefix_broadcast(const struct prefix *p, struct addr *ret)
{
	if (p->addr.family != AF_INET || p->bits > 30)
		return false;
	*ret = p->addr;
	for (unsigned int i = p->bits; i < 32; i++)
		ret->b[i / 8] |= (uint8_t)(0x80 >> i % 8);
	return true;
}

bool addr_nat64(const struct addr *a, const struct prefix *prefix, struct addr *ret)
{
	size_t at = prefix->bits / 8;
	struct addr v4 = { .family = AF_INET };

	if (a->family != AF_INET6 || !addr_in(a, prefix))
		return false;
	if (prefix->bits != 96 && (prefix->bits < 32 || prefix->bits > 64 || prefix->bits % 8 != 0))
		return false;
	for (size_t i = 0; i < 4; i++, at++) {
		if (at == 8) {
			if (a->b[at++] != 0)
				return false;
		}
		v4.b[i] = a->b[at];
	}
	*ret = v4;
	return true;
}
