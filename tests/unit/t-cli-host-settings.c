#include "cli/host_settings.h"

#include "files.h"
#include "vault/secret.h"

static void take(const char *top, const char *setup, struct host_settings *h, struct strv *notes)
{
	char *home = files_at(top, "home"), *session = files_at(top, "session");
	static bool open_already;
	struct err err;
	int fd;

	if (!open_already)
		CHECK_INT(secret_arena_open(SECRET_ARENA, &err), ==, 0);
	open_already = true;
	unsetenv("CLAUDE_CONFIG_DIR");
	unsetenv("CODEX_HOME");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("COPILOT_HOME");
	files_sh(top, "mkdir home session");
	files_sh(home, setup);
	fd = open(session, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* The guest is given the folder before there is anything in it. */
	if (host_settings_folder(home, fd, session, h))
		files_sh(h->dir, "! ls -A | grep .");
	host_settings_take(home, fd, h, notes);
	close(fd);
	free(home);
	free(session);
}

static bool has(const struct strv *v, const char *text)
{
	for (size_t i = 0; i < v->n; i++)
		if (strstr(v->v[i], text))
			return true;
	return false;
}

TEST(what_the_list_names_is_copied_and_linked)
{
	char *top = files_tmp("/tmp");
	struct strv notes = { 0 };
	struct host_settings h;

	take(top, "mkdir -p .claude/skills/a/lib .claude/agents .codex/prompts .config/opencode/agent .copilot && echo mine > .claude/CLAUDE.md && "
		  "echo s > .claude/skills/a/SKILL.md && echo '#!' > .claude/skills/a/lib/run && chmod 755 .claude/skills/a/lib/run && "
		  "echo p > .codex/prompts/p.md && echo own > .codex/AGENTS.md && echo o > .config/opencode/agent/x.md && "
		  "echo c > .copilot/copilot-instructions.md",
	     &h, &notes);
	CHECK_INT(notes.n, ==, 0);
	CHECK_INT(h.links.n, ==, 4);
	CHECK(has(&h.links, "claude/CLAUDE.md") && has(&h.links, "claude/skills/a") && has(&h.links, "codex/prompts/p.md") &&
	      has(&h.links, "opencode-config/agent/x.md"));
	CHECK_STR(h.codex, "own\n");
	CHECK_STR(h.copilot, "c\n");
	CHECK(!h.opencode && strstr(h.dir, "/session/host-settings"));
	files_sh(h.dir, "test \"$(cat claude/CLAUDE.md)\" = mine && test -x claude/skills/a/lib/run && ! test -x claude/skills/a/SKILL.md");
	host_settings_done(&h);
	files_rm(top);
}

TEST(logins_links_and_all_else_stay_on_the_host)
{
	char *top = files_tmp("/tmp");
	struct strv notes = { 0 };
	struct host_settings h;

	take(top, "mkdir -p .claude/skills/a .codex .copilot .config/opencode && echo CANARY > secret && echo CANARY > .claude/.credentials.json && "
		  "echo CANARY > .codex/auth.json && echo CANARY > .codex/config.toml && echo CANARY > .claude.json && "
		  "ln -s ../secret .claude/CLAUDE.md && ln -s ../../../secret .claude/skills/a/x && ln -s ../.. .claude/skills/up && "
		  "ln -s ../.. .claude/agents && echo CANARY > .claude/skills/a/.credentials.json && echo CANARY > .claude/skills/a/.env.local && "
		  "echo CANARY > .claude/skills/a/k.pem && mkfifo .claude/skills/a/f && ln -s ../secret .codex/AGENTS.md && "
		  "echo CANARY > .claude/projects && echo ok > .claude/skills/a/SKILL.md && mkdir -p .claude/commands/credentials && "
		  "echo CANARY > .claude/commands/credentials/x",
	     &h, &notes);
	files_sh(h.dir, "test \"$(find . -type f)\" = ./claude/skills/a/SKILL.md && ! find . -type l | grep . && ! grep -r CANARY .");
	CHECK_INT(h.links.n, ==, 1);
	CHECK(!h.codex);
	CHECK(has(&notes, "/.claude/CLAUDE.md: is a link") && has(&notes, "/.claude/skills/up: is a link") && has(&notes, "AGENTS.md: is a link") &&
	      has(&notes, "/skills/a/f: is no file"));
	host_settings_done(&h);
	strv_done(&notes);
	files_rm(top);
}

TEST(opencodes_folders_go_by_two_names_and_a_settings_file_that_is_a_link_is_told)
{
	char *top = files_tmp("/tmp");
	struct strv notes = { 0 };
	struct host_settings h;

	take(top, "mkdir -p .claude .config/opencode/agents/team .config/opencode/commands .config/opencode/command && echo a > .config/opencode/agents/a.md && "
		  "echo b > .config/opencode/agents/team/b.md && echo c > .config/opencode/commands/c.md && echo d > .config/opencode/command/d.md && "
		  "echo '{\"theme\":\"light\"}' > .config/settings.json && ln -s ../.config/settings.json .claude/settings.json",
	     &h, &notes);
	CHECK_INT(h.links.n, ==, 4);
	CHECK(has(&h.links, "opencode-config/agents/a.md") && has(&h.links, "opencode-config/agents/team") &&
	      has(&h.links, "opencode-config/commands/c.md") && has(&h.links, "opencode-config/command/d.md"));
	CHECK_INT(h.members.n, ==, 0);
	CHECK_INT(notes.n, ==, 1);
	CHECK(has(&notes, "/.claude/settings.json: is a link"));
	host_settings_done(&h);
	strv_done(&notes);
	files_rm(top);
}

TEST(a_tree_without_end_is_cut)
{
	char *top = files_tmp("/tmp");
	struct strv notes = { 0 };
	struct host_settings h;

	take(top, "mkdir -p .claude/skills/1/2/3/4/5/6/7/8/9/10 .claude/commands && truncate -s 40M .claude/commands/big && echo x > .claude/CLAUDE.md", &h,
	     &notes);
	CHECK(has(&notes, "more than 32 MiB"));
	CHECK(has(&h.links, "claude/CLAUDE.md") && !has(&h.links, "big"));
	host_settings_done(&h);
	strv_done(&notes);
	files_rm(top);
}

TEST(claudes_settings_without_what_belongs_to_the_host)
{
	char *top = files_tmp("/tmp");
	struct strv notes = { 0 };
	struct host_settings h;

	take(top, "mkdir .claude && echo '{\"model\":\"opus\",\"env\":{\"K\":\"CANARY\"},\"hooks\":{},\"permissions\":{},\"apiKeyHelper\":\"x\","
		  "\"statusLine\":{\"type\":\"command\",\"command\":\"/x\"},\"awsAuthRefresh\":\"x\",\"otelHeadersHelper\":\"x\",\"theme\":\"light\","
		  "\"deep\":[{\"command\":1}]}' > .claude/settings.json",
	     &h, &notes);
	CHECK_INT(h.members.n, ==, 4);
	CHECK_STR(h.members.v[0], "model");
	CHECK_STR(h.members.v[1], "\"opus\"");
	CHECK_STR(h.members.v[2], "theme");
	CHECK(!h.dir);
	host_settings_done(&h);
	files_rm(top);
	top = files_tmp("/tmp");
	take(top, "mkdir .claude && echo '{' > .claude/settings.json", &h, &notes);
	CHECK(has(&notes, "settings.json: is no JSON object") && h.members.n == 0);
	host_settings_done(&h);
	strv_done(&notes);
	files_rm(top);
}

/* How often a text is in what this process can write, but for its stack. @shifted: each of its bytes one higher, so that the text
 * itself is not there. Freed memory is looked at on purpose. */
__attribute__((no_sanitize("address"))) static unsigned in_memory(const char *shifted)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	size_t n = strlen(shifted);
	unsigned long from, to;
	unsigned found = 0;
	char line[512], mode[8];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		const unsigned char *p;

		/* Without the sanitizer's shadow, which is larger than all there is. */
		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || strncmp(mode, "rw", 2) != 0 || to - from > 256UL << 20 ||
		    strstr(line, "[stack") || strstr(line, ".so"))
			continue;
		p = (const unsigned char *)(uintptr_t)from;
		for (size_t i = 0; i + n <= to - from; i++) {
			size_t k = 0;

			while (k < n && p[i + k] + 1 == shifted[k])
				k++;
			found += k == n;
		}
	}
	(void)fclose(maps);
	return found;
}

