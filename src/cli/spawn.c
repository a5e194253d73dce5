#include "cli/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/vmmcfg.h"
#include "sandbox/hide.h"

int spawn_sealed(const char *name, const struct buf *config)
{
	AUTO_FD(fd);
	struct span s = buf_span(config);
	int r;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, s.p, s.n);
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Runs between fork and exec: only async-signal-safe calls. */
static void child(const char *path, const char *name, int *fds, int n)
{
	char *const env[] = { (char *)"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
			      (char *)"LC_ALL=C", NULL };
	char *const argv[] = { (char *)(uintptr_t)name, NULL };
	sigset_t none;

	(void)setsid();
	hide_no_core(); /* also before it can do so itself */
	/* First out of the way of the targets, then onto them; dup2 clears close-on-exec. */
	for (int i = 0; i < n; i++)
		if (fds[i] >= 0 && (fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, n)) < 0)
			_exit(125);
	for (int i = 0; i < n; i++) {
		if (fds[i] >= 0 && dup2(fds[i], i) < 0)
			_exit(125);
		if (fds[i] < 0)
			(void)close(i);
	}
	(void)close_range((unsigned int)n, ~0u, 0);
	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execve(path, argv, env);
	_exit(errno == ENOENT ? 127 : 126);
}

/* As fork(), into a group. A process that moved itself by its cgroup.procs would be outside until then, and the write waits
 * while any process of the host forks or exits (11 ms were seen). */
static pid_t fork_into(int cgroup)
{
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup };

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int spawn_role(const char *path, const char *name, int *fds, int n, int cgroup, pid_t *ret)
{
	pid_t pid = cgroup < 0 ? fork() : fork_into(cgroup);

	if (pid < 0)
		return -errno;
	if (pid == 0)
		child(path, name, fds, n);
	*ret = pid;
	return 0;
}

int vmm_spawn(const char *path, const struct buf *config, int log_fd, int console_fd, int cgroup, struct spawned *ret,
	      struct err *err)
{
	int control[2] = { -1, -1 }, port[2] = { -1, -1 }, net[2] = { -1, -1 };
	int null = -1, conf = -1, r = 0, refused = 0;
	pid_t pid = -1;

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	conf = spawn_sealed("agent-vm-vmm config", config);
	if (null < 0 || conf < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, net) < 0)
		r = err_set(err, conf < 0 ? conf : -errno, "agent-vm-vmm: its descriptors cannot be made: %s",
			    strerror(conf < 0 ? -conf : errno));
	if (r == 0) {
		int fds[VMM_FDS_END] = { null, console_fd, console_fd, [VMM_FD_CONTROL] = control[1], [VMM_FD_LOG] = log_fd,
					 [VMM_FD_CONFIG] = conf, [VMM_FD_PORT] = port[1], [VMM_FD_NET] = net[1],
					 [VMM_FD_LAST_WORD] = port[0] };

		r = spawn_role(path, "agent-vm-vmm", fds, VMM_FDS_END, cgroup, &pid);
		if (r < 0 && cgroup >= 0) {
			refused = r;
			r = spawn_role(path, "agent-vm-vmm", fds, VMM_FDS_END, -1, &pid);
		}
		if (r < 0)
			(void)err_set(err, r, "agent-vm-vmm: cannot be started: %s", strerror(-r));
	}
	close_p(&null);
	close_p(&conf);
	close_p(&control[1]);
	close_p(&port[1]);
	close_p(&net[1]);
	if (r < 0) {
		close_p(&net[0]);
		close_p(&control[0]);
		close_p(&port[0]);
		return r;
	}
	*ret = (struct spawned){ .pid = pid, .control_fd = control[0], .port_fd = port[0], .net_fd = net[0],
				 .not_in_group = refused };
	return 0;
}
