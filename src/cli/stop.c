#include "cli/stop.h"

#include <errno.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

bool stop_is_meant(int sig)
{
	struct sigaction now;

	return sig != SIGHUP || sigaction(sig, NULL, &now) < 0 || now.sa_handler != SIG_IGN;
}

int stop_open(sigset_t *old)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	if (stop_is_meant(SIGHUP))
		(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGQUIT);
	(void)sigprocmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int stop_signal(int fd)
{
	struct signalfd_siginfo si;

	return read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si) ? (int)si.ssi_signo : SIGINT;
}

int stop_end(int fd, const sigset_t *old)
{
	int sig = stop_signal(fd);

	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
	(void)sigprocmask(SIG_SETMASK, old, NULL);
	return 128 + sig;
}

int stop_status(int r, int fd, const sigset_t *old)
{
	if (r == -EINTR)
		return stop_end(fd, old);
	if (r < 0)
		return r == -EINVAL ? 2 : 1;
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
