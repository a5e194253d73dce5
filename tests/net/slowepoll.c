/* Before a program by LD_PRELOAD: whenever epoll is told to watch no more, the others have 50 ms. They are burnt, since the
 * program may not be allowed to sleep. */
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BURN_NS 50000000

static long long now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
	long long end = now() + BURN_NS;

	while (op == EPOLL_CTL_DEL && now() < end)
		;
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, e);
}
