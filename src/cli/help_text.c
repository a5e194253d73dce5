#include "cli/help_text.h"

#include <ctype.h>

#include "cli/launch_args.h"

extern const struct cmd cmd_shell;
const struct cmd *const help_launch = &cmd_shell;

const char help_summary[] = "run a coding agent in a virtual machine made for one folder";

const char help_about[] = "The project is the current folder. The guest sees it at the same path and may change it; of "
			  "the rest of this host "
			  "it sees nothing. The machine is thrown away when the agent ends; history and settings of "
			  "the agents are kept for "
			  "each project.\n\n"
			  "Options of agent-vm come after the command and before the words for the agent. From the "
			  "first word on that is no "
			  "option of agent-vm everything is passed on as it is; a -- before it is removed.";

const char help_examples[] =
	"agent-vm shell\ta shell in the current folder\n"
	"agent-vm claude --memory 8 -p 'say hi'\toptions first, then the agent's words\n"
	"agent-vm shell --mount ../lib:ro make\tone command, one more folder\n"
	"agent-vm ps\tsee what runs\n";

const struct help_direction help_directions[] = {
	{ "host", "guest",
	  "The terminal or what is piped in, the project and its state folder, and copies of your own settings of the agents, but no "
	  "login. --mount and --env add to it. No port "
	  "but those "
	  "of --publish and --auto-publish." },
	{ "guest", "host",
	  "Output, and what it writes into these folders. .git/hooks and .git/config are read-only. What could run on "
	  "the host is listed at the end. None of its ports but by --allow-host." },
	{ "guest", "LAN",
	  "Nothing: no private, link-local or metadata address. --allow-lan opens the private ones, --allow-egress "
	  "single "
	  "places." },
	{ "guest", "internet",
	  "All of it but SSH, mail (25), foreign DNS and git in clear text, which --allow-ssh and --allow-egress open. "
	  "--no-network closes it. A login of this host goes to its own service alone, exchanged for a placeholder "
	  "outside of the guest, and with requests that agent-vm why allows." },
	{ 0 },
};

const struct help_row help_variables[] = {
	{ "AGENT_VM_MEMORY_GIB", "as --memory" },
	{ "AGENT_VM_CPUS", "as --cpus" },
	{ "AGENT_VM_IMAGE_TAG", "as --image, also for pull and setup" },
	{ "AGENT_VM_INSECURE_REGISTRY",
	  "1, true, yes or on: registries are asked by plain HTTP; always so on this host itself" },
	{ "AGENT_VM_STATE_DIR",
	  "where state, logs and images are, an absolute path; default: $XDG_STATE_HOME/agent-vm, else "
	  "~/.local/state/agent-vm" },
	{ "AGENT_VM_LIBKRUN", "file of libkrun" },
	{ "AGENT_VM_LIBKRUNFW", "file of libkrunfw, which holds the guest's kernel" },
	{ "AGENT_VM_LOG",
	  "what of the log is shown before the agent starts: error, warn (the default), info or debug" },
	{ "AGENT_VM_PROFILE",
	  "set to anything but 0, false, no or off: times of the launch at the end; json: as JSON" },
	{ "AGENT_VM_NO_CHROME_MCP", "likewise: Claude Code gets no browser tools, where the image has a browser" },
	{ "AGENT_VM_DEBUG_CONFIG", "likewise: the session's configuration before the start" },
	{ "AGENT_VM_CONNECT_TO",
	  "HOST:PORT:ADDR:PORT[,...]: where services are reached instead, for tests; it is shown among what is open" },
	{ "CLAUDE_CONFIG_DIR",
	  "where Claude Code's login and settings lie on this host; for others CLAUDE_SECURESTORAGE_CONFIG_DIR, CODEX_HOME, "
	  "GH_CONFIG_DIR, XDG_DATA_HOME, XDG_CONFIG_HOME" },
	{ "ANTHROPIC_API_KEY",
	  "a login like those in files, of which the guest gets a placeholder; likewise OPENAI_API_KEY, COPILOT_GITHUB_TOKEN, "
	  "GH_TOKEN, GITHUB_TOKEN" },
	{ "https_proxy",
	  "this host's proxy, through which the guest's connections go; likewise http_proxy, all_proxy, no_proxy, in upper "
	  "case, too" },
	{ "SSL_CERT_FILE", "the certificates that services are checked by; likewise SSL_CERT_DIR" },
	{ 0 },
};

const struct help_row help_exits[] = {
	{ "N", "the status of the program in the guest" },
	{ "128+N", "that program died of signal N" },
	{ "126, 127", "that program cannot be executed, or was not found" },
	{ "2", "a word, a variable or a settings file is wrong; nothing was started" },
	{ "1", "the session could not be started, or was lost" },
	{ 0 },
};

char *help_opt_left(const struct opt *o)
{
	const char *dash = o->name[1] == '\0' ? "-" : "--";

	return o->arg ? xasprintf("%s%s %s", dash, o->name, o->arg) : xasprintf("%s%s", dash, o->name);
}

char *help_opt_text(const struct opt *o)
{
	AUTO_FREE(char, example);

	if (o->example)
		example = xasprintf(" Example: %s%s %s.", o->name[1] == '\0' ? "-" : "--", o->name, o->example);
	return xasprintf("%c%s.%s%s%s", toupper((unsigned char)*o->help), o->help + 1, o->more ? " " : "",
			 o->more ? o->more : "", example ? example : "");
}
