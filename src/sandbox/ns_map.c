/* Who writes the maps: the parent, which stays in the outer namespace. The single-id map of an ordinary user and the
 * identity map of root are written by ourselves. A range of sub-ids is written by newuidmap and newgidmap, which are
 * setuid or have file capabilities and check /etc/subuid themselves; they are run by a child, so that the look-up of the
 * login name (which may load name service modules) leaves nothing behind in this process.
 *
 * newuidmap's refusal is no failure: nothing was written then and the single-id map still can be. If the uid map was
 * written and the gid map refused, the gid map falls back alone. */
#include "sandbox/ns_map.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/str.h"
#include "sandbox/caps.h"

#include <linux/capability.h>

#define SUBID_FILE_MAX (1 << 20)
#define MAP_TEXT_MAX 4096	 /* the kernel takes less than a page */
#define SUBID_FIRST 100000	 /* SUB_UID_MIN of login.defs */
#define SUBID_COUNT_MAX 65535	 /* ids 1..65535: what Linux distributions use */
#define TOOL_PATH "/usr/bin:/bin:/usr/local/bin:/run/wrappers/bin"

enum { MAPPED_UID = 1 << 0, MAPPED_GID = 1 << 1 }; /* exit status of the helper */

static int proc_write(pid_t pid, const char *name, const char *text)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	ssize_t n;

	path = xasprintf("/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text)); /* a map must come in one write */
	return n < 0 ? -errno : 0;
}

static int file_text(const char *path, size_t max, char **ret)
{
	AUTO_FD(fd);

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd_read_file(fd, max, ret, NULL);
}

/* The numbers of "who:first:count"; cuts the line behind who. */
static int subid_line(char *line, uint64_t *ret_first, uint64_t *ret_count)
{
	char *first = strchr(line, ':');
	char *count = first ? strchr(first + 1, ':') : NULL;

	if (!count)
		return -EBADMSG;
	*first++ = 0;
	*count++ = 0;
	return str_u64(first, UINT32_MAX, ret_first) < 0 || str_u64(count, UINT32_MAX, ret_count) < 0 ? -EBADMSG : 0;
}

int ns_subid_free(const char *text, uint32_t *ret)
{
	uint64_t end = SUBID_FIRST;

	while (*text) {
		size_t n = strcspn(text, "\n");
		AUTO_FREE(char, line);
		uint64_t a, c;

		line = xstrndup(text, n);
		text += n + (text[n] == '\n');
		if (subid_line(line, &a, &c) == 0)
			end = MAX(end, a + c);
	}
	if (end + NS_SUBIDS_GIVEN > UINT32_MAX)
		return -ENOSPC;
	*ret = (uint32_t)end;
	return 0;
}

int ns_subid_find(const char *text, const char *name, uid_t uid, struct ns_range *ret)
{
	while (*text) {
		size_t n = strcspn(text, "\n");
		AUTO_FREE(char, line);
		uint64_t owner, a, c;

		line = xstrndup(text, n);
		text += n + (text[n] == '\n');
		if (subid_line(line, &a, &c) < 0)
			continue;
		if (!(name && strcmp(line, name) == 0) && !(str_u64(line, UINT32_MAX, &owner) == 0 && owner == uid))
			continue;
		if (a == 0 || c == 0 || a + c > UINT32_MAX || (a <= uid && uid < a + c))
			continue;
		*ret = (struct ns_range){ (uint32_t)a, (uint32_t)MIN(c, SUBID_COUNT_MAX) };
		return 0;
	}
	return -ENOENT;
}

static int subid_of(const char *path, const char *name, uid_t uid, struct ns_range *ret)
{
	AUTO_FREE(char, text);
	int r;

	r = file_text(path, SUBID_FILE_MAX, &text);
	return r < 0 ? r : ns_subid_find(text, name, uid, ret);
}

