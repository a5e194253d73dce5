/* agent-vm stop: ends sessions in order.
 *
 * The launcher is signalled through a pidfd of the process that session.json names by pid, start time, boot and pid
 * namespace; its lock tells when it is gone. SIGTERM starts the orderly end (10 s for the agent, then the guest's
 * shutdown); a second one means "no grace"; after FORCE_MS it is killed and what it left is cleared away as for any
 * dead session. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "cli/cmd.h"
#include "cli/sessions.h"

#define STOP_MS 45000	      /* agent 10 s, guest 8 s, report 2 s, and a busy machine */
#define FORCE_MS 5000
#define FORCE_CHILDREN_MS 1000
#define LOOK_MS 20

struct stop_args {
	bool all, force;
};

static const struct opt stop_opts[] = {
	{ "all", OPT_FLAG, offsetof(struct stop_args, all), NULL, "stop every live session" },
	{ "force", OPT_FLAG, offsetof(struct stop_args, force), NULL, "no grace: kill what has not ended after 5 seconds" },
	{ NULL },
};

struct target {
	const struct session_info *info;
	int pidfd;
	bool done;
};

static int signal_to(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

/* Leaves the word for the launcher that its end was asked for, and sends the signal. */
static int stop_ask(const struct state_root *root, struct target *t, bool force, struct err *err)
{
	AUTO_FD(dir);
	AUTO_FD(mark);
	int r;

	t->pidfd = proc_id_open(&t->info->launcher);
	if (t->pidfd == -ESRCH)
		return 0; /* ended meanwhile */
	if (t->pidfd == -EXDEV)
		return err_set(err, -EXDEV, "session %s: runs in another pid namespace (a container); stop it there",
			       sessions_short(t->info));
	if (t->pidfd < 0)
		return err_set(err, t->pidfd, "session %s: pid %d cannot be signalled: %s", sessions_short(t->info),
			       (int)t->info->launcher.pid, strerror(-t->pidfd));
	dir = registry_open_session(root, t->info->name);
	if (dir >= 0)
		mark = openat(dir, SESSION_STOP, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = signal_to(t->pidfd, SIGTERM);
	/* The launcher reads its signals one by one; the second must not melt into a first that is still pending. */
	if (r == 0 && force) {
		(void)poll(NULL, 0, 50);
		r = signal_to(t->pidfd, SIGTERM);
	}
	if (r < 0 && r != -ESRCH)
		return err_set(err, r, "session %s: pid %d cannot be signalled: %s", sessions_short(t->info),
			       (int)t->info->launcher.pid, strerror(-r));
	return 0;
}

/* Prints the names as the sessions go; true when all are gone. */
static bool wait_gone(const struct state_root *root, struct target *v, size_t n, int timeout_ms)
{
	int64_t end_ns = now_ns() + (int64_t)timeout_ms * 1000000;

	for (;;) {
		size_t left = 0;

		for (size_t i = 0; i < n; i++) {
			if (!v[i].done && registry_is_gone(root, v[i].info->name)) {
				v[i].done = true;
				(void)printf("%s\n", sessions_short(v[i].info));
				(void)fflush(stdout);
			}
			left += !v[i].done;
		}
		if (left == 0)
			return true;
		if (now_ns() >= end_ns)
			return false;
		(void)poll(NULL, 0, LOOK_MS);
	}
}

static int stop_all(const struct state_root *root, struct target *v, size_t n, bool force)
{
	int status = 0;
	struct err err;

	for (size_t i = 0; i < n; i++) {
		v[i].pidfd = -1;
		if (stop_ask(root, &v[i], force, &err) < 0) {
			status = sessions_fail(-EIO, &err);
			v[i].done = true;
		}
	}
	if (!wait_gone(root, v, n, force ? FORCE_MS : STOP_MS) && force) {
		for (size_t i = 0; i < n; i++)
			if (!v[i].done && v[i].pidfd >= 0)
				(void)signal_to(v[i].pidfd, SIGKILL);
		(void)wait_gone(root, v, n, FORCE_MS);
	}
	for (size_t i = 0; i < n; i++) {
		if (!v[i].done) {
			(void)fprintf(stderr, "agent-vm: session %s: still there after %d s; use agent-vm stop --force\n",
				      sessions_short(v[i].info), (force ? 2 * FORCE_MS : STOP_MS) / 1000);
			status = 1;
		}
		if (v[i].pidfd >= 0)
			(void)close(v[i].pidfd);
	}
	if (registry_reap(root, force ? FORCE_CHILDREN_MS : REAP_GRACE_MS, NULL, &err) < 0)
		status = sessions_fail(-EIO, &err);
	return status;
}

static void target_add(struct target *v, size_t *n, const struct session_info *info)
{
	for (size_t i = 0; i < *n; i++)
		if (v[i].info == info)
			return;
	v[(*n)++] = (struct target){ .info = info, .pidfd = -1 };
}

/* Every word is looked up before the first signal is sent; what is found is stopped all the same. */
static int targets_find(const struct session_list *list, const struct stop_args *a, char **rest, struct target *v,
			size_t *n)
{
	const struct session_info *info;
	char here[PROJECT_HASH_LEN + 1];
	struct err err;
	int status = 0;
	int r;

	if (a->all) {
		for (size_t i = 0; i < list->n; i++)
			target_add(v, n, &list->v[i]);
		if (list->n == 0)
			return sessions_fail(err_set(&err, -ENOENT, "session: none is running; agent-vm ps lists them"),
					     &err);
		return 0;
	}
	if (!rest[0]) {
		r = sessions_here(here, &err);
		if (r == 0)
			r = session_find(list, NULL, here, false, &info, &err);
		if (r < 0)
			return sessions_fail(-EIO, &err);
		target_add(v, n, info);
		return 0;
	}
	for (; *rest; rest++) {
		r = session_find(list, *rest, NULL, false, &info, &err);
		if (r < 0)
			status = sessions_fail(-EIO, &err);
		else
			target_add(v, n, info);
	}
	return status;
}

static int stop_run(struct cli *cli, void *args, char **rest)
{
	struct state_root root = STATE_ROOT_INIT;
	struct session_list list = { NULL };
	const struct stop_args *a = args;
	AUTO_FREE(struct target, v);
	struct err err;
	size_t n = 0;
	int r, status, s;

	if (a->all && rest[0])
		return sessions_fail(err_set(&err, -EINVAL, "--all: excludes a SESSION; write one or the other"), &err);
	r = sessions_root(&root, &err);
	if (r > 0)
		r = registry_list(&root, SESSIONS_LIVE, &list, &err);
	if (r < 0) {
		state_root_close(&root);
		return sessions_fail(r, &err);
	}
	sessions_warn(&list.warnings);
	v = xcalloc(list.n + 1, sizeof(*v));
	status = targets_find(&list, a, rest, v, &n);
	if (n > 0) {
		s = stop_all(&root, v, n, a->force);
		status = status ? status : s;
	}
	session_list_done(&list);
	state_root_close(&root);
	return status ? status : sessions_flush();
}

const struct cmd cmd_stop = {
	.name = "stop",
	.summary = "end sessions in order",
	.usage = "[--all] [--force] [SESSION...]",
	.about = "The agent gets SIGTERM and 10 seconds, then the VM is shut down. Returns when the session is gone, and prints "
		 "its name. SESSION is a name of agent-vm ps, four or more characters of its beginning, or a project's path; "
		 "without one it is the session of the current project.\n\n"
		 "Exit status 1 if a SESSION is not there or could not be stopped.",
	.examples = "agent-vm stop\tthe session of this project\nagent-vm stop 7d73bf\tby the beginning of its name\n"
		    "agent-vm stop --all --force\teverything, now\n",
	.opts = stop_opts,
	.args_size = sizeof(struct stop_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 1000,
	.run = stop_run,
};
