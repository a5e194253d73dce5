/* The supervisor: the process that the launcher started, outside the namespaces. It has nothing to read but the death of
 * its child, the end of the launcher and SIGTERM, and nothing to write but one frame.
 *
 *   running --- launcher's end of VMM_FD_CONTROL closed, or SIGTERM ---> ending: SHUTDOWN to the guest, 8 s
 *   ending  --- time is over ---> SIGKILL
 *   any     --- the keeper of the guards has ended ---> SIGKILL: nothing would hold the guards
 *   any     --- the inner process has ended ---> exit with its status, 128 + n for a signal
 *
 * It holds the copy of the launcher's end of the control port only to say the last word. That copy also keeps the port
 * from being at its end for the VM, so a guest whose launcher is gone hears SHUTDOWN, not a hang-up. If the launcher died
 * amid a frame, SHUTDOWN is read as the rest of it or as garbage; garbage ends the guest as well (proto/ctl.h), and in the
 * other case the time runs out. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "proto/ctl.h"
#include "sandbox/caps.h"
#include "vmm/cage_int.h"

#define GRACE_MS 3000	/* what the guest gives its processes */
#define END_MS 8000	/* what it gets for that, for sync and for unmounting */

static void last_word(void)
{
	struct buf b;

	buf_init(&b, 64);
	if (ctl_put_u32(&b, CTL_SHUTDOWN, 0, 0, GRACE_MS) == 0)
		(void)send(VMM_FD_LAST_WORD, buf_span(&b).p, buf_span(&b).n, MSG_DONTWAIT | MSG_NOSIGNAL);
	buf_done(&b);
}

/* Ends the process when the inner one has ended. */
static void reap(pid_t inner)
{
	int st;
	pid_t p;

	while ((p = waitpid(-1, &st, WNOHANG)) > 0) {
		if (p != inner || !(WIFEXITED(st) || WIFSIGNALED(st)))
			continue;
		/* Without a pid namespace virtiofsd may still be there; it is in the inner process's session. */
		(void)kill(-inner, SIGKILL);
		_exit(WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st));
	}
}

void cage_supervise(pid_t inner, int keeper)
{
	struct pollfd p[3] = { { .events = POLLIN }, { .fd = keeper, .events = 0 }, { .fd = VMM_FD_CONTROL, .events = 0 } };
	struct signalfd_siginfo si;
	int64_t end = 0;
	struct err e;
	sigset_t set;
	int fd, sig;

	for (sig = 1; sig < NSIG; sig++) /* a terminal's signals are the launcher's business */
		if (sig != SIGTERM && sig != SIGCHLD)
			(void)signal(sig, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_SETMASK, &set, NULL);
	/* Before one is opened: the configuration's is closed already, and its number would be the new one's. */
	for (fd = VMM_FD_CONFIG; fd < VMM_FD_LAST_WORD; fd++)
		(void)close(fd);
	p[0].fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (p[0].fd < 0) {
		log_error("supervisor: signalfd: %s", strerror(errno));
		_exit(1); /* and the inner process with it */
	}
	if (chdir("/") < 0) /* keeps nobody's folder busy */
		log_warn("supervisor: chdir: %s", strerror(errno));
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (caps_keep(0, &e) < 0 || cage_seccomp_supervisor(&e) < 0)
		log_warn("supervisor: %s", e.text);

	for (;;) {
		int64_t left = end ? (end - now_ns()) / 1000000 : -1;

		reap(inner); /* first: it may have ended before SIGCHLD was blocked */
		if (end && left <= 0) {
			(void)kill(inner, SIGKILL);
			left = -1;
		}
		if (poll(p, end ? 2 : 3, (int)left) < 0 && errno != EINTR)
			_exit(1);
		if (p[1].fd >= 0 && p[1].revents != 0) {
			/* Also when the inner process is just ending, which this does not change. */
			(void)kill(inner, SIGKILL);
			(void)close(p[1].fd);
			p[1].fd = -1;
		}
		while (read(p[0].fd, &si, sizeof(si)) == sizeof(si))
			if (si.ssi_signo == SIGTERM && !end)
				p[2].revents = POLLHUP;
		if (!end && (p[2].revents & (POLLHUP | POLLERR | POLLNVAL))) {
			log_info("the launcher is gone, the guest is told to end");
			last_word();
			(void)close(VMM_FD_LAST_WORD);
			end = now_ns() + (int64_t)END_MS * 1000000;
		}
	}
}
