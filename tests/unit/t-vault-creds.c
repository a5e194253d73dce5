#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/jread.h"
#include "base/macros.h"
#include "base/str.h"
#include "sandbox/hide.h"
#include "vault/answer.h"
#include "vault/echo.h"
#include "vault/guestfile.h"
#include "vault/jwt.h"
#include "vault/renew.h"
#include "vault/secret.h"
#include "vault/source.h"

#define TOKEN "CANARY-anthropic-access-7f3a9c2e5b81d604-QwErTyUiOpAsDf"
/* {"alg":"none"} .
 * {"exp":1800086400,"https://api.openai.com/auth":{"chatgpt_account_id":"acc-1","chatgpt_plan_type":"plus"}} */
#define JWT                                                                                            \
	"eyJhbGciOiJub25lIn0."                                                                         \
	"eyJleHAiOjE4MDAwODY0MDAsImh0dHBzOi8vYXBpLm9wZW5haS5jb20vYXV0aCI6eyJjaGF0Z3B0X2FjY291bnRfaWQi" \
	"OiJhY2MtMSIsImNoYXRncHRfcGxhbl90eXBlIjoicGx1cyJ9fQ.c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro"

static void arena(void)
{
	static bool open;
	struct err err;

	if (!open)
		CHECK_INT(secret_arena_open(SECRET_ARENA, &err), ==, 0);
	open = true;
}

/* --- JSON --- */

static int json(const char *text)
{
	struct span v;

	return jread_check(span_str(text), 4, &v);
}

TEST(json_is_strict)
{
	CHECK_INT(json(" {\"a\":[1,-0.5e+3,true,null,\"\\u00e9\\ud83d\\ude00\"]} "), ==, 0);
	for (size_t i = 0; i < 22; i++) {
		static const char *const bad[] = { "",
						   "{",
						   "{\"a\":1,}",
						   "[1,]",
						   "01",
						   "+1",
						   "1.",
						   "{\"a\":1}x",
						   "'a'",
						   "\"\\x\"",
						   "nul",
						   "\"\\u00\"",
						   "{\"a\":1,\"\\u0061\":2}",
						   "\"\\ud800\"",
						   "\"\\udc00x\"",
						   "[[[[[1]]]]]",
						   "{a:1}",
						   "\"\n\"",
						   "\"\xff\"",
						   "\"\\u0000\"",
						   "1e",
						   "[1 2]" };

		if (json(bad[i]) == 0)
			fail_msg("taken: %s", bad[i]);
	}
}

TEST(json_members_are_found_in_the_object_itself)
{
	struct span v, a, e;
	uint8_t text[16];
	int64_t n;

	CHECK_INT(
		jread_check(
			span_str(
				"{ \"x\" : {\"a\":1} , \"b\" : [ 1 , \"]\" , {} ] , \"\\u0061\" : -1800007199000.75 }"),
			4, &v),
		==, 0);
	CHECK(jread_member(v, "a", &a));
	CHECK_INT(jread_int(a, &n), ==, 0);
	CHECK_INT(n, ==, -1800007199000);
	CHECK(jread_member(v, "b", &a));
	CHECK(jread_next_element(&a, &e) && span_is(e, "1"));
	CHECK(jread_next_element(&a, &e));
	CHECK_INT(jread_string(e, text, sizeof(text)), ==, 1);
	CHECK_INT(jread_string(e, text, 0), ==, -ENOBUFS);
	CHECK(jread_next_element(&a, &e) && span_is(e, "{}"));
	CHECK(!jread_next_element(&a, &e));
	CHECK(!jread_member(v, "c", &a));
}

/* --- the arena --- */

TEST(a_secret_is_wiped_when_it_goes)
{
	struct secret s = { 0 };
	const uint8_t *was;

	arena();
	CHECK_INT(secret_set(&s, span_str(TOKEN)), ==, 0);
	was = s.p;
	CHECK(memcmp(was, TOKEN, strlen(TOKEN)) == 0);
	secret_done(&s);
	for (size_t i = 0; i < strlen(TOKEN); i++)
		CHECK_INT(was[i], ==, 0);
	CHECK(s.p == NULL && s.n == 0);
}

