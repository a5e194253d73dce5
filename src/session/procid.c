#include "session/procid.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define STAT_MAX 4096 /* the line of /proc/PID/stat: 52 numbers and a name of at most 64 bytes */

static int boot_id_read(char ret[BOOT_ID_LEN + 1])
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	size_t n;
	int r;

	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fd_read_file(fd, BOOT_ID_LEN + 1, &text, &n);
	if (r < 0)
		return r;
	if (n < BOOT_ID_LEN)
		return -EBADMSG;
	memcpy(ret, text, BOOT_ID_LEN);
	ret[BOOT_ID_LEN] = '\0';
	return 0;
}

/* State letter and start time. The name in parentheses is the process's own choice and may hold ") R 1", so the fields
 * are counted from the last ')'. */
static int proc_stat_read(pid_t pid, char *ret_state, uint64_t *ret_start)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	char path[64], *at, *end;
	uint64_t start;
	char state;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	r = fd_read_file(fd, STAT_MAX, &text, NULL);
	if (r < 0)
		return r;
	at = strrchr(text, ')');
	if (!at || at[1] != ' ' || at[2] == '\0')
		return -EBADMSG;
	state = at[2];
	/* After the state comes field 4, each with one space in front; 22 is wanted. */
	at += 2;
	for (int field = 3; field < 22; field++) {
		at = strchr(at + 1, ' ');
		if (!at)
			return -EBADMSG;
	}
	end = strchr(at + 1, ' ');
	if (end)
		*end = '\0';
	r = str_u64(at + 1, UINT64_MAX, &start);
	if (r < 0)
		return -EBADMSG;
	*ret_state = state;
	*ret_start = start;
	return 0;
}

static int here_read(struct proc_id *id)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st) < 0)
		return -errno;
	id->pid_ns = st.st_ino;
	return boot_id_read(id->boot_id);
}

int proc_id_of(pid_t pid, struct proc_id *ret)
{
	struct proc_id id = { .pid = pid };
	char state;
	int r;

	r = here_read(&id);
	if (r < 0)
		return r;
	r = proc_stat_read(pid, &state, &id.start);
	if (r < 0)
		return r;
	*ret = id;
	return 0;
}

int proc_id_self(struct proc_id *ret)
{
	return proc_id_of(getpid(), ret);
}

int proc_id_open(const struct proc_id *id)
{
	AUTO_FD(fd);
	struct proc_id here;
	uint64_t start;
	char state;
	int r;

	/* pidfd_open() takes pid 0 and below for an error, kill() would take them for a group; both never are ours. */
	if (id->pid <= 1 || id->start == 0)
		return -ESRCH;
	r = here_read(&here);
	if (r < 0)
		return r;
	if (strcmp(here.boot_id, id->boot_id) != 0)
		return -ESRCH;
	if (here.pid_ns != id->pid_ns)
		return -EXDEV;
	fd = (int)syscall(SYS_pidfd_open, id->pid, 0);
	if (fd < 0)
		return errno == EINVAL ? -ESRCH : -errno;
	/* Read after the pidfd was opened: if the start time is the recorded one, the process that had the pid then is
	 * the one that has it now, and the pidfd is its. */
	r = proc_stat_read(id->pid, &state, &start);
	if (r < 0)
		return r;
	if (start != id->start || state == 'Z' || state == 'X')
		return -ESRCH;
	return TAKE_FD(fd);
}

bool proc_id_is_gone(const struct proc_id *id)
{
	AUTO_FD(fd);

	fd = proc_id_open(id);
	return fd == -ESRCH;
}

int pidfd_wait_all(const int *pidfds, size_t n, int timeout_ms)
{
	int64_t end_ns = now_ns() + (int64_t)timeout_ms * 1000000;

	for (size_t i = 0; i < n; i++) {
		struct pollfd p = { .fd = pidfds[i], .events = POLLIN };
		int64_t left_ms = (end_ns - now_ns() + 999999) / 1000000;
		int r;

		if (pidfds[i] < 0)
			continue;
		r = poll(&p, 1, left_ms < 0 ? 0 : (int)left_ms);
		if (r == 0)
			return -ETIMEDOUT;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r < 0)
			i--;
	}
	return 0;
}
