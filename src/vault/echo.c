/* How it works.
 *
 * Work is done on a window: the bytes that were held back, then the new ones. First the tail is found that has to be
 * held back: from the leftmost place at which the window ends in the middle of something that may be a hit. All hits
 * that begin before that place lie whole in the window, since else the place would be further left, and are looked for
 * in two passes:
 *
 *   fixed    needles as they are and their base64 digits. Wu and Manber's search: a table over hashes of three bytes
 * says how far the window of 16 bytes may move, 10 and more on ordinary text. It does not slow down with more needles.
 *   escaped  only at an escape (found by memchr) that stands for a character of some needle. What lies before the first
 *            escape of a hit is raw, so each place of that character in each needle gives one start to be checked.
 *
 * Hits are marked in a mask beside the window and overwritten when bytes leave, because hits may overlap: bytes that
 * are already marked may be part of the next one, and are compared as they came. A needle's own "%" or "\" is taken for
 * an escape where it could be one; tokens have neither. */
#include "vault/echo.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/macros.h"
#include "vault/secret.h"

#define HASH_BITS 14
#define BLOCK 3
#define SHIFT_MAX (ECHO_NEEDLE_MIN - BLOCK + 1)
#define FIXED_MAX (ECHO_NEEDLES_MAX * 7)
#define NONE UINT16_MAX
#define WINDOW_MAX (ECHO_HOLD_MAX + ECHO_WINDOW)

const char *const echo_form_str[ECHO_FORMS] = {
	[ECHO_RAW] = "raw", [ECHO_ESCAPED] = "escaped", [ECHO_BASE64] = "base64"
};

struct needle {
	const uint8_t *p;
	uint32_t n;
	uint16_t next; /* of the same hash */
};

struct echo_set {
	unsigned refs;
	uint16_t n_fixed, n_raw; /* the raw ones come first */
	uint32_t longest;	 /* bytes that an unfinished hit can have */
	uint8_t first[256];	 /* begins a needle */
	uint8_t in_raw[256];	 /* is in one */
	uint8_t inside[256];	 /* can be in a hit of any form */
	uint8_t pair[65536 / 8]; /* two bytes that begin one */
	uint8_t shift[1 << HASH_BITS];
	uint16_t bucket[1 << HASH_BITS];
	struct needle fixed[FIXED_MAX];
	uint8_t bytes[];
};

struct echo {
	struct echo_set *set;
	size_t held, hits[ECHO_FORMS];
	bool marked; /* some of mask[] is set */
	uint8_t hold[ECHO_HOLD_MAX], mask[WINDOW_MAX];
};

static unsigned hash(const uint8_t *p)
{
	uint32_t v = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;

	return v * UINT32_C(2654435761) >> (32 - HASH_BITS);
}

/* --- preparing --- */

static void add(struct echo_set *s, const uint8_t *p, size_t n)
{
	const size_t m = ECHO_NEEDLE_MIN;
	struct needle *f = &s->fixed[s->n_fixed];
	unsigned pair = (unsigned)p[0] << 8 | p[1], h;

	*f = (struct needle){ p, (uint32_t)n, NONE };
	for (size_t i = 0; i + BLOCK <= m; i++) {
		h = hash(p + i);
		s->shift[h] = (uint8_t)MIN(s->shift[h], m - BLOCK - i);
	}
	h = hash(p + m - BLOCK);
	f->next = s->bucket[h];
	s->bucket[h] = s->n_fixed++;
	s->first[p[0]] = 1;
	s->pair[pair / 8] |= (uint8_t)(1 << pair % 8);
	s->longest = MAX(s->longest, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		s->inside[p[i]] = 1;
}

/* Among the first @most. */
static bool is_known(const struct echo_set *s, size_t most, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < most; i++)
		if (s->fixed[i].n == n && memcmp(s->fixed[i].p, p, n) == 0)
			return true;
	return false;
}

