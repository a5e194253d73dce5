/* What the guest makes of files of the state: JSON and TOML edited where they lie, logins, blocks. The rules travel as they
 * do from the launcher (cli/state_rules.h) to the guest (guest/config.h). */
#include "test.h"

#include <errno.h>

#include "cli/state_rules.h"
#include "guest/config.h"
#include "guest/jedit.h"
#include "guest/merge.h"
#include "guest/toml.h"

#define OLD "avm-claude-a-abcdefghijkmnpqrstuvwxyz23"
#define NEW "avm-claude-a-zzzzzzzzzzzzzzzzzzzzzzzzzz"
#define TAIL_OLD "abcdefghijkmnpqrstuv"
#define TAIL_NEW "23456789abcdefghijkm"

/* One file through the codec; its content afterwards, or NULL when it is not of the form. */
struct file {
	struct buf records;
	struct state_rules w;
	char text[4096];
	int mask;
};

static void begin(struct file *f, enum guestcfg_form form)
{
	buf_init(&f->records, 1 << 20);
	f->w = (struct state_rules){ .out = &f->records };
	state_begin(&f->w, "claude/x.json", form);
}

static const char *end(struct file *f, const char *before)
{
	struct err err = { "" };
	struct config c;
	struct buf text;

	state_end(&f->w);
	CHECK(!f->w.failed);
	if (config_parse(buf_span(&f->records), &c, &err) < 0)
		fail_msg("%s", err.text);
	CHECK_INT(c.n_states, ==, 1);
	buf_init(&text, sizeof(f->text) - 1);
	CHECK_INT(buf_put(&text, before, strlen(before)), ==, 0);
	f->mask = merge(&c.states[0], &text);
	if (text.n > 0)
		memcpy(f->text, buf_span(&text).p, text.n);
	f->text[text.n] = '\0';
	buf_done(&text);
	config_done(&c);
	buf_done(&f->records);
	return f->mask < 0 ? NULL : f->text;
}

static const char *one(struct file *f, const char *before, enum guestcfg_rule kind, const char *const *keys, const char *value)
{
	begin(f, kind == GC_RULE_TABLE ? GC_FORM_TOML : GC_FORM_JSON);
	state_rule(&f->w, kind, keys, value);
	return end(f, before);
}

TEST(a_member_is_set_and_all_else_stays_byte_for_byte)
{
	struct file f;

	CHECK_STR(one(&f, "{ \"b\" : 1.50e1,\t\"a\":[ 1 ,{}] }\n", GC_RULE_SET, STATE_KEYS("b"), "true"),
		  "{ \"b\" : true,\t\"a\":[ 1 ,{}] }\n");
	CHECK_STR(one(&f, "{\n  \"b\": 1\n}\n", GC_RULE_SET, STATE_KEYS("c"), "\"x\""), "{\n  \"b\": 1,\n  \"c\":\"x\"\n}\n");
	CHECK_STR(one(&f, "{\"b\":1}", GC_RULE_SET, STATE_KEYS("c"), "2"), "{\"b\":1,\"c\":2}");
	CHECK_STR(one(&f, "", GC_RULE_SET, STATE_KEYS("a", "b"), "2"), "{\"a\":{\"b\":2}\n}\n");
	CHECK_STR(one(&f, "{}", GC_RULE_SET, STATE_KEYS("a", "b", "c"), "[]"), "{\"a\":{\"b\":{\"c\":[]}}}");
	CHECK_STR(one(&f, "{\"a\":{\"x\":\"\\ud83d\",\"x\":2}}", GC_RULE_SET, STATE_KEYS("a", "x"), "3"),
		  "{\"a\":{\"x\":\"\\ud83d\",\"x\":3}}");
}

TEST(a_wrong_type_on_the_way_is_replaced)
{
	struct file f;

	CHECK_STR(one(&f, "{\"projects\": 5, \"x\": 1}", GC_RULE_SET, STATE_KEYS("projects", "/p \"q\"", "t"), "true"),
		  "{\"projects\": {\"/p \\\"q\\\"\":{\"t\":true}}, \"x\": 1}");
	CHECK_STR(one(&f, "{\"a\":[{\"b\":1}]}", GC_RULE_SET, STATE_KEYS("a", "b"), "2"), "{\"a\":{\"b\":2}}");
}

