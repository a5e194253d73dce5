/* The image's API version, for the launcher and the guest alike. Its words are tested in t-image-store. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "proto/imageapi.h"

#define BLANKS "                                "

static int read_text(const char *path, const char *text, uint32_t *ret)
{
	char found[IMAGE_API_FOUND];
	AUTO_FD(fd);

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_INT(write(fd, text, strlen(text)), ==, (ssize_t)strlen(text));
	return image_api_read(path, ret, found);
}

TEST(what_the_launcher_takes_the_guest_takes)
{
	static const struct {
		const char *text;
		uint32_t want;
	} cases[] = {
		{ "1\n", 1 },
		{ " 1\n", 1 },
		{ "\t\n12\r\n\v\f", 12 },
		{ "1\n" BLANKS BLANKS BLANKS, 1 },
		{ "1\n" BLANKS BLANKS "behind the 32 bytes that are looked at", 1 },
		{ BLANKS "1\n", 0 },
		{ "", 0 },
		{ "x", 0 },
		{ "1 2", 0 },
		{ "4294967297", 0 },
	};
	char path[] = "/tmp/t-proto-imageapi-XXXXXX", found[IMAGE_API_FOUND];
	uint32_t v;
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	(void)close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		v = 77;
		CHECK_INT(read_text(path, cases[i].text, &v), ==, 0);
		CHECK_INT(v, ==, cases[i].want);
		CHECK_INT(image_api_parse(cases[i].text, strlen(cases[i].text), found), ==, cases[i].want);
	}
	(void)unlink(path);
}

TEST(only_a_regular_file_is_read)
{
	char dir[] = "/tmp/t-proto-imageapi-XXXXXX", found[IMAGE_API_FOUND] = "untouched";
	uint32_t v = 77;

	CHECK(mkdtemp(dir) && chdir(dir) == 0);
	CHECK_INT(image_api_read("version", &v, found), ==, -ENOENT);
	CHECK_INT(read_text("real", "1\n", &v), ==, 0);
	CHECK_INT(v, ==, 1);
	v = 77;
	CHECK_INT(symlink("real", "version"), ==, 0);
	CHECK_INT(image_api_read("version", &v, found), ==, -ELOOP);
	CHECK_INT(mkfifo("fifo", 0600), ==, 0);
	CHECK_INT(image_api_read("fifo", &v, found), ==, -EINVAL);
	CHECK_INT(image_api_read(".", &v, found), ==, -EINVAL);
	CHECK_INT(v, ==, 77);
	CHECK_STR(found, "untouched");
	(void)unlink("real");
	(void)unlink("version");
	(void)unlink("fifo");
	CHECK(chdir("/") == 0 && rmdir(dir) == 0);
}
