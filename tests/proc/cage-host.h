/* A process as the launcher starts agent-vm-vmm (descriptors 3 to 8), in a host with a project. Inside, after cage_enter() and
 * cage_lock(), it does what a test wants and reports each finding over descriptor 3. The tests run as root, and with
 * CAGE_AS=USER as that user ("none": one without sub-ids). */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/str.h"
#include "vmm/cage.h"

#include "../unit/test.h"

#define RUN_MS 30000

/* ---- the user that the tests are run as ---- */

__attribute__((constructor(101))) static void become(void)
{
	const char *as = getenv("CAGE_AS");
	struct passwd *pw;
	uid_t uid = 12345;
	gid_t gid = 12345;

	if (!as)
		return;
	pw = getpwnam(as);
	if (geteuid() != 0 || (!pw && strcmp(as, "none") != 0))
		exit(77);
	if (pw) {
		uid = pw->pw_uid;
		gid = pw->pw_gid;
	}
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		exit(1);
	(void)prctl(PR_SET_DUMPABLE, 1); /* as after an exec by that user */
}

/* ---- a host with a project ---- */

static char base[64]; /* folder of this test */
static pid_t victim;  /* a process of the same user outside */
static int tcp_port;  /* a daemon on the host's loopback */
static int tcp_fd = -1, abstract_fd = -1, path_fd = -1;

static inline char *in(const char *rel)
{
	return xasprintf("%s/%s", base, rel);
}

static inline void make_dir(const char *rel)
{
	AUTO_FREE(char, p);

	p = in(rel);
	CHECK_INT(mkdir(p, 0755), ==, 0);
}

