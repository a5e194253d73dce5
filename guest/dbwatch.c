/* The process "agent-vm-dbs" of a guest.
 *
 * Each 10 s it looks whether a database has changed. The first change is saved at once, later ones when 50 s have passed, so a VM
 * that is killed loses a minute and the time of a copy. A copy is two steps: agent-vm-guest-dbs, which has SQLite, takes the
 * databases out into a folder beside them while the agent writes on; then they go over the share to the project's state as a
 * whole set (dbs.h). The agent's files are read in the first step alone, which no slow share can hold up.
 *
 * It is not PID 1, because SQLite waits for locks and a file system may let a call wait for ever. At the end it dies by the same
 * SIGTERM as all else, whatever it does, and PID 1 saves what the agent has left. What it has to say is a failure, once a name. */
#include "guest/dbwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/dbs.h"
#include "guest/guest.h"

#define MS ((int64_t)1000000)
#define LOOK_MS 10000
#define APART_NS (50000 * MS)
#define COPY_NS (120000 * MS) /* 256 MiB take half a second, emulated or on a busy host much longer */
#define TICK_NS (20 * MS)     /* more than one of the kernel's clock, from which files have their times */
#define TEXT_MAX 512
#define PID1_FD 3
#define PROGRAM_FD 4
/* A copy holds a snapshot: with the lowest priority it would last as long as a compiler beside it, and the agent's log grow. The
 * disks of the VM have no scheduler that a priority of I/O would mean something to. */
#define NICE 10

static int program = -1;

struct watched {
	const struct dbs_set *set;
	struct dbset_look saved; /* what it was when it was saved */
	bool is_saved, told_failed, told_large;
	int64_t next_ns;
};

void dbwatch_open(const char *path)
{
	program = open(path, O_PATH | O_CLOEXEC);
}