TEST(pieces_of_the_arena_do_not_overlap_and_come_back)
{
	uint8_t *p[64] = { 0 };

	arena();
	for (int round = 0; round < 200; round++) {
		size_t i = (size_t)(round * 7 % 64), n = (size_t)(1 + round * 37 % 900);

		if (p[i])
			for (size_t k = 1; k < p[i][0]; k++)
				CHECK_INT(p[i][k], ==, i);
		secret_free(p[i]);
		p[i] = secret_alloc(n);
		CHECK(p[i] != NULL);
		for (size_t k = 0; k < n; k++)
			CHECK_INT(p[i][k], ==, 0);
		memset(p[i], (int)i, n);
		p[i][0] = (uint8_t)MIN(n, (size_t)255);
	}
	for (size_t i = 0; i < 64; i++)
		secret_free(p[i]);
	CHECK(secret_alloc(SECRET_ARENA + 1) == NULL);
	p[0] = secret_alloc(SECRET_ARENA);
	CHECK(p[0] != NULL && secret_alloc(1) == NULL);
	secret_free(p[0]);
}

/* What the kernel says of the mapping, and what a child sees. */
TEST(the_arena_is_locked_undumped_and_empty_in_a_child)
{
	struct secret s = { 0 };
	unsigned long lo, hi;
	char line[512];
	bool here = false, locked = false, undumped = false;
	int status;
	pid_t pid;
	FILE *f;

	arena();
	CHECK_INT(secret_set(&s, span_str(TOKEN)), ==, 0);
	f = fopen("/proc/self/smaps", "re");
	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			here = (unsigned long)(uintptr_t)s.p >= lo && (unsigned long)(uintptr_t)s.p < hi;
		if (here && strncmp(line, "VmFlags:", 8) == 0) {
			locked = strstr(line, " lo") != NULL;
			undumped = strstr(line, " dd") != NULL;
		}
	}
	(void)fclose(f);
	CHECK(locked);
	CHECK(undumped);
	pid = fork();
	if (pid == 0)
		_exit(s.p[0] == 0 && s.p[s.n - 1] == 0 ? 0 : 1);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, ==, 0);
	secret_done(&s);
}

TEST(a_hidden_process_leaves_no_core_and_cannot_be_read)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit l;

		if (hide_process() < 0 || getrlimit(RLIMIT_CORE, &l) < 0 || l.rlim_max > 1 ||
		    prctl(PR_GET_DUMPABLE) != 0)
			_exit(1);
		abort();
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && !WCOREDUMP(status));
}

/* --- JWT --- */

TEST(a_jwt_is_read_in_both_alphabets_and_paddings)
{
	struct jwt j;

	CHECK_INT(jwt_read(span_str(JWT), &j), ==, 0);
	CHECK_INT(j.exp, ==, 1800086400);
	CHECK_STR(j.account_id, "acc-1");
	CHECK_STR(j.plan, "plus");
	CHECK(span_is(j.signature, "c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro"));
	CHECK_INT(jwt_read(span_str("e30=.eyJleHAiOjF9.c2ln"), &j), ==, 0); /* padded head */
	CHECK_INT(j.exp, ==, 1);
	CHECK_INT(jwt_read(span_str("e30.eyJhIjoi8J-YgD8_Pz8_In0.c2ln"), &j), ==, 0);
	CHECK_INT(jwt_read(span_str("e30.eyJhIjoi8J+YgD8/Pz8/In0.c2ln"), &j), ==, 0);
	for (size_t i = 0; i < 9; i++) {
		static const char *const bad[] = { "",
						   "a.b",
						   "e30..c2ln",
						   "e30.e30",
						   "e30.e30.c2ln.c2ln",
						   "e30.W10.c2ln",
						   "e30==.e30.c2ln",
						   "e30.eyJhIjoi8J+YgD8_Pz8_In0.c2ln",
						   "e30.e30.c2 n" };

		if (jwt_read(span_str(bad[i]), &j) == 0)
			fail_msg("taken: %s", bad[i]);
	}
}

/* --- host files --- */

static int openai(const char *text, struct login *l)
{
	const char *why;

	return hostfile_openai(span_str(text), l, &why);
}

