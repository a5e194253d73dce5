/* Every order of the host runs in a child: a program, and also the reading and writing of a file, because a file system
 * may let a call wait for ever and PID 1 must not.
 *
 *    parent                         child
 *    in     ---- pipe or pty ---->  0
 *    out    <--- pipe or pty -----  1
 *    err    <--- pipe ------------  2        (a pty has no err)
 *    status <--- close-on-exec ---  status   notes of struct spawn_note; the end without one: exec worked
 *
 * With a pty in and out are two descriptors of one master, so that the channels need no knowledge of each other. A child
 * begins with default signals, an empty mask, its own session, umask 022 and no descriptor but these. */
#include "guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/dial.h"
#include "guest/file.h"
#include "proto/ctl.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"

#define PATH_FALLBACK "/usr/local/bin:/usr/bin:/bin"
#define TERM_FALLBACK "xterm-256color" /* spec: TERM unknown to the image */
#define STATUS_FD 3

/* Counts and sizes first, so that one block holds all strings and both lists. */
struct parse {
	size_t n_arg, n_env, bytes;
	struct span term, path;
	bool has_path, pty, has_size;
};

static bool is_text(struct span s)
{
	return s.n == 0 || !memchr(s.p, '\0', s.n);
}

static int parse_size(struct span v, struct winsize *ret)
{
	struct winsize w;

	if (v.n != 8)
		return -EBADMSG;
	(void)span_u16(&v, &w.ws_row);
	(void)span_u16(&v, &w.ws_col);
	(void)span_u16(&v, &w.ws_xpixel);
	(void)span_u16(&v, &w.ws_ypixel);
	*ret = w;
	return 0;
}

static int parse_exec(struct parse *p, struct spawn_req *req, uint16_t key, struct span val)
{
	uint64_t v;

	switch (key) {
	case CTL_K_ARG:
		p->n_arg++;
		p->bytes += val.n + 1;
		return is_text(val) ? 0 : -EBADMSG;
	case CTL_K_ENV:
		p->n_env++;
		p->bytes += val.n + 1;
		return is_text(val) ? 0 : -EBADMSG;
	case CTL_K_CWD:
		if (p->has_path || val.n == 0 || val.p[0] != '/' || !is_text(val))
			return -EBADMSG;
		p->has_path = true;
		p->path = val;
		return 0;
	case CTL_K_PTY:
		if (p->pty || !is_text(val))
			return -EBADMSG;
		p->pty = true;
		p->term = val;
		return 0;
	case CTL_K_SIZE:
		p->has_size = true;
		return parse_size(val, &req->size);
	case CTL_K_STDIN:
		if (rec_u64(val, CTL_STDIN_PIPE, &v) < 0)
			return -EBADMSG;
		req->stdin_pipe = v == CTL_STDIN_PIPE;
		return 0;
	default:
		return -EBADMSG;
	}
}

static int parse_file(struct parse *p, struct spawn_req *req, uint16_t key, struct span val)
{
	switch (key) {
	case CTL_K_PATH:
		if (p->has_path || val.n < 2 || val.p[0] != '/' || !is_text(val))
			return -EBADMSG;
		p->has_path = true;
		p->path = val;
		return 0;
	case CTL_K_MODE:
		return req->kind == SPAWN_PUT ? rec_u64(val, 07777, &req->mode) : -EBADMSG;
	case CTL_K_MAX:
		return req->kind == SPAWN_GET ? rec_u64(val, UINT64_MAX, &req->max) : -EBADMSG;
	default:
		return -EBADMSG;
	}
}

static int parse_dial(struct spawn_req *req, uint16_t key, struct span val)
{
	uint64_t v;

	switch (key) {
	case CTL_K_ADDR:
		if (req->family != 0 || val.n < 1 || !((val.p[0] == 4 && val.n == 5) || (val.p[0] == 6 && val.n == 17)))
			return -EBADMSG;
		req->family = val.p[0];
		memcpy(req->addr, val.p + 1, val.n - 1);
		return 0;
	case CTL_K_PORT:
		if (req->port != 0 || rec_u64(val, UINT16_MAX, &v) < 0 || v == 0)
			return -EBADMSG;
		req->port = (uint16_t)v;
		return 0;
	default:
		return -EBADMSG;
	}
}

/* Whether the image describes a terminal of that name; both layouts of terminfo(5) folders. */
static bool term_is_known(struct span term)
{
	static const char *const dirs[] = { "/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo",
					    "/usr/lib/terminfo" };
	char path[320];

	if (term.n == 0 || term.n > 128 || term.p[0] == '.' || memchr(term.p, '/', term.n))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%c/%.*s", dirs[i], term.p[0], (int)term.n, (const char *)term.p);
		if (access(path, F_OK) == 0)
			return true;
		(void)snprintf(path, sizeof(path), "%s/%02x/%.*s", dirs[i], term.p[0], (int)term.n,
			       (const char *)term.p);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/* Whether a TZ tells the C library the time: a file of the image, or a rule of POSIX ("CET-1CEST", "<+03>-3"). Of any other it
 * keeps the first letters as the name of a zone that is UTC, and so `date` is wrong by hours and does not look so. */
static bool zone_is_known(struct span tz)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	char path[320], name[257];
	const char *s = name, *end;
	struct stat st;

	if (tz.n >= sizeof(name))
		return false;
	if (tz.n > 0)
		memcpy(name, tz.p, tz.n);
	name[tz.n] = '\0';
	if (*s == ':')
		s++;
	(void)snprintf(path, sizeof(path), "%s%s", *s == '/' ? "" : "/usr/share/zoneinfo/", s);
	if (*s == '\0' || (stat(path, &st) == 0 && S_ISREG(st.st_mode)))
		return true;
	end = *s == '<' ? strchrnul(s, '>') : s + strspn(s, letters);
	end += *end == '>';
	if (end - s < 3)
		return false;
	end += *end == '+' || *end == '-';
	return *end >= '0' && *end <= '9';
}