TEST(names_are_compared_after_their_escapes)
{
	struct file f;

	CHECK_STR(one(&f, "{\"\\u0061\\/\\ud83d\\ude00\\u00e4\":1}", GC_RULE_SET, STATE_KEYS("a/\xf0\x9f\x98\x80\xc3\xa4"), "2"),
		  "{\"\\u0061\\/\\ud83d\\ude00\\u00e4\":2}");
	CHECK_STR(one(&f, "{\"ab\":1}", GC_RULE_DEFAULT, STATE_KEYS("a"), "2"), "{\"ab\":1,\"a\":2}");
	CHECK_STR(one(&f, "{\"a\":1}", GC_RULE_DEFAULT, STATE_KEYS("ab"), "2"), "{\"a\":1,\"ab\":2}");
}

TEST(a_default_does_not_touch_what_is_there)
{
	struct file f;

	CHECK_STR(one(&f, "{\"a\":null}", GC_RULE_DEFAULT, STATE_KEYS("a"), "2"), "{\"a\":null}");
	CHECK_STR(one(&f, "{\"a\":{}}", GC_RULE_DEFAULT, STATE_KEYS("a", "b"), "2"), "{\"a\":{\"b\":2}}");
}

TEST(members_are_taken_out_with_their_commas)
{
	struct file f;

	CHECK_STR(one(&f, "{\"a\":1,\"b\":2,\"c\":3}", GC_RULE_DROP, STATE_KEYS("a"), NULL), "{\"b\":2,\"c\":3}");
	CHECK_STR(one(&f, "{\"a\":1,\"b\":2,\"c\":3}", GC_RULE_DROP, STATE_KEYS("b"), NULL), "{\"a\":1,\"c\":3}");
	CHECK_STR(one(&f, "{\"a\":1,\"b\":2,\"c\":3}", GC_RULE_DROP, STATE_KEYS("c"), NULL), "{\"a\":1,\"b\":2}");
	CHECK_STR(one(&f, "{\"a\":1,\"a\":2,\"b\":3,\"a\":4}", GC_RULE_DROP, STATE_KEYS("a"), NULL), "{\"b\":3}");
	CHECK_STR(one(&f, "{\"b\":3,\"a\":1,\"a\":2}", GC_RULE_DROP, STATE_KEYS("a"), NULL), "{\"b\":3}");
	CHECK_STR(one(&f, "{\"a\":1}", GC_RULE_DROP, STATE_KEYS("a"), NULL), "");
	CHECK_STR(one(&f, "{\"x\":1,\"m\":{\"c\":{\"a\":1}}}", GC_RULE_DROP, STATE_KEYS("m", "c", "a"), NULL), "{\"x\":1}");
	CHECK_STR(one(&f, "{\"m\":{\"c\":1,\"d\":2}}", GC_RULE_DROP, STATE_KEYS("m", "c"), NULL), "{\"m\":{\"d\":2}}");
	CHECK_STR(one(&f, "{\"m\":{}}", GC_RULE_DROP, STATE_KEYS("m", "c"), NULL), "{\"m\":{}}");
	CHECK_STR(one(&f, "{\"model\":\"a\"}", GC_RULE_DROP, STATE_KEYS("model"), "\"b\""), "{\"model\":\"a\"}");
	CHECK_STR(one(&f, "{\"model\":\"b\"}", GC_RULE_DROP, STATE_KEYS("model"), "\"b\""), "");
}

/* The image may have been another one; Claude Code writes the file anew, with its own blanks and a "type". */
TEST(what_begins_a_program_that_is_gone_goes_and_the_users_own_stays)
{
	static const char *const key[] = { "m", "c", NULL };
	static const char *const kept[] = { "{\"m\":{\"c\":{\"command\":\"/bin/other\",\"args\":[\"/bin/ours\"]}}}", "{\"m\":{\"c\":\"/bin/ours\"}}",
					    "{\"m\":{\"c\":{\"command\":[\"/bin/ours\"]}}}", "{\"m\":{\"d\":{\"command\":\"/bin/ours\"}}}", "{\"m\":[]}" };
	struct file f;

	begin(&f, GC_FORM_JSON);
	state_rule_with(&f.w, "/bin/ours", GC_RULE_ORPHAN, key, NULL);
	CHECK_STR(end(&f, "{\"x\":1,\n \"m\": {\n  \"c\": { \"type\": \"stdio\", \"command\": \"/bin/ours\" },\n  \"d\": {}\n }\n}\n"),
		  "{\"x\":1,\n \"m\": {\n  \n  \"d\": {}\n }\n}\n");
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
		begin(&f, GC_FORM_JSON);
		state_rule_with(&f.w, "/bin/ours", GC_RULE_ORPHAN, key, NULL);
		CHECK_STR(end(&f, kept[i]), kept[i]);
	}
}