TEST(a_codex_login_lends_only_what_its_mode_uses)
{
	struct login l = { 0 };

	arena();
	CHECK_INT(openai("{\"OPENAI_API_KEY\":\"sk-0123456789abcdef\",\"tokens\":{\"access_token\":\"" JWT
			 "\",\"id_token\":\"" JWT "\",\"refresh_token\":\"rt-0123456789abcdef\"}}",
			 &l),
		  ==, 0);
	CHECK_INT(l.info.mode, ==, LOGIN_CHATGPT);
	CHECK(l.key.n == 0 && l.refresh.n == 19);
	CHECK_STR(l.info.account_id, "acc-1");
	CHECK_INT(l.info.exp_ms, ==, INT64_C(1800086400000));
	CHECK_INT(openai("{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-0123456789abcdef\",\"tokens\":{\"access_"
			 "token\":\"a\"}}",
			 &l),
		  ==, 0);
	CHECK(l.info.mode == LOGIN_APIKEY && l.access.n == 0 && l.key.n == 19);
	CHECK_INT(openai("{\"auth_mode\":\"bedrock\"}", &l), ==, -ENOTSUP);
	CHECK_INT(openai("{}", &l), ==, -ENOENT);
	CHECK_INT(openai("{\"tokens\":{\"access_token\":\"\"}}", &l), ==, -ENOENT);
	CHECK_INT(openai("{\"tokens\":{\"access_token\":7}}", &l), ==, -EBADMSG);
	CHECK_INT(openai("{\"tokens\":{\"access_token\":\"a b\"}}", &l), ==, -EBADMSG);
	CHECK(l.key.n == 19); /* a reading that failed touches nothing */
	login_done(&l);
}

TEST(claude_scopes_are_words_of_their_grammar)
{
	struct login l = { 0 };
	const char *why;

	arena();
	CHECK_INT(hostfile_anthropic(span_str("{\"claudeAiOauth\":{\"accessToken\":\"0123456789abcdef\",\"expiresAt\":"
					      "1.5e12,\"scopes\":[\" user:a \","
					      "\"\",\"b\\\"c\",\"user:d\"],\"subscriptionType\":\"a b\"}}"),
				     &l, &why),
		  ==, 0);
	CHECK_STR(l.info.scopes, "user:a user:d");
	CHECK_STR(l.info.subscription, "");
	CHECK_INT(l.info.exp_ms, ==, INT64_C(1500000000000));
	CHECK_INT(hostfile_anthropic(span_str("{\"mcpOAuth\":{}}"), &l, &why), ==, -ENOENT);
	CHECK_INT(hostfile_anthropic(span_str("{\"claudeAiOauth\":{\"accessToken\":\"x\",\"expiresAt\":\"1\"}}"), &l,
				     &why),
		  ==, -EBADMSG);
	CHECK(why != NULL);
	CHECK_INT(hostfile_anthropic(span_str("{\"claudeAiOauth\":{\"accessToken\":\"\"}}"), &l, &why), ==, -ENOENT);
	login_done(&l);
}

TEST(only_api_keys_of_opencode_are_lent)
{
	struct host_keys k = { 0 };
	const char *why;

	arena();
	CHECK_INT(hostfile_opencode(span_str("{\"zai\":{\"type\":\"wellknown\",\"key\":\"0123456789abcdef\"}}"), &k,
				    &why),
		  ==, -ENOENT);
	CHECK_INT(hostfile_opencode(
			  span_str("{\"zai\":7,\"kimi-for-coding\":{\"type\":\"api\",\"key\":\"0123456789abcdef\"}}"),
			  &k, &why),
		  ==, 0);
	CHECK_INT(k.have, ==, PH_BIT(PH_KIMI));
	CHECK(why != NULL); /* the other entry */
	CHECK_STR(k.id[PH_KIMI], "kimi-for-coding");
	host_keys_done(&k);
	CHECK(!k.id[PH_KIMI]);
}

/* OpenCode finds a service's models by the id of the entry. That at api.kimi.ai is another one, with a host that has no row. */
TEST(kimis_key_has_in_the_guest_the_name_that_it_has_on_the_host)
{
	static const char mine[] = "{\"type\":\"api\",\"key\":\"0123456789abcdef\"}", other[] = "{\"type\":\"api\",\"key\":\"fedcba9876543210\"}";
	static const struct {
		const char *first, *second; /* ids of these two */
		const char *id;
	} cases[] = {
		{ "kimi-code-plan-cn", "x", "kimi-code-plan-cn" },
		{ "kimi-for-coding", "x", "kimi-for-coding" },
		{ "kimi-code-plan-cn", "kimi-for-coding", "kimi-code-plan-cn" },
		{ "kimi-code-plan-global", "x", NULL },
	};

	arena();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct host_keys k = { 0 };
		AUTO_FREE(char, want);
		AUTO_FREE(char, text);
		struct ph_set set = { .v[PH_KIMI] = "avm-kimi-x" };
		const char *why;
		struct buf out;

		text = xasprintf("{\"%s\":%s,\"%s\":%s}", cases[i].second, other, cases[i].first, mine);
		CHECK_INT(hostfile_opencode(span_str(text), &k, &why), ==, cases[i].id ? 0 : -ENOENT);
		if (!cases[i].id)
			continue;
		CHECK(k.have == PH_BIT(PH_KIMI) && span_is(secret_span(&k.key[PH_KIMI]), "0123456789abcdef"));
		buf_init(&out, GUESTFILE_MAX);
		CHECK_INT(guestfile_opencode(NULL, k.id, &set, 0, &out), ==, 0);
		want = xasprintf("{\"%s\":{\"type\":\"api\",\"key\":\"avm-kimi-x\"}}", cases[i].id);
		CHECK(span_is(buf_span(&out), want));
		buf_done(&out);
		host_keys_done(&k);
	}
}

