#include "cli/port_holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/nettab.h"
#include "base/str.h"

#define ROWS_MAX 65536
#define COMM_MAX 64

struct search {
	int family;
	const uint8_t *addr;
	uint16_t port;
	bool udp;
	uint64_t inode;
};

/* Does a socket stand in the way of ours? One that is bound to no address does for all. */
static int on_row(const struct nettab *t, void *arg)
{
	static const uint8_t zero[16];
	struct search *s = arg;
	size_t n = t->family == AF_INET ? 4 : 16;

	if (!s->udp && t->state != NETTAB_LISTEN)
		return 1;
	if (t->port != s->port || (memcmp(t->addr, zero, n) != 0 && memcmp(s->addr, zero, s->family == AF_INET ? 4 : 16) != 0 &&
				   (t->family != s->family || memcmp(t->addr, s->addr, n) != 0)))
		return 0;
	s->inode = t->inode;
	return 1;
}

static bool has_socket(int proc, const char *pid, const char *want)
{
	char path[300], link[64];
	struct dirent *e;
	bool found = false;
	ssize_t k;
	DIR *d;
	int fd;

	(void)snprintf(path, sizeof(path), "%.200s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		close_p(&fd);
		return false;
	}
	while (!found && (e = readdir(d))) {
		k = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		if (k < 0)
			continue;
		link[k] = '\0';
		found = strcmp(link, want) == 0;
	}
	(void)closedir(d);
	return found;
}

static char *named(int proc, const char *pid)
{
	AUTO_FREE(char, comm);
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	char path[300];
	size_t n;

	(void)snprintf(path, sizeof(path), "%.200s/comm", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, COMM_MAX, &comm, &n) < 0)
		return NULL;
	shown = str_escape(comm, strcspn(comm, "\n"));
	return xasprintf("%s (pid %s)", shown, pid);
}

static char *owner(uint64_t inode)
{
	char want[64], *found = NULL;
	struct dirent *e;
	DIR *d = opendir("/proc");

	if (!d)
		return NULL;
	(void)snprintf(want, sizeof(want), "socket:[%llu]", (unsigned long long)inode);
	while (!found && (e = readdir(d)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && has_socket(dirfd(d), e->d_name, want))
			found = named(dirfd(d), e->d_name);
	(void)closedir(d);
	return found;
}

char *port_holder(int family, const void *addr, uint16_t port, bool udp)
{
	static const struct {
		const char *tcp, *udp;
		int family;
	} tables[] = { { "/proc/net/tcp", "/proc/net/udp", AF_INET }, { "/proc/net/tcp6", "/proc/net/udp6", AF_INET6 } };
	struct search s = { .family = family, .addr = addr, .port = port, .udp = udp };

	for (size_t i = 0; i < ARRAY_SIZE(tables) && s.inode == 0; i++) {
		AUTO_FD(fd);

		fd = open(udp ? tables[i].udp : tables[i].tcp, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			(void)nettab_read(fd, tables[i].family, ROWS_MAX, on_row, &s);
	}
	return s.inode != 0 ? owner(s.inode) : NULL;
}
