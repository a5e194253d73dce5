#include "session/sink_places.h"

#include <fnmatch.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"

struct place {
	const char *pattern; /* of fnmatch(3); with a slash: of the end of the path from a whole component on */
	enum sink_class class;
};

/* "DIR/" is everything below such a folder, wherever it lies. */
static const struct place places[] = {
	{ ".envrc", SINK_ITSELF },
	{ ".vscode/tasks.json", SINK_ITSELF },
	{ ".vscode/settings.json", SINK_ITSELF },
	{ ".vscode/launch.json", SINK_ITSELF },
	{ "*.code-workspace", SINK_ITSELF },
	{ ".idea/", SINK_ITSELF },
	{ ".devcontainer/", SINK_ITSELF },
	{ ".devcontainer.json", SINK_ITSELF },
	{ ".claude/settings*.json", SINK_ITSELF },
	{ ".claude/hooks/", SINK_ITSELF },
	{ ".claude/commands/", SINK_ITSELF },
	{ ".mcp.json", SINK_ITSELF },
	{ ".codex/", SINK_ITSELF },
	{ ".cursor/", SINK_ITSELF },
	{ "opencode.json", SINK_ITSELF },
	{ ".husky/", SINK_ITSELF },
	{ ".agentvmignore", SINK_ITSELF },
	{ ".agent-vm.conf", SINK_ITSELF },
	/* Links in a folder's place. */
	{ ".vscode", SINK_ITSELF },
	{ ".idea", SINK_ITSELF },
	{ ".devcontainer", SINK_ITSELF },
	{ ".claude", SINK_ITSELF },
	{ ".claude/hooks", SINK_ITSELF },
	{ ".claude/commands", SINK_ITSELF },
	{ ".codex", SINK_ITSELF },
	{ ".cursor", SINK_ITSELF },
	{ ".husky", SINK_ITSELF },

	{ "Makefile", SINK_BUILD },
	{ "makefile", SINK_BUILD },
	{ "GNUmakefile", SINK_BUILD },
	{ "CMakeLists.txt", SINK_BUILD },
	{ "package.json", SINK_BUILD },
	{ "setup.py", SINK_BUILD },
	{ "pyproject.toml", SINK_BUILD },
	{ "build.rs", SINK_BUILD },
	{ "build.gradle*", SINK_BUILD },
	{ "pom.xml", SINK_BUILD },
	{ ".pre-commit-config.yaml", SINK_BUILD },
	{ ".github/workflows/", SINK_BUILD },
	{ ".github/workflows", SINK_BUILD },
	{ ".gitlab-ci.yml", SINK_BUILD },
	{ "CLAUDE.md", SINK_BUILD },
	{ "AGENTS.md", SINK_BUILD },
	{ ".agent-vm.runtime.sh", SINK_BUILD },
};

/* Is @what, which ends in a slash, a run of whole components of @path? */
static bool lies_in(const char *path, const char *what)
{
	for (const char *at = strstr(path, what); at; at = strstr(at + 1, what))
		if (at == path || at[-1] == '/')
			return true;
	return false;
}

/* The end of @path that has as many slashes as @pattern. */
static const char *tail(const char *path, const char *pattern)
{
	const char *at = path + strlen(path);
	size_t slashes = 1;

	for (; *pattern; pattern++)
		slashes += *pattern == '/';
	while (at > path) {
		if (at[-1] == '/' && --slashes == 0)
			break;
		at--;
	}
	return at;
}

enum sink_class sink_class_of(const char *path)
{
	/* What npm unpacks has such files by the thousand; nobody opens an editor there. */
	if (lies_in(path, "node_modules/"))
		return SINK_NONE;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const char *p = places[i].pattern;

		if (p[strlen(p) - 1] == '/' ? lies_in(path, p) : fnmatch(p, tail(path, p), FNM_PATHNAME) == 0)
			return places[i].class;
	}
	return SINK_NONE;
}

/* "https://host/x", "ssh://", "git://", "file://", "host:path", "path": without a remote helper ("ext::command") and
 * without what ssh or git would take for an option. */
static bool url_is_plain(const char *url)
{
	static const char *const schemes[] = { "https://", "http://", "ssh://", "git://", "file://" };
	const char *rest = url, *at;

	if (strstr(url, "::") || url[0] == '-')
		return false;
	if (strstr(url, "://")) {
		bool known = false;

		for (size_t i = 0; i < ARRAY_SIZE(schemes) && !known; i++)
			if (str_starts(url, schemes[i])) {
				known = true;
				rest = url + strlen(schemes[i]);
			}
		if (!known)
			return false;
	}
	at = strchr(rest, '@');
	return rest[0] != '-' && !(at && at[1] == '-');
}

static bool is_any(const char *key, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(key, *list) == 0)
			return true;
	return false;
}

#define ANY(key, ...) is_any(key, (const char *const[]){ __VA_ARGS__, NULL })

bool sink_config_is_harmless(const struct gitconfig_entry *e)
{
	const char *value = e->value ? e->value : "true";

	if (strcmp(e->section, "branch") == 0 && e->sub)
		return ANY(e->key, "merge", "rebase", "description", "gh-merge-base") ||
		       (ANY(e->key, "remote", "pushremote") && url_is_plain(value));
	if (strcmp(e->section, "remote") == 0 && e->sub)
		return ANY(e->key, "fetch", "gh-resolved") || (ANY(e->key, "url", "pushurl") && url_is_plain(value));
	if (strcmp(e->section, "submodule") == 0 && e->sub)
		return strcmp(e->key, "active") == 0 || (strcmp(e->key, "url") == 0 && url_is_plain(value));
	if (strcmp(e->section, "color") == 0)
		return true;
	if (e->sub)
		return false;
	return (strcmp(e->section, "user") == 0 && ANY(e->key, "name", "email")) ||
	       (strcmp(e->section, "core") == 0 && ANY(e->key, "repositoryformatversion", "filemode", "bare", "logallrefupdates",
						       "ignorecase", "symlinks", "autocrlf", "eol")) ||
	       strcmp(e->section, "pull") == 0 || (strcmp(e->section, "fetch") == 0 && strcmp(e->key, "prune") == 0) ||
	       (strcmp(e->section, "gc") == 0 && strcmp(e->key, "auto") == 0);
}
