#include "cli/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define READ_ONCE (64 << 10)
#define READS_MOST 4 /* in one go, so that a flood leaves time for the terminal */

int capture_open(struct capture *c, int file_fd, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	*c = (struct capture){ .pipe_fd = fds[0], .file_fd = file_fd };
	*ret_write = fds[1];
	return 0;
}

static void take_line(struct capture *c, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' || p[i] == '\r') {
			if (c->line_n > 0)
				(void)snprintf(c->whole, sizeof(c->whole), "%.*s", (int)c->line_n, c->line);
			c->line_n = 0;
		} else if (c->line_n < sizeof(c->line) - 1 && p[i] != '\0') {
			c->line[c->line_n++] = (char)p[i];
		}
	}
}

/* A disk that is full, or a file that went away, is no reason to end a session. */
static void take(struct capture *c, const uint8_t *p, size_t n)
{
	size_t head = c->total < CAPTURE_HEAD ? MIN((size_t)(CAPTURE_HEAD - c->total), n) : 0;

	take_line(c, p, n);
	if (head > 0)
		(void)fd_write_all(c->file_fd, p, head);
	if (n > head && !c->ring)
		c->ring = xmalloc(CAPTURE_TAIL);
	for (size_t i = head; i < n;) {
		size_t at = (size_t)((c->total + i) % CAPTURE_TAIL), k = MIN(n - i, (size_t)CAPTURE_TAIL - at);

		memcpy(c->ring + at, p + i, k);
		i += k;
	}
	c->total += n;
}

int capture_read(struct capture *c)
{
	uint8_t bytes[READ_ONCE];

	for (int i = 0; c->pipe_fd >= 0 && i < READS_MOST; i++) {
		ssize_t n = read(c->pipe_fd, bytes, sizeof(bytes));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return 0;
		take(c, bytes, (size_t)n);
	}
	return c->pipe_fd >= 0;
}

static void put_tail(const struct capture *c)
{
	uint64_t beyond = c->total - CAPTURE_HEAD, kept = MIN(beyond, (uint64_t)CAPTURE_TAIL);
	char note[64];
	int n;

	n = snprintf(note, sizeof(note), "\n[%llu bytes are left out here]\n", (unsigned long long)(beyond - kept));
	if (beyond > kept)
		(void)fd_write_all(c->file_fd, note, (size_t)n);
	for (uint64_t at = c->total - kept; at < c->total;) {
		size_t from = (size_t)(at % CAPTURE_TAIL), k = (size_t)MIN(c->total - at, (uint64_t)(CAPTURE_TAIL - from));

		if (fd_write_all(c->file_fd, c->ring + from, k) < 0)
			break;
		at += k;
	}
}

void capture_close(struct capture *c)
{
	if (c->pipe_fd < 0)
		return;
	/* Its writers are dead by now, or are of no more interest: what the pipe holds is all that comes. */
	(void)capture_read(c);
	if (c->ring)
		put_tail(c);
	free(c->ring);
	c->ring = NULL;
	close_p(&c->pipe_fd);
	close_p(&c->file_fd);
	c->pipe_fd = c->file_fd = -1;
}

char *capture_last_line(const struct capture *c)
{
	if (c->line_n > 0)
		return str_escape(c->line, c->line_n);
	return str_escape(c->whole, strlen(c->whole));
}
