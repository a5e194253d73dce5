#include "agents/agent.h"

static const char *const unless[] = { "--dangerously-skip-permissions", "--permission-mode", NULL };

static const char *const known[] = {
	"add-dir", "agent", "agents", "allow-dangerously-skip-permissions", "allowed-tools", "allowedTools",
	"append-system-prompt", "append-system-prompt-file", "bare", "betas", "bg", "brief", "channels", "chrome",
	"continue", "dangerously-skip-permissions", "debug", "debug-file", "disable-slash-commands",
	"disallowed-tools", "disallowedTools", "effort", "exclude-dynamic-system-prompt-sections", "fallback-model",
	"file", "fork-session", "from-pr", "help", "ide", "include-hook-events", "include-partial-messages", "init",
	"init-only", "input-format", "json-schema", "maintenance", "max-budget-usd", "max-turns", "mcp-config",
	"mcp-debug", "model", "name", "no-chrome", "no-session-persistence", "output-format", "permission-mode",
	"permission-prompt-tool", "plugin-dir", "plugin-url", "print", "prompt-suggestions", "remote",
	"remote-control", "replay-user-messages", "resume", "safe-mode", "session-id", "setting-sources", "settings",
	"strict-mcp-config", "system-prompt", "system-prompt-file", "teammate-mode", "teleport", "tmux", "tools",
	"verbose", "version", "worktree", NULL,
};

const struct agent agent_claude = {
	.verb = "claude",
	.program = "claude",
	.flag = "--dangerously-skip-permissions",
	.unless = unless,
	.known = known,
};
