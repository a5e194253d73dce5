/* Questions to GitHub that the rules need answered before a verdict: which repositories the list's names stand for, and whose a
 * node is (page on GitHub, 2.1 and 2.7). They go to vault as requests do, with the user's login, to one fixed place; what comes
 * back is read by the rules' own readers and never reaches the guest.
 *
 *   one under way at a time; who has another one to ask waits, and judges again when it is over
 *   no answer in LOOKUP_NS, or more than PER_MINUTE: the request is refused, nothing is remembered */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "gate/gate.h"
#include "gate/policy/github/lookup.h"

#define PER_MINUTE 60
#define TEXT_MAX (1 << 20)  /* of an answer */
#define QUESTION_MAX (256 << 10)
#define FACTS_NS (3600 * NS) /* a repository may be renamed, or be another one */
#define FACTS_AGAIN_NS (30 * NS)
#define AT_ONCE (64 << 10)

void lookup_init(struct gate *g)
{
	g->lookup.fd = -1;
}

static void watch(struct gate *g)
{
	struct lookup *l = &g->lookup;
	uint32_t want = EPOLLIN | (l->out.n > 0 ? (uint32_t)EPOLLOUT : 0);

	if (want != l->watching && ev_watch(&g->ev, l->fd, want, EV_LOOKUP, 0, l->gen) == 0)
		l->watching = want;
}

/* Whatever came of it: those who wait judge again. */
static void over(struct gate *g, bool told)
{
	struct lookup *l = &g->lookup;
	bool facts = l->facts;

	ev_unwatch(&g->ev, l->fd);
	(void)close(l->fd);
	l->fd = -1;
	l->gen++;
	buf_done(&l->out);
	buf_done(&l->in);
	buf_done(&l->text);
	if (facts) {
		l->facts_due = g->now + (told ? FACTS_NS : FACTS_AGAIN_NS);
		l->facts_known = l->facts_known || told;
	}
	if (!told)
		guest_line(g, LINE_LOOKUP, "GitHub did not answer %s; what needs it is refused",
			   facts ? "which repositories the list names" : "whose an object is");
	for (size_t i = 0; i < ASKS; i++)
		if (g->ask[i].used && g->ask[i].state == ASK_LOOKUP)
			ask_looked_up(&g->ask[i], told);
}

static void finish(struct gate *g)
{
	struct lookup *l = &g->lookup;
	struct span text = buf_span(&l->text);
	bool told = l->good;

	g->github.now_ms = (uint64_t)(g->now / MS);
	if (told && l->facts)
		told = gh_lookup_answer(&g->scope, text) >= 0;
	else if (told)
		github_answered(&g->github, &l->ask, text);
	over(g, told);
}

static void flush(struct gate *g)
{
	struct lookup *l = &g->lookup;

	while (l->out.n > 0) {
		ssize_t n = send(l->fd, buf_span(&l->out).p, l->out.n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			/* Vault may have answered before it was through; that is still to be read. */
			if (errno != EAGAIN)
				buf_consume(&l->out, l->out.n);
			break;
		}
		buf_consume(&l->out, (size_t)n);
	}
	watch(g);
}

static int question_head(struct gate *g, size_t len, struct buf *out)
{
	static const struct {
		const char *name, *value;
	} fields[] = {
		{ "Accept", "application/json" },
		{ "Accept-Encoding", "identity" },
		{ "Content-Type", "application/json" },
		{ "User-Agent", "agent-vm" },
		/* Node ids in the form that says most. */
		{ "X-GitHub-Next-Global-ID", "1" },
	};
	const struct httpmsg_request_wire w = {
		.head = { .generation = g->lookup.gen },
		.body_len = len,
		.host = HOST_GITHUB_API,
		.method = METHOD_POST,
		.body = HTTP_BODY_LENGTH,
		.kind = { PH_GH, HTTPMSG_NO_CRED },
		.slot = { SLOT_BEARER, HTTPMSG_NO_CRED },
	};
	int r = httpmsg_request_begin(out, &w, span_str("/graphql"), SPAN("", 0));

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		r |= httpmsg_field(out, span_str(fields[i].name), span_str(fields[i].value));
	httpmsg_end(out, ARRAY_SIZE(fields));
	return r;
}

static bool may_ask(struct gate *g)
{
	struct lookup *l = &g->lookup;

	if (g->now - l->minute > 60 * NS) {
		l->minute = g->now;
		l->n = 0;
	}
	return l->n++ < PER_MINUTE;
}

