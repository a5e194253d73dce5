/* A state root of a test's own, launchers that are real processes, and what they leave. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/str.h"
#include "session/lock.h"
#include "session/logs.h"
#include "session/older.h"
#include "session/registry.h"
#include "session/trash.h"
#include "test.h"

struct state {
	char dir[64];
	struct state_root root;
	struct project project;
};

static inline void state_begin(struct state *t)
{
	AUTO_FREE(char, root_path);
	struct err err;

	*t = (struct state){ .dir = "/tmp/agent-vm-test.XXXXXX", .root = STATE_ROOT_INIT, .project = PROJECT_INIT };
	CHECK(mkdtemp(t->dir));
	CHECK_INT(chdir(t->dir), ==, 0);
	CHECK_INT(mkdir("proj", 0755), ==, 0);
	CHECK_INT(mkdir("other", 0755), ==, 0);
	CHECK_INT(chdir("proj"), ==, 0);
	CHECK_INT(project_open_cwd(&t->project, &err), ==, 0);
	CHECK_INT(setenv("AGENT_VM_STATE_DIR", "", 1), ==, 0);
	CHECK_INT(setenv("XDG_STATE_HOME", t->dir, 1), ==, 0);
	root_path = xasprintf("%s/agent-vm", t->dir);
	if (state_root_open(root_path, true, &t->root, &err) < 0)
		fail_msg("%s", err.text);
}

static inline void state_end(struct state *t)
{
	state_root_close(&t->root);
	project_close(&t->project);
	CHECK_INT(chdir("/"), ==, 0);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, t->dir), ==, 0);
}

/* A process that makes a session with one sleeping child and then waits for its end; SIGTERM ends both in order. */
struct launcher {
	pid_t pid, child;
	char name[SESSION_NAME_MAX + 1];
};

static volatile sig_atomic_t launcher_asked;

static inline void launcher_on_term(int sig)
{
	launcher_asked++;
}

/* It runs when this returns: until its exec it holds a copy of every lock of the process that starts it. */
static inline pid_t sleeper(void)
{
	int pipefd[2];
	pid_t pid;
	char c;

	CHECK_INT(pipe2(pipefd, O_CLOEXEC), ==, 0);
	pid = fork();
	CHECK_INT(pid, >=, 0);
	if (pid == 0) {
		sigset_t none;

		/* It outlives its launcher, that is its purpose; it must not keep open what collects the test's output. */
		(void)dup2(open("/dev/null", O_RDWR | O_CLOEXEC), STDOUT_FILENO);
		(void)dup2(STDOUT_FILENO, STDERR_FILENO);
		(void)sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		(void)execl("/bin/sleep", "sleep", "600", (char *)NULL);
		_exit(127);
	}
	(void)close(pipefd[1]);
	CHECK_INT(read(pipefd[0], &c, 1), ==, 0);
	(void)close(pipefd[0]);
	return pid;
}

static inline int set_port(struct session *s)
{
	struct strv ports = { 0 };
	int r;

	strv_add(&ports, "127.0.0.1:3000->3000/tcp");
	r = session_set_ports(s, &ports);
	strv_done(&ports);
	return r;
}

/* @deaf: SIGTERM is ignored. */
static inline struct launcher launcher_start(struct state *t, const char *verb, bool deaf)
{
	static const char *const words[] = { "--memory", "4", "--env", "A=geheim", "--env=B=geheim", NULL };
	struct launcher l = { 0 };
	int pipefd[2];

	CHECK_INT(pipe2(pipefd, O_CLOEXEC), ==, 0);
	l.pid = fork();
	if (l.pid == 0) {
		struct sigaction act = { .sa_handler = deaf ? SIG_IGN : launcher_on_term };
		struct session s = SESSION_INIT;
		sigset_t none, term;
		struct err err;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive a test that failed */
		(void)sigemptyset(&none);
		(void)sigemptyset(&term);
		(void)sigaddset(&term, SIGTERM);
		(void)sigprocmask(SIG_BLOCK, &term, NULL);
		(void)sigaction(SIGTERM, &act, NULL);
		if (session_create(&s, &t->root, &t->project, verb, words, &err) < 0) {
			(void)fprintf(stderr, "%s\n", err.text);
			_exit(1);
		}
		l.pid = getpid();
		l.child = sleeper();
		memcpy(l.name, s.info.name, sizeof(l.name));
		if (session_add_child(&s, "vmm", l.child) < 0 || set_port(&s) < 0 ||
		    session_set_vm(&s, "image:latest", "krun", NULL) < 0 ||
		    file_replace_at(s.dir_fd, SESSION_DISK, "disk", 4, 0600) < 0 ||
		    fd_write_all(pipefd[1], &l, sizeof(l)) < 0)
			_exit(2);
		while (!launcher_asked)
			(void)sigsuspend(&none);
		(void)kill(l.child, SIGKILL);
		(void)waitpid(l.child, NULL, 0);
		(void)session_end(&s, session_stop_asked(&s) ? SESSION_STOPPED : SESSION_SIGNAL, 143, NULL);
		session_done(&s);
		_exit(0);
	}
	(void)close(pipefd[1]);
	CHECK_INT(fd_read_exact(pipefd[0], &l, sizeof(l)), ==, 0);
	(void)close(pipefd[0]);
	return l;
}

static inline void launcher_kill(const struct launcher *l)
{
	CHECK_INT(kill(l->pid, SIGKILL), ==, 0);
	CHECK_INT(waitpid(l->pid, NULL, 0), ==, l->pid);
}

static inline bool is_running(pid_t pid)
{
	struct proc_id id;

	/* proc_id_open() says gone for a zombie: orphans here may have a parent that does not collect. */
	return proc_id_of(pid, &id) == 0 && !proc_id_is_gone(&id);
}

static inline bool exists(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static inline void ended_info(struct state *t, const char *name, struct session_info *ret)
{
	AUTO_FD(dir);
	struct err err;

	dir = registry_open_logs(&t->root, name);
	CHECK_INT(dir, >=, 0);
	if (session_info_read(dir, ret, &err) < 0)
		fail_msg("%s", err.text);
}