/* Returns whether the tool wrote the map. */
static bool tool_run(const char *tool, pid_t pid, unsigned int id, const struct ns_range *sub)
{
	const char *argv[] = { tool, NULL, "0", NULL, "1", "1", NULL, NULL, NULL };
	static char *const env[] = { NULL };
	AUTO_FREE(char, a_pid);
	AUTO_FREE(char, a_id);
	AUTO_FREE(char, a_first);
	AUTO_FREE(char, a_count);
	int st;
	pid_t p;

	a_pid = xasprintf("%d", (int)pid);
	a_id = xasprintf("%u", id);
	a_first = xasprintf("%u", sub->first);
	a_count = xasprintf("%u", sub->count);
	argv[1] = a_pid;
	argv[3] = a_id;
	argv[6] = a_first;
	argv[7] = a_count;
	p = fork();
	if (p < 0)
		return false;
	if (p == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (null >= 0) {
			(void)dup2(null, 1);
			(void)dup2(null, 2);
		}
		(void)close_range(3, ~0U, 0);
		(void)setenv("PATH", TOOL_PATH, 1); /* execvpe() searches ours, not the new environment's */
		(void)execvpe(tool, (char *const *)argv, env);
		_exit(127);
	}
	while (waitpid(p, &st, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(st) && WEXITSTATUS(st) == 0;
}

/* In the helper: sub-ids by the tools; exit status says which map is written. */
static int subids_map(pid_t pid)
{
	struct ns_range u, g;
	struct passwd *pw;
	const char *name;
	int done = 0;

	pw = getpwuid(getuid());
	name = pw ? pw->pw_name : NULL;
	if (subid_of("/etc/subuid", name, getuid(), &u) < 0 || subid_of("/etc/subgid", name, getuid(), &g) < 0)
		return 0;
	/* gid first: if it is refused, both maps are still free for the single id. */
	if (!tool_run("newgidmap", pid, getgid(), &g))
		return 0;
	done |= MAPPED_GID;
	if (tool_run("newuidmap", pid, getuid(), &u))
		done |= MAPPED_UID;
	return done;
}

static int subids_try(pid_t pid)
{
	int st;
	pid_t p;

	p = fork();
	if (p < 0)
		return 0;
	if (p == 0)
		_exit(subids_map(pid));
	while (waitpid(p, &st, 0) < 0)
		if (errno != EINTR)
			return 0;
	return WIFEXITED(st) ? WEXITSTATUS(st) : 0;
}

/* "FIRST FIRST COUNT" for every extent that we have ourselves. */
static int map_identity(pid_t pid, const char *name)
{
	AUTO_FREE(char, own);
	AUTO_FREE(char, path);
	char text[MAP_TEXT_MAX], *p, *save = NULL;
	size_t n = 0;
	int r;

	path = xasprintf("/proc/self/%s", name);
	r = file_text(path, MAP_TEXT_MAX, &own);
	if (r < 0)
		return r;
	for (p = strtok_r(own, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		unsigned int inside, outside, count;

		if (sscanf(p, "%u %u %u", &inside, &outside, &count) != 3)
			return -EBADMSG;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%u %u %u\n", inside, inside, count);
		if (n >= sizeof(text))
			return -E2BIG;
	}
	return proc_write(pid, name, text);
}

static int map_single(pid_t pid, const char *name, unsigned int id)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "0 %u 1\n", id);
	return proc_write(pid, name, text);
}

int ns_map_ids(pid_t pid, bool *ret_many, struct err *err)
{
	uint64_t caps = 0;
	int r, done = 0;

	(void)caps_effective(&caps);
	if (geteuid() == 0 && (caps & CAP_BIT(CAP_SETUID)) && (caps & CAP_BIT(CAP_SETGID))) {
		r = map_identity(pid, "uid_map");
		if (r == 0)
			r = map_identity(pid, "gid_map");
		if (r < 0)
			return err_set(err, r, "user namespace: map of ids: %s", strerror(-r));
		*ret_many = true;
		return 0;
	}

	if (geteuid() != 0)
		done = subids_try(pid);
	if (!(done & MAPPED_GID)) {
		/* Without it an unprivileged process may not write a gid map: it could leave a group that denies it something. */
		r = proc_write(pid, "setgroups", "deny");
		if (r < 0)
			return err_set(err, r, "user namespace: setgroups: %s", strerror(-r));
		r = map_single(pid, "gid_map", getegid());
		if (r < 0)
			return err_set(err, r, "user namespace: map of group ids: %s", strerror(-r));
	}
	if (!(done & MAPPED_UID)) {
		r = map_single(pid, "uid_map", geteuid());
		if (r < 0)
			return err_set(err, r, "user namespace: map of user ids: %s", strerror(-r));
	}
	*ret_many = done == (MAPPED_UID | MAPPED_GID);
	return 0;
}
