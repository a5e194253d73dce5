#include "guest/jks.h"

#include <errno.h>
#include <sha1.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"

#define MAGIC 0xfeedfeedU
#define VERSION 2
#define TRUSTED 2
#define HEAD 12 /* magic, version, number */
#define DER_MAX (64 << 10)

static void digest(struct span body, uint8_t ret[SHA1_DIGEST_LENGTH])
{
	static const uint8_t password[] = { 0, 'c', 0, 'h', 0, 'a', 0, 'n', 0, 'g', 0, 'e', 0, 'i', 0, 't' };
	static const uint8_t salt[] = "Mighty Aphrodite";
	SHA1_CTX s;

	SHA1Init(&s);
	SHA1Update(&s, password, sizeof(password));
	SHA1Update(&s, salt, sizeof(salt) - 1);
	SHA1Update(&s, body.p, body.n);
	SHA1Final(ret, &s);
}

/* @ret: without the digest. */
static int check(struct span old, struct span *ret, uint32_t *ret_n)
{
	uint8_t sum[SHA1_DIGEST_LENGTH];
	struct span in = old;
	uint32_t magic, version;

	if (old.n < HEAD + SHA1_DIGEST_LENGTH || span_be(&in, 4, &magic) < 0 || span_be(&in, 4, &version) < 0 || span_be(&in, 4, ret_n) < 0 ||
	    magic != MAGIC || version != VERSION)
		return -EBADMSG;
	*ret = SPAN(old.p, old.n - SHA1_DIGEST_LENGTH);
	digest(*ret, sum);
	return memcmp(sum, old.p + ret->n, SHA1_DIGEST_LENGTH) == 0 ? 0 : -EBADMSG;
}

/* The next line, without its end. */
static bool line(struct span *in, struct span *ret)
{
	const uint8_t *end = in->n > 0 ? memchr(in->p, '\n', in->n) : NULL;
	size_t n = end ? (size_t)(end - in->p) : in->n;

	if (in->n == 0)
		return false;
	*ret = SPAN(in->p, n);
	*in = SPAN(in->p + n + (end != NULL), in->n - n - (end != NULL));
	while (ret->n > 0 && memchr(" \t\r", ret->p[ret->n - 1], 3))
		ret->n--;
	return true;
}

static bool line_is(struct span s, const char *text)
{
	return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

/* 1 and its bytes; 0 at the end. */
static int next_der(struct span *pem, uint8_t der[DER_MAX], size_t *ret_n)
{
	static uint8_t digits[BASE64_LEN(DER_MAX)];
	bool inside = false;
	size_t n = 0;
	struct span l;
	ssize_t k;

	while (line(pem, &l)) {
		if (line_is(l, "-----BEGIN CERTIFICATE-----")) {
			inside = true;
			n = 0;
		} else if (inside && line_is(l, "-----END CERTIFICATE-----")) {
			k = base64_decode(BASE64_STD, SPAN(digits, n), der, DER_MAX);
			*ret_n = k > 0 ? (size_t)k : 0;
			return k > 0 ? 1 : -EBADMSG;
		} else if (inside) {
			if (l.n > sizeof(digits) - n)
				return -EBADMSG;
			if (l.n > 0)
				memcpy(digits + n, l.p, l.n);
			n += l.n;
		}
	}
	return 0;
}

/* A number of @n bytes. */
static int put_be(struct buf *out, uint32_t v, size_t n)
{
	uint8_t be[8] = { 0 };

	for (size_t i = 0; i < n && i < 4; i++)
		be[n - 1 - i] = (uint8_t)(v >> 8 * i);
	return buf_put(out, be, n);
}

static int put_text(struct buf *out, const char *text)
{
	int r = put_be(out, (uint32_t)strlen(text), 2);

	return r < 0 ? r : buf_put(out, text, strlen(text));
}

static int put_entry(unsigned number, struct span der, struct buf *out)
{
	char alias[32];

	(void)snprintf(alias, sizeof(alias), "agent-vm:%u", number);
	if (put_be(out, TRUSTED, 4) < 0 || put_text(out, alias) < 0 || put_be(out, 0, 8) < 0 || put_text(out, "X.509") < 0 ||
	    put_be(out, (uint32_t)der.n, 4) < 0)
		return -ENOBUFS;
	return buf_put(out, der.p, der.n);
}

/* Entries of all certificates; how many. */
static int put_all(struct span pem, struct buf *out)
{
	static uint8_t der[DER_MAX];
	unsigned n = 0;
	size_t len;
	int r;

	while ((r = next_der(&pem, der, &len)) == 1) {
		r = put_entry(n++, SPAN(der, len), out);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : (int)n;
}

int jks_add(struct span old, struct span pem, struct buf *out)
{
	struct span before = { 0 };
	uint8_t sum[SHA1_DIGEST_LENGTH];
	struct buf entries;
	uint32_t n = 0;
	int added, r = old.n > 0 ? check(old, &before, &n) : 0;

	if (r < 0)
		return r;
	buf_init(&entries, JKS_MAX);
	added = put_all(pem, &entries);
	if (added < 0) {
		r = added;
	} else if (put_be(out, MAGIC, 4) < 0 || put_be(out, VERSION, 4) < 0 || put_be(out, n + (uint32_t)added, 4) < 0 ||
		   (before.n > 0 && buf_put(out, before.p + HEAD, before.n - HEAD) < 0) ||
		   buf_put(out, buf_span(&entries).p, entries.n) < 0) {
		r = -ENOBUFS;
	} else {
		digest(buf_span(out), sum);
		r = buf_put(out, sum, sizeof(sum));
	}
	buf_done(&entries);
	return r < 0 ? r : added;
}
