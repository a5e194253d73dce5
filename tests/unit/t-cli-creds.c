/* What a launch lends: from a home folder and an environment of the test's own. */
#include "files.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/credcfg.h"
#include "cli/creds.h"
#include "cli/guest_creds.h"
#include "cli/renew_run.h"
#include "cli/upstream.h"
#include "gate/config.h"
#include "proto/gatecfg.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"
#include "vault/config.h"

#define CLAUDE                                                                                                         \
	"{\"claudeAiOauth\":{\"accessToken\":\"sk-ant-oat01-CANARY-access\",\"refreshToken\":\"sk-ant-ort01-CANARY\"," \
	"\"expiresAt\":1900000000000,\"scopes\":[\"user:inference\"],\"subscriptionType\":\"max\"},\"mcpOAuth\":{"     \
	"\"x\":\"CANARY\"}}"
#define CODEX_KEY "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-CANARY-codex-0123456789\"}"
#define JWT "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE5MDAwMDAwMDB9.CANARYCANARYCANARYCANARY"
#define CHATGPT                                                                                   \
	"{\"auth_mode\":\"chatgpt\",\"tokens\":{\"id_token\":\"" JWT "\",\"access_token\":\"" JWT \
	"\",\"refresh_token\":"                                                                   \
	"\"rt-CANARY-0123456789\",\"account_id\":\"acc-1\"},\"last_refresh\":\"2026-01-01T00:00:00Z\"}"
#define ANTHROPIC_LOGIN (PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R))
#define CHATGPT_LOGIN                                                                            \
	(PH_BIT(PH_CODEX_A) | PH_BIT(PH_CODEX_R) | PH_BIT(PH_CODEX_ID) | PH_BIT(PH_OPENCODE_A) | \
	 PH_BIT(PH_OPENCODE_R) | PH_BIT(PH_OPENCODE_ID))

static struct {
	char *dir;
	char env[8][128];
	size_t n_env;
	struct cli cli;
	struct launch_args args;
	struct strv warnings;
	struct creds c;
} t;

static char *fake_getenv(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < t.n_env; i++)
		if (strncmp(t.env[i], name, n) == 0 && t.env[i][n] == '=')
			return t.env[i] + n + 1;
	return NULL;
}

static void begin(const char *verb)
{
	static bool open_;
	struct err err;

	if (!open_)
		CHECK_INT(secret_arena_open(SECRET_ARENA, &err), ==, 0);
	open_ = true;
	memset(&t, 0, sizeof(t));
	t.dir = files_tmp("/tmp");
	t.args.verb = verb;
	problems_init(&t.cli.problems);
}

/* All of the arena, as on a host that lets nothing be locked. */
static void arena_fill(void *ret[64])
{
	size_t n = 0;

	memset(ret, 0, 64 * sizeof(*ret));
	for (size_t size = SECRET_ARENA; size >= 64 && n < 64; size /= 2)
		while (n < 64 && (ret[n] = secret_alloc(size)))
			n++;
	CHECK(n < 64 && !secret_alloc(1));
}

static void put_env(const char *word)
{
	(void)snprintf(t.env[t.n_env++], sizeof(t.env[0]), "%s", word);
}

static void put_file(const char *folder, const char *name, const char *text)
{
	AUTO_FREE(char, path);

	for (const char *p = strchr(folder, '/');; p = strchr(p + 1, '/')) {
		AUTO_FREE(char, part);

		part = p ? xstrndup(folder, (size_t)(p - folder)) : xstrdup(folder);
		free(TAKE_PTR(path));
		path = files_at(t.dir, part);
		(void)mkdir(path, 0700);
		if (!p)
			break;
	}
	files_write(path, name, text);
}

static void plan(void)
{
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
}

static void end(void)
{
	creds_done(&t.c);
	problems_done(&t.cli.problems);
	strv_done(&t.warnings);
	strv_done(&t.args.env);
	strv_done(&t.args.api);
	files_rm(t.dir);
}

#define ROW(text)                        \
	do {                             \
		AUTO_FREE(char, row_);   \
		row_ = creds_text(&t.c); \
		CHECK_STR(row_, text);   \
	} while (0)

TEST(nothing_on_the_host_nothing_lent)
{
	begin("shell");
	plan();
	CHECK_INT(t.c.launch.lent, ==, 0);
	CHECK_INT(t.warnings.n, ==, 0);
	ROW("none");
	end();
	begin("claude");
	plan();
	CHECK_INT(t.warnings.n, ==, 0);
	ROW("claude: not signed in on the host");
	end();
}

