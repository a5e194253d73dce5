#include "test.h"

#include <errno.h>
#include <jansson.h>

#include "base/macros.h"
#include "gate/hello.h"
#include "gate/http1.h"
#include "gate/judge.h"
#include "proto/pathtpl.h"
#include "vault/recheck.h"
#include "vault/reqhead.h"

static struct prov_launch launch = { .lent = PH_ALL };

/* ---- vault's half: as if gate had been taken over ---- */

struct msg {
	struct httpmsg_request_wire w;
	const char *path, *query;
	const char *field[8]; /* name, value, ... */
};

static struct httpmsg_request parsed;

static int parse(const struct msg *m, struct buf *b)
{
	struct httpmsg_request_wire w = m->w;
	uint16_t n = 0;

	for (int i = w.kind[0] != HTTPMSG_NO_CRED; i < HTTPMSG_CREDS && m->w.kind[1] == 0; i++)
		w.kind[i] = w.slot[i] = HTTPMSG_NO_CRED;
	buf_init(b, HTTPMSG_MAX);
	CHECK_INT(httpmsg_request_begin(b, &w, span_str(m->path), span_str(m->query ? m->query : "")), ==, 0);
	for (; m->field[2 * n]; n++)
		CHECK_INT(httpmsg_field(b, span_str(m->field[2 * n]), span_str(m->field[2 * n + 1])), ==, 0);
	httpmsg_end(b, n);
	return httpmsg_request_parse(buf_span(b), &parsed);
}

static enum refusal_code ask(struct msg m)
{
	static struct buf b;

	buf_done(&b);
	CHECK_INT(parse(&m, &b), ==, 0);
	return recheck(&launch, &parsed);
}

#define IDENTITY "Accept-Encoding", "identity"
#define CLAUDE .kind = { PH_CLAUDE_A }, .slot = { SLOT_BEARER }
#define NOBODY .kind = { HTTPMSG_NO_CRED }, .slot = { HTTPMSG_NO_CRED }

TEST(only_github_has_coded_slashes)
{
	CHECK_INT(ask((struct msg){ { .method = METHOD_GET, .host = HOST_ANTHROPIC, NOBODY }, "/v1/a%2fb" }), ==,
		  REFUSAL_PATH);
	CHECK_INT(ask((struct msg){ { .method = METHOD_GET, .host = HOST_ANTHROPIC, NOBODY }, "/v1/a%25255Cb" }), ==,
		  REFUSAL_PATH);
	CHECK_INT(ask((struct msg){ { .method = METHOD_GET, .host = HOST_GITHUB_API, NOBODY },
				    "/repos/a/b/git/refs/heads/x%2Fy" }),
		  ==, REFUSAL_NONE);
}

