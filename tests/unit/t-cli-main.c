/* The program behind main(): what is printed where, and the exit status. */
#include "files.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/help.h"
#include "cli/launch_args.h"

#define W (char *)
#define WORDS(...) ((char *[]){ (char *)"agent-vm", ##__VA_ARGS__, NULL })

static char out[65536], errs[65536];

static void slurp(FILE *f, char *to, size_t size)
{
	size_t n;

	rewind(f);
	n = fread(to, 1, size - 1, f);
	to[n] = '\0';
}

/* Runs in a child with stdout and stderr in files. Return: exit status */
static int run(char **argv)
{
	FILE *o = tmpfile(), *e = tmpfile();
	int status;
	pid_t pid;

	CHECK(o && e);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(fileno(o), STDOUT_FILENO);
		dup2(fileno(e), STDERR_FILENO);
		_exit(cmd_main(argv));
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	slurp(o, out, sizeof(out));
	slurp(e, errs, sizeof(errs));
	fclose(o);
	fclose(e);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

TEST(nothing_typed_is_the_short_help_on_stderr)
{
	char *none[] = { W "agent-vm", NULL };

	CHECK_INT(run(none), ==, 2);
	CHECK_STR(out, "");
	CHECK(strncmp(errs, "Usage: agent-vm COMMAND", 23) == 0);
}

TEST(version)
{
	CHECK_INT(run(WORDS(W "-V")), ==, 0);
	CHECK_STR(out, "agent-vm " AGENT_VM_VERSION "\n");
	CHECK_INT(run(WORDS(W "--version")), ==, 0);
	CHECK_STR(out, "agent-vm " AGENT_VM_VERSION "\n");
	CHECK_STR(errs, "");
	CHECK_INT(run(WORDS(W "version")), ==, 0);
	CHECK(strncmp(out, "agent-vm " AGENT_VM_VERSION "\n", strlen("agent-vm " AGENT_VM_VERSION "\n")) == 0);
	CHECK(strstr(out, "\nlibkrun ") && strstr(out, "\nlibkrunfw ") && strstr(out, "\nqemu ") && strstr(out, "\nmonitor "));
	CHECK(strstr(out, "\nimage API version 1 to 1\n"));
}

TEST(an_unknown_command_gets_the_nearest)
{
	CHECK_INT(run(WORDS(W "cluade")), ==, 2);
	CHECK_STR(errs, "agent-vm: no command 'cluade'; did you mean 'claude'? (agent-vm --help lists them)\n");
	CHECK_STR(out, "");
	CHECK_INT(run(WORDS(W "frobnicate\x1b")), ==, 2);
	CHECK_STR(errs, "agent-vm: no command 'frobnicate\\x1b' (agent-vm --help lists them)\n");
	CHECK_INT(run(WORDS(W "")), ==, 2);
	CHECK_STR(errs, "agent-vm: no command '' (agent-vm --help lists them)\n");
	CHECK_INT(run(WORDS(W "clipboard")), ==, 2);
	CHECK_STR(errs, "agent-vm: clipboard: get or put must follow; see agent-vm clipboard --help\n");
	CHECK_INT(run(WORDS(W "help", W "shel")), ==, 2);
	CHECK_STR(errs, "agent-vm: no command 'shel'; did you mean 'shell'? (agent-vm --help lists them)\n");
}

TEST(options_come_after_the_command)
{
	CHECK_INT(run(WORDS(W "--memory", W "4", W "claude")), ==, 2);
	CHECK_STR(errs, "agent-vm: --memory: options come after the command; write agent-vm claude --memory 4\n");
	CHECK_INT(run(WORDS(W "--memory", W "3", W "shell")), ==, 2);
	CHECK_STR(errs, "agent-vm: --memory: options come after the command; write agent-vm shell --memory 3\n");
	CHECK_INT(run(WORDS(W "--quiet", W "exec")), ==, 2);
	CHECK_STR(errs, "agent-vm: --quiet: options come after the command; write agent-vm shell --quiet\n");
	CHECK_INT(run(WORDS(W "--quiet", W "claude")), ==, 2);
	CHECK(strstr(errs, "options come after the command"));
	CHECK_INT(run(WORDS(W "-p", W "claude")), ==, 2);
	CHECK_STR(errs,
		  "agent-vm: -p: no such option; before the command there are only --help and --version\n");
	CHECK_INT(run(WORDS(W "--")), ==, 2);
}

TEST(help_of_a_command_in_all_its_forms)
{
	static char text[65536];

	CHECK_INT(run(WORDS(W "claude", W "--help")), ==, 0);
	CHECK(strncmp(out, "Usage: agent-vm claude ", 23) == 0);
	strcpy(text, out);
	CHECK_INT(run(WORDS(W "help", W "claude")), ==, 0);
	CHECK_STR(out, text);
	CHECK_INT(run(WORDS(W "claude", W "--memory", W "8", W "--help")), ==, 0);
	CHECK_STR(out, text);
	/* Also when what came before is wrong. */
	CHECK_INT(run(WORDS(W "claude", W "--memory", W "x", W "--help")), ==, 0);
	CHECK_STR(errs, "");
	CHECK_INT(run(WORDS(W "claude", W "-h")), ==, 0);
	CHECK(strncmp(out, "Usage: agent-vm claude ", 23) == 0 && strlen(out) < strlen(text));
	CHECK_INT(run(WORDS(W "help")), ==, 0);
	strcpy(text, out);
	CHECK_INT(run(WORDS(W "--help")), ==, 0);
	CHECK_STR(out, text);
	CHECK_INT(run(WORDS(W "version", W "-h")), ==, 0);
	CHECK_INT(run(WORDS(W "help", W "--help")), ==, 0);
}

TEST(help_tells_the_verbs_and_what_they_leave_out)
{
	CHECK_INT(run(WORDS(W "-h")), ==, 0);
	CHECK(strstr(out, "run Claude Code in a VM made for this folder\n"));
	CHECK(strstr(out, "run a shell or one command in such a VM\n"));
	CHECK(strstr(out, "do not run .agent-vm.runtime.sh\n"));
	CHECK(strstr(out, "do not look for a newer image\n"));
	CHECK_INT(run(WORDS(W "--help")), ==, 0);
	CHECK_INT(run(WORDS(W "shell", W "--help")), ==, 0);
}

TEST(words_too_many_are_a_mistake)
{
	CHECK_INT(run(WORDS(W "version", W "x", W "--foo")), ==, 2);
	CHECK_STR(errs, "agent-vm: --foo: no such option; --help lists them\n"
			"agent-vm: x: one word too many for version; see agent-vm version --help\n"
			"agent-vm: 2 problems, nothing was done\n");
	CHECK_INT(run(WORDS(W "help", W "claude", W "shell")), ==, 2);
}

TEST(every_mistake_is_reported_at_once_and_nothing_is_written)
{
	static const char words[] =
		"agent-vm: --memory 0: less than 256M; for four GiB write --memory 4\n"
		"agent-vm: --publish 80: not [BIND:]HOST:GUEST[/tcp|/udp]; for one port write --publish 80:80\n"
		"agent-vm: --mount /nope: no such file or directory; create it or correct the path\n"
		"agent-vm: --repo acme: not OWNER/REPO and not a GitHub URL; write --repo OWNER/acme\n";
	char root[] = "/tmp/t-cli-main.XXXXXX", path[64];

	CHECK(mkdtemp(root));
	(void)snprintf(path, sizeof(path), "%s/state", root);
	setenv("AGENT_VM_STATE_DIR", path, 1);
	CHECK_INT(run(WORDS(W "claude", W "--memory", W "0", W "--publish", W "80", W "--mount", W "/nope", W "--repo",
			    W "acme")),
		  ==, 2);
	/* What this folder lacks of an installation comes behind; tests/vm has the exact text of a whole one. */
	errs[MIN(strlen(words), strlen(errs))] = '\0';
	CHECK_STR(errs, words);
	CHECK_STR(out, "");
	CHECK(access(path, F_OK) < 0);
	unsetenv("AGENT_VM_STATE_DIR");
	CHECK_INT(rmdir(root), ==, 0);
}

TEST(a_library_that_a_variable_names_wrongly_is_a_mistake)
{
	setenv("AGENT_VM_STATE_DIR", "/tmp/t-cli-main.none", 1);
	setenv("AGENT_VM_LIBKRUN", "/nope", 1);
	setenv("AGENT_VM_LIBKRUNFW", "/nope/fw", 1);
	CHECK_INT(run(WORDS(W "shell", W "true")), ==, 1);
	CHECK(strstr(errs, "agent-vm: AGENT_VM_LIBKRUN=/nope: no such file; correct or unset the variable\n"));
	CHECK(strstr(errs, "agent-vm: AGENT_VM_LIBKRUNFW=/nope/fw: no such file; correct or unset the variable\n"));
	setenv("AGENT_VM_LIBKRUN", "rel", 1);
	CHECK_INT(run(WORDS(W "shell", W "true")), ==, 2);
	CHECK(strstr(errs, "agent-vm: AGENT_VM_LIBKRUN=rel: not an absolute path; write the whole path of the file\n"));
	unsetenv("AGENT_VM_LIBKRUN");
	setenv("AGENT_VM_LIBKRUNFW", "rel", 1);
	CHECK_INT(run(WORDS(W "shell", W "true")), ==, 2);
	CHECK(strstr(errs, "agent-vm: AGENT_VM_LIBKRUNFW=rel: not an absolute path"));
	unsetenv("AGENT_VM_LIBKRUNFW");
	unsetenv("AGENT_VM_STATE_DIR");
}

static void check_widest(const char *text, size_t max)
{
	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n > max)
			fail_msg("wider than %zu: %.*s", max, (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static const char *print(void (*fn)(FILE *, const struct cmd *, unsigned), const struct cmd *cmd, unsigned width)
{
	static char text[65536];
	FILE *f = fmemopen(text, sizeof(text), "w");

	CHECK(f);
	fn(f, cmd, width);
	fclose(f);
	return text;
}

TEST(help_fits_the_terminal)
{
	for (unsigned width = 64; width <= 132; width += 4) {
		check_widest(print(help_full, NULL, width), width);
		if (width >= 80)
			check_widest(print(help_short, NULL, width), width);
		for (const struct cmd *const *c = cmds; *c; c++) {
			check_widest(print(help_full, *c, width), width);
			if (width >= 80)
				check_widest(print(help_short, *c, width), width);
		}
	}
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)) != NULL; text += strlen(what))
		n++;
	return n;
}