static char *store(char **at, const char *head, struct span s)
{
	char *start = *at, *to = start;
	size_t n = strlen(head);

	memcpy(to, head, n);
	to += n;
	if (s.n > 0)
		memcpy(to, s.p, s.n);
	to[s.n] = '\0';
	*at = to + s.n + 1;
	return start;
}

static bool is_var(struct span assignment, const char *name)
{
	size_t n = strlen(name);

	return assignment.n > n && memcmp(assignment.p, name, n) == 0 && assignment.p[n] == '=';
}

/* TERM of the list gives way to that of the pty; a zone that the image does not know is left out, and our own store of Java's
 * where there is none. */
static bool env_stays(const struct parse *p, struct span val)
{
	if (is_var(val, "TERM"))
		return !p->pty;
	if (span_is(val, GC_JAVA_VAR "=" GC_JAVA_VALUE))
		return access(GC_JAVA_STORE, F_OK) == 0;
	return !is_var(val, "TZ") || zone_is_known(SPAN(val.p + 3, val.n - 3));
}

/* Second pass: the strings go to the block. */
static int build(const struct parse *p, struct span recs, struct spawn_req *req)
{
	size_t n_lists = p->n_arg + 1 + p->n_env + 2, arg = 0, env = 0;
	struct span val;
	uint16_t key;
	char *at;

	req->block = malloc(n_lists * sizeof(char *) + p->bytes + p->path.n + p->term.n + sizeof("TERM=" TERM_FALLBACK) + 2);
	if (!req->block)
		return -ENOMEM;
	req->argv = (char **)(void *)req->block;
	req->env = req->argv + p->n_arg + 1;
	at = req->block + n_lists * sizeof(char *);
	while (rec_next(&recs, &key, &val) == 1) {
		if (key == CTL_K_ARG)
			req->argv[arg++] = store(&at, "", val);
		else if (key == CTL_K_ENV && env_stays(p, val))
			req->env[env++] = store(&at, "", val);
	}
	if (p->pty)
		req->env[env++] = store(&at, "TERM=", term_is_known(p->term) ? p->term : span_str(TERM_FALLBACK));
	req->argv[arg] = NULL;
	req->env[env] = NULL;
	req->path = p->has_path ? store(&at, "", p->path) : NULL;
	req->pty = p->pty;
	return 0;
}

int spawn_parse(enum spawn_kind kind, struct span recs, struct spawn_req *ret)
{
	struct spawn_req req = { .kind = kind, .mode = 0644, .size = { .ws_row = 24, .ws_col = 80 } };
	struct parse p = { 0 };
	struct span in = recs, val;
	uint16_t key;
	int r;

	while ((r = rec_next(&in, &key, &val)) == 1) {
		r = kind == SPAWN_EXEC ? parse_exec(&p, &req, key, val) :
		    kind == SPAWN_DIAL ? parse_dial(&req, key, val) : parse_file(&p, &req, key, val);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if (kind == SPAWN_EXEC ? p.n_arg == 0 : kind == SPAWN_DIAL ? req.family == 0 || req.port == 0 : !p.has_path)
		return -EBADMSG;
	r = build(&p, recs, &req);
	if (r < 0)
		return r;
	*ret = req;
	return 0;
}

void spawn_req_done(struct spawn_req *req)
{
	free(req->block);
	*req = (struct spawn_req){ 0 };
}

void spawn_note(int fd, const struct spawn_note *note)
{
	(void)fd_write_all(fd, note, sizeof(*note));
}

int spawn_fail(int fd, int error, const char *fmt, ...)
{
	struct spawn_note note = { .kind = NOTE_FAIL, .error = error };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(note.text, sizeof(note.text), fmt, ap);
	va_end(ap);
	spawn_note(fd, &note);
	return 1;
}

static const char *env_path(char *const *env)
{
	for (; *env; env++)
		if (strncmp(*env, "PATH=", 5) == 0)
			return *env + 5;
	return PATH_FALLBACK;
}

/* execvpe(3) searches the PATH of the caller and hands text files to a shell; neither is wanted here. */
static int exec_search(const struct spawn_req *req)
{
	const char *prog = req->argv[0], *dir = env_path(req->env), *end;
	char path[4096];
	int error = ENOENT;

	if (strchr(prog, '/') || *prog == '\0') {
		(void)execve(prog, req->argv, req->env);
		return errno;
	}
	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		if ((size_t)snprintf(path, sizeof(path), "%.*s%s%s", (int)(end - dir), dir, end > dir ? "/" : "", prog) <
		    sizeof(path)) {
			(void)execve(path, req->argv, req->env);
			if (errno == EACCES)
				error = EACCES;
			else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP)
				return errno;
		}
		if (*end == '\0')
			return error;
	}
}

