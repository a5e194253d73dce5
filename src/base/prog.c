#include "base/prog.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

#define PROG_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define POLL_MS 10
#define ENV_ONE_MAX 130000 /* bytes of one variable; the kernel's limit is 131072 */

/* Copied when set. */
static const char *const env_kept[] = {
	"HOME",	      "USER",	     "LOGNAME",	    "TMPDIR",	 "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"http_proxy", "https_proxy", "ftp_proxy",   "all_proxy", "no_proxy",	    "HTTP_PROXY",    "HTTPS_PROXY",
	"ALL_PROXY",  "NO_PROXY",    NULL,
};

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static struct strv shunned; /* canonical folders, for the life of the process */

void prog_shun(const char *dir)
{
	char *real = realpath(dir, NULL);

	/* Everything lies below "/"; a session cannot show it to a guest. */
	if (real && strcmp(real, "/") != 0)
		strv_add(&shunned, real);
	free(real);
}

/* One folder a line. A name with a newline cannot be told so; then the user's PATH is not used at all. */
void prog_shun_env(struct strv *ret)
{
	char *all = xstrdup(PROG_SHUN_ENV "=");

	for (size_t i = 0; i < shunned.n; i++) {
		char *more = xasprintf("%s%s\n", all, shunned.v[i]);

		free(all);
		all = more;
		if (strchr(shunned.v[i], '\n'))
			strv_add(ret, "PATH=" PROG_PATH);
	}
	strv_take(ret, all);
}

void prog_shun_from_env(void)
{
	const char *v = getenv(PROG_SHUN_ENV);
	AUTO_FREE(char, copy);
	char *at, *line;

	copy = xstrdup(v ? v : "");
	for (at = copy; (line = strsep(&at, "\n"));)
		if (*line == '/')
			prog_shun(line);
}

static bool is_shunned(const char *real)
{
	for (size_t i = 0; i < shunned.n; i++) {
		size_t n = strlen(shunned.v[i]);

		if (strncmp(real, shunned.v[i], n) == 0 && (real[n] == '/' || real[n] == '\0'))
			return true;
	}
	return false;
}

bool prog_is_shunned(const char *path)
{
	AUTO_FREE(char, real);

	real = realpath(path, NULL);
	return !real || is_shunned(real);
}

/* The program itself is named, not a link to it: a link in the project can be turned elsewhere after the look. */
static int find_in(const char *path, const char *name, char **ret)
{
	int r = -ENOENT;

	while (*path) {
		size_t n = strcspn(path, ":");

		if (*path == '/') {
			AUTO_FREE(char, full);
			AUTO_FREE(char, real);

			full = xasprintf("%.*s/%s", (int)n, path, name);
			real = is_program(full) ? realpath(full, NULL) : NULL;
			if (real && !is_shunned(real)) {
				*ret = TAKE_PTR(real);
				return 0;
			}
			if (real)
				r = -EPERM;
		}
		path += n + (path[n] == ':');
	}
	return r;
}

int prog_find(const char *name, char **ret)
{
	const char *path = getenv("PATH");
	int r = path ? find_in(path, name, ret) : -ENOENT, in_system;

	if (r == 0)
		return 0;
	in_system = find_in(PROG_PATH, name, ret);
	return in_system == -ENOENT ? r : in_system;
}

/* A file or a list of folders, all of them outside of what a guest can write. */
static bool certs_are_outside(const char *paths)
{
	AUTO_FREE(char, copy);
	char *at, *path;

	at = copy = xstrdup(paths);
	while ((path = strsep(&at, ":")))
		if (*path && access(path, F_OK) == 0 && prog_is_shunned(path))
			return false;
	return true;
}

void prog_env_keep(struct strv *ret, const char *const *names)
{
	for (; *names; names++) {
		const char *v = getenv(*names);

		if (v && *v && (!str_starts(*names, "SSL_CERT_") || certs_are_outside(v)))
			strv_addf(ret, "%s=%s", *names, v);
	}
}

void prog_env(struct strv *ret)
{
	strv_add(ret, "PATH=" PROG_PATH);
	strv_add(ret, "LANG=C.UTF-8");
	prog_env_keep(ret, env_kept);
}

static bool is_for_users_programs(const char *v)
{
	static const char *const heads[] = { "GIT_", "LD_", "BASH_ENV=", "ENV=", "NODE_OPTIONS=", "PATH=" };

	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		if (str_starts(v, heads[i]))
			return false;
	/* One that execve(2) takes, but not with our name before it. */
	return strchr(v, '=') && strlen(v) < ENV_ONE_MAX;
}

char *prog_path(void)
{
	const char *path = getenv("PATH");
	AUTO_FREE(char, copy);
	char *at, *dir, *all = xstrdup("");

	at = copy = xstrdup(path ? path : "");
	while ((dir = strsep(&at, ":"))) {
		if (*dir != '/' || prog_is_shunned(dir))
			continue;
		str_append(&all, *all ? ":" : "");
		str_append(&all, dir);
	}
	return all;
}