TEST(a_codex_login_without_a_time_gets_one)
{
	struct login_info info = { .mode = LOGIN_CHATGPT };
	struct ph_set set = { 0 };
	struct buf out;

	for (int k = 0; k < PH_KINDS; k++)
		memset(set.v[k], 'a', PH_S);
	buf_init(&out, GUESTFILE_MAX);
	CHECK_INT(guestfile_codex(&info, &set, 1800000000, &out), ==, 0);
	CHECK(memmem(buf_span(&out).p, out.n, "\"last_refresh\":\"2027-01-15T08:00:00Z\"", 37));
	buf_done(&out);
}

TEST(a_key_of_a_form_counts_once)
{
	static const char body[] =
		"refresh_token=x&grant_type=refresh_token&refresh_token=avm-codex-r-22222222222222222222222222";
	struct ph_set set = { 0 };
	enum ph_kind kind;

	(void)snprintf(set.v[PH_CODEX_R], PH_MAX, "avm-codex-r-22222222222222222222222222");
	CHECK_INT(token_body(HOST_OPENAI_TOKEN, &set, span_str("application/x-www-form-urlencoded"), false,
			     span_str(body + 16), &kind),
		  ==, TOKEN_ASK);
	CHECK_INT(kind, ==, PH_CODEX_R);
	CHECK_INT(token_body(HOST_OPENAI_TOKEN, &set, span_str("application/x-www-form-urlencoded"), false,
			     span_str(body), &kind),
		  ==, TOKEN_INVALID);
}

TEST(copilots_files)
{
	static const struct {
		const char *text, *token;
		int r;
	} cases[] = {
		{ "// one\n  // two\n{\"copilotTokens\":{\"https://github.com:me\":\"gho_a\"}}", "gho_a", 0 },
		{ "{\"copilot_tokens\":{\"https://github.com:me\":\"github_pat_a\"}}", "github_pat_a", 0 },
		{ "{\"copilotTokens\":{\"https://x.ghe.com:me\":\"gho_x\",\"https://github.com:a\":\"gho_a\",\"https://github.com:me\":\"gho_b\","
		  "\"https://github.com:mee\":\"gho_c\"},\"lastLoggedInUser\":{\"host\":\"https://github.com\",\"login\":\"me\"}}", "gho_b", 0 },
		{ "{\"copilotTokens\":{\"https://github.com:a\":\"gho_a\",\"https://github.com:b\":\"gho_b\"},\"lastLoggedInUser\":{\"login\":\"c\"}}",
		  "gho_a", 0 },
		{ "{\"access_token\":\"gho_a\"}", "gho_a", 0 },
		{ "{\"copilotTokens\":{\"https://x.ghe.com:me\":\"gho_x\"}}", NULL, -ENOENT },
		{ "{\"copilotTokens\":{\"https://github.com.evil:me\":\"gho_x\",\"https://github.com\":\"gho_x\"}}", NULL, -ENOENT },
		{ "// of its program\n{\"firstLaunchAt\":\"2026\"}", NULL, -ENOENT },
		{ "{\"access_token\":\"\"}", NULL, -ENOENT },
		{ "{\"access_token\":\"ghp_a\"}", NULL, -ENOTSUP },
		{ "{\"access_token\":\"gho_a b\"}", NULL, -EBADMSG },
		{ "{\"copilotTokens\":[\"gho_a\"]}", NULL, -EBADMSG },
		{ "{\"copilotTokens\":{\"https://github.com:me\":7}}", NULL, -EBADMSG },
		{ "{} // behind it", NULL, -EBADMSG },
		{ "//", NULL, -EBADMSG },
		{ "", NULL, -EBADMSG },
	};

	arena();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct login l = { 0 };
		const char *why;

		CHECK_INT(hostfile_copilot(span_str(cases[i].text), &l, &why), ==, cases[i].r);
		CHECK(cases[i].r == 0 ? l.info.mode == LOGIN_COPILOT && span_is(secret_span(&l.access), cases[i].token) :
		      cases[i].r == -ENOENT || why);
		login_done(&l);
	}
}

