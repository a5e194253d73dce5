#include "gate/policy/github/nodeid.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/jread.h"
#include "base/macros.h"

bool nodeid_is_id(struct span id)
{
	if (id.n == 0 || id.n > NODEID_MAX)
		return false;
	for (size_t i = 0; i < id.n; i++)
		if (id.p[i] != '=' && !base64_is_digit(BASE64_STD, id.p[i]) && !base64_is_digit(BASE64_URL, id.p[i]))
			return false;
	return true;
}

/* ---- the new form ---- */

/* Prefixes of objects whose first number is their repository's; "R" is the repository. */
static const char *const of_repository[] = {
	"R", "PR", "I", "IC", "PRR", "PRRC", "PRRT", "LA", "MI", "RE", "D", "DC", "REF", "C",
};

/* An unsigned number of MessagePack. */
static bool number(struct span *s, uint64_t *ret)
{
	uint64_t v = 0;
	struct span digits;
	uint8_t tag;

	if (span_u8(s, &tag) < 0)
		return false;
	if (tag < 0x80) {
		*ret = tag;
		return true;
	}
	if (tag < 0xcc || tag > 0xcf || span_take(s, (size_t)1 << (tag - 0xcc), &digits) < 0)
		return false;
	for (size_t i = 0; i < digits.n; i++)
		v = v << 8 | digits.p[i];
	*ret = v;
	return true;
}

bool nodeid_repository(struct span id, uint64_t *ret)
{
	const uint8_t *dash = id.n > 0 ? memchr(id.p, '_', id.n) : NULL;
	uint8_t bytes[NODEID_MAX], tag;
	bool scoped = false;
	struct span prefix, s;
	uint64_t version, v;
	ssize_t n;

	if (!dash)
		return false;
	prefix = SPAN(id.p, (size_t)(dash - id.p));
	for (size_t i = 0; i < ARRAY_SIZE(of_repository); i++)
		scoped = scoped || span_is(prefix, of_repository[i]);
	n = scoped ? base64_decode(BASE64_URL, SPAN(dash + 1, id.n - prefix.n - 1), bytes, sizeof(bytes)) : -1;
	if (n < 0)
		return false;
	s = SPAN(bytes, (size_t)n);
	/* An array of two or three. */
	if (span_u8(&s, &tag) < 0 || tag != (span_is(prefix, "R") ? 0x92 : 0x93) || !number(&s, &version) ||
	    version != 0 || !number(&s, &v))
		return false;
	*ret = v;
	return true;
}

/* ---- the question ---- */

void node_question_keep(struct node_question *q, size_t n, uint8_t mem[NODE_KEYS_MAX])
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		assert(q[i].key.n <= NODE_KEYS_MAX - used);
		memcpy(mem + used, q[i].key.p, q[i].key.n);
		q[i].key.p = mem + used;
		used += q[i].key.n;
	}
}

static int put(struct buf *out, const char *s)
{
	return buf_put(out, s, strlen(s));
}

/* What leads from an object to its repository, type by type. Where it may be null it has another name: GraphQL merges
 * fields of one name only when both may be null or neither (October 2021, section 5.3.2). */
#define REPO "repository{databaseId}"
#define REPO_OR_NULL "of:repository{databaseId}"
static const char node_fields[] =
	"__typename "
	"...on Repository{databaseId} "
	"...on RepositoryNode{" REPO "} "
	"...on Ref{prefix name " REPO "} "
	"...on Commit{" REPO "} ...on Tree{" REPO "} ...on Blob{" REPO "} ...on Tag{" REPO "} "
	"...on Label{" REPO "} ...on Milestone{" REPO "} ...on Release{" REPO "} "
	"...on CheckRun{" REPO "} ...on CheckSuite{" REPO "} ...on Deployment{" REPO "} "
	"...on BranchProtectionRule{" REPO_OR_NULL "} ...on MergeQueue{" REPO_OR_NULL
	"} ...on PullRequestReviewThread{" REPO "} "
	"...on ReviewRequest{pullRequest{" REPO "}} ...on PullRequestCommit{pullRequest{" REPO "}} "
	"...on ReleaseAsset{release{" REPO "}} ...on WorkflowRun{checkSuite{" REPO "}} "
	"...on LinkedBranch{ref{" REPO "}} ...on DeploymentStatus{deployment{" REPO "}} "
	"...on StatusContext{commit{" REPO "}} ...on DiscussionComment{discussion{" REPO "}} "
	"...on Actor{login} ...on Team{organization{login}}";

