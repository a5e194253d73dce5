/* github-decide [--show] VECTORS.json FIXTURE.json: requests of the guest over a file of cases for GitHub's hosts, from
 *the bytes of the head on: gate's parser, the credentials in it, GitHub's rules. Prints "ID VERDICT CRED" a line; exit
 *status 0 when all agree with the cases that say what they expect, 1 when some do not, 2 for a bad file. A case that
 *cannot be made as it is written is refused, with the reason at stderr; the others are decided nevertheless.
 *
 *	--show		the refusal, too, as the client gets it
 *	--bench N	decide over each case N times and print how long a decision takes */
#include "github-decide.h"

#include <stdio.h>
#include <time.h>

#include "base/base64.h"
#include "base/str.h"
#include "gate/hello.h"
#include "gate/http1.h"
#include "gate/policy/github/gql.h"
#include "gate/slot.h"
#include "vault/policy.h"

#define IO_MAX (16 << 20)

static const char gh[] = "avm-gh-798b5ak86upnggawbvrzd5wawa", copilot[] = "gho_avm_d4ifsvjqeqe2msgau268q4dfni";

static _Noreturn void bad(const char *what, const char *of)
{
	(void)fprintf(stderr, "github-decide: %s: %s\n", of, what);
	exit(2);
}

/* Why the case at hand cannot be made as it is written. */
static const char *unclear;

static void odd(const char *why)
{
	unclear = unclear ? unclear : why;
}