static int child_exec(const struct spawn_req *req)
{
	const char *cwd = req->path ? req->path : "/";
	int error;

	if (chdir(cwd) < 0)
		return spawn_fail(STATUS_FD, errno, "%s: cannot be entered: %s", cwd, strerror(errno));
	error = exec_search(req);
	if (error == ENOENT)
		return spawn_fail(STATUS_FD, error, "%s: not found%s", req->argv[0],
				  strchr(req->argv[0], '/') ? "" : " in PATH");
	return spawn_fail(STATUS_FD, error, "%s: cannot be run: %s", req->argv[0], strerror(error));
}

/* The parent's ends are gone with the rest; @fds are the child's 0, 1, 2 and status. */
static int child(const struct spawn_req *req, const int fds[4])
{
	static const char zero[] = "0\n";
	int safe[4], oom;
	sigset_t none;

	(void)setsid();
	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)umask(022);
	/* First out of the way of each other, then into place. */
	for (int i = 0; i < 4; i++) {
		safe[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 10);
		if (safe[i] < 0)
			return 1;
	}
	for (int i = 0; i < 4; i++)
		if (dup2(safe[i], i) < 0)
			return 1;
	if (fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC) < 0)
		return 1;
	(void)syscall(SYS_close_range, STATUS_FD + 1, ~0U, 0);
	if (req->pty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		return spawn_fail(STATUS_FD, errno, "terminal: cannot be made the controlling one: %s", strerror(errno));
	oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (oom >= 0) {
		(void)!write(oom, zero, sizeof(zero) - 1);
		(void)close(oom);
	}
	switch (req->kind) {
	case SPAWN_PUT:
		return file_put(req->path, (mode_t)req->mode, STDIN_FILENO, STATUS_FD);
	case SPAWN_GET:
		return file_get(req->path, req->max, STDOUT_FILENO, STATUS_FD);
	case SPAWN_DIAL:
		return dial(req->family, req->addr, req->port, STDIN_FILENO, STDOUT_FILENO, STATUS_FD);
	default:
		return child_exec(req);
	}
}

/* A pipe whose end @mine does not block. */
static int pipe_open(int mine, int *ret_mine, int *ret_theirs)
{
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	r = fd_nonblock(fds[mine], true);
	*ret_mine = fds[mine];
	*ret_theirs = fds[!mine];
	return r;
}

static int pty_open(const struct winsize *size, int *ret_in, int *ret_out, int *ret_slave)
{
	AUTO_FD(master);
	AUTO_FD(slave);
	int unlock = 0, copy;

	master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || ioctl(master, TIOCSWINSZ, size) < 0)
		return -errno;
	copy = fcntl(master, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -errno;
	*ret_in = TAKE_FD(master);
	*ret_out = copy;
	*ret_slave = TAKE_FD(slave);
	return 0;
}

struct ends {
	struct spawned mine;
	int fds[4]; /* the child's; those of a pty are one descriptor */
};

static int ends_open(const struct spawn_req *req, struct ends *e)
{
	int r;

	r = pipe_open(0, &e->mine.status, &e->fds[3]);
	if (r < 0)
		return r;
	if (req->pty) {
		r = pty_open(&req->size, &e->mine.in, &e->mine.out, &e->fds[0]);
		e->fds[1] = e->fds[2] = e->fds[0];
		return r;
	}
	if (req->kind == SPAWN_PUT || req->kind == SPAWN_DIAL || (req->kind == SPAWN_EXEC && req->stdin_pipe))
		r = pipe_open(1, &e->mine.in, &e->fds[0]);
	else
		r = (e->fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0 ? -errno : 0;
	if (r == 0)
		r = pipe_open(0, &e->mine.out, &e->fds[1]);
	if (r == 0)
		r = pipe_open(0, &e->mine.err, &e->fds[2]);
	return r;
}

int spawn(const struct spawn_req *req, struct spawned *ret)
{
	struct ends e = { .mine = { .in = -1, .out = -1, .err = -1, .status = -1 }, .fds = { -1, -1, -1, -1 } };
	int r = ends_open(req, &e);

	if (r == 0) {
		e.mine.pid = fork();
		if (e.mine.pid == 0)
			_exit(child(req, e.fds));
		r = e.mine.pid < 0 ? -errno : 0;
	}
	for (int i = 3; i >= 0; i--)
		if (i == 0 || i == 3 || e.fds[i] != e.fds[0])
			close_p(&e.fds[i]);
	if (r == 0) {
		*ret = e.mine;
		return 0;
	}
	close_p(&e.mine.in);
	close_p(&e.mine.out);
	close_p(&e.mine.err);
	close_p(&e.mine.status);
	return r;
}