static inline void make_file(const char *rel, const char *text)
{
	AUTO_FREE(char, p);
	AUTO_FD(fd);

	p = in(rel);
	fd = open(p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	CHECK_INT(fd, >=, 0);
	CHECK_INT(fd_write_all(fd, text, strlen(text)), ==, 0);
}

static inline struct stat host_stat(const char *rel)
{
	AUTO_FREE(char, p);
	struct stat st;

	p = in(rel);
	if (lstat(p, &st) < 0)
		fail_msg("%s is not on the host: %s", rel, strerror(errno));
	return st;
}

static inline void daemon_sockets(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	socklen_t n = sizeof(a);

	tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_INT(bind(tcp_fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	CHECK_INT(listen(tcp_fd, 8), ==, 0);
	CHECK_INT(getsockname(tcp_fd, (struct sockaddr *)&a, &n), ==, 0);
	tcp_port = ntohs(a.sin_port);
	abstract_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(u.sun_path + 1, sizeof(u.sun_path) - 1, "%s", base);
	CHECK_INT(bind(abstract_fd, (struct sockaddr *)&u, sizeof(u)), ==, 0);
	CHECK_INT(listen(abstract_fd, 8), ==, 0);
	path_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(u.sun_path, sizeof(u.sun_path), "%s/daemon.sock", base);
	CHECK_INT(bind(path_fd, (struct sockaddr *)&u, sizeof(u)), ==, 0);
	CHECK_INT(listen(path_fd, 8), ==, 0);
}

static inline void host_make(void)
{
	AUTO_FREE(char, script);

	(void)umask(022);
	(void)snprintf(base, sizeof(base), "/tmp/agent-vm-cage.XXXXXX");
	CHECK(mkdtemp(base) != NULL);
	CHECK_INT(chmod(base, 0755), ==, 0);
	make_file("secret", "host secret\n");
	make_dir("work");
	make_dir("boot");
	make_file("boot/agent-vm-guest", "guest");
	make_file("boot.ext4", "boot image");
	make_file("overlay.qcow2", "overlay");
	make_file("image.ext4", "image");
	make_file("kernel", "kernel");
	make_dir("project");
	make_dir("project/.git");
	make_dir("project/.git/hooks");
	make_file("project/.git/hooks/pre-commit", "#!/bin/sh\n");
	make_file("project/.git/config", "[core]\n");
	make_dir("project/.git/objects");
	make_file("project/.env", "TOKEN=real\n");
	make_dir("project/private");
	make_file("project/private/key", "key\n");
	make_dir("project/src");
	make_dir("project/sub");
	make_file("project/sub/.git", "gitdir: ../.git\n");
	make_file("project/src/a.c", "int a;\n");
	make_file("project/src/run", "#!/bin/sh\n");
	script = in("project/src/run");
	CHECK_INT(chmod(script, 0755), ==, 0);
	make_dir("ro");
	make_file("ro/file", "ro\n");
	make_dir("ro/rw");
	make_dir("ro/rw/guarded");
	daemon_sockets();
	victim = fork();
	if (victim == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves it behind */
		(void)close_range(0, 2, 0);
		for (;;)
			(void)pause();
	}
}

static inline void host_drop(void)
{
	const char *name = strrchr(base, '/') + 1;
	AUTO_FD(tmp);

	(void)kill(victim, SIGKILL);
	(void)waitpid(victim, NULL, 0);
	(void)close(tcp_fd);
	(void)close(abstract_fd);
	(void)close(path_fd);
	tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Files of sub-ids cannot be removed by an ordinary user; the tests remove those themselves. */
	CHECK_INT(file_remove_tree_at(tmp, name), ==, 0);
}

static inline struct vmm_config config_make(enum vmm_monitor monitor)
{
	struct vmm_config c = { .monitor = monitor, .ram_mib = 512, .cpus = 1, .namespaces = VMM_NS_USED };

	c.label = xstrdup("test");
	c.libkrun = xstrdup("/nowhere");
	c.libkrunfw = xstrdup("/nowhere");
	c.qemu = xstrdup("/usr/bin/qemu-system-x86_64");
	c.virtiofsd = xstrdup("/usr/lib/qemu/virtiofsd");
	c.kernel = in("kernel");
	c.boot_dir = in("boot");
	c.boot_image = in("boot.ext4");
	c.disk = in("overlay.qcow2");
	c.disk_base = in("image.ext4");
	c.work_dir = in("work");
	c.n_shares = 3;
	c.shares = xcalloc(3, sizeof(*c.shares));
	c.shares[0].path = in("project");
	strv_add(&c.shares[0].guard_ro, ".git/hooks");
	strv_add(&c.shares[0].guard_ro, ".git/config");
	strv_add(&c.shares[0].guard_self, "sub/.git");
	strv_add(&c.shares[0].guard_self, ".git");
	strv_add(&c.shares[0].hide, "private/key"); /* in a hidden folder: nothing left to hide */
	strv_add(&c.shares[0].hide, "private");
	strv_add(&c.shares[0].hide, ".env");
	c.shares[1].path = in("ro");
	c.shares[1].ro = true;
	strv_add(&c.shares[1].guard_rw, "rw");
	strv_add(&c.shares[1].guard_ro, "rw/guarded");
	c.shares[2].path = in("project/sub"); /* inside another share */
	return c;
}

static inline void config_drop(struct vmm_config *c)
{
	size_t i;

	free(c->label);
	free(c->libkrun);
	free(c->libkrunfw);
	free(c->qemu);
	free(c->virtiofsd);
	free(c->kernel);
	free(c->boot_dir);
	free(c->boot_image);
	free(c->disk);
	free(c->disk_base);
	free(c->work_dir);
	for (i = 0; i < c->n_shares; i++) {
		free(c->shares[i].path);
		strv_done(&c->shares[i].guard_ro);
		strv_done(&c->shares[i].guard_self);
		strv_done(&c->shares[i].guard_rw);
		strv_done(&c->shares[i].hide);
	}
	free(c->shares);
}

/* ---- a run ---- */

struct run {
	pid_t pid;
	int control, port;
};

typedef void (*payload)(const struct vmm_config *cfg, uint32_t walls);

/* In the cage: one message a finding. */
static inline void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static inline void say(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		(void)send(VMM_FD_CONTROL, text, (size_t)MIN(n, (int)sizeof(text) - 1), MSG_NOSIGNAL);
}

static inline void works(const char *what, long r)
{
	if (r < 0)
		say("%s: does not work: %s", what, strerror(errno));
}

static inline void refused(const char *what, long r)
{
	if (r >= 0)
		say("%s: works, and must not", what);
}

/* Puts @fds to 3 and up in order, whatever they are now. */
static inline void fds_place(int *fds, int n)
{
	int i;

	for (i = 0; i < n; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, 64);
	for (i = 0; i < n; i++)
		(void)dup2(fds[i], 3 + i);
	(void)close_range((unsigned int)(3 + n), ~0U, 0);
}

static inline void vmm_main(struct vmm_config *cfg, payload at_enter, payload at_lock)
{
	struct err err = { "" };
	uint32_t walls = 0;

	if (cage_enter(cfg, &walls, &err) < 0) {
		say("enter: %s", err.text);
		_exit(3);
	}
	if (at_enter)
		at_enter(cfg, walls);
	if (at_lock) {
		if (cage_lock(cfg, &walls, &err) < 0) {
			say("lock: %s", err.text);
			_exit(4);
		}
		at_lock(cfg, walls);
	}
	_exit(0);
}

/* Takes @cfg. */
static inline struct run run_start(struct vmm_config cfg, payload at_enter, payload at_lock)
{
	int control[2], port[2], fds[6];
	struct run run;

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), ==, 0);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port), ==, 0);
	run.pid = fork();
	CHECK_INT(run.pid, >=, 0);
	if (run.pid == 0) {
		int sig;

		for (sig = 1; sig < NSIG; sig++) /* cmocka's handlers, which exec would have dropped */
			(void)signal(sig, SIG_DFL);
		fds[0] = control[1];
		fds[1] = open("/dev/null", O_WRONLY);
		fds[2] = fds[4] = open("/dev/null", O_RDONLY);
		fds[3] = port[1];
		fds[5] = port[0];
		fds_place(fds, 6);
		(void)close(VMM_FD_CONFIG); /* has been read */
		vmm_main(&cfg, at_enter, at_lock);
	}
	config_drop(&cfg);
	(void)close(control[1]);
	(void)close(port[1]);
	run.control = control[0];
	run.port = port[0];
	return run;
}