/* Keys stand in the query itself: no byte of theirs needs an escape. */
int node_question_body(const struct node_question *q, size_t n, struct buf *out)
{
	size_t ids = 0, names = 0;
	int r = put(out, "{\"query\":\"{");

	for (size_t i = 0; i < n; i++) {
		if (q[i].by_name)
			continue;
		r |= put(out, ids++ > 0 ? ",\\\"" : "nodes(ids:[\\\"");
		r |= buf_put(out, q[i].key.p, q[i].key.n);
		r |= put(out, "\\\"");
	}
	if (ids > 0) {
		r |= put(out, "]){");
		r |= put(out, node_fields);
		r |= put(out, "}");
	}
	for (size_t i = 0; i < n; i++) {
		char text[64];
		struct gh_slug slug;

		if (!q[i].by_name || !gh_slug_parse(q[i].key, &slug))
			continue;
		(void)snprintf(text, sizeof(text), " r%zu:repository(owner:\\\"", names++);
		r |= put(out, text);
		r |= buf_put(out, slug.owner.p, slug.owner.n);
		r |= put(out, "\\\",name:\\\"");
		r |= buf_put(out, slug.name.p, slug.name.n);
		r |= put(out, "\\\"){visibility viewerPermission}");
	}
	r |= put(out, "}\"}");
	return r < 0 ? -ENOBUFS : 0;
}

/* ---- the answer ---- */

/* A string without escapes, as logins, names of types and nearly all names of refs are. */
static bool plain(struct span value, struct span *ret)
{
	if (jread_type(value) != JREAD_STRING || memchr(value.p, '\\', value.n))
		return false;
	*ret = SPAN(value.p + 1, value.n - 2);
	return true;
}

static bool plain_member(struct span object, const char *name, struct span *ret)
{
	struct span v;

	return jread_member(object, name, &v) && plain(v, ret);
}

static bool database_id(struct span object, uint64_t *ret)
{
	struct span v;
	int64_t n;

	if (!jread_member(object, "databaseId", &v) || jread_int(v, &n) < 0 || n <= 0)
		return false;
	*ret = (uint64_t)n;
	return true;
}

static bool repository_of(struct span object, enum gql_type type, uint64_t *ret)
{
	static const char *const ways[] = { "pullRequest", "release", "checkSuite", "ref",
					    "deployment",  "commit",  "discussion" };
	struct span in, repo;

	if (type == GQL_T_Repository)
		return database_id(object, ret);
	if (jread_member(object, "repository", &repo) || jread_member(object, "of", &repo))
		return database_id(repo, ret);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (jread_member(object, ways[i], &in))
			return jread_member(in, "repository", &repo) && database_id(repo, ret);
	return false;
}

static struct node_facts of_node(struct span object)
{
	struct node_facts f = { .kind = NODE_NONE }, none = f;
	struct span type, org;

	if (!plain_member(object, "__typename", &type))
		return none;
	f.type = gql_type_find(type);
	if (f.type == GQL_TYPES_N)
		return none;
	if (f.type == GQL_T_Team) {
		f.kind = NODE_TEAM;
		return jread_member(object, "organization", &org) && plain_member(org, "login", &f.name) ? f : none;
	}
	if (gql_types[f.type].open == GQL_OPEN_ACCOUNT) {
		f.kind = NODE_ACCOUNT;
		return plain_member(object, "login", &f.name) ? f : none;
	}
	if (gql_types[f.type].open != GQL_OPEN_OBJECT || !repository_of(object, f.type, &f.repo))
		return none;
	f.kind = NODE_OBJECT;
	if (f.type == GQL_T_Ref &&
	    (!plain_member(object, "prefix", &f.prefix) || !plain_member(object, "name", &f.name)))
		f.prefix = f.name = SPAN(NULL, 0);
	return f;
}

static struct node_facts of_name(struct span object)
{
	struct node_facts f = { .kind = NODE_NONE, .type = GQL_T_Repository };
	struct span visibility, permission, v;

	/* Whoever may write sees drafts, alerts and more, so that it is no longer what everybody may read. */
	if (plain_member(object, "visibility", &visibility) && span_is(visibility, "PUBLIC") &&
	    jread_member(object, "viewerPermission", &v) &&
	    (jread_type(v) == JREAD_NULL || (plain(v, &permission) && span_is(permission, "READ"))))
		f.kind = NODE_PUBLIC;
	return f;
}