void prog_user_env(struct strv *ret)
{
	AUTO_FREE(char, path);

	path = prog_path();
	strv_addf(ret, PROG_USER_ENV "PATH=%s", *path ? path : PROG_PATH);
	for (char **v = environ; *v; v++)
		if (is_for_users_programs(*v))
			strv_addf(ret, PROG_USER_ENV "%s", *v);
}

void prog_user_env_take(struct strv *ret)
{
	for (char **v = environ; *v; v++)
		if (str_starts(*v, PROG_USER_ENV))
			strv_add(ret, *v + strlen(PROG_USER_ENV));
}

void prog_user_env_forget(void)
{
	char **to = environ;

	for (char **v = environ; *v; v++) {
		if (str_starts(*v, PROG_USER_ENV))
			explicit_bzero(*v, strlen(*v));
		else
			*to++ = *v;
	}
	*to = NULL;
}

#define FOLLOW_GRACE_S 30 /* mmdebstrap removes a tree of some 20,000 files first */

static void group_end(int sig)
{
	int e = errno;

	(void)kill(0, sig == SIGUSR1 ? SIGTERM : SIGKILL);
	(void)alarm(FOLLOW_GRACE_S); /* then SIGKILL, to ourselves as well */
	errno = e;
}

/* A death signal reaches one process, and programs such as mmdebstrap expect it in the whole group. So one of ours leads
 * the group, does nothing but wait, and passes on that its parent died. Returns in the child, which is the program. */
static void fork_follower(pid_t parent)
{
	struct sigaction end = { .sa_handler = group_end };
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		return;
	(void)close_range(0, ~0U, 0); /* the program's pipes end with it */
	if (pid < 0)
		_exit(127);
	(void)signal(SIGTERM, SIG_IGN); /* it is for the group, and ours is to wait */
	(void)sigaction(SIGUSR1, &end, NULL);
	(void)sigaction(SIGALRM, &end, NULL);
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR1);
	if (getppid() != parent)
		group_end(SIGUSR1);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static int map_write(pid_t pid, const char *name)
{
	char path[64], text[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	(void)snprintf(text, sizeof(text), "0 %u %u\n", PROG_IDS_FIRST, PROG_IDS);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	n = write(fd, text, strlen(text));
	return n < 0 ? errno : 0;
}

/* Become root of a namespace with ids of its own. A child that stays outside writes the maps: from within it would take
 * rights that are gone. Returns an errno. */
static int enter_own_ids(void)
{
	pid_t self = getpid(), pid;
	int gate[2], status, e;
	char c;

	if (pipe2(gate, O_CLOEXEC) < 0)
		return errno;
	pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0) {
		(void)close(gate[1]);
		if (read(gate[0], &c, 1) != 1)
			_exit(0);
		e = map_write(self, "gid_map");
		_exit(e ? e : map_write(self, "uid_map"));
	}
	e = unshare(CLONE_NEWUSER) < 0 ? errno : 0;
	if (e == 0 && write(gate[1], "", 1) != 1)
		e = errno;
	(void)close(gate[0]);
	(void)close(gate[1]);
	status = prog_wait(pid);
	if (e == 0 && status != 0)
		e = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
	if (e == 0 && (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
		e = errno;
	return e;
}

/* In the child: only calls that are safe after a fork; ends by exec or by writing errno into @report. */
static void child(const struct prog *p, char *const *env, int report, int null, pid_t parent)
{
	int want[] = { p->in, p->out, p->errfd, p->fd3, p->fd4, p->fd5 };
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;
	int e, high[ARRAY_SIZE(want)];

	(void)setpgid(0, 0);
	if (p->follows)
		fork_follower(parent);
	e = p->own_ids ? enter_own_ids() : 0;
	if (e != 0)
		goto out;
	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL);
	(void)sigemptyset(&none);
	/* All out of the way of 0..5 first, so that no dup2 overwrites one that is still wanted. */
	report = fcntl(report, F_DUPFD_CLOEXEC, 10);
	for (int i = 0; i < (int)ARRAY_SIZE(want); i++)
		high[i] = i > 2 && want[i] < 0 ? -1 : fcntl(want[i] < 0 ? null : want[i], F_DUPFD_CLOEXEC, 10);
	for (int i = 0; i < (int)ARRAY_SIZE(want); i++) {
		if (high[i] < 0)
			(void)close(i);
		else if (dup2(high[i], i) < 0) {
			e = errno;
			goto out;
		}
	}
	/* The rest is close-on-exec by our rule; this is for what a library may have opened otherwise. */
	for (int fd = ARRAY_SIZE(want); fd < 10; fd++)
		(void)close(fd);
	(void)close_range(10, ~0U, CLOSE_RANGE_CLOEXEC);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir("/") == 0)
		(void)execve(p->path, p->argv, env);
	e = errno;
out:
	(void)!write(report, &e, sizeof(e));
	_exit(127);
}