TEST(every_login_that_is_there_is_named_by_doctor_and_no_value)
{
	static const char *const files[][2] = { { ".copilot", "config.json" }, { ".cache/claude-vm", "copilot-token.json" },
						{ ".config/gh", "hosts.yml" } };
	struct strv all = { 0 };

	begin("shell");
	creds_there(fake_getenv, t.dir, &all);
	CHECK_INT(all.n, ==, 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		put_file(files[i][0], files[i][1], "{}");
	put_env("ANTHROPIC_API_KEY=sk-CANARY");
	put_env("GH_TOKEN=");
	put_env("COPILOT_GITHUB_TOKEN=CANARY");
	creds_there(fake_getenv, t.dir, &all);
	CHECK_INT(all.n, ==, 5);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		CHECK(str_starts(all.v[i], t.dir) && strstr(all.v[i], files[i][0]) && strstr(all.v[i], files[i][1]));
	CHECK_STR(all.v[3], "ANTHROPIC_API_KEY");
	CHECK_STR(all.v[4], "COPILOT_GITHUB_TOKEN");
	strv_done(&all);
	end();
}

TEST(login_files_are_lent_and_no_secret_of_them_is_kept)
{
	uint8_t seed[PH_SEED] = { 1 };
	struct agent_logins l;

	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	put_file(".codex", "auth.json", CHATGPT);
	put_file(".local/share/opencode", "auth.json",
		 "{\"zai\":{\"type\":\"api\",\"key\":\"zai-CANARY-0123456789\"},\"kimi-code-plan-cn\":{\"type\":\"api\","
		 "\"key\":"
		 "\"kimi-CANARY-0123456789\"},\"own\":{\"type\":\"api\",\"key\":\"CANARY\"}}");
	plan();
	CHECK_INT(t.warnings.n, ==, 0);
	CHECK_INT(t.c.launch.lent, ==, ANTHROPIC_LOGIN | CHATGPT_LOGIN | PH_BIT(PH_ZAI) | PH_BIT(PH_KIMI));
	ROW("claude: subscription, codex: ChatGPT, opencode: zai kimi-code-plan-cn; the guest has placeholders");
	CHECK(!memmem(&t.c, sizeof(t.c), "CANARY", 6));
	CHECK_STR(creds_source(&t.c, SOURCE_OPENAI)->info.account_id, "acc-1");

	creds_draw(&t.c, seed);
	guest_creds_logins(&t.c, &l);
	CHECK(!strstr(l.claude_file, "CANARY") && !strstr(l.codex_file, "CANARY") &&
	      !strstr(l.opencode_file, "CANARY"));
	CHECK(strstr(l.claude_file, "avm-claude-a-") && strstr(l.codex_file, "\"account_id\":\"acc-1\""));
	CHECK(strstr(l.opencode_file, "\"openai\"") && strstr(l.opencode_file, "\"kimi-code-plan-cn\":{\"type\":\"api\",\"key\":\"avm-kimi-") &&
	      !strstr(l.opencode_file, "moonshot"));
	CHECK(!l.api_key_tail && !l.copilot && l.opencode_openai);
	guest_creds_logins_done(&l);
	end();
}

/* Whoever signs in with `claude setup-token` has nothing else, and would be told that he is not signed in. */
TEST(a_variable_that_is_only_lent_on_demand_is_named_where_its_login_is_missing)
{
	static const struct {
		const char *verb, *word, *env, *row;
	} cases[] = {
		{ "claude", "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-CANARY-0123456789", NULL,
		  "claude: not signed in on the host (--env CLAUDE_CODE_OAUTH_TOKEN would lend that)" },
		{ "claude", "CODEX_API_KEY=sk-CANARY-0123456789", NULL, "claude: not signed in on the host" },
		{ "codex", "CODEX_API_KEY=sk-CANARY-0123456789", NULL, "codex: not signed in on the host (--env CODEX_API_KEY would lend that)" },
		{ "shell", "CODEX_API_KEY=sk-CANARY-0123456789", NULL, "none" },
		{ "claude", "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-CANARY-0123456789", "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-CANARY-0123456789",
		  "claude: not signed in on the host, CLAUDE_CODE_OAUTH_TOKEN; the guest has placeholders" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(cases[i].verb);
		put_env(cases[i].word);
		if (cases[i].env)
			strv_add(&t.args.env, cases[i].env);
		plan();
		ROW(cases[i].row);
		end();
	}
}

/* With a model of OpenAI's and no login there OpenCode 1.18 answers each prompt with an error. */
TEST(opencodes_model_is_pinned_with_a_login_at_openai_alone)
{
	static const uint8_t seed[PH_SEED] = { 1 };
	static const struct {
		const char *codex, *opencode, *anthropic_key, *openai_key;
		bool pinned;
	} cases[] = {
		{ NULL, NULL, NULL, NULL, false },
		{ NULL, "{\"zai\":{\"type\":\"api\",\"key\":\"zai-CANARY-0123456789\"}}", NULL, NULL, false },
		{ NULL, NULL, "ANTHROPIC_API_KEY=sk-ant-CANARY-0123456789", NULL, false },
		{ NULL, NULL, "ANTHROPIC_API_KEY=sk-ant-CANARY-0123456789", "OPENAI_API_KEY=sk-CANARY-0123456789", true },
		{ CHATGPT, NULL, "ANTHROPIC_API_KEY=sk-ant-CANARY-0123456789", NULL, true },
		/* A key in Codex' file is not OpenCode's. */
		{ "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"sk-CANARY-0123456789\"}", NULL, "ANTHROPIC_API_KEY=sk-ant-CANARY-0123456789", NULL, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct agent_logins l;

		begin("opencode");
		if (cases[i].codex)
			put_file(".codex", "auth.json", cases[i].codex);
		if (cases[i].opencode)
			put_file(".local/share/opencode", "auth.json", cases[i].opencode);
		if (cases[i].anthropic_key)
			put_env(cases[i].anthropic_key);
		if (cases[i].openai_key)
			put_env(cases[i].openai_key);
		plan();
		creds_draw(&t.c, seed);
		guest_creds_logins(&t.c, &l);
		CHECK_INT(l.opencode_openai, ==, cases[i].pinned);
		guest_creds_logins_done(&l);
		end();
	}
}

TEST(a_verb_gets_its_own_alone)
{
	begin("claude");
	put_file(".codex", "auth.json", CODEX_KEY);
	put_file(".local/share/opencode", "auth.json",
		 "{\"zai\":{\"type\":\"api\",\"key\":\"zai-CANARY-0123456789\"}}");
	put_env("COPILOT_GITHUB_TOKEN=gho_CANARY0123456789");
	plan();
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_CODEX_KEY));
	ROW("claude: not signed in on the host, codex: API key; the guest has placeholders");
	end();
	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	t.args.no_network = true;
	plan();
	CHECK_INT(t.c.launch.lent, ==, 0);
	end();
}

TEST(secrets_of_the_environment_go_into_pipes_and_are_overwritten)
{
	struct strv vars = { 0 };
	uint8_t seed[PH_SEED] = { 2 };
	char got[64] = "", zero[32] = { 0 };

	begin("shell");
	put_env("ANTHROPIC_API_KEY= sk-ant-api03-CANARY-key \n");
	put_env("GH_TOKEN=gho_CANARY0123456789");
	put_env("GITHUB_TOKEN=gho_CANARYother456789");
	plan();
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_ANTHROPIC_KEY) | PH_BIT(PH_COPILOT));
	CHECK_INT(t.c.n_secrets, ==, 2);
	CHECK_INT(t.c.secrets[0].kind, ==, PH_ANTHROPIC_KEY);
	CHECK_INT(read(t.c.secrets[0].fd, got, sizeof(got)), ==, 23);
	CHECK_STR(got, "sk-ant-api03-CANARY-key");
	CHECK_INT(read(t.c.secrets[0].fd, got, sizeof(got)), ==, 0);
	CHECK(memcmp(t.env[0], "ANTHROPIC_API_KEY=", 18) == 0 && memcmp(t.env[0] + 18, zero, 26) == 0);
	CHECK(memcmp(t.env[1] + 9, zero, 20) == 0);
	ROW("ANTHROPIC_API_KEY, copilot: GH_TOKEN; the guest has placeholders");
	creds_draw(&t.c, seed);
	creds_env(&t.c, false, &vars);
	CHECK_INT(vars.n, ==, 2);
	CHECK(str_starts(vars.v[0], "ANTHROPIC_API_KEY=avm-anthropic-key-"));
	CHECK(str_starts(vars.v[1], "COPILOT_GITHUB_TOKEN=gho_avm_"));
	strv_done(&vars);
	end();
}