TEST(what_is_no_json_object_is_refused)
{
	static const char *const bad[] = { "[]", "1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\":01}", "{\"a\":1}x",
					   "{\"a\":\"\\x\"}", "{\"a\":\"\n\"}", "{\"a\":tru}", "// c\n{}", "{\"a\":\"\\u12\"}",
					   "{\"a\":\"\xff\"}", " ", "{\"a\":1 \"b\":2}", "{'a':1}", "\xef\xbb\xbf{}" };
	struct file f;
	char deep[1000];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (one(&f, bad[i], GC_RULE_SET, STATE_KEYS("a"), "1"))
			fail_msg("taken: %s", bad[i]);
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "{\"a\":", 5);
	deep[sizeof(deep) - 1] = '\0';
	CHECK(!one(&f, deep, GC_RULE_SET, STATE_KEYS("a"), "1"));
	CHECK_STR(f.text, deep);
}

TEST(nesting_has_an_end_before_the_stack_has)
{
	static char deep[1 << 21];
	size_t n[] = { JEDIT_DEPTH - 1, JEDIT_DEPTH, 1 << 20 };

	for (size_t i = 0; i < sizeof(n) / sizeof(*n); i++) {
		size_t half = n[i] < (1 << 20) - 16 ? n[i] : (1 << 20) - 16;

		memcpy(deep, "{\"a\":", 5);
		memset(deep + 5, '[', half);
		memset(deep + 5 + half, ']', half);
		memcpy(deep + 5 + 2 * half, "}", 2);
		CHECK_INT(jedit_check(span_str(deep), false), ==, i == 0 ? 0 : -EBADMSG);
	}
}

TEST(comments_stay_where_a_program_writes_them)
{
	struct file f;

	begin(&f, GC_FORM_JSONC);
	state_rule(&f.w, GC_RULE_SET, STATE_KEYS("b"), "2");
	state_rule(&f.w, GC_RULE_DROP, STATE_KEYS("a"), NULL);
	state_rule(&f.w, GC_RULE_SET, STATE_KEYS("c"), "[\"/\"]");
	CHECK_STR(end(&f, "// written by the program\n{ /* x */\n  \"a\": 1, // one\n  \"b\": 1,\n}\n// end"),
		  "// written by the program\n{ /* x */\n   // one\n  \"b\": 2,\"c\":[\"/\"],\n}\n// end");
}

TEST(a_login_of_ours_is_replaced_and_others_are_kept)
{
	static const char login[] = "{\"claudeAiOauth\":{\"accessToken\":\"" NEW "\"}}";
	static const char *const key[] = { "claudeAiOauth", NULL };
	struct file f;

	CHECK_STR(one(&f, "", GC_RULE_LOGIN, key, login), "{\"claudeAiOauth\":{\"accessToken\":\"" NEW "\"}\n}\n");
	CHECK_STR(one(&f, "{\"mcpOAuth\":{\"key\":\"k\"},\"claudeAiOauth\":{\"accessToken\":\"" OLD "\",\"x\":1}}", GC_RULE_LOGIN, key, login),
		  "{\"mcpOAuth\":{\"key\":\"k\"},\"claudeAiOauth\":{\"accessToken\":\"" NEW "\"}}");
	CHECK_INT(f.mask, ==, 0);
	/* made empty by the program: none */
	CHECK_STR(one(&f, "{\"claudeAiOauth\":{\"accessToken\":\"\",\"refreshToken\":\"\"}}", GC_RULE_LOGIN, key, login), login);
	CHECK_STR(one(&f, "{\"claudeAiOauth\":{\"accessToken\":\"sk-own\"}}", GC_RULE_LOGIN, key, login),
		  "{\"claudeAiOauth\":{\"accessToken\":\"sk-own\"}}");
	CHECK_INT(f.mask, ==, MERGE_FOREIGN);
	CHECK_STR(one(&f, "{\"claudeAiOauth\":{\"accessToken\":\"" OLD "\"},\"a\":1}", GC_RULE_LOGIN, key, NULL), "{\"a\":1}");
	CHECK_STR(one(&f, "{\"claudeAiOauth\":{\"accessToken\":\"\"}}", GC_RULE_LOGIN, key, NULL), "{\"claudeAiOauth\":{\"accessToken\":\"\"}}");
	CHECK_STR(one(&f, "{\"claudeAiOauth\":{\"accessToken\":\"sk-own\"}}", GC_RULE_LOGIN, key, NULL),
		  "{\"claudeAiOauth\":{\"accessToken\":\"sk-own\"}}");
}

