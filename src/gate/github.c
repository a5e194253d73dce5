#include "gate/github.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "gate/policy/github/push.h"
#include "gate/policy/github/reply.h"

#define COPILOT_ROOM (16 << 10)

int github_init(struct github *g)
{
	*g = (struct github){ .nodes = node_cache_new(), .arena = { .p = malloc(GQL_ARENA), .size = GQL_ARENA } };
	if (g->nodes && g->arena.p)
		return 0;
	github_done(g);
	return -ENOMEM;
}

void github_done(struct github *g)
{
	node_cache_free(g->nodes);
	free(g->arena.p);
	*g = (struct github){ 0 };
}

/* Nothing is listed, and no switch is on. */
static const struct gh_scope nothing;

struct refusal github_refusal(const struct gh_decision *d)
{
	return (struct refusal){ .status = d->status, .code = d->code, .why = d->what, .github = d };
}

static void note(struct request *r, const struct gh_decision *d)
{
	if (d->verdict == GH_REFUSE)
		request_fault(r, STAGE_POLICY, github_refusal(d));
}

void github_judge(const struct gh_scope *s, enum prov_host_id host, struct request *r, struct gh_decision *ret)
{
	gh_decide(s ? s : &nothing, host, r, ret);
	note(r, ret);
}

void github_judge_mcp(struct gh_decision *ret)
{
	*ret = (struct gh_decision){ .scope = &nothing, .verdict = GH_BODY, .body = GH_BODY_MCP, .form = GH_FORM_MCP };
}

enum github_need github_need(struct request *r, struct gh_decision *d, struct span body, bool ended)
{
	struct gh_push p;

	if (d->body == GH_BODY_PUSH && gh_push_scan(body, &p) != GH_PUSH_MORE)
		return GITHUB_ENOUGH;
	if (body.n <= (d->body == GH_BODY_PUSH ? GH_PUSH_MAX : GH_JSON_MAX))
		return ended ? GITHUB_ENOUGH : GITHUB_MORE;
	gh_decide_too_long(d);
	note(r, d);
	return GITHUB_TOO_LONG;
}

static bool known(void *ctx, struct node_question q, struct node_facts *ret)
{
	const struct github *g = ctx;

	return node_cache_get(g->nodes, q, g->now_ms, ret);
}

/* True: decided. */
static bool graphql(struct github *g, struct span body, struct gh_decision *d, struct github_ask *ask, struct buf *out)
{
	const struct gql_known k = { g, known };
	struct gql_judged j;

	if (!g) {
		gql_decide_unanswered(d);
		return true;
	}
	switch (gql_decide(&k, body, &g->arena, &j, d)) {
	case GQL_SEND:
		if (!gql_print_body(&j.doc, out))
			gql_decide_unanswered(d);
		return true;
	case GQL_ASK:
		if (ask)
			break;
		gql_decide_unanswered(d);
		return true;
	default:
		return true;
	}
	ask->n = j.n_q;
	memcpy(ask->q, j.q, j.n_q * sizeof(*ask->q));
	/* They lie in the arena, which another request may have by the time GitHub answers. */
	node_question_keep(ask->q, ask->n, ask->keys);
	if (ask->turns++ < GITHUB_TURNS_MAX && node_question_body(ask->q, ask->n, out) == 0)
		return false;
	gql_decide_unanswered(d);
	return true;
}

bool github_judge_body(struct github *g, struct request *r, struct span body, struct gh_decision *d,
		       struct github_ask *ask, struct buf *out)
{
	if (d->body != GH_BODY_GRAPHQL)
		gh_decide_body(d->scope, g ? &g->issues : NULL, r, body, d);
	else if (!graphql(g, body, d, ask, out))
		return false;
	note(r, d);
	return true;
}

bool github_copilot_asks(struct span body, struct gh_decision *d, struct buf *out)
{
	/* Enough for a document of this size, also in a launch that has no memory for GitHub's rules. */
	_Alignas(max_align_t) uint8_t room[COPILOT_ROOM];
	struct gql_arena arena = { .p = room, .size = sizeof(room) };
	struct gql_doc doc;

	if (!gql_copilot(body, &arena, &doc))
		return false;
	if (!gql_print_body(&doc, out)) {
		buf_consume(out, out->n);
		return false;
	}
	d->verdict = GH_ANONYMOUS; /* nothing of it is the user's right at GitHub, and its answer is not read */
	d->rule = "Copilot's question for its own service";
	return true;
}

void github_answered(struct github *g, const struct github_ask *ask, struct span text)
{
	struct node_facts f[NODE_QUESTIONS_MAX];

	if (node_answer(text, ask->q, ask->n, f) < 0)
		return;
	for (size_t i = 0; i < ask->n; i++)
		node_cache_put(g->nodes, ask->q[i], &f[i], g->now_ms);
}

static void learn(void *ctx, struct node_question q, const struct node_facts *f)
{
	const struct github *g = ctx;

	node_cache_put(g->nodes, q, f, g->now_ms);
}

/* The document is judged once more, which costs less than to keep its tree: nothing of it was kept. */
static int graphql_reply(struct github *g, const struct gh_decision *d, struct span body, struct span text,
			 struct buf *out)
{
	const struct gql_known k = { g, known };
	struct gql_judged j;

	if (gql_judge(d->scope, &k, body, &g->arena, &j) != GQL_SEND)
		return -EBADMSG;
	return gql_reply(d->scope, &j, &g->arena, text, learn, g, out);
}

int github_reply(struct github *g, const struct gh_decision *d, struct span body, struct span text, struct buf *out)
{
	int r = -EBADMSG;

	if (d->reply == GH_REPLY_USER)
		return gh_reply_user(text, out);
	if (d->body == GH_BODY_GRAPHQL)
		return graphql_reply(g, d, body, text, out);
	if (d->reply == GH_REPLY_ISSUES) {
		r = gh_reply_issues(d->scope, text, out);
		if (r < 0)
			return r;
		text = buf_span(out); /* what was taken out is not learned */
	}
	if (d->learns)
		gh_learn(text, &g->issues);
	return r;
}

int github_denial(const struct gh_decision *d, struct buf *out, const char **ret_type)
{
	return d->body == GH_BODY_GRAPHQL ? gql_denial(d, out, ret_type) : gh_denial(d, out, ret_type);
}

enum prov_slot github_slot(enum prov_host_id host)
{
	return host == HOST_GITHUB_API || host == HOST_GITHUB_UPLOADS ? SLOT_BEARER : SLOT_BASIC;
}
