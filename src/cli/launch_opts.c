/* The options of the launch verbs, and the five verbs. */
#include "cli/launch_args.h"

#define AT(field) offsetof(struct launch_args, field)

static const char *const vmm_choices[] = { "krun", "qemu", NULL };
static const char *const git_dir_choices[] = { "auto", "none", NULL };
static const char *const git_config_choices[] = { "ro", "rw", NULL };

const struct opt launch_opts[] = {
	{ "Machine", OPT_GROUP },
	{ "memory", OPT_MIB, AT(memory_mib), "SIZE", "memory of the VM", 0,
	  "NUMBER[M|G|T], a fraction allowed; a bare number is GiB. Default: a quarter of this host's memory, at least 2 "
	  "and at most 8 GiB; 2 GiB under emulation. At least 256M.",
	  "4" },
	{ "cpus", OPT_INT, AT(cpus), "N", "processors of the VM", 0,
	  "From 1 to the number that this process may use. Default: 4, or all there are if fewer; 1 under emulation.",
	  "2" },
	{ "disk", OPT_MIB, AT(disk_mib), "SIZE", "size of the root disk, which ends with the session", 0,
	  "As --memory. Room is taken on the host only for what is written. Default: 16 GiB.", "32" },
	{ "image", OPT_STRING, AT(image), "REF", "image to start from", 0,
	  "[HOST[:PORT]/]NAME[:TAG][@DIGEST], or a source that agent-vm pull takes. One that is not stored is pulled first. "
	  "Default: AGENT_VM_IMAGE_TAG, else the standard image, or the one that agent-vm build made while that is not "
	  "stored.", "ghcr.io/me/mine:1" },
	{ "vmm", OPT_CHOICE, AT(vmm), "krun|qemu", "virtual machine monitor to use", 0,
	  "Default: krun where /dev/kvm and libkrun work, else qemu, with emulation if it must be.", "qemu",
	  vmm_choices },

	{ "Files", OPT_GROUP },
	{ "mount", OPT_STRV, AT(mounts), "HOST[:GUEST][:ro]", "show one more folder to the guest", 0,
	  "HOST is a folder: absolute, from the current folder on, or ~/ and a path below the home folder. GUEST is an "
	  "absolute path; default: the same as on the host. ro or rw (the default) comes last. A colon in a path is "
	  "written \\:. May be repeated.",
	  "../lib:ro" },
	{ "hide", OPT_STRV, AT(hide), "PATTERN", "show files as empty, as .agentvmignore does", 0,
	  "A pattern as in .gitignore. A hidden file is empty and unreadable in the guest and cannot be replaced. Only "
	  "what exists at the start is hidden, not what comes later, and not another name (hard link) of the file. May be "
	  "repeated.",
	  "'.env*'" },
	{ "no-hide", OPT_FLAG, AT(no_hide), NULL, "do not read .agentvmignore" },
	{ "expose", OPT_STRV, AT(expose), "PATH", "allow a folder that holds logins to be shown", 0,
	  "Lifts the refusal of that one path, such as the home folder or the folder of an agent's login. May be "
	  "repeated.",
	  "~/.claude" },

	{ "Git and logins", OPT_GROUP },
	{ "git-dir", OPT_CHOICE, AT(git_dir), "auto|none", "whether an outer git directory is shown", 0,
	  "auto (the default): in a subfolder, a linked worktree or a submodule the git directory that belongs to it is "
	  "shown, too. none: only the project folder.",
	  "none", git_dir_choices },
	{ "git-config", OPT_CHOICE, AT(git_config), "ro|rw", "whether the guest may write .git/config", 0,
	  "ro is the default: settings of git can run programs on the host. rw lets git in the guest record what it tracks "
	  "(branches, remotes); a change of any setting that can run something, by you as well, is undone at once and told at "
	  "the end, and the tenth ends the session.",
	  "rw",
	  git_config_choices },
	{ "no-git", OPT_FLAG, AT(no_git), NULL, "no look at remotes, no GitHub login", 0,
	  "With --repo the login is lent for what that names. An outer git directory is still shown: see --git-dir none." },
	{ "repo", OPT_STRV, AT(repos), "OWNER/REPO[=LEVEL]", "a GitHub repository the guest may use", 0,
	  "Or a GitHub URL. LEVEL is read, write (the default) or admin. May be repeated.", "acme/app=read" },
	{ "github", OPT_STRV, AT(github), "KEY=VALUE", "switch of what may be done on GitHub", 0,
	  "merge, ci, wiki, protect-workflows and public-graphql-lane are on or off; push-refs is a list of patterns; "
	  "foreign-credentials is refuse or anon, which takes another account's credential off and sends the request without it. "
	  "May be repeated.",
	  "merge=off" },
	{ "api", OPT_STRV, AT(api), "PROVIDER=CLASS", "open a part of a provider's API", 0,
	  "PROVIDER is anthropic, openai, opencode or copilot; CLASS is connectors, files, cloud or foreign. May be "
	  "repeated.",
	  "anthropic=files" },

	{ "Network", OPT_GROUP },
	{ "publish", OPT_STRV, AT(publish), "HOST:GUEST", "make a port of the guest a port of this host", 0,
	  "[BIND:]HOST:GUEST[/tcp|/udp]. BIND is an IP address, IPv6 in brackets; default: 127.0.0.1 and ::1. Ports "
	  "are 1 to 65535. May be repeated.",
	  "3000:3000" },
	{ "auto-publish", OPT_FLAG, AT(auto_publish), NULL, "publish what listens in the guest, on loopback", 0,
	  "TCP, from port 1024 up, 32 at most: the same port of this host, or the next free one; ports of well-known services "
	  "such as 5432 are always moved." },
	{ "allow-egress", OPT_STRV, AT(allow_egress), "DEST", "open one private destination", 0,
	  "IP, CIDR or NAME, each with :PORT or :LOW-HIGH; IPv6 with a port in brackets; /tcp or /udp behind it. May be "
	  "repeated.",
	  "192.168.1.10:5432" },
	{ "allow-lan", OPT_FLAG, AT(allow_lan), NULL, "open all private address ranges" },
	{ "allow-host", OPT_FLAG, AT(allow_host), NULL, "open this host as host.agent-vm.internal", 0,
	  "And its own addresses. All ports, also those that are closed elsewhere, such as 22; not those that the session publishes." },
	{ "allow-ssh", OPT_STRV, AT(allow_ssh), "HOST[:PORT]", "open SSH to a forge other than GitHub", 0,
	  "May be repeated.", "git.example.org" },
	{ "no-network", OPT_FLAG, AT(no_network), NULL, "no network at all" },
	{ "trust-host-ca", OPT_FLAG, AT(trust_host_ca), NULL, "trust this host's own certificate authorities" },

	{ "Other", OPT_GROUP },
	{ "env", OPT_STRV, AT(env), "NAME[=VALUE]", "variable for the guest", 0,
	  "Without =VALUE the value is taken from this host's variable and so stays off the command line. Of keys and tokens "
	  "that are lent the guest gets placeholders. May be repeated.",
	  "RAILS_ENV=test" },
	{ "no-hook", OPT_FLAG, AT(no_hook), NULL, "do not run .agent-vm.runtime.sh" },
	{ "no-host-settings", OPT_FLAG, AT(no_host_settings), NULL, "leave out your own settings of the agents" },
	{ "no-update-check", OPT_FLAG, AT(no_update_check), NULL, "do not look for a newer image" },
	{ "quiet", OPT_FLAG, AT(quiet), NULL, "only warnings and errors" },
	{ 0 },
};

