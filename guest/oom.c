/* The kernel's messages are the only place that tells: the kernel of libkrunfw is built without the counters of
 * /proc/vmstat (oom_kill is missing there), and the root cgroup has no memory.events. A message reads
 *
 *    3,1207,16717914,-;Out of memory: Killed process 475 (tail) total-vm:462844kB, ...
 *
 * where the first number is facility * 8 + level; what programs of the guest write to /dev/kmsg has another facility than
 * the kernel's 0 (Documentation/ABI/testing/dev-kmsg). */
#include "guest/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECORD_MAX 8192 /* CONSOLE_EXT_LOG_MAX of the kernel */
#define RECORDS_MAX 2000 /* a death by lack of memory writes about a hundred; a flood waits for the next call */
#define MARK "ut of memory: Killed process " /* also "Memory cgroup out of memory: ..." */

int oom_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	(void)lseek(fd, 0, SEEK_END);
	return fd;
}

bool oom_parse(const char *msg, char *ret, size_t size)
{
	const char *text = strchr(msg, ';'), *at, *end;

	if (msg[0] < '0' || msg[0] > '7' || msg[1] != ',' || !text)
		return false;
	at = strstr(text, MARK);
	if (!at || at - text > 16)
		return false;
	at += strlen(MARK) - strlen("process ");
	end = strstr(at, ") ");
	if (!end)
		return false;
	(void)snprintf(ret, size, "%.*s", (int)(end + 1 - at), at);
	return true;
}

bool oom_take(int fd, char *ret, size_t size)
{
	char msg[RECORD_MAX + 1];
	bool found = false;

	for (int i = 0; fd >= 0 && i < RECORDS_MAX; i++) {
		ssize_t k = read(fd, msg, sizeof(msg) - 1);

		if (k < 0 && (errno == EPIPE || errno == EINTR)) /* EPIPE: records were overwritten meanwhile */
			continue;
		if (k <= 0)
			break;
		msg[k] = '\0';
		found |= oom_parse(msg, ret, size);
	}
	return found;
}
