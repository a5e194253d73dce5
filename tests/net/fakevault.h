/* A vault for wire's tests and benchmarks: no policy, it connects where it is asked to. Runs agent-vm-wire with the
 * descriptors of proto/netmsg.h. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/netmsg.h"

static const struct net_config fake_config = {
	.head = { NET_VERSION, NET_CONFIG, sizeof(struct net_config), 0, 0 },
	.guest_mac = { 2, 0x61, 0x76, 0x10, 0x20, 0x30 },
	.gateway_mac = { 2, 0x61, 0x76, 0, 0, 1 },
	.guest4 = { 192, 0, 0, 2 },
	.gateway4 = { 192, 0, 0, 1 },
	.guest6 = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 2 },
	.gateway6 = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 1 },
	.mtu = 65520,
	.ipv6 = 1,
};

struct wire_proc {
	pid_t pid;
	int link, vault, gate, control; /* our ends */
};

/* @link: the other end of the link if it exists already, else -1; @log: descriptor for its log. */
static inline struct wire_proc wire_start(const char *path, int link, int log, bool with_gate)
{
	int l[2] = { -1, link }, v[2], c[2], g[2] = { -1, -1 };
	struct wire_proc w;

	if ((link < 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l) < 0) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, v) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c) < 0 ||
	    (with_gate && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, g) < 0)) {
		perror("socketpair");
		exit(1);
	}
	w = (struct wire_proc){ .link = l[0], .vault = v[0], .gate = g[0], .control = c[0] };
	w.pid = fork();
	if (w.pid == 0) {
		int from[5] = { c[1], log, l[1], v[1], g[1] };

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 5; i++)
			from[i] = from[i] < 0 ? -1 : fcntl(from[i], F_DUPFD, 20);
		for (int i = 0; i < 5; i++)
			if (from[i] >= 0)
				(void)dup2(from[i], NET_FD_CONTROL + i);
			else
				(void)close(NET_FD_CONTROL + i);
		(void)close_range(8, ~0u, 0);
		(void)execl(path, "agent-vm-wire", (char *)NULL);
		_exit(127);
	}
	(void)close(v[1]);
	(void)close(c[1]);
	(void)close(l[1]);
	if (g[1] >= 0)
		(void)close(g[1]);
	return w;
}

/* Waits for room: wire reads what it is told, in its time. */
static inline ssize_t fake_send(int vault, const void *m, size_t n, int fd)
{
	struct pollfd p = { vault, POLLOUT, 0 };
	ssize_t k;

	while ((k = fd_send(vault, m, n, &fd, fd >= 0)) == -EAGAIN)
		(void)poll(&p, 1, -1);
	return k;
}

static inline void fake_answer(int vault, const struct net_head *q, uint32_t outcome, int error, int fd)
{
	struct net_opened m = { .head = { NET_VERSION, (uint16_t)(q->type + 1), sizeof(m), q->slot, q->generation },
				.outcome = outcome, .error = (uint32_t)error };

	if (fake_send(vault, &m, sizeof(m), fd) < 0)
		perror("answer");
}

/* The address of an open as a socket address. */
static inline socklen_t fake_addr(const struct net_open *o, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (o->dst.family == NET_V4) {
		struct sockaddr_in *a = (struct sockaddr_in *)ss;

		a->sin_family = AF_INET;
		a->sin_port = htons(o->port);
		memcpy(&a->sin_addr, o->dst.b, 4);
		return sizeof(*a);
	}
	struct sockaddr_in6 *a = (struct sockaddr_in6 *)ss;

	a->sin6_family = AF_INET6;
	a->sin6_port = htons(o->port);
	memcpy(&a->sin6_addr, o->dst.b, 16);
	return sizeof(*a);
}
