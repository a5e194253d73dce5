#include "test.h"

#include <errno.h>
#include <string.h>

#include "gate/policy/github/decide.h"
#include "gate/policy/github/gql.h"
#include "gate/policy/github/gql_mutations.h"
#include "gate/policy/github/search.h"

static uint8_t mem[GQL_ARENA];
static struct gql_judged judged;
static struct gql_arena arena = { .p = mem, .size = sizeof(mem) };

#define APP 700000001u

static const struct gh_scope *listed(void)
{
	static struct gh_scope s;
	struct gh_facts f = { .id = APP, .is_org = true, .owner = "acme", .name = "app" };
	struct gh_slug slug = { span_str("acme"), span_str("app") };

	gh_scope_init(&s);
	assert_int_equal(gh_scope_add(&s, slug, GH_WRITE), 0);
	(void)snprintf(f.node[0], sizeof(f.node[0]), "R_kgDOKbknAQ");
	gh_scope_facts(&s, slug, &f);
	return &s;
}

static bool nothing(void *ctx __attribute__((unused)), struct node_question q __attribute__((unused)),
		    struct node_facts *ret __attribute__((unused)))
{
	return false;
}

static const struct gql_known unknown = { NULL, nothing };

/* What is sent for a query without variables, or the code of its refusal. */
static const char *sent(const char *query)
{
	static char text[65536];
	struct gql_fault fault = { 0 };
	struct gql_doc doc;
	struct buf out;

	arena.n = 0;
	if (!gql_parse(span_str(query), SPAN(NULL, 0), &arena, &doc, &fault))
		return fault.why;
	buf_init(&out, sizeof(text) - 1);
	assert_true(gql_print(&doc, &out));
	(void)snprintf(text, sizeof(text), "%.*s", (int)out.n, (const char *)buf_span(&out).p);
	buf_done(&out);
	return text;
}

TEST(one_form_is_sent)
{
	CHECK_STR(sent("{a}"), "query{a}");
	CHECK_STR(sent("query Q ( $a : [ID !] ! = [ \"x\" , $ ] ) { a }"), "a value is missing in the query");
	CHECK_STR(sent("query "
		       "Q($a:[[ID!]]!=[\"x\",],$b:T=null){a:b(x:$a,y:{c:[1,-2.50e1,true,E],d:{}})@include(if:true)@"
		       "skip(if:$b){"
		       "...F ...on T{c}...{d}}} fragment F on T{e} fragment G on T{f}"),
		  "query "
		  "Q($a:[[ID!]]!=[\"x\"],$b:T=null){a:b(x:$a,y:{c:[1,-2.50e1,true,E],d:{}})@include(if:true)@skip(if:$"
		  "b){...F "
		  "...on T{c} ...{d}}} fragment F on T{e}");
}

TEST(strings_mean_what_the_specification_says)
{
	CHECK_STR(sent("{a(b:\"\\u00e9\\u{1f600}\\ud83d\\ude00\\n\\/\")}"), "query{a(b:\"é😀😀\\u000a/\")}");
	CHECK_STR(sent("{a(b:\"\"\"\n    Hello,\n      World!\n\n    Yours,\n      GraphQL.\n  \"\"\")}"),
		  "query{a(b:\"Hello,\\u000a  World!\\u000a\\u000aYours,\\u000a  GraphQL.\")}");
	CHECK_STR(sent("{a(b:\"\"\"one \\\"\"\" two\r\n  three\rfour\"\"\")}"),
		  "query{a(b:\"one \\\"\\\"\\\" two\\u000a  three\\u000afour\")}");
	CHECK_STR(sent("{a(b:\"\"\"\"\"\")}"), "query{a(b:\"\")}");
	CHECK_STR(sent("{a(b:\"\"\"  x\"\"\")}"), "query{a(b:\"  x\")}");
	CHECK_STR(sent("{a(b:\"\")}"), "query{a(b:\"\")}");
	CHECK_STR(sent("{a(b:\"\\ud800x\")}"), "an escape that does not exist");
	CHECK_STR(sent("{a(b:\"\\u00\")}"), "an escape that does not exist");
}

TEST(escapes_that_mean_nothing_are_refused)
{
	static const char *const t[] = { "\\u{000000611}", "\\u{61",   "\\u{}",	  "\\u0000",	      "\\u{110000}",
					 "\\ud83d\\u0041", "\\ud83dx", "\\udc00", "\\ud83d\\u{de00}", "\\x",
					 "\\u006" };

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		char query[64];

		(void)snprintf(query, sizeof(query), "{a(b:\"%s\")}", t[i]);
		CHECK_STR(sent(query), "an escape that does not exist");
	}
}