TEST(no_secret_stays_in_the_environment_whether_lent_or_not)
{
	static const char *const words[] = { "ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key", "ANTHROPIC_AUTH_TOKEN=CANARY-of-a-gateway",
					     "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-CANARY", "COPILOT_GITHUB_TOKEN=gho_CANARY0123456789",
					     "GH_TOKEN=gho_CANARYother456789", "GITHUB_TOKEN=CANARY is no token" };
	void *all[64];

	for (int i = 0; i < 3; i++) {
		begin("claude");
		t.args.no_network = i == 1;
		for (size_t k = 0; k < ARRAY_SIZE(words); k++)
			put_env(words[k]);
		put_env("ANTHROPIC_BASE_URL=https://gateway.example/v1");
		put_env("HOME=/home/ann");
		if (i == 2)
			arena_fill(all);
		plan();
		CHECK_INT(t.c.launch.lent, ==, 0);
		CHECK(!memmem(t.env, sizeof(t.env), "CANARY", 6));
		CHECK_STR(fake_getenv("HOME"), "/home/ann");
		end();
	}
	for (size_t i = 0; all[i]; i++)
		secret_free(all[i]);
}

TEST(a_key_of_another_host_is_not_lent)
{
	begin("shell");
	put_env("ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key");
	put_env("ANTHROPIC_BASE_URL=https://gateway.example/v1");
	put_env("OPENAI_API_KEY=sk-CANARY-0123456789");
	put_env("OPENAI_BASE_URL=https://api.openai.com/v1");
	plan();
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_OPENAI_KEY));
	CHECK_INT(t.warnings.n, ==, 1);
	CHECK_STR(t.warnings.v[0], "ANTHROPIC_API_KEY: it belongs to the host of ANTHROPIC_BASE_URL, and keys of other "
				   "hosts are not lent");
	end();
}

TEST(env_of_a_guarded_name_is_a_placeholder)
{
	struct strv vars = { 0 };
	uint8_t seed[PH_SEED] = { 3 };
	char got[64] = "";

	begin("claude");
	put_env("CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-CANARY");
	put_env("ANTHROPIC_API_KEY=sk-ant-of-the-host-CANARY");
	strv_add(&t.args.env, "A=1");
	strv_add(&t.args.env, "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-CANARY");
	strv_add(&t.args.env, "ANTHROPIC_API_KEY=sk-ant-typed-CANARY");
	strv_add(&t.args.env, "B=2");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 0);
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_ANTHROPIC_OAT) | PH_BIT(PH_ANTHROPIC_KEY));
	CHECK_INT(t.args.env.n, ==, 2);
	CHECK_STR(t.args.env.v[1], "B=2");
	CHECK_STR(fake_getenv("CLAUDE_CODE_OAUTH_TOKEN"), "");
	/* What was typed wins. */
	CHECK_INT(t.c.secrets[1].kind, ==, PH_ANTHROPIC_KEY);
	CHECK_INT(read(t.c.secrets[1].fd, got, sizeof(got)), ==, 19);
	CHECK_STR(got, "sk-ant-typed-CANARY");
	creds_draw(&t.c, seed);
	creds_env(&t.c, true, &vars);
	CHECK_INT(vars.n, ==, 2);
	CHECK(str_starts(vars.v[0], "CLAUDE_CODE_OAUTH_TOKEN=avm-anthropic-oat-"));
	strv_done(&vars);
	end();
}

static void stops(const char *verb, const char *word, const char *problem)
{
	begin(verb);
	put_file(".claude", ".credentials.json", CLAUDE);
	put_env("GH_TOKEN=gho_CANARY0123456789");
	put_env("ANTHROPIC_BASE_URL=https://gateway.example");
	strv_add(&t.args.env, word);
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK_STR(t.cli.problems.v[0].text, problem);
	for (size_t i = 0; i < t.args.env.n; i++)
		CHECK(!strstr(t.args.env.v[i], "CANARY"));
	end();
}

TEST(env_never_passes_a_secret_in_clear)
{
	stops("claude", "GH_TOKEN=gho_CANARY0123456789",
	      "--env GH_TOKEN: a secret that would pass in clear: the GitHub list names no repository, so the login at GitHub is not lent; leave it "
	      "out, or add --repo OWNER/NAME");
	stops("claude", "COPILOT_GITHUB_TOKEN=gho_CANARY0123456789",
	      "--env COPILOT_GITHUB_TOKEN: a secret that would pass in clear: this verb lends it not; leave it out");
	stops("claude", "ANTHROPIC_AUTH_TOKEN=CANARY-of-a-gateway",
	      "--env ANTHROPIC_AUTH_TOKEN: a secret that would pass in clear: it "
	      "belongs to the host of ANTHROPIC_BASE_URL, and keys of other hosts are not lent; leave it out");
	stops("claude", "MINE=gho_CANARY0123456789",
	      "--env MINE: its value is one of the logins that are kept from the guest; leave it out");
	stops("shell", "MINE= sk-ant-oat01-CANARY-access",
	      "--env MINE: its value is one of the logins that are kept from the guest; leave it out");
}

TEST(with_no_network_env_gives_neither_secret_nor_placeholder)
{
	static const char *const words[] = { "ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key", "GH_TOKEN=gho_CANARY0123456789",
					     "MINE=sk-ant-oat01-CANARY-access", "HARMLESS=1" };
	struct strv vars = { 0 };

	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	t.args.no_network = true;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		strv_add(&t.args.env, words[i]);
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.cli.problems.n, ==, 3);
	CHECK_STR(t.cli.problems.v[0].text,
		  "--env ANTHROPIC_API_KEY: a secret that would pass in clear: nothing is lent with --no-network; leave it out");
	CHECK_STR(t.cli.problems.v[1].text,
		  "--env GH_TOKEN: a secret that would pass in clear: nothing is lent with --no-network; leave it out");
	CHECK_STR(t.cli.problems.v[2].text, "--env MINE: its value is one of the logins that are kept from the guest; leave it out");
	CHECK_INT(t.c.launch.lent, ==, 0);
	ROW("none");
	creds_env(&t.c, true, &vars);
	CHECK_INT(vars.n, ==, 0);
	CHECK_INT(t.args.env.n, ==, 2); /* MINE, overwritten, and HARMLESS */
	CHECK_STR(t.args.env.v[0], "MINE=");
	CHECK_STR(t.args.env.v[1], "HARMLESS=1");
	end();
}

