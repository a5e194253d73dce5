/* Where a group may be made, over folders that look like the kernel's. What the kernel does with them: tests/lab. */
#include <errno.h>
#include <grp.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/file.h"
#include "files.h"
#include "session/cgroup.h"

#define NOBODY 65534

static void put(const char *top, const char *dir, const char *name, const char *text)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	struct err err;

	path = xasprintf("%s%s", top, dir);
	fd = dir_open_made(path, 0755, &err);
	CHECK_INT(fd, >=, 0);
	CHECK_INT(file_replace_at(fd, name, text, strlen(text), 0644), ==, 0);
}

static void group(const char *top, const char *dir, const char *controllers, const char *passed, const char *procs)
{
	put(top, dir, "cgroup.controllers", controllers);
	put(top, dir, "cgroup.subtree_control", passed);
	put(top, dir, "cgroup.procs", procs);
}

/* What is found must be @want below @top: "-" none. */
static void find(const char *top, const char *own, int want_r, const char *want, bool enable)
{
	struct cgroup_place p = { NULL };
	struct err err = { "" };
	int r = cgroup_find_in(top, own, &p, &err);

	if (r != want_r)
		fail_msg("%s: %d (%s), not %d", own, r, err.text, want_r);
	if (r == 0) {
		CHECK_STR(p.path + strlen(top), want);
		CHECK_INT(p.enable, ==, enable);
	} else {
		CHECK(strstr(err.text, own) && strstr(err.text, want));
	}
	cgroup_place_done(&p);
}

/* For whom modes count. */
static void as_somebody(void (*body)(const char *), const char *top)
{
	int st;
	pid_t pid;

	if (geteuid() != 0) {
		body(top);
		return;
	}
	pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(1);
		body(top);
		_exit(0);
	}
	CHECK_INT(waitpid(pid, &st, 0), ==, pid);
	CHECK_INT(st, ==, 0);
}

/* What systemd makes of a desktop's login; the user's part begins at user@.service. */
static char *desktop(void)
{
	char *top = files_tmp("/tmp");

	group(top, "", "cpu io memory pids\n", "cpu memory pids\n", "2\n");
	group(top, "/user.slice", "cpu memory pids\n", "memory pids\n", "");
	group(top, "/user.slice/session-3.scope", "memory pids\n", "", "1000\n");
	group(top, "/user.slice/user@.service", "memory pids\n", "memory pids\n", "");
	group(top, "/user.slice/user@.service/app.slice", "memory pids\n", "memory pids\n", "");
	group(top, "/user.slice/user@.service/app.slice/run.scope", "memory pids\n", "", "1001\n");
	group(top, "/user.slice/user@.service/bare.slice", "memory pids\n", "", "");
	group(top, "/user.slice/user@.service/bare.slice/run.scope", "", "", "1002\n");
	files_sh(top, "chmod 755 .; chmod -R a-w .; chmod -R u+w user.slice/user@.service");
	if (geteuid() == 0)
		files_sh(top, "chown -R 65534:65534 user.slice/user@.service");
	return top;
}

static void desktop_body(const char *top)
{
	/* Its own group has processes, so the folder above it. */
	find(top, "/user.slice/user@.service/app.slice/run.scope", 0, "/user.slice/user@.service/app.slice", false);
	/* Passing controllers on is possible nearer than where it is done. */
	find(top, "/user.slice/user@.service/bare.slice/run.scope", 0, "/user.slice/user@.service/bare.slice", true);
	/* By ssh or at a console: the user's part is beside, not above. */
	find(top, "/user.slice/session-3.scope", -EACCES, "systemd-run --user --scope", false);
	find(top, "/gone/with/its/parents", -EACCES, "systemd-run", false);
}

TEST(the_nearest_folder_that_is_the_user_s)
{
	char *top = desktop();

	as_somebody(desktop_body, top);
	files_sh(top, "chmod -R u+w .");
	files_rm(top);
}

static void none_body(const char *top)
{
	find(top, "/a/b", -ENODEV, "Delegate=memory pids", false);
}

TEST(a_folder_without_controllers_or_with_processes_is_none)
{
	char *top = files_tmp("/tmp");

	group(top, "", "memory pids\n", "memory pids\n", "1\n");
	group(top, "/a", "memory pids\n", "cpu pids memory_extra\n", "77\n");
	group(top, "/a/b", "pids\n", "pids\n", "");
	files_sh(top, "chmod 755 .; chmod a-w . cgroup.procs");
	if (geteuid() == 0)
		files_sh(top, "chown -R 65534:65534 a");
	as_somebody(none_body, top);
	files_sh(top, "chmod -R u+w .");
	files_rm(top);
}

static void read_only_body(const char *top)
{
	find(top, "/a/b", 0, "", false);
	find(top, "/c/d", 0, "", false);
}

TEST(the_rights_to_make_groups_and_to_move_processes_are_both_needed)
{
	char *top = files_tmp("/tmp");

	group(top, "", "memory pids\n", "memory pids\n", "");
	group(top, "/a", "memory pids\n", "memory pids\n", "");
	group(top, "/a/b", "memory pids\n", "", "5\n");
	group(top, "/c", "memory pids\n", "memory pids\n", "");
	group(top, "/c/d", "memory pids\n", "", "6\n");
	files_sh(top, "chmod 755 .; chmod a-w a/cgroup.procs a/b/cgroup.procs c");
	if (geteuid() == 0)
		files_sh(top, "chown -R 65534:65534 .");
	as_somebody(read_only_body, top);
	files_sh(top, "chmod u+w c");
	files_rm(top);
}

TEST(only_a_session_s_own_group_is_removed)
{
	char *top = files_tmp("/tmp");
	AUTO_FREE(char, path);

	CHECK_INT(cgroup_drop("/sys/fs/cgroup/a/agent-vm-0123456789ab-77", "agent-vm-0123456789ab-78"), ==, -EINVAL);
	CHECK_INT(cgroup_drop("/sys/fs/cgroup/a/b", "b"), ==, -EINVAL);
	CHECK_INT(cgroup_drop("/sys/fs/cgroup/agent-vm-0123456789ab-77/", "agent-vm-0123456789ab-77"), ==, -EINVAL);
	path = files_at(top, "agent-vm-0123456789ab-77");
	CHECK_INT(mkdir(path, 0700), ==, 0);
	CHECK_INT(cgroup_drop(path, "agent-vm-0123456789ab-77"), ==, -EINVAL);
	CHECK_INT(access(path, F_OK), ==, 0);
	CHECK_INT(cgroup_drop("/sys/fs/cgroup/agent-vm-0123456789ab-77", "agent-vm-0123456789ab-77"), ==, 0);
	files_rm(top);
}
