#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "vault/source.h"

#define FILE_OF(token) "{\"claudeAiOauth\":{\"accessToken\":\"" token "\",\"refreshToken\":\"refresh-0123456789\"}}"

static struct {
	char path[64];
	int fd;
	struct source s;
} t;

static void write_file(const char *text)
{
	int fd = openat(t.fd, "c.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_INT(fd_write_all(fd, text, strlen(text)), ==, 0);
	(void)close(fd);
}

static void begin(void)
{
	static bool open_;
	struct err err;

	if (!open_)
		CHECK_INT(secret_arena_open(SECRET_ARENA, &err), ==, 0);
	open_ = true;
	(void)snprintf(t.path, sizeof(t.path), "/tmp/source.XXXXXX");
	CHECK(mkdtemp(t.path) != NULL);
	t.fd = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	source_init(&t.s, SOURCE_ANTHROPIC, t.fd, "c.json", geteuid());
}

static void end(void)
{
	source_done(&t.s);
	(void)close(t.fd);
	(void)file_remove_tree_at(AT_FDCWD, t.path);
}

static bool has(const char *token)
{
	return span_is(secret_span(&t.s.login.access), token);
}

TEST(a_change_is_seen_at_the_next_look_and_the_old_token_stays_a_needle)
{
	struct span n[SOURCE_NEEDLES_MAX];

	begin();
	CHECK_INT(source_look(&t.s, 0), ==, -ENOENT);
	write_file(FILE_OF("token-one-0123456"));
	CHECK_INT(source_look(&t.s, 0), ==, 0);
	CHECK(has("token-one-0123456") && t.s.generation == 1);
	CHECK_INT(source_look(&t.s, 1), ==, 0);
	CHECK_INT(t.s.generation, ==, 1);
	write_file(FILE_OF("token-two-6543210")); /* of the same size */
	CHECK_INT(source_look(&t.s, 2), ==, 0);
	CHECK(has("token-two-6543210") && t.s.generation == 2);
	CHECK_INT(source_needles(&t.s, 3, n, SOURCE_NEEDLES_MAX), ==,
		  3); /* two live ones, one old; the refresh token is the same */
	CHECK(span_is(n[2], "token-one-0123456"));
	CHECK_INT(source_needles(&t.s, 2 + SOURCE_OLD_MS - 1, n, SOURCE_NEEDLES_MAX), ==, 3);
	CHECK_INT(source_needles(&t.s, 2 + SOURCE_OLD_MS, n, SOURCE_NEEDLES_MAX), ==, 2);
	CHECK_INT(unlinkat(t.fd, "c.json", 0), ==, 0);
	CHECK_INT(source_look(&t.s, 4), ==, -ENOENT); /* signed out: at once */
	CHECK_INT(t.s.login.access.n, ==, 0);
	end();
}

TEST(a_file_in_the_middle_of_a_write_is_tried_again_then_bridged_then_refused)
{
	int64_t now = 100;

	begin();
	write_file(FILE_OF("token-one-0123456"));
	CHECK_INT(source_look(&t.s, now), ==, 0);
	write_file("{\"claudeAiOauth\":{\"acc");
	for (int i = 0; i < SOURCE_RETRIES; i++) {
		CHECK_INT(source_look(&t.s, now), ==, -EAGAIN);
		CHECK_INT(t.s.retry_at, ==, now + SOURCE_RETRY_MS);
		CHECK_INT(source_look(&t.s, now + 1), ==, -EAGAIN);
		now = t.s.retry_at;
	}
	CHECK_INT(source_look(&t.s, now), ==, 0);
	CHECK(has("token-one-0123456"));
	CHECK_INT(source_look(&t.s, 100 + SOURCE_GOOD_MS - 1), ==, 0);
	CHECK_INT(source_look(&t.s, 100 + SOURCE_GOOD_MS), ==, -EBADMSG);
	write_file(FILE_OF("token-two-0123456"));
	CHECK_INT(source_look(&t.s, 100 + SOURCE_GOOD_MS + 1), ==, 0);
	CHECK(has("token-two-0123456"));
	end();
}

static bool never(int fd, void *arg)
{
	return false;
}

TEST(only_a_regular_file_of_ours_in_its_place_is_read)
{
	begin();
	CHECK_INT(mkfifoat(t.fd, "c.json", 0600), ==, 0);
	CHECK_INT(source_look(&t.s, 0), ==, -EPERM); /* and it did not hang */
	CHECK_INT(unlinkat(t.fd, "c.json", 0), ==, 0);
	CHECK_INT(mkdirat(t.fd, "c.json", 0700), ==, 0);
	CHECK_INT(source_look(&t.s, 0), ==, -EPERM);
	CHECK_INT(unlinkat(t.fd, "c.json", AT_REMOVEDIR), ==, 0);
	write_file(FILE_OF("token-one-0123456"));
	t.s.may = never;
	CHECK_INT(source_look(&t.s, 0), ==, -EPERM);
	t.s.may = NULL;
	if (geteuid() == 0) {
		CHECK_INT(fchownat(t.fd, "c.json", 4711, 4711, 0), ==, 0);
		CHECK_INT(source_look(&t.s, 0), ==, -EPERM);
		CHECK_INT(fchownat(t.fd, "c.json", 0, 0, 0), ==, 0);
	}
	CHECK_INT(fchmodat(t.fd, "c.json", 0602, 0), ==, 0);
	CHECK_INT(source_look(&t.s, 0), ==, -EPERM);
	CHECK_INT(fchmodat(t.fd, "c.json", 0620, 0), ==, 0);
	CHECK_INT(source_look(&t.s, 0), ==, 0);
	/* A link of the user's own is followed. */
	CHECK_INT(renameat(t.fd, "c.json", t.fd, "real.json"), ==, 0);
	CHECK_INT(symlinkat("real.json", t.fd, "c.json"), ==, 0);
	CHECK_INT(source_look(&t.s, 0), ==, 0);
	CHECK(has("token-one-0123456"));
	end();
}

TEST(a_file_above_the_limit_is_not_read)
{
	int fd;

	begin();
	fd = openat(t.fd, "c.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_INT(ftruncate(fd, HOSTFILE_MAX + 1), ==, 0);
	(void)close(fd);
	CHECK_INT(source_look(&t.s, 0), ==, -EPERM);
	end();
}
