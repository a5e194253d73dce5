#include "test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/launch_args.h"

#define W (char *)

static struct cli cli;
static struct launch_args args;
static const struct host_facts host = { .memory_mib = 16384, .cpus = 8 };
static const char *const *env; /* NAME, value, ..., NULL */

static char *fake_getenv(const char *name)
{
	for (const char *const *e = env; e && *e; e += 2)
		if (strcmp(e[0], name) == 0)
			return (char *)e[1];
	return NULL;
}

static void prepare(const char *verb, char **argv)
{
	opt_free(launch_opts, &args);
	opt_parsed_done(&cli.parsed);
	problems_done(&cli.problems);
	args = (struct launch_args){ 0 };
	opt_parse(launch_opts, &args, argv, 0, &cli.parsed, &cli.problems);
	args.verb = verb;
	args.agent = agent_find(verb);
	args.agent_part = argv + cli.parsed.n_read;
	args.agent_part_dashes = cli.parsed.dashes;
}

static const char *report(int *ret_status)
{
	static char text[8192];
	FILE *f;

	text[0] = '\0';
	f = fmemopen(text, sizeof(text), "w");
	*ret_status = problems_report(&cli.problems, f, "nothing was started");
	fclose(f);
	return text;
}

#define WORDS(...) ((char *[]){ __VA_ARGS__, NULL })

#define CHECKED(words, status, want)                          \
	do {                                                  \
		int got_;                                     \
		prepare("claude", words);                     \
		launch_check(&cli, &args, &host, fake_getenv); \
		CHECK_STR(report(&got_), want);               \
		CHECK_INT(got_, ==, status);                  \
	} while (0)

#define NONE ((char *[]){ NULL })

TEST(nothing_given_gives_the_defaults)
{
	struct launch_resources r;

	env = NULL;
	CHECKED(NONE, 0, "");
	CHECK_STR(args.git_dir, "auto");
	CHECK_STR(args.git_config, "ro");
	CHECK(!args.image && !args.vmm);
	r = launch_resources(&args, &host, false);
	CHECK_INT(r.memory_mib, ==, 4096);
	CHECK_INT(r.cpus, ==, 4);
	CHECK_INT(r.disk_mib, ==, 16384);
	r = launch_resources(&args, &host, true);
	CHECK_INT(r.memory_mib, ==, 2048);
	CHECK_INT(r.cpus, ==, 1);
}

TEST(defaults_follow_the_host)
{
	struct host_facts h = { .memory_mib = 3000, .cpus = 1 };

	CHECKED(NONE, 0, "");
	CHECK_INT(launch_resources(&args, &h, false).memory_mib, ==, 2048);
	CHECK_INT(launch_resources(&args, &h, false).cpus, ==, 1);
	CHECK_INT(launch_resources(&args, &h, true).cpus, ==, 1);
	h.memory_mib = 1024 * 1024;
	CHECK_INT(launch_resources(&args, &h, false).memory_mib, ==, 8192);
	CHECKED(WORDS(W "--memory", W "3", W "--cpus", W "1", W "--disk", W "5"), 0, "");
	CHECK_INT(launch_resources(&args, &h, true).memory_mib, ==, 3072);
	CHECK_INT(launch_resources(&args, &h, true).cpus, ==, 1);
	CHECK_INT(launch_resources(&args, &h, true).disk_mib, ==, 5120);
}

TEST(memory_cpus_and_disk_have_limits)
{
	env = NULL;
	CHECKED(WORDS(W "--memory", W "256M", W "--cpus=8"), 0, "");
	CHECKED(WORDS(W "--memory", W "16"), 0, "");
	CHECKED(WORDS(W "--memory", W "255M"), 2,
		"agent-vm: --memory 255M: less than 256M; for four GiB write --memory 4\n");
	CHECKED(WORDS(W "--memory", W "16385M"), 2,
		"agent-vm: --memory 16385M: more than this host's memory, which is 16 GiB; write --memory 16384M or less\n");
	CHECKED(WORDS(W "--cpus", W "0"), 2, "agent-vm: --cpus 0: a VM needs one at least; write --cpus 1 or more\n");
	CHECKED(WORDS(W "--cpus", W "9"), 2,
		"agent-vm: --cpus 9: more than the 8 that can be used here; write --cpus 8 or less\n");
	CHECKED(WORDS(W "--disk", W "2T"), 0, "");
	CHECKED(WORDS(W "--disk", W "99999T"), 2,
		"agent-vm: --disk 99999T: more than 2 TiB, the largest disk that a guest is ready with in time; for one TiB write "
		"--disk 1T\n");
	CHECKED(WORDS(W "--disk", W "0"), 2, "agent-vm: --disk 0: no room for anything; for sixteen GiB write --disk 16\n");
}

