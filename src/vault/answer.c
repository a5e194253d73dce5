/* States: HEAD collects lines up to the empty one; BODY_* pass bytes on; CHUNK_* read the framing between them. Lines
 * are checked for their ends byte by byte as they come, so that a service that never sends CR LF is not waited for. */
#include "vault/answer.h"

#include <errno.h>
#include <strings.h>

#include "base/macros.h"

#define CHUNK_LINE_MAX (15 + 2)

enum state {
	HEAD,
	BODY_LENGTH,
	BODY_EOF,
	CHUNK_SIZE,
	CHUNK_DATA,
	CHUNK_CRLF,
	TRAILERS,
	DONE, /* the end is still to be told */
	OVER,
	UPGRADED,
	BROKEN,
};

void answer_init(struct answer *a, enum prov_method method, bool upgrade)
{
	*a = (struct answer){ .head_only = method == METHOD_HEAD, .upgrade = upgrade, .state = HEAD };
	buf_init(&a->head, HTTP_HEAD_MAX);
}

void answer_done(struct answer *a)
{
	buf_done(&a->head);
}

/* --- lines --- */

/* Moves bytes into a->head up to the end of a line (@whole false) or of the empty line (true). 1: it is there; 0: more.
 */
static int take_lines(struct answer *a, struct span *in, size_t max, bool whole)
{
	while (in->n > 0) {
		struct span have = buf_span(&a->head);
		uint8_t c = in->p[0], last = have.n > 0 ? have.p[have.n - 1] : 0;
		size_t n = 1;

		if (last == '\r' ? c != '\n' : c == '\n')
			return -EPROTO;
		/* Up to the next end of a line in one piece. */
		if (c != '\r' && c != '\n')
			while (n < in->n && in->p[n] != '\r' && in->p[n] != '\n')
				n++;
		if (have.n + n > max)
			return -EPROTO;
		if (buf_put(&a->head, in->p, n) < 0)
			return -ENOMEM;
		*in = SPAN(in->p + n, in->n - n);
		if (c != '\n')
			continue;
		have = buf_span(&a->head);
		if (!whole || have.n == 2 || (have.n >= 4 && memcmp(have.p + have.n - 4, "\r\n\r\n", 4) == 0))
			return 1;
	}
	return 0;
}

/* The next line without its CR LF. */
static bool next_line(struct span *s, struct span *ret)
{
	const uint8_t *end = s->n > 0 ? memchr(s->p, '\r', s->n) : NULL;

	if (!end || (size_t)(end - s->p) + 2 > s->n)
		return false;
	*ret = SPAN(s->p, (size_t)(end - s->p));
	*s = SPAN(end + 2, s->n - ret->n - 2);
	return true;
}

static int read_fields(struct answer *a, struct span lines)
{
	struct span line, list, item;
	size_t named = 0;

	a->n_fields = 0;
	while (next_line(&lines, &line) && line.n > 0) {
		const uint8_t *colon = memchr(line.p, ':', line.n);
		struct http_field f;

		if (!colon || a->n_fields == HTTP_FIELDS_MAX)
			return -EPROTO;
		f.name = SPAN(line.p, (size_t)(colon - line.p));
		f.value = http_trim(SPAN(colon + 1, line.n - f.name.n - 1));
		if (f.name.n > HTTP_NAME_MAX || !http_is_token(f.name) || !http_is_value(f.value))
			return -EPROTO;
		/* answer_keeps() walks them for each field. */
		for (list = f.value; http_is(f.name, "connection") && http_next_item(&list, &item);)
			if (named++ == HTTP_FIELDS_MAX)
				return -EPROTO;
		a->f[a->n_fields++] = f;
	}
	return lines.n == 0 ? 0 : -EPROTO;
}

/* "HTTP/1.1 200 Reason" */
static int read_status(struct span line, unsigned *ret, bool *ret_is_10)
{
	unsigned v = 0;

	if (line.n < 13 || memcmp(line.p, "HTTP/1.", 7) != 0 || (line.p[7] != '0' && line.p[7] != '1') ||
	    line.p[8] != ' ' || line.p[12] != ' ')
		return -EPROTO;
	for (int i = 9; i < 12; i++) {
		if (line.p[i] < '0' || line.p[i] > '9')
			return -EPROTO;
		v = v * 10 + (line.p[i] - '0');
	}
	if (v < 100 || v > 599 || !http_is_value(http_trim(SPAN(line.p + 12, line.n - 12))))
		return -EPROTO;
	*ret = v;
	*ret_is_10 = line.p[7] == '0';
	return 0;
}

