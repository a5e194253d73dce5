/* The files of the agents as two sessions of a project see them: what the second one's launcher asks for, applied by the guest's
 * own rules to what the first one's guest uses. */
#include "test.h"

#include "cli/agent_files.h"
#include "guest/config.h"
#include "guest/merge.h"

#define KEY "\"avm-claude-a-abcdefghijkmnpqrstuvwxyz23\""
#define TAIL "abcdefghijkmnpqrstuv"
#define GH "gho_avm_abcdefghijkmnpqrstuvwxyz23456789"

/* What becomes of a file; it stays as it is when nothing is asked for. Caller owns. */
static char *after(bool alone, const struct agent_logins *logins, const char *path, const char *before)
{
	char verb[] = "shell", ro[] = "ro", project[] = "/srv/p";
	struct launch_args args = { .verb = verb, .git_config = ro };
	struct plan p = { .args = &args, .layout = { .project_guest = project }, .alone = alone };
	struct err err = { "" };
	struct buf records, text;
	struct config c;
	char *got = NULL;

	buf_init(&records, 1 << 20);
	CHECK_INT(agent_files(&p, logins, &records), ==, 0);
	if (config_parse(buf_span(&records), &c, &err) < 0)
		fail_msg("%s", err.text);
	buf_init(&text, 1 << 16);
	CHECK_INT(buf_put(&text, before, strlen(before)), ==, 0);
	for (size_t i = 0; i < c.n_states; i++) {
		if (strcmp(c.states[i].path, path) != 0)
			continue;
		CHECK(!got);
		if (c.states[i].form != GC_FORM_NONE)
			CHECK_INT(merge(&c.states[i], &text), >=, 0);
		got = xasprintf("%.*s", c.states[i].form == GC_FORM_NONE ? 0 : (int)text.n, text.n > 0 ? (const char *)buf_span(&text).p : "");
	}
	buf_done(&text);
	config_done(&c);
	buf_done(&records);
	return got ? got : xstrdup(before);
}

TEST(the_guest_is_told_which_other_sessions_live_when_it_is_known)
{
	char verb[] = "shell", ro[] = "ro", project[] = "/srv/p";
	struct launch_args args = { .verb = verb, .git_config = ro };
	const struct agent_logins none = { 0 };

	for (int turn = 0; turn < 3; turn++) {
		struct plan p = { .args = &args, .layout = { .project_guest = project }, .others_known = turn > 0 };
		struct err err = { "" };
		struct buf records;
		struct config c;

		strv_add(&p.others, "agent-vm-a-1");
		for (int i = 0; turn == 2 && i < GC_LIVE_MAX; i++)
			strv_add(&p.others, "agent-vm-b-2"); /* more than can be told: then any may live */
		buf_init(&records, 1 << 20);
		CHECK_INT(agent_files(&p, &none, &records), ==, 0);
		CHECK_INT(config_parse(buf_span(&records), &c, &err), ==, 0);
		CHECK_INT(c.flags & GC_F_LIVE, ==, turn == 1 ? GC_F_LIVE : 0);
		CHECK_INT(c.n_live, ==, turn == 1);
		CHECK(turn != 1 || span_is(c.live[0], "agent-vm-a-1"));
		config_done(&c);
		buf_done(&records);
		strv_done(&p.others);
	}
}

static void check_has(char *text, const char *what, bool there)
{
	if (!strstr(text, what) == there)
		fail_msg("%s %s: %s", what, there ? "is gone" : "is left", text);
	free(text);
}

TEST(opencodes_keys_of_another_session_stay)
{
	static const char path[] = "opencode/auth.json", before[] = "{\"zai\":{\"type\":\"api\",\"key\":" KEY "}}";
	const struct agent_logins none = { 0 }, openai = { .opencode_file = "{\"openai\":{\"type\":\"oauth\",\"access\":" KEY "}}" };

	check_has(after(false, &none, path, before), "zai", true);
	check_has(after(false, &openai, path, before), "zai", true);
	check_has(after(false, &openai, path, before), "openai", true);
	check_has(after(true, &openai, path, before), "zai", false);
	check_has(after(true, &none, path, before), "zai", false);
}

