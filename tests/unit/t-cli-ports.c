/* --publish and --auto-publish on this host: real sockets, and a socket pair in the vault's place. */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/autopub.h"
#include "cli/port_holder.h"
#include "cli/ports.h"

#define S INT64_C(1000000000)

static const uint8_t lo4[4] = { 127, 0, 0, 1 };

static char *text_of(const char *s, bool *ret_open)
{
	struct publish p;
	struct err err;

	CHECK_INT(publish_parse(s, &p, &err), ==, 0);
	*ret_open = ports_is_open(&p);
	return ports_text(&p, true);
}

static void text_is(const char *s, const char *want, bool open)
{
	AUTO_FREE(char, text);
	bool is_open;

	text = text_of(s, &is_open);
	CHECK_STR(text, want);
	CHECK(is_open == open);
}

TEST(a_publish_reads_as_in_the_table)
{
	text_is("3000:80", "127.0.0.1:3000 -> 80/tcp", false);
	text_is("0.0.0.0:8053:53/udp", "0.0.0.0:8053 -> 53/udp", true);
	text_is("127.0.0.2:1:2", "127.0.0.2:1 -> 2/tcp", false);
	text_is("[::1]:8080:80", "[::1]:8080 -> 80/tcp", false);
	text_is("[::]:8080:80", "[::]:8080 -> 80/tcp", true);
	text_is("192.168.1.10:8080:80", "192.168.1.10:8080 -> 80/tcp", true);
}

/* On a port that the kernel gives nobody who asks for any: others may run meanwhile that do. */
static int own_socket(int family, const uint8_t *addr)
{
	for (unsigned i = 0; i < 6000; i++) {
		int fd = port_socket(family, addr, (uint16_t)(20000 + (getpid() + i) % 6000), false);

		if (fd >= 0)
			return fd;
	}
	fail_msg("no port is free");
	return -1;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in sa;
	socklen_t n = sizeof(sa);

	CHECK_INT(getsockname(fd, (struct sockaddr *)&sa, &n), ==, 0);
	return ntohs(sa.sin_port);
}

TEST(a_port_that_is_in_use_cannot_be_opened_and_its_holder_is_named)
{
	int fd = port_socket(AF_INET, lo4, 0, false), udp = port_socket(AF_INET, lo4, 0, true);
	AUTO_FREE(char, want);
	AUTO_FREE(char, tcp);
	AUTO_FREE(char, all);
	AUTO_FREE(char, datagrams);
	AUTO_FREE(char, none);
	uint16_t port;

	CHECK(fd >= 0 && udp >= 0);
	port = port_of(fd);
	CHECK_INT(port_socket(AF_INET, lo4, port, false), ==, -EADDRINUSE);
	CHECK_INT(port_socket(AF_INET, (uint8_t[4]){ 0 }, port, false), ==, -EADDRINUSE);
	CHECK_INT(port_socket(AF_INET, (uint8_t[4]){ 192, 0, 2, 1 }, port, false), ==, -EADDRNOTAVAIL);
	CHECK_INT(port_socket(AF_INET, lo4, port_of(udp), true), ==, -EADDRINUSE);
	want = xasprintf("t-cli-ports (pid %d)", getpid());
	tcp = port_holder(AF_INET, lo4, port, false);
	CHECK_STR(tcp, want);
	all = port_holder(AF_INET, (uint8_t[4]){ 0 }, port, false);
	CHECK_STR(all, want);
	datagrams = port_holder(AF_INET, lo4, port_of(udp), true);
	CHECK_STR(datagrams, want);
	none = port_holder(AF_INET, (uint8_t[4]){ 127, 0, 0, 9 }, port, false);
	CHECK(!none);
	(void)close(fd);
	(void)close(udp);
}

TEST(an_ipv6_publish_is_for_ipv6_alone)
{
	int four = own_socket(AF_INET, (uint8_t[4]){ 0 }), six;

	CHECK(four >= 0);
	if (port_has_loopback6()) {
		six = port_socket(AF_INET6, (uint8_t[16]){ 0 }, port_of(four), false);
		CHECK_INT(six, >=, 0);
		(void)close(six);
	}
	(void)close(four);
}

/* --- which port --- */

struct world {
	uint16_t taken_from, taken_to; /* not to be had */
	unsigned tries;
	uint16_t got;
	bool full;
};

static int try(uint16_t port, void *arg)
{
	struct world *w = arg;

	w->tries++;
	if (w->full || (port != 0 && port >= w->taken_from && port <= w->taken_to))
		return -EADDRINUSE;
	w->got = port;
	return 0;
}

