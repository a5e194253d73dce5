/* fakevault WIRE SOCKET [publish PORT]: serves agent-vm-wire, whose link is what connects to the unix socket SOCKET, with real
 * connections made in this network namespace. DNS questions are answered NXDOMAIN. With "publish" it listens on that port
 * and passes connections in. Prints "pid N" of wire, and what ended. */
#include "fakevault.h"

#include <sys/epoll.h>

#define PENDING 1024

static struct {
	int fd;
	struct net_head q;
} pending[PENDING];

static int ep;

static void open_tcp(int vault, const struct net_open *o)
{
	struct sockaddr_storage ss;
	socklen_t n = fake_addr(o, &ss);
	int one = 1, i;
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&ss, n) == 0) {
		fake_answer(vault, &o->head, NET_CONNECTED, 0, fd);
		(void)close(fd);
		return;
	}
	for (i = 0; i < PENDING && pending[i].fd >= 0; i++)
		;
	if (errno != EINPROGRESS || i == PENDING) {
		fake_answer(vault, &o->head, NET_FAILED, errno, -1);
		(void)close(fd);
		return;
	}
	pending[i].fd = fd;
	pending[i].q = o->head;
	struct epoll_event e = { .events = EPOLLOUT, .data.u32 = 16 + (uint32_t)i };
	(void)epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static void connected(int vault, int i)
{
	int fd = pending[i].fd, error = 0;
	socklen_t n = sizeof(error);

	(void)epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL);
	(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
	fake_answer(vault, &pending[i].q, error ? NET_FAILED : NET_CONNECTED, error, error ? -1 : fd);
	(void)close(fd);
	pending[i].fd = -1;
}

static void open_udp(int vault, const struct net_open *o)
{
	struct sockaddr_storage ss;
	socklen_t n = fake_addr(o, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), want = IP_PMTUDISC_WANT;

	(void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &want, sizeof(want));
	if (connect(fd, (struct sockaddr *)&ss, n) < 0)
		fake_answer(vault, &o->head, NET_FAILED, errno, -1);
	else
		fake_answer(vault, &o->head, NET_CONNECTED, 0, fd);
	(void)close(fd);
}

static void dns(int vault, const struct net_dns_ask *a)
{
	struct {
		struct net_dns_answer m;
		uint8_t b[300];
	} __attribute__((packed)) m = { .m = { .head = { NET_VERSION, NET_DNS_ANSWER, 0, a->head.slot, a->head.generation } } };
	uint32_t n = 12u + a->name_len + 4u;

	m.b[2] = 0x81;
	m.b[3] = 0x83;
	m.b[5] = 1;
	memcpy(m.b + 12, a->name, a->name_len);
	m.b[12 + a->name_len + 1] = (uint8_t)a->qtype;
	m.b[12 + a->name_len + 3] = 1;
	m.m.bytes = n;
	m.m.head.length = (uint32_t)sizeof(m.m) + n;
	(void)fake_send(vault, &m, m.m.head.length, -1);
}

static bool message(int vault)
{
	union {
		struct net_head head;
		struct net_open open;
		struct net_dns_ask ask;
		uint8_t b[70000];
	} m;
	int fd;
	ssize_t n = fd_recv(vault, &m, sizeof(m), &fd, 1);

	if (n == -EAGAIN)
		return true;
	if (n <= 0)
		return false;
	switch (m.head.type) {
	case NET_OPEN_TCP:
		open_tcp(vault, &m.open);
		break;
	case NET_OPEN_UDP:
		open_udp(vault, &m.open);
		break;
	case NET_OPEN_ECHO:
		fake_answer(vault, &m.head, NET_REFUSED, 0, -1);
		break;
	case NET_DNS_ASK:
		dns(vault, &m.ask);
		break;
	default:
		break;
	}
	return true;
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0) {
		perror("publish");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	uint32_t inbound = 0;
	uint16_t port = 0;
	int s, link, pub = -1, status = 0;
	struct wire_proc w;

	if (argc != 3 && argc != 5)
		return 2;
	(void)signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < PENDING; i++)
		pending[i].fd = -1;
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", argv[2]);
	(void)unlink(argv[2]);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(s, 1) < 0) {
		perror(argv[2]);
		return 1;
	}
	link = accept4(s, NULL, NULL, SOCK_CLOEXEC);
	w = wire_start(argv[1], link, STDERR_FILENO, false);
	(void)printf("pid %d\n", (int)w.pid);
	(void)fflush(stdout);
	(void)!write(w.vault, &fake_config, sizeof(fake_config));
	(void)fd_nonblock(w.vault, true);
	ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = 0 };
	(void)epoll_ctl(ep, EPOLL_CTL_ADD, w.vault, &e);
	if (argc == 5) {
		port = (uint16_t)strtoul(argv[4], NULL, 10);
		pub = listen_on(port);
		e.data.u32 = 1;
		(void)epoll_ctl(ep, EPOLL_CTL_ADD, pub, &e);
	}
	for (bool on = true; on;) {
		struct epoll_event got[64];
		int n = epoll_wait(ep, got, 64, -1);

		for (int i = 0; i < n; i++) {
			if (got[i].data.u32 >= 16) {
				connected(w.vault, (int)got[i].data.u32 - 16);
			} else if (got[i].data.u32 == 1) {
				int fd = accept4(pub, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
				struct net_inbound m = { .head = { NET_VERSION, NET_INBOUND, sizeof(m), inbound++, 1 },
							 .port = port, .family = NET_V4 };

				if (fd >= 0 && fake_send(w.vault, &m, sizeof(m), fd) < 0)
					perror("inbound");
				if (fd >= 0)
					(void)close(fd);
			} else if (!message(w.vault)) {
				on = false;
			}
		}
	}
	(void)waitpid(w.pid, &status, 0);
	(void)printf("wire ended: %s %d\n", WIFSIGNALED(status) ? "signal" : "exit",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
