#include "gate/http1.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"

#define TRAILER_MAX (8 << 10)
#define CHUNK_LINE_MAX 17 /* 15 digits and CR LF */

void http1_init(struct http1 *h, struct span sni)
{
	memset(h, 0, sizeof(*h));
	h->sni = sni;
	buf_init(&h->head, HTTP_HEAD_MAX);
	buf_init(&h->text, TRAILER_MAX);
}

void http1_done(struct http1 *h)
{
	buf_done(&h->head);
	buf_done(&h->text);
}

void http1_next(struct http1 *h)
{
	bool last = h->req.last;

	if (h->state == HTTP1_DEAD)
		return;
	buf_consume(&h->head, h->head.n);
	h->line = 0;
	h->trailer = 0;
	h->told = false;
	memset(&h->req, 0, sizeof(h->req));
	/* RFC 9112 section 9.6: nothing behind a request that closes is one. */
	h->state = last ? HTTP1_DEAD : HTTP1_LINE;
}

bool http1_is_idle(const struct http1 *h)
{
	return h->state == HTTP1_LINE && h->head.n == 0;
}

struct refusal http1_fault(void)
{
	return (struct refusal){
		.status = 400,
		.code = REFUSAL_FRAMING,
		.close = true,
		.why = "the body's chunks are not as RFC 9112 section 7.1 says; nothing of it counts"
	};
}

/* Takes what belongs to the line that begins at @from of @b. 1: it is whole and *@ret_line is what stands before CR LF;
 * 0: more is needed; -EMSGSIZE: with it @b would pass @max bytes; -EBADMSG: not ended by CR LF, or with a NUL or CR in
 * it. */
static int take_line(struct buf *b, size_t from, size_t max, struct span *in, struct span *ret_line)
{
	const uint8_t *lf = memchr(in->p, '\n', in->n);
	size_t n = lf ? (size_t)(lf - in->p) + 1 : in->n;
	struct span part, line;

	if (n > max - b->n)
		return -EMSGSIZE;
	(void)span_take(in, n, &part);
	if (buf_put(b, part.p, part.n) < 0)
		return -EMSGSIZE; /* no memory: the same answer, and the connection is gone */
	if (!lf)
		return 0;
	line = buf_span(b);
	line = SPAN(line.p + from, line.n - from - 1);
	if (line.n == 0 || line.p[line.n - 1] != '\r' || memchr(line.p, '\r', line.n - 1) ||
	    memchr(line.p, '\0', line.n))
		return -EBADMSG;
	*ret_line = SPAN(line.p, line.n - 1);
	return 1;
}

static enum http1_event dead(struct http1 *h, enum stage stage, uint16_t status, enum refusal_code code,
			     const char *why)
{
	struct request *r = &h->req;

	request_fault(r, stage, (struct refusal){ .status = status, .code = code, .close = true, .why = why });
	/* Only the target is of use for the answer; the head may have moved since it was read. */
	r->n = 0;
	if (h->state == HTTP1_FIELDS)
		request_set_target(r, SPAN(buf_span(&h->head).p + h->target, h->target_n));
	h->state = HTTP1_DEAD;
	return HTTP1_HEAD;
}

static enum http1_event broken(struct http1 *h, enum stage stage, const char *why)
{
	return dead(h, stage, 400, REFUSAL_FRAMING, why);
}

/* "HTTP/" and then digits and dots: a version, if not ours. */
static bool is_version(struct span s)
{
	static const char name[] = "HTTP/";

	if (s.n <= strlen(name) || memcmp(s.p, name, strlen(name)) != 0)
		return false;
	for (size_t i = strlen(name); i < s.n; i++)
		if ((s.p[i] < '0' || s.p[i] > '9') && s.p[i] != '.')
			return false;
	return true;
}

static enum http1_event request_line(struct http1 *h, struct span line)
{
	struct request *r = &h->req;
	struct span part[3];