TEST(a_git_config_is_read_only_or_writable)
{
	CHECKED(WORDS(W "--git-config", W "ro"), 0, "");
	CHECKED(WORDS(W "--git-config=rw"), 0, "");
	CHECKED(WORDS(W "--git-config=r"), 2, "agent-vm: --git-config r: no such value; write --git-config ro or --git-config rw\n");
}

TEST(a_mistake_is_reported_once)
{
	CHECKED(WORDS(W "--memory", W "x"), 2,
		"agent-vm: --memory x: not NUMBER[M|G|T]; write --memory SIZE, such as --memory 4\n");
}

TEST(mistakes_come_in_the_order_typed)
{
	env = NULL;
	prepare("claude", WORDS(W "--memory", W "0", W "--publish", W "80", W "--mount", W "/nope", W "--repo", W "acme"));
	launch_check(&cli, &args, &host, fake_getenv);
	problems_at(&cli.problems, opt_at(&cli.parsed, "mount", 0));
	problem_world(&cli.problems, "--mount /nope: no such file or directory; create it or correct the path");
	{
		int status;

		CHECK_STR(report(&status),
			  "agent-vm: --memory 0: less than 256M; for four GiB write --memory 4\n"
			  "agent-vm: --publish 80: not [BIND:]HOST:GUEST[/tcp|/udp]; for one port write --publish 80:80\n"
			  "agent-vm: --mount /nope: no such file or directory; create it or correct the path\n"
			  "agent-vm: --repo acme: not OWNER/REPO and not a GitHub URL; write --repo OWNER/acme\n"
			  "agent-vm: 4 problems, nothing was started\n");
		CHECK_INT(status, ==, 2);
	}
}

TEST(variables_count_unless_the_option_is_given)
{
	static const char *const good[] = { "AGENT_VM_MEMORY_GIB", "3", "AGENT_VM_CPUS", "5", "AGENT_VM_IMAGE_TAG",
					    "img:1", "AGENT_VM_LOG", "debug", NULL };
	static const char *const empty[] = { "AGENT_VM_MEMORY_GIB", "", "AGENT_VM_CPUS", "", "AGENT_VM_IMAGE_TAG", "",
					     "AGENT_VM_LOG", "", NULL };
	static const char *const bad[] = { "AGENT_VM_MEMORY_GIB", "lots", "AGENT_VM_CPUS", "-1", "AGENT_VM_LOG", "all",
					   NULL };
	static const char *const range[] = { "AGENT_VM_MEMORY_GIB", "0.1", "AGENT_VM_CPUS", "0", NULL };

	env = good;
	CHECKED(NONE, 0, "");
	CHECK_INT(args.memory_mib, ==, 3072);
	CHECK_INT(args.cpus, ==, 5);
	CHECK_STR(args.image, "img:1");
	CHECKED(WORDS(W "--memory", W "1", W "--cpus", W "1", W "--image", W "x"), 0, "");
	CHECK_INT(args.memory_mib, ==, 1024);
	CHECK_INT(args.cpus, ==, 1);
	CHECK_STR(args.image, "x");
	env = empty;
	CHECKED(NONE, 0, "");
	CHECK(args.memory_mib == 0 && args.cpus == 0 && !args.image);
	env = bad;
	CHECKED(NONE, 2,
		"agent-vm: AGENT_VM_MEMORY_GIB=lots: not NUMBER[M|G|T]; for four GiB set AGENT_VM_MEMORY_GIB=4\n"
		"agent-vm: AGENT_VM_CPUS=-1: not a whole number; for two processors set AGENT_VM_CPUS=2\n"
		"agent-vm: AGENT_VM_LOG=all: no such level; set it to error, warn, info or debug\n"
		"agent-vm: 3 problems, nothing was started\n");
	CHECKED(WORDS(W "--memory", W "1", W "--cpus", W "1"), 2,
		"agent-vm: AGENT_VM_LOG=all: no such level; set it to error, warn, info or debug\n");
	env = range;
	CHECKED(NONE, 2,
		"agent-vm: AGENT_VM_MEMORY_GIB=0.1: less than 256M; for four GiB set AGENT_VM_MEMORY_GIB=4\n"
		"agent-vm: AGENT_VM_CPUS=0: a VM needs one at least; set AGENT_VM_CPUS=1 or more\n"
		"agent-vm: 2 problems, nothing was started\n");
	env = NULL;
}

