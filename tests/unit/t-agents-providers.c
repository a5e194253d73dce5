#include "test.h"

#include <errno.h>

#include "agents/providers.h"

static struct prov_launch launch = { .lent = PH_ALL };

static bool may(enum ph_kind kind, enum prov_host_id host, enum prov_method method, const char *path)
{
	return prov_allows(&launch, kind, host, method, span_str(path), false, NULL);
}

TEST(a_get_includes_head_and_a_post_neither)
{
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models"));
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_HEAD, "/v1/models"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/models"));
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/messages"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/messages"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_OPTIONS, "/v1/models"));
}

TEST(a_star_is_one_segment_and_two_are_any_rest)
{
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models/m"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models/"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models/a/b"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/modelsx"));
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/messages/a/b"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/messagesx"));
	CHECK(may(PH_COPILOT, HOST_COPILOT, METHOD_POST, "/models/m/policy"));
	CHECK(!may(PH_COPILOT, HOST_COPILOT, METHOD_POST, "/models/a/b/policy"));
	CHECK(may(PH_COPILOT, HOST_GITHUB_API, METHOD_POST, "/graphql"));
	CHECK(!may(PH_COPILOT, HOST_GITHUB_API, METHOD_GET, "/graphql"));
}

TEST(no_pattern_takes_an_encoded_letter)
{
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/%6dodels"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models/%6d"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/messages/x/%6d"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/messages/x/%256d"));
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/v1/models/a%3a1"));
}

TEST(classes_are_off_until_they_are_opened_and_never_stays_never)
{
	enum prov_class class = CLASSES;

	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC_MCP, METHOD_POST, "/v1/mcp/x"));
	CHECK(!prov_allows(&launch, PH_CODEX_A, HOST_CHATGPT, METHOD_POST, span_str("/backend-api/wham/tasks"), false,
			   &class));
	CHECK_INT(class, ==, CLASS_CLOUD);
	CHECK_INT(prov_open(&launch, span_str("anthropic=connectors")), ==, 0);
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC_MCP, METHOD_POST, "/v1/mcp/x"));
	CHECK(!may(PH_CODEX_A, HOST_CHATGPT, METHOD_POST, "/backend-api/ps/mcp"));
	CHECK_INT(prov_open(&launch, span_str("anthropic=never")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("anthropic=default")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("anthropic=cloud")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("opencode=files")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("github=foreign")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("anthropic")), ==, -EINVAL);
	CHECK_INT(prov_open(&launch, span_str("anthropic=files")), ==, 0);
	CHECK_INT(prov_open(&launch, span_str("openai=cloud")), ==, 0);
	CHECK(may(PH_CODEX_A, HOST_CHATGPT, METHOD_POST, "/backend-api/wham/tasks"));
	CHECK(may(PH_ANTHROPIC_KEY, HOST_ANTHROPIC, METHOD_DELETE, "/v1/files/f"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/api/oauth/claude_cli/create_api_key"));
	CHECK(!may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_POST, "/v1/code/github/import-token"));
	CHECK(!prov_foreign(&launch, HOST_ANTHROPIC));
	CHECK_INT(prov_open(&launch, span_str("anthropic=foreign")), ==, 0);
	CHECK(prov_foreign(&launch, HOST_ANTHROPIC) && prov_foreign(&launch, HOST_CLAUDE_TOKEN));
	CHECK(!prov_foreign(&launch, HOST_CHATGPT));
	launch = (struct prov_launch){ .lent = PH_ALL };
}

TEST(a_key_has_its_own_slot_and_paths)
{
	CHECK_INT(prov_slots(PH_ANTHROPIC_KEY, HOST_ANTHROPIC), ==, SLOT_BIT(SLOT_KEY));
	CHECK_INT(prov_slots(PH_CLAUDE_A, HOST_ANTHROPIC), ==, SLOT_BIT(SLOT_BEARER));
	CHECK_INT(prov_slots(PH_CLAUDE_A, HOST_OPENAI), ==, 0);
	CHECK_INT(prov_slots(PH_CLAUDE_R, HOST_CLAUDE_TOKEN), ==, 0);
	CHECK(!may(PH_ANTHROPIC_KEY, HOST_ANTHROPIC, METHOD_GET, "/api/oauth/profile"));
	CHECK(may(PH_CLAUDE_A, HOST_ANTHROPIC, METHOD_GET, "/api/oauth/profile"));
	CHECK(!may(PH_OPENCODE_A, HOST_CHATGPT, METHOD_GET, "/backend-api/wham/usage"));
	CHECK(may(PH_CODEX_A, HOST_CHATGPT, METHOD_GET, "/backend-api/wham/usage"));
}

TEST(websockets_begin_on_their_paths_only)
{
	CHECK(prov_ws(&launch, HOST_CHATGPT, span_str("/backend-api/codex/responses")));
	CHECK(prov_ws(&launch, HOST_COPILOT_BUSINESS, span_str("/responses")));
	CHECK(!prov_ws(&launch, HOST_CHATGPT, span_str("/backend-api/codex/models")));
	CHECK(!prov_ws(&launch, HOST_ANTHROPIC, span_str("/v1/models")));
	CHECK(!may(PH_CODEX_A, HOST_CHATGPT, METHOD_GET, "/backend-api/codex/responses"));
}

TEST(what_is_not_lent_has_no_host)
{
	struct prov_launch one = { .lent = PH_BIT(PH_OPENCODE_A) };

	CHECK(prov_bound(&one, HOST_CHATGPT) && prov_bound(&one, HOST_OPENAI_TOKEN));
	CHECK(!prov_bound(&one, HOST_ANTHROPIC) && !prov_bound(&one, HOST_CLAUDE_TOKEN) && !prov_bound(&one, HOST_ZAI));
	CHECK(!prov_bound(&one, HOSTS));
	CHECK(!prov_allows(&one, PH_CODEX_A, HOST_CHATGPT, METHOD_GET, span_str("/backend-api/codex/models"), false,
			   NULL));
	one.lent = PH_BIT(PH_ANTHROPIC_KEY);
	CHECK(prov_bound(&one, HOST_ANTHROPIC) && !prov_bound(&one, HOST_CLAUDE_TOKEN));
	CHECK(!(prov_verb_kinds("claude") & PH_BIT(PH_ZAI)) && prov_verb_kinds("opencode") & PH_BIT(PH_ZAI));
	CHECK(!(prov_verb_kinds("opencode") & PH_BIT(PH_COPILOT)) && prov_verb_kinds("copilot") & PH_BIT(PH_COPILOT));
	CHECK_INT(prov_verb_kinds("build"), ==, 0);
}

TEST(hosts_are_found_whole_and_in_any_case)
{
	CHECK_INT(prov_host_find(span_str("API.Anthropic.COM")), ==, HOST_ANTHROPIC);
	CHECK_INT(prov_host_find(span_str("api.anthropic.com.")), ==, HOSTS);
	CHECK_INT(prov_host_find(span_str("xapi.anthropic.com")), ==, HOSTS);
	CHECK_INT(prov_host_find(span_str("")), ==, HOSTS);
}
