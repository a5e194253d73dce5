#include "session/aside.h"

#include "files.h"

static bool is_link(const char *dir, const char *name)
{
	AUTO_FREE(char, path);
	struct stat st;

	path = files_at(dir, name);
	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* The state root. */
static int root_at(const char *dir)
{
	AUTO_FREE(char, path);
	int root;

	files_sh(dir, "mkdir -p root/run");
	path = files_at(dir, "root");
	root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(root >= 0);
	return root;
}

TEST(what_is_as_it_should_be_stays)
{
	char *dir = files_tmp("/tmp");
	struct strv lines = { 0 };
	int root = root_at(dir), fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err err;

	files_sh(dir, "mkdir claude codex && echo x > bash_history && echo y > claude.json");
	CHECK_INT(aside_check(root, fd, dir, &lines, &err), ==, 0);
	CHECK_INT(lines.n, ==, 0);
	files_sh(dir, "test -d claude && grep x bash_history && ! ls *.agent-vm-bad");
	close(root);
	close(fd);
	files_rm(dir);
}

TEST(links_folders_and_endless_files_are_renamed_with_a_line)
{
	char *dir = files_tmp("/tmp");
	struct strv lines = { 0 };
	int root = root_at(dir), fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FREE(char, want);
	struct err err;

	files_sh(dir, "mkdir out && echo keep > out/f && ln -s out/f bash_history && ln -s out claude && mkdir gitconfig && "
		      "touch gitconfig/x && mkfifo codex && mkdir bash_history.agent-vm-bad && "
		      "touch bash_history.agent-vm-bad/old && echo f > copilot");
	CHECK_INT(aside_check(root, fd, dir, &lines, &err), ==, 0);
	CHECK_INT(lines.n, ==, 5);
	want = xasprintf("%s/claude: is a link; it was renamed claude.agent-vm-bad, and a new one is used", dir);
	CHECK_STR(lines.v[0], want);
	CHECK(is_link(dir, "bash_history.agent-vm-bad") && is_link(dir, "claude.agent-vm-bad"));
	files_sh(dir, "test ! -e claude && test ! -e bash_history && test ! -e gitconfig && test ! -e codex && test ! -e copilot && "
		      "test -d gitconfig.agent-vm-bad && grep keep out/f");
	files_sh(dir, "truncate -s 9M bash_history");
	strv_done(&lines);
	CHECK_INT(aside_check(root, fd, dir, &lines, &err), ==, 0);
	CHECK_INT(lines.n, ==, 1);
	CHECK(!is_link(dir, "bash_history.agent-vm-bad"));
	files_sh(dir, "grep keep out/f && test -e root/run/trash/*/old");
	strv_done(&lines);
	close(root);
	close(fd);
	files_rm(dir);
}
