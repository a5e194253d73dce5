#include "image/role.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/prog.h"

#define END_MS 500
#define END_POLL_MS 5

int role_start(const char *path, const char *half, int log_fd, int store_fd, const struct strv *env, struct role *ret,
	       struct err *err)
{
	char *argv[] = { (char *)"agent-vm-image", (char *)half, NULL };
	enum im_way from = strcmp(half, "fetch") == 0 ? IM_FROM_FETCH : strcmp(half, "pack") == 0 ? IM_FROM_PACK : IM_FROM_UNPACK;
	struct role role = { .half = half, .from = from, .fd = -1 };
	struct prog p = PROG_INIT;
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_set(err, -errno, "agent-vm-image: socketpair: %s", strerror(errno));
	p.path = path;
	p.argv = argv;
	if (env)
		p.env = *env;
	p.fd3 = ends[1];
	p.fd4 = log_fd;
	p.fd5 = store_fd;
	r = prog_start(&p, &role.pid, err);
	(void)close(ends[1]);
	if (r < 0) {
		(void)close(ends[0]);
		return r;
	}
	role.fd = ends[0];
	*ret = role;
	return 0;
}

int role_send(struct role *r, struct buf *b, int pass, struct err *err)
{
	int e = im_send(r->fd, b, pass);

	if (e == 0 || e == -EPIPE || e == -ECONNRESET)
		return 0;
	return err_set(err, e, "agent-vm-image %s: cannot be told: %s", r->half, strerror(-e));
}

static void close_control(struct role *r)
{
	close_p(&r->fd);
	r->fd = -1;
}

/* It has closed its end, so it is about to end; one that does not is ended. */
static int status_of(pid_t pid)
{
	int status = 0;

	for (int left = END_MS; left > 0; left -= END_POLL_MS) {
		if (waitpid(pid, &status, WNOHANG) != 0)
			return status;
		(void)usleep(END_POLL_MS * 1000);
	}
	return prog_stop(pid, 0);
}

static int ended(struct role *r, struct err *err)
{
	int status;

	close_control(r);
	status = r->pid > 0 ? status_of(r->pid) : 0;
	r->pid = 0;
	if (r->done && status == 0)
		return 0;
	if (WIFSIGNALED(status))
		return err_set(err, -EIO, "agent-vm-image %s: ended by signal %d (%s)%s", r->half, WTERMSIG(status),
			       strsignal(WTERMSIG(status)),
			       WTERMSIG(status) == SIGKILL ? "; if this machine is short of memory, free some and try again" : "");
	return err_set(err, -EIO, "agent-vm-image %s: ended with status %d and without a word", r->half, WEXITSTATUS(status));
}

int role_recv(struct role *r, struct im *ret, struct err *err)
{
	AUTO_FREE(char, text);
	int e;

	e = im_recv(r->fd, r->from, ret);
	if (e == 0)
		return ended(r, err);
	if (e < 0)
		return err_set(err, e, "agent-vm-image %s: its message is not understood (%s)", r->half, strerror(-e));
	r->done |= ret->type == IM_DONE;
	if (ret->type != IM_ERROR)
		return 1;
	text = im_str(ret, IM_K_TEXT);
	e = (int)im_u64(ret, IM_K_ERRNO);
	return err_set(err, e > 0 ? -e : -EIO, "%s", text);
}

void role_end(struct role *r)
{
	close_control(r);
	if (r->pid > 0)
		(void)prog_stop(r->pid, 0);
	r->pid = 0;
}
