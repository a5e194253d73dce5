#include "agents/providers.h"

#include <assert.h>
#include <errno.h>
#include <strings.h>

#include "base/macros.h"
#include "proto/http.h"

const char *const prov_str[PROVS] = {
	[PROV_ANTHROPIC] = "anthropic", [PROV_OPENAI] = "openai", [PROV_OPENCODE] = "opencode",
	[PROV_COPILOT] = "copilot",	[PROV_GITHUB] = "github",
};

const char *const prov_class_str[CLASSES] = {
	[CLASS_DEFAULT] = "default", [CLASS_CONNECTORS] = "connectors", [CLASS_FILES] = "files",
	[CLASS_CLOUD] = "cloud",     [CLASS_NEVER] = "never",		[CLASS_FOREIGN] = "foreign",
};

const char *const prov_method_str[METHODS] = {
	[METHOD_GET] = "GET",	  [METHOD_HEAD] = "HEAD",     [METHOD_POST] = "POST",	    [METHOD_PUT] = "PUT",
	[METHOD_PATCH] = "PATCH", [METHOD_DELETE] = "DELETE", [METHOD_OPTIONS] = "OPTIONS",
};

const struct prov_host prov_hosts[HOSTS] = {
	[HOST_ANTHROPIC] = { "api.anthropic.com", PROV_ANTHROPIC, HOST_API, true },
	[HOST_ANTHROPIC_MCP] = { "mcp-proxy.anthropic.com", PROV_ANTHROPIC, HOST_API, true },
	[HOST_CLAUDE_TOKEN] = { "platform.claude.com", PROV_ANTHROPIC, HOST_TOKEN, true },
	[HOST_CONSOLE_TOKEN] = { "console.anthropic.com", PROV_ANTHROPIC, HOST_TOKEN, true },
	[HOST_CHATGPT] = { "chatgpt.com", PROV_OPENAI, HOST_API, true },
	[HOST_OPENAI] = { "api.openai.com", PROV_OPENAI, HOST_API, true },
	[HOST_OPENAI_TOKEN] = { "auth.openai.com", PROV_OPENAI, HOST_TOKEN, true },
	[HOST_ZAI] = { "api.z.ai", PROV_OPENCODE, HOST_API, true },
	[HOST_ZHIPU] = { "open.bigmodel.cn", PROV_OPENCODE, HOST_API, true },
	[HOST_KIMI] = { "api.kimi.com", PROV_OPENCODE, HOST_API, true },
	[HOST_MOONSHOT] = { "api.moonshot.ai", PROV_OPENCODE, HOST_API, true },
	[HOST_MOONSHOT_CN] = { "api.moonshot.cn", PROV_OPENCODE, HOST_API, true },
	[HOST_COPILOT] = { "api.githubcopilot.com", PROV_COPILOT, HOST_API, true },
	[HOST_COPILOT_INDIVIDUAL] = { "api.individual.githubcopilot.com", PROV_COPILOT, HOST_API, true },
	[HOST_COPILOT_BUSINESS] = { "api.business.githubcopilot.com", PROV_COPILOT, HOST_API, true },
	[HOST_COPILOT_ENTERPRISE] = { "api.enterprise.githubcopilot.com", PROV_COPILOT, HOST_API, true },
	[HOST_GITHUB_API] = { "api.github.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_UPLOADS] = { "uploads.github.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_GIT] = { "github.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_CODELOAD] = { "codeload.github.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_RAW] = { "raw.githubusercontent.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_MEDIA] = { "media.githubusercontent.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_GIST] = { "gist.github.com", PROV_GITHUB, HOST_GITHUB, false },
	[HOST_GITHUB_GIST_RAW] = { "gist.githubusercontent.com", PROV_GITHUB, HOST_GITHUB, false },
};

