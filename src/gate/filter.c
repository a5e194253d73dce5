/* What GitHub's rules do to answers (page on GitHub, 2.9), between vault's frames and the protocol above.
 *
 *   HEAD -> SCRUB, LEARN  the answer passes as it comes
 *        -> HOLD          it is read whole, to hold_max() -> GIVE
 *        -> GIVE          a hint takes the place of a failure
 *
 * A longer answer than is held goes on as it came: nothing would be taken out of it. One that may not is refused. */
#include <string.h>

#include "base/macros.h"
#include "gate/gate.h"

#define REPLY_MAX (1 << 20)
#define ISSUES_MAX (8 << 20) /* of GH_REPLY_ISSUES: a hundred events, each with an issue; few are that long at once (BODIES_MAX) */

static_assert(GH_USER_MAX <= REPLY_MAX && GH_LEARN_MAX <= REPLY_MAX, "what is read whole is held whole");

static size_t hold_max(const struct ask *a)
{
	return a->judged.github.reply == GH_REPLY_ISSUES ? ISSUES_MAX : REPLY_MAX;
}

/* A long answer is among n_bodies until the ask ends. */
static bool has_place(struct ask *a)
{
	struct gate *g = a->c->g;

	if (a->filter.body.n <= REPLY_MAX || a->counted)
		return true;
	if (g->n_bodies == BODIES_MAX)
		return false;
	g->n_bodies++;
	a->counted = true;
	return true;
}

void filter_begin(struct ask *a)
{
	const struct gh_decision *d = &a->judged.github;
	struct filter *f = &a->filter;

	if (prov_hosts[a->host].role != HOST_GITHUB || (d->verdict != GH_CREDENTIAL && d->verdict != GH_ANONYMOUS))
		return;
	buf_init(&f->head, HTTPMSG_MAX);
	buf_init(&f->body, hold_max(a) + XCH_DATA_MAX);
	f->state = FILTER_HEAD;
}

void filter_done(struct ask *a)
{
	struct filter *f = &a->filter;

	buf_done(&f->head);
	buf_done(&f->body);
	f->state = FILTER_NONE;
}

/* ---- heads of ours ---- */

static bool is_json(const struct httpmsg_answer *m)
{
	for (size_t i = 0; i < m->w.n_fields; i++)
		if (http_is(m->f[i].name, "content-type"))
			return http_begins(m->f[i].value, "application/json");
	return false;
}

/* @from: whose fields it keeps, but for those that speak of the body's bytes; NULL: none. */
static bool give(struct filter *f, uint16_t status, const struct httpmsg_answer *from, const char *type)
{
	static const char *const of_bytes[] = { "content-length", "content-md5", "digest" };
	const struct httpmsg_answer_wire w = {
		.status = status, .body = HTTP_BODY_LENGTH, .body_len = f->body.n,
	};
	struct buf head;
	uint16_t n = 0;
	int r;

	buf_init(&head, HTTPMSG_MAX);
	r = httpmsg_answer_begin(&head, &w);
	for (size_t i = 0; from && i < from->w.n_fields; i++)
		if (!http_is_one_of(from->f[i].name, of_bytes, ARRAY_SIZE(of_bytes))) {
			r |= httpmsg_field(&head, from->f[i].name, from->f[i].value);
			n++;
		}
	if (type) {
		r |= httpmsg_field(&head, span_str("Content-Type"), span_str(type));
		n++;
	}
	httpmsg_end(&head, n);
	buf_done(&f->head);
	f->head = head;
	f->state = FILTER_GIVE_HEAD;
	f->given = 0;
	f->ends = true;
	return r == 0;
}

/* It cannot be passed on: in vault's way; ask_answer() knows that it was not vault. */
static bool give_refusal(struct ask *a)
{
	struct httpmsg_answer_wire w = { .status = 502, .code = REFUSAL_UPSTREAM_FRAMING };
	struct gh_decision *d = &a->judged.github;
	struct filter *f = &a->filter;

	if (d->reply == GH_REPLY_ISSUES) {
		gh_refuse(d, REFUSAL_LIMIT, "ask for less at once, such as with per_page=10",
			  "this answer can hold issues of other repositories, and it is no JSON or too long to look through (8 MiB, "
			  "32 of more than 1 MiB at once), so it is not passed on");
		d->status = 502;
		w.code = d->code;
	}
	buf_done(&f->head);
	buf_done(&f->body);
	f->state = FILTER_GIVE_HEAD;
	f->ends = true;
	f->refuses = true;
	if (httpmsg_answer_begin(&f->head, &w) < 0)
		return false;
	httpmsg_end(&f->head, 0);
	return true;
}

/* It is not for the guest as it came. */
static bool must_be_read(const struct ask *a)
{
	const struct gh_decision *d = &a->judged.github;

	return d->reply == GH_REPLY_USER || d->reply == GH_REPLY_ISSUES || d->completes;
}

/* ---- the head of an answer ---- */