TEST(vault_lends_by_its_own_table)
{
	CHECK_INT(ask((struct msg){ { .method = METHOD_GET, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_NONE);
	CHECK_INT(ask((struct msg){ { .method = METHOD_POST, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_PATH_DENIED);
	CHECK_INT(ask((struct msg){ { .method = METHOD_POST, CLAUDE },
				    "/api/oauth/claude_cli/create_api_key",
				    NULL,
				    { IDENTITY } }),
		  ==, REFUSAL_PATH_DENIED);
	CHECK_INT(ask((struct msg){ { .host = HOST_OPENAI, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_WRONG_HOST);
	CHECK_INT(ask((struct msg){ { .host = HOST_CLAUDE_TOKEN, CLAUDE }, "/v1/oauth/token", NULL, { IDENTITY } }), ==,
		  REFUSAL_WRONG_HOST);
	CHECK_INT(ask((struct msg){
			  { .kind = { PH_CLAUDE_A }, .slot = { SLOT_KEY } }, "/v1/models", NULL, { IDENTITY } }),
		  ==, REFUSAL_SLOT);
	CHECK_INT(ask((struct msg){ { .method = METHOD_OPTIONS, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_METHOD);
	CHECK_INT(ask((struct msg){ { .host = HOSTS, NOBODY }, "/", NULL, { NULL } }), ==, REFUSAL_HOST);
	CHECK_INT(ask((struct msg){ { .method = METHODS, NOBODY }, "/", NULL, { NULL } }), ==, REFUSAL_METHOD);
	CHECK_INT(ask((struct msg){
			  { .kind = { PH_KINDS }, .slot = { SLOT_BEARER } }, "/v1/models", NULL, { IDENTITY } }),
		  ==, REFUSAL_FRAMING);
	CHECK_INT(
		ask((struct msg){ { .host = HOST_COPILOT, .method = METHOD_POST, NOBODY }, "/mcp/x", NULL, { NULL } }),
		==, REFUSAL_PATH_DENIED);
	launch.lent = PH_BIT(PH_OPENAI_KEY);
	CHECK_INT(ask((struct msg){ { .method = METHOD_GET, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_HOST);
	launch.lent = PH_ALL;
}

TEST(vault_keeps_githubs_login_within_its_frame)
{
	static const struct {
		enum prov_host_id host;
		enum prov_method method;
		const char *path;
		enum prov_slot slot;
		enum refusal_code code;
	} rows[] = {
		{ HOST_GITHUB_API, METHOD_GET, "/repos/acme/app", SLOT_BEARER, REFUSAL_NONE },
		{ HOST_GITHUB_API, METHOD_GET, "/repos/acme/app", SLOT_TOKEN, REFUSAL_SLOT },
		{ HOST_GITHUB_API, METHOD_GET, "/repos/acme/app", SLOT_BASIC, REFUSAL_SLOT },
		{ HOST_GITHUB_API, METHOD_POST, "/graphql", SLOT_BEARER, REFUSAL_NONE },
		{ HOST_GITHUB_API, METHOD_GET, "/user", SLOT_BEARER, REFUSAL_NONE },
		{ HOST_GITHUB_API, METHOD_PATCH, "/user", SLOT_BEARER, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_API, METHOD_POST, "/user/keys", SLOT_BEARER, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_API, METHOD_GET, "/notifications", SLOT_BEARER, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_API, METHOD_POST, "/gists", SLOT_BEARER, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_UPLOADS, METHOD_POST, "/repos/acme/app/releases/1/assets", SLOT_BEARER, REFUSAL_NONE },
		{ HOST_GITHUB_UPLOADS, METHOD_POST, "/repos/acme/app", SLOT_BEARER, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_GIT, METHOD_POST, "/acme/app/git-receive-pack", SLOT_BASIC, REFUSAL_NONE },
		{ HOST_GITHUB_GIT, METHOD_POST, "/acme/app/git-receive-pack", SLOT_BEARER, REFUSAL_SLOT },
		{ HOST_GITHUB_GIT, METHOD_POST, "/login/oauth/access_token", SLOT_BASIC, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_GIT, METHOD_POST, "/acme/app/settings", SLOT_BASIC, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_RAW, METHOD_GET, "/acme/app/main/README", SLOT_BASIC, REFUSAL_NONE },
		{ HOST_GITHUB_RAW, METHOD_POST, "/acme/app/main/README", SLOT_BASIC, REFUSAL_PATH_DENIED },
		{ HOST_GITHUB_GIST, METHOD_GET, "/acme/1", SLOT_BASIC, REFUSAL_PATH_DENIED },
	};
	bool coded;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		coded = rows[i].host == HOST_GITHUB_API || rows[i].host == HOST_GITHUB_UPLOADS;
		CHECK_INT(ask((struct msg){ { .host = rows[i].host, .method = rows[i].method, .kind = { PH_GH }, .slot = { rows[i].slot } },
					    rows[i].path,
					    NULL,
					    { coded ? "Accept-Encoding" : NULL, coded ? "identity" : NULL } }),
			  ==, rows[i].code);
	}
	/* A launch without a repository lends it to nothing. */
	launch.lent = PH_ALL & ~PH_BIT(PH_GH);
	CHECK_INT(ask((struct msg){ { .host = HOST_GITHUB_API, .kind = { PH_GH }, .slot = { SLOT_BEARER } }, "/repos/acme/app", NULL, { IDENTITY } }),
		  ==, REFUSAL_PATH_DENIED);
	launch.lent = PH_ALL;
}

TEST(vault_takes_no_field_that_is_its_own_or_stays_here)
{
	static const char *const bad[] = {
		"Authorization",	  "x-api-key",	   "api-key", "Host", "Content-Length",
		"Transfer-Encoding",	  "Connection",	   "Upgrade", "Via",  "X-Forwarded-For",
		"Proxy-Authorization",	  "Cookie",	   "Range",   "TE",   "Expect",
		"X-HTTP-Method-Override", "X-Original-URL"
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { IDENTITY, bad[i], "x" } }), ==,
			  REFUSAL_FRAMING);
	CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { NULL } }), ==, REFUSAL_ENCODING);
	CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { "Accept-Encoding", "gzip" } }), ==,
		  REFUSAL_ENCODING);
	CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { IDENTITY, "accept-encoding", "identity" } }), ==,
		  REFUSAL_ENCODING);
	CHECK_INT(ask((struct msg){ { .host = HOST_CHATGPT, .kind = { PH_CODEX_A }, .slot = { SLOT_BEARER } },
				    "/backend-api/codex/models",
				    NULL,
				    { IDENTITY, "ChatGPT-Account-Id", "x" } }),
		  ==, REFUSAL_FRAMING);
	CHECK_INT(ask((struct msg){ { .flags = HTTPMSG_ACCOUNT, CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==,
		  REFUSAL_FRAMING);
}

TEST(another_accounts_credential_goes_out_only_where_it_was_opened)
{
	struct msg m = { { .flags = HTTPMSG_FOREIGN, NOBODY }, "/v1/models", NULL, { "Authorization", "Bearer sk-x" } };

	CHECK_INT(ask(m), ==, REFUSAL_FOREIGN_CRED);
	CHECK_INT(prov_open(&launch, span_str("anthropic=foreign")), ==, 0);
	CHECK_INT(ask(m), ==, REFUSAL_NONE);
	m.w.kind[0] = PH_CLAUDE_A;
	m.w.slot[0] = SLOT_BEARER;
	CHECK_INT(ask(m), ==, REFUSAL_FOREIGN_CRED);
	launch = (struct prov_launch){ .lent = PH_ALL };
}

TEST(two_credentials_are_a_login_and_a_key)
{
	struct msg m = {
		{ .method = METHOD_GET, .kind = { PH_CLAUDE_A, PH_ANTHROPIC_KEY }, .slot = { SLOT_BEARER, SLOT_KEY } },
		"/v1/models",
		NULL,
		{ IDENTITY }
	};

	CHECK_INT(ask(m), ==, REFUSAL_NONE);
	m.w.kind[1] = PH_ANTHROPIC_OAT;
	m.w.slot[1] = SLOT_BEARER;
	CHECK_INT(ask(m), ==, REFUSAL_CRED_TWICE);
}

TEST(an_upgrade_is_a_get_without_body_on_its_path)
{
	struct msg m = {
		{ .host = HOST_CHATGPT, .flags = HTTPMSG_UPGRADE, .kind = { PH_CODEX_A }, .slot = { SLOT_BEARER } },
		"/backend-api/codex/responses",
		NULL,
		{ IDENTITY }
	};

	CHECK_INT(ask(m), ==, REFUSAL_NONE);
	m.w.body = HTTP_BODY_STREAM;
	CHECK_INT(ask(m), ==, REFUSAL_UPGRADE);
	m.w.body = HTTP_BODY_NONE;
	m.w.kind[0] = m.w.slot[0] = HTTPMSG_NO_CRED;
	m.path = "/backend-api/codex/models";
	CHECK_INT(ask(m), ==, REFUSAL_UPGRADE);
}

TEST(a_message_with_anything_odd_is_no_message)
{
	struct msg good = { { CLAUDE }, "/v1/models", "a=b", { IDENTITY } };
	static const char *const paths[] = { "",     "v1",    "/a/../b", "/a//b",   "/a?b",
					     "/a b", "/a\nb", "/%2e%2e", "/a%2f..", "/a%255c%2e." };
	static const char *const names[] = { "", "a b", "a:", "a\n" };
	static const char *const values[] = { "a\r", "a\nb", " a", "a ", "\x7f", "\x01" };
	struct buf b;

	CHECK_INT(parse(&good, &b), ==, -EBADMSG); /* a query without its flag */
	buf_done(&b);
	good.w.flags = HTTPMSG_HAS_QUERY;
	CHECK_INT(parse(&good, &b), ==, 0);
	for (size_t i = 0; i < b.n; i++)
		CHECK_INT(httpmsg_request_parse(SPAN(buf_span(&b).p, i), &parsed), ==, -EBADMSG);
	buf_set_u32(&b, 4, (uint32_t)b.n + 1);
	CHECK_INT(httpmsg_request_parse(buf_span(&b), &parsed), ==, -EBADMSG);
	CHECK_INT(buf_put_u8(&b, 0), ==, 0); /* as long as it says, and longer than its fields */
	CHECK_INT(httpmsg_request_parse(buf_span(&b), &parsed), ==, -EBADMSG);
	buf_done(&b);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct msg m = { { CLAUDE }, paths[i], NULL, { NULL } };

		CHECK_INT(parse(&m, &b), ==, -EBADMSG);
		buf_done(&b);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct msg m = { { CLAUDE }, "/", NULL, { names[i], "v" } };

		CHECK_INT(parse(&m, &b), ==, -EBADMSG);
		buf_done(&b);
	}
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct msg m = { { CLAUDE }, "/", NULL, { "n", values[i] } };

		CHECK_INT(parse(&m, &b), ==, -EBADMSG);
		buf_done(&b);
	}
	good.w.flags = 0x80 | HTTPMSG_HAS_QUERY;
	CHECK_INT(parse(&good, &b), ==, -EBADMSG);
	buf_done(&b);
	good.w.flags = HTTPMSG_HAS_QUERY;
	good.w.body_len = 5; /* of no body */
	CHECK_INT(parse(&good, &b), ==, -EBADMSG);
	buf_done(&b);
}

TEST(a_secret_that_cannot_stand_in_a_header_is_not_written)
{
	static const char *const bad[] = { "", "a b", "a\r\nX: y", "a\xc3\xa4", "a\x7f" };
	uint8_t out[1024];

	CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==, REFUSAL_NONE);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct span secret[HTTPMSG_CREDS] = { span_str(bad[i]) };

		CHECK_INT(reqhead_write(&parsed, secret, span_str(""), out, sizeof(out)), ==, -EINVAL);
	}
}

TEST(a_head_without_room_leaves_nothing_of_the_secret)
{
	struct span secret[HTTPMSG_CREDS] = { span_str("CANARY0123456789") };
	ssize_t whole;
	uint8_t out[1024];

	CHECK_INT(ask((struct msg){ { CLAUDE }, "/v1/models", NULL, { IDENTITY } }), ==, REFUSAL_NONE);
	whole = reqhead_write(&parsed, secret, span_str(""), out, sizeof(out));
	CHECK(whole > 0);
	for (size_t n = 0; n < (size_t)whole; n++) {
		CHECK_INT(reqhead_write(&parsed, secret, span_str(""), out, n), ==, -ENOBUFS);
		CHECK(!memmem(out, n, "CANA", 4));
	}
}

TEST(git_hosts_get_a_token_as_a_password)
{
	struct span secret[HTTPMSG_CREDS] = { span_str("CANARY0123456789") };
	struct msg m = { { .host = HOST_GITHUB_GIT, .kind = { PH_GH }, .slot = { SLOT_BASIC } },
			 "/acme/app.git/info/refs",
			 NULL,
			 { NULL } };
	uint8_t out[1024] = { 0 };
	struct buf b;
	ssize_t n;

	CHECK_INT(parse(&m, &b), ==, 0);
	n = reqhead_write(&parsed, secret, span_str(""), out, sizeof(out));
	CHECK(n > 0 &&
	      memmem(out, (size_t)n, "Authorization: Basic eC1hY2Nlc3MtdG9rZW46Q0FOQVJZMDEyMzQ1Njc4OQ==\r\n", 66));
	CHECK(!memmem(out, sizeof(out), "CANARY", 6));
	buf_done(&b);
}

/* ---- gate's half ---- */

TEST(a_batch_of_lfs_goes_out_as_what_it_was_read_as)
{
	static const struct request form = { .method = METHOD_POST,
					     .path = { (const uint8_t *)"/a/b/info/lfs/objects/batch", 27 },
					     .f = { { { (const uint8_t *)"Content-Type", 12 },
						      { (const uint8_t *)"application/x-www-form-urlencoded", 33 } } },
					     .n = 1,
					     .body = HTTP_BODY_STREAM };
	struct judged d = { .host = HOST_GITHUB_GIT,
			    .use = { .n = 1, .kind = { PH_GH }, .slot = { SLOT_BASIC } },
			    .github = { .body = GH_BODY_LFS } };
	struct buf b;

	buf_init(&b, HTTPMSG_MAX);
	CHECK_INT(judge_message(&d, &form, 0, 0, &b), ==, 0);
	CHECK_INT(httpmsg_request_parse(buf_span(&b), &parsed), ==, 0);
	CHECK(parsed.w.n_fields == 1 && span_is(parsed.f[0].value, GH_LFS_TYPE));
	buf_done(&b);
}

TEST(every_refusal_is_json_in_the_shape_of_its_host)
{
	static const char *const whys[] = { "why" };

	for (int host = 0; host <= HOSTS; host++)
		for (int code = 1; code < REFUSAL_CODES; code++) {
			struct refusal f = { .status = 403,
					     .code = (enum refusal_code)code,
					     .why = whys[0],
					     .has_kind = true,
					     .kind = PH_CODEX_A,
					     .class = code % 2 ? CLASS_NEVER : CLASS_FILES };
			struct refusal v = refusal_by_vault((enum refusal_code)code, PH_CLAUDE_A);
			const char *type;
			struct buf b;
			json_t *j;

			CHECK(v.status >= 403 && v.why && v.code != REFUSAL_NONE);
			buf_init(&b, 8192);
			CHECK_INT(refusal_body(&f, (enum prov_host_id)host, span_str("/a'b/c%20d"), &b, &type), ==, 0);
			CHECK(!memmem(buf_span(&b).p, b.n, "rate limit", 10));
			if (strstr(type, "json")) {
				j = json_loadb((const char *)buf_span(&b).p, b.n, JSON_REJECT_DUPLICATES, NULL);
				CHECK(json_is_object(j));
				if (host == HOST_ANTHROPIC)
					CHECK_STR(
						json_string_value(json_object_get(json_object_get(j, "error"), "type")),
						"permission_error");
				if (host == HOST_CHATGPT || host == HOST_KIMI)
					CHECK_STR(
						json_string_value(json_object_get(json_object_get(j, "error"), "code")),
						refusal_code_str[code]);
				json_decref(j);
			}
			buf_done(&b);
		}
}

TEST(after_a_fault_that_closes_nothing_more_is_told)
{
	static const char two[] =
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n";
	struct span in = span_str(two), body;
	struct http1 h;

	http1_init(&h, span_str("api.anthropic.com"));
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_HEAD);
	CHECK(h.req.fault.status == 400 && h.req.fault.close);
	http1_next(&h);
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_MORE);
	CHECK_INT(in.n, ==, 0);
	http1_done(&h);
}

