#include "agents/agent.h"

static const char *const unless[] = { "--allow-all-tools", "--allow-all", "--yolo", NULL };

static const char *const known[] = {
	"acp", "add-dir", "add-github-mcp-tool", "add-github-mcp-toolset", "additional-mcp-config", "agent",
	"allow-all", "allow-all-paths", "allow-all-tools", "allow-all-urls", "allow-tool", "allow-url", "alt-screen",
	"autopilot", "available-tools", "banner", "bash-env", "config-dir", "connect", "continue", "deny-tool",
	"deny-url", "disable-builtin-mcps", "disable-mcp-server", "disable-parallel-tools-execution",
	"disallow-temp-dir", "effort", "enable-all-github-mcp-tools", "excluded-tools", "experimental", "help",
	"interactive", "log-dir", "log-level", "max-autopilot-continues", "mode", "model", "mouse", "name",
	"no-ask-user", "no-auto-update", "no-banner", "no-color", "no-custom-instructions", "no-experimental",
	"no-mouse", "no-remote", "output-format", "plain-diff", "plan", "plugin-dir", "prompt", "reasoning-effort",
	"remote", "resume", "screen-reader", "secret-env-vars", "session-id", "share", "share-gist", "silent", "stream",
	"version", "worktree", "yolo", NULL,
};

const struct agent agent_copilot = {
	.verb = "copilot",
	.program = "copilot",
	/* Tools, paths and URLs: with "--allow-all-tools" alone it asks about each path outside the project. */
	.flag = "--allow-all",
	.unless = unless,
	.known = known,
};