TEST(env_values_come_from_the_host_and_are_never_shown)
{
	static const char *const vars[] = { "FROM_HOST", "va=lue", "EMPTY", "", NULL };

	env = vars;
	CHECKED(WORDS(W "--env", W "A=1", W "--env", W "FROM_HOST", W "--env=EMPTY", W "--env", W "B="), 0, "");
	CHECK_INT(args.env.n, ==, 4);
	CHECK_STR(args.env.v[0], "A=1");
	CHECK_STR(args.env.v[1], "FROM_HOST=va=lue");
	CHECK_STR(args.env.v[2], "EMPTY=");
	CHECK_STR(args.env.v[3], "B=");
	CHECKED(WORDS(W "--env", W "A=1", W "--env", W "HOME_VAR"), 2,
		"agent-vm: --env HOME_VAR: this host has no such variable; set it, or write --env HOME_VAR=VALUE\n");
	CHECKED(WORDS(W "--env", W "1A=secret", W "--env=A-B"), 2,
		"agent-vm: --env 1A: no name of a variable; names are letters, digits and _, as in --env NAME=VALUE\n"
		"agent-vm: --env A-B: no name of a variable; names are letters, digits and _, as in --env NAME=VALUE\n"
		"agent-vm: 2 problems, nothing was started\n");
	env = NULL;
}

TEST(what_restricts_or_opens_is_taken)
{
	CHECKED(WORDS(W "--no-git", W "--no-network", W "--no-update-check", W "--no-host-settings", W "--no-hook"), 0, "");
	CHECKED(WORDS(W "--allow-lan", W "--allow-host", W "--allow-egress", W "10.0.0.1", W "--allow-ssh=h.example"), 0, "");
	CHECKED(WORDS(W "--publish", W "3000:3000", W "--auto-publish"), 0, "");
	CHECKED(WORDS(W "--trust-host-ca", W "--api=openai=files", W "--api", W "anthropic=foreign"), 0, "");
	CHECKED(WORDS(W "--repo", W "a/b", W "--github=merge=off", W "--github", W "push-refs=refs/heads/x/*"), 0, "");
	CHECKED(WORDS(W "--github", W "push-refs=a,,b"), 2,
		"agent-vm: --github push-refs=a,,b: not globs of refs with commas between them; write it as in --github "
		"push-refs=refs/heads/*\n");
}

TEST(a_wrong_value_is_one_problem)
{
	static char *const each[] = { W "--publish=x", W "--allow-egress=*", W "--allow-ssh=github.com", W "--repo=x",
				      W "--github=x", W "--api=x" };

	for (size_t i = 0; i < sizeof(each) / sizeof(*each); i++) {
		prepare("claude", WORDS(each[i]));
		launch_check(&cli, &args, &host, fake_getenv);
		CHECK_INT(cli.problems.n, ==, 1);
	}
}

TEST(one_port_twice)
{
	prepare("claude", WORDS(W "--publish", W "80:80", W "--publish", W "127.0.0.1:80:81"));
	launch_check(&cli, &args, &host, fake_getenv);
	CHECK_INT(cli.problems.n, ==, 1);
	CHECK_STR(cli.problems.v[0].text,
		  "--publish 127.0.0.1:80:81: port 80 of this host is published by --publish 80:80 already; choose another one");
}

TEST(options_that_exclude_each_other_are_both_named)
{
	CHECKED(WORDS(W "--no-network", W "--allow-lan"), 2,
		"agent-vm: --no-network and --allow-lan: one excludes the other; leave one of them out\n");
	CHECKED(WORDS(W "--publish", W "80:80", W "--publish", W "81:81", W "--no-network", W "--auto-publish"), 2,
		"agent-vm: --no-network and --publish: one excludes the other; leave one of them out\n"
		"agent-vm: --no-network and --auto-publish: one excludes the other; leave one of them out\n"
		"agent-vm: 2 problems, nothing was started\n");
}

static void check_notes(const char *verb, char **words, const char *want)
{
	struct strv notes = { 0 };
	char text[2048] = "";

	prepare(verb, words);
	launch_hints(&args, &notes);
	for (size_t i = 0; i < notes.n; i++) {
		strcat(text, notes.v[i]);
		strcat(text, "\n");
	}
	CHECK_STR(text, want);
	strv_done(&notes);
}