#define GET (1u << METHOD_GET | 1u << METHOD_HEAD)
#define POST (1u << METHOD_POST)
#define ANY (GET | POST | 1u << METHOD_PUT | 1u << METHOD_PATCH | 1u << METHOD_DELETE)
#define WS (1u << METHODS) /* GET with an upgrade */

/* "*" is one segment, a "**" at the end any rest; "/x/" and "/x/more" are rests of "/x/" followed by two stars. */
struct rule {
	unsigned methods;
	enum prov_class class;
	const char *pattern;
};

/* The first rule that matches method and path decides, so what never goes stands first. */
static const struct rule anthropic_login[] = {
	{ ANY, CLASS_NEVER, "/api/oauth/claude_cli/create_api_key" },
	{ ANY, CLASS_NEVER, "/api/oauth/local_pairing" },
	{ ANY, CLASS_NEVER, "/api/oauth/file_upload" },
	{ GET, CLASS_DEFAULT, "/api/oauth/profile" },
	{ GET, CLASS_DEFAULT, "/api/oauth/usage" },
	{ GET, CLASS_DEFAULT, "/api/oauth/validate" },
	{ GET, CLASS_DEFAULT, "/api/oauth/claude_cli/roles" },
	{ GET, CLASS_DEFAULT, "/api/oauth/account/settings" },
	{ GET, CLASS_DEFAULT, "/api/oauth/organizations/**" },
	/* Connectors reach the user's mail, drives and other repositories from the service's side. */
	{ GET, CLASS_CONNECTORS, "/v1/mcp_servers" },
	{ POST, CLASS_CONNECTORS, "/api/artifacts/mcp" },
	{ 0 },
};

static const struct rule anthropic_all[] = {
	{ ANY, CLASS_NEVER, "/v1/organizations/**" },
	{ ANY, CLASS_NEVER, "/v1/vaults/**" },
	{ ANY, CLASS_NEVER, "/v1/code/github/**" },
	{ ANY, CLASS_NEVER, "/v1/code/triggers/**" },
	{ ANY, CLASS_NEVER, "/v1/code/webhook-triggers/**" },
	{ ANY, CLASS_NEVER, "/v1/code/agent-proxy/**" },
	{ ANY, CLASS_NEVER, "/v1/code/runners/**" },
	{ ANY, CLASS_NEVER, "/v1/code/auth/**" },
	{ ANY, CLASS_NEVER, "/v1/environment_providers/**" },
	{ ANY, CLASS_NEVER, "/v1/tunnels/**" },
	{ POST, CLASS_DEFAULT, "/v1/messages" },
	{ POST, CLASS_DEFAULT, "/v1/messages/**" },
	{ GET, CLASS_DEFAULT, "/v1/models" },
	{ GET, CLASS_DEFAULT, "/v1/models/*" },
	{ POST, CLASS_DEFAULT, "/api/event_logging/**" },
	{ POST, CLASS_DEFAULT, "/api/eval/**" },
	{ POST, CLASS_DEFAULT, "/api/claude_code/metrics" },
	{ POST, CLASS_DEFAULT, "/api/claude_cli_feedback" },
	{ GET, CLASS_DEFAULT, "/api/claude_cli/bootstrap" },
	{ GET, CLASS_DEFAULT, "/api/claude_code_penguin_mode" },
	{ GET, CLASS_DEFAULT, "/api/claude_code/settings" },
	{ GET, CLASS_DEFAULT, "/api/claude_code/policy_limits" },
	{ GET, CLASS_DEFAULT, "/api/claude_code/organizations/metrics_enabled" },
	{ GET, CLASS_DEFAULT, "/api/hello" },
	{ GET, CLASS_DEFAULT, "/api/organization/claude_code_first_token_date" },
	{ GET, CLASS_DEFAULT, "/api/directory/**" },
	{ ANY, CLASS_FILES, "/v1/files" },
	{ ANY, CLASS_FILES, "/v1/files/**" },
	{ 0 },
};

static const struct rule anthropic_mcp[] = {
	{ ANY, CLASS_CONNECTORS, "/v1/mcp/**" },
	{ 0 },
};