TEST(no_copy_of_what_is_not_taken_stays_in_memory)
{
	char *top = files_tmp("/tmp"), *seen;
	struct strv notes = { 0 };
	struct host_settings h;

	/* Written by the shell from two halves, so that the whole is nowhere but in the file. */
	take(top, "mkdir .claude && printf '{\"theme\":\"dark\",\"env\":{\"K\":\"%s%s\"},\"outputStyle\":\"x://%s%s@h\"}' SETTCANA RYCANARY "
		  "SETTCANA RYCANARY > .claude/settings.json",
	     &h, &notes);
	CHECK_INT(h.members.n, ==, 2);
	CHECK_INT(in_memory("TFUUDBOBSZDBOBSZ"), ==, 0);
	/* That it can be seen at all. */
	seen = xasprintf("%s%s", "SETTCANA", "RYCANARY");
	CHECK_INT(in_memory("TFUUDBOBSZDBOBSZ"), ==, 1);
	free(seen);
	host_settings_done(&h);
	strv_done(&notes);
	files_rm(top);
}

TEST(secrets_within_claudes_settings_stay_on_the_host)
{
	static const struct {
		const char *member; /* with its value; the guest gets it or not */
		bool taken;
	} rows[] = {
		{ "\"extraKnownMarketplaces\":{\"m\":{\"source\":{\"source\":\"url\",\"url\":\"https://h/m.json\",\"headers\":{\"Authorization\":\"CANARY\"}}}}", false },
		{ "\"pluginConfigs\":{\"p\":{\"options\":{\"apiKey\":\"CANARY\"}}}", false },
		{ "\"mcpServers\":{\"s\":{\"url\":\"https://h\",\"headers\":{\"X\":\"CANARY\"}}}", false },
		{ "\"notYetKnown\":\"CANARY\"", false },
		{ "\"statusLine\":{\"type\":\"command\",\"\\u0063ommand\":\"CANARY\"}", false },
		{ "\"attribution\":{\"commit\":\"\",\"pr\":\"mine\"}", true },
		{ "\"attribution\":{\"x\":[{\"API_TOKENS\":\"CANARY\"}]}", false },
		{ "\"attribution\":{\"x\":{\"ap\\u0069k\\u0065y\":[\"CANARY\"]}}", false },
		{ "\"attribution\":{\"myPassword\":\"CANARY\"}", false },
		{ "\"attribution\":{\"clientSecret\":\"CANARY\"}", false },
		{ "\"attribution\":{\"Headers\":{}}", false },
		{ "\"attribution\":{\"ENV\":{}}", false },
		{ "\"attribution\":{\"xHelper\":\"CANARY\"}", false },
		{ "\"attribution\":{\"pr\":\"see https://user:CANARY@h/x\"}", false },
		{ "\"attribution\":{\"pr\":\"https:\\/\\/CANARY@h\"}", false },
		{ "\"attribution\":{\"pr\":\"https://h/ and ssh://CANARY@h/\"}", false },
		{ "\"attribution\":{\"pr\":\"https://h/@me\"}", true },
		{ "\"enabledPlugins\":{\"monkey@market\":true}", true },
		{ "\"outputStyle\":\"Explanatory\"", true },
		{ "\"cleanupPeriodDays\":7", true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char *top = files_tmp("/tmp"), *setup;
		struct strv notes = { 0 };
		struct host_settings h;

		setup = xasprintf("mkdir .claude && printf '{%%s}' '%s' > .claude/settings.json", rows[i].member);
		take(top, setup, &h, &notes);
		if (h.members.n != (rows[i].taken ? 2 : 0))
			fail_msg("%s: %zu", rows[i].member, h.members.n);
		CHECK(!has(&notes, "CANARY"));
		host_settings_done(&h);
		strv_done(&notes);
		free(setup);
		files_rm(top);
	}
}