	for (int i = 0; i < 3; i++) {
		const uint8_t *space = line.n > 0 ? memchr(line.p, ' ', line.n) : NULL;
		size_t n = space ? (size_t)(space - line.p) : line.n;

		/* Two spaces, and with them three parts. */
		if ((i < 2) != (space != NULL) || n == 0)
			return broken(h, STAGE_LINE,
				      "the request line is not METHOD, one space, target, one space, HTTP/1.1");
		part[i] = SPAN(line.p, n);
		line = SPAN(line.p + n, line.n - n);
		if (i < 2)
			line = SPAN(line.p + 1, line.n - 1);
	}
	if (!http_is_token(part[0]) || !is_version(part[2]))
		return broken(h, STAGE_LINE, "the request line is not METHOD, one space, target, one space, HTTP/1.1");
	if (!span_is(part[2], "HTTP/1.1"))
		return dead(h, STAGE_VERSION, 505, REFUSAL_VERSION, "the version of this connection is HTTP/1.1");
	r->method = prov_method_find(part[0]);
	r->is_head = r->method == METHOD_HEAD;
	if (r->method == METHODS)
		request_fault(r, STAGE_METHOD,
			      (struct refusal){ .status = 405,
						.code = REFUSAL_METHOD,
						.why = "this method is not let through; GET, HEAD, POST, PUT, PATCH, "
						       "DELETE and OPTIONS are" });
	/* The head may still move while it grows, so the target is read when it is whole or found to be broken. */
	h->target = (uint32_t)(part[1].p - buf_span(&h->head).p);
	h->target_n = (uint32_t)part[1].n;
	h->state = HTTP1_FIELDS;
	return HTTP1_MORE;
}

static enum http1_event field_line(struct http1 *h, struct span line)
{
	const uint8_t *base = buf_span(&h->head).p, *colon = memchr(line.p, ':', line.n);
	struct span name, value;

	if (!colon)
		return broken(h, STAGE_FIELDS, "a header field has no colon");
	name = SPAN(line.p, (size_t)(colon - line.p));
	value = http_trim(SPAN(colon + 1, line.n - name.n - 1));
	if (name.n > HTTP_NAME_MAX || h->req.n == HTTP_FIELDS_MAX)
		return dead(h, STAGE_FIELDS, 431, REFUSAL_LIMIT,
			    "the head has a name of more than 256 bytes or more than 128 fields");
	if (!http_is_token(name) || !http_is_value(value))
		return broken(h, STAGE_FIELDS,
			      "a header field has a name that is no token, is folded, or has a control byte");
	h->at[h->req.n].name = (uint32_t)(name.p - base);
	h->at[h->req.n].name_n = (uint32_t)name.n;
	h->at[h->req.n].value = (uint32_t)(value.p - base);
	h->at[h->req.n].value_n = (uint32_t)value.n;
	h->req.n++;
	return HTTP1_MORE;
}

static enum http1_event whole(struct http1 *h)
{
	const uint8_t *base = buf_span(&h->head).p;
	struct request *r = &h->req;

	for (size_t i = 0; i < r->n; i++) {
		r->f[i].name = SPAN(base + h->at[i].name, h->at[i].name_n);
		r->f[i].value = SPAN(base + h->at[i].value, h->at[i].value_n);
	}
	request_set_target(r, SPAN(base + h->target, h->target_n));
	request_check(r, h->sni);
	if (r->fault.close)
		h->state = HTTP1_DEAD;
	else if (r->body == HTTP_BODY_STREAM)
		h->state = HTTP1_CHUNK_SIZE;
	else
		h->state = r->body_len > 0 ? HTTP1_LENGTH : HTTP1_END;
	h->left = r->body_len;
	return HTTP1_HEAD;
}

static enum http1_event head_line(struct http1 *h, struct span *in)
{
	bool first = h->state == HTTP1_LINE;
	enum stage stage = first ? STAGE_LINE : STAGE_FIELDS;
	enum http1_event ev;
	struct span line;
	int r = take_line(&h->head, h->line, HTTP_HEAD_MAX, in, &line);