static const struct rule chatgpt_codex[] = {
	{ ANY, CLASS_NEVER, "/backend-api/me" },
	{ ANY, CLASS_NEVER, "/backend-api/wham/rate-limit-reset-credits/consume" },
	{ POST, CLASS_DEFAULT, "/backend-api/codex/responses/*" },
	{ POST, CLASS_DEFAULT, "/backend-api/codex/memories/**" },
	{ POST, CLASS_DEFAULT, "/backend-api/codex/analytics-events/events" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/accounts/check" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/usage" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/settings/user" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/config/bundle" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/rate-limit-reset-credits" },
	{ GET, CLASS_DEFAULT, "/backend-api/wham/workspace-messages" },
	{ GET, CLASS_DEFAULT, "/backend-api/ps/plugins/installed" },
	{ GET, CLASS_DEFAULT, "/backend-api/ps/plugins/list" },
	{ GET, CLASS_DEFAULT, "/backend-api/ps/plugins/search" },
	{ GET, CLASS_DEFAULT, "/backend-api/ps/plugins/suggested/*" },
	{ GET, CLASS_DEFAULT, "/backend-api/plugins/featured" },
	{ POST, CLASS_DEFAULT, "/backend-api/wham/usage/**" },
	{ ANY, CLASS_CONNECTORS, "/backend-api/ps/mcp" },
	{ ANY, CLASS_CONNECTORS, "/backend-api/connectors/**" },
	{ ANY, CLASS_CONNECTORS, "/backend-api/ps/apps" },
	{ ANY, CLASS_CONNECTORS, "/backend-api/ps/apps/**" },
	{ ANY, CLASS_CLOUD, "/backend-api/wham/tasks" },
	{ ANY, CLASS_CLOUD, "/backend-api/wham/tasks/**" },
	{ ANY, CLASS_CLOUD, "/backend-api/wham/environments" },
	{ ANY, CLASS_CLOUD, "/backend-api/wham/environments/**" },
	{ 0 },
};

static const struct rule chatgpt_all[] = {
	{ POST | WS, CLASS_DEFAULT, "/backend-api/codex/responses" },
	{ GET, CLASS_DEFAULT, "/backend-api/codex/models" },
	{ 0 },
};

static const struct rule openai_key[] = {
	{ ANY, CLASS_NEVER, "/v1/organization/**" },
	{ ANY, CLASS_NEVER, "/v1/projects/**" },
	{ POST | WS, CLASS_DEFAULT, "/v1/responses" },
	{ POST, CLASS_DEFAULT, "/v1/responses/**" },
	{ POST, CLASS_DEFAULT, "/v1/chat/completions" },
	{ POST, CLASS_DEFAULT, "/v1/completions" },
	{ POST, CLASS_DEFAULT, "/v1/embeddings" },
	{ GET, CLASS_DEFAULT, "/v1/models" },
	{ GET, CLASS_DEFAULT, "/v1/models/*" },
	{ ANY, CLASS_FILES, "/v1/files" },
	{ ANY, CLASS_FILES, "/v1/files/**" },
	{ ANY, CLASS_FILES, "/v1/vector_stores/**" },
	{ 0 },
};

static const struct rule paas[] = {
	{ POST, CLASS_DEFAULT, "/api/paas/v4/**" },
	{ POST, CLASS_DEFAULT, "/api/coding/paas/v4/**" },
	{ GET, CLASS_DEFAULT, "/api/paas/v4/models" },
	{ GET, CLASS_DEFAULT, "/api/coding/paas/v4/models" },
	{ 0 },
};

static const struct rule kimi[] = {
	{ POST, CLASS_DEFAULT, "/coding/v1/**" },
	{ GET, CLASS_DEFAULT, "/coding/v1/models" },
	{ 0 },
};

static const struct rule moonshot[] = {
	{ POST, CLASS_DEFAULT, "/v1/chat/completions" },
	{ GET, CLASS_DEFAULT, "/v1/models" },
	{ 0 },
};

static const struct rule copilot[] = {
	{ POST, CLASS_DEFAULT, "/chat/completions" },
	{ POST | WS, CLASS_DEFAULT, "/responses" },
	{ POST, CLASS_DEFAULT, "/v1/messages" },
	{ POST, CLASS_DEFAULT, "/embeddings" },
	{ POST, CLASS_DEFAULT, "/models/session" },
	{ POST, CLASS_DEFAULT, "/models/session/intent" },
	{ POST, CLASS_DEFAULT, "/models/*/policy" },
	{ GET, CLASS_DEFAULT, "/models" },
	{ GET, CLASS_DEFAULT, "/models/*" },
	{ GET, CLASS_DEFAULT, "/policy" },
	{ GET, CLASS_DEFAULT, "/_ping" },
	{ GET, CLASS_DEFAULT, "/agents" },
	{ 0 },
};

static const struct rule copilot_github[] = {
	{ GET, CLASS_DEFAULT, "/copilot_internal/user" },
	{ GET, CLASS_DEFAULT, "/copilot_internal/managed_settings" },
	{ GET, CLASS_DEFAULT, "/copilot_internal/team_customizations" },
	{ GET, CLASS_DEFAULT, "/copilot_internal/content_exclusion" },
	{ POST, CLASS_DEFAULT, "/graphql" }, /* of one document alone, which gate reads */
	{ 0 },
};

/* The shapes that GitHub's rules may give the user's login to: a frame around them, which vault checks again. Which
 * repository, ref and object it is for was judged by the rules, over a body that vault has not. */
static const struct rule github_api[] = {
	{ GET, CLASS_DEFAULT, "/user" },
	{ GET, CLASS_DEFAULT, "/rate_limit" },
	{ GET, CLASS_DEFAULT, "/search/*" },
	{ POST, CLASS_DEFAULT, "/graphql" },
	{ ANY, CLASS_DEFAULT, "/repos/*/*" },
	{ ANY, CLASS_DEFAULT, "/repos/*/*/**" },
	{ ANY, CLASS_DEFAULT, "/repositories/*" },
	{ ANY, CLASS_DEFAULT, "/repositories/*/**" },
	{ 0 },
};

static const struct rule github_uploads[] = {
	{ POST, CLASS_DEFAULT, "/repos/*/*/releases/*/assets" },
	{ POST, CLASS_DEFAULT, "/repositories/*/releases/*/assets" },
	{ 0 },
};

static const struct rule github_git[] = {
	{ GET, CLASS_DEFAULT, "/*/*/info/refs" },
	{ POST, CLASS_DEFAULT, "/*/*/git-upload-pack" },
	{ POST, CLASS_DEFAULT, "/*/*/git-receive-pack" },
	{ GET | POST, CLASS_DEFAULT, "/*/*/info/lfs/**" },
	{ GET, CLASS_DEFAULT, "/*/*/archive/**" },
	{ GET, CLASS_DEFAULT, "/*/*/zipball/**" },
	{ GET, CLASS_DEFAULT, "/*/*/tarball/**" },
	{ GET, CLASS_DEFAULT, "/*/*/raw/**" },
	{ 0 },
};

static const struct rule github_files[] = {
	{ GET, CLASS_DEFAULT, "/*/*/**" },
	{ 0 },
};

#define B SLOT_BIT(SLOT_BEARER)
#define T SLOT_BIT(SLOT_TOKEN)
#define A SLOT_BIT(SLOT_BASIC)
#define X SLOT_BIT(SLOT_KEY)
#define ANTHROPIC_LOGINS (PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_ANTHROPIC_OAT) | PH_BIT(PH_ANTHROPIC_AT))
#define AT(host) (1u << (host))
#define COPILOT_HOSTS \
	(AT(HOST_COPILOT) | AT(HOST_COPILOT_INDIVIDUAL) | AT(HOST_COPILOT_BUSINESS) | AT(HOST_COPILOT_ENTERPRISE))

static_assert(HOSTS <= 32, "hosts are bits of a word");

static const struct row {
	uint32_t kinds; /* PH_BIT */
	uint32_t hosts; /* AT() */
	unsigned slots;
	const struct rule *rules[2]; /* one after the other */
} rows[] = {
	{ ANTHROPIC_LOGINS, AT(HOST_ANTHROPIC), B, { anthropic_login, anthropic_all } },
	{ ANTHROPIC_LOGINS, AT(HOST_ANTHROPIC_MCP), B, { anthropic_mcp } },
	{ PH_BIT(PH_ANTHROPIC_KEY), AT(HOST_ANTHROPIC), X, { anthropic_all } },
	{ PH_BIT(PH_CODEX_A), AT(HOST_CHATGPT), B, { chatgpt_codex, chatgpt_all } },
	{ PH_BIT(PH_OPENCODE_A), AT(HOST_CHATGPT), B, { chatgpt_all } },
	{ PH_BIT(PH_OPENAI_KEY) | PH_BIT(PH_CODEX_KEY), AT(HOST_OPENAI), B, { openai_key } },
	{ PH_BIT(PH_ZAI) | PH_BIT(PH_ZAI_CP), AT(HOST_ZAI), B, { paas } },
	{ PH_BIT(PH_ZHIPU) | PH_BIT(PH_ZHIPU_CP), AT(HOST_ZHIPU), B, { paas } },
	{ PH_BIT(PH_KIMI), AT(HOST_KIMI), X | B, { kimi } },
	{ PH_BIT(PH_MOONSHOT), AT(HOST_MOONSHOT), B, { moonshot } },
	{ PH_BIT(PH_MOONSHOT_CN), AT(HOST_MOONSHOT_CN), B, { moonshot } },
	{ PH_BIT(PH_COPILOT), COPILOT_HOSTS, B, { copilot } },
	{ PH_BIT(PH_COPILOT), AT(HOST_GITHUB_API), B | T, { copilot_github } },
	{ PH_BIT(PH_GH), AT(HOST_GITHUB_API), A | B | T, { github_api } },
	{ PH_BIT(PH_GH), AT(HOST_GITHUB_UPLOADS), A | B | T, { github_uploads } },
	{ PH_BIT(PH_GH), AT(HOST_GITHUB_GIT), A | B | T, { github_git } },
	{ PH_BIT(PH_GH), AT(HOST_GITHUB_CODELOAD) | AT(HOST_GITHUB_RAW) | AT(HOST_GITHUB_MEDIA), A | B | T, { github_files } },
	/* Taken off there. */
	{ PH_BIT(PH_GH), AT(HOST_GITHUB_GIST) | AT(HOST_GITHUB_GIST_RAW), A | B | T, { NULL } },
};

/* Token endpoints follow the logins that have a refresh token there. */
static const struct {
	uint32_t kinds, hosts;
} endpoints[] = {
	{ PH_BIT(PH_CLAUDE_A), AT(HOST_CLAUDE_TOKEN) | AT(HOST_CONSOLE_TOKEN) },
	{ PH_BIT(PH_CODEX_A) | PH_BIT(PH_OPENCODE_A), AT(HOST_OPENAI_TOKEN) },
};

#define OPENCODE_KEYS                                                                                    \
	(PH_BIT(PH_ZAI) | PH_BIT(PH_ZAI_CP) | PH_BIT(PH_ZHIPU) | PH_BIT(PH_ZHIPU_CP) | PH_BIT(PH_KIMI) | \
	 PH_BIT(PH_MOONSHOT) | PH_BIT(PH_MOONSHOT_CN))
#define ALL_VERBS (PH_ALL & ~OPENCODE_KEYS & ~PH_BIT(PH_COPILOT))

static const struct {
	const char *verb;
	uint32_t kinds;
} verbs[] = {
	{ "claude", ALL_VERBS },
	{ "codex", ALL_VERBS },
	{ "opencode", ALL_VERBS | OPENCODE_KEYS },
	{ "copilot", ALL_VERBS | PH_BIT(PH_COPILOT) },
	{ "shell", PH_ALL },
};

uint32_t prov_verb_kinds(const char *verb)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verb, verbs[i].verb) == 0)
			return verbs[i].kinds;
	return 0;
}