/* The digits that @needle alone determines when @before bytes modulo 3 stand in front of it. Returns their end. */
static uint8_t *add_base64(struct echo_set *s, struct span needle, size_t before, enum base64 form, uint8_t *at)
{
	static const size_t skip[] = { 0, 2, 3 };
	size_t bits = (before + needle.n) * 8, n = bits / 6 - skip[before];
	uint8_t *tmp = secret_alloc(before + needle.n + BASE64_LEN(before + needle.n));

	if (!tmp)
		return NULL;
	memcpy(tmp + before, needle.p, needle.n);
	(void)base64_encode(form, SPAN(tmp, before + needle.n), (char *)tmp + before + needle.n);
	memcpy(at, tmp + before + needle.n + skip[before], n);
	secret_free(tmp);
	if (is_known(s, s->n_fixed, at, n))
		return at;
	add(s, at, n);
	return at + n;
}

struct echo_set *echo_set_new(const struct span *needles, size_t n)
{
	struct echo_set *s;
	size_t room = 0;
	uint8_t *at;

	if (n > ECHO_NEEDLES_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++)
		room += needles[i].n + 6 * BASE64_LEN(needles[i].n + 2);
	s = secret_alloc(sizeof(*s) + room);
	if (!s)
		return NULL;
	s->refs = 1;
	memset(s->shift, SHIFT_MAX, sizeof(s->shift));
	memset(s->bucket, 0xff, sizeof(s->bucket));
	at = s->bytes;
	for (size_t i = 0; i < n; i++) {
		size_t len = MIN(needles[i].n, (size_t)ECHO_NEEDLE_MAX);

		if (len < ECHO_NEEDLE_MIN || is_known(s, s->n_fixed, needles[i].p, len))
			continue;
		memcpy(at, needles[i].p, len);
		add(s, at, len);
		for (size_t k = 0; k < len; k++)
			s->in_raw[at[k]] = 1;
		at += len;
	}
	s->n_raw = s->n_fixed;
	for (const char *c = "%\\u0123456789abcdefABCDEFnrt\""; *c; c++)
		s->inside[(uint8_t)*c] = 1; /* what escapes are made of */
	for (size_t i = 0; i < s->n_raw; i++)
		for (size_t before = 0; before < 3; before++)
			for (enum base64 form = BASE64_STD; form <= BASE64_URL; form++) {
				at = add_base64(s, SPAN(s->fixed[i].p, s->fixed[i].n), before, form, at);
				if (!at) {
					echo_set_put(s);
					return NULL;
				}
			}
	for (size_t i = 0; i < s->n_raw; i++)
		s->longest = MAX(s->longest, 6 * s->fixed[i].n);
	return s;
}

bool echo_set_is(const struct echo_set *s, const struct span *needles, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = MIN(needles[i].n, (size_t)ECHO_NEEDLE_MAX);

		if (len < ECHO_NEEDLE_MIN || is_known(s, k, needles[i].p, len))
			continue;
		if (k == s->n_raw || s->fixed[k].n != len || memcmp(s->fixed[k].p, needles[i].p, len) != 0)
			return false;
		k++;
	}
	return k == s->n_raw;
}

struct echo_set *echo_set_get(struct echo_set *s)
{
	s->refs++;
	return s;
}

void echo_set_put(struct echo_set *s)
{
	if (s && --s->refs == 0)
		secret_free(s);
}

struct echo *echo_new(struct echo_set *set)
{
	struct echo *e = calloc(1, sizeof(*e));

	if (e)
		e->set = echo_set_get(set);
	return e;
}

void echo_free(struct echo *e)
{
	if (!e)
		return;
	echo_set_put(e->set);
	explicit_bzero(e->hold, sizeof(e->hold));
	free(e);
}

size_t echo_hits(const struct echo *e, enum echo_form form)
{
	return e->hits[form];
}

/* --- escapes --- */

