/* GraphQL. What is printed reads as what was read: the print of a document prints as itself, and so does a whole body,
 * which is then judged alike. A body that is sent names no repository but the listed one, and its reply, whatever
 * comes, teaches nothing but ids of it. */
#include "fuzz.h"

#include <string.h>

#include "gate/policy/github/gql.h"

static uint8_t mem[GQL_ARENA];
static struct gql_arena arena = { .p = mem, .size = sizeof(mem) };
static struct gh_scope scope;

/* Even ids are of the listed repository, others of somebody else; every third is not known yet. */
static bool known(void *ctx, struct node_question q, struct node_facts *ret)
{
	unsigned sum = 0;

	(void)ctx;
	for (size_t i = 0; i < q.key.n; i++)
		sum += q.key.p[i];
	*ret = (struct node_facts){ .kind = q.by_name ? NODE_PUBLIC : NODE_OBJECT,
				    .type = GQL_T_PullRequest,
				    .repo = sum % 2 == 0 ? 700000001 : 5 };
	return sum % 3 != 0;
}

static const struct gql_known facts = { NULL, known };

static void learn(void *ctx, struct node_question q, const struct node_facts *f)
{
	(void)ctx;
	MUST(f->kind == NODE_OBJECT && f->repo == 700000001 && nodeid_is_id(q.key) && f->type < GQL_T_PLAIN);
}

static void start(void)
{
	struct gh_facts f = {
		.id = 700000001, .is_org = true, .owner = "acme", .name = "app", .node = { "R_kgDOKbknAQ" }
	};
	struct gh_slug slug = { span_str("acme"), span_str("app") };

	if (scope.n > 0)
		return;
	gh_scope_init(&scope);
	MUST(gh_scope_add(&scope, slug, GH_WRITE) == 0);
	gh_scope_facts(&scope, slug, &f);
}

static void document(struct span text)
{
	struct gql_fault fault = { 0 };
	struct gql_doc doc;
	struct buf once, twice;

	buf_init(&once, GQL_SENT_MAX);
	buf_init(&twice, GQL_SENT_MAX);
	arena.n = 0;
	if (text.n <= GQL_BODY_MAX && gql_parse(text, SPAN(NULL, 0), &arena, &doc, &fault) && gql_print(&doc, &once)) {
		/* The name of the operation does not matter, because it is the only one that is printed. */
		arena.n = 0;
		MUST(gql_parse(buf_span(&once), SPAN(NULL, 0), &arena, &doc, &fault));
		MUST(gql_print(&doc, &twice));
		MUST(once.n == twice.n && memcmp(buf_span(&once).p, buf_span(&twice).p, once.n) == 0);
	} else {
		MUST(once.n > 0 || fault.code != REFUSAL_NONE);
	}
	buf_done(&once);
	buf_done(&twice);
}

static void body(struct span text, struct span reply)
{
	static struct gql_judged j;
	struct buf once, twice, out;
	enum gql_verdict v = gql_judge(&scope, &facts, text, &arena, &j);

	MUST((v == GQL_REFUSE) == (j.fault.code != REFUSAL_NONE));
	MUST(v != GQL_ASK || (j.n_q > 0 && j.n_q <= NODE_QUESTIONS_MAX));
	MUST(v != GQL_SEND || j.n_q == 0);
	for (size_t i = 0; i < j.n_q; i++)
		MUST(j.q[i].by_name || nodeid_is_id(j.q[i].key));
	if (v != GQL_SEND)
		return;
	buf_init(&once, GQL_SENT_MAX);
	buf_init(&twice, GQL_SENT_MAX);
	buf_init(&out, GQL_SENT_MAX);
	MUST(gql_print_body(&j.doc, &once));
	(void)gql_reply(&scope, &j, &arena, reply, learn, NULL, &out);
	if (!j.absent) {
		MUST(gql_judge(&scope, &facts, buf_span(&once), &arena, &j) == GQL_SEND);
		MUST(gql_print_body(&j.doc, &twice));
		MUST(once.n == twice.n && memcmp(buf_span(&once).p, buf_span(&twice).p, once.n) == 0);
	}
	buf_done(&once);
	buf_done(&twice);
	buf_done(&out);
}

/* Behind a zero byte, which is in no body, comes a reply. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const uint8_t *zero = n > 0 ? memchr(p, '\0', n) : NULL;
	size_t front = zero ? (size_t)(zero - p) : n;

	start();
	document(SPAN(p, n));
	body(SPAN(p, front), zero ? SPAN(zero + 1, n - front - 1) : SPAN(p, n));
	return 0;
}
