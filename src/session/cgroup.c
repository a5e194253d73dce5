#include "session/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/project.h"

#define SMALL_FILE_MAX (64 * 1024)
#define END_MS 2000 /* from SIGKILL to the end of a process, unless it is stuck in the kernel */
#define END_STEP_MS 2

void cgroup_place_done(struct cgroup_place *p)
{
	free(p->path);
	*p = (struct cgroup_place){ 0 };
}

/* Content of a small file of the kernel's; "" if it cannot be read. Caller owns. */
static char *content(int dir, const char *name)
{
	AUTO_FD(fd);
	char *text;

	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && fd_read_file(fd, SMALL_FILE_MAX, &text, NULL) == 0 ? text : xstrdup("");
}

static int put(int dir, const char *name, const char *text)
{
	AUTO_FD(fd);

	fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

/* Is @word one of the words of a list such as "cpu memory pids"? */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = list; *at; at += strspn(at, " \n")) {
		size_t len = strcspn(at, " \n");

		if (len == n && memcmp(at, word, n) == 0)
			return true;
		at += len;
	}
	return false;
}

static bool has_both(int dir, const char *name)
{
	AUTO_FREE(char, list);

	list = content(dir, name);
	return has_word(list, "memory") && has_word(list, "pids");
}

static bool may_write(int dir, const char *name)
{
	return faccessat(dir, name, W_OK, AT_EACCESS) == 0;
}

enum fit { FIT_NO_RIGHT, FIT_NO_CONTROLLERS, FIT_ENABLE, FIT };

static enum fit fit(const char *path)
{
	AUTO_FREE(char, procs);
	AUTO_FD(dir);

	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || !may_write(dir, ".") || !may_write(dir, "cgroup.procs"))
		return FIT_NO_RIGHT;
	if (has_both(dir, "cgroup.subtree_control"))
		return FIT;
	/* Never where processes are: the kernel refuses that, but for the topmost group, and there they would be all of the
	 * host's. */
	procs = content(dir, "cgroup.procs");
	return *procs == '\0' && has_both(dir, "cgroup.controllers") && may_write(dir, "cgroup.subtree_control") ?
		       FIT_ENABLE :
		       FIT_NO_CONTROLLERS;
}

int cgroup_find_in(const char *top, const char *own, struct cgroup_place *ret, struct err *err)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, shown);
	enum fit best = FIT_NO_RIGHT;
	char *slash;

	path = xasprintf("%s%s", top, own + (strcmp(own, "/") == 0));
	shown = str_escape(own, strlen(own));
	for (;;) {
		enum fit f = fit(path);

		if (f >= FIT_ENABLE) {
			*ret = (struct cgroup_place){ .path = TAKE_PTR(path), .enable = f == FIT_ENABLE };
			return 0;
		}
		best = MAX(best, f);
		if (strlen(path) <= strlen(top))
			break;
		slash = strrchr(path, '/');
		*slash = '\0';
	}
	if (best == FIT_NO_CONTROLLERS)
		return err_set(err, -ENODEV, "%s: groups can be made here, but without memory and pids; as root: mkdir -p "
			       "/etc/systemd/system/user@.service.d; printf '[Service]\\nDelegate=memory pids\\n' "
			       ">/etc/systemd/system/user@.service.d/agent-vm.conf; and log in again", shown);
	return err_set(err, -EACCES, "%s: no group above it is delegated to you; start it with: systemd-run --user --scope "
		       "agent-vm", shown);
}

int cgroup_find(struct cgroup_place *ret, struct err *err)
{
	AUTO_FREE(char, groups);
	struct statfs fs;
	char *line, *save = NULL;

	if (statfs(CGROUP_TOP, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return err_set(err, -EOPNOTSUPP, CGROUP_TOP ": not cgroup version 2; boot with systemd.unified_cgroup_hierarchy=1");
	if (fs.f_flags & ST_RDONLY)
		return err_set(err, -EOPNOTSUPP, CGROUP_TOP ": read-only, as in most containers; the container's own limits hold");
	groups = content(AT_FDCWD, "/proc/self/cgroup");
	for (line = strtok_r(groups, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (str_starts(line, "0::/"))
			break;
	/* "/..": above what is mounted here. "(deleted)" is no folder, and the search begins above it. */
	if (!line || str_starts(line, "0::/.."))
		return err_set(err, -EOPNOTSUPP, "/proc/self/cgroup: our group is not below " CGROUP_TOP);
	return cgroup_find_in(CGROUP_TOP, line + strlen("0::"), ret, err);
}

static int limits_put(int dir, const struct cgroup_limits *l)
{
	char memory[24], pids[24];
	int r;

	(void)snprintf(memory, sizeof(memory), "%" PRIu64, l->memory_bytes);
	(void)snprintf(pids, sizeof(pids), "%" PRIu64, l->pids);
	r = put(dir, "pids.max", pids);
	if (r == 0)
		r = put(dir, "memory.max", memory);
	return r < 0 ? r : put(dir, "memory.oom.group", "1");
}

int cgroup_make(const struct cgroup_place *p, const char *name, const struct cgroup_limits *l, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FD(parent);
	AUTO_FD(dir);
	int r = 0;

	shown = str_escape(p->path, strlen(p->path));
	parent = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return err_set(err, -errno, "%s: %s", shown, strerror(errno));
	if (p->enable)
		r = put(parent, "cgroup.subtree_control", "+memory +pids");
	if (r < 0)
		return err_set(err, r, "%s/cgroup.subtree_control: %s", shown, strerror(-r));
	if (mkdirat(parent, name, 0755) < 0)
		return err_set(err, -errno, "%s/%s: %s", shown, name, strerror(errno));
	dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = dir < 0 ? -errno : limits_put(dir, l);
	if (r < 0) {
		(void)unlinkat(parent, name, AT_REMOVEDIR);
		return err_set(err, r, "%s/%s: its limits cannot be set: %s", shown, name, strerror(-r));
	}
	return TAKE_FD(dir);
}

/* rmdir(2) says EBUSY while there is a process, but for a zombie. */
static int remove_in_time(const char *path, int dir)
{
	const struct timespec step = { .tv_nsec = END_STEP_MS * 1000000 };
	int64_t end = now_ns() + (int64_t)END_MS * 1000000;

	for (;;) {
		if (rmdir(path) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY || now_ns() > end)
			return -errno;
		(void)put(dir, "cgroup.kill", "1"); /* from Linux 5.14 on; again, for who was just being born */
		(void)nanosleep(&step, NULL);
	}
}

int cgroup_drop(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	struct statfs fs;
	AUTO_FD(dir);

	if (!str_starts(path, CGROUP_TOP "/") || !session_name_is_ours(name) || strcmp(slash + 1, name) != 0)
		return -EINVAL;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstatfs(dir, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return -EINVAL;
	return remove_in_time(path, dir);
}

bool cgroup_ran_out(const char *path)
{
	AUTO_FREE(char, events);
	AUTO_FD(dir);
	const char *at;

	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return false;
	events = content(dir, "memory.events");
	at = strstr(events, "\noom_kill ");
	return at && at[strlen("\noom_kill ")] != '0';
}
