#include "cli/agent_files.h"

#include <errno.h>
#include <string.h>

#include "base/jread.h"
#include "base/macros.h"
#include "cli/netplan.h"
#include "cli/orders.h"
#include "cli/state_rules.h"
#include "proto/rec.h"
#include "vault/hostfile.h"

#define OPENCODE_MODEL "\"openai/gpt-5.5\""
#define CHROME_MCP "/usr/local/bin/agent-vm-chrome-mcp"
#define CHROME_MCP_ENTRY                                                                                               \
	"{\"command\":\"" CHROME_MCP "\",\"args\":[\"npx\",\"-y\",\"chrome-devtools-mcp@1.0.1\",\"--headless=true\","   \
	"\"--isolated=true\"],\"env\":{\"CHROME_DEVTOOLS_MCP_NO_USAGE_STATISTICS\":\"1\"}}"

static void set(struct state_rules *w, const char *const *keys, const char *value)
{
	state_rule(w, GC_RULE_SET, keys, value);
}

static void unless_there(struct state_rules *w, const char *const *keys, const char *value)
{
	state_rule(w, GC_RULE_DEFAULT, keys, value);
}

/* One login of a file. What the host does not have goes, but not while another session may use it. */
static void login(struct state_rules *w, const struct plan *p, const char *const *keys, const char *json)
{
	if (json || p->alone)
		state_rule(w, GC_RULE_LOGIN, keys, json);
}

static bool chrome_wanted(void)
{
	const char *v = getenv("AGENT_VM_NO_CHROME_MCP");

	return !v || str_switch(v) == 0;
}

static void claude(struct state_rules *w, const struct plan *p, const struct agent_logins *logins)
{
	const struct strv *members = &p->settings.members;
	const char *project = p->layout.project_guest;
	AUTO_FREE(char, tail);

	state_begin(w, "claude/settings.json", GC_FORM_JSON);
	for (size_t i = 0; i + 1 < members->n; i += 2)
		unless_there(w, STATE_KEYS(members->v[i]), members->v[i + 1]);
	set(w, STATE_KEYS("hasCompletedOnboarding"), "true");
	set(w, STATE_KEYS("skipDangerousModePermissionPrompt"), "true");
	unless_there(w, STATE_KEYS("theme"), "\"dark\"");
	unless_there(w, STATE_KEYS("effortLevel"), "\"xhigh\"");
	state_end(w);

	tail = logins->api_key_tail ? state_json_string(logins->api_key_tail) : NULL;
	state_begin(w, "claude.json", GC_FORM_JSON);
	set(w, STATE_KEYS("hasCompletedOnboarding"), "true");
	set(w, STATE_KEYS("bypassPermissionsModeAccepted"), "true");
	set(w, STATE_KEYS("projects", project, "hasTrustDialogAccepted"), "true");
	set(w, STATE_KEYS("projects", project, "hasCompletedProjectOnboarding"), "true");
	unless_there(w, STATE_KEYS("projects", project, "history"), "[]");
	if (chrome_wanted()) {
		state_rule_with(w, CHROME_MCP, GC_RULE_SET, STATE_KEYS("mcpServers", "chrome-devtools"), CHROME_MCP_ENTRY);
		/* Of a session with another image; one that lives may use it. */
		if (p->alone)
			state_rule_with(w, CHROME_MCP, GC_RULE_ORPHAN, STATE_KEYS("mcpServers", "chrome-devtools"), NULL);
	} else {
		state_rule(w, GC_RULE_DROP, STATE_KEYS("mcpServers", "chrome-devtools"), NULL);
	}
	if (tail || p->alone)
		state_rule(w, GC_RULE_TAIL, STATE_KEYS("customApiKeyResponses", "approved"), tail);
	state_end(w);
}

static void codex(struct state_rules *w, const char *project)
{
	state_begin(w, "codex/config.toml", GC_FORM_TOML);
	state_content(w, "approval_policy = \"never\"\nsandbox_mode = \"danger-full-access\"\n");
	state_rule(w, GC_RULE_TABLE, STATE_KEYS("projects", project), "trust_level = \"trusted\"\n");
	state_end(w);
}

static void opencode(struct state_rules *w, const struct plan *p, const struct agent_logins *logins)
{
	state_begin(w, "opencode-config/opencode.json", GC_FORM_JSONC);
	unless_there(w, STATE_KEYS("$schema"), "\"https://opencode.ai/config.json\"");
	unless_there(w, STATE_KEYS("autoupdate"), "false");
	if (logins->opencode_openai)
		unless_there(w, STATE_KEYS("model"), OPENCODE_MODEL);
	else if (p->alone) /* another session may have that login */
		state_rule(w, GC_RULE_DROP, STATE_KEYS("model"), OPENCODE_MODEL);
	state_end(w);
}