static void chooses(uint16_t port, struct world w, uint16_t want, enum autopub_why why)
{
	enum autopub_why got = 99;

	CHECK_INT(autopub_choose(port, try, &w, &got), ==, 0);
	CHECK_INT(w.got, ==, want);
	CHECK_INT(got, ==, why);
}

TEST(the_same_port_or_the_next_one_that_is_free)
{
	struct world full = { .full = true };
	enum autopub_why why = 99;

	chooses(5173, (struct world){ 1, 0 }, 5173, AUTOPUB_SAME);
	chooses(3000, (struct world){ 3000, 3000 }, 3001, AUTOPUB_IN_USE);
	chooses(3000, (struct world){ 3000, 3099 }, 3100, AUTOPUB_IN_USE);
	chooses(3000, (struct world){ 3000, 3100 }, 0, AUTOPUB_IN_USE); /* any */
	chooses(65535, (struct world){ 65535, 65535 }, 0, AUTOPUB_IN_USE);
	CHECK_INT(autopub_choose(3000, try, &full, &why), ==, -EADDRINUSE);
	CHECK_INT(full.tries, ==, 102);
	CHECK_INT(why, ==, 99);
}

TEST(what_people_expect_of_this_host_is_never_taken)
{
	static const uint16_t kept[] = { 3306, 5432, 5672, 6379, 6443, 8200, 9200, 11211, 27017 };

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		chooses(kept[i], (struct world){ 1, 0 }, kept[i] + 1, AUTOPUB_KEPT);
	chooses(2375, (struct world){ 1, 0 }, 2377, AUTOPUB_KEPT); /* 2376 is another of them */
	chooses(2376, (struct world){ 1, 0 }, 2377, AUTOPUB_KEPT);
	chooses(5431, (struct world){ 5431, 5431 }, 5433, AUTOPUB_IN_USE);
}

/* --- the whole --- */

static struct autopub *begin(int vault[2], const struct ports *taken)
{
	static const struct ports none;

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, vault), ==, 0);
	return autopub_new(vault[0], taken ? taken : &none);
}

/* What the vault is handed. */
static void handed(int vault, uint16_t port, const char *listen_at, int *ret_fd)
{
	struct vault_listen l;

	CHECK_INT(fd_recv(vault, &l, sizeof(l), ret_fd, 1), ==, sizeof(l));
	CHECK(*ret_fd >= 0 && l.port == port);
	CHECK_STR(l.listen, listen_at);
}

static uint16_t free_port(void)
{
	int fd = own_socket(AF_INET, lo4);
	uint16_t port = port_of(fd);

	(void)close(fd);
	return port;
}

static char *change(struct autopub *a, uint16_t port, bool open, int64_t now, bool want_changed)
{
	bool changed;
	char *line = autopub_change(a, port, open, now, &changed);

	CHECK(changed == want_changed);
	return line;
}

TEST(a_listener_becomes_a_port_of_loopback_and_ends_with_it)
{
	AUTO_FREE(char, opened);
	AUTO_FREE(char, want);
	AUTO_FREE(char, at);
	AUTO_FREE(char, closed);
	AUTO_FREE(char, brief);
	uint16_t port = free_port();
	struct strv list = { 0 };
	int64_t now = now_ns();
	int vault[2], fd, again;
	struct autopub *a = begin(vault, NULL);

	opened = change(a, port, true, now, true);
	want = xasprintf("port %u: 127.0.0.1:%u -> %u/tcp", port, port, port);
	CHECK_STR(opened, want);
	at = xasprintf("127.0.0.1:%u", port);
	handed(vault[1], port, at, &fd);
	CHECK_INT(port_of(fd), ==, port);
	if (port_has_loopback6()) {
		free(at);
		at = xasprintf("[::1]:%u", port);
		handed(vault[1], port, at, &again);
		(void)close(again);
	}
	CHECK(!change(a, port, true, now, false)); /* said twice */
	autopub_list(a, &list);
	brief = xasprintf("127.0.0.1:%u->%u/tcp", port, port);
	CHECK_INT(list.n, ==, 1);
	CHECK_STR(list.v[0], brief);
	strv_done(&list);
	/* The vault still holds its copy, and yet the port is free. */
	closed = change(a, port, false, now, true);
	free(want);
	want = xasprintf("port %u: closed", port);
	CHECK_STR(closed, want);
	again = port_socket(AF_INET, lo4, port, false);
	CHECK_INT(again, >=, 0);
	(void)close(again);
	(void)close(fd);
	CHECK(!change(a, port, false, now, false));
	autopub_free(a);
	(void)close(vault[0]), (void)close(vault[1]);
}

