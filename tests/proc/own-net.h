/* A network namespace of the test's own, also for an ordinary user. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "../unit/test.h"

static inline void own_net_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	close(fd);
}

static inline void own_namespace(void)
{
	char map[64];
	uid_t uid = getuid();

	CHECK_INT(setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1), ==, 0);
	if (unshare(uid == 0 ? CLONE_NEWNET : CLONE_NEWNET | CLONE_NEWUSER) < 0)
		fail_msg("no network namespace can be made: %s", strerror(errno));
	if (uid == 0)
		return;
	own_net_write("/proc/self/setgroups", "deny");
	(void)snprintf(map, sizeof(map), "0 %u 1", uid);
	own_net_write("/proc/self/uid_map", map);
}