TEST(without_locked_memory_env_passes_nothing_that_could_be_a_login)
{
	void *all[64];

	begin("claude");
	put_env("ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key");
	strv_add(&t.args.env, "MINE=sk-ant-api03-CANARY-key");
	arena_fill(all);
	plan();
	CHECK_INT(t.c.launch.lent, ==, 0);
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK_STR(t.cli.problems.v[0].text, "--env MINE: no memory can be locked for the logins of this host, so whether it is one of them cannot be "
					    "told; raise the limit (ulimit -l) to 128 or more, or leave it out");
	end();
	/* A file that could not be read. */
	begin("claude");
	put_file(".claude", ".credentials.json", CLAUDE);
	strv_add(&t.args.env, "MINE=sk-ant-oat01-CANARY-access");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	end();
	/* Where there is no login there is none to give away. */
	begin("claude");
	strv_add(&t.args.env, "MINE=1");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 0);
	end();
	for (size_t i = 0; all[i]; i++)
		secret_free(all[i]);
}

TEST(logins_that_are_not_lent_are_known_all_the_same)
{
	for (int i = 0; i < 2; i++) {
		begin(i ? "claude" : "shell");
		t.args.no_network = !i;
		put_file(".local/share/opencode", "auth.json", "{\"zai\":{\"type\":\"api\",\"key\":\"zai-CANARY-0123456789\"}}");
		strv_add(&t.args.env, "MINE=zai-CANARY-0123456789");
		plan();
		CHECK_INT(t.c.launch.lent, ==, 0);
		CHECK_INT(t.warnings.n, ==, 0);
		CHECK_INT(t.cli.problems.n, ==, 1);
		CHECK_STR(t.cli.problems.v[0].text, "--env MINE: its value is one of the logins that are kept from the guest; leave it out");
		end();
	}
}

static void warns(const char *text)
{
	plan();
	CHECK_INT(t.c.launch.lent, ==, 0);
	CHECK_INT(t.warnings.n, ==, 1);
	CHECK(strstr(t.warnings.v[0], text));
	CHECK(!strstr(t.warnings.v[0], "CANARY"));
	end();
}

TEST(a_file_that_cannot_be_used_is_one_warning_without_content)
{
	AUTO_FREE(char, path);

	begin("shell");
	put_file(".claude", ".credentials.json", "{\"claudeAiOauth\":{\"accessToken\":\"CANARY-half-writ");
	warns("/.claude/.credentials.json: it is no JSON that can be read; that login is not lent");
	begin("shell");
	put_file(".claude", ".credentials.json", "{\"claudeAiOauth\":{\"accessToken\":7,\"x\":\"CANARY\"}}");
	warns("a member has a wrong type");
	begin("shell");
	put_file(".codex", "auth.json", "{\"auth_mode\":\"agent-identity\",\"x\":\"CANARY\"}");
	warns("its kind of login is not lent");
	begin("shell");
	put_file(".codex", "config.toml", "model = \"x\"\ncli_auth_credentials_store = \"keyring\"\n[a]\n");
	put_file(".codex", "auth.json", CHATGPT);
	warns("codex: the login is in the keyring; set cli_auth_credentials_store = \"file\" on the host and sign in "
	      "once more");
	begin("shell");
	put_env("COPILOT_GITHUB_TOKEN=ghp_CANARY0123456789");
	warns("COPILOT_GITHUB_TOKEN: a classic token (ghp_) is not taken by Copilot");
	/* Signed out. */
	begin("codex");
	put_file(".codex", "auth.json", "{\"OPENAI_API_KEY\":null}");
	plan();
	CHECK_INT(t.warnings.n, ==, 0);
	ROW("codex: not signed in on the host");
	end();
	/* A file that every user may write is not used, one that its group may write is told of. */
	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	path = files_at(t.dir, ".claude/.credentials.json");
	CHECK_INT(chmod(path, 0602), ==, 0);
	warns(".claude/.credentials.json: every user of this host may write it; correct that with chmod 600; that login is not lent");
	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	free(path);
	path = files_at(t.dir, ".claude/.credentials.json");
	CHECK_INT(chmod(path, 0664), ==, 0);
	plan();
	CHECK_INT(t.c.launch.lent, ==, ANTHROPIC_LOGIN);
	CHECK_INT(t.warnings.n, ==, 1);
	CHECK(strstr(t.warnings.v[0], "others may write it"));
	end();
}

TEST(folders_of_the_variables_and_what_a_guest_can_write)
{
	AUTO_FREE(char, word);
	AUTO_FREE(char, shared);
	AUTO_FREE(char, link);

	begin("shell");
	put_file("elsewhere", ".credentials.json", CLAUDE);
	put_file("data/opencode", "auth.json", "{\"zai\":{\"type\":\"api\",\"key\":\"zai-CANARY-0123456789\"}}");
	word = xasprintf("CLAUDE_CONFIG_DIR=%s/elsewhere", t.dir);
	put_env(word);
	put_env("CLAUDE_SECURESTORAGE_CONFIG_DIR=not/absolute");
	free(word);
	word = xasprintf("XDG_DATA_HOME=%s/data", t.dir);
	put_env(word);
	plan();
	CHECK_INT(t.c.launch.lent, ==, ANTHROPIC_LOGIN | PH_BIT(PH_ZAI));
	end();

	begin("shell");
	put_file("shared/.claude", ".credentials.json", CLAUDE);
	shared = files_at(t.dir, "shared");
	link = files_at(t.dir, ".claude");
	CHECK_INT(symlink("shared/.claude", link), ==, 0);
	prog_shun(shared);
	warns("lies in the project or in what is shared with the guest, so that login is not lent");

	/* The folder is outside, the file is not. */
	begin("shell");
	free(TAKE_PTR(shared));
	free(TAKE_PTR(link));
	put_file("shared", "mine.json", CLAUDE);
	put_file(".claude", "other", "");
	shared = files_at(t.dir, "shared");
	link = files_at(t.dir, ".claude/.credentials.json");
	CHECK_INT(symlink("../shared/mine.json", link), ==, 0);
	prog_shun(shared);
	warns("it lies in the project or in what is shared with the guest; that login is not lent");
}

