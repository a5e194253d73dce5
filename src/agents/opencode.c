#include "agents/agent.h"

/* Those of its default command and the global ones. */
static const char *const known[] = {
	"agent", "auto", "continue", "cors", "fork", "help", "hostname", "log-level", "mdns", "mdns-domain", "model",
	"port", "print-logs", "prompt", "pure", "session", "version", NULL,
};

const struct agent agent_opencode = { .verb = "opencode", .program = "opencode", .known = known };
