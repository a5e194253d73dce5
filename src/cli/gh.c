#include "cli/gh.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"

#define ASK_MS 5000
#define LOOK_MS 20

char *gh_folder(char *(*env)(const char *), const char *home)
{
	const char *dir = env("GH_CONFIG_DIR"), *xdg = env("XDG_CONFIG_HOME");

	return dir && dir[0] == '/'   ? xstrdup(dir)
	       : xdg && xdg[0] == '/' ? xasprintf("%s/gh", xdg)
	       : home		      ? xasprintf("%s/.config/gh", home)
				      : NULL;
}

void gh_env(const char *folder, struct strv *ret)
{
	static const char *const keyring[] = { "DBUS_SESSION_BUS_ADDRESS", NULL };

	prog_env_keep(ret, keyring);
	strv_addf(ret, "GH_CONFIG_DIR=%s", folder);
	strv_add(ret, "GH_NO_UPDATE_NOTIFIER=1");
	strv_add(ret, "GH_PROMPT_DISABLED=1");
}

void gh_done(struct gh *g)
{
	free(g->program);
	free(g->folder);
	free(g->hosts);
	*g = (struct gh){ .program = NULL };
}

void gh_refused(struct gh *g)
{
	g->wanted = true;
}

/* Whether hosts.yml is another one than when this was called last. What is not there is one, too. */
static bool hosts_changed(struct gh *g)
{
	struct file_mark was = g->mark;

	g->mark = file_mark(g->hosts);
	return !file_mark_is(&g->mark, &was);
}

static bool has_rested(const struct gh *g, int64_t now_ms, int64_t ms)
{
	return g->asked == 0 || now_ms - g->asked >= ms;
}

bool gh_is_due(struct gh *g, int64_t now_ms)
{
	if (!g->program)
		return false;
	if (g->pid > 0 && waitpid(g->pid, NULL, WNOHANG) != 0)
		g->pid = 0;
	if (hosts_changed(g)) {
		g->changed = true;
		return false;
	}
	if (g->pid > 0)
		return false;
	return (g->wanted && has_rested(g, now_ms, GH_AGAIN_MS)) || (g->changed && has_rested(g, now_ms, GH_CHANGED_MS));
}

/* In the process that asks. */
static void ask(const struct gh *g, int out)
{
	char gh[] = "gh", auth[] = "auth", token[] = "token", option[] = "--hostname", host[] = "github.com";
	char *const argv[] = { gh, auth, token, option, host, NULL };
	struct prog p = PROG_INIT;
	int status = -1, ms = 0;
	pid_t pid, ended = 0;

	p.path = g->program;
	p.argv = argv;
	p.out = out;
	gh_env(g->folder, &p.env);
	if (prog_start(&p, &pid, NULL) == 0) {
		for (; ms < ASK_MS && (ended = waitpid(pid, &status, WNOHANG)) == 0; ms += LOOK_MS)
			(void)poll(NULL, 0, LOOK_MS);
		if (ended != pid) {
			(void)prog_stop(pid, 0);
			status = -1;
		}
	}
	/* What it printed until then may be half of something. */
	if (status != 0)
		(void)!write(out, "\0", WIFEXITED(status) ? 1 : 2);
}

void gh_ask(struct gh *g, int out)
{
	pid_t pid;

	if (!g->hosts) {
		g->hosts = xasprintf("%s/hosts.yml", g->folder);
		g->mark = file_mark(g->hosts);
	}
	g->wanted = g->changed = false;
	pid = fork();
	if (pid == 0) {
		/* It may outlive the launch, and must not keep what tells others that the session lives. */
		if (dup2(out, 3) == 3 && close_range(4, ~0U, 0) == 0) {
			int null = open("/dev/null", O_RDWR);

			for (int i = 0; i <= 2; i++)
				(void)dup2(null, i);
			(void)close(null);
			(void)setsid();
			ask(g, 3);
		}
		_exit(0);
	}
	g->pid = pid > 0 ? pid : 0;
}

int gh_ask_again(struct gh *g, int64_t now_ms)
{
	int pipefd[2], r;

	g->asked = now_ms;
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	r = fd_nonblock(pipefd[0], true);
	if (r == 0)
		gh_ask(g, pipefd[1]);
	(void)close(pipefd[1]);
	if (r < 0)
		(void)close(pipefd[0]);
	return r < 0 ? r : pipefd[0];
}
