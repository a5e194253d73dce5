/* cgroup.c and spawn.c against a real kernel with cgroup version 2; runs as root in a VM (tests/vm/test_cgroup.py), whose
 * groups are nobody else's. It makes what systemd makes for a login, and as that user does what a launch does.
 *
 * Started under the name of a stand-in it is the monitor: see stand_ins[]. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "cli/spawn.h"
#include "session/cgroup.h"

#define USER 4321
#define TOP CGROUP_TOP "/agent-vm-test"
#define NAME "agent-vm-0123456789ab-77"
#define PIDS 20
#define MEMORY (UINT64_C(64) << 20)

#define CHECK(cond, ...)                                                        \
	do {                                                                    \
		if (!(cond)) {                                                  \
			(void)printf("%s:%d: not true: %s", __FILE__, __LINE__, #cond); \
			(void)printf(" " __VA_ARGS__);                           \
			(void)printf("\n");                                     \
			(void)fflush(stdout);                                   \
			_exit(1);                                               \
		}                                                               \
	} while (0)

/* ---- stand-ins for a monitor ---- */

static void stay(void) __attribute__((noreturn));
static void stay(void)
{
	for (;;)
		(void)pause();
}

/* Forks until it is refused, and says on its descriptor 1 how often it could. The children stay. */
static int fork_storm(void)
{
	uint32_t n = 0;

	while (n < 1000) {
		pid_t pid = fork();

		if (pid < 0 && errno == EAGAIN)
			break;
		if (pid == 0)
			stay();
		n += pid > 0;
	}
	(void)!write(1, &n, sizeof(n));
	stay();
}

/* Takes all the memory that it can get, beside a child that takes none. */
static int glutton(void)
{
	if (fork() == 0)
		stay();
	for (uint64_t n = 0; n < 4 * MEMORY; n += 1 << 20) {
		char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p != MAP_FAILED)
			memset(p, 1, 1 << 20);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} stand_ins[] = { { "fork-storm", fork_storm }, { "glutton", glutton } };

/* ---- the groups ---- */

static int put(const char *dir, const char *name, const char *text)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);

	path = xasprintf("%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

static char *get(const char *dir, const char *name)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	char *text;

	path = xasprintf("%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && fd_read_file(fd, 65536, &text, NULL) == 0, "%s", path);
	return text;
}

/* As "0::/..." of a process. */
static bool is_in(pid_t pid, const char *group)
{
	AUTO_FREE(char, dir);
	AUTO_FREE(char, text);
	AUTO_FREE(char, want);

	dir = xasprintf("/proc/%d", (int)pid);
	text = get(dir, "cgroup");
	want = xasprintf("0::%s\n", group + strlen(CGROUP_TOP));
	return strcmp(text, want) == 0;
}

static void group(const char *rel, bool passes, bool users)
{
	AUTO_FREE(char, path);

	path = xasprintf(TOP "%s", rel);
	CHECK(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
	if (passes)
		CHECK(put(path, "cgroup.subtree_control", "+memory +pids") == 0, "%s", path);
	for (int i = 0; users && i < 3; i++) {
		static const char *const what[] = { "", "/cgroup.procs", "/cgroup.subtree_control" };
		AUTO_FREE(char, one);

		one = xasprintf("%s%s", path, what[i]);
		CHECK(chown(one, USER, USER) == 0, "%s", one);
	}
}

/* Runs @body as the user in the group @rel; it ends the program when it fails. */
static void as_user(const char *rel, void (*body)(void))
{
	AUTO_FREE(char, path);
	pid_t pid = fork();
	int st;

	if (pid == 0) {
		path = xasprintf(TOP "%s", rel);
		CHECK(put(path, "cgroup.procs", "0") == 0, "%s", path);
		CHECK(setgroups(0, NULL) == 0 && setgid(USER) == 0 && setuid(USER) == 0);
		body();
		_exit(0);
	}
	CHECK(waitpid(pid, &st, 0) == pid && WIFEXITED(st));
	if (WEXITSTATUS(st) != 0)
		exit(1);
}

static const struct cgroup_limits limits = { .memory_bytes = MEMORY, .pids = PIDS };

/* What is found, made there; the group's path, caller owns. */
static char *make(int *ret_fd, bool enable)
{
	struct cgroup_place p = { NULL };
	struct err err = { "" };
	char *path;

	CHECK(cgroup_find(&p, &err) == 0, "%s", err.text);
	CHECK(p.enable == enable);
	*ret_fd = cgroup_make(&p, NAME, &limits, &err);
	CHECK(*ret_fd >= 0, "%s", err.text);
	path = xasprintf("%s/" NAME, p.path);
	cgroup_place_done(&p);
	return path;
}

static void expect(const char *dir, const char *name, const char *want)
{
	AUTO_FREE(char, text);

	text = get(dir, name);
	CHECK(strcmp(text, want) == 0, "%s/%s: %s", dir, name, text);
}

/* A monitor in @group; @ret_out: what it writes. */
static pid_t monitor(const char *name, int group, int *ret_out)
{
	int p[2], fds[2] = { -1 };
	pid_t pid;
	int r;

	CHECK(pipe2(p, O_CLOEXEC) == 0);
	fds[1] = p[1];
	r = spawn_role("/proc/self/exe", name, fds, 2, group, &pid);
	CHECK(r == 0, "%s", strerror(-r));
	(void)close(p[1]);
	*ret_out = p[0];
	return pid;
}

static bool populated(const char *group)
{
	AUTO_FREE(char, events);

	events = get(group, "cgroup.events");
	return strstr(events, "populated 1") != NULL;
}

/* ---- what must hold ---- */

static void a_storm(void)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, procs);
	AUTO_FD(fd);
	AUTO_FD(out);
	unsigned lines = 0;
	uint32_t n = 0;
	pid_t pid;

	path = make(&fd, false);
	expect(path, "pids.max", "20\n");
	expect(path, "memory.max", "67108864\n");
	expect(path, "memory.oom.group", "1\n");
	pid = monitor("fork-storm", fd, &out);
	CHECK(fd_read_exact(out, &n, sizeof(n)) == 0);
	CHECK(n == PIDS - 1, "%u forks", n);
	CHECK(is_in(pid, path));
	procs = get(path, "cgroup.procs");
	for (const char *at = procs; *at; at++)
		lines += *at == '\n';
	CHECK(lines == PIDS, "%u processes", lines);
	CHECK(is_in(getpid(), TOP "/user/session"));
	/* The storm is inside; out here there is room. */
	if (fork() == 0)
		_exit(0);
	CHECK(wait(NULL) > 0);
	CHECK(cgroup_drop(path, "agent-vm-0123456789ab-78") == -EINVAL && access(path, F_OK) == 0);
	CHECK(populated(path));
	CHECK(cgroup_drop(path, NAME) == 0 && access(path, F_OK) < 0);
	CHECK(waitpid(pid, NULL, 0) == pid);
	CHECK(cgroup_drop(path, NAME) == 0);
}

