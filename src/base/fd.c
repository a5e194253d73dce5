#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/macros.h"

#define FDS_MAX 16 /* descriptors in one message of ours */

int fd_write_all(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n > 0) {
		ssize_t k = write(fd, at, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

int fd_read_exact(int fd, void *p, size_t n)
{
	char *at = p;

	while (n > 0) {
		ssize_t k = read(fd, at, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			return -EPIPE;
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

static int fd_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);

	if (flags < 0)
		return -errno;
	if (fcntl(fd, set, on ? flags | flag : flags & ~flag) < 0)
		return -errno;
	return 0;
}

int fd_nonblock(int fd, bool on)
{
	return fd_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_cloexec(int fd, bool on)
{
	return fd_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_read_file(int fd, size_t max, char **ret, size_t *ret_len)
{
	AUTO_FREE(char, mem);
	size_t n = 0, size = 0;

	for (;;) {
		ssize_t k;

		if (n == size) {
			char *more = realloc(mem, (size = size ? 2 * size : 4096) + 1);

			if (!more)
				return -ENOMEM;
			mem = more;
		}
		k = read(fd, mem + n, size - n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		n += (size_t)k;
		if (n > max)
			return -EFBIG;
	}
	mem[n] = '\0';
	*ret = TAKE_PTR(mem);
	if (ret_len)
		*ret_len = n;
	return 0;
}

ssize_t fd_send(int sock, const void *p, size_t n, const int *fds, size_t n_fds)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} ctl = { 0 };
	struct iovec iov = { .iov_base = (void *)p, .iov_len = n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t k;

	if (n_fds > FDS_MAX)
		return -E2BIG;
	if (n_fds > 0) {
		struct cmsghdr *c;

		msg.msg_control = ctl.bytes;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		k = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (k < 0 && errno == EINTR);
	return k < 0 ? -errno : k;
}

ssize_t fd_recv(int sock, void *p, size_t n, int *fds, size_t n_fds)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} ctl;
	struct iovec iov = { .iov_base = p, .iov_len = n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.bytes,
			      .msg_controllen = sizeof(ctl.bytes) };
	bool bad = false;
	size_t got = 0;
	ssize_t k;

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = -1;
	do
		k = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (k < 0 && errno == EINTR);
	if (k < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (got < n_fds) {
				fds[got++] = fd;
			} else {
				bad = true;
				(void)close(fd);
			}
		}
	}
	if (!bad && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return k;
	if (!bad && !(msg.msg_flags & MSG_TRUNC) && got < n_fds) {
		fds[got] = FD_LOST;
		return k;
	}
	for (size_t i = 0; i < n_fds; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
		fds[i] = -1;
	}
	return -EBADMSG;
}

bool fd_is_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

int64_t wall_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

bool fd_is_socket(int fd, int type)
{
	int is;
	socklen_t n = sizeof(is);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &n) == 0 && is == type;
}

bool fd_is_sealed(int fd)
{
	const int want = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & want) == want;
}

int fd_map_config(int fd, const char *what, size_t max, struct span *ret, struct err *err)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "configuration of %s: %s", what, strerror(errno));
	if (st.st_size <= 0 || (uint64_t)st.st_size > max)
		return err_set(err, -EBADMSG, "configuration of %s: %lld bytes", what, (long long)st.st_size);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_set(err, -errno, "configuration of %s: %s", what, strerror(errno));
	(void)close(fd);
	*ret = SPAN(p, (size_t)st.st_size);
	return 0;
}