TEST(copilots_token_of_another_session_stays)
{
	static const char path[] = "copilot/config.json", before[] = "{\"github_token\":\"" GH "\"}";
	const struct agent_logins none = { 0 }, some = { .copilot = "new" };

	check_has(after(false, &none, path, before), GH, true);
	check_has(after(true, &none, path, before), GH, false);
	check_has(after(false, &some, path, before), "\"new\"", true);
}

TEST(an_approved_key_of_another_session_stays)
{
	static const char path[] = "claude.json", before[] = "{\"customApiKeyResponses\":{\"approved\":[\"" TAIL "\"]}}";
	const struct agent_logins none = { 0 };

	check_has(after(false, &none, path, before), TAIL, true);
	check_has(after(true, &none, path, before), TAIL, false);
}

TEST(gits_helper_of_another_session_stays)
{
	static const char path[] = "gitconfig", before[] = "[credential]\n\thelper = password=" GH "\n";
	const struct agent_logins none = { 0 }, some = { .github = "gho_avm_new" };

	check_has(after(false, &none, path, before), GH, true);
	check_has(after(true, &none, path, before), GH, false);
	check_has(after(false, &some, path, before), "password=gho_avm_new", true);
	check_has(after(false, &none, "gh-config/hosts.yml", GH), GH, true);
	check_has(after(true, &none, "gh-config/hosts.yml", GH), GH, false);
}

/* Issue 6, 5: what it may reach, and how to ask for more. */
TEST(the_agent_is_told_which_repositories_are_listed)
{
	char verb[] = "claude", ro[] = "ro", project[] = "/srv/p";
	struct launch_args args = { .verb = verb, .git_config = ro };
	struct plan p = { .args = &args, .layout = { .project_guest = project } };

	p.github.n = 2;
	p.github.v[0] = (struct ghlist_repo){ { "acme", "app", GH_WRITE }, NULL };
	p.github.v[1] = (struct ghlist_repo){ { "acme", "lib", GH_READ }, ".gitmodules" };
	check_has(agent_instructions(&p), "login: none. All others", true);
	check_has(agent_instructions(&p), "acme/app", false);
	p.creds.launch.lent = PH_BIT(PH_GH);
	check_has(agent_instructions(&p), "login: write acme/app; read acme/lib (.gitmodules). All others", true);
	check_has(agent_instructions(&p), "--repo OWNER/NAME", true);
	args.no_network = true;
	check_has(agent_instructions(&p), "GitHub repositories", false);
}

TEST(the_agent_is_told_what_guards_git)
{
	char verb[] = "claude", mode[] = "ro", project[] = "/srv/p";
	struct launch_args args = { .verb = verb, .git_config = mode };
	struct plan p = { .args = &args, .layout = { .project_guest = project }, .namespaces = true };

	check_has(agent_instructions(&p), "`.git/hooks` and `.git/config` are read-only", true);
	p.namespaces = false;
	check_has(agent_instructions(&p), "read-only", false);
	strv_add(&p.layout.guard.configs, "/srv/p/.git/config");
	check_has(agent_instructions(&p), "read-only", false);
	check_has(agent_instructions(&p), "every other change is undone", true);
	p.namespaces = true;
	check_has(agent_instructions(&p), "`.git/hooks` is read-only", true);
	strv_done(&p.layout.guard.configs);
}

/* It is one of OpenAI's. */
TEST(opencodes_model_is_pinned_only_where_it_can_be_reached)
{
	static const char path[] = "opencode-config/opencode.json", pinned[] = "{\"model\":\"openai/gpt-5.5\"}";
	const struct agent_logins none = { 0 }, openai = { .opencode_openai = true };

	check_has(after(true, &openai, path, "{}"), "openai/gpt-5.5", true);
	check_has(after(true, &openai, path, "{\"model\":\"zai/glm\"}"), "zai/glm", true);
	check_has(after(true, &none, path, "{}"), "model", false);
	check_has(after(true, &none, path, pinned), "model", false);
	check_has(after(true, &none, path, "{\"model\":\"zai/glm\"}"), "zai/glm", true);
	/* Another session of the project may have the login. */
	check_has(after(false, &none, path, pinned), "openai/gpt-5.5", true);
}