TEST(keys_tokens_and_base_urls)
{
	struct secret s = { 0 };
	const char *why;

	arena();
	CHECK_INT(hostfile_token(span_str("  gho_x\n"), &s), ==, 0);
	CHECK(span_is(secret_span(&s), "gho_x"));
	CHECK_INT(hostfile_token(span_str(" \n"), &s), ==, -ENOENT);
	CHECK_INT(hostfile_token(span_str("a\nb"), &s), ==, -EBADMSG);
	secret_done(&s);
	CHECK(hostfile_copilot_takes(span_str("github_pat_x"), &why));
	CHECK(!hostfile_copilot_takes(span_str("ghp_x"), &why) && strstr(why, "classic"));
	CHECK(!hostfile_copilot_takes(span_str("x"), &why));
	CHECK(hostfile_base_url_is("", "api.openai.com"));
	CHECK(hostfile_base_url_is("https://API.openai.com:443/v1", "api.openai.com"));
	CHECK(!hostfile_base_url_is("http://api.openai.com", "api.openai.com"));
	CHECK(!hostfile_base_url_is("https://api.openai.com.evil.example/", "api.openai.com"));
	CHECK(!hostfile_base_url_is("https://api.openai.com@evil.example/", "api.openai.com"));
	CHECK(!hostfile_base_url_is("https://api.openai.com:8443/", "api.openai.com"));
}

/* --- echo --- */

static struct echo *scanner(const char *needle)
{
	struct span s = span_str(needle);
	struct echo_set *set;
	struct echo *e;

	arena();
	set = echo_set_new(&s, 1);
	CHECK(set != NULL);
	e = echo_new(set);
	echo_set_put(set);
	return e;
}

TEST(a_tail_that_cannot_become_a_hit_is_not_held_back)
{
	static uint8_t out[ECHO_HOLD_MAX + ECHO_WINDOW];
	struct echo *e = scanner(TOKEN);
	struct span s = span_str("data: {\"t\":\"CANARY\"}\n\n");

	CHECK_INT(echo_feed(e, s, out), ==, s.n);
	s = span_str("CANARY-anth");
	CHECK_INT(echo_feed(e, s, out), ==, 0);
	CHECK_INT(echo_feed(e, span_str("X"), out), ==, 12);
	CHECK(memcmp(out, "CANARY-anthX", 12) == 0);
	CHECK_INT(echo_feed(e, span_str("C%4"), out), ==, 0);
	CHECK_INT(echo_end(e, out), ==, 3);
	CHECK(memcmp(out, "C%4", 3) == 0);
	CHECK_INT(echo_hits(e, ECHO_RAW), ==, 0);
	echo_free(e);
}

TEST(hits_that_overlap_a_border_and_each_other_are_all_overwritten)
{
	static uint8_t out[ECHO_HOLD_MAX + ECHO_WINDOW];
	struct echo *e = scanner("abcabcabcabcabcabc"); /* 18 bytes that overlap themselves */
	char text[] = "abcabcabcabcabcabcabc!", got[64];
	size_t at = 0;

	for (size_t i = 0; text[i]; i++) {
		size_t n = echo_feed(e, SPAN(text + i, 1), out);

		memcpy(got + at, out, n);
		at += n;
	}
	CHECK_INT(at, ==, 22);
	got[at] = '\0';
	CHECK_STR(got, "xxxxxxxxxxxxxxxxxxxxx!");
	CHECK_INT(echo_hits(e, ECHO_RAW), ==, 2);
	echo_whole(e, (uint8_t *)text, strlen(text));
	CHECK_STR(text, got);
	echo_free(e);
}

/* --- answers --- */

