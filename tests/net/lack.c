/* Linked into wire, gate and vault in front of the C library: now and then the kernel has no memory, no buffer or no descriptor for a
 * call. The file of the program's name in the folder LACK is mapped by the test as well, which turns the lack on and off by it, and reads
 * which calls it has met.
 *
 * What is answered is what the kernel answers to that call; so a read of a unix socket does not fail, but a descriptor that comes
 * with a message may be lost (MSG_CTRUNC), which is what EMFILE looks like there. To watch a descriptor for the first time needs
 * memory, to watch it for something else does not. */
#undef _FILE_OFFSET_BITS /* else open() is another name of open64() */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { SOCKET, PAIR, ACCEPT, CONNECT, SEND, RECV, GIVEN, WATCH, OPEN, CALLS };

struct lack {
	uint32_t per_mille, seed, which; /* the test writes; which: a bit each call */
	uint32_t state, met[CALLS];
};

static volatile struct lack *lack;
static bool reads; /* gate has nothing but unix sockets to read, and may not ask what a descriptor is */

__attribute__((constructor)) static void begin(void)
{
	const char *folder = getenv("LACK");
	char path[4096];
	void *p;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", folder ? folder : "", program_invocation_short_name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct lack), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	reads = strcmp(program_invocation_short_name, "agent-vm-gate") != 0;
	if (p != MAP_FAILED)
		lack = p;
	if (fd >= 0)
		(void)close(fd);
}

/* One of the @n in @errors, as often as the test wants it. */
static bool lacks(enum call what, const int *errors, uint32_t n)
{
	uint32_t x;

	if (!lack || lack->per_mille == 0 || !(lack->which >> what & 1))
		return false;
	x = lack->state ? lack->state : lack->seed;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	lack->state = x;
	/* A stream sends and receives all the time, and does the rest once. */
	if (x / 1000 % 1000 >= lack->per_mille * (what == SEND || what == RECV ? 1 : 4))
		return false;
	lack->met[what]++;
	errno = errors[x % n];
	return true;
}

#define LACKS(what, ...) lacks(what, (const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

static bool no_read(int fd)
{
	int domain = AF_UNIX;
	socklen_t n = sizeof(domain);

	if (!reads || !lack || lack->per_mille == 0 || syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return false;
	return domain != AF_UNIX && LACKS(RECV, ENOBUFS, ENOMEM);
}

int socket(int domain, int type, int protocol)
{
	return LACKS(SOCKET, EMFILE, ENFILE, ENOBUFS, ENOMEM) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
	return LACKS(PAIR, EMFILE, ENFILE, ENOBUFS, ENOMEM) ? -1 : (int)syscall(SYS_socketpair, domain, type, protocol, fds);
}

int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
	return LACKS(ACCEPT, EMFILE, ENFILE, ENOBUFS, ENOMEM) ? -1 : (int)syscall(SYS_accept4, fd, a, n, flags);
}

int connect(int fd, const struct sockaddr *a, socklen_t n)
{
	return LACKS(CONNECT, ENOBUFS, ENOMEM, EADDRNOTAVAIL) ? -1 : (int)syscall(SYS_connect, fd, a, n);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
	return LACKS(SEND, ENOBUFS, ENOMEM) ? -1 : syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *a, socklen_t a_n)
{
	return LACKS(SEND, ENOBUFS, ENOMEM) ? -1 : syscall(SYS_sendto, fd, p, n, flags, a, a_n);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	return LACKS(SEND, ENOBUFS, ENOMEM, ETOOMANYREFS) ? -1 : syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t write(int fd, const void *p, size_t n)
{
	return fd > 4 && LACKS(SEND, ENOBUFS, ENOMEM) ? -1 : syscall(SYS_write, fd, p, n); /* not control and log */
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	return LACKS(SEND, ENOBUFS, ENOMEM) ? -1 : syscall(SYS_writev, fd, v, n);
}

ssize_t read(int fd, void *p, size_t n)
{
	return no_read(fd) ? -1 : syscall(SYS_read, fd, p, n);
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
	return no_read(fd) ? -1 : syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t recvfrom(int fd, void *restrict p, size_t n, int flags, struct sockaddr *restrict a, socklen_t *restrict a_n)
{
	return no_read(fd) ? -1 : syscall(SYS_recvfrom, fd, p, n, flags, a, a_n);
}

ssize_t readv(int fd, const struct iovec *v, int n)
{
	return no_read(fd) ? -1 : syscall(SYS_readv, fd, v, n);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	ssize_t k = syscall(SYS_recvmsg, fd, m, flags);
	struct cmsghdr *c = k > 0 ? CMSG_FIRSTHDR(m) : NULL;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && LACKS(GIVEN, EMFILE)) {
		(void)close(*(int *)(void *)CMSG_DATA(c));
		m->msg_controllen = 0;
		m->msg_flags |= MSG_CTRUNC;
	}
	return k;
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
	return op == EPOLL_CTL_ADD && LACKS(WATCH, ENOMEM, ENOSPC) ? -1 : (int)syscall(SYS_epoll_ctl, epfd, op, fd, e);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return LACKS(OPEN, EMFILE, ENFILE, ENOMEM) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));