static void copilot(struct state_rules *w, const struct plan *p, const struct agent_logins *logins)
{
	AUTO_FREE(char, token);

	token = logins->copilot ? state_json_string(logins->copilot) : NULL;
	state_begin(w, "copilot/config.json", GC_FORM_JSONC);
	set(w, STATE_KEYS("trusted_folders"), "[\"/\"]");
	set(w, STATE_KEYS("trustedFolders"), "[\"/\"]");
	if (token)
		set(w, STATE_KEYS("github_token"), token);
	else
		login(w, p, STATE_KEYS("github_token"), NULL);
	state_end(w);
	/* What it brings by itself asks GitHub with the token for every repository, which gate refuses: each start would show
	 * a failure. */
	state_begin(w, "copilot/settings.json", GC_FORM_JSONC);
	unless_there(w, STATE_KEYS("disabledMcpServers"), "[\"github-mcp-server\"]");
	state_end(w);
}

/* The user's own text, then ours. */
static void block(struct state_rules *w, const char *path, const char *own, const char *text)
{
	AUTO_FREE(char, all);

	if (own)
		text = all = xasprintf("%s%s\n%s", own, *own && own[strlen(own) - 1] != '\n' ? "\n" : "", text);
	state_begin(w, path, GC_FORM_BLOCK);
	state_content(w, text);
	state_end(w);
}

static void list(char **text, const char *label, const struct strv *rows)
{
	for (size_t i = 0; i < rows->n; i++) {
		AUTO_FREE(char, line);

		line = xasprintf("- %s: %s\n", label, rows->v[i]);
		str_append(text, line);
	}
}

/* Which repositories git and gh may use with the user's login. */
static char *about_github(const struct plan *p)
{
	AUTO_FREE(char, repos);

	if (p->args->no_network)
		return xstrdup("");
	repos = p->creds.launch.lent & PH_BIT(PH_GH) ? ghlist_repos(&p->github) : xstrdup("none");
	return xasprintf("\nGitHub repositories that `git` and `gh` use with the user's login: %s. All others can be read as far as they are "
			 "public, and not be written to; the user adds one at the start with `agent-vm ... --repo OWNER/NAME` (or "
			 "`OWNER/NAME=read`).\n", repos);
}

char *agent_instructions(const struct plan *p)
{
	const struct layout_rows *rows = &p->layout.rows;
	AUTO_FREE(char, network);
	AUTO_FREE(char, github);
	AUTO_FREE(char, line);
	char *text = xstrdup("# This machine is a virtual machine (agent-vm)\n\n"
			     "You are root here and may install and change what you like. The machine ends with the session; what stays is "
			     "the project folder and the agents' own settings and history.\n\n"
			     "Shared with the host:\n");

	list(&text, "project", &rows->project);
	list(&text, "git directory", &rows->git);
	list(&text, "folder", &rows->mounts);
	if (rows->hidden.n > 0)
		list(&text, "shown empty on purpose", &rows->hidden);
	network = netplan_text(p->args, &p->net);
	line = xasprintf("\nNetwork: %s. Private addresses, the host and cloud metadata are refused unless that line names them; the user "
			 "opens them at the start with `agent-vm ... --allow-egress ADDRESS:PORT`, `--allow-lan` or `--allow-host`.\n",
			 network);
	str_append(&text, line);
	str_append(&text,
		   "\nLogins: tokens and keys that you find here begin with `avm-` or `gho_avm_` and are placeholders. They work towards "
		   "their own service and nowhere else, and are worth nothing outside.\n");
	github = about_github(p);
	str_append(&text, github);
	/* Without namespaces nothing is bound, and what changed is in the report at the end. */
	if (p->layout.guard.configs.n > 0) {
		str_append(&text, p->namespaces ?
			   "\nGit: `.git/hooks` is read-only, because what stands there would run on the host. " :
			   "\nGit: leave `.git/hooks` as it is: what stands there would run on the host, and the user is told of changes. ");
		str_append(&text,
			   "In `.git/config` branches, remotes, your name and a few more may be changed; every other change is undone at "
			   "once, and after the tenth the user's side ends this machine. ");
	} else {
		str_append(&text, p->namespaces ?
			   "\nGit: `.git/hooks` and `.git/config` are read-only, because what stands there would run on the host.\n"
			   "`git push -u` and `git checkout -b X origin/X` work but cannot record what they track, and say so; plain "
			   "`git push` pushes the current branch to the branch of its name. " :
			   "\nGit: leave `.git/hooks` as it is and change nothing in `.git/config` but branches and remotes: what stands "
			   "there would run on the host, and the user is told of changes. ");
	}
	str_append(&text, "SSH is closed: GitHub is reached by https.\n");
	str_append(&text,
		   "\nWhat is refused says why, in an HTTP answer or an error. Do not look for a way around it: tell the user what you "
		   "need and which option of agent-vm would open it (`agent-vm logs --denied` on the host lists refusals with the "
		   "option or the command that tells it).\n");
	return text;
}

/* @alone: a file that is not wanted goes; another session may need it. */
static void text_file(struct state_rules *w, const char *path, const char *text, bool alone)
{
	if (!text && !alone)
		return;
	state_begin(w, path, text ? GC_FORM_TEXT : GC_FORM_NONE);
	if (text)
		state_content(w, text);
	state_end(w);
}

