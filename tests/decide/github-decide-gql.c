/* The half of github-decide for GraphQL: what the fixture's resolver knows is the answer to the rules' questions, given
 * one turn after they were asked, as GitHub's would be. */
#include "github-decide.h"

#include <string.h>

#include "base/str.h"
#include "gate/policy/github/gql.h"

#define TURNS_MAX 8

struct world {
	const json_t *fixture;
	json_t *asked; /* in turns that are over; nothing else is known */
};

static const char *text(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static const json_t *repository(const json_t *fixture, struct span slug)
{
	const json_t *e;
	size_t i;

	json_array_foreach(json_object_get(fixture, "repos"), i,
			   e) if (gh_same(span_str(text(e, "slug")), slug)) return e;
	return NULL;
}

static void by_name(const json_t *fixture, struct span slug, struct node_facts *ret)
{
	const json_t *repo = repository(fixture, slug);
	const char *permission = text(repo, "viewer_permission");

	if (repo && strcmp(text(repo, "visibility"), "PUBLIC") == 0 &&
	    (!*permission || strcmp(permission, "READ") == 0))
		ret->kind = NODE_PUBLIC;
}

static void by_id(const json_t *fixture, struct span id, struct node_facts *ret)
{
	const json_t *facts = json_object_getn(json_object_get(fixture, "resolver"), (const char *)id.p, id.n);
	enum gql_type type = gql_type_find(span_str(text(facts, "type")));

	if (type == GQL_TYPES_N)
		return;
	ret->type = type;
	if (type == GQL_T_Team) {
		ret->kind = NODE_TEAM;
		ret->name = span_str(text(facts, "org"));
	} else if (gql_types[type].open == GQL_OPEN_ACCOUNT) {
		ret->kind = NODE_ACCOUNT;
		ret->name = span_str(text(facts, "login"));
	} else if (gql_types[type].open == GQL_OPEN_OBJECT) {
		const json_t *repo = repository(fixture, span_str(text(facts, "repo")));

		ret->kind = repo ? NODE_OBJECT : NODE_NONE;
		ret->repo = (uint64_t)json_integer_value(json_object_get(repo, "database_id"));
		ret->prefix = span_str(text(facts, "ref_prefix"));
		ret->name = span_str(text(facts, "ref_name"));
	}
}

static char *key_of(struct node_question q)
{
	return xasprintf("%c%.*s", q.by_name ? 'r' : 'n', (int)q.key.n, (const char *)q.key.p);
}

static bool known(void *ctx, struct node_question q, struct node_facts *ret)
{
	const struct world *w = ctx;
	char *key = key_of(q);
	bool asked = json_object_get(w->asked, key) != NULL;

	free(key);
	if (!asked)
		return false;
	*ret = (struct node_facts){ .kind = NODE_NONE };
	if (q.by_name)
		by_name(w->fixture, q.key, ret);
	else
		by_id(w->fixture, q.key, ret);
	return true;
}

/* What is sent is judged as what came was, and prints as it stands; unless printing made it longer than one that comes
 * may be. */
static bool check_print(const struct github_case *c, const struct gql_known *k, struct gql_judged *j)
{
	static uint8_t mem[GQL_ARENA];
	struct gql_arena arena = { .p = mem, .size = sizeof(mem) };
	static struct gql_judged again;
	struct buf once, twice;
	bool same;

	buf_init(&once, GQL_SENT_MAX);
	buf_init(&twice, GQL_SENT_MAX);
	same = gql_print_body(&j->doc, &once) &&
	       ((gql_judge(c->scope, k, buf_span(&once), &arena, &again) == GQL_SEND &&
		 gql_print_body(&again.doc, &twice) && once.n == twice.n &&
		 memcmp(buf_span(&once).p, buf_span(&twice).p, once.n) == 0) ||
		again.fault.code == REFUSAL_LIMIT);
	if (!same)
		(void)fprintf(stderr, "github-decide: what is sent is not what was judged: %.*s\n", (int)once.n,
			      (const char *)buf_span(&once).p);
	buf_done(&once);
	buf_done(&twice);
	return same;
}

bool decide_graphql(const struct github_case *c, struct gh_decision *d)
{
	static uint8_t mem[GQL_ARENA];
	static struct gql_judged j;
	struct world w = { c->fixture, json_object() };
	struct gql_known k = { &w, known };
	enum gql_verdict v = GQL_ASK;
	bool same = true;

	for (int i = 0; i < TURNS_MAX && v == GQL_ASK; i++) {
		struct gql_arena arena = { .p = mem, .size = sizeof(mem) };

		v = gql_decide(&k, c->body, &arena, &j, d);
		for (size_t n = 0; n < j.n_q; n++) {
			char *key = key_of(j.q[n]);

			json_object_set_new(w.asked, key, json_true());
			free(key);
		}
	}
	if (v == GQL_SEND)
		same = check_print(c, &k, &j);
	else if (v == GQL_ASK)
		gql_decide_unanswered(d);
	json_decref(w.asked);
	return same;
}