TEST(the_next_request_waits_for_the_answer)
{
	static const char two[] = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\n";
	struct span in = span_str(two), body;
	struct http1 h;

	http1_init(&h, span_str("a.test"));
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_HEAD);
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_DONE);
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_MORE);
	CHECK_INT(in.n, ==, strlen("GET / HTTP/1.1\r\n"));
	http1_next(&h);
	CHECK(http1_is_idle(&h));
	CHECK_INT(http1_feed(&h, &in, &body), ==, HTTP1_MORE);
	CHECK(in.n == 0 && !http1_is_idle(&h));
	http1_done(&h);
}

TEST(a_refusal_of_head_has_no_body)
{
	struct refusal f = { .status = 405, .code = REFUSAL_METHOD, .why = "w" };
	struct buf b;

	buf_init(&b, 8192);
	CHECK_INT(refusal_http1(&f, HOST_ANTHROPIC, span_str("/"), true, &b), ==, 0);
	CHECK(memcmp(buf_span(&b).p + b.n - 4, "\r\n\r\n", 4) == 0 && memmem(buf_span(&b).p, b.n, "\r\nAllow: ", 9));
	buf_done(&b);
}

static void put_number(struct buf *b, size_t bytes, size_t v)
{
	while (bytes-- > 0)
		CHECK_INT(buf_put_u8(b, (uint8_t)(v >> 8 * bytes)), ==, 0);
}

