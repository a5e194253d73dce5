#include "state.h"

static void hash_is(const char *path, size_t n, const char *want)
{
	char hash[PROJECT_HASH_LEN + 1];

	project_hash(path, n, hash);
	CHECK_STR(hash, want);
}

TEST(hash_vectors)
{
	hash_is("/some/project", 13, "a0317725f24b");
	hash_is("/home/user/proj", 15, "7d73bf4fdeae");
	hash_is("/srv/my project", 15, "0dab8028dcfb");
	hash_is("/srv/\xd0\xbf\xd1\x80\xd0\xbe\xd0\xb5\xd0\xba\xd1\x82", 17, "0c8698174a46");
	hash_is("/srv/a\xff" "b", 8, "9d8029afe81c");
	hash_is("/", 1, "8a5edab28263");
}

TEST(session_names)
{
	char name[SESSION_NAME_MAX + 1];

	session_name("7d73bf4fdeae", 4711, 1, name);
	CHECK_STR(name, "agent-vm-7d73bf4fdeae-4711");
	CHECK(session_name_is_ours(name));
	session_name("7d73bf4fdeae", 4711, 2, name);
	CHECK_STR(name, "agent-vm-7d73bf4fdeae-4711-2");
	CHECK(session_name_is_ours(name));
	CHECK(!session_name_is_ours("agent-vm-"));
	CHECK(!session_name_is_ours("agent-vm-7d73bf4fdeae"));
	CHECK(!session_name_is_ours("agent-vm-7d73bf4fdeae-"));
	CHECK(!session_name_is_ours("agent-vm-7d73bf4fdeae-1/../x"));
	CHECK(!session_name_is_ours("agent-vm-7d73bf4fdeaeff-1"));
	CHECK(!session_name_is_ours("."));
}

/* The state root's path; stays until the next call. */
static const char *root_path(void)
{
	static char *path;
	char *warning = NULL;
	struct err err;

	free(path);
	path = NULL;
	if (state_root_path(&path, &warning, &err) < 0)
		fail_msg("%s", err.text);
	CHECK(!warning);
	return path;
}

TEST(root_comes_from_the_first_variable_that_is_not_empty)
{
	char *path = NULL, *warning = NULL;
	struct err err;

	(void)setenv("HOME", "/home/u", 1);
	(void)setenv("XDG_STATE_HOME", "/x", 1);
	(void)setenv("AGENT_VM_STATE_DIR", "/s", 1);
	CHECK_STR(root_path(), "/s");
	(void)setenv("AGENT_VM_STATE_DIR", "", 1);
	CHECK_STR(root_path(), "/x/agent-vm");
	(void)setenv("XDG_STATE_HOME", "", 1);
	CHECK_STR(root_path(), "/home/u/.local/state/agent-vm");
	(void)unsetenv("HOME");
	CHECK(str_starts(root_path(), "/"));
	(void)setenv("HOME", "/home/u", 1);

	(void)setenv("XDG_STATE_HOME", "rel", 1);
	CHECK_INT(state_root_path(&path, &warning, &err), ==, 0);
	CHECK_STR(path, "/home/u/.local/state/agent-vm");
	CHECK(warning && strstr(warning, "XDG_STATE_HOME=rel"));

	free(path);
	free(warning);
	path = warning = NULL;
	(void)setenv("AGENT_VM_STATE_DIR", "rel", 1);
	CHECK_INT(state_root_path(&path, &warning, &err), ==, -EINVAL);
	CHECK(!path);
	CHECK(strstr(err.text, "AGENT_VM_STATE_DIR=rel"));
}

static void modes_below(int dirfd)
{
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *e;
	struct stat st;

	CHECK(d);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, "..") == 0)
			continue;
		CHECK_INT(fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW), ==, 0);
		if (S_ISDIR(st.st_mode) && (st.st_mode & 07777) != 0700)
			fail_msg("%s: mode %o", e->d_name, st.st_mode & 07777);
		if (!S_ISDIR(st.st_mode) && (st.st_mode & 07777) != 0600)
			fail_msg("%s: mode %o", e->d_name, st.st_mode & 07777);
		if (S_ISDIR(st.st_mode) && strcmp(e->d_name, ".") != 0) {
			int fd = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			modes_below(fd);
			(void)close(fd);
		}
	}
	(void)closedir(d);
}

static void modes_with_umask(mode_t mask)
{
	struct session s = SESSION_INIT;
	mode_t old = umask(mask);
	struct state t;
	struct err err;
	int sock = -1;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(session_listen(s.dir_fd, SESSION_SOCK, &sock), ==, 0);
	modes_below(t.root.fd);
	(void)umask(old);
	(void)close(sock);
	session_done(&s);
	state_end(&t);
}