TEST(copilot_needs_a_token_and_api_is_shown)
{
	begin("copilot");
	strv_add(&t.args.api, "anthropic=files");
	strv_add(&t.args.api, "openai=foreign");
	put_file(".claude", ".credentials.json", CLAUDE);
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK(strstr(t.cli.problems.v[0].text, "COPILOT_GITHUB_TOKEN"));
	ROW("claude: subscription; the guest has placeholders; open: anthropic=files, openai=foreign");
	CHECK_INT(t.c.launch.opened[PROV_ANTHROPIC], ==, 1 << CLASS_FILES);
	CHECK_INT(t.c.launch.opened[PROV_OPENAI], ==, 1 << CLASS_FOREIGN);
	end();
}

/* --- upstream --- */

TEST(connect_to)
{
	static const char *const bad[] = { "",
					   "a",
					   "a:443",
					   "a:443:127.0.0.1",
					   "a:443:127.0.0.1:",
					   "a:0:127.0.0.1:1",
					   ":443:127.0.0.1:1",
					   "a:443:localhost:1",
					   "a:443:::1:1",
					   "a:443:[127.0.0.1]:1",
					   "a:443:127.0.0.1:65536",
					   "a_b:443:127.0.0.1:1",
					   "a:443:127.0.0.1:1,",
					   ",a:443:127.0.0.1:1",
					   "a:443:127.0.0.1:1,A:443:127.0.0.2:1",
					   "a:443:127.0.0.1:1 ",
					   "a:443:[::1%lo]:1" };
	struct upstream u = { .n_to = 0 };
	AUTO_FREE(char, text);
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK_INT(connect_to_parse(bad[i], u.to, &u.n_to, &err), ==, -EINVAL);
	CHECK_INT(u.n_to, ==, 0);
	CHECK_INT(connect_to_parse("API.Example.com:443:127.0.0.1:8443,b.c:80:[::1]:81", u.to, &u.n_to, &err), ==, 0);
	text = upstream_text(&u);
	CHECK_STR(text, "api.example.com:443 -> 127.0.0.1:8443, b.c:80 -> [::1]:81");
}

static void upstream(struct upstream *u)
{
	upstream_plan(&t.cli, &t.args, fake_getenv, true, u, &t.warnings);
}

static void trust_is(int fd, const char *text)
{
	AUTO_FREE(char, got);

	CHECK_INT(fd_read_file(fd, 1 << 20, &got, NULL), ==, 0);
	CHECK_STR(got, text);
}

TEST(certificates_of_the_variables_but_not_from_where_a_guest_writes)
{
	static const char pem[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
	AUTO_FREE(char, shared);
	AUTO_FREE(char, file);
	AUTO_FREE(char, dir);
	struct upstream u;

	begin("shell");
	put_file("certs", "a.pem", pem);
	put_file("certs", "b.key", "-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----\n");
	put_file("certs/below", "c.pem", pem);
	file = xasprintf("SSL_CERT_FILE=%s/certs/b.key", t.dir);
	dir = xasprintf("SSL_CERT_DIR=/nonexistent:%s/certs", t.dir);
	put_env(file);
	put_env(dir);
	upstream(&u);
	CHECK_INT(t.warnings.n, ==, 0);
	CHECK_INT(u.n_trust, ==, 2);
	trust_is(u.trust[1], pem);
	upstream_done(&u);
	/* Nothing lent: nobody is to be believed, and nothing is read or warned of. */
	upstream_plan(&t.cli, &t.args, fake_getenv, false, &u, &t.warnings);
	CHECK_INT(u.n_trust, ==, 0);
	upstream_done(&u);
	put_env("SSL_CERT_FILE=/nonexistent");
	upstream_plan(&t.cli, &t.args, fake_getenv, false, &u, &t.warnings);
	CHECK_INT(t.warnings.n, ==, 0);
	upstream_done(&u);
	t.n_env--;
	shared = files_at(t.dir, "certs");
	prog_shun(shared);
	upstream(&u);
	CHECK_INT(t.warnings.n, >=, 2);
	CHECK(strstr(t.warnings.v[0], "so it is not believed") && strstr(t.warnings.v[1], "so it is not believed"));
	CHECK_INT(u.n_trust, <=, 1);
	upstream_done(&u);
	end();
}

/* --- what the others are told --- */

TEST(the_login_at_github_is_lent_by_the_list_alone)
{
	static struct ghlist list = { .n = 1, .v = { { .repo = { "acme", "app", GH_WRITE } } }, .switches = GH_SWITCHES_DEFAULT };
	static const struct ghlist anon = { .switches = GH_SWITCH_BIT(GH_FOREIGN_ANON) };
	struct gate_config *g = xcalloc(1, sizeof(*g));
	uint8_t seed[PH_SEED] = { 3 };
	char got[64] = "";
	struct buf b;
	struct err err;

	begin("claude");
	put_env("GH_TOKEN=gho_CANARY0123456789");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	CHECK_INT(t.c.launch.lent, ==, 0);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_GH));
	CHECK_INT(t.c.n_secrets, ==, 1);
	CHECK_INT(read(t.c.secrets[0].fd, got, sizeof(got)), ==, 20);
	CHECK_STR(got, "gho_CANARY0123456789");
	CHECK_STR(fake_getenv("GH_TOKEN"), "");
	ROW("claude: not signed in on the host, github: GH_TOKEN; the guest has placeholders");
	creds_draw(&t.c, seed);
	buf_init(&b, GATE_CONFIG_MAX);
	CHECK_INT(credcfg_gate(&t.c, &list, "agent-vm-0123456789ab-1", &b), ==, 0);
	if (gate_config_parse(buf_span(&b), g, &err) < 0)
		fail_msg("%s", err.text);
	CHECK_INT(g->github.n, ==, 1);
	CHECK_INT(g->github.repo[0].level, ==, GH_WRITE);
	buf_done(&b);
	end();
	/* The switches count for Copilot's login at the same host, too. */
	begin("copilot");
	put_env("COPILOT_GITHUB_TOKEN=gho_CANARY0123456789");
	plan();
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_COPILOT));
	creds_draw(&t.c, seed);
	buf_init(&b, GATE_CONFIG_MAX);
	CHECK_INT(credcfg_gate(&t.c, &anon, "agent-vm-0123456789ab-1", &b), ==, 0);
	CHECK_INT(gate_config_parse(buf_span(&b), g, &err), ==, 0);
	CHECK(g->github.n == 0 && gh_scope_has(&g->github, GH_FOREIGN_ANON));
	buf_done(&b);
	free(g);
	end();
	begin("claude");
	t.args.no_network = true;
	put_env("GH_TOKEN=gho_CANARY0123456789");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.c.launch.lent, ==, 0);
	end();
}

