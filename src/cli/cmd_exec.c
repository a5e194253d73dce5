/* `agent-vm exec`: a second program in a live session. Speaks the control protocol with the session's launcher, which
 * hands it on to the guest (run_client.c); our own end is the same as a launch's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agents/agent.h"
#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/run.h"
#include "cli/sessions.h"
#include "session/registry.h"

struct exec_args {
	const char *session;
};

static const struct opt exec_opts[] = {
	{ "session", OPT_STRING, offsetof(struct exec_args, session), "SESSION", "which session", 0,
	  "A name as ps shows it, four or more characters from its front, or the path of a project. Default: the one "
	  "session of the current project.",
	  "7d73" },
	{ 0 },
};

static int find_session(const char *what, struct state_root *root, char name[SESSION_NAME_MAX + 1], struct err *err)
{
	struct project here = PROJECT_INIT;
	struct session_list live = { 0 };
	const struct session_info *found;
	int r;

	r = sessions_root(root, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "session: none is live; start one with: agent-vm shell");
	if (!what) {
		r = project_open_cwd(&here, err);
		if (r < 0)
			return r;
	}
	r = registry_list(root, SESSIONS_LIVE, &live, err);
	if (r == 0) {
		r = session_find(&live, what, here.hash, false, &found, err);
		if (r == 0)
			(void)snprintf(name, SESSION_NAME_MAX + 1, "%s", found->name);
		session_list_done(&live);
	}
	project_close(&here);
	return r;
}

static int exec_connect(const char *what, int *ret_fd, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	char name[SESSION_NAME_MAX + 1] = "";
	AUTO_FD(dir);
	int r;

	r = find_session(what, &root, name, err);
	if (r == 0) {
		dir = registry_open_session(&root, name);
		r = dir < 0 ? dir : session_connect(dir, SESSION_SOCK, ret_fd);
		/* The socket is made when the VM is started: after a pull, which may take long. */
		if (r == -ENOENT && !registry_is_gone(&root, name))
			(void)err_set(err, r, "session %s: it is still starting; try again in a moment", name);
		else if (r < 0)
			(void)err_set(err, r, "session %s: cannot be reached: %s", name, strerror(-r));
	}
	state_root_close(&root);
	return r;
}

static int exec_run(struct cli *cli, void *args, char **rest)
{
	const struct exec_args *a = args;
	struct run_spec spec = { .control_fd = -1, .listen_fd = -1, .stdin_forward = true, .log_dir = "" };
	struct strv argv = { 0 };
	struct err err = { "" };
	struct run *run = NULL;
	int r, status = 1, sig = 0;
	const char *note;

	(void)cli;
	(void)signal(SIGPIPE, SIG_IGN);
	r = exec_connect(a->session, &spec.port_fd, &err);
	if (r < 0)
		return sessions_fail(r, &err);
	agent_shell_argv(rest, isatty(STDIN_FILENO) && isatty(STDOUT_FILENO), &argv);
	spec.argv = &argv;
	run = run_new(&spec, &err);
	if (run) {
		switch (run_agent(run, &err)) {
		case RUN_EXIT:
			status = run_status(run);
			if (run_exit_text(run)[0] != '\0')
				(void)fprintf(stderr, "agent-vm: %s\n", run_exit_text(run));
			note = agent_note(&agent_shell, rest, status);
			if (note)
				(void)fprintf(stderr, "agent-vm: note: %s\n", note);
			break;
		case RUN_STOPPED:
			sig = run_status(run);
			status = 128 + sig;
			break;
		default:
			/* The program may have left the cursor anywhere. */
			(void)fprintf(stderr, "%sagent-vm: %s\n", run_had_pty(run) ? "\n" : "", err.text);
		}
	} else {
		(void)fprintf(stderr, "agent-vm: %s\n", err.text);
	}
	run_free(run);
	strv_done(&argv);
	if (sig) {
		sigset_t set;

		(void)signal(sig, SIG_DFL);
		(void)raise(sig);
		(void)sigemptyset(&set);
		(void)sigaddset(&set, sig);
		(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	}
	return status;
}

const struct cmd cmd_exec = {
	.name = "exec",
	.summary = "run one more program in a running session",
	.usage = "[OPTIONS] [--] [COMMAND [WORDS] | -c LINE]",
	.about = "Words are taken as by agent-vm shell. The program gets the environment that the agent has and starts in the "
		 "project folder; terminal, standard input, signals and exit status are as in a launch.",
	.examples = "agent-vm exec\ta second shell beside the agent\n"
		    "agent-vm exec git status\tone command\n"
		    "agent-vm exec -c 'make && make test'\ta shell line\n"
		    "agent-vm exec --session 7d73 top\tin a session of another project\n",
	.opts = exec_opts,
	.args_size = sizeof(struct exec_args),
	.words = CMD_WORDS_GUEST,
	.run = exec_run,
};