/* A ClientHello with these extensions, in records of at most @record bytes. */
static struct buf hello(const void *ext, size_t n, size_t record)
{
	static const uint8_t front[] = { 3, 3 };
	struct buf body, out;

	buf_init(&body, 1 << 16);
	buf_init(&out, 1 << 17);
	put_number(&body, 1, 1);
	put_number(&body, 3, 2 + 32 + 1 + 4 + 2 + 2 + n);
	CHECK_INT(buf_put(&body, front, 2), ==, 0);
	for (int i = 0; i < 4; i++)
		put_number(&body, 8, 0);
	put_number(&body, 1, 0);
	put_number(&body, 4, 0x00021301);
	put_number(&body, 2, 0x0100);
	put_number(&body, 2, n);
	CHECK_INT(buf_put(&body, ext, n), ==, 0);
	while (body.n > 0) {
		size_t part = MIN(record, body.n);

		put_number(&out, 3, 0x160301);
		put_number(&out, 2, part);
		CHECK_INT(buf_put(&out, buf_span(&body).p, part), ==, 0);
		buf_consume(&body, part);
	}
	buf_done(&body);
	return out;
}

static enum hello_verdict of(const char *ext, size_t n, size_t record, struct hello *h)
{
	struct buf b = hello(ext, n, record);
	enum hello_verdict v = hello_parse(buf_span(&b), h);

