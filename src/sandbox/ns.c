/* How ns_fork() goes:
 *
 *   parent                      middle                          child
 *     fork ------------------->  unshare(user)
 *     writes the id maps  <----  "user"
 *        ------------------->    unshare(mount, net, pid ...)
 *                                fork ----------------------->  waits at the end of its pipe
 *     waits for it <-----------  pid; exits
 *     (the child is ours now: we are its subreaper)
 *     writes "go" --------------------------------------------> PDEATHSIG, private mounts
 *
 * The middle process exists because unshare(CLONE_NEWPID) counts for children only, and because a plain fork() keeps the
 * C library's idea of thread ids right, which a raw clone() into a pid namespace does not. It must be gone before the
 * child asks for PDEATHSIG, because that is tied to the parent of the moment. The write end of the child's pipe is held
 * by the parent alone: its end tells the child that the parent was gone before PDEATHSIG was set. */
#include "sandbox/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/str.h"
#include "sandbox/mnt.h"
#include "sandbox/ns_map.h"

#define OTHERS (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)

/* From middle to parent. */
struct step {
	int32_t err; /* negative errno: it ends here */
	int32_t pid; /* of the child; 0: a user namespace waits for its map */
	int32_t at;  /* enum step_at, where it failed */
};

enum step_at { AT_USER, AT_OTHERS, AT_FORK };

static pid_t wait_for(pid_t pid, int *ret_st)
{
	pid_t p;

	do
		p = waitpid(pid, ret_st, 0);
	while (p < 0 && errno == EINTR);
	return p;
}

void ns_tie(int life)
{
	struct pollfd p = { .fd = life, .events = 0 };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(1);
	if (poll(&p, 1, 0) != 0)
		_exit(1);
}

