#include "cli/hook.h"

#include <string.h>
#include <sys/wait.h>

#include "files.h"

#define RUN "/run/agent-vm"
#define LINE "agent-vm: .agent-vm.runtime.sh: "
#define ADVICE "agent-vm: if that status is meant, end the hook with 'true'; to skip the hook use --no-hook\n"

static char *dir, *out, *err;
static int status; /* of the shell's kind */

static char *read_text(const char *name)
{
	char *path = files_at(dir, name), *text;
	FILE *f = fopen(path, "re");
	size_t n = 0;

	text = calloc(1, 65536);
	if (f) {
		n = fread(text, 1, 65535, f);
		(void)fclose(f);
	}
	for (size_t i = 0; i < n; i++)
		if (!text[i])
			text[i] = '\n';
	free(path);
	return text;
}

/* The script with another folder in the place of /run/agent-vm. */
static char *elsewhere(const char *script)
{
	char *all = xstrdup("");
	const char *at;

	for (; script; script = at) {
		char *more;

		at = strstr(script + 1, RUN);
		more = xasprintf("%s%.*s%s", all, at ? (int)(at - script) : (int)strlen(script), script, at ? dir : "");
		free(all);
		all = more;
	}
	return all;
}

static void run(bool hook, const char *lacks, const char *program, const char *line)
{
	struct strv argv = { 0 };
	char *script;
	pid_t pid;
	int st;

	strv_add(&argv, program);
	strv_add(&argv, "-c");
	strv_add(&argv, line);
	hook_wrap(&argv, hook, lacks);
	script = elsewhere(argv.v[4]);
	free(argv.v[4]);
	argv.v[4] = script;
	pid = fork();
	if (pid == 0) {
		if (chdir(dir) < 0 || !freopen("/dev/null", "r", stdin) || !freopen("out", "w", stdout) || !freopen("err", "w", stderr))
			_exit(99);
		(void)alarm(20);
		(void)execvp(argv.v[0], argv.v);
		_exit(98);
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
	free(out);
	free(err);
	out = read_text("out");
	err = read_text("err");
	strv_done(&argv);
}

static void begin(void)
{
	dir = files_tmp("/tmp");
}

static void end(void)
{
	free(out);
	free(err);
	out = err = NULL;
	files_rm(dir);
}

static void hook(const char *text)
{
	files_write(dir, HOOK_FILE, text);
	run(true, NULL, "/bin/sh", "echo began");
}

/* The hook stops with these two lines, after @before, and before @after. */
static void stops(const char *text, int want, const char *before, const char *where, const char *after)
{
	char *lines = xasprintf("%s" LINE "stopped%s; the agent was not started\n" ADVICE "%s", before, where, after);

	hook(text);
	CHECK_STR(err, lines);
	CHECK_STR(out, "");
	CHECK_INT(status, ==, want);
	free(lines);
}

TEST(a_stop_says_its_line)
{
	begin();
	stops("true\n[ -f nothing ]\n", 1, "", " at line 2 with status 1 (last command: [ -f nothing ])", "");
	stops("exit 0\n", 0, "", " at line 1 with status 0 (last command: exit 0)", "");
	stops("f() {\n\texit 3\n}\n\nf\n", 3, "", " at line 2 with status 3 (last command: exit 3)", "");
	stops("\nreturn 4\n", 4, "", " at line 2 with status 4 (last command: return 4)", "");
	stops("set -e\nfalse || true\nfalse\ntrue\n", 1, "", " at line 3 with status 1 (last command: false)", "");
	stops("false\nfalse\n", 1, "", " at line 2 with status 1 (last command: false)", "");
	stops("ls 'a\nb' 2>&-\n", 2, "", " at line 2 with status 2 (last command: ls 'a)", "");
	end();
}

TEST(a_stop_by_a_signal_or_by_what_it_sources_says_its_line)
{
	begin();
	stops("true\ntrue\nkill -INT $$\nsleep 1\n", 130, "", " at line 3 with status 130 (last command: kill -INT $$)", "");
	stops("true\nf() {\n\tkill -TERM $$\n\tsleep 1\n}\nf\n", 143, "", " at line 3 with status 143 (last command: kill -TERM $$)", "");
	stops("true\nset -e\nsource ./missing\n", 1, "./" HOOK_FILE ": line 3: ./missing: No such file or directory\n",
	      " at line 3 with status 1 (last command: source ./missing)", "");
	stops("true\nset -e\n. ./missing\n", 1, "./" HOOK_FILE ": line 3: ./missing: No such file or directory\n",
	      " at line 3 with status 1 (last command: . ./missing)", "");
	end();
}

TEST(a_hook_with_an_exit_trap_of_its_own_says_its_line_and_the_trap_runs)
{
	begin();
	stops("tmp=x; trap 'echo \"$? $# $tmp\"' EXIT\nset -e\nfalse\n", 1, "", " at line 3 with status 1 (last command: false)", "1 0 x\n");
	stops("f() { builtin trap 'echo gone' 0; }\nf\nexit 5\n", 5, "", " at line 3 with status 5 (last command: exit 5)", "gone\n");
	stops("trap 'echo gone' EXIT\ntrap 'exit 7' TERM\nkill -TERM $$\nsleep 1\n", 7, "",
	      " at line 3 with status 7 (last command: kill -TERM $$)", "gone\n");
	stops("trap 'echo gone' EXIT\nkill -INT $$\nsleep 1\n", 130, "", " at line 2 with status 130 (last command: kill -INT $$)", "gone\n");
	/* The last word counts; a subshell's is its own. */
	stops("trap 'echo no' EXIT\ntrap - EXIT\n(trap 'echo sub' EXIT; false)\nfalse\n", 1, "sub\n",
	      " at line 4 with status 1 (last command: false)", "");
	stops("trap '' EXIT\nexit 1\n", 1, "", " at line 2 with status 1 (last command: exit 1)", "");
	/* And what does not stop is as it was. */
	hook("trap 'echo no' EXIT\ntrap 'echo no' ERR\ntrap - ERR\nfalse\ntrue\n");
	CHECK_STR(out, "began\n");
	CHECK_STR(err, "");
	end();
}

TEST(a_hook_that_the_guest_cannot_read_ends_the_launch_with_one_line)
{
	begin();
	files_sh(dir, "ln -s nowhere " HOOK_FILE);
	run(true, NULL, "/bin/sh", "echo began");
	CHECK_STR(err, LINE "a link that leads to no file in the guest; share the folder that it leads to with --mount, or skip the hook "
		       "with --no-hook; the agent was not started\n");
	CHECK_STR(out, "");
	CHECK_INT(status, ==, 1);
	run(false, NULL, "/bin/sh", "echo began");
	CHECK_STR(out, "began\n");
	files_sh(dir, "rm " HOOK_FILE "; mkfifo " HOOK_FILE);
	run(true, NULL, "/bin/sh", "echo began");
	CHECK_STR(err, LINE "is no regular file; make it one, or skip the hook with --no-hook; the agent was not started\n");
	CHECK_INT(status, ==, 1);
	files_sh(dir, "rm " HOOK_FILE "; echo 'echo hi' >file; ln -s file " HOOK_FILE);
	run(true, NULL, "/bin/sh", "echo began");
	CHECK_STR(out, "began\n");
	CHECK_STR(err, "hi\n");
	end();
}

TEST(neither_a_hooks_path_nor_its_functions_keep_the_agent_or_the_environment_away)
{
	char *env;

	begin();
	hook("export A='b c' PATH=/nothing\n"
	     "for f in env mv mkdir exec exit set shift trap type unset command printf eval kill; do\n"
	     "\tbuiltin eval \"$f() { builtin echo $f; }\"\ndone\n");
	CHECK_STR(err, "");
	CHECK_STR(out, "began\n");
	env = read_text("run/agent-vm/hook-env");
	CHECK(strstr(env, "A=b c\n") && strstr(env, "PATH=/nothing\n") && !strstr(env, "__agent_vm"));
	free(env);
	stops("for f in exit set trap printf eval kill; do builtin eval \"$f() { builtin echo $f; }\"; done\nfalse\n", 1, "",
	      " at line 2 with status 1 (last command: false)", "");
	/* What IFS is must not matter. */
	hook("IFS=_; set -a; A=1\n");
	env = read_text("run/agent-vm/hook-env");
	CHECK(strstr(env, "A=1\n") && !strstr(env, "__agent_vm"));
	free(env);
	end();
}

TEST(what_fails_after_the_hook_is_told)
{
	char *warning;

	begin();
	files_write(dir, HOOK_FILE, "PATH=/nothing\n");
	run(true, NULL, "sh", "echo began");
	CHECK_STR(err, "agent-vm: sh: not found in PATH, which is /nothing\n");
	CHECK_INT(status, ==, 127);
	run(true, "said by the launcher", "sh", "echo began");
	CHECK_STR(err, "said by the launcher\n");
	CHECK_INT(status, ==, 127);
	files_sh(dir, "rm -r run && touch run");
	hook("true\n");
	warning = xasprintf("agent-vm: warning: " HOOK_FILE ": what it has set is not kept for agent-vm exec: %s/run/agent-vm/hook-env "
			    "cannot be written\n", dir);
	CHECK_STR(err, warning);
	free(warning);
	CHECK_STR(out, "began\n");
	end();
}