static int hex(uint8_t c)
{
	uint8_t low = c | 0x20;

	return c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* One character in any form at @p; how many bytes it takes, 0 when @n ends within an escape. What is no escape stands
 * for itself. */
static size_t symbol(const uint8_t *p, size_t n, int *ret)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	size_t digits = p[0] == '%' ? 2 : 4, at = p[0] == '%' ? 1 : 2;
	const char *c;
	int v = 0;

	*ret = p[0];
	if (p[0] != '%' && p[0] != '\\')
		return 1;
	if (n < 2)
		return 0;
	if (p[0] == '\\' && p[1] != 'u') {
		c = p[1] ? strchr(from, p[1]) : NULL;
		if (!c)
			return 1;
		*ret = to[c - from];
		return 2;
	}
	for (size_t i = 0; i < digits; i++) {
		if (at + i >= n)
			return 0;
		if (hex(p[at + i]) < 0)
			return 1;
		v = v << 4 | hex(p[at + i]);
	}
	*ret = v;
	return at + digits;
}

/* Walks needle @f from its character @k on at @at of the window. The end of the hit; 0: none; -1: the window ends
 * first. */
static ssize_t walk(const struct needle *f, size_t k, const uint8_t *w, size_t n, size_t at)
{
	for (; k < f->n; k++) {
		size_t len;
		int c;

		if (at == n)
			return -1;
		len = symbol(w + at, n - at, &c);
		if (len == 0)
			return -1;
		if (c == f->p[k])
			at += len;
		else if (w[at] == f->p[k])
			at++;
		else
			return 0;
	}
	return (ssize_t)at;
}

/* --- the three looks at a window --- */

static bool may_begin(const struct echo_set *s, const uint8_t *w, size_t n, size_t at)
{
	size_t left = n - at, same;

	for (size_t i = 0; i < s->n_fixed; i++) {
		const struct needle *f = &s->fixed[i];

		if (i < s->n_raw && walk(f, 0, w, n, at) < 0)
			return true;
		same = MIN(left, (size_t)f->n);
		if (left < f->n && memcmp(f->p, w + at, same) == 0)
			return true;
	}
	return false;
}

static size_t find_tail(const struct echo_set *s, const uint8_t *w, size_t n)
{
	size_t least = n - MIN(n, (size_t)s->longest), at = n;

	/* Ordinary text has a byte near its end that no hit has. */
	while (at > least && s->inside[w[at - 1]])
		at--;
	for (; at < n; at++) {
		uint8_t a = w[at], b;

		if (a != '%' && a != '\\') {
			if (!s->first[a])
				continue;
			if (at + 1 < n) {
				b = w[at + 1];
				if (b != '%' && b != '\\' && !(s->pair[((unsigned)a << 8 | b) / 8] >> b % 8 & 1))
					continue;
			}
		}
		if (may_begin(s, w, n, at))
			return at;
	}
	return n;
}

static void hit(struct echo *e, enum echo_form form, size_t at, size_t end)
{
	e->hits[form]++;
	e->marked = true;
	memset(e->mask + at, 1, end - at);
}

/* Hits of fixed bytes that begin before @tail. */
static void find_fixed(struct echo *e, const uint8_t *w, size_t n, size_t tail)
{
	const struct echo_set *s = e->set;
	const size_t last = ECHO_NEEDLE_MIN - BLOCK;

	for (size_t at = 0; at < tail && n - at >= ECHO_NEEDLE_MIN;) {
		unsigned h = hash(w + at + last);

		/* Nearly always. The processor guesses this branch and goes on; for the sum below it waits for the
		 * table. */
		while (s->shift[h] == SHIFT_MAX && (at += SHIFT_MAX) < tail && n - at >= ECHO_NEEDLE_MIN)
			h = hash(w + at + last);
		if (s->shift[h] > 0) {
			at += s->shift[h];
			continue;
		}
		for (uint16_t i = s->bucket[h]; i != NONE; i = s->fixed[i].next)
			if (n - at >= s->fixed[i].n && memcmp(w + at, s->fixed[i].p, s->fixed[i].n) == 0)
				hit(e, i < s->n_raw ? ECHO_RAW : ECHO_BASE64, at, at + s->fixed[i].n);
		at++;
	}
}

