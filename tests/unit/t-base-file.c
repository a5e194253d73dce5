#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"

static int tmp_dir(void)
{
	char path[] = "/tmp/agent-vm-test-XXXXXX";
	int fd;

	CHECK(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	/* The name goes at once; the folder lives as long as the descriptor needs it to be found by *at calls. */
	return fd;
}

static void tmp_done(int fd)
{
	char link[64], path[256];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	CHECK(n > 0);
	path[n] = '\0';
	CHECK_INT(file_remove_tree_at(AT_FDCWD, path), ==, 0);
	close(fd);
}

TEST(links_dots_and_fifos_are_not_followed)
{
	int dir = tmp_dir();
	char *s = NULL;

	CHECK_INT(symlinkat("/etc/passwd", dir, "link"), ==, 0);
	CHECK_INT(mkfifoat(dir, "fifo", 0600), ==, 0);
	CHECK_INT(file_read_beneath(dir, "link", 1 << 20, &s, NULL), ==, -ELOOP);
	CHECK_INT(file_read_beneath(dir, "../etc/passwd", 1 << 20, &s, NULL), ==, -EXDEV);
	CHECK_INT(file_read_beneath(dir, "/etc/passwd", 1 << 20, &s, NULL), ==, -EXDEV);
	CHECK_INT(file_read_beneath(dir, "fifo", 1 << 20, &s, NULL), ==, -EINVAL);
	CHECK_INT(file_read_beneath(dir, "none", 1 << 20, &s, NULL), ==, -ENOENT);
	CHECK(!s);
	tmp_done(dir);
}

TEST(a_file_is_replaced_whole_with_its_mode)
{
	int dir = tmp_dir();
	mode_t old = umask(0077);
	struct stat st;
	char *s = NULL;
	size_t n;

	CHECK_INT(file_replace_at(dir, "f", "one", 3, 0644), ==, 0);
	CHECK_INT(file_replace_at(dir, "f", "second", 6, 0644), ==, 0);
	CHECK_INT(file_read_beneath(dir, "f", 6, &s, &n), ==, 0);
	CHECK_INT(n, ==, 6);
	CHECK_STR(s, "second");
	free(s);
	CHECK_INT(file_read_beneath(dir, "f", 5, &s, &n), ==, -EFBIG);
	CHECK_INT(fstatat(dir, "f", &st, 0), ==, 0);
	CHECK_INT(st.st_mode & 07777, ==, 0644);
	CHECK_INT(faccessat(dir, ".f.new", F_OK, 0), ==, -1);
	umask(old);
	tmp_done(dir);
}

TEST(a_tree_is_removed_without_leaving_it)
{
	int dir = tmp_dir(), fd;

	CHECK_INT(mkdirat(dir, "keep", 0700), ==, 0);
	fd = openat(dir, "keep/file", O_CREAT | O_WRONLY, 0600);
	close(fd);
	CHECK_INT(mkdirat(dir, "gone", 0700), ==, 0);
	CHECK_INT(mkdirat(dir, "gone/sub", 0700), ==, 0);
	CHECK_INT(symlinkat("../keep", dir, "gone/out"), ==, 0);
	CHECK_INT(file_remove_tree_at(dir, "gone"), ==, 0);
	CHECK_INT(faccessat(dir, "gone", F_OK, AT_SYMLINK_NOFOLLOW), ==, -1);
	CHECK_INT(faccessat(dir, "keep/file", F_OK, 0), ==, 0);
	CHECK_INT(file_remove_tree_at(dir, "gone"), ==, 0);
	tmp_done(dir);
}

/* Deeper than descriptors and path names reach, and a name in the way where what is deep is moved. */
TEST(a_tree_of_any_depth_is_removed)
{
	int dir = tmp_dir(), fd, next;

	CHECK_INT(mkdirat(dir, "gone", 0700), ==, 0);
	CHECK_INT(mkdirat(dir, "gone/moved-0", 0700), ==, 0);
	fd = openat(dir, "gone", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3000; i++) {
		CHECK_INT(mkdirat(fd, "d", 0700), ==, 0);
		CHECK_INT(symlinkat("/", fd, "l"), ==, 0);
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		CHECK(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
	CHECK_INT(file_remove_tree_at(dir, "gone"), ==, 0);
	CHECK_INT(faccessat(dir, "gone", F_OK, AT_SYMLINK_NOFOLLOW), ==, -1);
	tmp_done(dir);
}

static int without_rights(int dir)
{
	int fd;

	if (geteuid() == 0 && (fchown(dir, 65534, 65534) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
		return 1;
	if (mkdirat(dir, "gone", 0700) < 0 || mkdirat(dir, "gone/a", 0700) < 0 || mkdirat(dir, "gone/a/b", 0700) < 0 ||
	    mkdirat(dir, "other", 0500) < 0 || symlinkat("other", dir, "gone/a/l") < 0)
		return 2;
	if (fchmodat(dir, "gone/a/b", 0, 0) < 0 || fchmodat(dir, "gone/a", 0500, 0) < 0 || fchmodat(dir, "gone", 0, 0) < 0)
		return 3;
	fd = dir_open_own(dir, "gone");
	if (fd < 0)
		return 4;
	close(fd);
	if (file_remove_tree_at(dir, "gone") < 0)
		return 5;
	return faccessat(dir, "gone", F_OK, AT_SYMLINK_NOFOLLOW) == 0 || mkdirat(dir, "other/x", 0700) == 0;
}

TEST(a_tree_without_rights_for_its_owner_is_removed)
{
	int dir = tmp_dir(), status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(without_rights(dir));
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK(WIFEXITED(status));
	CHECK_INT(WEXITSTATUS(status), ==, 0);
	tmp_done(dir);
}

TEST(a_removal_ends_when_its_time_is_over)
{
	int dir = tmp_dir();

	CHECK_INT(mkdirat(dir, "gone", 0700), ==, 0);
	CHECK_INT(mkdirat(dir, "gone/sub", 0700), ==, 0);
	CHECK_INT(file_remove_tree_within(dir, "gone", -1), ==, -ETIME);
	CHECK_INT(faccessat(dir, "gone/sub", F_OK, 0), ==, 0);
	CHECK_INT(file_remove_tree_within(dir, "gone", 600000), ==, 0);
	CHECK_INT(faccessat(dir, "gone", F_OK, AT_SYMLINK_NOFOLLOW), ==, -1);
	tmp_done(dir);
}

TEST(a_tree_takes_what_its_files_have_allocated)
{
	char dir[] = "/tmp/t-file-tree-XXXXXX", path[64];
	struct stat st, top;
	uint64_t before;
	int fd;

	CHECK(mkdtemp(dir));
	before = file_tree_allocated_at(AT_FDCWD, dir);
	CHECK_INT(stat(dir, &top), ==, 0);
	CHECK_INT(before, ==, top.st_blocks * 512);
	(void)snprintf(path, sizeof(path), "%s/sub", dir);
	CHECK_INT(mkdir(path, 0700), ==, 0);
	(void)snprintf(path, sizeof(path), "%s/sub/f", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	/* Blocks count, not the length. */
	CHECK(fd >= 0 && ftruncate(fd, 100 << 20) == 0 && pwrite(fd, "x", 1, 0) == 1 && fsync(fd) == 0 && fstat(fd, &st) == 0);
	close(fd);
	(void)snprintf(path, sizeof(path), "%s/sub/link", dir);
	CHECK_INT(symlink("/usr", path), ==, 0);
	CHECK_INT(file_tree_allocated_at(AT_FDCWD, dir), >=, before + (uint64_t)st.st_blocks * 512);
	CHECK_INT(file_tree_allocated_at(AT_FDCWD, dir), <, 1 << 20);
	CHECK_INT(file_tree_allocated_at(AT_FDCWD, "/tmp/t-file-none"), ==, 0);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, dir), ==, 0);
}

TEST(folders_are_made_with_their_mode_whatever_the_umask)
{
	char base[] = "/tmp/agent-vm-test-XXXXXX", path[64];
	mode_t old = umask(0);
	struct stat st;
	struct err err;
	int fd;

	CHECK(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/a/b", base);
	fd = dir_open_made(path, 0700, &err);
	CHECK(fd >= 0);
	CHECK_INT(fstat(fd, &st), ==, 0);
	CHECK_INT(st.st_mode & 07777, ==, 0700);
	close(fd);
	umask(old);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, base), ==, 0);
}