#define AGENT_ABOUT                                                                                                   \
	"The project is the current folder. The guest sees it at the same path and may change it; of the rest of this " \
	"host it sees nothing.\n\n"                                                                                     \
	"Options of agent-vm come first. From the first word on that is none of them everything is passed on as it is; " \
	"a -- before it is removed."

#define AGENT(id, name_, title, example)                                                                    \
	const struct cmd cmd_##id = {                                                                       \
		.name = name_,                                                                              \
		.summary = "run " title " in a VM made for this folder",                                    \
		.usage = "[OPTIONS] [--] [WORDS FOR THE AGENT]",                                            \
		.about = AGENT_ABOUT,                                                                       \
		.examples = example,                                                                        \
		.opts = launch_opts,                                                                        \
		.args_size = sizeof(struct launch_args),                                                    \
		.words = CMD_WORDS_GUEST,                                                                   \
		.launch_verb = true,                                                                        \
		.run = launch_run,                                                                          \
	}

#define EXAMPLES(verb, prompt)                                                                          \
	"agent-vm " verb "\tin the current folder\n"                                                    \
	"agent-vm " verb " --memory 8 --cpus 4\twith a larger VM\n"                                     \
	"agent-vm " verb " --mount ../lib:ro\twith one more folder, read-only\n"                        \
	"agent-vm " verb " " prompt "\twith words for the agent\n"

AGENT(claude, "claude", "Claude Code", EXAMPLES("claude", "-p 'say hi'"));
AGENT(codex, "codex", "Codex", EXAMPLES("codex", "exec 'say hi'"));
AGENT(opencode, "opencode", "OpenCode", EXAMPLES("opencode", "run 'say hi'"));
AGENT(copilot, "copilot", "Copilot", EXAMPLES("copilot", "-p 'say hi'"));

const struct cmd cmd_shell = {
	.name = "shell",
	.summary = "run a shell or one command in such a VM",
	.usage = "[OPTIONS] [--] [COMMAND [WORDS] | -c LINE]",
	.about = "Without words: an interactive bash; when stdin is no terminal, bash reads its commands from there. Words "
		 "that begin with a dash are arguments of bash. Anything else is one command, each word taken literally.\n\n"
		 AGENT_ABOUT,
	.examples = "agent-vm shell\tan interactive bash in the current folder\n"
		    "agent-vm shell make test\tone command\n"
		    "agent-vm shell -c 'make && make test'\ta shell line\n"
		    "agent-vm shell --mount ../lib:ro ls ../lib\twith one more folder\n",
	.opts = launch_opts,
	.args_size = sizeof(struct launch_args),
	.words = CMD_WORDS_GUEST,
	.launch_verb = true,
	.run = launch_run,
};
