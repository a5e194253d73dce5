#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/capture.h"

static struct capture cap;
static int writer;
static char path[64];

static void start(void)
{
	int fd;

	(void)snprintf(path, sizeof(path), "/tmp/t-cli-capture.XXXXXX");
	fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK_INT(capture_open(&cap, fd, &writer), ==, 0);
}

/* Everything that was written to the file; caller frees. */
static char *finish(size_t *ret_n)
{
	char *text;
	int fd;

	if (writer >= 0)
		(void)close(writer);
	capture_close(&cap);
	CHECK_INT(cap.pipe_fd, ==, -1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_INT(fd_read_file(fd, 4 << 20, &text, ret_n), ==, 0);
	(void)close(fd);
	(void)unlink(path);
	return text;
}

static void put(const char *s, size_t n)
{
	CHECK_INT(write(writer, s, n), ==, (ssize_t)n);
	CHECK_INT(capture_read(&cap), ==, 1);
}

TEST(a_short_log_is_whole)
{
	AUTO_FREE(char, last);
	char *text;
	size_t n;

	start();
	put("one\n", 4);
	put("two\r\n\n", 6);
	last = capture_last_line(&cap);
	CHECK_STR(last, "two");
	text = finish(&n);
	CHECK_STR(text, "one\ntwo\r\n\n");
	free(text);
}

TEST(the_last_line_is_the_one_at_hand_escaped_and_cut)
{
	AUTO_FREE(char, none);
	AUTO_FREE(char, last);
	AUTO_FREE(char, cut);
	char block[1000];
	size_t n;

	start();
	none = capture_last_line(&cap);
	CHECK_STR(none, "");
	put("done\nkernel \x1b[2Jpanic", 21);
	last = capture_last_line(&cap);
	CHECK_STR(last, "kernel \\x1b[2Jpanic");
	memset(block, 'x', sizeof(block));
	put(block, sizeof(block));
	cut = capture_last_line(&cap);
	CHECK_INT(strlen(cut), <, CAPTURE_LINE + 8);
	free(finish(&n));
}

TEST(a_flood_keeps_the_first_and_the_last_bytes)
{
	const size_t most = CAPTURE_HEAD + CAPTURE_TAIL;
	char line[64], want[64], *text;
	size_t n, lines = 100000, len = 10;

	start();
	for (size_t i = 0; i < lines; i++) {
		(void)snprintf(line, sizeof(line), "%09zu\n", i);
		put(line, len);
	}
	text = finish(&n);
	CHECK_INT(n, >, most);
	CHECK_INT(n, <, most + 100);
	CHECK(strncmp(text, "000000000\n000000001\n", 20) == 0);
	CHECK_STR(text + n - len, "000099999\n");
	(void)snprintf(want, sizeof(want), "\n[%zu bytes are left out here]\n", lines * len - most);
	CHECK(strncmp(text + CAPTURE_HEAD, want, strlen(want)) == 0);
	/* what follows the gap is in order and without a hole */
	for (size_t i = 0; i < CAPTURE_TAIL / len; i++) {
		(void)snprintf(line, sizeof(line), "%09zu\n", lines - 1 - i);
		CHECK(strncmp(text + n - len * (i + 1), line, len) == 0);
	}
	free(text);
}

TEST(a_log_a_little_longer_than_its_head_is_whole)
{
	char block[4096], *text;
	size_t n;

	start();
	memset(block, 'a', sizeof(block));
	for (size_t i = 0; i < CAPTURE_HEAD / sizeof(block); i++)
		put(block, sizeof(block));
	put("tail", 4);
	text = finish(&n);
	CHECK_INT(n, ==, CAPTURE_HEAD + 4);
	CHECK_STR(text + CAPTURE_HEAD - 1, "atail");
	free(text);
}

TEST(the_writer_never_waits_and_hears_of_a_reader_that_is_gone)
{
	char block[65536] = { 0 };
	ssize_t k;
	size_t n;

	start();
	while ((k = write(writer, block, sizeof(block))) > 0)
		;
	CHECK_INT(k, ==, -1);
	CHECK_INT(errno, ==, EAGAIN);
	capture_close(&cap);
	(void)signal(SIGPIPE, SIG_IGN);
	CHECK_INT(write(writer, block, 1), ==, -1);
	CHECK_INT(errno, ==, EPIPE);
	free(finish(&n));
	CHECK_INT(n, >=, 65536);
}

TEST(the_end_of_the_last_writer_is_told)
{
	size_t n;

	start();
	CHECK_INT(capture_read(&cap), ==, 1);
	(void)close(writer);
	writer = -1;
	CHECK_INT(capture_read(&cap), ==, 0);
	free(finish(&n));
	CHECK_INT(n, ==, 0);
	capture_close(&cap); /* harmless */
}