TEST(modes_do_not_depend_on_the_umask)
{
	modes_with_umask(0);
	modes_with_umask(0277);
}

TEST(root_that_others_can_enter_is_narrowed)
{
	struct state_root root = STATE_ROOT_INIT;
	struct state t;
	struct stat st;
	struct err err;

	state_begin(&t);
	CHECK_INT(fchmod(t.root.fd, 0755), ==, 0);
	CHECK_INT(state_root_open(t.root.path, true, &root, &err), ==, 0);
	CHECK_INT(fstat(root.fd, &st), ==, 0);
	CHECK_INT(st.st_mode & 07777, ==, 0700);
	state_root_close(&root);
	state_end(&t);
}

TEST(root_of_somebody_else_is_refused)
{
	struct state_root root = STATE_ROOT_INIT;
	struct state t;
	struct err err;

	if (geteuid() == 0) {
		state_begin(&t);
		CHECK_INT(fchown(t.root.fd, 12345, 12345), ==, 0);
		CHECK_INT(state_root_check(t.root.path, &err), ==, -EPERM);
		CHECK_INT(state_root_open(t.root.path, true, &root, &err), ==, -EPERM);
		CHECK(strstr(err.text, "uid 12345") && strstr(err.text, "AGENT_VM_STATE_DIR"));
		state_end(&t);
		return;
	}
	CHECK_INT(state_root_check("/usr", &err), ==, -EPERM);
	CHECK_INT(state_root_open("/usr", false, &root, &err), ==, -EPERM);
	CHECK(strstr(err.text, "uid 0"));
	CHECK(!root.path);
}

TEST(check_writes_nothing_and_open_without_make_neither)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, file);
	struct state t;
	struct err err;

	state_begin(&t);
	path = xasprintf("%s/a/b/c", t.dir);
	CHECK_INT(state_root_check(path, &err), ==, 0);
	CHECK_INT(state_root_open(path, false, &root, &err), ==, -ENOENT);
	CHECK_INT(access(t.dir, F_OK), ==, 0);
	path[strlen(t.dir) + 2] = '\0'; /* DIR/a */
	CHECK(access(path, F_OK) < 0);
	file = xasprintf("%s/file", t.dir);
	CHECK_INT(close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), ==, 0);
	CHECK_INT(state_root_check(file, &err), ==, -ENOTDIR);
	free(path);
	path = xasprintf("%s/below", file);
	CHECK_INT(state_root_check(path, &err), ==, -ENOTDIR);
	CHECK_INT(state_root_open(path, true, &root, &err), ==, -ENOTDIR);
	CHECK(strstr(err.text, "AGENT_VM_STATE_DIR"));
	if (geteuid() != 0)
		CHECK_INT(state_root_check("/usr/nowhere/x", &err), ==, -EACCES);
	state_end(&t);
}

TEST(a_root_with_a_folder_missing_is_a_root_and_a_folder_of_others_is_none)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, other);
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(mkdirat(t.root.fd, STATE_IMAGES, 0700), ==, 0);
	CHECK_INT(unlinkat(t.root.fd, STATE_CACHE, AT_REMOVEDIR), ==, 0);
	CHECK_INT(state_root_open(t.root.path, false, &root, &err), ==, 0);
	CHECK(root.cache_fd >= 0 && exists(root.fd, STATE_CACHE));
	state_root_close(&root);

	other = xasprintf("%s/other-root", t.dir);
	CHECK_INT(mkdir(other, 0700), ==, 0);
	CHECK_INT(state_root_open(other, false, &root, &err), ==, -ENOENT);
	CHECK_INT(rmdir(other), ==, 0); /* still empty */
	state_end(&t);
}