TEST(env_of_githubs_variables_is_its_placeholder)
{
	struct strv vars = { 0 };
	uint8_t seed[PH_SEED] = { 4 };
	char got[64] = "";
	AUTO_FREE(char, want);

	begin("claude");
	put_env("GITHUB_TOKEN=gho_CANARYofthehost");
	/* Copilot's service would not take this kind, GitHub does. */
	strv_add(&t.args.env, "GH_TOKEN=ghp_CANARYtyped");
	strv_add(&t.args.env, "GITHUB_TOKEN=gho_CANARYofthehost");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.cli.problems.n, ==, 0);
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_GH));
	CHECK_INT(t.c.n_secrets, ==, 1);
	CHECK_INT(read(t.c.secrets[0].fd, got, sizeof(got)), ==, 15);
	CHECK_STR(got, "ghp_CANARYtyped");
	CHECK_INT(t.args.env.n, ==, 0);
	creds_draw(&t.c, seed);
	creds_env(&t.c, true, &vars);
	CHECK_INT(vars.n, ==, 2);
	want = xasprintf("GH_TOKEN=%s", t.c.set.v[PH_GH]);
	CHECK_STR(vars.v[0], want);
	CHECK(str_starts(vars.v[1], "GITHUB_TOKEN=") && strcmp(vars.v[1] + 13, vars.v[0] + 9) == 0);
	strv_done(&vars);
	end();

	begin("claude");
	t.args.no_network = true;
	strv_add(&t.args.env, "GH_TOKEN=gho_CANARYtyped");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK_STR(t.cli.problems.v[0].text, "--env GH_TOKEN: a secret that would pass in clear: nothing is lent with --no-network; leave it out");
	end();
}

TEST(what_is_no_token_lends_no_other_secret_to_github)
{
	static const char *const bad[] = { "GH_TOKEN=not set yet", "GITHUB_TOKEN= \n" };
	char got[64] = "";

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin("claude");
		put_env("ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key");
		put_env(bad[i]);
		creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
		creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
		creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
		CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_ANTHROPIC_KEY));
		CHECK_INT(t.c.n_secrets, ==, 1);
		end();
	}
	/* The second variable counts where the first holds none. */
	begin("claude");
	put_env("ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key");
	put_env("GH_TOKEN=not set yet");
	put_env("GITHUB_TOKEN=gho_CANARY0123456789");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.c.n_secrets, ==, 2);
	CHECK_INT(t.c.secrets[1].kind, ==, PH_GH);
	CHECK_INT(read(t.c.secrets[1].fd, got, sizeof(got)), ==, 20);
	CHECK_STR(got, "gho_CANARY0123456789");
	end();
}

TEST(gh_answers_from_the_folder_that_was_looked_at)
{
	char got[64] = "", *old;
	AUTO_FREE(char, word);
	AUTO_FREE(char, lines);
	ssize_t n;

	begin("claude");
	put_file("of-gh", "hosts.yml", "github.com:\n    oauth_token: gho_CANARY0123456789\n");
	word = xasprintf("GH_CONFIG_DIR=%s/of-gh", t.dir);
	lines = xasprintf("test \"$*\" = \"auth token --hostname github.com\" && test \"$GH_CONFIG_DIR\" = %s/of-gh && "
			  "test \"$DBUS_SESSION_BUS_ADDRESS\" = unix:x && test -z \"$MINE$GH_TOKEN\" && echo gho_CANARYasked",
			  t.dir);
	put_env(word);
	old = files_program(t.dir, "gh", lines);
	setenv("GH_CONFIG_DIR", "relative", 1);
	setenv("GH_TOKEN", "gho_CANARYofanother", 1);
	setenv("DBUS_SESSION_BUS_ADDRESS", "unix:x", 1);
	setenv("MINE", "1", 1);
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_GH));
	ROW("claude: not signed in on the host, github: gh; the guest has placeholders");
	creds_ask_gh(&t.c);
	n = read(t.c.secrets[0].fd, got, sizeof(got) - 1);
	CHECK_INT(n, ==, strlen("gho_CANARYasked\n"));
	CHECK_STR(got, "gho_CANARYasked\n");
	(void)wait(NULL);
	unsetenv("GH_CONFIG_DIR");
	unsetenv("GH_TOKEN");
	unsetenv("DBUS_SESSION_BUS_ADDRESS");
	unsetenv("MINE");
	setenv("PATH", old, 1);
	free(old);
	end();
}

#define COPILOT_FILE "// its program's own\n{\"copilotTokens\":{\"https://github.com:me\":\"gho_CANARYofthefile\"}}"
#define COPILOT_OLD "{\"access_token\":\"gho_CANARYofthecache\"}"

static void gh_signed_in(void)
{
	put_file(".config/gh", "hosts.yml", "github.com:\n    user: me\n");
}

