/* Clearing away what a dead launcher left, in three steps:
 *
 *   1. under the registry's lock: take the lock of every session that nobody holds, open pidfds of its recorded children
 *   2. without it: wait until these have ended, as they do when the launcher's descriptors close; kill the others, and
 *      what else is in the session's cgroup
 *   3. under the registry's lock again: write the result "lost" to the logs, remove the folder
 *
 * From 1 to 3 the session's own lock is held, so a second reaper passes it by. */
#include "session/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/cgroup.h"
#include "session/lock.h"
#include "session/logs.h"
#include "session/made.h"

#define KILLED_MS 2000 /* from SIGKILL to the end of a process, unless it is stuck in the kernel */

struct dead {
	struct session_info info;
	int lock_fd;
	int pidfds[SESSION_CHILDREN_MAX];
};

struct reap {
	const struct state_root *root;
	struct dead *v;
	size_t n;
};

static int dead_find(const char *name, void *arg)
{
	struct reap *reap = arg;
	struct dead d = { .lock_fd = -1 };
	AUTO_FD(lock);
	AUTO_FD(dir);
	int r;

	dir = registry_open_session(reap->root, name);
	if (dir < 0)
		return 0;
	/* Makes the lock's file if it is missing: the folder is then what a death during its making or removal left. */
	lock = lock_file_at(dir, SESSION_LOCK, 0);
	if (lock < 0)
		return 0;
	r = session_info_read(dir, &d.info, NULL);
	if (r == -EOPNOTSUPP)
		return 0; /* of a newer version, which knows what else belongs to it */
	if (r < 0)
		session_info_from_name(name, &d.info);
	(void)snprintf(d.info.name, sizeof(d.info.name), "%s", name);
	for (size_t i = 0; i < SESSION_CHILDREN_MAX; i++)
		d.pidfds[i] = i < d.info.n_children ? proc_id_open(&d.info.children[i].id) : -1;
	d.lock_fd = TAKE_FD(lock);
	reap->v = xrealloc(reap->v, (reap->n + 1) * sizeof(*reap->v));
	reap->v[reap->n++] = d;
	return 0;
}

static void children_end(struct reap *reap, int grace_ms)
{
	struct timespec t0, t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	for (size_t i = 0; i < reap->n; i++) {
		int left;

		(void)clock_gettime(CLOCK_MONOTONIC, &t);
		left = grace_ms - (int)((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000);
		if (pidfd_wait_all(reap->v[i].pidfds, SESSION_CHILDREN_MAX, left > 0 ? left : 0) < 0) {
			for (size_t k = 0; k < SESSION_CHILDREN_MAX; k++)
				if (reap->v[i].pidfds[k] >= 0)
					(void)syscall(SYS_pidfd_send_signal, reap->v[i].pidfds[k], SIGKILL, NULL, 0);
			(void)pidfd_wait_all(reap->v[i].pidfds, SESSION_CHILDREN_MAX, KILLED_MS);
		}
		if (reap->v[i].info.cgroup)
			(void)cgroup_drop(reap->v[i].info.cgroup, reap->v[i].info.name);
	}
}

static void record_lost(const struct state_root *root, struct session_info *info)
{
	struct session_info have;
	struct timespec ts;
	AUTO_FD(logs);
	int r;

	(void)dir_make_at(root->logs_fd, info->name, 0700);
	logs = registry_open_logs(root, info->name);
	if (logs < 0)
		return;
	/* A launcher that died in its last step has written how it ended. */
	r = session_info_read(logs, &have, NULL);
	if (r == 0) {
		session_info_done(&have);
		return;
	}
	if (r == -EOPNOTSUPP)
		return;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	info->ended_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	if (info->started_ms == 0)
		info->started_ms = info->ended_ms;
	info->result = SESSION_LOST;
	info->exit_status = 1;
	free(info->cause);
	info->cause = xstrdup("the launcher died");
	info->n_children = 0;
	(void)session_info_write(logs, info, true);
}

static void dead_done(struct dead *d)
{
	for (size_t i = 0; i < SESSION_CHILDREN_MAX; i++)
		if (d->pidfds[i] >= 0)
			(void)close(d->pidfds[i]);
	(void)close(d->lock_fd);
	session_info_done(&d->info);
}

int registry_reap(const struct state_root *root, int grace_ms, unsigned int *ret_n, struct err *err)
{
	struct logs_rule rule = LOGS_RULE_DEFAULT;
	struct reap reap = { .root = root };
	AUTO_FD(again);
	int first = 0, r, lock;

	lock = registry_lock(root, err);
	if (lock < 0)
		return lock;
	r = registry_each(root->sessions_fd, dead_find, &reap);
	(void)close(lock);
	if (r < 0)
		first = err_set(err, r, "%s/run/sessions: cannot be listed: %s", root->path, strerror(-r));
	if (reap.n > 0) {
		children_end(&reap, grace_ms);
		again = registry_lock(root, err);
		if (again < 0)
			first = again;
	}
	for (size_t i = 0; i < reap.n; i++) {
		struct dead *d = &reap.v[i];

		if (again >= 0) {
			record_lost(root, &d->info);
			made_drop_locked(root, d->info.name);
			r = file_remove_tree_at(root->sessions_fd, d->info.name);
			if (r < 0 && first == 0)
				first = err_set(err, r, "%s/run/sessions/%s: cannot be removed: %s", root->path,
						d->info.name, strerror(-r));
		}
		dead_done(d);
	}
	free(reap.v);
	if (again >= 0)
		(void)logs_retain(root, &rule, (int64_t)time(NULL));
	if (first == 0 && ret_n)
		*ret_n = (unsigned int)reap.n;
	return first;
}