static inline int run_wait(struct run *run, int timeout_ms)
{
	int64_t end = now_ns() + (int64_t)timeout_ms * 1000000;
	int st;

	while (waitpid(run->pid, &st, WNOHANG) == 0) {
		if (now_ns() > end)
			return -ETIMEDOUT;
		(void)usleep(10000);
	}
	return WIFEXITED(st) ? WEXITSTATUS(st) : 1000 + WTERMSIG(st);
}

/* All that is said until the inner process ends; "" is good. Caller owns it. */
static inline char *run_listen(struct run *run)
{
	char *all = xstrdup(""), text[512];
	struct pollfd p = { .fd = run->control, .events = POLLIN };
	ssize_t n;

	while (poll(&p, 1, RUN_MS) > 0 && (n = recv(run->control, text, sizeof(text) - 1, 0)) > 0) {
		char *more;

		text[n] = 0;
		more = xasprintf("%s%s\n", all, text);
		free(all);
		all = more;
	}
	return all;
}

static inline void run_expect(struct vmm_config cfg, payload at_enter, payload at_lock, int status, const char *said)
{
	struct run run = run_start(cfg, at_enter, at_lock);
	AUTO_FREE(char, all);

	all = run_listen(&run);
	CHECK_INT(run_wait(&run, RUN_MS), ==, status);
	if (said ? !strstr(all, said) : *all)
		fail_msg("as uid %u, from the cage:\n%s", geteuid(), all);
	(void)close(run.control);
	(void)close(run.port);
}