	for (size_t i = 0; i < b.n; i++) {
		enum hello_verdict front = hello_parse(SPAN(buf_span(&b).p, i), h);

		CHECK(front == HELLO_MORE || (front == HELLO_BAD && v == HELLO_BAD));
	}
	v = hello_parse(buf_span(&b), h);
	buf_done(&b);
	return v;
}
#define OF(ext, record, h) of(ext, sizeof(ext) - 1, record, h)

#define SNI                        \
	"\0\0\0\x0b\0\x09\0\0\x06" \
	"A.test"
#define ALPN "\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1"

TEST(a_hello_tells_name_and_protocols)
{
	struct hello h;

	CHECK_INT(OF(SNI ALPN, 16384, &h), ==, HELLO_OK);
	CHECK_STR(h.sni, "a.test");
	CHECK(h.alpn && h.h2 && h.http1 && !h.ech);
	CHECK_INT(OF(SNI ALPN, 2, &h), ==, HELLO_OK);
	CHECK_STR(h.sni, "a.test");
	CHECK_INT(OF("\xfe\x0d\0\0", 100, &h), ==, HELLO_OK);
	CHECK(h.ech && h.sni[0] == '\0' && !h.alpn);
}

TEST(an_odd_hello_is_refused)
{
	struct hello h;

	CHECK_INT(OF(SNI SNI, 100, &h), ==, HELLO_BAD);
	CHECK_INT(OF("\0\0\0\x0b\0\x09\0\0\x06"
		     "a\0test",
		     100, &h),
		  ==, HELLO_BAD);
	CHECK_INT(OF("\0\0\0\x0b\0\x09\1\0\x06"
		     "a.test",
		     100, &h),
		  ==, HELLO_BAD);
	CHECK_INT(OF("\0\0\0\x0b\0\x09\0\0\x05"
		     "a.test",
		     100, &h),
		  ==, HELLO_BAD);
	CHECK_INT(OF("\0\0\0\x05\0\x03\0\0\0", 100, &h), ==, HELLO_BAD);
	CHECK_INT(OF("\0\x10\0\x03\0\x01\0", 100, &h), ==, HELLO_BAD);
	CHECK_INT(OF("\0\x10\0\x05\0\x02\1a", 100, &h), ==, HELLO_BAD);
	CHECK_INT(OF(SNI ALPN, 1, &h), ==, HELLO_BAD); /* more records than anybody honest sends */
	CHECK_INT(hello_parse(span_str("GET / HTTP/1.1\r\n"), &h), ==, HELLO_NOT_TLS);
	CHECK_INT(hello_parse(SPAN("\x16\3\1\x40\1", 5), &h), ==, HELLO_BAD);
	CHECK_INT(hello_parse(SPAN("\x16\3\1\0\4\1\0\x40\1", 9), &h), ==, HELLO_BAD);
}

