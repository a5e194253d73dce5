#include "cli/renew_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/prog.h"

extern char **environ;

/* No agent turn in the first of each; the second has no tools and no settings but the user's own. */
static const char *const claude_status[] = { "claude", "auth", "status", NULL };
static const char *const claude_prompt[] = { "claude",
					     "-p",
					     "--safe-mode",
					     "--strict-mcp-config",
					     "--setting-sources",
					     "user",
					     "--tools",
					     "",
					     "--no-session-persistence",
					     "--model",
					     "haiku",
					     "Reply with OK",
					     NULL };
static const char *const codex_server[] = { "codex", "app-server", NULL };
static const char *const codex_exec[] = { "codex",     "exec",	      "--skip-git-repo-check", "--sandbox",
					  "read-only", "--ephemeral", "Reply with OK",	       NULL };

static const char *const *const argvs[RENEW_PROGRAMS] = {
	[RENEW_CLAUDE_STATUS] = claude_status, [RENEW_CLAUDE_PROMPT] = claude_prompt,
	[RENEW_CODEX_SERVER] = codex_server,   [RENEW_CODEX_SERVER_RENEW] = codex_server,
	[RENEW_CODEX_EXEC] = codex_exec,
};

#define ERRORS_READ 1024
#define PIPE_SIZE 65536 /* pipe(7) */
#define SERVER_HELLO                                                                                                 \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"clientInfo\":{\"name\":\"agent-vm\"," \
	"\"version\":\"" AGENT_VM_VERSION "\"}}}\n{\"jsonrpc\":\"2.0\",\"method\":\"initialized\"}\n"
#define SERVER_ASK(renew)                                                                                \
	"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"getAuthStatus\",\"params\":{\"includeToken\":false," \
	"\"refreshToken\":" renew "}}\n"

static const char *const dialogs[RENEW_PROGRAMS] = {
	[RENEW_CODEX_SERVER] = SERVER_HELLO SERVER_ASK("false"),
	[RENEW_CODEX_SERVER_RENEW] = SERVER_HELLO SERVER_ASK("true"),
};

/* --- the environment --- */

static void keep(struct strv *ret, const char *const *names, size_t n, bool file)
{
	for (size_t i = 0; i < n; i++) {
		const char *v = getenv(names[i]);

		if (v && *v && (!file || (v[0] == '/' && !prog_is_shunned(v))))
			strv_addf(ret, "%s=%s", names[i], v);
	}
}

void renew_env(enum renew_program what, const char *path, struct strv *ret)
{
	static const char *const kept[] = {
		"HOME",
		"USER",
		"LOGNAME",
		"SHELL",
		"LANG",
		"XDG_RUNTIME_DIR",
		"XDG_CONFIG_HOME",
		"XDG_DATA_HOME",
		"DBUS_SESSION_BUS_ADDRESS",
		"http_proxy",
		"https_proxy",
		"all_proxy",
		"no_proxy",
		"HTTP_PROXY",
		"HTTPS_PROXY",
		"ALL_PROXY",
		"NO_PROXY",
	};
	static const char *const files[] = { "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
					     "CODEX_CA_CERTIFICATE" };
	static const char *const claude[] = { "CLAUDE_CONFIG_DIR", "CLAUDE_SECURESTORAGE_CONFIG_DIR" };
	static const char *const codex[] = { "CODEX_HOME" };
	bool is_claude = what == RENEW_CLAUDE_STATUS || what == RENEW_CLAUDE_PROMPT;

	strv_addf(ret, "PATH=%s", path);
	strv_add(ret, "TERM=dumb");
	keep(ret, kept, ARRAY_SIZE(kept), false);
	keep(ret, files, ARRAY_SIZE(files), true);
	if (is_claude)
		keep(ret, claude, ARRAY_SIZE(claude), true);
	else
		keep(ret, codex, ARRAY_SIZE(codex), true);
	for (char **e = environ; *e; e++)
		if (str_starts(*e, "LC_"))
			strv_add(ret, *e);
}

/* --- the process --- */

struct running {
	pid_t pid;
	int pidfd, in, out, errfd; /* ours; -1: none or closed */
	size_t out_n;		   /* bytes read of out */
	size_t err_n;
	char line[64]; /* the front of the line under way */
	size_t line_n;
};