TEST(a_login_of_several_members_goes_and_comes_as_one)
{
	static const char *const keys[] = { "auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh", NULL };
	static const char ours[] = "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"avm-codex-key-abcdefghijkmnpqrstuvwxyz23\"}";
	struct file f;

	CHECK_STR(one(&f, "{\"auth_mode\":\"chatgpt\",\"OPENAI_API_KEY\":null,\"tokens\":{\"access_token\":\"" OLD
			  "\"},\"last_refresh\":\"t\",\"z\":0}", GC_RULE_LOGIN, keys, ours),
		  "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"avm-codex-key-abcdefghijkmnpqrstuvwxyz23\",\"z\":0}");
	CHECK_STR(one(&f, ours, GC_RULE_LOGIN, keys, NULL), "");
	CHECK_STR(one(&f, "", GC_RULE_LOGIN, keys, NULL), "");
	CHECK_STR(one(&f, "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-mine\"}", GC_RULE_LOGIN, keys, ours),
		  "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-mine\"}");
	CHECK_INT(f.mask, ==, MERGE_FOREIGN);
	CHECK_STR(one(&f, "{\"OPENAI_API_KEY\":null,\"tokens\":{\"access_token\":\"real\"}}", GC_RULE_LOGIN, keys, NULL),
		  "{\"OPENAI_API_KEY\":null,\"tokens\":{\"access_token\":\"real\"}}");
}

TEST(tails_of_older_sessions_go)
{
	struct file f;

	CHECK_STR(one(&f, "{\"c\":{\"approved\":[\"" TAIL_OLD "\", \"ABCDEFGHIJKLMNOPQRST\" ,7],\"rejected\":[]}}", GC_RULE_TAIL,
		      STATE_KEYS("c", "approved"), "\"" TAIL_NEW "\""),
		  "{\"c\":{\"approved\":[\"ABCDEFGHIJKLMNOPQRST\",7,\"" TAIL_NEW "\"],\"rejected\":[]}}");
	CHECK_STR(one(&f, "{\"c\":{\"approved\":5}}", GC_RULE_TAIL, STATE_KEYS("c", "approved"), "\"" TAIL_NEW "\""),
		  "{\"c\":{\"approved\":[\"" TAIL_NEW "\"]}}");
	CHECK_STR(one(&f, "{\"c\":{\"approved\":[\"" TAIL_OLD "\"]}}", GC_RULE_TAIL, STATE_KEYS("c", "approved"), NULL),
		  "{\"c\":{\"approved\":[]}}");
	CHECK_STR(one(&f, "{\"x\":1}", GC_RULE_TAIL, STATE_KEYS("c", "approved"), NULL), "{\"x\":1}");
}