TEST(a_slip_in_the_first_word_gets_a_note)
{
	const char *memory = "'--memroy' is not an option of agent-vm and was passed to claude; did you mean --memory?\n";

	check_notes("claude", WORDS(W "--memroy", W "8", W "x"), memory);
	check_notes("claude", WORDS(W "--memroy=8"), memory);
	check_notes("claude", WORDS(W "--quiet", W "--memroy", W "8"), "");
	check_notes("claude", WORDS(W "--", W "--memroy", W "8"), "");
	check_notes("claude", WORDS(W "--mem", W "8"),
		    "'--mem' is not an option of agent-vm and was passed to claude; did you mean --memory?\n");
	check_notes("claude", WORDS(W "--publsih", W "8"),
		    "'--publsih' is not an option of agent-vm and was passed to claude; did you mean --publish?\n");
	check_notes("claude", WORDS(W "--me"), "");
	check_notes("claude", WORDS(W "--allow"), "");
	check_notes("claude", WORDS(W "--zzz"), "");
	check_notes("claude", WORDS(W "--mmrry"), "");
	check_notes("claude", WORDS(W "x", W "--memroy"), "");
	check_notes("claude", WORDS(W "--"), "");
	check_notes("claude", WORDS(W "---"), "");
	check_notes("shell", WORDS(W "--memroy", W "8"),
		    "'--memroy' is not an option of agent-vm and was passed to bash; did you mean --memory?\n");
}

TEST(an_option_of_the_agent_gets_no_note)
{
	check_notes("claude", WORDS(W "--resume"), "");
	check_notes("claude", WORDS(W "--init"), "");
	check_notes("codex", WORDS(W "--disable", W "x"), "");
	check_notes("opencode", WORDS(W "--port", W "8080"), "");
	check_notes("copilot", WORDS(W "--mouse"), "");
	/* One letter from --hide, and yet Claude's own; not Codex's. */
	check_notes("claude", WORDS(W "--ide"), "");
	check_notes("codex", WORDS(W "--ide"),
		    "'--ide' is not an option of agent-vm and was passed to codex; did you mean --hide?\n");
}

TEST(an_option_of_ours_behind_the_first_word_gets_a_note)
{
	const char *late = "'--memory' comes after '--resume' and was passed to claude; options of agent-vm go first\n";

	check_notes("claude", WORDS(W "--resume", W "--memory", W "9"), late);
	check_notes("claude", WORDS(W "--resume", W "--memory=9"), late);
	check_notes("claude", WORDS(W "--memory", W "8", W "--resume", W "--memory", W "9"), late);
	check_notes("claude", WORDS(W "--resume", W "--", W "--memory", W "9"), "");
	check_notes("claude", WORDS(W "--resume", W "--memor"), "");
	check_notes("claude", WORDS(W "--quiet", W "--resume", W "--memory"), "");
	check_notes("codex", WORDS(W "exec", W "--image", W "a.png"), "");
	check_notes("shell", WORDS(W "ls", W "--hide", W "x"),
		    "'--hide' comes after 'ls' and was passed to the command; options of agent-vm go first\n");
}

TEST(p_with_ports_gets_a_note)
{
	check_notes("claude", WORDS(W "-p", W "3000:3000"),
		    "'-p 3000:3000' was passed to claude; to publish a port write --publish 3000:3000\n");
	check_notes("claude", WORDS(W "-p3000:3000"),
		    "'-p3000:3000' was passed to claude; to publish a port write --publish 3000:3000\n");
	check_notes("claude", WORDS(W "-p", W "say hi"), "");
	check_notes("claude", WORDS(W "-p"), "");
	check_notes("claude", WORDS(W "x", W "-p", W "3000:3000"), "");
}

TEST(no_network_warns_for_an_agent_even_when_quiet)
{
	struct strv w = { 0 };

	prepare("claude", WORDS(W "--no-network", W "--quiet"));
	launch_warnings(&args, &w);
	CHECK_INT(w.n, ==, 1);
	strv_done(&w);
	prepare("shell", WORDS(W "--no-network"));
	launch_warnings(&args, &w);
	CHECK_INT(w.n, ==, 0);
}