/* What keeps this user from namespaces on this host, if it is one of the switches that distributions have. */
static int why_refused(int code, const char *what, struct err *err)
{
	static const struct {
		const char *path, *bad, *name, *fix;
	} knobs[] = {
		{ "/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0",
		  "sudo sysctl kernel.unprivileged_userns_clone=1" },
		{ "/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0",
		  "sudo sysctl user.max_user_namespaces=15000" },
		{ "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
		  "AppArmor refuses them to programs without a profile (kernel.apparmor_restrict_unprivileged_userns is 1)",
		  "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		char v[16] = "";
		AUTO_FD(fd);
		ssize_t n;

		fd = open(knobs[i].path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, v, sizeof(v) - 1);
		if (n <= 0)
			continue;
		v[n] = 0;
		v[strcspn(v, "\n")] = 0;
		if (strcmp(v, knobs[i].bad) == 0 && (geteuid() != 0 || i == 1))
			return err_set(err, code, "namespaces: %s; allow them with: %s", knobs[i].name, knobs[i].fix);
	}
	if (access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0)
		return err_set(err, code,
			       "namespaces: this is a container and its settings refuse them (%s: %s); start it with "
			       "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN",
			       what, strerror(-code));
	if (code == -ENOSPC || code == -EUSERS)
		return err_set(err, code,
			       "namespaces: the host's limit is reached (%s); raise it with: sudo sysctl "
			       "user.max_user_namespaces=15000",
			       what);
	return err_set(err, code, "namespaces: %s: %s; see your kernel's and container's settings for user namespaces", what,
		       strerror(-code));
}

static void middle_say(int sock, int code, pid_t pid, enum step_at at)
{
	struct step s = { .err = code, .pid = pid, .at = at };

	if (send(sock, &s, sizeof(s), MSG_NOSIGNAL) != sizeof(s) || code < 0)
		_exit(1);
}

/* Returns in the child only, with the namespaces it is in. */
static uint32_t middle(int sock, int go_w)
{
	uint32_t kinds = NS_MOUNT | NS_NET | NS_PID;
	int flags = OTHERS;
	pid_t pid;
	char c;

	(void)close(go_w);
	if (unshare(CLONE_NEWUSER) == 0) {
		kinds |= NS_USER;
		middle_say(sock, 0, 0, AT_USER);
		if (recv(sock, &c, 1, 0) != 1)
			_exit(1);
	} else if (geteuid() != 0) {
		middle_say(sock, -errno, 0, AT_USER);
	}
	if (unshare(flags) < 0) {
		/* A kernel without IPC or UTS namespaces says EINVAL; the walls that count are the other three. */
		if (errno != EINVAL || unshare(flags & ~(CLONE_NEWIPC | CLONE_NEWUTS)) < 0)
			middle_say(sock, -errno, 0, AT_OTHERS);
	}
	pid = fork();
	if (pid < 0)
		middle_say(sock, -errno, 0, AT_FORK);
	if (pid > 0) {
		middle_say(sock, 0, pid, AT_FORK);
		_exit(0);
	}
	(void)close(sock);
	return kinds;
}

/* The parent's half of the talk with the middle process. */
static pid_t guide(int sock, pid_t mid, bool *ret_many, struct err *err)
{
	static const char *const what[] = {
		[AT_USER] = "a new user namespace",
		[AT_OTHERS] = "new mount, net and pid namespaces",
		[AT_FORK] = "fork",
	};
	struct step s;
	bool many = geteuid() == 0; /* root without a user namespace has all ids */
	int r;

	for (;;) {
		if (recv(sock, &s, sizeof(s), 0) != sizeof(s))
			return err_set(err, -EIO, "namespaces: the process that makes them ended");
		if (s.err < 0)
			return why_refused(s.err, what[s.at], err);
		if (s.pid > 0)
			break;
		r = ns_map_ids(mid, &many, err);
		if (r < 0) /* where AppArmor lets the namespace be made, this is the first thing that it refuses */
			return why_refused(r, "the id map of a new user namespace", err);
		if (send(sock, "", 1, MSG_NOSIGNAL) != 1)
			return err_set(err, -EIO, "namespaces: the process that makes them ended");
	}
	*ret_many = many;
	return s.pid;
}

/* Waits until it is the parent's own child. Ends the process when that does not come about. */
static bool child_wait(int life)
{
	char c;

	if (read(life, &c, 1) != 1)
		_exit(1);
	(void)setsid();
	ns_tie(life);
	return c == 'm';
}

pid_t ns_fork(bool inside, uint32_t *ret_kinds, int *ret_life, struct err *err)
{
	int go[2], sock[2], st;
	AUTO_FD(go_r);
	AUTO_FD(s0);
	AUTO_FD(s1);
	uint32_t kinds = 0;
	bool many = false;
	pid_t pid, mid;
	char c;

	/* Both ends stay open for good: the child's tells it of our death, and ours must not be closed before. */
	if (pipe2(go, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	go_r = go[0];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
		int r = -errno;

		(void)close(go[1]);
		return err_set(err, r, "socketpair: %s", strerror(-r));
	}
	s0 = sock[0];
	s1 = sock[1];
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);

	mid = fork();
	if (mid < 0) {
		int r = -errno;

		(void)close(go[1]);
		return err_set(err, r, "fork: %s", strerror(-r));
	}
	if (mid == 0) {
		(void)close(TAKE_FD(s0));
		if (inside)
			kinds = middle(TAKE_FD(s1), go[1]);
		else
			(void)close(go[1]);
		if (child_wait(go_r))
			kinds |= NS_SUBIDS;
		/* The copy of the host's mounts must hear nothing of ours, and we nothing of theirs. */
		if ((kinds & NS_MOUNT) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			kinds &= ~(uint32_t)NS_MOUNT;
		*ret_kinds = kinds;
		*ret_life = TAKE_FD(go_r);
		return 0;
	}

	(void)close(TAKE_FD(s1));
	pid = mid;
	if (inside) {
		pid = guide(s0, mid, &many, err);
		(void)close(TAKE_FD(s0)); /* a middle process that still waits ends now */
		if (pid < 0)
			(void)kill(mid, SIGKILL);
		(void)wait_for(mid, &st);
	}
	c = many ? 'm' : '1';
	if (pid > 0 && write(go[1], &c, 1) != 1)
		pid = err_set(err, -EIO, "namespaces: the process in them ended");
	if (pid < 0)
		(void)close(go[1]);
	return pid;
}

/* What every cage does first, on a folder that every host has. */
static int probe_mounts(void)
{
	int tree;
	AUTO_FD(fd);
	AUTO_FD(owner);
	int r;

	if (mount("none", "/dev", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=0700") < 0)
		return -errno;
	fd = open("/dev", O_PATH | O_CLOEXEC | O_DIRECTORY);
	if (fd < 0)
		return -errno;
	r = mnt_clone(fd, MNT_RO | MNT_DEEP, &tree);
	if (r < 0)
		return r;
	owner = tree;
	return mnt_put(tree, fd);
}

struct probe_answer {
	int32_t r;
	uint32_t kinds;
};

int ns_probe(uint32_t *ret_kinds, struct err *why)
{
	struct probe_answer a = { .r = -EIO };
	AUTO_FD(r_end);
	AUTO_FD(w_end);
	uint32_t kinds = 0;
	int life = -1, p[2], st;
	pid_t pid, outer;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(why, -errno, "pipe: %s", strerror(errno));
	r_end = p[0];
	w_end = p[1];
	/* One process more: the caller must not become a subreaper, and must not have a pipe left over. */
	outer = fork();
	if (outer < 0)
		return err_set(why, -errno, "fork: %s", strerror(errno));
	if (outer == 0) {
		struct err e = { "" };

		pid = ns_fork(true, &kinds, &life, &e);
		if (pid < 0) {
			a.r = pid;
			(void)fd_write_all(w_end, &a, sizeof(a));
			(void)fd_write_all(w_end, e.text, strlen(e.text));
		} else if (pid == 0) {
			a.r = kinds & NS_MOUNT ? probe_mounts() : -EPERM;
			a.kinds = kinds;
			(void)fd_write_all(w_end, &a, sizeof(a));
		} else {
			(void)wait_for(pid, &st);
		}
		_exit(0);
	}
	(void)close(TAKE_FD(w_end));
	if (fd_read_exact(r_end, &a, sizeof(a)) < 0) {
		a.r = err_set(why, -EIO, "namespaces: the process that tries them ended early");
	} else if (a.r < 0) {
		AUTO_FREE(char, text);
		size_t n = 0;

		if (fd_read_file(r_end, ERR_TEXT_MAX, &text, &n) == 0 && n > 0)
			(void)err_set(why, a.r, "%s", text);
		else
			(void)why_refused(a.r, "a mount in a new user namespace", why);
	}
	(void)wait_for(outer, &st);
	if (a.r < 0)
		return a.r;
	*ret_kinds = a.kinds;
	return 0;
}