TEST(what_is_not_a_document_is_told_from_it)
{
	CHECK_STR(sent("{a(b:\"x\ny\")}"), "a control character or the end of a line within a string");
	CHECK_STR(sent("{a(b:\"x"), "a string that does not end");
	CHECK_STR(sent("{a(b:\"\\\\\")}"), "query{a(b:\"\\\\\")}");
	CHECK_STR(sent("{a(b:\"\"\"a\n  b\n  c\"\"\")}"), "query{a(b:\"a\\u000ab\\u000ac\")}");
	CHECK_STR(sent("{a(b:1a)}"), "a number with letters behind it");
	CHECK_STR(sent("{a(b:1.)}"), "a number that is none");
	CHECK_STR(sent("{a@defer(if:true)}"), "a directive other than @include and @skip");
	CHECK_STR(sent("{a@skip(if:true)@skip(if:true)}"), "the same directive twice");
	CHECK_STR(sent("{a{}}"), "a pair of braces holds no field");
	CHECK_STR(sent("query($a:T,$a:T){b}"), "the same variable twice");
	CHECK_STR(sent("query($a:[ID!]){b}"), "query($a:[ID!]){b}");
	CHECK_STR(sent("query($a:[ID]!){b}"), "query($a:[ID]!){b}");
	CHECK_STR(sent("{a} fragment on on T{b}"), "a fragment without its type");
	CHECK_STR(sent("{a(b:{c:1,c:2})}"), "the same name twice");
}

TEST(words_are_counted)
{
	static char query[2 * GQL_TOKENS_MAX + 16];
	size_t n = 0;

	query[n++] = '{';
	while (n < 2 * GQL_TOKENS_MAX) {
		query[n++] = 'a';
		query[n++] = ' ';
	}
	query[n++] = '}';
	CHECK_STR(sent(query), "the query has too many words");
	/* As many as there may be, and one more. */
	memcpy(query + 2 * GQL_TOKENS_MAX - 3, "}", 2);
	CHECK(strcmp(sent(query), "the query has too many words") != 0);
	memcpy(query + 2 * GQL_TOKENS_MAX - 3, "a}", 3);
	CHECK_STR(sent(query), "the query has too many words");
}

TEST(memory_ends_with_the_arena)
{
	char query[4096];
	struct gql_fault fault;
	struct gql_doc doc;

	memset(query, 'a', sizeof(query));
	for (size_t i = 0; i < sizeof(query); i += 2)
		query[i] = ' ';
	query[0] = '{';
	query[sizeof(query) - 2] = '}';
	query[sizeof(query) - 1] = '\0';
	for (size_t size = 0; size < 300000; size += 9973) {
		uint8_t *p = malloc(size + 1);
		struct gql_arena small = { .p = p, .size = size };

		fault = (struct gql_fault){ 0 };
		if (!gql_parse(span_str(query), SPAN(NULL, 0), &small, &doc, &fault))
			assert_int_equal(fault.code, REFUSAL_LIMIT);
		assert_true(small.n <= size);
		free(p);
	}
}

/* ---- ids ---- */