TEST(short_help_has_a_line_for_each_option_and_four_examples)
{
	const char *text = print(help_short, cmd_find("shell"), 80), *examples;

	for (const struct opt *o = launch_opts; o->name; o++) {
		char line[64];

		if (o->kind == OPT_GROUP)
			continue;
		(void)snprintf(line, sizeof(line), "\n  --%s ", o->name);
		if (count(text, line) != 1)
			fail_msg("--%s is there %zu times", o->name, count(text, line));
		CHECK(strlen(o->help) <= 50);
		CHECK((o->arg != NULL) == (o->kind != OPT_FLAG));
		CHECK((o->example != NULL) == (o->kind != OPT_FLAG));
	}
	examples = strstr(text, "\nExamples\n");
	CHECK(examples);
	CHECK_INT(count(examples, "\n  agent-vm "), ==, 4);
	CHECK_INT(count(strstr(print(help_short, NULL, 80), "\nExamples\n"), "\n  agent-vm "), ==, 4);
}

TEST(full_help_has_directions_variables_and_every_option)
{
	const char *text = print(help_full, NULL, 80);

	CHECK(strstr(text, "host -> guest") && strstr(text, "guest -> host"));
	CHECK(strstr(text, "guest -> LAN") && strstr(text, "guest -> internet"));
	CHECK(strstr(text, "AGENT_VM_MEMORY_GIB") && strstr(text, "AGENT_VM_STATE_DIR"));
	for (const struct opt *o = launch_opts; o->name; o++) {
		char line[64];

		(void)snprintf(line, sizeof(line), o->kind == OPT_GROUP ? "\n%s\n" : "\n  --%s", o->name);
		if (!strstr(text, line))
			fail_msg("%s is missing", o->name);
	}
	for (const struct cmd *const *c = cmds; *c; c++) {
		char line[64];

		(void)snprintf(line, sizeof(line), "\n  %s ", (*c)->name);
		CHECK(strstr(text, line));
	}
}

