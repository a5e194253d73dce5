#include "proto/rec.h"

#include <errno.h>

#define HEAD 6

static int rec_head(struct buf *b, uint16_t key, size_t n)
{
	if (n > UINT32_MAX || !buf_room(b, HEAD + n))
		return -ENOBUFS;
	(void)buf_put_u16(b, key);
	(void)buf_put_u32(b, (uint32_t)n);
	return 0;
}

int rec_put(struct buf *b, uint16_t key, const void *p, size_t n)
{
	int r = rec_head(b, key, n);

	return r < 0 ? r : buf_put(b, p, n);
}

int rec_put_str(struct buf *b, uint16_t key, const char *s)
{
	return rec_put(b, key, s, strlen(s));
}

int rec_put_u64(struct buf *b, uint16_t key, uint64_t v)
{
	int r = rec_head(b, key, sizeof(v));

	return r < 0 ? r : buf_put_u64(b, v);
}

ssize_t rec_begin(struct buf *b, uint16_t key)
{
	int r = rec_head(b, key, 0);

	return r < 0 ? r : (ssize_t)b->n;
}

void rec_end(struct buf *b, size_t at)
{
	buf_set_u32(b, at - 4, (uint32_t)(b->n - at));
}

int rec_next(struct span *in, uint16_t *ret_key, struct span *ret_val)
{
	struct span s = *in;
	uint16_t key;
	uint32_t n;

	if (s.n == 0)
		return 0;
	if (span_u16(&s, &key) < 0 || span_u32(&s, &n) < 0 || span_take(&s, n, ret_val) < 0)
		return -EBADMSG;
	*ret_key = key;
	*in = s;
	return 1;
}

int rec_u64(struct span val, uint64_t max, uint64_t *ret)
{
	uint64_t v;

	if (val.n != sizeof(v) || span_u64(&val, &v) < 0 || v > max)
		return -EBADMSG;
	*ret = v;
	return 0;
}
