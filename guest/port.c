/* A virtio-serial port, or a socket in the tests.
 *
 * While nobody has the host's end open, Linux lets read(2) on a port return 0 and poll(2) report a hang-up at once, the
 * same as after the host has closed it (drivers/char/virtio_console.c). So the end of file counts only once a frame has
 * come; before that the loop looks again after some milliseconds. */
#include "guest/port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/ctl.h"

#define READ_MAX (64 << 10) /* bytes in one turn of the loop; so frames of one turn are bounded too */
#define CLASS "/sys/class/virtio-ports"

int port_init(struct port *p, int fd)
{
	struct stat st;

	*p = (struct port){ .fd = fd };
	buf_init(&p->in, CTL_HEAD + CTL_RECS_MAX);
	buf_init(&p->out, PORT_OUT_MAX);
	if (fstat(fd, &st) < 0)
		return -errno;
	p->live = !S_ISCHR(st.st_mode);
	return fd_nonblock(fd, true);
}

void port_done(struct port *p)
{
	close_p(&p->fd);
	p->fd = -1;
	buf_done(&p->in);
	buf_done(&p->out);
}

static int read_attr(const char *port, const char *attr, char *ret, size_t size)
{
	char path[300];
	AUTO_FD(fd);
	ssize_t k;

	(void)snprintf(path, sizeof(path), CLASS "/%.200s/%s", port, attr);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	k = read(fd, ret, size - 1);
	if (k < 0)
		return -errno;
	while (k > 0 && ret[k - 1] == '\n')
		k--;
	ret[k] = '\0';
	return 0;
}

/* The node of a port; made when there is no devtmpfs that did. */
static int port_open_node(const char *port, struct err *err)
{
	char path[300], dev[32];
	unsigned int major_n, minor_n;
	int fd;

	(void)snprintf(path, sizeof(path), "/dev/%.200s", port);
	fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && read_attr(port, "dev", dev, sizeof(dev)) == 0 &&
	    sscanf(dev, "%u:%u", &major_n, &minor_n) == 2 &&
	    mknod(path, S_IFCHR | 0600, makedev(major_n, minor_n)) == 0)
		fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? err_set(err, -errno, "%s: cannot be opened: %s", path, strerror(errno)) : fd;
}

static int port_scan(const char *name, char *ret, size_t size)
{
	DIR *d = opendir(CLASS);
	char got[64];
	struct dirent *e;
	int r = -ENODEV;

	if (!d)
		return -ENODEV;
	while (r < 0 && (e = readdir(d))) {
		if (e->d_name[0] == '.' || strlen(e->d_name) >= size ||
		    read_attr(e->d_name, "name", got, sizeof(got)) < 0 || strcmp(got, name) != 0)
			continue;
		memcpy(ret, e->d_name, strlen(e->d_name) + 1);
		r = 0;
	}
	(void)closedir(d);
	return r;
}

int port_find(const char *name, int64_t until_ns, struct err *err)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	char port[64];

	while (port_scan(name, port, sizeof(port)) < 0) {
		if (now_ns() >= until_ns)
			return err_set(err, -ENODEV, "control port %s: not found in " CLASS, name);
		(void)nanosleep(&pause, NULL);
		pause.tv_nsec = MIN(pause.tv_nsec * 2, 50000000L);
	}
	return port_open_node(port, err);
}

static int port_gone(struct port *p)
{
	p->lost = true;
	return -EPIPE;
}

int port_read(struct port *p)
{
	size_t n = MIN((size_t)READ_MAX, p->in.max - p->in.n);
	uint8_t *to;
	ssize_t k;

	if (p->lost)
		return -EPIPE;
	to = n > 0 ? buf_room(&p->in, n) : NULL;
	if (!to)
		return port_gone(p);
	k = read(p->fd, to, n);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (k < 0 || (k == 0 && p->live))
		return port_gone(p);
	buf_grew(&p->in, (size_t)k);
	return (int)k;
}

int port_flush(struct port *p)
{
	if (p->lost)
		return -EPIPE;
	while (p->out.n > 0) {
		struct span s = buf_span(&p->out);
		ssize_t k = write(p->fd, s.p, s.n);

		if (k == 0 || (k < 0 && (errno == EAGAIN || errno == EINTR)))
			return 0;
		if (k < 0)
			return port_gone(p);
		buf_consume(&p->out, (size_t)k);
	}
	return 0;
}

int port_drain(struct port *p, int64_t until_ns)
{
	while (port_flush(p) == 0 && p->out.n > 0) {
		struct pollfd w = { .fd = p->fd, .events = POLLOUT };
		int64_t left = until_ns - now_ns();

		if (left <= 0)
			return -ETIMEDOUT;
		/* A port nobody has open reports a hang-up for ever: sleep in small steps. */
		if (poll(&w, 1, (int)MIN(left / 1000000 + 1, (int64_t)1000)) > 0 && (w.revents & POLLHUP))
			(void)poll(NULL, 0, 5);
	}
	return p->lost ? -EPIPE : 0;
}