static void close_fd(int *fd)
{
	close_p(fd);
	*fd = -1;
}

/* A program that is gone must not end us by SIGPIPE. */
static void say(int fd, const char *text)
{
	struct timespec none = { 0, 0 };
	sigset_t pipe, was;

	(void)sigemptyset(&pipe);
	(void)sigaddset(&pipe, SIGPIPE);
	(void)sigprocmask(SIG_BLOCK, &pipe, &was);
	/* Shorter than a pipe, so it cannot block; a program that reads nothing ends at its limit. */
	if (write(fd, text, strlen(text)) < 0 && errno == EPIPE && !sigismember(&was, SIGPIPE))
		(void)sigtimedwait(&pipe, NULL, &none);
	(void)sigprocmask(SIG_SETMASK, &was, NULL);
}

/* In the child: only calls that are safe after a fork. */
static void child(const struct renew_run *r, char *const *env, int work, int null, int in, int out, int errfd,
		  pid_t parent)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	struct rlimit none = { 0, 0 };
	int e;
	sigset_t empty;

	(void)setsid();
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || setrlimit(RLIMIT_CORE, &none) < 0 || fchdir(work) < 0)
		goto out;
	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL);
	(void)sigemptyset(&empty);
	(void)sigprocmask(SIG_SETMASK, &empty, NULL);
	if (dup2(in < 0 ? null : in, 0) < 0 || dup2(out < 0 ? null : out, 1) < 0 || dup2(errfd, 2) < 0)
		goto out;
	(void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	(void)execve(r->program, (char *const *)(uintptr_t)argvs[r->what], env);
out:
	e = errno;
	(void)!write(errfd, strerror(e), strlen(strerror(e)));
	_exit(127);
}

static int start(const struct renew_run *r, int work, struct running *ret, struct err *err)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, errs[2] = { -1, -1 }, res = 0;
	bool talks = dialogs[r->what] != NULL;
	struct strv env = { 0 };
	pid_t pid = -1, self = getpid();
	AUTO_FD(null);

	*ret = (struct running){ .pidfd = -1, .in = -1, .out = -1, .errfd = -1 };
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || pipe2(errs, O_CLOEXEC) < 0 ||
	    (talks && (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)))
		res = -errno;
	if (res == 0) {
		renew_env(r->what, r->path, &env);
		pid = fork();
		if (pid == 0)
			child(r, env.v, work, null, in[0], out[1], errs[1], self);
		res = pid < 0 ? -errno : 0;
		strv_done(&env);
	}
	close_fd(&in[0]);
	close_fd(&out[1]);
	close_fd(&errs[1]);
	if (res == 0) {
		ret->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		res = ret->pidfd < 0 ? -errno : 0;
		if (res < 0) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, NULL, 0);
		}
	}
	ret->pid = pid;
	ret->in = in[1];
	ret->out = out[0];
	ret->errfd = errs[0];
	if (res < 0) {
		close_p(&ret->in);
		close_p(&ret->out);
		close_p(&ret->errfd);
		return err_set(err, res, "%s: cannot be started: %s", r->program, strerror(-res));
	}
	return 0;
}

/* The server answers by lines. The one with our second id is the last that is waited for. */
static void read_out(struct running *p)
{
	char mem[4096];
	ssize_t n = read(p->out, mem, sizeof(mem));

	if (n <= 0 || (p->out_n += (size_t)n) > RENEW_OUTPUT_MAX) {
		close_fd(&p->out);
		close_fd(&p->in);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (mem[i] != '\n') {
			if (p->line_n < sizeof(p->line))
				p->line[p->line_n++] = mem[i];
			continue;
		}
		if (memmem(p->line, p->line_n, "\"id\":2", 6) || memmem(p->line, p->line_n, "\"id\": 2", 7))
			close_fd(&p->in);
		p->line_n = 0;
	}
}