static void a_glutton(void)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	AUTO_FD(out);
	pid_t pid;
	int st;

	path = make(&fd, false);
	CHECK(!cgroup_ran_out(path));
	pid = monitor("glutton", fd, &out);
	CHECK(waitpid(pid, &st, 0) == pid && WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
	CHECK(cgroup_ran_out(path));
	for (int i = 0; populated(path) && i < 1200; i++)
		(void)poll(NULL, 0, 50);
	CHECK(!populated(path)); /* its child as well */
	CHECK(cgroup_drop(path, NAME) == 0 && access(path, F_OK) < 0);
}

static void passes_on(void)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);

	path = make(&fd, true);
	expect(TOP "/bare", "cgroup.subtree_control", "memory pids\n");
	expect(path, "pids.max", "20\n");
	CHECK(cgroup_drop(path, NAME) == 0 && access(path, F_OK) < 0);
}

static void nothing(void)
{
	struct cgroup_place p = { NULL };
	struct err err = { "" };

	CHECK(cgroup_find(&p, &err) == -EACCES, "%s", err.text);
	CHECK(strstr(err.text, "systemd-run --user --scope") != NULL, "%s", err.text);
}

/* The user's group beside ours: a folder can be made in it, but nobody be moved there. */
static void beside(void)
{
	struct cgroup_place p = { .path = (char *)(uintptr_t)TOP "/user" };
	struct err err = { "" };
	int fds[2] = { -1, -1 }, r;
	AUTO_FD(fd);
	pid_t pid;

	nothing();
	fd = cgroup_make(&p, NAME, &limits, &err);
	CHECK(fd >= 0, "%s", err.text);
	r = spawn_role("/proc/self/exe", "fork-storm", fds, 2, fd, &pid);
	CHECK(r == -EACCES, "%d", r);
	CHECK(cgroup_drop(TOP "/user/" NAME, NAME) == 0 && access(TOP "/user/" NAME, F_OK) < 0);
}

int main(int argc, char **argv)
{
	(void)argc;
	for (size_t i = 0; i < ARRAY_SIZE(stand_ins); i++)
		if (strcmp(argv[0], stand_ins[i].name) == 0)
			return stand_ins[i].run();
	/* The topmost group may have processes and pass controllers on. */
	CHECK(put(CGROUP_TOP, "cgroup.subtree_control", "+memory +pids") == 0, "%s", strerror(errno));
	group("", true, false);
	group("/other", false, false);
	group("/user", true, true);
	group("/user/session", false, true);
	group("/bare", false, true);
	group("/bare/session", false, true);
	as_user("/user/session", a_storm);
	as_user("/user/session", a_glutton);
	as_user("/bare/session", passes_on);
	as_user("/other", nothing);
	as_user("/other", beside);
	(void)printf("all hold\n");
	return 0;
}
