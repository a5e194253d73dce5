/* Node ids and the answers about them: a form that names a repository is one of the known prefixes, a question is JSON
 * that our own reader takes, and no answer makes an object of a repository that it does not name. */
#include "fuzz.h"

#include <string.h>

#include "base/jread.h"
#include "gate/policy/github/gql.h"

static uint8_t mem[GQL_ARENA];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct node_question q[] = { { false, SPAN(p, n) },
				     { true, span_str("octo/pub") },
				     { false, span_str("I_x") } };
	struct gql_arena arena = { .p = mem, .size = sizeof(mem) };
	struct gql_fault fault = { 0 };
	struct node_facts f[3];
	struct gql_doc doc;
	struct buf out;
	uint64_t repo;

	if (nodeid_repository(q[0].key, &repo))
		MUST(p[0] >= 'A' && p[0] <= 'Z' && memchr(p, '_', n));
	if (nodeid_is_id(q[0].key)) {
		buf_init(&out, 65536);
		MUST(node_question_body(q, 3, &out) == 0);
		MUST(gql_body(buf_span(&out), &arena, &doc, &fault));
		buf_done(&out);
	}
	if (node_answer(SPAN(p, n), q, 3, f) == 0)
		for (int i = 0; i < 3; i++) {
			MUST(f[i].kind != NODE_OBJECT ||
			     (f[i].repo > 0 && gql_types[f[i].type].open == GQL_OPEN_OBJECT));
			MUST((f[i].kind != NODE_ACCOUNT && f[i].kind != NODE_TEAM) || f[i].name.p);
			MUST(f[i].kind != NODE_PUBLIC || q[i].by_name);
			MUST(f[i].name.n == 0 || !memchr(f[i].name.p, '\\', f[i].name.n));
		}
	return 0;
}