/* ---- paths in records ---- */

static const char *template(const char *path)
{
	static char out[NET_NOTE_PATH];

	pathtpl_write(span_str(path), out);
	CHECK(pathtpl_is(out));
	return out;
}

TEST(a_path_in_a_record_has_no_ids)
{
	char longest[400] = "";

	assert_string_equal(template("/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results"), "/v1/messages/batches/*/results");
	assert_string_equal(template("/repos/acme/app/pulls/12"), "/repos/acme/app/pulls/*");
	assert_string_equal(template("/api/organization/claude_code_first_token_date"), "/api/organization/claude_code_first_token_date");
	assert_string_equal(template("/u/ann@real.example/%41/.x/"), "/u/*/*/*/");
	assert_string_equal(template("/avm-gh-798b5ak86upnggawbvrzd5wawa"), "/*");
	assert_string_equal(template("/avm-gh-abcdefghijkmnpqrstuvwxyzab"), "/*");
	assert_string_equal(template(""), "");
	for (int i = 0; i < 40; i++)
		(void)strcat(longest, "/segments");
	CHECK_INT(strlen(template(longest)), ==, 119);
	assert_string_equal(template(longest) + 117, "/*");
	(void)snprintf(longest, sizeof(longest), "/a?b");
	CHECK(!pathtpl_is(longest));
	memset(longest, 0, NET_NOTE_PATH);
	longest[0] = 'x';
	CHECK(!pathtpl_is(longest));
	longest[0] = '\0';
	CHECK(pathtpl_is(longest));
	memset(longest, '/', NET_NOTE_PATH);
	CHECK(!pathtpl_is(longest));
}
