#include "wire/csum.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint64_t sum_scalar(const uint8_t *p, size_t n)
{
	uint64_t a = 0, b = 0, v;
	uint32_t w;
	uint16_t h;

	/* 32-bit words in 64-bit sums: no carry is lost before 2^32 words. */
	for (; n >= 16; n -= 16, p += 16) {
		memcpy(&v, p, 8);
		a += (v & UINT32_MAX) + (v >> 32);
		memcpy(&v, p + 8, 8);
		b += (v & UINT32_MAX) + (v >> 32);
	}
	a += b;
	for (; n >= 4; n -= 4, p += 4) {
		memcpy(&w, p, 4);
		a += w;
	}
	if (n >= 2) {
		memcpy(&h, p, 2);
		a += h;
		p += 2;
		n -= 2;
	}
	if (n > 0) {
		h = 0;
		memcpy(&h, p, 1);
		a += h;
	}
	return a;
}

#if defined(__x86_64__)
static uint64_t sum_sse2(const uint8_t *p, size_t n)
{
	const __m128i low = _mm_set1_epi64x(UINT32_MAX);
	__m128i a = _mm_setzero_si128(), b = a;
	uint64_t lane[2];

	for (; n >= 32; n -= 32, p += 32) {
		__m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i y = _mm_loadu_si128((const __m128i *)(const void *)(p + 16));

		a = _mm_add_epi64(a, _mm_add_epi64(_mm_and_si128(x, low), _mm_srli_epi64(x, 32)));
		b = _mm_add_epi64(b, _mm_add_epi64(_mm_and_si128(y, low), _mm_srli_epi64(y, 32)));
	}
	_mm_storeu_si128((__m128i *)(void *)lane, _mm_add_epi64(a, b));
	return lane[0] + lane[1] + sum_scalar(p, n);
}

__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *p, size_t n)
{
	const __m256i low = _mm256_set1_epi64x(UINT32_MAX);
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
	uint64_t lane[4];

	for (; n >= 128; n -= 128, p += 128) {
		__m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
		__m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
		__m256i z = _mm256_loadu_si256((const __m256i *)(const void *)(p + 64));
		__m256i w = _mm256_loadu_si256((const __m256i *)(const void *)(p + 96));

		a = _mm256_add_epi64(a, _mm256_add_epi64(_mm256_and_si256(x, low), _mm256_srli_epi64(x, 32)));
		b = _mm256_add_epi64(b, _mm256_add_epi64(_mm256_and_si256(y, low), _mm256_srli_epi64(y, 32)));
		c = _mm256_add_epi64(c, _mm256_add_epi64(_mm256_and_si256(z, low), _mm256_srli_epi64(z, 32)));
		d = _mm256_add_epi64(d, _mm256_add_epi64(_mm256_and_si256(w, low), _mm256_srli_epi64(w, 32)));
	}
	a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
	_mm256_storeu_si256((__m256i *)(void *)lane, a);
	return lane[0] + lane[1] + lane[2] + lane[3] + sum_scalar(p, n);
}
#endif

static enum csum_way chosen = CSUM_SCALAR;

void csum_init(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	chosen = __builtin_cpu_supports("avx2") ? CSUM_AVX2 : CSUM_SSE2;
#endif
}

bool csum_by(enum csum_way way, const void *p, size_t n, uint64_t *ret)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (way == CSUM_AVX2 && __builtin_cpu_supports("avx2")) {
		*ret = sum_avx2(p, n);
		return true;
	}
	if (way == CSUM_SSE2) {
		*ret = sum_sse2(p, n);
		return true;
	}
#endif
	if (way != CSUM_SCALAR)
		return false;
	*ret = sum_scalar(p, n);
	return true;
}

uint64_t csum_add(const void *p, size_t n)
{
#if defined(__x86_64__)
	if (n >= 128 && chosen == CSUM_AVX2)
		return sum_avx2(p, n);
	if (n >= 64 && chosen != CSUM_SCALAR)
		return sum_sse2(p, n);
#endif
	return sum_scalar(p, n);
}

uint16_t csum_fold(uint64_t sum)
{
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}