/* The last RENEW_ERRORS_MAX bytes. */
static void read_errors(struct renew_run *r, struct running *p)
{
	char mem[ERRORS_READ];
	ssize_t n = read(p->errfd, mem, sizeof(mem));
	size_t gone;

	if (n <= 0) {
		close_fd(&p->errfd);
		return;
	}
	gone = p->err_n + (size_t)n > RENEW_ERRORS_MAX ? p->err_n + (size_t)n - RENEW_ERRORS_MAX : 0;
	memmove(r->errors, r->errors + gone, p->err_n - gone);
	for (ssize_t i = 0; i < n; i++) /* it is a string for those who get it, and has to be as long as it is */
		r->errors[p->err_n - gone + (size_t)i] = mem[i] ? mem[i] : ' ';
	p->err_n = p->err_n - gone + (size_t)n;
	r->errors[p->err_n] = '\0';
}

/* Until it ends (true), @until or the end of @until_fd; what it says is taken meanwhile. */
static bool attend(struct renew_run *r, struct running *p, int64_t until_ms, int until_fd)
{
	for (;;) {
		struct pollfd fds[] = { { p->pidfd, POLLIN, 0 }, { p->out, POLLIN, 0 }, { p->errfd, POLLIN, 0 },
					{ until_fd > 0 ? until_fd : -1, 0, 0 } };
		int64_t left = until_ms - now_ns() / 1000000;

		if (left <= 0)
			return false;
		if (poll(fds, ARRAY_SIZE(fds), (int)left) < 0 && errno != EINTR)
			return false;
		if (fds[1].revents)
			read_out(p);
		if (fds[2].revents)
			read_errors(r, p);
		if (fds[0].revents)
			return true;
		if (fds[3].revents)
			return false;
	}
}

/* The leader is waited for last, so that nobody else can get the number of its group before. */
static void end_group(struct renew_run *r, struct running *p, bool ended)
{
	if (!ended) {
		(void)kill(-p->pid, SIGTERM);
		(void)attend(r, p, now_ns() / 1000000 + RENEW_GRACE_MS, 0);
	}
	(void)kill(-p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

#define WORK "renew-"

/* Locked for as long as this process lives: what nobody locks is left from one that was killed. */
static int make_work(const struct renew_run *r, char name[32], struct err *err)
{
	struct stat st;
	uint64_t random;
	AUTO_FD(fd);

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_set(err, -EIO, "no random numbers");
	(void)snprintf(name, 32, WORK "%016" PRIx64, random);
	if (mkdirat(r->work_parent, name, 0700) == 0)
		fd = openat(r->work_parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Until it was locked another launch may have taken it for one that is left. */
	if (fd < 0 || flock(fd, LOCK_EX) < 0 || fstatat(r->work_parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, -errno, "%s/%s: cannot be made: %s", r->work_path, name, strerror(errno));
	return TAKE_FD(fd);
}

void renew_reap(int parent)
{
	int top = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = top < 0 ? NULL : fdopendir(top);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		AUTO_FD(fd);

		if (!str_starts(e->d_name, WORK))
			continue;
		fd = openat(parent, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			(void)file_remove_tree_at(parent, e->d_name);
	}
	if (d)
		(void)closedir(d);
}

int renew_run(struct renew_run *r, struct err *err)
{
	const char *dialog = dialogs[r->what];
	struct running p;
	char name[32];
	AUTO_FD(work);
	bool ended;
	int res;

	r->errors[0] = '\0';
	work = make_work(r, name, err);
	if (work < 0)
		return work;
	res = start(r, work, &p, err);
	if (res == 0) {
		if (dialog)
			say(p.in, dialog);
		ended = attend(r, &p, now_ns() / 1000000 + r->limit_ms, r->until_fd);
		close_fd(&p.in);
		end_group(r, &p, ended);
		/* A process that left the group may still have the other end, and write without end: what a pipe holds is enough. */
		if (p.errfd >= 0)
			(void)fd_nonblock(p.errfd, true);
		for (int i = 0; p.errfd >= 0 && i < PIPE_SIZE / ERRORS_READ; i++)
			read_errors(r, &p);
		close_p(&p.errfd);
		close_p(&p.out);
		close_p(&p.pidfd);
		res = ended ? 0 : err_set(err, -ETIMEDOUT, "%s: took too long and was ended", r->program);
	}
	(void)file_remove_tree_at(r->work_parent, name);
	return res;
}