static const struct http_field *only(const struct answer *a, const char *name, size_t *ret_n)
{
	const struct http_field *found = NULL;

	*ret_n = 0;
	for (size_t i = 0; i < a->n_fields; i++)
		if (http_is(a->f[i].name, name)) {
			found = &a->f[i];
			(*ret_n)++;
		}
	return found;
}

static bool lists(const struct answer *a, const char *name, const char *word)
{
	for (size_t i = 0; i < a->n_fields; i++) {
		struct span list = a->f[i].value, item;

		if (!http_is(a->f[i].name, name))
			continue;
		while (http_next_item(&list, &item))
			if (http_is(item, word))
				return true;
	}
	return false;
}

/* RFC 9112 section 6.3 in its strict reading. */
static int read_framing(struct answer *a, bool is_10)
{
	size_t n_cl, n_te;
	const struct http_field *cl = only(a, "content-length", &n_cl), *te = only(a, "transfer-encoding", &n_te);
	bool none = a->head_only || a->status == 204 || a->status == 304;

	if (n_cl > 1 || n_te > 1 || (n_cl && n_te) || (n_te && (is_10 || !http_is(te->value, "chunked"))))
		return -EPROTO;
	a->length = 0;
	if (n_cl && http_length(cl->value, &a->length) < 0)
		return -EPROTO;
	if (a->status == 204 && (n_te || a->length > 0))
		return -EPROTO;
	a->closes = is_10 || lists(a, "connection", "close");
	a->chunked = n_te && !none;
	a->left = a->length;
	if (none || (n_cl && a->length == 0)) {
		/* To HEAD it is the length of what GET would get, and is passed on as a field. */
		a->framing = HTTP_BODY_NONE;
		a->state = DONE;
	} else if (n_cl) {
		a->framing = HTTP_BODY_LENGTH;
		a->state = BODY_LENGTH;
	} else {
		a->framing = HTTP_BODY_STREAM;
		a->state = n_te ? CHUNK_SIZE : BODY_EOF;
		a->closes |= !n_te;
	}
	return 0;
}

static int upgraded(struct answer *a)
{
	size_t n_cl, n_te;

	(void)only(a, "content-length", &n_cl);
	(void)only(a, "transfer-encoding", &n_te);
	if (!a->upgrade || n_cl || n_te || !lists(a, "upgrade", "websocket") || !lists(a, "connection", "upgrade"))
		return -EPROTO;
	a->closes = true;
	a->framing = HTTP_BODY_NONE;
	a->state = UPGRADED;
	return ANSWER_UPGRADED;
}

/* An interim answer: nothing of it is passed on. */
static int interim(struct answer *a)
{
	size_t n_cl, n_te;

	(void)only(a, "content-length", &n_cl);
	(void)only(a, "transfer-encoding", &n_te);
	if (n_cl || n_te || ++a->interim > ANSWER_INTERIM_MAX)
		return -EPROTO;
	buf_consume(&a->head, buf_span(&a->head).n);
	a->n_fields = 0;
	return ANSWER_MORE;
}

static int read_head(struct answer *a)
{
	struct span lines = buf_span(&a->head), line;
	bool is_10;

	if (!next_line(&lines, &line) || read_status(line, &a->status, &is_10) < 0 || read_fields(a, lines) < 0)
		return -EPROTO;
	if (a->status == 101)
		return is_10 ? -EPROTO : upgraded(a);
	if (a->status < 200)
		return is_10 ? -EPROTO : interim(a);
	return read_framing(a, is_10) < 0 ? -EPROTO : ANSWER_HEAD;
}

static int read_chunk_size(struct answer *a)
{
	struct span s = buf_span(&a->head);
	uint64_t v = 0;

	if (s.n < 3)
		return -EPROTO;
	for (size_t i = 0; i < s.n - 2; i++) {
		uint8_t c = s.p[i], low = c | 0x20;

		if (c >= '0' && c <= '9')
			v = v << 4 | (c - '0');
		else if (low >= 'a' && low <= 'f')
			v = v << 4 | (unsigned)(low - 'a' + 10);
		else
			return -EPROTO;
	}
	buf_consume(&a->head, s.n);
	a->left = v;
	a->state = v > 0 ? CHUNK_DATA : TRAILERS;
	return 0;
}

