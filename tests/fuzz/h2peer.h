/* The hostile peer of an HTTP/2 connection, for fuzz-gateh2 (a guest) and fuzz-uph2 (a service): an input is a row of
 * steps, and those for the peer make bytes. Frames come with a right length and field lists as HPACK, so that what a
 * fuzzer changes is what they mean; raw bytes change the rest. What comes back is cut into frames and its field lists
 * are read as any client or server would. */
#pragma once

#include <nghttp2/nghttp2.h>
#include <string.h>

#include "base/buf.h"
#include "base/span.h"
#include "fuzz.h"

#define H2_FRAME_MAX (16 << 10)
#define H2_STREAMS 256 /* ids are a byte of the input */

enum h2_frame {
	H2_DATA,
	H2_HEADERS,
	H2_PRIORITY,
	H2_RST,
	H2_SETTINGS,
	H2_PUSH,
	H2_PING,
	H2_GOAWAY,
	H2_WINDOW,
	H2_CONT
};
#define H2_END_STREAM 1
#define H2_END_HEADERS 4
#define H2_PADDED 8
#define H2_WITH_PRIORITY 0x20

/* Steps of an input. Reading past its end gives zeros, and fuzz_over() ends the run. */
static inline uint8_t fuzz_u8(struct span *in)
{
	uint8_t b = in->n > 0 ? in->p[0] : 0;

	if (in->n > 0)
		*in = SPAN(in->p + 1, in->n - 1);
	return b;
}

static inline struct span fuzz_bytes(struct span *in, size_t n)
{
	struct span s = SPAN(in->p, n < in->n ? n : in->n);

	*in = SPAN(in->p + s.n, in->n - s.n);
	return s;
}

/* Appends a frame, whole or not at all. */
static inline void h2_put(struct buf *out, uint8_t type, uint8_t flags, uint32_t stream, struct span payload)
{
	const uint8_t head[9] = {
		(uint8_t)(payload.n >> 16), (uint8_t)(payload.n >> 8), (uint8_t)payload.n,     type,	       flags,
		(uint8_t)(stream >> 24),    (uint8_t)(stream >> 16),   (uint8_t)(stream >> 8), (uint8_t)stream
	};

	if (!buf_room(out, sizeof(head) + payload.n))
		return;
	(void)buf_put(out, head, sizeof(head));
	(void)buf_put(out, payload.p, payload.n);
}

/* A string of HPACK (RFC 7541 section 5.2), not packed; below 16 KiB. */
static inline void hpack_string(struct buf *out, struct span s)
{
	if (s.n < 127) {
		(void)buf_put_u8(out, (uint8_t)s.n);
	} else {
		size_t rest = s.n - 127;

		(void)buf_put_u8(out, 127);
		for (; rest >= 128; rest >>= 7)
			(void)buf_put_u8(out, (uint8_t)(rest | 0x80));
		(void)buf_put_u8(out, (uint8_t)rest);
	}
	(void)buf_put(out, s.p, s.n);
}

/* A literal field; @index: it enters the table. */
static inline void hpack_field(struct buf *out, struct span name, struct span value, bool index)
{
	(void)buf_put_u8(out, index ? 0x40 : 0);
	hpack_string(out, name);
	hpack_string(out, value);
}

/* A field list as HEADERS; @cut: with the rest from there on as CONTINUATION. */
static inline void h2_put_headers(struct buf *out, uint32_t stream, bool end, struct span block, size_t cut)
{
	cut = cut < block.n ? cut : block.n;
	h2_put(out, H2_HEADERS, (uint8_t)((end ? H2_END_STREAM : 0) | (cut == block.n ? H2_END_HEADERS : 0)), stream,
	       SPAN(block.p, cut));
	if (cut < block.n)
		h2_put(out, H2_CONT, H2_END_HEADERS, stream, SPAN(block.p + cut, block.n - cut));
}

/* Reads what comes back. */
struct h2_reader {
	nghttp2_hd_inflater *hd;
	struct buf in, block;
	bool preface; /* still to come */
	uint8_t type, flags;
	uint32_t stream;
};

static inline void h2_reader_init(struct h2_reader *r, bool preface)
{
	*r = (struct h2_reader){ .preface = preface };
	MUST(nghttp2_hd_inflate_new(&r->hd) == 0);
	buf_init(&r->in, 8 << 20);
	buf_init(&r->block, 1 << 20);
}

static inline void h2_reader_done(struct h2_reader *r)
{
	nghttp2_hd_inflate_del(r->hd);
	buf_done(&r->in);
	buf_done(&r->block);
}

/* The next whole frame; its payload is borrowed until the next call. Whatever a peer did, what it gets is frames of the
 * size that it let in. */
static inline bool h2_next(struct h2_reader *r, struct span *ret)
{
	static const char magic[] = NGHTTP2_CLIENT_MAGIC;
	static uint8_t frame[H2_FRAME_MAX];
	struct span in = buf_span(&r->in);
	size_t n;

	if (r->preface && in.n >= NGHTTP2_CLIENT_MAGIC_LEN) {
		MUST(memcmp(in.p, magic, NGHTTP2_CLIENT_MAGIC_LEN) == 0);
		buf_consume(&r->in, NGHTTP2_CLIENT_MAGIC_LEN);
		in = buf_span(&r->in);
		r->preface = false;
	}
	if (r->preface || in.n < 9)
		return false;
	n = (size_t)in.p[0] << 16 | (size_t)in.p[1] << 8 | in.p[2];
	MUST(n <= H2_FRAME_MAX);
	if (in.n < 9 + n)
		return false;
	r->type = in.p[3];
	r->flags = in.p[4];
	r->stream =
		((uint32_t)in.p[5] << 24 | (uint32_t)in.p[6] << 16 | (uint32_t)in.p[7] << 8 | in.p[8]) & 0x7fffffffu;
	memcpy(frame, in.p + 9, n);
	buf_consume(&r->in, 9 + n);
	*ret = SPAN(frame, n);
	return true;
}

/* The fields of HEADERS and CONTINUATION, when they are whole, each told. */
static inline void h2_fields(struct h2_reader *r, struct span payload, void (*each)(void *arg, const nghttp2_nv *nv),
			     void *arg)
{
	const uint8_t *p;
	size_t n;

	if (r->type == H2_HEADERS && r->flags & H2_PADDED)
		payload = SPAN(payload.p + 1, payload.n - 1 - payload.p[0]);
	if (r->type == H2_HEADERS && r->flags & H2_WITH_PRIORITY)
		payload = SPAN(payload.p + 5, payload.n - 5);
	MUST(buf_put(&r->block, payload.p, payload.n) == 0);
	if (!(r->flags & H2_END_HEADERS))
		return;
	p = buf_span(&r->block).p;
	n = r->block.n;
	for (int flags = 0; !(flags & NGHTTP2_HD_INFLATE_FINAL);) {
		nghttp2_nv nv;
		ssize_t k = nghttp2_hd_inflate_hd2(r->hd, &nv, &flags, p, n, 1);

		MUST(k >= 0);
		p += k;
		n -= (size_t)k;
		if (flags & NGHTTP2_HD_INFLATE_EMIT)
			each(arg, &nv);
	}
	MUST(nghttp2_hd_inflate_end_headers(r->hd) == 0);
	buf_consume(&r->block, r->block.n);
}