TEST(a_port_in_use_here_is_moved)
{
	AUTO_FREE(char, line);
	AUTO_FREE(char, want);
	int vault[2], holder = port_socket(AF_INET, lo4, 0, false);
	uint16_t port = port_of(holder);
	struct autopub *a = begin(vault, NULL);
	unsigned at = 0;

	line = change(a, port, true, now_ns(), true);
	CHECK_INT(sscanf(strstr(line, "127.0.0.1:") + 10, "%u", &at), ==, 1);
	CHECK(at > port && at <= (unsigned)port + 100);
	want = xasprintf("port %u: 127.0.0.1:%u -> %u/tcp (%u is in use here)", port, at, port, port);
	CHECK_STR(line, want);
	autopub_free(a);
	(void)close(holder), (void)close(vault[0]), (void)close(vault[1]);
}

TEST(low_ports_and_those_that_are_published_are_not_published_again)
{
	struct publish one = { .host = 1, .guest = 40000 }, udp = { .host = 2, .guest = 40001, .udp = true };
	struct ports taken = { .what = (struct publish[]){ one, udp }, .n_what = 2 };
	AUTO_FREE(char, line);
	int vault[2];
	struct autopub *a = begin(vault, &taken);

	CHECK(!change(a, 80, true, now_ns(), false));
	CHECK(!change(a, 1023, true, now_ns(), false));
	CHECK(!change(a, 40000, true, now_ns(), false));
	line = change(a, 40001, true, now_ns(), true);
	CHECK(line);
	autopub_free(a);
	(void)close(vault[0]), (void)close(vault[1]);
}

static void read_all(int vault)
{
	struct vault_listen l;
	int fd;

	CHECK_INT(fd_nonblock(vault, true), ==, 0);
	while (fd_recv(vault, &l, sizeof(l), &fd, 1) > 0)
		(void)close(fd);
}

TEST(the_33rd_is_refused_and_a_port_that_closes_makes_room)
{
	int vault[2];
	struct autopub *a = begin(vault, NULL);
	AUTO_FREE(char, line);
	struct strv list = { 0 };

	for (uint16_t i = 0; i < AUTOPUB_MAX; i++) {
		free(change(a, (uint16_t)(42000 + i), true, now_ns(), true));
		read_all(vault[1]);
	}
	line = change(a, 43000, true, now_ns(), false);
	CHECK_STR(line, "port 43000: not published, 32 ports are published already");
	CHECK(!change(a, 43000, false, now_ns(), false));
	free(change(a, 42007, false, now_ns(), true));
	free(change(a, 43000, true, now_ns(), true));
	CHECK(!change(a, 0, false, now_ns(), true)); /* the guest's watcher is gone */
	autopub_list(a, &list);
	CHECK_INT(list.n, ==, 0);
	autopub_free(a);
	(void)close(vault[0]), (void)close(vault[1]);
}

/* A guest that opens and closes as fast as it can: 64 at once, 10 a second. */
TEST(changes_are_bounded_in_time)
{
	int vault[2];
	struct autopub *a = begin(vault, NULL);
	int64_t now = now_ns() + S;
	size_t opened = 0;
	bool changed;

	for (unsigned i = 0; i < 100000; i++) {
		uint16_t port = (uint16_t)(44000 + i % 1000);

		now += S / 10000; /* 10 s in all */
		free(autopub_change(a, port, true, now, &changed));
		opened += changed;
		free(autopub_change(a, port, false, now, &changed));
		if (i % 100 == 0)
			read_all(vault[1]);
	}
	CHECK_INT(opened, >=, 64 + 99);
	CHECK_INT(opened, <=, 64 + 101);
	autopub_free(a);
	(void)close(vault[0]), (void)close(vault[1]);
}

TEST(a_vault_that_does_not_read_stops_nothing)
{
	int vault[2];
	struct autopub *a = begin(vault, NULL);
	size_t failed = 0;
	int64_t now = now_ns();
	bool changed;

	for (unsigned i = 0; i < 5000; i++) {
		char *line = autopub_change(a, (uint16_t)(45000 + i % 1000), true, now += S, &changed);

		failed += line && strstr(line, "not published: ") != NULL;
		free(line);
		free(autopub_change(a, (uint16_t)(45000 + i % 1000), false, now, &changed));
	}
	CHECK_INT(failed, >, 0);
	autopub_free(a);
	(void)close(vault[0]), (void)close(vault[1]);
}