TEST(the_check_of_locks_leaves_one_file_and_sweeps_those_of_killed_commands)
{
	struct state_root root = STATE_ROOT_INIT;
	struct state t;
	struct err err;
	pid_t pids[8];
	int status;

	state_begin(&t);
	CHECK_INT(close(openat(t.root.locks_fd, ".flock-check.4711.123456", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), ==, 0);
	CHECK_INT(close(openat(t.root.locks_fd, "a0317725f24b", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), ==, 0);
	CHECK_INT(state_root_open(t.root.path, false, &root, &err), ==, 0);
	state_root_close(&root);
	CHECK(!exists(t.root.locks_fd, ".flock-check.4711.123456"));
	CHECK(exists(t.root.locks_fd, ".flock-check"));
	CHECK(exists(t.root.locks_fd, "a0317725f24b"));
	/* many at once do not see each other's */
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			for (int k = 0; k < 200; k++) {
				if (state_root_open(t.root.path, true, &root, &err) < 0)
					_exit(1);
				state_root_close(&root);
			}
			_exit(0);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		CHECK_INT(waitpid(pids[i], &status, 0), ==, pids[i]);
		CHECK_INT(status, ==, 0);
	}
	state_end(&t);
}

TEST(project_is_the_folder_behind_links)
{
	struct project p = PROJECT_INIT;
	AUTO_FREE(char, want);
	struct state t;
	struct err err;

	state_begin(&t);
	want = xasprintf("%s/proj", t.dir);
	CHECK_INT(symlink("proj", "../link"), ==, 0);
	CHECK_INT(chdir("../link"), ==, 0);
	(void)setenv("PWD", "/elsewhere", 1);
	CHECK_INT(project_open_cwd(&p, &err), ==, 0);
	CHECK_STR(p.path, want);
	CHECK_STR(p.hash, t.project.hash);
	project_close(&p);
	state_end(&t);
}

TEST(folder_that_is_gone_is_no_project)
{
	struct project p = PROJECT_INIT;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(chdir("../other"), ==, 0);
	CHECK_INT(rmdir("../other"), ==, 0);
	CHECK_INT(project_open_cwd(&p, &err), ==, -ENOENT);
	CHECK(strstr(err.text, "removed"));
	CHECK(!p.path);
	state_end(&t);
}

TEST(what_the_older_program_left)
{
	struct session s = SESSION_INIT;
	AUTO_FREE(char, secrets);
	AUTO_FREE(char, warning);
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK(!older_secrets_warning(&t.root, t.project.hash));
	secrets = xasprintf("%s.secrets", t.project.hash);
	CHECK_INT(mkdirat(t.root.fd, secrets, 0700), ==, 0);
	warning = older_secrets_warning(&t.root, t.project.hash);
	CHECK(warning && strstr(warning, secrets));

	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(mkdirat(s.state_fd, "tokens", 0700), ==, 0);
	CHECK_INT(file_replace_at(t.root.fd, "victim", "x", 1, 0600), ==, 0);
	CHECK_INT(symlinkat("../../victim", s.state_fd, "tokens/link"), ==, 0);
	CHECK_INT(older_tokens_remove(t.root.fd, s.state_fd, s.state_path, &err), ==, 0);
	CHECK(!exists(s.state_fd, "tokens"));
	CHECK_INT(symlinkat("..", s.state_fd, "tokens"), ==, 0);
	CHECK_INT(older_tokens_remove(t.root.fd, s.state_fd, s.state_path, &err), ==, 0);
	CHECK(!exists(s.state_fd, "tokens"));
	CHECK(exists(t.root.fd, "victim"));
	/* What cannot be removed in any time is out of the guest's sight all the same. */
	CHECK_INT(mkdirat(s.state_fd, "tokens", 0700), ==, 0);
	CHECK_INT(mkdirat(s.state_fd, "tokens/a", 0700), ==, 0);
	CHECK_INT(fchmodat(s.state_fd, "tokens", 0, 0), ==, 0);
	CHECK_INT(older_tokens_remove(t.root.fd, s.state_fd, s.state_path, &err), ==, 0);
	CHECK(!exists(s.state_fd, "tokens"));
	trash_empty(t.root.fd, -1);
	CHECK(exists(t.root.fd, "run/trash"));
	CHECK(exists(t.root.fd, "victim"));
	trash_empty(t.root.fd, 0);
	CHECK(!exists(t.root.fd, "run/trash"));
	CHECK_INT(older_tokens_remove(t.root.fd, s.state_fd, s.state_path, &err), ==, 0);
	session_done(&s);
	state_end(&t);
}

TEST(one_launch_empties_the_trash_as_another_fills_it)
{
	struct state t;
	pid_t pid;

	state_begin(&t);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (pid == 0)
		trash_empty(t.root.fd, 0);
	for (int i = 0; i < 500; i++) {
		CHECK_INT(mkdirat(t.root.fd, "left", 0700), ==, 0);
		CHECK_INT(trash_put(t.root.fd, t.root.fd, "left"), ==, 0);
		CHECK(!exists(t.root.fd, "left"));
	}
	CHECK_INT(kill(pid, SIGKILL), ==, 0);
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	trash_empty(t.root.fd, 0);
	state_end(&t);
}