int node_answer(struct span text, const struct node_question *q, size_t n, struct node_facts *ret)
{
	struct span top, data, nodes = SPAN(NULL, 0), v;
	bool have_nodes;
	size_t names = 0;

	if (jread_check(text, 32, &top) < 0 || !jread_member(top, "data", &data) || jread_type(data) != JREAD_OBJECT)
		return -EBADMSG;
	have_nodes = jread_member(data, "nodes", &nodes) && jread_type(nodes) == JREAD_ARRAY;
	for (size_t i = 0; i < n; i++) {
		ret[i] = (struct node_facts){ .kind = NODE_NONE };
		if (q[i].by_name) {
			char alias[16];

			(void)snprintf(alias, sizeof(alias), "r%zu", names++);
			if (jread_member(data, alias, &v) && jread_type(v) == JREAD_OBJECT)
				ret[i] = of_name(v);
		} else if (have_nodes && jread_next_element(&nodes, &v)) {
			ret[i] = of_node(v);
		}
	}
	return 0;
}

/* ---- what is known ---- */

struct entry {
	struct entry *chain;
	uint64_t until_ms;
	struct node_question q;
	struct node_facts f;
	uint32_t bucket, at; /* in the ring */
	uint8_t bytes[];     /* the key, then the names */
};

struct node_cache {
	struct entry *bucket[NODE_CACHE_MAX];
	struct entry *ring[NODE_CACHE_MAX]; /* in the order of arrival */
	size_t next;
};

struct node_cache *node_cache_new(void)
{
	return calloc(1, sizeof(struct node_cache));
}

void node_cache_free(struct node_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < NODE_CACHE_MAX; i++)
		free(c->ring[i]);
	free(c);
}

/* Slugs in lower case, so that one spelling is one key. */
static uint8_t key_byte(const struct node_question *q, size_t i)
{
	uint8_t c = q->key.p[i];

	return q->by_name && c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static uint32_t bucket_of(const struct node_question *q)
{
	uint32_t h = 0;

	for (size_t i = 0; i < q->key.n; i++)
		h = h * 16777619 ^ key_byte(q, i);
	return (h ^ h >> 16) % NODE_CACHE_MAX;
}

static struct entry *find(const struct node_cache *c, const struct node_question *q)
{
	struct entry *e = c->bucket[bucket_of(q)];

	for (; e; e = e->chain) {
		size_t i = 0;

		if (e->q.by_name != q->by_name || e->q.key.n != q->key.n)
			continue;
		while (i < q->key.n && key_byte(&e->q, i) == key_byte(q, i))
			i++;
		if (i == q->key.n)
			return e;
	}
	return NULL;
}

bool node_cache_get(const struct node_cache *c, struct node_question q, uint64_t now_ms, struct node_facts *ret)
{
	const struct entry *e = find(c, &q);

	if (!e || now_ms >= e->until_ms)
		return false;
	*ret = e->f;
	return true;
}

static void unchain(struct node_cache *c, struct entry *e)
{
	struct entry **at = &c->bucket[e->bucket];

	while (*at != e)
		at = &(*at)->chain;
	*at = e->chain;
}

static struct span keep(uint8_t **to, struct span s)
{
	struct span kept = SPAN(*to, s.n);

	if (s.n > 0)
		memcpy(*to, s.p, s.n);
	*to += s.n;
	return kept;
}

void node_cache_put(struct node_cache *c, struct node_question q, const struct node_facts *f, uint64_t now_ms)
{
	struct entry *e = calloc(1, sizeof(*e) + q.key.n + f->prefix.n + f->name.n), *old = find(c, &q);
	uint8_t *to;

	if (!e)
		return;
	if (old) {
		e->at = old->at;
	} else {
		e->at = (uint32_t)c->next;
		c->next = (c->next + 1) % NODE_CACHE_MAX;
		old = c->ring[e->at];
	}
	to = e->bytes;
	e->q = (struct node_question){ q.by_name, keep(&to, q.key) };
	e->f = *f;
	e->f.prefix = keep(&to, f->prefix);
	e->f.name = keep(&to, f->name);
	e->until_ms = now_ms + (f->kind == NODE_NONE ? NODE_TTL_NONE_MS : NODE_TTL_MS);
	if (old) {
		unchain(c, old);
		free(old);
	}
	e->bucket = bucket_of(&q);
	e->chain = c->bucket[e->bucket];
	c->bucket[e->bucket] = e;
	c->ring[e->at] = e;
}
