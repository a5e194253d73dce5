#include "base/span.h"

#include <errno.h>
#include <stdlib.h>

int span_take(struct span *s, size_t n, struct span *ret)
{
	if (s->n < n)
		return -EBADMSG;
	*ret = SPAN(s->p, n);
	s->p += n;
	s->n -= n;
	return 0;
}

static int span_le(struct span *s, size_t n, uint64_t *ret)
{
	struct span v;
	uint64_t u = 0;

	if (span_take(s, n, &v) < 0)
		return -EBADMSG;
	while (n-- > 0)
		u = u << 8 | v.p[n];
	*ret = u;
	return 0;
}

int span_be(struct span *s, size_t n, uint32_t *ret)
{
	struct span v;
	uint32_t u = 0;

	if (span_take(s, n, &v) < 0)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		u = u << 8 | v.p[i];
	*ret = u;
	return 0;
}

int span_u8(struct span *s, uint8_t *ret)
{
	uint64_t u;

	if (span_le(s, sizeof(*ret), &u) < 0)
		return -EBADMSG;
	*ret = (uint8_t)u;
	return 0;
}

int span_u16(struct span *s, uint16_t *ret)
{
	uint64_t u;

	if (span_le(s, sizeof(*ret), &u) < 0)
		return -EBADMSG;
	*ret = (uint16_t)u;
	return 0;
}

int span_u32(struct span *s, uint32_t *ret)
{
	uint64_t u;

	if (span_le(s, sizeof(*ret), &u) < 0)
		return -EBADMSG;
	*ret = (uint32_t)u;
	return 0;
}

int span_u64(struct span *s, uint64_t *ret)
{
	return span_le(s, sizeof(*ret), ret);
}

int span_dup(struct span s, char **ret)
{
	char *d;

	if (s.n > 0 && memchr(s.p, '\0', s.n))
		return -EBADMSG;
	d = malloc(s.n + 1);
	if (!d)
		return -ENOMEM;
	if (s.n > 0)
		memcpy(d, s.p, s.n);
	d[s.n] = '\0';
	*ret = d;
	return 0;
}