/* Hits whose first escape is at @at, standing for @c. */
static void find_at_escape(struct echo *e, const uint8_t *w, size_t n, size_t at, int c, size_t tail)
{
	for (size_t i = 0; i < e->set->n_raw; i++) {
		const struct needle *f = &e->set->fixed[i];

		for (size_t k = 0; k < f->n && k <= at; k++) {
			ssize_t end;

			if (f->p[k] != c || at - k >= tail || memcmp(w + at - k, f->p, k) != 0)
				continue;
			end = walk(f, k, w, n, at);
			if (end > 0)
				hit(e, ECHO_ESCAPED, at - k, (size_t)end);
		}
	}
}

static void find_escaped(struct echo *e, const uint8_t *w, size_t n, size_t tail, uint8_t mark)
{
	const uint8_t *p = w;
	size_t len;
	int c;

	for (; n > (size_t)(p - w) && (p = memchr(p, mark, n - (size_t)(p - w))); p += len) {
		len = symbol(p, n - (size_t)(p - w), &c);
		if (len == 0)
			break;
		if (len > 1 && c >= 0 && c < 256 && e->set->in_raw[c])
			find_at_escape(e, w, n, (size_t)(p - w), c, tail);
		/* The second of two backslashes may begin an escape of its own: what reads this need not be JSON. */
		len = 1;
	}
}

/* The window is @w[0..@n); what leaves it is overwritten there. */
static size_t scan(struct echo *e, uint8_t *w, size_t n, size_t tail)
{
	if (tail == 0)
		return 0;
	find_fixed(e, w, n, tail);
	find_escaped(e, w, n, tail, '%');
	find_escaped(e, w, n, tail, '\\');
	return tail;
}

/* Overwrite what leaves, and move the mask of what stays to the front. */
static void leave(struct echo *e, uint8_t *w, size_t n, size_t tail)
{
	if (!e->marked)
		return;
	for (size_t i = 0; i < tail; i++)
		if (e->mask[i])
			w[i] = 'x';
	memmove(e->mask, e->mask + tail, n - tail);
	memset(e->mask + (n - tail), 0, tail);
	e->marked = n > tail && memchr(e->mask, 1, n - tail);
}

size_t echo_feed(struct echo *e, struct span in, uint8_t *out)
{
	size_t n = e->held + in.n, tail;

	assert(in.n <= ECHO_WINDOW);
	memcpy(out, e->hold, e->held);
	memcpy(out + e->held, in.p, in.n);
	tail = scan(e, out, n, find_tail(e->set, out, n));
	e->held = n - tail;
	memcpy(e->hold, out + tail, e->held);
	leave(e, out, n, tail);
	return tail;
}

size_t echo_end(struct echo *e, uint8_t *out)
{
	size_t n = e->held;

	memcpy(out, e->hold, n);
	(void)scan(e, out, n, n);
	leave(e, out, n, n);
	explicit_bzero(e->hold, n);
	e->held = 0;
	return n;
}

void echo_whole(struct echo *e, uint8_t *p, size_t n)
{
	uint8_t out[WINDOW_MAX];
	size_t from = 0, to = 0, k;

	assert(e->held == 0);
	while (from < n) {
		k = MIN(n - from, (size_t)ECHO_WINDOW);
		from += k;
		k = echo_feed(e, SPAN(p + from - k, k), out);
		memcpy(p + to, out, k);
		to += k;
	}
	k = echo_end(e, out);
	memcpy(p + to, out, k);
	explicit_bzero(out, sizeof(out));
}
