/* agent-vm-ports, the guest's process that watches listeners, in a network namespace whose loopback has the guest's
 * address. */
#include "own-net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/network.h"
#include "guest/ports.h"

#define SOON_MS 20000 /* a loaded machine; what is meant is 250 */

static const uint8_t addr4[4] = { 192, 0, 0, 2 }, addr6[16] = { 0xfd, 0x6b, [15] = 2 };

/* For all tests of this program. */
static void own_network(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	own_namespace();
	network_loopback();
	CHECK_INT(system("ip addr add 192.0.0.2/32 dev lo && ip addr add fd6b::2/128 dev lo nodad"), ==, 0);
}

static pid_t started;

static int start(const struct config_ports *c)
{
	int fd;

	own_network();
	started = ports_start(c, addr4, addr6, &fd);
	CHECK_INT(started, >, 0);
	return fd;
}

static void end(int fd)
{
	int status;

	(void)close(fd); /* as when PID 1 ends */
	CHECK(waitpid(started, &status, 0) == started && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int listener(int family, const char *addr, uint16_t port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) == 0);
	CHECK_INT(inet_pton(family, addr, family == AF_INET ? (void *)&v4.sin_addr : &v6.sin6_addr), ==, 1);
	if (bind(fd, family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6,
		 family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0 || listen(fd, 512) < 0)
		fail_msg("listen on %s port %u: %s", addr, port, strerror(errno));
	return fd;
}

/* To the guest's address, as agent-vm-wire would. -1 when nobody is there. */
static int call(uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(&sa.sin_addr, addr4, 4);
	CHECK(fd >= 0);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static int call_soon(uint16_t port)
{
	for (int i = 0; i < SOON_MS / 10; i++) {
		int fd = call(port);

		if (fd >= 0)
			return fd;
		(void)usleep(10000);
	}
	fail_msg("port %u is not reached", port);
	return -1;
}

static void note_is(int fd, uint16_t port, bool open)
{
	struct pollfd p = { fd, POLLIN, 0 };
	struct ports_note n;

	if (poll(&p, 1, SOON_MS) != 1)
		fail_msg("nothing is said of port %u", port);
	CHECK_INT(recv(fd, &n, sizeof(n), 0), ==, sizeof(n));
	if (n.port != port || n.open != open)
		fail_msg("port %u is %s, not port %u %s", n.port, n.open ? "open" : "closed", port, open ? "open" : "closed");
}

static int serve_one(int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static struct nettab at(int family, const char *addr)
{
	struct nettab t = { .family = family };

	CHECK_INT(inet_pton(family, addr, t.addr), ==, 1);
	return t;
}

TEST(addresses_say_how_a_listener_is_reached)
{
	static const struct {
		int family;
		const char *addr;
		enum port_reach reach;
	} rows[] = {
		{ AF_INET, "0.0.0.0", PORT_DIRECT },	      { AF_INET, "192.0.0.2", PORT_DIRECT },
		{ AF_INET, "127.0.0.1", PORT_LOOPBACK },      { AF_INET, "127.1.2.3", PORT_LOOPBACK },
		{ AF_INET, "192.0.0.1", PORT_NOT },	      { AF_INET, "172.17.0.1", PORT_NOT },
		{ AF_INET6, "::", PORT_DIRECT },	      { AF_INET6, "fd6b::2", PORT_DIRECT },
		{ AF_INET6, "::1", PORT_LOOPBACK },	      { AF_INET6, "::ffff:127.0.0.1", PORT_LOOPBACK },
		{ AF_INET6, "::ffff:0.0.0.0", PORT_DIRECT },  { AF_INET6, "::ffff:192.0.0.2", PORT_DIRECT },
		{ AF_INET6, "::ffff:10.0.0.1", PORT_NOT },    { AF_INET6, "fe80::1", PORT_NOT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct nettab t = at(rows[i].family, rows[i].addr);

		if (port_reach(&t, addr4, addr6) != rows[i].reach)
			fail_msg("%s is %d", rows[i].addr, port_reach(&t, addr4, addr6));
	}
}

TEST(listeners_are_told_of_when_they_come_and_go)
{
	static const struct config_ports c = { .wanted = true, .automatic = true };
	int fd = start(&c), a, b, low;

	a = listener(AF_INET, "0.0.0.0", 5000);
	note_is(fd, 5000, true);
	low = listener(AF_INET, "0.0.0.0", 1023);
	b = listener(AF_INET6, "::1", 5001);
	note_is(fd, 5001, true);
	(void)close(a);
	note_is(fd, 5000, false);
	(void)close(low);
	(void)close(b);
	note_is(fd, 5001, false);
	CHECK_INT(call(5001), ==, -1);
	end(fd);
}

TEST(without_auto_publish_the_ports_that_are_named_are_reached_and_nothing_is_told)
{
	static const struct config_ports c = { .wanted = true, .v = { 80, 3000 }, .n = 2 };
	int fd = start(&c), a = listener(AF_INET, "127.0.0.1", 80), b = listener(AF_INET, "127.0.0.1", 3001), to, from;
	struct ports_note n;
	char byte;

	to = call_soon(80);
	from = serve_one(a);
	CHECK(write(to, "x", 1) == 1 && read(from, &byte, 1) == 1 && byte == 'x');
	CHECK_INT(call(3001), ==, -1);
	/* The service's end is the forwarder's, and not that of what is connected. */
	(void)close(a);
	for (int i = 0, k = 0; k >= 0 && i < SOON_MS / 10; i++) {
		k = call(80);
		if (k >= 0)
			(void)close(k);
		(void)usleep(10000);
	}
	CHECK_INT(call(80), ==, -1);
	CHECK(write(from, "y", 1) == 1 && read(to, &byte, 1) == 1 && byte == 'y');
	CHECK(recv(fd, &n, sizeof(n), 0) < 0 && errno == EAGAIN);
	(void)close(to), (void)close(from), (void)close(b);
	end(fd);
}

/* The port is held by the guest's address alone: all other addresses are the service's to take. */
TEST(a_forwarder_is_in_nobodys_way)
{
	static const struct config_ports c = { .wanted = true, .automatic = true };
	int fd = start(&c), a = listener(AF_INET, "127.0.0.1", 5000), b, d;

	note_is(fd, 5000, true);
	b = listener(AF_INET6, "::1", 5000);
	d = listener(AF_INET, "127.0.0.2", 5000);
	(void)close(a);
	(void)usleep(500000);
	a = call_soon(5000); /* by way of one of those that are left */
	(void)close(a), (void)close(b), (void)close(d);
	note_is(fd, 5000, false);
	b = listener(AF_INET, "0.0.0.0", 5000);
	note_is(fd, 5000, true);
	(void)close(b);
	end(fd);
}

static void send_pattern(int to, size_t n)
{
	static uint8_t bytes[100000];

	for (size_t done = 0; done < n;) {
		size_t k = MIN(sizeof(bytes), n - done);

		for (size_t i = 0; i < k; i++)
			bytes[i] = (uint8_t)((done + i) * 2654435761u >> 24);
		CHECK_INT(fd_write_all(to, bytes, k), ==, 0);
		done += k;
	}
}

static void expect_pattern(int from, size_t n, bool slow)
{
	static uint8_t bytes[65536];
	size_t done = 0;
	ssize_t k;

	while ((k = read(from, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < k; i++)
			if (bytes[i] != (uint8_t)((done + (size_t)i) * 2654435761u >> 24))
				fail_msg("byte %zu is another", done + (size_t)i);
		done += (size_t)k;
		if (slow)
			(void)usleep(500);
	}
	CHECK_INT(k, ==, 0);
	CHECK_INT(done, ==, n);
}

/* Both ways, one after the other, half-closes in between; the reader of the second way is slow. */
TEST(every_byte_arrives_and_half_closes_pass)
{
	static const struct config_ports c = { .wanted = true, .v = { 3000 }, .n = 1 };
	const size_t n = 20 << 20;
	int fd = start(&c), a = listener(AF_INET6, "::1", 3000), to = call_soon(3000), from, status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		(void)close(to);
		from = serve_one(a);
		expect_pattern(from, n, false);
		send_pattern(from, n);
		_exit(0);
	}
	send_pattern(to, n);
	CHECK_INT(shutdown(to, SHUT_WR), ==, 0);
	expect_pattern(to, n, true);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	(void)close(to), (void)close(a);
	end(fd);
}

TEST(a_reset_and_a_service_that_is_gone_are_a_reset)
{
	static const struct config_ports c = { .wanted = true, .v = { 3000 }, .n = 1 };
	int fd = start(&c), a = listener(AF_INET, "127.0.0.1", 3000), to = call_soon(3000), from = serve_one(a);
	char byte;

	CHECK_INT(setsockopt(from, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger)), ==, 0);
	(void)close(from);
	CHECK(read(to, &byte, 1) < 0 && errno == ECONNRESET);
	(void)close(to);
	to = call(3000);
	from = serve_one(a);
	CHECK(to >= 0);
	CHECK_INT(setsockopt(to, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger)), ==, 0);
	(void)close(to);
	CHECK(read(from, &byte, 1) < 0 && errno == ECONNRESET);
	(void)close(from);
	/* Between the service's end and the next look the forwarder answers, and then has nobody. */
	(void)close(a);
	to = call(3000);
	if (to >= 0) {
		CHECK(read(to, &byte, 1) < 0 && errno == ECONNRESET);
		(void)close(to);
	}
	end(fd);
}

TEST(more_connections_than_it_holds_wait_and_lose_nothing)
{
	static const struct config_ports c = { .wanted = true, .v = { 3000 }, .n = 1 };
	int fd = start(&c), a = listener(AF_INET, "127.0.0.1", 3000), to[300], from;
	char byte;

	to[0] = call_soon(3000);
	for (size_t i = 1; i < ARRAY_SIZE(to); i++)
		CHECK((to[i] = call(3000)) >= 0);
	for (size_t i = 0; i < ARRAY_SIZE(to); i++)
		CHECK_INT(write(to[i], "x", 1), ==, 1);
	for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
		from = serve_one(a);
		CHECK(read(from, &byte, 1) == 1 && write(from, "y", 1) == 1);
		(void)close(from);
		CHECK(read(to[i], &byte, 1) == 1 && byte == 'y');
		(void)close(to[i]); /* makes room for one that waits */
	}
	(void)close(a);
	end(fd);
}

/* It follows PORTS_MAX of them, and forgets each when it has gone. */
TEST(a_thousand_listeners_are_bounded)
{
	static const struct config_ports c = { .wanted = true, .automatic = true };
	struct rlimit files = { 4096, 4096 };
	struct ports_note n;
	int fd, l[1000];
	bool open[65536] = { false };
	size_t n_open = 0;

	(void)setrlimit(RLIMIT_NOFILE, &files);
	fd = start(&c);
	for (size_t i = 0; i < ARRAY_SIZE(l); i++)
		l[i] = listener(AF_INET, "0.0.0.0", (uint16_t)(20000 + i));
	for (struct pollfd p = { fd, POLLIN, 0 }; n_open < PORTS_MAX;) {
		CHECK_INT(poll(&p, 1, SOON_MS), ==, 1);
		CHECK_INT(recv(fd, &n, sizeof(n), 0), ==, sizeof(n));
		CHECK(n.open && !open[n.port]);
		open[n.port] = true;
		n_open++;
	}
	(void)usleep(600000);
	CHECK(recv(fd, &n, sizeof(n), 0) < 0 && errno == EAGAIN);
	for (size_t i = 0; i < ARRAY_SIZE(l); i++)
		(void)close(l[i]);
	while (n_open > 0) {
		struct pollfd p = { fd, POLLIN, 0 };

		CHECK_INT(poll(&p, 1, SOON_MS), ==, 1);
		CHECK_INT(recv(fd, &n, sizeof(n), 0), ==, sizeof(n));
		n_open = !n.open ? n_open - open[n.port] : n_open + !open[n.port];
		open[n.port] = n.open;
	}
	end(fd);
}