TEST(copilots_token_is_the_first_that_exists)
{
	static const char *const row[] = { "copilot: COPILOT_GITHUB_TOKEN", "copilot: GH_TOKEN", "copilot: GITHUB_TOKEN",
					   "copilot: stored login", "copilot: stored login", "copilot: gh" };
	char *old;

	for (size_t from = 0; from < ARRAY_SIZE(row); from++) {
		struct strv vars = { 0 };
		uint8_t seed[PH_SEED] = { 5 };
		AUTO_FREE(char, want);

		begin("copilot");
		old = files_program(t.dir, "gh", "echo gho_CANARY0123456789");
		gh_signed_in();
		if (from <= 4)
			put_file(".cache/claude-vm", "copilot-token.json", COPILOT_OLD);
		if (from <= 3)
			put_file(".copilot", "config.json", COPILOT_FILE);
		if (from <= 2)
			put_env("GITHUB_TOKEN=gho_CANARY0123456789");
		if (from <= 1)
			put_env("GH_TOKEN=gho_CANARY0123456789");
		if (from <= 0)
			put_env("COPILOT_GITHUB_TOKEN=gho_CANARY0123456789");
		plan();
		want = xasprintf("%s; the guest has placeholders", row[from]);
		ROW(want);
		CHECK_INT(t.cli.problems.n, ==, 0);
		CHECK_INT(t.warnings.n, ==, 0);
		CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_COPILOT));
		CHECK_INT(t.c.n_secrets, ==, from <= 2 || from == 5);
		CHECK_INT(t.c.n_sources, ==, from == 3 || from == 4);
		if (t.c.n_sources > 0)
			CHECK_STR(t.c.sources[0].name, from == 3 ? "config.json" : "copilot-token.json");
		CHECK_INT(t.c.gh.program != NULL, ==, from == 5);
		creds_draw(&t.c, seed);
		creds_env(&t.c, false, &vars);
		CHECK_INT(vars.n, ==, 1);
		CHECK(str_starts(vars.v[0], "COPILOT_GITHUB_TOKEN=gho_avm_"));
		strv_done(&vars);
		setenv("PATH", old, 1);
		free(old);
		end();
	}
}

TEST(what_copilot_does_not_take_is_passed_over_with_the_reason)
{
	char got[64] = "", *old;

	begin("shell");
	old = files_program(t.dir, "gh", "echo gho_CANARY0123456789");
	gh_signed_in();
	put_env("GH_TOKEN=ghp_CANARYclassic");
	put_file(".copilot", "config.json", "{\"copilotTokens\":{\"https://github.com:me\":\"ghp_CANARY\"}}");
	put_file(".cache/claude-vm", "copilot-token.json", "{\"access_token\":");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	/* Of GitHub's own variable it is said to the verb alone that needs it. */
	CHECK_INT(t.warnings.n, ==, 2);
	CHECK(strstr(t.warnings.v[0], "/.copilot/config.json: a classic token (ghp_)"));
	CHECK(strstr(t.warnings.v[1], "/copilot-token.json: it is no JSON that can be read; that login is not lent"));
	/* GitHub takes it, so these two have not one token. */
	ROW("github: GH_TOKEN, copilot: gh; the guest has placeholders");
	CHECK_INT(t.c.n_secrets, ==, 2);
	CHECK(t.c.secrets[0].kind == PH_GH && !t.c.secrets[0].copilot_too);
	CHECK(t.c.secrets[1].kind == PH_COPILOT && !t.c.secrets[1].copilot_too);
	CHECK_INT(read(t.c.secrets[0].fd, got, sizeof(got)), ==, 17);
	creds_ask_gh(&t.c);
	CHECK_INT(read(t.c.secrets[1].fd, got, sizeof(got)), ==, 21);
	CHECK_STR(got, "gho_CANARY0123456789\n");
	(void)wait(NULL);
	setenv("PATH", old, 1);
	free(old);
	end();
}

TEST(one_answer_of_gh_is_for_github_and_for_copilot)
{
	struct upstream u = { .n_to = 0 };
	AUTO_FREE(struct vault_config, v);
	int fds[CREDCFG_FDS_MAX];
	struct buf b;
	struct err err;
	char *old;

	begin("copilot");
	old = files_program(t.dir, "gh", "");
	gh_signed_in();
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	ROW("github: gh, copilot: gh; the guest has placeholders");
	CHECK_INT(t.c.launch.lent, ==, PH_BIT(PH_GH) | PH_BIT(PH_COPILOT));
	CHECK_INT(t.c.n_secrets, ==, 1);
	buf_init(&b, VAULT_CONFIG_MAX);
	CHECK_INT(rec_put_u64(&b, VTC_FLAGS, 0), ==, 0);
	CHECK_INT(rec_put(&b, VTC_GUEST_MAC, "\2aaaaa", 6), ==, 0);
	CHECK_INT(credcfg_vault(&t.c, &u, fds, VAULT_FD_EXTRA, &b), ==, 1);
	v = xcalloc(1, sizeof(*v));
	if (vault_config_parse(buf_span(&b), v, &err) < 0)
		fail_msg("%s", err.text);
	CHECK_INT(v->env_fd[PH_GH], ==, VAULT_FD_EXTRA);
	CHECK_INT(v->env_fd[PH_COPILOT], ==, VAULT_FD_EXTRA);
	for (char **s = v->inspected; s && *s; s++)
		free(*s);
	free(v->inspected);
	buf_done(&b);
	setenv("PATH", old, 1);
	free(old);
	end();
}

TEST(copilot_without_any_token_is_told_how_to_sign_in)
{
	char *old;

	begin("copilot");
	old = files_program(t.dir, "gh", "");
	put_env("GH_TOKEN=ghp_CANARYclassic");
	put_file(".copilot", "config.json", "// of its program\n{\"firstLaunchAt\":\"2026\"}");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK_STR(t.cli.problems.v[0].text,
		  "copilot: not signed in on this host; sign in with `gh auth login`, or with `copilot login` where that keeps the token "
		  "in its file and not in a keyring, or set COPILOT_GITHUB_TOKEN");
	CHECK_INT(t.warnings.n, ==, 1);
	CHECK_STR(t.warnings.v[0], "GH_TOKEN: a classic token (ghp_) is not taken by Copilot; sign in with `gh auth login` or `copilot`");
	end();
	begin("shell");
	put_env("GH_TOKEN=two words");
	plan();
	CHECK_INT(t.warnings.n, ==, 1);
	CHECK_STR(t.warnings.v[0], "GH_TOKEN: it is not one word of printable characters");
	end();
	begin("copilot");
	gh_signed_in();
	t.args.no_network = true;
	plan();
	CHECK_INT(t.cli.problems.n, ==, 0);
	CHECK(t.c.launch.lent == 0 && !t.c.gh.program);
	end();
	/* Of another verb it is not the business, but --env must not give it away. */
	begin("claude");
	gh_signed_in();
	put_file(".copilot", "config.json", COPILOT_FILE);
	strv_add(&t.args.env, "MINE=gho_CANARYofthefile");
	plan();
	CHECK_INT(t.cli.problems.n, ==, 1);
	CHECK(strstr(t.cli.problems.v[0].text, "--env MINE: its value is one of the logins"));
	CHECK(t.c.launch.lent == 0 && !t.c.gh.program);
	setenv("PATH", old, 1);
	free(old);
	end();
}

