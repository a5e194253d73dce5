/* How long a decision over GraphQL takes: reading, judging and printing the bodies of a file of cases that are let
 * through, with every id known. Usage: bench-gql CASES.json [ROUNDS]. Prints CPU time: half of all, 99 of 100, the
 * longest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/str.h"
#include "gate/policy/github/gql.h"

#define APP 700000001

static bool known(void *ctx __attribute__((unused)), struct node_question q, struct node_facts *ret)
{
	*ret = (struct node_facts){ .kind = q.by_name		? NODE_PUBLIC
					    : q.key.p[0] == 'U' ? NODE_ACCOUNT
					    : q.key.p[0] == 'T' ? NODE_TEAM
								: NODE_OBJECT,
				    .type = q.key.p[0] == 'P'	? GQL_T_PullRequest
					    : q.key.p[0] == 'U' ? GQL_T_User
					    : q.key.p[0] == 'T' ? GQL_T_Team
								: GQL_T_Issue,
				    .repo = APP,
				    .name = span_str("acme") };
	return true;
}

static int64_t cpu_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void list(struct gh_scope *s)
{
	struct gh_facts f = { .id = APP, .is_org = true, .owner = "acme", .name = "app", .node = { "R_kgDOKbknAQ" } };
	struct gh_slug slug = { span_str("acme"), span_str("app") };

	gh_scope_init(s);
	(void)gh_scope_add(s, slug, GH_WRITE);
	gh_scope_facts(s, slug, &f);
}

int main(int argc, char **argv)
{
	static struct gh_scope scope;
	static struct gql_judged j;
	const struct gql_known k = { NULL, known };
	struct gql_arena arena = { .p = xmalloc(GQL_ARENA), .size = GQL_ARENA };
	json_t *all = argc > 1 ? json_load_file(argv[1], JSON_ALLOW_NUL, NULL) : NULL, *c;
	uint64_t rounds = 200;
	size_t i, n = 0, bodies = 0, bytes = 0;
	int64_t *ns;

	if (!json_is_array(all) || (argc > 2 && str_u64(argv[2], 100000, &rounds) < 0) || rounds == 0)
		return 2;
	list(&scope);
	ns = xcalloc(json_array_size(all) * rounds, sizeof(*ns));
	json_array_foreach(all, i, c)
	{
		const char *body = json_string_value(json_object_get(c, "body"));
		struct buf out;

		if (!body || *body != '{' || strstr(body, "$PAD") ||
		    gql_judge(&scope, &k, span_str(body), &arena, &j) != GQL_SEND)
			continue;
		bodies++;
		bytes += strlen(body);
		buf_init(&out, GQL_SENT_MAX);
		for (uint64_t r = 0; r < rounds; r++) {
			int64_t from = cpu_ns();

			if (gql_judge(&scope, &k, span_str(body), &arena, &j) != GQL_SEND ||
			    !gql_print_body(&j.doc, &out))
				return 1;
			ns[n++] = cpu_ns() - from;
			buf_consume(&out, out.n);
		}
		buf_done(&out);
	}
	if (n == 0)
		return 2;
	qsort(ns, n, sizeof(*ns), by_time);
	printf("%zu bodies of %zu bytes on average: half within %.1f us, 99 of 100 within %.1f us, the longest %.1f "
	       "us\n",
	       bodies, bytes / bodies, (double)ns[n / 2] / 1e3, (double)ns[n * 99 / 100] / 1e3,
	       (double)ns[n - 1] / 1e3);
	free(ns);
	free(arena.p);
	json_decref(all);
	return 0;
}