static void tell(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* One message: the level, then the text. */
static void tell(enum log_level level, const char *fmt, ...)
{
	char text[1 + TEXT_MAX];
	va_list ap;

	text[0] = (char)level;
	va_start(ap, fmt);
	(void)vsnprintf(text + 1, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	(void)!send(PID1_FD, text, 1 + strlen(text + 1), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The end of the pipe, or of the time. */
static bool read_all(int fd, char *text, size_t size)
{
	int64_t until = now_ns() + COPY_NS;
	size_t n = 0;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = until - now_ns();
		char rest[64];
		ssize_t k;

		text[n] = '\0';
		if (left <= 0)
			return false;
		if (poll(&p, 1, (int)(left / MS) + 1) <= 0)
			continue;
		k = n + 1 < size ? read(fd, text + n, size - n - 1) : read(fd, rest, sizeof(rest));
		if (k == 0 || (k < 0 && errno != EINTR))
			return true;
		if (k > 0 && n + 1 < size)
			n += (size_t)k;
	}
}

/* Return: 0, or a negative errno and what the program said in @why, which may be nothing. */
static int run_program(const char *from, const char *to, char *why, size_t size)
{
	char name[] = "agent-vm-guest-dbs";
	char *argv[] = { name, xstrdup(from), xstrdup(to), NULL }, *env[] = { NULL };
	int pipe_fds[2], status = 0;
	bool ended;
	pid_t pid;

	*why = '\0';
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (dup2(pipe_fds[1], STDERR_FILENO) >= 0)
			(void)syscall(SYS_execveat, program, "", argv, env, AT_EMPTY_PATH);
		(void)dprintf(STDERR_FILENO, "agent-vm-guest-dbs: %s", strerror(errno));
		_exit(1);
	}
	free(argv[1]);
	free(argv[2]);
	(void)close(pipe_fds[1]);
	ended = pid > 0 && read_all(pipe_fds[0], why, size);
	(void)close(pipe_fds[0]);
	if (pid < 0)
		return -ENOMEM;
	if (!ended)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	why[strcspn(why, "\n")] = '\0';
	return !ended ? -ETIMEDOUT : status == 0 ? 0 : -EIO;
}

int dbwatch_save(const struct dbs_set *s, char *why, size_t size)
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, from);
	AUTO_FREE(char, to);
	AUTO_FD(local);
	AUTO_FD(dir);
	AUTO_FD(fd);
	int r;

	*why = '\0';
	local = dbs_local(s->name, &from);
	if (local < 0)
		return local;
	name = xasprintf(".%s.copy", s->name);
	to = xasprintf("%.*s%s", (int)(strrchr(from, '/') + 1 - from), from, name);
	dir = openat(local, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	r = file_remove_tree_at(dir, name);
	if (r == 0)
		r = dir_make_at(dir, name, 0700);
	if (r == 0)
		r = run_program(from, to, why, size);
	if (r == 0) {
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = fd < 0 ? -errno : dbs_keep(s, fd);
	}
	(void)file_remove_tree_at(dir, name);
	return r;
}

static void look(struct watched *w)
{
	const char *name = w->set->name;
	struct dbset_look now;
	char why[TEXT_MAX / 2];
	AUTO_FD(fd);
	int r;

	fd = dbs_local(name, NULL);
	if (fd < 0)
		return;
	now = dbset_look(fd);
	if (now_ns() < w->next_ns || (now.sum == w->saved.sum && (!w->is_saved || dbs_is_kept(w->set))))
		return;
	if (now.bytes > DBSET_MAX_RUNNING) {
		if (!w->told_large)
			tell(LOG_LV_INFO, "history: the databases of %s are larger than %u MiB: they are saved at the end of the session alone",
			     name, (unsigned)(DBSET_MAX_RUNNING >> 20));
		w->told_large = true;
		return;
	}
	w->next_ns = now_ns() + APART_NS;
	/* What changes behind the copy then has another time than what was looked at. */
	(void)nanosleep(&(struct timespec){ .tv_nsec = TICK_NS }, NULL);
	r = dbwatch_save(w->set, why, sizeof(why));
	if (r == 0) {
		w->saved = now;
		w->is_saved = true;
	} else if (!w->told_failed) {
		tell(LOG_LV_WARN, "history: the databases of %s could not be saved while the session ran: %s; it is tried again each minute, "
		     "and they are saved at its end", name, *why ? why : strerror(-r));
		w->told_failed = true;
	}
}

static void child(int fd)
{
	struct watched watched[GC_DBS_MAX] = { 0 };
	const struct dbs_set *sets;
	int a, b, oom;
	sigset_t none;
	size_t n;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_NAME, "agent-vm-dbs");
	/* First out of the way of each other, then into place. */
	a = fcntl(fd, F_DUPFD_CLOEXEC, 10);
	b = fcntl(program, F_DUPFD_CLOEXEC, 10);
	if (a < 0 || b < 0 || dup3(a, PID1_FD, O_CLOEXEC) < 0 || dup3(b, PROGRAM_FD, O_CLOEXEC) < 0)
		return;
	(void)close_range(PROGRAM_FD + 1, ~0u, 0);
	/* It holds little, and is not what has filled the memory. */
	oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (oom >= 0) {
		(void)!write(oom, "-1000", 5);
		(void)close(oom);
	}
	(void)setpriority(PRIO_PROCESS, 0, NICE);
	program = PROGRAM_FD;
	sets = dbs_sets(&n);
	for (size_t i = 0; i < n; i++)
		watched[i] = (struct watched){ .set = &sets[i], .saved = sets[i].seen };
	for (;;) {
		struct pollfd p = { .fd = PID1_FD };

		if (poll(&p, 1, LOOK_MS) > 0)
			return; /* PID 1 wants no more of us */
		for (size_t i = 0; i < n; i++)
			look(&watched[i]);
	}
}

void dbwatch_start(struct guest *g)
{
	int pair[2] = { -1, -1 }, r = program < 0 ? -ENOENT : 0;
	pid_t pid = -1;

	if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		r = -errno;
	if (r == 0)
		r = ev_watch(&g->ev, pair[0], EPOLLIN, EV_DBS, 0, 0);
	if (r == 0) {
		pid = fork();
		if (pid == 0) {
			child(pair[1]);
			_exit(0);
		}
		r = pid < 0 ? -errno : 0;
	}
	close_p(&pair[1]);
	close_p(&program);
	program = -1;
	if (r == 0) {
		g->dbs_fd = pair[0];
		return;
	}
	close_p(&pair[0]);
	guest_log(g, LOG_LV_WARN, "history: databases are saved at the end of the session alone: agent-vm-guest-dbs: %s", strerror(-r));
}

void dbwatch_read(struct guest *g)
{
	char text[1 + TEXT_MAX];
	ssize_t k = g->dbs_fd < 0 ? 0 : recv(g->dbs_fd, text, sizeof(text) - 1, 0);

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k > 1) {
		text[k] = '\0';
		/* A program of the guest may have taken the process over: it fills nothing of ours. */
		if (g->port.out.n < PORT_OUT_SOFT)
			guest_log(g, text[0] == LOG_LV_INFO ? LOG_LV_INFO : LOG_LV_WARN, "%s", text + 1);
		return;
	}
	if (g->dbs_fd < 0)
		return;
	ev_unwatch(&g->ev, g->dbs_fd);
	close_p(&g->dbs_fd);
	g->dbs_fd = -1;
	if (g->state == GUEST_SERVES)
		guest_log(g, LOG_LV_WARN, "history: agent-vm-dbs ended; databases are saved at the end of the session alone");
}