TEST(a_table_is_added_to_toml_only_where_it_is_missing)
{
	static const char *const keys[] = { "projects", "/srv/my \"p\"", NULL };
	static const char *const there[] = {
		"[projects.\"/srv/my \\\"p\\\"\"]\n", "[ projects . '/srv/my \"p\"' ] # c\ntrust_level = \"untrusted\"\n",
		"projects = { }\n", "[projects]\n\"/srv/my \\\"p\\\"\".trust_level = \"x\"\n", "projects.\"/srv/my \\u0022p\\\"\".a = 1\n",
		"x = [ # [\n \"]\", ]\n[[projects]]\n", "[projects.'/srv/my \"p\"'.more]\n",
	};
	static const char *const missing[] = { "", "a = 1\n", "a = 1", "[projects.\"/srv/other\"]\n",
					       "a = '''\n[projects.\"/srv/my \\\"p\\\"\"]\n'''\n", "b = \"\"\"x\\\"\"\"\"\"\n",
					       "[projects]\n\"/srv/o\" = {a = \"}\"}\n", "d = 1979-05-27T07:32:00Z\n# c" };
	static const char *const bad[] = { "a = \"\"\"x", "a = [1", "[a", "a", "a = \"x\nb = 1", "a = 1 ]\n", "= 1\n", "[a]b\n", "\xff = 1\n" };
	struct file f;

	for (size_t i = 0; i < sizeof(there) / sizeof(*there); i++) {
		const char *got = one(&f, there[i], GC_RULE_TABLE, keys, "t = 1\n");

		if (!got || strcmp(got, there[i]) != 0)
			fail_msg("%s became %s", there[i], got ? got : "nothing");
	}
	for (size_t i = 0; i < sizeof(missing) / sizeof(*missing); i++) {
		const char *got = one(&f, missing[i], GC_RULE_TABLE, keys, "t = 1\n"), *last = "[projects.\"/srv/my \\u0022p\\u0022\"]\nt = 1\n";
		size_t n = got ? strlen(got) : 0;

		if (n < strlen(last) || strcmp(got + n - strlen(last), last) != 0 || strncmp(got, missing[i], strlen(missing[i])) != 0)
			fail_msg("%s became %s", missing[i], got ? got : "nothing");
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (one(&f, bad[i], GC_RULE_TABLE, keys, "t = 1\n"))
			fail_msg("taken: %s", bad[i]);
}

TEST(a_new_toml_file_begins_with_its_content)
{
	struct file f;

	begin(&f, GC_FORM_TOML);
	state_content(&f.w, "a = 1\n");
	state_rule(&f.w, GC_RULE_TABLE, STATE_KEYS("p", "x"), "b = 2\n");
	CHECK_STR(end(&f, ""), "a = 1\n\n[p.\"x\"]\nb = 2\n");
}

static const char *block(struct file *f, const char *content, const char *before)
{
	begin(f, GC_FORM_BLOCK);
	state_content(&f->w, content);
	return end(f, before);
}

TEST(a_block_is_replaced_between_its_lines)
{
	struct file f;

	CHECK_STR(block(&f, "x\n", ""), MERGE_BEGIN "\nx\n" MERGE_END "\n");
	CHECK_STR(block(&f, "x\n", "mine"), "mine\n\n" MERGE_BEGIN "\nx\n" MERGE_END "\n");
	CHECK_STR(block(&f, "x\n", "a\n" MERGE_BEGIN "\nold\n" MERGE_END "\nb\n"), "a\n" MERGE_BEGIN "\nx\n" MERGE_END "\nb\n");
	CHECK_STR(block(&f, "", "a\n" MERGE_BEGIN "\nold\n" MERGE_END "\nb\n"), "a\nb\n");
	CHECK_STR(block(&f, "x\n", "a\n" MERGE_BEGIN "\nb\n"), "a\n" MERGE_BEGIN "\nx\n" MERGE_END "\nb\n");
	CHECK_STR(block(&f, "x\n", "a " MERGE_BEGIN "\n"), "a " MERGE_BEGIN "\n\n" MERGE_BEGIN "\nx\n" MERGE_END "\n");
	CHECK(!block(&f, "x\n", "\xff\n"));
}

TEST(the_guest_takes_only_rules_that_are_whole)
{
	static const struct {
		const char *path, *key, *value;
		enum guestcfg_form form;
		enum guestcfg_rule rule;
	} bad[] = {
		{ "a", "k", "1,\"x\":2", GC_FORM_JSON, GC_RULE_SET }, { "a", "k", " 1", GC_FORM_JSON, GC_RULE_SET },
		{ "a", "k", NULL, GC_FORM_JSON, GC_RULE_SET },	      { "a", "k", "[]", GC_FORM_JSON, GC_RULE_LOGIN },
		{ "a", "k", "1", GC_FORM_JSON, GC_RULE_TAIL },	      { "a", "k", "1", GC_FORM_TEXT, GC_RULE_SET },
		{ "a", "k", "x=1", GC_FORM_TOML, GC_RULE_TABLE },     { "a", "k", "1", GC_FORM_TOML, GC_RULE_SET },
		{ "/a", "k", "1", GC_FORM_JSON, GC_RULE_SET },	      { "../a", "k", "1", GC_FORM_JSON, GC_RULE_SET },
		{ "a/..", "k", "1", GC_FORM_JSON, GC_RULE_SET },      { "a/./c", "k", "1", GC_FORM_JSON, GC_RULE_SET },
		{ "a//c", "k", "1", GC_FORM_JSON, GC_RULE_SET },
		{ "a/", "k", "1", GC_FORM_JSON, GC_RULE_SET },	      { "a", NULL, "1", GC_FORM_JSON, GC_RULE_SET },
		{ "a", "\xff", "1", GC_FORM_JSON, GC_RULE_SET },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct err err = { "" };
		struct state_rules w;
		struct config c;
		struct buf b;

		buf_init(&b, 1 << 16);
		w = (struct state_rules){ .out = &b };
		state_begin(&w, bad[i].path, bad[i].form);
		state_rule(&w, bad[i].rule, STATE_KEYS(bad[i].key), bad[i].value);
		state_end(&w);
		if (config_parse(buf_span(&b), &c, &err) == 0)
			fail_msg("taken: number %zu", i);
		config_done(&c);
		buf_done(&b);
	}
}

TEST(strings_for_json)
{
	char *s = state_json_string("a\"\\\n\xc3\xa4");

	CHECK_STR(s, "\"a\\\"\\\\\\u000a\xc3\xa4\"");
	free(s);
}
