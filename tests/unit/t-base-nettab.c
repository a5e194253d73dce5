#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/nettab.h"

/* As Linux prints them on a machine of this byte order; the tests' machines are little endian. */
#define ROW4 "   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 48211 1 ffff9a 100 0 0 10 0"
#define ROW6 "  12: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 " \
	     "00000000     0        0 7 1 ffff9a 100 0 0 10 0"
#define UDP4 "  991: 0200A8C0:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18446744073709551615 2 f 0"

static struct nettab good(const char *line, int family)
{
	struct nettab t;

	CHECK_INT(nettab_line(line, strlen(line), family, &t), ==, 0);
	return t;
}

TEST(rows_of_each_table_are_read)
{
	struct nettab t = good(ROW4, AF_INET);

	CHECK(t.family == AF_INET && t.port == 8080 && t.state == NETTAB_LISTEN && t.inode == 48211);
	CHECK(memcmp(t.addr, (uint8_t[]){ 127, 0, 0, 1 }, 4) == 0);
	t = good(ROW6, AF_INET6);
	CHECK(t.port == 3000 && t.inode == 7 && t.state == NETTAB_LISTEN);
	CHECK(memcmp(t.addr, &in6addr_loopback, 16) == 0);
	t = good(UDP4, AF_INET);
	CHECK(t.port == 53 && t.state == 7 && t.inode == UINT64_MAX);
	CHECK(memcmp(t.addr, (uint8_t[]){ 192, 168, 0, 2 }, 4) == 0);
}

static void bad(const char *line, int family)
{
	struct nettab t = { .port = 77 };

	if (nettab_line(line, strlen(line), family, &t) != -EBADMSG || t.port != 77)
		fail_msg("taken: '%s'", line);
}

TEST(what_is_no_row_is_refused)
{
	static const char *const lines[] = {
		"", " ", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		"0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0",				/* one field short */
		"0: 0100007F1F90 00000000:0000 0A 0:0 0:0 0 0 0 1", "0: 0100007F:1F9 00000000:0000 0A 0:0 0:0 0 0 0 1",
		"0: 0100007F:1F900 0:0 0A 0:0 0:0 0 0 0 1", "0: 0100007G:1F90 0:0 0A 0:0 0:0 0 0 0 1",
		"0: 0100007F:1F90 0:0 100 0:0 0:0 0 0 0 1", "0: 0100007F:1F90 0:0 0A 0:0 0:0 0 0 0 18446744073709551616",
		"0: 0100007F:1F90 0:0 0A 0:0 0:0 0 0 0 -1", "0: 0100007F:1F90 0:0 0A 0:0 0:0 0 0 0 1A", ROW6,
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		bad(lines[i], AF_INET);
	bad(ROW4, AF_INET6);
}

struct count {
	size_t n, stop_at;
	uint16_t last;
};

static int on_row(const struct nettab *t, void *arg)
{
	struct count *c = arg;

	c->last = t->port;
	return ++c->n == c->stop_at ? 7 : 0;
}

static int table_of(size_t rows, const char *end)
{
	int fd = memfd_create("table", MFD_CLOEXEC);

	CHECK(fd >= 0 && dprintf(fd, "  sl  local_address ...\n") > 0);
	for (size_t i = 0; i < rows; i++)
		CHECK(dprintf(fd, "%zu: 0100007F:%04zX 00000000:0000 0A 0:0 0:0 0 0 0 %zu 1 x\n", i, i, i) > 0);
	CHECK(write(fd, end, strlen(end)) == (ssize_t)strlen(end));
	return fd;
}

TEST(tables_are_read_in_pieces_to_the_end_or_the_limit)
{
	struct count c = { 0 };
	int fd = table_of(5000, "cut row");
	char *long_row;

	CHECK_INT(nettab_read(fd, AF_INET, 100000, on_row, &c), ==, 0);
	CHECK_INT(c.n, ==, 5000);
	CHECK_INT(c.last, ==, 4999);
	c = (struct count){ 0 };
	CHECK_INT(nettab_read(fd, AF_INET, 1000, on_row, &c), ==, 0); /* again from the beginning */
	CHECK_INT(c.n, ==, 1000);
	c = (struct count){ .stop_at = 3 };
	CHECK_INT(nettab_read(fd, AF_INET, 1000, on_row, &c), ==, 7);
	CHECK_INT(c.last, ==, 2);
	(void)close(fd);
	long_row = malloc(20000);
	CHECK(long_row);
	memset(long_row, 'x', 19999);
	long_row[19999] = '\0';
	fd = table_of(3, long_row);
	c = (struct count){ 0 };
	CHECK_INT(nettab_read(fd, AF_INET, 1000, on_row, &c), ==, -EBADMSG);
	CHECK_INT(c.n, ==, 3);
	free(long_row);
	(void)close(fd);
}

struct wanted {
	uint16_t port;
	uint64_t inode; /* others listen as well, perhaps on the same port as soon as it is free */
};

static int find_listener(const struct nettab *t, void *arg)
{
	const struct wanted *w = arg;

	return t->port == w->port && t->inode == w->inode && t->state == NETTAB_LISTEN;
}

TEST(the_kernels_own_table_shows_a_listener)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = open("/proc/net/tcp", O_RDONLY | O_CLOEXEC);
	socklen_t n = sizeof(sa);
	struct wanted w;
	struct stat st;

	CHECK(s >= 0 && fd >= 0 && bind(s, (struct sockaddr *)&sa, n) == 0 && listen(s, 1) == 0);
	CHECK_INT(getsockname(s, (struct sockaddr *)&sa, &n), ==, 0);
	CHECK_INT(fstat(s, &st), ==, 0);
	w = (struct wanted){ ntohs(sa.sin_port), st.st_ino };
	CHECK_INT(nettab_read(fd, AF_INET, 100000, find_listener, &w), ==, 1);
	(void)close(s);
	CHECK_INT(nettab_read(fd, AF_INET, 100000, find_listener, &w), ==, 0);
	(void)close(fd);
}