enum prov_method prov_method_find(struct span s)
{
	for (int m = 0; m < METHODS; m++)
		if (span_is(s, prov_method_str[m]))
			return (enum prov_method)m;
	return METHODS;
}

enum prov_host_id prov_host_find(struct span name)
{
	for (int h = 0; h < HOSTS; h++)
		if (strlen(prov_hosts[h].name) == name.n &&
		    strncasecmp(prov_hosts[h].name, (const char *)name.p, name.n) == 0)
			return (enum prov_host_id)h;
	return HOSTS;
}

static bool has_class(enum prov prov, enum prov_class class)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (size_t k = 0; k < ARRAY_SIZE(rows[i].rules) && rows[i].rules[k]; k++)
			for (const struct rule *r = rows[i].rules[k]; r->pattern; r++)
				for (int h = 0; h < HOSTS; h++)
					if (r->class == class && rows[i].hosts & AT(h) && prov_hosts[h].prov == prov)
						return true;
	return false;
}

int prov_open(struct prov_launch *launch, struct span text)
{
	const uint8_t *eq = memchr(text.p, '=', text.n);
	size_t n = eq ? (size_t)(eq - text.p) : text.n;

	for (int p = 0; eq && p < PROV_GITHUB; p++)
		for (int c = 0; c < CLASSES; c++) {
			if (!span_is(SPAN(text.p, n), prov_str[p]) ||
			    !span_is(SPAN(eq + 1, text.n - n - 1), prov_class_str[c]) || c == CLASS_DEFAULT ||
			    c == CLASS_NEVER || (c != CLASS_FOREIGN && !has_class((enum prov)p, (enum prov_class)c)))
				continue;
			launch->opened[p] |= (uint16_t)(1u << c);
			return 0;
		}
	return -EINVAL;
}