/* Later assignments win: execve(2) takes duplicates, but a program sees the first. */
static void env_merge(struct strv *env, const struct strv *more)
{
	for (size_t i = 0; i < more->n; i++) {
		size_t n = strcspn(more->v[i], "=") + 1, k;

		for (k = 0; k < env->n; k++)
			if (strncmp(env->v[k], more->v[i], n) == 0)
				break;
		if (k == env->n) {
			strv_add(env, more->v[i]);
		} else {
			free(env->v[k]);
			env->v[k] = xstrdup(more->v[i]);
		}
	}
}

int prog_start(const struct prog *p, pid_t *ret, struct err *err)
{
	struct strv env = { 0 };
	AUTO_FD(null);
	int report[2], e = 0;
	pid_t pid, parent = getpid();
	ssize_t n;

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return err_set(err, -errno, "/dev/null: cannot be opened: %s", strerror(errno));
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_set(err, -errno, "%s: cannot be started: %s", p->path, strerror(errno));
	prog_env(&env);
	env_merge(&env, &p->env);
	pid = fork();
	if (pid == 0)
		child(p, env.v, report[1], null, parent);
	e = pid < 0 ? errno : 0;
	(void)close(report[1]);
	if (pid > 0) {
		/* Also here, so that the group exists whoever runs first. */
		(void)setpgid(pid, pid);
		do
			n = read(report[0], &e, sizeof(e));
		while (n < 0 && errno == EINTR);
		if (n == (ssize_t)sizeof(e))
			(void)prog_wait(pid);
		else
			e = 0;
	}
	(void)close(report[0]);
	strv_done(&env);
	if (e != 0)
		return err_set(err, -e, "%s: cannot be started: %s", p->path, strerror(e));
	*ret = pid;
	return 0;
}

int prog_wait(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return status;
}

int prog_stop(pid_t pid, int grace_ms)
{
	struct timespec tick = { 0, POLL_MS * 1000000L };
	int status = 0;

	(void)kill(-pid, SIGTERM);
	for (int left = grace_ms; left > 0; left -= POLL_MS) {
		if (waitpid(pid, &status, WNOHANG) == pid) {
			(void)kill(-pid, SIGKILL); /* what it left behind */
			return status;
		}
		(void)nanosleep(&tick, NULL);
	}
	(void)kill(-pid, SIGKILL);
	return prog_wait(pid);
}

/* Read to the end or the limits; a negative errno when one was reached. */
static int take_output(int fd, size_t max, int64_t until, char *mem, size_t *ret_n)
{
	size_t n = 0;

	for (;;) {
		int64_t left_ms = (until - now_ns()) / 1000000;
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		ssize_t k;

		if (left_ms <= 0)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)MIN(left_ms, (int64_t)1000)) <= 0)
			continue;
		k = read(fd, mem + n, max + 1 - n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		n += (size_t)k;
		if (n > max)
			return -EFBIG;
	}
	*ret_n = n;
	return 0;
}

int prog_capture(const struct prog *p, size_t max, int timeout_ms, char **ret, int *ret_status, struct err *err)
{
	int64_t until = now_ns() + (int64_t)timeout_ms * 1000000;
	AUTO_FREE(char, mem);
	struct prog with = *p;
	int pipes[2], r, status;
	size_t n = 0;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return err_set(err, -errno, "%s: cannot be started: %s", p->path, strerror(errno));
	with.out = pipes[1];
	r = prog_start(&with, &pid, err);
	(void)close(pipes[1]);
	if (r < 0) {
		(void)close(pipes[0]);
		return r;
	}
	mem = xmalloc(max + 1);
	r = take_output(pipes[0], max, until, mem, &n);
	(void)close(pipes[0]);
	status = r < 0 ? prog_stop(pid, 0) : prog_wait(pid);
	if (r < 0)
		return err_set(err, r, "%s: %s", p->path, r == -ETIMEDOUT ? "took too long and was ended" : strerror(-r));
	mem[n] = '\0';
	*ret = TAKE_PTR(mem);
	*ret_status = status;
	return 0;
}

int prog_output(const struct prog *p, size_t max, int timeout_ms, char **ret, struct err *err)
{
	AUTO_FREE(char, out);
	int r, status;

	r = prog_capture(p, max, timeout_ms, &out, &status, err);
	if (r < 0)
		return r;
	if (status != 0)
		return err_set(err, -EIO, "%s: failed (%s %d)", p->path, WIFSIGNALED(status) ? "signal" : "status",
			       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	*ret = TAKE_PTR(out);
	return 0;
}