/* Feeds @text in pieces of @step and writes down what comes: H status, B bytes, T, E, U, or the errno. */
static char *answered(const char *text, size_t step, enum prov_method method, bool upgrade, bool eof)
{
	static char out[4096];
	struct span in, piece;
	size_t at = 0, n = strlen(text);
	struct answer a;
	int r = ANSWER_MORE;

	answer_init(&a, method, upgrade);
	for (size_t i = 0; i < n && r >= 0 && r != ANSWER_END && r != ANSWER_UPGRADED; i += step) {
		piece = SPAN(text + i, MIN(step, n - i));
		in = piece;
		do {
			r = answer_feed(&a, &in);
			if (r == ANSWER_HEAD)
				at += (size_t)snprintf(out + at, sizeof(out) - at, "H%u", a.status);
			else if (r == ANSWER_BODY)
				at += (size_t)snprintf(out + at, sizeof(out) - at, "%.*s", (int)a.body.n, a.body.p);
			else if (r == ANSWER_TRAILERS)
				at += (size_t)snprintf(out + at, sizeof(out) - at, "T");
		} while (r > 0 && r != ANSWER_END && r != ANSWER_UPGRADED);
	}
	if (r == ANSWER_MORE && eof)
		r = answer_eof(&a);
	(void)snprintf(out + at, sizeof(out) - at, "%s",
		       r == ANSWER_END	      ? "E"
		       : r == ANSWER_UPGRADED ? "U"
		       : r == -EPROTO	      ? "!"
		       : r == -EPIPE	      ? "cut"
					      : "+");
	answer_done(&a);
	return out;
}

#define A(text, want)                                                                                \
	do {                                                                                         \
		for (size_t step_ = 1; step_ < 200; step_ = step_ * 3)                               \
			CHECK_STR(answered("HTTP/1.1 " text, step_, METHOD_GET, false, true), want); \
	} while (0)