bool prov_bound(const struct prov_launch *launch, enum prov_host_id host)
{
	if (host >= HOSTS)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].kinds & launch->lent && rows[i].hosts & AT(host))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
		if (endpoints[i].kinds & launch->lent && endpoints[i].hosts & AT(host))
			return true;
	return false;
}

bool prov_foreign(const struct prov_launch *launch, enum prov_host_id host)
{
	return launch->opened[prov_hosts[host].prov] & 1u << CLASS_FOREIGN;
}

static const struct row *row_find(enum ph_kind kind, enum prov_host_id host)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].kinds & PH_BIT(kind) && rows[i].hosts & AT(host))
			return &rows[i];
	return NULL;
}

unsigned prov_slots(enum ph_kind kind, enum prov_host_id host)
{
	const struct row *row = row_find(kind, host);

	return row ? row->slots : 0;
}

static bool is_letter(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 0;
}

/* What a wildcard takes: nobody honest encodes a letter, or encodes twice. */
static bool is_plain(struct span s)
{
	for (size_t i = 0; i + 2 < s.n; i++)
		if (s.p[i] == '%') {
			int c = hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]);

			if (c == '%' || is_letter(c))
				return false;
		}
	return true;
}

static bool match(const char *pattern, struct span path)
{
	struct span taken;

	while (*pattern) {
		if (pattern[0] == '*' && pattern[1] == '*')
			return is_plain(path);
		if (pattern[0] == '*') {
			const uint8_t *end = path.n > 0 ? memchr(path.p, '/', path.n) : NULL;
			size_t n = end ? (size_t)(end - path.p) : path.n;

			if (n == 0 || span_take(&path, n, &taken) < 0 || !is_plain(taken))
				return false;
		} else if (path.n == 0 || path.p[0] != (uint8_t)*pattern || span_take(&path, 1, &taken) < 0) {
			return false;
		}
		pattern++;
	}
	return path.n == 0;
}