static int read_trailers(struct answer *a)
{
	a->state = DONE;
	if (read_fields(a, buf_span(&a->head)) < 0)
		return -EPROTO;
	return a->n_fields > 0 ? ANSWER_TRAILERS : ANSWER_MORE;
}

static int body(struct answer *a, struct span *in, uint64_t max)
{
	size_t n = (size_t)MIN((uint64_t)in->n, max);

	a->body = SPAN(in->p, n);
	*in = SPAN(in->p + n, in->n - n);
	a->left -= max == UINT64_MAX ? 0 : n;
	return ANSWER_BODY;
}

/* One step; 0 (ANSWER_MORE) with a changed state means: go on. */
static int step(struct answer *a, struct span *in)
{
	int r;

	switch ((enum state)a->state) {
	case HEAD:
		r = take_lines(a, in, HTTP_HEAD_MAX, true);
		return r == 1 ? read_head(a) : r;
	case BODY_LENGTH:
	case CHUNK_DATA:
		if (in->n == 0)
			return 0;
		r = body(a, in, a->left);
		if (a->left == 0)
			a->state = a->chunked ? CHUNK_CRLF : DONE;
		return r;
	case BODY_EOF:
		return in->n == 0 ? 0 : body(a, in, UINT64_MAX);
	case CHUNK_SIZE:
		r = take_lines(a, in, CHUNK_LINE_MAX, false);
		return r == 1 ? read_chunk_size(a) : r;
	case CHUNK_CRLF:
		r = take_lines(a, in, 2, false);
		if (r == 1) {
			buf_consume(&a->head, 2);
			a->state = CHUNK_SIZE;
		}
		return r == 1 ? 0 : r;
	case TRAILERS:
		r = take_lines(a, in, ANSWER_TRAILER_MAX, true);
		return r == 1 ? read_trailers(a) : r;
	case DONE:
		a->state = OVER;
		return ANSWER_END;
	case OVER:
		return ANSWER_END;
	case UPGRADED:
		return ANSWER_UPGRADED;
	case BROKEN:
		break;
	}
	return -EPROTO;
}

int answer_feed(struct answer *a, struct span *in)
{
	int state, r;
	size_t n;

	/* Fields lie in lines that were told; they make room for what comes next. */
	if (a->told) {
		a->told = false;
		a->n_fields = 0;
		buf_consume(&a->head, buf_span(&a->head).n);
	}
	do {
		state = a->state;
		n = in->n;
		r = step(a, in);
	} while (r == ANSWER_MORE && (a->state != state || in->n != n));
	if (r < 0)
		a->state = BROKEN;
	a->told = r == ANSWER_HEAD || r == ANSWER_TRAILERS || r == ANSWER_UPGRADED;
	return r;
}

int answer_eof(struct answer *a)
{
	if (a->state != BODY_EOF && a->state != DONE && a->state != OVER)
		return -EPIPE;
	a->state = OVER;
	return ANSWER_END;
}

bool answer_keeps(enum prov_host_id host, const struct answer *a, const struct http_field *f)
{
	static const char *const dropped[] = {
		"connection", "keep-alive",	 "te",	"trailer",   "transfer-encoding", "upgrade",
		"alt-svc",    "clear-site-data", "nel", "report-to",
	};

	if (http_is_one_of(f->name, dropped, ARRAY_SIZE(dropped)) || http_begins(f->name, "proxy-") ||
	    http_begins(f->name, "x-sandbox-"))
		return false;
	if (http_is(f->name, "set-cookie") || http_is(f->name, "set-cookie2"))
		return host == HOST_CHATGPT && prov_cookie_kept(f->value);
	/* A length is told by the framing; what HEAD was told stays a field. */
	if (http_is(f->name, "content-length"))
		return a->head_only || a->status == 304;
	for (size_t i = 0; i < a->n_fields; i++) {
		struct span list = a->f[i].value, item;

		if (!http_is(a->f[i].name, "connection"))
			continue;
		while (http_next_item(&list, &item))
			if (item.n == f->name.n &&
			    strncasecmp((const char *)item.p, (const char *)f->name.p, item.n) == 0)
				return false;
	}
	return true;
}

bool answer_is_coded(const struct answer *a)
{
	if (a->head_only || a->status == 204 || a->status == 304)
		return false;
	for (size_t i = 0; i < a->n_fields; i++) {
		struct span list = a->f[i].value, item;

		if (!http_is(a->f[i].name, "content-encoding"))
			continue;
		while (http_next_item(&list, &item))
			if (item.n > 0 && !http_is(item, "identity"))
				return true;
	}
	return false;
}
