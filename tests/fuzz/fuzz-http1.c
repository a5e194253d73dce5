/* A stream of HTTP/1.1 requests. What comes of it does not depend on how the bytes come: whole and one by one, the same
 * events, bodies and faults. Each field of a head that is let through has the form that the parser promises. */
#include "fuzz.h"

#include <string.h>

#include "gate/http1.h"

#define TOLD_MAX (1 << 16)

struct told {
	uint8_t b[TOLD_MAX];
	size_t n;
};

static void tell(struct told *t, const void *p, size_t n)
{
	if (n <= TOLD_MAX - t->n) {
		memcpy(t->b + t->n, p, n);
		t->n += n;
	}
}

static void check_head(const struct http1 *h)
{
	const struct request *r = &h->req;
	struct span raw = buf_span(&h->head);

	/* What is let through has no line that another reader would end elsewhere. */
	for (size_t i = 0; i < raw.n && r->fault.status == 0; i++)
		MUST(raw.p[i] != 0 && (raw.p[i] == '\n') == (i > 0 && raw.p[i - 1] == '\r'));
	MUST(r->n <= HTTP_FIELDS_MAX);
	for (size_t i = 0; i < r->n; i++)
		MUST(http_is_token(r->f[i].name) && http_is_value(r->f[i].value) && r->f[i].name.n <= HTTP_NAME_MAX);
	if (r->fault.status == 0) {
		MUST(r->method < METHODS && r->path.n > 0 && r->path.p[0] == '/' && r->body < HTTP_BODIES);
		MUST(!r->websocket || (r->method == METHOD_GET && r->body_len == 0 && r->body != HTTP_BODY_STREAM));
	}
}

static void run(const uint8_t *p, size_t n, size_t step, struct told *t)
{
	struct http1 h;

	t->n = 0;
	http1_init(&h, span_str("api.anthropic.com"));
	for (size_t at = 0; at < n; at += step) {
		struct span in = SPAN(p + at, step < n - at ? step : n - at), body;
		enum http1_event ev;

		while ((ev = http1_feed(&h, &in, &body)) != HTTP1_MORE) {
			const struct request *r = &h.req;

			if (ev == HTTP1_HEAD) {
				uint32_t what[] = { 'H',     r->fault.status, r->fault.code, r->fault.close,
						    r->body, (uint32_t)r->n };

				check_head(&h);
				tell(t, what, sizeof(what));
				tell(t, r->path.p ? r->path.p : (const uint8_t *)"", r->path.n);
			} else if (ev == HTTP1_BODY) {
				tell(t, body.p, body.n);
			} else {
				tell(t, ev == HTTP1_DONE ? "D" : "B", 1);
			}
			if (ev == HTTP1_DONE)
				http1_next(&h);
		}
		MUST(in.n == 0);
	}
	http1_done(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct told whole, bytes;

	run(p, n, n > 0 ? n : 1, &whole);
	run(p, n, 1, &bytes);
	MUST(whole.n == bytes.n && memcmp(whole.b, bytes.b, whole.n) == 0);
	return 0;
}