static void git(struct state_rules *w, const struct plan *p, const struct agent_logins *logins)
{
	const char *login = p->gitid.login ? p->gitid.login : "x-access-token";
	AUTO_FREE(char, config);
	AUTO_FREE(char, hosts);

	config = gitid_config(&p->gitid, strcmp(p->args->git_config, "ro") == 0, logins->github);
	hosts = logins->github ? gitid_hosts(login, logins->github) : NULL;
	/* It would take the helper away from another session that has one. */
	if (logins->github || p->alone)
		text_file(w, "gitconfig", config, p->alone);
	text_file(w, "gh-config/hosts.yml", hosts, p->alone);
	/* Without its version gh moves the old layout to the new one, for which it asks GitHub who the user is. */
	text_file(w, "gh-config/config.yml", hosts ? "version: \"1\"\n" : NULL, p->alone);
}

/* Of the ids of OpenCode's file only those that it has are asked for: a session with fewer logins leaves the others. */
static void opencode_login(struct state_rules *w, const struct plan *p, const char *id, const char *file)
{
	struct span all, v;
	bool there = file && jread_check(span_str(file), 8, &all) == 0 && jread_member(all, id, &v);

	if (there || p->alone)
		state_rule(w, GC_RULE_LOGIN, STATE_KEYS(id), file);
}

static void login_files(struct state_rules *w, const struct plan *p, const struct agent_logins *logins)
{
	state_begin(w, "claude/.credentials.json", GC_FORM_JSON);
	login(w, p, STATE_KEYS("claudeAiOauth"), logins->claude_file);
	state_end(w);
	state_begin(w, "codex/auth.json", GC_FORM_JSON);
	login(w, p, STATE_KEYS("auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh"), logins->codex_file);
	state_end(w);
	state_begin(w, "opencode/auth.json", GC_FORM_JSON);
	opencode_login(w, p, "openai", logins->opencode_file);
	for (size_t i = 0; hostfile_opencode_id(i); i++)
		opencode_login(w, p, hostfile_opencode_id(i), logins->opencode_file);
	state_end(w);
}

/* Links to the copies of the user's own settings. Old ones go when no other guest could follow them. */
static void settings(struct state_rules *w, const struct plan *p)
{
	for (size_t i = 0; p->alone && host_settings_folders[i]; i++) {
		state_begin(w, host_settings_folders[i], GC_FORM_SWEEP);
		state_end(w);
	}
	for (size_t i = 0; i < p->settings.links.n; i++) {
		AUTO_FREE(char, target);

		target = xasprintf(GC_HOST_AT "/%s", p->settings.links.v[i]);
		state_begin(w, p->settings.links.v[i], GC_FORM_LINK);
		state_target(w, target);
		state_end(w);
	}
}

/* And which sessions may go on with theirs. */
static int databases(const struct plan *p, struct buf *out)
{
	static const struct {
		const char *name, *link;
	} dbs[] = { { "codex", NULL }, { "opencode", NULL }, { "copilot", "session-store.db" } };

	for (size_t i = 0; i < ARRAY_SIZE(dbs); i++) {
		ssize_t at = rec_begin(out, GC_DB);

		if (at < 0 || rec_put_str(out, GC_PATH, dbs[i].name) < 0 || rec_put_str(out, GC_SUB, dbs[i].name) < 0 ||
		    (dbs[i].link && rec_put_str(out, GC_LINK, dbs[i].link) < 0))
			return -ENOBUFS;
		rec_end(out, (size_t)at);
	}
	if (!p->others_known || p->others.n > GC_LIVE_MAX)
		return 0;
	for (size_t i = 0; i < p->others.n; i++)
		if (rec_put_str(out, GC_LIVE, p->others.v[i]) < 0)
			return -ENOBUFS;
	return rec_put_u64(out, GC_FLAGS, GC_F_LIVE);
}

int agent_files(const struct plan *p, const struct agent_logins *logins, struct buf *out)
{
	/* Codex' lowest layer of settings; the user's own file wins. Without the last line its first start copies itself into
	 * CODEX_HOME and leaves a server running. */
	static const char codex_defaults[] = "sandbox_mode = \"danger-full-access\"\napproval_policy = \"never\"\n"
					     "check_for_update_on_startup = false\n\n[features]\ndaemon_auto_start = false\n";
	const char *project = p->layout.project_guest, *verb = p->args->verb;
	struct state_rules w = { .out = out };
	AUTO_FREE(char, text);

	text = agent_instructions(p);
	claude(&w, p, logins);
	codex(&w, project);
	opencode(&w, p, logins);
	login_files(&w, p, logins);
	if (strcmp(verb, "copilot") == 0 || strcmp(verb, "shell") == 0)
		copilot(&w, p, logins);
	git(&w, p, logins);
	block(&w, "codex/AGENTS.md", p->settings.codex, text);
	block(&w, "opencode-config/AGENTS.md", p->settings.opencode, text);
	block(&w, "copilot/copilot-instructions.md", p->settings.copilot, text);
	settings(&w, p);
	if (w.failed || databases(p, out) < 0 || orders_file(out, "/etc/codex/config.toml", 0644, codex_defaults) < 0)
		return -ENOBUFS;
	return orders_file(out, "/etc/claude-code/CLAUDE.md", 0644, text);
}