bool prov_allows(const struct prov_launch *launch, enum ph_kind kind, enum prov_host_id host, enum prov_method method,
		 struct span path, bool ws, enum prov_class *ret_class)
{
	const struct row *row = row_find(kind, host);
	unsigned asked = ws ? WS : 1u << method;

	if (ret_class)
		*ret_class = CLASS_NEVER;
	if (!row || !(launch->lent & PH_BIT(kind)))
		return false;
	for (size_t k = 0; k < ARRAY_SIZE(row->rules) && row->rules[k]; k++)
		for (const struct rule *r = row->rules[k]; r->pattern; r++) {
			if (!(r->methods & asked) || !match(r->pattern, path))
				continue;
			if (ret_class)
				*ret_class = r->class;
			return r->class == CLASS_DEFAULT ||
			       (r->class != CLASS_NEVER && launch->opened[prov_hosts[host].prov] & 1u << r->class);
		}
	return false;
}

bool prov_ws(const struct prov_launch *launch, enum prov_host_id host, struct span path)
{
	for (int k = 0; k < PH_KINDS; k++)
		if (prov_allows(launch, (enum ph_kind)k, host, METHOD_GET, path, true, NULL))
			return true;
	return false;
}

/* With what could be a format or parameters behind the segment, as gh_match_loosely() has it. */
static bool is_closed(enum prov_host_id host, struct span path)
{
	static const struct {
		uint32_t hosts;
		const char *front;
		bool alone; /* also without anything behind it */
	} closed[] = {
		{ COPILOT_HOSTS, "/mcp", true },
		{ COPILOT_HOSTS, "/agents", false },
		{ AT(HOST_GITHUB_API), "/copilot_internal", true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(closed); i++) {
		size_t n = strlen(closed[i].front);

		if (closed[i].hosts & AT(host) && http_begins(path, closed[i].front) &&
		    (path.n == n ? closed[i].alone : memchr("/\\.;", path.p[n], 4) != NULL))
			return true;
	}
	return false;
}

/* In a function of its own, and not entered without a "%": the room is cleared each time. */
static bool is_closed_decoded(enum prov_host_id host, struct span path)
{
	uint8_t text[HTTP_TARGET_MAX];

	assert(path.n <= sizeof(text));
	for (int k = 0; k < HTTP_DECODINGS; k++) {
		path = SPAN(text, http_percent_decode(path, text));
		if (is_closed(host, path))
			return true;
	}
	return false;
}

bool prov_closed(enum prov_host_id host, struct span path)
{
	return path.n > 0 &&
	       (is_closed(host, path) || (memchr(path.p, '%', path.n) && is_closed_decoded(host, path)));
}

bool prov_cookie_kept(struct span cookie)
{
	static const char *const names[] = { "__cf_bm", "_cfuvid", "cf_clearance", "__cflb", "__cfruid" };
	const uint8_t *eq = cookie.n > 0 ? memchr(cookie.p, '=', cookie.n) : NULL;

	for (size_t i = 0; eq && i < ARRAY_SIZE(names); i++)
		if (span_is(SPAN(cookie.p, (size_t)(eq - cookie.p)), names[i]))
			return true;
	return false;
}

#define LOGIN_TEXT(command, name)                                                                                    \
	"signing in inside this sandbox is off because the session uses the host's login; sign in on the host with " \
	"`" command "`, or start with --api " name "=foreign"

const char *prov_login_text(enum prov prov)
{
	return prov == PROV_OPENAI ? LOGIN_TEXT("codex login", "openai") : LOGIN_TEXT("claude", "anthropic");
}
