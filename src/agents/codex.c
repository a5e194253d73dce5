#include "agents/agent.h"

static const char *const known[] = {
	"add-dir", "ask-for-approval", "cd", "config", "dangerously-bypass-approvals-and-sandbox",
	"dangerously-bypass-hook-trust", "disable", "enable", "full-auto", "help", "image", "local-provider", "model",
	"no-alt-screen", "oss", "profile", "remote", "remote-auth-token-env", "sandbox", "search", "strict-config",
	"version", "yolo", NULL,
};

const struct agent agent_codex = { .verb = "codex", .program = "codex", .known = known };