	if (r == -EMSGSIZE && first)
		return dead(h, STAGE_TARGET, 414, REFUSAL_LIMIT, "the request line is longer than 16 KiB");
	if (r == -EMSGSIZE)
		return dead(h, STAGE_FIELDS, 431, REFUSAL_LIMIT, "the head is larger than 64 KiB");
	if (r < 0)
		return broken(h, stage, "a line of the head is not ended by CR LF, or has a CR or NUL in it");
	if (r == 0)
		return HTTP1_MORE;
	if (!first && line.n == 0)
		return whole(h);
	ev = first ? request_line(h, line) : field_line(h, line);
	h->line = h->head.n;
	return ev;
}

/* CHUNK_LINE_MAX leaves 15 digits, so nothing overflows. */
static int hex_size(struct span line, uint64_t *ret)
{
	uint64_t v = 0;

	if (line.n == 0)
		return -EBADMSG;
	for (size_t i = 0; i < line.n; i++) {
		uint8_t c = line.p[i];
		unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
			     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
			     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
						    : 16;

		if (d == 16)
			return -EBADMSG;
		v = v << 4 | d;
	}
	*ret = v;
	return 0;
}

static enum http1_event bad(struct http1 *h)
{
	h->state = HTTP1_DEAD;
	return HTTP1_BAD;
}

static enum http1_event chunk_line(struct http1 *h, struct span *in)
{
	size_t max = h->state == HTTP1_CHUNK_SIZE  ? CHUNK_LINE_MAX
		     : h->state == HTTP1_CHUNK_END ? 2
						   : TRAILER_MAX - h->trailer;
	struct span line;
	int r = take_line(&h->text, 0, max, in, &line);

	if (r < 0)
		return bad(h);
	if (r == 0)
		return HTTP1_MORE;
	h->trailer += h->state == HTTP1_TRAILER ? h->text.n : 0;
	if (h->state == HTTP1_CHUNK_SIZE) {
		if (hex_size(line, &h->left) < 0)
			return bad(h);
		h->state = h->left > 0 ? HTTP1_CHUNK_DATA : HTTP1_TRAILER;
	} else if (h->state == HTTP1_CHUNK_END) {
		/* A line of two bytes is CR LF. */
		h->state = HTTP1_CHUNK_SIZE;
	} else if (line.n == 0) {
		h->state = HTTP1_END;
	} else {
		/* Read as strictly as a head, and dropped. */
		const uint8_t *colon = memchr(line.p, ':', line.n);
		struct span name = SPAN(line.p, colon ? (size_t)(colon - line.p) : 0);

		if (!http_is_token(name) || !http_is_value(http_trim(SPAN(colon + 1, line.n - name.n - 1))))
			return bad(h);
	}
	buf_consume(&h->text, h->text.n);
	return HTTP1_MORE;
}

static enum http1_event body_bytes(struct http1 *h, struct span *in, struct span *ret_body)
{
	size_t n = in->n < h->left ? in->n : (size_t)h->left;

	(void)span_take(in, n, ret_body);
	h->left -= n;
	if (h->left == 0)
		h->state = h->state == HTTP1_LENGTH ? HTTP1_END : HTTP1_CHUNK_END;
	return HTTP1_BODY;
}

enum http1_event http1_feed(struct http1 *h, struct span *in, struct span *ret_body)
{
	enum http1_event ev = HTTP1_MORE;

	for (;;) {
		if (h->state == HTTP1_END) {
			if (h->told)
				return HTTP1_MORE;
			h->told = true;
			return HTTP1_DONE;
		}
		if (h->state == HTTP1_DEAD)
			*in = SPAN(in->p + in->n, 0);
		if (in->n == 0)
			return HTTP1_MORE;
		if (h->state == HTTP1_LINE || h->state == HTTP1_FIELDS)
			ev = head_line(h, in);
		else if (h->state == HTTP1_LENGTH || h->state == HTTP1_CHUNK_DATA)
			ev = body_bytes(h, in, ret_body);
		else
			ev = chunk_line(h, in);
		if (ev != HTTP1_MORE)
			return ev;
	}
}
