#include "cli/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/macros.h"

void sink_open(struct sink *s, int fd, size_t max)
{
	char path[32];
	struct stat st;
	int again, flags = fcntl(fd, F_GETFL);

	*s = (struct sink){ .fd = fd };
	buf_init(&s->q, max);
	/* Not open for writing: what stands in for a descriptor that was closed (main.c). */
	if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || fstat(fd, &st) < 0) {
		s->gone = true;
		s->error = EPIPE;
		return;
	}
	if (S_ISSOCK(st.st_mode)) {
		s->socket = true;
	} else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (again >= 0) {
			s->fd = again;
			s->own = true;
		}
	} else {
		s->always = true;
	}
}

void sink_close(struct sink *s)
{
	if (s->own)
		(void)close(s->fd);
	buf_done(&s->q);
	*s = (struct sink){ .fd = -1 };
}

/* Bytes that may be written at once without blocking when the descriptor could not be opened again (a terminal of
 * another user, say): after POLLOUT a pipe takes PIPE_BUF bytes, and a terminal blocks only briefly. */
#define CAREFUL 4096

static ssize_t sink_write(struct sink *s, const void *p, size_t n)
{
	struct pollfd pfd = { .fd = s->fd, .events = POLLOUT };

	if (s->socket)
		return send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (s->own || s->always)
		return write(s->fd, p, n);
	if (poll(&pfd, 1, 0) <= 0) {
		errno = EAGAIN;
		return -1;
	}
	return write(s->fd, p, MIN(n, (size_t)CAREFUL));
}

size_t sink_flush(struct sink *s)
{
	size_t done = 0;

	/* The reader of a pipe closed it while nothing was queued. */
	if (s->hup && !s->gone) {
		s->gone = true;
		s->error = EPIPE;
	}
	while (s->q.n > 0 && !s->gone) {
		struct span q = buf_span(&s->q);
		ssize_t k = sink_write(s, q.p, q.n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (k < 0) {
			s->gone = true;
			s->error = errno;
			break;
		}
		buf_consume(&s->q, (size_t)k);
		done += (size_t)k;
	}
	if (s->gone && s->q.n > 0) {
		done += s->q.n;
		buf_consume(&s->q, s->q.n);
	}
	return done;
}