static bool start(struct gate *g, bool facts, struct span body)
{
	struct lookup *l = &g->lookup;
	struct buf msg;
	int pair[2], r;

	buf_init(&msg, HTTPMSG_MAX);
	r = question_head(g, body.n, &msg);
	if (r == 0)
		r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
	if (r == 0) {
		l->fd = pair[0];
		l->facts = facts;
		l->answered = l->good = false;
		l->watching = 0;
		l->reader = (struct xch_reader){ .side = XCH_TO_GATE };
		buf_init(&l->out, QUESTION_MAX + (16 << 10));
		buf_init(&l->in, HTTPMSG_MAX + AT_ONCE);
		buf_init(&l->text, TEXT_MAX);
		l->deadline = g->now + LOOKUP_NS;
		gate_due(g, l->deadline);
		r = xch_put(&l->out, XCH_DATA, body);
		r |= xch_put(&l->out, XCH_END, SPAN(NULL, 0));
		vault_send(g, buf_span(&msg).p, msg.n, pair[1]);
		/* A question that is not whole is none: closing says so. */
		if (r < 0)
			buf_consume(&l->out, l->out.n);
		flush(g);
	}
	buf_done(&msg);
	return r == 0;
}

bool lookup_facts(struct gate *g)
{
	struct lookup *l = &g->lookup;
	struct buf body;

	if (g->scope.n == 0 || !(g->judge.launch.lent & PH_BIT(PH_GH)))
		return false;
	if (l->fd < 0 && (l->facts_due == 0 || l->facts_due <= g->now) && may_ask(g)) {
		l->facts_due = g->now + FACTS_AGAIN_NS;
		buf_init(&body, QUESTION_MAX);
		if (gh_lookup_body(&g->scope, l->facts_known, &body) > 0)
			(void)start(g, true, buf_span(&body));
		buf_done(&body);
	}
	return l->fd >= 0 && l->facts && !l->facts_known;
}

bool lookup_ask(struct gate *g, const struct github_ask *ask, struct span body, bool *ret_never)
{
	struct lookup *l = &g->lookup;
	size_t at = 0;

	*ret_never = false;
	if (l->fd >= 0)
		return false;
	/* The request that asks may be gone when the answer comes. */
	l->ask = *ask;
	for (size_t i = 0; i < ask->n; i++) {
		struct span key = ask->q[i].key;

		if (at + key.n > sizeof(l->keys)) {
			*ret_never = true;
			return false;
		}
		memcpy(l->keys + at, key.p, key.n);
		l->ask.q[i].key = SPAN(l->keys + at, key.n);
		at += key.n;
	}
	*ret_never = !may_ask(g) || !start(g, false, body);
	return !*ret_never;
}

/* False: it is over. */
static bool frame(struct gate *g, struct span *in)
{
	static struct httpmsg_answer m;
	struct lookup *l = &g->lookup;
	struct span got;

	switch (xch_take(&l->reader, in, &got)) {
	case XCH_GOT_MORE:
		return false;
	case XCH_GOT_ANSWER:
		l->answered = true;
		l->good = httpmsg_answer_parse(got, &m) == 0 && m.w.status == 200 && m.w.code == 0;
		return true;
	case XCH_GOT_DATA:
		if (l->good && buf_put(&l->text, got.p, got.n) < 0)
			l->good = false;
		return true;
	case XCH_GOT_TRAILERS:
		return true;
	case XCH_GOT_END:
		finish(g);
		return false;
	default:
		over(g, false);
		return false;
	}
}

void lookup_event(struct gate *g, const struct ev_event *e)
{
	struct lookup *l = &g->lookup;
	uint32_t gen = l->gen;
	struct span in;
	uint8_t *room;
	ssize_t n;

	if (l->fd < 0 || e->gen != gen)
		return;
	if (e->events & EPOLLOUT)
		flush(g);
	room = buf_room(&l->in, AT_ONCE);
	do
		n = room ? recv(l->fd, room, AT_ONCE, MSG_DONTWAIT) : 0;
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		over(g, false);
		return;
	}
	buf_grew(&l->in, (size_t)n);
	in = buf_span(&l->in);
	while (frame(g, &in))
		;
	/* Another one may have begun behind it, with buffers of its own. */
	if (l->fd >= 0 && l->gen == gen)
		buf_consume(&l->in, l->in.n - in.n);
}

void lookup_tick(struct gate *g)
{
	struct lookup *l = &g->lookup;

	if (l->fd < 0)
		return;
	if (l->deadline <= g->now)
		over(g, false);
	else
		gate_due(g, l->deadline);
}
