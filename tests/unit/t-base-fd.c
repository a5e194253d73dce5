#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

/* The lowest descriptor that is free. */
static int next_free(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_INT(close(fd), ==, 0);
	return fd;
}

TEST(a_descriptor_that_finds_no_room_is_lost_and_its_message_is_not)
{
	int pair[2], fds[2];
	struct rlimit was, few;
	char text[8];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), ==, 0);
	CHECK_INT(fd_send(pair[0], "first", 5, &pair[0], 1), ==, 5);
	CHECK_INT(fd_send(pair[0], "none", 4, NULL, 0), ==, 4);
	CHECK_INT(fd_send(pair[0], "whole", 5, &pair[0], 1), ==, 5);
	CHECK_INT(getrlimit(RLIMIT_NOFILE, &was), ==, 0);
	few = was;
	few.rlim_cur = (rlim_t)next_free();
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), ==, 0);
	CHECK_INT(fd_recv(pair[1], text, sizeof(text), fds, 2), ==, 5);
	CHECK(memcmp(text, "first", 5) == 0);
	CHECK_INT(fds[0], ==, FD_LOST);
	CHECK_INT(fds[1], ==, -1);
	CHECK_INT(fd_recv(pair[1], text, sizeof(text), fds, 1), ==, 4);
	CHECK_INT(fds[0], ==, -1);
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &was), ==, 0);
	CHECK_INT(fd_recv(pair[1], text, sizeof(text), fds, 1), ==, 5);
	CHECK(fds[0] >= 0);
	CHECK_INT(close(fds[0]), ==, 0);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

TEST(more_descriptors_than_asked_for_are_no_message)
{
	int pair[2], two[2], fd, before;
	char text[8];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), ==, 0);
	before = next_free();
	two[0] = two[1] = pair[0];
	CHECK_INT(fd_send(pair[0], "two", 3, two, 2), ==, 3);
	CHECK_INT(fd_recv(pair[1], text, sizeof(text), &fd, 1), ==, -EBADMSG);
	CHECK_INT(fd, ==, -1);
	CHECK_INT(next_free(), ==, before);
	(void)close(pair[0]);
	(void)close(pair[1]);
}