TEST(files_that_may_hold_secrets_are_read_into_the_arena_alone)
{
	void *all[64];
	char *old;

	for (int full = 0; full < 2; full++) {
		begin("codex");
		put_file(".config/gh", "hosts.yml", "x: 1\ngithub.com:\n    oauth_token: gho_CANARY0123456789\n");
		put_file(".codex", "config.toml", "key = \"CANARY\"\n cli_auth_credentials_store = \"keyring\"\n");
		old = files_program(t.dir, "gh", "");
		memset(all, 0, sizeof(all));
		if (full)
			arena_fill(all);
		creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
		creds_github(&t.args, fake_getenv, t.dir, &t.c, &t.warnings);
		creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
		CHECK_INT(t.c.launch.lent, ==, full ? 0 : PH_BIT(PH_GH));
		if (full)
			CHECK_INT(t.warnings.n, ==, 0);
		else
			CHECK(strstr(t.warnings.v[0], "the login is in the keyring"));
		for (size_t i = 0; all[i]; i++)
			secret_free(all[i]);
		setenv("PATH", old, 1);
		free(old);
		end();
	}
	/* All of it was given back. */
	arena_fill(all);
	CHECK(all[0] && !all[1]);
	secret_free(all[0]);
}

TEST(vault_and_gate_understand_what_they_are_told)
{
	static const struct ghlist none;
	struct upstream u = { .n_to = 0, .trust = { 0, 0 }, .n_trust = 2 };
	AUTO_FREE(struct vault_config, v);
	struct gate_config *g = xcalloc(1, sizeof(*g));
	int fds[CREDCFG_FDS_MAX], n;
	uint8_t seed[PH_SEED] = { 7 };
	struct buf b;
	struct err err;

	begin("shell");
	put_file(".claude", ".credentials.json", CLAUDE);
	put_file(".codex", "auth.json", CODEX_KEY);
	put_env("ANTHROPIC_API_KEY=sk-ant-api03-CANARY-key");
	strv_add(&t.args.api, "anthropic=files");
	creds_begin(&t.cli, &t.args, fake_getenv, &t.c, &t.warnings);
	creds_guard(&t.c, t.dir);
	creds_guard(&t.c, "/usr");
	creds_files(&t.cli, &t.args, fake_getenv, t.dir, &t.c, &t.warnings);
	creds_draw(&t.c, seed);
	CHECK_INT(connect_to_parse("a.b:443:[::1]:8443", u.to, &u.n_to, &err), ==, 0);
	buf_init(&b, VAULT_CONFIG_MAX);
	CHECK_INT(rec_put_u64(&b, VTC_FLAGS, 0), ==, 0);
	CHECK_INT(rec_put(&b, VTC_GUEST_MAC, "\2aaaaa", 6), ==, 0);
	n = credcfg_vault(&t.c, &u, fds, VAULT_FD_EXTRA, &b);
	CHECK_INT(n, ==, 5); /* two folders, a pipe, two files with certificates */
	CHECK_INT(fds[0], ==, t.c.sources[0].fd);
	CHECK_INT(fds[2], ==, t.c.secrets[0].fd);
	v = xcalloc(1, sizeof(*v));
	if (vault_config_parse(buf_span(&b), v, &err) < 0)
		fail_msg("%s", err.text);
	CHECK_INT(v->launch.lent, ==, ANTHROPIC_LOGIN | PH_BIT(PH_CODEX_KEY) | PH_BIT(PH_ANTHROPIC_KEY));
	CHECK_INT(v->launch.opened[PROV_ANTHROPIC], ==, 1 << CLASS_FILES);
	CHECK_INT(v->n_sources, ==, 2);
	CHECK_INT(v->sources[0].kind, ==, SOURCE_ANTHROPIC);
	CHECK_INT(v->sources[0].fd, ==, VAULT_FD_EXTRA);
	CHECK_STR(v->sources[0].name, ".credentials.json");
	CHECK_INT(v->sources[0].n_guards, ==, 2);
	CHECK_INT(v->env_fd[PH_ANTHROPIC_KEY], ==, VAULT_FD_EXTRA + 2);
	CHECK_INT(v->n_trust, ==, 2);
	CHECK_INT(v->n_connect_to, ==, 1);
	CHECK_INT(v->connect_to[0].to_port, ==, 8443);
	CHECK_STR(v->inspected[0], "api.anthropic.com");
	buf_done(&b);
	buf_init(&b, GATE_CONFIG_MAX);
	CHECK_INT(credcfg_gate(&t.c, &none, "agent-vm-0123456789ab-1", &b), ==, 0);
	if (gate_config_parse(buf_span(&b), g, &err) < 0)
		fail_msg("%s", err.text);
	CHECK_INT(g->launch.lent, ==, v->launch.lent);
	buf_done(&b);
	free(g);
	for (char **i = v->inspected; *i; i++)
		free(*i);
	free(v->inspected);
	free(v->sources);
	free(v->connect_to);
	free(v->trust);
	end();
}

TEST(the_folder_of_a_renewal_that_was_killed_goes_at_the_next_launch_and_that_of_one_under_way_stays)
{
	char *top = files_tmp("/tmp"), *program = files_at(top, "program"), *work = files_at(top, "work");
	pid_t pid;
	int parent;

	files_sh(top, "mkdir work keep && echo x > keep/x && ln -s ../keep work/renew-link && mkdir work/other && "
		      "printf '#!/bin/sh\\ntouch begun\\nexec sleep 600\\n' > program && chmod 755 program");
	parent = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(parent >= 0);
	pid = fork();
	if (pid == 0) {
		struct renew_run r = { .what = RENEW_CLAUDE_STATUS, .program = program, .path = "/usr/bin:/bin", .work_parent = parent,
				       .work_path = work, .limit_ms = 300000 };
		struct err err;

		(void)renew_run(&r, &err);
		_exit(0);
	}
	files_sh(work, "for i in $(seq 600); do test -e renew-*/begun && exit; sleep 0.1; done; false");
	renew_reap(parent);
	files_sh(work, "test -e renew-0*/begun || test -e renew-[1-9a-f]*/begun");
	CHECK_INT(kill(pid, SIGKILL), ==, 0);
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	renew_reap(parent);
	files_sh(work, "test \"$(ls)\" = \"$(printf 'other\\nrenew-link')\" && test -e ../keep/x");
	(void)close(parent);
	free(program);
	free(work);
	files_rm(top);
}