/* Agents page 1. */
TEST(opencode_is_warned_of_too_little_memory)
{
	struct strv w = { 0 };

	prepare("opencode", WORDS(W "--memory", W "767M"));
	launch_warnings(&args, &w);
	CHECK_INT(w.n, ==, 1);
	CHECK_STR(w.v[0], "--memory: 767 MiB are too little for OpenCode, which needs 1 GiB; write --memory 1 or more");
	strv_done(&w);
	prepare("opencode", WORDS(W "--memory", W "768M"));
	launch_warnings(&args, &w);
	prepare("opencode", WORDS(NULL));
	launch_warnings(&args, &w);
	prepare("codex", WORDS(W "--memory", W "300M"));
	launch_warnings(&args, &w);
	CHECK_INT(w.n, ==, 0);
}

/* Names that an agent has at its top level and we must leave to it; --image is the one old exception. */
TEST(no_option_of_ours_is_an_agents)
{
	static const char *const agents[] = { "claude", "codex", "opencode", "copilot" };
	static const char *const never[] = { "config",	"profile", "verbose", "debug",	  "model",  "worktree", "add-dir",
					     "sandbox", "continue", "resume", "port",	  "agent",  "session" };

	for (const struct opt *o = launch_opts; o->name; o++) {
		if (o->kind == OPT_GROUP)
			continue;
		for (size_t i = 0; i < sizeof(agents) / sizeof(*agents); i++)
			if (agent_knows(agent_find(agents[i]), o->name, strlen(o->name)) && strcmp(o->name, "image") != 0)
				fail_msg("--%s is an option of %s", o->name, agents[i]);
		for (size_t i = 0; i < sizeof(never) / sizeof(*never); i++)
			CHECK(strcmp(o->name, never[i]) != 0);
	}
}

static void put(const char *root, const char *dir, const char *name, const char *text)
{
	char path[512];
	struct err err;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", root, dir);
	fd = dir_open_made(path, 0700, &err);
	CHECK(fd >= 0);
	CHECK_INT(file_replace_at(fd, name, text, strlen(text), 0600), ==, 0);
	close(fd);
}

TEST(the_smallest_limit_of_the_cgroups_counts)
{
	char root[] = "/tmp/t-cli-launch.XXXXXX";
	struct host_facts f, all;

	CHECK(mkdtemp(root));
	host_facts_read(root, &all);
	CHECK_INT(all.memory_mib, ==, 0);
	CHECK_INT(all.cpus, >=, 1);

	put(root, "proc", "meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
	put(root, "proc/self", "cgroup", "1:name=x:/\n0::/a/b\n");
	host_facts_read(root, &f);
	CHECK_INT(f.memory_mib, ==, 16384);
	CHECK_INT(f.cpus, ==, all.cpus);

	put(root, "sys/fs/cgroup/a/b", "cpu.max", "max 100000\n");
	put(root, "sys/fs/cgroup/a/b", "memory.max", "max\n");
	host_facts_read(root, &f);
	CHECK_INT(f.memory_mib, ==, 16384);
	CHECK_INT(f.cpus, ==, all.cpus);

	put(root, "sys/fs/cgroup/a", "cpu.max", "50000 100000\n");
	put(root, "sys/fs/cgroup/a", "memory.max", "2147483648\n");
	host_facts_read(root, &f);
	CHECK_INT(f.memory_mib, ==, 2048);
	CHECK_INT(f.cpus, ==, 1);

	put(root, "sys/fs/cgroup", "memory.max", "1073741824\n");
	put(root, "sys/fs/cgroup/a", "cpu.max", "110000 100000\n");
	host_facts_read(root, &f);
	CHECK_INT(f.memory_mib, ==, 1024);
	CHECK_INT(f.cpus, ==, all.cpus < 2 ? all.cpus : 2);
	/* More than there are is no reason to use more than there are. */
	put(root, "sys/fs/cgroup/a", "cpu.max", "9999900000 100000\n");
	host_facts_read(root, &f);
	CHECK_INT(f.cpus, ==, all.cpus);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, root), ==, 0);
}

TEST(affinity_counts)
{
	struct host_facts f;
	cpu_set_t old, one;

	CHECK(sched_getaffinity(0, sizeof(old), &old) == 0);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &old)) {
			CPU_SET(i, &one);
			break;
		}
	CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
	host_facts_read("", &f);
	CHECK(sched_setaffinity(0, sizeof(old), &old) == 0);
	CHECK_INT(f.cpus, ==, 1);
	CHECK_INT(f.memory_mib, >, 0);
}