/* False: it cannot be done. What is not given by us from now on is @msg itself. */
static bool head(struct ask *a, struct span msg)
{
	static struct httpmsg_answer m;
	const struct gh_decision *d = &a->judged.github;
	struct filter *f = &a->filter;
	uint16_t status;
	const char *type;
	int k;

	f->state = FILTER_NONE;
	/* What cannot be read is told by who reads it next. */
	if (httpmsg_answer_parse(msg, &m) < 0 || m.w.code != REFUSAL_NONE)
		return true;
	if (d->verdict == GH_ANONYMOUS) {
		k = gh_hint(d, m.w.status, &f->body, &status, &type);
		return k == 0 || (k > 0 && give(f, status, NULL, type));
	}
	if (a->is_head || m.w.body == HTTP_BODY_NONE)
		return true;
	/* Of a part (206) nothing is known either. */
	if (m.w.status / 100 == 2 && (must_be_read(a) || (d->body == GH_BODY_GRAPHQL && is_json(&m)))) {
		f->state = FILTER_HOLD;
		return buf_put(&f->head, msg.p, msg.n) == 0;
	}
	if (is_json(&m))
		f->state = m.w.status == 200 && d->learns ? FILTER_LEARN : FILTER_SCRUB;
	return true;
}

/* ---- its body ---- */

static bool hold(struct ask *a, struct span s)
{
	struct filter *f = &a->filter;

	if (buf_put(&f->body, s.p, s.n) < 0)
		return false;
	if (f->body.n <= hold_max(a) && has_place(a))
		return true;
	if (must_be_read(a))
		return give_refusal(a);
	f->state = FILTER_GIVE_HEAD;
	f->ends = false;
	return true;
}

static bool whole(struct ask *a)
{
	static struct httpmsg_answer m;
	struct gate *g = a->c->g;
	struct filter *f = &a->filter;
	struct buf out, head;
	bool ok = true;
	int r;

	buf_init(&out, hold_max(a) + (64 << 10));
	g->github.now_ms = (uint64_t)(g->now / MS);
	r = github_reply(&g->github, &a->judged.github, buf_span(&a->body), buf_span(&f->body), &out);
	if (r < 0 && must_be_read(a)) {
		buf_done(&out);
		return give_refusal(a);
	}
	if (r == 0) {
		buf_done(&f->body);
		f->body = out;
		/* The fields lie in the head that give() writes anew. */
		head = f->head;
		buf_init(&f->head, HTTPMSG_MAX);
		ok = httpmsg_answer_parse(buf_span(&head), &m) == 0 && give(f, m.w.status, &m, NULL);
		buf_done(&head);
	} else {
		buf_done(&out);
	}
	f->state = FILTER_GIVE_HEAD;
	f->ends = true;
	return ok;
}

static void pass(struct ask *a, struct span s)
{
	struct filter *f = &a->filter;

	if (f->state == FILTER_LEARN && (f->body.n + s.n > GH_LEARN_MAX || buf_put(&f->body, s.p, s.n) < 0)) {
		buf_done(&f->body);
		f->state = FILTER_SCRUB;
	}
	/* Our own memory, of which this is the only reader. */
	if (a->judged.github.reply == GH_REPLY_JSON)
		gh_scrub(&f->scrub, (uint8_t *)(uintptr_t)s.p, s.n);
}

static enum xch_got give_body(struct ask *a, size_t max, struct span *ret)
{
	struct filter *f = &a->filter;
	struct span body = buf_span(&f->body);
	size_t n = MIN(MIN(body.n - f->given, max), (size_t)XCH_DATA_MAX);

	if (n > 0 && !a->is_head) {
		*ret = SPAN(body.p + f->given, n);
		f->given += n;
		return XCH_GOT_DATA;
	}
	f->state = FILTER_NONE;
	return XCH_GOT_END;
}

enum xch_got filter_take(struct ask *a, size_t max, struct span *ret,
			 enum xch_got (*next)(struct ask *a, size_t max, struct span *ret))
{
	struct filter *f = &a->filter;
	enum xch_got got;

	for (;;) {
		if (f->state == FILTER_GIVE_HEAD) {
			*ret = buf_span(&f->head);
			f->state = FILTER_GIVE_BODY;
			return XCH_GOT_ANSWER;
		}
		if (f->state == FILTER_GIVE_BODY) {
			got = give_body(a, max, ret);
			if (got == XCH_GOT_DATA || f->ends)
				return got;
		}
		got = next(a, max, ret);
		if (f->state == FILTER_NONE)
			return got;
		if (got == XCH_GOT_ANSWER) {
			if (!head(a, *ret))
				return XCH_GOT_BAD;
			if (f->state != FILTER_HOLD && f->state != FILTER_GIVE_HEAD)
				return got;
		} else if (f->state == FILTER_HOLD && (got == XCH_GOT_DATA || got == XCH_GOT_END || got == XCH_GOT_TRAILERS)) {
			if (!(got == XCH_GOT_DATA ? hold(a, *ret) : got == XCH_GOT_END ? whole(a) : true))
				return XCH_GOT_BAD;
		} else {
			if (got == XCH_GOT_DATA)
				pass(a, *ret);
			if (got == XCH_GOT_END && f->state == FILTER_LEARN)
				(void)github_reply(&a->c->g->github, &a->judged.github, buf_span(&a->body), buf_span(&f->body), NULL);
			return got;
		}
	}
}
