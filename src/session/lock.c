#include "session/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define RETRY_MS 20
#define HOLDER_MAX 256

static void sleep_ms(int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };

	(void)nanosleep(&ts, NULL);
}

int lock_file_at(int dirfd, const char *name, int timeout_ms)
{
	AUTO_FD(fd);
	int64_t end_ns = now_ns() + (int64_t)timeout_ms * 1000000;

	fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	/* The umask may have cut the mode so far that nobody could open the file again. */
	if (fd < 0 || fchmod(fd, 0600) < 0)
		return -errno;
	/* Trying instead of a waiting flock(2): that one could only be ended by a signal. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (now_ns() >= end_ns)
			return -EWOULDBLOCK;
		sleep_ms(RETRY_MS);
	}
	return TAKE_FD(fd);
}

int project_lock_try(const struct state_root *root, const char *hash, const char *holder, struct err *err)
{
	AUTO_FD(fd);

	fd = lock_file_at(root->locks_fd, hash, 0);
	if (fd == -EWOULDBLOCK) {
		AUTO_FREE(char, who);

		who = project_lock_holder(root, hash);
		return err_set(err, fd, "project lock: held by %s; end that session with agent-vm stop, or wait", who);
	}
	if (fd < 0)
		return err_set(err, fd, "%s/run/locks/%s: cannot be locked: %s; set AGENT_VM_STATE_DIR to another folder",
			       root->path, hash, strerror(-fd));
	/* Only a name for those who wait; without it the lock holds as well. */
	if (ftruncate(fd, 0) == 0)
		(void)fd_write_all(fd, holder, strlen(holder));
	return TAKE_FD(fd);
}

char *project_lock_holder(const struct state_root *root, const char *hash)
{
	char text[HOLDER_MAX];
	AUTO_FD(fd);
	ssize_t n;

	fd = openat(root->locks_fd, hash, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n <= 0)
		return xstrdup("another session");
	return str_escape(text, (size_t)n);
}

int project_lock_wait(const struct state_root *root, const char *hash, const char *holder, int quiet_ms, int max_ms,
		      void (*say)(const char *holder, void *arg), bool (*stop)(void *arg), void *arg, struct err *err)
{
	int64_t start_ns = now_ns();
	bool said = !say;

	for (;;) {
		int fd = project_lock_try(root, hash, holder, err);
		int64_t waited_ms = (now_ns() - start_ns) / 1000000;

		if (fd != -EWOULDBLOCK || waited_ms >= max_ms)
			return fd;
		if (stop && stop(arg))
			return err_set(err, -ECANCELED, "project lock: the wait was ended");
		if (!said && waited_ms >= quiet_ms) {
			AUTO_FREE(char, who);

			who = project_lock_holder(root, hash);
			say(who, arg);
			said = true;
		}
		sleep_ms(RETRY_MS);
	}
}
