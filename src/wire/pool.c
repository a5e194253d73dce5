#include "wire/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"

#define POOL_BYTES ((size_t)POOL_WAYS * POOL_HALF * CHUNK)

static uint8_t *chunk_mem(const struct pool *p, uint16_t i)
{
	return p->mem + (size_t)(i - 1) * CHUNK;
}

static uint16_t chunk_take(struct pool *p, enum pool_way way)
{
	uint16_t i = p->free[way];

	if (i == 0)
		return 0;
	p->free[way] = p->next[i - 1];
	p->n_free[way]--;
	if (p->dirty[i - 1]) {
		p->dirty[i - 1] = 0;
		p->n_dirty--;
	}
	p->next[i - 1] = 0;
	p->taken++;
	return i;
}

/* Last in, first out: the chunk that is taken next is still in the cache. */
static void chunk_give(struct pool *p, enum pool_way way, uint16_t i)
{
	p->next[i - 1] = p->free[way];
	p->free[way] = i;
	p->n_free[way]++;
	p->dirty[i - 1] = 1;
	p->n_dirty++;
}

int pool_init(struct pool *p)
{
	memset(p, 0, sizeof(*p));
	p->mem = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED)
		return -errno;
	for (int way = 0; way < POOL_WAYS; way++)
		for (unsigned int i = POOL_HALF; i > 0; i--) {
			uint16_t c = (uint16_t)((unsigned int)way * POOL_HALF + i);

			p->next[c - 1] = p->free[way];
			p->free[way] = c;
			p->n_free[way]++;
		}
	return 0;
}

void pool_done(struct pool *p)
{
	if (p->mem)
		(void)munmap(p->mem, POOL_BYTES);
	p->mem = NULL;
}

void pool_trim(struct pool *p)
{
	for (uint16_t i = 1; i <= POOL_WAYS * POOL_HALF && p->n_dirty > 0; i++) {
		if (!p->dirty[i - 1])
			continue;
		(void)madvise(chunk_mem(p, i), CHUNK, MADV_DONTNEED);
		p->dirty[i - 1] = 0;
		p->n_dirty--;
	}
}

/* Where the byte behind the last one goes in the last chunk; CHUNK when that is full or there is none. */
static size_t tail_off(const struct cq *q)
{
	size_t end = (size_t)q->off + q->len;

	if (q->head == 0)
		return CHUNK;
	return end > 0 && end % CHUNK == 0 ? CHUNK : end % CHUNK;
}

size_t cq_space(struct pool *p, struct cq *q, enum pool_way way, size_t want, struct iovec *iov, int *n_iov)
{
	size_t have = 0, at = tail_off(q);
	uint16_t last = q->tail;
	int n = 0;

	if (q->len == 0)
		q->off = 0, at = q->head ? 0 : CHUNK;
	while (have < want && n < *n_iov) {
		size_t k;

		if (at == CHUNK) {
			uint16_t c = chunk_take(p, way);

			if (c == 0)
				break;
			if (last)
				p->next[last - 1] = c;
			else
				q->head = c;
			last = c;
			at = 0;
		}
		k = MIN(want - have, CHUNK - at);
		iov[n++] = (struct iovec){ chunk_mem(p, last) + at, k };
		have += k;
		at += k;
	}
	q->tail = last;
	*n_iov = n;
	return have;
}

void cq_grew(struct pool *p, struct cq *q, enum pool_way way, size_t n)
{
	uint16_t i = q->head, next;
	size_t end;

	q->len += (uint32_t)n;
	end = (size_t)q->off + q->len;
	if (q->len == 0) {
		cq_consume(p, q, way, 0);
		return;
	}
	for (; end > CHUNK; end -= CHUNK)
		i = p->next[i - 1];
	next = p->next[i - 1];
	p->next[i - 1] = 0;
	q->tail = i;
	for (; next; next = i) {
		i = p->next[next - 1];
		chunk_give(p, way, next);
	}
}

size_t cq_put(struct pool *p, struct cq *q, enum pool_way way, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;
	struct iovec iov[18];
	int n_iov = ARRAY_SIZE(iov);
	size_t have = cq_space(p, q, way, n, iov, &n_iov);

	for (int i = 0; i < n_iov; i++) {
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	cq_grew(p, q, way, have);
	return have;
}

size_t cq_get(const struct pool *p, const struct cq *q, size_t at, size_t n, struct iovec *iov, int max, int *ret_n)
{
	size_t have = 0, off;
	uint16_t i = q->head;
	int k = 0;

	assert(at <= q->len);
	n = MIN(n, q->len - at);
	for (off = q->off + at; off >= CHUNK && i; off -= CHUNK)
		i = p->next[i - 1];
	while (have < n && k < max) {
		size_t part = MIN(n - have, CHUNK - off);

		iov[k++] = (struct iovec){ chunk_mem(p, i) + off, part };
		have += part;
		off = 0;
		i = p->next[i - 1];
	}
	*ret_n = k;
	return have;
}

void cq_consume(struct pool *p, struct cq *q, enum pool_way way, size_t n)
{
	assert(n <= q->len);
	q->len -= (uint32_t)n;
	q->off += (uint32_t)n;
	while (q->head && (q->len == 0 || q->off >= CHUNK)) {
		uint16_t i = q->head;

		q->head = p->next[i - 1];
		chunk_give(p, way, i);
		q->off = q->len == 0 ? 0 : q->off - CHUNK;
	}
	if (q->head == 0)
		*q = (struct cq){ 0 };
}