TEST(answers_are_framed_strictly)
{
	A("200 OK\r\nContent-Length: 2\r\n\r\n{}", "H200{}E");
	A("200 OK\r\nContent-Length: 3\r\n\r\n{}", "H200{}cut");
	A("200 \r\nTransfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "H200{}E");
	A("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n", "H200{}TE");
	A("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "H200{}cut");
	A("200 OK\r\n\r\nabc", "H200abcE");
	A("100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\n", "H204E");
	A("304 N\r\nContent-Length: 7\r\n\r\n", "H304E");
	A("200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "!");
	A("200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!");
	A("200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "!");
	A("200 OK\r\nContent-Length: +2\r\n\r\n{}", "!");
	A("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n", "H200!");
	A("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000002\r\n{}\r\n0\r\n\r\n", "H200!");
	A("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n", "H200{}!");
	A("200 OK\nContent-Length: 2\n\n{}", "!");
	A("200 OK\r\nX: a\r\n b\r\n\r\n", "!");
	A("200 OK\r\nX : a\r\n\r\n", "!");
	A("200 OK\r\nX\r\n\r\n", "!");
	A("200 OK\r\nX: a\rb\r\n\r\n", "!");
	A("200 OK\r\nX: a\x01\r\n\r\n", "!");
	A("20 OK\r\n\r\n", "!");
	A("600 OK\r\n\r\n", "!");
	A("200\r\n\r\n", "!");
	A("101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "!");
	A("204 N\r\nContent-Length: 2\r\n\r\n{}", "!");
	A("200 OK\r\nX: a", "cut");
	CHECK_STR(answered("HTTP/1.0 200 OK\r\n\r\nab", 1, METHOD_GET, false, true), "H200abE");
	CHECK_STR(answered("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 1, METHOD_GET, false, true), "!");
	CHECK_STR(answered("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 1, METHOD_HEAD, false, true), "H200E");
	CHECK_STR(answered("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 3, METHOD_GET, true,
			   true),
		  "U");
	CHECK_STR(answered("HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 3, METHOD_GET, true, true),
		  "!");
}

/* --- renewal --- */

#define WALL INT64_C(1800000000000)

static struct renew_file file_with(int64_t left_s, uint64_t generation)
{
	return (struct renew_file){ .exp_ms = WALL + left_s * 1000, .generation = generation };
}

TEST(a_fresh_login_is_answered_at_once)
{
	struct renew_file f = file_with(301, 1);
	enum renew_program p;
	struct renew r;

	renew_init(&r, PROV_ANTHROPIC);
	CHECK_INT(renew_ask(&r, &f, 1, 0, WALL), ==, RENEW_ANSWER);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_NO_ACT);
}

TEST(one_program_serves_all_who_wait_and_the_damper_stops_the_next)
{
	struct renew_file f = file_with(300, 1);
	enum renew_program p = RENEW_NOTHING;
	bool pending;
	struct renew r;

	renew_init(&r, PROV_ANTHROPIC);
	CHECK_INT(renew_ask(&r, &f, 1, 0, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_LOCK);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_NO_ACT);
	renew_lock(&r, false, -1, &f, 0, WALL);
	CHECK_INT(renew_act(&r, &f, 49, WALL, &p), ==, RENEW_NO_ACT);
	CHECK_INT(renew_wake(&r), ==, 50);
	CHECK_INT(renew_act(&r, &f, 50, WALL, &p), ==, RENEW_LOCK);
	renew_lock(&r, true, -1, &f, 50, WALL);
	CHECK_INT(renew_act(&r, &f, 50, WALL, &p), ==, RENEW_RUN);
	CHECK_INT(p, ==, RENEW_CLAUDE_STATUS);
	CHECK_INT(renew_ask(&r, &f, 2, 60, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 60, WALL, &p), ==, RENEW_NO_ACT);
	renew_ended(&r, &f, WALL); /* did not help */
	CHECK_INT(renew_act(&r, &f, 70, WALL, &p), ==, RENEW_RUN);
	CHECK_INT(p, ==, RENEW_CLAUDE_PROMPT);
	CHECK_INT(renew_next_done(&r, 70, &pending), ==, 0);
	f = file_with(28800, 2);
	renew_ended(&r, &f, WALL);
	CHECK_INT(renew_act(&r, &f, 80, WALL, &p), ==, RENEW_UNLOCK);
	CHECK_INT(renew_next_done(&r, 80, &pending), ==, 1);
	CHECK_INT(renew_next_done(&r, 80, &pending), ==, 2);
	CHECK(!pending);
	f = file_with(100, 3);
	CHECK_INT(renew_ask(&r, &f, 3, 90, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 90, WALL, &p), ==, RENEW_LOCK);
	renew_lock(&r, true, 29999, &f, 90, WALL);
	CHECK_INT(renew_act(&r, &f, 90, WALL, &p), ==, RENEW_UNLOCK);
	CHECK_INT(renew_next_done(&r, 90, &pending), ==, 3);
	CHECK_INT(renew_ask(&r, &f, 4, 100, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 100, WALL, &p), ==, RENEW_LOCK);
	renew_lock(&r, true, 30000, &f, 100, WALL);
	CHECK_INT(renew_act(&r, &f, 100, WALL, &p), ==, RENEW_RUN);
}

TEST(the_deadline_lets_the_program_run_on_and_the_next_joins)
{
	struct renew_file f = file_with(-5, 1);
	enum renew_program p;
	bool pending = false;
	struct renew r;

	renew_init(&r, PROV_OPENAI);
	CHECK_INT(renew_ask(&r, &f, 1, 0, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_LOCK);
	renew_lock(&r, true, -1, &f, 0, WALL);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_RUN);
	CHECK_INT(p, ==, RENEW_CODEX_SERVER);
	CHECK_INT(renew_next_done(&r, 14999, &pending), ==, 0);
	CHECK_INT(renew_next_done(&r, 15000, &pending), ==, 1);
	CHECK(pending);
	CHECK_INT(renew_ask(&r, &f, 2, 16000, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_act(&r, &f, 16000, WALL, &p), ==, RENEW_NO_ACT);
	f = file_with(28800, 2);
	renew_ended(&r, &f, WALL);
	CHECK_INT(renew_next_done(&r, 16001, &pending), ==, 2);
	CHECK(!pending);
}

TEST(another_session_that_renewed_makes_the_lock_unneeded)
{
	struct renew_file f = file_with(100, 1);
	enum renew_program p;
	bool pending;
	struct renew r;

	renew_init(&r, PROV_ANTHROPIC);
	(void)renew_ask(&r, &f, 1, 0, WALL);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_LOCK);
	renew_lock(&r, false, -1, &f, 0, WALL);
	f = file_with(28800, 2);
	CHECK_INT(renew_act(&r, &f, 50, WALL, &p), ==, RENEW_NO_ACT);
	CHECK_INT(renew_next_done(&r, 50, &pending), ==, 1);
}

TEST(the_file_is_looked_at_again_under_the_lock)
{
	struct renew_file f = file_with(100, 1);
	enum renew_program p;
	bool pending;
	struct renew r;

	renew_init(&r, PROV_ANTHROPIC);
	(void)renew_ask(&r, &f, 1, 0, WALL);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_LOCK);
	f = file_with(28800, 2);
	renew_lock(&r, true, -1, &f, 0, WALL);
	CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_UNLOCK);
	CHECK_INT(renew_next_done(&r, 0, &pending), ==, 1);
}

TEST(a_rejected_token_takes_the_program_that_can_help)
{
	struct renew_file f = file_with(9000, 7);
	struct token_values v;
	enum renew_program p;
	struct renew r;

	for (enum prov prov = PROV_ANTHROPIC; prov <= PROV_OPENAI; prov++) {
		renew_init(&r, prov);
		renew_rejected(&r, 7);
		CHECK_INT(renew_ask(&r, &f, 1, 0, WALL), ==, RENEW_WAITS);
		(void)renew_act(&r, &f, 0, WALL, &p);
		renew_lock(&r, true, -1, &f, 0, WALL);
		CHECK_INT(renew_act(&r, &f, 0, WALL, &p), ==, RENEW_RUN);
		CHECK_INT(p, ==, prov == PROV_ANTHROPIC ? RENEW_CLAUDE_PROMPT : RENEW_CODEX_SERVER_RENEW);
		CHECK_INT(renew_values(&r, &f, NULL, PH_CLAUDE_R, WALL, &v), ==, TOKEN_LACK_REJECTED);
	}
}

TEST(too_many_who_wait_or_ask_are_refused)
{
	struct renew_file f = file_with(100, 1), fresh = file_with(9000, 1);
	struct renew r;

	renew_init(&r, PROV_ANTHROPIC);
	for (uint32_t i = 1; i <= RENEW_WAITING_MAX; i++)
		CHECK_INT(renew_ask(&r, &f, i, 0, WALL), ==, RENEW_WAITS);
	CHECK_INT(renew_ask(&r, &f, 99, 0, WALL), ==, RENEW_LIMIT);
	for (uint32_t i = RENEW_WAITING_MAX + 1; i < RENEW_ASKED_MAX; i++)
		CHECK_INT(renew_ask(&r, &fresh, i, 0, WALL), ==, RENEW_ANSWER);
	CHECK_INT(renew_ask(&r, &fresh, 99, 59999, WALL), ==, RENEW_LIMIT);
	CHECK_INT(renew_ask(&r, &fresh, 99, 60000, WALL), ==, RENEW_ANSWER);
}

TEST(the_truth_table)
{
	static const struct {
		int64_t left;
		enum ph_kind kind;
		enum token_lack want;
	} rows[] = {
		{ 301, PH_CLAUDE_R, TOKEN_LACK_NONE },	 { 300, PH_CLAUDE_R, TOKEN_LACK_SOON },
		{ 300, PH_CODEX_R, TOKEN_LACK_SOON },	 { 31, PH_OPENCODE_R, TOKEN_LACK_NONE },
		{ 30, PH_OPENCODE_R, TOKEN_LACK_SOON },	 { 0, PH_CODEX_R, TOKEN_LACK_EXPIRED },
		{ -9, PH_CLAUDE_R, TOKEN_LACK_EXPIRED },
	};
	struct login_info info = { .scopes = "user:inference" };
	struct renew_file f;
	struct token_values v;
	struct renew r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		renew_init(&r, rows[i].kind == PH_CLAUDE_R ? PROV_ANTHROPIC : PROV_OPENAI);
		f = file_with(rows[i].left, 1);
		CHECK_INT(renew_values(&r, &f, &info, rows[i].kind, WALL, &v), ==, rows[i].want);
		if (rows[i].want == TOKEN_LACK_NONE)
			CHECK_INT(v.expires_in, ==, rows[i].left);
	}
	f = (struct renew_file){ .generation = 1 };
	CHECK_INT(renew_values(&r, &f, &info, PH_CLAUDE_R, WALL, &v), ==, TOKEN_LACK_UNKNOWN);
	renew_init(&r, PROV_OPENAI);
	CHECK_INT(renew_values(&r, &f, &info, PH_CODEX_R, WALL, &v), ==, TOKEN_LACK_NONE);
	CHECK_INT(v.expires_in, ==, 3600);
	f.state = RENEW_FILE_KEY;
	CHECK_INT(renew_values(&r, &f, &info, PH_CODEX_R, WALL, &v), ==, TOKEN_LACK_KEY);
	f.state = RENEW_FILE_BAD;
	CHECK_INT(renew_values(&r, &f, &info, PH_CODEX_R, WALL, &v), ==, TOKEN_LACK_FILE);
	f.state = RENEW_FILE_SIGNED_OUT;
	CHECK_INT(renew_values(&r, &f, &info, PH_CODEX_R, WALL, &v), ==, TOKEN_LACK_LOGIN);
}