TEST(the_man_page_has_every_option_and_only_its_own_requests)
{
	CHECK_INT(run(WORDS(W "help", W "--man")), ==, 0);
	CHECK(strstr(out, ".TH AGENT\\-VM 1") && strstr(out, "\\-\\-git\\-config"));
	for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"))
		if (*line == '.' || *line == '\'')
			CHECK(strncmp(line, ".TH", 3) == 0 || strncmp(line, ".SH", 3) == 0 || strncmp(line, ".SS", 3) == 0 ||
			      strncmp(line, ".TP", 3) == 0 || strncmp(line, ".B", 2) == 0 || strcmp(line, ".br") == 0 ||
			      strcmp(line, ".PP") == 0 || strncmp(line, ".\\\"", 3) == 0);
}

TEST(output_that_cannot_be_written_is_a_failure)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		if (!freopen("/dev/full", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(99);
		_exit(cmd_main(WORDS(W "--help")));
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	CHECK_INT(WEXITSTATUS(status), ==, 1);
}

TEST(every_table_is_whole)
{
	for (const struct cmd *const *c = cmds; *c; c++) {
		const struct cmd *cmd = *c;

		CHECK(cmd->name && cmd->summary && cmd->usage && cmd->opts && cmd->run);
		CHECK(cmd_find(cmd->name) == cmd);
		CHECK(!cmd->launch_verb || (cmd->words == CMD_WORDS_GUEST && agent_find(cmd->name)));
		for (const struct opt *o = cmd->opts; o->name; o++) {
			CHECK(o->kind == OPT_GROUP || (o->help && o->offset < cmd->args_size));
			CHECK((o->choices != NULL) == (o->kind == OPT_CHOICE));
			for (const struct opt *other = o + 1; other->name; other++)
				CHECK(strcmp(o->name, other->name) != 0);
		}
	}
}

TEST(programs_of_the_desktop_know_the_display)
{
	char *dir = files_tmp("/tmp"), *state = files_at(dir, "state"), *old, *home = xstrdup(getenv("HOME") ? getenv("HOME") : "/");
	static const char test[] = "test \"$WAYLAND_DISPLAY $DISPLAY $XAUTHORITY $XDG_RUNTIME_DIR\" = \"way-1 :7 /x/auth /run/x\" && "
				   "test -z \"$MINE$AGENT_VM_STATE_DIR\" || exit 1\n";
	AUTO_FREE(char, paste);
	AUTO_FREE(char, copy);

	paste = xasprintf("%sprintf pasted", test);
	copy = xasprintf("%scat > %s/copied", test, dir);
	old = files_program(dir, "wl-paste", paste);
	free(files_program(dir, "wl-copy", copy));
	setenv("AGENT_VM_STATE_DIR", state, 1);
	setenv("HOME", dir, 1);
	setenv("MINE", "1", 1);
	setenv("WAYLAND_DISPLAY", "way-1", 1);
	setenv("DISPLAY", ":7", 1);
	setenv("XAUTHORITY", "/x/auth", 1);
	setenv("XDG_RUNTIME_DIR", "/run/x", 1);
	CHECK_INT(run(WORDS(W "clipboard", W "put", W "-s")), ==, 0);
	CHECK_STR(errs, "");
	CHECK_INT(run(WORDS(W "clipboard", W "get", W "-s")), ==, 0);
	CHECK_STR(errs, "");
	CHECK_STR(out, "pasted");
	files_sh(dir, "test \"$(cat copied)\" = pasted");
	unsetenv("AGENT_VM_STATE_DIR");
	unsetenv("MINE");
	unsetenv("WAYLAND_DISPLAY");
	unsetenv("DISPLAY");
	unsetenv("XAUTHORITY");
	unsetenv("XDG_RUNTIME_DIR");
	setenv("HOME", home, 1);
	setenv("PATH", old, 1);
	free(home);
	free(old);
	free(state);
	files_rm(dir);
}