static const char *str(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static void put(struct buf *b, const void *p, size_t n)
{
	if (buf_put(b, p, n) < 0)
		odd("too large");
}

/* ---- the case's text ---- */

/* $PH, $PH_COPILOT, $PAD(n), $B64(text) and the bytes between. */
static void put_text(struct buf *b, const char *s, size_t n)
{
	while (n > 0) {
		const char *at = memchr(s, '$', n), *end;
		size_t front = at ? (size_t)(at - s) : n;

		put(b, s, front);
		s += front;
		n -= front;
		if (n == 0)
			return;
		if (n >= 11 && memcmp(s, "$PH_COPILOT", 11) == 0) {
			put(b, copilot, strlen(copilot));
			front = 11;
		} else if (n >= 3 && memcmp(s, "$PH", 3) == 0) {
			put(b, gh, strlen(gh));
			front = 3;
		} else if (n >= 6 && (memcmp(s, "$PAD(", 5) == 0 || memcmp(s, "$B64(", 5) == 0) &&
			   (end = memchr(s, ')', n))) {
			char *inner = xstrndup(s + 5, (size_t)(end - s) - 5);
			struct buf plain;
			uint64_t count;

			buf_init(&plain, IO_MAX);
			if (s[1] == 'P') {
				if (str_u64(inner, IO_MAX, &count) < 0) {
					odd("$PAD of no number that is small enough");
					count = 0;
				}
				while (count-- > 0)
					put(b, "x", 1);
			} else {
				char *out;

				put_text(&plain, inner, strlen(inner));
				out = xmalloc(BASE64_LEN(plain.n) + 1);
				put(b, out, base64_encode(BASE64_STD, buf_span(&plain), out));
				free(out);
			}
			buf_done(&plain);
			free(inner);
			front = (size_t)(end - s) + 1;
		} else {
			put(b, s, 1);
			front = 1;
		}
		s += front;
		n -= front;
	}
}

/* What is no text as JSON, what is not there as nothing. */
static void put_json(struct buf *b, const json_t *v)
{
	char *other;

	if (json_is_string(v)) {
		put_text(b, json_string_value(v), json_string_length(v));
	} else if (v && !json_is_null(v)) {
		other = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
		put_text(b, other, strlen(other));
		free(other);
	}
}

static void put_header(struct buf *b, const char *name, const json_t *v)
{
	put(b, name, strlen(name));
	put(b, ": ", 2);
	put_json(b, v);
	put(b, "\r\n", 2);
}

static void make_head(const json_t *v, size_t body, struct buf *head)
{
	const json_t *headers = json_object_get(v, "headers"), *e, *one;
	bool host = false, length = false;
	const char *name;
	char text[64];
	size_t i;

	put(head, str(v, "method"), strlen(str(v, "method")));
	put(head, " ", 1);
	put_json(head, json_object_get(v, "path"));
	put(head, " HTTP/1.1\r\n", 11);
	json_object_foreach((json_t *)(uintptr_t)headers, name, e)
	{
		host = host || strcasecmp(name, "host") == 0;
		length =
			length || strcasecmp(name, "content-length") == 0 || strcasecmp(name, "transfer-encoding") == 0;
		if (!json_is_array(e))
			put_header(head, name, e);
		json_array_foreach(e, i, one) put_header(head, name, one);
	}
	if (!host) {
		put(head, "Host: ", 6);
		put(head, str(v, "host"), strlen(str(v, "host")));
		put(head, "\r\n", 2);
	}
	if (!length && body > 0)
		put(head, text, (size_t)snprintf(text, sizeof(text), "Content-Length: %zu\r\n", body));
	put(head, "\r\n", 2);
}

/* ---- the launch ---- */

static const json_t *repo_of(const json_t *fixture, const char *slug)
{
	const json_t *e;
	size_t i;

	json_array_foreach(json_object_get(fixture, "repos"), i,
			   e) if (gh_same(span_str(str(e, "slug")), span_str(slug))) return e;
	return NULL;
}

static void copy(char *out, size_t size, struct span s)
{
	(void)snprintf(out, size, "%.*s", (int)s.n, (const char *)s.p);
}

static void list(const json_t *fixture, const char *text, enum gh_level level, struct gh_scope *s)
{
	const json_t *repo = repo_of(fixture, text), *parent;
	struct gh_facts f = { 0 };
	struct gh_slug slug, of;

	if (!gh_slug_parse(span_str(text), &slug) || gh_scope_add(s, slug, level) < 0) {
		odd("a repository or level of the list is none");
		return;
	}
	if (!repo)
		return;
	parent = repo_of(fixture, str(repo, "parent"));
	f.id = (uint64_t)json_integer_value(json_object_get(repo, "database_id"));
	copy(f.node[0], sizeof(f.node[0]), span_str(str(repo, "node_id")));
	copy(f.owner, sizeof(f.owner), slug.owner);
	copy(f.name, sizeof(f.name), slug.name);
	f.is_org = strcmp(str(json_object_get(repo, "owner"), "type"), "Organization") == 0;
	if (gh_slug_parse(span_str(str(repo, "parent")), &of)) {
		f.has_parent = true;
		f.parent_private = strcmp(str(parent, "visibility"), "PUBLIC") != 0;
		copy(f.parent_owner, sizeof(f.parent_owner), of.owner);
		copy(f.parent_name, sizeof(f.parent_name), of.name);
	}
	gh_scope_facts(s, slug, &f);
}

static void set_switch(const json_t *v, const char *key, enum gh_switch sw, bool inverted, struct gh_scope *s)
{
	const json_t *e = json_object_get(v, key);
	bool on = json_is_true(e) || strcmp(str(v, key), "on") == 0;

	if (!e)
		return;
	s->switches = on != inverted ? s->switches | GH_SWITCH_BIT(sw) : s->switches & ~GH_SWITCH_BIT(sw);
}

/* Of the fixture, and then of the case itself where it says something else. */
static void settings(const json_t *v, enum gh_level *level, struct gh_scope *s)
{
	const json_t *e;
	struct buf globs;
	size_t i;

	set_switch(v, "merge", GH_MERGE, false, s);
	set_switch(v, "ci", GH_CI, false, s);
	set_switch(v, "wiki", GH_WIKI, false, s);
	set_switch(v, "push_delete", GH_PUSH_DELETE, false, s);
	set_switch(v, "protect_workflows", GH_WORKFLOWS, true, s);
	set_switch(v, "public_graphql_lane", GH_PUBLIC_GRAPHQL, false, s);
	set_switch(v, "mcp", GH_MCP, false, s);
	if (strcmp(str(v, "foreign_credentials"), "anon") == 0)
		s->switches |= GH_SWITCH_BIT(GH_FOREIGN_ANON);
	if (json_object_get(v, "level"))
		*level = gh_level_find(span_str(str(v, "level")));
	if (!json_is_array(json_object_get(v, "push_refs")))
		return;
	buf_init(&globs, IO_MAX);
	json_array_foreach(json_object_get(v, "push_refs"), i, e)
	{
		put(&globs, ",", i > 0);
		put(&globs, json_string_value(e), json_string_length(e));
	}
	if (globs.n == 0)
		s->n_push_refs = 0; /* no ref at all, which a launch cannot say */
	else if (gh_scope_push_refs(s, buf_span(&globs)) < 0)
		odd("push_refs holds something else than globs");
	buf_done(&globs);
}

static void make_scope(const json_t *v, const json_t *fixture, struct gh_scope *s)
{
	enum gh_level level = GH_WRITE;
	const json_t *e;
	size_t i;

	gh_scope_init(s);
	settings(fixture, &level, s);
	settings(v, &level, s);
	json_array_foreach(json_object_get(v, "allow"), i, e)
		list(fixture, json_is_string(e) ? json_string_value(e) : "", level, s);
}

/* ---- decisions ---- */

struct result {
	bool allow, cred;
	bool broken;	      /* agrees with no case */
	struct gh_decision d; /* of GitHub's rules, if they decided */
	bool has_d;
};

/* A connection that is no HTTPS request: vault's policy of ports, and for what is inspected the first bytes. */
static void decide_tcp(const json_t *v, struct span body, struct result *ret)
{
	static const char *const inspected[] = { "github.com", "api.github.com", "ssh.github.com", NULL };
	const char *names[] = { str(v, "host"), NULL };
	struct policy_question q = { .proto = POLICY_TCP, .names = names };
	static struct policy p = { .inspected = inspected };
	struct hello h;
	uint64_t port;

	if (str_u64(str(v, "path") + (str(v, "path")[0] == ':'), UINT16_MAX, &port) < 0 ||
	    addr_parse("140.82.112.3", &q.dst) < 0) {
		odd("the path of a TCP connection is no port");
		return;
	}
	q.port = (uint16_t)port;
	switch (policy_decide(&p, &q).verdict) {
	case POLICY_ALLOW:
		ret->allow = true;
		break;
	case POLICY_INSPECT:
		/* Behind a bound name the requests inside are judged; without one nothing passes on an address of
		 * GitHub's. */
		ret->allow = hello_parse(body, &h) == HELLO_OK && prov_host_find(span_str(h.sni)) < HOSTS;
		break;
	default:
		break;
	}
}

static bool holds_placeholder(struct span s)
{
	return s.p && s.n > 0 && (memmem(s.p, s.n, gh, strlen(gh)) || memmem(s.p, s.n, copilot, strlen(copilot)));
}

/* A host that is not ended by gate: its bytes pass end to end, nothing is exchanged in them. The cases count a
 * placeholder that travels there as refused, in Basic with any user, too. */
static void decide_other(struct span head, struct span body, struct span host, struct result *ret)
{
	static const char basic[] = "asic ";
	struct span rest = head, token;

	ret->allow = host.n > 0 && host.p[host.n - 1] != '.' && !holds_placeholder(head) && !holds_placeholder(body);
	for (const uint8_t *at; ret->allow && (at = memmem(rest.p, rest.n, basic, strlen(basic)));) {
		uint8_t room[1024];
		ssize_t n;

		at += strlen(basic);
		rest = SPAN(at, rest.n - (size_t)(at - rest.p));
		token = SPAN(at, strcspn((const char *)at, "\r"));
		n = base64_decode(BASE64_STD, token, room, sizeof(room));
		ret->allow = n < 0 || !holds_placeholder(SPAN(room, (size_t)n));
	}
}

static void decide_copilot(const struct prov_launch *launch, enum prov_host_id host, const struct gh_scope *s,
			   struct request *r, struct span body, const struct slot_use *use, struct result *ret)
{
	static const char mcp[] = "/mcp";

	if (r->path.n >= strlen(mcp) && memcmp(r->path.p, mcp, strlen(mcp)) == 0 &&
	    (r->path.n == strlen(mcp) || r->path.p[strlen(mcp)] == '/')) {
		ret->has_d = true;
		ret->d = (struct gh_decision){ .scope = s, .seen = body };
		if (r->method == METHOD_POST)
			gh_decide_mcp(s, body, &ret->d);
		else
			ret->d.verdict =
				gh_scope_has(s, GH_MCP) && (r->method == METHOD_GET || r->method == METHOD_DELETE)
					? GH_CREDENTIAL
					: GH_REFUSE;
		ret->allow = ret->d.verdict == GH_CREDENTIAL;
		ret->cred = ret->allow && use->n > 0;
		return;
	}
	ret->allow = !prov_closed(host, r->path);
	for (size_t i = 0; i < use->n; i++)
		ret->allow =
			ret->allow && prov_allows(launch, use->kind[i], host, r->method, r->path, r->websocket, NULL);
	ret->cred = ret->allow && use->n > 0;
}

static void decide_github(const json_t *fixture, enum prov_host_id host, const struct gh_scope *s, struct request *r,
			  struct span body, struct result *ret)
{
	static const struct prov_launch lent = { .lent = PH_BIT(PH_GH) };
	static struct gh_issues known;
	struct gh_decision *d = &ret->d;
	struct github_case c = { fixture, s, r, body };

	ret->has_d = true;
	gh_decide(s, host, r, d);
	if (d->verdict == GH_BODY && body.n > (d->body == GH_BODY_PUSH ? GH_PUSH_MAX : GH_JSON_MAX))
		gh_decide_too_long(d);
	else if (d->verdict == GH_BODY && d->body == GH_BODY_GRAPHQL)
		ret->broken = !decide_graphql(&c, d);
	else if (d->verdict == GH_BODY)
		gh_decide_body(s, &known, r, body, d);
	ret->allow = d->verdict != GH_REFUSE;
	ret->cred = d->verdict == GH_CREDENTIAL;
	/* Vault checks the shape again. What it would hold back is neither allowed nor refused: no case agrees with
	 * that. */
	if (ret->cred && !prov_allows(&lent, PH_GH, host, r->method, r->path, false, NULL))
		ret->allow = false;
}

static void decide_http(const json_t *v, const json_t *fixture, const struct gh_scope *s, struct span head,
			struct span body, struct result *ret)
{
	bool agent = json_is_true(json_object_get(json_object_get(v, "copilot_agent") ? v : fixture, "copilot_agent"));
	struct prov_launch launch = { .lent = PH_BIT(PH_GH) | (agent ? PH_BIT(PH_COPILOT) : 0) };
	static struct ph_set set;
	struct slot_use use = { 0 };
	enum prov_host_id host = prov_host_find(span_str(str(v, "host")));
	struct span got;
	struct http1 h;

	(void)snprintf(set.v[PH_GH], sizeof(set.v[PH_GH]), "%s", gh);
	(void)snprintf(set.v[PH_COPILOT], sizeof(set.v[PH_COPILOT]), "%s", agent ? copilot : "");
	if (host == HOSTS || (prov_hosts[host].role != HOST_GITHUB && prov_hosts[host].prov != PROV_COPILOT)) {
		decide_other(head, body, span_str(str(v, "host")), ret);
		return;
	}
	http1_init(&h, span_str(prov_hosts[host].name));
	if (http1_feed(&h, &head, &got) == HTTP1_HEAD && h.req.fault.status == 0) {
		slot_judge(&launch, &set, host,
			   prov_hosts[host].role == HOST_GITHUB && gh_scope_has(s, GH_FOREIGN_ANON), &h.req, &use);
		if (h.req.fault.status != 0)
			;
		else if (prov_hosts[host].role == HOST_GITHUB)
			decide_github(fixture, host, s, &h.req, body, ret);
		else
			decide_copilot(&launch, host, s, &h.req, body, &use, ret);
	}
	http1_done(&h);
}

static void show(const struct result *r)
{
	const char *type;
	struct buf out;

	if (!r->has_d || r->allow)
		return;
	buf_init(&out, IO_MAX);
	if ((r->d.body == GH_BODY_GRAPHQL ? gql_denial : gh_denial)(&r->d, &out, &type) < 0)
		printf("\tthe refusal does not fit\n");
	else
		printf("\t%u %s: %.*s\n", r->d.status, type, (int)out.n, (const char *)buf_span(&out).p);
	buf_done(&out);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t *times;
static size_t n_times;

/* 1: agrees, 0: does not. */
static int one(const json_t *v, const json_t *fixture, bool shows, uint64_t rounds)
{
	const char *verdict = str(v, "verdict"), *cred = str(v, "cred");
	static struct gh_scope scope;
	struct result r;
	struct buf id, head, body;
	bool same;

	unclear = json_is_object(v) ? NULL : "no object";
	buf_init(&id, IO_MAX);
	if (*str(v, "id"))
		put(&id, str(v, "id"), strlen(str(v, "id")));
	else
		put_json(&id, json_object_get(v, "id"));
	put(&id, "", 1);
	buf_init(&head, IO_MAX);
	buf_init(&body, IO_MAX);
	put_json(&body, json_object_get(v, "body"));
	make_head(v, body.n, &head);
	make_scope(v, fixture, &scope);
	for (uint64_t i = 0; i <= rounds; i++) {
		uint64_t from = rounds > 0 ? now_ns() : 0;

		r = (struct result){ 0 };
		if (strcmp(str(v, "method"), "TCP") == 0)
			decide_tcp(v, buf_span(&body), &r);
		else
			decide_http(v, fixture, &scope, buf_span(&head), buf_span(&body), &r);
		if (unclear)
			r = (struct result){ 0 };
		if (rounds > 0 && i > 0)
			times[n_times++] = now_ns() - from;
	}
	same = !r.broken && (!*verdict || (strcmp(verdict, r.allow ? "allow" : "deny") == 0 &&
					   (!*cred || strcmp(cred, r.cred ? "host" : "none") == 0)));
	if (unclear)
		(void)fprintf(stderr, "github-decide: %s: %s\n", (const char *)buf_span(&id).p, unclear);
	if (rounds == 0)
		printf("%s %s %s%s%s%s%s%s%s\n", (const char *)buf_span(&id).p, r.allow ? "allow" : "deny",
		       r.cred ? "host" : "none", same ? "" : "  EXPECTED ", same ? "" : verdict, same ? "" : " ",
		       same ? "" : cred, same ? "" : ": ", same ? "" : str(v, "why"));
	if (shows)
		show(&r);
	buf_done(&id);
	buf_done(&head);
	buf_done(&body);
	return same;
}

/* The number of "\\uXXXX" at @p, 0 for anything else. */
static unsigned escaped(const uint8_t *p, size_t n)
{
	unsigned v = 0;

	if (n < 6 || p[0] != '\\' || p[1] != 'u')
		return 0;
	for (size_t i = 2; i < 6; i++)
		v = v << 4 | (p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10) % 16u;
	return v;
}

/* Half a character, which no text has and jansson refuses a whole file for, becomes a NUL, which no request may have.
 */
static void mend(uint8_t *p, size_t n)
{
	for (size_t i = 0; i + 1 < n; i++) {
		unsigned v = escaped(p + i, n - i);

		if (p[i] != '\\')
			continue;
		if (v >> 10 == 0xd800 >> 10 && escaped(p + i + 6, n - i - 6) >> 10 == 0xdc00 >> 10)
			i += 6;
		else if (v >> 11 == 0xd800 >> 11)
			memcpy(p + i + 2, "0000", 4);
		i += v ? 5 : 1;
	}
}

/* The last NUL before @at, which stands in a name and is more than jansson takes there, becomes another control
 * character, which no name of a field may have either. */
static bool mend_name(uint8_t *p, size_t at)
{
	while (at-- > 0)
		if (memcmp(p + at, "\\u0000", 6) == 0) {
			p[at + 5] = '1';
			return true;
		}
	return false;
}

static json_t *load(const char *path)
{
	FILE *f = fopen(path, "re");
	json_error_t error;
	struct buf text;
	uint8_t *bytes;
	json_t *v;
	size_t n;

	if (!f)
		bad("cannot be read", path);
	buf_init(&text, IO_MAX);
	for (uint8_t *p; (p = buf_room(&text, 1 << 16)) && (n = fread(p, 1, 1 << 16, f)) > 0;)
		buf_grew(&text, n);
	if (!feof(f))
		bad("too large, or cannot be read", path);
	(void)fclose(f);
	bytes = (uint8_t *)(uintptr_t)buf_span(&text).p;
	mend(bytes, text.n);
	while (!(v = json_loadb((const char *)bytes, text.n, JSON_ALLOW_NUL, &error)))
		if (json_error_code(&error) != json_error_null_byte_in_key || error.position < 6 ||
		    !mend_name(bytes, (size_t)error.position - 5))
			bad(error.text, path);
	buf_done(&text);
	return v;
}

int main(int argc, char **argv)
{
	bool shows = argc > 1 && strcmp(argv[1], "--show") == 0;
	uint64_t rounds = 0;
	size_t i, wrong = 0;
	json_t *all, *fixture, *v;
	int at = 1 + shows;

	if (argc > 2 && strcmp(argv[1], "--bench") == 0) {
		if (str_u64(argv[2], 100000, &rounds) < 0)
			bad("no number", argv[2]);
		at = 3;
	}
	if (argc != at + 2) {
		(void)fprintf(stderr, "usage: github-decide [--show | --bench N] VECTORS.json FIXTURE.json\n");
		return 2;
	}
	all = load(argv[at]);
	fixture = load(argv[at + 1]);
	if (!json_is_array(all) || !json_is_object(fixture))
		bad("no array of cases, or no object", argv[at]);
	times = rounds > 0 ? xcalloc(json_array_size(all) * rounds, sizeof(*times)) : NULL;
	json_array_foreach(all, i, v) wrong += one(v, fixture, shows, rounds) == 0;
	if (wrong)
		(void)fprintf(stderr, "github-decide: %zu of %zu differ\n", wrong, json_array_size(all));
	if (n_times > 0) {
		qsort(times, n_times, sizeof(*times), by_time);
		printf("%zu decisions: p50 %.1f us, p99 %.1f us, most %.1f us\n", n_times,
		       (double)times[n_times / 2] / 1e3, (double)times[n_times * 99 / 100] / 1e3,
		       (double)times[n_times - 1] / 1e3);
	}
	free(times);
	json_decref(all);
	json_decref(fixture);
	return wrong ? 1 : 0;
}