TEST(the_new_form_names_a_repository)
{
	static const struct {
		const char *id;
		uint64_t repo; /* 0: none */
	} t[] = {
		{ "PRRC_kwDOL4aMSs6Tkzl8", 797346890 },
		{ "R_kgDOKbknAQ", APP },
		{ "PR_kwDOKbknAc53NZP_", APP },
		{ "REF_kwDOKbknAbJyZWZzL2hlYWRzL2ZlYXR1cmU", APP },
		{ "U_kgDOI8NGAw", 0 },		   /* not of a repository */
		{ "MDU6SXNzdWUyMzEzOTE1NTE=", 0 }, /* old */
		{ "R_kgDOKbknAQ=", 0 },		   /* padded */
		{ "R_kwDOKbknAQ", 0 },		   /* an array of three */
		{ "PR_kwHOKbknAc5xP7MB", 0 },	   /* another version */
		{ "PR_", 0 },
		{ "_", 0 },
		{ "", 0 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		uint64_t repo = 0;

		CHECK(nodeid_repository(span_str(t[i].id), &repo) == (t[i].repo != 0));
		CHECK_INT(repo, ==, t[i].repo);
	}
}

TEST(ids_need_no_escape)
{
	CHECK(nodeid_is_id(span_str("MDU6SXNzdWUyMzEzOTE1NTE=")));
	CHECK(!nodeid_is_id(span_str("a\"b")));
	CHECK(!nodeid_is_id(span_str("a\\b")));
	CHECK(!nodeid_is_id(span_str("")));
}

TEST(the_question_is_strict_json_that_our_own_reader_takes)
{
	struct node_question q[] = { { false, span_str("PR_x") },
				     { true, span_str("octo/pub") },
				     { false, span_str("I_y") } };
	struct gql_fault fault = { 0 };
	struct gql_doc doc;
	struct buf out;

	buf_init(&out, 65536);
	assert_int_equal(node_question_body(q, 3, &out), 0);
	arena.n = 0;
	assert_true(gql_body(buf_span(&out), &arena, &doc, &fault));
	buf_put(&out, "", 1);
	assert_non_null(strstr((const char *)buf_span(&out).p, "nodes(ids:[\\\"PR_x\\\",\\\"I_y\\\"])"));
	assert_non_null(strstr((const char *)buf_span(&out).p, "r0:repository(owner:\\\"octo\\\",name:\\\"pub\\\")"));
	buf_done(&out);
}

TEST(answers_say_where_an_object_lies)
{
	struct node_question q[] = { { false, span_str("a") },	      { true, span_str("octo/pub") },
				     { true, span_str("octo/mine") }, { false, span_str("b") },
				     { false, span_str("c") },	      { false, span_str("d") },
				     { false, span_str("e") },	      { false, span_str("f") },
				     { false, span_str("g") },	      { false, span_str("h") },
				     { true, span_str("octo/gone") }, { false, span_str("i") } };
	struct node_facts f[12];
	struct span text = span_str(
		"{\"data\":{\"r0\":{\"visibility\":\"PUBLIC\",\"viewerPermission\":\"READ\"},"
		"\"r1\":{\"visibility\":\"PUBLIC\",\"viewerPermission\":\"WRITE\"},\"r2\":null,\"nodes\":["
		"{\"__typename\":\"PullRequest\",\"repository\":{\"databaseId\":7}},"
		"null,"
		"{\"__typename\":\"ReviewRequest\",\"pullRequest\":{\"repository\":{\"databaseId\":8}}},"
		"{\"__typename\":\"User\",\"login\":\"alice\"},"
		"{\"__typename\":\"Team\",\"slug\":\"core\",\"organization\":{\"login\":\"acme\"}},"
		"{\"__typename\":\"Ref\",\"prefix\":\"refs/heads/\",\"name\":\"x\",\"repository\":{\"databaseId\":9}},"
		"{\"__typename\":\"Gist\",\"repository\":{\"databaseId\":9}},"
		"{\"__typename\":\"Issue\",\"repository\":{\"databaseId\":\"9\"}},"
		"{\"__typename\":\"Repository\",\"databaseId\":10}]},\"errors\":[{\"type\":\"NOT_FOUND\"}]}");

	assert_int_equal(node_answer(text, q, 12, f), 0);
	CHECK(f[0].kind == NODE_OBJECT && f[0].repo == 7 && f[0].type == GQL_T_PullRequest);
	CHECK(f[1].kind == NODE_PUBLIC);
	CHECK(f[2].kind == NODE_NONE);
	CHECK(f[3].kind == NODE_NONE);
	CHECK(f[4].kind == NODE_OBJECT && f[4].repo == 8);
	CHECK(f[5].kind == NODE_ACCOUNT && span_is(f[5].name, "alice"));
	CHECK(f[6].kind == NODE_TEAM && span_is(f[6].name, "acme"));
	CHECK(f[7].kind == NODE_OBJECT && f[7].repo == 9 && span_is(f[7].prefix, "refs/heads/") &&
	      span_is(f[7].name, "x"));
	CHECK(f[8].kind == NODE_NONE);
	CHECK(f[9].kind == NODE_NONE);
	CHECK(f[10].kind == NODE_NONE);
	CHECK(f[11].kind == NODE_OBJECT && f[11].repo == 10);
	assert_int_equal(node_answer(span_str("{\"data\":null,\"errors\":[]}"), q, 12, f), -EBADMSG);
	assert_int_equal(node_answer(span_str("busy"), q, 12, f), -EBADMSG);
	/* Fewer nodes than asked for. */
	assert_int_equal(node_answer(span_str("{\"data\":{\"nodes\":[]}}"), q, 12, f), 0);
	CHECK(f[0].kind == NODE_NONE && f[11].kind == NODE_NONE);
}

TEST(what_everybody_may_read_is_public_and_the_same_for_everybody_is_nobodys)
{
	struct node_question q[] = { { true, span_str("a/b") }, { true, span_str("c/d") }, { false, span_str("x") } };
	struct node_facts f[3];

	assert_int_equal(
		node_answer(span_str("{\"data\":{\"r0\":{\"visibility\":\"PRIVATE\",\"viewerPermission\":\"READ\"},"
				     "\"r1\":{\"visibility\":\"PUBLIC\",\"viewerPermission\":null},"
				     "\"nodes\":[{\"__typename\":\"License\",\"repository\":{\"databaseId\":9}}]}}"),
			    q, 3, f),
		0);
	CHECK(f[0].kind == NODE_NONE);
	CHECK(f[1].kind == NODE_PUBLIC);
	CHECK(f[2].kind == NODE_NONE);
	assert_int_equal(
		node_answer(
			span_str("{\"data\":{\"nodes\":[{\"__typename\":\"MergeQueue\",\"of\":{\"databaseId\":9}}]}}"),
			q + 2, 1, f),
		0);
	CHECK(f[0].kind == NODE_OBJECT && f[0].repo == 9);
}

TEST(the_cache_forgets)
{
	struct node_cache *c = node_cache_new();
	struct node_question q = { false, span_str("PR_x") }, slug = { true, span_str("Octo/Pub") },
			     low = { true, span_str("octo/pub") };
	struct node_facts f = { .kind = NODE_OBJECT,
				.type = GQL_T_Ref,
				.repo = 7,
				.prefix = span_str("p/"),
				.name = span_str("n") },
			  got;
	char id[16];

	assert_non_null(c);
	CHECK(!node_cache_get(c, q, 0, &got));
	node_cache_put(c, q, &f, 1000);
	CHECK(node_cache_get(c, q, 1000 + NODE_TTL_MS - 1, &got) && got.repo == 7 && span_is(got.prefix, "p/") &&
	      span_is(got.name, "n"));
	CHECK(!node_cache_get(c, q, 1000 + NODE_TTL_MS, &got));
	f.kind = NODE_NONE;
	node_cache_put(c, q, &f, 1000);
	CHECK(node_cache_get(c, q, 1000 + NODE_TTL_NONE_MS - 1, &got) && got.kind == NODE_NONE);
	CHECK(!node_cache_get(c, q, 1000 + NODE_TTL_NONE_MS, &got));
	/* Slugs in any case; the same bytes as an id are another question. */
	node_cache_put(c, slug, &(struct node_facts){ .kind = NODE_PUBLIC }, 0);
	CHECK(node_cache_get(c, low, 1, &got) && got.kind == NODE_PUBLIC);
	CHECK(!node_cache_get(c, (struct node_question){ false, low.key }, 1, &got));
	for (int i = 0; i < NODE_CACHE_MAX - 1; i++) {
		(void)snprintf(id, sizeof(id), "I_%d", i);
		node_cache_put(c, (struct node_question){ false, span_str(id) },
			       &(struct node_facts){ .kind = NODE_OBJECT }, 5);
	}
	CHECK(!node_cache_get(c, q, 5, &got)); /* the oldest */
	CHECK(node_cache_get(c, low, 5, &got));
	node_cache_free(c);
}

/* ---- verdicts ---- */

static enum gql_verdict judge(const char *body, const struct gql_known *k)
{
	return gql_judge(listed(), k, span_str(body), &arena, &judged);
}

TEST(what_is_not_known_is_asked_once)
{
	assert_int_equal(judge("{\"query\":\"{a:node(id:\\\"I_x\\\"){id} b:node(id:\\\"I_x\\\"){id} "
			       "repository(owner:\\\"octo\\\",name:\\\"pub\\\"){id}}\"}",
			       &unknown),
			 GQL_ASK);
	assert_int_equal(judged.n_q, 2);
	CHECK(span_is(judged.q[0].key, "I_x") != span_is(judged.q[1].key, "I_x"));
	/* A fault needs no answer. */
	assert_int_equal(judge("{\"query\":\"{node(id:\\\"I_x\\\"){id} relay{id}}\"}", &unknown), GQL_REFUSE);
	/* Neither does an id that names a repository which is not listed, nor one of the list itself. */
	assert_int_equal(judge("{\"query\":\"{node(id:\\\"PR_kwDOL68IAs5xP7YJ\\\"){id}}\"}", &unknown), GQL_REFUSE);
	assert_int_equal(judge("{\"query\":\"{node(id:\\\"R_kgDOKbknAQ\\\"){id}}\"}", &unknown), GQL_SEND);
}

TEST(what_no_id_can_be_is_not_asked)
{
	assert_int_equal(judge("{\"query\":\"{node(id:\\\"a b\\\"){id}}\"}", &unknown), GQL_REFUSE);
	assert_int_equal(judged.fault.code, REFUSAL_GQL_ID);
	assert_int_equal(judged.n_q, 0);
}

/* A body that is refused before anything of it is walked. */
static const char *unread(const char *body)
{
	assert_int_equal(judge(body, &unknown), GQL_REFUSE);
	assert_true(judged.fault.code == REFUSAL_GQL_PARSE || judged.fault.code == REFUSAL_LIMIT);
	return judged.fault.why;
}

TEST(bodies_are_strict)
{
	static char large[GQL_BODY_MAX + 64] = "{\"query\":\"{viewer{login}}";

	CHECK_STR(unread("[1]"), "the body is not one strict JSON object");
	CHECK_STR(unread("{\"query\":1}"), "a member of the body is not known, or of another type");
	CHECK_STR(unread("{\"variables\":{}}"), "the body has no query");
	CHECK_STR(unread("{\"query\":\"query($x:String){viewer{login}}\",\"variables\":{\"x\":1}}"),
		  "a variable has a value of another type than is declared");
	CHECK_STR(unread("{\"query\":\"query($x:[ID!]){viewer{login}}\",\"variables\":{\"x\":[null]}}"),
		  "a variable has a value of another type than is declared");
	CHECK_STR(unread("{\"query\":\"query($x:ID!){viewer{login}}\"}"), "a variable has no value");
	memset(large + strlen(large), ' ', GQL_BODY_MAX);
	memcpy(large + GQL_BODY_MAX + 40, "\"}", 3);
	CHECK_STR(unread(large), "the request is too large");
}

TEST(what_no_option_opens_says_so)
{
	assert_int_equal(
		judge("{\"query\":\"mutation{addStar(input:{starrableId:\\\"R_kgDOKbknAQ\\\"}){clientMutationId}}\"}",
		      &unknown),
		GQL_REFUSE);
	assert_int_equal(judged.fault.code, REFUSAL_CLASS_NEVER);
}

TEST(questions_past_the_maximum_wait)
{
	char body[8192] = "{\"query\":\"{nodes(ids:[";
	size_t n = strlen(body);

	for (int i = 0; i < NODE_QUESTIONS_MAX + 50; i++)
		n += (size_t)snprintf(body + n, sizeof(body) - n, "\\\"I_%d\\\",", i);
	(void)snprintf(body + n, sizeof(body) - n, "]){id}}\"}");
	assert_int_equal(judge(body, &unknown), GQL_ASK);
	assert_int_equal(judged.n_q, NODE_QUESTIONS_MAX);
}

TEST(keys_of_questions_fit_where_they_are_kept)
{
	static char body[65536] = "{\"query\":\"{nodes(ids:[";
	static uint8_t keys[NODE_KEYS_MAX];
	size_t n = strlen(body), all = 0;

	for (int i = 0; i < 40; i++)
		n += (size_t)snprintf(body + n, sizeof(body) - n, "\\\"I_%0500d\\\",", i);
	(void)snprintf(body + n, sizeof(body) - n, "]){id}}\"}");
	assert_int_equal(judge(body, &unknown), GQL_ASK);
	for (size_t i = 0; i < judged.n_q; i++)
		all += judged.q[i].key.n;
	CHECK(judged.n_q > 0 && judged.n_q < 40 && all <= NODE_KEYS_MAX && all == judged.n_keys);
	node_question_keep(judged.q, judged.n_q, keys);
	memset(mem, 'x', judged.n_keys * 4);
	CHECK(judged.q[1].key.n == 502 && judged.q[1].key.p == keys + 502 && keys[1003] == '1');
}

TEST(without_numbers_an_id_is_asked_and_its_answer_refused)
{
	struct gh_scope s;
	struct gh_slug slug = { span_str("acme"), span_str("app") };

	gh_scope_init(&s);
	assert_int_equal(gh_scope_add(&s, slug, GH_WRITE), 0);
	assert_int_equal(gql_judge(&s, &unknown, span_str("{\"query\":\"{node(id:\\\"PR_kwDOL68IAs5xP7YJ\\\"){id}}\"}"),
				   &arena, &judged),
			 GQL_ASK);
}

static const char *denial(const char *body, uint16_t *ret_status)
{
	static char text[4096];
	struct gh_decision d = { .scope = listed(), .body = GH_BODY_GRAPHQL };
	const char *type;
	struct buf out;

	if (gql_decide(&unknown, span_str(body), &arena, &judged, &d) != GQL_REFUSE)
		return "not refused";
	buf_init(&out, sizeof(text) - 1);
	assert_int_equal(gql_denial(&d, &out, &type), 0);
	(void)snprintf(text, sizeof(text), "%.*s", (int)out.n, (const char *)buf_span(&out).p);
	buf_done(&out);
	*ret_status = d.status;
	return text;
}

TEST(refusals_name_the_field_and_the_way_out)
{
	uint16_t status;
	const char *s = denial("{\"query\":\"{viewer{gists(first:1){nodes{name}}}}\"}", &status);

	assert_int_equal(status, 403);
	assert_non_null(strstr(s, "User.gists"));
	assert_non_null(strstr(s, "(sandbox policy gql-field)\\nallowed: acme/app\\nhow: "));
	s = denial("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"x\\\\\\\"y\\\"){id}}\"}", &status);
	assert_int_equal(status, 403);
	assert_null(strstr(s, "x\\\"y"));
	assert_non_null(strstr(s, "--repo OWNER/NAME"));
	s = denial("{\"query\":\"mutation{createCommitOnBranch(input:{branch:{repositoryNameWithOwner:\\\"acme/"
		   "secret\\\",branchName:\\\"x\\\"},"
		   "expectedHeadOid:\\\"a\\\",message:{headline:\\\"m\\\"}}){clientMutationId}}\"}",
		   &status);
	assert_non_null(strstr(s, "acme/secret: the repository is not listed"));
	assert_non_null(strstr(s, "how: start with --repo acme/secret\""));
}

TEST(gh_hears_two_refusals_as_facts_of_life)
{
	uint16_t status;

	CHECK_STR(denial("{\"query\":\"{organization(login:\\\"other\\\"){id}}\"}", &status),
		  "{\"data\":{\"organization\":null},\"errors\":[{\"type\":\"NOT_FOUND\",\"path\":[\"organization\"],"
		  "\"message\":\"Could not "
		  "resolve to an Organization with the login of 'other'. (sandbox policy gql-root)\"}]}");
	assert_int_equal(status, 200);
	assert_non_null(strstr(denial("{\"query\":\"{viewer{projectsV2(first:1){nodes{id}}}}\"}", &status),
			       "field requires one of the following scopes: ['read:project']"));
	assert_int_equal(status, 200);
}

TEST(what_was_not_answered_says_so)
{
	struct gh_decision d = { .scope = listed(), .body = GH_BODY_GRAPHQL };

	gql_decide_unanswered(&d);
	assert_int_equal(d.verdict, GH_REFUSE);
	assert_int_equal(d.status, 403);
}

/* ---- replies ---- */

static char learned[1024];

static void learn(void *ctx __attribute__((unused)), struct node_question q, const struct node_facts *f)
{
	size_t n = strlen(learned);

	CHECK_INT(f->repo, ==, APP);
	(void)snprintf(learned + n, sizeof(learned) - n, "%s:%.*s ", gql_types[f->type].name, (int)q.key.n,
		       (const char *)q.key.p);
}

/* Judges, and reads a reply; what it taught. */
static const char *taught(const char *body, const char *reply, const char *want)
{
	struct buf out;

	learned[0] = '\0';
	if (judge(body, &unknown) != GQL_SEND)
		return "not sent";
	buf_init(&out, 65536);
	assert_int_equal(gql_reply(listed(), &judged, &arena, span_str(reply), learn, NULL, &out), 0);
	assert_true(out.n == strlen(want) && memcmp(buf_span(&out).p, want, out.n) == 0);
	buf_done(&out);
	return learned;
}

TEST(replies_teach_the_ids_of_listed_objects_only)
{
	const char *reply =
		"{\"data\":{\"r\":{\"id\":\"R_1\",\"parent\":{\"id\":\"R_2\"},\"issues\":{\"nodes\":[{\"i\":\"I_1\","
		"\"author\":{\"id\":"
		"\"U_1\"},\"subIssues\":{\"nodes\":[{\"id\":\"I_9\"}]}},{\"i\":\"I_2\",\"id\":\"I_8\"}]},"
		"\"pullRequest\":{\"id\":\"PR_1\",\"headRef\":{\"id\":\"REF_1\"},\"baseRef\":{\"id\":\"REF_2\"}},"
		"\"issueOrPullRequest\":{\"id\":\"I_3\",\"__typename\":\"Issue\"},\"x\":{\"id\":\"I_4\"}}}}";

	CHECK_STR(taught("{\"query\":\"{r:repository(owner:\\\"acme\\\",name:\\\"app\\\"){...F parent{...F} "
			 "issues(first:2){nodes{i:id "
			 "author{...on User{id}} subIssues(first:2){nodes{id}}}} pullRequest(number:1){id headRef{id} "
			 "baseRef{id}} "
			 "issueOrPullRequest(number:3){id __typename} x:issueOrPullRequest(number:4){id}}} fragment F "
			 "on Repository{id}\"}",
			 reply, reply),
		  "Issue:I_3 PullRequest:PR_1 Ref:REF_2 Issue:I_2 Issue:I_1 ");
}

TEST(mutations_teach)
{
	const char *reply =
		"{\"data\":{\"updateRefs\":{\"clientMutationId\":null},\"c\":{\"issue\":{\"id\":\"I_1\"}}}}";

	CHECK_STR(taught("{\"query\":\"mutation{c:createIssue(input:{repositoryId:\\\"R_kgDOKbknAQ\\\",title:\\\"t\\\"}"
			 "){issue{id}}}\"}",
			 reply, reply),
		  "Issue:I_1 ");
}

TEST(an_id_that_two_selections_place_differently_is_not_learned)
{
	const char *reply = "{\"data\":{\"repository\":{\"x\":{\"id\":\"R_1\"}}}}";

	/* GitHub would not answer this; if it did, nobody could say which of the two it is. */
	CHECK_STR(taught("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){x:parent{id} "
			 "x:defaultBranchRef{id}}}\"}",
			 reply, reply),
		  "");
	CHECK_STR(taught("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){x:defaultBranchRef{id} "
			 "x:parent{id}}}\"}",
			 reply, reply),
		  "");
}

/* A title that reads like the id of a foreign object, under a name that is an id's where the object is of another type. */
TEST(a_name_that_may_be_another_fields_teaches_no_id)
{
	static const struct {
		const char *asked, *got, *learned;
	} cases[] = {
		{ "__typename ...on Issue{x:id} ...on PullRequest{x:title}",
		  "\"__typename\":\"PullRequest\",\"x\":\"MDEwOlJlcG9zaXRvcnkyMDAw\"", "" },
		{ "__typename ...on PullRequest{x:title} ...on Issue{x:id}",
		  "\"__typename\":\"PullRequest\",\"x\":\"MDEwOlJlcG9zaXRvcnkyMDAw\"", "" },
		{ "__typename ...on Issue{id} ...on PullRequest{id:title}",
		  "\"__typename\":\"PullRequest\",\"id\":\"MDEwOlJlcG9zaXRvcnkyMDAw\"", "" },
		{ "__typename ...on Issue{x:id} ...F", "\"__typename\":\"PullRequest\",\"x\":\"MDEwOlJlcG9zaXRvcnkyMDAw\"", "" },
		{ "id ...on Issue{t:__typename} ...on PullRequest{t:title}", "\"id\":\"PR_1\",\"t\":\"Ref\"", "" },
		{ "id ...on Issue{x:title} ...on PullRequest{x:body}", "\"id\":\"PR_1\",\"x\":\"Ref\"", "" },
		{ "__typename ...on Issue{x:id} ...on PullRequest{x:id}",
		  "\"__typename\":\"PullRequest\",\"x\":\"PR_1\"", "PullRequest:PR_1 " },
		{ "__typename x:title ...on Issue{y:id} ...on PullRequest{y:id}",
		  "\"__typename\":\"PullRequest\",\"x\":\"PR_2\",\"y\":\"PR_1\"", "PullRequest:PR_1 " },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char query[600], reply[400];

		(void)snprintf(query, sizeof(query), "{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\")"
			       "{issueOrPullRequest(number:5){%s}}}%s\"}", cases[i].asked,
			       strstr(cases[i].asked, "...F") ? " fragment F on PullRequest{x:title}" : "");
		(void)snprintf(reply, sizeof(reply), "{\"data\":{\"repository\":{\"issueOrPullRequest\":{%s}}}}", cases[i].got);
		CHECK_STR(taught(query, reply, reply), cases[i].learned);
	}
}

/* The list has its repositories' ids, a ruleset may be its owner's, and an object may have moved since its id was known. */
TEST(what_may_be_elsewhere_teaches_nothing)
{
	const char *rulesets = "{\"data\":{\"repository\":{\"id\":\"R_1\",\"rulesets\":{\"nodes\":[{\"id\":\"RRS_1\"}]}}}}";
	const char *moved = "{\"data\":{\"repository\":{\"issue\":{\"id\":\"I_1\",\"repository\":{\"id\":\"R_2\","
			    "\"defaultBranchRef\":{\"id\":\"REF_2\"}}}}}}";

	CHECK_STR(taught("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){id rulesets(first:9){nodes{id}}}}\"}",
			 rulesets, rulesets),
		  "");
	CHECK_STR(taught("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){issue(number:1){id repository{id "
			 "defaultBranchRef{id}}}}}\"}",
			 moved, moved),
		  "Issue:I_1 ");
}

static bool apps_issue(void *ctx __attribute__((unused)), struct node_question q, struct node_facts *ret)
{
	*ret = (struct node_facts){ .kind = NODE_OBJECT, .type = GQL_T_Issue, .repo = APP };
	return span_is(q.key, "I_1");
}

TEST(an_issue_by_url_needs_the_level_and_is_of_its_own_repository)
{
	static const char body[] = "{\"query\":\"mutation{addSubIssue(input:{issueId:\\\"I_1\\\",subIssueUrl:"
				   "\\\"https://github.com/acme/lib/issues/3\\\"}){subIssue{id}}}\"}";
	static const char reply[] = "{\"data\":{\"addSubIssue\":{\"subIssue\":{\"id\":\"I_3\"}}}}";
	struct gh_slug slug = { span_str("acme"), span_str("lib") };
	struct gql_known known = { NULL, apps_issue };

	for (int level = GH_READ; level <= GH_WRITE; level++) {
		struct gh_scope *s = (struct gh_scope *)(uintptr_t)listed();
		struct gh_facts f = { .id = APP + 1, .is_org = true, .owner = "acme", .name = "lib" };
		struct buf out;

		assert_int_equal(gh_scope_add(s, slug, (enum gh_level)level), 0);
		gh_scope_facts(s, slug, &f);
		CHECK_INT(gql_judge(s, &known, span_str(body), &arena, &judged), ==, level == GH_READ ? GQL_REFUSE : GQL_SEND);
		if (level == GH_READ)
			continue;
		learned[0] = '\0';
		buf_init(&out, 65536);
		assert_int_equal(gql_reply(s, &judged, &arena, span_str(reply), learn, NULL, &out), 0);
		CHECK_STR(learned, "");
		buf_done(&out);
	}
}

/* The type of an object whose field may be another is not known either. */
TEST(objects_of_two_types_under_one_name_teach_nothing)
{
	const char *reply = "{\"data\":{\"repository\":{\"issueOrPullRequest\":{\"x\":{\"id\":\"REF_1\"}}}}}";

	CHECK_STR(taught("{\"query\":\"{repository(owner:\\\"acme\\\",name:\\\"app\\\"){issueOrPullRequest(number:5)"
			 "{...on Issue{x:milestone{id}} ...on PullRequest{x:baseRef{id}}}}}\"}",
			 reply, reply),
		  "");
}

TEST(what_was_left_out_is_null_with_an_error)
{
	static const char body[] = "{\"query\":\"query RepositoryNetwork{viewer{login} "
				   "repo_000:repository(owner:\\\"acme\\\",name:\\\"app\\\"){id} "
				   "repo_001:repository(owner:\\\"acme\\\",name:\\\"secret\\\"){id}}\"}";
	static const char error[] = "{\"type\":\"NOT_FOUND\",\"path\":[\"repo_001\"],\"message\":\"Could not resolve "
				    "to a Repository with the "
				    "name 'acme/secret'. (sandbox policy gql-root: it is not listed)\"}";
	static char want[1024];
	struct gh_scope *s = (struct gh_scope *)(uintptr_t)listed();
	struct buf out;

	s->switches &= ~GH_SWITCH_BIT(GH_PUBLIC_GRAPHQL);
	assert_int_equal(gql_judge(s, &unknown, span_str(body), &arena, &judged), GQL_SEND);
	assert_true(judged.absent);
	buf_init(&out, 65536);
	assert_true(gql_print_body(&judged.doc, &out));
	assert_null(memmem(buf_span(&out).p, out.n, "secret", 6));
	buf_done(&out);
	assert_int_equal(gql_reply(s, &judged, &arena,
				   span_str("{\"data\":{\"viewer\":{\"login\":\"m\"},\"repo_000\":{\"id\":\"R\"}}}"),
				   NULL, NULL, &out),
			 0);
	(void)snprintf(want, sizeof(want),
		       "{\"data\":{\"viewer\":{\"login\":\"m\"},\"repo_000\":{\"id\":\"R\"},\"repo_001\":null},"
		       "\"errors\":[%s]}",
		       error);
	assert_true(out.n == strlen(want) && memcmp(buf_span(&out).p, want, out.n) == 0);
	buf_done(&out);
	assert_int_equal(
		gql_reply(s, &judged, &arena, span_str("{\"errors\":[{\"a\":1}],\"data\":{}}"), NULL, NULL, &out), 0);
	(void)snprintf(want, sizeof(want), "{\"errors\":[{\"a\":1},%s],\"data\":{\"repo_001\":null}}", error);
	assert_true(out.n == strlen(want) && memcmp(buf_span(&out).p, want, out.n) == 0);
	buf_done(&out);
	assert_int_equal(gql_reply(s, &judged, &arena, span_str("<html>"), NULL, NULL, &out), -EBADMSG);
}

/* ---- the tables ---- */

TEST(each_row_stands_once)
{
	for (size_t i = 0; i < gql_mutations_n; i++) {
		CHECK(gql_mutation_find(span_str(gql_mutations[i].name)) == &gql_mutations[i]);
		CHECK((gql_mutations[i].class == GQL_CLASS_NEVER) == (gql_mutations[i].members == NULL));
	}
	for (unsigned t = 0; t < GQL_T_PLAIN; t++) {
		CHECK_INT(gql_type_find(span_str(gql_types[t].name)), ==, t);
		for (const struct gql_field *f = gql_types[t].fields; f && f->name; f++)
			CHECK(gql_field_find((enum gql_type)t, span_str(f->name)) == f);
	}
}

/* Each mutation names something of a repository that it cannot do without, or one of two such things. */
TEST(each_mutation_needs_a_reference)
{
	for (size_t i = 0; i < gql_mutations_n; i++) {
		unsigned references = 0;

		for (const struct gql_member *m = gql_mutations[i].members; m && m->name; m++)
			references += m->kind == GQL_M_OBJECT || m->kind == GQL_M_REF || m->kind == GQL_M_REF_GONE ||
				      m->kind == GQL_M_BRANCH;
		CHECK(references > 0 || gql_mutations[i].class == GQL_CLASS_NEVER);
	}
}
