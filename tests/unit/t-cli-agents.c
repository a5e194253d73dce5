#include "test.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents/agent.h"

#define W (char *)
#define PART(...) ((char *[]){ __VA_ARGS__, NULL })

static void check_argv(const char *verb, char **part, bool tty, const char *want)
{
	struct strv got = { 0 };
	char line[1024] = "";

	agent_argv(agent_find(verb), part, tty, &got);
	for (size_t i = 0; i < got.n; i++) {
		strcat(line, i ? "|" : "");
		strcat(line, got.v[i]);
	}
	CHECK_STR(line, want);
	CHECK(got.v[got.n] == NULL);
	strv_done(&got);
}

TEST(command_lines_of_the_agents)
{
	char *none[] = { NULL };

	check_argv("claude", none, true, "claude|--dangerously-skip-permissions");
	check_argv("claude", PART(W "-p", W "say hi"), true, "claude|--dangerously-skip-permissions|-p|say hi");
	check_argv("claude", PART(W "--", W "x"), true, "claude|--dangerously-skip-permissions|--|x");
	check_argv("claude", PART(W "x", W "--dangerously-skip-permissions"), true,
		   "claude|x|--dangerously-skip-permissions");
	check_argv("claude", PART(W "--permission-mode", W "plan"), true, "claude|--permission-mode|plan");
	check_argv("claude", PART(W "--permission-mode=plan"), true, "claude|--permission-mode=plan");
	check_argv("claude", PART(W "--permission-modes"), true,
		   "claude|--dangerously-skip-permissions|--permission-modes");
	check_argv("copilot", none, true, "copilot|--allow-all");
	check_argv("copilot", PART(W "--allow-all-tools"), true, "copilot|--allow-all-tools");
	check_argv("copilot", PART(W "-p", W "x", W "--yolo"), true, "copilot|-p|x|--yolo");
	check_argv("copilot", PART(W "--allow-all"), true, "copilot|--allow-all");
	check_argv("codex", PART(W "exec", W "x"), true, "codex|exec|x");
	check_argv("opencode", none, true, "opencode");
}

TEST(what_shell_runs)
{
	char *none[] = { NULL };

	check_argv("shell", none, true, "bash|-O|histappend");
	check_argv("shell", none, false, "bash");
	check_argv("shell", PART(W "-c", W "a && b"), true, "bash|-c|a && b");
	check_argv("shell", PART(W "-l"), true, "bash|-l");
	check_argv("shell", PART(W "ls", W "-la", W "/tmp"), true, "bash|-c|\"$@\"|bash|ls|-la|/tmp");
	check_argv("shell", PART(W ""), true, "bash|-c|\"$@\"|bash|");
}

/* Runs the words with the bash of this host. Return: status; output without its last newline in @out */
static int run(char **part, const char *in, char *out, size_t size, pid_t *ret_pid)
{
	struct strv argv = { 0 };
	int to[2], from[2], status, fd;
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	agent_argv(agent_find("shell"), part, false, &argv);
	CHECK(pipe(to) == 0 && pipe(from) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		fd = open("/dev/null", O_WRONLY);
		dup2(to[0], 0);
		dup2(from[1], 1);
		dup2(fd, 2);
		close(to[1]);
		execvp(argv.v[0], argv.v);
		_exit(99);
	}
	close(to[0]);
	close(from[1]);
	CHECK(write(to[1], in, strlen(in)) == (ssize_t)strlen(in));
	close(to[1]);
	while (n + 1 < size && (r = read(from[0], out + n, size - n - 1)) > 0)
		n += (size_t)r;
	close(from[0]);
	while (n > 0 && out[n - 1] == '\n')
		n--;
	out[n] = '\0';
	CHECK(waitpid(pid, &status, 0) == pid);
	strv_done(&argv);
	if (ret_pid)
		*ret_pid = pid;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(bash_takes_each_word_literally)
{
	char out[1024], pid_text[32];
	pid_t pid;

	CHECK_INT(run(PART(W "printf", W "[%s]", W "a b", W "$HOME", W "it's", W ""), "", out, sizeof(out), NULL), ==, 0);
	CHECK_STR(out, "[a b][$HOME][it's][]");
	CHECK_INT(run(PART(W "-c", W "echo a && echo b"), "", out, sizeof(out), NULL), ==, 0);
	CHECK_STR(out, "a\nb");
	CHECK_INT(run(PART(W "type", W "cd"), "", out, sizeof(out), NULL), ==, 0);
	CHECK_STR(out, "cd is a shell builtin");
	CHECK_INT(run(PART(W "echo a && echo b"), "", out, sizeof(out), NULL), ==, 127);
	CHECK_INT(run(PART(W "A=1"), "", out, sizeof(out), NULL), ==, 127);
	CHECK_INT(run(PART(W "nosuchprogram"), "", out, sizeof(out), NULL), ==, 127);
	CHECK_INT(run(PART(W "/"), "", out, sizeof(out), NULL), ==, 126);
	CHECK_INT(run(PART(W "exit", W "5"), "", out, sizeof(out), NULL), ==, 5);
	CHECK_INT(run(PART(W "sh", W "-c", W "exit 7"), "", out, sizeof(out), NULL), ==, 7);
	CHECK_INT(run((char *[]){ NULL }, "echo from-stdin\n", out, sizeof(out), NULL), ==, 0);
	CHECK_STR(out, "from-stdin");
	CHECK_INT(run(PART(W "cat"), "through", out, sizeof(out), NULL), ==, 0);
	CHECK_STR(out, "through");
	/* The program is in the place of bash: its signal is the process's own. */
	CHECK_INT(run(PART(W "sh", W "-c", W "echo $$; kill -TERM $$"), "", out, sizeof(out), &pid), ==, 143);
	(void)snprintf(pid_text, sizeof(pid_text), "%d", (int)pid);
	CHECK_STR(out, pid_text);
}

TEST(a_shell_line_as_one_word_gets_a_note)
{
	const struct agent *shell = agent_find("shell");
	static const char *const lines[] = { "echo a && echo b", "a;b", "a|b", "x>y", "a\tb", "(a)" };

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		CHECK_STR(agent_note(shell, PART(W lines[i]), 127), "to run a shell line use -c, as in: -c 'a && b'");
	CHECK(!agent_note(shell, PART(W "nosuchprogram"), 127));
	CHECK(!agent_note(shell, PART(W "a b"), 1));
	CHECK(!agent_note(shell, PART(W "a b", W "c"), 127));
	CHECK(!agent_note(shell, PART(W "-c", W "a b"), 127));
	CHECK(!agent_note(shell, (char *[]){ NULL }, 127));
	CHECK(!agent_note(agent_find("claude"), PART(W "a b"), 127));
}

TEST(agents_know_their_own_options)
{
	CHECK(agent_knows(agent_find("claude"), "resume", 6));
	CHECK(agent_knows(agent_find("codex"), "image", 5));
	CHECK(!agent_knows(agent_find("claude"), "resum", 5));
	CHECK(!agent_knows(agent_find("claude"), "memory", 6));
	CHECK(!agent_find("nobody"));
}
